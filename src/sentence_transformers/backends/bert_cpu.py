"""The forward pass of the BERT family on CPU: BERT, RoBERTa, XLM-R, CamemBERT, and all that share their layers.

Over packed rows, without transformers:

    x = LayerNorm(word[id] + position[p] + segment[0])                                                        (T, H)
    q, k, v = split(x · [Wq Wk Wv] + [bq bk bv])                             one product instead of three
    x = LayerNorm(x + attend(q, k, v) · Wo + bo)                             the sum is part of the product
    x = LayerNorm(x + gelu(x · Wi + bi) · Wd + bd)

Weights are laid out for oneDNN once, so that one short query costs little more than reading them. On top may sit

    classification   tanh(x₁ · W₁ + b₁) · W₂ + b₂            x₁ the first token of each text      (B, labels)
    vocabulary       LayerNorm(gelu(x · W + b)) · Eᵀ + c      E the word embeddings                (T, V), deferred

A classifier sees only the first token of each text, so its last layer computes only that one. Which networks may be
computed so, and whether their weights are still those that were laid out, is the affair of `backends.bert_network`.

Vaswani et al. 2017 (attention), Devlin et al. 2019 (BERT), Hendrycks & Gimpel 2016 (GELU, exact form).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sentence_transformers.backends.bert_layers import BertShape, HeadNames
from sentence_transformers.backends.deferred_logits import DeferredLogits
from sentence_transformers.backends.matmul_kernels import GELU_LOWEST, FloatProduct, Int8Product, Product
from sentence_transformers.backends.runner import RunOptions
from sentence_transformers.features import Group, Packing

WIDE_ROWS = 384  # rows that go through the wide layers at a time: the same speed, less memory (benchmarks/LOG.md)
SHORT, SEVERAL = range(5, 30), 8  # tokens and texts of a group that two products attend sooner than the kernel
FAINT = 1e-25  # the least sum of a row's weights: then what was rounded to nothing did not count
WORDS = "embeddings.word_embeddings.weight"  # read where it is
private: Any = torch._C
GELU_IN_PLACE = private._nn.gelu_  # what `torch.ops.aten.gelu_` finds by way of Python


class Layer:
    """One transformer layer's weights, laid out.

    Args:
        product: the kind of its products.
        first_only: the layer is computed for the first token of each text alone, so the query is a product of its own.
    """

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        prefix: str,
        dtype: torch.dtype,
        product: type[Product] = FloatProduct,
        first_only: bool = False,
    ) -> None:
        def get(name: str) -> Tensor:
            return weights[f"{prefix}.{name}"].detach().to(dtype)

        def together(kind: str) -> Tensor:
            parts = ("key", "value") if first_only else ("query", "key", "value")
            return torch.cat([get(f"attention.self.{part}.{kind}") for part in parts])

        def whole(name: str, lowest: float | None = None) -> Product:
            return product(get(f"{name}.weight"), get(f"{name}.bias"), lowest)

        self.first_only = first_only
        self.mix = product(together("weight"), together("bias"))
        if first_only:
            query = "attention.self.query"
            self.query = product(get(f"{query}.weight"), get(f"{query}.bias").clone())
        self.out, self.up = whole("attention.output.dense"), whole("intermediate.dense")
        self.down = whole("output.dense", GELU_LOWEST)
        self.norm1 = get("attention.output.LayerNorm.weight"), get("attention.output.LayerNorm.bias")
        self.norm2 = get("output.LayerNorm.weight"), get("output.LayerNorm.bias")


class BertCpuRunner:
    """The forward pass of a network, with its weights laid out for it.

    Args:
        weights: parameters by their names without the family's.
        dtype: the type that is computed in.
        int8: compute the products of the layers in int8.
    """

    def __init__(
        self, shape: BertShape, head: HeadNames, weights: Mapping[str, Tensor], dtype: torch.dtype, int8: bool = False
    ) -> None:
        self.shape, self.dtype, self.classifies = shape, dtype, head.labels is not None
        self.words = weights[WORDS]
        self.segments = weights["embeddings.token_type_embeddings.weight"].detach().to(dtype)
        self.places = weights["embeddings.position_embeddings.weight"].detach().to(dtype)
        scale, shift = (weights[f"embeddings.LayerNorm.{kind}"].detach().to(dtype) for kind in ("weight", "bias"))
        self.norm = scale, shift
        last = shape.layers - 1 if self.classifies else -1
        kind: type[Product] = Int8Product if int8 else FloatProduct
        self.layers = [Layer(weights, f"encoder.layer.{i}", dtype, kind, i == last) for i in range(shape.layers)]
        self.head = [weights[name].detach().to(dtype) for name in head.names]

    def run(self, features: Mapping[str, Any], options: RunOptions | None = None) -> Tensor | DeferredLogits:
        """A packed batch -> (T, H), or what the head makes of it; in the type of the weights."""
        types: Tensor | None = features.get("token_type_ids")
        packing: Packing = features["packing"]
        size, epsilon = (self.shape.hidden,), self.shape.epsilon
        x = F.embedding(features["input_ids"], self.words).to(self.dtype)
        x = x + (self.segments[0] if types is None else F.embedding(types, self.segments))
        x = F.layer_norm(x + F.embedding(features["position_ids"], self.places), size, *self.norm, epsilon)
        for layer in self.layers:
            mixed = layer.mix(x)
            if layer.first_only:
                x = x[packing.offsets[:-1]]
                mixed = self.attend_first(layer.query(x), mixed, packing)
            else:
                mixed = self.attend(mixed, packing)
            x = F.layer_norm(layer.out.plus(mixed, x), size, *layer.norm1, epsilon)
            del mixed
            parts = x.split(WIDE_ROWS) if len(x) > WIDE_ROWS else (x,)
            parts = [self.widen(layer, rows) for rows in parts]
            x = torch.cat(parts) if len(parts) > 1 else parts[0]
        if self.head and not self.classifies:
            return to_vocabulary(x, self.head, self.words, epsilon)
        return (classify(x, self.head) if self.head else x).to(self.words.dtype)

    def widen(self, layer: Layer, x: Tensor) -> Tensor:
        """(t, H) -> (t, H): the feed-forward part of a layer."""
        hidden = GELU_IN_PLACE(layer.up(x))
        out = layer.down.plus(hidden, x)
        return F.layer_norm(out, (self.shape.hidden,), *layer.norm2, self.shape.epsilon)

    def attend(self, qkv: Tensor, packing: Packing) -> Tensor:
        """(T, 3 H) -> (T, H): attention within each sequence, group by group."""
        groups, size = packing.groups, self.shape.hidden
        if len(groups) == 1:
            return self.attend_group(qkv, groups[0], packing.visible[0]).reshape(len(qkv), size)
        out = qkv.new_empty(len(qkv), size)
        for group, visible in zip(groups, packing.visible, strict=True):
            if group.length:
                mixed = self.attend_group(qkv[group.start : group.stop], group, visible)
                out[group.start : group.stop].view(mixed.shape).copy_(mixed)
        return out

    def attend_group(self, qkv: Tensor, group: Group, visible: Tensor | None) -> Tensor:
        """(n l, 3 H) -> (n, l, heads, d): attention within each of n sequences of one length."""
        views = qkv.view(group.count, group.length, 3, self.shape.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = attend_short(views) if visible is None else None
        if mixed is None:
            mask = None if visible is None else visible[:, None, None, :]
            q, k, v = views.unbind()
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return mixed.transpose(1, 2)

    def attend_first(self, query: Tensor, kv: Tensor, packing: Packing) -> Tensor:
        """(B, H) queries of the first tokens, (T, 2 H) -> (B, H)."""
        heads, done = self.shape.heads, 0
        out = torch.empty_like(query)
        for start, stop, count, length in packing.groups:
            k, v = kv[start:stop].view(count, length, 2, heads, -1).permute(2, 0, 3, 1, 4)
            q = query[done : done + count].view(count, heads, 1, -1)
            out[done : done + count] = F.scaled_dot_product_attention(q, k, v).flatten(1)
            done += count
        return out


def attend_short(qkv: Tensor) -> Tensor | None:
    """Attention of many short texts by two batched products: (3, n, heads, l, d) -> (n, heads, l, d).

    The kernel calls matrix products for each text and head; here all of them are two calls. Taken off before exp is the
    largest score of a text and head, not that of each row, as short rows are slow to search. A row that would vanish by
    that is left to the kernel, with its group.

    Returns:
        None where the kernel does better.
    """
    _, count, heads, length, width = qkv.shape
    if qkv.dtype != torch.float32 or length not in SHORT or count < SEVERAL:
        return None
    q, k, v = qkv.contiguous().view(3, count * heads, length, width)
    weights = torch.baddbmm(q.new_empty(1, 1, 1), q, k.transpose(1, 2), beta=0, alpha=width**-0.5)
    weights.sub_(weights.flatten(1).amax(1)[:, None, None]).exp_()
    sums = weights.sum(-1, keepdim=True)
    if float(sums.amin()) < FAINT:
        return None
    return torch.bmm(weights, v).div_(sums).view(count, heads, length, width)


def classify(first: Tensor, weights: list[Tensor]) -> Tensor:
    """(B, H) first tokens -> (B, labels)."""
    inner, inner_bias, outer, outer_bias = weights
    return F.linear(torch.tanh(F.linear(first, inner, inner_bias)), outer, outer_bias)


def to_vocabulary(rows: Tensor, weights: list[Tensor], words: Tensor, epsilon: float) -> DeferredLogits:
    """(T, H) -> logits (T, V), not computed yet.

    Args:
        words: (V, H) the word embeddings.
    """
    inner, inner_bias, scale, shift, bias = weights
    hidden = F.gelu(F.linear(rows, inner, inner_bias))
    return DeferredLogits(F.layer_norm(hidden, (rows.shape[1],), scale, shift, epsilon), words, bias)
