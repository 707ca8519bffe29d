"""`model.fit(…)` of earlier days, as a run of today's trainer.

    model.fit(train_objectives=[(DataLoader(examples, batch_size=16, shuffle=True), loss)], epochs=1, warmup_steps=100)
    cross_encoder.fit(DataLoader(examples, batch_size=16, shuffle=True), epochs=1, warmup_steps=100)

Data loaders of `InputExample` are taken as they are, several take turns. What `fit` calls a scheduler, an evaluation
step, a checkpoint, is an argument of the trainer.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from sentence_transformers.errors import InputError
from sentence_transformers.features import Features
from sentence_transformers.losses.base import check_labels
from sentence_transformers.losses.cross import CrossLoss
from sentence_transformers.protocols import Evaluator
from sentence_transformers.training.collator import BaseDataCollator
from sentence_transformers.training.dataloaders import rows_of_batch

if TYPE_CHECKING:
    from torch.utils.data import DataLoader
    from transformers import TrainerControl as Control
    from transformers import TrainerState as State
    from transformers import TrainingArguments as Arguments

    from sentence_transformers.encoders.base import BaseModel
    from sentence_transformers.encoders.cross_encoder import CrossEncoder
    from sentence_transformers.training.trainer import BaseTrainer

LEARNING_RATE = 2e-5
SCHEDULERS = {
    "constantlr": "constant",
    "warmupconstant": "constant_with_warmup",
    "warmuplinear": "linear",
    "warmupcosine": "cosine",
    "warmupcosinewithhardrestarts": "cosine_with_restarts",
}


class EvaluatorCallback(TrainerCallback):
    """Runs an evaluator after each epoch.

    Args:
        evaluator: called with the model, epoch and step.
        output_path: folder of the model, in whose `eval` the evaluator writes; None for no files.

    Attributes:
        trainer: if set, its other callbacks are told of the evaluation.
    """

    def __init__(self, evaluator: Evaluator, output_path: str | None = None) -> None:
        super().__init__()
        self.evaluator = evaluator
        self.output_path = None if output_path is None else str(Path(output_path, "eval"))
        self.metric_key_prefix = "eval"
        self.trainer: Any = None
        if self.output_path is not None:
            Path(self.output_path).mkdir(parents=True, exist_ok=True)

    def on_epoch_end(self, args: Arguments, state: State, control: Control, model: BaseModel, **kwargs: Any) -> None:
        found = self.evaluator(model, output_path=self.output_path, epoch=state.epoch, steps=state.global_step)
        metrics = found if isinstance(found, dict) else {"evaluator": found}
        prefix = f"{self.metric_key_prefix}_"
        metrics = {key if key.startswith(prefix) else prefix + key: value for key, value in metrics.items()}
        if self.trainer is not None:
            self.trainer.callback_handler.on_evaluate(args, state, control, metrics=metrics)


class OriginalCallback(TrainerCallback):
    """Tells a function of its own each score of an evaluator.

    Args:
        callback: called with (score, epoch, steps).
        evaluator: its primary metric is the score.
    """

    def __init__(self, callback: Callable[[float, int, int], None], evaluator: Evaluator | None) -> None:
        super().__init__()
        self.callback, self.evaluator = callback, evaluator

    def on_evaluate(
        self, args: Arguments, state: State, control: Control, metrics: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        if (score := score_of(self.evaluator, metrics)) is not None:
            self.callback(score, state.epoch, state.global_step)  # type: ignore[arg-type]  # epochs have parts


class SaveModelCallback(TrainerCallback):
    """Keeps the best model by an evaluator; without one, the last model.

    Args:
        output_dir: where it is saved.
        evaluator: its primary metric decides, and whether greater is better; None to save at the end.
        save_best_model: False to save nothing where there is an evaluator.

    Attributes:
        best_metric: the best score so far, or None.
    """

    def __init__(self, output_dir: str, evaluator: Evaluator | None, save_best_model: bool) -> None:
        super().__init__()
        self.output_dir, self.evaluator, self.save_best_model = output_dir, evaluator, save_best_model
        self.best_metric: float | None = None

    def is_better(self, new_metric: float) -> bool:
        """Whether a score is better than the best so far."""
        if self.best_metric is None:
            return True
        if getattr(self.evaluator, "greater_is_better", True):
            return new_metric > self.best_metric
        return new_metric < self.best_metric

    def on_evaluate(
        self,
        args: Arguments,
        state: State,
        control: Control,
        metrics: dict[str, Any] | None,
        model: BaseModel,
        **kwargs: Any,
    ) -> None:
        if self.evaluator is None or not self.save_best_model:
            return
        score = score_of(self.evaluator, metrics)
        if score is not None and self.is_better(score):
            self.best_metric = score
            model.save(self.output_dir)

    def on_train_end(self, args: Arguments, state: State, control: Control, model: BaseModel, **kwargs: Any) -> None:
        if self.evaluator is None:
            model.save(self.output_dir)


class EpochEvaluation(TrainerCallback):
    """Asks for an evaluation after each epoch, besides those after a number of steps."""

    def __init__(self) -> None:
        self.evaluated = -1

    def on_evaluate(self, args: Arguments, state: State, control: Control, **kwargs: Any) -> None:
        self.evaluated = state.global_step

    def on_epoch_end(self, args: Arguments, state: State, control: Control, **kwargs: Any) -> None:
        control.should_evaluate |= state.global_step != self.evaluated


def score_of(evaluator: Evaluator | None, metrics: dict[str, Any] | None) -> float | None:
    """The primary metric of an evaluator among the metrics of an evaluation, with or without the prefix of them."""
    key = getattr(evaluator, "primary_metric", None) or "evaluator"
    return (metrics or {}).get(key if key.startswith("eval_") else f"eval_{key}")


def fit(
    trainer_class: type[BaseTrainer],
    model: BaseModel,
    train_objectives: Iterable[tuple[DataLoader, nn.Module]],
    *,
    evaluator: Evaluator | None,
    epochs: int,
    steps_per_epoch: int | None = None,
    scheduler: str,
    warmup_steps: int,
    optimizer_class: type[torch.optim.Optimizer],
    optimizer_params: dict[str, Any] | None,
    weight_decay: float,
    evaluation_steps: int,
    output_path: str | None,
    save_best_model: bool,
    max_grad_norm: float,
    use_amp: bool,
    callback: Callable[[float, int, int], None] | None,
    show_progress_bar: bool,
    checkpoint_path: str | None = None,
    checkpoint_save_steps: int = 500,
    checkpoint_save_total_limit: int = 0,
    resume_from_checkpoint: bool = False,
) -> None:
    """Train a model; see `SentenceTransformer.fit` for the arguments."""
    optimizer_params = {"lr": LEARNING_RATE} if optimizer_params is None else optimizer_params
    loaders, losses = zip(*train_objectives, strict=True)
    if scheduler.lower() not in SCHEDULERS:
        raise InputError(f"Unknown scheduler {scheduler!r}; known are WarmupLinear, WarmupCosine, WarmupConstant, "
                         "WarmupCosineWithHardRestarts and ConstantLR.")  # fmt: skip
    names = [f"objective_{i}" for i in range(len(loaders))]
    many = len(loaders) > 1
    with tempfile.TemporaryDirectory() as scratch:
        args = trainer_class.training_args_class(
            output_dir=checkpoint_path or scratch,
            num_train_epochs=epochs,
            max_steps=(steps_per_epoch or 0) * epochs * len(loaders) or -1,
            lr_scheduler_type=SCHEDULERS[scheduler.lower()],
            warmup_steps=warmup_steps,
            learning_rate=float(optimizer_params.get("lr", LEARNING_RATE)),
            weight_decay=weight_decay,
            eval_strategy="steps" if evaluator is not None and evaluation_steps > 0 else epochs_if(evaluator),
            eval_steps=evaluation_steps if evaluation_steps > 0 else None,
            save_strategy="steps" if checkpoint_path else "no",
            save_steps=checkpoint_save_steps,
            save_total_limit=checkpoint_save_total_limit or None,
            max_grad_norm=max_grad_norm,
            fp16=use_amp,
            disable_tqdm=not show_progress_bar,
            report_to=[],
        )
        trainer = trainer_class(
            model=model,
            args=args,
            train_dataloader=dict(zip(names, loaders, strict=True)) if many else loaders[0],
            loss=dict(zip(names, losses, strict=True)) if many else losses[0],
            evaluator=evaluator,
            optimizer_cls_and_kwargs=(optimizer_class, dict(optimizer_params)),
            callbacks=[
                *([EpochEvaluation()] if args.eval_strategy == "steps" and model.model_type != "CrossEncoder" else []),
                *([] if callback is None else [OriginalCallback(callback, evaluator)]),
                *([] if output_path is None else [SaveModelCallback(output_path, evaluator, save_best_model)]),
            ],
        )
        trainer.evaluation_folder = output_path
        trainer.train(resume_from_checkpoint=resume_from_checkpoint or None)
    if output_path is not None and evaluator is not None and not save_best_model:
        model.save_pretrained(output_path)


def epochs_if(evaluator: Evaluator | None) -> str:
    return "no" if evaluator is None else "epoch"


def smart_batching_collate(preprocess: Callable[..., Any], batch: list[Any]) -> tuple[list[dict[str, Any]], Any]:
    """Examples -> (features of each column, labels)."""
    collated = BaseDataCollator(preprocess)(rows_of_batch(batch))
    return Features.columns(collated), collated.get("label")


class FitMixinLoss(CrossLoss):
    """A function of scores and labels as the loss of a cross-encoder.

    Args:
        model: the cross-encoder.
        loss_fct: scores (B,) or (B, labels), labels (B,) -> scalar.
        activation_fn: applied to the scores before it.
    """

    one_score = False

    def __init__(self, model: CrossEncoder, loss_fct: nn.Module, activation_fn: nn.Module | None = None) -> None:
        super().__init__(model, activation_fn)
        self.loss_fct = loss_fct

    def forward(
        self, inputs: list[list[str]], labels: Tensor, prompt: str | None = None, task: str | None = None
    ) -> Tensor:
        """Loss of a batch: one list of texts per column, and (B,) labels."""
        scores = self.logits(inputs, prompt, task)
        labels = check_labels(labels, len(scores), "CrossEncoder.fit").to(scores.device)
        single = scores.shape[1] == 1
        return self.loss_fct(
            scores.view(-1) if single else scores, labels.to(scores.dtype) if single else labels.long()
        )


def pair_loss(model: CrossEncoder, loss_fct: nn.Module | None, activation_fn: nn.Module | None) -> FitMixinLoss:
    """The loss of `CrossEncoder.fit`: by default binary cross entropy of one score, cross entropy of several."""
    default = nn.BCEWithLogitsLoss() if model.num_labels == 1 else nn.CrossEntropyLoss()
    return FitMixinLoss(model, default if loss_fct is None else loss_fct, activation_fn)
