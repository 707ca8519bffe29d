"""Pooling: one vector per text from the vectors of its tokens.

    padded   token_embeddings (B, L, H), attention_mask (B, L) -> sentence_embedding (B, H · modes)
    packed   token_embeddings (T, H), packing                  -> the same
    flattened, as transformers has it: token_embeddings (1, T, H), cu_seq_lens_q (B + 1,)    -> the same

With e_1 … e_n the vectors of a text's tokens:

    cls                     e_1
    lasttoken               e_n
    max                     elementwise maximum of e_1 … e_n
    mean                    (1/n) Σ e_i
    mean_sqrt_len_tokens    (1/√n) Σ e_i
    weightedmean            Σ i·e_i / Σ i            (positions from 1, the prompt's counted)

Padded batches are reduced under their mask, by operations that do not depend on its values, as tracing and exporting
need it. Several modes are concatenated. Sums of 16-bit vectors are accumulated in float32. With `include_prompt=False`
the prompt's tokens are left out.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from sentence_transformers._deprecation import legacy
from sentence_transformers.errors import InputError, ModelFormatError
from sentence_transformers.features import Packing
from sentence_transformers.modules.base import Module

PoolingMode = Literal["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]

# older boolean setting -> mode, in the order in which several were concatenated
FLAGS: dict[str, PoolingMode] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


class Pooling(Module):
    """Reduce token vectors to one vector per text.

    Args:
        embedding_dimension: H.
        pooling_mode: a mode, or several whose results are concatenated in the given order.
        include_prompt: whether the prompt's tokens count.

    Raises:
        InputError: for an unknown mode.
    """

    POOLING_MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
    config_keys: ClassVar[list[str]] = ["embedding_dimension", "pooling_mode", "include_prompt"]
    config_key_renames: ClassVar[dict[str, str]] = {"word_embedding_dimension": "embedding_dimension"}
    takes_packed = True

    @legacy(word_embedding_dimension="embedding_dimension")
    def __init__(
        self,
        embedding_dimension: int,
        pooling_mode: PoolingMode | Sequence[PoolingMode] | None = None,
        include_prompt: bool = True,
        **flags: bool,
    ) -> None:
        super().__init__()
        if unknown := flags.keys() - FLAGS.keys():
            raise TypeError(f"Pooling got unexpected arguments {sorted(unknown)}.")
        if flags:
            if pooling_mode is not None:
                raise TypeError(f"Pooling got pooling_mode and its older form {sorted(flags)}; give one of them.")
            text = f"Arguments {sorted(flags)} of Pooling are deprecated; use pooling_mode={modes_of_flags(flags)!r}."
            warnings.warn(text, FutureWarning, stacklevel=3)
        self.embedding_dimension = embedding_dimension
        self.pooling_mode = modes_of_flags(flags) if pooling_mode is None else pooling_mode  # type: ignore[assignment]
        self.include_prompt = include_prompt

    @property
    def pooling_mode(self) -> PoolingMode | tuple[PoolingMode, ...]:
        """The mode, or several. May be set; `InputError` for an unknown one."""
        return self.modes[0] if len(self.modes) == 1 else self.modes

    @pooling_mode.setter
    def pooling_mode(self, value: PoolingMode | Sequence[PoolingMode]) -> None:
        modes: tuple[Any, ...] = (value,) if isinstance(value, str) else tuple(value)
        if not modes or (unknown := [mode for mode in modes if mode not in self.POOLING_MODES]):
            raise InputError(
                f"Unknown pooling_mode {unknown or list(modes)}; known are {', '.join(self.POOLING_MODES)}."
            )
        self.modes: tuple[PoolingMode, ...] = modes

    @property
    def pooling_output_dimension(self) -> int:
        """Size of the result: H times the number of modes."""
        return len(self.modes) * self.embedding_dimension

    @classmethod
    def load_config(cls, *args, **kwargs) -> dict[str, Any]:
        """Settings with the older booleans turned into `pooling_mode`."""
        config = super().load_config(*args, **kwargs)
        flags = {key: config.pop(key) for key in FLAGS if key in config}
        if wrong := {key: value for key, value in flags.items() if not isinstance(value, (bool, type(None)))}:
            raise ModelFormatError(f"The settings of a Pooling have {wrong}; expected true or false for each.")
        config.setdefault("pooling_mode", modes_of_flags(flags))
        return {key: value for key, value in config.items() if key in cls.config_keys}

    def get_embedding_dimension(self) -> int:
        """Size of the result: H times the number of modes."""
        return self.pooling_output_dimension

    def forward(self, features: dict[str, Any], **kwargs) -> dict[str, Any]:
        """Add `sentence_embedding`."""
        weights_sum = features.get("token_weights_sum")
        packing = Packing.of(features)
        if packing is None:
            parts = [pool_padded(*self._masked(features), mode, weights_sum) for mode in self.modes]
        else:
            rows, lengths, skipped = self.rows(features, packing)
            parts = [pool(rows, lengths, mode, weights_sum, skipped) for mode in self.modes]
        if "cls" in self.modes and "cls_token_embeddings" in features:
            parts[self.modes.index("cls")] = features["cls_token_embeddings"]
        features["sentence_embedding"] = parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
        return features

    def rows(self, features: dict[str, Any], packing: Packing) -> tuple[Tensor, Tensor, int]:
        """The vectors that count, (T, H); how many each text has, (B,) int64; how many were left out before them."""
        embeddings = features["token_embeddings"].flatten(0, -2)  # (T, H) or, in a flattened batch, (1, T, H)
        skip = 0 if self.include_prompt else prompt_length(features)
        if not skip:
            return embeddings, packing.lengths_tensor, 0
        return embeddings[packing.positions >= skip], (packing.lengths_tensor - skip).clamp(min=0), skip

    def _masked(self, features: dict[str, Any]) -> tuple[Tensor, Tensor, int]:
        """The vectors of a padded batch, (B, L, H); which of them count, (B, L) bool; how many were left out before."""
        embeddings, mask = features["token_embeddings"], features.get("attention_mask")
        skip = 0 if self.include_prompt else prompt_length(features)
        mask = embeddings.new_ones(embeddings.shape[:2], dtype=torch.bool) if mask is None else mask.bool()
        return embeddings, mask & (mask.cumsum(1) > skip) if skip else mask, skip


def modes_of_flags(flags: dict[str, bool]) -> PoolingMode | tuple[PoolingMode, ...]:
    """The mode whose boolean is set, or several; mean if none is."""
    modes = tuple(mode for flag, mode in FLAGS.items() if flags.get(flag)) or ("mean",)
    return modes[0] if len(modes) == 1 else modes


def prompt_length(features: dict[str, Any]) -> int:
    """Leading tokens of every text that belong to the prompt.

    `features["prompt_length"]` is a number, or a tensor of one, or of one for each text as batches of features have it.

    Raises:
        InputError: if the texts differ in it.
    """
    lengths = {int(length) for length in torch.as_tensor(features.get("prompt_length", 0)).flatten().tolist()}
    if len(lengths) > 1:
        raise InputError(f"The prompts of a batch must be equally long, got prompt_length {sorted(lengths)}.")
    return lengths.pop() if lengths else 0


def pool(rows: Tensor, lengths: Tensor, mode: str, weights_sum: Tensor | None = None, skipped: int = 0) -> Tensor:
    """Reduce each text's rows by one mode.

    Args:
        rows: (T, H), text after text.
        lengths: (B,) int64 rows of each text; a text without rows gives zeros.
        weights_sum: (B,) replaces n in the means, for rows that a module has weighted.
        skipped: tokens of each text before its first row; positions count from there.

    Returns:
        (B, H), of the rows' dtype.
    """
    ends = lengths.cumsum(0)
    if mode in ("cls", "lasttoken"):
        picked = rows[(ends - lengths if mode == "cls" else ends - 1).clamp(0, max(len(rows) - 1, 0))]
        return torch.where(lengths[:, None] > 0, picked, torch.zeros_like(picked))
    if mode == "max":
        return reduce_texts(rows, lengths, "max")
    values = rows.float() if rows.dtype in (torch.float16, torch.bfloat16) else rows
    count = lengths if weights_sum is None else weights_sum
    if mode == "weightedmean":
        positions = torch.arange(1 + skipped, len(rows) + 1 + skipped, device=rows.device)
        positions = positions - torch.repeat_interleave(ends - lengths, lengths, output_size=len(rows))
        values = values * positions[:, None].to(values.dtype)
        count = lengths * (lengths + 1 + 2 * skipped) / 2
    return mean(reduce_texts(values, lengths, "sum"), count, mode).to(rows.dtype)


def pool_padded(rows: Tensor, mask: Tensor, skipped: int, mode: str, weights_sum: Tensor | None = None) -> Tensor:
    """`pool` for a padded batch.

    Args:
        rows: (B, L, H).
        mask: (B, L) bool, the rows that count.
    """
    kept, lengths = mask[:, :, None], mask.sum(1)
    if mode in ("cls", "lasttoken"):
        places = torch.arange(mask.shape[1], device=mask.device)
        if mode == "cls":
            place = places.masked_fill(~mask, mask.shape[1] - 1).amin(1)
        else:
            place = places.masked_fill(~mask, 0).amax(1)
        picked = rows[torch.arange(rows.shape[0], device=rows.device), place]
        return torch.where(lengths[:, None] > 0, picked, torch.zeros_like(picked))
    if mode == "max":
        largest = rows.masked_fill(~kept, float("-inf")).amax(1)
        return largest.masked_fill(lengths[:, None] == 0, 0)
    values = rows.float() if rows.dtype in (torch.float16, torch.bfloat16) else rows
    count = lengths if weights_sum is None else weights_sum
    if mode == "weightedmean":
        values = values * (mask.cumsum(1) + skipped)[:, :, None].to(values.dtype)
        count = lengths * (lengths + 1 + 2 * skipped) / 2
    total = values.masked_fill(~kept, 0).sum(1)
    return mean(total, count, mode).to(rows.dtype)


def mean(total: Tensor, count: Tensor, mode: str) -> Tensor:
    """Sums (B, H) over counts (B,), or over their roots."""
    count = count.to(total.dtype).clamp(min=1e-9)
    if mode == "mean_sqrt_len_tokens":
        count = count.sqrt()
    return total / count.reshape(-1, 1)


def reduce_texts(rows: Tensor, lengths: Tensor, operation: Literal["sum", "max"]) -> Tensor:
    """Sum or maximum of each text's rows: (T, H), (B,) -> (B, H); zeros for a text without rows.

    CPU and CUDA have a kernel for it, which adds in one order. Other devices (MPS, XPU, NPU) do not: there each row is
    scattered to its text.
    """
    if len(rows) and rows.device.type in ("cpu", "cuda"):
        reduced = torch.segment_reduce(rows, operation, lengths=lengths, unsafe=True)
        return reduced if operation == "sum" else reduced.masked_fill(lengths[:, None] == 0, 0)
    reduced = rows.new_zeros(len(lengths), rows.shape[1])
    texts = torch.repeat_interleave(lengths, output_size=len(rows))
    if operation == "sum":
        return reduced.index_add(0, texts, rows)
    return reduced.scatter_reduce(0, texts[:, None].expand_as(rows), rows, "amax", include_self=False)
