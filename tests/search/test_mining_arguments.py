"""Arguments of `mine_hard_negatives`, on vectors that are known: a text "n …" points in the direction n degrees."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from sentence_transformers.models import StaticEmbedding
from tokenizers import Tokenizer, models, pre_tokenizers

from sentence_transformers import SentenceTransformer
from sentence_transformers.util import mine_hard_negatives

pytestmark = pytest.mark.usefixtures("forked_workers")

ANGLES = [0, 1, 10, 20, 30, 40, 50, 60, 180]


def compass(**settings: Any) -> SentenceTransformer:
    """The vector of a text of one number is its direction; "turn" as a prompt turns it by a quarter."""
    words = {str(angle): i for i, angle in enumerate(ANGLES)} | {"turn": len(ANGLES), "unknown": len(ANGLES) + 1}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="unknown"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    rows = np.array([[math.cos(math.radians(a)), math.sin(math.radians(a))] for a in ANGLES] + [[0, 1], [0, 0]])
    return SentenceTransformer(modules=[StaticEmbedding(tokenizer, rows.astype(np.float32))], device="cpu", **settings)


PAIRS = Dataset.from_dict({"text": ["0"], "other": ["unused"], "answer": ["1"]})
USUAL: dict[str, Any] = {
    "anchor_column_name": "text",
    "positive_column_name": "answer",
    "corpus": [str(angle) for angle in ANGLES[2:]],
    "num_negatives": 1,
    "verbose": False,
}


def mined(model: SentenceTransformer | None = None, **settings: Any) -> list[str]:
    rows = mine_hard_negatives(PAIRS, model or compass(), **USUAL | settings)
    return [row["negative"] for row in rows]


@pytest.mark.parametrize(
    ("settings", "nearest"),
    [
        ({}, "10"),
        ({"max_score": math.cos(math.radians(25))}, "30"),
        ({"absolute_margin": math.cos(math.radians(1)) - math.cos(math.radians(45))}, "50"),
        ({"corpus": ["60", "40"]}, "40"),
    ],
)
def test_which_candidates_are_negatives(settings, nearest):
    assert mined(**settings) == [nearest]


def test_prompts_of_both_sides():
    """A query at 0 degrees that is turned by a quarter points at 45 degrees; documents are turned likewise."""
    assert mined(query_prompt="turn ") == ["40"]
    named = compass(prompts={"side": "turn "})
    assert mined(named, query_prompt_name="side") == ["40"]
    found = [
        mine_hard_negatives(PAIRS, model, output_scores=True, output_format="labeled-pair", **USUAL | given)
        for model, given in ((compass(), {"corpus_prompt": "turn "}), (named, {"corpus_prompt_name": "side"}))
    ]
    for rows in found:
        negative = next(row for row in rows if row["answer"] != "1")
        a = math.radians(int(negative["answer"]))
        assert negative["score"] == pytest.approx(math.cos(a) / math.hypot(math.cos(a), 1 + math.sin(a)), abs=1e-5)


@pytest.mark.parametrize("batch", [1, 16384])
def test_search_by_faiss_in_batches(batch, monkeypatch):
    faiss = pytest.importorskip("faiss")
    seen = []
    search = faiss.IndexFlat.search

    def counted(self, queries, *args, **kwargs):
        seen.append(len(queries))
        return search(self, queries, *args, **kwargs)

    rows = Dataset.from_dict({"text": ["0", "180"], "answer": ["1", "60"]})
    for kind in {faiss.IndexFlat, faiss.IndexFlatIP, faiss.IndexFlatL2}:
        monkeypatch.setattr(kind, "search", counted, raising=False)
    settings = USUAL | {"corpus": USUAL["corpus"][:-1], "use_faiss": True, "faiss_batch_size": batch}
    found = mine_hard_negatives(rows, compass(), **settings)
    assert [row["negative"] for row in found] == ["10", "50"]
    assert not seen or max(seen) <= batch


def test_several_processes(monkeypatch):
    used, start = [], SentenceTransformer.start_multi_process_pool

    def counted(self, target_devices=None):
        used.append(target_devices)
        return start(self, target_devices)

    monkeypatch.setattr(SentenceTransformer, "start_multi_process_pool", counted)
    assert mined(use_multi_process=["cpu", "cpu"]) == ["10"]
    assert used and all(devices == ["cpu", "cpu"] for devices in used)


@pytest.mark.parametrize(("older", "columns"), [(True, 3), (False, 3)])
def test_the_older_name_of_the_output_format(older, columns):
    rows = mine_hard_negatives(PAIRS, compass(), **USUAL | {"num_negatives": 2, "as_triplets": older})
    assert len(rows) == (2 if older else 1)
    assert len(rows.column_names) >= columns
