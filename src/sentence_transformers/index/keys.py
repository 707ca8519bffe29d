"""The users' ids of documents: strings or whole numbers, each once.

An id is stored as JSON, so "1" and 1 differ. To find one, the ids' hashes lie sorted beside their rows; a hash that is
found is a candidate, which the stored id then confirms.

    id.bytes, id.starts     the ids, by row (see `blobs`)
    id.hashes               uint64 (N,), rising
    id.rows                 int32 (N,), the row of each hash
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from sentence_transformers.errors import InputError
from sentence_transformers.index import blobs
from sentence_transformers.index.arrays import Arrays, Column

Id = str | int
SHOWN = 5
"""Ids that an error names, at most."""


def encode(given: Sequence[Any]) -> list[bytes]:
    """Ids as bytes.

    Raises:
        InputError: naming the first that is neither a string nor a whole number.
    """
    return [encode_one(one, place) for place, one in enumerate(given)]


def encode_one(given: object, place: int = 0) -> bytes:
    if isinstance(given, np.integer):
        given = int(given)
    if isinstance(given, bool) or not isinstance(given, (str, int)):
        raise InputError(f"Ids must be strings or whole numbers; number {place} is {given!r} ({type(given).__name__}).")
    return json.dumps(given).encode()


def decode(content: bytes) -> Id:
    return json.loads(content)


def hash_of(content: Sequence[bytes]) -> np.ndarray:
    """uint64 (N,): the same on every machine and in every version."""
    digests = b"".join(hashlib.blake2b(one, digest_size=8).digest() for one in content)
    return np.frombuffer(digests, "<u8")


def check_distinct(content: Sequence[bytes]) -> None:
    """`InputError` naming ids that are given twice."""
    if len(set(content)) == len(content):
        return
    seen: set[bytes] = set()
    twice = [one for one in content if one in seen or seen.add(one)]  # type: ignore[func-returns-value]
    raise InputError(f"{named(twice)} given more than once. An id stands for one document.")


def named(content: Sequence[bytes]) -> str:
    """Some ids in words: "The ids 1, 'a' and 3 more are", "The id 7 is"."""
    shown = ", ".join(repr(decode(one)) for one in content[:SHOWN])
    more = f" and {len(content) - SHOWN:,} more" if len(content) > SHOWN else ""
    return f"The id {shown} is" if len(content) == 1 else f"The ids {shown}{more} are"


def build(content: Sequence[bytes]) -> dict[str, Column]:
    """The arrays of a segment's ids."""
    return blobs.build("id", content) | table(hash_of(content), np.arange(len(content), dtype=np.int32))


def table(hashes: np.ndarray, rows: np.ndarray) -> dict[str, Column]:
    order = np.argsort(hashes, kind="stable")
    return {"id.hashes": Column.of(hashes[order]), "id.rows": Column.of(rows[order])}


def join(parts: blobs.Parts) -> dict[str, Column]:
    """The ids of the rows that are kept, numbered on from part to part."""
    hashes, numbers, start = [np.empty(0, np.uint64)], [np.empty(0, np.int32)], 0
    for arrays, rows in parts:
        new = np.full(arrays.length("id.hashes"), -1, dtype=np.int32)
        new[rows] = np.arange(start, start + len(rows), dtype=np.int32)
        renumbered = new[arrays.all("id.rows")]
        hashes.append(arrays.all("id.hashes")[renumbered >= 0])
        numbers.append(renumbered[renumbered >= 0])
        start += len(rows)
    return blobs.join("id", parts) | table(np.concatenate(hashes), np.concatenate(numbers))


def find(arrays: Arrays, content: Sequence[bytes], hashes: np.ndarray) -> np.ndarray:
    """The row of each id, -1 where there is none: int64 of the length of `content`."""
    table_hashes = arrays.all("id.hashes")
    begins, ends = np.searchsorted(table_hashes, hashes, "left"), np.searchsorted(table_hashes, hashes, "right")
    found = np.full(len(content), -1, dtype=np.int64)
    for place in np.flatnonzero(ends > begins).tolist():
        rows = arrays.part("id.rows", int(begins[place]), int(ends[place])).astype(np.int64)
        found[place] = next(
            (
                row
                for row, one in zip(rows.tolist(), blobs.read(arrays, "id", rows), strict=True)
                if one == content[place]
            ),
            -1,
        )
    return found
