"""What an input may be, and the one form that each kind has inside.

    a text           "…" or {"text": "…"}                                            -> str
    a pair           ("…", "…"), ["…", "…"], a row of a two-dimensional array of strings,
                     or halves and wholes of the form {"text": …}                    -> (str, str)
    a conversation   {"role": …, "content": …} or a list of them, for models with a chat template   -> list

Anything else is an `InputError` that names the position and the type, before anything is computed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias, TypeGuard

import numpy as np

from sentence_transformers.errors import InputError

MODALITIES = ("text", "image", "audio", "video")
Pair: TypeAlias = tuple[str, str]
OneInput: TypeAlias = str | Mapping[str, Any]  # {"text": "…"}, and {route: text} for a `Router`
PairInput: TypeAlias = tuple[OneInput, OneInput] | list[str] | Sequence[Mapping[str, Any]]
AnyInput: TypeAlias = OneInput | PairInput  # a list of messages too
Conversation: TypeAlias = list[dict[str, Any]]


def is_message(value: object) -> TypeGuard[dict[str, Any]]:
    """Whether a value is one message of a conversation."""
    return isinstance(value, dict) and "role" in value and "content" in value


def is_conversation(value: object) -> TypeGuard[Conversation]:
    """Whether a value is a list of messages."""
    return isinstance(value, list) and bool(value) and is_message(value[0])


def names_route(value: object) -> bool:
    """Whether a value is of the form {route: input} of a `Router`, as older models take it."""
    return isinstance(value, dict) and bool(value) and not is_message(value) and not value.keys() & set(MODALITIES)


def as_batch(inputs: AnyInput | Iterable[AnyInput]) -> list[Any]:
    """The inputs of a `preprocess` as a list; a bare text is one."""
    return [inputs] if isinstance(inputs, (str, bytes, dict)) else list(inputs)


def as_inputs(inputs: Sequence[Any], messages: bool = False, first: int = 0) -> list[Any]:
    """Inputs in the form that they have inside.

    Args:
        messages: whether conversations are among the inputs that the model takes.
        first: number of the first input, for error messages.

    Raises:
        InputError: naming the first input that is neither text, pair nor, with `messages`, conversation.
    """
    if all(type(item) is str for item in inputs):
        return inputs if isinstance(inputs, list) else list(inputs)
    return [as_input(item, i, messages) for i, item in enumerate(inputs, first)]


def as_input(item: object, place: int, messages: bool) -> str | Pair | Conversation:
    """One input in the form that it has inside; see `as_inputs`."""
    text = as_text(item)
    if text is not None:
        return text
    conversation = [item] if is_message(item) else item
    if is_conversation(conversation) and messages:
        return checked_conversation(conversation, place)
    raise InputError(f"Input {place} is {item!r:.80} of type {type_of(item)}; {advice(item, messages)}")


def as_text(item: object) -> str | Pair | None:
    """A text or a pair of texts; None if the item is neither."""
    if isinstance(item, str):
        return item
    if isinstance(item, dict):
        return as_text(item["text"]) if item.keys() == {"text"} else None
    if isinstance(item, (tuple, list)) or (isinstance(item, np.ndarray) and item.ndim == 1):
        halves = [as_text(half) for half in item] if len(item) == 2 else []
        if len(halves) == 2 and all(isinstance(half, str) for half in halves):
            return str(halves[0]), str(halves[1])
    return None


def with_prompt(inputs: Sequence[Any], prompt: str) -> list[Any]:
    """Texts and pairs with a prompt before each; before the first text of a pair."""
    return [prompt + item if isinstance(item, str) else (prompt + item[0], item[1]) for item in inputs]


def checked_conversation(messages: Conversation, place: int) -> Conversation:
    """The messages, or `InputError` naming one without role or content."""
    for i, message in enumerate(messages):
        if not is_message(message):
            raise InputError(
                f"Message {i} of input {place} is {message!r:.80}; expected a dictionary with 'role' and 'content'."
            )
    return messages


def type_of(item: object) -> str:
    """The type of an input, and of what a list of two holds instead of texts."""
    name = type(item).__name__
    if isinstance(item, (tuple, list)) and item:
        name += f" of {', '.join(dict.fromkeys(type(part).__name__ for part in item))}"
    return name


def advice(item: object, messages: bool) -> str:
    """What is expected in the place of an input that cannot be used."""
    if is_message(item) or is_conversation(item):
        return (
            "this model takes no conversations (messages with 'role' and 'content'), as it has no chat template. "
            "Give the text itself."
        )
    if isinstance(item, dict) and (unknown := sorted(map(str, item.keys() - {"text"}))):
        return f"the keys {unknown} are none that this model takes. Give a string or {{'text': '…'}}."
    kinds = "a string, a pair of strings" + (" or a list of messages" if messages else "")
    return f"expected a string. Give {kinds}, or a list of those; convert or drop other values first."


def routed(inputs: Iterable[Any], routes: Iterable[str]) -> tuple[list[Any], str | None]:
    """Inputs of the form {route: input}, without the route, and the route; other inputs as they are, and None.

    Raises:
        InputError: if some name another route than others, or none, or one that is not there.
    """
    items = list(inputs)
    if not any(names_route(item) for item in items):
        return items, None
    found = sorted({str(key) for item in items if isinstance(item, dict) for key in item})
    if len(found) != 1 or not all(names_route(item) for item in items):
        others = "" if all(isinstance(item, dict) for item in items) else " and inputs that name none"
        raise InputError(
            f"The inputs name the routes {found}{others}; all inputs of a call must name one and the same, as "
            "[{'query': '…'}, {'query': '…'}]. Encode each route in a call of its own, or pass plain inputs and task=…."
        )
    if found[0] not in set(routes):
        raise InputError(f"The inputs name the route {found[0]!r}; this model has the routes {list(routes)}.")
    return [item[found[0]] for item in items], found[0]
