"""Adaptive layers: a model that keeps its quality with fewer layers, with AdaptiveLayerLoss.

Data as in train_retrieval.py; measured with all layers, and with the last ones taken away.
"""

from __future__ import annotations

import copy
from typing import Any

from common import options, train
from train_retrieval import evaluator_of, hub, local

from sentence_transformers import SentenceTransformer, losses


class ByLayers:
    """The evaluator over the model with each number of layers."""

    def __init__(self, held_out: list[Any], layers: tuple[int, ...]) -> None:
        self.held_out, self.layers = held_out, layers

    def __call__(self, model: SentenceTransformer) -> dict[str, float]:
        found = {}
        for count in self.layers:
            shorter = copy.deepcopy(model)
            encoder = shorter.transformers_model.encoder
            encoder.layer = encoder.layer[:count]
            found |= evaluator_of(self.held_out, f"layers{count}")(shorter)
        return found


def main() -> None:
    chosen = options(__doc__)
    model = SentenceTransformer(chosen.model, device="cpu")
    data, held_out = (hub if chosen.hub else local)(chosen.seed, model, 2 * chosen.steps * chosen.batch_size)
    loss = losses.AdaptiveLayerLoss(model, losses.MultipleNegativesRankingLoss(model))
    train(model, data, loss, ByLayers(held_out[:200], (6, 5, 4, 3)), chosen, batch_sampler="no_duplicates")


if __name__ == "__main__":
    main()
