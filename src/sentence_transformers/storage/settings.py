"""Settings of a module from its JSON file, checked against the constructor they are meant for.

The annotations of the constructor say what is expected; a value that does not fit is named with its file and its key.
Constructors from outside this library are called as they are.
"""

from __future__ import annotations

import collections.abc
import inspect
import types
import typing
from functools import cache
from typing import Any, Literal, Union

from sentence_transformers.errors import ModelFormatError
from sentence_transformers.storage.files import reading
from sentence_transformers.util.whose_code import OWN, is_foreign

SIMPLE = {
    int: "a whole number of at least 0",
    float: "a number",
    bool: "true or false",
    str: "a string",
    dict: "an object",
    list: "a list",
}


def construct(module_class: type, settings: dict[str, Any], file: str, **others: Any) -> Any:
    """A module with the settings of a file.

    Args:
        file: name of the JSON file, for messages.
        others: further arguments, which do not come from the file; settings win over them.

    Raises:
        ModelFormatError: if a setting is missing, unknown, or has the wrong type or value.
    """
    if not is_foreign(module_class.__init__, OWN):  # type: ignore[misc]
        check_settings(argument_types(module_class), settings, file)
        missing = [name for name in required(module_class) if name not in settings | others]
        if missing:
            raise ModelFormatError(
                f"{file} lacks {missing}, which a {module_class.__name__} needs; it has {sorted(settings)}."
            )
        with reading(file):
            return module_class(**others | settings)
    return module_class(**others | settings)


def required(module_class: type) -> list[str]:
    """Arguments of a constructor that have no default."""
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = inspect.signature(module_class).parameters.values()
    return [p.name for p in parameters if p.default is p.empty and p.kind not in kinds]


def check_settings(hints: dict[str, Any], settings: dict[str, Any], file: str) -> None:
    """Raise `ModelFormatError` if a setting's value does not fit the annotation under its name."""
    for key, value in settings.items():
        if key in hints and not fits(value, hints[key]):
            raise ModelFormatError(f"{file}: {key} is {value!r:.80}; expected {described(hints[key])}.")


@cache
def argument_types(module_class: type) -> dict[str, Any]:
    """Argument -> annotation of a constructor; without those that cannot be evaluated."""
    function = inspect.unwrap(module_class.__init__)  # type: ignore[misc]
    names = {name: value for name, value in function.__annotations__.items() if name != "return"}
    found = {}
    for name, annotation in names.items():
        try:
            holder = types.SimpleNamespace(__annotations__={name: annotation})
            found[name] = typing.get_type_hints(holder, function.__globals__)[name]
        except (NameError, TypeError):
            continue
    return found


def fits(value: object, hint: Any) -> bool:
    """Whether a value of a JSON file has the type of an annotation; anything fits an annotation without JSON form."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return any(fits(value, part) for part in parts)
    if origin is Literal:
        return value in parts
    if origin in (list, collections.abc.Sequence, tuple):
        return isinstance(value, (list, tuple)) and all(fits(item, parts[0] if parts else Any) for item in value)
    if origin is dict or origin is collections.abc.Mapping:
        return isinstance(value, dict) and all(fits(item, parts[1]) for item in value.values())
    if hint is type(None):
        return value is None
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool) and value >= 0
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, hint) if hint in SIMPLE else True


def described(hint: Any) -> str:
    """An annotation in words."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(described(part) for part in parts))
    if origin is Literal:
        return "one of " + ", ".join(map(repr, parts))
    if origin in (list, collections.abc.Sequence, tuple):
        return f"a list ({described(parts[0])} each)" if parts else "a list"
    if origin in (dict, collections.abc.Mapping):
        return "an object"
    return "null" if hint is type(None) else SIMPLE.get(hint, getattr(hint, "__name__", str(hint)))
