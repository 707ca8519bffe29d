"""`mine`: hard negatives for a file of pairs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sentence_transformers.cli import options
from sentence_transformers.cli.exit_codes import complain, hush, only_our_progress, usage_error
from sentence_transformers.cli.options import Kind
from sentence_transformers.cli.row_readers import Rows
from sentence_transformers.util.atomic import replacing

if TYPE_CHECKING:
    from datasets import Dataset

RULES = "Which candidates are taken"


class Shape(StrEnum):
    """Forms of the result."""

    triplet = "triplet"
    tuple = "n-tuple"
    pair = "labeled-pair"
    list = "labeled-list"


def mine(
    pairs: Annotated[str, typer.Argument(metavar="PAIRS", help="File of queries and documents that answer them.")],
    output: options.OutputFile,
    model: options.Model = options.DEFAULT_MODEL,
    columns: Annotated[
        tuple[str, str] | None, typer.Option("--columns", help="Columns of query and positive; default: the first two.")
    ] = None,
    corpus: Annotated[
        str | None, typer.Option("--corpus", metavar="FILE", help="Candidates besides the positives.")
    ] = None,
    negatives: Annotated[int, typer.Option("--negatives", "-n", min=1, help="Negatives per pair.")] = 3,
    shape: Annotated[Shape, typer.Option("--shape", help="Form of the result.")] = Shape.triplet,
    cross_encoder: Annotated[
        str | None, typer.Option("--cross-encoder", metavar="MODEL", help="Scores the candidates anew.")
    ] = None,
    range_min: Annotated[int, typer.Option(min=0, help="Leave out the nearest so many.", rich_help_panel=RULES)] = 0,
    range_max: Annotated[int | None, typer.Option(help="Look at the nearest so many.", rich_help_panel=RULES)] = None,
    max_score: Annotated[float | None, typer.Option(help="No score above.", rich_help_panel=RULES)] = None,
    min_score: Annotated[float | None, typer.Option(help="No score below.", rich_help_panel=RULES)] = None,
    absolute_margin: Annotated[
        float | None, typer.Option(help="So far below the positive's score.", rich_help_panel=RULES)
    ] = None,
    relative_margin: Annotated[
        float | None, typer.Option(help="Below the positive's score by this share of it.", rich_help_panel=RULES)
    ] = None,
    sampling: Annotated[str, typer.Option(help='"top" or "random".', rich_help_panel=RULES)] = "top",
    quiet: options.Quiet = False,
    batch_size: options.BatchSize = None,
    device: options.Device = None,
    backend: options.BackendOption = options.Backend.torch,
    revision: options.Revision = None,
    offline: options.Offline = False,
    trust_remote_code: options.Trust = False,
) -> None:
    """Find documents that look like answers and are none: hard negatives for training.

    The result goes to .jsonl, .csv or .parquet, in the columns that losses take.

    [bold]Example[/bold]: sentence-transformers mine pairs.csv -o triplets.jsonl --negatives 1 --relative-margin 0.05
    """
    from sentence_transformers.cli.models import Loading, batching, load

    hush(quiet)
    check_output(output)
    table = Rows(pairs).table(list(columns) if columns else None, least=2)
    documents = None if corpus is None else [record.text for record in Rows(corpus).texts()]
    loading = Loading(device, backend, revision, offline, trust_remote_code)
    encoder = load(model, loading, None, Kind.dense, Kind.sparse)
    scorer = None if cross_encoder is None else load(cross_encoder, loading, Kind.cross)
    from sentence_transformers.util import mine_hard_negatives

    mined = mine_hard_negatives(
        dataset_of(table),
        encoder,
        corpus=documents,
        cross_encoder=scorer,
        num_negatives=negatives,
        output_format=str(shape),  # type: ignore[arg-type]
        range_min=range_min,
        range_max=range_max,
        max_score=max_score,
        min_score=min_score,
        absolute_margin=absolute_margin,
        relative_margin=relative_margin,
        sampling_strategy=sampling,  # type: ignore[arg-type]
        verbose=False,
        **batching(batch_size),
    )
    write(mined, output)
    if not quiet:
        complain(f"{len(mined):,} rows of {', '.join(mined.column_names)} -> {output}")


def dataset_of(table: dict[str, list[Any]]) -> Any:
    """Columns as a data set."""
    from sentence_transformers.errors import MissingExtraError

    only_our_progress()
    try:
        from datasets import Dataset
    except ImportError as error:
        raise MissingExtraError("datasets", "train", "This command") from error
    return Dataset.from_dict(table)


def check_output(output: Path) -> None:
    """Refuse a file that could not be written in the end."""
    if output.suffix not in (".jsonl", ".csv", ".parquet"):
        raise usage_error(f"{output.name!r} must end in .jsonl, .csv or .parquet.", "--output")
    if not output.parent.is_dir():
        raise usage_error(f"the folder {str(output.parent)!r} does not exist.", "--output")


def write(dataset: Dataset, output: Path) -> None:
    """Write a data set, in one step."""
    with replacing(output) as fresh:
        if output.suffix == ".parquet":
            dataset.to_parquet(fresh)
        elif output.suffix == ".csv":
            dataset.to_csv(fresh)
        else:
            dataset.to_json(fresh, force_ascii=False)
