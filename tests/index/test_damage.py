"""Damaged files: a clear error, never a wrong answer."""

from __future__ import annotations

import json
import random
import shutil

import numpy as np
import pytest

from sentence_transformers import Index
from sentence_transformers.errors import IndexFormatError, IndexNotFoundError, SentenceTransformersError
from sentence_transformers.index import arrays, manifest
from tests.index.cases import COUNT, IDS, QUERIES, filled
from tests.index.test_forms import SPARSE_QUERIES, both

FORMS = [("float32", None), ("int8", "float32"), ("binary", "int8")]


@pytest.fixture(scope="module", params=FORMS, ids=str)
def folder(request, tmp_path_factory):
    """A hybrid index with deleted documents, some blocks long."""
    path = tmp_path_factory.mktemp("index")
    index = both(Index(precision=request.param[0], rescore=request.param[1]))
    index.save(path)
    index.delete(IDS[:20])
    index.close()
    return path


def answers(index: Index) -> list:
    """Everything that can be asked."""
    return [
        index.search(embeddings=QUERIES, top_k=COUNT, rescore_multiplier=COUNT),
        index.search(sparse_embeddings=SPARSE_QUERIES, top_k=COUNT),
        list(index.ids),
        index.fields,
        IDS[5] in index,
        index.get(IDS[30])[2:],
    ]


def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def test_one_byte_anywhere(folder, tmp_path):
    """A byte of any file is changed: loading, searching or reading fails, or the answers are the right ones."""
    right, choose, seen = answers(Index.load(folder)), random.Random(1), set()
    for path in sorted(folder.iterdir()):
        size = path.stat().st_size
        if path.name == "index.lock":
            continue
        for place in {0, size - 1, *(choose.randrange(size) for _ in range(25))}:
            damaged = copy(folder, tmp_path)
            content = bytearray((damaged / path.name).read_bytes())
            content[place] ^= 1 << choose.randrange(8)
            (damaged / path.name).write_bytes(content)
            for check in ("read", "open"):
                try:
                    index = Index.load(damaged, check=check)
                    found = answers(index)
                except SentenceTransformersError as error:
                    assert isinstance(error, IndexFormatError) and str(damaged) in str(error)
                    seen.add(path.suffix)
                else:
                    assert found == right and path.name == "index.json"  # e.g. a blank between words
            shutil.rmtree(damaged)
    assert seen == {".json", ".safetensors", ".deleted"}


@pytest.mark.parametrize("keep", [0, 1, 30, -2])
def test_truncated_files(folder, tmp_path, keep):
    for path in folder.iterdir():
        if path.name == "index.lock":
            continue
        damaged = copy(folder, tmp_path)
        content = path.read_bytes()
        (damaged / path.name).write_bytes(content[:keep])
        with pytest.raises(IndexFormatError, match="damaged"):
            Index.load(damaged)
        shutil.rmtree(damaged)


def test_missing_files(folder, tmp_path):
    for path in folder.iterdir():
        damaged = copy(folder, tmp_path)
        (damaged / path.name).unlink()
        if path.name == "index.lock":
            Index.load(damaged)
        else:
            with pytest.raises((IndexFormatError, IndexNotFoundError), match="missing"):
                Index.load(damaged)
        shutil.rmtree(damaged)


def large(tmp_path):
    """An index whose vectors take many blocks, one of which is damaged."""
    index = Index(dimension=64)
    index.add(embeddings=np.random.default_rng(0).normal(size=(4000, 64)), metadata=[{"n": n} for n in range(4000)])
    index.save(tmp_path)
    index.close()
    (path,) = tmp_path.glob("*.safetensors")
    opened = Index.load(tmp_path)._state.segments[0].arrays
    _, _, begin, end = opened._places["dense.float32"]
    assert end - begin > 4 * arrays.BLOCK
    with path.open("r+b") as file:
        file.seek(end - 2 * arrays.BLOCK)
        byte = file.read(1)
        file.seek(end - 2 * arrays.BLOCK)
        file.write(bytes([byte[0] ^ 1]))
    return tmp_path


def test_blocks_are_compared_when_they_are_first_read(tmp_path):
    """What lies in whole blocks is answered; the damaged block is refused, whenever it is asked for."""
    index = Index.load(large(tmp_path))
    some = index.search(embeddings=np.ones(64), filter={"n": {"<": 100}})
    assert len(some) == 10 and len(list(index.ids)) == 4000
    for _ in range(2):
        with pytest.raises(IndexFormatError, match=r"bytes .* \(dense\.float32\) do not match their checksum"):
            index.search(embeddings=np.ones(64))
    with pytest.raises(IndexFormatError, match="contents"):
        index.verify()
    with pytest.raises(IndexFormatError, match="contents"):
        Index.load(tmp_path, check="open")


def test_damage_is_not_copied_into_new_files(tmp_path):
    index = Index.load(large(tmp_path))
    before = sorted(path.name for path in tmp_path.iterdir())
    index.delete([0])
    with pytest.raises(IndexFormatError, match="do not match"):
        index.compact()
    with pytest.raises(IndexFormatError, match="do not match"):
        index.save(tmp_path / "other")
    assert len(index) == 3999
    assert {path.suffix for path in tmp_path.iterdir() if path.name not in before} <= {".deleted", ""}
    assert not list((tmp_path / "other").glob("*.safetensors"))


def test_check_never_skips_the_comparison(tmp_path):
    assert len(Index.load(large(tmp_path), check="never").search(embeddings=np.ones(64))) == 10
    with pytest.raises(SentenceTransformersError, match="Unknown check 'sometimes'"):
        Index.load(tmp_path, check="sometimes")


def rewritten(folder, **changes) -> None:
    """The manifest with other values, and a checksum that fits."""
    path = folder / manifest.MANIFEST
    content = json.loads(path.read_text())
    content.pop("checksum")
    for name, value in changes.items():
        target = content["segments"][0] if name in content["segments"][0] else content
        target[name] = value
    path.write_text(json.dumps(content | {"checksum": manifest.checksum(content)}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, "has version 2; this library reads version 1"),
        ({"format": "other"}, "does not describe an index of this kind"),
        ({"name": "../../etc/passwd"}, "is no name of a file"),
        ({"name": "a" * 15}, "is no name of a file"),
        ({"rows": -1}, "is no count"),
        ({"rows": 7}, "other rows"),
        ({"size": 10**15}, "bytes instead of 1,000,000,000,000,000"),
        ({"checksum": 1}, "checksums do not match"),
        ({"settings": {}}, "KeyError"),
        ({"settings": None}, "TypeError"),
        ({"segments": 3}, "TypeError"),
        ({"next_id": "x"}, "is no count"),
        ({"deleted": {"name": "b" * 16, "size": 1, "checksum": 0}}, "missing"),
    ],
)
def test_hostile_manifests(changes, message, tmp_path):
    filled(Index()).save(tmp_path)
    rewritten(tmp_path, **changes)
    with pytest.raises(IndexFormatError, match=message):
        Index.load(tmp_path)


def test_other_files_stay(tmp_path):
    for name in ("notes.txt", "model.safetensors", "0123.deleted"):
        (tmp_path / name).write_text("mine")
    index = filled(Index())
    index.save(tmp_path)
    index.compact()
    index.delete(IDS[0])
    assert {path.name for path in tmp_path.iterdir()} >= {"notes.txt", "model.safetensors", "0123.deleted"}
