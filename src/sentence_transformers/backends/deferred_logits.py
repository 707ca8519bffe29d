"""Scores over a vocabulary that are not computed before they are needed.

The last step of a masked or causal language model is one product, rows (T, H) · weightᵀ (H, V) + bias, and its result
is hundreds of times larger than its input. What follows wants little of it: SPLADE the maximum of each column over a
text's tokens, a re-ranker two columns of one row per text. So the model stops before that product, and hands over
`DeferredLogits`, from which the next module takes the blocks that it wants.

`defer(model)` lets a transformers model stop there; whether the product is really all that was left is proved once per
loaded model (`backends.capabilities`). Inside `stopping()` the model gives the rows in the place of its logits.

In training, logits of all tokens exist neither forward nor backward. Forward, block by block of the vocabulary: the
logits (T, v) of a block, reduced to one row per text. Backward, with g (B, V) the gradient of what was pooled, and
G (T, V) that of the logits:

    ∂rows = G · W        ∂W = Gᵀ · rows        ∂bias = Σ G

For the maximum only the winning token of each text and word has an entry in G, and after a ReLU only where the weight
is positive: B · (active words) entries in place of T · V. The winners are remembered (B, V). Where few entries are
left, as in a trained sparse model, rows are gathered and added; otherwise G is made block by block and multiplied. For
sums a block's logits are computed again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from sentence_transformers.backends.prepacked_linear import PackedForward, compute_dtype
from sentence_transformers.features import Packing
from sentence_transformers.util.thread_value import ThreadValue

FEW = 1 / 150
"""Share of entries of G below which gathering is quicker than multiplying (benchmarks/LOG.md)."""
GATHERED = 1 << 23
"""Numbers gathered at once."""
_stopping: ThreadValue[bool] = ThreadValue(False)


class DeferredLogits(NamedTuple):
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


# ---- pooling over the tokens of each text, with gradients


def max_over_tokens(logits: DeferredLogits, packing: Packing, step: int) -> Tensor:
    """The largest logit of each word over the tokens of each text, (B, V), with gradients.

    Args:
        logits: of the T tokens of a batch.
        packing: lengths of its texts.
        step: words computed at a time.
    """
    return MaxOverTokens.apply(logits.rows, logits.weight, logits.bias, packing, step)


def reduce_over_tokens(
    logits: DeferredLogits, packing: Packing, step: int, reduce: Callable[[Tensor, Packing], Tensor]
) -> Tensor:
    """Any reduction (T, v), packing -> (B, v) of the logits, (B, V), with gradients; blocks are computed twice."""
    return ReduceOverTokens.apply(logits.rows, logits.weight, logits.bias, packing, step, reduce)


def blocks(size: int, step: int) -> Iterator[slice]:
    """The words 0 … size in slices of at most `step`."""
    for start in range(0, size, step):
        yield slice(start, min(start + step, size))


class MaxOverTokens(torch.autograd.Function):
    """See `max_over_tokens`."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None, packing: Packing, step: int) -> Tensor:
        logits = DeferredLogits(rows, weight, bias)
        pooled = torch.empty(len(packing), logits.size, dtype=weight.dtype, device=rows.device)
        winners = torch.empty(len(packing), logits.size, dtype=torch.int32, device=rows.device)
        for words in blocks(logits.size, step):
            winning(logits.block(words.start, words.stop), packing, pooled[:, words], winners[:, words])
        ctx.save_for_backward(rows, weight, winners)
        ctx.has_bias, ctx.step = bias is not None, step
        return pooled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        rows, weight, winners = ctx.saved_tensors
        entries = grad.nonzero()
        if len(entries) < FEW * len(rows) * len(weight):
            of_rows, of_weight = by_gathering(grad, entries, winners, rows, weight)
        else:
            of_rows, of_weight = by_multiplying(grad, winners, rows, weight, ctx.step)
        return of_rows, of_weight, grad.sum(0) if ctx.has_bias else None, None, None


