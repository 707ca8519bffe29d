"""Whether a model computes with this library's code alone, or with code of the caller's too.

The engine has a way of its own: texts become unpadded tokens, and batches run without padding. It is taken only where
nothing on it was overridden, patched or hooked: otherwise texts go through `preprocess` of the model and `forward` of
each module, in padded batches, in the caller's thread, as they do in every other program that calls the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn
from torch.nn.modules import module as globally

from sentence_transformers.backends import boundary
from sentence_transformers.backends.prepacked import LayerForward
from sentence_transformers.inference.inputs import own_preprocess

LIBRARIES = ("sentence_transformers.", "torch.", "transformers.", "transformers_modules.", "peft.")
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
OWN_HOOKS = (boundary.give_packed, boundary.pad_output)
GLOBAL_HOOKS = ("_global_forward_hooks", "_global_forward_pre_hooks")


def is_untouched(model: Any) -> bool:
    """Whether nothing between the inputs and outputs of a model, or of a loss with its model, is the caller's."""
    return next(extensions(model), None) is None


def extensions(model: Any, dispatched: bool = False) -> Iterator[str]:
    """What of a model is not this library's, PyTorch's or transformers': a sentence for each.

    Args:
        dispatched: pass over what accelerate does to bring weights and inputs together (`device_map`).
    """
    if any(getattr(globally, name, None) for name in GLOBAL_HOOKS):
        yield "hooks are set on all modules"
    kinds: dict[type, nn.Module] = {}
    stack: list[nn.Module | None] = [model]
    while stack:  # all layers of a model, at every call: as little as possible for each
        part = stack.pop()
        if part is None:
            continue
        own = part.__dict__
        get = own.get
        kinds[type(part)] = part
        if (
            get("_forward_hooks") or get("_forward_pre_hooks") or get("_backward_hooks") or get("_backward_pre_hooks")
        ) and any(hook not in OWN_HOOKS for name in HOOKS for hook in (get(name) or {}).values()):
            yield f"a {type(part).__name__} has hooks"
        if "forward" in own and not is_own_forward(part, own["forward"], dispatched):
            yield f"forward of a {type(part).__name__} was replaced"
        if "preprocess" in own or "tokenize" in own:
            yield f"preprocess of a {type(part).__name__} was replaced"
        children = get("_modules")
        if children:
            stack.extend(children.values())
    for kind, part in kinds.items():
        if not comes_from_libraries(kind):
            yield f"forward of {kind.__name__} is not this library's"
        if hasattr(kind, "preprocess") and not own_preprocess(part):
            yield f"preprocess of {kind.__name__} is not this library's"


def is_own_forward(part: nn.Module, forward: Any, dispatched: bool = False) -> bool:
    """Whether a `forward` that is set on a module itself is this library's, or accelerate's around its own."""
    if isinstance(forward, LayerForward):
        return forward.layer is part
    if dispatched and getattr(getattr(forward, "func", None), "__module__", "") == "accelerate.hooks":
        before: Any = vars(part).get("_old_forward")
        return getattr(before, "__func__", None) is type(part).forward or is_own_forward(part, before)
    return "_original_forward" in vars(part)  # accelerate's autocast leaves the original there


def comes_from_libraries(kind: type) -> bool:
    """Whether a class computes by the code of a library, or says itself that it takes packed batches."""
    forward = getattr(kind, "forward", None)
    module = getattr(forward, "__globals__", {}).get("__name__", "")  # of the outermost function, wrapped or not
    return f"{module}.".startswith(LIBRARIES) or says_packed(kind)


def says_packed(kind: type) -> bool:
    """Whether the class that defines `forward` says that it takes packed batches; a subclass of the caller's that has a
    `forward` of its own has to say so again.
    """
    for base in kind.__mro__:
        if "forward" in vars(base):
            return bool(vars(base).get("takes_packed", False))
    return False
