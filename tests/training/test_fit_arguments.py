"""The arguments of `fit`, each by what it does to a table of static vectors.

Text "c" is in no example, so its row only decays: with SGD, learning rate η and weight decay λ it is multiplied by
(1 - η_t λ) in step t. That shows how many steps there were, and with what rates.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers.models import StaticEmbedding
from tokenizers import Tokenizer, models
from torch.utils.data import DataLoader

from sentence_transformers import InputExample, SentenceTransformer
from sentence_transformers.evaluation import SentenceEvaluator
from sentence_transformers.losses import CosineSimilarityLoss

ROWS = np.array([[1.0, 2, 0.5], [2, -1, 1], [3, 1, 2]], np.float32)
RATE, DECAY = 0.1, 0.5


def fresh() -> SentenceTransformer:
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1, "c": 2}, unk_token="c"))
    return SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_weights=ROWS.copy())], device="cpu")


def run(model: SentenceTransformer, function: str = "fit", examples: int = 4, **settings: Any) -> None:
    loader = DataLoader([InputExample(texts=["a", "b"], label=1.0)] * examples, batch_size=1)
    usual: dict[str, Any] = {
        "optimizer_class": torch.optim.SGD,
        "optimizer_params": {"lr": RATE},
        "weight_decay": DECAY,
        "warmup_steps": 0,
        "scheduler": "ConstantLR",
        "show_progress_bar": False,
    }
    getattr(model, function)(train_objectives=[(loader, CosineSimilarityLoss(model))], **usual | settings)


def decayed(model: SentenceTransformer) -> float:
    """Factor of the row that is in no example."""
    factors = model.encode("c") / ROWS[2]
    assert np.ptp(factors) < 1e-6
    return float(factors[0])


@pytest.mark.parametrize("function", ["fit", "old_fit"])
@pytest.mark.parametrize(
    ("settings", "rates"),
    [
        ({}, [RATE] * 4),
        ({"epochs": 2}, [RATE] * 8),
        ({"steps_per_epoch": 2, "epochs": 3}, [RATE] * 6),
        ({"optimizer_params": {"lr": 0.2}}, [0.2] * 4),
        ({"scheduler": "WarmupLinear"}, [RATE * (1 - t / 4) for t in range(4)]),
        ({"scheduler": "WarmupConstant", "warmup_steps": 2}, [0, RATE / 2, RATE, RATE]),
        ({"scheduler": "WarmupCosine"}, [RATE * (1 + math.cos(math.pi * t / 4)) / 2 for t in range(4)]),
    ],
    ids=str,
)
def test_steps_and_rates(function, settings, rates):
    model = fresh()
    run(model, function, **settings)
    assert decayed(model) == pytest.approx(math.prod(1 - rate * DECAY for rate in rates), abs=1e-6)


def test_weight_decay():
    model = fresh()
    run(model, weight_decay=0.25)
    assert decayed(model) == pytest.approx((1 - RATE * 0.25) ** 4, abs=1e-6)


def test_optimizer_class():
    """Adagrad's first step moves each entry with a gradient by the rate, whatever the gradient."""
    model = fresh()
    run(model, examples=1, optimizer_class=torch.optim.Adagrad, weight_decay=0.0)
    moved = np.abs(model.encode(["a", "b"]) - ROWS[:2])
    np.testing.assert_allclose(moved, np.full((2, 3), RATE), atol=1e-4)


def test_max_grad_norm():
    """A step is as long as rate times the norm that gradients are cut to."""
    model = fresh()
    run(model, examples=1, max_grad_norm=0.01, weight_decay=0.0)
    moved = np.linalg.norm(model.encode(["a", "b", "c"]) - ROWS)
    assert moved == pytest.approx(RATE * 0.01, rel=1e-3)


class Falling(SentenceEvaluator):
    """The first score is the best."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = iter([0.9, 0.5, 0.4, 0.3, 0.2])

    def __call__(self, model: Any, output_path: str | None = None, epoch: int = -1, steps: int = -1) -> float:
        return next(self.scores)


@pytest.mark.parametrize(("best", "steps"), [(True, 2), (False, 6)])
def test_evaluation_steps_callback_and_which_model_is_saved(best, steps, tmp_path):
    seen: list[tuple[float, int]] = []
    run(
        fresh(),
        examples=6,
        evaluator=Falling(),
        evaluation_steps=2,
        callback=lambda score, epoch, at: seen.append((score, at)),
        output_path=str(tmp_path / "saved"),
        save_best_model=best,
    )
    assert [score for score, _ in seen] == [0.9, 0.5, 0.4]
    assert [at for _, at in seen] == [2, 4, 6]
    saved = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    assert decayed(saved) == pytest.approx((1 - RATE * DECAY) ** steps, abs=1e-6)


def test_checkpoints(tmp_path):
    """One every so many steps, no more than the limit; a run goes on from the last one and has nothing left to do."""
    settings = {"checkpoint_path": str(tmp_path), "checkpoint_save_steps": 2}

    def kept() -> list[str]:
        return sorted(path.name for path in Path(tmp_path).glob("checkpoint-*"))

    run(fresh(), examples=6, **settings)
    assert kept() == ["checkpoint-2", "checkpoint-4", "checkpoint-6"]
    run(fresh(), examples=6, **settings, checkpoint_save_total_limit=1)
    assert kept() == ["checkpoint-6"]
    model = fresh()
    run(model, examples=8, **settings, resume_from_checkpoint=True)
    assert decayed(model) == pytest.approx((1 - RATE * DECAY) ** 8, abs=1e-6)


def test_a_bar_where_it_is_asked_for(capsys):
    for shown in (True, False):
        run(fresh(), show_progress_bar=shown)
        assert ("4/4" in capsys.readouterr().err) == shown
