"""Hard negatives: those of version 6.2.0, and what holds for the options."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers.models import Dense, Pooling

from sentence_transformers import SentenceTransformer, SparseEncoder
from sentence_transformers.util import mine_hard_negatives
from tests import models
from tests.golden import mining_cases, score_models

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
    allowed = mine(range_min=2, range_max=15, num_negatives=13)  # own positives widen the window
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


def test_ten_times_as_many_candidates_where_scores_are_limited() -> None:
    """As 6.2.0 does with `min_score` too: a cross-encoder prefers candidates that are not the nearest."""

    class Judge:
        def predict(self, pairs: list[tuple[str, str]], **kwargs: Any) -> np.ndarray:
            return np.array([float(int(text[1:]) % 7) for _, text in pairs])

    options: dict[str, Any] = {"cross_encoder": Judge(), "num_negatives": 2}
    assert mine(**options, min_score=-1.0).to_dict() == mine(**options, range_max=20).to_dict()
    assert mine(**options, min_score=-1.0).to_dict() != mine(**options).to_dict()


def test_embeddings_are_kept(tmp_path: Path) -> None:
    first = mine(cache_folder=str(tmp_path))
    files = sorted(tmp_path.iterdir())
    assert len(files) == 2 and mine(cache_folder=str(tmp_path)).to_dict() == first.to_dict()
    assert sorted(tmp_path.iterdir()) == files


BERT_TEXTS = {"query": models.SENTENCES[:4], "answer": models.SENTENCES[4:8]}
CHANGES: dict[str, Any] = {
    "truncate_dim": lambda m: setattr(m, "truncate_dim", 8),
    "prompt text": lambda m: m.prompts.update(query="one two: ", document="nine: "),
    "one weight": lambda m: m[0].auto_model.embeddings.word_embeddings.weight.data[60].mul_(3),
    "a few rows": lambda m: m[0].auto_model.embeddings.word_embeddings.weight.data[7:90].mul_(2),
    "norms": lambda m: m[0].auto_model.encoder.layer[1].output.LayerNorm.bias.data.add_(torch.arange(32) / 9),
    "max_seq_length": lambda m: setattr(m, "max_seq_length", 6),
    "pooling": lambda m: m.__setitem__(1, Pooling(32, "max")),
    "module": lambda m: m.append(Dense(32, 8, activation_function=torch.nn.Tanh())),
    "dtype": lambda m: m.bfloat16(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_embeddings_that_were_kept_are_those_of_the_model_as_it_is(
    change: str, tmp_path: Path, bert_folder: Path
) -> None:
    data = datasets.Dataset.from_dict(BERT_TEXTS)
    options: dict[str, Any] = {"num_negatives": 2, "output_scores": True, "verbose": False}
    model = SentenceTransformer(str(bert_folder), device="cpu", prompts={"query": "q: "})
    before = mine_hard_negatives(data, model, cache_folder=str(tmp_path), **options).to_dict()
    torch.manual_seed(0)
    CHANGES[change](model)
    found = mine_hard_negatives(data, model, cache_folder=str(tmp_path), **options).to_dict()
    fresh = mine_hard_negatives(data, model, **options).to_dict()
    np.testing.assert_allclose(found["scores"], fresh["scores"], atol=1e-5)
    assert not np.allclose(found["scores"], before["scores"], atol=1e-5)


def test_embeddings_are_kept_for_a_model_that_was_loaded_again(tmp_path: Path, bert_folder: Path) -> None:
    data = datasets.Dataset.from_dict(BERT_TEXTS)
    made = SentenceTransformer(modules=list(SentenceTransformer(str(bert_folder), device="cpu")), device="cpu")
    for model in (made, SentenceTransformer(str(bert_folder), device="cpu")):
        mine_hard_negatives(data, model, cache_folder=str(tmp_path), num_negatives=2, verbose=False)
        assert len(list(tmp_path.iterdir())) == 2


def test_the_models_own_similarity_finds_and_scores(bert_folder: Path) -> None:
    class Reversed(SentenceTransformer):
        def similarity(self, a: Any, b: Any) -> Any:
            return -super().similarity(a, b)

        def similarity_pairwise(self, a: Any, b: Any) -> Any:
            return -super().similarity_pairwise(a, b)

    model = Reversed(str(bert_folder), device="cpu")
    found = mine_hard_negatives(
        datasets.Dataset.from_dict(BERT_TEXTS), model, num_negatives=1, output_scores=True, verbose=False
    )
    queries, answers = (model.encode(side, normalize_embeddings=True) for side in BERT_TEXTS.values())
    for i, row in enumerate(found):
        scores = {BERT_TEXTS["answer"][j]: -float(queries[i] @ answers[j]) for j in range(4) if j != i}
        assert row["negative"] == max(scores, key=scores.__getitem__)
        assert row["scores"] == pytest.approx([-float(queries[i] @ answers[i]), max(scores.values())], abs=1e-5)


def test_a_window_that_is_too_small_is_refused() -> None:
    with pytest.raises(ValueError, match=r"range_min=0 to range_max=3 are only 3 candidates"):
        mine(num_negatives=10, range_max=3)
    with pytest.raises(ValueError, match=r"range_min=1 to range_max=3 are only 2 candidates"):
        mine(num_negatives=3, range_min=1, range_max=3)
    assert len(mine(num_negatives=3, range_max=3))


def test_models_without_dense_vectors_are_refused(tmp_path: Path) -> None:
    next(iter(score_models.SPARSE.values()))(tmp_path / "model")
    data = datasets.Dataset.from_dict(mining_cases.pairs())
    with pytest.raises(ValueError, match="one dense vector a text, a SentenceTransformer, got a SparseEncoder"):
        mine_hard_negatives(data, SparseEncoder(str(tmp_path / "model"), device="cpu"))


def test_what_is_otherwise_than_asked_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    found = mine(include_positives=True, output_format="labeled-list", num_negatives=2)
    assert found.column_names == ["query", "answer", "negative_1", "negative_2"]
    assert 'include_positives=True gives output_format="n-tuple"' in caplog.text
    assert not len(mine(min_score=2.0, num_negatives=1))
    assert "have fewer than 1 negatives. Other values of range_max=10, min_score=2.0 would find more." in caplog.text
    with pytest.warns(DeprecationWarning, match="margin is now absolute_margin"):
        mine(margin=0.1)
    assert "margin is now absolute_margin" in caplog.text


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


def test_scores_are_those_of_vectors_of_length_1_and_faiss_takes_no_distances(bert_folder: Path) -> None:
    class Long(SentenceTransformer):
        def similarity(self, a: Any, b: Any) -> Any:
            return super().similarity(a, b)

    data = datasets.Dataset.from_dict(BERT_TEXTS)
    scores = []
    for similarity in ("cosine", "dot"):
        model = SentenceTransformer(str(bert_folder), device="cpu", similarity_fn_name=similarity)
        assert not np.allclose(np.linalg.norm(model.encode(BERT_TEXTS["query"]), axis=1), 1)
        found = mine_hard_negatives(data, model, num_negatives=2, output_scores=True, verbose=False)
        scores.append(found["scores"][:])
    np.testing.assert_allclose(*scores, atol=1e-5)
    distant = SentenceTransformer(str(bert_folder), device="cpu", similarity_fn_name="euclidean")
    for model in (distant, Long(str(bert_folder), device="cpu")):
        with pytest.raises(ValueError, match="use_faiss=True searches by inner products"):
            mine_hard_negatives(data, model, num_negatives=1, use_faiss=True, verbose=False)
