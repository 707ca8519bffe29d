"""Tokenising by looking words up: most words of a text have been seen before.

Where a tokenizer treats each space-separated word on its own, a text's tokens are its words' tokens, one after the
other. So each distinct word is tokenised once, and a text becomes a list of table look-ups; this is several times
faster than the Rust tokenizer on running text, which matters where tokenising is the work
(`modules.static_embedding`).

Two kinds of tokenizer are known to treat words alone, and `WordTable.of` checks for exactly these:

    BERT           splits at white space and punctuation; WordPiece sees one word at a time
    Llama, T5 …    BPE in which a space becomes "▁": no token of the vocabulary has "▁" after another character, so no
                   merge can reach over a space. Texts with doubled or outer spaces, or with a special token's name in
                   them, are taken as one long word.

Special tokens are not added.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sentence_transformers.engine.text_prefix import SPACE, SPACE_MARKED, marks_within

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MOST_WORDS = 1_000_000  # words kept
LONGEST_WORD = 40  # characters of a word that is kept


class WordTable:
    """Token ids of words, filled as words come up. Safe to use from several threads.

    Args:
        tokenizer: a `tokenizers.Tokenizer` without truncation and padding.
        split: text -> its words.
    """

    def __init__(self, tokenizer: Tokenizer, split: Callable[[str], list[str]]) -> None:
        self.tokenizer, self.split = tokenizer, split
        self._lock = threading.Lock()
        self._rows: dict[str, int] = {}
        self._ids = np.empty(0, np.int64)
        self._ends = np.empty(0, np.int64)

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> WordTable | None:
        """A table for a tokenizer that treats words alone; None for any other."""
        settings = json.loads(tokenizer.to_str())
        added = [token["content"] for token in settings.get("added_tokens", [])]
        if any(" " in name for name in added):
            return None
        if is_bert(settings):
            return cls(tokenizer, lambda text: text.split(" "))
        if is_spaced_bpe(settings):
            return cls(tokenizer, spaced_split(added))
        return None

    def __call__(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Tokens of texts.

        Returns:
            ids: (T,) int64, text after text; lengths: (B,) int64.
        """
        split = [self.split(text) for text in texts]
        words = [word for part in split for word in part]
        rows, ids, ends = self._look_up(words)
        starts = np.concatenate([[0], ends[:-1]])[rows] if len(rows) else rows
        sizes = ends[rows] - starts
        offsets = np.cumsum(sizes) - sizes
        flat = ids[np.arange(sizes.sum()) + np.repeat(starts - offsets, sizes)]
        totals = np.concatenate([[0], np.cumsum(sizes)])
        stops = np.cumsum(np.fromiter(map(len, split), np.int64, len(split)))
        return flat, np.diff(totals[np.concatenate([[0], stops])])

    def _look_up(self, words: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Row of each word in a table (all ids, end of each row); words that are new are tokenised."""
        with self._lock:
            known, ids, ends = self._rows, self._ids, self._ends
            new = list(dict.fromkeys(word for word in words if word not in known))
            local: dict[str, int] = {}
            if new:
                encodings = self.tokenizer.encode_batch_fast(new, add_special_tokens=False)
                fresh = [encoding.ids for encoding in encodings]
                order = sorted(range(len(new)), key=lambda i: len(new[i]) > LONGEST_WORD)  # kept words first
                sizes = [len(fresh[i]) for i in order]
                base = int(ends[-1]) if len(ends) else 0
                local = {new[i]: len(ends) + place for place, i in enumerate(order)}
                ids = np.concatenate([ids, *(np.asarray(fresh[i], np.int64) for i in order)])
                kept = sum(len(word) <= LONGEST_WORD for word in new)
                room = len(self._rows) + kept <= MOST_WORDS
                first_new = len(ends)
                ends = np.concatenate([ends, base + np.cumsum(sizes, dtype=np.int64)])
                if room and kept:
                    self._ends = ends[: first_new + kept]
                    self._ids = ids[: self._ends[-1]]
                    known.update((new[i], local[new[i]]) for i in order[:kept])
            found = (known[word] if word in known else local[word] for word in words)
            return np.fromiter(found, np.int64, len(words)), ids, ends


def is_bert(settings: dict[str, Any]) -> bool:
    """BERT's normaliser and splitter, with WordPiece."""
    kinds = [(settings.get(part) or {}).get("type") for part in ("normalizer", "pre_tokenizer", "model")]
    return kinds == ["BertNormalizer", "BertPreTokenizer", "WordPiece"]


def is_spaced_bpe(settings: dict[str, Any]) -> bool:
    """BPE over a text in which every space became "▁", with no token that has "▁" after another character."""
    normalizer, model = settings.get("normalizer") or {}, settings["model"]
    steps = normalizer.get("normalizers", []) if normalizer.get("type") == "Sequence" else []
    prepend = {"type": "Prepend", "prepend": SPACE}
    return (
        steps == [prepend, SPACE_MARKED]
        and settings.get("pre_tokenizer") is None
        and model.get("type") == "BPE"
        and not model.get("dropout")
        and SPACE in model["vocab"]
        and not marks_within(model["vocab"])
    )


def spaced_split(added: list[str]) -> Callable[[str], list[str]]:
    """Split at single spaces; a text with doubled or outer spaces or an added token stays whole."""
    whole = re.compile("|".join(["^ ", " $", "  ", *map(re.escape, added)]))
    return lambda text: [text] if whole.search(text) else text.split(" ")
