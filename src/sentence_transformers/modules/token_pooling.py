"""Fewer vectors a text: neighbours in meaning become one.

`HierarchicalTokenPooling` (Clavié et al. 2024, https://arxiv.org/abs/2409.14683) joins the tokens of a text by Ward's
method until n / pool_factor groups are left, whose means are the new vectors: half or a third of the memory for nearly
the same ranking. Pooling is a module at the end of a model, or an argument of one call:

    model.encode_document(texts, token_pooling=HierarchicalTokenPooling(pool_factor=2))
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor

from sentence_transformers.errors import InputError, MissingExtraError
from sentence_transformers.features import ABOUT_RUNS, PER_TOKEN, Features, Packing
from sentence_transformers.modules.base import Module
from sentence_transformers.modules.multi_vector_mask import as_tasks
from sentence_transformers.util.tensor import normalize_embeddings


class BaseTokenPooling(Module, ABC):
    """Pools the token vectors of each text; a subclass says how, in `pool_one`.

    Args:
        tasks: sides that are pooled; default: ["document"]. Texts without a task count as documents.
    """

    config_keys: ClassVar[list[str]] = ["tasks"]
    forward_kwargs: ClassVar[set[str]] = {"task"}
    takes_packed = True

    def __init__(self, *, tasks: str | list[str] | None = None) -> None:
        super().__init__()
        self.tasks = as_tasks(tasks)

    @abstractmethod
    def pool_one(self, embedding: Tensor, **kwargs: Any) -> Tensor:
        """Token vectors of one text: (n, H) -> (m, H), m at most n."""

    def applies_to(self, task: str | None) -> bool:
        """Whether texts of a side are pooled."""
        return (task or "document") in self.tasks

    def forward(self, features: dict[str, Any], task: str | None = None, **kwargs) -> dict[str, Any]:
        """Pool `token_embeddings`. The batch is padded afterwards: (B, M, H), and `attention_mask` (B, M)."""
        if not self.applies_to(task):
            return features
        rows = Features.of(features).split("token_embeddings")
        pooled, mask = padded([self.pool_one(row) for row in rows], features["token_embeddings"])
        left = {key: value for key, value in features.items() if key not in (*PER_TOKEN, *ABOUT_RUNS)}
        return left | {"token_embeddings": pooled, "attention_mask": mask}

    def pool(
        self,
        embeddings: Sequence[Tensor] | Tensor,
        *,
        task: str | None = None,
        attention_mask: Tensor | None = None,
        padding_side: str = "right",
    ) -> list[Tensor] | Tensor:
        """Pool token vectors that are there already.

        Args:
            embeddings: a list of (n, H), or (B, L, H).
            task: side of the texts.
            attention_mask: (B, L), 0 for padding; for a tensor.
            padding_side: where the result of a tensor is padded with zeros, "right" or "left".

        Returns:
            As it was given: a list of (m, H), or (B, M, H).

        Raises:
            InputError: for a tensor that is not (B, L, H).
        """
        if not isinstance(embeddings, Tensor):
            return [self.pool_one(row) for row in embeddings] if self.applies_to(task) else list(embeddings)
        if embeddings.ndim != 3:
            raise InputError(f"pool takes a list of (n, H) or a tensor (B, L, H), got {tuple(embeddings.shape)}.")
        if not self.applies_to(task):
            return embeddings
        mask = torch.ones(embeddings.shape[:2], device=embeddings.device) if attention_mask is None else attention_mask
        rows = [self.pool_one(row) for row in masked_rows(embeddings, mask)]
        if padding_side == "left":
            return padded([row.flip(0) for row in rows], embeddings)[0].flip(1)
        return padded(rows, embeddings)[0]


class HierarchicalTokenPooling(BaseTokenPooling):
    """Join the tokens of a text that are nearest to each other.

    Args:
        pool_factor: how many times fewer vectors, at least 1; 1 leaves them as they are.
        num_protected_tokens: leading tokens that stay alone, e.g. 1 for [CLS].
        normalize_embeddings: scale the means to length 1.
        tasks: see `BaseTokenPooling`.

    Raises:
        InputError: for a factor below 1 or a negative number of tokens.
        MissingExtraError: without SciPy, when tokens are joined.
    """

    config_keys: ClassVar[list[str]] = ["pool_factor", "num_protected_tokens", "normalize_embeddings", "tasks"]

    def __init__(
        self,
        pool_factor: float = 1.0,
        *,
        num_protected_tokens: int = 1,
        normalize_embeddings: bool = True,
        tasks: str | list[str] | None = None,
    ) -> None:
        super().__init__(tasks=tasks)
        if pool_factor < 1:
            raise InputError(f"pool_factor must be at least 1, got {pool_factor}.")
        if num_protected_tokens < 0:
            raise InputError(f"num_protected_tokens must not be negative, got {num_protected_tokens}.")
        self.pool_factor, self.num_protected_tokens = pool_factor, num_protected_tokens
        self.normalize_embeddings = normalize_embeddings

    @classmethod
    def load_config(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The settings in a module's file; one that does not name `normalize_embeddings` is from before it existed."""
        return {"normalize_embeddings": False} | super().load_config(*args, **kwargs)

    def pool_one(self, embedding: Tensor, **kwargs: Any) -> Tensor:
        kept, rest = embedding[: self.num_protected_tokens], embedding[self.num_protected_tokens :]
        wanted = max(1, int(len(rest) / self.pool_factor))
        if len(rest) <= wanted:
            return embedding
        labels = torch.from_numpy(ward_clusters(rest, wanted)).to(rest.device)
        means = rest.new_zeros(int(labels.max()) + 1, rest.shape[1])
        means.index_add_(0, labels, rest)
        means /= torch.bincount(labels)[:, None].to(means.dtype)
        if self.normalize_embeddings:
            means = normalize_embeddings(means)
        return torch.cat([kept, means])


