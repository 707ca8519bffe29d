"""Matryoshka: vectors whose first dimensions are vectors already.

    loss = Σ_d w_d · inner(normalise(x[:d]))        over the dimensions d                Kusupati et al. 2022

The texts are embedded once, whatever the number of dimensions. An inner loss that works on embeddings is given them
cut; a cached one is given the sum as its loss of the cached vectors; any other loss is called once per dimension while
the model returns cut vectors (of one forward pass, which is kept).
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from sentence_transformers.errors import InputError
from sentence_transformers.losses.base import Accepts, Loss
from sentence_transformers.losses.citations import cites
from sentence_transformers.losses.merged_forward import replaced_forward, unwrap
from sentence_transformers.util.tensor import normalize_embeddings
from sentence_transformers.util.whose_code import OWN, is_foreign

if TYPE_CHECKING:
    from sentence_transformers.features import FeatureDict

logger = logging.getLogger(__name__)

TEACHER_LABELS = ("embedding",)


def shrink(tensor: Tensor, dim: int) -> Tensor:
    """The first `dim` dimensions of (B, H), scaled to length 1.

    Raises:
        InputError: if there are fewer.
    """
    if dim > tensor.shape[-1]:
        raise InputError(f"Dimension {dim} in matryoshka_dims is more than the {tensor.shape[-1]} that the model has.")
    return normalize_embeddings(tensor[..., :dim])


class MatryoshkaLoss(Loss):
    """Another loss at several dimensions at once (formula above).

    Args:
        model: the model that is trained.
        loss: the loss at each dimension.
        matryoshka_dims: the dimensions.
        matryoshka_weights: their weights, all 1 by default.
        n_dims_per_step: how many of them, drawn at random, a step uses; -1 for all.

    Raises:
        InputError: for dimensions below 1 or above the model's, or another number of weights.
    """

    citation = cites("kusupati2024matryoshka")

    def __init__(
        self,
        model: nn.Module,
        loss: nn.Module,
        matryoshka_dims: Sequence[int],
        matryoshka_weights: Sequence[float] | None = None,
        n_dims_per_step: int = -1,
    ) -> None:
        super().__init__(model)
        self.loss = loss
        if not matryoshka_dims or min(matryoshka_dims) < 1:
            raise InputError(f"matryoshka_dims must be dimensions of at least 1, got {list(matryoshka_dims)}.")
        weights = [1] * len(matryoshka_dims) if matryoshka_weights is None else list(matryoshka_weights)
        if len(weights) != len(matryoshka_dims):
            raise InputError(f"{len(matryoshka_dims)} matryoshka_dims need as many weights, got {len(weights)}.")
        ordered = sorted(zip(matryoshka_dims, weights, strict=True), key=lambda pair: pair[0], reverse=True)
        self.matryoshka_dims = tuple(dim for dim, _ in ordered)
        self.matryoshka_weights = tuple(weight for _, weight in ordered)
        full = getattr(unwrap(model), "get_embedding_dimension", lambda: None)()
        if full is not None and self.matryoshka_dims[0] > full:
            raise InputError(f"Dimension {self.matryoshka_dims[0]} is more than the {full} that the model has.")
        if full is not None and full not in self.matryoshka_dims:
            logger.warning(
                "The model's full dimension, %d, is not among matryoshka_dims %s: it is not trained, and whole vectors "
                "may become worse than shortened ones. Add it to the list.",
                full,
                list(self.matryoshka_dims),
            )
        self.n_dims_per_step = n_dims_per_step
        self.cached = getattr(loss, "uses_gradient_cache", False)

    @property
    def accepts(self) -> tuple[Accepts, ...]:  # type: ignore[override]
        return tuple(getattr(self.loss, "accepts", ()))

    @property
    def chosen(self) -> list[tuple[int, float]]:
        """The dimensions and weights of a step."""
        pairs = list(zip(self.matryoshka_dims, self.matryoshka_weights, strict=True))
        if 0 < self.n_dims_per_step < len(pairs):
            places = sorted(random.sample(range(len(pairs)), self.n_dims_per_step))
            return [pairs[i] for i in places]
        return pairs

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: Tensor | None = None) -> Any:
        features = list(sentence_features)
        if self.cached:
            return self._forward_cached(features, labels)
        if is_plain(self.loss):
            return self.compute_loss_from_embeddings(self.embed(features), labels)
        return self._forward_hooked(features, labels)

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None = None) -> Any:
        """Loss of the vectors of each column at all dimensions."""
        inner: Any = self.loss

        def at(dim: int) -> Any:
            return inner.compute_loss_from_embeddings([shrink(e, dim) for e in embeddings], self._labels(labels, dim))

        return self._sum(at)

    def _sum(self, at: Callable[[int], Any]) -> Any:
        """Σ w_d · at(d); of named terms, term by term."""
        total: Any = 0
        for dim, weight in self.chosen:
            value = at(dim)
            if isinstance(value, dict):
                total = {k: (total[k] if total else 0) + weight * term for k, term in value.items()}
            else:
                total = total + weight * value
        return total

    def _labels(self, labels: Tensor | None, dim: int) -> Tensor | None:
        """Labels at a dimension: a teacher's vectors are cut as well, and left as long as they are."""
        teaches = any(row.label in TEACHER_LABELS for row in self.accepts)
        return labels[..., :dim] if teaches and labels is not None else labels

    def _forward_cached(self, features: list[Any], labels: Tensor | None) -> Any:
        """A loss that embeds in mini-batches: its loss of the cached vectors becomes the sum over dimensions."""
        inner: Any = self.loss
        original = inner.calculate_loss

        def over_dimensions(reps: list[list[Tensor]], *args: Any, with_backward: bool = False, **kwargs: Any) -> Tensor:
            total: Any = 0
            for dim, weight in self.chosen:
                cut = [[shrink(part, dim) for part in column] for column in reps]
                total = total + weight * original(cut, *args, with_backward=False, **kwargs)
            if with_backward:
                total.backward()
                return total.detach()
            return total

        patched = vars(inner).get("calculate_loss")
        inner.calculate_loss = over_dimensions
        try:
            return inner(features, labels)
        finally:
            if patched is None:
                del inner.calculate_loss
            else:
                inner.calculate_loss = patched

    def _forward_hooked(self, features: list[Any], labels: Tensor | None) -> Any:
        """Any other loss, once per dimension, with the model's vectors cut and kept between the calls."""
        kept: dict[int, Any] = {}

        def at(dim: int) -> Any:
            with cutting(self.model, dim, kept):
                return self.loss([dict(column) for column in features], self._labels(labels, dim))

        return self._sum(at)

    def get_config_dict(self) -> dict[str, Any]:
        return {
            "loss": type(self.loss).__name__,
            "matryoshka_dims": list(self.matryoshka_dims),
            "matryoshka_weights": list(self.matryoshka_weights),
            "n_dims_per_step": self.n_dims_per_step,
        }


