"""What losses share.

    loss = CoSENTLoss(model)
    value = loss(sentence_features, labels)          one batch: a dictionary of features per column -> scalar

Two halves: `embed` gives one vector per text, all columns of the batch in one packed forward (`losses.merged_forward`),
and `compute_loss_from_embeddings` is a function of those vectors alone, a few lines around a pure function. A subclass
stores the arguments of its constructor under their own names and lists them in `config_keys`; the model card follows.

`accepts` says which columns a loss takes. The trainer compares it with the data before the first step.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from sentence_transformers.errors import InputError
from sentence_transformers.losses.merged_forward import embed_columns
from sentence_transformers.util.misc import fullname

LabelKind = Literal["none", "score", "class", "embedding", "scores"]


@dataclass(frozen=True)
class Accepts:
    """One row of the table of columns that a loss takes.

    Attributes:
        inputs: the text columns in their order, as they are called in the table; the last may repeat: "negative_n".
        label: "none"; "score", one float per row; "class", one integer per row; "embedding", a teacher's vector per
            row (or one per column); "scores", a list of floats per row.
        least: fewest text columns; default: as many as `inputs` names.
        most: most text columns; None for any number; default: `least`.
        lists: whether the columns after the first hold lists of texts, with as many labels per row.
    """

    inputs: tuple[str, ...]
    label: LabelKind = "none"
    least: int = -1
    most: int | None = -1
    lists: bool = False

    def __post_init__(self) -> None:
        if self.least == -1:
            object.__setattr__(self, "least", len(self.inputs))
        if self.most == -1:
            object.__setattr__(self, "most", self.least)

    def fits(self, inputs: int, label: LabelKind) -> bool:
        return self.least <= inputs and (self.most is None or inputs <= self.most) and label == self.label


class SignatureOfInit:
    """`inspect.signature` of a class is that of its `__init__`, also where a `__new__` takes anything."""

    def __get__(self, instance: object, owner: type) -> inspect.Signature:
        if instance is not None:
            raise AttributeError("__signature__")  # calling the loss is calling its `forward`
        signature = inspect.signature(owner.__init__)  # type: ignore[misc]
        return signature.replace(parameters=list(signature.parameters.values())[1:])


def with_twin(module: str) -> Callable[[Any], Any]:
    """Decorator of a loss that cross-encoders have under the same name: given a `CrossEncoder` it is that one.

    Args:
        module: where that one is.
    """

    def decorate(loss: Any) -> Any:
        def make(kind: type, model: object = None, *args: Any, **kwargs: Any) -> Any:
            from sentence_transformers.losses.cross import is_cross_encoder

            if kind is loss and is_cross_encoder(model):
                return getattr(importlib.import_module(module), loss.__name__)(model, *args, **kwargs)
            return object.__new__(kind)

        loss.__new__ = make
        loss.__signature__ = SignatureOfInit()
        return loss

    return decorate


class Loss(nn.Module):
    """A loss over the embeddings of one batch.

    Args:
        model: the model that is trained.

    Attributes:
        accepts: the columns it takes, one row per form; empty if anything goes.
        config_keys: names of the settings, each an attribute and an argument of the constructor.
        other_names: second names of attributes, to be read and set as well: second name -> name.
    """

    accepts: tuple[Accepts, ...] = ()
    config_keys: ClassVar[tuple[str, ...]] = ()
    other_names: ClassVar[dict[str, str]] = {}
    model: Any

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def __getattr__(self, name: str) -> Any:
        return super().__getattr__(self.other_names.get(name, name))

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(self.other_names.get(name, name), value)

    def embed(self, sentence_features: Iterable[dict[str, Any]]) -> list[Tensor]:
        """(B, H) for each column."""
        return embed_columns(self.model, sentence_features, separate_first=False)

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: Tensor | None = None) -> Any:
        """Loss of one batch: a scalar, or a dictionary of named terms to be summed.

        Args:
            sentence_features: features of each column, as the data collator or `model.preprocess` gives them.
            labels: (B, …), for losses that take labels.
        """
        return self.compute_loss_from_embeddings(self.embed(sentence_features), labels)

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None) -> Any:
        """Loss of the embeddings (B, H) of each column."""
        raise TypeError(f"{type(self).__name__} must define compute_loss_from_embeddings(embeddings, labels).")

    def get_config_dict(self) -> dict[str, Any]:
        """The settings as a model card shows them."""
        return {key: shown(getattr(self, key)) for key in self.config_keys}

    @property
    def citation(self) -> str:
        """BibTeX of the paper; "" if there is none."""
        return ""


def shown(value: object) -> object:
    """A setting as it is shown: functions and modules by their name."""
    if isinstance(value, nn.Module):
        return fullname(value)
    if callable(value) and hasattr(value, "__name__"):
        return value.__name__
    return value


def check_columns(embeddings: Sequence[Any], least: int, most: int | None, loss: str) -> None:
    """Raise `InputError` if a batch has too few or too many text columns for a loss."""
    if len(embeddings) < least or (most is not None and len(embeddings) > most):
        wanted = f"{least}" if most == least else f"at least {least}" if most is None else f"{least} to {most}"
        raise InputError(f"{loss} expects {wanted} text columns, got {len(embeddings)}.")


ONE_PER_ROW = "one label per row"


def check_labels(labels: Tensor | None, count: int, loss: str, what: str = ONE_PER_ROW) -> Tensor:
    """The labels, (B,) also where they are a column (B, 1); `InputError` if there is not one for each row."""
    if labels is None:
        raise InputError(f"{loss} expects labels, {what}, but the batch has none.")
    if labels.shape[:1] != (count,):
        raise InputError(f"{loss} expects {count} labels (one per example), got labels of shape {tuple(labels.shape)}.")
    return labels.view(-1) if what == ONE_PER_ROW and labels.numel() == count else labels


def list_problem(documents: object, labels: object) -> str:
    """What is wrong with the lists of one query, as the end of a sentence; "" if nothing."""
    if isinstance(documents, str) or not hasattr(documents, "__len__"):
        return f"has {documents!r:.60} where a list of documents is expected"
    if not hasattr(labels, "__len__"):
        return f"has {labels!r:.60} where a list of labels, one per document, is expected"
    if not len(documents):
        return "has a query without documents"
    if len(documents) != len(labels):
        return f"has {len(documents)} documents and {len(labels)} labels"
    return ""
