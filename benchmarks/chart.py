"""The benchmark table as a picture: `python -m benchmarks.chart` draws the newest results, `make bench` does so too.

    docs/images/benchmarks.svg     one bar per workload: how many times as fast as the existing library
    docs/images/backends.svg       one bar per way of computing a model: the same, and what it keeps of the quality
    README.md                      a line for each of `README_ROWS`

Workloads that measure memory, or seconds of this library alone, are in the table only.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from benchmarks import ways
from benchmarks.workloads import LATENCY, SPEEDUP
from sentence_transformers.plots import COLOURS, save, short

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "images" / "benchmarks.svg"
WAYS_PICTURE = PICTURE.with_name("backends.svg")
README, MARKS = ROOT / "README.md", ("<!-- benchmarks -->", "<!-- end of benchmarks -->")
README_ROWS = {
    "gloss": "2,000 short texts",
    "paragraph": "400 paragraphs",
    "mix": "texts of all lengths, 30 % twice",
    "int8": "short texts, products in int8",
    "query": "one query, warm",
    "cold": "fresh process to its first vector",
    "static": "static embeddings, 100,000 texts",
    "predict": "re-ranker, 600 pairs",
    "splade-paragraphs": "SPLADE, 200 paragraphs",
    "train-mnrl": "training with in-batch negatives",
    "retrieval": "retrieval evaluator",
    "search": "exact search of 1,000 queries in 500,000 vectors",
    "paraphrases": "paraphrase mining in 20,000 vectors",
    "binary": "binary search, rescored, in 1,000,000 vectors",
}
FASTER = "times as fast as version 6.2.0 of the existing library"


Bars = list[tuple[str, float, str]]  # what, how many times as fast, and what is said behind its bar


def bars(results: dict[str, Any]) -> Bars:
    """The bars of a result file: the medians of the pairs."""
    rows = []
    for row in results["workloads"]:
        if row["measure"] not in (SPEEDUP, LATENCY):
            continue
        times = times_of(row)
        rows.append((short(row["title"].replace("`", ""), 76), times, f"{times:.1f}×"))
    return rows


def times_of(row: dict[str, Any]) -> float:
    """How many times as fast as the existing library."""
    return row["median"] if row["measure"] == SPEEDUP else 1 / row["median"]


def way_bars() -> Bars:
    """The bars of the ways of computing: speed, and the share of float32's nDCG@10 that is kept."""
    times = {row["name"]: row["median"] for row in ways.speeds()["workloads"]}
    kept = json.loads(ways.QUALITY.read_text(encoding="utf-8"))
    rows = []
    for name, (title, _) in ways.WAYS.items():
        if name in times:
            share = kept[name]["nDCG@10"] / kept["gloss"]["nDCG@10"]
            rows.append((title, times[name], f"{times[name]:.1f}×, {share:.1%} of nDCG@10"))
    return rows


def draw_bars(figure: Any, rows: Bars) -> dict[str, list[str]]:
    """A bar a row, from the top; what is said behind the bars needs some of the width."""
    titles, times, notes = zip(*rows, strict=True)
    figure.set_size_inches(10, 1 + 0.3 * len(rows))
    axes = figure.subplots()
    drawn = axes.barh(range(len(rows)), times, 0.6, color=COLOURS[0])
    axes.bar_label(drawn, notes, padding=5, fontweight="bold")
    axes.set(yticks=range(len(rows)), yticklabels=titles, xlabel=FASTER, ylim=(len(rows) - 0.4, -0.6))
    axes.margins(x=0.05 + 0.015 * max(map(len, notes)))
    axes.spines[["top", "right"]].set_visible(False)
    return {}


def readme_table() -> str:
    """The lines of `README_ROWS`, each out of the newest file that has it."""
    files = sorted((ROOT / "benchmarks" / "results").glob("????-??-??*.json"))
    rows = {row["name"]: row for path in files for row in json.loads(path.read_text())["workloads"]}
    lines = ["| Work | times as fast | memory | results |", "| --- | --- | --- | --- |"]
    for name, words in README_ROWS.items():
        row = rows[name]
        lines.append(f"| {words} | {times_of(row):.1f} | {row['memory_ratio']:.0%} | {vectors_of(row)} |")
    return "\n".join(lines)


def vectors_of(row: dict[str, Any]) -> str:
    """How equal the results of both libraries were."""
    if "vectors" not in row:
        return ""
    apart = row["vectors"]
    if row.get("agreement") == "recall":
        return f"{apart['mean_cosine']:.0%} of the exact hits"
    if row.get("shows_cosine"):
        return f"mean cosine {apart['mean_cosine']:.4f}"
    return "equal" if apart["max_difference"] < 1e-4 else f"difference {apart['max_difference']:.0e}"


def write_readme(path: Path = README) -> None:
    """Put the table between its marks."""
    before, rest = path.read_text(encoding="utf-8").split(MARKS[0])
    path.write_text(f"{before}{MARKS[0]}\n{readme_table()}\n{MARKS[1]}{rest.split(MARKS[1])[1]}", encoding="utf-8")


def write(rows: Bars, path: Path, title: str) -> None:
    """Draw bars into a file."""
    save(functools.partial(draw_bars, rows=rows), path, title)


def newest() -> Path:
    """The latest result file of encoding and scoring; other tables have a name behind the date."""
    return max((ROOT / "benchmarks" / "results").glob("????-??-??.json"))


def main() -> None:
    """Draw the newest results, wherever they are shown."""
    write(bars(json.loads(newest().read_text(encoding="utf-8"))), PICTURE, "Speed")
    write(way_bars(), WAYS_PICTURE, "Speed and quality")
    write_readme()
    print(f"{newest().name} -> {PICTURE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
