"""Pooling over the vocabulary in training: the gradients of the formula, without the logits of all tokens."""

from __future__ import annotations

import pytest
import torch

from sentence_transformers.backends import deferred_logits
from sentence_transformers.backends.deferred_logits import DeferredLogits
from sentence_transformers.features import Packing
from sentence_transformers.modules.splade_pooling import SpladePooling

LENGTHS = [5, 5, 3, 1, 1, 0]
H, V = 6, 40


def parts(bias: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    torch.manual_seed(0)
    rows, weight = torch.randn(sum(LENGTHS), H), torch.randn(V, H)
    return rows.requires_grad_(), weight.requires_grad_(), torch.randn(V).requires_grad_() if bias else None


def pooled_by_formula(module: SpladePooling, logits: torch.Tensor) -> torch.Tensor:
    """One text after the other."""
    texts = logits.split(LENGTHS)
    if module.pooling_strategy == "sum":
        return torch.stack([module.activate(text).sum(0) for text in texts])
    zero = logits.new_zeros(logits.shape[1])
    return torch.stack([module.activate(text.max(0).values if len(text) else zero) for text in texts])


@pytest.mark.parametrize("strategy", ["max", "sum"])
@pytest.mark.parametrize("activation", ["relu", "log1p_relu"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("few", [0.0, 1.0], ids=["multiplied", "gathered"])
def test_gradients_are_those_of_the_formula(
    strategy: str, activation: str, bias: bool, few: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deferred_logits, "FEW", few)
    monkeypatch.setattr(deferred_logits, "GATHERED", 5 * H)
    module = SpladePooling(strategy, activation, chunk_size=7)
    target = torch.randn(len(LENGTHS), V, generator=torch.Generator().manual_seed(1))
    found = []
    for deferred in (True, False):
        rows, weight, offset = parts(bias)
        if deferred:
            logits = DeferredLogits(rows, weight, offset)
            out = module({"vocabulary": logits, "packing": Packing(LENGTHS), "input_ids": None})["sentence_embedding"]
        else:
            out = pooled_by_formula(module, torch.nn.functional.linear(rows, weight, offset))
        (out * target).sum().backward()
        found.append([out.detach(), rows.grad, weight.grad, *([] if offset is None else [offset.grad])])
    for ours, expected in zip(*found, strict=True):
        torch.testing.assert_close(ours, expected)


def test_the_logits_of_all_tokens_are_never_there() -> None:
    """No tensor of the graph has T · V numbers, whatever the block."""
    rows, weight, offset = parts(True)
    sizes: list[int] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        SpladePooling("max", chunk_size=7)(
            {"vocabulary": DeferredLogits(rows, weight, offset), "packing": Packing(LENGTHS), "input_ids": None}
        )
    assert sizes and max(sizes) < sum(LENGTHS) * V
