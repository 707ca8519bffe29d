"""What is stored with a document beside its vectors: its text, and metadata, a JSON object.

Both are one JSON list [text, metadata] per row, read when the document is a hit.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sentence_transformers.errors import InputError
from sentence_transformers.index import blobs
from sentence_transformers.index.arrays import Arrays, Column

Metadata = dict[str, Any]


def check_metadata(metadata: Sequence[Any]) -> list[Metadata]:
    """Metadata as plain dictionaries; None counts as empty.

    Raises:
        InputError: naming position, field and value of the first that is not JSON.
    """
    for place, one in enumerate(metadata):
        if one is None:
            continue
        if not isinstance(one, Mapping):
            raise InputError(f"Metadata must be dictionaries; number {place} is {one!r:.80} ({type(one).__name__}).")
        for field, value in one.items():
            check_json(value, f"metadata number {place}, field {field!r}")
            if not isinstance(field, str):
                raise InputError(f"The fields of metadata are strings; number {place} has the field {field!r}.")
    return [dict(one or {}) for one in metadata]


def check_json(value: object, where: str) -> None:
    """`InputError` unless a value is JSON: str, int, finite float, bool, None, and lists and dictionaries of those."""
    if value is None or isinstance(value, (str, bool, int)):
        return
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InputError(f"{where}: {value} cannot be stored, it is no JSON number.")
    elif isinstance(value, (list, tuple)):
        for one in value:
            check_json(one, where)
    elif isinstance(value, dict) and all(isinstance(key, str) for key in value):
        for one in value.values():
            check_json(one, where)
    else:
        raise InputError(
            f"{where}: {value!r:.80} ({type(value).__name__}) cannot be stored. Metadata is JSON: strings, numbers, "
            "booleans, None, lists, and dictionaries with strings as keys."
        )


def build(texts: Sequence[str | None], metadata: Sequence[Metadata]) -> dict[str, Column]:
    """The arrays of a segment's texts and metadata."""
    return blobs.build("record", [dump(pair) for pair in zip(texts, metadata, strict=True)])


def join(parts: blobs.Parts) -> dict[str, Column]:
    return blobs.join("record", parts)


def read(arrays: Arrays, rows: np.ndarray) -> list[tuple[str | None, Metadata]]:
    """Text and metadata of some rows."""
    return [load(one) for one in blobs.read(arrays, "record", rows)]


def dump(pair: tuple[str | None, Metadata]) -> bytes:
    """JSON; half a surrogate pair, which UTF-8 does not know, is kept as it is."""
    return json.dumps(pair, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def load(content: bytes) -> tuple[str | None, Metadata]:
    text, metadata = json.loads(content.decode("utf-8", "surrogatepass"))
    return text, metadata
