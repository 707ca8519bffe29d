"""Losses of cross-encoders: pairs of texts go in together, scores come out.

    MSE             (score − label)²
    cross entropy   of the scores of the classes

They are given the texts themselves, one list per column, and compute all pairs in one packed forward.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from sentence_transformers.errors import InputError
from sentence_transformers.inference.engine import Job, embed, input_module
from sentence_transformers.losses.base import Accepts, check_labels
from sentence_transformers.losses.columns import unwrap
from sentence_transformers.util.misc import fullname


def is_cross_encoder(model: Any) -> bool:
    """Whether a model scores pairs."""
    from sentence_transformers.encoders.cross_encoder import CrossEncoder

    return isinstance(model, CrossEncoder)


def scores_of(model: Any, pairs: list[tuple[str, str]], prompt: str | None = None, task: str | None = None) -> Tensor:
    """Scores (B, labels) of pairs of texts, with gradients, in one packed forward."""
    encoder = unwrap(model)
    module = input_module(encoder, task)
    job = Job(None, prompt, task)  # type: ignore[arg-type]
    if not hasattr(module, "tokens"):
        return embed(encoder, pairs, job, encoder.device)["scores"]
    return embed(encoder, module.tokens(pairs, prompt, task=task), job, encoder.device)["scores"]


class CrossLoss(nn.Module):
    """What the losses of cross-encoders share.

    Args:
        model: the cross-encoder that is trained.
        activation_fn: applied to the scores before the loss.
    """

    accepts: tuple[Accepts, ...] = ()

    def __init__(self, model: Any, activation_fn: nn.Module | None = None) -> None:
        super().__init__()
        name = type(self).__name__.removeprefix("Cross") if type(self) is CrossMSELoss else type(self).__name__
        if not is_cross_encoder(unwrap(model)):
            hint = " For classes of pairs there is SoftmaxLoss." if name == "CrossEntropyLoss" else ""
            raise InputError(f"{name} is a loss of CrossEncoder models, got a {type(model).__name__}.{hint}")
        self.model = model
        self.activation_fn = nn.Identity() if activation_fn is None else activation_fn

    def logits(self, inputs: list[list[str]], prompt: str | None = None, task: str | None = None) -> Tensor:
        """Scores of the pairs of two columns."""
        if len(inputs) != 2:
            raise InputError(f"{type(self).__name__} expects 2 text columns, got {len(inputs)}.")
        pairs = list(zip(*inputs, strict=True))
        return self.activation_fn(scores_of(self.model, pairs, prompt, task))

    def get_config_dict(self) -> dict[str, Any]:
        """The settings as a model card shows them."""
        return {"activation_fn": fullname(self.activation_fn)}


class CrossMSELoss(CrossLoss):
    """Mean squared error of the scores; `losses.MSELoss` for cross-encoders.

    Args:
        model: a cross-encoder with one score.
        activation_fn: applied to the scores before the loss.
        kwargs: for `torch.nn.MSELoss`.
    """

    accepts = (Accepts(("sentence_A", "sentence_B"), "score"),)

    def __init__(self, model: Any, activation_fn: nn.Module | None = None, **kwargs: Any) -> None:
        super().__init__(model, activation_fn)
        if unwrap(model).num_labels != 1:
            raise InputError(f"MSELoss needs a CrossEncoder with num_labels=1, this one has {model.num_labels}.")
        self.loss_fct = nn.MSELoss(**kwargs)

    def forward(
        self, inputs: list[list[str]], labels: Tensor, prompt: str | None = None, task: str | None = None
    ) -> Tensor:
        """Loss of a batch: one list of texts per column, and (B,) scores to reach."""
        scores = self.logits(inputs, prompt, task).view(-1)
        return self.loss_fct(scores, check_labels(labels, len(scores), "MSELoss").to(scores))


class CrossEntropyLoss(CrossLoss):
    """Cross entropy of the scores of the classes.

    Args:
        model: a cross-encoder with one score per class.
        activation_fn: applied to the scores before the loss.
        kwargs: for `torch.nn.CrossEntropyLoss`.
    """

    accepts = (Accepts(("sentence_A", "sentence_B"), "class"),)

    def __init__(self, model: Any, activation_fn: nn.Module | None = None, **kwargs: Any) -> None:
        super().__init__(model, activation_fn)
        self.ce_loss = nn.CrossEntropyLoss(**kwargs)

    def forward(
        self, inputs: list[list[str]], labels: Tensor, prompt: str | None = None, task: str | None = None
    ) -> Tensor:
        """Loss of a batch: one list of texts per column, and (B,) classes."""
        scores = self.logits(inputs, prompt, task)
        return self.ce_loss(scores, check_labels(labels, len(scores), type(self).__name__).to(scores.device).long())
