"""A small language of filters over metadata: plain dictionaries, as they come out of JSON.

    {"lang": "en"}                                     equal
    {"year": {">=": 2000, "<": 2010}}                  all of the comparisons of a field
    {"lang": {"in": ["en", "de"]}, "draft": False}     all of the fields
    {"or": [{"lang": "en"}, {"year": {">": 2020}}]}    any of the filters; "and" likewise
    {"not": {"tags": {"contains": "old"}}}             not the filter

    ==  !=  <  <=  >  >=       equal, in order: numbers with numbers, strings with strings
    in  not in                 equal to one of a list
    contains                   a list that has the value, or a string that has it as a part
    exists                     True: the document has the field; False: it has not

A document without the field fulfils no comparison, but "!=", "not in" and {"exists": False}. A comparison of things of
different kinds, such as a string with a number, is not fulfilled. `None` is a value like others. True is not 1.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from sentence_transformers.errors import InputError

Mask = TypeVar("Mask")
ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
OPERATORS = ("==", "!=", *ORDER, "in", "not in", "contains", "exists")
COMBINE = ("and", "or", "not")


class Missing:
    """The value of a field that a document does not have."""


MISSING = Missing()


@dataclass(frozen=True)
class Condition:
    """One comparison of one field."""

    field: str
    operator: str
    value: Any

    def holds(self, found: object) -> bool:
        """Whether a value, or MISSING, fulfils it."""
        if self.operator == "exists":
            return (found is not MISSING) == self.value
        if self.operator in ("!=", "not in"):
            return not self._positive(found)
        return self._positive(found)

    def _positive(self, found: object) -> bool:
        if found is MISSING:
            return False
        if self.operator in ("==", "!="):
            return same(found, self.value)
        if self.operator in ("in", "not in"):
            return any(same(found, one) for one in self.value)
        if self.operator == "contains":
            return contains(found, self.value)
        return kind(found) == kind(self.value) and ORDER[self.operator](found, self.value)


@dataclass(frozen=True)
class Combined:
    """Several filters: "and", "or", or "not" of one."""

    operator: str
    parts: tuple[Any, ...]


Filter = Condition | Combined


def kind(value: object) -> str:
    """What values a value can be in order with."""
    if isinstance(value, bool) or value is None:
        return "none"
    return "number" if isinstance(value, (int, float)) else "string" if isinstance(value, str) else "none"


def same(one: object, other: object) -> bool:
    """Equal, and booleans only with booleans."""
    return isinstance(one, bool) == isinstance(other, bool) and one == other


def contains(found: object, value: object) -> bool:
    """Whether a list has a value or a string has it as a part."""
    if isinstance(found, list):
        return any(same(one, value) for one in found)
    return isinstance(found, str) and isinstance(value, str) and value in found


def parse(given: object) -> Filter:
    """A filter in the form above, checked.

    Raises:
        InputError: saying which part is wrong: an unknown operator, a value that does not fit it, no dictionary.
    """
    if not isinstance(given, Mapping):
        raise InputError(f"A filter is a dictionary such as {{'year': {{'>=': 2000}}}}, got {given!r:.80}.")
    parts = [parse_entry(key, value) for key, value in given.items()]
    return parts[0] if len(parts) == 1 else Combined("and", tuple(parts))


def parse_entry(key: object, value: object) -> Filter:
    """One entry of a filter: a combination, or a field with its comparisons."""
    if not isinstance(key, str):
        raise InputError(f"The keys of a filter are names of fields, got {key!r}.")
    if key == "not":
        return Combined("not", (parse(value),))
    if key in COMBINE:
        if not isinstance(value, (list, tuple)):
            raise InputError(f"{key!r} in a filter takes a list of filters, got {value!r:.80}.")
        return Combined(key, tuple(map(parse, value)))
    comparisons = value if isinstance(value, Mapping) else {"==": value}
    if not comparisons:
        raise InputError(f"The filter of {key!r} is empty; known operators are {', '.join(OPERATORS)}.")
    parts = [condition(key, name, one) for name, one in comparisons.items()]
    return parts[0] if len(parts) == 1 else Combined("and", tuple(parts))


def condition(field: str, name: object, value: object) -> Condition:
    """One comparison, checked."""
    if name not in OPERATORS:
        raise InputError(
            f"Unknown operator {name!r} in the filter of {field!r}; known are {', '.join(OPERATORS)}. "
            'To compare with a dictionary write {"==": {…}}.'
        )
    if name in ORDER and kind(value) == "none":
        raise InputError(f"{name!r} in the filter of {field!r} takes a number or a string, got {value!r:.80}.")
    if name in ("in", "not in"):
        if isinstance(value, (str, bytes, Mapping)) or not hasattr(value, "__iter__"):
            raise InputError(f"{name!r} in the filter of {field!r} takes a list of values, got {value!r:.80}.")
        value = tuple(value)
    if name == "exists" and not isinstance(value, bool):
        raise InputError(f"'exists' in the filter of {field!r} takes True or False, got {value!r:.80}.")
    return Condition(field, name, value)


def fields_of(one: Filter) -> set[str]:
    """The fields that a filter names."""
    return {one.field} if isinstance(one, Condition) else set().union(*map(fields_of, one.parts))


def evaluate(one: Filter, leaf: Callable[[Condition], Mask], everything: Mask) -> Mask:
    """A filter over many documents at once, by masks that know `&`, `|` and `~`.

    Args:
        leaf: the mask of one comparison.
        everything: the mask that is true everywhere.
    """
    if isinstance(one, Condition):
        return leaf(one)
    masks = [evaluate(part, leaf, everything) for part in one.parts]
    if one.operator == "not":
        return ~masks[0]  # type: ignore[operator]
    result = everything if one.operator == "and" else ~everything  # type: ignore[operator]
    for mask in masks:
        result = result & mask if one.operator == "and" else result | mask  # type: ignore[operator]
    return result


def matches(one: Filter, metadata: Mapping[str, Any]) -> bool:
    """Whether one document fulfils a filter: the plain reading of the rules, document by document."""
    if isinstance(one, Condition):
        return one.holds(metadata.get(one.field, MISSING))
    found = [matches(part, metadata) for part in one.parts]
    return not found[0] if one.operator == "not" else all(found) if one.operator == "and" else any(found)
