"""The trainer of dense models: the base trainer, with a default loss.

trainer = SentenceTransformerTrainer(model=model, train_dataset=dataset, loss=MultipleNegativesRankingLoss(model))
trainer.train()
"""

from __future__ import annotations

import logging
from typing import Any

from torch import nn

from sentence_transformers import _names
from sentence_transformers.encoders.base import LazyClass
from sentence_transformers.encoders.sentence_transformer import SentenceTransformer
from sentence_transformers.training.arguments import SentenceTransformerTrainingArguments
from sentence_transformers.training.collator import SentenceTransformerDataCollator
from sentence_transformers.training.trainer import BaseTrainer

logger = logging.getLogger(__name__)


class SentenceTransformerTrainer(BaseTrainer):
    """Trains a `SentenceTransformer`; see `BaseTrainer` for the arguments.

    The default loss is `CoSENTLoss`.

    Example:
        >>> trainer = SentenceTransformerTrainer(model=model, train_dataset=dataset, loss=losses.CoSENTLoss(model))
        >>> trainer.train()
    """

    model_class = SentenceTransformer
    model_card_data_class = LazyClass("SentenceTransformerModelCardData")
    model_card_callback_class = LazyClass("SentenceTransformerModelCardCallback")
    data_collator_class = SentenceTransformerDataCollator
    training_args_class = SentenceTransformerTrainingArguments

    def get_default_loss(self, model: Any) -> nn.Module:
        logger.info("No loss is given; CoSENTLoss is used.")
        return _names.home("CoSENTLoss")(model)
