"""Whether a model computes with this library's code alone, or with code of the caller's too.

The engine and the losses have a way of their own: texts become unpadded tokens, and batches run without padding. It is
taken only where nothing on it was overridden, patched or hooked: otherwise texts go through `preprocess` of the model
and `forward` of each module, in padded batches, in the caller's thread, as they do in every other program that calls
the model.

Whose a function is, `util.whose_code` says.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules import module as globally
from torch.overrides import _get_current_function_mode_stack
from torch.utils._device import DeviceContext

from sentence_transformers.util.thread_value import ThreadValue
from sentence_transformers.util.whose_code import LIBRARIES, OWN, is_foreign

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
GLOBAL_HOOKS = tuple(f"_global{name}" for name in HOOKS)
INPUT_METHODS = ("preprocess", "tokenize")
LOSS_METHODS = ("embed", "embed_minibatch", "embed_minibatch_iter", "rows_of_minibatch", "forward_cached")
LAYER = ("forward", "__call__")
METHODS = (*LAYER, *INPUT_METHODS, *LOSS_METHODS)
"""Those that see inputs or features."""
MARKS = ("preprocess", "takes_packed", "embed")  # a class that has one of them is no mere layer
private: Any = torch._C


def is_untouched(model: Any) -> bool:
    """Whether nothing between the inputs and outputs of a model, or of a loss with its model, is the caller's."""
    return next(extensions(model), None) is None


def survey(model: nn.Module) -> Survey | bool:
    """Put an encoder into evaluation mode, and tell whether it is untouched: its survey, or True where there can be
    none; False if something of it is the caller's.
    """
    kept: Survey | None = vars(model).get("_survey")
    if kept is not None and kept.holds(model):
        return kept
    if any(part.training for part in model.modules()):
        model.eval()
    untouched = is_untouched(model)
    kept = vars(model)["_survey"] = Survey.of(model) if untouched else None
    return kept or untouched


class Survey:
    """The parts of a model that was found untouched and in evaluation mode, and whether it still is: to see that they
    are the same costs a call less than to ask whose code each of them is.
    """

    def __init__(self, model: nn.Module) -> None:
        self.parts = list(model.modules())[1:]  # the model holds its survey
        kinds = dict.fromkeys(map(type, model.modules()))
        self.class_methods = [(kind, name) for kind in kinds for name in (*watched(kind), "__call__")]
        self.methods = [(part, name) for part in self.parts for name in watched(type(part)) if name != "forward"]
        self.found = self.look(model)

    @classmethod
    def of(cls, model: nn.Module) -> Survey | None:
        """A survey; None for a model with hooks (of libraries), or with parts that keep their state elsewhere."""
        made = None
        with contextlib.suppress(KeyError):
            made = cls(model)
        hooked = any("_hf_hook" in vars(part) for part in model.modules())
        return None if made is None or made.found is None or hooked else made

    def holds(self, model: nn.Module) -> bool:
        """Whether nothing was added, taken away, replaced, hooked, or put into training mode since."""
        try:
            return self.look(model) == self.found
        except KeyError:
            return False

    def look(self, model: nn.Module) -> tuple[list[Any], ...] | None:
        """Classes, methods and children; None if there are hooks, or parts in training mode."""
        if is_observed() or any(getattr(globally, name, None) for name in GLOBAL_HOOKS):
            return None
        seen: list[Any] = []
        add = seen.append
        for part in (model, *self.parts):
            # each is out of the caches after a call: what is needed of it is read at once
            own = part.__dict__
            if own["training"] or own["_forward_hooks"] or own["_forward_pre_hooks"]:
                return None
            if own["_backward_hooks"] or own["_backward_pre_hooks"]:
                return None
            add(type(part))
            add(own.get("forward"))  # `__call__` of an object is never called
            if children := own["_modules"]:
                seen += children.values()
        return (
            seen,
            [getattr(kind, name, None) for kind, name in self.class_methods],
            [model.__dict__.get(name) for name in INPUT_METHODS],
            [part.__dict__.get(name) for part, name in self.methods],
        )


unseen: ThreadValue[Survey | bool] = ThreadValue(False)
"""Whether nobody but this library sees the features between the modules of a model in this call, so that one may leave
work to the next; the survey that says so, if there is one.
"""


def watched(kind: type) -> tuple[str, ...]:
    """Attributes of a class that decide who computes, but for `__call__`."""
    others = (("preprocess", INPUT_METHODS), ("takes_packed", ("takes_packed",)))
    return ("forward", *(name for mark, names in others if hasattr(kind, mark) for name in names))


