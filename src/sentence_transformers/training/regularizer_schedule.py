"""The price of active dimensions rises in the beginning of a run, from 0 to the weights that the loss was given.

    weight(step) = weight · (step / warmup)^p,    p = 1 linear, 2 quadratic; the full weight from the step `warmup` on

A sparse model that has to pay from the first step learns to be empty. Formal et al. 2021, https://arxiv.org/abs/2109.10086.
The weight depends on the step alone, so that a run which is resumed goes on as it would have.
"""

from __future__ import annotations

from enum import Enum
from typing import Any

from transformers import TrainerCallback

from sentence_transformers.errors import InputError
from sentence_transformers.losses.splade import SpladeLoss


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

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Find out how many steps the weights rise, and set those of the first."""
        self.warmup_steps = max(1, int(state.max_steps * self.warmup_ratio))
        self.set_weights(state.global_step)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Set the weights of this step."""
        self.set_weights(state.global_step)

    def on_log(
        self, args: Any, state: Any, control: Any, model: Any = None, logs: dict[str, float] | None = None, **kw: Any
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
