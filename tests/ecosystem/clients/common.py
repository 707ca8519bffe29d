"""What the clients' scripts share: real texts, the name of the real model, and checks that say what was seen."""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np

sys.path.append(os.environ["ECOSYSTEM_ROOT"])

from benchmarks import texts  # the scripts take these from here
from benchmarks.models import classifier, model_folder  # noqa: F401

MODEL = "sentence-transformers/all-MiniLM-L6-v2"  # found in its package, as nothing is in the hub's cache
GROUPS = ("rec.autos", "sci.space", "rec.sport.hockey", "sci.med")


def posts(part: str, each: int, groups: tuple[str, ...] = GROUPS, longest: int = 600) -> tuple[list[str], list[int]]:
    """The first posts of some news groups, cut off, and the number of the group of each."""
    rows = [
        (text[:longest], number)
        for number, group in enumerate(groups)
        for text in [text for text, name in texts.newsgroups(part) if name == group][:each]
    ]
    return [text for text, _ in rows], [number for _, number in rows]


def expect(condition: Any, what: str, seen: Any = "") -> None:
    """Say what holds, or stop."""
    if not condition:
        raise SystemExit(f"NOT: {what}\nseen: {seen}")
    print(f"    {what}{f': {seen}' if seen != '' else ''}")


def same(first: Any, second: Any, tolerance: float = 1e-5) -> bool:
    """Equal numbers up to a tolerance."""
    return bool(np.allclose(np.asarray(first), np.asarray(second), atol=tolerance))
