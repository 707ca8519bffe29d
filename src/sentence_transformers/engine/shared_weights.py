"""The weights and settings of a model, as worker processes have them.

The model stays as it is: its weights must lie in memory that can be watched, or nothing prepared from them may be kept
(`backends.write_detection`). Workers are sent copies in shared memory:

    parent: weights --(copied; again, when they have changed)--> shared memory --> weights of each worker

Settings of modules (`config_keys`, `max_seq_length`) that were changed go with the next call. A worker on a CPU moves
what it prepares for its kernels into memory of its own, tables of embeddings excepted, and so computes as fast as its
parent. Models too large to be prepared at all are shared as they are, without a copy.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from multiprocessing.reduction import ForkingPickler
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sentence_transformers.backends.prepacked_linear import may_be_packed
from sentence_transformers.backends.write_detection import Watch, address, own_memory, watch
from sentence_transformers.engine.model_replicas import copy_with
from sentence_transformers.errors import InputError


class State(NamedTuple):
    """What a worker has to know of the model before it computes.

    Attributes:
        version: how often weights or settings have changed.
        settings: those that have, by name of the module and of the setting.
    """

    version: int
    settings: dict[tuple[str, str], Any]


class SharedWeights:
    """Keeps the weights in shared memory equal to those of a model on the CPU.

    Attributes:
        tensors: the weights and buffers in shared memory, by name.
        state: what has changed since the workers were started.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model, self.state = model, State(0, {})
        self._settings = copy.deepcopy(settings_of(model))
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

    def refresh(self) -> State:
        """Copy the weights and collect the settings that have changed since the last time.

        Raises:
            InputError: if the model has other modules, or weights of other names, shapes or types, or if a setting
                cannot be sent.
        """
        found = dict(named_tensors(self.model))
        other = [name for name, kept in self.tensors.items() if name not in found or not alike(kept, found[name])]
        if other or kinds(self.model) != self._modules:
            what = f"weights {other[:3]} are" if other else "modules of the model are"
            raise InputError(
                f"The {what} not those that the worker processes were started with. Call stop_multi_process_pool and "
                "start a new pool."
            )
        settings = self._changed_settings()
        changed = bool(settings)
        for name, kept in self.tensors.items():
            weight, guard = found[name].detach(), self._watches.get(name)
            if guard is not None and guard.tensors[0] is found[name] and guard.unchanged():
                continue
            if address(weight) != address(kept) and not torch.equal(weight.to(kept.device), kept):
                kept.copy_(weight)
                changed = True
            self._watches[name] = watch(found[name])
        if changed:
            self.state = State(self.state.version + 1, self.state.settings | settings)
        return self.state

    def _changed_settings(self) -> dict[tuple[str, str], Any]:
        found = settings_of(self.model)
        changed = {place: found[place] for place in found if not equal(found[place], self._settings.get(place))}
        for (name, key), value in changed.items():
            try:
                ForkingPickler.dumps(value)
            except (pickle.PicklingError, AttributeError, TypeError) as error:
                raise InputError(
                    f"{key} of module {name!r} is {value!r:.80}, which cannot be sent to worker processes: {error}."
                ) from error
        self._settings |= copy.deepcopy(changed)
        return changed


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

    def update(self, state: State) -> None:
        """Read the weights again and take over settings, if there are newer ones."""
        if state.version == self.version:
            return
        self.version = state.version
        for (module, key), value in state.settings.items():
            setattr(self.model.get_submodule(module), key, value)
        found = dict(named_tensors(self.model))
        for name, sent in self.tensors.items():
            weight = found[name].detach()
            if address(weight) != address(sent):
                weight.copy_(sent)


def named_tensors(model: nn.Module, recurse: bool = True) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers by name."""
    yield from model.named_parameters(recurse=recurse)
    yield from model.named_buffers(recurse=recurse)


def settings_of(model: nn.Module) -> dict[tuple[str, str], Any]:
    """Settings of all modules, by name of the module and of the setting."""
    return {
        (name, key): getattr(part, key)
        for name, part in model.named_modules()
        if name and (keys := getattr(type(part), "config_keys", None)) is not None
        for key in (*keys, "max_seq_length")
        if hasattr(part, key)
    }


def equal(first: object, second: object) -> bool:
    """Whether two settings are the same; of modules and what has no equality, whether they look the same."""
    return first is second or repr(first) == repr(second)


def kinds(model: nn.Module) -> list[tuple[str, type]]:
    """Names and types of a model's modules."""
    return [(name, type(part)) for name, part in model.named_children()]


def alike(first: Tensor, second: Tensor) -> bool:
    return first.shape == second.shape and first.dtype == second.dtype


def is_prepared(model: nn.Module) -> bool:
    """Whether a model is small enough for a second copy of its weights in the layout of the CPU's kernels."""
    return may_be_packed(part.weight for part in model.modules() if isinstance(part, nn.Linear))
