"""Texts cut into tokens, nothing padded: one flat array of ids and where each text begins.

`BatchTokenizer` owns a private copy of the Rust tokenizer. Padding and truncation are set on that copy once, so any
number of threads may use it at the same time (the shared one of `transformers` changes its settings at every call and
then fails with "Already borrowed"), and no per-token Python objects are made beyond the id lists.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from sentence_transformers.engine.text_prefix import encode_prefixes, is_local, longest_whole
from sentence_transformers.engine.word_cache import WordTable
from sentence_transformers.errors import ModelFormatError

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer
    from tokenizers.normalizers import Normalizer
    from tokenizers.pre_tokenizers import PreTokenizer
    from tokenizers.processors import PostProcessor

    from sentence_transformers.protocols import AnyTokenizer

logger = logging.getLogger(__name__)
SURROGATE = re.compile("[\ud800-\udfff]")
CHARACTER = re.compile("[\ud800-\udbff][\udc00-\udfff]|.", re.DOTALL)


@dataclass(frozen=True)
class Tokens:
    """B texts as one run of T tokens.

    Attributes:
        ids: (T,) int64.
        offsets: (B + 1,) int64; text i is ids[offsets[i]:offsets[i + 1]].
        type_ids: (T,) int64 segment of each token, or None where the model has no segments.
        prompt_length: number of leading tokens of every text that belong to the prompt.
        cut: how many texts were longer than the model takes.
        attention_lengths: (B,) int64, how many leading tokens of each text attention may look at; None for all.
    """

    ids: np.ndarray
    offsets: np.ndarray
    type_ids: np.ndarray | None = None
    prompt_length: int = 0
    cut: int = 0
    attention_lengths: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)

    @classmethod
    def from_lists(cls, ids: Sequence[Sequence[int]], type_ids: Sequence[Sequence[int]] | None = None, **kw) -> Tokens:
        lengths = np.fromiter(map(len, ids), np.int64, len(ids))
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        return cls(_flat(ids, offsets[-1]), offsets, None if type_ids is None else _flat(type_ids, offsets[-1]), **kw)

    @classmethod
    def join(cls, parts: Sequence[Tokens]) -> Tokens:
        """The texts of all parts, one after the other; of one prompt."""
        ids = np.concatenate([part.ids for part in parts])
        offsets = np.concatenate([[0], np.cumsum(np.concatenate([part.lengths for part in parts]))])
        types = None
        if any(part.type_ids is not None for part in parts):
            types = np.concatenate([np.zeros_like(p.ids) if p.type_ids is None else p.type_ids for p in parts])
        return cls(ids, offsets, types, parts[0].prompt_length, sum(part.cut for part in parts))

    def take(self, rows: np.ndarray) -> Tokens:
        """The given texts, in the given order."""
        starts, lengths = self.offsets[rows], self.lengths[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        index = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
        type_ids = None if self.type_ids is None else self.type_ids[index]
        attended = None if self.attention_lengths is None else self.attention_lengths[rows]
        return Tokens(self.ids[index], offsets, type_ids, self.prompt_length, attention_lengths=attended)

    def fill(self, length: int, token: int, attend: bool) -> Tokens:
        """Texts shorter than `length` with further tokens behind them, as ColBERT expands its queries.

        Args:
            token: id of the tokens that are added.
            attend: whether the other tokens look at them.
        """
        lengths = self.lengths
        filled = np.maximum(lengths, length)
        offsets = np.concatenate([[0], np.cumsum(filled)])
        places = np.arange(offsets[-1]) - np.repeat(offsets[:-1], filled)
        own = places < np.repeat(lengths, filled)

        def laid(values: np.ndarray, rest: int) -> np.ndarray:
            out = np.full(len(own), rest, values.dtype)
            out[own] = values
            return out

        types = None if self.type_ids is None else laid(self.type_ids, 0)
        attended = None if attend else lengths
        return Tokens(laid(self.ids, token), offsets, types, self.prompt_length, self.cut, attended)


def _flat(lists: Sequence[Sequence[int]], total: int) -> np.ndarray:
    return np.fromiter(chain.from_iterable(lists), np.int64, int(total))


def spans_of(encoding: Encoding, text: str) -> np.ndarray:
    """(n, 2) int64: the characters of each token of a text, before it was repaired; -1 for special tokens."""
    spans = np.array(encoding.offsets, np.int64).reshape(-1, 2)
    special = np.array(encoding.special_tokens_mask, bool)
    if SURROGATE.search(text):
        places = np.array([character.start() for character in CHARACTER.finditer(text)] + [len(text)])
        spans = places[spans]
    spans[~special] = np.maximum.accumulate(spans[~special], axis=0)
    spans[special] = -1
    return spans


def repair(text: str) -> str:
    """Replace lone surrogates, which no UTF-8 tokenizer takes, by U+FFFD; join surrogate pairs."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


