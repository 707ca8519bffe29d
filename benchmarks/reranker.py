"""Does a re-ranker that is made in minutes beat the search that it sorts? `python -m benchmarks.reranker`.

Runs `examples/train_reranker.py` for three seeds: all-MiniLM-L6-v2 becomes a cross-encoder that sorts what the same
model found as a bi-encoder, for sentences of WordNet that it was not trained on. Each seed has its own split. The table
goes to RERANKER.md.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mean

HERE = Path(__file__).resolve().parent
SCRIPT = HERE.parent / "examples" / "train_reranker.py"
SEEDS = (1, 2, 3)
METRICS = {"ndcg@10": "nDCG@10", "mrr@10": "MRR@10"}
TITLE = "# A small re-ranker against the search that it sorts\n\nMade by `python -m benchmarks.reranker`."


def run(script: Path, seed: int) -> str:
    """What an example prints for a seed."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(script), "--seed", str(seed), "--output", folder]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def values_of(printed: str) -> dict[str, float]:
    """The metrics after training, by name."""
    rows = re.findall(r"^test_(\S+)\s+(\S+)\s+(\S+)$", printed, re.M)
    return {name: float(after) for name, _, after in rows}


def table(found: dict[int, dict[str, float]]) -> str:
    """A line for each seed and one for the mean."""
    columns = [(f"{kind}{key}", f"{who}, {title}") for key, title in METRICS.items()
               for kind, who in (("base_", "bi-encoder"), ("", "re-ranker"))]  # fmt: skip
    lines = [f"| Seed | {' | '.join(title for _, title in columns)} |", "| --- " * (len(columns) + 1) + "|"]
    lines += [f"| {seed} | {' | '.join(f'{row[key]:.3f}' for key, _ in columns)} |" for seed, row in found.items()]
    means = [mean(row[key] for row in found.values()) for key, _ in columns]
    return "\n".join([*lines, f"| mean | {' | '.join(f'{value:.3f}' for value in means)} |"])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=HERE / "RERANKER.md")
    chosen = parser.parse_args()
    found = {}
    for seed in SEEDS:
        found[seed] = values_of(run(SCRIPT, seed))
        print(seed, found[seed], flush=True)
    chosen.output.write_text(f"{TITLE}\n\n{(__doc__ or '').split(chr(10), 2)[2].strip()}\n\n{table(found)}\n")


if __name__ == "__main__":
    main()
