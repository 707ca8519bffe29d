"""The one loop: texts in, rows out.

    inputs -> distinct, longest first (plan) -> tokens, a window ahead -> micro-batches -> modules -> rows

Every encoder and every output kind runs through `run`; what differs is the `Job`: which task and prompt, and `output`,
which turns the features that the last module leaves into the rows of the micro-batch. Rows go to `put` together with
their places in the plan, in whatever order they are done, so a result depends neither on its neighbours nor on timing.

An input module with `tokens` (all of this library's) gives ragged tokens and is planned by their number; any other has
its `preprocess` called on groups of inputs of similar size. On an accelerator that runs out of memory a micro-batch is
halved and tried again.
"""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any, Protocol

import numpy as np
import torch

from sentence_transformers.backends.extension_points import own_preprocess, prepare, unseen
from sentence_transformers.engine.scheduling import DefaultInt, micro_batches, windows
from sentence_transformers.errors import InputError
from sentence_transformers.storage.parts import accepts
from sentence_transformers.util import threads
from sentence_transformers.util.environment import is_out_of_memory

logger = logging.getLogger(__name__)

PREPROCESSING = ("processing_kwargs", "modality", "task")  # arguments of `encode` that `preprocess` sees
CPU_BUDGET = 1536  # tokens per micro-batch: activations stay in the cache (benchmarks/LOG.md)
CPU_SMALLEST = 256  # a job is split among the lanes, and padded texts by length, down to this many tokens
ACCELERATOR_BUDGET = 32768
ACCELERATOR_SMALLEST = 8192


class RowMaker(Protocol):
    """What a call returns: how rows are made of features, and how they travel from a worker process."""

    def rows(self, model: Any, features: dict[str, Any], count: int) -> Any:
        """Features after the last module, number of inputs -> the rows of the micro-batch: array, tensor or list."""

    def for_worker(self) -> RowMaker:
        """The same rows as a worker process sends them: nothing that lives on its device."""


@dataclass(frozen=True)
class Job:
    """What is to be done with the inputs of one call; plain data, which worker processes are sent as it is.

    Attributes:
        output: what is made of the features.
        prompt: put before each text; None or "" for none.
        task: "query", "document" or another name that routes and modules know.
        kwargs: further keyword arguments for the modules.
        batch_size: most texts per micro-batch; a `DefaultInt` leaves it to the token budget.
    """

    output: RowMaker
    prompt: str | None = None
    task: str | None = None
    kwargs: dict[str, Any] = field(default_factory=dict)
    batch_size: int = DefaultInt(32)

    @property
    def limit(self) -> int | None:
        return None if isinstance(self.batch_size, DefaultInt) else self.batch_size


Put = Callable[[np.ndarray, Any], None]


def run(model: Any, inputs: Sequence[Any], job: Job, put: Put) -> None:
    """Compute every input once.

    Args:
        model: the encoder; its modules are called in order.
        inputs: distinct inputs, longest first, as `make_plan` gives them.
        put: called with (places in `inputs`, rows) of each micro-batch; from several threads, never for the same place.
    """
    device, untouched = model.device, prepare(model)
    # autocast holds for the caller's thread alone, and code of the caller's need not be ready for several
    here_only = torch.is_autocast_enabled(device.type) or not untouched
    count = 1 if here_only else threads.lane_count(device)
    batches = planned(model, inputs, job, device, count, untouched)

    def compute(batch: tuple[np.ndarray, Any]) -> None:
        with torch.no_grad():
            compute_batch(model, *batch, job, put, device)

    head = list(islice(batches, 2))
    if len(head) > 1 and not here_only and (count > 1 or device.type != "cpu"):
        threads.run_side_by_side(compute, chain(head, batches), count, device)  # this thread tokenises meanwhile
    else:
        for batch in chain(head, batches):
            compute(batch)


def planned(
    model: Any, inputs: Sequence[Any], job: Job, device: torch.device, count: int, untouched: bool
) -> Iterator[tuple[np.ndarray, Any]]:
    """Micro-batches as (places in `inputs`, tokens or the inputs themselves).

    Args:
        untouched: whether the model is this library's alone (`backends.extension_points`).
    """
    module = input_module(model, job.task, job.kwargs.get("modality"))
    settings = job.kwargs.get("processing_kwargs")
    check_settings(module, settings)
    if not untouched or not plans_by_tokens(module, settings):
        size = job.batch_size
        for start in range(0, len(inputs), size):
            yield np.arange(start, min(start + size, len(inputs))), inputs[start : start + size]
        return
    smallest = CPU_SMALLEST if device.type == "cpu" else ACCELERATOR_SMALLEST
    mixed = {"any": None, "some": smallest, "none": 0}[getattr(module, "mixes", "any")]
    for start, stop in windows(inputs):
        given = {"processing_kwargs": settings} if settings else {}
        tokens = module.tokens(inputs[start:stop], job.prompt, task=job.task, **given)
        budget = token_budget(module, device, int(tokens.offsets[-1]), count)
        for rows in micro_batches(tokens.lengths, budget, job.limit, mixed):
            yield start + rows, tokens.take(rows)


