"""Older argument names that are still accepted.

`renamed(old="new")` goes on a function or an `__init__` that knows only today's name:

    @renamed(word_embedding_dimension="embedding_dimension")
    def __init__(self, embedding_dimension: int): ...

A call with the older name works and gives one `DeprecationWarning` at the caller's line, and a line in the log, since
Python hides the former outside of `__main__`. So do `dropped("name")`, for an argument that has no meaning any more,
`moved(name="settings")`, for one that has become an entry of a dictionary, and `positional("first", "second")`, for
what was once positional.
"""

from __future__ import annotations

import functools
import inspect
import logging
import warnings
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


logger = logging.getLogger(__name__)


def deprecated(text: str, stacklevel: int) -> None:
    """Say that something is out of date: as a `DeprecationWarning`, and in the log.

    Args:
        stacklevel: whose line the warning names; 2 for the caller of the function that calls this one.
    """
    logger.warning(text)
    warnings.warn(text, DeprecationWarning, stacklevel=stacklevel + 1)


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
                deprecated(message(function, used, new_names), stacklevel=2)
            for old in used:
                new = new_names[old]
                if kwargs[old] is None and new in kwargs:  # wrappers pass both, one of them unset
                    del kwargs[old]
                    continue
                if kwargs.get(new) is not None:
                    raise TypeError(f"{function.__qualname__}() got {old!r} and {new!r}: two names of one argument.")
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return wrapper

    return decorate


def dropped(*names: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator: accept keyword arguments that have no meaning any more."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def wrapper(*args, **kwargs):
            if used := [name for name in names if name in kwargs]:
                text = f"Arguments {used} of {function.__qualname__}() have no effect any more."
                deprecated(text, stacklevel=2)
            return function(*args, **{key: value for key, value in kwargs.items() if key not in names})

        return wrapper

    return decorate


def moved(**targets: str | tuple[str, ...]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator: accept keyword arguments that are entries of a dictionary argument today.

    Args:
        **targets: older argument = name of the dictionary argument, or names of several.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def wrapper(*args, **kwargs):
            for name in targets.keys() & kwargs.keys():
                value, inside = kwargs.pop(name), targets[name]
                if value is None:
                    continue
                inside = (inside,) if isinstance(inside, str) else inside
                text = f"Argument {name!r} of {function.__qualname__}() is now an entry of {' and '.join(inside)}."
                deprecated(text, stacklevel=2)
                kwargs.update({target: (kwargs.get(target) or {}) | {name: value} for target in inside})
            return function(*args, **kwargs)

        return wrapper

    return decorate


def positional(*names: str, after: int) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator: accept keyword-only arguments by position, as they once were.

    Args:
        *names: the arguments in their older order.
        after: number of positional arguments, `self` included, that the function takes itself.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def wrapper(*args, **kwargs):
            given = args[after:]
            if len(given) > len(names):
                raise TypeError(
                    f"{function.__qualname__}() takes {after + len(names)} positional arguments, got {len(args)}."
                )
            if given:
                text = f"Give {list(names[: len(given)])} of {function.__qualname__}() by name, not by position."
                deprecated(text, stacklevel=2)
            return function(*args[:after], **dict(zip(names, given, strict=False)), **kwargs)

        return wrapper

    return decorate


def message(function: Callable, used: list[str], new_names: dict[str, str]) -> str:
    changes = ", ".join(f"{old!r} is now {new_names[old]!r}" for old in used)
    return f"Renamed arguments of {function.__qualname__}(): {changes}. The older names will be removed."


deprecated_kwargs = renamed  # its name elsewhere


def cross_encoder_init_args_decorator(function: Callable[P, R]) -> Callable[P, R]:
    """The older arguments of the constructor of a cross-encoder."""
    function = moved(classifier_dropout="config_kwargs")(function)
    function = renamed(
        model_name="model_name_or_path",
        automodel_args="model_kwargs",
        tokenizer_args="processor_kwargs",
        tokenizer_kwargs="processor_kwargs",
        config_args="config_kwargs",
        cache_dir="cache_folder",
        default_activation_function="activation_fn",
    )(function)
    return positional("num_labels", "max_length", "activation_fn", "device", after=2)(function)


def cross_encoder_predict_rank_args_decorator(function: Callable[P, R]) -> Callable[P, R]:
    """The older arguments of `predict` and `rank`; those that the function itself takes are left to it."""
    gone = ("num_workers", "apply_softmax", "convert_to_numpy", "convert_to_tensor")
    known = inspect.signature(function).parameters
    function = renamed(sentences="inputs", activation_fct="activation_fn")(function)
    return dropped(*(name for name in gone if name not in known))(function)


def transformer_kwargs_decorator(function: Callable[P, R]) -> Callable[P, R]:
    """The older arguments of the constructor of a `Transformer`."""
    function = moved(cache_dir=("model_kwargs", "processor_kwargs", "config_kwargs"))(function)
    return renamed(model_args="model_kwargs", tokenizer_args="processor_kwargs", config_args="config_kwargs")(function)
