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
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sentence_transformers.cli.exit_codes import usage_error
from sentence_transformers.cli.row_readers import parquet_module
from sentence_transformers.util.atomic import drafts, replacing
from sentence_transformers.util.csr import SparseRows, arrow_table

SETTINGS = "settings.json"


class Chunk(NamedTuple):
    """Rows of the output.

    Attributes:
        columns: ids and, if wanted, texts.
        vectors: (N, H), or sparse.
    """

    columns: dict[str, list[Any]]
    vectors: np.ndarray | SparseRows


def json_lines(chunk: Chunk) -> str:
    """The rows of a chunk, one JSON object per line; float32 numbers with as many digits as they need."""
    vectors = chunk.vectors
    sparse = isinstance(vectors, SparseRows)
    names = [json.dumps(name) for name in (*chunk.columns, *(("indices", "values") if sparse else ("embedding",)))]
    lines = []
    for *fields, vector in zip(*chunk.columns.values(), vectors, strict=True):
        values = map(json_value, (*fields, *vector) if sparse else (*fields, vector))
        lines.append("{" + ", ".join(f"{name}: {value}" for name, value in zip(names, values, strict=True)) + "}\n")
    return "".join(lines)


def json_value(value: object) -> str:
    """A value as JSON."""
    if isinstance(value, np.ndarray):
        return f"[{', '.join(map(str, value))}]"
    return json.dumps(value, ensure_ascii=False, default=str)


# ---- formats: how a chunk is written, and how chunks become one file


def write_npy(path: Path, chunk: Chunk) -> None:
    if isinstance(chunk.vectors, SparseRows):
        raise usage_error("an .npy file holds dense vectors; write .parquet or .jsonl for sparse ones.", "--output")
    np.save(path, chunk.vectors)


def join_npy(parts: list[Path], output: Path) -> None:
    arrays = [np.load(part, mmap_mode="r") for part in parts]
    shape = (sum(len(array) for array in arrays), *arrays[0].shape[1:])
    joined = np.lib.format.open_memmap(output, "w+", arrays[0].dtype, shape)
    start = 0
    for array in arrays:
        joined[start : start + len(array)] = array
        start += len(array)
    joined.flush()


def write_jsonl(path: Path, chunk: Chunk) -> None:
    path.write_text(json_lines(chunk), encoding="utf-8")


def join_jsonl(parts: list[Path], output: Path) -> None:
    with output.open("wb") as target:
        for part in parts:
            with part.open("rb") as source:
                shutil.copyfileobj(source, target)


def write_parquet(path: Path, chunk: Chunk) -> None:
    parquet_module().write_table(arrow_table(*chunk), path)


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

    def add(self, chunk: Chunk) -> None:
        """Write the next chunk."""
        path = self.folder / f"{len(self.parts):06}{self.output.suffix}"
        with replacing(path) as fresh:
            self.write(fresh, chunk)

    def finish(self) -> None:
        """Make the output of the chunks."""
        with replacing(self.output) as fresh:
            self.join(self.parts, fresh)
        shutil.rmtree(self.folder)
