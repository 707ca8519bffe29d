"""Products with a layer's weights, laid out for oneDNN once: in the type of the weights, or in int8.

    float     y = x · W + b                             W in oneDNN's layout
    int8      y[t] = s[t] · (q[t] · Wq) · sw + b        q[t] = round(x[t] / s[t]),  s[t] = max |x[t]| / 127

In int8 the weights have a scale for each output (`sw`), made once, and each row of activations has its own, found when
it comes by. So a text's vector does not depend on the texts beside it, and nothing is calibrated. Inputs that are known
to be nowhere below some value (GELU's) use all 256 bytes from there up. Sums, normalisation, attention and GELU stay in
float32.

Processors with VNNI or AMX multiply int8 several times as fast as float32. Others, with AVX2 alone, gain less and add
two products in 16 bits, into which 255 · 127 · 2 does not fit; so there, as a trial tells (`saturates`), weights have
7 bits.

Dettmers et al. 2022, LLM.int8() (scales of rows and columns); Jacob et al. 2018 (integer arithmetic).
"""

from __future__ import annotations

from functools import cache
from typing import Protocol

import torch
from torch import Tensor

from sentence_transformers.backends.prepacked_linear import ROWS_HINT

LEVELS, ZERO = 127, 128  # largest magnitude, and the byte of 0: oneDNN's quick products take unsigned rows
FEWER_LEVELS = 63  # of weights where sums have 16 bits: 255 · 63 · 2 < 2¹⁵
BYTES = 255
TINY = 1e-30
GELU_LOWEST = -0.17  # GELU is nowhere less


class Product(Protocol):
    """x · W + b with the weights of one layer; `lowest` is less than any x, if that is known."""

    def __init__(self, weight: Tensor, bias: Tensor, lowest: float | None = None) -> None: ...

    def __call__(self, x: Tensor) -> Tensor:
        """(t, I) -> (t, O)."""

    def plus(self, x: Tensor, residual: Tensor) -> Tensor:
        """(t, I), (t, O) -> residual + x · W + b."""


class FloatProduct:
    """In the type of the weights."""

    def __init__(self, weight: Tensor, bias: Tensor, lowest: float | None = None) -> None:
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), ROWS_HINT)
        self.bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")

    def plus(self, x: Tensor, residual: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise.binary(x, residual, self.weight, self.bias, "add")


class Int8Product:
    """In int8, with float32 going in and out."""

    def __init__(self, weight: Tensor, bias: Tensor, lowest: float | None = None) -> None:
        self.scales = weight.abs().amax(1).clamp_min(TINY) / (FEWER_LEVELS if saturates() else LEVELS)
        rows = torch.round(weight / self.scales[:, None])
        self.weight = prepacked(rows)
        self.zeros = torch.zeros(len(weight), dtype=torch.int32)
        self.lowest = lowest
        self.bias = bias if lowest is None else bias + lowest * rows.sum(1) * self.scales

    def __call__(self, x: Tensor) -> Tensor:
        product, scales = self.multiply(x)
        return torch.addcmul(self.bias, product, scales, out=product)

    def plus(self, x: Tensor, residual: Tensor) -> Tensor:
        product, scales = self.multiply(x)
        return torch.addcmul(residual, product, scales, out=product).add_(self.bias)

    def multiply(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(t, I) -> the product of the rounded rows (t, O), and the scale of each (t, 1)."""
        rows, scales = around_zero(x) if self.lowest is None else from_lowest(x, self.lowest)
        zero = ZERO if self.lowest is None else 0
        return multiplied(rows, zero, self.weight, self.scales, self.zeros), scales


def prepacked(rows: Tensor) -> Tensor:
    """Whole numbers (O, I) as int8 weights in oneDNN's layout."""
    return torch.ops.onednn.qlinear_prepack(rows.to(torch.int8), [ROWS_HINT, rows.shape[1]])


def multiplied(rows: Tensor, zero: int, weight: Tensor, scales: Tensor, zeros: Tensor) -> Tensor:
    """uint8 (t, I), the byte of 0, weights and the scale of each output -> float32 (t, O)."""
    return torch.ops.onednn.qlinear_pointwise(
        rows, 1.0, zero, weight, scales, zeros, None, 1.0, 0, torch.float32, "none", [], ""
    )


@cache
def saturates() -> bool:
    """Whether products of large bytes come out too small on this processor."""
    size = 64
    rows, weight = torch.full((size, size), BYTES, dtype=torch.uint8), prepacked(torch.full((size, size), LEVELS))
    found = multiplied(rows, 0, weight, torch.ones(size), torch.zeros(size, dtype=torch.int32))
    return bool((found != BYTES * LEVELS * size).any())


def around_zero(x: Tensor) -> tuple[Tensor, Tensor]:
    """(t, I) float32 -> uint8 rows in which `ZERO` is 0, and the scale of each row (t, 1)."""
    scales = torch.maximum(x.amax(1, keepdim=True), -x.amin(1, keepdim=True)).clamp_min_(TINY).div_(LEVELS)
    return to_bytes((x * scales.reciprocal()).add_(ZERO + 0.5)), scales


def from_lowest(x: Tensor, lowest: float) -> tuple[Tensor, Tensor]:
    """(t, I) float32 -> uint8 rows in which 0 is `lowest`, and the scale of each row (t, 1)."""
    scales = (x.amax(1, keepdim=True) - lowest).div_(BYTES)
    factors = scales.reciprocal()
    return to_bytes((x * factors).add_(factors * -lowest + 0.5)), scales


def to_bytes(x: Tensor) -> Tensor:
    """0 … 255.99 cut to uint8; by way of int16, which is quicker."""
    return x.to(torch.int16).to(torch.uint8)
