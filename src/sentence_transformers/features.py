"""One batch on its way through the modules: `Features`; `Packing` holds the lengths of its texts, if none is padded.

A batch of B sequences with lengths l_1 … l_B is one run of T = Σ l_i tokens. `Packing` holds the lengths. Sequences are
sorted by length, so those of equal length lie side by side and form a *group*: a slice of the run that can be viewed as
(n, l) without copying. Whatever mixes tokens of one sequence (attention, convolution, recurrence) runs group by group
on plain dense arrays; whatever does not (linear layers, normalisation) runs on all T rows at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import groupby
from typing import Any, NamedTuple, Self, TypeAlias

import numpy as np
import torch
from torch import Tensor

from sentence_transformers.errors import InputError


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

    @classmethod
    def join(cls, parts: Sequence[Packing]) -> Packing:
        """The sequences of all parts, one after the other."""
        seen = None
        if any(part.seen is not None for part in parts):
            seen = [count for part in parts for count in part.seen or part.lengths]
        return cls([length for part in parts for length in part.lengths], parts[0].device, seen)

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


FeatureDict: TypeAlias = dict[str, Any]
LAYOUTS = {"packing": "packed", "attention_mask": "padded", "offsets": "offsets"}  # entry -> layout that it tells
PER_TOKEN = ("input_ids", "position_ids", "token_type_ids", "attention_mask", "kept_mask")
KNOWN = {*PER_TOKEN, "packing", "offsets", "modality", "prompt_length", "task"}


class Features(dict[str, Any]):
    """A batch as `preprocess` gives it: a dictionary whose entries are attributes too, as those of transformers'
    `BatchEncoding` are.

    Example:
        >>> features = model.preprocess(["A cat sleeps."]).to(model.device)
        >>> features.input_ids.shape
        torch.Size([1, 6])
    """

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        raise AttributeError(f"The features have no entry {name!r}; they have {', '.join(self)}.")

    def __or__(self, other: Mapping[str, Any]) -> Self:  # type: ignore[override]
        return type(self)({**self, **other})

    def copy(self) -> Self:
        return type(self)(self)

    @property
    def data(self) -> Self:
        """The entries."""
        return self

    def to(self, device: str | int | torch.device, *, non_blocking: bool = False) -> Self:
        """Move all tensors, in place; the features themselves are returned."""
        for key, value in self.items():
            if isinstance(value, Tensor):
                self[key] = value.to(device, non_blocking=non_blocking)
        return self

    @classmethod
    def of(cls, features: FeatureDict) -> Self:
        """Any dictionary of features, as a module of the caller's may return it."""
        return features if isinstance(features, cls) else cls(features)

    @property
    def layout(self) -> str | None:
        """ "packed", "padded" or "offsets" (the run of a table of static vectors); None for features of another kind,
        which can be neither cut nor joined.
        """
        if "input_ids" not in self or not self.keys() <= KNOWN:
            return None
        return next((name for key, name in LAYOUTS.items() if self.get(key) is not None), None)

    @property
    def signature(self) -> tuple[Any, ...]:
        """Equal for batches that may be joined."""
        return (self.layout, tuple(sorted(self)), *map(self.get, ("prompt_length", "task", "modality")))

    @property
    def text_count(self) -> int:
        """B, the number of texts."""
        for key in ("packing", "offsets"):
            if self.get(key) is not None:
                return len(self[key])
        rows = (len(value) for value in self.values() if isinstance(value, Tensor) and value.dim())
        if (count := next(rows, None)) is None:
            raise InputError(f"No entry of the features tells how many texts there are; they have {', '.join(self)}.")
        return count

    @property
    def token_mask(self) -> Tensor:
        """(B, L), not 0 at the tokens of a padded batch, those included that attention does not look at."""
        found: Tensor = self.get("kept_mask", self.attention_mask)
        return found

    @property
    def text_lengths(self) -> list[int]:
        """Tokens of each text."""
        if self.layout == "packed":
            return list(self["packing"].lengths)
        if self.layout == "padded":
            return list(self.token_mask.sum(1).tolist())
        offsets = self.offsets.tolist()
        return [stop - start for start, stop in zip(offsets, [*offsets[1:], len(self["input_ids"])], strict=True)]

    @classmethod
    def join(cls, parts: Sequence[FeatureDict]) -> Self:
        """Batches with equal `signature` as one, text after text."""
        joined = cls(parts[0])
        if len(parts) == 1:
            return joined
        names = [key for key in PER_TOKEN if key in joined]
        if joined.layout == "padded":
            longest = max(part["attention_mask"].shape[1] for part in parts)
            left = any(bool((part["attention_mask"][:, 0] == 0).any()) for part in parts)
            return joined | {key: torch.cat([widened(part[key], longest, left) for part in parts]) for key in names}
        joined |= {key: torch.cat([part[key] for part in parts]) for key in names}
        if joined.layout == "packed":
            return joined | {"packing": Packing.join([part["packing"] for part in parts])}
        starts = torch.tensor([len(part["input_ids"]) for part in parts], device="cpu").cumsum(0).tolist()
        shifts = [0, *starts[:-1]]
        offsets = torch.cat([part["offsets"] + shift for part, shift in zip(parts, shifts, strict=True)])
        return joined | {"offsets": offsets}

    def take(self, texts: Sequence[int]) -> Self:
        """Some texts, in the given order; a padded batch loses the columns that none of them needs."""
        names = [key for key in PER_TOKEN if key in self]
        if self.layout == "padded":
            index = torch.as_tensor(texts, device=self["attention_mask"].device)
            taken = self | {key: self[key][index] for key in names}
            used = taken.token_mask.any(0).nonzero()[:, 0]
            if not len(used):
                return taken
            needed = slice(int(used[0]), int(used[-1]) + 1)
            return taken | {key: taken[key][:, needed] for key in names}
        lengths, chosen = torch.tensor(self.text_lengths, device="cpu"), torch.as_tensor(texts, device="cpu")
        device = self["input_ids"].device
        index = rows_of_texts(lengths, chosen).to(device)
        taken = self | {key: self[key][index] for key in names}
        kept = lengths[chosen]
        if self.layout == "packed":
            packing = self["packing"]
            seen = None if packing.seen is None else [packing.seen[text] for text in texts]
            return taken | {"packing": Packing(kept.tolist(), packing.device, seen)}
        return taken | {"offsets": (kept.cumsum(0) - kept).to(device)}

    def pack(self, position_offset: int) -> Self:
        """A padded batch in the packed layout.

        Args:
            position_offset: position of each text's first token.
        """
        mask = self.token_mask.bool()
        seen = self["attention_mask"].sum(1).tolist() if "kept_mask" in self else None
        packing = Packing(mask.sum(1).tolist(), mask.device, seen)
        packed = {key: value for key, value in self.items() if key not in PER_TOKEN}
        packed |= {key: self[key][mask] for key in ("input_ids", "token_type_ids") if key in self}
        return type(self)(packed | {"packing": packing, "position_ids": packing.positions + position_offset})


def widened(tensor: Tensor, longest: int, left: bool) -> Tensor:
    """(B, l) -> (B, L), padded with zeros."""
    missing = longest - tensor.shape[1]
    return torch.nn.functional.pad(tensor, (missing, 0) if left else (0, missing)) if missing else tensor


def rows_of_texts(lengths: Tensor, texts: Tensor) -> Tensor:
    """Which rows of a run the given texts take: (B,) lengths of all texts, (b,) texts -> (t,) int64."""
    starts, kept = lengths.cumsum(0) - lengths, lengths[texts]
    begins = kept.cumsum(0) - kept
    return torch.arange(int(kept.sum()), device="cpu") + torch.repeat_interleave(starts[texts] - begins, kept)


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
