"""Charts as PNG, by matplotlib, without touching its global state."""

from __future__ import annotations

from functools import singledispatch
from pathlib import Path
from typing import Any

from sentence_transformers.errors import MissingExtraError
from sentence_transformers.plots.charts import COLOURS, Heat, Lines, Scatter, short


def save(chart: Any, path: Path) -> None:
    """Draw a chart into a file."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plot", "A PNG picture (an .svg or .html one does not)") from error
    figure = Figure(layout="constrained", dpi=150)
    FigureCanvasAgg(figure)
    draw(chart, figure)
    if chart.title:
        figure.suptitle(chart.title)
    figure.savefig(path, format="png")


@singledispatch
def draw(chart: Any, figure: Any) -> None:
    """Draw a chart into a figure."""
    raise TypeError(f"{type(chart).__name__} cannot be drawn as PNG; take .svg.")


@draw.register
def draw_scatter(chart: Scatter, figure: Any) -> None:
    figure.set_size_inches(9, 6.4)
    axes = figure.subplots()
    for label, colour, places in reversed(chart.groups()):
        xs, ys = zip(*[chart.points[i] for i in places], strict=True)
        axes.scatter(
            xs, ys, s=18 if len(chart.points) <= 300 else 8, color=colour, alpha=0.75, linewidths=0, label=label
        )
    axes.set(xticks=[], yticks=[])
    axes.set_xlabel(chart.note, fontsize=8, loc="left")
    if chart.labels:
        handles, names = axes.get_legend_handles_labels()
        axes.legend(handles[::-1], names[::-1], loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=8)


@draw.register
def draw_heat(chart: Heat, figure: Any) -> None:
    size = 2.5 + 0.45 * max(len(chart.rows), len(chart.columns))
    figure.set_size_inches(size + 2, size)
    axes = figure.subplots()
    image = axes.imshow(chart.values, cmap="Blues", vmin=chart.low, vmax=chart.high)
    axes.set_xticks(range(len(chart.columns)), [short(name, 30) for name in chart.columns], rotation=45, ha="right")
    axes.set_yticks(range(len(chart.rows)), [short(name, 40) for name in chart.rows])
    if len(chart.columns) <= 16:
        for i, row in enumerate(chart.values):
            for j, value in enumerate(row):
                colour = "white" if chart.colour(value)[1] else "black"
                axes.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=7, color=colour)
    figure.colorbar(image, ax=axes, shrink=0.8)


@draw.register
def draw_lines(chart: Lines, figure: Any) -> None:
    figure.set_size_inches(7.6, 0.6 + 2.4 * len(chart.panels))
    panels = figure.subplots(len(chart.panels), 1, squeeze=False, sharex=True)[:, 0]
    for axes, (name, series) in zip(panels, chart.panels.items(), strict=True):
        for i, (label, points) in enumerate(series.items()):
            xs, ys = zip(*points, strict=True)
            axes.plot(xs, ys, marker=".", color=COLOURS[i % len(COLOURS)], label=label)
        axes.set_title(name, loc="left", fontsize=10)
        axes.grid(axis="y", alpha=0.3)
        if chart.mark is not None:
            axes.axvline(chart.mark, color="grey", linestyle="--", linewidth=1)
        if len(series) > 1:
            axes.legend(frameon=False, fontsize=8)
    panels[-1].set_xlabel(chart.x_name)
