"""Search in codes: against sorted products of signs and values, whatever the blocks, forms and numbers of queries."""

from __future__ import annotations

import numpy as np
import pytest

from sentence_transformers.errors import InputError
from sentence_transformers.quantization import quantize_embeddings
from sentence_transformers.search import quantized_search
from sentence_transformers.search.quantized_search import search_quantized

BITS, BYTES = ("binary", "ubinary"), ("int8", "uint8")


def vectors(count, dimension, seed):
    return np.random.default_rng(seed).standard_normal((count, dimension), np.float32)


def best(scores, k):
    """Ids by falling score, then id."""
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


def signs(array):
    return np.where(array > 0, 1, -1)


@pytest.fixture(params=[(1, 10**6), (8, 10**6), (9, 10**6), (9, 64), (3, 64)], ids=str)
def sizes(request, monkeypatch):
    """Numbers of queries on both sides of where the method changes; whole and small blocks."""
    queries, block = request.param
    monkeypatch.setattr(quantized_search, "BLOCK", min(quantized_search.BLOCK, block))
    monkeypatch.setattr(quantized_search, "MOST_DOCUMENTS", min(quantized_search.MOST_DOCUMENTS, block))
    monkeypatch.setattr(quantized_search, "LEAST_DOCUMENTS", min(quantized_search.LEAST_DOCUMENTS, 16))
    return queries


@pytest.mark.parametrize("dimension", [8, 13, 384])
@pytest.mark.parametrize("precision", BITS)
def test_bits_are_found_by_their_hamming_distance(precision, dimension, sizes):
    queries, documents = vectors(sizes, dimension, 0), vectors(500, dimension, 1)
    codes = quantize_embeddings(documents, precision)
    products = signs(queries) @ signs(documents).T  # many of them are equal
    scores, ids = search_quantized(queries, codes, precision, 7, rescore=False)
    np.testing.assert_array_equal(ids, best(products, 7))
    np.testing.assert_array_equal(scores, np.take_along_axis(products, ids, 1))
    assert (scores.dtype, ids.dtype) == (np.float32, np.int64)


@pytest.mark.parametrize("similarity", ["dot", "cosine"])
@pytest.mark.parametrize("precision", BITS)
def test_bits_are_rescored_by_the_float_query(precision, similarity, sizes):
    queries, documents = vectors(sizes, 24, 0), vectors(300, 24, 1)
    codes = quantize_embeddings(documents, precision)
    products = queries.astype(float) @ signs(documents).T
    if similarity == "cosine":
        products /= np.linalg.norm(queries, axis=1)[:, None] * 24**0.5
    found = search_quantized(queries, codes, precision, 5, rescore_multiplier=60, similarity=similarity)
    np.testing.assert_array_equal(found[1], best(products, 5))
    np.testing.assert_allclose(found[0], np.take_along_axis(products, found[1], 1), rtol=1e-5)


def test_only_candidates_are_rescored():
    queries, documents = vectors(3, 32, 0), vectors(400, 32, 1)
    codes = quantize_embeddings(documents, "ubinary")
    candidates = search_quantized(queries, codes, "ubinary", 20, rescore=False)[1]
    products = queries @ signs(documents).T
    for found, some, scores in zip(
        search_quantized(queries, codes, "ubinary", 5, rescore_multiplier=4)[1], candidates, products, strict=True
    ):
        assert found.tolist() == sorted(some.tolist(), key=lambda i, s=scores: (-s[i], i))[:5]


@pytest.mark.parametrize("count", [1, 8])
def test_originals_are_read_of_those_whose_bits_fit_the_float_query(count):
    """Independent: all Hamming distances sorted, the first SIEVE · m of them by the bits, m of those by the floats."""
    queries, documents = vectors(count, 64, 1), vectors(3000, 64, 2)
    codes = quantize_embeddings(documents, "ubinary")
    values, ids = search_quantized(queries, codes, "ubinary", 2, originals=documents, rescore_multiplier=3)
    for query, found, scores in zip(queries, ids, values, strict=True):
        by_distance = best(np.where(query > 0, 1, -1)[None] @ signs(documents).T, 6 * quantized_search.SIEVE)[0]
        by_bits = by_distance[np.argsort(-(signs(documents[by_distance]) @ query), kind="stable")[:6]]
        expected = by_bits[np.argsort(-(documents[by_bits] @ query), kind="stable")[:2]]
        assert found.tolist() == expected.tolist()
        np.testing.assert_allclose(scores, documents[expected] @ query, rtol=1e-5)


