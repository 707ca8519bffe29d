"""Long documents as passages, pieces that a model reads whole.

    document -> tokens and where they stand -> places where a passage may end, by strength -> passages

A passage ends at the strongest place in the second half of what a model reads: between paragraphs, else sentences, else
lines, else words; inside a word only where a word is longer than that. With `overlap` a passage begins again up to that
many tokens before the end of the one before, at the strongest place there. White space around a passage is left out;
nothing else is: without overlap, passages and the white space between them are the document.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sentence_transformers.engine.batching import windows
from sentence_transformers.engine.tokenization import BatchTokenizer
from sentence_transformers.errors import InputError

CHARACTERS = 500_000  # of documents tokenised together: places take a hundred bytes a token meanwhile
INSIDE, ANYWHERE, SPACE = -1, 0, 1
PLACES = (  # by strength, from SPACE; a passage may begin where a match ends
    re.compile(r"\s+"),
    re.compile(r"\n\s*"),
    re.compile(r"(?<=[.!?…])[\"'”’»)\]]*\s+|(?<=[。！？．])[」』”’）]*\s*"),
    re.compile(r"\n[^\S\n]*\n\s*"),
)


@dataclass(frozen=True)
class Passage:
    """A piece of a longer document.

    Attributes:
        text: the piece, `document[start:stop]`.
        document: place of its document among those that were given.
        start, stop: its first character in the document, and the one behind its last.
    """

    text: str
    document: int
    start: int
    stop: int


def split(
    documents: Sequence[str],
    reader: BatchTokenizer,
    max_tokens: int | None = None,
    overlap: int = 0,
    prompt: str | None = None,
    others: int | None = None,
) -> list[Passage]:
    """Passages of all documents, one after the other; a document that is short enough, or empty, is one.

    Args:
        reader: the tokenizer of the model that reads them.
        max_tokens: most tokens of a passage, special tokens and prompt included; default: what the model reads.
        overlap: most tokens that a passage shares with the one before.
        prompt: what the model puts before each.
        others: tokens that the model puts around each text; default: special tokens and those of the prompt.

    Raises:
        InputError: for sizes that leave no room for text.
    """
    room = room_for_text(reader, max_tokens, overlap, prompt, others)
    if room is None:
        return [Passage(text, document, 0, len(text)) for document, text in enumerate(documents)]
    found = []
    for first, last in windows(documents, CHARACTERS):
        part = documents[first:last]
        for document, (text, spans) in enumerate(zip(part, reader.spans(part), strict=True), first):
            pieces = cut(reader, text, spans, room, overlap)
            found += [Passage(text[start:stop], document, start, stop) for start, stop in pieces]
    return found


def room_for_text(
    reader: BatchTokenizer, max_tokens: int | None, overlap: int, prompt: str | None, others: int | None = None
) -> int | None:
    """Tokens of its own that a passage may have; None for any number."""
    limit = reader.max_length
    most = limit if max_tokens is None else max_tokens
    if most is None:
        return None
    if limit is not None and most > limit:
        raise InputError(f"max_tokens={most} is more than this model reads, which is {limit} tokens.")
    others = len(reader([prompt or ""]).ids) if others is None else others
    if others >= most:
        raise InputError(
            f"max_tokens={most} leaves no room for text: special tokens, the prompt {prompt or ''!r} and a template, "
            f"if there is one, take {others}."
        )
    room = most - others
    if not 0 <= overlap <= room // 2:
        raise InputError(f"overlap must be 0 to {room // 2}, half of a passage of {room} tokens; got {overlap}.")
    return room


def cut(reader: BatchTokenizer, text: str, spans: np.ndarray, room: int, overlap: int = 0) -> Iterator[tuple[int, int]]:
    """Characters `start:stop` of each passage of a text.

    Args:
        spans: (n, 2) int64, the characters of each token.
    """
    if len(spans) <= room:
        yield 0, len(text)
        return
    strengths = strengths_of(text, spans)
    first, last = 0, 0
    while last < len(spans):
        first, last, start, stop = longest(reader, text, spans, strengths, first, last, room)
        if start < stop:
            yield start, stop
        first = beginning(strengths, first, last, overlap)


def longest(
    reader: BatchTokenizer, text: str, spans: np.ndarray, strengths: np.ndarray, first: int, done: int, room: int
) -> tuple[int, int, int, int]:
    """The passage from token `first` on, to behind token `done` at least: its tokens and characters.

    By itself a passage may have more tokens than it has within the text; then it is made shorter, and if need be begins
    at `done`.
    """
    most = room
    while True:
        last = ending(strengths, first, done, most)
        start, stop = characters(text, spans, first, last)
        excess = len(reader.spans([text[start:stop]])[0]) - room
        if excess <= 0 or last - first <= 1:
            return first, last, start, stop
        most = min(most, last - first) - excess
        if first + most <= done:
            if first == done:
                most = 1
            else:
                first, most = done, room


def characters(text: str, spans: np.ndarray, first: int, last: int) -> tuple[int, int]:
    """Characters of the tokens `first:last`, without white space around them."""
    start = int(spans[first, 0]) if first else 0
    piece = text[start : int(spans[last, 0]) if last < len(spans) else len(text)]
    start += len(piece) - len(piece.lstrip())
    return start, start + len(piece.strip())


def strengths_of(text: str, spans: np.ndarray) -> np.ndarray:
    """(n,) int8: how good a place for a passage to begin each token is; INSIDE where a character would be cut."""
    strengths = np.full(len(spans), ANYWHERE, np.int8)
    strengths[1:][spans[1:, 0] < spans[:-1, 1]] = INSIDE
    for strength, pattern in enumerate(PLACES, SPACE):
        ends = np.fromiter((match.end() for match in pattern.finditer(text)), np.int64)
        places = np.searchsorted(spans[:, 1], ends, side="right")
        strengths[places[places < len(spans)]] = strength
    return strengths


def ending(strengths: np.ndarray, first: int, done: int, room: int) -> int:
    """The token before which a passage that begins with token `first` ends; behind `done`, where the last one did."""
    most = first + room
    if most >= len(strengths):
        return len(strengths)
    for least in (first + room - room // 2, first + 1):
        window = strengths[max(least, done + 1) : most + 1]
        best = window.max(initial=INSIDE)
        if best > ANYWHERE:
            break
    return most - int(np.argmax(window[::-1] == best))


def beginning(strengths: np.ndarray, first: int, last: int, overlap: int) -> int:
    """The token with which the passage after `first:last` begins."""
    least = max(last - overlap, first + 1)
    window = strengths[least:last]
    best = window.max(initial=INSIDE)
    return least + int(np.argmax(window == best)) if best >= SPACE else last
