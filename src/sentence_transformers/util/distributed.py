"""Tensors of all processes of a `torch.distributed` group. Without such a group every function sees one process."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from sentence_transformers.util.environment import is_dist_initialized

if TYPE_CHECKING:
    from torch import nn
    from torch.autograd.function import FunctionCtx

logger = logging.getLogger(__name__)
T = TypeVar("T")


def get_rank() -> int:
    """Number of this process, 0 without a process group."""
    return dist.get_rank() if is_dist_initialized() else 0


def get_world_size() -> int:
    """Number of processes, 1 without a process group."""
    return dist.get_world_size() if is_dist_initialized() else 1


def all_gather(tensor: Tensor, with_grad: bool = False) -> Tensor:
    """Tensors of all processes, one after the other along the first axis, in the order of ranks.

    Args:
        tensor: (B, ...), the same shape in every process.
        with_grad: let gradients flow back into the tensors of other processes too. Without, only the own part has one.

    Returns:
        (W · B, ...) for W processes; `tensor` itself without a process group.
    """
    if not is_dist_initialized():
        _log_alone_once()
        return tensor
    if with_grad:
        return _GatherWithGradient.apply(tensor)
    parts = [torch.empty_like(tensor) for _ in range(get_world_size())]
    dist.all_gather(parts, tensor.detach().contiguous())
    parts[get_rank()] = tensor
    return torch.cat(parts)


class _GatherWithGradient(torch.autograd.Function):
    """Gathering whose gradient is the sum of what all processes made of the own part."""

    @staticmethod
    def forward(ctx: FunctionCtx, tensor: Tensor) -> Tensor:
        parts = [torch.empty_like(tensor) for _ in range(get_world_size())]
        dist.all_gather(parts, tensor.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total.chunk(get_world_size())[get_rank()]


def all_gather_with_grad(tensor: Tensor) -> Tensor:
    """`all_gather` with gradients to all processes."""
    return all_gather(tensor, with_grad=True)


def all_gather_padded(tensor: Tensor, mask: Tensor, with_grad: bool = False) -> tuple[Tensor, Tensor]:
    """`all_gather` of token embeddings whose padded length differs between processes.

    Args:
        tensor: (B, L_w, H), B and H the same in every process.
        mask: (B, L_w).
        with_grad: as in `all_gather`, for `tensor`; a mask has no gradient.

    Returns:
        (W · B, L, H) and (W · B, L), where L is the greatest L_w; padded with zeros.
    """
    if is_dist_initialized():
        longest = torch.tensor(tensor.shape[1], device=tensor.device)
        dist.all_reduce(longest, op=dist.ReduceOp.MAX)
        missing = int(longest) - tensor.shape[1]
        tensor = torch.nn.functional.pad(tensor, (0, 0, 0, missing))
        mask = torch.nn.functional.pad(mask, (0, missing))
    return all_gather(tensor, with_grad=with_grad), all_gather(mask)


@functools.cache
def _log_alone_once() -> None:
    logger.warning("Nothing to gather from: torch.distributed is not initialised, so this process works alone.")


@contextmanager
def distributed_evaluation(model: nn.Module, enabled: bool = True) -> Iterator[bool]:
    """Within the context, whether this process is the one that computes.

    An evaluator is run by the first process alone, the others wait for it at the end of the context.

    Args:
        model: kept for compatibility.
        enabled: False lets every process compute (a sharded model needs all of them).
    """
    alone = enabled and is_dist_initialized()
    try:
        yield not alone or get_rank() == 0
    finally:
        if alone:
            dist.barrier()


def broadcast_object(value: T) -> T:
    """The first process's value, in all processes."""
    if not is_dist_initialized():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]
