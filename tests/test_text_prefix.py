"""Long texts are cut before they are tokenised: the tokens are those of the whole text, whatever the tokenizer."""

from __future__ import annotations

import json
import random
from collections.abc import Callable

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from sentence_transformers.engine import tokenization
from sentence_transformers.engine.text_prefix import PATTERNS, encode_prefixes, is_local, shorten
from sentence_transformers.engine.tokenization import BatchTokenizer

WORDS = """a cat's 1234 tea-pot naïve ﬁne Ångström 東京 don't x\u0301y state/of (art) 3.14 🙂 re-re İstanbul
    zero\u200bwidth""".split()  # noqa: SIM905  # as one reads it
SPACES = (" ", "  ", "\n", " \t ", "\u00a0", "\u3000", "\r\n\r\n", "▁")
LIMIT = 40


def text(seed: int, words: int) -> str:
    choose = random.Random(seed)
    return "".join(choose.choice(WORDS) + choose.choice((" ",) * 12 + SPACES) for _ in range(words))


CORPUS = [text(seed, 200) for seed in range(1000, 1010)]
Part = Callable[[], object]


def train(model: str, normalizer: object = None, pre_tokenizer: object = None, **settings: object) -> Tokenizer:
    """A tokenizer of 400 tokens, trained on texts of the kind that it will see."""
    kinds = {
        "WordPiece": (models.WordPiece(unk_token="[UNK]"), trainers.WordPieceTrainer),
        "BPE": (models.BPE(unk_token="[UNK]", **settings), trainers.BpeTrainer),
        "Unigram": (models.Unigram(), trainers.UnigramTrainer),
        "WordLevel": (models.WordLevel(unk_token="[UNK]"), trainers.WordLevelTrainer),
    }
    kind, trainer = kinds[model]
    made = Tokenizer(kind)
    if normalizer is not None:
        made.normalizer = normalizer
    if pre_tokenizer is not None:
        made.pre_tokenizer = pre_tokenizer
    unknown = {"unk_token": "[UNK]"} if model == "Unigram" else {}
    made.train_from_iterator(
        CORPUS, trainer(vocab_size=400, special_tokens=["[UNK]", "[CLS]"], show_progress=False, **unknown)
    )
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A", pair="[CLS] $A $B:1", special_tokens=[("[CLS]", made.token_to_id("[CLS]"))]
    )
    return made


def byte_level(**settings: bool) -> object:
    return pre_tokenizers.ByteLevel(**{"add_prefix_space": False, **settings})


def pattern(number: int) -> object:
    split = pre_tokenizers.Split(Regex(sorted(PATTERNS)[number]), "isolated")
    return pre_tokenizers.Sequence([split, byte_level(use_regex=False)])


def by_words(made: Tokenizer) -> Tokenizer:
    """Without tokens that reach over a space."""
    state = json.loads(made.to_str())
    model = state["model"]
    kept = {word for word in dict(model["vocab"]) if "▁" not in word.lstrip("▁")}
    if model["type"] == "Unigram":
        model["vocab"] = [entry for entry in model["vocab"] if entry[0] in kept]
        return Tokenizer.from_str(json.dumps(state))
    model["merges"] = [pair for pair in model["merges"] if "".join(pair) in kept]
    model["vocab"] = {word: i for i, word in enumerate(sorted(kept, key=model["vocab"].__getitem__))}
    return Tokenizer.from_str(json.dumps(state))


MARKED = (normalizers.Prepend("▁"), normalizers.Replace(" ", "▁"))
TOKENIZERS: dict[str, tuple[Callable[[], Tokenizer], bool]] = {  # name -> how it is made, whether texts are cut
    "BERT": (lambda: train("WordPiece", normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()), True),
    "GPT-2": (lambda: train("BPE", None, byte_level()), True),
    "RoBERTa": (lambda: train("BPE", None, byte_level(add_prefix_space=True)), True),
    **{f"pattern {i}": ((lambda i=i: train("BPE", normalizers.NFC(), pattern(i))), True) for i in range(len(PATTERNS))},
    "T5": (lambda: train("Unigram", normalizers.Replace(Regex(" {2,}"), " "), pre_tokenizers.Metaspace()), True),
    "XLM-R": (
        lambda: train(
            "Unigram",
            normalizers.NFKC(),
            pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]),
        ),
        True,
    ),
    "Llama": (lambda: by_words(train("BPE", normalizers.Sequence(list(MARKED)))), True),
    "Gemma": (lambda: by_words(train("BPE", MARKED[1], pre_tokenizers.Split(" ", "merged_with_previous"))), True),
    "Unigram, words": (lambda: by_words(train("Unigram", None, pre_tokenizers.Metaspace(split=False))), True),
    "words": (lambda: train("WordLevel", normalizers.Lowercase(), pre_tokenizers.Whitespace()), True),
    "BPE over spaces": (lambda: train("BPE", normalizers.Sequence(list(MARKED))), False),
    "bytes over spaces": (lambda: train("BPE", None, byte_level(use_regex=False)), False),
    "Unigram over spaces": (lambda: train("Unigram", None, pre_tokenizers.Metaspace(split=False)), False),
    "another pattern": (lambda: train("BPE", None, pre_tokenizers.Split(Regex(r"\w+ \w+"), "isolated")), False),
    "another replacement": (lambda: train("BPE", normalizers.Replace(Regex(r"t\s+t"), "x"), byte_level()), False),
    "end of word": (
        lambda: train("BPE", None, pre_tokenizers.Metaspace(split=False), end_of_word_suffix="</w>"),
        False,
    ),
    "dropout": (lambda: train("BPE", None, byte_level(), dropout=0.1), False),
}


