"""Dense vectors in each form against its formula; sparse and hybrid search against theirs."""

from __future__ import annotations

from concurrent import futures
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from sentence_transformers import Index
from sentence_transformers.errors import InputError
from sentence_transformers.search.fusion import reciprocal_rank_fusion, weighted_fusion
from tests.index.cases import COUNT, IDS, QUERIES, TEXTS, VECTORS, assert_hits, expected, filled, scores_of, unit

SIMILARITIES = ["cosine", "dot", "euclidean"]
FORMS = [
    ("float32", None),
    ("int8", None),
    ("int8", "float32"),
    ("binary", None),
    ("binary", "int8"),
    ("binary", "float32"),
]


def rounded(vectors: np.ndarray) -> np.ndarray:
    """Vectors as int8 keeps them: whole multiples of a 127th of their greatest value."""
    steps = np.abs(vectors).max(axis=1, keepdims=True) / 127
    return (np.rint(vectors / steps) * steps).astype(np.float32)


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize(("precision", "rescore"), FORMS[:3] + FORMS[4:])
def test_scores_are_those_of_the_best_form(precision, rescore, similarity):
    """With every document a candidate, the scores are exact for the form that rescores."""
    index = filled(Index(similarity=similarity, precision=precision, rescore=rescore))
    form = rescore or precision
    documents = unit(VECTORS) if similarity == "cosine" else VECTORS
    documents = rounded(documents) if form == "int8" else documents
    found = index.search(embeddings=QUERIES, top_k=COUNT)
    for query, hits in zip(unit(QUERIES) if similarity == "cosine" else QUERIES, found, strict=True):
        exact = scores_of(query, documents, "dot" if similarity == "cosine" else similarity)
        if similarity == "euclidean":  # lengths are kept exactly
            exact = -np.sqrt((VECTORS**2).sum(1) + (query**2).sum() - 2 * documents @ query)
        assert {hit.id for hit in hits} == set(IDS)
        by_id = {hit.id: hit.score for hit in hits}
        np.testing.assert_allclose([by_id[id] for id in IDS], exact, atol=1e-4)
        assert all(one.score >= other.score for one, other in pairwise(hits))


@pytest.mark.parametrize("queries", [QUERIES[:1], np.tile(QUERIES, (3, 1))])
def test_bits_alone_count_signs_that_agree(queries):
    found = filled(Index(precision="binary", rescore=None)).search(embeddings=queries, top_k=COUNT)
    for query, hits in zip(queries, found, strict=True):
        agree = ((query > 0) == (VECTORS > 0)).sum(axis=1)
        expected_scores = 2 * agree / VECTORS.shape[1] - 1
        order = np.argsort(-expected_scores, kind="stable")
        assert [hit.id for hit in hits] == [IDS[row] for row in order]
        np.testing.assert_allclose([hit.score for hit in hits], expected_scores[order], atol=1e-6)


@pytest.mark.parametrize(("precision", "rescore"), FORMS)
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_forms_are_kept_on_disk_and_through_changes(precision, rescore, similarity, tmp_path):
    index = filled(Index(similarity=similarity, precision=precision, rescore=rescore))
    whole = index.search(embeddings=QUERIES, top_k=20, rescore_multiplier=COUNT)
    index.delete(IDS[:50])
    index.save(tmp_path)
    index.close()
    with Index.load(tmp_path) as loaded:
        filled(loaded, range(50))
        again = loaded.search(embeddings=QUERIES, top_k=20, rescore_multiplier=COUNT)
    for hits, others in zip(whole, again, strict=True):
        np.testing.assert_allclose([hit.score for hit in hits], [hit.score for hit in others], atol=1e-5)
        assert rescore is None or {hit.id for hit in hits[:10]} <= {hit.id for hit in others}


@pytest.mark.parametrize("dimension", [1, 3, 8, 9, 17])
@pytest.mark.parametrize("precision", ["int8", "binary"])
def test_any_dimension(dimension, precision):
    vectors = np.random.default_rng(3).normal(size=(40, dimension)).astype(np.float32)
    for queries in (vectors[:2], vectors):
        index = Index(precision=precision, rescore="float32", similarity="dot")
        index.add(embeddings=vectors)
        found = index.search(embeddings=queries, top_k=40, rescore_multiplier=40)
        for query, hits in zip(queries, found, strict=True):
            np.testing.assert_allclose([hit.score for hit in hits], np.sort(vectors @ query)[::-1], atol=1e-5)


