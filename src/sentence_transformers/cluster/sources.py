"""What is encoded: files of rows, cut into units of work that any machine can read by itself.

    files → survey (size, checksum, rows, where units begin) → units → read(unit) → rows

A unit is a run of rows of one file. JSON lines and CSV are cut where a line or a record ends, and a unit is a range of
bytes; where a record of CSV ends is for Python's csv module to say, here and when it is read. Parquet is cut at rows.
Rows are numbered through all files in the order of their names; the number is a row's id unless a column has ids.

A row becomes a `Record`, or a `Reject` if it has no text to encode: it is null or no string, its line is no JSON object
or has too many fields, its id is missing. Nothing else is repaired or dropped; blank lines are no rows.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, TextIO, TypeAlias

import numpy as np

from sentence_transformers.errors import InputError, MissingExtraError
from sentence_transformers.storage.files import sha256_of

FORMATS = {".parquet": "parquet", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv"}
BLOCK = 2**22
Key: TypeAlias = int | str


@dataclass(frozen=True)
class Unit:
    """A run of rows of one file.

    Attributes:
        number: of the unit, from 0, through all files.
        path, format: the file.
        begin, end: bytes, or rows for Parquet.
        first: number of its first row through all files.
        rows: how many, blank lines included.
    """

    number: int
    path: str
    format: str
    begin: int
    end: int
    first: int
    rows: int

    def json(self) -> str:
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class Survey:
    """What is known of a file before its rows are read.

    Attributes:
        path, size, sha256: of the file.
        columns: names of the columns; of JSON lines those of the first object.
        cuts: begin and end of each unit and its number of rows.
    """

    path: str
    size: int
    sha256: str
    columns: list[str]
    cuts: list[tuple[int, int, int]]

    @property
    def rows(self) -> int:
        return sum(rows for _, _, rows in self.cuts)


@dataclass(frozen=True)
class Columns:
    """Which columns are read.

    Attributes:
        text: of the text, or of both texts of a pair.
        id: of the ids; None for row numbers.
        metadata: further ones that go to a database.
    """

    text: tuple[str, ...]
    id: str | None = None
    metadata: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        return [*self.text, *([self.id] if self.id else []), *self.metadata]


class Record(NamedTuple):
    """A row to encode; `text` is a pair if there are two columns of text."""

    id: Key
    text: Any
    metadata: dict[str, Any]


class Reject(NamedTuple):
    """A row that cannot be encoded."""

    id: Key
    reason: str


def find_files(source: str) -> list[str]:
    """The files of a path, folder or glob, sorted.

    Raises:
        InputError: if there are none, or one is of a format that is not known.
    """
    path = Path(source).expanduser()
    if "://" in source:
        raise InputError(
            f"{source!r} is an address; give a path that all machines see, or a Ray or Hugging Face dataset."
        )
    if path.is_dir():
        found = [one for one in sorted(path.iterdir()) if one.suffix in FORMATS]
    elif path.is_file():
        found = [path]
    else:
        anchor = Path(path.anchor) if path.is_absolute() else Path()
        found = sorted(one for one in anchor.glob(str(path.relative_to(path.anchor))) if one.is_file())
    if not found:
        raise InputError(f"There is no file at {source!r} (formats: {', '.join(FORMATS)}).")
    if odd := [str(one) for one in found if one.suffix not in FORMATS]:
        raise InputError(f"{odd[0]!r} is none of {', '.join(FORMATS)}.")
    return [str(one.resolve()) for one in found]


def survey(path: str, shard_rows: int) -> Survey:
    """Read a file once: its checksum, columns, and where units of `shard_rows` rows begin."""
    kind = FORMATS[Path(path).suffix]
    if kind == "parquet":
        file = parquet().ParquetFile(path)
        rows = file.metadata.num_rows
        sizes = [(begin, min(shard_rows, rows - begin)) for begin in range(0, rows, shard_rows)]
        cuts = [(begin, begin + size, size) for begin, size in sizes]
        return Survey(path, Path(path).stat().st_size, sha256_of(path), list(file.schema_arrow.names), cuts)
    if kind == "csv":
        columns, cuts = survey_csv(path, shard_rows)
        return Survey(path, Path(path).stat().st_size, sha256_of(path), columns, cuts)
    digest, size, cuts = survey_lines(path, shard_rows)
    return Survey(path, size, digest, first_keys(path), cuts)


def survey_csv(path: str, shard_rows: int) -> tuple[list[str], list[tuple[int, int, int]]]:
    """Columns and cuts of a CSV file; the first record names the columns."""
    cuts: list[tuple[int, int, int]] = []
    with Path(path).open(encoding="utf-8", errors="surrogateescape", newline="") as stream, no_limit():
        lines = CountedLines(stream)
        records = csv.reader(lines)
        columns = next(records, [])
        begin, rows = lines.done, 0
        for _ in records:
            rows += 1
            if rows == shard_rows:
                cuts.append((begin, lines.done, rows))
                begin, rows = lines.done, 0
        if rows:
            cuts.append((begin, lines.done, rows))
    return columns, cuts


class CountedLines:
    """The lines of a text file, without a byte order mark.

    Attributes:
        done: bytes of the lines that were asked for.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream, self.done = stream, 0

    def __iter__(self) -> Iterator[str]:
        for line in self.stream:
            first = not self.done
            self.done += len(line) if line.isascii() else len(line.encode("utf-8", "surrogateescape"))
            yield line.removeprefix("\ufeff") if first else line


