"""Rows of files, one at a time: txt (one text per line), csv and tsv (with a header), jsonl, parquet; also .gz.

A row is a dictionary by column; a line of a txt file, or a JSON string, is {"text": line}. Files are never held as a
whole. Every error names the file and the line.
"""

from __future__ import annotations

import csv
import gzip
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from sentence_transformers.cli.exit_codes import usage_error
from sentence_transformers.errors import InputError, MissingExtraError

STDIN = "-"
FORMATS = {".txt": "txt", ".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
FIELD_LIMIT = 64 * 2**20


class Record(NamedTuple):
    """A text and what names it: its row number, or what stands in the column of ids."""

    id: Any
    text: str


@dataclass(frozen=True)
class Rows:
    """A file of rows.

    Args:
        path: of the file, "-" for standard input.
        format: "txt", "csv", "tsv", "jsonl" or "parquet"; by default the file's suffix tells, standard input is "txt".
    """

    path: str
    format: str | None = None

    def __post_init__(self) -> None:
        if self.path != STDIN and not Path(self.path).is_file():
            reason = "is a folder" if Path(self.path).is_dir() else "does not exist"
            raise usage_error(f"the file {self.path!r} {reason}.")
        if self.kind not in FORMATS.values():
            known = ", ".join(dict.fromkeys(FORMATS.values()))
            raise usage_error(f"the format of {self.path!r} is not known; give --input-format, one of {known}.")

    @property
    def kind(self) -> str:
        """The format."""
        suffixes = [suffix.lower() for suffix in Path(self.path).suffixes if suffix.lower() != ".gz"]
        return self.format or ("txt" if self.path == STDIN else FORMATS.get(suffixes[-1] if suffixes else "", ""))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if self.kind == "parquet":
            yield from parquet_rows(self.path)
            return
        file = opened(self.path)
        try:
            yield from READERS[self.kind](file, self.path)
        except UnicodeDecodeError as error:
            raise InputError(f"{self.path} is not UTF-8: {error}. Convert it, e.g. with iconv.") from error
        finally:
            if file is not sys.stdin:
                file.close()

    def count(self) -> int | None:
        """How many rows there are; None for standard input, which can be read only once."""
        if self.path == STDIN:
            return None
        if self.kind == "parquet":
            return parquet_file(self.path).metadata.num_rows
        return sum(1 for _ in self)

    def with_texts(
        self, column: str | None = None, id_column: str | None = None
    ) -> Iterator[tuple[dict[str, Any], Record]]:
        """The rows, each with its text and id: what stands in `id_column`, else the row number.

        Raises:
            InputError: if a row has no text in its column.
        """
        for number, row in enumerate(self):
            column = column or self._column(row)
            text = row.get(column)
            if not isinstance(text, str):
                raise InputError(
                    f"{self.path}, row {number + 1}: column {column!r} holds {text!r:.60}, not a text. "
                    f"The columns are {', '.join(map(repr, row))}."
                )
            if id_column is not None and id_column not in row:
                raise InputError(f"{self.path}, row {number + 1}: there is no column {id_column!r} for the id.")
            yield row, Record(number if id_column is None else row[id_column], text)

    def texts(self, column: str | None = None, id_column: str | None = None) -> Iterator[Record]:
        """The texts with their ids alone."""
        return (record for _, record in self.with_texts(column, id_column))

    def _column(self, row: dict[str, Any]) -> str:
        """Which column has the texts, if none is named."""
        if "text" in row or len(row) == 1:
            return "text" if "text" in row else next(iter(row))
        raise usage_error(f"{self.path} has the columns {', '.join(map(repr, row))}; say which.", "--column")

    def table(self, columns: list[str] | None = None, least: int = 1) -> dict[str, list[Any]]:
        """The whole file by column, in memory.

        Args:
            columns: those wanted, in this order; default: all.
            least: how many columns there must be.
        """
        rows = list(self)
        if not rows:
            raise InputError(f"{self.path} has no rows.")
        names = columns or list(rows[0])
        if len(names) < least:
            raise InputError(f"{self.path} needs at least {least} columns; it has {', '.join(map(repr, names))}.")
        for number, row in enumerate(rows):
            if missing := [name for name in names if row.get(name) is None]:
                raise InputError(f"{self.path}, row {number + 1}: nothing in the column {missing[0]!r}.")
        return {name: [row[name] for row in rows] for name in names}


def opened(path: str) -> TextIO:
    """A file of text, unpacked if it is packed."""
    if path == STDIN:
        sys.stdin.reconfigure(encoding="utf-8-sig")  # type: ignore[union-attr]
        return sys.stdin
    if path.lower().endswith(".gz"):
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return open(path, encoding="utf-8-sig", newline="")  # noqa: PTH123  # closed by the reader


def line_rows(file: TextIO, path: str) -> Iterator[dict[str, Any]]:
    """One text per line; an empty line is an empty text."""
    for line in file:
        yield {"text": line.rstrip("\r\n")}


def json_rows(file: TextIO, path: str) -> Iterator[dict[str, Any]]:
    """One JSON object, or string, per line; empty lines are passed over."""
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{path}, line {number} is not JSON: {error}.") from error
        if not isinstance(row, dict | str):
            raise InputError(f"{path}, line {number} is neither a JSON object nor a string: {line.strip():.60}")
        yield {"text": row} if isinstance(row, str) else row


def separated_rows(file: TextIO, path: str, separator: str = ",") -> Iterator[dict[str, Any]]:
    """Rows below a header; fields that look like numbers become numbers where a whole is asked for, not here."""
    csv.field_size_limit(FIELD_LIMIT)
    reader = csv.DictReader(file, delimiter=separator)
    try:
        for row in reader:
            if None in row:
                raise InputError(f"{path}, line {reader.line_num} has more fields than the header has names.")
            yield row
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: {error}.") from error


def tab_rows(file: TextIO, path: str) -> Iterator[dict[str, Any]]:
    """`separated_rows` by tabs."""
    return separated_rows(file, path, "\t")


READERS = {"txt": line_rows, "csv": separated_rows, "tsv": tab_rows, "jsonl": json_rows}


def parquet_module() -> Any:
    """pyarrow's part for parquet files."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError("pyarrow", "train", "Reading and writing parquet files") from error
    return pyarrow.parquet


def parquet_file(path: str) -> Any:
    """An open parquet file."""
    if path == STDIN:
        raise usage_error("parquet cannot be read from standard input.")
    try:
        return parquet_module().ParquetFile(path)
    except (ValueError, OSError) as error:
        raise InputError(f"{path} is not a parquet file: {error}") from error


def parquet_rows(path: str) -> Iterator[dict[str, Any]]:
    """Rows of a parquet file, some thousand in memory."""
    for batch in parquet_file(path).iter_batches(batch_size=4096):
        yield from batch.to_pylist()
