"""The one loop: inputs in, rows out.

    inputs -> distinct, longest first (scheduling) -> tokens, a window ahead -> micro-batches -> modules -> rows

All doors (`encode`, `predict`, …) come through `run`: they check and name what they were given, make an
`EncodeRequest`, and bring the rows into the form that was asked for. What differs between them is the request: which
task and prompt, and `output`, which turns the features that the last module leaves into the rows of a micro-batch.
`ResultBuffer` puts rows where their inputs stood, in whatever order they are done, so a result depends neither on its
neighbours nor on timing.

An input module with `tokens` (all of this library's) gives ragged tokens and is planned by their number; any other has
its `preprocess` called on groups of inputs of similar size. On an accelerator that runs out of memory a micro-batch is
halved and tried again.
"""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from numbers import Integral
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from sentence_transformers.backends.override_detection import Survey, own_preprocess, survey, unseen
from sentence_transformers.engine import workers
from sentence_transformers.engine.batching import DefaultInt, make_plan, micro_batches, windows
from sentence_transformers.engine.model_replicas import on_device
from sentence_transformers.engine.progress import progress_bar
from sentence_transformers.engine.result_buffer import ResultBuffer
from sentence_transformers.errors import InputError
from sentence_transformers.storage.module_io import accepts
from sentence_transformers.util import threads
from sentence_transformers.util.environment import is_out_of_memory

if TYPE_CHECKING:
    from collections.abc import Callable

    from sentence_transformers.encoders.base import BaseModel
    from sentence_transformers.modules.base import InputModule

logger = logging.getLogger(__name__)

PREPROCESSING = ("processing_kwargs", "modality", "task")  # arguments of `encode` that `preprocess` sees
CPU_BUDGET = 1536  # tokens per micro-batch: activations stay in the cache (benchmarks/LOG.md)
CPU_SMALLEST = 256  # work is split among the threads, and padded texts by length, down to this many tokens
ACCELERATOR_BUDGET = 32768
ACCELERATOR_SMALLEST = 8192


class RowMaker(Protocol):
    """What a call returns: how rows are made of features, and how they travel from a worker process."""

    def rows(self, model: BaseModel, features: dict[str, Any], count: int) -> Any:
        """Features after the last module, number of inputs -> the rows of the micro-batch: array, tensor or list."""

    def for_worker(self) -> RowMaker:
        """The same rows as a worker process sends them: nothing that lives on its device."""


@dataclass(frozen=True)
class EncodeRequest:
    """What is to be done with the inputs of one call, and where.

    Attributes:
        output: what is made of the features.
        prompt: put before each text; None or "" for none.
        task: "query", "document" or another name that routes and modules know.
        kwargs: further keyword arguments for the modules.
        batch_size: most texts per micro-batch; a `DefaultInt` leaves it to the token budget.
        device: where to compute; None for where the model is, which stays there. A list starts one worker process per
            entry.
        pool: worker processes that run already.
        chunk_size: inputs sent to a worker at a time.
        num_workers: start that many CPU worker processes for this call.
        show_progress_bar: None: shown if this package's logger is at INFO or below.
    """

    output: RowMaker
    prompt: str | None = None
    task: str | None = None
    kwargs: dict[str, Any] = field(default_factory=dict)
    batch_size: int = DefaultInt(32)
    device: Any = None
    pool: workers.Pool | None = None
    chunk_size: int | None = None
    num_workers: int | None = None
    show_progress_bar: bool | None = None

    @property
    def limit(self) -> int | None:
        return None if isinstance(self.batch_size, DefaultInt) else self.batch_size

    @property
    def devices(self) -> list[str]:
        """One entry per worker process that is to be started; none if this process computes."""
        return workers.devices_asked(self.device, self.num_workers) if self.device or self.num_workers else []

    def for_worker(self) -> EncodeRequest:
        """What a worker process is sent."""
        return EncodeRequest(
            self.output.for_worker(), self.prompt, self.task, self.kwargs, self.batch_size, show_progress_bar=False
        )

    def result_device(self, model: BaseModel) -> torch.device:
        """Where tensors of the result lie: where the caller wanted it computed, else with the model."""
        asked = None if isinstance(self.device, (list, tuple)) or self.pool is not None else self.device
        return model.device if asked is None else torch.device(asked)


