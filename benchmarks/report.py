"""From pairs of records to one row per workload, and from rows to a table. Pure functions, no processes.

A record is what worker.py prints. Ratios are taken pair by pair (both runs of a pair saw the same weather on the
machine) and the row carries the median of the ratios with the smallest and the largest.
"""

from __future__ import annotations

from statistics import mean, median
from typing import Any

import numpy as np

from benchmarks.workloads import LATENCY, MEMORY, SECONDS, SPEEDUP, Workload

Record = dict[str, Any]
Row = dict[str, Any]
COLUMNS = ("workload", "target", "reached", "min – max", "6.2.0", "here", "memory here / 6.2.0", "vectors", "met")


def row(workload: Workload, pairs: list[tuple[Record, Record]]) -> Row:
    """Everything the table and the result file say about one workload; `pairs` are (peer, ours)."""
    peers, ours = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    values = [pair_value(workload.measure, peer, our) for peer, our in pairs]
    found: Row = {
        "name": workload.name,
        "title": workload.title,
        "measure": workload.measure,
        "target": workload.target,
        "values": values,
        "median": median(values),
        "min": min(values),
        "max": max(values),
        "peer": side(peers),
        "ours": side(ours),
        "memory_ratio": median(memory_of(our) / max(1, memory_of(peer)) for peer, our in pairs),
        "pairs": [{"peer": peer, "ours": our} for peer, our in pairs],
    }
    return found


def pair_value(measure: str, peer: Record, ours: Record) -> float:
    """The one number of a pair, by the measure of the workload (see workloads.py)."""
    if measure == SPEEDUP:
        return time_of(peer) / time_of(ours)
    if measure == LATENCY:
        return time_of(ours) / time_of(peer)
    if measure == SECONDS:
        return time_of(ours)
    if measure == MEMORY:
        return memory_of(ours) / max(1, memory_of(peer))
    raise ValueError(f"Unknown measure {measure!r}: expected {SPEEDUP}, {LATENCY}, {SECONDS} or {MEMORY}.")


def side(records: list[Record]) -> Row:
    """The medians over all runs of one library."""
    found: Row = {
        "seconds": median(time_of(record) for record in records),
        "memory": median(memory_of(record) for record in records),
        "version": records[0]["version"],
    }
    if "tokens" in records[0]:
        found["tokens_per_second"] = median(record["tokens"] / time_of(record) for record in records)
    if "gemm_before" in records[0]:
        found["gemm_gflops"] = median(gemm_of(record) for record in records)
        found["peak_share"] = median(peak_share(record) for record in records)
    return found


def time_of(record: Record) -> float:
    """The time of one run: the median of its repetitions."""
    return median(record["seconds"])


def memory_of(record: Record) -> int:
    """The growth while encoding, or the peak of the whole process where encoding is not watched by itself."""
    return record.get("memory_growth", record["process_peak"])


def gemm_of(record: Record) -> float:
    """The GEMM peak around one run: the mean of before and after, in GFLOP/s."""
    return mean((record["gemm_before"], record["gemm_after"]))


def peak_share(record: Record) -> float:
    """The share of the GEMM peak that one run reaches, counting the work of the transformer layers."""
    return record["tokens"] * record["flop_per_token"] / time_of(record) / 1e9 / gemm_of(record)


def compare(peer: np.ndarray, ours: np.ndarray) -> dict[str, float]:
    """Two arrays of vectors (B, H): largest absolute difference, mean and smallest cosine."""
    if peer.shape != ours.shape:
        raise ValueError(f"The vectors have different shapes: {peer.shape} under 6.2.0, {ours.shape} here.")
    peer, ours = np.atleast_2d(peer).astype(np.float64), np.atleast_2d(ours).astype(np.float64)
    norms = np.linalg.norm(peer, axis=1) * np.linalg.norm(ours, axis=1)
    cosines = (peer * ours).sum(axis=1) / np.maximum(norms, 1e-30)
    cosines = np.where((peer == ours).all(axis=1), 1.0, cosines)  # two zero vectors are alike
    return {
        "max_difference": float(np.abs(peer - ours).max()),
        "mean_cosine": float(cosines.mean()),
        "min_cosine": float(cosines.min()),
    }


def worst(comparisons: list[dict[str, float]]) -> dict[str, float]:
    """The worst of several comparisons, figure by figure."""
    return {
        "max_difference": float(np.max([one["max_difference"] for one in comparisons])),  # keeps a NaN
        "mean_cosine": float(np.min([one["mean_cosine"] for one in comparisons])),
        "min_cosine": float(np.min([one["min_cosine"] for one in comparisons])),
    }


def checks(workload: Workload, found: Row) -> dict[str, bool]:
    """Which of the workload's targets are met; a target that it does not have is left out."""
    met: dict[str, bool] = {}
    if workload.target is not None:
        reached = found["median"]
        met["target"] = reached >= workload.target if workload.measure == SPEEDUP else reached <= workload.target
    if workload.min_peak_share is not None:
        met["peak_share"] = found["ours"]["peak_share"] >= workload.min_peak_share
    if workload.max_memory is not None:
        met["memory"] = found["memory_ratio"] <= workload.max_memory
    if "vectors" in found and workload.max_difference is not None:
        met["max_difference"] = found["vectors"]["max_difference"] <= workload.max_difference
    if "vectors" in found and workload.min_cosine is not None:
        met["mean_cosine"] = found["vectors"]["mean_cosine"] >= workload.min_cosine
    return met


