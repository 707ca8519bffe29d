"""LogitScore: the score of a text from a language model's next word, yes or no.

    score = x[true] − x[false]            x: the logits after the text's last token

The difference is the log-odds of "yes" against "no": its sigmoid is softmax([x_true, x_false])₁. Without a false token
the score is x[true] alone. Only these two logits of each text are computed (`backends.deferred_logits`).
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from sentence_transformers.backends.deferred_logits import VocabularyRows
from sentence_transformers.modules.base import Module


class LogitScore(Module):
    """Score texts by the logits of one or two words after their last token.

    Args:
        true_token_id: the word that means relevant.
        false_token_id: the word that means not relevant; None for none.
        module_input_name: entry of the features that holds the logits, (B, L, V).
    """

    config_keys: ClassVar[list[str]] = ["true_token_id", "false_token_id", "module_input_name"]
    takes_packed = True
    takes_vocabulary = True

    def __init__(
        self, true_token_id: int, false_token_id: int | None = None, module_input_name: str = "causal_logits"
    ) -> None:
        super().__init__()
        self.true_token_id, self.false_token_id = true_token_id, false_token_id
        self.module_input_name = module_input_name

    def forward(self, features: dict[str, Any], **kwargs) -> dict[str, Any]:
        """Add `scores` (B, 1)."""
        ids = [self.true_token_id] if self.false_token_id is None else [self.true_token_id, self.false_token_id]
        deferred: VocabularyRows | None = features.get("vocabulary")
        if deferred is None:
            found = last_rows(features[self.module_input_name], features)[:, ids]
        else:
            found = deferred._replace(rows=last_rows(deferred.rows, features)).columns(ids)
        features["scores"] = found[:, :1] if self.false_token_id is None else found[:, :1] - found[:, 1:]
        return features


def last_rows(rows: Tensor, features: dict[str, Any]) -> Tensor:
    """The row of each text's last token: (T, …) or (B, L, …) -> (B, …)."""
    if (packing := features.get("packing")) is not None:
        return rows[packing.lengths_tensor.cumsum(0) - 1]
    mask = features.get("attention_mask")
    if mask is None:
        return rows[:, -1]
    mask = mask[:, mask.shape[1] - rows.shape[1] :]  # of the last positions, where only those have logits
    last = mask.shape[1] - 1 - mask.flip(1).argmax(1)  # texts may be padded on either side
    return rows[torch.arange(len(rows), device=rows.device), last]