FEW_ADDED = 256  # added tokens whose every flag is compared; of more, the texts
MODEL_SETTINGS = (
    "unk_token",
    "unk_id",
    "dropout",
    "continuing_subword_prefix",
    "end_of_word_suffix",
    "max_input_chars_per_word",
    "fuse_unk",
    "byte_fallback",
    "ignore_merges",
)


def splits_special_tokens(tokenizer: AnyTokenizer, rust: Tokenizer) -> bool:
    """Whether the names of special tokens are cut up where they occur in a text."""
    return bool(getattr(tokenizer, "split_special_tokens", False) or rust.encode_special_tokens)


def settings_of(tokenizer: AnyTokenizer) -> tuple[Any, ...]:
    """All that decides how a tokenizer cuts texts, but for the words of its vocabulary: their number stands for them.

    Two calls give equal values unless the tokenizer was changed in between. Takes about ten microseconds.
    """
    from tokenizers import Tokenizer

    rust = tokenizer if isinstance(tokenizer, Tokenizer) else getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(rust, Tokenizer):
        return ()  # a slow tokenizer is asked itself, at every call
    steps = (rust.normalizer, rust.pre_tokenizer, rust.post_processor)
    model, added = rust.model, rust.get_added_tokens_decoder()
    return (
        *(None if step is None else step_state(step) for step in steps),
        type(model),
        *(getattr(model, name, None) for name in MODEL_SETTINGS),
        rust.get_vocab_size(with_added_tokens=False),
        str(added) if len(added) <= FEW_ADDED else [token.content for token in added.values()],
        splits_special_tokens(tokenizer, rust),
        truncation_side(tokenizer, rust),
    )


def truncation_side(tokenizer: AnyTokenizer, rust: Tokenizer) -> str:
    """Where texts are cut: by the transformers tokenizer, or else by the settings of a `tokenizers.Tokenizer`."""
    side = getattr(tokenizer, "truncation_side", None)
    return side if side is not None else (rust.truncation or {}).get("direction", "right")


def check_rows(tokenizer: Tokenizer, rows: int, where: str) -> None:
    """Raise `ModelFormatError` if a `tokenizers.Tokenizer` has more tokens than the table of the weights has rows."""
    words = tokenizer.get_vocab_size(with_added_tokens=False)
    if words > rows:
        raise ModelFormatError(
            f"{where} has {words} tokens, but the weights have rows for {rows}: they are not of the same model."
        )


def check_template(rust: Tokenizer | None, where: str) -> None:
    """Raise `ModelFormatError` if the post-processor of a `tokenizers.Tokenizer` names tokens that it does not define:
    the library panics at the first text then.
    """
    step = getattr(rust, "post_processor", None)
    if step is None or type(step).__name__ != "TemplateProcessing":
        return
    state = json.loads(step.__getstate__())
    used = {
        piece["SpecialToken"]["id"] for side in ("single", "pair") for piece in state[side] if "SpecialToken" in piece
    }
    if lost := sorted(used - state["special_tokens"].keys()):
        raise ModelFormatError(f"{where}: the post_processor's special_tokens lack {lost}, which its template names.")


def check_ids(ids: np.ndarray, rows: int, where: str) -> None:
    """Raise `ModelFormatError` if token ids are beyond the table of the weights."""
    if len(ids) and (highest := int(ids.max())) >= rows:
        raise ModelFormatError(
            f"The tokenizer of {where} gives the token id {highest}, but the weights have rows for {rows} tokens: "
            "they are not of the same model, or tokens were added without model.transformers_model."
            "resize_token_embeddings(len(model.tokenizer))."
        )


def step_state(step: Normalizer | PreTokenizer | PostProcessor) -> bytes:
    """One step of a tokenizer in bytes; of one written in Python, which has no such form, its identity."""
    try:
        return step.__getstate__()
    except Exception:
        return repr(step).encode()


