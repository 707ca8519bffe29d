"""The package reference, made while the site is built.

A page says `<!-- reference: losses -->` and gets every public name of that part.

The names come from the table in `_names.py`, so no class that is exported can be missing; mkdocstrings reads signatures
and docstrings out of the files, without importing them.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from sentence_transformers import _names
from sentence_transformers.util import NAMES

MARK = re.compile(r"<!-- reference: (.+?) -->")
EXTRA = {
    "plots": "plots.plot_embeddings plots.plot_similarity plots.plot_training",
    "testing": "testing.MockEncoder",
}


def members(part: str) -> list[str]:
    """The full paths of a part's names: the part is a package of `PACKAGES`, or names themselves."""
    if part == "util":
        return [f"{_names.ROOT}.{NAMES[name]}.{name}" for name in sorted(NAMES) if name[0] != "_"]
    if part in EXTRA:
        return [f"{_names.ROOT}.{path}" for path in EXTRA[part].split()]
    names = _names.PACKAGES[part].split() if part in _names.PACKAGES else part.split()
    package = part if part in _names.PACKAGES else ""
    own = sorted(set(names) - set(NAMES))  # names of `util` are on its page
    return list(dict.fromkeys(f"{_names.ROOT}.{_names.place(name, package)}.{name}" for name in own))


def on_page_markdown(markdown: str, page: Any, **kwargs: Any) -> str:
    """Put the blocks that mkdocstrings fills in place of the marks."""
    return MARK.sub(lambda found: "\n\n".join(f"::: {path}" for path in members(found[1])), markdown)
