"""Attention of many short texts, against the formula in float64 and against the kernel."""

from __future__ import annotations

import pytest
import torch

from sentence_transformers.backends.bert_cpu import SEVERAL, SHORT, attend_short


def qkv(count: int, length: int, scale: float = 1.0) -> torch.Tensor:
    """(3, n, heads, l, d), as a view of the run that the products give."""
    run = torch.randn(count * length, 3 * 2 * 8, generator=torch.Generator().manual_seed(length)) * scale
    return run.view(count, length, 3, 2, 8).permute(2, 0, 3, 1, 4)


@pytest.mark.parametrize("length", [SHORT[0], 12, SHORT[-1]])
@pytest.mark.parametrize("scale", [0.1, 1.0, 2.0])
def test_softmax_of_scaled_products(length, scale):
    views = qkv(SEVERAL, length, scale)
    q, k, v = views.double()
    expected = torch.softmax(q @ k.transpose(-1, -2) / 8**0.5, -1) @ v
    found = attend_short(views)
    assert found is not None
    torch.testing.assert_close(found.double(), expected, atol=1e-5 * scale, rtol=1e-5)


def test_what_is_left_to_the_kernel():
    assert attend_short(qkv(SEVERAL - 1, 12)) is None
    assert attend_short(qkv(SEVERAL, SHORT[0] - 1)) is None and attend_short(qkv(SEVERAL, SHORT[-1] + 1)) is None
    assert attend_short(qkv(SEVERAL, 12).bfloat16()) is None
    views = qkv(SEVERAL, 12).contiguous()
    views[0, 3, 1, 5] = 20.0  # the scores of one row lie high above those of the others,
    views[1, 3, 1] = 20.0
    assert attend_short(views) is None
    views[1, 3, 1] = float("nan")
    assert torch.isnan(attend_short(views)[3, 1]).all() and torch.isfinite(attend_short(views)[4]).all()
