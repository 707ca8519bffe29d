"""Ids in a data set -> what they stand for in other data sets, batch by batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from sentence_transformers.errors import InputError
from sentence_transformers.training.collator import LABEL_COLUMNS
from sentence_transformers.util.misc import column_values


class Lookup:
    """One data set of ids and values; found by id without reading the values beforehand."""

    def __init__(self, column: str, given: Any) -> None:
        dataset, *names = given if isinstance(given, tuple) else (given,)
        columns = list(dataset.column_names)
        self.dataset = dataset
        self.id_column = names[0] if names else only(column, columns, lambda n: n == "id" or n.endswith("_id"), "id")
        rest = [name for name in columns if name != self.id_column]
        self.value_column = names[1] if len(names) > 1 else only(column, rest, lambda n: True, "value")
        for name in (self.id_column, self.value_column):
            if name not in columns:
                raise InputError(f"The lookup of {column!r} has no column {name!r}; it has {columns}.")
        self.places = {key: i for i, key in enumerate(column_values(dataset, self.id_column))}

    def values(self, ids: Sequence[Any], column: str) -> list[Any]:
        """What ids stand for; `KeyError` for one that is missing."""
        missing = next((key for key in ids if key not in self.places), None)
        if missing is not None:
            raise KeyError(f"{missing!r} of column {column!r} is not among the {self.id_column!r} of its lookup.")
        distinct = list(dict.fromkeys(self.places[key] for key in ids))
        found = dict(zip(distinct, self.dataset.with_format(None)[distinct][self.value_column], strict=True))
        return [found[self.places[key]] for key in ids]


def only(column: str, names: list[str], fits: Any, what: str) -> str:
    """The single column that fits; `InputError` if there are none or several."""
    found = [name for name in names if fits(name)]
    if len(found) != 1:
        raise InputError(
            f"The lookup of {column!r} has no single {what} column among {names}; name it: (dataset, id, value)."
        )
    return found[0]


class Resolver:
    """A batched transform; see `resolve_ids`."""

    def __init__(
        self, lookups: Mapping[str, Any], keep_columns: Sequence[str], max_list_length: int | None, output_format: str
    ) -> None:
        if not lookups:
            raise InputError("lookups is empty: name at least one column of ids.")
        if max_list_length is not None and max_list_length < 1:
            raise InputError(f"max_list_length must be at least 1 or None, got {max_list_length}.")
        if output_format not in ("columns", "lists"):
            raise InputError(f"output_format must be 'columns' or 'lists', got {output_format!r}.")
        self.lookups = {column: Lookup(column, given) for column, given in lookups.items()}
        self.keep_columns, self.max_list_length, self.output_format = keep_columns, max_list_length, output_format

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        resolved: dict[str, Any] = {}
        for column, lookup in self.lookups.items():
            if column not in batch:
                raise KeyError(f"The data set has no column {column!r}; it has {sorted(batch)}.")
            resolved |= self.resolve(column, lookup, list(batch[column]))
        for column in self.keep_columns:
            if column in batch:
                resolved[column] = [self.cut(value) for value in batch[column]]
        return resolved

    def resolve(self, column: str, lookup: Lookup, rows: list[Any]) -> dict[str, Any]:
        """The columns that one column of ids becomes."""
        name = column.removesuffix("_ids").removesuffix("_id")
        if not rows or not isinstance(rows[0], list | tuple):
            return {name: lookup.values(rows, column)}
        rows = [self.cut(row) for row in rows]
        flat = iter(lookup.values([key for row in rows for key in row], column))
        lists = [[next(flat) for _ in row] for row in rows]
        if self.output_format == "lists":
            return {f"{name}s": lists}
        sizes = {len(row) for row in lists}
        if len(sizes) != 1:
            raise InputError(f"Column {column!r} has lists of {sorted(sizes)} ids; output_format='lists' takes these.")
        return {f"{name}_{k + 1}": [row[k] for row in lists] for k in range(sizes.pop())}

    def cut(self, value: Any) -> Any:
        return list(value)[: self.max_list_length] if isinstance(value, list | tuple) else value


def resolve_ids(
    lookups: dict[str, Any],
    keep_columns: list[str] | tuple[str, ...] = LABEL_COLUMNS,
    max_list_length: int | None = None,
    output_format: Literal["columns", "lists"] = "columns",
) -> Resolver:
    """A transform that puts values into the place of ids.

    Args:
        lookups: column of ids -> the data set they are of, or (data set, id column[, value column]). The order is that
            of the columns that come out.
        keep_columns: further columns that are kept.
        max_list_length: at most so many of a list of ids.
        output_format: "columns" makes document_1, document_2, … of a list; "lists" one column of lists.

    Returns:
        A function of batches, for `dataset.set_transform` or `dataset.map(batched=True)`.

    Raises:
        InputError: for lookups whose columns are not clear; later, for lists of different lengths.
        KeyError: later, for an id that is missing.
    """
    return Resolver(lookups, keep_columns, max_list_length, output_format)
