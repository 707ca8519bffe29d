"""Short runs of a trainer, for the tests of all kinds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

datasets = pytest.importorskip("datasets")

SETTINGS: dict[str, Any] = {
    "max_steps": 4,
    "per_device_train_batch_size": 4,
    "per_device_eval_batch_size": 4,
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": [],
    "disable_tqdm": True,
    "learning_rate": 1e-3,
}


def trainer_of(
    kind: Any, model: Any, folder: Path, columns: Any, loss: Any = None, settings: Any = None, **options: Any
) -> Any:
    """A trainer of a kind, over columns, a data set or several by name."""
    args = kind.training_args_class(output_dir=str(folder), **SETTINGS | (settings or {}))
    plain = isinstance(columns, dict) and all(isinstance(column, list) for column in columns.values())
    data = datasets.Dataset.from_dict(columns) if plain else columns
    return kind(model=model, args=args, train_dataset=data, loss=loss, **options)


def logged(trainer: Any, name: str = "loss") -> list[float]:
    """The values of a run that were logged under a name, step by step."""
    return [entry[name] for entry in trainer.state.log_history if name in entry and "loss" in entry]
