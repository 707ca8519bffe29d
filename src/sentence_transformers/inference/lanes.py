"""Lanes: micro-batches side by side on the cores of a CPU.

Splitting one matrix product over all cores leaves cores waiting at every small operation in between. Measured on
all-MiniLM-L6-v2, giving each core a micro-batch of its own is 10 to 20 % faster (`benchmarks/LOG.md`). So long jobs run
on one process-wide set of threads, each computing alone on its share of the cores; several callers share the same set,
so that threads never outnumber cores. Short jobs (one micro-batch) run in the caller's thread with all cores.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

import torch

MOST_LANES = 8

_lock = threading.Lock()
_pool: tuple[tuple[int, int], ThreadPoolExecutor] | None = None


def lane_count(device: torch.device) -> int:
    """How many micro-batches run side by side on a device."""
    return max(1, min(MOST_LANES, torch.get_num_threads())) if device.type == "cpu" else 1


def pool(lanes: int) -> ThreadPoolExecutor:
    """The process-wide threads; made again when the number of cores given to torch has changed."""
    global _pool
    with _lock:
        threads = torch.get_num_threads()
        if _pool is None or _pool[0] != (threads, lanes):
            share = max(1, threads // lanes)
            executor = ThreadPoolExecutor(lanes, "encode-lane", initializer=_start_lane, initargs=(share, threads))
            _pool = ((threads, lanes), executor)
        return _pool[1]


def _start_lane(share: int, threads: int) -> None:
    """Limit this thread to its share of the cores.

    `set_num_threads` acts on the calling thread, and on threads that are started later; the second call in a thread of
    its own restores the number for those. A thread takes the number for later threads at its first question or
    operation, which therefore comes before its own.
    """
    torch.get_num_threads()
    torch.set_num_threads(share)
    other = threading.Thread(target=torch.set_num_threads, args=(threads,))
    other.start()
    other.join()


def _forget_pool() -> None:
    """After a fork the threads are gone."""
    global _pool, _lock
    _pool, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


def run_side_by_side(function: Callable[[Any], Any], items: Iterable[Any], lanes: int) -> None:
    """Call `function` on each item, `lanes` at a time; items are drawn as they are needed.

    The first exception stops the drawing of further items and is raised when the running calls have ended.
    """
    executor = pool(lanes)
    running: set[Future[Any]] = set()
    try:
        for item in items:
            if len(running) >= lanes + 2:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
            running.add(executor.submit(function, item))
        for future in running:
            future.result()
    finally:
        for future in running:
            future.cancel()
        wait(running)
