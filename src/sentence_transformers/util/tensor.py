"""Small functions of arrays that everything else is built from: convert, normalise, truncate, pad, count.

Shapes: B texts, T tokens of a flattened batch, L padded length, H dimension. Nothing here knows about models.

What callers hand in (lists, numpy arrays, tensors of any dtype and layout) becomes one kind of thing by two steps:
`to_tensor` keeps the dtype, `to_float` then gives float32, or float64 where that is what came in. Sparse tensors stay
sparse.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from sentence_transformers.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from scipy.sparse import coo_matrix

ArrayLike: TypeAlias = Sequence[Any] | np.ndarray | Tensor


def to_tensor(a: ArrayLike) -> Tensor:
    """A tensor of the same dtype and layout. Lists of arrays or tensors are stacked; writable numpy memory is shared.

    Raises:
        InputError: if the rows differ in length or hold something other than numbers.
    """
    if isinstance(a, Tensor):
        return a
    try:
        if isinstance(a, np.ndarray):
            return torch.from_numpy(np.ascontiguousarray(a if a.flags.writeable else a.copy()))
        if isinstance(a, (list, tuple)) and len(a) and isinstance(a[0], Tensor):
            return torch.stack(list(a))
        if isinstance(a, (list, tuple)) and len(a) and isinstance(a[0], np.ndarray):
            return torch.from_numpy(np.stack(a))
        return torch.tensor(a)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"Expected numbers in rows of one length, got {describe(a)}: {error}") from error


def to_float(a: ArrayLike, device: torch.device | None = None) -> Tensor:
    """`to_tensor`, then float64 stays float64 and any other dtype (integers, bool, half precision) becomes float32.

    Args:
        device: where the tensor is moved to; float64 becomes float32 on MPS, which does not have it.
    """
    tensor = to_tensor(a)
    wide = tensor.dtype == torch.float64 and (device is None or device.type != "mps")
    tensor = tensor if wide or tensor.dtype == torch.float32 else tensor.float()
    return tensor if device is None else tensor.to(device)


def to_rows(a: ArrayLike, name: str = "embeddings") -> Tensor:
    """`to_float` of shape (N, H). A single vector counts as one row; CSR becomes coalesced COO.

    Raises:
        InputError: unless the array has one or two axes.
    """
    tensor = to_float(a)
    if tensor.ndim not in (1, 2):
        raise InputError(f"`{name}` must have shape (N, H) or (H,), got {tuple(tensor.shape)}.")
    if is_sparse(tensor):
        tensor = to_coo(tensor)
    return tensor if tensor.ndim == 2 else tensor.unsqueeze(0)


def check_finite(rows: np.ndarray | Tensor, name: str = "embeddings", first: int = 0) -> None:
    """`InputError` with the first row of (..., H) that holds NaN or infinity.

    The sum of all values comes first, as it costs a tenth of looking at each of them.

    Args:
        first: number of the first row.
    """
    if isinstance(rows, Tensor):
        if not rows.is_floating_point() or torch.isfinite(rows.sum()):
            return
        finite = torch.isfinite(rows).flatten(0, -2).all(dim=-1).cpu().numpy()
    else:
        with np.errstate(over="ignore", invalid="ignore"):
            if rows.dtype.kind != "f" or np.isfinite(rows.sum()):
                return
        finite = np.isfinite(rows).reshape(-1, rows.shape[-1]).all(axis=1)
    bad = np.flatnonzero(~finite)
    if len(bad):
        raise InputError(
            f"`{name}` must be finite, but row {first + bad[0]} holds NaN or infinity ({len(bad)} rows do)."
        )


def describe(a: object) -> str:
    """Type and shape of an argument, for error messages."""
    shape = getattr(a, "shape", None)
    size = f"shape {tuple(shape)}" if shape is not None else f"length {len(a)}" if hasattr(a, "__len__") else repr(a)
    return f"{type(a).__name__} of {size}"


def is_sparse(tensor: Tensor) -> bool:
    """Whether the layout is COO, CSR or another sparse one."""
    return tensor.layout != torch.strided


def to_coo(tensor: Tensor) -> Tensor:
    """Any sparse layout as coalesced COO."""
    return tensor.to_sparse_coo().coalesce()


def take_rows(tensor: ArrayLike, start: int, stop: int) -> Any:
    """Rows `start:stop` of a dense or sparse tensor, or of a list; `stop` may lie behind the end."""
    if not isinstance(tensor, Tensor) or not is_sparse(tensor):
        return tensor[start:stop]
    rows = torch.arange(start, min(stop, tensor.shape[0]), device=tensor.device)
    return (tensor if tensor.layout == torch.sparse_coo else to_coo(tensor)).index_select(0, rows)


def _convert_to_tensor(a: ArrayLike) -> Tensor:
    return to_tensor(a)


def _convert_to_batch(a: Tensor) -> Tensor:
    """(H,) -> (1, H); anything else unchanged."""
    return a.unsqueeze(0) if a.ndim == 1 else a


def _convert_to_batch_tensor(a: ArrayLike) -> Tensor:
    return _convert_to_batch(to_tensor(a))


def _move_tensors_to_cpu(value: object) -> Any:
    """The same nest of dicts, lists and tuples with its tensors on the CPU."""
    if isinstance(value, Tensor):
        return value.cpu()
    if isinstance(value, dict):
        return {key: _move_tensors_to_cpu(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_move_tensors_to_cpu(item) for item in value)
    return value


def batch_to_device(batch: dict[str, Any], target_device: torch.device | str) -> dict[str, Any]:
    """Move the tensors among the values of `batch` to a device, in place; returns `batch`."""
    for key, value in batch.items():
        if isinstance(value, Tensor):
            batch[key] = value.to(target_device)
    return batch


def normalize_embeddings(embeddings: Tensor) -> Tensor:
    """x / max(‖x‖₂, 1e-12) along the last axis: rows of length 1; zero rows stay zero. Dtype and layout are kept.

    Args:
        embeddings: float of shape (..., H), or sparse of shape (N, H) or (H,).
    """
    if embeddings.dtype == torch.float16 and not torch.is_autocast_enabled(embeddings.device.type):
        # 1e-12 and the squares of small values are 0 there
        return normalize_embeddings(embeddings.float()).to(embeddings.dtype)
    if not is_sparse(embeddings):
        return torch.nn.functional.normalize(embeddings, p=2, dim=-1)
    coo = to_coo(embeddings)
    values = coo.values()
    rows = coo.indices()[0] if coo.ndim == 2 else torch.zeros_like(coo.indices()[0])
    squares = values.new_zeros(coo.shape[0] if coo.ndim == 2 else 1).index_add(0, rows, values * values)
    scaled = values / squares.sqrt().clamp_min(1e-12)[rows]
    unit = torch.sparse_coo_tensor(coo.indices(), scaled, coo.shape, is_coalesced=True, check_invariants=False)
    return unit if embeddings.layout == torch.sparse_coo else unit.to_sparse_csr()


def truncate_embeddings(embeddings: np.ndarray | Tensor, truncate_dim: int | None) -> np.ndarray | Tensor:
    """The first `truncate_dim` values of the last axis (Matryoshka embeddings); everything if it is None or larger."""
    return embeddings[..., :truncate_dim]


def select_max_active_dims(embeddings: np.ndarray | Tensor, max_active_dims: int | None) -> Tensor:
    """Keep the `max_active_dims` values of largest magnitude of each row and set the others to zero.

    Args:
        embeddings: float of shape (..., H), dense; not modified.
        max_active_dims: at least 1; None keeps everything.

    Raises:
        InputError: if `max_active_dims` is less than 1.
    """
    if max_active_dims is None:
        return embeddings  # type: ignore[return-value]  # given back as it came, an array too
    if max_active_dims < 1:
        raise InputError(f"`max_active_dims` must be a positive integer or None, got {max_active_dims}.")
    tensor = to_tensor(embeddings)
    if max_active_dims >= tensor.shape[-1]:
        return tensor
    kept = tensor.abs().topk(max_active_dims, dim=-1, sorted=False).indices
    return torch.zeros_like(tensor).scatter(-1, kept, tensor.gather(-1, kept))


def compute_count_vector(embeddings: Tensor) -> Tensor:
    """In how many rows each dimension is not zero.

    Args:
        embeddings: (N, H) or (H,), dense or sparse.

    Returns:
        int32 of shape (H,).
    """
    if embeddings.ndim not in (1, 2):
        raise InputError(f"`embeddings` must have shape (N, H) or (H,), got {tuple(embeddings.shape)}.")
    if not is_sparse(embeddings):
        return torch.count_nonzero(_convert_to_batch(embeddings), dim=0).int()
    coo = to_coo(embeddings)
    columns = coo.indices()[-1][coo.values() != 0]
    return torch.bincount(columns, minlength=coo.shape[-1]).int()


def to_scipy_coo(x: Tensor) -> coo_matrix:
    """A tensor of shape (N, H), sparse or dense, as a `scipy.sparse.coo_matrix`."""
    try:
        from scipy.sparse import coo_matrix
    except ImportError as error:
        raise MissingExtraError("scipy", "sparse", "Conversion to a scipy matrix") from error
    coo = to_coo(x.detach()).cpu()
    values = coo.values() if coo.dtype != torch.bfloat16 else coo.values().float()
    rows, columns = coo.indices().numpy()
    return coo_matrix((values.numpy(), (rows, columns)), shape=tuple(coo.shape))


def _pad_tokens(embeddings: list[Tensor], masks: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Pad every (B, L_k, H) and its mask (B, L_k) with zeros to the greatest L_k."""
    if not embeddings or len(embeddings) != len(masks):
        raise InputError(
            f"Expected as many masks as embeddings and at least one, got {len(embeddings)} embeddings "
            f"and {len(masks)} masks."
        )
    longest = max(e.shape[1] for e in embeddings)
    pad = torch.nn.functional.pad
    padded = [pad(e, (0, 0, 0, longest - e.shape[1])) for e in embeddings]
    return padded, [pad(m, (0, longest - m.shape[1])) for m in masks]


