"""Long texts are cut before they are tokenised: the first tokens of a text from its first characters.

A text of a megabyte, of which a model takes 256 tokens, costs what its first pages cost. A text is cut at a space
between two ASCII letters or digits, "…a b…", and its first part must give more tokens than are kept. That is done where
it can be proved that the tokens stay the same: nothing that a tokenizer does reaches over such a space (`is_local`), if

    added tokens     hold no white space
    normalizer       maps characters by themselves, or together with their neighbours that are not ASCII
    pre-tokenizer    ends a piece before the space, as white-space splitters and the patterns of GPT-2 and later do;
                     or there is none that splits, and no token of the vocabulary has the space behind another character
    model            has no dropout

and texts are cut at their end, not at their beginning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

CHARACTERS_PER_TOKEN = 12  # of a first part, which is made longer until it has enough tokens
LEAST = 2048  # characters of a first part
GROWTH = 4
TRIES = 64  # spaces looked at for one between letters
SPACE = "▁"
SPACE_MARKED = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
LOCAL_NORMALIZERS = {
    "BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "Precompiled", "Prepend", "Strip",
    "StripAccents",
}  # fmt: skip
SPLITTERS = {"BertPreTokenizer", "Whitespace", "WhitespaceSplit"}
NEUTRAL = {"Digits", "Punctuation"}
CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
OTHERS = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PATTERNS = {  # each match with a letter or digit in it ends before the next space
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|" + OTHERS,
    CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|" + OTHERS,
    CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}|" + OTHERS.replace(r"^\s\p{L}\p{N}", r"^\s\p{L}\p{M}\p{N}"),
}
Settings = dict[str, Any]


def encode_prefixes(
    texts: Sequence[str], width: int, encode: Callable[[list[str]], list[Any]], is_full: Callable[[Any], bool]
) -> list[Any]:
    """Encodings of texts, long ones of their first parts.

    Args:
        width: characters of a first part, at most; shorter texts stay whole.
        encode: texts -> encodings, by a tokenizer that `is_local`.
        is_full: whether an encoding has more tokens than are kept; if not, a longer part is taken.
    """
    parts = [shorten(text, width) for text in texts]
    encodings = encode(parts)
    rest = list(range(len(texts)))
    while rest := [i for i in rest if len(parts[i]) < len(texts[i]) and not is_full(encodings[i])]:
        for i in rest:
            parts[i] = shorten(texts[i], GROWTH * len(parts[i]))
        for i, encoding in zip(rest, encode([parts[i] for i in rest]), strict=True):
            encodings[i] = encoding
    return encodings


def shorten(text: str, width: int) -> str:
    """The first `width` characters or fewer, up to a space between two letters or digits; the text itself if it is
    not longer, or has no such space at the end of them.
    """
    if len(text) <= width:
        return text
    end = width
    for _ in range(TRIES):
        end = text.rfind(" ", width // 2, end)
        if end < 0:
            break
        around = text[end - 1] + text[end + 1]
        if around.isascii() and around.isalnum():
            return text[:end]
    return text


def longest_whole(max_tokens: int | None) -> int | None:
    """Characters up to which a text is tokenised whole; None where all texts are."""
    return None if max_tokens is None else max(LEAST, max_tokens * CHARACTERS_PER_TOKEN)


def is_local(settings: Settings) -> bool:
    """Whether the tokens before a space between two letters do not depend on what follows it."""
    if any(any(map(str.isspace, token["content"])) for token in settings.get("added_tokens", ())):
        return False
    if settings["model"].get("dropout"):
        return False
    normalizers = steps_of(settings.get("normalizer"), "normalizers")
    splitters = steps_of(settings.get("pre_tokenizer"), "pretokenizers")
    marked = [step for step in normalizers if step == SPACE_MARKED]
    if not all(step["type"] in LOCAL_NORMALIZERS or is_local_replacement(step) for step in normalizers):
        return False
    splits = False
    for step in splitters:
        if step["type"] == "Metaspace":
            splits = splits or step.get("split") is not False
            marked.append(step)
        elif step["type"] == "ByteLevel":
            splits = splits or (step.get("use_regex") is not False and not marked)
        elif step["type"] in SPLITTERS or (step["type"] == "Split" and is_known_pattern(step)):
            splits = splits or not marked
        elif step["type"] not in NEUTRAL and not (marked and step.get("pattern") == {"String": " "}):
            return False
    return splits or not reaches_over_space(settings["model"])


def steps_of(part: Settings | None, name: str) -> list[Settings]:
    """The steps of a part of a tokenizer, sequences of sequences taken apart."""
    if part is None:
        return []
    if part["type"] != "Sequence":
        return [part]
    return [step for inner in part[name] for step in steps_of(inner, name)]


def is_local_replacement(step: Settings) -> bool:
    """Whether a normalizer replaces single spaces, runs of spaces, or texts without white space."""
    if step["type"] != "Replace":
        return False
    if step == SPACE_MARKED or step["pattern"] == {"Regex": " {2,}"}:
        return True
    pattern = step["pattern"].get("String", " ")
    return not any(map(str.isspace, pattern))


def is_known_pattern(step: Settings) -> bool:
    return step["behavior"] == "Isolated" and not step["invert"] and step["pattern"].get("Regex") in PATTERNS


def reaches_over_space(model: Settings) -> bool:
    """Whether a word with a space in it may be a token, or the end of a text may count as the end of a word."""
    vocabulary = model.get("vocab") or {}
    words = vocabulary if isinstance(vocabulary, dict) else [word for word, _ in vocabulary]
    if model["type"] not in ("BPE", "Unigram") or SPACE not in words or model.get("end_of_word_suffix"):
        return True
    return marks_within(words) or any(" " in word or "Ġ" in word for word in words)


def marks_within(words: Iterable[str]) -> bool:
    """Whether a token has the mark of a space behind another character."""
    return any(SPACE in word.lstrip(SPACE) for word in words)
