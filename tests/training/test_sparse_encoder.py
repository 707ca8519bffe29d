"""The trainer of sparse encoders: what it adds to the base trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers.sparse_encoder import losses
from sentence_transformers.sparse_encoder.callbacks import SpladeRegularizerWeightSchedulerCallback
from sentence_transformers.sparse_encoder.evaluation import SparseInformationRetrievalEvaluator

from sentence_transformers import SparseEncoder, SparseEncoderTrainer
from tests import models
from tests.golden import score_models
from tests.training import runs

pytest.importorskip("accelerate")
WORDS = models.SENTENCES
PAIRS = {"query": WORDS[:8], "document": WORDS[1:9]}
STEPS = 12


@pytest.fixture(scope="module")
def splade_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("splade")
    score_models.SPARSE["splade_bert_max_log1p_relu"](folder)
    return folder


@pytest.fixture
def model(splade_folder: Path) -> SparseEncoder:
    torch.manual_seed(7)
    model = SparseEncoder(str(splade_folder), device="cpu")
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    return model


def splade_loss(model: SparseEncoder, document: float = 3e-3, query: float | None = 5e-3) -> losses.SpladeLoss:
    return losses.SpladeLoss(model, losses.SparseMultipleNegativesRankingLoss(model), document, query)


def trainer_of(model: Any, folder: Path, loss: Any = None, columns: Any = PAIRS, **options: Any) -> Any:
    settings = {"max_steps": STEPS, "per_device_train_batch_size": 8} | options.pop("settings", {})
    return runs.trainer_of(SparseEncoderTrainer, model, folder, columns, loss, settings, **options)


# ---- a run


@pytest.mark.parametrize("kind", ["default", "splade", "cached", "margin"])
def test_a_run_lowers_the_loss_and_changes_the_vectors(model: SparseEncoder, tmp_path: Path, kind: str) -> None:
    before = model.encode(WORDS, convert_to_sparse_tensor=False)
    ranking, columns = losses.SparseMultipleNegativesRankingLoss(model), dict(PAIRS)
    loss: Any = None
    if kind == "splade":
        loss = splade_loss(model)
    elif kind == "cached":
        loss = losses.CachedSpladeLoss(model, ranking, 3e-3, 5e-3, mini_batch_size=3)
    elif kind == "margin":
        loss = losses.SpladeLoss(model, losses.SparseMarginMSELoss(model), 3e-3)
        columns |= {"negative": WORDS[4:12], "label": [0.5] * 8}
    trainer = trainer_of(model, tmp_path, loss, columns=columns)
    trainer.train()
    found = runs.logged(trainer, "base_loss")
    assert len(found) == STEPS and sum(found[-3:]) < sum(found[:3])
    assert (model.encode(WORDS, convert_to_sparse_tensor=False) - before).abs().max() > 1e-3


def test_the_price_of_active_dimensions_makes_vectors_cheaper(model: SparseEncoder, tmp_path: Path) -> None:
    def price() -> float:
        rows = model.encode(WORDS, convert_to_sparse_tensor=False)
        return float(rows.mean(0).square().sum())

    before = price()
    trainer_of(model, tmp_path, splade_loss(model, 1.0, 1.0), settings={"max_steps": 30}).train()
    assert price() < 0.8 * before


def test_the_default_loss(model: SparseEncoder, tmp_path: Path) -> None:
    loss: Any = trainer_of(model, tmp_path).loss
    assert isinstance(loss, losses.SpladeLoss) and isinstance(loss.loss, losses.SparseMultipleNegativesRankingLoss)
    assert loss.document_regularizer_weight > 0 and loss.query_regularizer_weight > 0


@pytest.mark.parametrize("name", ["SparseMultipleNegativesRankingLoss", "FlopsLoss"])
def test_losses_that_only_work_inside_another_one(model: SparseEncoder, tmp_path: Path, name: str) -> None:
    trainer = trainer_of(model, tmp_path, getattr(losses, name)(model))
    with pytest.raises(ValueError, match="SpladeLoss"):
        trainer.train()


def test_the_best_model_by_an_evaluator(model: SparseEncoder, tmp_path: Path) -> None:
    queries, corpus = ({f"{side}{i}": text for i, text in enumerate(PAIRS[name])} for side, name in
                       (("q", "query"), ("d", "document")))  # fmt: skip
    evaluator = SparseInformationRetrievalEvaluator(queries, corpus, {f"q{i}": {f"d{i}"} for i in range(8)}, name="dev")
    trainer = trainer_of(
        model, tmp_path, splade_loss(model), evaluator=evaluator,
        settings={"eval_strategy": "steps", "eval_steps": 4, "save_strategy": "steps", "save_steps": 4,
                  "load_best_model_at_end": True, "metric_for_best_model": "eval_dev_dot_ndcg@10"},
    )  # fmt: skip
    trainer.train()
    found = [entry for entry in trainer.state.log_history if "eval_dev_dot_ndcg@10" in entry]
    assert len(found) == 3 and all("eval_dev_query_active_dims" in entry for entry in found)
    best = max(entry["eval_dev_dot_ndcg@10"] for entry in found)
    assert evaluator(model)["dev_dot_ndcg@10"] == pytest.approx(best)


def test_the_card_tells_the_run(model: SparseEncoder, tmp_path: Path) -> None:
    trainer_of(model, tmp_path, splade_loss(model)).train()
    model.save_pretrained(str(tmp_path / "final"))
    card = (tmp_path / "final" / "README.md").read_text()
    for part in ("`SpladeLoss`", '"SparseMultipleNegativesRankingLoss"', '"document_regularizer_weight": 0.003',
                 "formal2022distillation", "## Training log", "**Size:** 8 rows"):  # fmt: skip
        assert part in card, part
    again = SparseEncoder(str(tmp_path / "final"), device="cpu")
    rows = [one.encode(WORDS, convert_to_sparse_tensor=False) for one in (model, again)]
    torch.testing.assert_close(rows[0], rows[1])


# ---- the weights of the regularisers


@pytest.mark.parametrize(
    ("scheduler", "power", "ratio"), [(None, 2, 1 / 3), ("linear", 1, 0.5), ("quadratic", 2, 1.0), ("linear", 1, 0.0)]
)
def test_weights_rise_by_the_formula(
    model: SparseEncoder, tmp_path: Path, scheduler: str | None, power: int, ratio: float
) -> None:
    loss = splade_loss(model)
    callbacks = [SpladeRegularizerWeightSchedulerCallback(loss, scheduler, ratio)] if scheduler else []
    trainer = trainer_of(model, tmp_path, loss, callbacks=callbacks)
    kinds = [one for one in trainer.callback_handler.callbacks if "Regularizer" in type(one).__name__]
    assert len(kinds) == 1 and kinds == (callbacks or kinds)
    trainer.train()
    warmup = max(1, int(STEPS * ratio))
    shares = [min(step / warmup, 1.0) ** power for step in range(STEPS)]
    assert runs.logged(trainer, "document_regularizer_weight") == pytest.approx([3e-3 * share for share in shares])
    assert runs.logged(trainer, "query_regularizer_weight") == pytest.approx([5e-3 * share for share in shares])
    terms = runs.logged(trainer, "document_regularizer_loss")
    assert terms[0] == 0.0 or warmup == 1
    assert all(terms[-3:])


def test_queries_may_cost_nothing(model: SparseEncoder, tmp_path: Path) -> None:
    trainer = trainer_of(model, tmp_path, splade_loss(model, query=None), settings={"max_steps": 2})
    trainer.train()
    assert runs.logged(trainer, "document_regularizer_weight") and not runs.logged(trainer, "query_regularizer_weight")
    assert not runs.logged(trainer, "query_regularizer_loss")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"scheduler_type": "cubic"}, "Unknown scheduler_type 'cubic'; known are linear, quadratic"),
        ({"warmup_ratio": 1.5}, "warmup_ratio must be between 0 and 1, got 1.5"),
        ({"warmup_ratio": -0.1}, "warmup_ratio must be between 0 and 1"),
        ({"loss": torch.nn.Linear(1, 1)}, "Only a SpladeLoss has regulariser weights to schedule, got a Linear"),
    ],
    ids=range(4),
)
def test_schedules_that_are_none(model: SparseEncoder, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        SpladeRegularizerWeightSchedulerCallback(**{"loss": splade_loss(model)} | settings)
