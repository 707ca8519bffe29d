"""Attention inside packed batches, for every transformers architecture that lets its attention function be chosen.

transformers looks an attention function up by name at every layer. `NAME` is ours. Inside `use_packing(packing)` a
model called with `input_ids` of shape (1, T) attends within each sequence of the run and never across:

    CPU and others   each group of equal lengths is one unmasked `scaled_dot_product_attention` on a (n, heads, l, d)
                     view
    CUDA, 16 bit     PyTorch's variable-length kernel over the whole run

Outside of it the same function is ordinary sdpa on a padded batch, so that one loaded model serves both. A layer's
window (`sliding_window` = w) lets token i see token j when |i − j| < w, causal layers 0 ≤ i − j < w.

Declaring that the attention function can be chosen does not make an architecture right: some mix neighbouring tokens
elsewhere (MobileBERT in its embeddings). So `prove` compares packed with alone once per loaded model, on two short
sequences, and the engine pads for a model that fails.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sentence_transformers.inference.packing import Packing

logger = logging.getLogger(__name__)

NAME = "packed_sdpa"
_current: ContextVar[Packing | None] = ContextVar("packing", default=None)


@contextlib.contextmanager
def use_packing(packing: Packing | None) -> Iterator[None]:
    """Attention of models called inside this context stays within the sequences of `packing`."""
    token = _current.set(packing)
    try:
        yield
    finally:
        _current.reset(token)


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    sliding_window: int | None = None,
    packing: Packing | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The attention function that transformers calls.

    Args:
        query, key, value: float of shape (1, heads, T, d) for a packed batch (key and value may have fewer heads).
        packing: lengths of the sequences; given by keyword where the model passes keywords on (which gradient
            checkpointing needs, as it recomputes outside of `use_packing`), else taken from `use_packing`.

    Returns:
        float of shape (1, T, heads, d), and None in the place of attention weights.
    """
    packing = packing or _current.get()
    if packing is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, is_causal=is_causal, **kwargs
        )
    causal = bool(getattr(module, "is_causal", False) if is_causal is None else is_causal)
    if unsupported := [name for name in ("softcap", "position_bias", "s_aux") if kwargs.get(name) is not None]:
        raise NotImplementedError(f"packed attention has no {', '.join(unsupported)}")
    half = query.is_cuda and query.dtype in (torch.float16, torch.bfloat16)
    if half and not dropout and packing.seen is None:
        return attend_varlen(query, key, value, packing, scaling, causal, sliding_window)[None], None
    views = packing.views(*(tensor[0].transpose(0, 1) for tensor in (query, key, value)))
    out = [
        attend_group(q, k, v, visible, dropout=dropout, scale=scaling, causal=causal, window=sliding_window)
        for (q, k, v), visible in zip(views, packing.visible, strict=True)
        if q.shape[1]  # a text may have no tokens
    ]
    return (torch.cat(out) if len(out) > 1 else out[0])[None], None


def attend_group(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    visible: Tensor | None,
    dropout: float,
    scale: float | None,
    causal: bool,
    window: int | None,
) -> Tensor:
    """n sequences of l tokens: (n, l, heads, d) -> (n · l, heads, d).

    Args:
        visible: (n, l) bool, the tokens that may be looked at; None for all.
    """
    length = query.shape[1]
    mask = window_mask(length, window, causal, query.device) if window and length > window else None
    if visible is not None:
        if mask is None and causal:
            mask = window_mask(length, length, causal, query.device)
        mask = visible[:, None, None, :] if mask is None else visible[:, None, None, :] & mask
    out = F.scaled_dot_product_attention(
        query.transpose(1, 2),
        key.transpose(1, 2),
        value.transpose(1, 2),
        attn_mask=mask,
        dropout_p=dropout,
        is_causal=causal and mask is None and length > 1,
        scale=scale,
        enable_gqa=query.shape[2] != key.shape[2],
    )
    return out.transpose(1, 2).flatten(0, 1)


