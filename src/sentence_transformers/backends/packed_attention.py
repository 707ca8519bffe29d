"""Attention inside packed batches, for every transformers architecture that lets its attention function be chosen.

transformers looks an attention function up by name at every layer. `NAME` is ours. Inside `use_packing(packing)` a
model called with `input_ids` of shape (1, T) attends within each sequence of the run and never across:

    CUDA, 16 bit     PyTorch's variable-length flash kernel over the whole run, where a trial shows that it works on
                     this GPU (`flash_works`) and there is no dropout
    anywhere else    each group of equal lengths is one unmasked `scaled_dot_product_attention` on a (n, heads, l, d)
                     view

Outside of it the same function is ordinary sdpa on a padded batch, so that one loaded model serves both. A layer's
window (`sliding_window` = w) lets token i see token j when |i − j| < w, causal layers 0 ≤ i − j < w.

Declaring that the attention function can be chosen does not make an architecture right: some mix neighbouring tokens
elsewhere (MobileBERT in its embeddings). So `difference` compares packed with alone once per loaded model, on a few
short sequences, and the engine pads for a model that fails.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sentence_transformers.backends.tasks import after_padding
from sentence_transformers.features import Packing
from sentence_transformers.util.environment import is_out_of_memory
from sentence_transformers.util.thread_value import ThreadValue
from sentence_transformers.util.whose_code import is_foreign

logger = logging.getLogger(__name__)

NAME = "packed_sdpa"
_current: ThreadValue[Packing | None] = ThreadValue(None)


@contextlib.contextmanager
def use_packing(packing: Packing | None) -> Iterator[None]:
    """Attention of models called inside this context stays within the sequences of `packing`."""
    with _current.set_to(packing):
        yield


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
    packing = packing or _current.value
    if packing is None:
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

        return ALL_ATTENTION_FUNCTIONS["sdpa"](
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, is_causal=is_causal, **kwargs
        )
    causal = bool(getattr(module, "is_causal", False) if is_causal is None else is_causal)
    if sliding_window and getattr(getattr(module, "config", None), "is_causal", None) is False:
        sliding_window += 1  # transformers' window of a causal model that is told to look both ways
    if unsupported := [name for name in ("softcap", "position_bias", "s_aux") if kwargs.get(name) is not None]:
        raise NotImplementedError(f"packed attention has no {', '.join(unsupported)}")
    packing = packing.on(query.device)
    if not dropout and packing.attention_lengths is None and flash_fits(query, key, value, causal, sliding_window):
        return flash(query, key, value, packing, scaling, causal, sliding_window)[None], None
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


def flash(
    query: Tensor, key: Tensor, value: Tensor, packing: Packing, scale: float | None, causal: bool, window: int | None
) -> Tensor:
    """The whole run in one variable-length kernel: (1, heads, T, d) -> (T, heads, d), in 16 bit.

    This is the operation behind `torch.nn.attention.varlen`, which not every version of PyTorch has, with arguments
    that differ.
    """
    offsets, left = packing.offsets.to(torch.int32), -1 if window is None else window - 1
    q, k, v = (tensor[0].transpose(0, 1).to(computing_type(value)) for tensor in (query, key, value))
    out = torch.ops.aten._flash_attention_forward(
        *(q, k, v, offsets, offsets, packing.longest, packing.longest, 0.0, causal, False),
        scale=scale,
        window_size_left=left,
        window_size_right=0 if causal else left,
    )
    return cast(Tensor, out[0])


def computing_type(tensor: Tensor) -> torch.dtype:
    """Type in which a product with a tensor is computed: autocast's inside of that, else the tensor's."""
    kind = tensor.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else tensor.dtype


def flash_fits(query: Tensor, key: Tensor, value: Tensor, causal: bool, window: int | None) -> bool:
    """Whether `flash` can compute this attention."""
    dtype = computing_type(value)
    if not query.is_cuda or dtype not in (torch.float16, torch.bfloat16):
        return False
    return flash_works(query.device, dtype, query.shape[1], key.shape[1], query.shape[3], causal, window is not None)


@lru_cache(maxsize=256)
def flash_works(
    device: torch.device, dtype: torch.dtype, heads: int, key_heads: int, size: int, causal: bool, windowed: bool
) -> bool:
    """Whether `flash` gives values and gradients of `attend_group` on a GPU, found by trying it on two sequences.

    It does not on GPUs before Ampere, for some sizes of heads, and where PyTorch is built without it.

    Raises:
        torch.OutOfMemoryError: that says nothing about the kernel; the next call tries again.
    """
    packing, window = Packing([7, 5], device), 3 if windowed else None
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False):
        made = [torch.randn(1, n, 12, size, generator=generator, device="cpu") for n in (heads, key_heads, key_heads)]
        q, k, v = (tensor.to(device, dtype).requires_grad_() for tensor in made)
        views = packing.views(*(tensor[0].transpose(0, 1) for tensor in (q, k, v)))
        expected = torch.cat([attend_group(a, b, c, None, 0.0, None, causal, window) for a, b, c in views])
        try:
            found = flash(q, k, v, packing, None, causal, window)
            pairs = [(found, expected)]
            gradients = (torch.autograd.grad(out.float().square().sum(), (q, k, v)) for out in (found, expected))
            works = all(same(*pair) for pair in [*pairs, *zip(*gradients, strict=True)])
            reason = "its values are wrong"
        except (RuntimeError, TypeError, AttributeError) as error:
            if is_out_of_memory(error):
                raise
            works, reason = False, f"{type(error).__name__}: {error}"
    if not works:
        logger.warning(
            "PyTorch's variable-length attention does not work here (%s, %s, heads of %d: %s). Attention runs once for "
            "each length in a batch, which is slower.",
            *(device, dtype, size, reason),
        )
    return works


def mask(*args: Any, **kwargs: Any) -> Tensor | None:
    """The mask function that transformers calls: none in a packed batch, sdpa's own in a padded one."""
    if _current.value is not None:
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


