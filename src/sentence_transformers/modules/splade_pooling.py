"""SpladePooling: the weight of each word of the vocabulary in a text, from a masked language model's logits.

With x_1 … x_n the logits (V,) at a text's tokens and f the activation:

    max   w = max_i f(x_i)          relu         f(x) = log(1 + max(x, 0))
    sum   w = Σ_i f(x_i)            log1p_relu   f(x) = log(1 + log(1 + max(x, 0)))

f never falls, so max_i f(x_i) = f(max_i x_i), and f is computed once per text instead of once per token. The logits of
all tokens, (T, V), never exist: they are computed and reduced block by block of the vocabulary
(`backends.deferred_logits`), in training too.

SPLADE: Formal et al. 2021, https://arxiv.org/abs/2109.10086 (max); https://arxiv.org/abs/2107.05720 (sum). Two
logarithms: Lassance et al. 2024, https://arxiv.org/abs/2403.06789.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor

from sentence_transformers._deprecation import legacy
from sentence_transformers.backends.deferred_logits import VocabularyRows, max_over_tokens, reduce_over_tokens
from sentence_transformers.errors import InputError
from sentence_transformers.features import Packing, is_recorded
from sentence_transformers.modules.base import Module

if TYPE_CHECKING:
    from sentence_transformers.encoders.base import BaseModel

CPU_BLOCK = 3 << 19  # logits held at once: 1,024 words at 1,536 tokens (benchmarks/LOG.md)
ACCELERATOR_BLOCK = 1 << 27
NARROWEST = 128  # columns of a block, however many tokens there are


class SpladePooling(Module):
    """Reduce the logits of a text's tokens to one weight per word of the vocabulary.

    Args:
        pooling_strategy: "max" or "sum" over the tokens.
        activation_function: "relu" or "log1p_relu".
        embedding_dimension: V; found out from the model if None.
        chunk_size: words of the vocabulary that are computed at a time; None leaves it to this module. It changes
            memory and speed, not the result.

    Raises:
        InputError: for an unknown strategy or activation, or a `chunk_size` below 1.
    """

    SPLADE_POOLING_MODES = ("sum", "max")
    SPLADE_ACTIVATION: ClassVar[list[str]] = ["relu", "log1p_relu"]
    config_keys: ClassVar[list[str]] = ["pooling_strategy", "activation_function", "embedding_dimension"]
    config_key_renames: ClassVar[dict[str, str]] = {"word_embedding_dimension": "embedding_dimension"}
    takes_packed = True
    takes_vocabulary = True

    @legacy(word_embedding_dimension="embedding_dimension")
    def __init__(
        self,
        pooling_strategy: Literal["max", "sum"] = "max",
        activation_function: Literal["relu", "log1p_relu"] = "relu",
        embedding_dimension: int | None = None,
        chunk_size: int | None = None,
    ) -> None:
        super().__init__()
        for name, given, known in (
            ("pooling_strategy", pooling_strategy, self.SPLADE_POOLING_MODES),
            ("activation_function", activation_function, self.SPLADE_ACTIVATION),
        ):
            if given not in known:
                raise InputError(f"Unknown {name} {given!r}; known are {', '.join(known)}.")
        self.pooling_strategy = pooling_strategy
        self.activation_function = activation_function
        self.embedding_dimension = embedding_dimension
        self.chunk_size = chunk_size

    @property
    def chunk_size(self) -> int | None:
        """Words of the vocabulary computed at a time; None leaves it to this module."""
        return self._chunk_size

    @chunk_size.setter
    def chunk_size(self, value: int | None) -> None:
        if value is not None and value < 1:
            raise InputError(f"chunk_size must be at least 1 or None, got {value}.")
        self._chunk_size = value

    def on_model_ready(self, model: BaseModel) -> None:
        """Note the size of the model's vocabulary, whatever the settings say."""
        sizes = (getattr(module, "vocabulary_size", None) for module in model.modules())
        self.embedding_dimension = next((size for size in sizes if size is not None), self.embedding_dimension)

    def get_embedding_dimension(self) -> int | None:
        """V."""
        return self.embedding_dimension

    def forward(self, features: dict[str, Any], **kwargs) -> dict[str, Any]:
        """Add `sentence_embedding` (B, V), dense, from `vocabulary` or from logits in `token_embeddings`."""
        if is_recorded() and "vocabulary" not in features and "attention_mask" in features:
            features["sentence_embedding"] = self._reduce_padded(
                features["token_embeddings"], features["attention_mask"]
            )
            return features
        logits, packing = self.rows(features)
        size = logits.size if isinstance(logits, VocabularyRows) else logits.shape[1]
        step = self.chunk_size or block_width(packing.total, packing.device)
        if isinstance(logits, VocabularyRows) and logits.with_gradients:
            features["sentence_embedding"] = self.with_gradients(logits, packing, step)
            self.embedding_dimension = size
            return features
        dtype = logits.weight.dtype if isinstance(logits, VocabularyRows) else logits.dtype
        pooled = torch.empty(len(packing), size, dtype=dtype, device=packing.device)
        for start in range(0, size, step):
            stop = min(start + step, size)
            block = logits.block(start, stop) if isinstance(logits, VocabularyRows) else logits[:, start:stop]
            pooled[:, start:stop] = self.reduce(block, packing)
        features["sentence_embedding"] = pooled
        self.embedding_dimension = size
        return features

    def with_gradients(self, logits: VocabularyRows, packing: Packing, step: int) -> Tensor:
        """(B, V) in training, without logits of all tokens in the backward pass either."""
        if self.pooling_strategy == "max":
            return self.activate(max_over_tokens(logits, packing, step))
        return reduce_over_tokens(logits, packing, step, self.reduce)

    def rows(self, features: dict[str, Any]) -> tuple[VocabularyRows | Tensor, Packing]:
        """The logits of a batch, one row per token, and the lengths of its texts; a padded batch is packed."""
        deferred: VocabularyRows | None = features.get("vocabulary")
        rows: Tensor = features["token_embeddings"] if deferred is None else deferred.rows
        if (packing := Packing.of(features)) is not None:
            rows = rows.flatten(0, -2)  # (T, …) or, in a flattened batch, (1, T, …)
        else:
            mask = features.get("attention_mask")
            mask = rows.new_ones(rows.shape[:2], dtype=torch.bool) if mask is None else mask.bool()
            rows, packing = rows[mask], Packing(mask.sum(1).tolist(), rows.device)
        return (rows if deferred is None else deferred._replace(rows=rows)), packing

    def reduce(self, logits: Tensor, packing: Packing) -> Tensor:
        """(T, v) -> (B, v)."""
        if self.pooling_strategy == "sum":
            logits = self.activate(logits)
        parts = []
        for group, (texts,) in zip(packing.groups, packing.views(logits), strict=True):
            if not group.length:
                parts.append(logits.new_zeros(group.count, logits.shape[1]))
            elif self.pooling_strategy == "sum":
                parts.append(texts.sum(1))
            else:  # with gradients by `max`, which keeps places in the place of the block
                parts.append(texts.max(1).values if logits.requires_grad else texts.amax(1))
        pooled = torch.cat(parts) if parts else logits.new_zeros(0, logits.shape[1])
        return pooled if self.pooling_strategy == "sum" else self.activate(pooled)

    def _reduce_padded(self, logits: Tensor, mask: Tensor) -> Tensor:
        """(B, L, V), (B, L) -> (B, V)."""
        values = self.activate(logits).masked_fill(~mask.bool()[:, :, None], 0)  # none is less than 0
        return values.sum(1) if self.pooling_strategy == "sum" else values.amax(1)

    def activate(self, x: Tensor) -> Tensor:
        x = torch.log1p(torch.relu(x))
        return torch.log1p(x) if self.activation_function == "log1p_relu" else x


def block_width(tokens: int, device: torch.device) -> int:
    """Columns that are computed at a time for so many tokens."""
    return max((CPU_BLOCK if device.type == "cpu" else ACCELERATOR_BLOCK) // max(tokens, 1), NARROWEST)