def winning(logits: Tensor, packing: Packing, values: Tensor, winners: Tensor) -> None:
    """Write the largest logit of each text, and the number of its token in the batch, for a block of words.

    Args:
        logits: (T, v).
        values, winners: (B, v), written; texts without tokens get 0.
    """
    text = token = 0
    for group, (texts,) in zip(packing.groups, packing.views(logits), strict=True):
        place = slice(text, text + group.count)
        if group.length:
            found = texts.max(1)
            values[place] = found.values
            first = torch.arange(token, token + group.count * group.length, group.length, device=logits.device)
            winners[place] = (found.indices + first[:, None]).to(torch.int32)
        else:
            values[place], winners[place] = 0, 0
        text, token = text + group.count, token + group.count * group.length


def by_gathering(grad: Tensor, entries: Tensor, winners: Tensor, rows: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of rows and weight from the few entries (n, 2) of `grad` that are not 0."""
    of_rows, of_weight = torch.zeros_like(rows), torch.zeros_like(weight)
    for part in entries.split(max(1, GATHERED // rows.shape[1])):
        texts, words = part.unbind(1)
        values, tokens = grad[texts, words, None], winners[texts, words].long()
        of_rows.index_add_(0, tokens, (weight[words] * values).to(rows.dtype))
        of_weight.index_add_(0, words, (rows[tokens] * values).to(weight.dtype))
    return of_rows, of_weight


def by_multiplying(grad: Tensor, winners: Tensor, rows: Tensor, weight: Tensor, step: int) -> tuple[Tensor, Tensor]:
    """The same, with the gradient of the logits (T, v) for a block of words at a time."""
    of_rows, of_weight = torch.zeros_like(rows), torch.empty_like(weight)
    for words in blocks(len(weight), step):
        part = grad[:, words]
        of_logits = part.new_zeros(len(rows), part.shape[1])
        of_logits.scatter_add_(0, winners[:, words].long(), part)
        backwards(of_logits, words, rows, weight, of_rows, of_weight)
    return of_rows, of_weight


def backwards(
    of_logits: Tensor, words: slice, rows: Tensor, weight: Tensor, of_rows: Tensor, of_weight: Tensor
) -> None:
    """Send the gradient of a block's logits (T, v) back: add to that of the rows, write that of the weight's slice."""
    of_rows += (of_logits @ weight[words].to(of_logits.dtype)).to(rows.dtype)
    of_weight[words] = (of_logits.T @ rows.to(of_logits.dtype)).to(weight.dtype)


class ReduceOverTokens(torch.autograd.Function):
    """See `reduce_over_tokens`."""

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None, packing: Packing, step: int, reduce: Any
    ) -> Tensor:
        logits = DeferredLogits(rows, weight, bias)
        pooled = torch.empty(len(packing), logits.size, dtype=weight.dtype, device=rows.device)
        for words in blocks(logits.size, step):
            pooled[:, words] = reduce(logits.block(words.start, words.stop), packing)
        ctx.save_for_backward(rows, weight, bias)
        ctx.packing, ctx.step, ctx.reduce = packing, step, reduce
        return pooled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        rows, weight, bias = ctx.saved_tensors
        logits = DeferredLogits(rows, weight, bias)
        of_rows, of_weight = torch.zeros_like(rows), torch.empty_like(weight)
        of_bias = None if bias is None else torch.empty_like(bias)
        for words in blocks(logits.size, ctx.step):
            block = logits.block(words.start, words.stop).detach().requires_grad_()
            with torch.enable_grad():
                (of_logits,) = torch.autograd.grad(ctx.reduce(block, ctx.packing), block, grad[:, words])
            backwards(of_logits, words, rows, weight, of_rows, of_weight)
            if of_bias is not None:
                of_bias[words] = of_logits.sum(0)
        return of_rows, of_weight, of_bias, None, None, None
