"""Losses of cross-encoders: pairs of texts go in together, scores come out.

    binary cross entropy   −[y log σ(s) + (1 − y) log(1 − σ(s))]
    cross entropy          −log softmax(s)_y, over the scores of the classes
    MSE                    (s − y)²
    margin MSE             ((s_p − s_n) − (t_p − t_n))²                             Hofstätter et al. 2020

s are the model's scores before its activation function, y labels, t a teacher's scores. The losses are given the texts
themselves, one list per column, and compute all pairs in one packed forward. The others of this family are in
`losses.cross_negatives`, `losses.listwise` and `losses.lambda_loss`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sentence_transformers.backends.override_detection import is_untouched
from sentence_transformers.engine.engine import input_module, plans_by_tokens
from sentence_transformers.errors import InputError
from sentence_transformers.features import FeatureDict
from sentence_transformers.losses.base import Accepts, check_labels, shown
from sentence_transformers.losses.citations import cites
from sentence_transformers.losses.distillation import MARGIN_TUPLES, teacher_margins
from sentence_transformers.losses.merged_forward import over_columns, run, unwrap

Pairs = Sequence[tuple[str, str]]
PAIRS_WITH_SCORE = Accepts(("sentence_A", "sentence_B"), "score")
PAIRS_WITH_CLASS = Accepts(("sentence_A", "sentence_B"), "class")


def is_cross_encoder(model: object) -> bool:
    """Whether a model scores pairs."""
    from sentence_transformers.encoders.cross_encoder import CrossEncoder

    return isinstance(model, CrossEncoder)


def pair_features(model: nn.Module, pairs: Pairs, prompt: str | None = None, task: str | None = None) -> FeatureDict:
    """Pairs of texts as the model computes them in training: packed, where it can take that."""
    encoder = unwrap(model)
    module = input_module(encoder, task)
    if plans_by_tokens(module) and is_untouched(model):
        tokens = module.tokens(list(pairs), prompt, task=task)
        features = module.features(tokens, packed=bool(getattr(module, "packs", False)), device=encoder.device)
    else:
        features = encoder.preprocess(list(pairs), prompt=prompt, **({"task": task} if task else {}))
        features = {key: value.to(encoder.device) if hasattr(value, "to") else value for key, value in features.items()}
    return features | {"task": task} if task else features


def scores_of(
    model: nn.Module,
    pairs: Pairs,
    prompt: str | None = None,
    task: str | None = None,
    mini_batch_size: int | None = None,
) -> Tensor:
    """Scores (B, labels) of pairs of texts, with gradients, in one packed forward.

    Args:
        mini_batch_size: pairs per forward pass on the average; None for all.
    """
    features = pair_features(model, pairs, prompt, task)
    return over_columns(model, [features], lambda part: run(model, part)["scores"], mini_batch_size)[0]


class CrossLoss(nn.Module):
    """What the losses of cross-encoders share.

    Args:
        model: the cross-encoder that is trained.
        activation_fn: applied to the scores before the loss.

    Attributes:
        accepts: the columns it takes, one row per form.
        one_score: whether it needs a model with a single score per pair.
        label_range: the least and the greatest label it takes; None for any.
        range_reason: why, as the end of a sentence.
        config_keys: names of the settings besides the activation function, each an attribute.
    """

    accepts: tuple[Accepts, ...] = ()
    one_score: ClassVar[bool] = True
    label_range: tuple[float, float] | None = None
    range_reason: str = ""
    config_keys: ClassVar[tuple[str, ...]] = ()

    def __init__(self, model: nn.Module, activation_fn: nn.Module | None = None) -> None:
        super().__init__()
        name = type(self).__name__
        if not is_cross_encoder(unwrap(model)):
            hint = " For classes of pairs there is SoftmaxLoss." if name == "CrossEntropyLoss" else ""
            raise InputError(f"{name} is a loss of CrossEncoder models, got a {type(model).__name__}.{hint}")
        labels = unwrap(model).num_labels
        if self.one_score and labels != 1:
            raise InputError(
                f"{name} needs a CrossEncoder with one score per pair (num_labels=1); this one has {labels}. "
                "Load it with CrossEncoder(name, num_labels=1), or train classes with CrossEntropyLoss."
            )
        self.model = model
        self.activation_fn = nn.Identity() if activation_fn is None else activation_fn

    def logits(self, inputs: Sequence[Sequence[str]], prompt: str | None = None, task: str | None = None) -> Tensor:
        """Scores (B, labels) of the pairs of two columns."""
        if len(inputs) != 2:
            raise InputError(f"{type(self).__name__} expects 2 text columns, got {len(inputs)}.")
        pairs = list(zip(*inputs, strict=True))
        return self.activation_fn(scores_of(self.model, pairs, prompt, task))

    def get_config_dict(self) -> dict[str, Any]:
        """The settings as a model card shows them."""
        return {key: shown(getattr(self, key)) for key in ("activation_fn", *self.config_keys)}

    @property
    def citation(self) -> str:
        """BibTeX of the paper; "" if there is none."""
        return ""


class BinaryCrossEntropyLoss(CrossLoss):
    """Binary cross entropy of the score with a label between 0 and 1.

    Args:
        model: a cross-encoder with one score.
        activation_fn: applied to the scores before the sigmoid of the loss.
        pos_weight: weight of the positive pairs, a tensor; about the number of negative per positive pairs.
        kwargs: for `torch.nn.BCEWithLogitsLoss`.
    """

    accepts = (PAIRS_WITH_SCORE,)
    label_range = (0, 1)
    config_keys = ("pos_weight",)

    def __init__(
        self,
        model: nn.Module,
        activation_fn: nn.Module | None = None,
        pos_weight: Tensor | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(model, activation_fn)
        self.pos_weight = pos_weight
        self.bce_with_logits_loss = nn.BCEWithLogitsLoss(pos_weight=pos_weight, **kwargs)

    def forward(
        self, inputs: list[list[str]], labels: Tensor, prompt: str | None = None, task: str | None = None
    ) -> Tensor:
        """Loss of a batch: one list of texts per column, and (B,) labels."""
        scores = self.logits(inputs, prompt, task).view(-1)
        return self.bce_with_logits_loss(scores, check_labels(labels, len(scores), type(self).__name__).to(scores))

    def get_config_dict(self) -> dict[str, Any]:
        weight = self.pos_weight
        return super().get_config_dict() | {"pos_weight": weight.tolist() if isinstance(weight, Tensor) else weight}


class MSELoss(CrossLoss):
    """Mean squared error of the score.

    Args:
        model: a cross-encoder with one score.
        activation_fn: applied to the scores before the loss.
        kwargs: for `torch.nn.MSELoss`.
    """

    accepts = (PAIRS_WITH_SCORE,)

    def __init__(self, model: nn.Module, activation_fn: nn.Module | None = None, **kwargs: Any) -> None:
        super().__init__(model, activation_fn)
        self.loss_fct = nn.MSELoss(**kwargs)

    def forward(
        self, inputs: list[list[str]], labels: Tensor, prompt: str | None = None, task: str | None = None
    ) -> Tensor:
        """Loss of a batch: one list of texts per column, and (B,) scores to reach."""
        scores = self.logits(inputs, prompt, task).view(-1)
        return self.loss_fct(scores, check_labels(labels, len(scores), type(self).__name__).to(scores))


class CrossEntropyLoss(CrossLoss):
    """Cross entropy of the scores of the classes.

    Args:
        model: a cross-encoder with one score per class.
        activation_fn: applied to the scores before the loss.
        kwargs: for `torch.nn.CrossEntropyLoss`.
    """

    accepts = (PAIRS_WITH_CLASS,)
    one_score = False

    def __init__(self, model: nn.Module, activation_fn: nn.Module | None = None, **kwargs: Any) -> None:
        super().__init__(model, activation_fn)
        if (classes := unwrap(model).num_labels) < 2:
            raise InputError(
                f"{type(self).__name__} needs a CrossEncoder with one score per class (num_labels=2 or more); this one "
                f"has {classes}. For labels 0 and 1 and a single score there is BinaryCrossEntropyLoss."
            )
        self.ce_loss = nn.CrossEntropyLoss(**kwargs)
        self.range_reason = f": the model has num_labels={classes}"

    @property
    def ignored_label(self) -> int:
        """The label of pairs that do not count."""
        return self.ce_loss.ignore_index

    @property
    def label_range(self) -> tuple[float, float]:  # type: ignore[override]
        """The first and the last class."""
        return 0, unwrap(self.model).num_labels - 1

    def forward(
        self, inputs: list[list[str]], labels: Tensor, prompt: str | None = None, task: str | None = None
    ) -> Tensor:
        """Loss of a batch: one list of texts per column, and (B,) classes."""
        scores = self.logits(inputs, prompt, task)
        return self.ce_loss(scores, check_labels(labels, len(scores), type(self).__name__).to(scores.device).long())


class MarginMSELoss(CrossLoss):
    """The margins between positive and negatives should be the teacher's.

    Args:
        model: a cross-encoder with one score.
        activation_fn: applied to the scores before the loss.
        kwargs: for `torch.nn.MSELoss`.

    Labels: the margin (B,), the margins (B, n), or the teacher's scores (B, n + 1), of n columns of negatives.
    """

    citation = cites("hofstätter2021improving")
    accepts = MARGIN_TUPLES

    def __init__(self, model: nn.Module, activation_fn: nn.Module | None = None, **kwargs: Any) -> None:
        super().__init__(model, activation_fn)
        self.loss_fct = nn.MSELoss(**kwargs)

    def forward(
        self,
        inputs: list[list[str]],
        labels: Tensor | list[Tensor],
        prompt: str | None = None,
        task: str | None = None,
    ) -> Tensor:
        """Loss of a batch: one list of texts per column, and the teacher's margins or scores."""
        name = type(self).__name__
        if len(inputs) < 3:
            raise InputError(f"{name} expects at least 3 text columns, got {len(inputs)}.")
        queries, candidates = inputs[0], inputs[1:]
        pairs = [(query, text) for column in candidates for query, text in zip(queries, column, strict=True)]
        scores = self.logits_from_pairs(pairs, prompt, task).view(len(candidates), len(queries)).T
        margins = scores[:, :1] - scores[:, 1:]
        if isinstance(labels, list | tuple):
            labels = torch.stack([torch.as_tensor(row) for row in labels])
        labels = check_labels(labels, len(queries), name)
        targets = teacher_margins(labels.view(len(queries), -1).to(margins), margins.shape[1], name)
        return self.loss_fct(margins, targets)

    def logits_from_pairs(self, pairs: Pairs, prompt: str | None = None, task: str | None = None) -> Tensor:
        """Scores (B,) of pairs of texts."""
        return self.activation_fn(scores_of(self.model, pairs, prompt, task).view(-1))
