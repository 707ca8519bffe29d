"""A trainer that kills its process at a step, or goes on from its checkpoint; runs in children of `test_trainer`."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import TrainerCallback

import sentence_transformers
from sentence_transformers import losses

TEXTS = [f"the river number {i} and a cat" + " dog" * (i % 5) for i in range(24)]


class Kill(TrainerCallback):
    """SIGKILL after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def train(folder: Path, out: Path, kill: int, resume: bool, kind: str) -> None:
    """Two epochs of six steps, with a checkpoint after every second; writes the weights of model and loss.

    Args:
        kill: the step after which the process kills itself; -1 for none.
        kind: class of the model.
    """
    torch.set_num_threads(1)
    torch.manual_seed(5)
    model = getattr(sentence_transformers, kind)(str(folder), device="cpu")
    data = Dataset.from_dict({"a": TEXTS, "b": TEXTS[::-1], "label": [i % 2 for i in range(24)]})
    if kind != "SentenceTransformer":
        data = data.remove_columns("label")
    loss: Any
    if kind == "CrossEncoder":
        loss = losses.CachedMultipleNegativesRankingLoss(model, num_negatives=1, mini_batch_size=3)
    elif kind == "SparseEncoder":
        loss = losses.SpladeLoss(model, losses.SparseMultipleNegativesRankingLoss(model), 3e-3, 5e-3)
    elif kind == "MultiVectorEncoder":
        loss = losses.CachedMultiVectorMultipleNegativesRankingLoss(model, mini_batch_size=3)
    else:
        loss = losses.SoftmaxLoss(model, 32, 2)
    args = getattr(sentence_transformers, kind + "TrainingArguments")(
        output_dir=str(out), num_train_epochs=2, per_device_train_batch_size=4, save_strategy="steps", save_steps=2,
        report_to=[], disable_tqdm=True, learning_rate=1e-3, logging_steps=1, batch_sampler="no_duplicates",
    )  # fmt: skip
    trainer = getattr(sentence_transformers, kind + "Trainer")(
        model=model, args=args, train_dataset=data, loss=loss, callbacks=[Kill(kill)]
    )
    trainer.train(resume_from_checkpoint=True if resume else None)
    own = {name: p for name, p in loss.named_parameters() if not name.startswith("model.")}
    torch.save({**model.state_dict(), **own}, out / "final.pt")
