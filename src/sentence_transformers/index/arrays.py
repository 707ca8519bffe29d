"""Named arrays: in memory, or in one file that never changes and is checked block by block when it is first read.

The file has the layout of safetensors, so other tools can read it:

    8 bytes            n, the length of the header, little endian
    n bytes            JSON: {"vectors": {"dtype": "F32", "shape": [N, H], "data_offsets": [begin, end]}, …}
    arrays             widest numbers first, without gaps, so each begins at a multiple of its item size
    "checksums"        U32, last: the CRC-32 of each block of 64 KiB of everything before it

Whoever opens the file knows its size and the CRC-32 of the checksums from elsewhere; both are compared at once, and so
is the block that holds the header. Any other block is compared when something in it is first asked for: what is never
read costs nothing, and what is damaged is never returned. Opening a file of any size takes about a millisecond.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from sentence_transformers.errors import IndexFormatError
from sentence_transformers.util.atomic import creating

BLOCK = 2**16
"""Bytes under one checksum."""
SHARE = 2**8
"""Blocks that one thread compares at a time, where there are more than that."""
ROWS = 2**15
"""Rows that are copied at a time."""
CHECKSUMS = "checksums"
TYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"), "I64": np.dtype("<i8"), "U64": np.dtype("<u8"),
    "F32": np.dtype("<f4"), "I32": np.dtype("<i4"), "U32": np.dtype("<u4"),
    "I8": np.dtype("i1"), "U8": np.dtype("u1"),
}  # fmt: skip
NAMES: dict[Any, str] = {dtype: name for name, dtype in TYPES.items()}


@dataclass(frozen=True)
class Column:
    """An array that is made block by block, along its first axis.

    Args:
        blocks: gives the blocks in order, anew at each call.
    """

    dtype: np.dtype
    shape: tuple[int, ...]
    blocks: Callable[[], Iterator[np.ndarray]]

    @classmethod
    def of(cls, array: np.ndarray) -> Column:
        """An array that is there already."""
        return cls(array.dtype, array.shape, lambda: iter([array]))

    @property
    def size(self) -> int:
        """Bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def array(self) -> np.ndarray:
        """The blocks as one array."""
        blocks = list(self.blocks())
        return blocks[0] if len(blocks) == 1 else np.concatenate([np.empty((0, *self.shape[1:]), self.dtype), *blocks])


class Arrays:
    """Arrays in memory.

    `all` gives one as it is, `rows` copies some rows, `part` shows a run of rows.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        self._arrays = dict(arrays)

    @classmethod
    def of(cls, columns: Mapping[str, Column]) -> Arrays:
        return cls({name: column.array() for name, column in columns.items()})

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    def length(self, name: str) -> int:
        """Rows of an array."""
        return len(self._arrays[name])

    def all(self, name: str) -> np.ndarray:
        """A whole array."""
        return self.part(name, 0, self.length(name))

    def part(self, name: str, start: int, stop: int) -> np.ndarray:
        """Rows `start:stop`."""
        return self._arrays[name][start:stop]

    def rows(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Some rows, by number."""
        return self._arrays[name][rows]

    def view(self, name: str) -> np.ndarray:
        """A whole array whose used parts have been, or will be, asked for by `part` or `rows`."""
        return self._arrays[name]

    def taken(self, name: str, rows: np.ndarray) -> Iterator[np.ndarray]:
        """Some rows, in blocks."""
        for start in range(0, len(rows), ROWS):
            yield self.rows(name, rows[start : start + ROWS])

    def check(self) -> None:
        """Compare everything with its checksums."""


