"""The functions that people call: arrays and folders in, a picture in a file out."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from sentence_transformers.errors import InputError
from sentence_transformers.plots import png, svg
from sentence_transformers.plots.charts import Heat, Lines, Scatter
from sentence_transformers.plots.projection import Method, project
from sentence_transformers.util.atomic import replacing

SUFFIXES = (".svg", ".html", ".png")
MOST_CELLS = 250_000
SMALL_METRIC_COUNT = 6
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>body{{margin:2rem auto;max-width:960px}} svg{{width:100%;height:auto}} circle:hover,rect:hover{{stroke:#222;\
stroke-width:1.5}}</style></head>
<body>
{picture}</body></html>
"""


def plot_embeddings(
    embeddings: Any,
    path: str | os.PathLike[str],
    labels: Sequence[Any] | None = None,
    texts: Sequence[str] | None = None,
    method: Method = "pca",
    title: str = "",
    seed: int = 0,
) -> np.ndarray:
    """Draw a map of embeddings: alike is near.

    Args:
        embeddings: (N, H), two or more.
        path: where to; .svg, .html (texts appear under the pointer) or .png.
        labels: one each; they are coloured. The eight most frequent have a colour of their own.
        texts: one each.
        method: "pca", "tsne" or "umap"; see `plots.projection`.
        title: above the picture.
        seed: for the methods that begin at random.

    Returns:
        The points, (N, 2).

    Raises:
        InputError: for an unknown suffix or method, or numbers of labels or texts that do not fit. Nothing is written.
    """
    target = checked(path)
    points, note = project(embeddings, method, seed)
    for name, values in (("labels", labels), ("texts", texts)):
        if values is not None and len(values) != len(points):
            raise InputError(f"There are {len(points):,} embeddings, but {len(values):,} {name}.")
    names = [str(label) for label in labels] if labels is not None else []
    save(Scatter([(float(x), float(y)) for x, y in points], names, texts or [], title, note), target)
    return points


def plot_similarity(
    matrix: Any,
    path: str | os.PathLike[str],
    rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    title: str = "",
) -> None:
    """Draw a matrix of similarities as colours.

    Args:
        matrix: (N, M), as `model.similarity` gives it.
        path: where to; .svg, .html or .png.
        rows: names of the rows.
        columns: names of the columns; default: those of the rows if there are as many, else numbers.
        title: above the picture.

    Raises:
        InputError: for an unknown suffix, a matrix of another shape, or numbers of names that do not fit.
    """
    target = checked(path)
    values = np.asarray(matrix.cpu() if hasattr(matrix, "cpu") else matrix, dtype=np.float64)
    if values.ndim != 2 or not 0 < values.size <= MOST_CELLS or not np.isfinite(values).all():
        raise InputError(f"Expected a matrix (N, M) of 1 to {MOST_CELLS:,} finite numbers, got shape {values.shape}.")
    row_names = list(rows) if rows is not None else [str(i + 1) for i in range(len(values))]
    same = columns is None and rows is not None and len(row_names) == values.shape[1]
    column_names = list(columns) if columns is not None else [str(i + 1) for i in range(values.shape[1])]
    column_names = row_names if same else column_names
    if (len(row_names), len(column_names)) != values.shape:
        raise InputError(
            f"The matrix has shape {values.shape}; names: {len(row_names)} rows, {len(column_names)} columns."
        )
    save(Heat(values.tolist(), row_names, column_names, title), target)


def plot_training(
    run: str | os.PathLike[str] | Any,
    path: str | os.PathLike[str],
    metrics: Sequence[str] | None = None,
    title: str = "",
) -> None:
    """Draw how losses and metrics went in a training run.

    Args:
        run: a model that was trained in this process, a trainer's output folder or a checkpoint in it.
        path: where to; .svg, .html or .png.
        metrics: names of metrics to show; default: the first six.
        title: above the picture.

    Raises:
        InputError: if the run has no log, or not one of the metrics.
    """
    target = checked(path)
    logs, best = (
        (run.model_card_data.training_logs, run.model_card_data.best_model_step)
        if hasattr(run, "model_card_data")
        else (logs_of(Path(run)), None)
    )
    save(curves(logs, metrics, best, title), target)


def curves(
    logs: Sequence[dict[str, Any]], metrics: Sequence[str] | None = None, best: int | None = None, title: str = ""
) -> Lines:
    """The chart of a training log: losses in the first panel, metrics in the second.

    Args:
        logs: dictionaries with "Step" and values by name.
        metrics: see `plot_training`.
        best: the step of the model that was kept.
    """
    series: dict[str, list[tuple[float, float]]] = {}
    for entry in logs:
        for name, value in entry.items():
            if name not in ("Step", "Epoch") and isinstance(value, int | float) and np.isfinite(value):
                series.setdefault(name, []).append((float(entry["Step"]), float(value)))
    losses = {name: points for name, points in series.items() if name.lower().endswith("loss")}
    others = {name: points for name, points in series.items() if name not in losses}
    if metrics is not None and (missing := [name for name in metrics if name not in others]):
        raise InputError(f"The log has no metric {missing[0]!r}; it has {', '.join(others) or 'none'}.")
    wanted = list(others)[:SMALL_METRIC_COUNT] if metrics is None else metrics
    panels = {"Loss": losses, "Metrics": {name: others[name] for name in wanted}}
    panels = {name: panel for name, panel in panels.items() if panel}
    if not panels:
        raise InputError("There is nothing in the log of this run: no loss and no metric was logged.")
    return Lines(panels, "step", title, None if best is None else float(best))


def logs_of(folder: Path) -> list[dict[str, Any]]:
    """The log in the newest checkpoint of a folder, as a model card has it."""
    found = [folder / "trainer_state.json", *folder.glob("checkpoint-*/trainer_state.json")]
    states = [json.loads(file.read_text(encoding="utf-8")) for file in found if file.is_file()]
    if not states:
        raise InputError(f"{folder} has no trainer_state.json, neither itself nor in a checkpoint.")
    newest = max(states, key=lambda state: state["global_step"])
    kept = []
    for entry in newest["log_history"]:
        values = {
            "Training Loss"
            if name == "loss"
            else name.removeprefix("eval_")
            if not name.endswith("loss")
            else name: value
            for name, value in entry.items()
            if name == "loss" or (name.startswith("eval_") and not name.endswith(("runtime", "per_second")))
        }
        kept.append({"Step": entry["step"]} | values)
    return kept


def checked(path: str | os.PathLike[str]) -> Path:
    """The file of a picture, if one can be written there."""
    target = Path(path)
    if target.suffix.lower() not in SUFFIXES:
        raise InputError(f"A picture ends in {', '.join(SUFFIXES)}; got {target.name!r}.")
    if not target.absolute().parent.is_dir():
        raise InputError(f"The folder {str(target.parent)!r} does not exist.")
    return target


def save(chart: Any, target: Path) -> None:
    """Write a chart, in one step."""
    with replacing(target) as fresh:
        if target.suffix.lower() == ".png":
            png.save(chart, fresh)
            return
        picture = svg.draw(chart)
        page = PAGE.format(title=escape(chart.title or "Sentence Transformers"), picture=picture)
        fresh.write_text(page if target.suffix.lower() == ".html" else picture, encoding="utf-8")
