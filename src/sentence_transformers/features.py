"""Packed batches: sequences laid end to end, nothing computed for padding.

A batch of B sequences with lengths l_1 … l_B is one run of T = Σ l_i tokens. `Packing` holds the lengths. Sequences are
sorted by length, so those of equal length lie side by side and form a *group*: a slice of the run that can be viewed as
(n, l) without copying. Whatever mixes tokens of one sequence (attention, convolution, recurrence) runs group by group
on plain dense arrays; whatever does not (linear layers, normalisation) runs on all T rows at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor


class Group(NamedTuple):
    """Neighbouring sequences of equal length: rows `start:stop` of the run are `count` sequences of `length` tokens."""

    start: int
    stop: int
    count: int  # type: ignore[assignment]  # takes the place of tuple.count, which nobody needs of a group
    length: int


class Packing:
    """Lengths of the sequences of a packed batch, in the order in which they lie.

    Args:
        lengths: B positive integers. Equal lengths should be neighbours; the result is right in any order.
        device: where index tensors are made.
        seen: how many leading tokens of each sequence attention may look at; None for all of them.
    """

    def __init__(
        self, lengths: Iterable[int], device: torch.device | str = "cpu", seen: Iterable[int] | None = None
    ) -> None:
        self.lengths = [int(length) for length in lengths]
        self.device = torch.device(device)
        self.seen = None if seen is None else [int(count) for count in seen]

    def __len__(self) -> int:
        return len(self.lengths)

    def __repr__(self) -> str:
        return f"Packing({len(self)} sequences, {self.total} tokens)"

    @cached_property
    def total(self) -> int:
        return sum(self.lengths)

    @cached_property
    def longest(self) -> int:
        return max(self.lengths, default=0)

    @cached_property
    def groups(self) -> list[Group]:
        groups, start = [], 0
        for length, run in groupby(self.lengths):
            count = sum(1 for _ in run)
            groups.append(Group(start, start + count * length, count, length))
            start += count * length
        return groups

    @cached_property
    def lengths_tensor(self) -> Tensor:
        """(B,) int64."""
        return torch.tensor(self.lengths, dtype=torch.int64, device=self.device)

    @cached_property
    def offsets(self) -> Tensor:
        """(B + 1,) int64: sequence i is rows offsets[i]:offsets[i + 1]."""
        return torch.from_numpy(self._offsets).to(self.device)

    @cached_property
    def _offsets(self) -> np.ndarray:
        return np.cumsum([0, *self.lengths], dtype=np.int64)

    @cached_property
    def sequence_ids(self) -> Tensor:
        """(T,) int64: which sequence each token belongs to."""
        return torch.repeat_interleave(self.lengths_tensor, output_size=self.total)

    @cached_property
    def positions(self) -> Tensor:
        """(T,) int64: 0-based place of each token in its sequence."""
        places = np.arange(self.total) - np.repeat(self._offsets[:-1], self.lengths)
        return torch.from_numpy(places).to(self.device)

    def on(self, device: torch.device) -> Packing:
        """The same packing with its index tensors on another device; made once for each."""
        if device == self.device:
            return self
        moved: dict[torch.device, Packing] = self.__dict__.setdefault("_moved", {})
        if device not in moved:
            moved[device] = Packing(self.lengths, device, self.seen)
        return moved[device]

    def keep(self, kept: Tensor) -> Packing:
        """The packing of the tokens where `kept` (T,) bool is true; a sequence may end up empty."""
        counts = torch.zeros(len(self), dtype=torch.int64, device=kept.device)
        counts.index_add_(0, self.sequence_ids.to(kept.device), kept.long())
        return Packing(counts.tolist(), self.device)

    @cached_property
    def visible(self) -> list[Tensor | None]:
        """For each group (count, length) bool, the tokens that attention may look at; None where it may at all."""
        if self.seen is None:
            return [None] * len(self.groups)
        masks: list[Tensor | None] = []
        done = 0
        for group in self.groups:
            seen = torch.tensor(self.seen[done : done + group.count], device=self.device)
            done += group.count
            whole = bool((seen >= group.length).all())
            masks.append(None if whole else torch.arange(group.length, device=self.device) < seen[:, None])
        return masks

    def views(self, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """Each group of each (T, …) tensor as a (count, length, …) view."""
        for group in self.groups:
            yield tuple(t[group.start : group.stop].unflatten(0, (group.count, group.length)) for t in tensors)


TOKEN_KEYS = ("input_ids", "token_type_ids", "token_embeddings", "token_weights", "position_ids")


def is_packed(features: dict[str, Any]) -> bool:
    return features.get("packing") is not None


def is_recorded() -> bool:
    """Whether a call is being recorded (`torch.jit.trace`, `torch.export`, `torch.compile`), to be repeated with other
    batches: then no step may depend on the numbers of this one.
    """
    return torch.jit.is_tracing() or torch.compiler.is_compiling()


def flattened_packing(features: dict[str, Any]) -> Packing | None:
    """The packing of a flattened batch, as transformers' flattening collator makes it: `token_embeddings` (1, T, H) and
    `cu_seq_lens_q` (B + 1,), where each sequence begins and the last one ends. None for a batch of another layout.
    """
    bounds = features.get("cu_seq_lens_q")
    return None if bounds is None else Packing(bounds.diff().tolist(), bounds.device)


def pad(features: dict[str, Any], padding_value: float = 0) -> dict[str, Any]:
    """A packed batch in the padded layout: (T, …) entries become (B, L, …), `attention_mask` (B, L) is added."""
    packing: Packing = features["packing"]
    padded = {key: value for key, value in features.items() if key not in ("packing", "position_ids")}
    for key in TOKEN_KEYS:
        if isinstance(padded.get(key), Tensor):
            padded[key] = pad_rows(padded[key], packing, padding_value)
    if isinstance(layers := features.get("all_layer_embeddings"), (list, tuple)):
        padded["all_layer_embeddings"] = [pad_rows(layer, packing, padding_value) for layer in layers]
    steps = torch.arange(packing.longest, device=packing.device)
    padded["attention_mask"] = (steps[None, :] < packing.lengths_tensor[:, None]).long()
    return padded


def pad_rows(tensor: Tensor, packing: Packing, padding_value: float = 0) -> Tensor:
    """(T, …) -> (B, L, …), padded at the end."""
    padded = tensor.new_full((len(packing), packing.longest, *tensor.shape[1:]), padding_value)
    padded[packing.sequence_ids, packing.positions] = tensor
    return padded
