"""HNSW graphs (https://arxiv.org/abs/1603.09320): a segment's nearest documents without scoring them all, but for some.

A segment of at least `LEAST` documents gets a graph of its own when it is written. The graph only finds candidates;
they are scored by the segment's own vectors, as in exact search. What the graph keeps of each vector:

              usearch                              faiss
    float32   float16                              float16
    int8      int8 for cosine, otherwise float16   8 bits
    binary    bits, Hamming distance               bits, Hamming distance

usearch maps its file, faiss reads it into memory.
"""

from __future__ import annotations

import threading
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from sentence_transformers.errors import MissingExtraError
from sentence_transformers.index.arrays import Arrays, damaged
from sentence_transformers.index.dense import take
from sentence_transformers.index.settings import Settings

LEAST = 5_000
"""Segments of fewer documents are searched exactly, which is quick."""
NEIGHBOURS, BREADTH = 16, 128
"""Edges of a node, and candidates looked at while building and (at least) while searching."""
BLOCK = 2**15
"""Vectors that are put into a graph at a time."""


class Breadth:
    """How many candidates searches of a graph look at. The libraries keep it with the graph, so that searches of
    different breadth take turns, while those of one run side by side.
    """

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.value, self.running = 0, 0

    @contextmanager
    def of(self, value: int, change: Callable[[int], None]) -> Iterator[None]:
        """Within this context the breadth is `value`; `change` sets it."""
        with self.changed:
            self.changed.wait_for(lambda: value == self.value or not self.running)
            if value != self.value:
                change(value)
                self.value = value
            self.running += 1
        try:
            yield
        finally:
            with self.changed:
                self.running -= 1
                self.changed.notify_all()


class Graph(ABC):
    """The graph of one segment; `settings` are those of the index."""

    def __init__(self, settings: Settings, inner: Any = None) -> None:
        self.settings = settings
        self.inner = self._empty() if inner is None else inner
        self.breadth = Breadth()

    @abstractmethod
    def _empty(self) -> Any:
        """A graph of the library without documents."""

    @abstractmethod
    def _add(self, start: int, vectors: np.ndarray) -> None:
        """Put documents `start`, `start + 1`, … into it."""

    @abstractmethod
    def _look_at(self, breadth: int) -> None:
        """Let searches look at so many candidates."""

    @abstractmethod
    def _find(self, vectors: np.ndarray, count: int) -> np.ndarray:
        """The nearest documents of queries, (Q, count); below 0 where there are fewer."""

    @abstractmethod
    def write(self, path: Path) -> None:
        """Write it to a file."""

    @classmethod
    @abstractmethod
    def read(cls, path: Path, settings: Settings) -> Graph:
        """Read it from a file."""

    @property
    def bits(self) -> bool:
        return self.settings.precision == "binary"

    def fill(self, arrays: Arrays, count: int) -> Graph:
        """Put the documents of a segment into it."""
        for start in range(0, count, BLOCK):
            stop = min(start + BLOCK, count)
            if self.bits:
                self._add(start, arrays.part("dense.binary", start, stop))
            else:
                self._add(start, take(arrays, np.arange(start, stop), self.settings.precision))
        return self

    def find(self, queries: np.ndarray, count: int) -> list[np.ndarray]:
        """About the nearest `count` documents of each query (Q, H): their rows."""
        vectors = np.packbits(queries > 0, axis=1) if self.bits else queries
        with self.breadth.of(max(count, BREADTH), self._look_at):
            return [rows[rows >= 0] for rows in self._find(vectors, count)]


