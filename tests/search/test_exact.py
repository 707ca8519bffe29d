"""Exact search, paraphrase mining and community detection against plain loops and recorded answers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from sentence_transformers import similarity as sim
from sentence_transformers.errors import InputError
from sentence_transformers.search import blocks, clustering, paraphrase
from sentence_transformers.search.exact import (
    community_detection,
    information_retrieval,
    paraphrase_mining,
    paraphrase_mining_embeddings,
    semantic_search,
)

FOLDER = Path(__file__).parent.parent / "golden"
ARRAYS = np.load(FOLDER / "search.npz")
ANSWERS = json.loads((FOLDER / "search.json").read_text())
QUERIES, DOCUMENTS, CROWD = ARRAYS["queries"], ARRAYS["documents"], ARRAYS["crowd"]
SCORES = ("cos_sim", "dot_score", "euclidean_sim", "manhattan_sim")


def ids(results):
    return [[hit["corpus_id"] for hit in hits] for hits in results]


def assert_same_hits(found, expected):
    assert ids(found) == ids(expected)
    scores = [[[hit["score"] for hit in hits] for hits in side] for side in (found, expected)]
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-5)


def search_loop(queries, documents, k):
    """Sort every document of every query by (-dot product, id)."""
    ranked = []
    for q in queries.tolist():
        scores = [sum(x * y for x, y in zip(q, d, strict=True)) for d in documents.tolist()]
        ranked.append(sorted(range(len(scores)), key=lambda i, s=scores: (-s[i], i))[:k])
    return ranked


@pytest.mark.parametrize("sizes", [(100, 500000), (2, 7), (1, 1), (5, 40)])
@pytest.mark.parametrize("name", SCORES)
def test_search_answers_of_the_existing_library(name, sizes):
    found = semantic_search(QUERIES, DOCUMENTS, *sizes, top_k=4, score_function=getattr(sim, name))
    assert_same_hits(found, ANSWERS["semantic_search"][name])


@pytest.mark.parametrize("block_scores", [1, 16, 10**6])
@pytest.mark.parametrize("document_block", [1, 3, 8, 1000])
@pytest.mark.parametrize("k", [1, 4, 30, 100])
def test_ties_go_to_the_lower_id_whatever_the_blocks(document_block, k, block_scores, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_SCORES", block_scores)
    random = np.random.RandomState(1)
    queries, documents = random.randint(-1, 2, (4, 3)), random.randint(-1, 2, (60, 3))
    found = semantic_search(queries, documents, 3, document_block, k, sim.dot_score)
    assert ids(found) == search_loop(queries, documents, k)


SEARCH_FORMS = {
    "tensors": (torch.tensor(QUERIES), torch.tensor(DOCUMENTS)),
    "lists of tensors": (list(torch.tensor(QUERIES)), list(torch.tensor(DOCUMENTS))),
    "nested lists": (QUERIES.tolist(), DOCUMENTS.tolist()),
    "array and tensor": (QUERIES, torch.tensor(DOCUMENTS)),
    "float64 documents": (QUERIES, DOCUMENTS.astype(np.float64)),
    "sparse": (torch.tensor(QUERIES).to_sparse(), torch.tensor(DOCUMENTS).to_sparse()),
    "requires grad": (torch.tensor(QUERIES, requires_grad=True), torch.tensor(DOCUMENTS)),
}


@pytest.mark.parametrize("form", SEARCH_FORMS)
@pytest.mark.parametrize("chunk", [9, 1000])
def test_search_equivalent_inputs(form, chunk):
    found = semantic_search(*SEARCH_FORMS[form], corpus_chunk_size=chunk, top_k=4)
    assert_same_hits(found, ANSWERS["semantic_search"]["cos_sim"])


def test_search_reads_a_memory_mapped_file(tmp_path):
    np.save(tmp_path / "documents.npy", DOCUMENTS)
    mapped = np.load(tmp_path / "documents.npy", mmap_mode="r")
    assert_same_hits(semantic_search(QUERIES, mapped, 2, 9, 4), ANSWERS["semantic_search"]["cos_sim"])


def test_search_types_and_single_query():
    (hits,) = semantic_search(QUERIES[0], DOCUMENTS, top_k=3)
    assert_same_hits([hits[:3]], [ANSWERS["semantic_search"]["cos_sim"][0][:3]])
    assert [type(value) for value in hits[0].values()] == [int, float]
    assert list(hits[0]) == ["corpus_id", "score"]


def test_search_of_token_embeddings():
    random = np.random.RandomState(0)
    queries = [random.randn(n, 4).astype(np.float32) for n in (2, 3)]
    documents = [random.randn(n, 4).astype(np.float32) for n in (2, 5, 1, 3)]
    found = semantic_search(queries, documents, corpus_chunk_size=3, top_k=4, score_function=sim.maxsim)
    scores = [[(d @ q.T).max(0).sum() for d in documents] for q in queries]
    assert ids(found) == [np.argsort(-np.array(row)).tolist() for row in scores]


@pytest.mark.parametrize(
    "queries, documents, k, expected",
    [
        (QUERIES, DOCUMENTS[:0], 3, [[]] * 5),
        (QUERIES, [], 3, [[]] * 5),
        (QUERIES, DOCUMENTS, 0, [[]] * 5),
        (QUERIES[:0], DOCUMENTS, 3, []),
        ([], DOCUMENTS, 3, []),
    ],
    ids=["no rows", "empty list", "top 0", "no query", "empty list of queries"],
)
def test_search_of_nothing(queries, documents, k, expected):
    assert semantic_search(queries, documents, top_k=k) == expected


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"corpus_embeddings": DOCUMENTS[:, :3]}, r"\(5, 6\).*\(40, 3\)"),
        ({"top_k": -1}, "top_k"),
        ({"query_chunk_size": 0}, "query_chunk_size"),
        ({"corpus_chunk_size": 0}, "corpus_chunk_size"),
        ({"query_embeddings": "text"}, "str"),
    ],
    ids=["dimension", "top_k", "query chunk", "corpus chunk", "text"],
)
def test_search_invalid_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        semantic_search(**{"query_embeddings": QUERIES, "corpus_embeddings": DOCUMENTS, **arguments})


def test_information_retrieval_is_deprecated():
    with pytest.warns(DeprecationWarning, match="semantic_search"):
        found = information_retrieval(QUERIES, DOCUMENTS, top_k=4)
    assert_same_hits(found, ANSWERS["semantic_search"]["cos_sim"])


# Paraphrase mining


def assert_same_pairs(found, expected):
    assert [pair[1:] for pair in found] == [pair[1:] for pair in expected]
    np.testing.assert_allclose([pair[0] for pair in found], [pair[0] for pair in expected], atol=1e-5)


@pytest.mark.parametrize("sizes", [(5000, 100000), (7, 9), (1, 1)])
@pytest.mark.parametrize("setting", ["1 1000", "5 30"])
@pytest.mark.parametrize("name", SCORES)
def test_mining_answers_of_the_existing_library(name, setting, sizes):
    top_k, max_pairs = map(int, setting.split())
    found = paraphrase_mining_embeddings(DOCUMENTS, *sizes, max_pairs, top_k, getattr(sim, name))
    assert_same_pairs(found, ANSWERS["paraphrase_mining"][name][setting])
    assert [type(value) for value in found[0]] == [float, int, int]


def test_mining_finds_all_pairs_if_top_k_allows():
    rows = np.random.RandomState(2).randn(9, 4)
    found = paraphrase_mining_embeddings(rows, score_function=sim.euclidean_sim)
    pairs = [[-float(np.linalg.norm(rows[i] - rows[j])), i, j] for i in range(9) for j in range(i + 1, 9)]
    assert_same_pairs(found, sorted(pairs, reverse=True))


def test_mining_of_equal_rows_is_ordered_by_id():
    rows = torch.ones(5, 2)
    everything = [[i, j] for i in range(5) for j in range(i + 1, 5)]
    for size in (1, 2, 100):
        assert [pair[1:] for pair in paraphrase_mining_embeddings(rows, size, size)] == everything
        assert [pair[1:] for pair in paraphrase_mining_embeddings(rows, size, size, max_pairs=3)] == everything[:3]


@pytest.mark.parametrize("size", [1, 4, 100])
@pytest.mark.parametrize("max_pairs", [2, 7, 20, 1000])
@pytest.mark.parametrize("top_k", [1, 3])
def test_mining_with_many_ties(top_k, max_pairs, size):
    rows = np.random.RandomState(4).randint(-1, 2, (40, 4))
    scores = (rows[:, None] * rows[None]).sum(-1).tolist()
    pairs = set()
    for i, row in enumerate(scores):
        nearest = sorted((-score, j) for j, score in enumerate(row) if j != i)[:top_k]
        pairs |= {(negative, min(i, j), max(i, j)) for negative, j in nearest}
    found = paraphrase_mining_embeddings(rows, size, size, max_pairs, top_k, sim.dot_score)
    assert found == [[-negative, i, j] for negative, i, j in sorted(pairs)[:max_pairs]]


@pytest.mark.parametrize("rows, setting", [(0, {}), (1, {}), (5, {"top_k": 0}), (5, {"max_pairs": 0})])
def test_mining_of_nothing(rows, setting):
    assert paraphrase_mining_embeddings(DOCUMENTS[:rows], **setting) == []


@pytest.mark.parametrize("setting", [{"top_k": -1}, {"query_chunk_size": 0}, {"corpus_chunk_size": 0}])
def test_mining_invalid_arguments(setting):
    with pytest.raises(InputError):
        paraphrase_mining_embeddings(DOCUMENTS, **setting)


def test_mining_of_texts_passes_its_settings_to_the_model():
    class Model:
        def encode(self, texts, **kwargs):
            self.texts, self.kwargs = texts, kwargs
            return torch.tensor(DOCUMENTS[: len(texts)])

    model, texts = Model(), [f"text {i}" for i in range(40)]
    found = paraphrase_mining(model, texts, batch_size=3, top_k=5, max_pairs=30, truncate_dim=6, prompt="p: ")
    assert_same_pairs(found, ANSWERS["paraphrase_mining"]["cos_sim"]["5 30"])
    assert model.texts == texts
    expected = {"batch_size": 3, "truncate_dim": 6, "prompt": "p: ", "prompt_name": None, "convert_to_tensor": True}
    assert model.kwargs == {**expected, "show_progress_bar": False}


@pytest.mark.parametrize("crowd", [1, 8])
@pytest.mark.parametrize("block_scores", [7, 100, 10**6])
@pytest.mark.parametrize("k, max_pairs", [(1, 20), (3, 5), (6, 60), (6, 150)])
def test_few_of_many_pairs_by_a_floor(k, max_pairs, block_scores, crowd, monkeypatch):
    """Pairs that the floor lets in, and where it misjudges those that all neighbours give: the loop's answer."""
    monkeypatch.setattr(blocks, "PRODUCT_SCORES", block_scores)
    monkeypatch.setattr(paraphrase, "PRODUCT_SCORES", block_scores)
    monkeypatch.setattr(paraphrase, "CROWD", crowd)
    monkeypatch.setattr(paraphrase, "SAMPLE", 16)
    rows = np.random.RandomState(2).randint(-2, 3, (90, 3)).astype(np.float32)  # many equal scores
    scores = rows @ rows.T
    np.fill_diagonal(scores, -np.inf)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    pairs = {(min(i, j), max(i, j)) for i in range(90) for j in best[i].tolist()}
    expected = sorted(pairs, key=lambda pair: (-scores[pair], pair))[:max_pairs]
    found = paraphrase_mining_embeddings(rows, max_pairs=max_pairs, top_k=k, score_function=sim.dot_score)
    assert [tuple(pair[1:]) for pair in found] == expected


