"""Callbacks of a run: the model card follows it, and the weights of a sparse model's regularisers rise.

The price of active dimensions rises in the beginning of a run, from 0 to the weights that the loss was given:

    weight(step) = weight · (step / warmup)^p,    p = 1 linear, 2 quadratic; the full weight from the step `warmup` on

A sparse model that has to pay from the first step learns to be empty. Formal et al. 2021, https://arxiv.org/abs/2109.10086.
The weight depends on the step alone, so that a run which is resumed goes on as it would have.
"""

from __future__ import annotations

import json
import time
import warnings
from enum import Enum
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback
from transformers.integrations import CodeCarbonCallback

from sentence_transformers.errors import InputError
from sentence_transformers.losses.splade import SpladeLoss

if TYPE_CHECKING:
    from transformers import TrainerControl as Control
    from transformers import TrainerState as State
    from transformers import TrainingArguments as Arguments

    from sentence_transformers.encoders.base import BaseModel
    from sentence_transformers.training.trainer import BaseTrainer

HIDDEN = {  # of the settings that were chosen: where files go, what is shown, and what the trainer always sets
    "accelerator_config",
    "ddp_broadcast_buffers",
    "disable_tqdm",
    "logging_dir",
    "logging_steps",
    "logging_strategy",
    "output_dir",
    "prediction_loss_only",
    "report_to",
    "run_name",
}
PRIVATE = ("_", "hub_", "push_to_hub", "output_dir", "logging_dir", "run_name", "resume_from_checkpoint")


class BaseModelCardCallback(TrainerCallback):
    """Tells the model's card data what happens in a run.

    Args:
        default_args_dict: the training arguments as they are when nothing is set, to tell which ones were.
    """

    started: float | None = None  # time at which the training began; None outside of it

    def __init__(self, default_args_dict: dict[str, Any]) -> None:
        super().__init__()
        self.default_args_dict = default_args_dict

    def on_init_end(
        self,
        args: Arguments,
        state: State,
        control: Control,
        model: BaseModel,
        trainer: BaseTrainer | None = None,
        **kw: Any,
    ) -> None:
        """The trainer is ready: note losses and data sets."""
        if trainer is None:
            return
        card = model.model_card_data
        sets = trainer.train_dataset, trainer.eval_dataset
        card.start_run(trainer._losses, trainer.loss, *sets, router_mapping=trainer.args.router_mapping)
        for callback in trainer.callback_handler.callbacks:
            if isinstance(callback, CodeCarbonCallback):
                card.code_carbon_callback = callback

    def on_train_begin(self, args: Arguments, state: State, control: Control, model: BaseModel, **kw: Any) -> None:
        """Note the settings."""
        card, plain = model.model_card_data, args.to_dict()
        card.evaluation_duration = card.training_duration = 0.0
        self.started = time.monotonic()
        shown = {key: value for key, value in plain.items() if not key.startswith(PRIVATE)}
        card.all_hyperparameters = json.loads(json.dumps(shown, default=str))
        card.non_default_hyperparameters = {
            key: value
            for key, value in card.all_hyperparameters.items()
            if key not in HIDDEN
            and value
            and value != json.loads(json.dumps(self.default_args_dict.get(key), default=str))
        }

    def on_evaluate(
        self,
        args: Arguments,
        state: State,
        control: Control,
        model: BaseModel,
        metrics: dict[str, float] | None = None,
        **kw: Any,
    ) -> None:
        """Note the losses and metrics of an evaluation, and its time if it is a part of the training."""
        if self.started is not None:
            model.model_card_data.evaluation_duration += (metrics or {}).get("eval_runtime", 0.0)
        left_out = ("runtime", "_per_second", "epoch", "preparation_time")
        kept = {key: value for key, value in (metrics or {}).items() if not key.endswith(left_out)}
        renamed = {
            key.removeprefix("eval_") if not key.endswith("_loss") else key: value for key, value in kept.items()
        }
        model.model_card_data.add_log(state.epoch or 0, state.global_step, renamed)

    def on_log(
        self,
        args: Arguments,
        state: State,
        control: Control,
        model: BaseModel,
        logs: dict[str, float] | None = None,
        **kw: Any,
    ) -> None:
        """Note the training loss, and the time until now."""
        if self.started is not None:
            model.model_card_data.training_duration = time.monotonic() - self.started
        if logs and "loss" in logs:
            model.model_card_data.add_log(state.epoch or 0, state.global_step, {"Training Loss": logs["loss"]})

    def on_train_end(
        self, args: Arguments, state: State, control: Control, model: BaseModel | None = None, **kw: Any
    ) -> None:
        """What is measured from now on is no part of the training."""
        self.started = None


