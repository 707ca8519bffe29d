"""Exact search of sparse embeddings against plain loops: every form of input, every size of blocks."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import scipy.sparse
import torch

from sentence_transformers import similarity as sim
from sentence_transformers.errors import InputError
from sentence_transformers.search import blocks, inverted_index
from sentence_transformers.search.exact import paraphrase_mining_embeddings, semantic_search
from sentence_transformers.search.inverted_index import Postings
from sentence_transformers.util.csr import sparse_rows
from tests.oracle import oracle_python, run_oracle

pytestmark = pytest.mark.filterwarnings("ignore:Sparse")  # torch says so of each layout and check, once


def random_rows(rows: int, dimension: int, seed: int, density: float = 0.2) -> np.ndarray:
    """Whole numbers from -4 to 9, most of them zero, the third row all zero: sums are exact, ties are many."""
    random = np.random.RandomState(seed)
    matrix = random.randint(-4, 10, (rows, dimension)) * (random.rand(rows, dimension) < density)
    matrix[2] = 0
    return matrix.astype(np.float32)


QUERIES, DOCUMENTS = random_rows(7, 30, 0), random_rows(50, 30, 1)


def search_loop(queries: np.ndarray, documents: np.ndarray, k: int, cosine: bool = False) -> list:
    """Scores of every pair in float64, sorted by (-score, id)."""
    results = []
    for query in queries.tolist():
        scores = []
        for document in documents.tolist():
            score = sum(q * d for q, d in zip(query, document, strict=True))
            if cosine:
                lengths = sum(q * q for q in query) ** 0.5 * sum(d * d for d in document) ** 0.5
                score = score / lengths if lengths else 0.0
            scores.append(score)
        best = sorted(range(len(scores)), key=lambda i, s=scores: (-s[i], i))[:k]
        results.append([(i, scores[i]) for i in best])
    return results


def assert_found(found: list, expected: list) -> None:
    assert [[hit["corpus_id"] for hit in hits] for hits in found] == [[i for i, _ in hits] for hits in expected]
    for hits, pairs in zip(found, expected, strict=True):
        np.testing.assert_allclose([hit["score"] for hit in hits], [s for _, s in pairs], atol=1e-5)


def uncoalesced(matrix: np.ndarray) -> torch.Tensor:
    """Every value twice, as two halves, in falling order."""
    coo = torch.tensor(matrix).to_sparse()
    indices, values = coo.indices().flip(1), coo.values().flip(0) / 2
    return torch.sparse_coo_tensor(torch.cat([indices, indices], 1), torch.cat([values, values]), matrix.shape)


def unsorted_scipy(matrix: np.ndarray) -> scipy.sparse.csr_matrix:
    """Each row's values twice, as two halves, in falling order."""
    csr = scipy.sparse.csr_matrix(matrix)
    rows = [slice(*csr.indptr[n : n + 2]) for n in range(len(matrix))]
    columns = np.concatenate([np.tile(csr.indices[row][::-1], 2) for row in rows])
    values = np.concatenate([np.tile(csr.data[row][::-1] / 2, 2) for row in rows])
    return scipy.sparse.csr_matrix((values, columns, csr.indptr * 2), shape=matrix.shape)


def explicit_zeros(matrix: np.ndarray) -> torch.Tensor:
    """Every value is stored, zeros too."""
    indices = torch.ones(matrix.shape).nonzero().T
    return torch.sparse_coo_tensor(indices, torch.tensor(matrix).flatten(), matrix.shape, is_coalesced=True)


FORMS = {
    "coo": lambda m: torch.tensor(m).to_sparse(),
    "uncoalesced": uncoalesced,
    "joined": lambda m: torch.cat([torch.tensor(m[:3]).to_sparse(), torch.tensor(m[3:]).to_sparse()]),
    "csr": lambda m: torch.tensor(m).to_sparse_csr(),
    "csc": lambda m: torch.tensor(m).to_sparse_csc(),
    "csr, float16": lambda m: torch.tensor(m).half().to_sparse_csr(),
    "coo, bfloat16": lambda m: torch.tensor(m).bfloat16().to_sparse(),
    "coo, float64": lambda m: torch.tensor(m).double().to_sparse(),
    "coo, int64": lambda m: torch.tensor(m).long().to_sparse(),
    "requires grad": lambda m: torch.tensor(m).to_sparse().requires_grad_(),
    "explicit zeros": explicit_zeros,
    "scipy csr": scipy.sparse.csr_matrix,
    "scipy csr array": scipy.sparse.csr_array,
    "scipy csr, unsorted": unsorted_scipy,
    "scipy coo": scipy.sparse.coo_array,
    "scipy csc, int": lambda m: scipy.sparse.csc_array(m.astype(np.int32)),
    "dense tensor": torch.tensor,
    "dense array": np.array,
}