# Community detection


@pytest.mark.parametrize("stored", [0, 10**6])
@pytest.mark.parametrize("batch_size", [pytest.param(1, marks=pytest.mark.slow), 3, 16, 1024])
@pytest.mark.parametrize("setting", ANSWERS["community_detection"])
def test_communities_of_the_existing_library(setting, batch_size, stored, monkeypatch):
    monkeypatch.setattr(clustering, "STORED_PAIRS", stored)
    threshold, size = setting.split()
    found = community_detection(CROWD, float(threshold), int(size), batch_size)
    assert found == ANSWERS["community_detection"][setting]


@pytest.mark.parametrize("stored", [0, 10**6])
def test_communities_row_by_row(stored, monkeypatch):
    monkeypatch.setattr(clustering, "STORED_PAIRS", stored)
    assert community_detection(CROWD, 0.6, 2, batch_size=1) == ANSWERS["community_detection"]["0.6 2"]


def test_communities_do_not_overlap_and_begin_with_their_centre():
    unit = CROWD / np.linalg.norm(CROWD, axis=1, keepdims=True)
    communities = community_detection(CROWD, threshold=0.6, min_community_size=2)
    members = [row for community in communities for row in community]
    assert len(members) == len(set(members)) > 10
    assert [len(c) for c in communities] == sorted((len(c) for c in communities), reverse=True)
    for community in communities:
        similarity = unit[community] @ unit[community[0]]
        assert similarity.min() >= 0.6 - 1e-6
        assert (np.diff(similarity) <= 1e-6).all()