class Usearch(Graph):
    """By the library usearch."""

    def _empty(self) -> Any:
        index = usearch()
        euclidean, small = self.settings.similarity == "euclidean", self.settings.precision == "int8"
        dtype = "i8" if small and self.settings.similarity == "cosine" else "f16"
        metric = "l2sq" if euclidean else "cos" if dtype == "i8" else "ip"
        dimension = self.settings.dimension or 1
        return index(
            ndim=-(-dimension // 8) * 8 if self.bits else dimension,
            metric="hamming" if self.bits else metric,
            dtype="b1" if self.bits else dtype,
            connectivity=NEIGHBOURS,
            expansion_add=BREADTH,
        )

    def _add(self, start: int, vectors: np.ndarray) -> None:
        self.inner.add(np.arange(start, start + len(vectors)), vectors)

    def _look_at(self, breadth: int) -> None:
        self.inner.expansion_search = breadth

    def _find(self, vectors: np.ndarray, count: int) -> np.ndarray:
        found = self.inner.search(vectors, count)
        keys = np.atleast_2d(found.keys).astype(np.int64)
        counts = np.atleast_1d(found.counts) if len(vectors) > 1 else np.array([len(found)])
        return np.where(np.arange(keys.shape[1]) < counts[:, None], keys, -1)

    def write(self, path: Path) -> None:
        self.inner.save(str(path))

    @classmethod
    def read(cls, path: Path, settings: Settings) -> Graph:
        return cls(settings, usearch().restore(str(path), view=True))


class Faiss(Graph):
    """By the library faiss."""

    def _empty(self) -> Any:
        library = faiss()
        dimension = self.settings.dimension or 1
        if self.bits:
            graph = library.IndexBinaryHNSW(-(-dimension // 8) * 8, NEIGHBOURS)
        else:
            metric = library.METRIC_L2 if self.settings.similarity == "euclidean" else library.METRIC_INNER_PRODUCT
            small = self.settings.precision == "int8"
            kind = library.ScalarQuantizer.QT_8bit if small else library.ScalarQuantizer.QT_fp16
            graph = library.IndexHNSWSQ(dimension, kind, NEIGHBOURS, metric)
        graph.hnsw.efConstruction = BREADTH
        return graph

    def _add(self, start: int, vectors: np.ndarray) -> None:
        if not start and not self.bits:
            self.inner.train(vectors)
        self.inner.add(vectors)

    def _look_at(self, breadth: int) -> None:
        self.inner.hnsw.efSearch = breadth

    def _find(self, vectors: np.ndarray, count: int) -> np.ndarray:
        return self.inner.search(vectors, count)[1]

    def write(self, path: Path) -> None:
        (faiss().write_index_binary if self.bits else faiss().write_index)(self.inner, str(path))

    @classmethod
    def read(cls, path: Path, settings: Settings) -> Graph:
        bits = settings.precision == "binary"
        return cls(settings, (faiss().read_index_binary if bits else faiss().read_index)(str(path)))


GRAPHS: dict[str, type[Graph]] = {"usearch": Usearch, "faiss": Faiss}


def usearch() -> Any:
    try:
        from usearch.index import Index
    except ImportError as error:
        raise MissingExtraError("usearch", "usearch", "An index with approximate='usearch'") from error
    return Index


def faiss() -> Any:
    try:
        import faiss as library
    except ImportError as error:
        raise MissingExtraError("faiss-cpu", "faiss", "An index with approximate='faiss'") from error
    return library


def check_engine(name: str | None) -> None:
    """`MissingExtraError` if a library is not there; better before the texts are encoded than after."""
    if name is not None:
        {"usearch": usearch, "faiss": faiss}[name]()


def build(arrays: Arrays, count: int, settings: Settings) -> Graph | None:
    """The graph of a segment; None if it needs none."""
    if settings.approximate is None or settings.dimension is None or count < LEAST:
        return None
    return GRAPHS[settings.approximate](settings).fill(arrays, count)


class StoredGraph:
    """A graph in a file, which is compared with its checksum and opened when it is first used.

    Args:
        path, size, checksum: the file, its bytes and their CRC-32.
        checked: whether to compare.
    """

    def __init__(self, path: Path, size: int, checksum: int, settings: Settings, checked: bool) -> None:
        if path.stat().st_size != size:
            raise damaged(path, f"it has {path.stat().st_size:,} bytes instead of {size:,}")
        self._path, self._checksum, self._settings, self._checked = path, checksum, settings, checked
        self._graph: Graph | None = None

    def check(self) -> None:
        """Compare the file with its checksum."""
        with self._path.open("rb") as file:
            found = checksum_of(file)
        if found != self._checksum:
            raise damaged(self._path, "it does not match its checksum")

    def find(self, queries: np.ndarray, count: int) -> list[np.ndarray]:
        """See `Graph.find`."""
        if self._graph is None:
            if self._checked:
                self.check()
            assert self._settings.approximate is not None
            self._graph = GRAPHS[self._settings.approximate].read(self._path, self._settings)
        return self._graph.find(queries, count)


def checksum_of(file: IO[bytes]) -> int:
    """CRC-32 of the rest of a file."""
    crc = 0
    while block := file.read(2**22):
        crc = zlib.crc32(block, crc)
    return crc