@lru_cache(maxsize=32)
def window_mask(length: int, window: int, causal: bool, device: torch.device) -> Tensor:
    """(l, l) bool: which key (column) each query (row) may see."""
    steps = torch.arange(length, device=device)
    distance = steps[:, None] - steps[None, :]
    return (distance >= 0) & (distance < window) if causal else distance.abs() < window


def attend_varlen(
    query: Tensor, key: Tensor, value: Tensor, packing: Packing, scale: float | None, causal: bool, window: int | None
) -> Tensor:
    """The whole run in one variable-length kernel: (1, heads, T, d) -> (T, heads, d)."""
    from torch.nn.attention.varlen import varlen_attn

    offsets = packing.offsets.to(torch.int32)
    left = -1 if window is None else window - 1
    q, k, v = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    out = varlen_attn(
        q,
        k,
        v,
        offsets,
        offsets,
        packing.longest,
        packing.longest,
        scale=scale,
        window_size=(left, 0 if causal else left),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return cast(Tensor, out)  # a pair only where it is asked for more


def mask(*args: Any, **kwargs: Any) -> Tensor | None:
    """The mask function that transformers calls: none in a packed batch, sdpa's own in a padded one."""
    if _current.get() is not None:
        return None
    from transformers.masking_utils import sdpa_mask

    return sdpa_mask(*args, **kwargs)


def register() -> None:
    """Make our attention function known to transformers, in this process."""
    from transformers.masking_utils import AttentionMaskInterface
    from transformers.modeling_utils import AttentionInterface

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, mask)


def install(model: Any) -> str | None:
    """Let a transformers model use our attention function.

    Returns:
        The name of the attention function it had, or None if the architecture does not let it be chosen.
    """
    before = model.config._attn_implementation
    if not getattr(model, "_supports_attention_backend", False) or before not in ("sdpa", "eager"):
        return None
    register()
    try:
        model.set_attn_implementation(NAME)
    except (ValueError, AttributeError) as error:
        logger.debug("%s refuses %s: %s", type(model).__name__, NAME, error)
        return None
    return before


POSITION_TABLES = ("position_embeddings", "embed_positions", "wpe")


def position_offset(model: nn.Module) -> int:
    """Position of a sequence's first token: padding_idx + 1 in the RoBERTa family, 0 elsewhere."""
    for module in model.modules():
        if hasattr(module, "create_position_ids_from_input_ids"):
            return int(getattr(module, "padding_idx", None) or 0) + 1
    return 0


def learned_positions(model: nn.Module) -> int | None:
    """Tokens that the tables of learned positions have rows for, the least over the tables; None without a table."""
    rows = []
    for name, module in model.named_modules():
        if name.rpartition(".")[2] in POSITION_TABLES and isinstance(module, nn.Embedding):
            padding = module.padding_idx
            rows.append(module.num_embeddings - (0 if padding is None else padding + 1))
    most = getattr(model.config, "max_position_embeddings", None)
    return min([*rows, most] if rows and isinstance(most, int) and most > 0 else rows, default=None)


@torch.no_grad()
def prove(together: Any, alone: Any, sequences: list[Tensor]) -> bool:
    """Whether a model gives sequences the same vectors together and alone.

    Args:
        together: list of (l,) int64 token ids of different lengths -> rows, one sequence after the other.
        alone: (l,) int64 token ids -> its rows.
    """
    try:
        got, expected = together(sequences), torch.cat([alone(ids) for ids in sequences])
    except Exception as error:
        logger.info("The architecture cannot take the batch: %s: %s", type(error).__name__, error)
        return False
    return same(got, expected)


def same(got: Tensor, expected: Tensor) -> bool:
    """Whether two results of one computation agree, up to the rounding of their type."""
    tolerance = 1e-4 if got.dtype == torch.float32 else 2e-2
    got, expected = got.float(), expected.float()
    scale = expected.abs().max().clamp(min=1e-6)
    return got.shape == expected.shape and bool((got - expected).abs().max() <= tolerance * scale)
