"""`evaluate`: measure a model on a file.

task            columns of the file, in this order
sts             two texts and a score
pairs           two texts and a label, 1 if they belong together, else 0
triplets        a text, one like it, one unlike it
reranking       query, list of good documents, list of others (jsonl or parquet)
classification  two texts and a class, for cross-encoders
retrieval       a folder as BEIR has it: corpus.jsonl, queries.jsonl, qrels/test.tsv
"""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from sentence_transformers.cli import console, options
from sentence_transformers.cli.exit_codes import usage_error
from sentence_transformers.cli.options import READING, Kind
from sentence_transformers.cli.row_readers import Rows
from sentence_transformers.util.atomic import replacing


class Task(StrEnum):
    """What is measured."""

    sts = "sts"
    pairs = "pairs"
    triplets = "triplets"
    reranking = "reranking"
    classification = "classification"
    retrieval = "retrieval"


def evaluate(
    model: options.ModelArgument,
    data: Annotated[str, typer.Argument(metavar="DATA", help="File, or folder for retrieval.")],
    task: Annotated[Task, typer.Option("--task", "-t", help="What is measured, and what the columns are.")],
    columns: Annotated[
        str | None,
        typer.Option(
            "--columns", metavar="A,B,C", help="The columns, in the task's order.", rich_help_panel=options.READING
        ),
    ] = None,
    split: Annotated[
        str, typer.Option("--split", help="Which of the qrels, for retrieval.", rich_help_panel=READING)
    ] = "test",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Also write the metrics, as JSON.")
    ] = None,
    layout: options.LayoutOption = None,
    kind: options.KindOption = None,
    batch_size: options.BatchSize = None,
    device: options.Device = None,
    backend: options.BackendOption = options.Backend.torch,
    revision: options.Revision = None,
    offline: options.Offline = False,
    trust_remote_code: options.Trust = False,
) -> None:
    """Measure a model on your own data.

    Columns by task: [bold]sts[/bold] two texts and a score. [bold]pairs[/bold] two texts and 1 or 0.
    [bold]triplets[/bold] a text, one like it, one unlike it. [bold]reranking[/bold] a query, a list of good documents,
    a list of others. [bold]classification[/bold] two texts and a class. [bold]retrieval[/bold] takes a folder with
    corpus.jsonl, queries.jsonl and qrels/test.tsv.

    [bold]Example[/bold]: sentence-transformers evaluate all-MiniLM-L6-v2 stsb.csv --task sts
    """
    from sentence_transformers.cli.models import Loading, kind_of, load

    loading = Loading(device, backend, revision, offline, trust_remote_code)
    names = columns.split(",") if columns else None
    evidence = read(task, data, names, split)
    kind = kind or kind_of(model, loading)
    evaluator = evaluator_of(task, evidence, kind, batch_size)
    metrics = load(model, loading, kind).evaluate(evaluator)
    plain = {name: float(value) for name, value in metrics.items()}
    if output is not None:
        with replacing(output) as fresh:
            fresh.write_text(
                json.dumps({"model": model, "data": data, "task": task, "metrics": plain}, indent=2) + "\n"
            )
    console.rows(({"metric": name, "value": value} for name, value in plain.items()), layout, ["metric", "value"])


def read(task: Task, path: str, columns: list[str] | None = None, split: str = "test") -> list[Any]:
    """What the evaluator of a task takes, in the order of its arguments."""
    if task == Task.retrieval:
        return retrieval(Path(path), split)
    table = Rows(path).table(columns, least=3)
    first, second, third = list(table.values())[:3]
    if task == Task.sts:
        return [first, second, numbers(third, float, path)]
    if task in (Task.pairs, Task.classification):
        return [first, second, numbers(third, int, path)]
    if task == Task.triplets:
        return [first, second, third]
    if not isinstance(second[0], list) or not isinstance(third[0], list):
        raise usage_error(f"{path}: reranking needs lists of documents; write .jsonl or .parquet.")
    return [[{"query": q, "positive": p, "negative": n} for q, p, n in zip(first, second, third, strict=True)]]


