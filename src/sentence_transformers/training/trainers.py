"""The trainers of the four kinds of models: `BaseTrainer` with a collator, arguments and a default loss of their own.

    trainer = SentenceTransformerTrainer(model=model, train_dataset=dataset, loss=MultipleNegativesRankingLoss(model))
    trainer.train()

Losses of cross-encoders are given the texts: `loss(inputs, labels, prompt=…, task=…)` with one list per column, of
texts or of lists of texts. All others are given the features of each column: `loss(sentence_features, labels)`.
"""

from __future__ import annotations

import inspect
import logging
from typing import TYPE_CHECKING, Any

from sentence_transformers.encoders.cross_encoder import CrossEncoder
from sentence_transformers.encoders.multi_vector_encoder import MultiVectorEncoder
from sentence_transformers.encoders.sentence_transformer import SentenceTransformer
from sentence_transformers.encoders.sparse_encoder import SparseEncoder
from sentence_transformers.losses.cross import BinaryCrossEntropyLoss, CrossEntropyLoss
from sentence_transformers.losses.multi_vector import MultiVectorMultipleNegativesRankingLoss
from sentence_transformers.losses.pairs import CoSENTLoss
from sentence_transformers.losses.sparse import SparseMultipleNegativesRankingLoss
from sentence_transformers.losses.splade import SpladeLoss
from sentence_transformers.storage.model_card import (
    CrossEncoderModelCardData,
    MultiVectorEncoderModelCardData,
    SentenceTransformerModelCardData,
    SparseEncoderModelCardData,
)
from sentence_transformers.training.arguments import (
    CrossEncoderTrainingArguments,
    MultiVectorEncoderTrainingArguments,
    SentenceTransformerTrainingArguments,
    SparseEncoderTrainingArguments,
)
from sentence_transformers.training.callbacks import (
    CrossEncoderModelCardCallback,
    MultiVectorEncoderModelCardCallback,
    SentenceTransformerModelCardCallback,
    SparseEncoderModelCardCallback,
    SpladeRegularizerWeightSchedulerCallback,
)
from sentence_transformers.training.collator import (
    DATASET_NAME,
    CrossEncoderDataCollator,
    MultiVectorEncoderDataCollator,
    SentenceTransformerDataCollator,
    SparseEncoderDataCollator,
)
from sentence_transformers.training.fit import pair_loss
from sentence_transformers.training.trainer import BaseTrainer

if TYPE_CHECKING:
    from optuna import Trial
    from torch import nn
    from torch.utils.data import DataLoader

logger = logging.getLogger(__name__)

DOCUMENT_WEIGHT, QUERY_WEIGHT = 3e-5, 5e-5  # of the regularisers of the default loss of sparse encoders


class SentenceTransformerTrainer(BaseTrainer):
    """Trains a `SentenceTransformer`; see `BaseTrainer` for the arguments.

    The default loss is `CoSENTLoss`.

    Example:
        >>> trainer = SentenceTransformerTrainer(model=model, train_dataset=dataset, loss=losses.CoSENTLoss(model))
        >>> trainer.train()
    """

    model_class = SentenceTransformer
    model_card_data_class = SentenceTransformerModelCardData
    model_card_callback_class = SentenceTransformerModelCardCallback
    data_collator_class = SentenceTransformerDataCollator
    training_args_class = SentenceTransformerTrainingArguments

    def get_default_loss(self, model: SentenceTransformer) -> nn.Module:
        logger.info("No loss is given; CoSENTLoss is used.")
        return CoSENTLoss(model)