class SentenceTransformerModelCardCallback(BaseModelCardCallback):
    """The callback of a `SentenceTransformerTrainer`."""


class SparseEncoderModelCardCallback(BaseModelCardCallback):
    """The callback of a `SparseEncoderTrainer`."""


class MultiVectorEncoderModelCardCallback(BaseModelCardCallback):
    """The callback of a `MultiVectorEncoderTrainer`."""


class CrossEncoderModelCardCallback(BaseModelCardCallback):
    """The callback of a `CrossEncoderTrainer`."""


class ModelCardCallback(SentenceTransformerModelCardCallback):
    """Older name of `SentenceTransformerModelCardCallback`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        text = "ModelCardCallback is now SentenceTransformerModelCardCallback."
        warnings.warn(text, DeprecationWarning, stacklevel=2)
        super().__init__(*args, **kwargs)


class SchedulerType(Enum):
    """How the weights rise."""

    LINEAR = "linear"
    QUADRATIC = "quadratic"


class SpladeRegularizerWeightSchedulerCallback(TrainerCallback):
    """Sets the regulariser weights of a `SpladeLoss` step by step (formula above).

    Args:
        loss: the loss; the weights it has now are those of the end.
        scheduler_type: "linear" or "quadratic".
        warmup_ratio: share of all steps in which the weights rise, 0 to 1.

    Raises:
        InputError: for another loss, an unknown type or a ratio outside 0 to 1.
    """

    def __init__(
        self,
        loss: SpladeLoss,
        scheduler_type: str | SchedulerType = SchedulerType.QUADRATIC,
        warmup_ratio: float = 1 / 3,
    ) -> None:
        super().__init__()
        if not isinstance(loss, SpladeLoss):
            raise InputError(f"Only a SpladeLoss has regulariser weights to schedule, got a {type(loss).__name__}.")
        if not 0 <= warmup_ratio <= 1:
            raise InputError(f"warmup_ratio must be between 0 and 1, got {warmup_ratio}.")
        try:
            self.scheduler_type = SchedulerType(scheduler_type)
        except ValueError as error:
            known = ", ".join(kind.value for kind in SchedulerType)
            raise InputError(f"Unknown scheduler_type {scheduler_type!r}; known are {known}.") from error
        self.loss, self.warmup_ratio = loss, warmup_ratio
        self.max_document_regularizer_weight = loss.document_regularizer_weight
        self.max_query_regularizer_weight = loss.query_regularizer_weight
        self.warmup_steps = 1

    def on_train_begin(self, args: Arguments, state: State, control: Control, **kwargs: Any) -> None:
        """Find out how many steps the weights rise, and set those of the first."""
        self.warmup_steps = max(1, int(state.max_steps * self.warmup_ratio))
        self.set_weights(state.global_step)

    def on_step_begin(self, args: Arguments, state: State, control: Control, **kwargs: Any) -> None:
        """Set the weights of this step."""
        self.set_weights(state.global_step)

    def on_log(
        self,
        args: Arguments,
        state: State,
        control: Control,
        model: BaseModel | None = None,
        logs: dict[str, float] | None = None,
        **kw: Any,
    ) -> None:
        """Put the weights beside the losses, in what is reported and in the history, which has its entry already."""
        if logs is None or "loss" not in logs:
            return
        weights = {"document_regularizer_weight": self.loss.document_regularizer_weight}
        if self.loss.query_regularizer_weight is not None:
            weights["query_regularizer_weight"] = self.loss.query_regularizer_weight
        logs.update(weights)
        if state.log_history and state.log_history[-1].get("step") == state.global_step:
            state.log_history[-1].update(weights)

    def set_weights(self, step: int) -> None:
        """Weights of a step."""
        share = min(step / self.warmup_steps, 1.0)
        share = share if self.scheduler_type is SchedulerType.LINEAR else share**2
        self.loss.document_regularizer_weight = self.max_document_regularizer_weight * share
        if self.max_query_regularizer_weight is not None:
            self.loss.query_regularizer_weight = self.max_query_regularizer_weight * share
