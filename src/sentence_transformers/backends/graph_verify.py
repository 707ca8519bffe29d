"""Whether an exported graph computes what its model computes: compared at several lengths and batch sizes.

A graph can run without any error and be wrong, so no export is used unseen.
"""

from __future__ import annotations

from typing import Any

import torch

from sentence_transformers.backends.graph import Graph
from sentence_transformers.backends.graph_export import example
from sentence_transformers.backends.tasks import TASKS
from sentence_transformers.errors import ModelFormatError

SHAPES = ((1, 3), (1, 64), (2, 5), (4, 33), (7, 16))  # (texts, tokens)
TOLERANCE = 1e-4  # of the largest number in the model's output, at least 1


@torch.no_grad()
def verify(graph: Graph, model: Any, names: list[str]) -> float:
    """Compare a graph with its transformers model.

    Returns:
        The largest difference found.

    Raises:
        ModelFormatError: naming the largest difference and its shape, if it is above `TOLERANCE`.
    """
    output, worst = TASKS[graph.task].output, (0.0, (0, 0))
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None) or SHAPES[1][1]
    for shape in SHAPES:
        batch = example(model, names, shape[0], min(shape[1], limit - 2), seed=shape[1])
        extra = {"use_cache": False} if getattr(model.config, "use_cache", None) else {}
        expected, found = model(**batch, **extra)[output].float(), graph(**batch)[output]
        if graph.task != "sequence-classification":
            mask = batch["attention_mask"].bool()
            expected, found = expected[mask], found[mask]
        scale = max(1.0, float(expected.abs().max()))
        difference = float((expected - found).abs().max()) / scale
        worst = max(worst, (difference if difference == difference else float("inf"), shape))
    if worst[0] > TOLERANCE:
        raise ModelFormatError(
            f"The exported graph {graph.path} does not compute what {type(model).__name__} computes: the largest "
            f"difference is {worst[0]:.3g}, at {worst[1][0]} texts of {worst[1][1]} tokens; at most {TOLERANCE:g} is "
            "allowed. Use backend='torch' for this model."
        )
    return worst[0]