def evaluator_of(task: Task, evidence: list[Any], kind: Kind, batch_size: int | None = None, name: str = "") -> Any:
    """The evaluator of a task for a kind of model."""
    from sentence_transformers.cli.models import batching

    known = evaluators(kind)
    if task not in known:
        raise usage_error(f"{task} cannot be measured with a {kind} model; {', '.join(known)} can.", "--task")
    if kind == Kind.cross and task != Task.reranking:
        evidence = [list(zip(evidence[0], evidence[1], strict=True)), evidence[2]]
    return known[task](*evidence, name=name, **batching(batch_size))


def evaluators(kind: Kind) -> dict[Task, Any]:
    """The evaluator of each task that a kind of model can be measured on."""
    if kind == Kind.sparse:
        from sentence_transformers.sparse_encoder import evaluation as sparse

        return {
            Task.sts: sparse.SparseEmbeddingSimilarityEvaluator,
            Task.pairs: sparse.SparseBinaryClassificationEvaluator,
            Task.triplets: sparse.SparseTripletEvaluator,
            Task.reranking: sparse.SparseRerankingEvaluator,
            Task.retrieval: sparse.SparseInformationRetrievalEvaluator,
        }
    if kind == Kind.late:
        from sentence_transformers.multi_vector_encoder import evaluation as late

        return {
            Task.triplets: late.MultiVectorTripletEvaluator,
            Task.reranking: late.MultiVectorRerankingEvaluator,
            Task.retrieval: late.MultiVectorInformationRetrievalEvaluator,
        }
    if kind == Kind.cross:
        from sentence_transformers.cross_encoder import evaluation as cross

        return {
            Task.sts: cross.CrossEncoderCorrelationEvaluator,
            Task.pairs: cross.CrossEncoderClassificationEvaluator,
            Task.classification: cross.CrossEncoderClassificationEvaluator,
            Task.reranking: cross.CrossEncoderRerankingEvaluator,
        }
    from sentence_transformers import evaluation

    return {
        Task.sts: evaluation.EmbeddingSimilarityEvaluator,
        Task.pairs: evaluation.BinaryClassificationEvaluator,
        Task.triplets: evaluation.TripletEvaluator,
        Task.reranking: evaluation.RerankingEvaluator,
        Task.retrieval: evaluation.InformationRetrievalEvaluator,
    }


def numbers(values: list[Any], kind: type, path: str) -> list[Any]:
    """A column of numbers; of whole ones for `int`."""
    found = []
    for place, value in enumerate(values):
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise usage_error(f"{path}, row {place + 1}: {value!r} is not a number.") from None
        if kind is int and not number.is_integer():
            raise usage_error(f"{path}, row {place + 1}: {value!r} is not a whole number, as a label is.")
        found.append(kind(number))
    return found


def retrieval(folder: Path, split: str) -> list[Any]:
    """Queries, corpus and relevant documents of a folder in BEIR's layout."""
    judged = folder / "qrels" / f"{split}.tsv"
    for file in (folder / "queries.jsonl", folder / "corpus.jsonl", judged):
        if not file.is_file():
            raise usage_error(f"{file} does not exist; retrieval needs queries.jsonl, corpus.jsonl, qrels/{split}.tsv.")
    relevant: dict[str, set[str]] = {}
    for row in Rows(str(judged)):
        query, document, score = list(row.values())[:3]
        if float(score) > 0:
            relevant.setdefault(query, set()).add(document)
    queries = {row["_id"]: row["text"] for row in Rows(str(folder / "queries.jsonl"))}
    corpus = {
        row["_id"]: " ".join(part for part in (row.get("title"), row["text"]) if part)
        for row in Rows(str(folder / "corpus.jsonl"))
    }
    return [queries, corpus, relevant]
