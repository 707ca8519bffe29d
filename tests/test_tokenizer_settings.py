"""Every setting of a tokenizer counts: as its folder says, and as it is changed after the first use."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from sentence_transformers import SentenceTransformer, SparseEncoder
from sentence_transformers.modules.static_embedding import StaticEmbedding
from tests import models
from tests.golden.layouts import GOLDEN

TEXTS = ["The cat sat on the mat while the dog slept near the door", "Rain fell", "RAIN FELL the river"]
PAIRS = [(TEXTS[0], TEXTS[1]), (TEXTS[2], TEXTS[0])]
NAMES = ("bert", "roberta", "mpnet", "qwen3", "llama", "gemma3", "t5", "xlnet")  # each kind of tokenizer
SETTINGS = [
    {},
    {"truncation_side": "left"},
    {"padding_side": "left"},
    {"padding_side": "right", "truncation_side": "left"},
    {"model_max_length": 5},
    {"extra_special_tokens": ["the"]},
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("tokenizers")
    return {name: models.build(name, root / name, vocab_size=500) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_cut_batch_is_that_of_transformers(name, settings, folders, tmp_path):
    if "extra_special_tokens" in settings and name in ("bert", "mpnet"):
        pytest.skip("a word that is part of the vocabulary already")
    for file in folders[name].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | settings), encoding="utf-8")
    model = SentenceTransformer(str(tmp_path), device="cpu")
    model.max_seq_length = length = min(9, settings.get("model_max_length", 9))
    reference = AutoTokenizer.from_pretrained(tmp_path)
    for inputs in (TEXTS, PAIRS):
        given = [TEXTS] if inputs is TEXTS else [list(side) for side in zip(*inputs, strict=True)]
        expected = reference(*given, padding=True, truncation=True, max_length=length)
        got = model.preprocess(inputs)
        for key in ("input_ids", "attention_mask"):
            assert got[key].tolist() == expected[key], key


def upper(rust) -> None:
    rust.normalizer = normalizers.Replace("cat", "dog")


def whitespace(rust) -> None:
    rust.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split("a", "removed"), rust.pre_tokenizer])


def template(rust) -> None:
    rust.post_processor = processors.TemplateProcessing(single="$A", pair="$A $B:1", special_tokens=[])


def added(rust) -> None:
    rust.add_tokens(["mat while"])


def special(rust) -> None:
    rust.add_special_tokens(["slept"])


@pytest.mark.parametrize("change", [upper, whitespace, template, added, special], ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_a_change_inside_the_tokenizer_counts(name, change, folders):
    """Each is made after the tokenizer was used; the same change on a fresh tokenizer gives the ids."""
    model = SentenceTransformer(str(folders[name]), device="cpu")
    rust = model.tokenizer.backend_tokenizer
    before = model.preprocess(TEXTS[:1])["input_ids"].tolist()
    change(rust)
    reference = AutoTokenizer.from_pretrained(folders[name])
    change(reference.backend_tokenizer)
    expected = reference(TEXTS[:1])["input_ids"]
    assert model.preprocess(TEXTS[:1])["input_ids"].tolist() == expected != before


def test_sides_that_are_changed_count(folders):
    model = SentenceTransformer(str(folders["bert"]), device="cpu")
    model.max_seq_length = 6
    reference = AutoTokenizer.from_pretrained(folders["bert"])
    model.tokenizer, _ = model.tokenizer, model.encode(TEXTS)
    model.tokenizer.truncation_side = reference.truncation_side = "left"
    model.tokenizer.padding_side = reference.padding_side = "left"
    expected = reference(TEXTS, padding=True, truncation=True, max_length=6)["input_ids"]
    assert model.preprocess(TEXTS)["input_ids"].tolist() == expected


def test_a_change_inside_the_tokenizer_of_a_table_counts():
    from sentence_transformers.models import StaticEmbedding

    table = StaticEmbedding(models.raw_tokenizer(), embedding_dim=4)
    model = SentenceTransformer(modules=[table], device="cpu")
    model.encode("the cat")
    expected = model.encode("the dog")
    table.tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.Replace("cat", "dog")])
    np.testing.assert_array_equal(model.encode("the cat"), expected)


# ---- static embeddings


def static_model() -> SentenceTransformer:
    return SentenceTransformer(str(GOLDEN / "out_static"), device="cpu")


def mean_of_rows(model: SentenceTransformer, ids: list[int]) -> torch.Tensor:
    return model[0].embedding.weight.detach()[ids].mean(0)


@pytest.mark.parametrize(("direction", "kept"), [("right", slice(0, 2)), ("left", slice(-2, None))])
@pytest.mark.parametrize("saved", [False, True])
def test_a_static_model_keeps_to_the_truncation_of_its_tokenizer(direction, kept, saved, tmp_path):
    model = static_model()
    ids = model.tokenizer.encode("the cat sat on the mat", add_special_tokens=False).ids
    model.encode("a first text")
    model.tokenizer.enable_truncation(2, direction=direction)
    if saved:
        model.save_pretrained(str(tmp_path))
        model = SentenceTransformer(str(tmp_path), device="cpu")
    found = model.encode("the cat sat on the mat", convert_to_tensor=True)
    torch.testing.assert_close(found, mean_of_rows(model, ids[kept]))


class Prefixed:
    """A tokenizer of one's own around a `tokenizers.Tokenizer`."""

    def __init__(self, inner):
        self.inner = inner

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def encode_batch(self, texts, **kwargs):
        return self.inner.encode_batch([f"rain {text}" for text in texts], **kwargs)


