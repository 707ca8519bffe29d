"""What people and programs see: tables on a terminal, tab-separated or JSON lines in a pipe, progress.

Progress goes to standard error: a bar on a terminal, else a line every half minute.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from sentence_transformers.cli.exit_codes import complain
from sentence_transformers.cli.options import Layout

SECONDS_BETWEEN_LINES = 30


def rows(found: Iterable[dict[str, Any]], layout: Layout | None, columns: list[str]) -> None:
    """Print rows, as they come, in the layout asked for; default: a table on a terminal, else tab-separated."""
    layout = layout or (Layout.table if sys.stdout.isatty() else Layout.tsv)
    if layout == Layout.table:
        table(list(found), columns)
        return
    if layout == Layout.tsv:
        print("\t".join(columns))
    for row in found:
        if layout == Layout.jsonl:
            print(json.dumps(row, ensure_ascii=False))
        else:
            print("\t".join(plain(row.get(name)) for name in columns))


def plain(value: object) -> str:
    """A value for a tab-separated line."""
    return f"{value:.6f}" if isinstance(value, float) else " ".join(str("" if value is None else value).split())


def table(found: list[dict[str, Any]], columns: list[str], title: str | None = None) -> None:
    """Print rows as a table as wide as the terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False)
    for name in columns:
        number = bool(found) and all(isinstance(row.get(name), int | float) for row in found)
        drawn.add_column(name, justify="right" if number else "left", overflow="fold", no_wrap=number)
    for row in found:
        drawn.add_row(*(Text(cell(row.get(name))) for name in columns))
    Console().print(drawn)


def cell(value: object) -> str:
    """A value for a table."""
    if isinstance(value, float):
        return f"{value:.4f}"
    return (
        f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str("" if value is None else value)
    )


def duration(seconds: float) -> str:
    """72.4 -> "1:12"; 4.24 -> "4.2 s"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


@contextmanager
def progress(total: int | None, done: int = 0, unit: str = "texts", quiet: bool = False) -> Iterator[Callable]:
    """Show how far a run is; gives the function that advances it.

    Args:
        total: how many there are; None if that is not known.
        done: how many were done before this run; they do not count for the speed.
    """
    if quiet:
        yield lambda count: None
    elif sys.stderr.isatty():
        with _bar(total, done, unit) as advance:
            yield advance
    else:
        with _lines(total, done, unit) as advance:
            yield advance


@contextmanager
def _bar(total: int | None, done: int, unit: str) -> Iterator[Callable]:
    """A bar on the terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        BarColumn(bar_width=None),
        TextColumn("{task.completed:,} of {task.fields[all]} {task.fields[unit]}"),
        TextColumn("{task.fields[rate]}"),
        TextColumn("ETA"),
        TimeRemainingColumn(compact=True),
    )
    started, new = time.monotonic(), 0
    with Progress(*columns, console=Console(stderr=True), expand=True, speed_estimate_period=60) as bar:
        shown = "?" if total is None else f"{total:,}"
        task = bar.add_task("", total=total, completed=done, unit=unit, rate="", all=shown)

        def advance(count: int) -> None:
            nonlocal new
            new += count
            bar.update(task, advance=count, rate=f"{new / (time.monotonic() - started):,.0f} {unit}/s")

        yield advance


@contextmanager
def _lines(total: int | None, done: int, unit: str) -> Iterator[Callable]:
    """A line now and then, for logs; if there was any, the last one says how it ended."""
    started = last = time.monotonic()
    new = told = 0

    def tell(ended: bool = False) -> None:
        nonlocal last, told
        last, told = time.monotonic(), new
        rate = new / max(last - started, 1e-9)
        rest = "" if total is None else f" of {total:,}"
        rest += "" if total is None or ended else f", ETA {duration((total - done - new) / rate)}"
        complain(f"{done + new:,}{rest} {unit}, {rate:,.0f} {unit}/s")

    def advance(count: int) -> None:
        nonlocal new
        new += count
        if time.monotonic() - last >= SECONDS_BETWEEN_LINES:
            tell()

    yield advance
    if told not in (0, new):
        tell(ended=True)