def input_module(model: Any, task: str | None, modality: Any = None) -> Any:
    """The module that takes a task's texts: the first of the model, or of the route."""
    first = model[0]
    if not hasattr(first, "resolve"):
        return first
    return first.resolve(task) if modality is None else first.resolve(task, modality)


def plans_by_tokens(module: Any, processing_kwargs: dict[str, Any] | None = None) -> bool:
    """Whether batches can be made of a module's unpadded tokens: it has `tokens`, and nothing in its settings or those
    of the call asks for more than that shows.
    """
    return hasattr(module, "tokens") and (not hasattr(module, "unpadded") or module.unpadded(processing_kwargs))


def check_settings(module: Any, processing_kwargs: dict[str, Any] | None) -> None:
    """Raise `InputError` for settings of a call that one of this library's modules would pass over in silence."""
    if not processing_kwargs or not own_preprocess(module):
        return
    if "processing_kwargs" not in inspect.signature(module.preprocess).parameters:
        raise InputError(
            f"processing_kwargs={processing_kwargs!r} has no effect on a {type(module).__name__}, which calls no "
            "tokenizer with such arguments. Leave it out."
        )


def token_budget(module: Any, device: torch.device, total: int, count: int) -> int:
    """Tokens per micro-batch: what suits the device, and such that all lanes get the same number of micro-batches.

    Args:
        total: tokens to be shared out.
        count: number of lanes.
    """
    most = getattr(module, "token_budget", None) or (CPU_BUDGET if device.type == "cpu" else ACCELERATOR_BUDGET)
    rounds = math.ceil(total / most / count)
    return max(math.ceil(total / max(rounds, 1) / count), min(most, CPU_SMALLEST))


def compute_batch(model: Any, places: np.ndarray, source: Any, job: Job, put: Put, device: torch.device) -> None:
    """One micro-batch through the modules; in halves if an accelerator's memory does not hold it."""
    try:
        rows = job.output.rows(model, embed(model, source, job, device), len(places))
    except (RuntimeError, MemoryError) as error:
        if len(places) == 1 or device.type == "cpu" or not is_out_of_memory(error):
            raise
    else:
        put(places, rows)
        return
    logger.info("Out of memory with %d texts; going on with halves.", len(places))
    torch.get_device_module(device).empty_cache()
    half = len(places) // 2
    for part in (slice(0, half), slice(half, None)):
        smaller = source.take(np.arange(len(places))[part]) if hasattr(source, "take") else source[part]
        compute_batch(model, places[part], smaller, job, put, device)


def embed(model: Any, source: Any, job: Job, device: torch.device) -> dict[str, Any]:
    """Tokens, or plain inputs, through all modules of the model."""
    module = input_module(model, job.task, job.kwargs.get("modality"))
    planned_by_tokens = hasattr(source, "take")
    if planned_by_tokens:
        features = module.features(source, packed=bool(getattr(module, "packs", False)), device=device)
    else:
        features = model.preprocess(source, prompt=job.prompt, **preprocessing_kwargs(model, job))
        check_rows(features, len(source))
        features = {key: value.to(device) if hasattr(value, "to") else value for key, value in features.items()}
    given = {name: value for name, value in job.kwargs.items() if name != "processing_kwargs"}
    with unseen.set_to(planned_by_tokens and (vars(model).get("_survey") or True)):
        return model(features, **({"task": job.task} if job.task else {}), **given)


def preprocessing_kwargs(model: Any, job: Job) -> dict[str, Any]:
    """What of a call's arguments `model.preprocess` is given: all that it takes where it is the caller's own."""
    given = job.kwargs | ({"task": job.task} if job.task else {})
    first = model[0]
    if own_preprocess(model) and own_preprocess(first):
        return {name: value for name, value in given.items() if name in PREPROCESSING}
    target = getattr(first, "preprocess", None) if own_preprocess(model) else model.preprocess
    return {name: value for name, value in given.items() if target is None or accepts(target, name)}


def check_rows(features: dict[str, Any], count: int) -> None:
    """Raise `InputError` if a tokenizer made several rows of one input."""
    rows = features.get("overflow_to_sample_mapping")
    if rows is not None and len(rows) != count:
        raise InputError(
            f"processing_kwargs asks for return_overflowing_tokens, which made {len(rows)} rows of {count} inputs; "
            "there must be one for each. Use encode_passages for long documents, or model(model.preprocess(...))."
        )


def check_texts(inputs: Sequence[Any], first: int = 0) -> None:
    """Raise `InputError` naming the first input that is not a text; positions are counted from `first`."""
    for i, item in enumerate(inputs, first):
        if not isinstance(item, str):
            kind = type(item).__name__
            raise InputError(
                f"Input {i} is {item!r:.80} of type {kind}; expected a string. "
                f"Give `encode` a string or a list of strings; convert or drop other values first."
            )