@pytest.mark.parametrize("changed", [False, True])
def test_bits_are_sieved_before_originals_are_read(changed):
    """Read are the documents whose bits fit the float query best, of ten times as many by Hamming distance."""
    random = np.random.default_rng(11)
    vectors = unit(random.normal(size=(2000, 32)).astype(np.float32))
    queries = unit(random.normal(size=(12, 32)).astype(np.float32))
    index = Index(precision="binary", rescore="float32")
    index.add(embeddings=vectors[:1200])
    index.add(embeddings=vectors[1200:])
    gone = set(range(0, 2000, 3)) if changed else set()
    index.delete(sorted(gone))
    kept = np.array([row for row in range(2000) if row not in gone])
    signs = np.where(vectors[kept] > 0, 1, -1)
    for some in (queries[:1], queries):
        found = index.search(embeddings=some, top_k=5, rescore_multiplier=4)
        for query, hits in zip(some, found, strict=True):
            near = kept[np.argsort(-(signs @ np.sign(query)), kind="stable")[:200]]
            sieved = near[np.argsort(-(np.where(vectors[near] > 0, 1, -1) @ query), kind="stable")[:20]]
            best = sieved[np.argsort(-(vectors[sieved] @ query), kind="stable")[:5]]
            assert [hit.id for hit in hits] == best.tolist()


def test_zero_vectors_are_allowed():
    for precision in ("float32", "int8", "binary"):
        index = Index(precision=precision)
        index.add(embeddings=np.zeros((2, 8)))
        assert [hit.score for hit in index.search(embeddings=np.zeros(8))] in ([0, 0], [1, 1])


# ---- sparse and hybrid

VOCABULARY = 60


