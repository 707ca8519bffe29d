"""Packages import those below them alone, function-level imports included: one order, no circles."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import sentence_transformers
from sentence_transformers import _names

ROOT = Path(sentence_transformers.__file__).parent
ORDER = [
    ("errors", "_deprecation", "protocols"),
    ("util",),
    ("plots", "quantization"),
    ("storage",),
    ("features",),
    ("backends",),
    ("engine",),
    ("late_interaction",),
    ("similarity",),
    ("testing",),
    ("modules",),
    ("encoders",),
    ("search",),
    ("index",),
    ("connectors",),
    ("losses",),
    ("evaluation",),
    ("training",),
    ("cluster",),
    ("cli",),
]
LEVEL = {name: level for level, names in enumerate(ORDER) for name in names}
FRONT = ("", "_names", "__main__")  # the front door and its table know every name


def imports() -> Iterator[tuple[Path, str, str]]:
    """File, its package, and a package of this library's that it imports."""
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        own = "" if parts == ("__init__",) else parts[0]
        tree = ast.parse(path.read_text(encoding="utf-8"))
        typing = [n for n in ast.walk(tree) if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.unparse(n.test)]
        skipped = {id(node) for block in typing for part in block.body for node in ast.walk(part)}
        for node in ast.walk(tree):
            if not isinstance(node, ast.ImportFrom) or id(node) in skipped:
                continue
            first, *rest = (node.module or "").split(".")
            if first == "sentence_transformers":
                for name in rest[:1] or [alias.name for alias in node.names]:
                    yield path, own, name


def test_the_packages_are_those_of_the_order():
    named = {path.parent.name for path in ROOT.glob("*/__init__.py")} | {path.stem for path in ROOT.glob("*.py")}
    assert named - {"__init__", "_names", "__main__"} == LEVEL.keys()


def test_imports_go_down():
    upward = {}
    for path, own, other in imports():
        if own in FRONT or own == other or other not in LEVEL:  # a public name of the front door
            continue
        if LEVEL[own] <= LEVEL[other]:
            upward[f"{path.relative_to(ROOT)}"] = other
    assert not upward


def test_fit_alone_asks_the_front_door_for_what_is_above():
    """`SentenceTransformer.fit` makes a trainer, whose `model_class` is that class again: a circle of the contract."""
    upward = set()
    for path, own, name in imports():
        other = _names.HOME.get(name, "").partition(".")[0]
        if own not in FRONT and other in LEVEL and LEVEL[own] < LEVEL[other]:
            upward.add((path.name, name))
    assert upward == {
        ("fit_mixin.py", "SentenceTransformerTrainer"),
        ("cross_fit_mixin.py", "CrossEncoderTrainer"),
    }


def test_own_code_imports_by_statements():
    """The table of names is for people's code and saved models; a tool that reads imports sees those of our own."""
    used = {
        str(path.relative_to(ROOT))
        for path in ROOT.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("_names.home", "_names.place", "_names.HOME")
    }
    assert not used
