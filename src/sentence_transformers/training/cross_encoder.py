"""The trainer of cross-encoders: the base trainer, whose losses are given the texts themselves.

    trainer = CrossEncoderTrainer(model=model, train_dataset=pairs, loss=BinaryCrossEntropyLoss(model))
    trainer.train()

A loss is called as `loss(inputs, labels, prompt=…, task=…)` with one list per column: of texts, or of lists of texts.
"""

from __future__ import annotations

import logging
from typing import Any

from torch import nn

from sentence_transformers import _names
from sentence_transformers.encoders.base import LazyClass
from sentence_transformers.encoders.cross_encoder import CrossEncoder
from sentence_transformers.training.arguments import CrossEncoderTrainingArguments
from sentence_transformers.training.collator import DATASET_NAME, CrossEncoderDataCollator
from sentence_transformers.training.trainer import BaseTrainer

logger = logging.getLogger(__name__)


class CrossEncoderTrainer(BaseTrainer):
    """Trains a `CrossEncoder`; see `BaseTrainer` for the arguments.

    The default loss is `BinaryCrossEntropyLoss` for a model with one score, `CrossEntropyLoss` for one with more.

    Example:
        >>> dataset = Dataset.from_dict({"query": […], "document": […], "label": [1.0, 0.0, …]})
        >>> trainer = CrossEncoderTrainer(model=model, train_dataset=dataset)
        >>> trainer.train()
    """

    model_class = CrossEncoder
    model_card_data_class = LazyClass("CrossEncoderModelCardData")
    model_card_callback_class = LazyClass("CrossEncoderModelCardCallback")
    data_collator_class = CrossEncoderDataCollator
    training_args_class = CrossEncoderTrainingArguments

    def get_default_loss(self, model: Any) -> nn.Module:
        name = "BinaryCrossEntropyLoss" if model.num_labels == 1 else "CrossEntropyLoss"
        logger.info("No loss is given; %s is used.", name)
        return _names.home(name)(model)

    def collect_features(self, inputs: dict[str, Any]) -> tuple[list[Any], Any]:
        """A batch as one list per column, and the labels."""
        columns = [value for key, value in inputs.items() if key not in ("label", DATASET_NAME)]
        return columns, inputs.get("label")

    def loss_settings(self, inputs: dict[str, Any], dataset_name: str | None) -> dict[str, Any]:
        """Prompt and task of the pairs, where the arguments name them."""
        columns = [key for key in inputs if key not in ("label", DATASET_NAME)]
        settings = getattr(self.data_collator, "of_pairs", None)
        return {} if settings is None else settings(columns, dataset_name)
