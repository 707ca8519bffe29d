"""Pictures where people would rather look than read: a map of embeddings, a table of similarities, a training curve.

    from sentence_transformers.plots import plot_embeddings, plot_similarity, plot_training

    plot_embeddings(embeddings, "map.html", labels=topics, texts=texts)      # 2-D, coloured by label, texts on hover
    plot_similarity(model.similarity(e, e), "heat.svg", rows=texts)
    plot_training("my-model", "curve.png")                                   # of a saved model's training

matplotlib draws them; the suffix decides the form. In .svg and .html files texts are text, marks have tooltips, and
nothing is loaded from elsewhere. The same call writes the same bytes.

A map has two dimensions, made of many by one of:

pca    the two directions of the greatest variance: X = embeddings - mean, X = U S Vᵀ, points = U₂ S₂. Linear, exact,
       the same every time. The sign of a direction is chosen so that its largest component in V is positive.
tsne   neighbours stay neighbours, distances between groups mean little (van der Maaten and Hinton, 2008);
       scikit-learn computes it
umap   likewise, faster for many points (McInnes et al., 2018); umap-learn computes it
"""

from __future__ import annotations

import functools
import io
import json
import os
import re
import textwrap
import threading
import warnings
from collections.abc import Callable, Sequence
from html import escape
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args
from xml.etree import ElementTree
from xml.parsers import expat

import numpy as np

from sentence_transformers.errors import InputError, MissingExtraError
from sentence_transformers.util.atomic import replacing
from sentence_transformers.util.tensor import describe

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from sentence_transformers.util.tensor import ArrayLike

__all__ = ["plot_embeddings", "plot_similarity", "plot_training"]

Method = Literal["pca", "tsne", "umap"]
Tooltips: TypeAlias = dict[str, list[str]]  # id of an artist -> the text of each of its marks, in their order
Panels: TypeAlias = dict[str, dict[str, list[tuple[float, float]]]]  # title -> name of a series -> its points

