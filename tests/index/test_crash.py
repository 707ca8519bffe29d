"""SIGKILL at any moment: what was committed is there, what was not has left no trace, and the next writer works on.

A process writes into an index without end, tells what has been committed, and is killed after some time, or kills
itself at a chosen call of the functions that write (see `writers`). The folder is then compared with what was told.
"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sentence_transformers import Index
from sentence_transformers.errors import IndexNotFoundError
from tests.forked import processes
from tests.index import writers
from tests.index.cases import IDS, VECTORS, assert_hits, expected, filled, vectors

pytestmark = pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL")
slow = pytest.mark.slow


def run(function: Any, folder: Path, *args: Any, seconds: float | None = None) -> list[list[str]]:
    """What a writer told before it was killed: by itself, or by us some time after it began."""
    log = folder.with_name("log")
    log.write_bytes(b"")
    process = processes().Process(target=function, args=(str(folder), str(log), *args))
    process.start()
    if seconds is not None:
        while process.is_alive() and not log.read_bytes():
            time.sleep(0.01)
        time.sleep(seconds)
        process.kill()
    process.join(timeout=120)
    assert process.exitcode == -signal.SIGKILL
    return [line.split() for line in log.read_text().splitlines()]


def check(folder: Path, told: list[list[str]]) -> None:
    """The folder holds what was told, or that and the one change that was under way."""
    index = Index.load(folder, check="open")
    committed = int(told[-1][1])
    assert len(index) in (committed, committed + 3)
    ids = [str(number) for number in range(len(index))]
    assert sorted(index.ids, key=int) == ids
    queries = np.array([writers.row(number) for number in range(len(index))]).reshape(-1, 24)
    found = index.search(embeddings=queries, top_k=1)
    assert [hit.id for (hit,) in found] == ids
    assert all(hit.text == f"text {hit.id}" and hit.score == pytest.approx(1) for (hit,) in found)
    if told[-1][0] == "updated":
        assert index.get(str(committed - 1)).metadata == {"n": committed}


@pytest.fixture
def folder(tmp_path):
    with Index(dimension=24) as index:
        index.save(tmp_path / "index")
    return tmp_path / "index"


MOMENTS = [f"{name}:{when}" for name in ("fsync", "replace", "unlink") for when in ("before", "after")]


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("calls", [0, 1, 2, 3, 7, *(pytest.param(n, marks=slow) for n in (4, 5, 11, 20, 33))])
def test_killed_at_every_step_of_a_commit(moment, calls, folder):
    for _ in range(2):
        check(folder, run(writers.write_for_ever, folder, moment, calls))
    with Index.load(folder) as index:  # the lock died with its holder; leftovers go with the next commit
        index.add(embeddings=vectors(1), ids=["last"])
    named = json.loads((folder / "index.json").read_text())["segments"]
    left = {path.name for path in folder.iterdir()} - {"index.json", "index.lock"}
    assert left == {f"{one['name']}.safetensors" for one in named} | {
        f"{one['deleted']['name']}.deleted" for one in named if one["deleted"]
    }


@pytest.mark.parametrize(
    "seconds", [0.0, 0.02, 0.1, *(pytest.param(t, marks=slow) for t in (0.01, 0.05, 0.2, 0.4, 0.8))]
)
def test_killed_at_any_time(seconds, folder):
    for _ in range(2):
        check(folder, run(writers.write_for_ever, folder, seconds=seconds))


@pytest.mark.parametrize("steps", [*range(7), 99])
@pytest.mark.parametrize("there", [True, False])
def test_killed_while_saving(steps, there, tmp_path):
    """Saving over an index leaves the old or the new one; saving into an empty folder none or the new one."""
    folder = tmp_path / "index"
    if there:
        with filled(Index(), range(100)) as index:
            index.save(folder)
    saved = run(writers.save_once, folder, steps) == [["saved"]]
    assert saved or steps < 99
    try:
        index = Index.load(folder, check="open")
    except IndexNotFoundError:
        assert not there and not saved
    else:
        rows = list(range(100)) if list(index.ids) == IDS[:100] else list(range(100, 200))
        assert rows[0] == 100 or (there and not saved)
        assert_hits(index.search(embeddings=VECTORS[:5]), expected(VECTORS[:5], rows, 10))
    with filled(Index(), range(20)) as index:
        index.save(folder)
    assert len(Index.load(folder)) == 20 and len(list(folder.glob("*.safetensors"))) == 1


def test_a_writer_in_another_process_is_respected(folder):
    """While one process writes, another may read but not write; when it is killed, its right dies with it."""
    from sentence_transformers.errors import IndexLockedError

    log = folder.with_name("log")
    log.write_bytes(b"")
    process = processes().Process(target=writers.write_for_ever, args=(str(folder), str(log)))
    process.start()
    while b"added" not in log.read_bytes():
        time.sleep(0.01)
    reader = Index.load(folder)
    with pytest.raises(IndexLockedError, match=f"process {process.pid}"):
        reader.add(embeddings=vectors(1), ids=["mine"])
    seen, deadline = set(), time.monotonic() + 60
    while len(seen) < 2 and time.monotonic() < deadline:  # a disk may take its time
        reader.refresh()
        seen.add(len(reader))
        assert len(reader) % 3 == 0 and len(reader.search(embeddings=vectors(1)[0], top_k=5)) == min(5, len(reader))
    process.kill()
    process.join()
    reader.add(embeddings=vectors(1), ids=["mine"])
    assert "mine" in Index.load(folder) and len(seen) > 1
