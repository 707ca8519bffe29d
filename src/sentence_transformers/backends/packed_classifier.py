"""Classifiers on packed batches: the encoder runs packed, the head sees what it always saw.

A classification model is an encoder (`base_model` in transformers) and a head that picks or averages tokens of a padded
batch. Packing stops at the border between the two. Inside `use_boundary(...)` the model is called with the padded
batch; a hook before the encoder gives it the packed one instead, and a hook behind it pads what comes out:

    padded (B, L) -> [ packed (1, T) -> encoder -> (1, T, H) ] -> padded (B, L, H) -> head -> (B, labels)

Padding is memory here, hardly work. The pooler that some encoders carry is applied again, to the padded output. Whether
this is right for an architecture is proved once per loaded model, like packing itself (`backends.capabilities`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn

from sentence_transformers.features import Packing
from sentence_transformers.util.thread_value import ThreadValue

_packed_inputs: ThreadValue[dict[str, Any] | None] = ThreadValue(None)


@contextlib.contextmanager
def use_boundary(inputs: dict[str, Any] | None) -> Iterator[None]:
    """Encoders of classifiers called inside this context get `inputs`: input_ids (1, T), …, packing."""
    with _packed_inputs.set_to(inputs):
        yield


def install(model: Any) -> bool:
    """Put the hooks around a classifier's encoder; False if it has none."""
    encoder = getattr(model, "base_model", model)
    if encoder is model:
        return False
    if give_packed not in encoder._forward_pre_hooks.values():
        encoder.register_forward_pre_hook(give_packed, with_kwargs=True)
        encoder.register_forward_hook(pad_output)
    return True


def give_packed(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Replace the padded batch by the packed one; other arguments stay."""
    packed = _packed_inputs.value
    if packed is None:
        return None
    others = {
        key: value for key, value in kwargs.items() if key not in ("input_ids", "attention_mask", "inputs_embeds")
    }
    return (), others | packed


def pad_output(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
    """Pad the encoder's output; pool it again where the encoder has a pooler."""
    packed = _packed_inputs.value
    if packed is None:
        return None
    packing: Packing = packed["packing"]
    rows = packing.pad(output[0][0])
    pooler = pooler_of(module)
    if isinstance(output, tuple):
        return (rows, pooler(rows)) if pooler is not None else (rows,)
    changed = {key: value for key, value in output.items() if key not in ("last_hidden_state", "pooler_output")}
    changed["last_hidden_state"] = rows
    if pooler is not None:
        changed["pooler_output"] = pooler(rows)
    return type(output)(**changed)


def pooler_of(encoder: Any) -> Callable[[Tensor], Tensor] | None:
    """(B, L, H) -> (B, H) as the encoder does it; None if it does not pool."""
    pooler = getattr(encoder, "pooler", None)
    if isinstance(pooler, nn.Linear):  # ALBERT keeps the parts apart
        return lambda rows: encoder.pooler_activation(pooler(rows[:, 0]))
    return pooler
