"""An inverted index of sparse embeddings that stays: add documents, search, save, open again without reading it all.

    index = SparseIndex(model.encode(texts))
    index.search(model.encode(["a query"]), top_k=10)       # [[{"corpus_id": 3, "score": 12.5}, …]]
    index.save("index")
    index = SparseIndex.load("index")                       # memory-mapped

Documents are numbered in the order they were added. The answers are those of `semantic_search` with `dot_score`.

Each `add` makes a segment with an inverted index of its own (see `inverted`). A segment that is not smaller than the
one before it is joined with it, so there are at most about log₂ N, and no document is moved more often than that.
`save` joins them all:

    index.json                   {"format": …, "version": 1, "documents": N, "dimension": V, "postings": P, …}
    <generation>.starts.npy      int64 (V + 1,)
    <generation>.documents.npy   int32 (P,)
    <generation>.values.npy      float32 or float64 (P,)

The arrays are written first, under names of a new generation; then `index.json` is replaced in one step, then the
arrays of older generations are removed. Whoever stops at any moment leaves the old index or the new one.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
from pathlib import Path
from typing import Any

import numpy as np

from sentence_transformers.errors import IndexFormatError, IndexNotFoundError, InputError
from sentence_transformers.search.blocks import (
    BLOCK_SCORES,
    CPU,
    as_results,
    best_of_blocks,
    blocks_of,
    check_sizes,
    inverted_score,
)
from sentence_transformers.search.inverted_index import Postings
from sentence_transformers.util.atomic import creating, drafts, replacing
from sentence_transformers.util.csr import SparseRows, sparse_rows
from sentence_transformers.util.tensor import ArrayLike, describe, to_rows

FORMAT, VERSION = "sentence-transformers sparse index", 1
HEADER = "index.json"
PARTS = ("starts", "documents", "values")
QUERY_BLOCK = 100


class SparseIndex:
    """An exact inverted index over sparse embeddings, for dot products.

    Args:
        embeddings: the first documents, (N, V); None for an empty index. Sparse tensor (COO or CSR), SciPy matrix, or
            dense array.
    """

    def __init__(self, embeddings: ArrayLike | None = None) -> None:
        self._segments: list[Postings] = []
        if embeddings is not None:
            self.add(embeddings)

    def __len__(self) -> int:
        """The number of documents."""
        return sum(map(len, self._segments))

    @property
    def dimension(self) -> int | None:
        """V, the dimension of the embeddings; None as long as nothing was added."""
        return self._segments[0].dimension if self._segments else None

    def __repr__(self) -> str:
        return f"SparseIndex({len(self):,} documents, dimension {self.dimension})"

    def add(self, embeddings: ArrayLike) -> None:
        """Append documents, (N, V); they get the next numbers.

        Raises:
            InputError: if their dimension is not that of the index.
        """
        rows = self._rows(embeddings, "embeddings")
        self._segments.append(Postings.of(rows))
        while len(self._segments) > 1 and len(self._segments[-1]) >= len(self._segments[-2]):
            self._segments[-2:] = [Postings.join(self._segments[-2:])]

    def search(self, query_embeddings: ArrayLike, top_k: int = 10) -> list[list[dict[str, int | float]]]:
        """The `top_k` documents of each query by dot product, best first.

        Args:
            query_embeddings: (Q, V), or (V,) for one query; the forms that `add` takes.
            top_k: results per query; fewer if there are fewer documents.

        Returns:
            For each query a list of {"corpus_id": document number, "score": float}. Equal scores: lower id first.

        Raises:
            InputError: if the dimension differs or `top_k` is negative.
        """
        check_sizes(top_k)
        queries = self._rows(query_embeddings, "query_embeddings")
        if not len(self) or not len(queries) or top_k == 0:
            return [[] for _ in range(len(queries))]
        step = max(1, min(QUERY_BLOCK, BLOCK_SCORES // max(map(len, self._segments))))
        starts = np.cumsum([0, *map(len, self._segments)]).tolist()
        segments = ((start, one) for start, one in zip(starts, self._segments, strict=False) if len(one))
        return as_results(*best_of_blocks(lambda: blocks_of(queries, step, CPU), segments, top_k, inverted_score))

    def _rows(self, embeddings: ArrayLike, name: str) -> SparseRows:
        """Embeddings as sparse rows of the dimension of this index."""
        rows = sparse_rows(embeddings)
        if rows is None:
            rows = sparse_rows(to_rows(embeddings, name).detach().cpu().to_sparse())
        if rows is None:
            raise InputError(f"`{name}` must have shape (N, V) or (V,), got {describe(embeddings)}.")
        if self.dimension not in (None, rows.dimension):
            raise InputError(
                f"`{name}` of shape {rows.shape} do not fit an index of dimension {self.dimension}. "
                "Were both made by the same model?"
            )
        return rows

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the index into a folder, which is made if need be; an index that is there is replaced in one step.

        Raises:
            InputError: if nothing was added yet.
        """
        if not self._segments:
            raise InputError("The index is empty: add embeddings before saving it.")
        self._segments = [Postings.join(self._segments)] if len(self._segments) > 1 else self._segments
        (postings,) = self._segments
        folder, generation = Path(folder), secrets.token_hex(8)
        folder.mkdir(parents=True, exist_ok=True)
        for part in PARTS:
            with creating(part_path(folder, generation, part)) as file:
                np.save(file, getattr(postings, part), allow_pickle=False)
        header = {
            "format": FORMAT,
            "version": VERSION,
            "generation": generation,
            "documents": len(postings),
            "dimension": postings.dimension,
            "postings": len(postings.documents),
            "dtype": str(postings.values.dtype),
        }
        with replacing(folder / HEADER) as fresh:
            fresh.write_text(json.dumps(header, indent=1) + "\n", encoding="utf-8")
        remove_others(folder, generation)

    @classmethod
    def load(cls, folder: str | os.PathLike[str], mmap: bool = True) -> SparseIndex:
        """Open an index that `save` wrote.

        Args:
            mmap: map the files instead of reading them; a search then reads the lists of its terms only.

        Raises:
            IndexNotFoundError: if there is none.
            IndexFormatError: if it is incomplete, malformed or of a later version.
        """
        header = read_header(Path(folder))
        postings, count, dimension = header["postings"], header["documents"], header["dimension"]
        shapes = {"starts": dimension + 1, "documents": postings, "values": postings}
        types = {"starts": "int64", "documents": "int32", "values": header["dtype"]}
        arrays = {
            part: read(part_path(Path(folder), header["generation"], part), shapes[part], types[part], mmap)
            for part in PARTS
        }
        starts = arrays["starts"]
        if starts[0] != 0 or starts[-1] != postings or (np.diff(starts) < 0).any():
            raise IndexFormatError(f"{folder} is damaged: its lists do not cover the {postings:,} postings in order.")
        index = cls()
        index._segments = [Postings(count=count, **arrays)]
        return index


