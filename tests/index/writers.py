"""Processes that write into an index until they are killed; run in children of `test_crash`."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np

from sentence_transformers import Index
from tests.index.cases import filled


def row(number: int) -> np.ndarray:
    """The vector of document `number`."""
    return np.random.default_rng(number).normal(size=24).astype(np.float32)


def say(log: str, *words: Any) -> None:
    """Tell what has been committed; it is told when this returns."""
    with Path(log).open("ab", buffering=0) as file:
        file.write(" ".join(map(str, words)).encode() + b"\n")


def die_at(moment: str, calls: int) -> None:
    """Let this process kill itself after that many calls of a function, before or after the next one.

    Args:
        moment: "fsync:before", "replace:after" and so on; "step" is any fsync or replace.
    """
    name, _, when = moment.partition(":")
    left = calls

    def dying(function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0 and when != "after":
                os.kill(os.getpid(), signal.SIGKILL)
            result = function(*args, **kwargs)
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call

    if name in ("fsync", "step"):
        os.fsync = dying(os.fsync)
    if name in ("replace", "step"):
        Path.replace = dying(Path.replace)  # type: ignore[method-assign]
    if name == "unlink":
        Path.unlink = dying(Path.unlink)  # type: ignore[method-assign]


def write_for_ever(folder: str, log: str, moment: str = "", calls: int = 0) -> None:
    """Add, update and compact."""
    if moment:
        die_at(moment, calls)
    index = Index.load(folder)
    count = len(index)
    say(log, "begin", count)
    while True:
        new = range(count, count + 3)
        vectors = np.stack([row(number) for number in new])
        index.add([f"text {one}" for one in new], embeddings=vectors, ids=[f"{one}" for one in new])
        count += 3
        say(log, "added", count)
        if count % 4 == 0:
            index.update(f"{count - 1}", metadata={"n": count})
            say(log, "updated", count)
        if count % 5 == 0:
            index.compact()
            say(log, "compacted", count)


def save_once(folder: str, log: str, steps: int) -> None:
    """Save another index into a folder."""
    die_at("step", steps)
    filled(Index(), range(100, 200)).save(folder)
    say(log, "saved")
    os.kill(os.getpid(), signal.SIGKILL)
