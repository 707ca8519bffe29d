"""`search`, `rank` and `similarity`: what a few texts and a file can answer at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sentence_transformers.cli import console, options
from sentence_transformers.cli.exit_codes import hush, usage_error
from sentence_transformers.cli.options import Kind
from sentence_transformers.cli.row_readers import STDIN, Record, Rows

if TYPE_CHECKING:
    from sentence_transformers.encoders.cross_encoder import CrossEncoder
    from sentence_transformers.protocols import SearchEncoder

HIT_COLUMNS = ["query", "rank", "score", "id", "text"]
Queries = Annotated[list[str] | None, typer.Argument(metavar="QUERY...", help='Queries; "-" reads them, a line each.')]
QueryFile = Annotated[str | None, typer.Option("--queries", metavar="FILE", help="File of queries, instead.")]


def search(
    documents: options.Documents,
    queries: Queries = None,
    query_file: QueryFile = None,
    embeddings: Annotated[
        str | None,
        typer.Option("--embeddings", metavar="FILE.npy", help="Vectors of the documents, as `encode` wrote them."),
    ] = None,
    model: options.Model = options.DEFAULT_MODEL,
    top_k: options.TopK = 5,
    rerank: options.Rerank = None,
    candidates: Annotated[
        int, typer.Option("--candidates", min=1, help="How many are found for --rerank to sort.")
    ] = 50,
    column: options.Column = None,
    id_column: options.IdColumn = None,
    input_format: options.InputFormat = None,
    layout: options.LayoutOption = None,
    quiet: options.Quiet = False,
    kind: options.KindOption = None,
    batch_size: options.BatchSize = None,
    device: options.Device = None,
    backend: options.BackendOption = options.Backend.torch,
    revision: options.Revision = None,
    offline: options.Offline = False,
    trust_remote_code: options.Trust = False,
) -> None:
    """Find the documents of a file that are nearest to each query.

    Every query is compared with every document, exactly. For many searches in the same documents keep their vectors
    (`encode`, then --embeddings) or build an index (`index build`).

    [bold]Example[/bold]: sentence-transformers search "How hot is lightning?" -d facts.txt -k 3
    """
    from sentence_transformers.cli.models import Loading, batching, load

    hush(quiet)
    asked = queries_of(queries, query_file)
    found = list(Rows(documents, input_format).texts(column, id_column))
    check_documents(found, documents)
    loading = Loading(device, backend, revision, offline, trust_remote_code)
    kinds = [Kind.dense, Kind.sparse, *([] if embeddings else [Kind.late])]  # a file holds one vector per document
    encoder = load(model, loading, kind, *kinds)
    most = max(top_k, candidates) if rerank else top_k
    rows = hits_of(encoder, asked, found, embeddings, most, batching(batch_size))
    if rerank:
        reranker = load(rerank, loading.of_another(), Kind.cross)
        rows = [reranked(reranker, query, hits, found)[:top_k] for query, hits in zip(asked, rows, strict=True)]
    console.rows(printed(asked, rows, found), layout, HIT_COLUMNS)


def rank(
    query: Annotated[str, typer.Argument(help="The query.")],
    documents: options.Documents = STDIN,
    model: options.Model = "cross-encoder/ms-marco-MiniLM-L6-v2",
    top_k: Annotated[int | None, typer.Option("--top-k", "-k", min=1, help="Only the best.")] = None,
    column: options.Column = None,
    id_column: options.IdColumn = None,
    input_format: options.InputFormat = None,
    layout: options.LayoutOption = None,
    quiet: options.Quiet = False,
    batch_size: options.BatchSize = None,
    device: options.Device = None,
    backend: options.BackendOption = options.Backend.torch,
    revision: options.Revision = None,
    offline: options.Offline = False,
    trust_remote_code: options.Trust = False,
) -> None:
    """Sort documents by how well they answer a query, with a cross-encoder.

    [bold]Example[/bold]: grep -i heat facts.txt | sentence-transformers rank "How hot is lightning?"
    """
    from sentence_transformers.cli.models import Loading, batching, load

    hush(quiet)
    found = list(Rows(documents, input_format).texts(column, id_column))
    check_documents(found, documents)
    model_ = load(model, Loading(device, backend, revision, offline, trust_remote_code), None, Kind.cross)
    texts = [record.text for record in found]
    hits = model_.rank(query, texts, top_k=top_k, show_progress_bar=False, **batching(batch_size))
    console.rows(printed([query], [hits], found), layout, HIT_COLUMNS)


def similarity(
    texts: Annotated[list[str] | None, typer.Argument(metavar="TEXT...", help="Texts to compare, two or more.")] = None,
    pairs: Annotated[
        str | None, typer.Option("--pairs", metavar="FILE", help='File whose first two columns are compared; or "-".')
    ] = None,
    columns: Annotated[
        tuple[str, str] | None, typer.Option("--columns", help="Which two columns.", rich_help_panel=options.READING)
    ] = None,
    model: options.Model = options.DEFAULT_MODEL,
    input_format: options.InputFormat = None,
    layout: options.LayoutOption = None,
    quiet: options.Quiet = False,
    kind: options.KindOption = None,
    batch_size: options.BatchSize = None,
    device: options.Device = None,
    backend: options.BackendOption = options.Backend.torch,
    revision: options.Revision = None,
    offline: options.Offline = False,
    trust_remote_code: options.Trust = False,
) -> None:
    """How alike texts are: each with each, or the two columns of a file row by row.

    [bold]Example[/bold]: sentence-transformers similarity "A cat sleeps." "Two cats are asleep." "It rains."
    """
    from sentence_transformers.cli.models import Loading, batching, load

    hush(quiet)
    if (pairs is None) == (not texts):
        raise usage_error("give either texts or --pairs FILE.")
    if texts and len(texts) < 2:
        raise usage_error("one text has nothing to be compared with; give two or more.")
    if pairs is not None:
        table = Rows(pairs, input_format or ("tsv" if pairs == STDIN else None)).table(
            list(columns) if columns else None, least=2
        )
        first, second = [list(map(str, values)) for values in list(table.values())[:2]]
    loading = Loading(device, backend, revision, offline, trust_remote_code)
    encoder = load(model, loading, kind, Kind.dense, Kind.sparse, Kind.late)
    given: dict[str, Any] = {"show_progress_bar": False, **batching(batch_size)}
    if pairs is not None:
        scores = encoder.similarity_pairwise(encoder.encode(first, **given), encoder.encode(second, **given)).tolist()
        rows = [{"score": s, "text 1": a, "text 2": b} for s, a, b in zip(scores, first, second, strict=True)]
        console.rows(rows, layout, ["score", "text 1", "text 2"])
        return
    vectors = encoder.encode(list(texts or []), **given)
    numbers = [str(i + 1) for i in range(len(texts or []))]
    matrix = encoder.similarity(vectors, vectors).tolist()
    rows = [
        {"text": text} | dict(zip(numbers, row, strict=True)) for text, row in zip(texts or [], matrix, strict=True)
    ]
    console.rows(rows, layout, ["text", *numbers])


# ---- what they share


def queries_of(given: Sequence[str] | None, file: str | None) -> list[str]:
    """The queries of a command: its arguments, those of a file, or those of standard input."""
    if (file is None) == (not given):
        raise usage_error('give queries, or --queries FILE, or "-" for standard input.')
    if file is None and list(given or []) == [STDIN]:
        file = STDIN
    texts = list(given or []) if file is None else [record.text for record in Rows(file).texts() if record.text]
    if not texts:
        raise usage_error(f"there are no queries in {file}.")
    return texts


def check_documents(found: list[Record], path: str) -> None:
    """Refuse a file without documents."""
    if not found:
        raise usage_error(f"there are no documents in {path}.", "--documents")


def hits_of(
    model: SearchEncoder,
    queries: list[str],
    documents: list[Record],
    embeddings: str | None,
    top_k: int,
    batching: dict[str, int],
) -> list[list[dict[str, Any]]]:
    """The best documents of each query, by the model's own similarity."""
    from sentence_transformers.similarity import SimilarityFunction
    from sentence_transformers.util import semantic_search

    given: dict[str, Any] = {"show_progress_bar": False, **batching}
    if embeddings is None:
        corpus = model.encode_document([record.text for record in documents], **given)
    else:
        corpus = stored_vectors(embeddings, len(documents))
    score = SimilarityFunction.to_similarity_fn(model.similarity_fn_name)
    return semantic_search(model.encode_query(queries, **given), corpus, top_k=top_k, score_function=score)