def is_plain(loss: nn.Module) -> bool:
    """Whether a loss is a function of its columns' vectors and nothing else: it embeds and computes as `Loss` does."""
    if not isinstance(loss, Loss) or type(loss).compute_loss_from_embeddings is Loss.compute_loss_from_embeddings:
        return False
    changed = is_foreign(loss.forward, OWN) or is_foreign(loss.embed, OWN)
    if changed or type(loss).embed is not Loss.embed or loss._forward_hooks or loss._forward_pre_hooks:
        return False
    return not isinstance(loss, MatryoshkaLoss) or is_plain(loss.loss)


@contextlib.contextmanager
def cutting(model: nn.Module, dim: int, kept: dict[int, Any]) -> Iterator[None]:
    """Within the context the model returns vectors of `dim` dimensions; it runs once for each features dictionary.

    Args:
        kept: full vectors of the calls, by the order of calls.
    """
    original, calls = unwrap(model).forward, itertools.count()

    def forward(features: FeatureDict, *args: Any, **kwargs: Any) -> Any:
        number = next(calls)
        if number not in kept:
            kept[number] = original(features, *args, **kwargs)
        output = dict(kept[number])
        output["sentence_embedding"] = shrink(output["sentence_embedding"], dim)
        return output

    functools.update_wrapper(forward, original)
    with replaced_forward(model, forward):
        yield
