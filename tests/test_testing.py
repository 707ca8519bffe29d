"""`MockEncoder` gives what a model gives, and whatever takes a model takes it."""

from __future__ import annotations

import hashlib
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers.databases import QdrantDatabase, upload

from sentence_transformers import Index, SentenceTransformer, util
from sentence_transformers.errors import InputError
from sentence_transformers.evaluation import (
    BinaryClassificationEvaluator,
    EmbeddingSimilarityEvaluator,
    InformationRetrievalEvaluator,
    ParaphraseMiningEvaluator,
    RerankingEvaluator,
    TranslationEvaluator,
    TripletEvaluator,
)
from sentence_transformers.testing import MockEncoder
from tests.models import HIDDEN

TEXTS = [f"text {i} of many" for i in range(40)]


def formula(text: str, dimension: int) -> np.ndarray:
    """Standard normal numbers whose seed is the text's hash, scaled to length 1."""
    seed = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest())
    row = np.random.Generator(np.random.Philox(seed)).standard_normal(dimension, np.float32).astype(np.float64)
    return row / np.sqrt((row**2).sum())


@pytest.mark.parametrize("method", ["encode", "encode_query", "encode_document"])
def test_arguments_are_those_of_a_model(method: str) -> None:
    own, wanted = (list(inspect.signature(getattr(kind, method)).parameters.values())[1:] for kind in
                   (MockEncoder, SentenceTransformer))  # fmt: skip
    assert [(one.name, one.kind, one.default) for one in own] == [(one.name, one.kind, one.default) for one in wanted]


