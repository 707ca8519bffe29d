"""Every argument of `encode`, and the ways to call it: alone, streamed, awaited, from threads, in worker processes.

All on one tiny BERT. Expected vectors come from transformers directly, one text at a time; see `alone`.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tokenizers import normalizers

from sentence_transformers import SentenceTransformer, quantize_embeddings
from sentence_transformers.engine import workers
from sentence_transformers.errors import InputError, WorkerError
from sentence_transformers.modules.normalize import Normalize
from sentence_transformers.modules.pooling import Pooling
from sentence_transformers.modules.router import Router
from sentence_transformers.modules.static_embedding import StaticEmbedding
from sentence_transformers.modules.transformer import Transformer
from tests import models
from tests.models import HIDDEN, MAX_LENGTH, SENTENCES, TEXTS

BAD_INPUTS = {
    "none": (None, 0, "None"),
    "number": (3, 0, "3"),
    "float": (2.5, 0, "2.5"),
    "bytes": (b"x", 0, "b'x'"),
    "dict": ({"passage": "x"}, 0, "'passage'"),
    "none in list": (["a", None], 1, "None"),
    "number in list": (["a", "b", 3], 2, "3"),
    "bytes in list": ([b"x"], 0, "b'x'"),
    "nested list": (["a", ["nested"]], 1, "nested"),
    "numpy numbers": (np.array([1.5, 2.0]), 0, "1.5"),
    "last of many": ([*SENTENCES, *map(str, range(5000)), 7], len(SENTENCES) + 5000, "7"),
}

CALLS = ("encode", "encode_query", "encode_document", "encode_stream", "encode_async", "simulate")


def close(actual: Any, expected: Any, atol: float = 1e-5) -> None:
    np.testing.assert_allclose(np.asarray(actual), np.asarray(expected), rtol=1e-5, atol=atol)


@pytest.fixture(scope="module")
def reference(bert_folder: Path) -> Callable[..., np.ndarray]:
    """Text -> token vectors (l, H), by transformers alone."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(bert_folder)
    bert = transformers.AutoModel.from_pretrained(bert_folder, attn_implementation="eager").eval()

    def rows(text: str, max_length: int = MAX_LENGTH) -> np.ndarray:
        tokens = tokenizer(text, truncation=True, max_length=max_length, return_tensors="pt")
        with torch.no_grad():
            return bert(**tokens).last_hidden_state[0].numpy()

    rows.tokenizer = tokenizer  # type: ignore[attr-defined]
    return rows


@pytest.fixture(scope="module")
def expected(reference: Callable[..., np.ndarray]) -> np.ndarray:
    """(N, H): the vectors of `TEXTS`."""
    return np.stack([reference(text).mean(0) for text in TEXTS])


@pytest.fixture(scope="module")
def model(bert_folder: Path) -> SentenceTransformer:
    """Shared by the tests that leave it as it is."""
    return SentenceTransformer(str(bert_folder), device="cpu", prompts={"query": "ask: ", "document": "tell: "})


@pytest.fixture
def fresh(bert_folder: Path) -> SentenceTransformer:
    """A model of the test's own."""
    return SentenceTransformer(str(bert_folder), device="cpu")