@pytest.mark.parametrize("arrangement", ["random", "sorted", "ties", "sample is far"])
@pytest.mark.parametrize("k", [1, 100, 999, 1000, 2000])
def test_nearest_is_a_stable_sort(arrangement, k):
    distances = np.random.default_rng(3).integers(0, 200, 1000).astype(np.int16)
    if arrangement == "sorted":
        distances.sort()
    if arrangement == "ties":
        distances[:] = 7
    if arrangement == "sample is far":  # or rather near: the others are not within what it suggests
        distances += 300
        distances[:: quantized_search.SAMPLE] = 0
    assert quantized_search.nearest(distances, k).tolist() == np.argsort(distances, kind="stable")[:k].tolist()


@pytest.mark.parametrize("dimension", [13, 64])
@pytest.mark.parametrize("precision", BYTES)
def test_bytes_find_what_their_values_say(precision, dimension, sizes):
    queries, documents = vectors(sizes, dimension, 0), vectors(500, dimension, 1)
    ranges = np.stack([documents.min(0), documents.max(0)])
    codes = quantize_embeddings(documents, precision, ranges=ranges)
    steps = (ranges[1] - ranges[0]) / 255
    values = ranges[0] + (codes.astype(float) + (128.5 if precision == "int8" else 0.5)) * steps
    scores, ids = search_quantized(queries, codes, precision, 5, ranges=ranges)
    np.testing.assert_array_equal(ids, best(queries @ values.T, 5))
    np.testing.assert_allclose(scores, np.take_along_axis(queries @ values.T, ids, 1), rtol=1e-4)
    first, _ = search_quantized(queries, codes, precision, 5, ranges=ranges, rescore=False)
    np.testing.assert_allclose(first, scores, atol=0.02 * np.abs(scores).max())


def test_without_ranges_the_codes_are_the_values():
    queries, codes = vectors(4, 16, 0), np.random.default_rng(0).integers(-128, 128, (50, 16), np.int8)
    ids = search_quantized(queries, codes, "int8", 3, rescore_multiplier=50)[1]
    np.testing.assert_array_equal(ids, best(queries @ (codes + 0.5).T, 3))


@pytest.mark.parametrize("similarity", ["dot", "cosine"])
@pytest.mark.parametrize("precision", ["float32", "binary", "int8"])
def test_originals_on_disk_give_the_exact_answer(precision, similarity, tmp_path):
    queries, documents = vectors(4, 16, 0), vectors(200, 16, 1)
    codes = quantize_embeddings(documents, precision)
    np.save(tmp_path / "codes.npy", codes)
    np.save(tmp_path / "documents.npy", documents)
    mapped = [np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("codes", "documents")]
    found = search_quantized(
        queries, mapped[0], precision, 3, originals=mapped[1], rescore_multiplier=70, similarity=similarity
    )
    products = queries.astype(float) @ documents.T
    if similarity == "cosine":
        products /= np.linalg.norm(queries, axis=1)[:, None] * np.linalg.norm(documents, axis=1)
    np.testing.assert_array_equal(found[1], best(products, 3))
    np.testing.assert_allclose(found[0], np.take_along_axis(products, found[1], 1), rtol=1e-5)


@pytest.mark.parametrize("precision", ["float32", *BITS, *BYTES])
def test_small_and_empty(precision):
    documents = vectors(3, 16, 0)
    codes = quantize_embeddings(documents, precision)
    scores, ids = search_quantized(documents[0], codes, precision, 10)
    assert scores.shape == ids.shape == (1, 3)
    assert search_quantized(documents, codes[:0], precision, 10)[1].shape == (3, 0)
    assert search_quantized(documents[:0], codes, precision, 2)[1].shape == (0, 2)


QUERY, CODES = vectors(2, 16, 0), quantize_embeddings(vectors(5, 16, 1), "binary")


@pytest.mark.parametrize(
    "change, message",
    [
        ({"queries": np.zeros((2, 16), np.int8)}, "int8"),
        ({"queries": QUERY[:, :8]}, r"\(N, 1\).*\(5, 2\)"),
        ({"queries": QUERY * np.nan}, "Query 0 .*NaN"),
        ({"queries": np.zeros((2, 2, 2))}, r"\(2, 2, 2\)"),
        ({"precision": "int4"}, "int4"),
        ({"precision": "ubinary"}, "uint8.*int8"),
        ({"precision": "int8"}, r"\(N, 16\).*\(5, 2\)"),
        ({"top_k": 0}, "top_k"),
        ({"rescore_multiplier": 0}, "rescore_multiplier"),
        ({"similarity": "euclidean"}, "euclidean"),
        ({"ranges": np.zeros((2, 3))}, r"\(2, 16\).*\(2, 3\)"),
        ({"originals": np.zeros((4, 16))}, r"\(5, 16\).*\(4, 16\)"),
    ],
)
def test_invalid_arguments(change, message):
    with pytest.raises(InputError, match=message):
        search_quantized(**{"queries": QUERY, "documents": CODES, "precision": "binary", **change})
