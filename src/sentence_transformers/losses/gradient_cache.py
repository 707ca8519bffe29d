"""Batches as large as one likes in the memory of a small one: GradCache.

An in-batch loss needs the vectors of the whole batch, but not the activations behind them. So (Gao et al. 2021):

    1. embed all texts in mini-batches without gradients, remembering the random state before each    -> e (B, H)
    2. compute the loss of e, and its gradient g = ∂loss/∂e                                            -> (B, H)
    3. embed each mini-batch again, now with gradients and from the same random state, and send g back through it

The third step runs when `backward` is called on the loss. Mini-batches are cut across columns and by length, so that
each is a packed batch of texts of nearly equal length. `cached_loss` is all of it; a loss that wants it inherits
`CachedLossMixin` and says how the vectors become a loss (`calculate_loss`).

Where a step of the loss (`embed_minibatch`, …) was overridden, the same is done column by column through these methods
(`cached_loss_of_columns`); where the model's forward pass was, mini-batches are padded ones of a column each.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from sentence_transformers.backends.override_detection import is_untouched
from sentence_transformers.errors import InputError
from sentence_transformers.features import FeatureDict, Features
from sentence_transformers.losses.merged_forward import (
    alike,
    as_padded,
    check_sizes,
    in_step,
    mini_batches,
    sentence_rows,
)
from sentence_transformers.util.whose_code import OWN, is_foreign

LossOf = Callable[[list[Tensor], bool], Tensor]
RowsOf = Callable[[Any, FeatureDict], Tensor]


class RandContext:
    """The random state as it was when this was made, to be used again later.

    Args:
        *tensors: tensors on the devices whose state is kept besides the CPU's.
    """

    def __init__(self, *tensors: Tensor) -> None:
        self.states = random_states({torch.device("cpu"), *(tensor.device for tensor in tensors)})

    def __enter__(self) -> RandContext:
        self.before = random_states(self.states)
        set_random_states(self.states)
        return self

    def __exit__(self, *exception: Any) -> None:
        set_random_states(self.before)
        del self.before


def random_states(devices: Iterable[torch.device]) -> dict[torch.device, Tensor]:
    """State of each device's generator of random numbers."""
    return {device: generator_module(device).get_rng_state(*device_argument(device)) for device in devices}


def set_random_states(states: dict[torch.device, Tensor]) -> None:
    """Undo `random_states`."""
    for device, state in states.items():
        generator_module(device).set_rng_state(state, *device_argument(device))


def generator_module(device: torch.device) -> Any:
    """The module of torch that has `get_rng_state` and `set_rng_state` for a device."""
    return torch if device.type == "cpu" else torch.get_device_module(device)


def device_argument(device: torch.device) -> tuple[torch.device, ...]:
    """What those functions are told: CPU and MPS have one generator each, and take no device."""
    return () if device.type in ("cpu", "mps") else (device,)


def uses_gradient_cache(loss: nn.Module) -> bool:
    """Whether a loss, or one inside it, embeds its batch in mini-batches."""
    return any(getattr(part, "uses_gradient_cache", False) for part in loss.modules())


class Slice:
    """One mini-batch: its features, and where its rows belong in the joined batch."""

    def __init__(self, features: FeatureDict, places: Tensor) -> None:
        self.features, self.places = features, places
        self.state: RandContext | None = None

    def tensors(self) -> list[Tensor]:
        return [value for value in self.features.values() if isinstance(value, Tensor)]


