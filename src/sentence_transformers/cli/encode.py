"""`encode`: a file of texts -> a file of vectors."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sentence_transformers.cli import console, options
from sentence_transformers.cli.exit_codes import complain, hush, usage_error
from sentence_transformers.cli.options import READING, WRITING
from sentence_transformers.cli.row_readers import STDIN, Record, Rows
from sentence_transformers.engine.prompts import PLAIN

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from sentence_transformers.cli.embedding_writers import Chunks
    from sentence_transformers.encoders.embedding import EmbeddingModel

CHUNK_SIZE = 4096


class Stored(StrEnum):
    """How the numbers of a vector are stored."""

    float32 = "float32"
    float16 = "float16"
    binary = "binary"
    ubinary = "ubinary"


def encode(
    input: Annotated[str, typer.Argument(metavar="INPUT", help='File of texts, "-" for standard input.')],
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help='FILE.npy, .parquet or .jsonl; "-" prints JSON lines.')
    ] = STDIN,
    model: options.Model = options.DEFAULT_MODEL,
    side: Annotated[
        options.Side | None, typer.Option("--as", help="Use the model's prompt for queries or for documents.")
    ] = None,
    prompt: Annotated[str | None, typer.Option("--prompt", help="Text put before each text.")] = None,
    prompt_name: Annotated[str | None, typer.Option("--prompt-name", help="A prompt of the model.")] = None,
    truncate_dim: Annotated[
        int | None, typer.Option("--truncate-dim", min=1, help="Keep only the first dimensions.")
    ] = None,
    normalize: Annotated[bool, typer.Option("--normalize", help="Scale vectors to length 1.")] = False,
    precision: Annotated[
        Stored, typer.Option("--precision", help="How numbers are stored; int8 and uint8: see `quantize`.")
    ] = Stored.float32,
    column: options.Column = None,
    id_column: options.IdColumn = None,
    input_format: options.InputFormat = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Only the first texts.", rich_help_panel=READING)
    ] = None,
    with_text: Annotated[
        bool, typer.Option("--with-text", help="Texts beside the vectors (parquet, jsonl).", rich_help_panel=WRITING)
    ] = False,
    chunk_size: Annotated[
        int, typer.Option("--chunk-size", min=1, help="Texts in memory at a time.", rich_help_panel=WRITING)
    ] = CHUNK_SIZE,
    restart: Annotated[
        bool, typer.Option("--restart", help="Forget an unfinished earlier run.", rich_help_panel=WRITING)
    ] = False,
    ray: Annotated[
        str | None,
        typer.Option(
            "--ray", metavar="[ADDRESS]", help="On this Ray cluster; without an address, all cores of this machine."
        ),
    ] = None,
    quiet: options.Quiet = False,
    kind: options.KindOption = None,
    batch_size: options.BatchSize = None,
    device: options.Device = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="CPU worker processes.", rich_help_panel=options.LOADING)
    ] = None,
    backend: options.BackendOption = options.Backend.torch,
    revision: options.Revision = None,
    offline: options.Offline = False,
    trust_remote_code: options.Trust = False,
) -> None:
    """Turn a file of texts into vectors.

    Memory stays bounded however long the file is. A run that was killed goes on where it was when the same command is
    given again. Row i of an .npy file is text i; .parquet and .jsonl have an id and, for sparse models, indices and
    values.

    With --ray many processes or machines share the work, the output is a folder of parquet shards, and rows without a
    text go to a file of their own, which ends with code 3.

    [bold]Example[/bold]: sentence-transformers encode articles.csv --column body -o articles.npy
    """
    from sentence_transformers.cli.models import CLASSES, Loading, batching, load, side_arguments

    hush(quiet)
    if ray is not None:
        from sentence_transformers.cli.ray import encode_on_ray

        refuse_with_ray(limit=limit, with_text=with_text, restart=restart, input_format=input_format, device=device)
        encode_on_ray(
            input,
            output,
            ray,
            model,
            quiet,
            column=column or "text",
            id_column=id_column,
            kind=CLASSES[kind] if kind else None,
            precision=str(precision),
            workers=workers,
            model_kwargs={"revision": revision, "local_files_only": offline, "trust_remote_code": trust_remote_code},
            prompt=prompt,
            prompt_name=prompt_name,
            truncate_dim=truncate_dim,
            normalize_embeddings=normalize or None,
            task=str(side) if side else PLAIN,
            **batching(batch_size),
        )
        return
    rows = Rows(input, input_format)
    if output != STDIN and Path(output).suffix == ".npy" and (with_text or id_column):
        raise usage_error("an .npy file holds vectors alone; write .parquet or .jsonl for ids and texts.", "--output")
    loading = Loading(device, backend, revision, offline, trust_remote_code)
    given: dict[str, Any] = {
        "prompt": prompt,
        "prompt_name": prompt_name,
        "truncate_dim": truncate_dim,
        "normalize_embeddings": normalize or None,
        "precision": str(precision) if precision in (Stored.binary, Stored.ubinary) else None,
    }
    arguments: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    task = Task(rows, column, id_column, limit, with_text, chunk_size, precision)
    chunks = None
    if output != STDIN:
        from sentence_transformers.cli.embedding_writers import Chunks

        settings = {**task.settings(), "model": model, "revision": revision, "side": side, "kind": kind, **given}
        chunks = Chunks(Path(output), settings, restart or input == STDIN)
    encoder = load(model, loading, kind, options.Kind.dense, options.Kind.sparse)
    sided = side_arguments(encoder, side)
    if prompt is not None or prompt_name is not None:
        sided.pop("prompt_name", None)
    if workers is not None:
        arguments["num_workers"] = workers
    run(encoder, task, chunks, sided | arguments | batching(batch_size), quiet)


def refuse_with_ray(**given: Any) -> None:
    """Wrong usage for options that `--ray` does not take."""
    for name, value in given.items():
        if value:
            raise usage_error(f"goes without --{name.replace('_', '-')}.", "--ray")


class Task:
    """What is to be encoded, and in which form it is stored."""

    def __init__(
        self,
        rows: Rows,
        column: str | None,
        id_column: str | None,
        limit: int | None,
        with_text: bool,
        chunk_size: int,
        precision: Stored,
    ) -> None:
        self.rows, self.column, self.id_column, self.limit = rows, column, id_column, limit
        self.with_text, self.chunk_size, self.precision = with_text, chunk_size, precision

    def settings(self) -> dict[str, Any]:
        """What decides which vectors stand where in the output, as plain values."""
        path = None if self.rows.path == STDIN else Path(self.rows.path).resolve()
        stat = None if path is None else path.stat()
        return {
            "input": None if path is None else str(path),
            "size of the input": None if stat is None else stat.st_size,
            "time of the input": None if stat is None else stat.st_mtime_ns,
            "column": self.column,
            "id column": self.id_column,
            "limit": self.limit,
            "with text": self.with_text,
            "chunk_size": self.chunk_size,
            "stored as": str(self.precision),
        }

    def count(self) -> int | None:
        """How many texts there are, if that can be told."""
        count = self.rows.count()
        return count if count is None or self.limit is None else min(count, self.limit)

    def records(self, start: int) -> Iterator[Record]:
        """The texts from number `start` on."""
        return itertools.islice(self.rows.texts(self.column, self.id_column), start, self.limit)

    def stored(self, embeddings: np.ndarray | Tensor) -> Any:
        """Vectors in the form in which they are stored."""
        import numpy as np

        from sentence_transformers.util.csr import sparse_rows

        if not isinstance(embeddings, np.ndarray):
            rows = sparse_rows(embeddings.cpu())
            assert rows is not None
            return replace(rows, values=rows.values.astype(np.float32, copy=False))
        return embeddings.astype(np.float16) if self.precision == Stored.float16 else embeddings


def run(model: EmbeddingModel, task: Task, chunks: Chunks | None, arguments: dict[str, Any], quiet: bool) -> None:
    """Encode, and write chunk after chunk to `chunks`, or print them if that is None."""
    from sentence_transformers.cli.embedding_writers import Chunk, json_lines

    done = 0 if chunks is None else chunks.done
    total = None if quiet and chunks is None else task.count()
    done = done if total is None else min(done, total)
    if chunks is not None and done and not quiet:
        complain(f"Going on after {done:,} texts that are in {chunks.folder}.")
    taken: list[Record] = []
    started, new = time.monotonic(), 0
    with console.progress(total, done, quiet=quiet) as advance:
        for embeddings in model.encode_stream(noted(task.records(done), taken), task.chunk_size, **arguments):
            columns = {"id": [record.id for record in taken]}
            if task.with_text:
                columns["text"] = [record.text for record in taken]
            chunk = Chunk(columns, task.stored(embeddings))
            if chunks is None:
                sys.stdout.write(json_lines(chunk))
                sys.stdout.flush()
            else:
                chunks.add(chunk)
            new += len(taken)
            advance(len(taken))
            taken.clear()
    if done + new == 0:
        raise usage_error(f"{task.rows.path} has no texts.")
    if chunks is not None:
        chunks.finish()
    if not quiet:
        seconds = time.monotonic() - started
        where = "" if chunks is None else f" -> {chunks.output}"
        complain(f"{done + new:,} texts{where} in {console.duration(seconds)}, {new / seconds:,.0f} texts/s")


def noted(records: Iterator[Record], taken: list[Record]) -> Iterator[str]:
    """The texts; each record that was asked for is noted in `taken`."""
    for record in records:
        taken.append(record)
        yield record.text
