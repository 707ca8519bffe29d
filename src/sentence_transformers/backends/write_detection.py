"""Whether a tensor has been written to since a copy in another layout was made of it.

Weights are copied into the layout that matrix kernels like best (`backends.packed_weights`), and a copy must never be
used once the weight is another. `Tensor._version` does not tell: writes through `.data`, fused optimizers and NumPy
views are not counted. PyTorch's copy-on-write tensors do tell. A lazy clone shares the weight's memory until somebody
writes to either of the two, whatever way the writer takes; at that moment they part, and the weight moves to memory of
its own. So

    snapshot = weight._lazy_clone()                    no memory, no copying
    torch._C._data_address(weight)                     the same until the first write to it

costs a tenth of a microsecond per question, and is exact. What holds memory of another kind (shared with other
processes, mapped from a file, lent by NumPy) or memory that further tensors hold too, through which NumPy might write
unseen, cannot be watched: `watch` then gives None, and no copy may be kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

private: Any = torch._C
SOLE_OWNER = 2  # references to the memory of a tensor that nobody shares: the tensor's, and that of the question
AVAILABLE = hasattr(torch.Tensor, "_lazy_clone") and all(
    hasattr(private, name) for name in ("_is_cow_tensor", "_data_address", "_storage_Use_Count")
)

address: Callable[[Tensor], int] = getattr(private, "_data_address", Tensor.data_ptr)
"""Where a tensor's numbers lie; asking does not count as writing, as `data_ptr()` does."""


class Watch:
    """Notices that a tensor was written to, resized, given other memory, or replaced. A tensor may have several."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor
        self._snapshot = tensor.detach()._lazy_clone()  # type: ignore[operator]  # keeps the memory from other use
        self._address, self._dtype = address(tensor), tensor.dtype
        self._shape, self._stride = tensor.shape, tensor.stride()

    def unchanged(self, tensor: Tensor | None) -> bool:
        """Whether `tensor` is the one that is watched, as it was: one that is written to moves to other memory."""
        return (
            tensor is self._tensor
            and address(tensor) == self._address
            and tensor.dtype is self._dtype
            and tensor.stride() == self._stride
            and tensor.shape == self._shape
        )


def can_be_watched(tensor: Tensor) -> bool:
    """Whether writes to a tensor would be noticed: it lies on the CPU, and nothing else holds its memory."""
    if not AVAILABLE or tensor.device.type != "cpu" or tensor.is_inference() or type(tensor.data) is not Tensor:
        return False
    return bool(private._storage_Use_Count(tensor.untyped_storage()._cdata) <= SOLE_OWNER)


def watch(tensor: Tensor) -> Watch | None:
    """A watch over a tensor; None where writes to it could go unseen. Matrix kernels that lay it out anew take it for
    written to, so it begins after them.
    """
    if not can_be_watched(tensor):
        return None
    try:
        return Watch(tensor)
    except RuntimeError:  # memory that PyTorch does not manage
        return None


def own_memory(tensor: Tensor) -> None:
    """Move a tensor that was read from a file into memory of its own, so that it can be watched, and so that changes of
    the file do not reach it.
    """
    if AVAILABLE and tensor.device.type == "cpu" and not private._is_cow_tensor(tensor):
        try:
            tensor.detach()._lazy_clone()  # type: ignore[operator]
        except RuntimeError:
            tensor.data = tensor.data.clone()
