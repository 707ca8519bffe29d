"""Whether a tensor has been written to since a copy in another layout was made of it.

Weights are copied into the layout that matrix kernels like best (`backends.bert_cpu`, `backends.prepacked_linear`), and
a copy must never be used once the weight is another. `Tensor._version` does not tell: writes through `.data`, fused
optimizers and NumPy views are not counted. PyTorch's copy-on-write tensors do tell. A lazy clone shares the weight's
memory until somebody writes to either of the two, whatever way the writer takes; at that moment they part, and the
weight moves to memory of its own. So

    snapshot = weight._lazy_clone()                    no memory, no copying
    torch._C._data_address(weight)                     the same until the first write to it

costs a tenth of a microsecond per question, and is exact. What holds memory of another kind (shared with other
processes, mapped from a file, lent by NumPy) or memory that further tensors hold too, through which NumPy might write
unseen, cannot be watched: `watch` then gives None, and no copy may be kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    """Notices that one of some tensors was written to, resized, or given other memory. A tensor may have several.

    Args:
        tensors: of which copies were made.
        read: further ones, which are read where they lie: writes to them need not be noticed, other memory is.
    """

    def __init__(self, tensors: Sequence[Tensor], read: Sequence[Tensor] = ()) -> None:
        self.tensors, self._all = tensors, [*tensors, *read]
        self._snapshots = [tensor.detach()._lazy_clone() for tensor in tensors]  # type: ignore[operator]
        self._found = self._look()  # the snapshots keep the memory from other use

    def unchanged(self) -> bool:
        """Whether all are as they were: one that is written to moves to other memory."""
        return self._look() == self._found

    def _look(self) -> tuple[list[Any], ...]:
        """Where the tensors lie, and how their numbers there are read."""
        return (
            list(map(address, self._all)),
            [tensor.dtype for tensor in self._all],
            [tensor.stride() for tensor in self.tensors],
            [tensor.shape for tensor in self.tensors],
        )


def can_be_watched(tensor: Tensor) -> bool:
    """Whether writes to a tensor would be noticed: it lies on the CPU, and nothing else holds its memory."""
    if not AVAILABLE or tensor.device.type != "cpu" or tensor.is_inference() or type(tensor.data) is not Tensor:
        return False
    return bool(private._storage_Use_Count(tensor.untyped_storage()._cdata) <= SOLE_OWNER)


def watch(*tensors: Tensor, read: Sequence[Tensor] = ()) -> Watch | None:
    """A watch over tensors; None where writes to one could go unseen. Matrix kernels that lay it out anew take it for
    written to, so it begins after them.
    """
    if not all(map(can_be_watched, tensors)):
        return None
    try:
        return Watch(tensors, read)
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