def extensions(model: Any) -> Iterator[str]:
    """What of a model is not this library's, PyTorch's or transformers': a sentence for each."""
    if is_observed():
        yield "a mode of PyTorch's sees each operation, or a function of torch.nn.functional was replaced"
    if any(is_hooked(getattr(globally, name, None)) for name in GLOBAL_HOOKS):
        yield "hooks are set on all modules"
    kinds: dict[type, Kind] = {}
    stack: list[nn.Module | None] = [model]
    while stack:  # all layers of a model, at every call: as little as possible for each
        part = stack.pop()
        if part is None:
            continue
        own, kind = part.__dict__, type(part)
        get = own.get
        known = kinds.get(kind)
        if known is None:
            known = kinds[kind] = kind_of(kind)
        if (
            get("_forward_hooks") or get("_forward_pre_hooks") or get("_backward_hooks") or get("_backward_pre_hooks")
        ) and any(is_hooked(get(name)) for name in HOOKS):
            yield f"a {kind.__name__} has hooks"
        for name in known.methods:
            if name in own and (is_foreign(own[name]) or is_foreign_hook(get("_hf_hook"))):
                yield f"{name} of a {kind.__name__} was replaced"
        children = get("_modules")
        if children:
            stack.extend(children.values())
    for kind, known in kinds.items():
        for name in known.foreign:
            yield f"{name} of {kind.__name__} is not this library's"


class Kind(NamedTuple):
    """What is known of a class.

    Attributes:
        methods: names of those that see inputs or features.
        foreign: names of those of them whose code is the caller's.
    """

    methods: tuple[str, ...]
    foreign: tuple[str, ...]


def kind_of(kind: type) -> Kind:
    """What is known of a class as it is now: it is looked at anew when one of its methods was replaced."""
    marks = tuple([getattr(kind, name, None) for name in MARKS])
    names = method_names(kind)
    found = tuple([getattr(kind, name, None) for name in names])
    try:
        return judged(kind, names, found, marks)
    except TypeError:  # a method that cannot be hashed
        return judged.__wrapped__(kind, names, found, marks)


def method_names(kind: type) -> tuple[str, ...]:
    """Names of the methods of a class that see inputs or features."""
    return METHODS if any(getattr(kind, name, None) is not None for name in MARKS) else LAYER


@functools.lru_cache(maxsize=1024)
def judged(kind: type, names: tuple[str, ...], found: tuple[Any, ...], marks: tuple[Any, ...]) -> Kind:
    """Whose code the methods of a class are. Packed batches, which encoders and modules see, are known to no other
    library.
    """
    libraries = OWN if names is METHODS and not hasattr(kind, "embed") else LIBRARIES
    methods, foreign = [], []
    for name, method in zip(names, found, strict=True):
        if method is None:
            continue
        methods.append(name)
        its_own = is_foreign(method, LIBRARIES if name == "__call__" else libraries)
        if its_own and not (name == "forward" and packs(kind)):
            foreign.append(name)
    return Kind(tuple(methods), tuple(foreign))


def packs(kind: type) -> bool:
    """Whether the caller's class that defines `forward` says that it takes packed batches; a subclass that has a
    `forward` of its own has to say so again, and a class of this library's that has another now does not say so.
    """
    base = next((base for base in kind.__mro__ if "forward" in vars(base)), None)
    return base is not None and bool(vars(base).get("takes_packed")) and not base.__module__.startswith(OWN)


def is_observed() -> bool:
    """Whether something sees or changes what layers compute, whatever the modules are: a mode of PyTorch's, or a
    function that was replaced, of `torch.nn.functional` or the one behind each call of a module.
    """
    return functions() != FUNCTIONS or has_mode()


def functions() -> tuple[Any, ...]:
    """What layers call, and what calls layers."""
    return F.linear, F.embedding, F.layer_norm, F.gelu, F.scaled_dot_product_attention, nn.Module._call_impl


FUNCTIONS = functions()


def has_mode() -> bool:
    """Whether a `TorchDispatchMode` or `TorchFunctionMode` is active, as counters of operations are; one that only
    names a default device does not count.
    """
    if private._len_torch_dispatch_stack():
        return True
    if not private._len_torch_function_stack():
        return False
    return any(type(mode) is not DeviceContext for mode in _get_current_function_mode_stack())


def own_preprocess(module: Any) -> bool:
    """Whether a model's or module's way from inputs to features is this library's, neither overridden nor patched."""
    return not any(is_foreign(getattr(module, name, None), OWN) for name in INPUT_METHODS)


def is_hooked(hooks: Any) -> bool:
    """Whether there are hooks other than those of libraries."""
    return bool(hooks) and any(is_foreign(hook) for hook in hooks.values())


def is_foreign_hook(hook: Any) -> bool:
    """Whether a hook of accelerate's kind, or one of several, is of none of the libraries."""
    return hook is not None and any(is_foreign(one) for one in getattr(hook, "hooks", (hook,)))
