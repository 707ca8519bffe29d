"""One call of a model: inputs -> rows, in this process or by a pool of workers.

    calls.compute(model, inputs, job, where) -> rows in the order of the inputs, or None if there are none

All doors (`encode`, `predict`, …) come through here: they check and name what they were given, make a `Job`, and bring
the rows into the form that was asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any

import numpy as np
import torch

from sentence_transformers.engine import engine, workers
from sentence_transformers.engine.devices import on_device
from sentence_transformers.engine.progress import progress_bar
from sentence_transformers.engine.result_buffer import Gather
from sentence_transformers.engine.scheduling import make_plan
from sentence_transformers.errors import InputError


@dataclass(frozen=True)
class Where:
    """Where a call is computed, and what is seen of it.

    Attributes:
        device: where to compute; None for where the model is, which stays there. A list starts one worker process per
            entry.
        pool: worker processes that run already.
        chunk_size: inputs sent to a worker at a time.
        num_workers: start that many CPU worker processes for this call.
        show_progress_bar: None: shown if this package's logger is at INFO or below.
    """

    device: Any = None
    pool: workers.Pool | None = None
    chunk_size: int | None = None
    num_workers: int | None = None
    show_progress_bar: bool | None = None


def compute(model: Any, inputs: Sequence[Any], job: engine.Job, where: Where) -> Any:
    """Rows of all inputs, in their order; None if there are none."""
    check_sizes(batch_size=job.batch_size, chunk_size=where.chunk_size, num_workers=where.num_workers)
    with progress_bar(len(inputs), where.show_progress_bar) as advance:
        devices = workers.devices_asked(where.device, where.num_workers)
        if where.pool is not None or devices:
            return compute_in_workers(model, inputs, job, where, devices, advance)
        return compute_here(on_device(model, where.device), inputs, job, advance)


def compute_here(model: Any, inputs: Sequence[Any], job: engine.Job, advance: Any = None) -> Any:
    """Rows of all inputs, computed in this process."""
    plan = make_plan(inputs)
    gather = Gather(plan, advance)
    engine.run(model, plan.inputs, job, gather.put)
    return gather.result()


def compute_in_workers(
    model: Any, inputs: Sequence[Any], job: engine.Job, where: Where, devices: Sequence[str], advance: Any
) -> Any:
    """Rows of all inputs, computed by a pool, which is started and ended here if none is given."""
    own = where.pool is None
    pool = model.start_multi_process_pool(list(devices)) if where.pool is None else where.pool
    job = replace(job, output=job.output.for_worker())
    parts: dict[int, Any] = {}
    try:
        for start, stop, rows in workers.map_chunks(pool, "compute_rows", inputs, where.chunk_size, {"job": job}):
            parts[start] = rows
            advance(stop - start)
    finally:
        if own:
            model.stop_multi_process_pool(pool)
    return merge([parts[start] for start in sorted(parts)])


def result_device(model: Any, where: Where) -> torch.device:
    """Where tensors of a result lie: where the caller wanted it computed, else with the model."""
    asked = None if isinstance(where.device, (list, tuple)) or where.pool is not None else where.device
    return model.device if asked is None else torch.device(asked)


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
