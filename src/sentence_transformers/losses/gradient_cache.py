"""Batches as large as one likes in the memory of a small one: GradCache.

An in-batch loss needs the vectors of the whole batch, but not the activations behind them. So (Gao et al. 2021):

    1. embed all texts in mini-batches without gradients, remembering the random state before each    -> e (B, H)
    2. compute the loss of e, and its gradient g = ∂loss/∂e                                            -> (B, H)
    3. embed each mini-batch again, now with gradients and from the same random state, and send g back through it

The third step runs when `backward` is called on the loss. Mini-batches are cut across columns and by length, so that
each is a packed batch of texts of nearly equal length. `cached_loss` is all of it; a loss that wants it inherits
`CachedLossMixin` and says how the vectors become a loss (`calculate_loss`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from sentence_transformers.errors import InputError
from sentence_transformers.inference import batches
from sentence_transformers.inference.batches import Features
from sentence_transformers.losses.columns import alike, mini_batches, sentence_rows

LossOf = Callable[[list[Tensor], bool], Tensor]
RowsOf = Callable[[Any, Features], Tensor]


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


def uses_gradient_cache(loss: Any) -> bool:
    """Whether a loss, or one inside it, embeds its batch in mini-batches."""
    return any(getattr(part, "uses_gradient_cache", False) for part in loss.modules())


class Slice:
    """One mini-batch: its features, and where its rows belong in the joined batch."""

    def __init__(self, features: Features, places: Tensor) -> None:
        self.features, self.places = features, places
        self.state: RandContext | None = None

    def tensors(self) -> list[Tensor]:
        return [value for value in self.features.values() if isinstance(value, Tensor)]


def cached_loss(
    model: Any,
    sentence_features: Iterable[Features],
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
    sizes = [batches.count(column) for column in columns]
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
    rows.requires_grad_()
    value = loss_of(list(rows.split(sizes)), True)
    if value.requires_grad:
        value.backward()
    if rows.grad is None:
        raise RuntimeError("The loss has no gradient with respect to the embeddings.")
    gradient, result = rows.grad, value.detach().requires_grad_()
    result.register_hook(lambda scale: send_back(model, slices, gradient * scale, show_progress_bar, rows_of))
    return result


def cut(model: Any, columns: list[Features], sizes: list[int], size: int, most_tokens: int | None) -> list[Slice]:
    """The texts of all columns as mini-batches."""
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    slices = []
    for members in alike(model, columns):
        parts = [columns[i] for i in members]
        places = torch.cat([torch.arange(starts[i], starts[i] + sizes[i], device="cpu") for i in members])
        if batches.layout(parts[0]) is None:
            slices.append(Slice(parts[0], places))
            continue
        joined = batches.join(parts)
        for group in mini_batches(batches.text_lengths(joined), size, most_tokens):
            slices.append(Slice(batches.take(joined, group), places[torch.tensor(group, device="cpu")]))
    return slices


def send_back(
    model: Any,
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
def synchronised(model: Any, only: bool) -> Iterator[None]:
    """Let a distributed model exchange gradients after the last mini-batch alone."""
    if only or not hasattr(model, "no_sync"):
        yield
        return
    with model.no_sync():
        yield


class CachedLossMixin:
    """A loss whose batch is embedded in mini-batches.

    A subclass has the attributes `model`, `mini_batch_size`, `mini_batch_num_tokens` and `show_progress_bar`, and
    defines `calculate_loss`.
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

    def forward(self, sentence_features: Iterable[Features], labels: Tensor | None = None) -> Tensor:
        """Loss of one batch; the model's gradients come when `backward` is called on it."""
        return cached_loss(
            self.model,
            sentence_features,
            lambda embeddings, with_backward: self.calculate_loss(
                [[column] for column in embeddings], labels, with_backward=with_backward
            ),
            self.mini_batch_size,
            self.mini_batch_num_tokens,
            self.show_progress_bar,
        )