def is_in_use(model: Any) -> bool:
    """Whether a transformers model has our attention function still, and sdpa is what it was."""
    return model.config._attn_implementation == NAME and not sdpa_was_replaced()


def sdpa_was_replaced() -> bool:
    """Whether the caller has registered an attention function of his own under the name "sdpa"."""
    known = getattr(sys.modules.get("transformers.modeling_utils"), "ALL_ATTENTION_FUNCTIONS", None)
    return known is not None and is_foreign(known["sdpa"], ("transformers.",))


POSITION_TABLES = ("position_embeddings", "embed_positions", "wpe")
COUNTING = "create_position_ids_from_input_ids"  # method or function of the families that count so


def position_offset(model: nn.Module) -> int:
    """Position of a sequence's first token as the model's code has it; see `tasks.position_offset`."""
    for module in model.modules():
        file = sys.modules.get(type(module).__module__)
        if hasattr(module, COUNTING) or (hasattr(module, "position_embeddings") and hasattr(file, COUNTING)):
            return after_padding(getattr(module, "padding_idx", None))
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
def difference(together: Any, alone: Any, sequences: list[Tensor]) -> str | None:
    """How a model gives sequences other vectors together than alone; None if they are the same.

    Rounding may differ between the two, in 16 bit by as much as a neighbour's faint influence. So that is looked for
    by itself: the middle one keeps its rows when the sequences around it hold other tokens.

    Args:
        together: list of three (l,) int64 token ids -> rows, one sequence after the other.
        alone: (l,) int64 token ids -> its rows.

    Raises:
        torch.OutOfMemoryError: or what a device raises in its place; that says nothing about the model.
    """
    first, middle, last = sequences
    try:
        expected = [alone(ids) for ids in sequences]
        got = together(sequences)
        beside_others = together([middle[:1].expand(len(first)), middle, middle[-1:].expand(len(last))])
    except Exception as error:
        if is_out_of_memory(error):
            raise
        logger.info("The architecture cannot take the batch: %s: %s", type(error).__name__, error)
        return f"the architecture does not take them, {type(error).__name__}: {error}"
    if not same(got, torch.cat(expected)):
        return "texts get other vectors than alone"
    its_rows = slice(len(expected[0]), len(expected[0]) + len(expected[1]))
    return None if same(beside_others[its_rows], got[its_rows], exact=True) else "neighbours change a text's vectors"


def same(got: Tensor, expected: Tensor, exact: bool = False) -> bool:
    """Whether two results of one computation agree, up to the rounding of the type in which it was done.

    Args:
        exact: whether the same products of the same shapes were taken.
    """
    coarse = computing_type(got) != torch.float32 or not float32_is_exact()
    tolerance = (1e-2 if exact else 5e-2) if coarse else 1e-4
    got, expected = got.float(), expected.float()
    scale = expected.abs().max().clamp(min=1e-6)
    return got.shape == expected.shape and bool((got - expected).abs().max() <= tolerance * scale)


def float32_is_exact() -> bool:
    """Whether products of float32 keep its precision (no TF32)."""
    try:
        return torch.get_float32_matmul_precision() == "highest"
    except RuntimeError:  # older and newer names of the switches were mixed; then something was switched
        return False
