"""What is to be seen, as plain values; `svg` and `png` draw it.

Scatter   points in the plane, coloured by label           an embedding map
Heat      a matrix of numbers as colours                   similarities
Lines     several series over one axis, one panel each     a training run
Bars      one or two bars per row                          a benchmark
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

# Colours that are told apart with most forms of colour blindness (Okabe and Ito), then lighter ones of the same.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8c6d31", "#7f7f7f")
REST = "#bbbbbb"


@dataclass(frozen=True)
class Scatter:
    """Points. `labels` and `texts` are one each a point, or empty."""

    points: Sequence[tuple[float, float]]
    labels: Sequence[str] = ()
    texts: Sequence[str] = ()
    title: str = ""
    note: str = ""

    def groups(self) -> list[tuple[str, str, list[int]]]:
        """(label, colour, its points): the most frequent labels first, what is beyond the colours as "other"."""
        by_label: dict[str, list[int]] = {}
        for i in range(len(self.points)):
            by_label.setdefault(self.labels[i] if self.labels else "", []).append(i)
        ordered = sorted(by_label.items(), key=lambda item: -len(item[1]))
        kept = ordered if len(ordered) <= len(COLOURS) else ordered[: len(COLOURS) - 1]
        found = [(label, COLOURS[i], points) for i, (label, points) in enumerate(kept)]
        rest = [point for _, points in ordered[len(kept) :] for point in points]
        return found + ([(f"{len(ordered) - len(kept)} others", REST, sorted(rest))] if rest else [])


@dataclass(frozen=True)
class Heat:
    """A matrix (R, C) with the names of its rows and columns."""

    values: Sequence[Sequence[float]]
    rows: Sequence[str]
    columns: Sequence[str]
    title: str = ""

    @property
    def low(self) -> float:
        return min(0.0, min(min(row) for row in self.values))

    @property
    def high(self) -> float:
        return max(max(row) for row in self.values)

    def colour(self, value: float) -> tuple[str, bool]:
        """The colour of a value, white to blue, and whether light text is to stand on it."""
        share = (value - self.low) / ((self.high - self.low) or 1.0)
        red, green, blue = (round(255 + share * (end - 255)) for end in (0x0B, 0x4F, 0x8A))
        return f"#{red:02x}{green:02x}{blue:02x}", share > 0.55


@dataclass(frozen=True)
class Lines:
    """Panels one above the other: title -> {name of a series: its (x, y)}."""

    panels: dict[str, dict[str, list[tuple[float, float]]]]
    x_name: str = ""
    title: str = ""
    mark: float | None = None  # an x that a dashed line marks


@dataclass(frozen=True)
class Bars:
    """A row each: name, and a value for each of `series`; a note stands behind the last bar."""

    rows: Sequence[tuple[str, Sequence[float], str]]
    series: Sequence[str]
    title: str = ""
    colours: Sequence[str] = field(default=(REST, COLOURS[0]))


def ticks(low: float, high: float, count: int = 6) -> list[float]:
    """Round numbers between two, about `count` of them."""
    from math import ceil, floor, log10

    span = (high - low) or abs(high) or 1.0
    step = 10 ** floor(log10(span / count))
    step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= count)
    return [round(i * step, 12) for i in range(ceil(low / step - 1e-9), floor(high / step + 1e-9) + 1)]


def short(text: str, width: int) -> str:
    """A text of at most `width` characters."""
    text = " ".join(str(text).split())
    return text if len(text) <= width else text[: width - 1] + "…"