class CrossEncoderTrainer(BaseTrainer):
    """Trains a `CrossEncoder`; see `BaseTrainer` for the arguments.

    The default loss is `BinaryCrossEntropyLoss` for a model with one score, `CrossEntropyLoss` for one with more.

    Example:
        >>> dataset = Dataset.from_dict({"query": […], "document": […], "label": [1.0, 0.0, …]})
        >>> trainer = CrossEncoderTrainer(model=model, train_dataset=dataset)
        >>> trainer.train()
    """

    model_class = CrossEncoder
    model_card_data_class = CrossEncoderModelCardData
    model_card_callback_class = CrossEncoderModelCardCallback
    data_collator_class = CrossEncoderDataCollator
    training_args_class = CrossEncoderTrainingArguments

    def get_default_loss(self, model: CrossEncoder) -> nn.Module:
        kind = BinaryCrossEntropyLoss if model.num_labels == 1 else CrossEntropyLoss
        logger.info("No loss is given; %s is used.", kind.__name__)
        return kind(model)

    @classmethod
    def _fit(
        cls,
        model: CrossEncoder,
        train_dataloader: DataLoader,
        loss_fct: nn.Module | None,
        activation_fct: nn.Module | None,
        **given: Any,
    ) -> None:
        """A run of `CrossEncoder.fit`."""
        super()._fit(model, [(train_dataloader, pair_loss(model, loss_fct, activation_fct))], **given)

    def collect_features(self, inputs: dict[str, Any]) -> tuple[list[Any], Any]:
        """A batch as one list per column, and the labels."""
        columns = [value for key, value in inputs.items() if key not in ("label", DATASET_NAME)]
        return columns, inputs.get("label")

    def loss_settings(self, inputs: dict[str, Any], dataset_name: str | None) -> dict[str, Any]:
        """Prompt and task of the pairs, where the arguments name them."""
        columns = [key for key in inputs if key not in ("label", DATASET_NAME)]
        settings = getattr(self.data_collator, "of_pairs", None)
        return {} if settings is None else settings(columns, dataset_name)


class SparseEncoderTrainer(BaseTrainer):
    """Trains a `SparseEncoder`; see `BaseTrainer` for the arguments.

    The default loss is a `SpladeLoss` around `SparseMultipleNegativesRankingLoss`. The weights of a `SpladeLoss` rise
    in the first third of a run, unless a `SpladeRegularizerWeightSchedulerCallback` among the callbacks says otherwise.

    Example:
        >>> trainer = SparseEncoderTrainer(model=model, train_dataset=dataset)
        >>> trainer.train()
    """

    model_class = SparseEncoder
    model_card_data_class = SparseEncoderModelCardData
    model_card_callback_class = SparseEncoderModelCardCallback
    data_collator_class = SparseEncoderDataCollator
    training_args_class = SparseEncoderTrainingArguments

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._own_schedules: list[SpladeRegularizerWeightSchedulerCallback] = []
        self.schedule_regularizers()

    __init__.__signature__ = inspect.signature(BaseTrainer.__init__)  # type: ignore[attr-defined]

    def get_default_loss(self, model: SparseEncoder) -> nn.Module:
        logger.info("No loss is given; SpladeLoss with SparseMultipleNegativesRankingLoss is used.")
        return SpladeLoss(model, SparseMultipleNegativesRankingLoss(model), DOCUMENT_WEIGHT, QUERY_WEIGHT)

    def call_model_init(self, trial: Trial | dict[str, Any] | None = None) -> Any:
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


class MultiVectorEncoderTrainer(BaseTrainer):
    """Trains a `MultiVectorEncoder`; see `BaseTrainer` for the arguments.

    The first column holds the queries; columns are encoded as `encode_query` and `encode_document` do: lengths, query
    expansion and skiplist. The default loss is `MultiVectorMultipleNegativesRankingLoss`.

    Example:
        >>> dataset = Dataset.from_dict({"query": […], "document": […]})
        >>> trainer = MultiVectorEncoderTrainer(model=model, train_dataset=dataset)
        >>> trainer.train()
    """

    model_class = MultiVectorEncoder
    model_card_data_class = MultiVectorEncoderModelCardData
    model_card_callback_class = MultiVectorEncoderModelCardCallback
    data_collator_class = MultiVectorEncoderDataCollator
    training_args_class = MultiVectorEncoderTrainingArguments

    def get_default_loss(self, model: MultiVectorEncoder) -> nn.Module:
        logger.info("No loss is given; MultiVectorMultipleNegativesRankingLoss is used.")
        return MultiVectorMultipleNegativesRankingLoss(model)
