"""Searches by faiss and usearch: recorded answers of the existing library, indexes used again, bad input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sentence_transformers.errors import InputError, MissingExtraError
from sentence_transformers.quantization import quantize_embeddings, semantic_search_faiss, semantic_search_usearch

pytest.importorskip("faiss")
pytest.importorskip("usearch")
GOLDEN = Path(__file__).parent.parent / "golden"
ARRAYS = np.load(GOLDEN / "search.npz")
ANSWERS = json.loads((GOLDEN / "search.json").read_text())["libraries"]
QUERIES, DOCUMENTS = ARRAYS["queries"], ARRAYS["documents"]
RANGES = np.stack([DOCUMENTS.min(0), DOCUMENTS.max(0)])
SEARCHES = {"faiss": semantic_search_faiss, "usearch": semantic_search_usearch}
CASES = sorted({tuple(name.split()[:2]) for name in ANSWERS})


def search(library, precision, queries=QUERIES, **options):
    codes = None if "corpus_index" in options else quantize_embeddings(DOCUMENTS, precision, ranges=RANGES)
    return SEARCHES[library](queries, codes, corpus_precision=precision, **{"ranges": RANGES, **options})


def scores(results):
    return [[hit["score"] for hit in hits] for hits in results]


@pytest.mark.parametrize("rescore", [True, False])
@pytest.mark.parametrize("library, precision", CASES)
def test_answers_of_the_existing_library(library, precision, rescore):
    results, seconds = search(library, precision, top_k=40, rescore=rescore, rescore_multiplier=1)
    expected = ANSWERS[f"{library} {precision} {rescore}"]
    np.testing.assert_allclose(scores(results), scores(expected), rtol=1e-5, atol=1e-5)
    for found, recorded in zip(results, expected, strict=True):  # libraries order equal scores as they like
        found, recorded = ({hit["corpus_id"]: hit["score"] for hit in hits} for hits in (found, recorded))
        assert found == pytest.approx(recorded, rel=1e-5, abs=1e-5)
    assert seconds > 0
    assert [type(value) for value in results[0][0].values()] == [int, float]


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("library, precision", CASES)
def test_an_index_is_used_again(library, precision, exact):
    first, _, index = search(library, precision, top_k=3, rescore_multiplier=13, exact=exact, output_index=True)
    again, _ = search(library, precision, top_k=3, rescore_multiplier=13, exact=exact, corpus_index=index)
    assert first == again
    assert [len(hits) for hits in again] == [3] * 5


@pytest.mark.parametrize("library, precision", [case for case in CASES if case[1] != "float32"])
def test_quantised_queries_are_not_rescored(library, precision, caplog):
    codes = quantize_embeddings(QUERIES, precision, ranges=RANGES)
    results, _ = search(library, precision, codes, top_k=40)
    assert "no rescoring" in caplog.text
    assert scores(results) == scores(search(library, precision, top_k=40, rescore=False)[0])


@pytest.mark.parametrize("library", SEARCHES)
def test_small_and_empty(library):
    assert [len(hits) for hits in search(library, "ubinary", top_k=1000)[0]] == [40] * 5
    assert search(library, "ubinary", QUERIES[:0])[0] == []


def test_ranges_come_from_calibration_embeddings():
    expected = search("usearch", "int8", top_k=4)[0]
    assert search("usearch", "int8", top_k=4, ranges=None, calibration_embeddings=DOCUMENTS)[0] == expected


@pytest.mark.parametrize("library", SEARCHES)
@pytest.mark.parametrize(
    "change, message",
    [
        ({"corpus_embeddings": None}, "corpus_index"),
        ({"corpus_precision": "int4"}, "int4"),
        ({"top_k": 0}, "top_k"),
        ({"rescore_multiplier": 0, "corpus_precision": "ubinary"}, "rescore_multiplier"),
        ({"corpus_embeddings": DOCUMENTS, "corpus_precision": "ubinary"}, "float32.*Quantise"),
        ({"query_embeddings": QUERIES[:, :5], "corpus_precision": "float32"}, "do not fit"),
        ({"query_embeddings": np.zeros((2, 6), np.uint8), "corpus_precision": "ubinary"}, "do not fit"),
        ({"query_embeddings": QUERIES[0]}, r"\(Q, H\).*\(6,\)"),
        ({"query_embeddings": QUERIES * np.nan}, "row 0 holds NaN"),
    ],
)
def test_invalid_arguments(library, change, message):
    precision = change.get("corpus_precision", "ubinary")
    codes = quantize_embeddings(DOCUMENTS, precision if precision != "int4" else "float32")
    arguments = {"query_embeddings": QUERIES, "corpus_embeddings": codes, "corpus_precision": precision, **change}
    with pytest.raises(InputError, match=message):
        SEARCHES[library](**arguments)


@pytest.mark.parametrize("library", SEARCHES)
def test_a_missing_library_is_named_with_the_command(library, monkeypatch):
    for name in ("faiss", "usearch", "usearch.index"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    with pytest.raises(MissingExtraError, match=f"pip install .*{library}"):
        search(library, "ubinary")