@pytest.mark.parametrize("form", [torch.tensor, list, np.ndarray.tolist, lambda a: torch.tensor(a).to_sparse()])
def test_communities_equivalent_inputs(form):
    assert community_detection(form(CROWD), 0.6, 2) == ANSWERS["community_detection"]["0.6 2"]


def test_communities_of_equal_rows():
    assert community_detection(torch.ones(5, 2), 0.99, 2) == [[0, 1, 2, 3, 4]]
    assert community_detection(torch.ones(5, 2), 0.99, 6) == []
    assert community_detection(torch.zeros(3, 2), min_community_size=1) == []
    assert community_detection(torch.zeros(0, 2)) == []
    assert all(type(row) is int for row in community_detection(torch.ones(2, 2), 0.9, 1)[0])


@pytest.mark.parametrize("setting", [{"min_community_size": 0}, {"batch_size": 0}])
def test_communities_invalid_arguments(setting):
    with pytest.raises(InputError, match=next(iter(setting))):
        community_detection(CROWD, **setting)


def test_communities_show_progress(capsys):
    community_detection(CROWD, show_progress_bar=True)
    assert "communities" in capsys.readouterr().err


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("form", [np.asarray, torch.as_tensor, lambda rows: torch.as_tensor(rows).bfloat16()])
def test_rows_that_are_not_finite(value, form):
    """A bad row is named, in every search; before, it would have been found by nobody, or by everybody."""
    good = np.random.default_rng(4).normal(size=(40, 8)).astype(np.float32)
    bad = good.copy()
    bad[[17, 30], 3] = value
    where = r"`{}` must be finite, but row 17 holds NaN or infinity \({} rows? do"
    for score in (sim.cos_sim, sim.dot_score, sim.euclidean_sim):
        for chunk in (5, 500):
            sizes = {"query_chunk_size": chunk, "corpus_chunk_size": chunk, "score_function": score}
            for given, name in (((form(bad), form(good)), "query"), ((form(good), form(bad)), "corpus")):
                with pytest.raises(InputError, match=where.format(f"{name}_embeddings", r"\d")):
                    semantic_search(*given, **sizes)
            with pytest.raises(InputError, match=where.format("embeddings", 2)):
                paraphrase_mining_embeddings(form(bad), **sizes)
    with pytest.raises(InputError, match=where.format("embeddings", 2)):
        community_detection(form(bad))
    large = np.full((3, 8), 2e38, np.float32)  # their sum is not finite, but they are
    assert len(semantic_search(form(good), form(large), score_function=lambda q, d: q @ d.T)) == 40
