"""Charts as SVG, by hand: no dependency, small files, sharp at any size, readable in light and dark pages.

Every `draw` returns a whole SVG document with a white ground. Positions are pixels from the top left.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import singledispatch
from html import escape

from sentence_transformers.plots.charts import COLOURS, Bars, Heat, Lines, Scatter, short, ticks

FONT = "font-family='system-ui, -apple-system, Segoe UI, Roboto, sans-serif'"
INK, PALE, GRID = "#222222", "#666666", "#e6e6e6"


def document(width: float, height: float, parts: Iterable[str], title: str = "") -> str:
    """An SVG document of its parts."""
    head = text(24, 32, title, 16, weight="600") if title else ""
    body = "\n".join(part for part in (head, *parts) if part)
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width:.0f} {height:.0f}' width='{width:.0f}' "
        f"height='{height:.0f}' {FONT} role='img' aria-label='{escape(title or 'chart', quote=True)}'>\n"
        f"<rect width='100%' height='100%' fill='#ffffff'/>\n{body}\n</svg>\n"
    )


def text(
    x: float, y: float, content: str, size: float = 12, anchor: str = "start", fill: str = INK, weight: str = "400"
) -> str:
    """Words at a place."""
    return (
        f"<text x='{x:.1f}' y='{y:.1f}' font-size='{size:g}' text-anchor='{anchor}' fill='{fill}' "
        f"font-weight='{weight}'>{escape(content)}</text>"
    )


def line(x1: float, y1: float, x2: float, y2: float, colour: str = GRID, extra: str = "") -> str:
    """A straight line."""
    return f"<line x1='{x1:.1f}' y1='{y1:.1f}' x2='{x2:.1f}' y2='{y2:.1f}' stroke='{colour}' {extra}/>"


def dot(x: float, y: float, colour: str, hover: str) -> str:
    """A small point of a line."""
    return f"<circle cx='{x:.1f}' cy='{y:.1f}' r='2.5' fill='{colour}'><title>{escape(hover)}</title></circle>"


def scale(low: float, high: float, start: float, end: float):  # type: ignore[no-untyped-def]
    """The function that takes [low, high] to [start, end]."""
    span = (high - low) or 1.0
    return lambda value: start + (value - low) / span * (end - start)


def legend(names: Iterable[str], right: float, y: float) -> list[str]:
    """The names of series in their colours, in a row that ends at `right`."""
    parts: list[str] = []
    for i, name in reversed(list(enumerate(names))):
        parts.append(text(right, y, name, 11, "end", COLOURS[i % len(COLOURS)], "600"))
        right -= 6.4 * len(name) + 16
    return parts


@singledispatch
def draw(chart: object) -> str:
    """A chart as an SVG document."""
    raise TypeError(f"{type(chart).__name__} is no chart.")


@draw.register
def draw_scatter(chart: Scatter) -> str:
    width, height, top, side = 900, 640, 52, 24
    legend = [(label, colour, places) for label, colour, places in chart.groups() if label]
    right = width - side - (190 if legend else 0)
    xs, ys = zip(*chart.points, strict=True) if chart.points else ((0.0,), (0.0,))
    to_x, to_y = scale(min(xs), max(xs), side + 12, right - 12), scale(min(ys), max(ys), height - 48, top + 12)
    parts = [
        f"<rect x='{side}' y='{top}' width='{right - side}' height='{height - top - 36}' fill='none' stroke='{GRID}'/>"
    ]
    radius = 5 if len(chart.points) <= 300 else 3.2
    for label, colour, places in reversed(chart.groups()):
        for i in places:
            hover = ": ".join(part for part in (label, short(chart.texts[i], 300) if chart.texts else "") if part)
            parts.append(
                f"<circle cx='{to_x(xs[i]):.1f}' cy='{to_y(ys[i]):.1f}' r='{radius}' fill='{colour}' "
                f"fill-opacity='0.75' stroke='#ffffff' stroke-width='0.6'><title>{escape(hover)}</title></circle>"
            )
    for row, (label, colour, places) in enumerate(legend):
        y = top + 14 + 24 * row
        parts.append(f"<circle cx='{right + 24}' cy='{y}' r='6' fill='{colour}'/>")
        parts.append(text(right + 38, y + 4, f"{short(label, 20)} ({len(places):,})"))
    parts.append(text(side, height - 12, chart.note, 11, fill=PALE))
    return document(width, height, parts, chart.title)


@draw.register
def draw_heat(chart: Heat) -> str:
    cell = max(18.0, min(64.0, 640 / max(len(chart.columns), 1)))
    name = 7.0 * max((len(short(row, 40)) for row in chart.rows), default=0) + 32
    foot = 5.2 * max((len(short(column, 30)) for column in chart.columns), default=0) + 34
    top = 52
    parts = []
    for i, row in enumerate(chart.values):
        y = top + i * cell
        parts.append(text(name - 8, y + cell / 2 + 4, short(chart.rows[i], 40), 12, "end"))
        for j, value in enumerate(row):
            colour, light = chart.colour(value)
            x = name + j * cell
            hover = escape(f"{chart.rows[i]} | {chart.columns[j]}: {value:.4f}")
            parts.append(
                f"<rect x='{x:.1f}' y='{y:.1f}' width='{cell - 1:.1f}' height='{cell - 1:.1f}' fill='{colour}'>"
                f"<title>{hover}</title></rect>"
            )
            if cell >= 36:
                fill = "#ffffff" if light else INK
                parts.append(text(x + cell / 2, y + cell / 2 + 4, f"{value:.2f}", 11, "middle", fill))
    bottom = top + len(chart.values) * cell
    for j, column in enumerate(chart.columns):
        x, y = name + (j + 0.5) * cell + 4, bottom + 12
        parts.append(f"<g transform='rotate(-45 {x:.1f} {y:.1f})'>{text(x, y, short(column, 30), 12, 'end')}</g>")
    return document(name + len(chart.columns) * cell + 24, bottom + foot, parts, chart.title)


@draw.register
def draw_lines(chart: Lines) -> str:
    width, panel, top, left = 760, 210, 52, 72
    every = [x for series in chart.panels.values() for line_ in series.values() for x, _ in line_]
    to_x = scale(min(every), max(every), left, width - 24)
    parts = []
    for number, (name, series) in enumerate(chart.panels.items()):
        start, end = top + number * (panel + 44) + 22, top + number * (panel + 44) + panel
        values = [y for points in series.values() for _, y in points]
        low, high = min(values), max(values)
        margin = 0.06 * ((high - low) or abs(high) or 1.0)
        to_y = scale(low - margin, high + margin, end, start)
        parts.append(text(left, start - 8, name, 13, weight="600"))
        for value in ticks(low - margin, high + margin):
            parts += [
                line(left, to_y(value), width - 24, to_y(value)),
                text(left - 8, to_y(value) + 4, f"{value:g}", 11, "end", PALE),
            ]
        for value in ticks(min(every), max(every), 8):
            parts.append(text(to_x(value), end + 18, f"{value:g}", 11, "middle", PALE))
        if chart.mark is not None:
            parts.append(line(to_x(chart.mark), start, to_x(chart.mark), end, PALE, "stroke-dasharray='4 4'"))
        for i, (label, points) in enumerate(series.items()):
            colour = COLOURS[i % len(COLOURS)]
            path = " ".join(f"{to_x(x):.1f},{to_y(y):.1f}" for x, y in points)
            parts.append(f"<polyline points='{path}' fill='none' stroke='{colour}' stroke-width='2'/>")
            parts += [dot(to_x(x), to_y(y), colour, f"{label} {x:g}: {y:.4g}") for x, y in points]
        parts += legend(series, width - 24, start - 8) if len(series) > 1 else []
    height = top + len(chart.panels) * (panel + 44)
    parts.append(text(width - 24, height - 2, chart.x_name, 11, "end", PALE))
    return document(width, height + 10, parts, chart.title)


@draw.register
def draw_bars(chart: Bars) -> str:
    width, top, thick = 860, 84, 13
    left = 6.6 * max((len(name) for name, _, _ in chart.rows), default=0) + 40
    right = 7.6 * max((len(note) for _, _, note in chart.rows), default=0) + 24
    step = thick * len(chart.series) + 14
    longest = max((value for _, values, _ in chart.rows for value in values), default=1.0)
    to_width = scale(0, longest, 0, max(width - left - right, 40))
    parts, x = [], 24.0
    for label, colour in zip(chart.series, chart.colours, strict=False):
        parts += [f"<rect x='{x:.1f}' y='52' width='12' height='12' fill='{colour}'/>", text(x + 18, 62, label, 12)]
        x += 7 * len(label) + 48
    for i, (name, values, note) in enumerate(chart.rows):
        y = top + i * step
        parts.append(text(left - 10, y + step / 2 - 3, name, 12, "end"))
        for j, value in enumerate(values):
            bar = max(to_width(value), 1.0)
            parts.append(
                f"<rect x='{left:.1f}' y='{y + j * thick:.1f}' width='{bar:.1f}' height='{thick - 2}' "
                f"fill='{chart.colours[j]}'><title>{escape(name)}: {value:,.4g}</title></rect>"
            )
        parts.append(
            text(left + max(to_width(values[-1]), 1.0) + 8, y + thick * len(values) - 3, note, 12, weight="600")
        )
    return document(width, top + len(chart.rows) * step + 16, parts, chart.title)
