"""The model card follows the training run: what was trained on, with which loss and settings, and how it went."""

from __future__ import annotations

import time
import warnings
from typing import Any

from transformers import TrainerCallback
from transformers.integrations import CodeCarbonCallback

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
        self, args: Any, state: Any, control: Any, model: Any = None, trainer: Any = None, **kw: Any
    ) -> None:
        """The trainer is ready: note losses and data sets."""
        if trainer is None:
            return
        card = model.model_card_data
        sets = trainer.train_dataset, trainer.eval_dataset
        card.start_run(trainer._losses, trainer.loss, *sets, router_mapping=args.router_mapping)
        for callback in trainer.callback_handler.callbacks:
            if isinstance(callback, CodeCarbonCallback):
                card.code_carbon_callback = callback

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kw: Any) -> None:
        """Note the settings."""
        import json

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
        self, args: Any, state: Any, control: Any, model: Any = None, metrics: dict[str, float] | None = None, **kw: Any
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
        self, args: Any, state: Any, control: Any, model: Any = None, logs: dict[str, float] | None = None, **kw: Any
    ) -> None:
        """Note the training loss, and the time until now."""
        if self.started is not None:
            model.model_card_data.training_duration = time.monotonic() - self.started
        if logs and "loss" in logs:
            model.model_card_data.add_log(state.epoch or 0, state.global_step, {"Training Loss": logs["loss"]})

    def on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, **kw: Any) -> None:
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