def cached_loss(
    model: nn.Module,
    sentence_features: Iterable[FeatureDict],
    loss_of: LossOf,
    mini_batch_size: int = 32,
    mini_batch_num_tokens: int | None = None,
    show_progress_bar: bool = False,
    rows_of: RowsOf = sentence_rows,
) -> Tensor:
    """Loss of a batch whose activations are never held together.

    Args:
        model: the encoder, or what wraps it.
        sentence_features: features of each column.
        loss_of: (B, H) of each column, and whether to call `backward` on the way -> scalar. With that, it may work
            through the rows in blocks and call `backward` on each block's share; it returns a detached value then.
        mini_batch_size: texts embedded together on the average; mini-batches have about equally many tokens.
        mini_batch_num_tokens: most tokens embedded together, in the place of a number of texts.
        rows_of: the model, features of b texts -> what is computed of each, (b, …), of one shape in all mini-batches.

    Returns:
        A scalar. Its `backward` sends gradients through the model.
    """
    columns = list(sentence_features)
    sizes = [Features.of(column).text_count for column in columns]
    check_sizes(sizes)
    slices = cut(model, columns, sizes, mini_batch_size, mini_batch_num_tokens)
    rows: Tensor | None = None
    with torch.no_grad():
        for part in tqdm(slices, desc="Embed mini-batches", disable=not show_progress_bar, leave=False):
            part.state = RandContext(*part.tensors())
            out = rows_of(model, part.features)
            rows = out.new_empty(sum(sizes), *out.shape[1:]) if rows is None else rows
            rows[part.places.to(out.device)] = out
    assert rows is not None
    if not torch.is_grad_enabled():
        return loss_of(list(rows.split(sizes)), False)
    leaves = [column.detach().requires_grad_() for column in rows.split(sizes)]
    value = loss_of(leaves, True)
    if value.requires_grad:
        value.backward()
    gradient = torch.cat([part for column in gradients_of([[leaf] for leaf in leaves]) for part in column])
    result = value.detach().requires_grad_()
    result.register_hook(lambda scale: send_back(model, slices, gradient * scale, show_progress_bar, rows_of))
    return result


def gradients_of(reps: list[list[Tensor]]) -> list[list[Any]]:
    """The gradients of the mini-batches (b, …) of each column.

    Raises:
        InputError: naming the first column that the loss does not depend on.
    """
    for i, column in enumerate(reps):
        if any(part.grad is None for part in column):
            raise InputError(
                f"The embeddings of column {i} get no gradient: the loss does not depend on them, or calculate_loss "
                "did not call backward."
            )
    return [[part.grad for part in column] for column in reps]


def cut(
    model: nn.Module, columns: list[FeatureDict], sizes: list[int], size: int, most_tokens: int | None
) -> list[Slice]:
    """The texts of all columns as mini-batches; padded ones of one column, if the model was overridden or patched."""
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    slices = []
    if not is_untouched(model):
        for start, column in zip(starts, columns, strict=True):
            column = as_padded(model, column)
            slices += [
                Slice(part_of(column, begin, end), torch.arange(start + begin, start + end))
                for begin, end in ranges_of(model, column, size, most_tokens)
            ]
        return slices
    for members in alike(model, columns):
        parts = [columns[i] for i in members]
        places = torch.cat([torch.arange(starts[i], starts[i] + sizes[i], device="cpu") for i in members])
        if not Features.of(parts[0]).joinable:
            slices.append(Slice(parts[0], places))
            continue
        joined = Features.join(parts)
        for group in in_step(model, mini_batches(joined.text_lengths, size, most_tokens)):
            slices.append(Slice(joined.take(group), places[torch.tensor(group, device="cpu")]))
    return slices


def send_back(
    model: nn.Module,
    slices: list[Slice],
    gradient: Tensor,
    show_progress_bar: bool = False,
    rows_of: RowsOf = sentence_rows,
) -> None:
    """Embed each mini-batch again, as before, and send its rows of `gradient` (B, H) back through the model."""
    last = len(slices) - 1
    for i, part in enumerate(tqdm(slices, desc="Send back", disable=not show_progress_bar, leave=False)):
        assert part.state is not None
        with torch.enable_grad(), part.state, synchronised(model, only=i == last):
            out = rows_of(model, part.features)
            if out.requires_grad:
                out.backward(gradient[part.places.to(out.device)].to(out.dtype))


