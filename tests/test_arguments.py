"""What the arguments of encode_query, encode_document, predict and rank do, where the tests of encode do not say it."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from sentence_transformers.models import StaticEmbedding
from sentence_transformers.sparse_encoder.models import SparseStaticEmbedding
from tokenizers import Tokenizer, models, pre_tokenizers

from sentence_transformers import CrossEncoder, SentenceTransformer, SparseEncoder
from tests.golden import layouts

WORDS = ["a", "b", "c", "d", "query:", "document:"]
ROWS = np.array([[3.0, 4, 0, 0], [0, 0, 1, 0], [1, 2, 2, 0], [0, -1, 0, 5], [8, 0, 0, 0], [0, 0, 0, 8]], np.float32)
TEXTS = ["a", "b c", "d a b"]
SIDES = ["encode_query", "encode_document"]


def tokenizer() -> Tokenizer:
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="a"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return made


@pytest.fixture(scope="module")
def dense() -> SentenceTransformer:
    """Vectors are means of rows of `ROWS`; each side has a prompt of one word."""
    prompts = {"query": "query: ", "document": "document: ", "none": ""}
    static = StaticEmbedding(tokenizer(), embedding_weights=ROWS)
    return SentenceTransformer(modules=[static], device="cpu", prompts=prompts)


@pytest.fixture(scope="module")
def sparse() -> SparseEncoder:
    """Each word of a text has its weight."""
    weights = torch.tensor([1.0, 2, 3, 4, 5, 6])
    return SparseEncoder(modules=[SparseStaticEmbedding(tokenizer(), weights)], device="cpu")


@pytest.fixture(scope="module")
def reranker(tmp_path_factory) -> CrossEncoder:
    folder = tmp_path_factory.mktemp("model") / "reranker"
    layouts.LAYOUTS["dense_with_old_keys"](folder)
    torch.manual_seed(0)
    return CrossEncoder(str(folder), device="cpu", num_labels=1)


def means(side: str, prompt: str | None = None) -> np.ndarray:
    """The vectors by hand, of the side's own prompt unless another is given."""
    first = [f"{side.removeprefix('encode_')}:"] if prompt is None else prompt.split()
    return np.array([ROWS[[WORDS.index(word) for word in first + text.split()]].mean(0) for text in TEXTS])


@pytest.mark.parametrize("side", SIDES)
def test_dense_sides(dense, side):
    encode = getattr(dense, side)
    rows = means(side)
    np.testing.assert_allclose(encode(TEXTS), rows, rtol=1e-6)
    plain = means(side, "")
    np.testing.assert_allclose(encode(TEXTS, prompt_name="none"), plain, rtol=1e-6)
    np.testing.assert_allclose(encode(TEXTS, prompt="b "), means(side, "b"), rtol=1e-6)
    np.testing.assert_allclose(encode(TEXTS, batch_size=1), rows, rtol=1e-6)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(encode(TEXTS, normalize_embeddings=True), unit, rtol=1e-6)
    np.testing.assert_allclose(encode(TEXTS, truncate_dim=2), rows[:, :2], rtol=1e-6)
    bits = np.packbits(rows > 0, axis=1)
    np.testing.assert_array_equal(encode(TEXTS, precision="ubinary"), bits)
    tensor = encode(TEXTS, convert_to_tensor=True)
    assert torch.is_tensor(tensor)
    np.testing.assert_allclose(tensor, rows, rtol=1e-6)
    several = encode(TEXTS, convert_to_numpy=False)
    assert [type(row) for row in several] == [torch.Tensor] * len(TEXTS)
    features = encode(TEXTS, output_value=None)
    np.testing.assert_allclose(np.stack([one["sentence_embedding"] for one in features]), rows, rtol=1e-6)


@pytest.mark.parametrize("side", SIDES)
def test_sparse_sides(sparse, side):
    encode = getattr(sparse, side)
    rows = np.array([[1, 0, 0, 0, 0, 0], [0, 2, 3, 0, 0, 0], [1, 2, 0, 4, 0, 0]], np.float32)
    np.testing.assert_array_equal(encode(TEXTS, convert_to_sparse_tensor=False), rows)
    assert encode(TEXTS, convert_to_sparse_tensor=True).layout == torch.sparse_coo
    np.testing.assert_array_equal(encode(TEXTS).to_dense(), rows)
    two = rows * (rows != 1) + np.array([[1, 0, 0, 0, 0, 0], [0] * 6, [0] * 6])  # of three words, the heavier two
    np.testing.assert_array_equal(encode(TEXTS, max_active_dims=2).to_dense(), two)
    several = encode(TEXTS, convert_to_tensor=False)
    np.testing.assert_array_equal(torch.stack([row.to_dense() for row in several]), rows)
    assert encode(TEXTS, save_to_cpu=True).device.type == "cpu"
    assert encode(TEXTS, batch_size=1).shape == (3, 6)


