"""The index with models: texts are encoded as the models do it, and another model is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sentence_transformers import CrossEncoder, Index, SentenceTransformer, SparseEncoder
from sentence_transformers.errors import InputError
from sentence_transformers.search.fusion import reciprocal_rank_fusion
from sentence_transformers.util import dot_score, semantic_search
from tests import models
from tests.golden import score_models

TEXTS = models.SENTENCES
QUERIES = ["a sleeping cat", "the boiling point of water", "trains"]
pytestmark = pytest.mark.filterwarnings("ignore:Sparse")


@pytest.fixture(scope="module")
def dense(bert_folder):
    prompts = {"query": "Question: ", "document": "Passage: "}
    return SentenceTransformer(str(bert_folder), device="cpu", prompts=prompts)


@pytest.fixture(scope="module")
def sparse(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sparse")
    score_models.SPARSE["splade_bert_max_log1p_relu"](folder)
    return SparseEncoder(str(folder), device="cpu")


@pytest.fixture(scope="module")
def reranker(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cross")
    score_models.SCORERS["bert_1"](folder)
    return CrossEncoder(str(folder), device="cpu")


def numbers(found: list) -> list[list[int]]:
    return [[hit.id for hit in hits] for hits in found]


def right(encode_query, encode_document, score, top_k: int = 5) -> list[list[int]]:
    found = semantic_search(encode_query(QUERIES), encode_document(TEXTS), top_k=top_k, score_function=score)
    return [[one["corpus_id"] for one in hits if one["score"]] for hits in found]


def test_dense_texts(dense, tmp_path):
    """Prompts of queries and documents, the model's similarity, and a folder opened with the model."""
    index = Index(dense)
    assert index.add(TEXTS) == list(range(len(TEXTS)))
    expected = right(dense.encode_query, dense.encode_document, dense.similarity)
    assert numbers(index.search(QUERIES, top_k=5)) == expected
    assert index.search(QUERIES[0], top_k=1)[0].text == TEXTS[expected[0][0]]
    index.save(tmp_path)
    index.close()
    loaded = Index.load(tmp_path, dense)
    assert numbers(loaded.search(QUERIES, top_k=5)) == expected
    assert numbers(Index.load(tmp_path).search(embeddings=dense.encode_query(QUERIES), top_k=5)) == expected
    loaded.update(3, QUERIES[0])
    loaded.add(["one more", "and another"], ids=["x", "y"])
    assert loaded.get(3).text == QUERIES[0] and len(loaded) == len(TEXTS) + 2
    vectors = dense.encode_document([QUERIES[0]])
    (hit,) = loaded.search(embeddings=vectors[0], top_k=1)
    assert hit.id == 3 and hit.score == pytest.approx(1, abs=1e-5)


def test_sparse_texts(sparse, tmp_path):
    index = Index(sparse)
    index.add(TEXTS)
    expected = right(sparse.encode_query, sparse.encode_document, dot_score)
    assert numbers(index.search(QUERIES, top_k=5)) == expected
    index.save(tmp_path)
    assert numbers(Index.load(tmp_path, sparse).search(QUERIES, top_k=5)) == expected
    assert index.dimension is None and index.settings.sparse_dimension == sparse.get_embedding_dimension()


def test_hybrid_and_reranked(dense, sparse, reranker, tmp_path):
    index = Index(dense, sparse)
    index.add(TEXTS[:5])
    index.save(tmp_path)
    index.add(TEXTS[5:])
    sides = [
        right(dense.encode_query, dense.encode_document, dense.similarity, 20),
        right(sparse.encode_query, sparse.encode_document, dot_score, 20),
    ]
    expected = [[number for number, _ in reciprocal_rank_fusion(pair)] for pair in zip(*sides, strict=True)]
    assert numbers(index.search(QUERIES, top_k=20)) == expected
    assert numbers(index.search(QUERIES, top_k=20, mode="dense")) == sides[0]
    assert numbers(index.search(QUERIES, top_k=20, mode="sparse")) == sides[1]
    found = index.search(QUERIES, top_k=3, candidates=6, reranker=reranker)
    for query, hits, *pair in zip(QUERIES, found, *sides, strict=True):
        candidates = [number for number, _ in reciprocal_rank_fusion([side[:6] for side in pair])][:6]
        ranking = reranker.rank(query, [TEXTS[number] for number in candidates], top_k=3)
        assert [hit.id for hit in hits] == [candidates[one["corpus_id"]] for one in ranking]
        np.testing.assert_allclose([hit.score for hit in hits], [one["score"] for one in ranking], atol=1e-5)
        assert [hit.text for hit in hits] == [TEXTS[hit.id] for hit in hits]
    index.close()
    assert numbers(Index.load(tmp_path, dense, sparse).search(QUERIES, top_k=20)) == expected
    assert set(index.model_names) == {"SentenceTransformer", "SparseEncoder"}


def test_reranking_needs_texts(dense, reranker):
    index = Index(dense)
    index.add(TEXTS)
    with pytest.raises(InputError, match="give the queries as texts"):
        index.search(embeddings=dense.encode_query(QUERIES), reranker=reranker)
    index.add([None], embeddings=dense.encode_document(TEXTS[:1]), ids=["mute"])
    with pytest.raises(InputError, match="document 'mute' was added without one"):
        index.search(QUERIES, reranker=reranker)


def test_another_model_is_refused(dense, sparse, folder_of, tmp_path):
    index = Index(dense)
    index.add(TEXTS)
    index.save(tmp_path)
    index.close()
    with pytest.raises(InputError, match=r"no vectors of a SparseEncoder; it was made without one"):
        Index.load(tmp_path, sparse)
    small = SentenceTransformer(dense[0].model.config._name_or_path or str(folder_of("bert")), device="cpu")
    small.truncate_dim = 8
    with pytest.raises(InputError, match="vectors of dimension 8, the index has 32"):
        Index.load(tmp_path, small)
    other = Index.load(tmp_path, SentenceTransformer(str(folder_of("roberta")), device="cpu"))
    for use in (lambda: other.search("text"), lambda: other.add(["text"])):
        with pytest.raises(InputError, match="not the model that the index was built with"):
            use()
    assert len(other) == len(TEXTS)
    with pytest.raises(InputError, match="takes one SentenceTransformer, got two"):
        Index(dense, dense)
    with pytest.raises(InputError, match="got Linear"):
        Index(torch.nn.Linear(2, 2))


def test_bad_texts_change_nothing(dense):
    index = Index(dense)
    index.add(TEXTS)
    for texts in (["a", None], ["a", 3]):
        with pytest.raises(InputError, match=r"number 1|Input 1"):
            index.add(texts)
    assert len(index) == len(TEXTS)
    with pytest.raises(InputError, match="a SparseEncoder is needed"):
        Index(sparse_dimension=4).add(["a"])
