"""Whose the code of a function is: this library's, that of the libraries it builds on, or the caller's.

The code says it: the module whose globals it reads, and those of the functions that it wraps. `__module__` may be
copied (`functools.wraps`).
"""

from __future__ import annotations

import functools

OWN = ("sentence_transformers.",)
LIBRARIES = (*OWN, "torch.", "transformers.", "transformers_modules.", "peft.", "accelerate.")
"""Their layers, and their hooks and wrappers (of checkpointing, distribution, autocast), do not ask for padding."""


def is_foreign(function: object, libraries: tuple[str, ...] = LIBRARIES) -> bool:
    """Whether the code of a function, or of one that it wraps, is of none of the libraries."""
    while True:
        inner = function.func if isinstance(function, functools.partial) else function
        code = getattr(inner, "__func__", inner)
        found = getattr(code, "__globals__", None)
        name = type(code).__module__ if found is None else found.get("__name__")
        if not f"{name}.".startswith(libraries):
            return True
        if (function := getattr(function, "__wrapped__", getattr(inner, "__wrapped__", None))) is None:
            return False
