"""The weights of a model, as worker processes have them.

The model stays as it is: its weights must lie in memory that can be watched, or nothing prepared from them may be kept
(`backends.write_detection`). Workers are sent copies in shared memory:

    parent: weights --(copied; again, when they have changed)--> shared memory --> weights of each worker

A worker on a CPU moves what it prepares for its kernels into memory of its own, tables of embeddings excepted, and so
computes as fast as its parent. Models too large to be prepared at all are shared as they are, without a copy.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from sentence_transformers.backends.prepacked import PACK_LIMIT_BYTES
from sentence_transformers.backends.write_detection import Watch, address, own_memory, watch
from sentence_transformers.errors import InputError
from sentence_transformers.inference.devices import copy_with


class SharedWeights:
    """Keeps the weights in shared memory equal to those of a model on the CPU.

    Attributes:
        tensors: the weights and buffers in shared memory, by name.
        version: how often they were written to.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model, self.version = model, 0
        self.tensors: dict[str, Tensor] = {}
        self._watches: dict[str, Watch | None] = {}
        self._modules = kinds(model)

    def copy_of_model(self) -> Any:
        """The model with its weights in shared memory, as it is sent to a worker."""
        if not any(named_tensors(self.model)):
            return self.model
        copied = is_prepared(self.model)
        made = copy_with(self.model, lambda weight: (weight.clone() if copied else weight).share_memory_())
        self.tensors = {name: weight.detach() for name, weight in named_tensors(made)}
        self._watches = {name: watch(weight) for name, weight in named_tensors(self.model)}
        return made

    def refresh(self) -> int:
        """Copy the weights that have changed since the last time.

        Returns:
            The version of the weights.

        Raises:
            InputError: if the model has other modules, or weights of other names, shapes or types.
        """
        found = dict(named_tensors(self.model))
        other = [name for name, kept in self.tensors.items() if name not in found or not alike(kept, found[name])]
        if other or kinds(self.model) != self._modules:
            what = f"weights {other[:3]} are" if other else "modules of the model are"
            raise InputError(
                f"The {what} not those that the worker processes were started with. Call stop_multi_process_pool and "
                "start a new pool."
            )
        changed = False
        for name, kept in self.tensors.items():
            weight, guard = found[name].detach(), self._watches.get(name)
            if guard is not None and guard.unchanged(found[name]):
                continue
            if address(weight) != address(kept) and not torch.equal(weight.to(kept.device), kept):
                kept.copy_(weight)
                changed = True
            self._watches[name] = watch(found[name])
        self.version += changed
        return self.version


class ReceivedWeights:
    """The weights of a worker's model, and the shared memory that they are read from.

    Args:
        model: as it was sent, its weights in shared memory; it is moved to the device.
    """

    def __init__(self, model: nn.Module, device: str) -> None:
        self.model, self.version = model, 0
        self.tensors = {name: weight.detach() for name, weight in named_tensors(model)}
        model.to(device)
        if torch.device(device).type == "cpu" and is_prepared(model):
            for part in model.modules():
                if not isinstance(part, (nn.Embedding, nn.EmbeddingBag)):
                    for _, weight in named_tensors(part, recurse=False):
                        own_memory(weight)

    def update(self, version: int) -> None:
        """Read the weights again, if there is a newer version of them."""
        if version == self.version:
            return
        self.version = version
        found = dict(named_tensors(self.model))
        for name, sent in self.tensors.items():
            weight = found[name].detach()
            if address(weight) != address(sent):
                weight.copy_(sent)


def named_tensors(model: nn.Module, recurse: bool = True) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers by name."""
    yield from model.named_parameters(recurse=recurse)
    yield from model.named_buffers(recurse=recurse)


def kinds(model: nn.Module) -> list[tuple[str, type]]:
    """Names and types of a model's modules."""
    return [(name, type(part)) for name, part in model.named_children()]


def alike(first: Tensor, second: Tensor) -> bool:
    return first.shape == second.shape and first.dtype == second.dtype


def is_prepared(model: nn.Module) -> bool:
    """Whether a model is small enough for a second copy of its weights in the layout of the CPU's kernels."""
    layers = (part.weight.numel() for part in model.modules() if isinstance(part, nn.Linear))
    return sum(layers) * 4 <= PACK_LIMIT_BYTES
