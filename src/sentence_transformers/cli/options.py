"""Options that several commands share, as types: `model: options.Model = options.DEFAULT_MODEL`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

DEFAULT_MODEL = "all-MiniLM-L6-v2"
LOADING = "Loading the model"
READING = "Reading"
WRITING = "Writing"


class Kind(StrEnum):
    """Kinds of models."""

    dense = "dense"
    sparse = "sparse"
    cross = "cross"
    late = "late"


class Side(StrEnum):
    """Sides of a search."""

    query = "query"
    document = "document"


class Layout(StrEnum):
    """How results are printed."""

    table = "table"
    tsv = "tsv"
    jsonl = "jsonl"


class Backend(StrEnum):
    """What computes."""

    torch = "torch"
    onnx = "onnx"
    openvino = "openvino"


Model = Annotated[
    str, typer.Option("--model", "-m", help="Folder, hub id, or short name of the model.", show_default=True)
]
ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="Folder, hub id, or short name of the model.")]
KindOption = Annotated[
    Kind | None, typer.Option("--kind", help="Kind of the model; found out if not given.", rich_help_panel=LOADING)
]
Device = Annotated[
    str | None, typer.Option("--device", help='Where to compute, e.g. "cuda:1".', rich_help_panel=LOADING)
]
BackendOption = Annotated[
    Backend, typer.Option("--backend", help="What computes the transformer.", rich_help_panel=LOADING)
]
Revision = Annotated[
    str | None, typer.Option("--revision", help="Branch, tag or commit of a hub model.", rich_help_panel=LOADING)
]
Offline = Annotated[bool, typer.Option("--offline", help="Never ask the network.", rich_help_panel=LOADING)]
Trust = Annotated[
    bool,
    typer.Option("--trust-remote-code", help="Let code that comes with the model run.", rich_help_panel=LOADING),
]
Column = Annotated[
    str | None,
    typer.Option("--column", help='Column of the texts; default: "text", or the only one.', rich_help_panel=READING),
]
IdColumn = Annotated[
    str | None, typer.Option("--id-column", help="Column of the ids; default: row numbers.", rich_help_panel=READING)
]
InputFormat = Annotated[
    str | None,
    typer.Option("--input-format", help="txt, csv, tsv, jsonl or parquet, if the name does not tell.",
                 rich_help_panel=READING),
]  # fmt: skip
BatchSize = Annotated[
    int | None, typer.Option("--batch-size", min=1, help="Most texts per forward pass.", rich_help_panel=LOADING)
]
TopK = Annotated[int, typer.Option("--top-k", "-k", min=1, help="Results per query.")]
Rerank = Annotated[
    str | None, typer.Option("--rerank", metavar="MODEL", help="A cross-encoder that sorts what was found.")
]
LayoutOption = Annotated[
    Layout | None,
    typer.Option("--format", "-f", help="table (default on a terminal), tsv (default in a pipe) or jsonl.",
                 rich_help_panel=WRITING),
]  # fmt: skip
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="No progress, no summary, no warnings.", rich_help_panel=WRITING)
]
Documents = Annotated[
    str, typer.Option("--documents", "-d", metavar="FILE", help='File of documents, "-" for standard input.')
]
OutputFile = Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Where the result goes.")]
