"""The benchmark table as a picture: `python -m benchmarks.chart` draws the newest results, `make bench` does so too.

    docs/images/benchmarks.svg     one bar per workload: how many times as fast as the existing library

Workloads that measure memory, or seconds of this library alone, are in the table only.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.workloads import LATENCY, SPEEDUP
from sentence_transformers.plots import svg
from sentence_transformers.plots.charts import COLOURS, Bars, short

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "images" / "benchmarks.svg"


def bars(results: dict[str, Any]) -> Bars:
    """The chart of a result file: the medians of the pairs."""
    rows = []
    for row in results["workloads"]:
        if row["measure"] not in (SPEEDUP, LATENCY):
            continue
        times = row["median"] if row["measure"] == SPEEDUP else 1 / row["median"]
        rows.append((short(row["title"].replace("`", ""), 76), (times,), f"{times:.1f}×"))
    return Bars(rows, ("times as fast as version 6.2.0 of the existing library",), "Speed", (COLOURS[0],))


def write(results: dict[str, Any], path: Path = PICTURE) -> None:
    """Draw a result file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(svg.draw(bars(results)), encoding="utf-8")


def newest() -> Path:
    """The latest result file of encoding and scoring; other tables have a name behind the date."""
    return max((ROOT / "benchmarks" / "results").glob("????-??-??.json"))


if __name__ == "__main__":
    write(json.loads(newest().read_text(encoding="utf-8")))
    print(f"{newest().name} -> {PICTURE.relative_to(ROOT)}")
