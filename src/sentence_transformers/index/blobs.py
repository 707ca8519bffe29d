"""Byte strings of any length as two arrays: all bytes in a row (uint8), and where each string begins (int64, N + 1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from sentence_transformers.index.arrays import ROWS, Arrays, Column

Parts = Sequence[tuple[Arrays, np.ndarray]]
"""Arrays of segments, each with the numbers of its rows that are kept, rising."""


def build(name: str, strings: Sequence[bytes]) -> dict[str, Column]:
    """The arrays `name`.bytes and `name`.starts."""
    lengths = np.fromiter(map(len, strings), np.int64, len(strings))
    return {
        f"{name}.bytes": Column.of(np.frombuffer(b"".join(strings), np.uint8)),
        f"{name}.starts": Column.of(starts_of(lengths)),
    }


def starts_of(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def read(arrays: Arrays, name: str, rows: np.ndarray) -> list[bytes]:
    """The strings of some rows."""
    starts = arrays.rows(f"{name}.starts", rows).tolist()
    ends = arrays.rows(f"{name}.starts", rows + 1).tolist()
    return [arrays.part(f"{name}.bytes", *place).tobytes() for place in zip(starts, ends, strict=True)]


def read_all(arrays: Arrays, name: str) -> list[bytes]:
    """All strings."""
    starts, content = arrays.all(f"{name}.starts").tolist(), arrays.all(f"{name}.bytes").tobytes()
    return [content[start:end] for start, end in pairwise(starts)]


def join(name: str, parts: Parts) -> dict[str, Column]:
    """The strings of the rows that are kept, in order."""
    lengths = [np.diff(arrays.all(f"{name}.starts"))[rows] for arrays, rows in parts]
    starts = starts_of(np.concatenate(lengths)) if lengths else np.zeros(1, np.int64)

    def blocks() -> Iterator[np.ndarray]:
        for arrays, rows in parts:
            for run in runs(rows):
                yield kept_bytes(arrays, name, run)

    return {
        f"{name}.bytes": Column(np.dtype(np.uint8), (int(starts[-1]),), blocks),
        f"{name}.starts": Column.of(starts),
    }


def runs(rows: np.ndarray) -> Iterator[np.ndarray]:
    """Rising numbers in pieces of at most `ROWS`."""
    for start in range(0, len(rows), ROWS):
        yield rows[start : start + ROWS]


def kept_bytes(arrays: Arrays, name: str, rows: np.ndarray) -> np.ndarray:
    """The bytes of some rows (rising), one after the other."""
    first, last = int(rows[0]), int(rows[-1]) + 1
    starts = arrays.part(f"{name}.starts", first, last + 1)
    content = arrays.part(f"{name}.bytes", int(starts[0]), int(starts[-1]))
    kept = np.zeros(last - first, dtype=bool)
    kept[rows - first] = True
    return content if kept.all() else content[np.repeat(kept, np.diff(starts))]