class MappedArrays(Arrays):
    """The arrays in a file, memory-mapped.

    Args:
        path: the file.
        size, checksum: its bytes and the CRC-32 of its checksums, as `write` returned them.
        checked: compare blocks with their checksums when they are first read.

    Raises:
        IndexFormatError: if the file is not what was written. Likewise from reading, naming file and array.
    """

    def __init__(self, path: Path, size: int, checksum: int, checked: bool = True) -> None:
        self._path, self._mutex = path, threading.Lock()
        with path.open("rb") as file:
            found = os.fstat(file.fileno()).st_size
            if found != size:
                raise damaged(path, f"it has {found:,} bytes instead of {size:,}")
            # private and never written to: torch wants memory that could be
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        self._bytes = np.frombuffer(self._map, np.uint8)
        head = int.from_bytes(self._map[:8], "little")
        body = size - 4 * (-(-size // (BLOCK + 4)))  # where the checksums begin: one for each block before them
        self._sums = np.frombuffer(self._map[body:], "<u4")
        if zlib.crc32(self._sums.data) != checksum:
            raise damaged(path, "its checksums do not match the one in the manifest")
        self._unread = np.ones(len(self._sums), dtype=bool)
        self._end = body
        self._compare(np.arange(min(len(self._sums), -(-(8 + head) // BLOCK))), "header")
        self._places = places(json.loads(self._map[8 : 8 + head]), 8 + head)
        super().__init__({name: self._view(*place) for name, place in self._places.items() if name != CHECKSUMS})
        if not checked:
            self._unread[:] = False

    def _view(self, dtype: np.dtype, shape: tuple[int, ...], begin: int, end: int) -> np.ndarray:
        return self._bytes[begin:end].view(dtype).reshape(shape)

    def part(self, name: str, start: int, stop: int) -> np.ndarray:
        self._touch(name, np.array([start]), np.array([stop]))
        return super().part(name, start, stop)

    def rows(self, name: str, rows: np.ndarray) -> np.ndarray:
        if rows.dtype == bool:
            rows = np.flatnonzero(rows)
        self._touch(name, rows, rows + 1)
        return super().rows(name, rows)

    def check(self) -> None:
        self._compare(np.arange(len(self._sums)), "contents")

    def _touch(self, name: str, starts: np.ndarray, stops: np.ndarray) -> None:
        """Make sure that the blocks of some runs of rows have been compared."""
        if not self._unread.any():
            return
        _, shape, begin, _ = self._places[name]
        width = self._arrays[name].itemsize * math.prod(shape[1:])
        firsts = (begin + starts.astype(np.int64) * width) // BLOCK
        ends = -(-(begin + stops.astype(np.int64) * width) // BLOCK)
        if len(firsts) == 1:
            blocks = np.arange(firsts[0], ends[0])
        else:
            blocks = np.concatenate([firsts + step for step in range(int((ends - firsts).max(initial=0)))] or [firsts])
            blocks = np.unique(blocks[blocks < len(self._sums)])
        self._compare(blocks[self._unread[blocks]], name)

    def _compare(self, blocks: np.ndarray, name: str) -> None:
        """Compare blocks with their checksums, on all cores if there are many."""
        if len(blocks) <= SHARE:
            self._compare_some(blocks, name)
            return
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            shares = [blocks[start : start + SHARE] for start in range(0, len(blocks), SHARE)]
            list(pool.map(lambda share: self._compare_some(share, name), shares))

    def _compare_some(self, blocks: np.ndarray, name: str) -> None:
        view = memoryview(self._map)
        for block in blocks.tolist():
            start, stop = block * BLOCK, min((block + 1) * BLOCK, self._end)
            if zlib.crc32(view[start:stop]) != self._sums[block]:
                raise damaged(self._path, f"bytes {start:,} to {stop:,} ({name}) do not match their checksum")
        self._unread[blocks] = False


def places(header: Mapping[str, Any], start: int) -> dict[str, tuple[np.dtype, tuple[int, ...], int, int]]:
    """For each array its type, shape, first byte and end, from the header of a file whose data begin at `start`."""
    return {
        name: (
            TYPES[entry["dtype"]],
            tuple(entry["shape"]),
            start + entry["data_offsets"][0],
            start + entry["data_offsets"][1],
        )
        for name, entry in header.items()
    }


def write(path: Path, columns: Mapping[str, Column]) -> tuple[int, int]:
    """Write arrays to a new file; it is on disk when this returns.

    Returns:
        The size of the file and the CRC-32 of its checksums.
    """
    ordered = dict(sorted(columns.items(), key=lambda item: -item[1].dtype.itemsize))
    head = header_of(ordered)
    with creating(path) as file:
        sums = Summing(file)
        sums.write(head)
        for column in ordered.values():
            for block in column.blocks():
                sums.write(np.ascontiguousarray(block, dtype=column.dtype).reshape(-1).view(np.uint8).data)
        table = sums.finish()
        file.write(table)
        return file.tell(), zlib.crc32(table)


def header_of(columns: Mapping[str, Column]) -> bytes:
    """The header of a file, its length in front, padded to a multiple of 64 bytes."""
    entries: dict[str, Any] = {}
    offset = 0
    for name, column in columns.items():
        entries[name] = entry_of(column.dtype, column.shape, offset)
        offset += column.size
    room = -(-(len(json.dumps(entries)) + 200) // 64) * 64 - 8
    blocks = -(-(8 + room + offset) // BLOCK)
    entries[CHECKSUMS] = entry_of(TYPES["U32"], (blocks,), offset)
    return room.to_bytes(8, "little") + json.dumps(entries).encode().ljust(room)


def entry_of(dtype: np.dtype, shape: tuple[int, ...], offset: int) -> dict[str, Any]:
    size = math.prod(shape) * dtype.itemsize
    return {"dtype": NAMES[dtype.newbyteorder("<")], "shape": list(shape), "data_offsets": [offset, offset + size]}


class Summing:
    """Writes to a file and keeps the checksum of each block."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._sums, self._crc, self._room = file, [], 0, BLOCK  # type: ignore[var-annotated]

    def write(self, data: bytes | memoryview) -> None:
        view, start = memoryview(data).cast("B") if len(data) else memoryview(b""), 0
        self._file.write(view)
        while start < len(view):
            piece = view[start : start + self._room]
            self._crc = zlib.crc32(piece, self._crc)
            self._room -= len(piece)
            start += len(piece)
            if not self._room:
                self._close_block()

    def _close_block(self) -> None:
        self._sums.append(self._crc)
        self._crc, self._room = 0, BLOCK

    def finish(self) -> bytes:
        """The checksums of all blocks, as bytes."""
        if self._room < BLOCK:
            self._close_block()
        return np.array(self._sums, "<u4").tobytes()


def damaged(path: Path, why: str) -> IndexFormatError:
    """The error for a file that is not what was written."""
    return IndexFormatError(f"{path} is damaged: {why}. Restore it from a copy, or build the index again.")
