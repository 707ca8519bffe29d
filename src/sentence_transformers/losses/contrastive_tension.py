"""Contrastive tension: learning from single texts, with two copies of the model that should agree.

    pairs      binary cross entropy of u · v, summed; u by one copy, v by the other; 1 for the same text, 0 for others
    in batch   cross entropy of u · v' in both directions, each text's own vector to be found among the batch

Carlsson et al. 2021. `ContrastiveTensionDataLoader` makes the pairs.
"""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from sentence_transformers.errors import InputError
from sentence_transformers.features import Features
from sentence_transformers.losses.base import Accepts, Loss, check_columns, check_labels
from sentence_transformers.losses.citations import cites
from sentence_transformers.losses.merged_forward import embed_columns
from sentence_transformers.similarity import cos_sim


class ContrastiveTensionLoss(Loss):
    """Pairs of the same text or of different ones, embedded by two copies of the model.

    Args:
        model: the model that is trained and kept; the other copy is trained as well and left behind.

    Without labels, pairs of equal tokens count as the same text.
    """

    citation = cites("carlsson2021semantic")
    accepts = (
        Accepts(("text_A", "text_B"), "class"),
        Accepts(("text_A", "text_B"), "score"),
        Accepts(("text_A", "text_B")),
    )
    trains_copies = True  # the optimizer takes the parameters of `model1`

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.model2 = model
        self.model1 = copy.deepcopy(model)
        self.criterion = nn.BCEWithLogitsLoss(reduction="sum")

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: Tensor | None = None) -> Tensor:
        columns = list(sentence_features)
        check_columns(columns, 2, 2, type(self).__name__)
        first, second = columns
        (u,), (v,) = embed_columns(self.model1, [first]), embed_columns(self.model2, [second])
        if labels is None:
            labels = same_tokens(first, second)
        scores = (u[:, None] @ v[:, :, None]).reshape(-1)
        return self.criterion(scores, check_labels(labels, len(scores), type(self).__name__).to(scores).view_as(scores))


def same_tokens(first: dict[str, Any], second: dict[str, Any]) -> Tensor:
    """(B,) whether the texts of two columns have equal tokens."""
    columns = [Features.of(features).split("input_ids") for features in (first, second)]
    equal = [torch.equal(a, b) for a, b in zip(*columns, strict=True)]
    return torch.tensor(equal, device=first["input_ids"].device)


class ContrastiveTensionLossInBatchNegatives(Loss):
    """Each text, embedded by one copy, should find its own vector by the other among the batch.

    Args:
        model: the model that is trained and kept.
        scale: factor of the similarities at the beginning; it is learned.
        similarity_fct: (B, H), (B, H) -> (B, B).
    """

    citation = cites("carlsson2021semantic")
    accepts = (Accepts(("text",)), Accepts(("text", "text")))
    config_keys: ClassVar[tuple[str, ...]] = ("scale", "similarity_fct")
    trains_copies = True

    def __init__(
        self, model: nn.Module, scale: float = 20.0, similarity_fct: Callable[[Tensor, Tensor], Tensor] = cos_sim
    ) -> None:
        super().__init__(model)
        self.model2 = model
        self.model1 = copy.deepcopy(model)
        if not scale > 0:
            raise InputError(f"scale must be a number above 0, got {scale}.")
        self.scale, self.similarity_fct = scale, similarity_fct
        self.cross_entropy_loss = nn.CrossEntropyLoss()
        self.logit_scale = nn.Parameter(torch.tensor(math.log(scale)))

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: Tensor | None = None) -> Tensor:
        columns = list(sentence_features)
        check_columns(columns, 1, 2, type(self).__name__)
        (u,), (v,) = embed_columns(self.model1, columns[:1]), embed_columns(self.model2, columns[:1])
        scores = self.similarity_fct(u, v) * self.logit_scale.exp()
        targets = torch.arange(len(scores), device=scores.device)
        return (self.cross_entropy_loss(scores, targets) + self.cross_entropy_loss(scores.T, targets)) / 2


class ContrastiveTensionDataLoader:
    """Pairs for `ContrastiveTensionLoss`: one of the same text to `pos_neg_ratio` − 1 of different ones.

    Args:
        sentences: the texts; their order is shuffled at each pass.
        batch_size: pairs per batch; a multiple of `pos_neg_ratio`.
        pos_neg_ratio: every so-many-th pair is of the same text.

    Yields:
        Lists of `InputExample`.
    """

    def __init__(self, sentences: list[str], batch_size: int, pos_neg_ratio: int = 8) -> None:
        if batch_size % pos_neg_ratio:
            raise ValueError(f"batch_size={batch_size} must be a multiple of pos_neg_ratio={pos_neg_ratio}.")
        self.sentences, self.batch_size, self.pos_neg_ratio = sentences, batch_size, pos_neg_ratio
        self.collate_fn: Callable[[list[Any]], Any] | None = None

    def __iter__(self) -> Iterator[Any]:
        from sentence_transformers.util.input_example import InputExample

        random.shuffle(self.sentences)
        place = 0
        batch: list[Any] = []
        while place + 1 < len(self.sentences):
            first = self.sentences[place]
            positive = len(batch) % self.pos_neg_ratio == 0
            second = first if positive else self.sentences[place + 1]
            place += 1 if positive else 2
            batch.append(InputExample(texts=[first, second], label=float(positive)))
            if len(batch) >= self.batch_size:
                yield self.collate_fn(batch) if self.collate_fn is not None else batch
                batch = []

    def __len__(self) -> int:
        return int(np.floor(len(self.sentences) / (2 * self.batch_size)))