Batch = tuple[np.ndarray, Any]  # places in the plan; tokens, or the inputs themselves


def run(model: BaseModel, inputs: Sequence[Any], request: EncodeRequest) -> Any:
    """Rows of all inputs, in their order; None if there are none. Equal inputs are computed once.

    Args:
        model: the encoder; its modules are called in order.
    """
    check_sizes(batch_size=request.batch_size, chunk_size=request.chunk_size, num_workers=request.num_workers)
    with progress_bar(len(inputs), request.show_progress_bar) as advance:
        if request.pool is not None or request.devices:
            return run_in_workers(model, inputs, request, advance)
        model = model if request.device is None else on_device(model, request.device)
        plan = make_plan(inputs)
        buffer = ResultBuffer(plan, advance)
        device, untouched = model.device, survey(model)
        # autocast holds for the caller's thread alone, and code of the caller's need not be ready for several
        here_only = torch.is_autocast_enabled(device.type) or not untouched
        count = 1 if here_only else threads.lane_count(device)
        batches = planned(model, plan.inputs, request, device, count, bool(untouched))
        compute = partial(compute_batch, model, request, buffer, device, untouched)
        head = list(islice(batches, 2))
        if len(head) > 1 and not here_only and (count > 1 or device.type != "cpu"):
            threads.run_side_by_side(compute, chain(head, batches), count, device)  # this thread tokenises meanwhile
        else:
            for batch in chain(head, batches):
                compute(batch)
        return buffer.result()


def run_in_workers(
    model: BaseModel, inputs: Sequence[Any], request: EncodeRequest, advance: Callable[[int], None]
) -> Any:
    """Rows of all inputs, computed by a pool, which is started and ended here if none is given."""
    pool = model.start_multi_process_pool(request.devices) if request.pool is None else request.pool
    parts: dict[int, Any] = {}
    given = {"request": request.for_worker()}
    try:
        for start, stop, rows in workers.map_chunks(pool, "compute_rows", inputs, request.chunk_size, given):
            parts[start] = rows
            advance(stop - start)
    finally:
        if request.pool is None:
            model.stop_multi_process_pool(pool)
    return merge([parts[start] for start in sorted(parts)])


def compute_batch(
    model: BaseModel,
    request: EncodeRequest,
    buffer: ResultBuffer,
    device: torch.device,
    untouched: Survey | bool,
    batch: Batch,
) -> None:
    """One micro-batch through the modules and into the buffer; in halves if an accelerator's memory does not hold it.

    Args:
        untouched: whether the model is this library's alone; the survey that says so, if there is one.
    """
    places, source = batch
    by_tokens = hasattr(source, "take")
    try:
        with torch.no_grad(), unseen.set_to(by_tokens and untouched):
            module = input_module(model, request.task, request.kwargs.get("modality"))
            if by_tokens:
                features = module.features(source, packed=bool(getattr(module, "packs", False)), device=device)
            else:
                features = model.preprocess(source, prompt=request.prompt, **preprocessing_kwargs(model, request))
                check_rows(features, len(source))
                features = {key: value.to(device) if hasattr(value, "to") else value for key, value in features.items()}
            given = {name: value for name, value in request.kwargs.items() if name != "processing_kwargs"}
            features = model(features, **({"task": request.task} if request.task else {}), **given)
            rows = request.output.rows(model, features, len(places))
    except (RuntimeError, MemoryError) as error:
        if len(places) == 1 or device.type == "cpu" or not is_out_of_memory(error):
            raise
    else:
        buffer.write(places, rows)
        return
    logger.info("Out of memory with %d texts; going on with halves.", len(places))
    torch.get_device_module(device).empty_cache()
    half = len(places) // 2
    for part in (slice(0, half), slice(half, None)):
        smaller = source.take(np.arange(len(places))[part]) if by_tokens else source[part]
        compute_batch(model, request, buffer, device, untouched, (places[part], smaller))