@contextlib.contextmanager
def synchronised(model: nn.Module, only: bool) -> Iterator[None]:
    """Let a distributed model exchange gradients after the last mini-batch alone."""
    unsynchronised = None if only else getattr(model, "no_sync", None)
    with contextlib.nullcontext() if unsynchronised is None else unsynchronised():
        yield


STEPS = ("embed_minibatch", "embed_minibatch_iter", "calculate_loss_and_cache_gradients")


class CachedLossMixin:
    """A loss whose batch is embedded in mini-batches.

    A subclass has the attributes `model`, `mini_batch_size`, `mini_batch_num_tokens` and `show_progress_bar`, and
    defines `calculate_loss`. It may override `embed_minibatch` and `embed_minibatch_iter`.
    """

    uses_gradient_cache = True
    model: Any
    mini_batch_size: int
    mini_batch_num_tokens: int | None = None
    show_progress_bar: bool = False

    def _set_mini_batches(self, size: int, num_tokens: int | None, show_progress_bar: bool) -> None:
        if size < 1 or (num_tokens is not None and num_tokens < 1):
            raise InputError(
                f"mini_batch_size and mini_batch_num_tokens must be at least 1, got {size} and {num_tokens}."
            )
        self.mini_batch_size, self.mini_batch_num_tokens = size, num_tokens
        self.show_progress_bar = show_progress_bar

    def calculate_loss(
        self, reps: list[list[Tensor]], labels: Tensor | None = None, *, with_backward: bool = False
    ) -> Tensor:
        """Loss of the vectors of each column, given as lists of (b, H).

        Args:
            with_backward: work in blocks, call `backward` on each block's share and return a detached value.
        """
        raise TypeError(f"{type(self).__name__} must define calculate_loss(reps, labels, *, with_backward).")

    def embed_minibatch(
        self,
        sentence_feature: FeatureDict,
        begin: int,
        end: int,
        with_grad: bool,
        copy_random_state: bool,
        random_state: RandContext | None = None,
    ) -> tuple[Any, ...]:
        """The texts `begin:end` of a column.

        Args:
            with_grad: keep the graph.
            copy_random_state: also return the random state as it was before.
            random_state: the one to embed with.

        Returns:
            (b, …) what is computed of each text; further tensors (b, …) for `calculate_loss`, if any; the random state
            or None.
        """
        part = Slice(part_of(sentence_feature, begin, end), torch.arange(begin, end))
        with torch.set_grad_enabled(with_grad), random_state or contextlib.nullcontext():
            state = RandContext(*part.tensors()) if copy_random_state else None
            return *self.rows_of_minibatch(part.features, with_grad), state

    def rows_of_minibatch(self, features: FeatureDict, with_grad: bool) -> tuple[Any, ...]:
        """What `embed_minibatch` returns, without the random state."""
        return (sentence_rows(self.model, features),)

    def embed_minibatch_iter(
        self,
        sentence_feature: FeatureDict,
        with_grad: bool,
        copy_random_state: bool,
        random_states: list[RandContext] | None = None,
        ranges: list[tuple[int, int]] | None = None,
    ) -> Iterator[tuple[Any, ...]]:
        """`embed_minibatch` of all mini-batches of a column.

        Args:
            random_states: one for each mini-batch.
            ranges: (begin, end) of each; default: `mini_batch_size` texts, or `mini_batch_num_tokens` tokens.
        """
        if ranges is None:
            ranges = ranges_of(self.model, sentence_feature, self.mini_batch_size, self.mini_batch_num_tokens)
        bar = tqdm(ranges, desc="Embed mini-batches", disable=not self.show_progress_bar, leave=False)
        for i, (begin, end) in enumerate(bar):
            state = None if random_states is None else random_states[i]
            yield self.embed_minibatch(sentence_feature, begin, end, with_grad, copy_random_state, state)

    def calculate_loss_and_cache_gradients(
        self, reps: list[list[Tensor]], *others: Any
    ) -> tuple[Tensor, list[list[Tensor]]]:
        """The loss, detached, and its gradients with respect to `reps`.

        Args:
            others: the further arguments of `calculate_loss`.
        """
        value = self.calculate_loss(reps, *others, with_backward=True)
        if value.requires_grad:
            value.backward()
        return value.detach().requires_grad_(), gradients_of(reps)

    def forward_cached(self, sentence_features: Iterable[FeatureDict], labels: Tensor | None = None) -> Tensor:
        """Loss of one batch; the model's gradients come when `backward` is called on it.

        Raises:
            InputError: if a column's embeddings get no gradient.
        """
        columns = list(sentence_features)
        if any(is_foreign(getattr(self, step), OWN) for step in STEPS):
            return cached_loss_of_columns(self, columns, labels)
        return self.forward_joined(columns, labels)

    def forward_joined(self, columns: list[FeatureDict], labels: Tensor | None = None) -> Tensor:
        """`forward_cached` with mini-batches that are cut across columns."""
        size = self.mini_batch_size
        return cached_loss(
            self.model,
            columns,
            lambda embeddings, with_backward: self.calculate_loss(
                [list(column.split(size)) for column in embeddings], labels, with_backward=with_backward
            ),
            size,
            self.mini_batch_num_tokens,
            self.show_progress_bar,
        )

    def forward(self, sentence_features: Iterable[FeatureDict], labels: Tensor | None = None) -> Any:
        """See `forward_cached`."""
        return self.forward_cached(sentence_features, labels)


