"""Fixtures of all tests: offline, with tiny models that are built once per session."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # threads that spin take the cores of the tests that run beside

import gc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import forked, models


@pytest.fixture(scope="module", autouse=True)
def _frozen() -> None:
    """What there is before a file's tests, imported libraries above all, is not searched for garbage again and again.

    `Trainer` collects after each run, which takes a third of a second of half a million objects.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _unsynced() -> Iterator[None]:
    """Files are written as ever, but nobody waits for the disk: no test cuts the power.

    Processes that are killed (`test_crash.py`) are others, and wait.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)  # which also raises for a file that is not open
        yield


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Name of an architecture -> folder with its tiny model, built when first asked for."""
    built: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in built:
            built[name] = models.build(name, tmp_path_factory.mktemp(name))
        return built[name]

    return folder


@pytest.fixture(scope="session")
def bert_folder(folder_of: Callable[[str], Path]) -> Path:
    return folder_of("bert")


@pytest.fixture(scope="module")
def forked_workers() -> Iterator[None]:
    """Pools whose workers begin at once; that spawned ones work too is tested in `test_encode.py`."""
    import torch.multiprocessing

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.multiprocessing, "get_context", lambda method=None: forked.processes())
        yield