class Called(PreTrainedTokenizerFast):
    """A transformers tokenizer whose call is overridden."""

    def __call__(self, texts, *args, **kwargs):
        return super().__call__([f"rain {text}" for text in texts], *args, **kwargs)


@pytest.mark.parametrize("kind", [Prefixed, lambda inner: Called(tokenizer_object=inner)])
def test_a_tokenizer_of_ones_own_cuts_the_texts_of_a_static_model(kind):
    model = static_model()
    expected = model.encode(["rain the cat", "rain water"])
    model[0].tokenizer = kind(model.tokenizer)
    np.testing.assert_array_equal(model.encode(["the cat", "water"]), expected)


def test_an_overridden_call_cuts_the_texts_of_sparse_static_embeddings():
    plain = PreTrainedTokenizerFast(tokenizer_object=static_model().tokenizer)
    weight = torch.arange(1.0, len(plain) + 1)
    dense = [
        SparseEncoder(modules=[SparseStaticEmbedding(tokenizer, weight)], device="cpu").encode(
            [text], convert_to_sparse_tensor=False
        )
        for tokenizer, text in (
            (plain, "rain the cat"),
            (Called(tokenizer_object=plain.backend_tokenizer), "the cat"),
        )
    ]
    torch.testing.assert_close(dense[0], dense[1])
    assert dense[0].count_nonzero() == len(set(plain("rain the cat", add_special_tokens=False)["input_ids"]))


@pytest.mark.parametrize("direction", ["right", "left"])
@pytest.mark.parametrize("most", [None, 1, 2, 5])
def test_texts_of_a_table_of_words_are_cut_as_the_tokenizer_cuts_them(most: int | None, direction: str) -> None:
    """`StaticEmbedding` with a tokenizer whose file asks for truncation."""
    tokenizer = Tokenizer.from_file(str(GOLDEN / "out_st" / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    if most is not None:
        tokenizer.enable_truncation(most, direction=direction)
    texts = ["", "the cat", "rainrainrainrain fell", "water the cat the river rain fell the", "the"]
    found = StaticEmbedding(tokenizer, embedding_dim=4).tokens(texts)
    expected = [encoding.ids for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)]
    bounds = found.offsets.tolist()
    assert [found.ids[a:b].tolist() for a, b in itertools.pairwise(bounds)] == expected
    whole = Tokenizer.from_str(tokenizer.to_str())
    whole.no_truncation()
    longer = [len(one.ids) > (most or 99) for one in whole.encode_batch(texts, add_special_tokens=False)]
    assert found.cut == sum(longer)