def stored_vectors(path: str, rows: int) -> Any:
    """Vectors of a file, read as they are needed; one for each document."""
    import numpy as np

    from sentence_transformers.errors import InputError

    try:
        vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        raise InputError(f"{path} is not an .npy file of vectors: {error}") from error
    if vectors.ndim != 2 or len(vectors) != rows or vectors.dtype.kind != "f":
        raise InputError(
            f"{path} has {vectors.dtype} of shape {vectors.shape}; {rows:,} documents need float of ({rows}, H)."
        )
    return vectors


def reranked(
    model: CrossEncoder, query: str, hits: list[dict[str, Any]], documents: list[Record]
) -> list[dict[str, Any]]:
    """Hits of a search, scored and sorted by a cross-encoder."""
    texts = [documents[hit["corpus_id"]].text for hit in hits]
    ranking: Any = model.rank(query, texts, show_progress_bar=False)
    return [{"corpus_id": hits[one["corpus_id"]]["corpus_id"], "score": one["score"]} for one in ranking]


def printed(
    queries: list[str], results: list[list[dict[str, Any]]], documents: list[Record]
) -> Iterator[dict[str, Any]]:
    """Hits as rows to be shown."""
    for query, hits in zip(queries, results, strict=True):
        for place, hit in enumerate(hits, 1):
            record = documents[hit["corpus_id"]]
            score = float(hit["score"])
            yield {"query": query, "rank": place, "score": score, "id": record.id, "text": record.text}
