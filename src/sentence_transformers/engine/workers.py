"""Worker processes: one copy of the model per device, texts in chunks, and never a silent wait.

    parent --- (key, state, method, inputs, kwargs) ---> one queue ---> whichever worker is free
    parent <-- (key, result, error) --- a pipe per worker <----- that worker

Weights and settings of modules that have changed since the workers were started reach them with the next call: `state`
tells which (`engine.shared_weights`).

An exception in a worker is raised in the parent with the worker's traceback. A worker that dies (killed, out of memory)
takes its end of the pipe with it, even half-way through an answer, so the parent raises `WorkerError` naming process
and exit code at once. Calls that share a pool take turns; what a failed call leaves in the queue is thrown away by its
number.
"""

from __future__ import annotations

import itertools
import logging
import math
import os
import threading
import traceback
from collections.abc import Iterator, Sequence
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
import torch.multiprocessing as mp
from torch import Tensor

from sentence_transformers.engine.shared_weights import ReceivedWeights, SharedWeights
from sentence_transformers.errors import InputError, WorkerError
from sentence_transformers.util.tensor import module_device

if TYPE_CHECKING:
    from ctypes import c_longlong
    from multiprocessing.connection import Connection
    from multiprocessing.queues import Queue

    from sentence_transformers.encoders.base import BaseModel

logger = logging.getLogger(__name__)

LARGEST_CHUNK = 5000
_jobs = itertools.count()


class Pool(dict[str, Any]):
    """{"input": queue, "output": pipes, "processes": [...]}: a dictionary, as the public API has always had it.

    Attributes:
        lock: held by the call that uses the pool.
        current: number of that call, shared with the workers; they throw away chunks of earlier ones.
        model, home: the model of the parent, and where it goes back to when the pool is stopped.
        weights: what the workers have of the model's weights.
    """

    def __init__(self, current: c_longlong, weights: SharedWeights, home: torch.device, **parts: Any) -> None:
        super().__init__(parts)
        self.current, self.weights, self.home = current, weights, home
        self.model = weights.model
        self.lock = threading.Lock()