@pytest.fixture
def no_computing(model: SentenceTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any forward pass or tokenising fails the test."""

    def forbidden(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("computed something")

    monkeypatch.setattr(model, "forward", forbidden)
    monkeypatch.setattr(model[0], "tokens", forbidden)


@pytest.fixture(scope="module")
def static_model() -> SentenceTransformer:
    """A StaticEmbedding, quick enough for many texts."""
    torch.manual_seed(0)
    return SentenceTransformer(modules=[StaticEmbedding(models.raw_tokenizer(), embedding_dim=16)], device="cpu")


# ---- shapes and types


def test_array_by_default(model, expected):
    """A list gives float32 (N, H), in the order of the texts."""
    vectors = model.encode(TEXTS)
    assert isinstance(vectors, np.ndarray) and vectors.dtype == np.float32
    close(vectors, expected)


@pytest.mark.parametrize(
    ("numpy", "tensor", "kind"),
    [(True, False, np.ndarray), (False, False, list), (False, True, torch.Tensor), (True, True, torch.Tensor)],
)
def test_conversions(model, expected, numpy, tensor, kind):
    """convert_to_tensor wins over convert_to_numpy; neither gives a list of tensors; one text gives one (H,)."""
    flags = {"convert_to_numpy": numpy, "convert_to_tensor": tensor}
    several, one, none = model.encode(TEXTS, **flags), model.encode("cat", **flags), model.encode([], **flags)
    assert type(several) is kind and type(none) is kind
    assert type(one) is (torch.Tensor if kind is list else kind)
    assert one.shape == (HIDDEN,) and len(none) == 0
    if kind is list:
        assert all(type(row) is torch.Tensor and row.shape == (HIDDEN,) for row in several)
        several = torch.stack(several)
    else:
        assert several.shape == expected.shape and none.shape == (0, HIDDEN)
    close(several, expected)
    close(one, expected[TEXTS.index("cat")])


def test_result_can_be_trained_on(model):
    """Tensors from `encode` are ordinary ones: a layer on top of them can be trained."""
    head = torch.nn.Linear(HIDDEN, 1)
    for vectors in (
        model.encode(TEXTS, convert_to_tensor=True),
        model.encode(TEXTS, convert_to_numpy=False)[0],
        model.encode("cat", output_value="token_embeddings"),
        model.encode("cat", output_value=None)["token_embeddings"],
    ):
        head.zero_grad()
        head(vectors).sum().backward()
        close(head.weight.grad[0], vectors.reshape(-1, HIDDEN).sum(0))


def test_empty_list(model):
    """No texts: (0, H), truncated and quantised like any other result."""
    assert model.encode([]).shape == (0, HIDDEN)
    assert model.encode([], truncate_dim=5).shape == (0, 5)
    assert model.encode((), convert_to_tensor=True).shape == (0, HIDDEN)
    for precision, dtype, width in [("binary", np.int8, 4), ("ubinary", np.uint8, 4), ("int8", np.int8, HIDDEN)]:
        empty = model.encode([], precision=precision)
        assert empty.shape == (0, width) and empty.dtype == dtype
    assert model.encode([], output_value="token_embeddings") == []
    assert model.encode([], output_value=None) == []


class Column:
    """Like a column of a data set: length, items by number, nothing else."""

    def __len__(self) -> int:
        return len(TEXTS)

    def __getitem__(self, i: int) -> str:
        if i >= len(TEXTS):
            raise IndexError(i)
        return TEXTS[i]


@pytest.mark.parametrize(
    "inputs",
    [
        tuple(TEXTS),
        np.array(TEXTS, dtype=object),
        np.array(TEXTS),
        Column(),
        dict.fromkeys(range(3)).keys() and map(str, TEXTS),
        (text for text in TEXTS),
    ],
    ids=["tuple", "object array", "string array", "column", "map", "generator"],
)
def test_any_iterable(model, expected, inputs):
    """Whatever gives texts is taken."""
    close(model.encode(inputs), expected)


# ---- texts


@pytest.mark.parametrize(
    "text", ["", " ", "\n\t ", "🙂", "🏳️‍🌈 naïve ﬁ", "\ud800", "a \udfff b", "\x00", "a\u0000b", "e\u0301"], ids=ascii
)
def test_odd_texts(model, reference, text):
    """Empty, white, emoji, control characters; lone surrogates count as U+FFFD. Neighbours are not disturbed."""
    clean = "".join("\ufffd" if "\ud800" <= letter <= "\udfff" else letter for letter in text)
    alone, together = model.encode(text), model.encode(["The river.", text, "cat"])
    close(alone, reference(clean).mean(0))
    close(together, np.stack([reference(t).mean(0) for t in ("The river.", clean, "cat")]))


def test_long_texts_are_cut_and_said_so_once(fresh, reference, caplog):
    """1 MB of text is cut at max_seq_length; one warning per model says how many texts were."""
    long = "The cat sat on the mat. " * 44_000
    assert len(long) > 1_000_000
    with caplog.at_level(logging.WARNING, "sentence_transformers"):
        vectors = fresh.encode(["cat", long, "dog " * 100])
        fresh.encode([long, "again"])
    close(vectors[1], reference(long[:1000]).mean(0))
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == 1
    assert "2 of 3 texts" in warnings[0] and str(MAX_LENGTH) in warnings[0]


def test_texts_that_fit_exactly_are_not_reported(fresh, reference, caplog):
    """A text of just max_seq_length tokens is whole."""
    words = MAX_LENGTH - 2
    assert len(reference("cat " * words)) == MAX_LENGTH
    fresh.encode(["cat " * words])
    assert not caplog.records
    fresh.encode(["cat " * (words + 1)])
    assert len(caplog.records) == 1


def test_neighbours_do_not_matter(model, expected):
    """Any order, any batch size, any number of copies: the same vector for the same text."""
    order = np.random.default_rng(0).permutation(len(TEXTS))
    for batch_size in (1, 2, 7, 1000):
        close(model.encode([TEXTS[i] for i in order], batch_size=batch_size), expected[order])
    copies = model.encode([text for text in TEXTS for _ in range(3)])
    close(copies, np.repeat(expected, 3, axis=0))
    assert (copies[0::3] == copies[1::3]).all() and (copies[0::3] == copies[2::3]).all()


def test_a_duplicate_has_a_row_of_its_own(model):
    """Changing the result of one text leaves that of its duplicate alone."""
    for kwargs in ({}, {"convert_to_tensor": True}, {"output_value": "token_embeddings"}):
        first, second = model.encode(["cat", "cat"], **kwargs)
        first[:] = 0
        assert (second != 0).any()


def test_duplicates_are_computed_once(fresh, monkeypatch):
    """Every distinct text reaches the tokenizer once."""
    seen: list[str] = []
    tokens = fresh[0].tokens
    monkeypatch.setattr(fresh[0], "tokens", lambda texts, *a, **k: seen.extend(texts) or tokens(texts, *a, **k))
    fresh.encode(["cat", "dog", "cat", "cat", "dog"])
    assert sorted(seen) == ["cat", "dog"]


# ---- bad input


@pytest.mark.parametrize("name", BAD_INPUTS)
@pytest.mark.parametrize(
    "call", ["encode", "encode_query", "encode_document", "encode_stream", "encode_async", "simulate"]
)
def test_bad_inputs(model, no_computing, call, name):
    """What is not a text is refused, by position and value, before anything is computed."""
    inputs, position, value = BAD_INPUTS[name]
    with pytest.raises(InputError) as caught:
        if call == "encode_stream":
            list(model.encode_stream(inputs, chunk_size=10_000))
        elif call == "encode_async":
            asyncio.run(model.encode_async(inputs))
        elif call == "simulate":
            model.simulate_embedding(inputs)
        else:
            getattr(model, call)(inputs)
    assert f"Input {position} " in str(caught.value) and value in str(caught.value)


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"colour": "red"}, ["colour", "task"]),
        ({"prompt_name": "questions"}, ["questions", "query", "document"]),
        ({"precision": "int4"}, ["int4", "ubinary"]),
        ({"output_value": "words"}, ["words", "token_embeddings"]),
        ({"batch_size": 0}, ["batch_size", "0"]),
        ({"batch_size": -1}, ["batch_size", "-1"]),
        ({"batch_size": 2.5}, ["batch_size", "2.5"]),
        ({"truncate_dim": HIDDEN + 1}, ["truncate_dim", str(HIDDEN + 1), str(HIDDEN)]),
        ({"truncate_dim": 0}, ["truncate_dim", "0"]),
        ({"chunk_size": 0, "num_workers": 2}, ["chunk_size", "0"]),
        ({"chunk_size": -3, "num_workers": 2}, ["chunk_size", "-3"]),
        ({"num_workers": -1}, ["num_workers", "-1"]),
    ],
    ids=str,
)
def test_bad_arguments(model, no_computing, kwargs, words):
    """Arguments that cannot be meant are refused, naming what was given and what is known."""
    with pytest.raises(InputError) as caught:
        model.encode(TEXTS, **kwargs)
    assert all(word in str(caught.value) for word in words)


def test_errors_are_value_errors(model):
    """Code that expects ValueError keeps working."""
    with pytest.raises(ValueError):
        model.encode([None])


def test_numpy_integers_are_integers(model, expected):
    """Sizes that were computed with numpy are taken."""
    close(model.encode(TEXTS, batch_size=np.int64(3), truncate_dim=np.int64(4)), expected[:, :4])


# ---- prompts


@pytest.mark.parametrize(
    ("kwargs", "prefix"),
    [
        ({"prompt": "say: "}, "say: "),
        ({"prompt_name": "query"}, "ask: "),
        ({"prompt_name": "document"}, "tell: "),
        ({"prompt": ""}, ""),
        ({}, ""),
    ],
    ids=str,
)
def test_prompts(model, reference, kwargs, prefix):
    """The prompt stands before every text."""
    close(model.encode(SENTENCES, **kwargs), [reference(prefix + text).mean(0) for text in SENTENCES])


def test_prompt_wins_over_its_name(model, reference, caplog):
    """Both given: the text is used, with a warning."""
    close(model.encode("cat", prompt="say: ", prompt_name="query"), reference("say: cat").mean(0))
    assert "prompt_name" in caplog.text


def test_default_prompt(bert_folder, reference):
    """`default_prompt_name` is used where a call names none."""
    own = SentenceTransformer(str(bert_folder), device="cpu", prompts={"q": "ask: "}, default_prompt_name="q")
    close(own.encode("cat"), reference("ask: cat").mean(0))
    close(own.encode("cat", prompt=""), reference("cat").mean(0))
    with pytest.raises(InputError, match="nothing"):
        SentenceTransformer(str(bert_folder), device="cpu", default_prompt_name="nothing")


def test_sides(model, bert_folder, reference):
    """encode_query takes the prompt "query", encode_document the first there is of document, passage, corpus."""
    close(model.encode_query("cat"), reference("ask: cat").mean(0))
    close(model.encode_document(["cat"]), [reference("tell: cat").mean(0)])
    close(model.encode_query("cat", prompt_name="document"), reference("tell: cat").mean(0))
    close(model.encode_document("cat", prompt="say: "), reference("say: cat").mean(0))
    prompts = {"corpus": "c: ", "passage": "p: "}
    own = SentenceTransformer(str(bert_folder), device="cpu", prompts=prompts, default_prompt_name="corpus")
    close(own.encode_query("cat"), reference("cat").mean(0))  # the empty prompt that every model has
    close(own.encode_document("cat"), reference("cat").mean(0))
    del own.prompts["document"]
    close(own.encode_document("cat"), reference("p: cat").mean(0))
    del own.prompts["query"]
    close(own.encode_query("cat"), reference("c: cat").mean(0))


@pytest.mark.parametrize("mode", Pooling.POOLING_MODES)
def test_prompt_left_out_of_pooling(bert_folder, reference, mode):
    """include_prompt=False pools over the tokens after the prompt's (which see the prompt all the same)."""
    pooling = Pooling(HIDDEN, mode, include_prompt=False)
    own = SentenceTransformer(modules=[Transformer(str(bert_folder)), pooling], device="cpu")
    prompt = "She sells: "
    skip = len(reference.tokenizer(prompt)["input_ids"]) - 1  # [CLS] and the prompt's words, not [SEP]

    def formula(rows: np.ndarray, before: int = 0) -> np.ndarray:
        n = len(rows) - before
        weights = {
            "cls": np.eye(n)[0],
            "lasttoken": np.eye(n)[-1],
            "mean": np.ones(n) / n,
            "mean_sqrt_len_tokens": np.ones(n) / np.sqrt(n),
            "weightedmean": np.arange(before + 1, before + n + 1) / np.arange(before + 1, before + n + 1).sum(),
        }
        return rows[before:].max(0) if mode == "max" else weights[mode] @ rows[before:]

    close(own.encode(SENTENCES, prompt=prompt), [formula(reference(prompt + text), skip) for text in SENTENCES])
    features = own.preprocess(SENTENCES, prompt=prompt)
    with torch.no_grad():
        padded = own(features)["sentence_embedding"]
    close(padded, [formula(reference(prompt + text), skip) for text in SENTENCES])
    close(own.encode("cat"), formula(reference("cat")))
    own.set_pooling_include_prompt(True)
    close(own.encode("cat", prompt=prompt), formula(reference(prompt + "cat")))


def test_router_takes_the_side(bert_folder, reference):
    """With a Router queries and documents go different ways, from `encode_query` to `encode(task=...)`."""
    static = StaticEmbedding(models.raw_tokenizer(), embedding_dim=HIDDEN)
    router = Router.for_query_document([static], [Transformer(str(bert_folder)), Pooling(HIDDEN, "mean")])
    own = SentenceTransformer(modules=[router], device="cpu")
    table = static.embedding.weight.detach().numpy()
    ids = [static.tokenizer.encode(text, add_special_tokens=False).ids for text in SENTENCES]
    queries = [table[row].mean(0) for row in ids]
    documents = [reference(text).mean(0) for text in SENTENCES]
    close(own.encode_query(SENTENCES), queries)
    close(own.encode(SENTENCES, task="query"), queries)
    close(own.encode_document(SENTENCES), documents)
    close(own.encode(SENTENCES), documents)  # the default route
    close(np.concatenate(list(own.encode_stream(SENTENCES, chunk_size=5, task="query"))), queries)


# ---- other outputs


def test_token_embeddings(model, reference):
    """One (l, H) tensor per text, without padding, whatever the convert flags."""
    for flags in ({}, {"convert_to_tensor": True}, {"normalize_embeddings": True}):
        rows = model.encode(TEXTS, output_value="token_embeddings", **flags)
        assert type(rows) is list and len(rows) == len(TEXTS)
        for row, text in zip(rows, TEXTS, strict=True):
            assert type(row) is torch.Tensor
            close(row, reference(text))
    close(model.encode("cat", output_value="token_embeddings", truncate_dim=4), reference("cat"))


def test_all_features(model, reference):
    """output_value=None: a dictionary per text with its tokens, their vectors and the text's vector."""
    rows = model.encode(TEXTS, output_value=None)
    assert [type(row) for row in rows] == [dict] * len(TEXTS)
    for row, text in zip(rows, TEXTS, strict=True):
        ids = reference.tokenizer(text, truncation=True, max_length=MAX_LENGTH)["input_ids"]
        assert row["input_ids"].tolist() == ids
        assert row["attention_mask"].tolist() == [1] * len(ids)
        close(row["token_embeddings"], reference(text))
        close(row["sentence_embedding"], reference(text).mean(0))
    assert type(model.encode("cat", output_value=None)) is dict


def test_all_features_of_equally_many_tokens_and_texts(model, reference):
    """One text of one token too many to be told apart by shape alone: B = T is not mistaken."""
    for texts in (["cat"], ["", ""], ["cat", "dog", "cat dog"]):
        for row, text in zip(model.encode(texts, output_value=None), texts, strict=True):
            close(row["token_embeddings"], reference(text))
            close(row["sentence_embedding"], reference(text).mean(0))


@pytest.mark.parametrize("precision", ["float32", "int8", "uint8", "binary", "ubinary"])
def test_precision(model, expected, precision):
    """Quantised vectors are `quantize_embeddings` of the float ones; of any convert flags the kind is kept."""
    codes = quantize_embeddings(expected, precision)
    allowed = {"float32": 1e-5, "int8": 1, "uint8": 1}.get(precision, 0)  # one step, where rounding falls elsewhere

    def same(actual: np.ndarray, wanted: np.ndarray) -> None:
        assert actual.dtype == wanted.dtype and actual.shape == wanted.shape
        assert abs(actual.astype(float) - wanted).max() <= allowed

    same(model.encode(TEXTS, precision=precision), codes)
    tensor = model.encode(TEXTS, precision=precision, convert_to_tensor=True)
    assert tensor.device.type == "cpu"
    same(tensor.numpy(), codes)
    rows = model.encode(TEXTS, precision=precision, convert_to_numpy=False)
    assert type(rows) is list
    same(torch.stack(rows).numpy(), codes)
    unit = expected[:, :8] / np.linalg.norm(expected[:, :8], axis=1, keepdims=True)
    last = model.encode(TEXTS, precision=precision, normalize_embeddings=True, truncate_dim=8)
    same(last, quantize_embeddings(unit, precision))


def test_one_text_has_no_range(model):
    """A single text can be quantised to bits, not to bytes."""
    vector = model.encode("cat")
    assert (model.encode("cat", precision="ubinary") == np.packbits(vector > 0)).all()
    with pytest.raises(InputError, match="single"):
        model.encode("cat", precision="int8")


def test_truncate_and_normalize(model, expected):
    """First truncated, then scaled to length 1."""
    first = expected[:, :5]
    close(model.encode(TEXTS, truncate_dim=5), first)
    unit = first / np.linalg.norm(first, axis=1, keepdims=True)
    close(model.encode(TEXTS, truncate_dim=5, normalize_embeddings=True), unit)
    close(model.encode("cat", normalize_embeddings=True), expected[0] / np.linalg.norm(expected[0]))


def test_truncate_dim_of_the_model(bert_folder, expected):
    """The call's wins over the context's, over the model's; the reported dimension follows."""
    own = SentenceTransformer(str(bert_folder), device="cpu", truncate_dim=6)
    assert own.get_embedding_dimension() == own.get_sentence_embedding_dimension() == 6
    close(own.encode(TEXTS), expected[:, :6])
    close(own.encode(TEXTS, truncate_dim=9), expected[:, :9])
    assert own.encode([]).shape == (0, 6)
    with own.truncate_embeddings(3):
        assert own.get_embedding_dimension() == 3
        close(own.encode(TEXTS), expected[:, :3])
    close(own.encode(TEXTS), expected[:, :6])
    with pytest.raises(InputError, match="truncate_dim"):
        SentenceTransformer(str(bert_folder), device="cpu", truncate_dim=HIDDEN + 1)


@pytest.mark.parametrize(("dtype", "array"), [(torch.float16, np.float16), (torch.bfloat16, np.float32)])
def test_half_precision(fresh, expected, dtype, array):
    """half() and bfloat16(): arrays of a type that numpy has, tensors of the model's; the vectors nearly the same."""
    own = fresh.half() if dtype == torch.float16 else fresh.bfloat16()
    vectors = own.encode(TEXTS)
    assert vectors.dtype == array
    assert own.encode(TEXTS, convert_to_tensor=True).dtype == dtype
    cosine = (vectors.astype(np.float32) * expected).sum(1)
    cosine /= np.linalg.norm(vectors.astype(np.float32), axis=1) * np.linalg.norm(expected, axis=1)
    assert cosine.min() > 0.999
    assert own.encode([]).shape == (0, HIDDEN)


def test_progress_bar(model, capsys, caplog):
    """Shown when asked for, counting all texts; hidden when not; by default as the logger's level says."""
    model.encode(TEXTS, show_progress_bar=True)
    assert f"{len(TEXTS)}/{len(TEXTS)}" in capsys.readouterr().err
    model.encode(TEXTS, show_progress_bar=False)
    model.encode(TEXTS)
    assert capsys.readouterr().err == ""
    with caplog.at_level(logging.INFO, "sentence_transformers"):
        model.encode(TEXTS)
    assert f"{len(TEXTS)}/{len(TEXTS)}" in capsys.readouterr().err


# ---- settings that change


def test_max_seq_length(fresh, reference):
    """Texts are cut at the new length from the next call on."""
    for length in (8, 5, MAX_LENGTH):
        fresh.max_seq_length = length
        assert fresh.max_seq_length == fresh.get_max_seq_length() == length
        close(fresh.encode(SENTENCES), [reference(text, length).mean(0) for text in SENTENCES])


def test_tokenizer_can_be_replaced(fresh, reference):
    """From the next call on texts are cut into the new tokenizer's tokens."""
    assert abs(fresh.encode("cat") - fresh.encode("dog")).max() > 1e-3
    for new in ("dog", "river", "bread"):
        tokenizer = copy.deepcopy(reference.tokenizer)
        rust = tokenizer.backend_tokenizer
        rust.normalizer = normalizers.Sequence([rust.normalizer, normalizers.Replace("cat", new)])
        fresh.tokenizer = tokenizer
        assert fresh.tokenizer is tokenizer
        del tokenizer, rust
        close(fresh.encode("The cat."), reference(f"The {new}.").mean(0))


def test_weights_can_change(fresh):
    """A trained or loaded weight is seen by the next call."""
    before = fresh.encode(TEXTS)
    weights = {name: weight.clone() for name, weight in fresh.state_dict().items()}
    with torch.no_grad():
        for weight in fresh.parameters():
            weight.mul_(1.5)
    assert abs(fresh.encode(TEXTS) - before).max() > 1e-3
    fresh.load_state_dict(weights)
    close(fresh.encode(TEXTS), before)


def test_no_dropout(fresh, expected):
    """`encode` computes in evaluation mode, whichever mode the model was in."""
    fresh[0].auto_model  # noqa: B018  # from now on with transformers' layers, which have dropout
    fresh.train()
    assert any(isinstance(module, torch.nn.Dropout) and module.p > 0 for module in fresh.modules())
    close(fresh.encode(TEXTS), expected)


def test_evaluate(fresh, tmp_path):
    """The evaluator gets the model and a folder that exists."""
    calls: list[Any] = []

    def evaluator(model: SentenceTransformer, output_path: str | None = None) -> dict[str, float]:
        calls.append((model, output_path))
        assert output_path is None or Path(output_path).is_dir()
        return {"accuracy": 0.5}

    folder = str(tmp_path / "deep" / "results")
    assert fresh.evaluate(evaluator) == fresh.evaluate(evaluator, folder) == {"accuracy": 0.5}
    assert calls == [(fresh, None), (fresh, folder)]


# ---- made-up vectors


def test_simulated_embeddings(model, no_computing):
    """Right shape and type, the same for the same text, unrelated for others, and no network runs."""
    vectors = model.simulate_embedding([*TEXTS, "\ud800"])
    assert vectors.shape == (len(TEXTS) + 1, HIDDEN) and vectors.dtype == np.float32
    assert (model.simulate_embedding("cat") == vectors[0]).all()
    assert (model.simulate_embedding(TEXTS[::-1])[::-1] == vectors[:-1]).all()
    many = model.simulate_embedding([str(i) for i in range(2000)])
    assert abs(many.mean()) < 0.02 and abs(many.std() - 1) < 0.02  # 64,000 standard normal numbers
    unit = many / np.linalg.norm(many, axis=1, keepdims=True)
    assert abs(unit @ unit.T - np.eye(len(unit))).max() < 0.9
    close(np.linalg.norm(model.simulate_embedding(TEXTS, normalize_embeddings=True), axis=1), np.ones(len(TEXTS)))
    assert model.simulate_embedding(TEXTS, truncate_dim=4).shape == (len(TEXTS), 4)
    assert model.simulate_embedding([]).shape == (0, HIDDEN)


def test_simulated_embeddings_of_a_normalising_model(bert_folder):
    """A model that ends with Normalize has made-up vectors of length 1."""
    parts = [Transformer(str(bert_folder)), Pooling(HIDDEN, "mean"), Normalize()]
    own = SentenceTransformer(modules=parts, device="cpu")
    close(np.linalg.norm(own.simulate_embedding(TEXTS), axis=1), np.ones(len(TEXTS)))


# ---- streams


def counted(texts: list[str], drawn: list[int]) -> Iterator[str]:
    for i, text in enumerate(texts):
        drawn.append(i)
        yield text


def test_stream(model, expected):
    """Batches come in order; together they are what `encode` gives."""
    batches = list(model.encode_stream(iter(TEXTS), chunk_size=4))
    assert [len(batch) for batch in batches] == [4] * (len(TEXTS) // 4) + [len(TEXTS) % 4] * (len(TEXTS) % 4 > 0)
    close(np.concatenate(batches), expected)
    tensors = list(model.encode_stream(TEXTS, chunk_size=100, convert_to_tensor=True, normalize_embeddings=True))
    close(tensors[0], expected / np.linalg.norm(expected, axis=1, keepdims=True))
    assert list(model.encode_stream([])) == []
    close(next(model.encode_stream("cat")), expected[:1])


def test_stream_is_lazy(model):
    """No text is drawn before it is needed."""
    drawn: list[int] = []
    stream = model.encode_stream(counted(TEXTS, drawn), chunk_size=3)
    assert drawn == []
    for count in (3, 6, 9):
        next(stream)
        assert len(drawn) == count


def test_stream_names_bad_positions(model):
    """Positions are counted over the whole stream, and what came before is delivered."""
    stream = model.encode_stream(["a", "b", "c", None], chunk_size=2)
    assert next(stream).shape == (2, HIDDEN)
    with pytest.raises(InputError, match="Input 3 is None"):
        next(stream)
    with pytest.raises(InputError, match="chunk_size"):
        next(model.encode_stream(["a"], chunk_size=0))


def test_stream_has_no_ranges(model):
    """Bytes need the range of all vectors, which a stream does not know; bits do not."""
    with pytest.raises(InputError, match="ranges"):
        next(model.encode_stream(TEXTS, precision="int8"))
    bits = np.concatenate(list(model.encode_stream(TEXTS, chunk_size=3, precision="ubinary")))
    assert (bits == model.encode(TEXTS, precision="ubinary")).all()


@pytest.mark.slow
def test_stream_in_bounded_memory(static_model):
    """A million texts from a generator: resident memory grows by less than 200 MB."""
    import psutil

    process = psutil.Process()
    next(static_model.encode_stream(models.texts_of_many_lengths(10_000)))
    before, peak, rows = process.memory_info().rss, 0, 0
    for batch in static_model.encode_stream(models.texts_of_many_lengths(1_000_000)):
        rows += len(batch)
        peak = max(peak, process.memory_info().rss)
    assert rows == 1_000_000
    assert peak - before < 200e6


# ---- asyncio


def test_async(model, expected):
    """Awaited results are those of `encode`, for one text and for several."""

    async def main() -> Any:
        return await asyncio.gather(
            model.encode_async(TEXTS),
            model.encode_async("cat"),
            model.encode_async(TEXTS, convert_to_tensor=True),
            model.encode_async("cat", output_value="token_embeddings"),
            model.encode_async([]),
        )

    several, one, tensor, tokens, none = asyncio.run(main())
    close(several, expected)
    close(one, expected[0])
    assert isinstance(tensor, torch.Tensor)
    close(tensor, expected)
    close(tokens.mean(0), expected[0])
    assert none.shape == (0, HIDDEN)


def test_async_calls_are_merged(fresh, expected, monkeypatch):
    """Calls that wait while one is computed become one batch, each with its own rows; other settings stay apart."""
    started, go_on, sizes = threading.Event(), threading.Event(), []
    encode = fresh.encode

    def slow(texts: list[str], **kwargs: Any) -> Any:
        sizes.append(len(texts))
        started.set()
        assert go_on.wait(30)
        return encode(texts, **kwargs)

    monkeypatch.setattr(fresh, "encode", slow)

    async def main() -> Any:
        first = asyncio.create_task(fresh.encode_async(TEXTS[0]))
        await asyncio.to_thread(started.wait, 30)
        rest = [asyncio.create_task(fresh.encode_async([text, text])) for text in TEXTS[1:]]
        other = asyncio.create_task(fresh.encode_async(TEXTS[0], truncate_dim=3))
        await asyncio.sleep(0.05)
        go_on.set()
        return await asyncio.gather(first, *rest, other)

    first, *rest, other = asyncio.run(main())
    assert sorted(sizes) == [1, 1, 2 * (len(TEXTS) - 1)]
    close(first, expected[0])
    close(other, expected[0, :3])
    for rows, vector in zip(rest, expected[1:], strict=True):
        close(rows, [vector, vector])


def test_async_failure_spoils_no_other(bert_folder, expected):
    """Of calls computed together only the one at fault fails; a cancelled one disturbs nobody."""
    parts = [Transformer(str(bert_folder)), Pooling(HIDDEN, "mean"), models.Fault(shortest=40)]
    own = SentenceTransformer(modules=parts, device="cpu")
    bad = "never " * 50
    good = [text for text in TEXTS if len(own.encode(text, output_value="token_embeddings")) < 40]

    async def main() -> list[Any]:
        tasks = [asyncio.create_task(own.encode_async(text, fault="raise")) for text in good[:4]]
        tasks.append(asyncio.create_task(own.encode_async(bad, fault="raise")))
        tasks += [asyncio.create_task(own.encode_async(text, fault="raise")) for text in good[4:]]
        cancelled = asyncio.create_task(own.encode_async("cat", fault="raise"))
        await asyncio.sleep(0)
        cancelled.cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    results = asyncio.run(main())
    assert isinstance(results[4], ValueError) and "fault on request" in str(results[4])
    del results[4]
    close(results, expected[[TEXTS.index(text) for text in good]])


def test_async_ranges_are_of_the_call_alone(model, reference):
    """int8 codes depend on the range of the call's own texts, so such calls are not merged."""
    halves = (TEXTS[:8], TEXTS[8:])

    async def main() -> Any:
        return await asyncio.gather(*(model.encode_async(half, precision="int8") for half in halves))

    for codes, half in zip(asyncio.run(main()), halves, strict=True):
        wanted = quantize_embeddings(np.stack([reference(text).mean(0) for text in half]), "int8")
        assert abs(codes.astype(int) - wanted).max() <= 1


def test_async_in_several_loops(model, expected):
    """Each `asyncio.run` has a loop of its own; one model serves them all, from several threads."""
    results: dict[int, Any] = {}

    def run(i: int) -> None:
        results[i] = asyncio.run(model.encode_async(TEXTS))

    threads = [threading.Thread(target=run, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    for vectors in results.values():
        close(vectors, expected)


# ---- threads


def test_eight_threads_share_one_model(bert_folder, reference):
    """Each gets the vectors that it would get alone, from the first call on, whatever settings the others use."""
    own = SentenceTransformer(str(bert_folder), device="cpu")
    jobs = [[f"{SENTENCES[(i + k) % len(SENTENCES)]} {i}" for k in range(40)] for i in range(8)]
    wanted = [np.stack([reference(text).mean(0) for text in job[:12]]) for job in jobs]
    results: dict[int, Any] = {}
    barrier = threading.Barrier(8)

    def run(i: int) -> None:
        barrier.wait(30)
        try:
            rounds = [own.encode(jobs[i], truncate_dim=i + 1, batch_size=i + 1, prompt=None) for _ in range(4)]
            results[i] = rounds
        except Exception as error:
            results[i] = error

    threads = [threading.Thread(target=run, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(8):
        assert not isinstance(results[i], Exception), results[i]
        for vectors in results[i]:
            assert vectors.shape == (40, i + 1)
            close(vectors[:12], wanted[i][:, : i + 1])


# ---- worker processes


@pytest.fixture(scope="module")
def faulty(bert_folder: Path) -> SentenceTransformer:
    """A model that can be asked to fail on texts of 40 tokens and more."""
    parts = [Transformer(str(bert_folder)), Pooling(HIDDEN, "mean"), models.Fault(shortest=40)]
    return SentenceTransformer(modules=parts, device="cpu", prompts={"query": "ask: "})


@pytest.fixture(scope="module")
def pool(faulty: SentenceTransformer) -> Iterator[workers.Pool]:
    pool = faulty.start_multi_process_pool(["cpu", "cpu"])
    yield pool
    faulty.stop_multi_process_pool(pool)


def test_pool(faulty, pool, expected, reference):
    """Two workers give the vectors of one process, in order, with every kind of result."""
    for chunk_size in (None, 1, 4, 1000):
        close(faulty.encode(TEXTS, pool=pool, chunk_size=chunk_size), expected)
    one = faulty.encode("cat", pool=pool)
    assert one.shape == (HIDDEN,)
    close(one, expected[0])
    tensor = faulty.encode(TEXTS, pool=pool, convert_to_tensor=True, normalize_embeddings=True, truncate_dim=4)
    first = expected[:, :4]
    assert isinstance(tensor, torch.Tensor)
    close(tensor, first / np.linalg.norm(first, axis=1, keepdims=True))
    codes = faulty.encode(TEXTS, pool=pool, precision="int8", chunk_size=3)
    assert abs(codes.astype(int) - quantize_embeddings(expected, "int8")).max() <= 1
    assert (faulty.encode(TEXTS, pool=pool, precision="ubinary") == np.packbits(expected > 0, axis=1)).all()
    close(faulty.encode_query("cat", pool=pool), reference("ask: cat").mean(0))
    close(faulty.encode_multi_process(TEXTS, pool), expected)
    assert faulty.encode([], pool=pool).shape == (0, HIDDEN)
    assert type(faulty.encode(TEXTS, pool=pool, convert_to_numpy=False)) is list


def test_pool_returns_tokens(faulty, pool, reference):
    """Thousands of token tensors come back from the workers, and all features."""
    texts = [*TEXTS, *models.texts_of_many_lengths(3000)]
    rows = faulty.encode(texts, pool=pool, output_value="token_embeddings")
    assert len(rows) == len(texts) and all(type(row) is torch.Tensor for row in rows)
    for row, text in zip(rows, TEXTS, strict=False):
        close(row, reference(text))
    for row, text in zip(faulty.encode(TEXTS, pool=pool, output_value=None), TEXTS, strict=True):
        close(row["token_embeddings"], reference(text))
        close(row["sentence_embedding"], reference(text).mean(0))


def test_pool_survives_an_error(faulty, pool, expected):
    """An exception in a worker is raised here, with its traceback; later calls get their own results."""
    for _ in range(2):
        with pytest.raises(WorkerError, match="a fault on request"):
            faulty.encode(TEXTS, pool=pool, chunk_size=1, fault="raise", truncate_dim=4)
        close(faulty.encode(TEXTS[::-1], pool=pool, chunk_size=2), expected[::-1])


def test_pool_shared_by_threads(faulty, pool, expected):
    """Two threads may use one pool at the same time; each gets the rows of its own texts."""
    results: dict[int, Any] = {}

    def run(i: int) -> None:
        texts = TEXTS if i else TEXTS[::-1]
        try:
            results[i] = [faulty.encode(texts, pool=pool, chunk_size=2) for _ in range(5)]
        except Exception as error:
            results[i] = error

    threads = [threading.Thread(target=run, args=(i,), daemon=True) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(results) == [0, 1]
    for i, vectors in results.items():
        assert not isinstance(vectors, Exception), vectors
        for rows in vectors:
            close(rows, expected if i else expected[::-1])


def test_bad_input_is_found_before_the_workers(faulty, pool):
    """Positions are those of the caller's list, not of a chunk."""
    with pytest.raises(InputError, match="Input 20 is None"):
        faulty.encode([*map(str, range(20)), None], pool=pool, chunk_size=2)


@pytest.mark.usefixtures("forked_workers")
def test_killed_worker_is_named(faulty):
    """A worker killed in the middle of a job: an error with its name, soon, and no waiting for ever."""
    pool = faulty.start_multi_process_pool(["cpu", "cpu"])
    try:
        faulty.encode(TEXTS, pool=pool, chunk_size=1)  # both are up
        victim = pool["processes"][1]
        died: list[float] = []

        def kill() -> None:
            os.kill(victim.pid, signal.SIGKILL)
            died.append(time.monotonic())

        timer = threading.Timer(1.0, kill)
        timer.start()
        with pytest.raises(WorkerError) as caught:
            faulty.encode(["never " * 50] * 6, pool=pool, chunk_size=1, fault="sleep")
        assert time.monotonic() - died[0] < 10
        assert victim.name in str(caught.value) and str(victim.pid) in str(caught.value)
        with pytest.raises(WorkerError, match=str(victim.pid)):
            faulty.encode(TEXTS, pool=pool)
    finally:
        timer.cancel()
        faulty.stop_multi_process_pool(pool)
    assert not any(process.is_alive() for process in pool["processes"])
    faulty.stop_multi_process_pool(pool)
    with pytest.raises(InputError, match="stopped"):
        faulty.encode(TEXTS, pool=pool)


@pytest.mark.usefixtures("forked_workers")
def test_worker_killed_while_it_answers():
    """A worker that dies with half its answer written is noticed too."""
    pool = workers.start(models.Blank(), ["cpu", "cpu"])
    outcome: list[Any] = []

    def collect(answers: Iterator[Any]) -> None:
        try:
            outcome.extend(answers)
        except Exception as error:
            outcome.append(error)

    try:
        answers = workers.map_chunks(pool, "encode", ["cat"] * 4, 1, {"rows": 100_000})
        next(answers)  # from now on nobody reads, so the workers wait with answers of 12 MB half written
        time.sleep(2)
        for process in pool["processes"]:
            os.kill(process.pid, signal.SIGKILL)
        reader = threading.Thread(target=collect, args=(answers,), daemon=True)
        reader.start()
        reader.join(10)
        assert isinstance(outcome[-1], WorkerError) and "encode-worker" in str(outcome[-1])
    finally:
        workers.stop(pool)


@pytest.mark.usefixtures("forked_workers")
def test_failed_job_leaves_no_work_behind():
    """After an error the workers throw the rest of that call away instead of computing it first."""
    pool = workers.start(models.Blank(), ["cpu", "cpu"])
    try:
        with pytest.raises(WorkerError, match="no_such_method"):
            list(workers.map_chunks(pool, "no_such_method", ["cat"] * 2, 1, {}))
        abandoned = workers.map_chunks(pool, "encode", ["cat"] * 2000, 1, {"rows": 100_000})
        next(abandoned)
        abandoned.close()
        answers = list(workers.map_chunks(pool, "encode", ["cat"] * 3, 2, {}))
        assert sorted((start, stop, len(rows)) for start, stop, rows in answers) == [(0, 2, 2), (2, 3, 1)]
        assert pool["input"].empty()
    finally:
        workers.stop(pool)


@pytest.mark.usefixtures("forked_workers")
@pytest.mark.parametrize("kwargs", [{"num_workers": 2}, {"device": ["cpu", "cpu"]}], ids=["num_workers", "devices"])
def test_workers_for_one_call(fresh, expected, kwargs):
    """Workers started for one call, ended after it; the model computes here as before."""
    import multiprocessing

    before = set(multiprocessing.active_children())
    close(fresh.encode(TEXTS, **kwargs), expected)
    assert set(multiprocessing.active_children()) <= before
    close(fresh.encode(TEXTS), expected)
