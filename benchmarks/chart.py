"""The benchmark table as a picture: `python -m benchmarks.chart` draws the newest results, `make bench` does so too.

    docs/images/benchmarks.svg     one bar per workload: how many times as fast as the existing library
    docs/images/backends.svg       one bar per way of computing a model: the same, and what it keeps of the quality

Workloads that measure memory, or seconds of this library alone, are in the table only.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks import ways
from benchmarks.workloads import LATENCY, SPEEDUP
from sentence_transformers.plots import svg
from sentence_transformers.plots.charts import COLOURS, Bars, short

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "images" / "benchmarks.svg"
WAYS_PICTURE = PICTURE.with_name("backends.svg")
FASTER = "times as fast as version 6.2.0 of the existing library"


def bars(results: dict[str, Any]) -> Bars:
    """The chart of a result file: the medians of the pairs."""
    rows = []
    for row in results["workloads"]:
        if row["measure"] not in (SPEEDUP, LATENCY):
            continue
        times = row["median"] if row["measure"] == SPEEDUP else 1 / row["median"]
        rows.append((short(row["title"].replace("`", ""), 76), (times,), f"{times:.1f}×"))
    return Bars(rows, (FASTER,), "Speed", (COLOURS[0],))


def way_bars() -> Bars:
    """The chart of the ways of computing: speed, and the share of float32's nDCG@10 that is kept."""
    times = {row["name"]: row["median"] for row in ways.speeds()["workloads"]}
    kept = json.loads(ways.QUALITY.read_text(encoding="utf-8"))
    rows = []
    for name, (title, _) in ways.WAYS.items():
        if name in times:
            share = kept[name]["nDCG@10"] / kept["gloss"]["nDCG@10"]
            rows.append((title, (times[name],), f"{times[name]:.1f}×, {share:.1%} of nDCG@10"))
    return Bars(rows, (FASTER,), "Speed and quality", (COLOURS[0],))


def write(results: dict[str, Any], path: Path = PICTURE) -> None:
    """Draw a result file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(svg.draw(bars(results)), encoding="utf-8")


def newest() -> Path:
    """The latest result file of encoding and scoring; other tables have a name behind the date."""
    return max((ROOT / "benchmarks" / "results").glob("????-??-??.json"))


if __name__ == "__main__":
    write(json.loads(newest().read_text(encoding="utf-8")))
    WAYS_PICTURE.write_text(svg.draw(way_bars()), encoding="utf-8")
    print(f"{newest().name} -> {PICTURE.relative_to(ROOT)}")
