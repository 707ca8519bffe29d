"""What a user's type checker sees: overloads on the doors tell which flags give which kind of value."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests import stubs

ROOT = Path(__file__).resolve().parents[1]
OTHERS = ("transformers", "datasets", "accelerate", "scipy", "sklearn", "matplotlib", "ray", "pyarrow")
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


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What mypy says of each of two files of a user's, in one run: name -> errors.

    Other libraries than PyTorch and NumPy are `Any` to it: of the types that the doors return, none is of theirs.
    """
    pytest.importorskip("mypy")
    folder = tmp_path_factory.mktemp("types")
    files = {"user.py": USER, "wrong.py": WRONG}
    for name, code in files.items():
        (folder / name).write_text(code, encoding="utf-8")
    config = folder / "mypy.ini"
    config.write_text(
        f"[mypy]\nmypy_path = {ROOT / 'src'}\nfollow_imports = silent\nignore_missing_imports = true\n"
        f"[mypy-{','.join(f'{name}.*' for name in OTHERS)}]\nfollow_imports = skip\n"
    )
    command = [sys.executable, "-m", "mypy", "--config-file", str(config), "--cache-dir", str(folder), *files]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    lines = done.stdout.splitlines()
    assert lines and lines[-1].endswith("(checked 2 source files)"), done.stdout + done.stderr
    return {name: [line for line in lines if line.startswith(name)] for name in files}


def test_a_users_file(found: dict[str, list[str]]) -> None:
    """Each call has the type that it returns."""
    assert not found["user.py"], "\n".join(found["user.py"])


def test_a_users_mistake(found: dict[str, list[str]]) -> None:
    """An argument of the wrong type is seen."""
    assert 'No overload variant of "encode"' in "\n".join(found["wrong.py"])


@pytest.mark.parametrize("package", stubs.homes(), ids=lambda package: package or "top level")
def test_stubs_follow_the_tables(package: str) -> None:
    """What type checkers see is what there is; `python -m tests.stubs` writes it anew."""
    assert stubs.path(package).read_text(encoding="utf-8") == stubs.stub(package)


MOST_ANY = 100  # parameters; may only shrink


def test_parameters_have_types() -> None:
    """`Any` is for what no type says, such as attributes that PyTorch's modules take."""
    found = [
        f"{path.relative_to(ROOT)}:{argument.lineno} {argument.arg}"
        for path in sorted((ROOT / "src").rglob("*.py"))
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for argument in [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
        if argument.annotation is not None and ast.unparse(argument.annotation) == "Any"
    ]
    assert len(found) <= MOST_ANY, "\n".join(found)
