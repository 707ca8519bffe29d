"""Ids in a data set -> what they stand for in other data sets, batch by batch."""

from __future__ import annotations

import ast
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from sentence_transformers.errors import InputError
from sentence_transformers.training.collator import ID_ENDINGS, LABEL_COLUMNS
from sentence_transformers.util.misc import column_values

if TYPE_CHECKING:
    from sentence_transformers.protocols import AnyDataset

logger = logging.getLogger(__name__)


class Lookup:
    """One data set of ids and values; found by id without reading the values beforehand."""

    def __init__(self, column: str, given: AnyDataset | tuple[AnyDataset, str] | tuple[AnyDataset, str, str]) -> None:
        if isinstance(given, tuple) and len(given) not in (2, 3):
            raise InputError(
                f"The lookup of {column!r} must be a Dataset, (dataset, id column) or (dataset, id column, value "
                f"column); got a tuple of {len(given)}."
            )
        dataset, *names = given if isinstance(given, tuple) else (given,)
        if not hasattr(dataset, "column_names"):
            raise TypeError(f"The lookup of {column!r} must hold a Dataset, got {type(dataset).__name__}.")
        columns = list(dataset.column_names)
        self.dataset = dataset
        self.id_column = names[0] if names else only(column, columns, lambda n: n == "id" or n.endswith("_id"), "id")
        rest = [name for name in columns if name != self.id_column]
        self.value_column = names[1] if len(names) > 1 else only(column, rest, lambda n: True, "value")
        for name in (self.id_column, self.value_column):
            if name not in columns:
                raise InputError(f"The lookup of {column!r} has no column {name!r}; it has {columns}.")
        ids = column_values(dataset, self.id_column)
        self.places = {key: i for i, key in enumerate(ids)}
        if len(self.places) < len(ids):
            logger.warning(
                "The lookup of %r has %d rows whose %r occurs again; the last one counts.",
                column,
                len(ids) - len(self.places),
                self.id_column,
            )

    def values(self, ids: Sequence[Any], column: str) -> list[Any]:
        """What ids stand for; `KeyError` for one that is missing."""
        missing = next((key for key in ids if key not in self.places), None)
        if missing is not None:
            raise KeyError(f"{missing!r} of column {column!r} is not among the {self.id_column!r} of its lookup.")
        distinct = list(dict.fromkeys(self.places[key] for key in ids))
        found = dict(zip(distinct, self.dataset.with_format(None)[distinct][self.value_column], strict=True))
        return [found[self.places[key]] for key in ids]


def only(column: str, names: list[str], fits: Callable[[str], bool], what: str) -> str:
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
        if isinstance(keep_columns, str):
            raise TypeError(f"keep_columns must be a list of names, got the text {keep_columns!r}.")
        if max_list_length is not None and max_list_length < 1:
            raise InputError(f"max_list_length must be at least 1 or None, got {max_list_length}.")
        if output_format not in ("columns", "lists"):
            raise InputError(f"output_format must be 'columns' or 'lists', got {output_format!r}.")
        self.lookups = {column: Lookup(column, given) for column, given in lookups.items()}
        self.keep_columns, self.max_list_length, self.output_format = keep_columns, max_list_length, output_format

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        if not isinstance(batch, Mapping):
            raise TypeError(formatted("A batch", batch))
        resolved: dict[str, Any] = {}
        for column, lookup in self.lookups.items():
            if column not in batch:
                raise KeyError(f"The data set has no column {column!r}; it has {sorted(batch)}.")
            add(resolved, self.resolve(column, lookup, plain_rows(batch, column, lookup.places)))
        for column in self.keep_columns:
            if column in batch:
                add(resolved, {column: [self.cut(value) for value in plain_rows(batch, column)]})
        return resolved

    def resolve(self, column: str, lookup: Lookup, rows: list[Any]) -> dict[str, Any]:
        """The columns that one column of ids becomes."""
        name = next((column.removesuffix(end) for end in ID_ENDINGS if column.endswith(end)), column)
        if not rows or not isinstance(rows[0], list | tuple):
            return {name: lookup.values(rows, column)}
        rows = [self.cut(row) for row in rows]
        flat = iter(lookup.values([key for row in rows for key in row], column))
        lists = [[next(flat) for _ in row] for row in rows]
        if self.output_format == "lists":
            return {plural(name) if column.endswith("_ids") else name: lists}
        sizes = {len(row) for row in lists}
        if len(sizes) != 1:
            raise InputError(f"Column {column!r} has lists of {sorted(sizes)} ids; output_format='lists' takes these.")
        return {f"{name}_{k + 1}": [row[k] for row in lists] for k in range(sizes.pop())}

    def cut(self, value: object) -> Any:
        return value[: self.max_list_length] if isinstance(value, list | tuple) else value


def plain_rows(batch: Mapping[str, Any], column: str, ids: Iterable[Any] = ()) -> list[Any]:
    """The values of a column; texts that are lists, "['d1', 'd2']", as lists.

    Args:
        ids: texts that are what they are.

    Raises:
        TypeError: if the data set has another format than Python's own.
        InputError: for a text that begins as a list and is none.
    """
    rows = batch[column]
    if not isinstance(rows, list | tuple):
        raise TypeError(formatted(f"Column {column!r}", rows))
    return [
        as_list(row, column) if isinstance(row, str) and row.lstrip().startswith("[") and row not in ids else row
        for row in rows
    ]


def as_list(text: str, column: str) -> list[Any]:
    """A list that was written as a text."""
    try:
        found = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise InputError(f"Column {column!r} has a text that begins as a list and is none: {text!r:.80}.") from error
    if not isinstance(found, list):
        raise InputError(f"Column {column!r} has a text that begins as a list and is none: {text!r:.80}.")
    return found


def formatted(what: str, found: object) -> str:
    """What to do with a data set that gives something else than lists of plain values."""
    return (
        f"{what} is a {type(found).__name__}, not lists of plain values: the data set has a format, or is not read in "
        "batches. Call dataset.with_format(None) and map(…, batched=True)."
    )


def add(columns: dict[str, Any], more: dict[str, Any]) -> None:
    """Add columns; `InputError` for a name that is there."""
    if twice := columns.keys() & more.keys():
        raise InputError(
            f"Column {min(twice)!r} would come out twice: of two lookups, of an expanded list, or of a kept column. "
            "Rename one of the columns it comes from."
        )
    columns.update(more)


def plural(name: str) -> str:
    """query -> queries, document -> documents."""
    return f"{name[:-1]}ies" if name.endswith("y") else f"{name}s"


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
        output_format: "columns" makes document_1, document_2, … of a list; "lists" one column of lists: document_ids
            becomes documents, query_ids queries, a name with another end keeps it.

    Returns:
        A function of batches, for `dataset.set_transform` or `dataset.map(batched=True)`.

    Raises:
        InputError: for lookups whose columns are not clear; later, for lists of different lengths, texts that begin as
            lists and are none, and names that would come out twice.
        TypeError: for lookups that are no data sets; later, for a data set with another format than Python's own.
        KeyError: later, for an id that is missing.
    """
    return Resolver(lookups, keep_columns, max_list_length, output_format)
