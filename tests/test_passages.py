"""Long documents in passages: where they are cut, that nothing is lost, and vectors that know the text around them.

Token counts come from the model's own `tokenize`, vectors of late chunking from its token vectors and the formula.
"""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers import models as tokenizer_models

from sentence_transformers import CrossEncoder, MultiVectorEncoder, SentenceTransformer, SparseEncoder
from sentence_transformers.engine.chunking import Passage, split
from sentence_transformers.engine.tokenization import BatchTokenizer
from sentence_transformers.errors import InputError
from sentence_transformers.modules.bow import BoW
from sentence_transformers.modules.dense import Dense
from sentence_transformers.modules.normalize import Normalize
from sentence_transformers.modules.pooling import Pooling
from sentence_transformers.modules.static_embedding import StaticEmbedding
from sentence_transformers.modules.transformer import Transformer
from tests import models
from tests.golden import score_models
from tests.models import HIDDEN, MAX_LENGTH, SENTENCES

LONG = "\n\n".join(" ".join(SENTENCES[i:] + SENTENCES[:i]) for i in range(4))
DOCUMENTS = [
    LONG,
    "",
    "A short one.",
    "  \n ",
    "never " * 300,
    "x" * 500,
    "\n".join(f"- item {i} of a list without any stop" for i in range(40)),
    "🙂 naïve façade – what now? " * 30,
    "水は百度で沸騰する。海面での話だ。" * 20,
    f"   {LONG}\n\n",
    "broken \ud800 surrogate \ud83d\ude42 " * 40,
]
TOKENIZERS = ["bert", "roberta", "qwen3", "t5", "gemma3"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("passages")
    for name in TOKENIZERS:
        models.build(name, root / name)
    return {name: root / name for name in TOKENIZERS}


@pytest.fixture(scope="module")
def model(folders) -> SentenceTransformer:
    return SentenceTransformer(str(folders["bert"]), device="cpu")


def count(model, text: str, prompt: str = "") -> int:
    return len(model[0].batch_tokenizer(None)([prompt + text]).ids)


def words(limit: int) -> BatchTokenizer:
    """A tokenizer for which each word, and each mark, is one token."""
    tokenizer = Tokenizer(tokenizer_models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return BatchTokenizer(tokenizer, limit)


# ---- where passages end


@pytest.mark.parametrize(
    ("text", "overlap", "expected"),
    [
        ("a b c d", 0, ["a b c d"]),
        ("a b c d e f g h", 0, ["a b c d e f", "g h"]),
        ("a b c d. e f g h", 0, ["a b c d.", "e f g h"]),
        ("a b c. d. e f g h", 0, ["a b c. d.", "e f g h"]),
        ("a b c\nd e f g h", 0, ["a b c", "d e f g h"]),
        ("a b c.\nd e\nf g", 0, ["a b c.", "d e\nf g"]),  # a sentence before a line
        ("a b c\n \nd. e f g", 0, ["a b c", "d. e f g"]),  # a paragraph before a sentence
        ("a. b c d e f g", 0, ["a. b c d e", "f g"]),  # the first half is too early
        ('a "b c." d e f', 0, ['a "b c."', "d e f"]),
        ("a b。c d。e f g", 0, ["a b。c d。", "e f g"]),
        ("  a b c d e f  g  ", 0, ["a b c d e f", "g"]),
        ("a b c d e f g h", 2, ["a b c d e f", "e f g h"]),
        ("a b c. d e. f g h i", 3, ["a b c.", "b c. d e.", "d e. f g h", "f g h i"]),
        ("a.b.c.d.e.f", 0, ["a.b.c.", "d.e.f"]),  # marks inside a word end no sentence
    ],
)
def test_passages_end_at_the_strongest_place(text, overlap, expected):
    """Six tokens at most; paragraphs before sentences, before lines, before words, in the second half."""
    assert [passage.text for passage in split([text], words(6), overlap=overlap)] == expected


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("overlap", [0, 7])
@pytest.mark.parametrize("prompt", ["", "search for this: "])
def test_laws_of_splitting(folders, name, overlap, prompt):
    """Passages are pieces of their documents, short enough, in order, and nothing but white space is left out."""
    model = SentenceTransformer(str(folders[name]), device="cpu")
    passages = model.split_texts(DOCUMENTS, max_tokens=40, overlap=overlap, prompt=prompt)
    assert [passage.document for passage in passages] == sorted(passage.document for passage in passages)
    for number, document in enumerate(DOCUMENTS):
        own = [passage for passage in passages if passage.document == number]
        assert own
        assert all(passage.text == document[passage.start : passage.stop] for passage in own)
        assert all(count(model, passage.text, prompt) <= 40 for passage in own)
        assert [passage.start for passage in own] == sorted({passage.start for passage in own})
        assert not document[: own[0].start].strip()
        assert not document[own[-1].stop :].strip()
        for before, after in itertools.pairwise(own):
            assert before.stop < after.stop
            assert not document[before.stop : after.start].strip()
            if overlap == 0:
                assert before.stop <= after.start
        if count(model, document, prompt) <= 40:
            assert own == [Passage(document, number, 0, len(document))]
    shared = [b.stop - a.start for b, a in itertools.pairwise(passages) if b.document == a.document]
    assert (max(shared) > 0) == (overlap > 0)


def test_words_stay_whole(model):
    """A passage begins and ends with a word of its document."""
    for passage in model.split_texts(LONG, max_tokens=30):
        assert f" {' '.join(passage.text.split())} " in f" {' '.join(LONG.split())} "


def test_the_default_is_what_the_model_reads(model):
    passages = model.split_texts([LONG])
    assert max(count(model, passage.text) for passage in passages) <= MAX_LENGTH
    assert len(passages) < len(model.split_texts([LONG], max_tokens=MAX_LENGTH // 2))
    assert model.split_texts(LONG) == passages
    assert model.split_texts([]) == []


def test_a_model_without_a_limit_reads_whole_documents():
    static = StaticEmbedding(models.raw_tokenizer(), embedding_dim=8)
    model = SentenceTransformer(modules=[static], device="cpu")
    assert [passage.text for passage in model.split_texts(DOCUMENTS)] == DOCUMENTS
    small = model.split_texts([LONG], max_tokens=20)
    assert max(len(static.tokenizer.encode(passage.text, add_special_tokens=False)) for passage in small) <= 20


def test_tokenizers_without_rust_cut_between_words(folders):
    """A tokenizer that does not say where tokens stand is asked word by word."""
    import transformers

    slow = transformers.AutoTokenizer.from_pretrained(folders["bert"])

    class Slow:
        """Only what a slow tokenizer of transformers has."""

        def __call__(self, *args, **kwargs):
            return slow(*args, **kwargs)

        def tokenize(self, text):
            return slow.tokenize(text)

    passages = split([LONG], BatchTokenizer(Slow(), 40))
    assert " ".join(" ".join(passage.text for passage in passages).split()) == " ".join(LONG.split())
    assert max(len(slow(passage.text)["input_ids"]) for passage in passages) <= 40


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_tokens": MAX_LENGTH + 1}, f"max_tokens={MAX_LENGTH + 1} is more than this model reads"),
        ({"max_tokens": 2}, "max_tokens=2 leaves no room for text"),
        ({"max_tokens": 20, "prompt": "word " * 30}, "leaves no room for text"),
        ({"max_tokens": 22, "overlap": 11}, "overlap must be 0 to 10, half of a passage of 20 tokens; got 11"),
        ({"overlap": -1}, "overlap must be 0"),
        ({"max_tokens": 0}, "max_tokens must be an integer of at least 1"),
        ({"max_tokens": 2.5}, "max_tokens must be an integer of at least 1"),
        ({"prompt_name": "nobody"}, "nobody"),
    ],
)
def test_sizes_that_cannot_be_meant(model, arguments, message):
    for call in (model.split_texts, model.encode_passages):
        with pytest.raises(InputError, match=re.escape(message)):
            call([LONG], **arguments)


def test_inputs_that_are_no_texts(model):
    with pytest.raises(InputError, match="Input 1 is 3"):
        model.split_texts(["a", 3])
    bag = SentenceTransformer(modules=[BoW(["a", "b"])], device="cpu")
    with pytest.raises(InputError, match="BoW does not say how it cuts texts"):
        bag.split_texts(["a"])


# ---- their vectors


@pytest.fixture(scope="module")
def kinds(tmp_path_factory) -> dict[str, SentenceTransformer | SparseEncoder | MultiVectorEncoder]:
    root = tmp_path_factory.mktemp("kinds")
    models.build("bert", root / "dense")
    models.build("bert", root / "late")
    score_models.SPARSE["splade_settings"](root / "sparse")
    return {
        "dense": SentenceTransformer(str(root / "dense"), device="cpu", prompts={"document": "text: "}),
        "sparse": SparseEncoder(str(root / "sparse"), device="cpu"),
        "late": MultiVectorEncoder(str(root / "late"), device="cpu"),
    }


def rows_of(embeddings) -> list[np.ndarray]:
    dense = embeddings.to_dense() if isinstance(embeddings, torch.Tensor) else embeddings
    return [np.asarray(row) for row in dense]


@pytest.mark.parametrize("kind", ["dense", "sparse", "late"])
def test_passages_are_encoded_as_documents(kinds, kind):
    """The embeddings are those that `encode_document` gives for the passages' texts."""
    model = kinds[kind]
    passages, embeddings = model.encode_passages(DOCUMENTS[:4], max_tokens=30, overlap=5, batch_size=3)
    expected = model.encode_document([passage.text for passage in passages])
    assert len(embeddings) == len(passages) > 4
    for found, vector in zip(*map(rows_of, (embeddings, expected)), strict=True):
        np.testing.assert_allclose(found, vector, atol=1e-5)
    assert passages == model.split_texts(
        DOCUMENTS[:4], 30, 5, prompt_name="document" if kind == "dense" else None, task="document"
    )
    assert model.encode_passages([])[0] == []


# ---- late chunking


def poolings(mode: str, rows: np.ndarray) -> np.ndarray:
    weights = np.arange(1, len(rows) + 1)[:, None]
    return {
        "mean": rows.mean(0),
        "max": rows.max(0),
        "mean_sqrt_len_tokens": rows.sum(0) / np.sqrt(len(rows)),
        "weightedmean": (rows * weights).sum(0) / weights.sum(),
        "lasttoken": rows[-1],
    }[mode]


def expected_late(model: SentenceTransformer, document: str, passages: list[Passage], mode: str) -> np.ndarray:
    """Passages pooled from the token vectors of the whole document, special tokens with the first and the last."""
    rows = model.encode(document, output_value="token_embeddings").numpy()
    encoding = model.tokenizer(document, return_offsets_mapping=True, return_special_tokens_mask=True)
    places = encoding["offset_mapping"]
    special = [i for i, flag in enumerate(encoding["special_tokens_mask"]) if flag]
    vectors = []
    for passage in passages:
        own = [i for i, (a, b) in enumerate(places) if i not in special and a < passage.stop and b > passage.start]
        if passage is passages[0]:
            own = [i for i in special if i < own[0]] + own
        if passage is passages[-1]:
            own = own + [i for i in special if i > own[-1]]
        vectors.append(poolings(mode, rows[own]))
    return np.stack(vectors)


@pytest.mark.parametrize("mode", ["mean", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"])
@pytest.mark.parametrize("name", ["bert", "qwen3", "t5"])
def test_late_chunking_by_its_formula(folders, name, mode):
    """A document that the model reads at once: each passage is pooled from its own token vectors."""
    model = SentenceTransformer(
        modules=[Transformer(str(folders[name])), Pooling(HIDDEN, mode), Normalize()], device="cpu"
    )
    model.max_seq_length = 60
    document = " ".join(SENTENCES[:2])
    passages, vectors = model.encode_passages([document], max_tokens=14, overlap=3, late=True)
    expected = expected_late(model, document, passages, mode)
    assert len(passages) > 2
    np.testing.assert_allclose(vectors, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-5)
    apart = model.encode_document([passage.text for passage in passages])
    assert np.abs(apart - vectors).max() > 0.01  # the text around them counts


@pytest.mark.parametrize("include_prompt", [True, False])
@pytest.mark.parametrize("prompt", [None, "query: "])
def test_a_document_of_one_passage_has_the_vector_of_encode(folders, include_prompt, prompt):
    """Later modules, prompts, the empty text and every form of the result included."""
    dense = Dense(HIDDEN, 8)
    pooling = Pooling(HIDDEN, "mean", include_prompt=include_prompt)
    model = SentenceTransformer(modules=[Transformer(str(folders["bert"])), pooling, dense], device="cpu")
    texts = ["A short one.", "", "cat", "🙂 naïve façade"]
    for form in (
        {},
        {"convert_to_tensor": True},
        {"normalize_embeddings": True, "truncate_dim": 4},
        {"precision": "binary"},
    ):
        passages, vectors = model.encode_passages(texts, late=True, prompt=prompt, **form)
        expected = model.encode_document(texts, prompt=prompt, **form)
        assert [passage.text for passage in passages] == texts
        assert type(vectors) is type(expected)
        assert vectors.dtype == expected.dtype
        np.testing.assert_allclose(np.asarray(vectors), np.asarray(expected), atol=1e-5)
    assert len(model.encode_passages([], late=True)[1]) == 0


def test_windows_of_long_documents(model):
    """Every passage gets a vector whatever the length; the first window's are those of the formula, and later ones have
    seen what stands before them."""
    passages, vectors = model.encode_passages([LONG, "cat", LONG], max_tokens=20, late=True)
    assert vectors.shape == (len(passages), HIDDEN)
    assert np.isfinite(vectors).all()
    np.testing.assert_allclose(vectors[-len(passages) // 2 + 1 :], vectors[: len(passages) // 2], atol=1e-5)
    apart = model.encode_document([passage.text for passage in passages])
    changed = np.abs(apart - vectors).max(axis=1) > 1e-3
    own = np.array([passage.document for passage in passages]) != 1
    assert changed[own].all()
    assert not changed[~own].any()


def test_late_chunking_is_the_same_alone_and_together(model):
    documents = [LONG, *SENTENCES, LONG[200:900]]
    passages, together = model.encode_passages(documents, max_tokens=16, late=True)
    alone = [model.encode_passages([document], max_tokens=16, late=True)[1] for document in documents]
    np.testing.assert_allclose(together, np.concatenate(alone), atol=1e-5)
    assert len(passages) == len(together)


def test_models_that_cannot_chunk_late(folders, kinds):
    first = SentenceTransformer(modules=[Transformer(str(folders["bert"])), Pooling(HIDDEN, "cls")], device="cpu")
    with pytest.raises(InputError, match="this model pools by cls"):
        first.encode_passages([LONG], late=True)
    static = SentenceTransformer(modules=[StaticEmbedding(models.raw_tokenizer(), embedding_dim=8)], device="cpu")
    with pytest.raises(InputError, match="this model has no Pooling of its own"):
        static.encode_passages([LONG], late=True)
    with pytest.raises(InputError, match="this is a MultiVectorEncoder"):
        kinds["late"].encode_passages([LONG], late=True)
    with pytest.raises(InputError, match="leave output_value out"):
        kinds["dense"].encode_passages([LONG], late=True, output_value="token_embeddings")


def test_lookup_of_passages(model):
    """What a search finds among passages leads back to the document."""
    from sentence_transformers.util import semantic_search

    passages, vectors = model.encode_passages([LONG, "cat"], max_tokens=16)
    wanted = passages[3]
    hit = semantic_search(model.encode(wanted.text), torch.from_numpy(vectors), top_k=1)[0][0]
    assert passages[hit["corpus_id"]].text == wanted.text
    assert not hasattr(CrossEncoder, "encode_passages")