class BatchTokenizer:
    """Cuts lists of texts into `Tokens`, from any number of threads.

    Args:
        tokenizer: a `tokenizers.Tokenizer`, which is copied, or a slow transformers tokenizer.
        max_length: tokens kept per text, special tokens included; None keeps all.
        special_tokens: whether the model's special tokens are added.
        with_types: whether segment ids are wanted; those of single texts are left out where they are all 0.
    """

    def __init__(
        self, tokenizer: AnyTokenizer, max_length: int | None, special_tokens: bool = True, with_types: bool = False
    ) -> None:
        from tokenizers import Tokenizer

        rust = tokenizer if isinstance(tokenizer, Tokenizer) else getattr(tokenizer, "backend_tokenizer", None)
        self.max_length, self.special_tokens, self.with_types = max_length, special_tokens, with_types
        self.rust: Any = None
        self.slow: Any = tokenizer
        if isinstance(rust, Tokenizer):
            self.rust = Tokenizer.from_str(rust.to_str())
            self.rust.no_padding()
            self.rust.no_truncation()
            self.parts = Tokenizer.from_str(self.rust.to_str())  # cuts one text of a pair, whole
            for own in (self.rust, self.parts):  # a setting that the file does not hold
                own.encode_special_tokens = splits_special_tokens(tokenizer, rust)
            if max_length is not None:
                self.rust.enable_truncation(max_length, direction=truncation_side(tokenizer, rust))
        self.at_end = self.rust is not None and (max_length is None or truncation_side(tokenizer, self.rust) == "right")
        plain = self.at_end and not special_tokens
        self._longest = longest_whole(max_length) if self.at_end else None
        self.words = WordTable.of(self.parts) if plain else None
        self.single_types = with_types and (self.rust is None or any(self.rust.encode("a").type_ids))

    def __call__(self, texts: Sequence[Any], prompt_length: int = 0) -> Tokens:
        """Cut texts and (text, text) pairs into tokens."""
        single = np.fromiter((isinstance(text, str) for text in texts), bool, len(texts))
        if single.any() and not single.all():
            places = np.flatnonzero(single), np.flatnonzero(~single)
            kinds = [self([texts[place] for place in part.tolist()], prompt_length) for part in places]
            joined = Tokens.join(kinds)
            return replace(joined.take(np.argsort(np.concatenate(places))), cut=joined.cut)
        if self.rust is None:
            return self._slow(texts, prompt_length)
        try:
            return self._fast(texts, prompt_length)
        except (TypeError, UnicodeEncodeError):
            repaired = [repair(t) if isinstance(t, str) else tuple(map(repair, t)) for t in texts]
            return self._fast(repaired, prompt_length)

    def spans(self, texts: Sequence[str], special_tokens: bool = False) -> list[np.ndarray]:
        """Where the tokens of each text stand in it.

        Args:
            special_tokens: the tokens that a call gives, its limit and the special ones included, which stand at -1. By
                default those of the whole text alone.

        Returns:
            For each text (n, 2) int64: a token's first character and the one behind its last; rising. Tokenizers
            without a Rust backend do not know: each token stands where its word does.
        """
        if self.rust is None:
            return [self._word_spans(text) for text in texts]
        cutter = self.rust if special_tokens else self.parts
        whole = [repair(text) if SURROGATE.search(text) else text for text in texts]
        encodings = cutter.encode_batch(whole, add_special_tokens=special_tokens and self.special_tokens)
        return [spans_of(encoding, text) for encoding, text in zip(encodings, texts, strict=True)]

    def _word_spans(self, text: str) -> np.ndarray:
        words = [(*word.span(), len(self.slow.tokenize(word[0]))) for word in re.finditer(r"\S+", text)]
        spans = np.array(words, np.int64).reshape(-1, 3)
        return np.repeat(spans[:, :2], spans[:, 2], axis=0)

    def _fast(self, texts: Sequence[Any], prompt_length: int) -> Tokens:
        """Tokenizers with a Rust backend."""
        if self.words is not None and texts and isinstance(texts[0], str):
            flat, lengths = self.words(texts)
            most = len(flat) if self.max_length is None else self.max_length
            if cut := int((lengths > most).sum()):
                places = np.arange(len(flat)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
                flat, lengths = flat[places < most], np.minimum(lengths, most)
            return Tokens(flat, np.concatenate([[0], np.cumsum(lengths)]), None, prompt_length, cut=cut)
        pairs = bool(texts) and not isinstance(texts[0], str)
        if pairs and self.rust.post_processor is not None:
            encodings = self._pairs(texts)
        else:
            encodings = self._encode(texts)
        ids = [e.ids for e in encodings]
        cut = sum(1 for e, i in zip(encodings, ids, strict=True) if len(i) == self.max_length and e.overflowing)
        types = [e.type_ids for e in encodings] if self.single_types or (self.with_types and pairs) else None
        return Tokens.from_lists(ids, types, prompt_length=prompt_length, cut=cut)

    def _encode(self, texts: Sequence[Any]) -> list[Any]:
        """Texts, or pairs, as encodings that are cut already."""
        encode = partial(self.rust.encode_batch_fast, add_special_tokens=self.special_tokens)
        if (width := self._width_for(texts)) is None:
            return encode(texts)
        return encode_prefixes(texts, width, encode, lambda encoding: bool(encoding.overflowing))

    def _width_for(self, texts: Sequence[Any]) -> int | None:
        """Characters to which these texts are cut before they are tokenised; None where all stay whole."""
        if self._longest is None or not texts or not isinstance(texts[0], str):
            return None
        return self._longest if max(map(len, texts)) > self._longest and self._is_local else None

    @cached_property
    def _is_local(self) -> bool:
        """Whether a first part of a text has the first tokens of the whole."""
        return is_local(json.loads(self.parts.to_str()))

    def _pairs(self, pairs: Sequence[tuple[str, str]]) -> list[Any]:
        """Pairs as encodings; a text that is part of several is cut into tokens once."""
        texts = list(dict.fromkeys(chain.from_iterable(pairs)))
        encode = partial(self.parts.encode_batch_fast, add_special_tokens=False)
        if (width := self._width_for(texts)) is None:
            found = dict(zip(texts, encode(texts), strict=True))
        else:  # which of two long texts loses more tokens is known of whole texts only
            found = dict(zip(texts, encode_prefixes(texts, width, encode, self._is_long), strict=True))
            both = [pair for pair in pairs if all(self._is_long(found[text]) for text in pair)]
            long = list(dict.fromkeys(chain.from_iterable(both)))
            found |= dict(zip(long, encode(long), strict=True))
        return [self._join(found[first], found[second]) for first, second in pairs]

    def _join(self, first: Encoding, second: Encoding) -> Encoding:
        """Two texts as a pair, cut. What is cut off is made into encodings too, each part of one text with each of the
        other; so two long texts are cut before, but for what tells which is the longer.
        """
        if self._is_long(first) and self._is_long(second):
            lengths = len(first), len(second)
            first = self._clip(first, int(lengths[0] > lengths[1]))
            second = self._clip(second, int(lengths[1] > lengths[0]))
        return self.rust.post_process(first, second, self.special_tokens)

    def _clip(self, encoding: Encoding, further: int) -> Encoding:
        """A long text without what `max_length` + 1 + `further` tokens leave."""
        count = (self.max_length or 0) + 1 + further
        kept = slice(count) if self.at_end else slice(-count, None)
        state = json.loads(encoding.__getstate__())
        state |= {name: value[kept] for name, value in state.items() if isinstance(value, list)}
        clipped = type(encoding)()
        clipped.__setstate__(json.dumps(state | {"sequence_ranges": {}}).encode())
        return clipped

    def _is_long(self, encoding: Encoding) -> bool:
        return len(encoding) > (self.max_length or 0)

    def _slow(self, texts: Sequence[Any], prompt_length: int) -> Tokens:
        """Tokenizers without a Rust backend, one call per batch."""
        firsts, seconds = (texts, None) if not texts or isinstance(texts[0], str) else zip(*texts, strict=True)
        encoded = self.slow(
            list(firsts),
            None if seconds is None else list(seconds),
            add_special_tokens=self.special_tokens,
            truncation=self.max_length is not None,
            max_length=self.max_length,
            padding=False,
            return_attention_mask=False,
        )
        ids = encoded["input_ids"]
        types = encoded.get("token_type_ids") if self.with_types else None
        full = [i for i, row in enumerate(ids) if len(row) == self.max_length]
        whole = [self.slow(firsts[i], None if seconds is None else seconds[i]) for i in full]
        cut = sum(len(encoding["input_ids"]) > len(ids[i]) for i, encoding in zip(full, whole, strict=True))
        return Tokens.from_lists(ids, types, prompt_length=prompt_length, cut=cut)