OLDER = [
    ("dense", "encode", TEXTS, {}),
    ("dense", "encode_query", TEXTS, {}),
    ("sparse", "encode", TEXTS, {}),
    ("sparse", "encode_document", TEXTS, {}),
    ("reranker", "predict", [("a", "b")], {"activation_fct": torch.nn.Tanh(), "num_workers": 0}),
]


@pytest.mark.parametrize(("kind", "method", "inputs", "older"), OLDER, ids=lambda value: str(value)[:20])
def test_inputs_by_their_older_name(request, kind, method, inputs, older):
    """The result is that of today's name; the warnings name the method and the line of the caller."""
    function = getattr(request.getfixturevalue(kind), method)
    name = f"{type(function.__self__).__name__}.{method}()"
    with pytest.warns(DeprecationWarning) as caught:
        given = function(sentences=inputs, **older)
    assert {warning.filename for warning in caught} == {__file__}
    assert "'sentences' is now 'inputs'" in str(caught[-1].message)
    assert all(name in str(warning.message) for warning in caught) and len(caught) == 1 + ("num_workers" in older)
    expected = function(inputs, **({"activation_fn": older["activation_fct"]} if older else {}))
    assert np.array_equal(*(one.to_dense() if isinstance(one, torch.Tensor) else one for one in (given, expected)))
    assert inspect.signature(function).parameters["inputs"].default is inspect.Parameter.empty
    with pytest.raises(TypeError, match="inputs"):
        function()
    with pytest.warns(DeprecationWarning), pytest.raises(TypeError, match="two names of one argument"):
        function(inputs, sentences=inputs)


def test_two_names_of_the_activation(reranker):
    with pytest.warns(DeprecationWarning), pytest.raises(TypeError, match="two names of one argument"):
        reranker.predict([("a", "b")], activation_fn=torch.nn.Tanh(), activation_fct=torch.nn.ReLU())


def bars(capsys: pytest.CaptureFixture[str]) -> bool:
    """Whether a progress bar was written since the last call."""
    return "texts/s" in (written := capsys.readouterr().err) or "pairs/s" in written


@pytest.mark.parametrize("side", [*SIDES, "encode"])
def test_a_bar_where_it_is_asked_for(dense, sparse, side, capsys):
    for model in (dense, sparse):
        getattr(model, side)(TEXTS, show_progress_bar=True)
        assert bars(capsys)
        getattr(model, side)(TEXTS, show_progress_bar=False)
        assert not bars(capsys)


def test_a_bar_over_pairs_where_it_is_asked_for(reranker, capsys):
    for shown in (True, False):
        reranker.predict([("a", "b")], show_progress_bar=shown)
        assert bars(capsys) == shown
        reranker.rank("a", ["b", "c"], show_progress_bar=shown)
        assert bars(capsys) == shown


def test_encode_multi_process_is_encode_in_a_pool(dense, monkeypatch):
    """Every argument goes where `encode` has it, by name and by position."""
    seen = {}
    monkeypatch.setattr(dense, "encode", lambda sentences, **kwargs: seen.update(kwargs, sentences=sentences))
    expected = {
        "sentences": TEXTS,
        "pool": {"input": 1},
        "prompt_name": "query",
        "prompt": "b ",
        "batch_size": 7,
        "chunk_size": 5,
        "show_progress_bar": True,
        "precision": "int8",
        "normalize_embeddings": True,
        "truncate_dim": 3,
    }
    dense.encode_multi_process(*expected.values())
    assert seen == expected
    seen.clear()
    dense.encode_multi_process(
        TEXTS,
        {"input": 1},
        prompt_name="query",
        prompt="b ",
        batch_size=7,
        chunk_size=5,
        show_progress_bar=True,
        precision="int8",
        normalize_embeddings=True,
        truncate_dim=3,
    )
    assert seen == expected


def test_save_to_hub_is_push_to_hub(dense, monkeypatch):
    """The organization goes before the name; everything else goes on by name."""
    seen = {}
    monkeypatch.setattr(dense, "push_to_hub", lambda repo_id, **kwargs: seen.update(kwargs, repo_id=repo_id))
    settings = {
        "token": "t",
        "private": True,
        "safe_serialization": False,
        "commit_message": "m",
        "local_model_path": "p",
        "exist_ok": True,
        "replace_model_card": True,
        "train_datasets": ["d"],
    }
    dense.save_to_hub("name", "owner", **settings)
    assert seen == settings | {"repo_id": "owner/name"}
    dense.save_to_hub("owner/name", organization="owner")
    assert seen["repo_id"] == "owner/name"
