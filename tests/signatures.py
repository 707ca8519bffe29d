"""Which argument of which public callable is given by a test.

    python -m tests.signatures      takes what is no longer needed out of tests/signature_exceptions.json

An argument counts as tested if some call in the sources of the tests gives it: `rank(…, top_k=3)` names `top_k` of
every public callable that is called `rank`, `rank(query, documents)` its first two. Where a file calls it with
`**settings`, or hands it about by name or as a string (`getattr(model, "rank")`, a table of losses), every keyword and
every key of a dictionary in that file counts. Arguments that no test gives are exceptions, with the reason.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import transformers

import sentence_transformers
from sentence_transformers import _names, util

TESTS = Path(__file__).parent
EXCEPTIONS = TESTS / "signature_exceptions.json"  # reason -> callable -> its arguments
PACKAGE = "sentence_transformers."


def public_objects() -> dict[str, Any]:
    """Public name -> class or function, over all packages that users import from."""
    found: dict[str, Any] = {name: getattr(sentence_transformers, name) for name in sentence_transformers.__all__}
    found |= {name: getattr(util, name) for name in util.__all__ if name[0] != "_"}
    for package, names in _names.PACKAGES.items():
        found |= {name: _names.home(name, package) for name in names.split()}
    return {name: thing for name, thing in found.items() if str(getattr(thing, "__module__", "")).startswith(PACKAGE)}


def public_callables() -> dict[str, Callable[..., Any]]:
    """Name -> function, for functions, constructors (named as their class) and public methods (`Class.method`).

    A method that several classes inherit stands there once, under the public class that defines it. A base that is not
    public itself counts as a part of the one public class that has it.
    """
    found: dict[str, Callable[..., Any]] = {}
    things = public_objects()
    kinds = {thing for thing in things.values() if inspect.isclass(thing)}
    users = Counter(base for kind in kinds for base in kind.__mro__)
    for name, thing in things.items():
        if inspect.isfunction(thing):
            found[name] = thing
        elif inspect.isclass(thing):
            parts = [base for base in thing.__bases__ if base not in kinds and users[base] == 1]
            for part in (*parts, thing):
                found |= methods_of(part, thing)
    return found


def methods_of(part: type, kind: type) -> dict[str, Callable[..., Any]]:
    """The constructor and the public methods that a class, or a base of it, defines itself."""
    found = {}
    for name, member in vars(part).items() if part.__module__.startswith(PACKAGE) else ():
        function = member.__func__ if isinstance(member, (classmethod, staticmethod)) else member
        if name == "__init__" and inspect.isfunction(function):
            found[kind.__name__] = function
        elif name[0] != "_" and inspect.isfunction(function):
            found[f"{kind.__name__}.{name}"] = function
    return found


def arguments_of(name: str, function: Callable[..., Any]) -> list[str]:
    """Names of the arguments in order, without those that transformers' own settings have."""
    given = [
        p.name
        for p in inspect.signature(function).parameters.values()
        if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    ]
    given = [name for name in given if name not in ("self", "cls")]
    if name.endswith("TrainingArguments"):
        foreign = {field.name for field in dataclasses.fields(transformers.TrainingArguments)}
        given = [name for name in given if name not in foreign]
    return given


@cache
def calls() -> tuple[frozenset[tuple[str, str]], dict[str, int]]:
    """(callable, keyword) of all calls in the tests, and for each callable the most positional arguments of a call."""
    keywords: set[tuple[str, str]] = set()
    positional: dict[str, int] = {}
    for path in sorted(TESTS.rglob("*.py")):
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        direct = {id(node.func) for node in nodes if isinstance(node, ast.Call)}
        handed, given = set(), set()
        for node in nodes:
            if isinstance(node, ast.Dict):
                given |= {key.value for key in node.keys if isinstance(key, ast.Constant)}
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                handed |= set(node.value.split()) if len(node.value) < 200 else set()
            elif isinstance(node, (ast.Name, ast.Attribute)) and id(node) not in direct:
                handed |= {called(node)}
            elif isinstance(node, ast.Call):
                own = {keyword.arg for keyword in node.keywords}
                given |= own
                if not (name := called(node.func)):  # as `getattr(model, "rank")(…)`
                    continue
                keywords |= {(name, one) for one in own if one}
                handed |= {name} if None in own else set()
                plain = sum(not isinstance(argument, ast.Starred) for argument in node.args)
                positional[name] = max(positional.get(name, 0), plain)
        keywords |= {(name, one) for name in handed for one in given if isinstance(one, str) and name}
    return frozenset(keywords), positional


def called(function: ast.expr) -> str | None:
    """The last part of the name that is called."""
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", None)


def names_of(name: str) -> set[str]:
    """What a callable is called by: its last part; for a constructor also the classes that inherit it."""
    return {name.rpartition(".")[2], *heirs().get(name, ())}


@cache
def heirs() -> dict[str, set[str]]:
    """Class -> the public classes that have its constructor."""
    found: dict[str, set[str]] = {}
    for kind in public_objects().values():
        if inspect.isclass(kind):
            owner = next(base for base in kind.__mro__ if "__init__" in vars(base))
            found.setdefault(owner.__name__, set()).add(kind.__name__)
    return found


def untested() -> dict[str, list[str]]:
    """Callable -> its arguments that no test gives."""
    keywords, positional = calls()
    found = {}
    for name, function in sorted(public_callables().items()):
        called_as = names_of(name)
        most = max(positional.get(one, 0) for one in called_as)
        missing = [
            argument
            for place, argument in enumerate(arguments_of(name, function))
            if place >= most and not any((one, argument) in keywords for one in called_as)
        ]
        if missing:
            found[name] = missing
    return found


def exceptions() -> dict[str, dict[str, list[str]]]:
    """Reason -> callable -> arguments."""
    return json.loads(EXCEPTIONS.read_text(encoding="utf-8"))


def pairs(table: dict[str, list[str]]) -> set[tuple[str, str]]:
    return {(name, argument) for name, arguments in table.items() for argument in arguments}


def shrink() -> None:
    """Take out of the exceptions what a test gives by now."""
    needed = untested()
    kept = {
        reason: {
            name: left
            for name, arguments in table.items()
            if (left := [argument for argument in arguments if argument in needed.get(name, ())])
        }
        for reason, table in exceptions().items()
    }
    EXCEPTIONS.write_text(json.dumps({k: v for k, v in kept.items() if v}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    shrink()
