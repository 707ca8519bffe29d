"""Embeddings on disk, chunk by chunk, so that a run that was killed goes on where it was.

While a run lasts there is a folder beside its output, `OUTPUT.unfinished`:

    settings.json     what was asked for: input, model, options
    000000.npy …      the finished chunks, each written in one step

A run with the same settings takes the chunks that are there and goes on behind them; one with others is refused, so
that no file is ever made of two kinds of vectors. In the end the chunks become the output, in one step, and the
folder goes. A chunk has a number of texts that the settings fix; at most one is in memory.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sentence_transformers.cli.exit_codes import usage_error
from sentence_transformers.cli.texts import Record, parquet_module
from sentence_transformers.util.atomic import drafts, replacing

SETTINGS = "settings.json"


@dataclass(frozen=True)
class SparseRows:
    """Sparse vectors: entries start[i] to start[i + 1] of `indices` and `values` are those of row i."""

    start: np.ndarray
    indices: np.ndarray
    values: np.ndarray

    @classmethod
    def of(cls, tensor: Any) -> SparseRows:
        """From a sparse tensor (N, V)."""
        entries = tensor.coalesce().cpu()
        row_of, indices = entries.indices().numpy()
        start = np.searchsorted(row_of, np.arange(len(entries) + 1))
        return cls(start, indices, entries.values().float().numpy())

    def __len__(self) -> int:
        return len(self.start) - 1


Vectors = np.ndarray | SparseRows


def fields_of(records: Sequence[Record], vectors: Vectors, with_text: bool) -> dict[str, Any]:
    """The columns of a chunk as lists, or arrays of equal length."""
    fields: dict[str, Any] = {"id": [record.id for record in records]}
    if with_text:
        fields["text"] = [record.text for record in records]
    if isinstance(vectors, SparseRows):
        fields["indices"] = np.split(vectors.indices, vectors.start[1:-1])
        fields["values"] = np.split(vectors.values, vectors.start[1:-1])
    else:
        fields["embedding"] = vectors
    return fields


def json_lines(fields: dict[str, Any]) -> str:
    """The rows of a chunk, one JSON object per line; float32 numbers with as many digits as they need."""
    names = list(fields)
    lines = []
    for row in zip(*fields.values(), strict=True):
        parts = [f"{json.dumps(name)}: {json_value(value)}" for name, value in zip(names, row, strict=True)]
        lines.append("{" + ", ".join(parts) + "}\n")
    return "".join(lines)


def json_value(value: Any) -> str:
    """A value as JSON."""
    if isinstance(value, np.ndarray):
        return f"[{', '.join(map(str, value))}]"
    return json.dumps(value, ensure_ascii=False, default=str)


def arrow_table(fields: dict[str, Any]) -> Any:
    """The columns of a chunk as an arrow table; vectors are lists, of fixed length where they are dense."""
    import pyarrow as pa

    columns = {}
    for name, values in fields.items():
        if isinstance(values, np.ndarray):
            flat = pa.array(np.ascontiguousarray(values).reshape(-1))
            columns[name] = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
        elif values and isinstance(values[0], np.ndarray):
            columns[name] = pa.array(values, type=pa.list_(pa.from_numpy_dtype(values[0].dtype)))
        else:
            columns[name] = pa.array(values)
    return pa.table(columns)


# ---- formats: how a chunk is written, and how chunks become one file


def write_npy(path: Path, fields: dict[str, Any]) -> None:
    with path.open("wb") as file:
        np.save(file, fields["embedding"])


def join_npy(parts: list[Path], output: Path) -> None:
    arrays = [np.load(part, mmap_mode="r") for part in parts]
    shape = (sum(len(array) for array in arrays), *arrays[0].shape[1:])
    joined = np.lib.format.open_memmap(output, "w+", arrays[0].dtype, shape)
    start = 0
    for array in arrays:
        joined[start : start + len(array)] = array
        start += len(array)
    joined.flush()


def write_jsonl(path: Path, fields: dict[str, Any]) -> None:
    path.write_text(json_lines(fields), encoding="utf-8")


def join_jsonl(parts: list[Path], output: Path) -> None:
    with output.open("wb") as target:
        for part in parts:
            with part.open("rb") as source:
                shutil.copyfileobj(source, target)


def write_parquet(path: Path, fields: dict[str, Any]) -> None:
    parquet_module().write_table(arrow_table(fields), path)


def join_parquet(parts: list[Path], output: Path) -> None:
    parquet = parquet_module()
    with parquet.ParquetWriter(output, parquet.read_schema(parts[0])) as writer:
        for part in parts:
            writer.write_table(parquet.read_table(part))


FORMATS = {
    ".npy": (write_npy, join_npy),
    ".jsonl": (write_jsonl, join_jsonl),
    ".parquet": (write_parquet, join_parquet),
}


class Chunks:
    """The output of a run.

    Args:
        output: the file it will be; its suffix is one of `FORMATS`.
        settings: what was asked for, as plain values.
        restart: forget what an earlier run left.

    Attributes:
        done: how many rows the chunks have that were there at the beginning.
    """

    def __init__(self, output: Path, settings: dict[str, Any], restart: bool = False) -> None:
        if output.suffix not in FORMATS:
            raise usage_error(f"{output.name!r} must end in {', '.join(FORMATS)}.", "--output")
        if not output.parent.is_dir():
            raise usage_error(f"the folder {str(output.parent)!r} does not exist.", "--output")
        self.output, self.settings = output, settings
        self.folder = output.with_name(f"{output.name}.unfinished")
        self.write, self.join = FORMATS[output.suffix]
        if restart:
            shutil.rmtree(self.folder, ignore_errors=True)
        self._check()
        self.folder.mkdir(exist_ok=True)
        for left in drafts(output.parent, re.escape(output.name)):  # of a run that was killed at its end
            left.unlink(missing_ok=True)
        with replacing(self.folder / SETTINGS) as fresh:
            fresh.write_text(json.dumps(settings, indent=1))
        self.done = len(self.parts) * settings["chunk_size"]

    @property
    def parts(self) -> list[Path]:
        """The finished chunks."""
        return sorted(self.folder.glob(f"[0-9]*[0-9]{self.output.suffix}"))

    def _check(self) -> None:
        """Refuse to go on with what was begun with other settings."""
        file = self.folder / SETTINGS
        before = json.loads(file.read_text()) if file.is_file() else self.settings
        for name, value in self.settings.items():
            if before.get(name) != value:
                raise usage_error(
                    f"{self.folder} holds an unfinished run with {name} {before.get(name)!r}, not {value!r}. "
                    "Finish that one, or give --restart."
                )

    def add(self, fields: dict[str, Any]) -> None:
        """Write the next chunk."""
        path = self.folder / f"{len(self.parts):06}{self.output.suffix}"
        with replacing(path) as fresh:
            self.write(fresh, fields)

    def finish(self) -> None:
        """Make the output of the chunks."""
        with replacing(self.output) as fresh:
            self.join(self.parts, fresh)
        shutil.rmtree(self.folder)
