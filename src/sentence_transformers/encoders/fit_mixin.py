"""`fit` of a model of sentence embeddings, as it was before the trainer (`training.fit`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch import nn
    from torch.utils.data import DataLoader

    from sentence_transformers.protocols import Evaluator


class FitMixin:
    """The methods `fit` and `smart_batching_collate`."""

    preprocess: Callable[..., Any]

    def fit(
        self,
        train_objectives: Iterable[tuple[DataLoader, nn.Module]],
        evaluator: Evaluator | None = None,
        epochs: int = 1,
        steps_per_epoch: int | None = None,
        scheduler: str = "WarmupLinear",
        warmup_steps: int = 10000,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.AdamW,
        optimizer_params: dict[str, Any] | None = None,
        weight_decay: float = 0.01,
        evaluation_steps: int = 0,
        output_path: str | None = None,
        save_best_model: bool = True,
        max_grad_norm: float = 1,
        use_amp: bool = False,
        callback: Callable[[float, int, int], None] | None = None,
        show_progress_bar: bool = True,
        checkpoint_path: str | None = None,
        checkpoint_save_steps: int = 500,
        checkpoint_save_total_limit: int = 0,
        resume_from_checkpoint: bool = False,
    ) -> None:
        """Train with data loaders of `InputExample`. New code uses `SentenceTransformerTrainer`.

        Args:
            train_objectives: (data loader, loss) pairs; several take turns, batch by batch.
            evaluator: run after each epoch, or every `evaluation_steps`.
            epochs, steps_per_epoch: how long; by default an epoch ends with the shortest data loader.
            scheduler: "WarmupLinear", "WarmupCosine", "WarmupConstant", "WarmupCosineWithHardRestarts", "ConstantLR".
            warmup_steps: steps with a rising learning rate.
            optimizer_class, optimizer_params: the optimizer; by default AdamW with a learning rate of 2e-5.
            weight_decay, max_grad_norm: of the training.
            output_path: where the model is saved: the best by the evaluator, or else the last.
            save_best_model: with an evaluator, save the best instead of the last.
            use_amp: half precision on CUDA.
            callback: called with (score, epoch, steps) at each evaluation.
            checkpoint_path, checkpoint_save_steps, checkpoint_save_total_limit, resume_from_checkpoint: checkpoints.
        """
        given = dict(locals())
        from sentence_transformers import SentenceTransformerTrainer

        SentenceTransformerTrainer._fit(given.pop("self"), **given)

    old_fit = fit

    def smart_batching_collate(self, batch: list[Any]) -> tuple[list[dict[str, Tensor]], Tensor]:
        """A list of `InputExample` as (features of each column, labels)."""
        from sentence_transformers import SentenceTransformerTrainer

        return SentenceTransformerTrainer._smart_batching_collate(self.preprocess, batch)
