"""The trainer: transformers' `Trainer`, fed with texts and a loss over their embeddings.

    trainer = SentenceTransformerTrainer(model=model, train_dataset=dataset, loss=MultipleNegativesRankingLoss(model))
    trainer.train()

What transformers does stays there: steps, optimizers, schedules, logging, checkpoints, accelerate's distributed runs.
Here is what is special: data sets and losses by name, batches of unpadded texts, the check that data and loss fit
before the first step, evaluators, and checkpoints that are model folders.
"""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Trainer
from transformers.trainer_utils import EvalLoopOutput, speed_metrics

from sentence_transformers._deprecation import legacy
from sentence_transformers.backends.override_detection import is_untouched
from sentence_transformers.encoders.base import BaseModel
from sentence_transformers.errors import InputError
from sentence_transformers.evaluation.base import SequentialEvaluator
from sentence_transformers.features import Features
from sentence_transformers.storage.base_model_card import BaseModelCardData, as_list
from sentence_transformers.storage.readme import replace_card
from sentence_transformers.training import checkpoints, dataloaders, fit
from sentence_transformers.training.arguments import BaseTrainingArguments, BatchSamplers, checked_args, defaults_of
from sentence_transformers.training.callbacks import BaseModelCardCallback
from sentence_transformers.training.collator import DATASET_NAME, BaseDataCollator, Preprocess
from sentence_transformers.training.optimizers import (
    average_gradients,
    forget_gradients,
    is_encoder,
    loss_parameters,
    parameter_groups,
    prepare_for_training,
    why_untrainable,
)
from sentence_transformers.training.validation import check_dataset, check_finite, check_loss_names, check_mappings
from sentence_transformers.util.distributed import broadcast_object, distributed_evaluation
from sentence_transformers.util.whose_code import is_foreign

if TYPE_CHECKING:
    from optuna import Trial
    from torch.utils.data import ConcatDataset
    from transformers import PreTrainedModel

    from sentence_transformers.protocols import AnyDataset, AnyProcessor, Data, Evaluator, LossOrLosses, LossOrMaker

logger = logging.getLogger(__name__)


