"""Stubs for type checkers and editors: the public names of the packages that load them on first use.

    python -m tests.stubs      writes src/sentence_transformers/{,losses/,evaluation/,util/}__init__.pyi

At run time such a package finds a name in the tables of `_names` when it is asked for; a type checker runs nothing, so
the same tables are written out for it. `tests/test_types.py` fails when a stub is behind its table.
"""

from __future__ import annotations

from pathlib import Path

import sentence_transformers
from sentence_transformers import _names, util

SOURCE = Path(sentence_transformers.__file__).parent
HEAD = "# Written by `python -m tests.stubs` from the tables of names: what type checkers and editors see here.\n"
OWN = {"": "__version__: str\n__MODEL_HUB_ORGANIZATION__: str\n__all__: list[str]\n"}


def homes() -> dict[str, dict[str, str]]:
    """Package -> public name -> module that defines it."""
    top = {name: _names.HOME[name] for name in sentence_transformers._public}
    doors = {package: {name: _names.HOME[name] for name in _names.PACKAGES[package].split()}
             for package in sorted(_names.OWN_PACKAGES)}  # fmt: skip
    return {"": top, **doors, "util": {name: home for name, home in util.NAMES.items() if name[0] != "_"}}


def stub(package: str) -> str:
    """The stub of one package."""
    lines = sorted(
        f"from sentence_transformers.{home} import {name} as {name}\n" for name, home in homes()[package].items()
    )
    return HEAD + "".join(lines) + OWN.get(package, "")


def path(package: str) -> Path:
    return SOURCE / package / "__init__.pyi"


if __name__ == "__main__":
    for package in homes():
        path(package).write_text(stub(package), encoding="utf-8")