@pytest.fixture(params=TOKENIZERS, scope="module")
def tokenizer(request):
    make, is_cut = TOKENIZERS[request.param]
    made = make()
    assert is_local(json.loads(made.to_str())) is is_cut
    return made, is_cut


def whole(tokenizer: Tokenizer, *texts: str) -> tuple[list[int], list[int]]:
    """The tokens of a text or pair, computed from all of it."""
    made = Tokenizer.from_str(tokenizer.to_str())
    made.enable_truncation(LIMIT)
    encoding = made.encode(*texts)
    return encoding.ids, encoding.type_ids


def test_tokens_are_those_of_the_whole_text(tokenizer):
    made, _ = tokenizer
    if getattr(made.model, "dropout", None):
        return
    texts = [text(seed, words) for seed in range(4) for words in (3, 300, 700, 3000)]
    texts += ["x" * 9000, "ab " * 4000, "a" + " " * 6000 + "b", " " * 3000 + text(1, 900), "東京" * 3000]
    tokens = BatchTokenizer(made, LIMIT)(texts)
    for i, one in enumerate(texts):
        assert tokens.ids[tokens.offsets[i] : tokens.offsets[i + 1]].tolist() == whole(made, one)[0]
    assert tokens.cut == sum(len(made.encode(one).ids) > LIMIT for one in texts)


def test_pairs_are_those_of_the_whole_texts(tokenizer):
    made, _ = tokenizer
    if getattr(made.model, "dropout", None):
        return
    sizes = (3, 15, 60, 500)
    pairs = [(text(i, a), text(100 + i, b)) for i, (a, b) in enumerate((a, b) for a in sizes for b in sizes)]
    tokens = BatchTokenizer(made, LIMIT, with_types=True)(pairs)
    assert tokens.type_ids is not None
    for i, pair in enumerate(pairs):
        row = slice(tokens.offsets[i], tokens.offsets[i + 1])
        assert (tokens.ids[row].tolist(), tokens.type_ids[row].tolist()) == whole(made, *pair)


def test_a_first_part_has_the_first_tokens(tokenizer):
    """Cut at any of its spaces between letters, not only where the limit lies."""
    made, is_cut = tokenizer
    if not is_cut:
        return
    parts = 0
    for seed in range(20):
        one = text(seed, 120)
        expected = made.encode(one, add_special_tokens=False).ids
        for width in range(20, len(one), 61):
            part = shorten(one, width)
            assert part == one[: len(part)] and (part == one or len(part) <= width)
            found = made.encode(part, add_special_tokens=False).ids
            assert found == expected[: len(found)]
            parts += len(part) < len(one)
    assert parts > 100


def test_added_tokens_with_white_space_are_found():
    made = train("BPE", None, byte_level())
    made.add_tokens([AddedToken("tea pot")])
    assert not is_local(json.loads(made.to_str()))
    one = "tea pot " * 2000
    ids = BatchTokenizer(made, LIMIT)([one]).ids.tolist()
    assert ids == whole(made, one)[0] and ids.count(made.token_to_id("tea pot")) == 20


def test_texts_cut_at_their_beginning_stay_whole():
    made = train("BPE", None, byte_level())
    made.enable_truncation(LIMIT, direction="left")
    one = text(3, 3000)
    assert BatchTokenizer(made, LIMIT)([one]).ids.tolist() == made.encode(one).ids


def test_of_a_long_text_little_is_tokenised(monkeypatch):
    made = train("WordPiece", normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer())
    tokenizer = BatchTokenizer(made, LIMIT)
    seen: list[int] = []

    def spy(texts, width, encode, is_full):
        return encode_prefixes(texts, width, lambda parts: seen.extend(map(len, parts)) or encode(parts), is_full)

    monkeypatch.setattr(tokenization, "encode_prefixes", spy)
    tokenizer([text(0, 200_000)])
    assert len(seen) == 1 and seen[0] <= 2048


@pytest.mark.parametrize("direction", ["right", "left"])
@pytest.mark.parametrize("limit", [40, 41])
def test_of_a_pair_of_long_texts_few_parts_are_made(limit, direction):
    """Each part that was cut off one text would be put beside each of the other: 300² of them here."""
    made = train("BPE", None, byte_level())
    made.enable_truncation(limit, direction=direction)
    for pair in ((text(1, 500), text(2, 700)), (text(1, 700), text(2, 500)), (text(1, 500), text(1, 500))):
        expected = made.encode(*pair)
        tokenizer = BatchTokenizer(made, limit, with_types=True)
        (found,) = tokenizer._pairs([pair])
        assert (found.ids, found.type_ids) == (expected.ids, expected.type_ids)
        assert 0 < len(found.overflowing) < 20
