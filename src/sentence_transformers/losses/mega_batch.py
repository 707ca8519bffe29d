"""Mega-batch margin: of a very large batch, the hardest other positive of each anchor.

loss = mean_i  max(m_p − cos(a_i, p_i), 0) + max(max_{j≠i} cos(a_i, p_j) − m_n, 0)        Wieting & Gimpel 2018
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sentence_transformers.losses.base import Accepts, Loss, check_columns
from sentence_transformers.losses.citations import cites
from sentence_transformers.losses.gradient_cache import CachedLossMixin
from sentence_transformers.losses.gradient_cache import RandContext as RandContext
from sentence_transformers.similarity import cos_sim, pairwise_cos_sim


def hardest_others(anchors: Tensor, positives: Tensor, block_rows: int) -> Tensor:
    """(B,) int64: the positive of another anchor that is most like each anchor; found without gradients, in blocks."""
    found = []
    with torch.no_grad():
        for start in range(0, len(anchors), block_rows):
            scores = cos_sim(anchors[start : start + block_rows], positives)
            rows = torch.arange(len(scores), device=scores.device)
            scores[rows, rows + start] = -torch.inf
            found.append(scores.argmax(1))
    return torch.cat(found)


class MegaBatchMarginLoss(CachedLossMixin, Loss):
    """The hardest negative of a large batch (formula above).

    Args:
        model: the model that is trained.
        positive_margin: anchors and positives should be at least so alike.
        negative_margin: anchors and other positives at most so.
        use_mini_batched_version: embed in mini-batches (`losses.gradient_cache`).
        mini_batch_size: texts embedded together on the average; mini-batches have about equally many tokens.
        mini_batch_num_tokens: most tokens embedded together, in the place of a number of texts.
        show_progress_bar: show a bar over the mini-batches.
    """

    citation = cites("wieting-gimpel-2018-paranmt")
    accepts = (Accepts(("anchor", "positive")),)
    config_keys: ClassVar[tuple[str, ...]] = (
        "positive_margin",
        "negative_margin",
        "use_mini_batched_version",
        "mini_batch_size",
        "mini_batch_num_tokens",
    )

    def __init__(
        self,
        model: nn.Module,
        positive_margin: float = 0.8,
        negative_margin: float = 0.3,
        use_mini_batched_version: bool = True,
        mini_batch_size: int = 50,
        mini_batch_num_tokens: int | None = None,
        show_progress_bar: bool = False,
    ) -> None:
        Loss.__init__(self, model)
        self.positive_margin, self.negative_margin = positive_margin, negative_margin
        self.use_mini_batched_version = self.uses_gradient_cache = use_mini_batched_version
        self._set_mini_batches(mini_batch_size, mini_batch_num_tokens, show_progress_bar)

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None = None) -> Tensor:
        check_columns(embeddings, 2, 2, type(self).__name__)
        anchors, positives = embeddings
        if len(anchors) < 2:
            return F.relu(self.positive_margin - pairwise_cos_sim(anchors, positives)).mean()
        others = positives[hardest_others(anchors, positives, self.mini_batch_size)]
        near = F.relu(self.positive_margin - pairwise_cos_sim(anchors, positives))
        far = F.relu(pairwise_cos_sim(anchors, others) - self.negative_margin)
        return (near + far).mean()

    def calculate_loss(self, reps: list[Any], labels: Tensor | None = None, *, with_backward: bool = False) -> Tensor:
        """Loss of the vectors of each column, as lists of (b, H)."""
        columns = [part if isinstance(part, Tensor) else torch.cat(list(part)) for part in reps]
        loss = self.compute_loss_from_embeddings(columns, labels)
        if not with_backward:
            return loss
        loss.backward()
        return loss.detach()

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: Tensor | None = None) -> Tensor:
        if self.use_mini_batched_version:
            return self.forward_mini_batched(sentence_features, labels)
        return self.forward_non_mini_batched(sentence_features, labels)

    def forward_mini_batched(self, sentence_features: Iterable[dict[str, Any]], labels: Tensor | None = None) -> Tensor:
        """The loss with texts embedded in mini-batches."""
        return self.forward_cached(sentence_features, labels)

    def forward_non_mini_batched(
        self, sentence_features: Iterable[dict[str, Any]], labels: Tensor | None = None
    ) -> Tensor:
        """The loss with all texts embedded together."""
        return Loss.forward(self, sentence_features, labels)
