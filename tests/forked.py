"""Processes that begin at once: forked from one that has done nothing but import the libraries.

A process that is spawned imports PyTorch, Transformers and this library first, for some three seconds.
"""

from __future__ import annotations

import multiprocessing
import traceback
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

IMPORTED = [
    "torch",
    "accelerate",
    "datasets",
    "transformers.trainer",
    "transformers.models.bert.modeling_bert",
    *(
        f"sentence_transformers.{part}.{kind}"
        for part in ("encoders", "training")
        for kind in ("sentence_transformer", "cross_encoder", "sparse_encoder", "multi_vector_encoder")
    ),
    "sentence_transformers.engine.workers",
    "sentence_transformers.models",
    "sentence_transformers.losses",
    "tests.index.writers",
]


@cache
def processes() -> Any:
    """A context of `multiprocessing`; one that spawns where nothing can be forked."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    return context


def run(function: Callable[..., Any], *args: Any, error: Path) -> int:
    """Exit code of a process that calls a function; what it raises is raised here, as text.

    Args:
        error: a file for what it raises.
    """
    process = processes().Process(target=_call, args=(function, args, error))
    process.start()
    process.join()
    if error.exists():
        raise AssertionError(error.read_text(encoding="utf-8"))
    return process.exitcode


def _call(function: Callable[..., Any], args: tuple[Any, ...], error: Path) -> None:
    try:
        function(*args)
    except BaseException:
        error.write_text(traceback.format_exc(), encoding="utf-8")
        raise