@contextmanager
def no_limit() -> Iterator[None]:
    """Fields of CSV may be as long as they are: texts of more than 131,072 characters are no error."""
    before = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def survey_lines(path: str, shard_rows: int) -> tuple[str, int, list[tuple[int, int, int]]]:
    """Checksum, size and cuts of a file of lines."""
    digest, cuts = hashlib.sha256(), []
    size = count = begin = last_end = 0
    with Path(path).open("rb") as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
            ends = np.flatnonzero(np.frombuffer(block, np.uint8) == 10) + 1 + size
            for end in ends[np.arange(count, count + len(ends)) % shard_rows == shard_rows - 1].tolist():
                cuts.append((begin, end, shard_rows))
                begin = end
            last_end = int(ends[-1]) if len(ends) else last_end
            count, size = count + len(ends), size + len(block)
    if begin < size:
        cuts.append((begin, size, count % shard_rows + (last_end < size)))
    return digest.hexdigest(), size, cuts


def first_keys(path: str) -> list[str]:
    """The names in the first JSON object of a file of JSON lines."""
    with Path(path).open("rb") as stream:
        for line in stream:
            try:
                found = json.loads(line)
            except ValueError:
                continue
            if isinstance(found, dict):
                return list(found)
    return []


def units_of(surveys: Sequence[Survey]) -> list[Unit]:
    """The units of all files, rows numbered through."""
    units: list[Unit] = []
    first = 0
    for one in surveys:
        for begin, end, rows in one.cuts:
            kind = FORMATS[Path(one.path).suffix]
            units.append(Unit(len(units), one.path, kind, begin, end, first, rows))
            first += rows
    return units


def check_columns(surveys: Sequence[Survey], columns: Columns) -> None:
    """`InputError` if a file lacks a column; it lists what is there."""
    for one in surveys:
        if missing := [name for name in columns.names if name not in one.columns]:
            raise InputError(f"{one.path} has no column {missing[0]!r}; it has {', '.join(map(repr, one.columns))}.")


def read(unit: Unit, columns: Columns, file_columns: Sequence[str]) -> Iterator[Record | Reject]:
    """The rows of a unit, in order.

    Raises:
        OSError: if there are more or fewer than were counted.
    """
    rows = {"parquet": parquet_rows, "jsonl": json_rows, "csv": csv_rows}[unit.format](unit, columns, file_columns)
    count = 0
    for row in rows:
        if row is not None:
            yield record_of(unit.first + count, row, columns)
        count += 1
    if count != unit.rows:
        raise OSError(f"{unit.path} has changed: unit {unit.number} has {count} rows, {unit.rows} were counted.")


def parquet_rows(unit: Unit, columns: Columns, file_columns: Sequence[str]) -> Iterator[Any]:
    """Rows `begin` to `end`; row groups outside are not read."""
    file = parquet().ParquetFile(unit.path)
    names = list(dict.fromkeys(columns.names))
    start = 0
    for group in range(file.num_row_groups):
        stop = start + file.metadata.row_group(group).num_rows
        if start < unit.end and stop > unit.begin:
            position = start
            for batch in file.iter_batches(10_000, row_groups=[group], columns=names):
                begin, end = max(unit.begin - position, 0), min(unit.end - position, len(batch))
                position += len(batch)
                if begin < end:
                    yield from batch.slice(begin, end - begin).to_pylist()
        start = stop


def lines_of(unit: Unit) -> bytes:
    """The bytes of a unit."""
    with Path(unit.path).open("rb") as stream:
        stream.seek(unit.begin)
        return stream.read(unit.end - unit.begin)


def json_rows(unit: Unit, columns: Columns, file_columns: Sequence[str]) -> Iterator[Any]:
    """Objects, None for blank lines, or what is wrong with a line."""
    for line in lines_of(unit).split(b"\n")[: unit.rows]:
        try:
            row = json.loads(line) if line.strip() else None
        except ValueError as error:
            row = f"the line is no JSON: {error}"
        yield row if row is None or isinstance(row, (dict, str)) else f"the line is a JSON {type(row).__name__}"


def csv_rows(unit: Unit, columns: Columns, file_columns: Sequence[str]) -> Iterator[Any]:
    """Rows as dictionaries, None for blank lines, or what is wrong with one. An empty field is an empty text."""
    text = lines_of(unit).decode("utf-8", "surrogateescape")
    with no_limit():
        records = list(csv.reader(io.StringIO(text, newline="")))
    for fields in records:
        if fields and len(fields) != len(file_columns):
            yield f"the row has {len(fields)} fields, the header {len(file_columns)}"
        else:
            yield dict(zip(file_columns, fields, strict=True)) if fields else None


def record_of(number: int, row: str | dict[str, Any], columns: Columns) -> Record | Reject:
    """A row as a record, or why it is none."""
    if isinstance(row, str):
        return Reject(number, row)
    key = number if columns.id is None else row.get(columns.id)
    if not isinstance(key, (int, str)) or isinstance(key, bool):
        return Reject(number, f"the id is {key!r:.80}")
    for name in columns.text:
        value = row.get(name)
        if value is None:
            return Reject(key, f"{name!r} is null" if name in row else f"there is no {name!r}")
        if not isinstance(value, str):
            return Reject(key, f"{name!r} is {value!r:.80} of type {type(value).__name__}")
        if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
            return Reject(key, f"{name!r} is not valid Unicode")
    texts = tuple(row[name] for name in columns.text)
    return Record(key, texts if len(texts) > 1 else texts[0], {name: row.get(name) for name in columns.metadata})


def parquet() -> Any:
    """pyarrow.parquet."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError("pyarrow", "ray", "Reading and writing Parquet") from error
    return pyarrow.parquet
