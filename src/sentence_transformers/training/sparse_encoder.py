"""The trainer of sparse encoders: the base trainer, with regulariser weights that rise.

loss = SpladeLoss(model, SparseMultipleNegativesRankingLoss(model), document_regularizer_weight=3e-5)
trainer = SparseEncoderTrainer(model=model, train_dataset=pairs, loss=loss)
trainer.train()
"""

from __future__ import annotations

import inspect
import logging
from typing import Any

from torch import nn

from sentence_transformers import _names
from sentence_transformers.encoders.base import LazyClass
from sentence_transformers.encoders.sparse_encoder import SparseEncoder
from sentence_transformers.losses.splade import SpladeLoss
from sentence_transformers.training.arguments import SparseEncoderTrainingArguments
from sentence_transformers.training.collator import SparseEncoderDataCollator
from sentence_transformers.training.regularizer_schedule import SpladeRegularizerWeightSchedulerCallback
from sentence_transformers.training.trainer import BaseTrainer

logger = logging.getLogger(__name__)
DOCUMENT_WEIGHT, QUERY_WEIGHT = 3e-5, 5e-5


class SparseEncoderTrainer(BaseTrainer):
    """Trains a `SparseEncoder`; see `BaseTrainer` for the arguments.

    The default loss is a `SpladeLoss` around `SparseMultipleNegativesRankingLoss`. The weights of a `SpladeLoss` rise
    in the first third of a run, unless a `SpladeRegularizerWeightSchedulerCallback` among the callbacks says otherwise.

    Example:
        >>> trainer = SparseEncoderTrainer(model=model, train_dataset=dataset)
        >>> trainer.train()
    """

    model_class = SparseEncoder
    model_card_data_class = LazyClass("SparseEncoderModelCardData")
    model_card_callback_class = LazyClass("SparseEncoderModelCardCallback")
    data_collator_class = SparseEncoderDataCollator
    training_args_class = SparseEncoderTrainingArguments

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._own_schedules: list[SpladeRegularizerWeightSchedulerCallback] = []
        self.schedule_regularizers()

    __init__.__signature__ = inspect.signature(BaseTrainer.__init__)  # type: ignore[attr-defined]

    def get_default_loss(self, model: Any) -> nn.Module:
        logger.info("No loss is given; SpladeLoss with SparseMultipleNegativesRankingLoss is used.")
        inner = _names.home("SparseMultipleNegativesRankingLoss")(model)
        return SpladeLoss(model, inner, DOCUMENT_WEIGHT, QUERY_WEIGHT)

    def call_model_init(self, trial: Any = None) -> Any:
        """A fresh model; its losses get schedules of their own."""
        model = super().call_model_init(trial)
        if hasattr(self, "_own_schedules"):
            self.schedule_regularizers()
        return model

    def schedule_regularizers(self) -> None:
        """Let the weights of each `SpladeLoss` rise, where no callback that was given does."""
        for callback in self._own_schedules:
            self.remove_callback(callback)
        kind = SpladeRegularizerWeightSchedulerCallback
        given = [one.loss for one in self.callback_handler.callbacks if isinstance(one, kind)]
        losses = [loss for loss in self._losses if isinstance(loss, SpladeLoss)]
        self._own_schedules = [kind(loss) for loss in losses if not any(loss is one for one in given)]
        for callback in self._own_schedules:
            self.add_callback(callback)