class LambdaTokenPooling(BaseTokenPooling):
    """Pool by a function; for one call, as a function cannot be saved.

    Args:
        pool_fn: token vectors of one text, (n, H) -> (m, H).
        tasks: see `BaseTokenPooling`.
    """

    def __init__(self, pool_fn: Callable[[Tensor], Tensor], *, tasks: str | list[str] | None = None) -> None:
        super().__init__(tasks=tasks)
        self.pool_fn = pool_fn

    def pool_one(self, embedding: Tensor, **kwargs: Any) -> Tensor:
        return self.pool_fn(embedding)

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:
        """Raise `NotImplementedError`: a function cannot be saved."""
        raise NotImplementedError(
            "LambdaTokenPooling holds a Python function and cannot be saved. Give it to encode(token_pooling=…), or "
            "write a subclass of BaseTokenPooling."
        )


def ward_clusters(rows: Tensor, count: int) -> np.ndarray:
    """(n, H) -> (n,) int64, the group of each row, from 0: at most `count` groups by Ward's method on 1 - cosine."""
    try:
        from scipy.cluster.hierarchy import fcluster, linkage
        from scipy.spatial.distance import squareform
    except ImportError as error:
        raise MissingExtraError("scipy", "sparse", "HierarchicalTokenPooling") from error
    with torch.autocast(rows.device.type, enabled=False):
        unit = torch.nn.functional.normalize(rows.detach().float(), p=2, dim=-1)
        distances = (1 - unit @ unit.T).clamp_min(0).cpu().numpy().astype(np.float64)
    np.fill_diagonal(distances, 0)
    tree = linkage(squareform(distances, checks=False), method="ward")
    return cast(np.ndarray, fcluster(tree, t=count, criterion="maxclust")).astype(np.int64) - 1


def masked_rows(embeddings: Tensor, mask: Tensor) -> list[Tensor]:
    """(B, L, H), (B, L) -> the vectors of each text, (n, H)."""
    return [rows[keep] for rows, keep in zip(embeddings, mask.bool(), strict=True)]


def padded(rows: list[Tensor], like: Tensor) -> tuple[Tensor, Tensor]:
    """A list of (m, H) as (B, M, H), padded with zeros, and its mask (B, M) bool."""
    packing = Packing(map(len, rows), like.device)
    run = torch.cat(rows).to(like.dtype) if rows else like.new_zeros(0, like.shape[-1])
    return packing.pad(run), packing.mask.bool()
