"""Older argument names that are still accepted.

`renamed(old="new")` goes on a function or an `__init__` that knows only today's name:

    @renamed(word_embedding_dimension="embedding_dimension")
    def __init__(self, embedding_dimension: int): ...

A call with the older name works and gives one `DeprecationWarning` at the caller's line.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def renamed(**new_names: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator: accept keyword arguments under older names.

    Args:
        **new_names: older name = name today.

    Raises:
        TypeError: by the decorated callable, if one argument is given under both names.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def wrapper(*args, **kwargs):
            used = [old for old in new_names if old in kwargs]
            if used:
                warnings.warn(message(function, used, new_names), DeprecationWarning, stacklevel=2)
            for old in used:
                new = new_names[old]
                if new in kwargs:
                    raise TypeError(f"{function.__qualname__}() got {old!r} and {new!r}: two names of one argument.")
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return wrapper

    return decorate


def message(function: Callable, used: list[str], new_names: dict[str, str]) -> str:
    changes = ", ".join(f"{old!r} is now {new_names[old]!r}" for old in used)
    return f"Renamed arguments of {function.__qualname__}(): {changes}. The older names will be removed."