@pytest.mark.parametrize("name", ["dot_score", "cos_sim"])
@pytest.mark.parametrize("form", FORMS)
def test_any_form_on_either_side(form, name):
    expected = search_loop(QUERIES, DOCUMENTS, 4, cosine=name == "cos_sim")
    if name == "cos_sim":  # rounding decides between equal cosines: compare scores
        expected = [[score for _, score in hits] for hits in expected]
    pairs = [(form, form), (form, "coo"), ("coo", form), (form, "dense array")]
    for queries, documents in pairs:
        sides = FORMS[queries](QUERIES), FORMS[documents](DOCUMENTS)
        found = semantic_search(*sides, top_k=4, score_function=getattr(sim, name))
        if name == "cos_sim":
            np.testing.assert_allclose([[hit["score"] for hit in hits] for hits in found], expected, atol=1e-5)
        else:
            assert_found(found, expected)


@pytest.mark.parametrize("block_scores", [1, 64, 10**6])
@pytest.mark.parametrize("sizes", [(1, 1), (3, 7), (100, 49), (2, 10**6)])
@pytest.mark.parametrize("k", [1, 5, 40, 100])
def test_ties_go_to_the_lower_id_whatever_the_blocks(sizes, k, block_scores, monkeypatch):
    """Also where fewer than k documents have anything in common with the query: their scores are 0."""
    monkeypatch.setattr(blocks, "BLOCK_SCORES", block_scores)
    found = semantic_search(FORMS["coo"](QUERIES), FORMS["csr"](DOCUMENTS), *sizes, k, sim.dot_score)
    assert_found(found, search_loop(QUERIES, DOCUMENTS, k))
    assert [type(value) for value in found[0][0].values()] == [int, float]


@pytest.mark.parametrize("form", ["coo", "scipy csr"])
def test_other_scores_see_tensors(form):
    def overlap(queries, documents):
        assert isinstance(queries, torch.Tensor) and isinstance(documents, torch.Tensor)
        return (queries.to_dense() != 0).float() @ (documents.to_dense() != 0).float().T

    found = semantic_search(FORMS[form](QUERIES), FORMS[form](DOCUMENTS), 2, 9, 6, overlap)
    used = [(matrix != 0).astype(np.float32) for matrix in (QUERIES, DOCUMENTS)]
    assert_found(found, search_loop(*used, 6))
    found = semantic_search(FORMS[form](QUERIES), FORMS[form](DOCUMENTS), 2, 9, 6, sim.euclidean_sim)
    distances = np.linalg.norm(QUERIES[:, None] - DOCUMENTS[None], axis=-1)
    scores = [[hit["score"] for hit in hits] for hits in found]
    np.testing.assert_allclose(scores, np.sort(-distances)[:, ::-1][:, :6], atol=1e-4)


@pytest.mark.parametrize("form", ["coo", "scipy coo", "dense array"])
def test_a_single_query(form):
    found = semantic_search(FORMS[form](QUERIES[0]), FORMS["coo"](DOCUMENTS), top_k=5, score_function=sim.dot_score)
    assert_found(found, search_loop(QUERIES[:1], DOCUMENTS, 5))


def test_float64_is_kept():
    """A difference that float32 does not hold decides."""
    documents = torch.tensor([[1.0, 0.0], [1.0 + 1e-12, 0.0]], dtype=torch.float64).to_sparse()
    (hits,) = semantic_search(torch.ones(1, 2).to_sparse(), documents, score_function=sim.dot_score)
    assert [hit["corpus_id"] for hit in hits] == [1, 0]


def test_nothing_to_search():
    empty = torch.zeros(0, 30).to_sparse()
    assert semantic_search(FORMS["coo"](QUERIES), empty) == [[]] * 7
    assert semantic_search(empty, FORMS["coo"](DOCUMENTS)) == []
    assert semantic_search(FORMS["coo"](QUERIES), FORMS["coo"](DOCUMENTS), top_k=0) == [[]] * 7
    blank = torch.zeros(2, 30).to_sparse()
    assert_found(semantic_search(blank, blank, score_function=sim.dot_score), [[(0, 0.0), (1, 0.0)]] * 2)


def test_arguments_stay_as_they_were():
    coo, csr = FORMS["coo"](DOCUMENTS), FORMS["scipy csr, unsorted"](DOCUMENTS)
    before = coo.clone(), csr.copy()
    for score in (sim.cos_sim, sim.dot_score):
        semantic_search(coo, csr, score_function=score)
    assert torch.equal(coo.indices(), before[0].indices()) and torch.equal(coo.values(), before[0].values())
    assert (csr.data == before[1].data).all() and (csr.indices == before[1].indices).all()