def stack_padded_token_embeddings(embeddings: list[Tensor], masks: list[Tensor]) -> tuple[Tensor, Tensor]:
    """K columns of shape (B, L_k, H) with masks (B, L_k) -> (B, K, L, H) and (B, K, L), L being the greatest L_k."""
    padded, padded_masks = _pad_tokens(embeddings, masks)
    return torch.stack(padded, dim=1), torch.stack(padded_masks, dim=1)


def cat_padded_token_embeddings(embeddings: list[Tensor], masks: list[Tensor]) -> tuple[Tensor, Tensor]:
    """K batches of shape (B_k, L_k, H) with masks (B_k, L_k) -> (ΣB_k, L, H) and (ΣB_k, L), L the greatest L_k."""
    padded, padded_masks = _pad_tokens(embeddings, masks)
    return torch.cat(padded), torch.cat(padded_masks)


def repad_flattened_features(features: dict[str, Any]) -> dict[str, Any]:
    """Turn a flattened batch, as transformers' flattening collator makes it, into the padded layout. In place.

    `input_ids` (1, T) and `token_embeddings` (1, T, H) become (B, L) and (B, L, H), padded with zeros at the end;
    `attention_mask` (B, L) bool is added; the keys that only describe flattening (`cu_seq_lens_*`, `max_length_*`,
    `position_ids`, `seq_idx`) are removed. A batch without `cu_seq_lens_q` is padded already and comes back as it is.
    """
    if (bounds := features.get("cu_seq_lens_q")) is None:
        return features
    lengths = bounds.diff()
    mask = torch.arange(int(lengths.max()), device=bounds.device) < lengths[:, None]
    for key in ("input_ids", "token_embeddings"):
        if key in features:
            flat = features[key][0]
            padded = flat.new_zeros((*mask.shape, *flat.shape[1:]))
            padded[mask] = flat
            features[key] = padded
    for key in ("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k", "position_ids", "seq_idx"):
        features.pop(key, None)
    features["attention_mask"] = mask
    return features


def module_device(module: torch.nn.Module) -> torch.device:
    """Device of a module's first tensor; cpu if it has none. If its values are kept elsewhere until they are needed
    (`device_map` with offloading), where they are computed then.
    """
    first: Tensor | None = next(module.parameters(), None)
    if first is None:
        first = next(module.buffers(), None)
    if first is None:
        return torch.device("cpu")
    if first.is_meta:
        for part in module.modules():
            place = getattr(getattr(part, "_hf_hook", None), "execution_device", None)  # set by accelerate
            if place is not None:
                return torch.device(place)
    return first.device
