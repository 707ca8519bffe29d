"""What a process that was killed while it replaced a file has left hinders nobody, and goes with the next one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sentence_transformers.cli.embedding_writers import Chunk, Chunks
from sentence_transformers.cluster.job import Folder
from sentence_transformers.search.sparse_index import SparseIndex
from sentence_transformers.util.atomic import replacing


def kill_while_replacing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt), replacing(path) as fresh:
        patch.setattr(Path, "unlink", lambda *args, **kwargs: None)  # a killed process tidies nothing up
        fresh.write_bytes(b"begun")
        raise KeyboardInterrupt


def begin_job(folder: Path) -> None:
    assert Folder(folder).manifest() is None
    Folder(folder).sweep()


def write_chunks(folder: Path) -> None:
    chunks = Chunks(folder / "out.npy", {"chunk_size": 2})
    assert chunks.done == 0
    chunks.add(Chunk({}, np.zeros((2, 3), np.float32)))
    chunks.finish()


def save_index(folder: Path) -> None:
    SparseIndex(np.eye(3)).save(folder)


@pytest.mark.parametrize(
    ("name", "next_one"),
    [("manifest.json", begin_job), ("out.npy", write_chunks), ("index.json", save_index)],
)
def test_a_draft_goes_with_the_next_one(
    name: str, next_one: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill_while_replacing(tmp_path / name, monkeypatch)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"begun"]
    next_one(tmp_path)
    assert not list(tmp_path.glob(".*"))


def test_a_chunk_that_was_begun_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chunks = Chunks(tmp_path / "out.npy", {"chunk_size": 2})
    kill_while_replacing(chunks.folder / "000000.npy", monkeypatch)
    assert chunks.parts == [] and Chunks(tmp_path / "out.npy", {"chunk_size": 2}).done == 0
