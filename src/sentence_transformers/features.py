"""One batch on its way through the modules: `Features`; `Packing` holds the lengths of its texts, if none is padded.

A batch of B sequences with lengths l_1 … l_B is one run of T = Σ l_i tokens. `Packing` holds the lengths. Sequences are
sorted by length, so those of equal length lie side by side and form a *group*: a slice of the run that can be viewed as
(n, l) without copying. Whatever mixes tokens of one sequence (attention, convolution, recurrence) runs group by group
on plain dense arrays; whatever does not (linear layers, normalisation) runs on all T rows at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
        attention_lengths: how many leading tokens of each sequence attention may look at; None for all of them.
    """

    def __init__(
        self,
        lengths: Iterable[int],
        device: torch.device | str = "cpu",
        attention_lengths: Iterable[int] | None = None,
    ) -> None:
        self.lengths = [int(length) for length in lengths]
        self.device = torch.device(device)
        self.attention_lengths = None if attention_lengths is None else [int(length) for length in attention_lengths]

    @classmethod
    def of(cls, features: Mapping[str, Any]) -> Packing | None:
        """The lengths of a packed batch, or of a flattened one, as transformers' flattening collator makes it
        (`cu_seq_lens_q` (B + 1,): where each sequence begins, and the last one ends); None for another layout.
        """
        packing: Packing | None = features.get("packing")
        if packing is None and (bounds := features.get("cu_seq_lens_q")) is not None:
            return cls(bounds.diff().tolist(), bounds.device)
        return packing

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
        attended = None
        if any(part.attention_lengths is not None for part in parts):
            attended = [length for part in parts for length in part.attention_lengths or part.lengths]
        return cls([length for part in parts for length in part.lengths], parts[0].device, attended)

    def on(self, device: torch.device) -> Packing:
        """The same packing with its index tensors on another device; made once for each."""
        if device == self.device:
            return self
        moved: dict[torch.device, Packing] = self.__dict__.setdefault("_moved", {})
        if device not in moved:
            moved[device] = Packing(self.lengths, device, self.attention_lengths)
        return moved[device]

    def keep(self, kept: Tensor) -> Packing:
        """The packing of the tokens where `kept` (T,) bool is true; a sequence may end up empty."""
        counts = torch.zeros(len(self), dtype=torch.int64, device=kept.device)
        counts.index_add_(0, self.sequence_ids.to(kept.device), kept.long())
        return Packing(counts.tolist(), self.device)

    @cached_property
    def visible(self) -> list[Tensor | None]:
        """For each group (count, length) bool, the tokens that attention may look at; None where it may at all."""
        if self.attention_lengths is None:
            return [None] * len(self.groups)
        masks: list[Tensor | None] = []
        done = 0
        for group in self.groups:
            ends = torch.tensor(self.attention_lengths[done : done + group.count], device=self.device)
            done += group.count
            whole = bool((ends >= group.length).all())
            masks.append(None if whole else torch.arange(group.length, device=self.device) < ends[:, None])
        return masks

    def views(self, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """Each group of each (T, …) tensor as a (count, length, …) view."""
        for group in self.groups:
            yield tuple(t[group.start : group.stop].unflatten(0, (group.count, group.length)) for t in tensors)

    def pad(self, rows: Tensor, value: float = 0) -> Tensor:
        """(T, …) -> (B, L, …), filled up with `value` at the end."""
        if len(self.groups) == 1:
            return rows.unflatten(0, (len(self), self.longest)).clone()
        padded = rows.new_full((len(self), self.longest, *rows.shape[1:]), value)
        padded[self.sequence_ids, self.positions] = rows
        return padded

    @property
    def mask(self) -> Tensor:
        """(B, L) int64 of the padded batch: 1 at its tokens, 0 at padding."""
        return self._leading(self.lengths_tensor)

    @property
    def masks(self) -> dict[str, Tensor]:
        """The entry `attention_mask` of the padded batch; `kept_mask` too if attention may not look at all tokens."""
        if self.attention_lengths is None:
            return {"attention_mask": self.mask}
        attended = torch.tensor(self.attention_lengths, device=self.device)
        return {"attention_mask": self._leading(attended), "kept_mask": self.mask}

    def _leading(self, counts: Tensor) -> Tensor:
        return (torch.arange(self.longest, device=self.device) < counts[:, None]).long()


FeatureDict: TypeAlias = dict[str, Any]
LAYOUTS = {"packing": "packed", "cu_seq_lens_q": "flattened", "attention_mask": "padded", "offsets": "offsets"}
MASKS = ("attention_mask", "kept_mask")
PER_TOKEN = ("input_ids", "position_ids", "token_type_ids", *MASKS, "token_embeddings", "token_weights")
LAYERS = "all_layer_embeddings"  # a list of tensors with values per token
PER_TEXT = ("sentence_embedding", "cls_token_embeddings", "token_weights_sum", "scores")
ABOUT_RUNS = ("packing", "position_ids", "cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k", "seq_idx")
JOINABLE = {*PER_TOKEN, "packing", "offsets", "modality", "prompt_length", "task"}
LENGTHS, ATTENDED = "lengths", "attended"  # what a packing is among the columns of a training batch
COLUMN_KEYS = (LENGTHS, "input_ids", "sentence_embedding", "pixel_values")  # one of them ends each column's features


class Features(dict[str, Any]):
    """A batch as `preprocess` gives it: a dictionary whose entries are attributes too, as those of transformers'
    `BatchEncoding` are.

    A batch of texts has one of four layouts, T tokens one after the other or B texts of at most L tokens:

        packed      (T, …), `packing`                   padded     (B, L, …), `attention_mask`
        flattened   (1, T, …), `cu_seq_lens_q`          offsets    (T,), `offsets`: a table of static vectors

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
    def of(cls, features: Mapping[str, Any]) -> Self:
        """Any dictionary of features, as a module of the caller's may return it."""
        return features if isinstance(features, cls) else cls(features)

    @property
    def layout(self) -> str | None:
        """ "packed", "flattened", "padded" or "offsets"; None for features of another kind."""
        return next((name for key, name in LAYOUTS.items() if self.get(key) is not None), None)

    @property
    def joinable(self) -> bool:
        """Whether the batch can be cut and joined: all its entries are known, and there are tokens."""
        return "input_ids" in self and self.layout is not None and self.keys() <= JOINABLE

    @property
    def signature(self) -> tuple[Any, ...]:
        """Equal for batches that may be joined."""
        return (self.layout, tuple(sorted(self)), *map(self.get, ("prompt_length", "task", "modality")))

    @property
    def text_count(self) -> int:
        """B, the number of texts."""
        for ends in (Packing.of(self), self.get("offsets")):
            if ends is not None:
                return len(ends)
        rows = (len(value) for value in self.values() if isinstance(value, Tensor) and value.dim())
        if (count := next(rows, None)) is None:
            raise InputError(f"No entry of the features tells how many texts there are; they have {', '.join(self)}.")
        return count

    @property
    def token_mask(self) -> Tensor:
        """(B, L) bool, True at the tokens of a padded batch, those included that attention does not look at."""
        for key in ("kept_mask", "attention_mask"):
            if self.get(key) is not None:
                return self[key].bool()
        tokens: Tensor = self.token_embeddings
        return tokens.new_ones(tokens.shape[:2], dtype=torch.bool)

    @property
    def text_lengths(self) -> list[int]:
        """Tokens of each text."""
        if (packing := Packing.of(self)) is not None:
            return list(packing.lengths)
        if self.get("offsets") is None:
            return list(self.token_mask.sum(1).tolist())
        offsets = self.offsets.tolist()
        return [stop - start for start, stop in zip(offsets, [*offsets[1:], len(self["input_ids"])], strict=True)]

    def map_tokens(self, function: Callable[[Tensor], Tensor]) -> Self:
        """The features with `function` of each tensor that has a value per token."""
        changed: FeatureDict = {key: function(self[key]) for key in PER_TOKEN if isinstance(self.get(key), Tensor)}
        if isinstance(layers := self.get(LAYERS), (list, tuple)):
            changed[LAYERS] = [function(layer) for layer in layers]
        return self | changed

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
        if self.layout == "padded":
            index = torch.as_tensor(texts, device=self["attention_mask"].device)
            taken = self.map_tokens(lambda rows: rows[index])
            used = taken.token_mask.any(0).nonzero()[:, 0]
            if not len(used):
                return taken
            needed = slice(int(used[0]), int(used[-1]) + 1)
            return taken.map_tokens(lambda rows: rows[:, needed])
        lengths, chosen = torch.tensor(self.text_lengths, device="cpu"), torch.as_tensor(texts, device="cpu")
        device = self["input_ids"].device
        index = rows_of_texts(lengths, chosen).to(device)
        taken, kept = self.map_tokens(lambda rows: rows[index]), lengths[chosen]
        if self.layout == "packed":
            packing = self["packing"]
            attended = packing.attention_lengths
            attended = None if attended is None else [attended[text] for text in texts]
            return taken | {"packing": Packing(kept.tolist(), packing.device, attended)}
        return taken | {"offsets": (kept.cumsum(0) - kept).to(device)}

    def split(self, key: str, count: int | None = None) -> list[Any]:
        """One entry, text by text: values per token (l, …) without padding, or values per text (…), copied; anything
        else as it is, for each text. An entry of an unknown name is told by its shape.

        Args:
            count: B, where the features do not tell it.
        """
        value, layout, count = self[key], self.layout, self.text_count if count is None else count
        if isinstance(value, Tensor) and value.dim() and key not in PER_TEXT:
            if layout == "padded" and value.shape[:2] == (mask := self.token_mask).shape:
                return [row[kept] for row, kept in zip(value, mask, strict=True)]
            if layout in ("packed", "flattened", "offsets"):
                rows, lengths = value[0] if layout == "flattened" else value, self.text_lengths
                if key in PER_TOKEN or rows.shape[:1] == (sum(lengths),) != (count,):
                    return [row.clone() for row in rows.split(lengths)]
        return one_each(value, count)

    def per_text(self, count: int) -> list[FeatureDict]:
        """The entries of each of `count` texts, see `split`; beside values per token an `attention_mask` of ones. With
        `offsets` each text has the `input_ids` of all, as in version 6.2.0.
        """
        keys = [key for key in self if key not in ("packing", "attention_mask")]
        whole = self.layout == "offsets"
        columns = {key: one_each(self[key], count) if whole else self.split(key, count) for key in keys}
        if self.layout in ("packed", "padded"):
            columns["attention_mask"] = [torch.ones(n, dtype=torch.int64, device="cpu") for n in self.text_lengths]
        return [{key: parts[text] for key, parts in columns.items()} for text in range(count)]

    def keep(self, kept: Tensor) -> Self:
        """Without the tokens where `kept`, (T,) or (B, L) bool, is False; in a padded batch they become padding."""
        if self.layout == "packed":
            return self.map_tokens(lambda rows: rows[kept]) | {"packing": self["packing"].keep(kept)}
        return self | {"attention_mask": self.token_mask & kept}

    def pack(self, position_offset: int) -> Self:
        """A padded batch in the packed layout.

        Args:
            position_offset: position of each text's first token.
        """
        mask = self.token_mask
        attended = self["attention_mask"].sum(1).tolist() if "kept_mask" in self else None
        packing = Packing(mask.sum(1).tolist(), mask.device, attended)
        tokens = type(self)({key: value for key, value in self.items() if key not in MASKS})
        packed = tokens.map_tokens(lambda rows: rows[mask])
        return packed | {"packing": packing, "position_ids": packing.positions + position_offset}

    def pad(self, padding_id: int = 0) -> Self:
        """A packed or flattened batch in the padded layout, filled up at the end; a batch of another layout as it is.

        Args:
            padding_id: fills `input_ids`; other values per token are filled up with zeros.
        """
        if (packing := Packing.of(self)) is None:
            return self
        run = type(self)({key: value for key, value in self.items() if key not in ABOUT_RUNS})
        if self.layout == "flattened":
            run = run.map_tokens(lambda rows: rows[0])
        padded = run.map_tokens(packing.pad)
        if padding_id and "input_ids" in run:
            padded["input_ids"] = packing.pad(run["input_ids"], padding_id)
        return padded | packing.masks

    def as_column(self, name: str) -> FeatureDict:
        """The entries of one column of a training batch, `{name}_input_ids`, …: tensors and names alone, so that any
        data loader can move them; the packing is `{name}_lengths` (B,).
        """
        packing, first = self.get("packing"), {}
        rest = {key: value for key, value in self.items() if key != "packing"}
        if packing is not None:
            first[LENGTHS] = torch.tensor(packing.lengths, device="cpu")
            if packing.attention_lengths is not None:
                first[ATTENDED] = torch.tensor(packing.attention_lengths, device="cpu")
        return {f"{name}_{key}": value for key, value in (first | rest).items()}

    @staticmethod
    def columns(batch: Mapping[str, Any]) -> list[FeatureDict]:
        """The features of each column of a training batch, in their order."""
        names: list[str] = []
        for key in batch:
            for end in COLUMN_KEYS:
                if key.endswith(f"_{end}") and (name := key.removesuffix(f"_{end}")) not in names:
                    names.append(name)
                    break
        parts: dict[str, FeatureDict] = {name: {} for name in names}
        for key, value in batch.items():
            if owners := [name for name in names if key.startswith(f"{name}_")]:
                owner = max(owners, key=len)
                parts[owner][key.removeprefix(f"{owner}_")] = value
        for features in parts.values():
            lengths, attended = features.pop(LENGTHS, None), features.pop(ATTENDED, None)
            if lengths is not None:
                attended = None if attended is None else attended.tolist()
                features["packing"] = Packing(lengths.tolist(), lengths.device, attended)
        return list(parts.values())


def one_each(value: Any, count: int) -> list[Any]:
    """The part of each text: (B, …) values per text, copied, or the same for all."""
    per_text = isinstance(value, Tensor) and value.shape[:1] == (count,)
    return [row.clone() for row in value] if per_text else [value] * count


def widened(tensor: Tensor, longest: int, left: bool) -> Tensor:
    """(B, l, …) -> (B, L, …), padded with zeros."""
    missing = longest - tensor.shape[1]
    ends = (missing, 0) if left else (0, missing)
    return torch.nn.functional.pad(tensor, (0, 0) * (tensor.dim() - 2) + ends) if missing else tensor


def rows_of_texts(lengths: Tensor, texts: Tensor) -> Tensor:
    """Which rows of a run the given texts take: (B,) lengths of all texts, (b,) texts -> (t,) int64."""
    starts, kept = lengths.cumsum(0) - lengths, lengths[texts]
    begins = kept.cumsum(0) - kept
    return torch.arange(int(kept.sum()), device="cpu") + torch.repeat_interleave(starts[texts] - begins, kept)


def is_recorded() -> bool:
    """Whether a call is being recorded (`torch.jit.trace`, `torch.export`, `torch.compile`), to be repeated with other
    batches: then no step may depend on the numbers of this one.
    """
    return torch.jit.is_tracing() or torch.compiler.is_compiling()
