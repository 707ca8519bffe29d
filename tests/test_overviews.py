"""The overview pages of losses and evaluators say what the code does: every class once, with its columns and labels."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from sentence_transformers import _names
from sentence_transformers.evaluation.base import BaseEvaluator

DOCS = Path(__file__).parents[1] / "docs"
KINDS = {"none": "none", "score": "float", "class": "class", "embedding": "vector", "scores": "floats"}


def rows_of(page: str) -> dict[str, list[list[str]]]:
    """The tables of a page that follow a comment with the name of a package: package -> rows of cells."""
    found = {}
    for package, table in re.findall(r"<!-- ([\w.]+) -->\n((?:\|.*\n)+)", (DOCS / page).read_text(encoding="utf-8")):
        found[package] = [[cell.strip() for cell in line.strip("|\n ").split("|")] for line in table.splitlines()[2:]]
    return found


def accepted(loss: Any) -> list[Any]:
    accepts = inspect.getattr_static(loss, "accepts", ())
    return list(accepts) if isinstance(accepts, tuple) else []


def columns_of(loss: Any) -> str:
    """The columns that a loss takes, as a cell."""
    forms = []
    for row in accepted(loss):
        names = [f"[{name}]" if row.lists and i else name for i, name in enumerate(row.inputs)]
        forms.append(f"({', '.join(names)}{', …' if row.most is None else ''})")
    return "; ".join(dict.fromkeys(forms)) or "any; those of the inner loss"


def labels_of(loss: Any) -> str:
    """The labels that a loss takes, as a cell."""
    return " or ".join(dict.fromkeys(KINDS[row.label] for row in accepted(loss))) or "any"


def losses_of(package: str) -> list[str]:
    return [
        name
        for name in _names.PACKAGES[package].split()
        if inspect.isclass(kind := _names.home(name, package)) and hasattr(kind, "get_config_dict")
    ]


LOSSES, EVALUATORS = rows_of("losses.md"), rows_of("evaluators.md")


@pytest.mark.parametrize("package", [name for name in _names.PACKAGES if name.endswith("encoder.losses")])
def test_every_loss_is_listed(package: str) -> None:
    listed = [row[0].strip("`") for row in LOSSES[package]]
    assert sorted(listed) == sorted(losses_of(package))
    assert listed == sorted(listed, key=str.lower)


def test_every_dense_loss_is_listed() -> None:
    assert sorted(row[0].strip("`") for row in LOSSES["sentence_transformer.losses"]) == sorted(
        losses_of("sentence_transformer.losses")
    )


CASES = [(package, *row) for package, rows in LOSSES.items() for row in rows]


@pytest.mark.parametrize("case", CASES, ids=[f"{case[0].partition('.')[0]}-{case[1].strip('`')}" for case in CASES])
def test_columns_labels_and_papers_are_those_of_the_loss(case: tuple[str, ...]) -> None:
    package, name, columns, labels, formula, paper = case
    loss = _names.home(name.strip("`"), package)
    assert (columns, labels) == (columns_of(loss), labels_of(loss))
    assert formula
    citation = inspect.getattr_static(loss, "citation").fget(None)
    assert bool(citation) == (paper != "-")
    if citation:
        author, year = paper.split()[-2 if "et al." not in paper else 0], paper.split()[-1]
        assert year in citation and author.split()[0].strip("&") in citation


def evaluators_of(package: str) -> list[str]:
    return [
        name
        for name in _names.PACKAGES[package].split()
        if inspect.isclass(kind := _names.home(name, package)) and issubclass(kind, BaseEvaluator)
    ]


@pytest.mark.parametrize("package", [name for name in _names.PACKAGES if name.endswith("r.evaluation")])
def test_every_evaluator_is_listed(package: str) -> None:
    base = {"BaseEvaluator", "SentenceEvaluator"}
    listed = [name for row in EVALUATORS[package] for name in re.findall(r"`(\w+)`", row[0])]
    assert sorted(listed) == sorted(set(evaluators_of(package)) - base)
    for name in listed:
        given = {"self", *inspect.signature(_names.home(name, package).__init__).parameters}
        cells = next(row for row in EVALUATORS[package] if f"`{name}`" in row[0])
        named = set(re.findall(r"`(\w+)`", cells[1]))
        older = {"args", "kwargs"} <= given
        assert older or named <= given, named - given
