"""`plot map`, `plot heatmap`, `plot training`: pictures in .svg, .html or .png files."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sentence_transformers.cli import options
from sentence_transformers.cli.exit_codes import complain, usage_error
from sentence_transformers.cli.options import Kind
from sentence_transformers.cli.row_readers import Rows


class Projection(StrEnum):
    """How two dimensions are made of many."""

    pca = "pca"
    tsne = "tsne"
    umap = "umap"


Title = Annotated[str, typer.Option("--title", help="Words above the picture.")]
Picture = Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="FILE.svg, .html or .png.")]


def map_(
    texts: Annotated[str, typer.Argument(metavar="TEXTS", help="File of texts.")],
    output: Picture,
    model: options.Model = options.DEFAULT_MODEL,
    label: Annotated[str | None, typer.Option("--label", help="Column of the labels that give the colours.")] = None,
    embeddings: Annotated[
        Path | None, typer.Option("--embeddings", metavar="FILE.npy", help="Vectors of the texts, from `encode`.")
    ] = None,
    method: Annotated[Projection, typer.Option("--method", help="How two dimensions are made.")] = Projection.pca,
    title: Title = "",
    column: options.Column = None,
    input_format: options.InputFormat = None,
    device: options.Device = None,
    offline: options.Offline = False,
    trust_remote_code: options.Trust = False,
) -> None:
    """Draw texts as points: alike is near.

    In an .html file the text of a point appears under the pointer.

    [bold]Example[/bold]: sentence-transformers plot map news.csv --label topic -o news.html
    """
    from sentence_transformers.cli.models import Loading, load
    from sentence_transformers.cli.search import stored_vectors
    from sentence_transformers.plots import plot_embeddings

    found = list(Rows(texts, input_format).with_texts(column))
    if label is not None and found and label not in found[0][0]:
        raise usage_error(f"{texts} has no column {label!r}.", "--label")
    given = [record.text for _, record in found]
    if embeddings is not None:
        vectors = stored_vectors(str(embeddings), len(given))
    else:
        loading = Loading(device, offline=offline, trust_remote_code=trust_remote_code)
        vectors = load(model, loading, None, Kind.dense).encode(given, show_progress_bar=False)
    labels = None if label is None else [str(row[label]) for row, _ in found]
    plot_embeddings(vectors, output, labels, given, str(method), title)  # type: ignore[arg-type]
    complain(f"{len(given):,} points -> {output}")


def heatmap(
    texts: Annotated[list[str], typer.Argument(metavar="TEXT...", help="Texts; or one file of them.")],
    output: Picture,
    model: options.Model = options.DEFAULT_MODEL,
    title: Title = "",
    column: options.Column = None,
    device: options.Device = None,
    offline: options.Offline = False,
    trust_remote_code: options.Trust = False,
) -> None:
    """Draw how alike texts are, each with each.

    [bold]Example[/bold]: sentence-transformers plot heatmap "A cat sleeps." "A kitten naps." "It rains." -o heat.png
    """
    from sentence_transformers.cli.models import Loading, load
    from sentence_transformers.plots import plot_similarity

    if len(texts) == 1:
        texts = [record.text for record in Rows(texts[0]).texts(column)]
    loading = Loading(device, offline=offline, trust_remote_code=trust_remote_code)
    encoder = load(model, loading, None, Kind.dense, Kind.sparse)
    vectors = encoder.encode(texts, show_progress_bar=False)
    plot_similarity(encoder.similarity(vectors, vectors), output, texts, title=title)
    complain(f"{len(texts):,} x {len(texts):,} similarities -> {output}")


def training(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Output folder of a trainer, or a checkpoint.")],
    output: Picture,
    metrics: Annotated[
        list[str] | None, typer.Option("--metric", help="A metric to show; may be repeated. Default: the first six.")
    ] = None,
    title: Title = "",
) -> None:
    """Draw losses and metrics of a training run.

    [bold]Example[/bold]: sentence-transformers plot training run -o curve.svg
    """
    from sentence_transformers.plots import plot_training

    plot_training(run, output, metrics or None, title)
    complain(f"{run} -> {output}")
