"""Smaller embeddings: one byte or one bit a dimension instead of four bytes.

    uint8    clip(⌊(x − min) / step⌋, 0, 255), step = (max − min) / 255, with min and max per dimension
    int8     the same − 128
    ubinary  eight signs (x > 0) a byte, first dimension in the highest bit
    binary   the same − 128, as int8

The ranges (min, max) of the byte forms are rounded to float32. They should come from many embeddings of the kind that
will be stored.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from sentence_transformers.errors import InputError
from sentence_transformers.util.tensor import check_finite, describe

if TYPE_CHECKING:
    from sentence_transformers.util.tensor import ArrayLike

Precision: TypeAlias = Literal["float32", "int8", "uint8", "binary", "ubinary"]
PRECISIONS = ("float32", "int8", "uint8", "binary", "ubinary")

logger = logging.getLogger(__name__)

ENOUGH_ROWS = 100
"""Ranges computed from fewer embeddings are worth a warning."""


def quantize_embeddings(
    embeddings: Tensor | np.ndarray | Sequence[Tensor] | Sequence[np.ndarray],
    precision: Precision,
    ranges: np.ndarray | None = None,
    calibration_embeddings: np.ndarray | None = None,
) -> np.ndarray | list[np.ndarray]:
    """Quantise embeddings; the formulas stand at the top of this module.

    Args:
        embeddings: float of shape (N, H), or (H,), or a list of vectors, or a list of (tokens, H) arrays.
        precision: "float32", "int8", "uint8", "binary" or "ubinary".
        ranges: (2, H), least and greatest value of each dimension; for "int8" and "uint8".
        calibration_embeddings: (M, H), where to take the ranges from if there are none; a list of arrays is joined. If
            there are neither, `embeddings` itself is used.

    Returns:
        Array of shape (N, H) of type float32, int8 or uint8, or (N, ⌈H/8⌉) for the binary forms. For a list of
        (tokens, H) arrays a list of such arrays, all with the same ranges; for an empty list an empty list.

    Raises:
        InputError: for an unknown precision, embeddings that are quantised already, a range that cannot be computed
            (one embedding) or does not fit, calibration embeddings of another dimension, NaN or infinity.
    """
    if precision not in PRECISIONS:
        raise InputError(f"Precision {precision!r} is not supported. Choose one of {', '.join(PRECISIONS)}.")
    if isinstance(embeddings, (list, tuple)) and not len(embeddings):
        return []
    if isinstance(embeddings, (list, tuple)) and np.ndim(embeddings[0]) == 2:
        items = [to_numpy(item) for item in embeddings]
        for number, item in enumerate(items):
            check_finite(item, f"embeddings[{number}]")
        limits = find_ranges(items, precision, ranges, calibration_embeddings)
        return [quantize(item, precision, limits) for item in items]
    array = to_numpy(embeddings)
    if array.size == 0:
        return quantize(array, precision, np.zeros((2, 1))) if array.ndim > 1 else array
    check_finite(array)
    return quantize(array, precision, find_ranges([array], precision, ranges, calibration_embeddings))


def quantize(array: np.ndarray, precision: Precision, ranges: np.ndarray) -> np.ndarray:
    """One float array (..., H) by the formula of `precision`; `ranges` (2, H) matter for the byte forms only."""
    if precision == "float32":
        return array.astype(np.float32)
    if precision in ("binary", "ubinary"):
        bits = np.packbits(array > 0, axis=-1)
        return bits if precision == "ubinary" else (bits.astype(np.int16) - 128).astype(np.int8)
    low, high = ranges
    steps = (high - low) / 255
    steps = np.where(steps == 0, 1, steps).astype(steps.dtype)
    codes = np.clip(np.floor((array - low) / steps), 0, 255)
    return codes.astype(np.uint8) if precision == "uint8" else (codes - 128).astype(np.int8)


def find_ranges(
    arrays: list[np.ndarray],
    precision: Precision,
    ranges: np.ndarray | None,
    calibration_embeddings: np.ndarray | Sequence[np.ndarray] | None,
) -> np.ndarray:
    """The ranges (2, H) to use: those given, else from the calibration embeddings, else from `arrays` itself."""
    if precision not in ("int8", "uint8"):
        return np.zeros((2, 1))
    dimension = arrays[0].shape[-1]
    if ranges is None:
        ranges = compute_ranges(arrays, precision, calibration_embeddings)
    limits = to_numpy(ranges).astype(np.float32)
    if limits.shape != (2, dimension) or not np.isfinite(limits).all():
        raise InputError(
            f"The ranges of embeddings of dimension {dimension} must be finite numbers of shape (2, {dimension}), "
            f"minima and maxima; got {describe(limits)}{'' if np.isfinite(limits).all() else ' with NaN or infinity'}."
        )
    return limits


def compute_ranges(
    arrays: list[np.ndarray],
    precision: Precision,
    calibration_embeddings: np.ndarray | Sequence[np.ndarray] | None,
) -> np.ndarray:
    """Least and greatest value of each dimension, (2, H)."""
    if calibration_embeddings is not None:
        given = calibration_embeddings
        nested = isinstance(given, (list, tuple)) and len(given) > 0 and np.ndim(given[0]) == 2
        dimension = arrays[0].shape[-1]
        arrays = [to_numpy(item) for item in given] if nested else [to_numpy(given)]
        for array in arrays:
            if array.ndim == 0 or array.shape[-1] != dimension or not array.size:
                raise InputError(
                    f"`calibration_embeddings` must have shape (M, {dimension}) like the embeddings, got {array.shape}."
                )
            check_finite(array, "calibration_embeddings")
    rows = [array.reshape(-1, array.shape[-1]) for array in arrays if array.size]
    count = sum(len(block) for block in rows)
    if calibration_embeddings is None and count < 2:
        raise InputError(
            f"The {precision} ranges cannot be computed from a single embedding. "
            "Pass `ranges`, or `calibration_embeddings` with a representative set."
        )
    if count < ENOUGH_ROWS:
        logger.warning(
            "The %s ranges are computed from %d embeddings only. Pass `ranges` or more `calibration_embeddings`.",
            precision,
            count,
        )
    return np.stack([np.min([block.min(0) for block in rows], 0), np.max([block.max(0) for block in rows], 0)])


def to_numpy(embeddings: ArrayLike) -> np.ndarray:
    """A float array; bfloat16, which numpy does not know, becomes float32. `InputError` for (u)int8 or no numbers."""
    array = as_array(embeddings)
    if array.dtype in (np.int8, np.uint8):
        raise InputError(f"Expected float embeddings, got {array.dtype}. Embeddings are quantised once, from float.")
    return array


def as_array(embeddings: ArrayLike | None) -> np.ndarray:
    """Embeddings, float or quantised, as an array; bfloat16 becomes float32. `InputError` if they are no numbers."""
    try:
        if isinstance(embeddings, (list, tuple)) and len(embeddings) and isinstance(embeddings[0], Tensor):
            embeddings = torch.stack(list(embeddings))
        if isinstance(embeddings, Tensor):
            tensor = embeddings.detach().cpu()
            embeddings = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
        array = np.asarray(embeddings)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"Expected embeddings of one dimension, got {describe(embeddings)}: {error}") from error
    if array.dtype.kind not in "fiub":
        raise InputError(f"Expected float embeddings, got {array.dtype}.")
    return array


def __getattr__(name: str) -> Any:
    """The searches in quantised embeddings, which older code imports from here."""
    from sentence_transformers import _names

    return _names.passed_through(__name__, name)