def part_of(features: FeatureDict, begin: int, end: int) -> FeatureDict:
    """The texts `begin:end` of a batch."""
    whole = Features.of(features)
    return features if (begin, end) == (0, whole.text_count) else whole.take(range(begin, end))


def ranges_of(model: nn.Module, features: FeatureDict, size: int, most_tokens: int | None) -> list[tuple[int, int]]:
    """(begin, end) of the mini-batches of a column, its texts in order."""
    batch = Features.of(features)
    count = batch.text_count
    if not batch.joinable:
        return [(0, count)]
    if most_tokens is None:
        return [(start, min(start + size, count)) for start in range(0, count, size)]
    starts, total = [0], 0
    for i, length in enumerate(batch.text_lengths):
        if total + length > most_tokens and i > starts[-1]:
            starts.append(i)
            total = 0
        total += length
    groups = [list(range(start, stop)) for start, stop in zip(starts, [*starts[1:], count], strict=True)]
    return [(group[0], group[-1] + 1) for group in in_step(model, groups)]


def cached_loss_of_columns(loss: CachedLossMixin, columns: list[FeatureDict], labels: Tensor | None) -> Tensor:
    """`cached_loss`, column by column through the methods of the loss, on padded batches with their texts in order."""
    columns = [as_padded(loss.model, column) for column in columns]
    found = [list(loss.embed_minibatch_iter(column, with_grad=False, copy_random_state=True)) for column in columns]
    states = [[part[-1] for part in column] for column in found]
    others = [[[part[i] for part in column] for column in found] for i in range(1, len(found[0][0]) - 1)]
    reps = [[part[0].detach() for part in column] for column in found]
    arguments: list[Any] = [*others] if others else [labels]
    if not torch.is_grad_enabled():
        return loss.calculate_loss(reps, *arguments)
    reps = [[part.requires_grad_() for part in column] for column in reps]
    value, gradients = loss.calculate_loss_and_cache_gradients(reps, *arguments)

    def send_back_columns(scale: Tensor) -> None:
        for i, (column, known, wanted) in enumerate(zip(columns, states, gradients, strict=True)):
            parts = loss.embed_minibatch_iter(column, with_grad=True, copy_random_state=False, random_states=known)
            for k, gradient in enumerate(wanted):
                last = i == len(columns) - 1 and k == len(wanted) - 1
                with torch.enable_grad(), synchronised(loss.model, only=last):
                    rows = next(parts)[0]
                    if rows.requires_grad:
                        rows.backward((gradient * scale).to(rows.dtype))

    value.register_hook(send_back_columns)
    return value