def test_a_vocabulary_that_is_too_large_to_be_dense():
    """Dense, the documents alone would take 40 GB."""
    random, shape = np.random.RandomState(3), (5000, 2_000_000)
    documents = scipy.sparse.csr_array(
        (np.ones(100_000, np.float32), (random.randint(0, 5000, 100_000), random.randint(0, 2_000_000, 100_000))), shape
    )
    found = semantic_search(documents[:3], documents, top_k=1, score_function=sim.dot_score)
    assert [hits[0]["corpus_id"] for hits in found] == [0, 1, 2]
    squares = (documents[:3].multiply(documents[:3])).sum(1)
    np.testing.assert_allclose([hits[0]["score"] for hits in found], squares)


@pytest.mark.parametrize("count", [1, 2, 300, 65_536, 65_537, 2**33])
def test_stable_order(count):
    keys = np.random.RandomState(5).randint(0, count, 5000, dtype=np.int64)
    keys[:3] = count - 1
    assert inverted_index.stable_order(keys, count).tolist() == sorted(range(5000), key=lambda i: (keys[i], i))


def test_postings_by_hand():
    rows = sparse_rows(torch.tensor([[0.0, 2, 0, 1], [0, 0, 0, 0], [3, 4, 0, 0]]).to_sparse())
    postings = Postings.of(rows)
    assert postings.starts.tolist() == [0, 1, 3, 3, 4]
    assert postings.documents.tolist() == [2, 0, 2, 0]
    assert postings.values.tolist() == [3, 2, 4, 1]
    joined = Postings.join([postings, postings])
    assert (len(joined), joined.dimension) == (6, 4)
    assert joined.documents.tolist() == [2, 5, 0, 2, 3, 5, 0, 3]
    assert joined.scores(rows.take(0, 1)).tolist() == [[5.0, 0.0, 8.0, 5.0, 0.0, 8.0]]


@pytest.mark.parametrize("name", ["dot_score", "cos_sim", "euclidean_sim"])
def test_paraphrases_of_sparse_rows(name):
    rows = np.abs(random_rows(40, 30, 7)) + np.eye(40, 30, dtype=np.float32) * 0.37
    expected = paraphrase_mining_embeddings(rows, max_pairs=20, top_k=3, score_function=getattr(sim, name))
    for form in ("coo", "scipy csr"):
        found = paraphrase_mining_embeddings(FORMS[form](rows), 7, 9, 20, 3, getattr(sim, name))
        np.testing.assert_allclose([pair[0] for pair in found], [pair[0] for pair in expected], atol=1e-4)


@pytest.mark.parametrize(
    "queries, message",
    [
        (torch.zeros(2, 29).to_sparse(), r"\(2, 29\).*\(50, 30\)"),
        (scipy.sparse.csr_array(np.ones((2, 30), complex)), "complex128"),
    ],
    ids=["dimension", "complex"],
)
def test_invalid_queries(queries, message):
    with pytest.raises(InputError, match=message):
        semantic_search(queries, FORMS["coo"](DOCUMENTS))


def test_scipy_is_not_needed():
    code = (
        "import sys; sys.modules['scipy'] = None\n"
        "import torch; from sentence_transformers.util import semantic_search\n"
        "eye = torch.eye(3).to_sparse(); print([hits[0]['corpus_id'] for hits in semantic_search(eye, eye)])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[0, 1, 2]", done.stderr


@pytest.mark.slow
@pytest.mark.skipif(oracle_python() is None, reason="needs version 6.2.0")
@pytest.mark.parametrize("name", ["cos_sim", "dot_score"])
def test_the_existing_library_finds_the_same(tmp_path, name):
    """Some thousand rows with words as frequent as in real text (Zipf): same documents, scores within 1e-5."""
    random = np.random.RandomState(0)
    terms = (30_522 * random.rand(3000, 40) ** 4).astype(int)
    matrix = torch.zeros(3000, 30_522)
    matrix[torch.arange(3000)[:, None], torch.from_numpy(terms)] = torch.from_numpy(random.rand(3000, 40)).float()
    torch.save(matrix.to_sparse(), tmp_path / "rows.pt")
    code = (
        "import json, sys, torch; from sentence_transformers import util\n"
        "rows = torch.load(sys.argv[1]).coalesce(); queries = rows.index_select(0, torch.arange(20))\n"
        "print(json.dumps(util.semantic_search(queries, rows, score_function=getattr(util, sys.argv[2]))))"
    )
    expected = json.loads(run_oracle(code, tmp_path / "rows.pt", name).splitlines()[-1])
    rows = matrix.to_sparse()
    found = semantic_search(matrix[:20].to_sparse(), rows, score_function=getattr(sim, name))
    assert_found(found, [[(hit["corpus_id"], hit["score"]) for hit in hits] for hits in expected])
