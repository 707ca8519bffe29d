"""Is the learning the same? Short training runs under both libraries, three seeds: `python -m benchmarks.learning`.

    in-batch negatives   WordNet: definition -> words and example; nDCG@10 of 500 held-out queries
    CoSENT               Lee texts: similarities of pairs of 20 held-out texts; Spearman correlation

Same data, seed and settings on both sides; dropout meets other random numbers, because batches are laid out otherwise.
The table goes to LEARNING.md. The same file is the worker: it runs under either library and uses its public API alone.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from itertools import combinations
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SEEDS = (1, 2, 3)
TASKS = {"in-batch negatives": "nDCG@10", "CoSENT": "Spearman"}


def data_of(task: str, seed: int) -> dict[str, list[Any]]:
    """Columns to train on, and held-out columns under names that begin with "test_"."""
    import random

    from benchmarks import texts

    chance = random.Random(seed)
    if task == "CoSENT":
        documents, judged = texts.lee()
        numbers = list(range(len(documents)))
        chance.shuffle(numbers)
        parts = []
        for chosen in (numbers[20:], numbers[:20]):
            rows = [(documents[i], documents[j], judged[i][j]) for i, j in combinations(chosen, 2)]
            parts.append(list(map(list, zip(*rows, strict=True))))
    else:
        rows = [
            (one.definition, f"{', '.join(one.words)}: {one.examples[0]}") for one in texts.synsets() if one.examples
        ]
        chance.shuffle(rows)
        parts = [list(map(list, zip(*part, strict=True))) for part in (rows[500:3000], rows[:500])]
    names = ("first", "second", "label")
    columns = dict(zip(names, parts[0], strict=False))
    return columns | {f"test_{name}": column for name, column in zip(names, parts[1], strict=False)}


def work(job_file: str) -> None:
    """One run: train on the job's columns, print the metric before and after."""
    from datasets import Dataset

    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
        losses,
    )
    from sentence_transformers.evaluation import EmbeddingSimilarityEvaluator, InformationRetrievalEvaluator

    job = json.loads(Path(job_file).read_text())
    columns, model = job["columns"], SentenceTransformer(job["model"], device="cpu")
    test = [columns.pop(name) for name in list(columns) if name.startswith("test_")]
    if "label" in columns:
        evaluator: Any = EmbeddingSimilarityEvaluator(*test, write_csv=False)
        loss: Any = losses.CoSENTLoss(model)
    else:
        sides = [{f"{side}{i}": text for i, text in enumerate(texts)} for side, texts in zip("qd", test, strict=True)]
        relevant = {f"q{i}": {f"d{i}"} for i in range(len(test[0]))}
        evaluator = InformationRetrievalEvaluator(*sides, relevant, write_csv=False)
        loss = losses.MultipleNegativesRankingLoss(model)
    before = evaluator(model)[evaluator.primary_metric]
    with tempfile.TemporaryDirectory() as folder:
        args = SentenceTransformerTrainingArguments(
            output_dir=folder,
            max_steps=job["steps"],
            per_device_train_batch_size=job["batch_size"],
            learning_rate=3e-5,
            warmup_steps=6,
            seed=job["seed"],
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
        )
        trainer = SentenceTransformerTrainer(
            model=model, args=args, train_dataset=Dataset.from_dict(columns), loss=loss
        )
        trainer.train()
    print(json.dumps({"before": before, "after": evaluator(model)[evaluator.primary_metric]}), flush=True)


def main() -> None:
    from benchmarks import run, worker

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--peer-python", help="a Python with sentence-transformers 6.2.0 (default: made)")
    parser.add_argument("--our-python", help="a Python with this library (default: made)")
    parser.add_argument("--results", default=str(HERE), help="folder for the table")
    chosen = parser.parse_args()
    pythons = (chosen.peer_python or run.peer_environment(), chosen.our_python or run.our_environment())
    lines = ["# Is the learning the same?", "", f"Written by `python -m benchmarks.learning --steps {chosen.steps}`; "
             "what the tasks are is told there. all-MiniLM-L6-v2, learning rate 3e-5.", "",
             "| loss | metric | seed | before | 6.2.0 | here |", "| --- | --- | --- | --- | --- | --- |"]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        for task, metric in TASKS.items():
            rows = []
            for seed in SEEDS:
                file = Path(folder, "job.json")
                batch = 16 if task == "CoSENT" else 32
                job = {"columns": data_of(task, seed), "seed": seed, "steps": chosen.steps, "batch_size": batch}
                file.write_text(json.dumps(job | {"model": str(worker.model_folder())}))
                found = [one_run(python, file) for python in pythons]
                rows.append((found[1]["before"], found[0]["after"], found[1]["after"]))
                lines.append(
                    f"| {task} | {metric} | {seed} | " + " | ".join(f"{value:.4f}" for value in rows[-1]) + " |"
                )
                print(lines[-1], flush=True)
            means = [sum(column) / len(column) for column in zip(*rows, strict=True)]
            lines.append(f"| {task} | {metric} | mean | " + " | ".join(f"**{value:.4f}**" for value in means) + " |")
            print(lines[-1], flush=True)
    Path(chosen.results, "LEARNING.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def one_run(python: str, job: Path) -> dict[str, float]:
    """The last line that a worker prints."""
    done = subprocess.run([python, "-P", __file__, str(job)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    if len(sys.argv) == 2 and sys.argv[1].endswith(".json"):
        work(sys.argv[1])
    else:
        main()
