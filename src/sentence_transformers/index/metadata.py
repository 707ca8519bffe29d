"""Metadata by field, to filter with: the distinct values of each field, and for each row which of them it has.

    meta.fields         JSON, the names of the fields
    meta.codes.3        int32 (N,): the place of each row's value in the field's values, -1 without the field
    meta.values.3       JSON, the distinct values

A comparison is made once per distinct value; the rows follow by one lookup.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from sentence_transformers.index.arrays import Arrays, Column
from sentence_transformers.index.blobs import Parts
from sentence_transformers.index.records import Metadata
from sentence_transformers.search import filters


def build(metadata: Sequence[Metadata]) -> dict[str, Column]:
    """The arrays of a segment's metadata."""
    codes: dict[str, np.ndarray] = {}
    values: dict[str, dict[str, int]] = {}
    for row, one in enumerate(metadata):
        for field, value in one.items():
            if field not in codes:
                codes[field], values[field] = np.full(len(metadata), -1, dtype=np.int32), {}
            key = json.dumps(value, sort_keys=True)
            codes[field][row] = values[field].setdefault(key, len(values[field]))
    return columns_of({field: (codes[field], list(values[field])) for field in codes})


def columns_of(fields: dict[str, tuple[np.ndarray, list[str]]]) -> dict[str, Column]:
    """Codes and values (as JSON) of each field as arrays."""
    columns = {"meta.fields": text(json.dumps(list(fields)))}
    for number, (codes, values) in enumerate(fields.values()):
        columns[f"meta.codes.{number}"] = Column.of(codes)
        columns[f"meta.values.{number}"] = text(f"[{','.join(values)}]")
    return columns


def text(content: str) -> Column:
    return Column.of(np.frombuffer(content.encode(), np.uint8))


def join(parts: Parts) -> dict[str, Column]:
    """The metadata of the rows that are kept."""
    total, start = sum(len(rows) for _, rows in parts), 0
    codes: dict[str, np.ndarray] = {}
    values: dict[str, dict[str, int]] = {}
    for arrays, rows in parts:
        for number, field in enumerate(fields_of(arrays)):
            kept = arrays.all(f"meta.codes.{number}")[rows]
            used = np.unique(kept[kept >= 0])
            if not len(used):
                continue
            codes.setdefault(field, np.full(total, -1, dtype=np.int32))
            own, known = values_of(arrays, number), values.setdefault(field, {})
            table = np.full(len(own) + 1, -1, dtype=np.int32)
            for code in used.tolist():
                table[code] = known.setdefault(json.dumps(own[code], sort_keys=True), len(known))
            codes[field][start : start + len(rows)] = table[kept]
        start += len(rows)
    return columns_of({field: (codes[field], list(values[field])) for field in codes})


def fields_of(arrays: Arrays) -> list[str]:
    """The fields that the documents of a segment have."""
    return json.loads(arrays.all("meta.fields").tobytes())


def values_of(arrays: Arrays, number: int) -> list[Any]:
    """The distinct values of a field, by its number."""
    return json.loads(arrays.all(f"meta.values.{number}").tobytes())


def mask(one: filters.Filter, arrays: Arrays, count: int) -> np.ndarray:
    """Which of `count` rows fulfil a filter: bool (N,)."""
    numbers = {field: number for number, field in enumerate(fields_of(arrays))}

    def leaf(condition: filters.Condition) -> np.ndarray:
        missing = condition.holds(filters.MISSING)
        if condition.field not in numbers:
            return np.full(count, missing)
        number = numbers[condition.field]
        table = np.array([*map(condition.holds, values_of(arrays, number)), missing])
        return table[arrays.all(f"meta.codes.{number}")]

    return filters.evaluate(one, leaf, np.ones(count, dtype=bool))
