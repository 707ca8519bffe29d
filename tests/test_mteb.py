"""MTEB runs with our models, and its scores are those of version 6.2.0 on the same tasks and weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

mteb = pytest.importorskip("mteb")

GOLDEN = json.loads(Path(__file__).parent.joinpath("golden", "mteb.json").read_text(encoding="utf-8"))
TOLERANCE = 2e-3  # a neighbour in a ranking or a cluster may change with the last digits of an embedding


@pytest.fixture(scope="module")
def scores() -> dict[str, dict[str, float]]:
    from tests.golden.mteb_tasks import scores

    return scores()


@pytest.mark.slow
@pytest.mark.parametrize("kind", GOLDEN["scores"])
def test_scores_are_those_of_6_2_0(kind: str, scores: dict[str, dict[str, float]]) -> None:
    assert scores[kind] == pytest.approx(GOLDEN["scores"][kind], abs=TOLERANCE)


def test_golden_scores_tell_kinds_apart() -> None:
    """Prompts change the scores, and no score is that of chance."""
    found: dict[str, Any] = GOLDEN["scores"]
    assert found["dense, prompts"]["NewsGroups"] != found["dense"]["NewsGroups"]
    assert found["dense"]["ArxivTags"] != found["dense, prompts"]["ArxivTags"]
    assert found["dense"]["LeeSTS"] > 0.5 and found["dense"]["NewsGroups"] > 0.7


@pytest.mark.slow
def test_metadata_for_a_leaderboard(bert_folder: Path) -> None:
    """What a submission says about a model is read from the model."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(bert_folder))
    found = mteb.models.ModelMeta.from_sentence_transformer_model(model)
    assert found.embed_dim == model.get_embedding_dimension()
    assert found.max_tokens == model.max_seq_length
    assert found.similarity_fn_name == "cosine"
