"""`fit` of a cross-encoder, as it was before the trainer (`training.fit`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import nn
    from torch.utils.data import DataLoader

    from sentence_transformers.protocols import Evaluator


class FitMixin:
    """The methods `fit` and `smart_batching_collate`."""

    preprocess: Callable[..., Any]

    def fit(
        self,
        train_dataloader: DataLoader,
        evaluator: Evaluator | None = None,
        epochs: int = 1,
        loss_fct: nn.Module | None = None,
        activation_fct: nn.Module | None = None,
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
    ) -> None:
        """Train with a data loader of `InputExample` of two texts and a label. New code uses `CrossEncoderTrainer`.

        Args:
            train_dataloader: the examples.
            loss_fct: scores, labels -> scalar; default: binary cross entropy for a model with one score, cross entropy
                for one with several.
            activation_fct: applied to the scores before the loss.
            others: see `SentenceTransformer.fit`.
        """
        given = dict(locals())
        from sentence_transformers import CrossEncoderTrainer

        CrossEncoderTrainer._fit(given.pop("self"), **given)

    old_fit = fit

    def smart_batching_collate(self, batch: list[Any]) -> tuple[dict[str, Any], torch.Tensor]:
        """A list of `InputExample` of two texts as (features of the pairs, labels)."""
        labels = torch.tensor([example.label for example in batch])
        labels = labels.float() if self.num_labels == 1 else labels.long()  # type: ignore[attr-defined]
        return self.preprocess([tuple(example.texts) for example in batch]), labels

    def smart_batching_collate_text_only(self, batch: list[Any]) -> dict[str, Any]:
        """A list of pairs of texts as features."""
        return self.preprocess([tuple(pair) for pair in batch])
