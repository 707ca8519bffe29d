"""The trainer of late interaction models: what it adds to the base trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers.multi_vector_encoder import losses
from sentence_transformers.multi_vector_encoder.evaluation import MultiVectorInformationRetrievalEvaluator

from sentence_transformers import MultiVectorEncoder, MultiVectorEncoderTrainer, MultiVectorEncoderTrainingArguments
from tests.golden import multi_vector_cases as cases
from tests.training import runs

datasets = pytest.importorskip("datasets")
pytest.importorskip("accelerate")
WORDS = ["a b c", "d e", "f g h i", "k l, m", "n o p q", "r s", "t u! v", "w x y z"]
PAIRS = {"query": WORDS, "document": WORDS[1:] + WORDS[:1]}
STEPS = 12


@pytest.fixture
def model(tmp_path: Path) -> MultiVectorEncoder:
    torch.manual_seed(7)
    cases.FOLDERS["expanding"](tmp_path / "model")
    model = MultiVectorEncoder(str(tmp_path / "model"), device="cpu", prompts={"query": "yes "})
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    return model


def trainer_of(model: Any, folder: Path, loss: Any = None, columns: Any = PAIRS, **options: Any) -> Any:
    settings = {"max_steps": STEPS, "per_device_train_batch_size": 8} | options.pop("settings", {})
    return runs.trainer_of(MultiVectorEncoderTrainer, model, folder, columns, loss, settings, **options)


LOSSES: dict[str, tuple[Any, dict[str, Any]]] = {
    "default": (lambda model: None, {}),
    "cached": (lambda model: losses.CachedMultiVectorMultipleNegativesRankingLoss(model, mini_batch_size=3), {}),
    "margin": (losses.MultiVectorMarginMSELoss, {"negative": WORDS[2:] + WORDS[:2], "label": [2.0] * 8}),
    "distill": (losses.MultiVectorDistillKLDivLoss, {"other": WORDS[2:] + WORDS[:2], "scores": [[3.0, 1.0]] * 8}),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_run_lowers_the_loss_and_changes_the_vectors(model: Any, tmp_path: Path, name: str) -> None:
    make, further = LOSSES[name]
    before = np.concatenate(model.encode_document(WORDS, convert_to_numpy=True))
    trainer = trainer_of(model, tmp_path, make(model), columns=PAIRS | further)
    trainer.train()
    found = runs.logged(trainer)
    assert len(found) == STEPS and sum(found[-3:]) < sum(found[:3])
    after = np.concatenate(model.encode_document(WORDS, convert_to_numpy=True))
    assert np.abs(after - before).max() > 1e-3


def test_the_default_loss(model: Any, tmp_path: Path) -> None:
    assert type(trainer_of(model, tmp_path).loss) is losses.MultiVectorMultipleNegativesRankingLoss


@pytest.mark.parametrize(
    ("settings", "lengths"),
    [
        ({}, [10, 7]),  # an expanded query, and the longest document
        ({"max_length": 5}, [10, 5]),  # expansion goes on
        ({"max_length": {"query": 4, "document": 6}}, [10, 6]),
        ({"max_length": {"document": 4}}, [10, 4]),
        ({"prompts": {"document": "yes no "}}, [10, 9]),
        ({"router_mapping": {"query": "document", "document": "query"}}, [5, 10]),
    ],
    ids=range(6),
)
def test_columns_are_encoded_as_their_side(model: Any, tmp_path: Path, settings: Any, lengths: list[int]) -> None:
    """As version 6.2.0 does it: prompts of the model are left out, unless the arguments name them."""
    trainer = trainer_of(model, tmp_path, settings=settings, columns={"query": ["a b c"], "document": ["d e f, g"]})
    batch = next(iter(trainer.get_train_dataloader()))
    columns, _ = trainer.collect_features(batch)
    assert [column["packing"].longest for column in columns] == lengths
    assert [column["packing"].attention_lengths is None for column in columns] == [length != 10 for length in lengths]


def test_the_best_model_by_an_evaluator(model: Any, tmp_path: Path) -> None:
    queries, corpus = ({f"{i}": text for i, text in enumerate(column)} for column in PAIRS.values())
    evaluator = MultiVectorInformationRetrievalEvaluator(queries, corpus, {key: {key} for key in queries}, name="own")
    settings = {
        "eval_strategy": "steps",
        "eval_steps": 4,
        "save_strategy": "steps",
        "save_steps": 4,
        "load_best_model_at_end": True,
        "metric_for_best_model": "eval_own_maxsim_ndcg@10",
    }
    trainer = trainer_of(model, tmp_path, settings=settings, evaluator=evaluator)
    trainer.train()
    found = [
        entry["eval_own_maxsim_ndcg@10"] for entry in trainer.state.log_history if "eval_own_maxsim_ndcg@10" in entry
    ]
    assert len(found) == STEPS // 4 and trainer.state.best_metric == max(found)
    assert evaluator(model)["own_maxsim_ndcg@10"] == pytest.approx(max(found), abs=1e-6)


def test_the_card_tells_the_run(model: Any, tmp_path: Path) -> None:
    trainer_of(model, tmp_path / "run").train()
    model.save_pretrained(str(tmp_path / "final"))
    card = (tmp_path / "final" / "README.md").read_text(encoding="utf-8")
    for part in (
        "`MultiVectorMultipleNegativesRankingLoss`",
        '"similarity_fct": "colbert_scores"',
        "- late-interaction",
        "one vector of 8 dimensions per token",
        "**Query expansion:**",
        "model.encode_query",
        "khattab2020colbert",
    ):
        assert part in card, part
    again = MultiVectorEncoder(str(tmp_path / "final"), device="cpu")
    for side in cases.SIDES:
        rows = [cases.rows_of(one, side)[0] for one in (model, again)]
        np.testing.assert_allclose(*rows, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("most", [0, -1, "many", {"query": 0}])
def test_lengths_that_cannot_be_meant(most: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="max_length"):
        MultiVectorEncoderTrainingArguments(output_dir=str(tmp_path), max_length=most, report_to=[])
