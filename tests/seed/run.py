"""Runs stories of the page in a process of its own, offline, in an empty folder; prints what came of each as JSON.

    HF_HOME=a-filled-cache python -m tests.seed.run similarity train ...

A story's outcome is {"printed": what it printed, "error": the traceback or None, "shapes": those of its values}.
"""

from __future__ import annotations

import contextlib
import io
import json
import socket
import sys
import textwrap
import traceback
from typing import Any, NoReturn

from tests.seed.blocks import GIVEN, STORIES, blocks, mended


def refuse(self: socket.socket, address: Any) -> NoReturn:
    """No connection to anywhere."""
    raise OSError(f"the page's code must run offline, but it connects to {address!r}")


def tell(name: str) -> dict[str, Any]:
    """Run one story."""
    page = blocks()
    if name.startswith("mteb"):
        from tests.seed import mteb_data

        mteb_data.install()
    code = mended("".join(page[number] for number in STORIES[name]))
    namespace: dict[str, Any] = {"__name__": "__main__"}
    printed, error = io.StringIO(), None
    try:
        with contextlib.redirect_stdout(printed):
            exec(textwrap.dedent(GIVEN.get(name, "")), namespace)
            exec(compile(code, f"<page: {name}>", "exec"), namespace)
    except Exception:
        error = traceback.format_exc()
    values = {key: value for key, value in namespace.items() if not isinstance(value, type)}
    shapes = {key: list(value.shape) for key, value in values.items() if hasattr(value, "shape")}
    return {"printed": printed.getvalue(), "error": error, "shapes": shapes}


if __name__ == "__main__":
    socket.socket.connect = refuse  # type: ignore[method-assign]
    print(json.dumps({name: tell(name) for name in sys.argv[1:]}))
