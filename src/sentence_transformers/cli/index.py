"""`index build`, `index add`, `index search`: an index that stays on disk."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sentence_transformers.cli import console, options
from sentence_transformers.cli.documents import Reading
from sentence_transformers.cli.exit_codes import complain, hush, usage_error
from sentence_transformers.cli.models import CLASSES
from sentence_transformers.cli.options import READING
from sentence_transformers.cli.row_readers import Rows
from sentence_transformers.cli.search import HIT_COLUMNS, Queries, QueryFile, queries_of

if TYPE_CHECKING:
    from sentence_transformers import Index
    from sentence_transformers.cli.models import Loading

CHUNK_SIZE = 4096
Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of the index.")]
DocumentFile = Annotated[str, typer.Argument(metavar="DOCUMENTS", help='File of documents, "-" for standard input.')]
Metadata = Annotated[
    list[str] | None,
    typer.Option("--metadata", metavar="COLUMN", help="Column to keep for filters; more than once for several.",
                 rich_help_panel=READING),
]  # fmt: skip
Passages = Annotated[
    int | None,
    typer.Option("--passages", metavar="TOKENS", min=1, rich_help_panel=READING,
                 help="Cut documents into passages of at most so many tokens."),
]  # fmt: skip
Overlap = Annotated[
    int,
    typer.Option("--overlap", metavar="TOKENS", min=0, rich_help_panel=READING,
                 help="Tokens that a passage shares with the one before."),
]  # fmt: skip
OwnModel = Annotated[
    str | None, typer.Option("--model", "-m", help="Where the model is now; default: what the index was made with.")
]
OwnSparseModel = Annotated[
    str | None, typer.Option("--sparse-model", metavar="MODEL", help="The same, of an index with two models.")
]


class Precision(StrEnum):
    """In what dense vectors are searched."""

    float32 = "float32"
    int8 = "int8"
    binary = "binary"


class Rescore(StrEnum):
    """Forms that are better than the one that is searched."""

    float32 = "float32"
    int8 = "int8"


class Engine(StrEnum):
    """Libraries of HNSW graphs."""

    usearch = "usearch"
    faiss = "faiss"


class Fusion(StrEnum):
    """How two rankings become one."""

    rrf = "rrf"
    weighted = "weighted"


def build(
    folder: Folder,
    documents: DocumentFile,
    model: options.Model = options.DEFAULT_MODEL,
    sparse_model: Annotated[
        str | None, typer.Option("--sparse-model", metavar="MODEL", help="A sparse encoder beside it: hybrid search.")
    ] = None,
    precision: Annotated[
        Precision,
        typer.Option("--precision", help="The form of the vectors that is searched."),
    ] = Precision.float32,
    rescore: Annotated[
        Rescore | None,
        typer.Option(
            "--rescore", help="The form on disk that scores what was found again; of binary: int8 by default."
        ),
    ] = None,
    approximate: Annotated[
        Engine | None, typer.Option("--approximate", help="Search in HNSW graphs of this library, instead of exactly.")
    ] = None,
    column: options.Column = None,
    id_column: options.IdColumn = None,
    metadata: Metadata = None,
    passages: Passages = None,
    overlap: Overlap = 0,
    input_format: options.InputFormat = None,
    quiet: options.Quiet = False,
    device: options.Device = None,
    backend: options.BackendOption = options.Backend.torch,
    revision: options.Revision = None,
    offline: options.Offline = False,
    trust_remote_code: options.Trust = False,
) -> None:
    """Make an index of a file of documents.

    Documents are read, encoded and stored some thousand at a time. With --sparse-model each is found by meaning and by
    words. A model reads the beginning of a long document; --passages cuts it into pieces that are all read.

    [bold]Example[/bold]: sentence-transformers index build facts.index facts.csv --id-column id --metadata year
    """
    from sentence_transformers.cli.models import Loading, kind_of, load

    hush(quiet)
    rows, reading = Rows(documents, input_format), Reading(column, id_column, metadata or [], passages, overlap)
    if folder.exists() and any(folder.iterdir() if folder.is_dir() else [folder]):
        raise usage_error(f"{folder} is there already; `index add` adds documents to an index.")
    loading = Loading(device, backend, revision, offline, trust_remote_code)
    kinds = [options.Kind.dense] if sparse_model else [options.Kind.dense, options.Kind.sparse]
    models = [load(model, loading, kind_of(model, loading, *kinds), *kinds)]
    if sparse_model:
        sparse = options.Kind.sparse
        models += [
            load(sparse_model, loading.of_another(), kind_of(sparse_model, loading.of_another(), sparse), sparse)
        ]
    from sentence_transformers import Index

    settings: dict[str, Any] = {"precision": str(precision), "approximate": approximate and str(approximate)}
    settings |= {"rescore": str(rescore)} if rescore else {}
    with Index(*models, **settings) as index:
        index.save(folder)
        add_rows(index, rows, reading, False, quiet)
        index.compact()


def add(
    folder: Folder,
    documents: DocumentFile,
    model: OwnModel = None,
    sparse_model: OwnSparseModel = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace documents whose ids are there already.")] = False,
    column: options.Column = None,
    id_column: options.IdColumn = None,
    metadata: Metadata = None,
    passages: Passages = None,
    overlap: Overlap = 0,
    input_format: options.InputFormat = None,
    quiet: options.Quiet = False,
    device: options.Device = None,
    backend: options.BackendOption = options.Backend.torch,
    revision: options.Revision = None,
    offline: options.Offline = False,
    trust_remote_code: options.Trust = False,
) -> None:
    """Add documents to an index.

    [bold]Example[/bold]: sentence-transformers index add facts.index new.csv --id-column id --replace
    """
    from sentence_transformers.cli.models import Loading

    hush(quiet)
    rows, reading = Rows(documents, input_format), Reading(column, id_column, metadata or [], passages, overlap)
    loading = Loading(device, backend, revision, offline, trust_remote_code)
    with opened(folder, model, sparse_model, loading) as index:
        add_rows(index, rows, reading, replace, quiet)


def search(
    folder: Folder,
    queries: Queries = None,
    query_file: QueryFile = None,
    top_k: options.TopK = 5,
    filter: Annotated[
        str | None, typer.Option("--filter", metavar="JSON", help='Which documents, e.g. \'{"year": {">": 2000}}\'.')
    ] = None,
    rerank: options.Rerank = None,
    candidates: Annotated[
        int, typer.Option("--candidates", min=1, help="How many are found to be fused or sorted.")
    ] = 100,
    fusion: Annotated[
        Fusion, typer.Option("--fusion", help="Of two models: by places (reciprocal ranks) or by scores.")
    ] = Fusion.rrf,
    exact: Annotated[bool, typer.Option("--exact", help="Make no use of HNSW graphs.")] = False,
    model: OwnModel = None,
    sparse_model: OwnSparseModel = None,
    layout: options.LayoutOption = None,
    quiet: options.Quiet = False,
    device: options.Device = None,
    backend: options.BackendOption = options.Backend.torch,
    revision: options.Revision = None,
    offline: options.Offline = False,
    trust_remote_code: options.Trust = False,
) -> None:
    """Find the documents of an index that are nearest to each query.

    [bold]Example[/bold]: sentence-transformers index search facts.index "How hot is lightning?" -k 3
    """
    from sentence_transformers.cli.models import Loading, load

    hush(quiet)
    asked = queries_of(queries, query_file)
    chosen = parsed(filter)
    loading = Loading(device, backend, revision, offline, trust_remote_code)
    index = opened(folder, model, sparse_model, loading)
    reranker = load(rerank, loading.of_another(), options.Kind.cross) if rerank else None
    results = index.search(
        asked, top_k, filter=chosen, reranker=reranker, candidates=candidates, fusion=str(fusion), exact=exact
    )
    console.rows(printed(asked, results), layout, HIT_COLUMNS)


# ---- what they share


def opened(folder: Path, model: str | None, sparse_model: str | None, loading: Loading) -> Any:
    """The index of a folder, with the models it was made with, or where they are said to be now."""
    from sentence_transformers import Index
    from sentence_transformers.cli.models import kind_of, load

    index = Index.load(folder)
    remembered = index.remembered_models
    index.close()
    if sparse_model and len(remembered) < 2:
        raise usage_error("the index was made with one model, which is given by --model.", "--sparse-model")
    models: list[Any] = []
    for kind in (options.Kind.dense, options.Kind.sparse):
        if (known := remembered.get(CLASSES[kind])) is None:
            continue
        given, how = (sparse_model, loading.of_another()) if models else (model, loading)
        if given:
            models.append(load(given, how, kind_of(given, how, kind), kind))
        elif known["name"]:
            how = dataclasses.replace(how, revision=how.revision or known.get("revision"))
            models.append(load(known["name"], how, kind, **known.get("settings", {})))
        else:
            raise usage_error(
                "the index does not name the model it was made with.", "--sparse-model" if models else "--model"
            )
    return Index.load(folder, *models)


def add_rows(index: Index, rows: Rows, reading: Reading, replace: bool, quiet: bool) -> None:
    """Add the rows of a file, one commit for some thousand of them."""
    before, unit = len(index), "documents" if reading.passages is None else "passages"
    model = next(iter(index.models.values()))
    source = reading.documents(rows, model)
    total = None if quiet or reading.passages else rows.count()
    with console.progress(total, unit=unit, quiet=quiet) as advance:
        while part := list(itertools.islice(source, CHUNK_SIZE)):
            ids, texts, metadata = map(list, zip(*part, strict=True))
            index.add(
                texts,
                ids=ids if reading.id_column else None,
                metadata=metadata if reading.keeps_metadata else None,
                replace=replace,
                show_progress_bar=False,
            )
            advance(len(part))
    if replace:
        index.delete(list(left_over(index, reading)))
    if not quiet:
        complain(f"{len(index) - before:,} {unit} added; {index!r}")


def left_over(index: Index, reading: Reading) -> Iterator[str]:
    """The ids of passages of documents that had more of them before they were replaced."""
    for document, length in reading.lengths.items():
        numbers = itertools.count(length)
        yield from itertools.takewhile(index.__contains__, (f"{document}#{number}" for number in numbers))


def parsed(text: str | None) -> dict[str, Any] | None:
    """A filter as the user wrote it."""
    if text is None:
        return None
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise usage_error(f"this is not JSON: {error}.", "--filter") from error
    if not isinstance(found, dict):
        raise usage_error("a JSON object is expected.", "--filter")
    return found


def printed(queries: list[str], results: list[Any]) -> Iterator[dict[str, Any]]:
    """Hits as rows to be shown."""
    for query, hits in zip(queries, results, strict=True):
        for place, hit in enumerate(hits, 1):
            row = {"query": query, "rank": place, "score": float(hit.score), "id": hit.id, "text": hit.text}
            yield row | ({"metadata": hit.metadata} if hit.metadata else {})
