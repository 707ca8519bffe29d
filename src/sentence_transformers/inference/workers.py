"""Worker processes: one copy of the model per device, texts in chunks, and never a silent wait.

A pool is the dictionary {"input": queue, "output": queue, "processes": [...]} that the public API has always had.
Workers take (id, function name, inputs, kwargs) from `input` and answer (id, result or error). While the parent waits
it looks after its workers: an exception in one is raised in the parent with the worker's traceback; a worker that died
(killed, out of memory) raises `WorkerError` naming process and exit code within seconds.
"""

from __future__ import annotations

import itertools
import logging
import math
import os
import queue
import traceback
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
import torch.multiprocessing as mp

from sentence_transformers.errors import InputError, WorkerError

logger = logging.getLogger(__name__)

Pool = dict[Literal["input", "output", "processes"], Any]
POLL_SECONDS = 0.5
LARGEST_CHUNK = 5000
_jobs = itertools.count()


def default_devices() -> list[str]:
    """All CUDA (else NPU) devices, else four CPU workers."""
    if torch.cuda.is_available():
        return [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    npu = getattr(torch, "npu", None)
    if npu is not None and npu.is_available():
        return [f"npu:{i}" for i in range(npu.device_count())]
    return ["cpu"] * 4


def start(model: Any, devices: Sequence[str | torch.device] | None = None) -> Pool:
    """Start one process per device, each with the model.

    Args:
        model: is moved to the CPU, shared with the workers and stays on the CPU.
        devices: e.g. ["cuda:0", "cuda:1"] or ["cpu"] * 4.
    """
    names = [str(device) for device in (devices or default_devices())]
    if not names:
        raise InputError("A pool needs at least one device.")
    logger.info("Starting %d worker processes: %s", len(names), ", ".join(names))
    model.to("cpu")
    model.share_memory()
    context = mp.get_context("spawn")
    inbox, outbox = context.Queue(), context.Queue()
    share = max(1, torch.get_num_threads() // sum(name == "cpu" for name in names)) if "cpu" in names else 0
    processes = []
    for i, name in enumerate(names):
        process = context.Process(
            target=work, args=(name, model, inbox, outbox, share), name=f"encode-worker-{i} ({name})", daemon=True
        )
        process.start()
        processes.append(process)
    return {"input": inbox, "output": outbox, "processes": processes}


def stop(pool: Pool) -> None:
    """End the processes of a pool; safe to call twice."""
    for process in pool["processes"]:
        if process.is_alive():
            process.terminate()
    for process in pool["processes"]:
        process.join(timeout=10)
        if process.is_alive():
            process.kill()
    for name in ("input", "output"):
        pool[name].close()
        pool[name].cancel_join_thread()


def work(device: str, model: Any, inbox: Any, outbox: Any, threads: int) -> None:
    """Body of a worker process."""
    if threads and device == "cpu":
        torch.set_num_threads(threads)
    try:
        model.to(device)
    except Exception:
        outbox.put((None, None, traceback.format_exc()))
        return
    while True:
        chunk, method, inputs, kwargs = inbox.get()
        try:
            result = getattr(model, method)(inputs, **kwargs)
            outbox.put((chunk, to_cpu(result), None))
        except Exception:
            outbox.put((chunk, None, traceback.format_exc()))


def to_cpu(value: Any) -> Any:
    """The same result with its tensors on the CPU, as plain arrays where that is exact, so that no handle is shared."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu()
    if isinstance(value, list):
        return [to_cpu(item) for item in value]
    if isinstance(value, dict):
        return {key: to_cpu(item) for key, item in value.items()}
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
    """
    size = chunk_size or default_chunk(len(inputs), len(pool["processes"]))
    starts = range(0, len(inputs), size)
    job = next(_jobs)  # answers left over from a call that failed are told apart by it
    for chunk, first in enumerate(starts):
        pool["input"].put(((job, chunk), method, list(inputs[first : first + size]), kwargs))
    for _ in starts:
        chunk, result, error = receive(pool, job)
        if error is not None:
            raise WorkerError(f"A worker process failed:\n{error}")
        yield starts[chunk], min(starts[chunk] + size, len(inputs)), result


def receive(pool: Pool, job: int) -> tuple[int, Any, str | None]:
    """The next answer that belongs to `job`, or `WorkerError` if a worker has died."""
    while True:
        try:
            key, result, error = pool["output"].get(timeout=POLL_SECONDS)
            if key is None or key[0] == job:
                return (0 if key is None else key[1]), result, error
        except queue.Empty:
            dead = [process for process in pool["processes"] if not process.is_alive()]
            if dead:
                names = ", ".join(
                    f"{process.name} (pid {process.pid}, exit code {process.exitcode})" for process in dead
                )
                hint = " An exit code of -9 usually means that memory ran out." if os.name == "posix" else ""
                raise WorkerError(f"Worker process died: {names}.{hint} Stop the pool and start a new one.") from None