def remove_others(folder: Path, generation: str) -> None:
    """Remove what other generations left; files that a process holds open on Windows stay."""
    names = "|".join([*(rf"{part}\.npy" for part in PARTS), re.escape(HEADER)])
    ours = re.compile(rf"(?!{generation})[0-9a-f]{{16}}\.({names})")
    for path in [*filter(lambda path: ours.fullmatch(path.name), folder.iterdir()), *drafts(folder, HEADER)]:
        with contextlib.suppress(OSError):
            path.unlink()


def part_path(folder: Path, generation: str, part: str) -> Path:
    """The file of one array."""
    return folder / f"{generation}.{part}.npy"


def read(path: Path, size: int, dtype: str, mmap: bool) -> np.ndarray:
    """An array of `size` numbers of type `dtype` from an .npy file."""
    try:
        array = np.load(path, mmap_mode="r" if mmap and size else None, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise IndexFormatError(f"{path} cannot be read, the index is incomplete: {error}") from error
    if array.shape != (size,) or array.dtype != dtype:
        raise IndexFormatError(
            f"{path} holds {array.dtype} of shape {array.shape}, but {HEADER} promises {dtype} of shape {(size,)}."
        )
    return np.asarray(array)  # without the class `memmap`, whose slices are slow to make


def read_header(folder: Path) -> dict[str, Any]:
    """The content of `index.json`, checked."""
    path = folder / HEADER
    if not path.is_file():
        raise IndexNotFoundError(f"There is no sparse index in {folder}: {HEADER} is missing.")
    try:
        header = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise IndexFormatError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise IndexFormatError(f"{path} does not describe a sparse index of this library (format {FORMAT!r}).")
    if header.get("version") != VERSION:
        raise IndexFormatError(f"{path} has version {header.get('version')!r}; this library reads version {VERSION}.")
    wrong = [name for name in ("documents", "dimension", "postings") if not is_count(header.get(name))]
    wrong += ["generation"] if not str(header.get("generation", "")).isalnum() else []
    wrong += ["dtype"] if header.get("dtype") not in ("float32", "float64") else []
    if wrong:
        raise IndexFormatError(f"{path} is damaged: no usable value for {', '.join(wrong)}.")
    return header


def is_count(value: object) -> bool:
    """Whether a value is a whole number that is not negative."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
