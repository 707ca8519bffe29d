"""Classification of pairs: a linear layer over u, v, |u − v| and u · v.

    logits = W [u; v; |u − v|; u ∘ v],      loss = cross entropy                   Reimers & Gurevych 2019

Which parts are joined can be chosen. The layer is trained with the model and is not part of it afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sentence_transformers._deprecation import legacy
from sentence_transformers.losses.base import Accepts, Loss, check_columns, check_labels
from sentence_transformers.losses.citations import cites
from sentence_transformers.util.misc import fullname


class SoftmaxLoss(Loss):
    """Pairs and their class.

    Args:
        model: the model that is trained.
        embedding_dimension: H.
        num_labels: number of classes.
        concatenation_sent_rep: whether u and v are given to the classifier.
        concatenation_sent_difference: whether |u − v| is.
        concatenation_sent_multiplication: whether u ∘ v is.
        loss_fct: (B, classes), (B,) -> scalar; cross entropy by default.
    """

    citation = cites("reimers-2019-sentence-bert")
    accepts = (Accepts(("sentence_A", "sentence_B"), "class"),)
    config_keys: ClassVar[tuple[str, ...]] = (
        "num_labels",
        "concatenation_sent_rep",
        "concatenation_sent_difference",
        "concatenation_sent_multiplication",
    )

    @legacy(sentence_embedding_dimension="embedding_dimension")
    def __init__(
        self,
        model: nn.Module,
        embedding_dimension: int,
        num_labels: int,
        concatenation_sent_rep: bool = True,
        concatenation_sent_difference: bool = True,
        concatenation_sent_multiplication: bool = False,
        loss_fct: Callable | None = None,
    ) -> None:
        super().__init__(model)
        self.num_labels = num_labels
        self.concatenation_sent_rep = concatenation_sent_rep
        self.concatenation_sent_difference = concatenation_sent_difference
        self.concatenation_sent_multiplication = concatenation_sent_multiplication
        self.loss_fct = nn.CrossEntropyLoss() if loss_fct is None else loss_fct
        parts = 2 * concatenation_sent_rep + concatenation_sent_difference + concatenation_sent_multiplication
        self.classifier = nn.Linear(parts * embedding_dimension, num_labels, device=getattr(model, "device", None))

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: Tensor | None = None) -> Any:
        """Loss of a batch; without labels the vectors of both columns and the logits (B, classes)."""
        embeddings = self.embed(sentence_features)
        if labels is None:
            return embeddings, self.logits(embeddings)
        return self.compute_loss_from_embeddings(embeddings, labels)

    def logits(self, embeddings: list[Tensor]) -> Tensor:
        """(B, H) of both columns -> (B, classes)."""
        check_columns(embeddings, 2, 2, type(self).__name__)
        u, v = embeddings
        parts = [u, v] if self.concatenation_sent_rep else []
        if self.concatenation_sent_difference:
            parts.append((u - v).abs())
        if self.concatenation_sent_multiplication:
            parts.append(u * v)
        return self.classifier(torch.cat(parts, 1))

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None) -> Tensor:
        logits = self.logits(embeddings)
        return self.loss_fct(logits, check_labels(labels, len(logits), type(self).__name__))

    def get_config_dict(self) -> dict[str, Any]:
        return super().get_config_dict() | {"loss_fct": fullname(self.loss_fct)}