class BaseTrainer(Trainer, ABC):
    """Common part of the trainers.

    Args:
        model: the model; or `model_init`, a function that makes it.
        args: settings; default: all defaults, output in "tmp_trainer".
        train_dataset, eval_dataset: a `datasets.Dataset` or `IterableDataset`, or several by name. The ORDER of the
            columns counts; a column called label, labels, score or scores is the label.
        loss: a loss, a function model -> loss, or one for each data set, by name.
        evaluator: one or several; their metrics are logged with "eval_" in front.
        data_collator: rows -> batch, instead of the trainer's own.
        train_dataloader: batches of `InputExample`, rows or texts, instead of `train_dataset`; or several by name.
        others: see `transformers.Trainer`.

    Raises:
        InputError: if data and loss do not fit, a data set is empty or has missing values, or settings contradict each
            other. Nothing has been computed then.
    """

    model_class: ClassVar[Any] = BaseModel
    model_card_data_class: ClassVar[Any] = BaseModelCardData
    model_card_callback_class: ClassVar[Any] = BaseModelCardCallback
    data_collator_class: ClassVar[Any] = BaseDataCollator
    training_args_class: ClassVar[Any] = BaseTrainingArguments
    args: Any
    model: Any
    eval_dataset: Any
    model_init: Any
    evaluator: Any
    _made: Any = None
    evaluation_folder: str | None = None
    """Where the folder `eval` with the evaluators' files goes; None for the output folder."""
    _fit, _smart_batching_collate = classmethod(fit.fit), staticmethod(fit.smart_batching_collate)

    @legacy(tokenizer="processing_class")
    def __init__(
        self,
        model: BaseModel | None = None,
        args: BaseTrainingArguments | None = None,
        train_dataset: Data | None = None,
        eval_dataset: Data | None = None,
        loss: LossOrLosses | None = None,
        evaluator: Evaluator | Sequence[Evaluator] | None = None,
        data_collator: BaseDataCollator | None = None,
        processing_class: AnyProcessor | None = None,
        model_init: Callable[[], Any] | None = None,
        compute_metrics: Callable[[Any], dict] | None = None,
        callbacks: list[Any] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        optimizer_cls_and_kwargs: tuple[type[torch.optim.Optimizer], dict[str, Any]] | None = None,
        preprocess_logits_for_metrics: Callable[[Tensor, Tensor], Tensor] | None = None,
        train_dataloader: Iterable[Any] | Mapping[str, Iterable[Any]] | None = None,
    ) -> None:
        args = checked_args(args, self.training_args_class, type(self).__name__)
        if (model is None) == (model_init is None):
            raise InputError("Give either model or model_init, a function that makes the model.")
        if train_dataset is not None and train_dataloader is not None:
            raise InputError("Give either train_dataset or train_dataloader.")
        if args.eval_strategy != "no" and eval_dataset is None and evaluator is None:
            raise InputError(
                f"eval_strategy={str(args.eval_strategy)!r}, but there is neither an eval_dataset nor an evaluator."
            )
        unused = {"compute_metrics": compute_metrics, "preprocess_logits_for_metrics": preprocess_logits_for_metrics}
        for name in (name for name, given in unused.items() if given is not None):
            logger.warning("%s has no effect here: give an evaluator instead.", name)
        if model is None:
            self.model_init = model_init
            model = self._made = self.call_model_init()
        prepare_for_training(model)
        processing_class = getattr(model, "tokenizer", None) if processing_class is None else processing_class
        self._train_batches = train_dataloader
        self._given_collator, self.processing_class = data_collator, processing_class
        train_dataset = dataloaders.as_datasets(train_dataset, "train_dataset")
        eval_dataset = dataloaders.as_datasets(eval_dataset, "eval_dataset")
        if train_dataloader is None:
            by_mapping = data_collator is None and self.data_collator_class.needs_router_mapping
            check_mappings(model, args, (train_dataset, eval_dataset), by_mapping)
        self._given_loss = self.get_default_loss(model) if loss is None else loss
        self.loss = self._prepare_losses(self._given_loss, model)
        check_loss_names(self.loss, train_dataset=train_dataset, eval_dataset=eval_dataset)
        for dataset in (train_dataset, eval_dataset):
            self.validate_column_names(dataset)
        self.evaluator = SequentialEvaluator(evaluator) if isinstance(evaluator, list | tuple) else evaluator
        self._components: dict[str, list[float]] = {}
        self._evaluating = self._evaluated = False
        self._unchecked: Callable[[], None] | None = None
        super().__init__(
            model=model if model_init is None else None,
            args=args,
            data_collator=data_collator or self.get_data_collator(model, args, processing_class),
            train_dataset=self._without_length(train_dataset, args),
            eval_dataset=eval_dataset if eval_dataset is not None or evaluator is None else [],
            model_init=model_init,
            processing_class=processing_class,
            callbacks=callbacks,
            optimizers=optimizers,
            optimizer_cls_and_kwargs=optimizer_cls_and_kwargs,
            preprocess_logits_for_metrics=preprocess_logits_for_metrics,
        )
        self.eval_dataset = eval_dataset
        self.can_return_loss, self.model_accepts_loss_kwargs = True, False
        self.add_model_card_callback(defaults_of(self.training_args_class))

    # ---- settings

    def _without_length(self, dataset: Data | None, args: BaseTrainingArguments) -> Any:
        """The data that transformers is shown: data loaders, or streams, which need `max_steps`."""
        if self._train_batches is not None:
            return dataloaders.BatchStream(self._train_batches, lambda rows: rows)
        parts = list(dataset.values()) if isinstance(dataset, Mapping) else [dataset]
        if any(part is not None and dataloaders.is_stream(part) for part in parts) and args.max_steps <= 0:
            raise InputError("An IterableDataset has no length, so max_steps must be set in the arguments.")
        return dataset

    def get_data_collator(
        self,
        model: BaseModel,
        args: BaseTrainingArguments,
        processing_class: AnyProcessor | None = None,
    ) -> BaseDataCollator:
        """The collator of a run that brings none."""
        return self.data_collator_class(
            preprocess_fn=Preprocess(model, self._computes_alone()),
            router_mapping=args.router_mapping,
            prompts=args.prompts,
            max_length=getattr(args, "max_length", None),
        )

    def _computes_alone(self) -> bool:
        """Whether batches meet this library's code only: no loss and no step of the caller's."""
        own = not any(is_foreign(step) for step in (self.compute_loss, self.collect_features))
        return own and all(is_untouched(loss) for loss in self._losses)

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """Let the model card follow the run."""
        callback = self.model_card_callback_class(default_args_dict)
        self.add_callback(callback)
        callback.on_init_end(self.args, self.state, self.control, model=self.model, trainer=self)

    def call_model_init(self, trial: Trial | dict[str, Any] | None = None) -> Any:
        """A fresh model; the losses are made for it anew."""
        if self._made is not None:  # transformers asks for it too, when the trainer is made
            made, self._made = self._made, None
            return made
        model: Any = super().call_model_init(trial=trial)
        if hasattr(self, "_given_loss"):
            prepare_for_training(model)
            self.loss = self._prepare_losses(self._given_loss, model)
        if hasattr(self, "callback_handler"):
            if self._given_collator is None:
                self.data_collator = self.get_data_collator(model, self.args, self.processing_class)
            for callback in self.callback_handler.callbacks:
                if isinstance(callback, BaseModelCardCallback):
                    callback.on_init_end(self.args, self.state, self.control, model=model, trainer=self)
        return model

    # ---- losses

    @abstractmethod
    def get_default_loss(self, model: BaseModel) -> nn.Module:
        """The loss of a run that names none."""

    def _prepare_losses(self, loss: LossOrLosses, model: BaseModel) -> Any:
        if isinstance(loss, Mapping):
            return {name: self.prepare_loss(part, model) for name, part in loss.items()}
        return self.prepare_loss(loss, model)

    def prepare_loss(self, loss: LossOrMaker, model: BaseModel) -> nn.Module:
        """A loss, or a function that makes one, for this model and on its device."""
        if not isinstance(loss, nn.Module):
            return loss(model).to(model.device)
        return self.override_model_in_loss(loss.to(model.device), model)

    def override_model_in_loss(self, loss: nn.Module, model: nn.Module) -> nn.Module:
        """Let a loss, and the losses inside it, compute with `model` where they had the encoder, or what wraps it."""
        for name, part in list(loss.named_children()):
            if name == "model" and is_encoder(part):
                loss.model = model
            elif not is_encoder(part):
                self.override_model_in_loss(part, model)
        return loss

    @property
    def _losses(self) -> list[nn.Module]:
        return list(self.loss.values()) if isinstance(self.loss, Mapping) else [self.loss]

    def _loss_of(self, dataset_name: str | None) -> nn.Module:
        if not isinstance(self.loss, Mapping):
            return self.loss
        if dataset_name not in self.loss:
            raise InputError(f"There is no loss for the data set {dataset_name!r}; losses are for {sorted(self.loss)}.")
        return self.loss[dataset_name]

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Loss of one batch; named terms are summed and each is logged."""
        inputs = dict(inputs)
        name = inputs.pop(DATASET_NAME, None)
        loss = self._loss_of(name)
        features, labels = self.collect_features(inputs)
        if model is self.model_wrapped and model is not self.model and model is not getattr(loss, "model", model):
            self.override_model_in_loss(loss, model)
        value = loss(features, labels, **self.loss_settings(inputs, name))
        if isinstance(value, Mapping):
            self.track_loss_components(value)
            value = torch.stack([term.reshape(()) for term in value.values()]).sum()
        if self.model.training:
            self._unchecked = partial(check_finite, value.detach(), loss, name, inputs, self.state)
        return (value, {}) if return_outputs else value

    def track_loss_components(self, loss: Mapping[str, Tensor]) -> None:
        """Keep the named terms of a loss for the next log entry."""
        for name, term in loss.items():
            self._components.setdefault(name, []).append(float(term.detach()))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log values, with the mean of each named term of the loss since the last entry."""
        if "loss" in logs:
            logs |= {name: round(sum(terms) / len(terms), 4) for name, terms in self._components.items() if terms}
            self._components.clear()
        super().log(logs, start_time)

    def collect_features(self, inputs: dict[str, Any]) -> tuple[list[dict[str, Any]], Tensor | None]:
        """A batch as one dictionary of features per column, and the labels."""
        return Features.columns(inputs), inputs.get("label")

    def loss_settings(self, inputs: dict[str, Any], dataset_name: str | None) -> dict[str, Any]:
        """What else the loss is told of a batch."""
        return {}

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """One batch forward and backward."""
        value = super().training_step(*args, **kwargs)
        if self._unchecked is not None:
            self._unchecked()  # only now, so that a GPU does not wait between the forward and the backward pass
            self._unchecked = None
        if self.accelerator.sync_gradients:
            average_gradients(self._loss_parameters())
        return value

    # ---- optimizer

    def get_optimizer_cls_and_kwargs(
        self, args: BaseTrainingArguments, model: PreTrainedModel | None = None
    ) -> tuple[Any, Any]:
        """The optimizer's class and arguments, the groups of parameters among them."""
        kind, kwargs = Trainer.get_optimizer_cls_and_kwargs(args, model)
        return kind, self._with_groups(kwargs, args, model)

    def _with_groups(self, kwargs: dict[str, Any], args: Any, model: nn.Module | None) -> dict[str, Any]:
        """Arguments of an optimizer with our groups of parameters, unless it brings its own."""
        if {"params", "model", "optimizer_dict"} & kwargs.keys():
            return kwargs
        model = self.model if model is None else model
        own = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        extra = loss_parameters(self._losses, model)
        decaying = {*self.get_decay_parameter_names(model), *(name for name, one in extra.items() if one.dim() > 1)}
        groups = parameter_groups(own | extra, decaying, args.weight_decay, args.learning_rate_mapping)
        return kwargs | {"params": groups}

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The optimizer over the parameters of model and losses."""
        if self.optimizer is None and self.optimizer_cls_and_kwargs is not None:
            kind, kwargs = self.optimizer_cls_and_kwargs
            self.optimizer_cls_and_kwargs = kind, self._with_groups(dict(kwargs), self.args, model)
        fresh = self.optimizer is None
        if fresh and not any(one.requires_grad for one in (*self.model.parameters(), *self._loss_parameters())):
            raise InputError(
                f"Nothing can be trained: no parameter of the model or the loss requires a gradient. "
                f"{why_untrainable(self.model)}"
            )
        optimizer = super().create_optimizer(model)
        extra = self._loss_parameters()
        if fresh and extra and hasattr(optimizer, "register_step_post_hook"):
            # transformers zeroes the gradients of the model after a step, not those of the loss
            optimizer.register_step_post_hook(lambda *args: forget_gradients(extra))
        return optimizer

    def _loss_parameters(self) -> list[nn.Parameter]:
        return list(loss_parameters(self._losses, self.model).values())

    # ---- data

    def validate_column_names(self, dataset: Data | None, dataset_name: str | None = None) -> None:
        """Raise `InputError` if a data set, or one of several, does not fit its loss."""
        if dataset is None:
            return
        if isinstance(dataset, Mapping):
            for name, part in dataset.items():
                self.validate_column_names(part, name)
            return
        if dataloaders.is_stream(dataset) and dataset.column_names is None:
            raise InputError(
                "An IterableDataset must know its columns: make it with features=datasets.Features({...})."
            )
        by_name = isinstance(self.loss, Mapping)
        check_dataset(dataset, None if by_name and not dataset_name else self._loss_of(dataset_name), dataset_name)

    def preprocess_dataset(self, dataset: Data | None = None, dataset_name: str | None = None) -> Any:
        """A data set as rows that tell where they are from, where there are several."""
        if isinstance(dataset, Mapping):
            return {name: self.add_dataset_name_column(part, name) for name, part in dataset.items()}
        return dataset

    def should_dataset_name_column_be_added(
        self, dataset: Data, args: BaseTrainingArguments, loss: LossOrLosses
    ) -> bool:
        """Whether rows must tell where they are from."""
        return isinstance(dataset, Mapping) or isinstance(loss, Mapping)

    def add_dataset_name_column(self, dataset: AnyDataset | None, dataset_name: str | None = None) -> Any:
        """Rows with the name of their data set."""
        if dataset is None or dataset_name is None:
            return dataset
        if dataloaders.is_stream(dataset):
            return dataset.map(lambda row: {DATASET_NAME: dataset_name})
        return dataloaders.NamedRows(dataset, dataset_name)

    @staticmethod
    def add_dataset_name_transform(
        batch: dict[str, list[Any]],
        dataset_name: str | None = None,
        transform: Callable[[dict[str, list[Any]]], dict[str, list[Any]]] | None = None,
        **kwargs: Any,
    ) -> dict[str, list[Any]]:
        """A batch of columns, changed by `transform`, with a column that names the data set.

        For `dataset.set_transform(partial(trainer.add_dataset_name_transform, dataset_name="nli"))`.
        """
        if transform is not None:
            batch = transform(batch)
        if dataset_name is None or not batch or not (values := next(iter(batch.values()))):
            return batch
        return {**batch, DATASET_NAME: [dataset_name] * len(values)}

    def get_batch_sampler(
        self,
        dataset: Data,
        batch_size: int,
        drop_last: bool,
        valid_label_columns: list[str] | None = None,
        generator: torch.Generator | None = None,
        seed: int = 0,
    ) -> Any:
        """The sampler of one data set; None for a stream."""
        if dataloaders.is_stream(dataset):
            if self.args.batch_sampler != BatchSamplers.BATCH_SAMPLER:
                logger.warning("batch_sampler=%s has no effect on an IterableDataset.", self.args.batch_sampler)
            return None
        settings = {"valid_label_columns": valid_label_columns, "generator": generator, "seed": seed}
        return dataloaders.make_batch_sampler(self.args.batch_sampler, dataset, batch_size, drop_last, **settings)

    def get_multi_dataset_batch_sampler(
        self,
        dataset: ConcatDataset,
        batch_samplers: list[Any],
        generator: torch.Generator | None = None,
        seed: int | None = 0,
    ) -> Any:
        """The sampler over several data sets."""
        kind = self.args.multi_dataset_batch_sampler
        return dataloaders.make_multi_sampler(kind, dataset, batch_samplers, generator=generator, seed=seed or 0)

    def get_train_dataloader(self) -> DataLoader:
        """Batches to train on."""
        if self._train_batches is not None:
            stream = dataloaders.BatchStream(self._train_batches, self.data_collator)
            return DataLoader(stream, batch_size=None)
        if self.train_dataset is None:
            raise InputError("Training needs a train_dataset or a train_dataloader.")
        return dataloaders.make_loader(self, self.train_dataset, self._train_batch_size, training=True)

    def get_eval_dataloader(self, eval_dataset: str | Data | None = None) -> DataLoader:
        """Batches to compute the evaluation loss on."""
        if isinstance(eval_dataset, str):
            rows = self.add_dataset_name_column(self.eval_dataset[eval_dataset], eval_dataset)
        else:
            rows = self.eval_dataset if eval_dataset is None else dataloaders.as_datasets(eval_dataset, "eval_dataset")
        if rows is None:
            raise InputError("Evaluation needs an eval_dataset or an evaluator.")
        return dataloaders.make_loader(self, rows, self.args.eval_batch_size, training=False)

    def get_test_dataloader(self, test_dataset: Data) -> DataLoader:
        """Batches of another data set."""
        test_dataset = dataloaders.as_datasets(test_dataset, "test_dataset")
        self.validate_column_names(test_dataset)
        return dataloaders.make_loader(self, test_dataset, self.args.eval_batch_size, training=False)

    # ---- evaluation

    def evaluate(
        self,
        eval_dataset: Data | str | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Loss of the evaluation data, and the metrics of the evaluators.

        Returns:
            Metrics by name, each with "eval_" in front; losses of several data sets as "eval_{name}_loss".
        """
        if eval_dataset is None and self.eval_dataset is None:
            return self._evaluate_without_data(metric_key_prefix)
        data = dataloaders.as_datasets(eval_dataset, "eval_dataset")
        if not isinstance(data, str):
            self.validate_column_names(data)
        outermost, self._evaluating = not self._evaluating, True
        if outermost:
            self._evaluated = False
        try:
            return super().evaluate(data, ignore_keys, metric_key_prefix)
        finally:
            if outermost:
                self._evaluating = False

    def _evaluate_without_data(self, prefix: str) -> dict[str, float]:
        """The evaluators alone."""
        if self.evaluator is None:
            raise InputError("Evaluation needs an eval_dataset or an evaluator.")
        start = time.time()
        metrics = self._run_evaluator(prefix)
        metrics |= speed_metrics(prefix, start)
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Loss over a data loader, and its named terms; with the first of several come the evaluators' metrics."""
        in_training, self._components = self._components, {}
        try:
            output = super().evaluation_loop(dataloader, description, True, ignore_keys, metric_key_prefix)
            for name, terms in self._components.items():
                output.metrics[f"{metric_key_prefix}_{name}"] = sum(terms) / len(terms)  # type: ignore[index]
        finally:
            self._components = in_training
        if self.evaluator is None or self._evaluated:
            return output
        self._evaluated = True
        output.metrics.update(self._run_evaluator(metric_key_prefix.partition("_")[0]))  # type: ignore[union-attr]
        return output

    def _run_evaluator(self, prefix: str) -> dict[str, float]:
        """Metrics of the evaluators; CSV files go to the folder `eval` of the output folder."""
        folder = Path(self.evaluation_folder or self.args.output_dir or "tmp_trainer", "eval")
        folder.mkdir(parents=True, exist_ok=True)
        epoch = self.state.epoch if self.state.epoch is not None else -1
        model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        metrics: Any = {}
        with distributed_evaluation(model, enabled=not self.is_fsdp_enabled) as computes:
            if computes:
                metrics = self.evaluator(model, output_path=str(folder), epoch=epoch, steps=self.state.global_step)
        metrics = broadcast_object(metrics)
        if not isinstance(metrics, Mapping):
            metrics = {"evaluator": metrics}
        return {key if key.startswith(f"{prefix}_") else f"{prefix}_{key}": value for key, value in metrics.items()}

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> tuple[Tensor | None, None, None]:
        """Loss of one batch of evaluation data."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            return self.compute_loss(model, inputs).detach().mean(), None, None

    # ---- checkpoints

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: Trial | dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Train.

        Args:
            resume_from_checkpoint: True for the latest complete checkpoint in the output folder, or a checkpoint's
                folder. A run that was killed goes on as if it had not been.
        """
        if resume_from_checkpoint is True:
            resume_from_checkpoint = checkpoints.last_checkpoint(self.args.output_dir)
            if resume_from_checkpoint is None:
                raise InputError(f"There is no complete checkpoint in {self.args.output_dir!r} to resume from.")
        return super().train(resume_from_checkpoint, trial, **kwargs)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        """Write the model folder, the loss's own parameters and the arguments."""
        if not self.args.should_save:
            return
        folder = output_dir or self.args.output_dir
        model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        with checkpoints.whole_weights(model, state_dict):
            model.save_pretrained(folder, safe_serialization=True)
        checkpoints.save_loss(loss_parameters(self._losses, model), folder)
        checkpoints.save_arguments(self.args, folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        checkpoints.load_model(self.model, resume_from_checkpoint)
        checkpoints.load_loss(loss_parameters(self._losses, self.model), resume_from_checkpoint)

    def _load_best_model(self) -> None:
        best = self.state.best_model_checkpoint
        if self.is_fsdp_enabled or best is None:
            super()._load_best_model()
            return
        logger.info("Loading the best model from %s (score %s).", best, self.state.best_metric)
        checkpoints.load_model(self.model, best)
        step = Path(best).name.rpartition("-")[2]
        if step.isdigit():
            self.model.model_card_data.set_best_model_step(int(step))

    def create_model_card(
        self,
        language: str | None = None,
        license: str | None = None,
        tags: str | list[str] | None = None,
        model_name: str | None = None,
        finetuned_from: str | None = None,
        tasks: str | list[str] | None = None,
        dataset_tags: str | list[str] | None = None,
        dataset: str | list[str] | None = None,
        dataset_args: str | list[str] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write the model card into the output folder, as saving there would, with what is given here added to it.

        Args:
            language, license, tags, model_name: see `BaseModelCardData`.
            finetuned_from: hub id of the model that was trained.
            tasks: hub ids of tasks, added to the tags.
            dataset_tags: hub ids of the data sets.
            dataset: their names.
            dataset_args: which part of each: a configuration or language.
        """
        if not self.is_world_process_zero():
            return
        data = self.model.model_card_data
        for value, tell in ((language, data.set_language), (license, data.set_license), (tags, data.add_tags)):
            if value:
                tell(value)
        data.model_name, data.base_model = model_name or data.model_name, finetuned_from or data.base_model
        data.add_tags(as_list(tasks))
        for name, tag, part in zip_longest(*map(as_list, (dataset, dataset_tags, dataset_args))):
            title = " ".join(filter(None, (name or tag, part and f"({part})")))
            data.train_datasets.append({"name": title} | ({"id": tag} if tag else {}))
        replace_card(self.model, Path(self.args.output_dir))