SUFFIXES = (".svg", ".html", ".png")
MOST_CELLS = 250_000
MOST_NUMBERS = 16  # columns of a table whose cells show their numbers
SMALL_METRIC_COUNT = 6
# Colours that are told apart with most forms of colour blindness (Okabe and Ito), then lighter ones of the same.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8c6d31", "#7f7f7f")
REST = "#bbbbbb"
DARK_BLUE = "#0b4f8a"
# Text stays text, ids do not change from call to call, and "$" in a text begins no formula.
SETTINGS: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "sentence-transformers", "text.parse_math": False}
NO_METADATA = {".svg": dict.fromkeys(("Date", "Creator", "Format", "Type")), ".png": {"Software": None}}
NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>body{{margin:2rem auto;max-width:960px}} svg{{width:100%;height:auto}}
use:hover,path:has(title):hover{{stroke:#222!important;stroke-width:1.5!important}}</style></head>
<body>
"""
_settings_lock = threading.Lock()  # matplotlib's settings belong to the process


def plot_embeddings(
    embeddings: ArrayLike,
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
        method: "pca", "tsne" or "umap"; the module's description says what they are.
        title: above the picture.
        seed: for the methods that begin at random.

    Returns:
        The points, (N, 2).

    Raises:
        InputError: for an unknown suffix or method, or numbers of labels or texts that do not fit. Nothing is written.
        MissingExtraError: without matplotlib, or the package that computes the method.
    """
    target = checked(path)
    points, note = project(embeddings, method, seed)
    for name, values in (("labels", labels), ("texts", texts)):
        if values is not None and len(values) != len(points):
            raise InputError(f"There are {len(points):,} embeddings, but {len(values):,} {name}.")
    names = None if labels is None else [str(label) for label in labels]
    save(functools.partial(draw_map, points=points, labels=names, texts=texts, note=note), target, title)
    return points


def plot_similarity(
    matrix: ArrayLike,
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
        MissingExtraError: without matplotlib.
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
    save(functools.partial(draw_table, values=values, rows=row_names, columns=column_names), target, title)


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
        MissingExtraError: without matplotlib.
    """
    target = checked(path)
    logs, best = (
        (run.model_card_data.training_logs, run.model_card_data.best_model_step)
        if hasattr(run, "model_card_data")
        else (logs_of(Path(run)), None)
    )
    save(functools.partial(draw_curves, panels=curves(logs, metrics), best=best), target, title)


# ---- what is drawn


def project(embeddings: ArrayLike, method: Method = "pca", seed: int = 0) -> tuple[np.ndarray, str]:
    """Points (N, 2) of embeddings (N, H), and a note how they came about.

    Raises:
        InputError: for an unknown method, fewer than two embeddings, or values that are not finite.
        MissingExtraError: if the package that computes the method is not installed.
    """
    if method not in get_args(Method):
        raise InputError(f"Unknown projection {method!r}; known are {', '.join(get_args(Method))}.")
    rows = np.asarray(embeddings.cpu() if hasattr(embeddings, "cpu") else embeddings, dtype=np.float32)
    if rows.ndim != 2 or len(rows) < 2 or not np.isfinite(rows).all():
        raise InputError(f"A map needs two or more embeddings (N, H) of finite numbers, got {describe(embeddings)}.")
    if method == "pca":
        return principal_components(rows)
    if method == "tsne":
        return tsne(rows, seed), "t-SNE of cosine distances: near is alike, far says little"
    return umap(rows, seed), "UMAP of cosine distances: near is alike, far says little"


def principal_components(rows: np.ndarray) -> tuple[np.ndarray, str]:
    """The first two principal components."""
    centred = rows - rows.mean(0)
    _, lengths, directions = np.linalg.svd(centred, full_matrices=False)
    two = directions[:2]
    two = two * np.sign(two[np.arange(len(two)), np.abs(two).argmax(1)])[:, None]
    points = centred @ two.T
    if points.shape[1] < 2:
        points = np.pad(points, ((0, 0), (0, 2 - points.shape[1])))
    shares = lengths[:2] ** 2 / max((lengths**2).sum(), 1e-30)
    shown = " and ".join(f"{share:.0%}" for share in shares)
    return points, f"principal components: {shown} of the variance"


def tsne(rows: np.ndarray, seed: int) -> np.ndarray:
    """t-SNE by scikit-learn."""
    try:
        from sklearn.manifold import TSNE
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "plot", "t-SNE") from error
    perplexity = min(30.0, max(1.0, (len(rows) - 1) / 3))
    return TSNE(2, perplexity=perplexity, metric="cosine", init="random", random_state=seed).fit_transform(rows)


def umap(rows: np.ndarray, seed: int) -> np.ndarray:
    """UMAP by umap-learn."""
    try:
        from umap import UMAP
    except ImportError as error:
        raise MissingExtraError("umap-learn", None, "UMAP") from error
    neighbours = min(15, len(rows) - 1)
    return UMAP(n_neighbors=neighbours, metric="cosine", random_state=seed, n_jobs=1).fit_transform(rows)


def groups(labels: Sequence[str]) -> list[tuple[str, str, list[int]]]:
    """(label, colour, its points): the most frequent labels first, what is beyond the colours as "others"."""
    by_label: dict[str, list[int]] = {}
    for i, label in enumerate(labels):
        by_label.setdefault(label, []).append(i)
    ordered = sorted(by_label.items(), key=lambda item: -len(item[1]))
    kept = ordered if len(ordered) <= len(COLOURS) else ordered[: len(COLOURS) - 1]
    result = [(label, COLOURS[i], points) for i, (label, points) in enumerate(kept)]
    rest = sorted(point for _, points in ordered[len(kept) :] for point in points)
    return result + ([(f"{len(ordered) - len(kept)} others", REST, rest)] if rest else [])


def curves(logs: Sequence[dict[str, Any]], metrics: Sequence[str] | None = None) -> Panels:
    """The series of a training log: losses in the first panel, metrics in the second.

    Args:
        logs: dictionaries with "Step" and values by name.
        metrics: see `plot_training`.
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
    return panels


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


# ---- how it is drawn: each puts its axes into an empty figure


def draw_map(
    figure: Figure, points: np.ndarray, labels: Sequence[str] | None, texts: Sequence[str] | None, note: str
) -> Tooltips:
    """Points (N, 2), coloured by label."""
    figure.set_size_inches(9, 6.4)
    axes = figure.subplots()
    size = 6 if len(points) <= 300 else 4
    tooltips: Tooltips = {}
    for number, (label, colour, members) in enumerate(groups(labels or [""] * len(points))):
        name = f"points-{number}"
        axes.plot(
            *points[members].T,
            linestyle="",
            marker="o",
            markersize=size,
            color=colour,
            alpha=0.75,
            markeredgecolor="white",
            markeredgewidth=0.5,
            label=f"{short(label, 20)} ({len(members):,})",
            gid=name,
            zorder=2 - number / 100,  # the rarer a label, the further up
        )
        if labels is not None or texts is not None:
            parts = [(labels[i] if labels else "", short(texts[i], 300) if texts else "") for i in members]
            tooltips[name] = [": ".join(filter(None, part)) for part in parts]
    axes.set(xticks=[], yticks=[])
    axes.set_xlabel(note, fontsize=8, loc="left")
    if labels is not None:
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=9)
    return tooltips


def draw_table(figure: Figure, values: np.ndarray, rows: Sequence[str], columns: Sequence[str]) -> Tooltips:
    """A matrix (N, M), white to blue; the colours begin at 0 or at the least value, if that is below."""
    from matplotlib.colors import LinearSegmentedColormap

    low, high = min(0.0, values.min()), values.max()
    inches = min(0.6, max(0.25, 9 / len(columns)), 60 / max(values.shape))  # a cell's side
    figure.set_size_inches(2.5 + inches * len(columns), 1.8 + inches * len(rows))
    axes = figure.subplots()
    colours = LinearSegmentedColormap.from_list("similarity", ["white", DARK_BLUE])
    mesh = axes.pcolormesh(
        values, cmap=colours, vmin=low, vmax=high, edgecolors="white", linewidth=2 * inches, gid="cells"
    )
    axes.set_aspect("equal")
    axes.invert_yaxis()
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    every = ceil(0.14 / inches)  # names that are legible
    places = [np.arange(0, count, every) for count in values.shape]
    axes.set_yticks(places[0] + 0.5, [short(rows[i], 40) for i in places[0]])
    axes.set_xticks(
        places[1] + 0.5, [short(columns[j], 30) for j in places[1]], rotation=45, ha="right", rotation_mode="anchor"
    )
    if len(columns) > MOST_NUMBERS:
        figure.colorbar(mesh, ax=axes, fraction=0.03)
    for i, j in np.ndindex(values.shape) if len(columns) <= MOST_NUMBERS else ():
        colour = "white" if values[i, j] - low > 0.55 * (high - low) else "#222222"
        axes.text(j + 0.5, i + 0.5, f"{values[i, j]:.2f}", ha="center", va="center", fontsize=8, color=colour)
    names = [[str(name) for name in some] for some in (rows, columns)]
    return {"cells": [f"{names[0][i]} | {names[1][j]}: {values[i, j]:.4f}" for i, j in np.ndindex(values.shape)]}


def draw_curves(figure: Figure, panels: Panels, best: float | None = None) -> Tooltips:
    """Panels one above the other over the same steps; a dashed line marks `best`."""
    figure.set_size_inches(7.6, 0.6 + 2.4 * len(panels))
    tooltips: Tooltips = {}
    rows = figure.subplots(len(panels), 1, squeeze=False, sharex=True)[:, 0]
    for number, (axes, (title, series)) in enumerate(zip(rows, panels.items(), strict=True)):
        for i, (name, points) in enumerate(series.items()):
            line = f"series-{number}-{i}"
            colour, label = COLOURS[i % len(COLOURS)], short(name, 60)
            axes.plot(*zip(*points, strict=True), marker=".", color=colour, label=label, gid=line)
            tooltips[line] = [f"{name} {x:g}: {y:.4g}" for x, y in points]
        axes.set_title(title, loc="left", fontsize=10)
        axes.grid(axis="y", alpha=0.3)
        if best is not None:
            axes.axvline(best, color="grey", linestyle="--", linewidth=1)
        axes.legend(frameon=False, fontsize=8)
    rows[-1].set_xlabel("step")
    return tooltips


def short(text: str, width: int) -> str:
    """A text of at most `width` characters, in one line, of characters that XML can have."""
    text = NOT_XML.sub("\ufffd", " ".join(str(text).split()))
    return text if len(text) <= width else text[: width - 1] + "…"


# ---- files


def checked(path: str | os.PathLike[str]) -> Path:
    """The file of a picture, if one can be written there."""
    target = Path(path)
    if target.suffix.lower() not in SUFFIXES:
        raise InputError(f"A picture ends in {', '.join(SUFFIXES)}; got {target.name!r}.")
    if not target.absolute().parent.is_dir():
        raise InputError(f"The folder {str(target.parent)!r} does not exist.")
    return target


def save(draw: Callable[[Figure], Tooltips], target: Path, title: str = "") -> None:
    """Draw a picture and write it, in one step.

    Args:
        draw: puts what is to be seen into an empty figure, and says the tooltips.
        target: the file; its suffix is one of `SUFFIXES`.
        title: above the picture.

    Raises:
        MissingExtraError: without matplotlib.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plot", "Drawing a picture") from error
    title, suffix = short(title, 500), target.suffix.lower()
    form = ".png" if suffix == ".png" else ".svg"
    buffer = io.BytesIO()
    with _settings_lock, rc_context(SETTINGS), warnings.catch_warnings():
        if form == ".svg":  # whoever shows it has fonts of his own
            warnings.filterwarnings("ignore", r"Glyph \d+", UserWarning)
        figure = Figure(layout="constrained", dpi=150)
        tooltips = draw(figure)
        if title:
            figure.suptitle(textwrap.fill(title, round(10 * figure.get_figwidth())))
        figure.savefig(buffer, format=form[1:], metadata=NO_METADATA[form])
    content = buffer.getvalue()
    if form == ".svg":
        content = with_tooltips(content, tooltips, title)
    if suffix == ".html":
        head = PAGE.format(title=escape(title or "Sentence Transformers"))
        content = head.encode() + content + b"\n</body></html>\n"
    with replacing(target) as fresh:
        fresh.write_bytes(content)


def with_tooltips(picture: bytes, tooltips: Tooltips, title: str) -> bytes:
    """A document of matplotlib's, in which marks say their text under the pointer."""
    builder, parser = ElementTree.TreeBuilder(), expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = builder.start, builder.end
    parser.CharacterDataHandler = builder.data
    parser.Parse(picture, True)
    root = builder.close()
    root.attrib |= {"role": "img", "aria-label": title or "chart"}
    for group in root.iter("g"):
        if texts := tooltips.get(group.get("id", "")):
            marks = list(group.iter("use")) or list(group.iter("path"))
            for mark, text in zip(marks, texts, strict=True):
                ElementTree.SubElement(mark, "title").text = NOT_XML.sub("\ufffd", text)
    return ElementTree.tostring(root, encoding="unicode").encode()
