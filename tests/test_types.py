"""What a user's type checker sees: overloads on the doors tell which flags give which kind of value."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import stubs

ROOT = Path(__file__).resolve().parents[1]
USER = """
from typing import assert_type

import numpy as np
from torch import Tensor

from sentence_transformers import CrossEncoder, MultiVectorEncoder, SentenceTransformer, SparseEncoder, util
from sentence_transformers.losses import CoSENTLoss

model = SentenceTransformer("name")
assert_type(model.encode("text"), np.ndarray)
assert_type(model.encode(["text"]), np.ndarray)
assert_type(model.encode("text", convert_to_tensor=True), Tensor)
assert_type(model.encode(["text"], convert_to_tensor=True), Tensor)
assert_type(model.encode(["text"], convert_to_numpy=False), list[Tensor])
assert_type(model.encode([("one", "two"), ("a", "b")]), np.ndarray)
assert_type(model.encode([["one", "two"]], convert_to_tensor=True), Tensor)
assert_type(model.encode([{"text": "a"}, {"query": "b"}]), np.ndarray)
assert_type(model.encode([[{"role": "user", "content": "a"}]]), np.ndarray)
assert_type(model.encode({"text": "a"}, convert_to_numpy=False), Tensor)
assert_type(model.encode_query("text"), np.ndarray)
assert_type(model.encode_query([("one", "two")]), np.ndarray)
assert_type(model.encode_document(["text"], convert_to_tensor=True), Tensor)
assert_type(model.similarity(model.encode("a"), model.encode("b")), Tensor)

ranker = CrossEncoder("name")
assert_type(ranker.predict([("a", "b")]), np.ndarray)
assert_type(ranker.predict([("a", "b")], convert_to_tensor=True), Tensor)
assert_type(ranker.predict([["a", "b"], ["c", "d"]]), np.ndarray)
assert_type(ranker.predict([({"text": "a"}, "b")]), np.ndarray)
assert_type(ranker.predict(("a", "b")), np.ndarray)

late = MultiVectorEncoder("name")
assert_type(late.encode("text"), Tensor)
assert_type(late.encode_document(["text"]), list[Tensor])
assert_type(late.encode(["text"], convert_to_numpy=True), list[np.ndarray])
sparse = SparseEncoder("name")
assert_type(sparse.encode(["text"]), Tensor)

CoSENTLoss(model, scale=10.0)
assert_type(util.cos_sim(model.encode("a"), model.encode("b")), Tensor)
"""
WRONG = """
from sentence_transformers import SentenceTransformer

SentenceTransformer("name").encode(["text"], batch_size="32")
"""


def checked(code: str, folder: Path) -> list[str]:
    """What mypy says of a file of a user's."""
    pytest.importorskip("mypy")
    file = folder / "user.py"
    file.write_text(code, encoding="utf-8")
    config = folder / "mypy.ini"
    config.write_text(f"[mypy]\nmypy_path = {ROOT / 'src'}\nfollow_imports = silent\nignore_missing_imports = true\n")
    command = [sys.executable, "-m", "mypy", "--config-file", str(config), "--cache-dir", str(folder), str(file)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    return done.stdout.splitlines()


def test_a_users_file(tmp_path: Path) -> None:
    """Each call has the type that it returns."""
    assert checked(USER, tmp_path)[-1].startswith("Success"), "\n".join(checked(USER, tmp_path))


def test_a_users_mistake(tmp_path: Path) -> None:
    """An argument of the wrong type is seen."""
    assert 'No overload variant of "encode"' in "\n".join(checked(WRONG, tmp_path))


@pytest.mark.parametrize("package", stubs.homes(), ids=lambda package: package or "top level")
def test_stubs_follow_the_tables(package: str) -> None:
    """What type checkers see is what there is; `python -m tests.stubs` writes it anew."""
    assert stubs.path(package).read_text(encoding="utf-8") == stubs.stub(package)
