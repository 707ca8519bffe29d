"""Pooling over the vocabulary in training: logits of all tokens, (T, V), exist neither forward nor backward.

Forward, block by block of the vocabulary: the logits (T, v) of a block, reduced to one row per text. Backward, with
g (B, V) the gradient of what was pooled, and G (T, V) that of the logits:

    ∂rows = G · W        ∂W = Gᵀ · rows        ∂bias = Σ G

For the maximum only the winning token of each text and word has an entry in G, and after a ReLU only where the weight
is positive: B · (active words) entries in place of T · V. The winners are remembered (B, V). Where few entries are
left, as in a trained sparse model, rows are gathered and added; otherwise G is made block by block and multiplied. For
sums a block's logits are computed again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sentence_transformers.backends.deferred_logits import VocabularyRows
from sentence_transformers.features import Packing

FEW = 1 / 150
"""Share of entries of G below which gathering is quicker than multiplying (benchmarks/LOG.md)."""
GATHERED = 1 << 23
"""Numbers gathered at once."""


def max_over_tokens(logits: VocabularyRows, packing: Packing, step: int) -> Tensor:
    """The largest logit of each word over the tokens of each text, (B, V), with gradients.

    Args:
        logits: of the T tokens of a batch.
        packing: lengths of its texts.
        step: words computed at a time.
    """
    return MaxOverTokens.apply(logits.rows, logits.weight, logits.bias, packing, step)


def reduce_over_tokens(
    logits: VocabularyRows, packing: Packing, step: int, reduce: Callable[[Tensor, Packing], Tensor]
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
        logits = VocabularyRows(rows, weight, bias)
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
        logits = VocabularyRows(rows, weight, bias)
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
        logits = VocabularyRows(rows, weight, bias)
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
