"""Dense vectors of a segment, in up to two forms: one to find candidates with, one to score them again.

    float32   dense.float32   (N, H)        the vectors; at length 1 if the similarity is cosine
    int8      dense.int8      (N, H)        round(x / s)
              dense.scales    float32 (N,)  s = max |x| / 127, one for each vector: no calibration, nothing is clipped
    binary    dense.binary    uint8 (N, ⌈H/8⌉)   the signs, 1 for x > 0
    euclidean dense.squares   float32 (N,)  ‖x‖²

How they are compared is in `scoring`.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from sentence_transformers.errors import InputError
from sentence_transformers.index.arrays import Arrays, Column
from sentence_transformers.index.blobs import Parts
from sentence_transformers.index.settings import Settings
from sentence_transformers.util.tensor import ArrayLike, normalize_embeddings, to_rows

NAMES = {"float32": ("dense.float32",), "int8": ("dense.int8", "dense.scales"), "binary": ("dense.binary",)}


def check_vectors(vectors: ArrayLike, settings: Settings, name: str = "embeddings") -> np.ndarray:
    """Vectors as float32 of shape (N, H), at length 1 for cosine.

    Raises:
        InputError: if they are quantised already, of another dimension, or hold NaN or infinity.
    """
    if str(getattr(vectors, "dtype", "")).rpartition(".")[2] in ("int8", "uint8"):
        raise InputError(
            f"`{name}` are {vectors.dtype} of shape {tuple(vectors.shape)}; expected float vectors. "  # type: ignore[union-attr]
            f"The index quantises them itself (its precision is {settings.precision!r})."
        )
    rows = to_rows(vectors, name).detach().cpu().float()
    if len(rows) and settings.dimension not in (None, rows.shape[1]):
        raise InputError(
            f"`{name}` have dimension {rows.shape[1]}, the index has {settings.dimension}. Were they made by the model "
            "that the index was built with, with the same `truncate_dim`?"
        )
    finite = torch.isfinite(rows).all(dim=1)
    if not finite.all():
        wrong = (~finite).nonzero()[:, 0].tolist()
        raise InputError(f"`{name}` hold NaN or infinity in {len(wrong):,} rows, the first is row {wrong[0]}.")
    if settings.similarity == "cosine":
        rows = normalize_embeddings(rows)
    return np.ascontiguousarray(rows.to_dense().numpy())


def forms_of(vectors: np.ndarray, settings: Settings) -> dict[str, np.ndarray]:
    """The arrays of some vectors that were checked before."""
    columns: dict[str, np.ndarray] = {}
    if "float32" in settings.forms:
        columns["dense.float32"] = vectors
    if "int8" in settings.forms:
        columns["dense.int8"], columns["dense.scales"] = to_bytes(vectors)
    if "binary" in settings.forms:
        columns["dense.binary"] = np.packbits(vectors > 0, axis=1)
    if settings.similarity == "euclidean":
        columns["dense.squares"] = np.square(vectors).sum(axis=1)
    return columns


def to_bytes(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """round(x / s) as int8 and s = max |x| / 127 (1 for zero vectors), row by row."""
    scales = np.abs(vectors).max(axis=1, initial=0) / 127
    scales = np.where(scales > 0, scales, 1).astype(np.float32)
    return np.rint(vectors / scales[:, None]).astype(np.int8), scales


def names_of(settings: Settings) -> list[str]:
    """The arrays that a segment has."""
    squares = ["dense.squares"] if settings.similarity == "euclidean" else []
    return [name for form in settings.forms for name in NAMES[form]] + squares


def join(parts: Parts, settings: Settings) -> dict[str, Column]:
    """The vectors of the rows that are kept."""
    return {name: join_one(parts, name) for name in names_of(settings)}


def join_one(parts: Parts, name: str) -> Column:
    first = parts[0][0].part(name, 0, 0)

    def blocks() -> Iterator[np.ndarray]:
        for arrays, rows in parts:
            yield from arrays.taken(name, rows)

    return Column(first.dtype, (sum(len(rows) for _, rows in parts), *first.shape[1:]), blocks)


def raw(arrays: Arrays, rows: np.ndarray, settings: Settings) -> dict[str, np.ndarray]:
    """Some vectors in all their forms, as they are stored."""
    return {name: arrays.rows(name, rows) for name in names_of(settings)}


def take(arrays: Arrays, rows: np.ndarray, form: str) -> np.ndarray:
    """Some vectors as float32 (n, H), from the form that is named; the scales undone."""
    if form == "int8":
        return arrays.rows("dense.int8", rows) * arrays.rows("dense.scales", rows)[:, None]
    return arrays.rows("dense.float32", rows)


def pick(arrays: Arrays, name: str, rows: np.ndarray | slice) -> np.ndarray:
    """Some rows of an array: a view of a run of rows, a copy of others."""
    return arrays.part(name, rows.start, rows.stop) if isinstance(rows, slice) else arrays.rows(name, rows)
