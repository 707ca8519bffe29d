"""Scores over a vocabulary that are not computed before they are needed.

The last step of a masked or causal language model is one product, rows (T, H) · weightᵀ (H, V) + bias, and its result
is hundreds of times larger than its input. What follows wants little of it: SPLADE the maximum of each column over a
text's tokens, a re-ranker two columns of one row per text. So the model stops before that product, and hands over
`VocabularyRows`, from which the next module takes the blocks that it wants.

`defer(model)` lets a transformers model stop there; whether the product is really all that was left is proved once per
loaded model (`backends.capabilities`). Inside `stopping()` the model gives the rows in the place of its logits.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sentence_transformers.backends.prepacked_linear import PackedForward, compute_dtype
from sentence_transformers.util.thread_value import ThreadValue

_stopping: ThreadValue[bool] = ThreadValue(False)


class VocabularyRows(NamedTuple):
    """Logits of shape (…, V) yet to be computed: rows · weightᵀ + bias.

    Attributes:
        rows: (…, H), one row per token.
        weight: (V, H).
        bias: (V,) or None.
    """

    rows: Tensor
    weight: Tensor
    bias: Tensor | None

    @property
    def size(self) -> int:
        """V."""
        return self.weight.shape[0]

    @property
    def with_gradients(self) -> bool:
        """Whether gradients of the logits are asked for."""
        return torch.is_grad_enabled() and (self.rows.requires_grad or self.weight.requires_grad)

    def block(self, start: int, stop: int) -> Tensor:
        """Logits of the columns `start:stop`, (…, stop - start)."""
        return project(self.rows, self.weight[start:stop], None if self.bias is None else self.bias[start:stop])

    def columns(self, ids: list[int]) -> Tensor:
        """Logits of some columns, (…, len(ids))."""
        return project(self.rows, self.weight[ids], None if self.bias is None else self.bias[ids])

    def logits(self) -> Tensor:
        """All of them, (…, V)."""
        return self.block(0, self.size)


def project(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """rows · weightᵀ + bias; 16-bit weights as float32 on a CPU that has no such arithmetic."""
    if weight.device.type == "cpu" and (dtype := compute_dtype(weight.dtype)) is not None:
        rows, weight = rows.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    return F.linear(rows, weight, bias)


class DecoderForward(PackedForward):
    """Of the last linear layer of a language model; inside `stopping()` it gives its input back."""

    def __call__(self, input: Tensor) -> Tensor:
        return input if _stopping.value else super().__call__(input)


@contextlib.contextmanager
def stopping(stop: bool = True) -> Iterator[None]:
    """Models called inside this context stop before their last product."""
    with _stopping.set_to(stop):
        yield


def defer(model: Any) -> None:
    """Let a transformers language model stop before its last product, if it ends in a plain linear layer."""
    layer = model.get_output_embeddings()
    if type(layer) is nn.Linear and type(vars(layer).get("forward")) in (type(None), PackedForward):
        layer.forward = DecoderForward(layer)  # type: ignore[method-assign]


def is_deferring(model: Any) -> bool:
    """Whether a transformers language model stops there when it is told to."""
    layer = model.get_output_embeddings()
    return isinstance(vars(layer).get("forward") if layer is not None else None, DecoderForward)
