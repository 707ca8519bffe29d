"""Ray: reach a cluster or start one on this machine, run functions on it, and a pool of workers over units.

Ray Data starts a worker again that died, on another machine if its own is gone, and gives it the units that were under
way (`max_restarts` and `max_task_retries` of its actors are -1).
"""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sentence_transformers.cluster.sources import Unit
from sentence_transformers.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from types import ModuleType

    from sentence_transformers.cluster.worker import Task

OBJECT_STORE = 200 * 2**20
"""Bytes of Ray's memory for objects on a machine where it is started here; units and answers are small."""


def import_ray() -> Any:
    """The package ray, with its part for data."""
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingExtraError("ray[data]", "ray", "`encode_dataset`") from error
    return ray


@contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """Ray: as it is connected already, else at an address, else started here and ended afterwards."""
    ray = import_ray()
    if ray.is_initialized():
        yield ray
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    quiet = {"log_to_driver": False, "logging_level": logging.WARNING}
    if address in (None, "local"):
        ray.init(address="local", include_dashboard=False, object_store_memory=OBJECT_STORE, **quiet)
    else:
        check_reachable(str(address))
        try:
            ray.init(address=address, **quiet)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise InputError(f"There is no Ray cluster at {address!r}: {error}") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def check_reachable(address: str) -> None:
    """`InputError` if nobody listens at "host:port" or "ray://host:port"."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        raise InputError(
            f"No Ray cluster answers at {address!r}: {error}. Start one with `ray start --head`, or leave the address "
            "out to compute on this machine."
        ) from error


def on_cluster(
    ray: ModuleType, function: Callable[..., Any], calls: Sequence[tuple[Any, ...]], **options: Any
) -> list[Any]:
    """The results of calls that run as tasks of Ray, in their order, a bounded number at a time."""
    task = ray.remote(function).options(**options)
    results: list[Any] = [None] * len(calls)
    running: dict[Any, int] = {}
    most = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
    waiting = list(enumerate(calls))[::-1]
    while waiting or running:
        while waiting and len(running) < most:
            number, arguments = waiting.pop()
            running[task.remote(*arguments)] = number
        for ready in ray.wait(list(running), num_returns=1)[0]:
            try:
                results[running.pop(ready)] = ray.get(ready)
            except ray.exceptions.RayTaskError as error:
                raise error.cause from error  # what the function raised
    return results


def answers(
    ray: ModuleType, worker: type, task: Task, units: Sequence[Unit], workers: int, resources: dict[str, float]
) -> Any:
    """What the workers say of each unit, as they are done, in any order.

    Args:
        worker: the class; it is made of `task` in each of up to `workers` processes.
        resources: num_cpus and num_gpus of each.
    """
    context = ray.data.DataContext.get_current()
    before = context.enable_progress_bars, logging.getLogger("ray.data").level
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        rows = ray.data.from_items([{"unit": unit.json()} for unit in units], override_num_blocks=len(units))
        pool = ray.data.ActorPoolStrategy(min_size=1, max_size=workers, initial_size=workers)
        done = rows.map_batches(
            worker,
            batch_size=1,
            compute=pool,
            fn_constructor_args=(task,),
            **resources,
        )
        for row in done.iter_rows():
            yield json.loads(row["done"])
    finally:
        context.enable_progress_bars = before[0]
        logging.getLogger("ray.data").setLevel(before[1])