def planned(
    model: BaseModel, inputs: Sequence[Any], request: EncodeRequest, device: torch.device, count: int, untouched: bool
) -> Iterator[Batch]:
    """Micro-batches as (places in `inputs`, tokens or the inputs themselves).

    Args:
        untouched: whether the model is this library's alone (`backends.override_detection`).
    """
    module = input_module(model, request.task, request.kwargs.get("modality"))
    settings = request.kwargs.get("processing_kwargs")
    check_settings(module, settings)
    if not untouched or not plans_by_tokens(module, settings):
        size = request.batch_size
        for start in range(0, len(inputs), size):
            yield np.arange(start, min(start + size, len(inputs))), inputs[start : start + size]
        return
    smallest = CPU_SMALLEST if device.type == "cpu" else ACCELERATOR_SMALLEST
    mixes = getattr(module, "mixes", "any") if len(inputs) > 1 else "any"
    mixed = {"any": None, "some": smallest, "none": 0}[mixes]
    for start, stop in windows(inputs):
        given = {"processing_kwargs": settings} if settings else {}
        tokens = module.tokens(inputs[start:stop], request.prompt, task=request.task, **given)
        budget = token_budget(module, device, int(tokens.offsets[-1]), count)
        for rows in micro_batches(tokens.lengths, budget, request.limit, mixed):
            yield start + rows, tokens.take(rows)


def input_module(model: BaseModel, task: str | None, modality: str | tuple[str, ...] | None = None) -> Any:
    """The module that takes a task's texts: the first of the model, or of the route."""
    first = model[0]
    resolve = getattr(first, "resolve", None)
    if resolve is None:
        return first
    return resolve(task) if modality is None else resolve(task, modality)


def plans_by_tokens(module: InputModule, processing_kwargs: dict[str, Any] | None = None) -> bool:
    """Whether batches can be made of a module's unpadded tokens: it has `tokens`, and nothing in its settings or those
    of the call asks for more than that shows.
    """
    unpadded = getattr(module, "unpadded", None)
    return hasattr(module, "tokens") and (unpadded is None or unpadded(processing_kwargs))


def check_settings(module: InputModule, processing_kwargs: dict[str, Any] | None) -> None:
    """Raise `InputError` for settings of a call that one of this library's modules would pass over in silence."""
    if not processing_kwargs or not own_preprocess(module):
        return
    if "processing_kwargs" not in inspect.signature(module.preprocess).parameters:
        raise InputError(
            f"processing_kwargs={processing_kwargs!r} has no effect on a {type(module).__name__}, which calls no "
            "tokenizer with such arguments. Leave it out."
        )


def token_budget(module: InputModule, device: torch.device, total: int, count: int) -> int:
    """Tokens per micro-batch: what suits the device, and such that all threads get the same number of micro-batches.

    Args:
        total: tokens to be shared out.
        count: number of threads.
    """
    most = getattr(module, "token_budget", None) or (CPU_BUDGET if device.type == "cpu" else ACCELERATOR_BUDGET)
    rounds = math.ceil(total / most / count)
    return max(math.ceil(total / max(rounds, 1) / count), min(most, CPU_SMALLEST))


def preprocessing_kwargs(model: BaseModel, request: EncodeRequest) -> dict[str, Any]:
    """What of a call's arguments `model.preprocess` is given: all that it takes where it is the caller's own."""
    given = request.kwargs | ({"task": request.task} if request.task else {})
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


def merge(parts: list[Any]) -> Any:
    """Chunks from worker processes, one after the other; None if there are none."""
    if not parts:
        return None
    if isinstance(parts[0], list):
        return [row for part in parts for row in part]
    return np.concatenate(parts)


def check_sizes(**sizes: Any) -> None:
    """Raise `InputError` for sizes that cannot be meant; None is a size left open, but not for `batch_size`."""
    for name, size in sizes.items():
        least = 0 if name == "num_workers" else 1
        if not (isinstance(size, Integral) and int(size) >= least) and (size is not None or name == "batch_size"):
            raise InputError(f"{name} must be an integer of at least {least}, got {size!r}.")
