"""Hard negatives: those of version 6.2.0, and what holds for the options."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sentence_transformers.util import mine_hard_negatives
from tests.golden import mining_cases

datasets = pytest.importorskip("datasets")
GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "hard_negatives.json").read_text())


def mine(**options: Any) -> Any:
    return mine_hard_negatives(
        datasets.Dataset.from_dict(mining_cases.pairs()), mining_cases.model(), verbose=False, **options
    )


def rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return round(value, 4) if isinstance(value, float) else value


@pytest.mark.parametrize("name", mining_cases.CASES)
def test_pairs_are_those_of_6_2_0(name: str) -> None:
    found, expected = mining_cases.run(mine_hard_negatives, name), GOLDEN[name]
    assert list(found) == list(expected)
    for column in found:
        assert rounded(found[column]) == rounded(expected[column])


def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = mine(num_negatives=4).to_dict()
    monkeypatch.setattr("sentence_transformers.search.hard_negatives.QUERY_BLOCK", 5)
    monkeypatch.setattr("sentence_transformers.search.hard_negatives.DOCUMENT_BLOCK", 7)
    assert mine(num_negatives=4).to_dict() == whole


def test_random_negatives_keep_the_rules_and_the_seed() -> None:
    options: dict[str, Any] = {"sampling_strategy": "random", "range_min": 2, "range_max": 12, "num_negatives": 3}
    torch.manual_seed(3)
    first = mine(**options, output_scores=True)
    torch.manual_seed(3)
    assert mine(**options, output_scores=True).to_dict() == first.to_dict()
    allowed = mine(range_min=2, range_max=12, num_negatives=20)
    pairs = {(row["query"], row["negative"]) for row in allowed}
    assert all((row["query"], row["negative"]) in pairs for row in first)
    torch.manual_seed(4)
    assert mine(**options, output_scores=True).to_dict() != first.to_dict()


def test_no_positive_is_a_negative() -> None:
    given = mining_cases.pairs()
    own = set(zip(given["query"], given["answer"], strict=True))
    assert not own & {(row["query"], row["negative"]) for row in mine(num_negatives=20)}


def test_a_cross_encoder_has_the_last_word() -> None:
    class Judge:
        def predict(self, pairs: list[tuple[str, str]], **kwargs: Any) -> np.ndarray:
            return np.array([float(int(text[1:]) % 7) for _, text in pairs])

    found = mine(cross_encoder=Judge(), range_max=8, num_negatives=2, output_scores=True)
    by_query: dict[str, list[float]] = {}
    for row in found:
        assert row["scores"][1] == int(row["negative"][1:]) % 7
        by_query.setdefault(row["query"] + row["answer"], []).append(row["scores"][1])
    assert all(scores == sorted(scores, reverse=True) for scores in by_query.values())


def test_embeddings_are_kept(tmp_path: Path) -> None:
    first = mine(cache_folder=str(tmp_path))
    files = sorted(tmp_path.iterdir())
    assert len(files) == 2 and mine(cache_folder=str(tmp_path)).to_dict() == first.to_dict()
    assert sorted(tmp_path.iterdir()) == files


def test_the_report(capsys: pytest.CaptureFixture[str]) -> None:
    data = datasets.Dataset.from_dict(mining_cases.pairs())
    mine_hard_negatives(data, mining_cases.model(), relative_margin=0.4, range_max=6)
    out = capsys.readouterr().out
    assert "Metric" in out and "Difference" in out and "have fewer than 3 negatives" in out


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"num_negatives": 0}, "num_negatives must be at least 1"),
        ({"range_min": 5, "range_max": 5}, "greater than range_min"),
        ({"sampling_strategy": "best"}, "'random' or 'top'"),
        ({"output_format": "table"}, "Unknown output_format"),
        ({"anchor_column_name": "question"}, r"no column 'question'; it has \['query', 'answer'\]"),
    ],
    ids=range(5),
)
def test_what_cannot_be_meant_is_said(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        mine(**options)


def test_rows_without_text_are_named() -> None:
    data = datasets.Dataset.from_dict({"q": ["a", None], "d": ["b", "c"]})
    with pytest.raises(ValueError, match="Row 1 of column 'q' is None"):
        mine_hard_negatives(data, mining_cases.model(), verbose=False)
    with pytest.raises(ValueError, match="empty"):
        mine_hard_negatives(data.select([]), mining_cases.model(), verbose=False)