def test_vectors_are_hashes_of_the_texts() -> None:
    """Of length 1, unrelated, the same in any order, call or process; neither torch nor a model is loaded for them."""
    rows = MockEncoder(dimension=256).encode([*TEXTS, TEXTS[3], ""])
    np.testing.assert_allclose(rows, [formula(text, 256) for text in [*TEXTS, TEXTS[3], ""]], atol=1e-6)
    assert abs(rows[:40] @ rows[:40].T - np.eye(40)).max() < 0.35
    np.testing.assert_array_equal(MockEncoder(dimension=256).encode(TEXTS[::-1])[::-1], rows[:40])
    code = (
        "import sys; from sentence_transformers.testing import MockEncoder\n"
        "print(MockEncoder(dimension=3).encode('cat').tolist()); assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(MockEncoder(dimension=3).encode("cat").tolist())


FORMS: list[dict[str, Any]] = [
    {},
    {"convert_to_tensor": True},
    {"convert_to_numpy": False},
    {"convert_to_tensor": True, "convert_to_numpy": False, "device": "cpu"},
    {"precision": "binary"},
    {"precision": "ubinary", "convert_to_tensor": True},
    {"precision": None, "batch_size": 2, "chunk_size": 3, "show_progress_bar": False, "num_workers": 0},
    {"truncate_dim": 8, "prompt": "A word: "},
    {"truncate_dim": 8, "normalize_embeddings": True, "prompt_name": "query", "task": "query"},
]


@pytest.mark.parametrize("given", FORMS, ids=str)
@pytest.mark.parametrize("inputs", ["cat", ["cat"], ["cat", "dog", "cat"], ()], ids=str)
def test_results_have_the_form_of_a_model_s(bert_folder: Path, given: dict[str, Any], inputs: Any) -> None:
    own = MockEncoder(HIDDEN).encode(inputs if isinstance(inputs, str) else iter(inputs), **given)
    wanted = SentenceTransformer(str(bert_folder), device="cpu").encode(inputs, **given)
    assert type(own) is type(wanted) and len(own) == len(wanted)
    if not isinstance(own, list):
        assert own.dtype == wanted.dtype and own.shape == wanted.shape
    for one, other in zip(own, wanted, strict=True):
        assert type(one) is type(other) and one.shape == other.shape and one.dtype == other.dtype
    if given.get("normalize_embeddings") and not isinstance(inputs, str):
        np.testing.assert_allclose(np.linalg.norm(own, axis=1), np.ones(len(own)), rtol=1e-6)


def test_prompts_and_lengths() -> None:
    """A prompt is a part of the text; words beyond the length are not read, and truncation keeps the first numbers."""
    model = MockEncoder(16, prompts={"query": "q: ", "extra": "e: "}, truncate_dim=10, max_seq_length=3)
    full = MockEncoder(16)
    for vector, text in (
        (model.encode_query("a b"), "q: a b"),
        (model.encode_query("a b", prompt_name="extra"), "e: a b"),
        (model.encode_query("a b", None, "p "), "p a b"),
        (model.encode_document("a  b"), "a  b"),
        (model.encode_document("a b c d"), "a b c"),
        (model.encode("a b c", "extra"), "e: a b"),
    ):
        np.testing.assert_array_equal(vector, full.encode(text)[:10])
    with pytest.warns(DeprecationWarning, match="'sentences' is now 'inputs'"):
        np.testing.assert_array_equal(model.encode(sentences="a"), model.encode("a"))
    assert model.get_sentence_embedding_dimension() == model.get_embedding_dimension() == 10
    assert model.encode("a", truncate_dim=16).shape == (16,)
    assert [part.shape for part in model.encode_stream(iter(TEXTS), 16)] == [(16, 10), (16, 10), (8, 10)]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda model: model.encode(["a", 3]), "Input 1 is 3 of type int"),
        (lambda model: model.encode(b"a"), "Input 0 is b'a'"),
        (lambda model: model.encode({"text": "a"}), "of type dict"),
        (lambda model: model.encode(None), "Input 0 is None"),
        (lambda model: model.encode("a", output_value="token_embeddings"), "has no tokens"),
        (lambda model: model.encode("a", output_value=None), "has no tokens"),
        (lambda model: model.encode("a", precision="int4"), "int4"),
        (lambda model: model.encode("a", prompt_name="x"), "'x' is unknown"),
        (lambda model: model.encode("a", nonsense=1), "nonsense"),
        (lambda model: model.encode("a", batch_size=0), "batch_size"),
        (lambda model: model.encode("a", chunk_size=0), "chunk_size"),
        (lambda model: model.encode("a", truncate_dim=17), "truncate_dim=17"),
        (lambda model: model.encode("a", num_workers=2), "in this process"),
        (lambda model: model.encode("a", device=["cpu", "cpu"]), "in this process"),
        (lambda model: model.encode("a", pool={}), "in this process"),
        (lambda model: next(model.encode_stream(["a"], 0)), "chunk_size"),
        (lambda model: setattr(model, "similarity_fn_name", "maxsim"), "maxsim"),
        (lambda model: MockEncoder(0), "dimension"),
        (lambda model: MockEncoder(max_seq_length=0), "max_seq_length"),
        (lambda model: MockEncoder(8, truncate_dim=9), "truncate_dim=9"),
        (lambda model: MockEncoder(8, similarity_fn_name="near"), "'near'"),
    ],
)
def test_what_it_cannot_do_is_an_error(call: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        call(MockEncoder(16))


@pytest.mark.parametrize("name", ["cosine", "dot", "euclidean", "manhattan"])
def test_similarity(name: str) -> None:
    model = MockEncoder(8, similarity_fn_name=util.SimilarityFunction(name))
    rows = model.encode(TEXTS[:3])
    differences = rows[:, None].astype(np.float64) - rows[None]
    expected = {
        "cosine": rows @ rows.T,
        "dot": rows @ rows.T,
        "euclidean": -np.sqrt((differences**2).sum(-1)),
        "manhattan": -abs(differences).sum(-1),
    }[name]
    assert model.similarity_fn_name == name
    np.testing.assert_allclose(model.similarity(rows, rows), expected, atol=1e-5)
    np.testing.assert_allclose(model.similarity_pairwise(rows, rows[::-1].copy()), np.diag(expected[::-1]), atol=1e-5)


# ---- in the place of a model


def test_search(tmp_path: Path) -> None:
    model = MockEncoder(32)
    hits = util.semantic_search(model.encode_query(TEXTS[5:8]), model.encode_document(TEXTS), top_k=1)
    assert [hit[0]["corpus_id"] for hit in hits] == [5, 6, 7]
    with Index(model) as index:
        index.add(TEXTS)
        index.save(tmp_path / "index")
    with Index.load(tmp_path / "index", MockEncoder(32)) as index:
        assert [hits[0].text for hits in index.search(TEXTS[5:8], top_k=1)] == TEXTS[5:8]
    with pytest.raises(InputError, match="dimension 16"):
        Index.load(tmp_path / "index", MockEncoder(16))
    with (
        pytest.raises(InputError, match="not the model"),
        Index.load(tmp_path / "index", MockEncoder(32, prompts={"document": "d: "})) as index,
    ):
        index.search("a", top_k=1)


def test_vector_database() -> None:
    model = MockEncoder(32)
    with QdrantDatabase("x", location=":memory:") as database:
        assert upload(model, TEXTS, database).written == len(TEXTS)
        assert [hits[0].id for hits in database.search(model.encode_query(TEXTS[5:8]), top_k=1)] == [5, 6, 7]


@pytest.mark.parametrize("settings", [{}, {"use_faiss": True}, {"cache_folder": "cache"}], ids=str)
def test_hard_negatives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]) -> None:
    """The negatives are those by the vectors: the two documents that are nearest, the own one left out."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.chdir(tmp_path)
    model = MockEncoder(32)
    queries = [f"query {i}" for i in range(len(TEXTS))]
    data = datasets.Dataset.from_dict({"query": queries, "answer": TEXTS})
    scores = model.encode(queries) @ model.encode(TEXTS).T
    np.fill_diagonal(scores, -2)
    expected = [TEXTS[j] for row in scores for j in np.argsort(-row)[:2]]
    for _ in range(2):  # from the cache
        mined = util.mine_hard_negatives(data, model, num_negatives=2, verbose=False, **settings)
        assert sorted(mined["negative"]) == sorted(expected)


def test_evaluators() -> None:
    """Texts that are equal are alike, and others are not."""
    model = MockEncoder(64)
    same, others, pairs = TEXTS[:10], TEXTS[10:20], list(range(10))
    queries, corpus = ({str(i): text for i, text in enumerate(texts)} for texts in (same, TEXTS))
    samples = [{"query": text, "positive": [text], "negative": others} for text in same]
    measured = {
        "cosine_accuracy": TripletEvaluator(same, same, others),
        "cosine_ap": BinaryClassificationEvaluator(same * 2, same + others, [1] * 10 + [0] * 10),
        "cosine_ndcg@10": InformationRetrievalEvaluator(queries, corpus, {key: {key} for key in queries}),
        "ndcg@10": RerankingEvaluator(samples),
        "average_precision": ParaphraseMiningEvaluator(
            {str(i): text for i, text in enumerate(same * 2)}, duplicates_list=[(str(i), str(i + 10)) for i in pairs]
        ),
        "mean_accuracy": TranslationEvaluator(same, same),
    }
    assert {name: evaluator(model)[name] for name, evaluator in measured.items()} == pytest.approx(
        dict.fromkeys(measured, 1.0)
    )
    labels = model.similarity_pairwise(model.encode(same), model.encode(others)).tolist()
    assert EmbeddingSimilarityEvaluator(same, others, labels)(model)["spearman_cosine"] == pytest.approx(1)


def test_it_is_a_value() -> None:
    assert repr(MockEncoder(8)) == "MockEncoder(dimension=8, similarity_fn_name='cosine')"
    assert isinstance(MockEncoder(8).similarity(np.eye(8)[:1], np.eye(8)[:1]), torch.Tensor)
