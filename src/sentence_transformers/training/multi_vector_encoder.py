"""The trainer of late interaction models: the base trainer, whose first column holds queries.

    trainer = MultiVectorEncoderTrainer(model=model, train_dataset=pairs)
    trainer.train()

Columns are encoded as their side is in `encode_query` and `encode_document`: lengths, query expansion and skiplist.
"""

from __future__ import annotations

import logging
from typing import Any

from torch import nn

from sentence_transformers import _names
from sentence_transformers.encoders.base import LazyClass
from sentence_transformers.encoders.multi_vector_encoder import MultiVectorEncoder
from sentence_transformers.training.arguments import MultiVectorEncoderTrainingArguments
from sentence_transformers.training.collator import MultiVectorEncoderDataCollator
from sentence_transformers.training.trainer import BaseTrainer

logger = logging.getLogger(__name__)


class MultiVectorEncoderTrainer(BaseTrainer):
    """Trains a `MultiVectorEncoder`; see `BaseTrainer` for the arguments.

    The default loss is `MultiVectorMultipleNegativesRankingLoss`.

    Example:
        >>> dataset = Dataset.from_dict({"query": […], "document": […]})
        >>> trainer = MultiVectorEncoderTrainer(model=model, train_dataset=dataset)
        >>> trainer.train()
    """

    model_class = MultiVectorEncoder
    model_card_data_class = LazyClass("MultiVectorEncoderModelCardData")
    model_card_callback_class = LazyClass("MultiVectorEncoderModelCardCallback")
    data_collator_class = MultiVectorEncoderDataCollator
    training_args_class = MultiVectorEncoderTrainingArguments

    def get_default_loss(self, model: Any) -> nn.Module:
        logger.info("No loss is given; MultiVectorMultipleNegativesRankingLoss is used.")
        return _names.home("MultiVectorMultipleNegativesRankingLoss")(model)