def default_devices() -> list[str]:
    """All CUDA (else NPU) devices, else four CPU workers."""
    if torch.cuda.is_available():
        return [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    npu = getattr(torch, "npu", None)
    if npu is not None and npu.is_available():
        return [f"npu:{i}" for i in range(npu.device_count())]
    return ["cpu"] * 4


def devices_asked(
    device: str | torch.device | Sequence[str | torch.device] | None, num_workers: int | None
) -> list[str]:
    """One entry per worker process that the arguments of `encode` ask for; none if they ask for this process alone."""
    if isinstance(device, (list, tuple)):
        return [str(name) for name in device]
    return ["cpu"] * num_workers if num_workers is not None and num_workers > 1 else []


def start(model: BaseModel, devices: Sequence[str | torch.device] | None = None) -> Pool:
    """Start one process per device, each with the model.

    Args:
        model: is moved to the CPU and stays there until the pool is stopped; the workers have copies.
        devices: e.g. ["cuda:0", "cuda:1"] or ["cpu"] * 4.
    """
    names = [str(device) for device in (devices or default_devices())]
    if not names:
        raise InputError("A pool needs at least one device.")
    logger.info("Starting %d worker processes: %s", len(names), ", ".join(names))
    home = module_device(model)
    model.to("cpu")
    weights = SharedWeights(model)
    sent = weights.copy_of_model()
    context = mp.get_context("spawn")
    inbox, current = context.Queue(), context.Value("q", 0, lock=False)
    share = max(1, torch.get_num_threads() // sum(name == "cpu" for name in names)) if "cpu" in names else 0
    processes, pipes = [], []
    for i, name in enumerate(names):
        pipe, far_end = context.Pipe(duplex=False)
        process = context.Process(
            target=work,
            args=(name, sent, inbox, far_end, current, share),
            name=f"encode-worker-{i} ({name})",
            daemon=True,
        )
        process.start()
        far_end.close()  # now the worker alone holds it, so its death ends the pipe
        processes.append(process)
        pipes.append(pipe)
    return Pool(current, weights, home, input=inbox, output=pipes, processes=processes)


def stop(pool: Pool) -> None:
    """End the processes of a pool; safe to call twice."""
    for process in pool["processes"]:
        if process.is_alive():
            process.terminate()
    for process in pool["processes"]:
        process.join(timeout=10)
        if process.is_alive():
            process.kill()
    pool["input"].close()
    pool["input"].cancel_join_thread()
    for pipe in pool["output"]:
        pipe.close()
    if module_device(pool.model).type == "cpu":
        pool.model.to(pool.home)


def end_with_parent() -> None:
    """End this worker as soon as its parent has ended, which may have been killed."""
    parent = mp.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def work(device: str, model: BaseModel, inbox: Queue[Any], pipe: Connection, current: c_longlong, threads: int) -> None:
    """Body of a worker process."""
    threading.Thread(target=end_with_parent, daemon=True).start()
    if threads and device == "cpu":
        torch.set_num_threads(threads)
    try:
        place = torch.device(device)
        if place.index is not None and place.type != "cpu":
            torch.get_device_module(place).set_device(place)  # else what asks for no device takes the first one
        weights = ReceivedWeights(model, device)
    except Exception:
        pipe.send((None, None, traceback.format_exc()))
        return
    while True:
        key, state, method, inputs, kwargs = inbox.get()
        if key[0] < current.value:
            continue
        result = error = None
        try:
            weights.update(state)
            result = to_plain(getattr(model, method)(inputs, **kwargs))
        except Exception:
            error = traceback.format_exc()
        pipe.send((key, result, error))


class Plain(NamedTuple):
    """A tensor as bytes of its own, so that no handle to a worker's memory is passed on."""

    array: np.ndarray
    dtype: torch.dtype


def to_plain(value: object) -> Any:
    """The same result with its tensors as `Plain`."""
    if isinstance(value, Tensor):
        tensor = value.detach().cpu()
        return Plain((tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).numpy(), tensor.dtype)
    if isinstance(value, list):
        return [to_plain(item) for item in value]
    if isinstance(value, tuple) and hasattr(value, "_make"):  # a NamedTuple: a row of several parts
        return value._make(map(to_plain, value))
    if isinstance(value, dict):
        return {key: to_plain(item) for key, item in value.items()}
    return value


def from_plain(value: object) -> Any:
    """Undo `to_plain`."""
    if isinstance(value, Plain):
        return torch.from_numpy(value.array).view(value.dtype)
    if isinstance(value, list):
        return [from_plain(item) for item in value]
    if isinstance(value, tuple) and hasattr(value, "_make"):
        return value._make(map(from_plain, value))
    if isinstance(value, dict):
        return {key: from_plain(item) for key, item in value.items()}
    return value


def default_chunk(inputs: int, workers: int) -> int:
    """Ten chunks per worker, at most 5,000 inputs each."""
    return max(1, min(math.ceil(inputs / workers / 10), LARGEST_CHUNK))


def map_chunks(
    pool: Pool, method: str, inputs: Sequence[Any], chunk_size: int | None, kwargs: dict[str, Any]
) -> Iterator[tuple[int, int, Any]]:
    """Send the inputs to the workers in chunks.

    Yields:
        (start, stop, result) of each chunk, as they come.

    Raises:
        WorkerError: if a worker raised an error or died.
        InputError: if the pool was stopped, or the model has other weights or modules than those it was started with.
    """
    size = chunk_size or default_chunk(len(inputs), len(pool["processes"]))
    starts = range(0, len(inputs), size)
    if any(pipe.closed for pipe in pool["output"]):
        raise InputError("The pool has been stopped; start a new one with start_multi_process_pool().")
    with pool.lock:
        state = pool.weights.refresh()
        job = pool.current.value = next(_jobs)
        try:
            for chunk, first in enumerate(starts):
                pool["input"].put(((job, chunk), state, method, list(inputs[first : first + size]), kwargs))
            for _ in starts:
                chunk, result = receive(pool, job)
                yield starts[chunk], min(starts[chunk] + size, len(inputs)), result
        finally:
            pool.current.value = job + 1


def receive(pool: Pool, job: int) -> tuple[int, Any]:
    """Chunk and result of the next answer to `job`; `WorkerError` if it is an error or a worker has died."""
    while True:
        ready: list[Any] = wait(pool["output"])
        for pipe in ready:
            try:
                key, result, error = pipe.recv()
            except (EOFError, OSError):
                raise WorkerError(obituary(pool, pipe)) from None
            if key is None or (error is not None and key[0] == job):
                raise WorkerError(f"A worker process failed:\n{error}")
            if key[0] == job:
                return key[1], from_plain(result)


def obituary(pool: Pool, pipe: Connection) -> str:
    """Which workers have died, and of what: the one whose pipe has ended, and any others."""
    ended = pool["processes"][pool["output"].index(pipe)]
    ended.join(timeout=1)  # its pipe ends a moment before it does
    dead = [process for process in pool["processes"] if process is ended or not process.is_alive()]
    names = ", ".join(f"{process.name} (pid {process.pid}, exit code {process.exitcode})" for process in dead)
    hint = " An exit code of -9 usually means that memory ran out." if os.name == "posix" else ""
    return f"Worker process died: {names}.{hint} Stop the pool and start a new one."