def render(rows: list[Row], machine: dict[str, Any], command: str) -> str:
    """The readable page: a table of all rows, the share of the GEMM peak, the machine and the command."""
    lines = ["# Benchmark results", "", "Written by `make bench`; do not edit.", ""]
    lines += [f"- {name}: {value}" for name, value in machine.items()]
    lines += [f"- command: `{command}`", "", _line(COLUMNS), _line(["---"] * len(COLUMNS))]
    lines += [_line(table_cells(found)) for found in rows]
    lines += ["", *peak_table(rows), *NOTES]
    return "\n".join(lines) + "\n"


def table_cells(found: Row) -> list[str]:
    """One row of the main table."""
    if "error" in found:
        return [found["title"], target_text(found), "failed", *[""] * (len(COLUMNS) - 4), "no"]
    low, high = value_text(found, found["min"]), value_text(found, found["max"])
    peer, ours = found["peer"], found["ours"]
    megabytes = f"{ours['memory'] / 1e6:,.0f} / {peer['memory'] / 1e6:,.0f} MB = {found['memory_ratio']:.2f}"
    met = found["checks"]
    missed = [name.replace("_", " ") for name, reached in met.items() if not reached]
    return [
        found["title"],
        target_text(found),
        value_text(found, found["median"]),
        f"{low} – {high}",
        side_text(peer),
        side_text(ours),
        megabytes,
        vectors_text(found),
        f"no: {', '.join(missed)}" if missed else "yes" if met else "",
    ]


def target_text(found: Row) -> str:
    """The target with its direction, like `≥ 1.5×`."""
    if found["target"] is None:
        return ""
    sign = "≥" if found["measure"] == SPEEDUP else "≤"
    return f"{sign} {found['target']:g}{unit(found)}"


def value_text(found: Row, value: float) -> str:
    """A reached number with its unit."""
    digits = 3 if found["measure"] == SECONDS else 2
    return f"{value:.{digits}f}{unit(found)}"


def unit(found: Row) -> str:
    """Seconds for an absolute time, × for a ratio."""
    return " s" if found["measure"] == SECONDS else "×"


def side_text(one: Row) -> str:
    """The median time of one library, with its rate where tokens are counted."""
    seconds = one["seconds"]
    text = f"{seconds * 1000:.2f} ms" if seconds < 0.1 else f"{seconds:.2f} s"
    if "tokens_per_second" in one:
        text += f" ({one['tokens_per_second'] / 1000:.1f}k tokens/s)"
    return text


def vectors_text(found: Row) -> str:
    """How far the vectors of the two libraries are apart."""
    if "vectors" not in found:
        return ""
    apart = found["vectors"]
    if found.get("agreement") == "recall":  # each row says for one query which documents both found
        return f"recall {apart['mean_cosine']:.3f}"
    text = f"difference {apart['max_difference']:.1e}"
    if found.get("shows_cosine"):
        text += f", mean cosine {apart['mean_cosine']:.5f}"
    return text


def peak_table(rows: list[Row]) -> list[str]:
    """The share of the GEMM peak of both libraries, for the workloads that measure it."""
    measured = [found for found in rows if "peak_share" in found.get("ours", {})]
    if not measured:
        return []
    columns = ("workload", "target", "share here", "share 6.2.0", "GEMM peak here", "GEMM peak 6.2.0")
    lines = [_line(columns), _line(["---"] * len(columns))]
    for found in measured:
        shares = [f"{found[name]['peak_share']:.0%}" for name in ("ours", "peer")]
        peaks = [f"{found[name]['gemm_gflops']:.0f} GFLOP/s" for name in ("ours", "peer")]
        lines.append(_line([found["title"], f"≥ {found['min_peak_share']:.0%}", *shares, *peaks]))
    return [*lines, ""]


def _line(cells: Any) -> str:
    """One line of a markdown table."""
    return f"| {' | '.join(cells)} |"


NOTES = [
    "How to read it: each library runs in processes of its own, in turns (6.2.0, here, here, 6.2.0, …). *reached* is",
    "the median of the ratios taken pair by pair, with the smallest and the largest beside it; *6.2.0* and *here* are",
    "medians of the times (of the repetitions inside a process, then of the processes). `×` is 6.2.0's time divided",
    "by ours where the target says ≥, ours divided by 6.2.0's where it says ≤, and memory divided by memory in the",
    "row named so. *memory* is the growth of resident memory while encoding (peak minus resident before the first",
    "text); in the rows of a fresh process it is the peak of the whole process. *difference* is the largest absolute",
    "one between the vectors of the two libraries. The GEMM peak is the best rate of a 2048 × 2048 × 2048 float32",
    "product in the same process, mean of right before and right after; the share counts the linear maps of the",
    "transformer layers only, 2 · (4·H·H + 2·H·I) · layers a token.",
]
