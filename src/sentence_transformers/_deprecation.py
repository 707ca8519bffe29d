"""Older argument names that are still accepted.

`legacy` goes on a function or an `__init__` that knows only today's names, and has one table of all the others:

    @legacy(model_name="model_name_or_path", cache_dir=("config_kwargs",), num_workers=None)
    def __init__(self, model_name_or_path: str, config_kwargs: dict | None = None): ...

An older name leads to the name of today, to dictionaries whose entry it has become, or to None, where it has no meaning
any more. A call with older names works and gives a `DeprecationWarning` at the caller's line, and a line in the log,
since Python hides the former outside of `__main__`. Where each call counts, a function that takes `**kwargs` asks
`current` for the same, and has no wrapper.
"""

from __future__ import annotations

import functools
import inspect
import logging
import warnings
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
Names = Mapping[str, str | tuple[str, ...] | None]

logger = logging.getLogger(__name__)

REQUIRED: Any = inspect.Parameter.empty
"""Default of an argument that must be given, by its name of today or of old: signatures show it without a default."""


def deprecated(text: str, stacklevel: int) -> None:
    """Say that something is out of date: as a `DeprecationWarning`, and in the log.

    Args:
        stacklevel: whose line the warning names; 2 for the caller of the function that calls this one.
    """
    logger.warning(text)
    warnings.warn(text, DeprecationWarning, stacklevel=stacklevel + 1)


def legacy(
    *positional: str, after: int = 0, **names: str | tuple[str, ...] | None
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator: accept arguments under older names, and by position.

    Args:
        *positional: keyword-only arguments that were once positional, in their older order.
        after: number of positional arguments, `self` included, that the function takes itself.
        **names: older name = name today; (name, …) of the dictionaries that it is an entry of; None if it does nothing.

    Raises:
        TypeError: by the decorated callable, if one argument is given under both names.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def wrapper(*args, **kwargs):
            if positional and len(args) > after:
                kwargs |= by_name(function.__qualname__, positional, args[after:], after)
                args = args[:after]
            if not names.keys().isdisjoint(kwargs):
                update(function.__qualname__, names, kwargs, stacklevel=2)
            return function(*args, **kwargs)

        return wrapper

    return decorate


def by_name(function: str, names: tuple[str, ...], values: tuple[Any, ...], after: int) -> dict[str, Any]:
    """Arguments that were given by position, behind the first `after`."""
    if len(values) > len(names):
        raise TypeError(f"{function}() takes {after + len(names)} positional arguments, got {after + len(values)}.")
    deprecated(f"Give {list(names[: len(values)])} of {function}() by name, not by position.", stacklevel=3)
    return dict(zip(names, values, strict=False))


def update(function: str, names: Names, kwargs: dict[str, Any], stacklevel: int) -> None:
    """Bring the keyword arguments of a call to today's names.

    Args:
        function: its name, for the messages.
        stacklevel: whose line the warning names; 2 for the caller of the function that calls this one.
    """
    stacklevel += 1
    used = [old for old in names if old in kwargs]
    if gone := [old for old in used if names[old] is None]:
        deprecated(f"Arguments {gone} of {function}() have no effect any more.", stacklevel)
    for old in gone:
        del kwargs[old]
    renamed = {old: new for old in used if isinstance(new := names[old], str)}
    if renamed:
        changes = ", ".join(f"{old!r} is now {new!r}" for old, new in renamed.items())
        text = f"Renamed arguments of {function}(): {changes}. The older names will be removed."
        deprecated(text, stacklevel)
    for old, new in renamed.items():
        value = kwargs.pop(old)
        if value is None and new in kwargs:  # wrappers pass both, one of them unset
            continue
        if kwargs.get(new) is not None:
            raise TypeError(f"{function}() got {old!r} and {new!r}: two names of one argument.")
        kwargs[new] = value
    for old in used:
        if isinstance(targets := names[old], tuple) and (value := kwargs.pop(old)) is not None:
            text = f"Argument {old!r} of {function}() is now an entry of {' and '.join(targets)}."
            deprecated(text, stacklevel)
            kwargs |= {target: (kwargs.get(target) or {}) | {old: value} for target in targets}


def current(function: str, names: Names, kwargs: dict[str, Any], **arguments: Any) -> list[Any]:
    """The values of `arguments`, where `kwargs` may have them under older names, which leave it.

    Raises:
        TypeError: if one is `REQUIRED` and not given, or is given under both names.
    """
    if not names.keys().isdisjoint(kwargs):
        kwargs |= {name: value for name, value in arguments.items() if value is not REQUIRED}
        update(function, names, kwargs, stacklevel=3)
        arguments = {name: kwargs.pop(name, REQUIRED) for name in arguments}
    if missing := [name for name, value in arguments.items() if value is REQUIRED]:
        raise TypeError(f"{function}() is missing the required argument {missing[0]!r}.")
    return list(arguments.values())


SENTENCES: Names = {"sentences": "inputs"}
PAIRS: dict[str, str | tuple[str, ...] | None] = {
    "sentences": "inputs",
    "activation_fct": "activation_fn",
    "num_workers": None,
}
deprecated_kwargs = legacy  # its name elsewhere


def cross_encoder_init_args_decorator(function: Callable[P, R]) -> Callable[P, R]:
    """The older arguments of the constructor of a cross-encoder."""
    return legacy(
        *("num_labels", "max_length", "activation_fn", "device"),
        after=2,
        model_name="model_name_or_path",
        automodel_args="model_kwargs",
        tokenizer_args="processor_kwargs",
        tokenizer_kwargs="processor_kwargs",
        config_args="config_kwargs",
        cache_dir="cache_folder",
        default_activation_function="activation_fn",
        classifier_dropout=("config_kwargs",),
    )(function)


def cross_encoder_predict_rank_args_decorator(function: Callable[P, R]) -> Callable[P, R]:
    """The older arguments of `predict` and `rank`; those that the function itself takes are left to it."""
    gone = dict.fromkeys(("apply_softmax", "convert_to_numpy", "convert_to_tensor"))
    known = inspect.signature(function).parameters
    return legacy(**{name: target for name, target in (PAIRS | gone).items() if name not in known})(function)


def transformer_kwargs_decorator(function: Callable[P, R]) -> Callable[P, R]:
    """The older arguments of the constructor of a `Transformer`."""
    return legacy(
        model_args="model_kwargs",
        tokenizer_args="processor_kwargs",
        config_args="config_kwargs",
        cache_dir=("model_kwargs", "processor_kwargs", "config_kwargs"),
    )(function)
