"""Lanes: micro-batches side by side on the cores of a CPU.

Splitting one matrix product over all cores leaves cores waiting at every small operation in between. Measured on
all-MiniLM-L6-v2, giving each core a micro-batch of its own is 10 to 20 % faster (`benchmarks/LOG.md`). So long jobs run
on one process-wide set of threads, each computing alone on its share of the cores; several callers share the same set,
so that threads never outnumber cores. Short jobs (one micro-batch) run in the caller's thread with all cores. An
accelerator has one thread, which launches while the caller's cuts texts into tokens.
"""

from __future__ import annotations

import contextlib
import contextvars
import ctypes
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial
from typing import Any, TypeVar

import torch

MOST_LANES = 8
CPU = torch.device("cpu")
T = TypeVar("T")

_lock = threading.Lock()
_pools: dict[torch.device, tuple[tuple[int, int], ThreadPoolExecutor]] = {}


def lane_count(device: torch.device) -> int:
    """How many micro-batches run side by side on a device."""
    return max(1, min(MOST_LANES, torch.get_num_threads())) if device.type == "cpu" else 1


def pool(lanes: int, device: torch.device = CPU) -> ThreadPoolExecutor:
    """The process-wide threads of a device; those of the CPU are made again when the number of cores given to torch has
    changed.
    """
    threads = torch.get_num_threads() if device.type == "cpu" else 0
    with _lock:
        if device not in _pools or _pools[device][0] != (threads, lanes):
            start = partial(start_lane, max(1, threads // lanes) if threads else None)
            _pools[device] = (threads, lanes), ThreadPoolExecutor(lanes, f"encode-lane-{device}", initializer=start)
        return _pools[device][1]


def start_lane(share: int | None) -> None:
    """What a thread does first; None leaves its number of cores alone."""
    _this_thread.is_lane = True
    if share is not None:
        limit_thread(share)


def limit_thread(share: int) -> None:
    """Let the calling thread compute with `share` cores.

    `torch.set_num_threads` also sets the number for threads that start later, so that one that another library starts
    meanwhile would keep it. The functions behind it, of OpenMP and MKL, are for the calling thread alone. A thread
    takes the number for all at its first question or operation, which therefore comes before its own.
    """
    threads = torch.get_num_threads()
    for name in ("omp_set_num_threads", "MKL_Set_Num_Threads_Local"):
        with contextlib.suppress(AttributeError, OSError):  # not every build has both
            getattr(ctypes.CDLL(torch._C.__file__), name)(share)
    if torch.get_num_threads() == share:
        return
    with _limiting:
        torch.set_num_threads(share)
        other = threading.Thread(target=torch.set_num_threads, args=(threads,))
        other.start()
        other.join()


_limiting = threading.Lock()
_this_thread = threading.local()


def _forget_pools() -> None:
    """After a fork the threads are gone."""
    global _pools, _lock, _limiting
    _pools, _lock, _limiting = {}, threading.Lock(), threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pools)


def run_side_by_side(
    function: Callable[[Any], Any], items: Iterable[Any], lanes: int, device: torch.device = CPU
) -> None:
    """Call `function` on each item, `lanes` at a time; items are drawn as they are needed.

    Each call sees the caller's context variables and computes on the caller's stream of `device`. The first exception
    stops the drawing of further items and is raised when the running calls have ended. A call from a lane (of a module
    that encodes with another model) stays in it.
    """
    if getattr(_this_thread, "is_lane", False):
        for item in items:
            function(item)
        return
    executor, function = pool(lanes, device), on_stream_of_caller(function, device)
    context = contextvars.copy_context()
    running: set[Future[Any]] = set()
    try:
        for item in items:
            if len(running) >= lanes + 2:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
            running.add(executor.submit(context.copy().run, function, item))
        for future in running:
            future.result()
    finally:
        for future in running:
            future.cancel()
        wait(running)


def on_stream_of_caller(function: Callable[[T], Any], device: torch.device) -> Callable[[T], Any]:
    """The function, to be called from another thread, whose current device and stream would be others: the caller reads
    the result on its own.
    """
    if device.type not in ("cuda", "xpu"):
        return function
    module = torch.get_device_module(device)
    stream = module.current_stream(device)

    def call(item: T) -> Any:
        with module.stream(stream):
            return function(item)

    return call