def sparse_vectors(count: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    return (random.random((count, VOCABULARY)) * (random.random((count, VOCABULARY)) < 0.06)).astype(np.float32)


SPARSE, SPARSE_QUERIES = sparse_vectors(COUNT, 7), sparse_vectors(len(QUERIES), 8)


def both(index: Index, rows: range = range(COUNT)) -> Index:
    index.add(
        [TEXTS[row] for row in rows],
        embeddings=VECTORS[rows],
        sparse_embeddings=torch.tensor(SPARSE[rows]).to_sparse(),
        ids=[IDS[row] for row in rows],
    )
    return index


def sparse_expected(rows: list[int], top_k: int, similarity: str = "dot") -> list[list[tuple]]:
    """Documents that share a term, by dot product or cosine."""
    result = []
    for query in SPARSE_QUERIES:
        scores = SPARSE[rows].astype(np.float64) @ query
        if similarity == "cosine":
            scores /= np.linalg.norm(SPARSE[rows], axis=1).clip(1e-12) * np.linalg.norm(query)
        order = [place for place in np.argsort(-scores, kind="stable") if scores[place] > 0][:top_k]
        result.append([(IDS[rows[place]], scores[place]) for place in order])
    return result


@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_sparse_search(similarity, tmp_path):
    index = Index(sparse_similarity=similarity)
    for rows in (range(200), range(200, COUNT)):
        index.add(sparse_embeddings=torch.tensor(SPARSE[rows]).to_sparse(), ids=[IDS[row] for row in rows])
    queries = torch.tensor(SPARSE_QUERIES).to_sparse()
    assert_hits(index.search(sparse_embeddings=queries, top_k=20), sparse_expected(list(range(COUNT)), 20, similarity))
    index.save(tmp_path)
    index.delete([IDS[row] for row in range(0, COUNT, 2)])
    left = list(range(1, COUNT, 2))
    for _ in range(2):
        assert_hits(index.search(sparse_embeddings=queries, top_k=20), sparse_expected(left, 20, similarity))
        index.compact()
    assert repr(index).startswith(f"Index(150 documents, sparse dimension {VOCABULARY}, in ")


@pytest.mark.parametrize("fusion", ["rrf", "weighted"])
@pytest.mark.parametrize("weights", [None, (0.3, 2)])
@pytest.mark.parametrize("candidates", [1, 30, 1000])
def test_hybrid_is_the_fusion_of_both(fusion, weights, candidates):
    index = both(both(Index(), range(200)), range(200, COUNT))
    depth = max(10, candidates)
    fuse = {
        "rrf": lambda pair: reciprocal_rank_fusion([[id for id, _ in one] for one in pair], weights=weights),
        "weighted": lambda pair: weighted_fusion(pair, weights),
    }[fusion]
    rows = list(range(COUNT))
    pairs = zip(expected(QUERIES, rows, depth), sparse_expected(rows, depth), strict=True)
    found = index.search(
        embeddings=QUERIES,
        sparse_embeddings=SPARSE_QUERIES,
        fusion=fusion,
        weights=weights,
        candidates=candidates,
    )
    assert_hits(found, [fuse(pair)[:10] for pair in pairs])


def test_each_side_of_a_hybrid_index_can_be_asked_alone(tmp_path):
    both(Index()).save(tmp_path)
    index = Index.load(tmp_path)
    rows = list(range(COUNT))
    assert_hits(index.search(embeddings=QUERIES), expected(QUERIES, rows, 10))
    assert_hits(index.search(sparse_embeddings=SPARSE_QUERIES), sparse_expected(rows, 10))
    arguments = {"embeddings": QUERIES, "sparse_embeddings": SPARSE_QUERIES}
    assert_hits(index.search(**arguments, mode="dense"), expected(QUERIES, rows, 10))
    assert_hits(index.search(**arguments, mode="sparse"), sparse_expected(rows, 10))


def test_update_of_a_hybrid_index_keeps_the_other_side():
    index = both(both(Index(), range(200)), range(200, COUNT))
    changed = [IDS[250], IDS[3], IDS[100]]
    index.update(changed, metadata=[{"n": 1}] * 3)
    order = [row for row in range(COUNT) if IDS[row] not in changed] + [250, 3, 100]
    assert_hits(index.search(sparse_embeddings=SPARSE_QUERIES), sparse_expected(order, 10))
    assert_hits(index.search(embeddings=QUERIES), expected(QUERIES, order, 10))
    index.update(IDS[3], sparse_embeddings=SPARSE_QUERIES[0] * 100)
    assert index.search(sparse_embeddings=SPARSE_QUERIES[0], top_k=1)[0].id == IDS[3]
    (hit,) = index.search(embeddings=VECTORS[3], top_k=1)
    assert (hit.id, hit.text) == (IDS[3], TEXTS[3])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"embeddings": VECTORS[:2]}, "a SparseEncoder is needed"),
        ({"sparse_embeddings": SPARSE[:2]}, "a SentenceTransformer is needed"),
        ({"embeddings": VECTORS[:2], "sparse_embeddings": SPARSE[:1]}, "2 documents, but 1 sparse vectors"),
        ({"embeddings": VECTORS[:2], "sparse_embeddings": np.ones((2, 5))}, "dimension 5, the index has 60"),
        ({"embeddings": VECTORS[:2], "sparse_embeddings": np.full((2, VOCABULARY), np.nan)}, "NaN or infinity"),
    ],
)
def test_bad_documents_of_a_hybrid_index(arguments, message):
    index = both(Index())
    with pytest.raises(InputError, match=message):
        index.add(**arguments)
    assert len(index) == COUNT
    with pytest.raises(InputError, match="no `sparse_embeddings`; its documents came without"):
        filled(Index()).add(embeddings=VECTORS[:2], sparse_embeddings=SPARSE[:2])


def test_searches_of_bits_leave_no_threads():
    index = Index(precision="binary")
    index.add(embeddings=np.random.default_rng(0).normal(size=(50, 64)).astype(np.float32))
    query = np.ones(64, np.float32)
    index.search(embeddings=query)
    pools: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(futures.thread.ThreadPoolExecutor, "__init__", lambda *args, **kwargs: pools.append(args))
        for _ in range(5):
            index.search(embeddings=query, exact=True)
    assert not pools
