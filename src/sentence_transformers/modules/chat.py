"""Inputs of a chat model: every input is a conversation, rendered by the model's chat template.

    prompt            [{"role": "system", "content": prompt}]          before the others
    text              {"role": "user", "content": text}
    pair              {"role": "query", "content": q}, {"role": "document", "content": d}
    conversation      as it is

A template is "flat" (content is a string) or "structured" (content is a list of parts {"type": "text", "text": …}).
Special tokens are those of the template alone. A rendered conversation that is too long is cut like any text, and then
the end of the template, which is where the model answers or is pooled, is put back over its last tokens. A template
that leaves one text of a pair out cannot tell pairs apart, which is found out before any pair is rendered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sentence_transformers.engine.inputs import Conversation
from sentence_transformers.errors import InputError

if TYPE_CHECKING:
    from sentence_transformers.engine.inputs import Pair

FLAT_MODELS = ("apertus", "deepseek_v3", "gpt_oss", "seed_oss")
STRUCTURED_MARKS = ("content[0]", ".type", "'type'", '"type"', "item.type", "message.content[")
SHORT = ("alpha", "bravo")  # texts that differ in their first and last tokens
ROLES = ("query", "document")
TRIED = (("alpha", "bravo"), ("charlie", "bravo"), ("alpha", "foxtrot"))
EXAMPLE = (
    '<Query>: {{ messages | selectattr("role", "eq", "query") | map(attribute="content") | first }}\n'
    '<Document>: {{ messages | selectattr("role", "eq", "document") | map(attribute="content") | first }}'
)

Format = Literal["flat", "structured"]


def message_format(template: str | dict[str, str] | None, model_type: str | None) -> Format:
    """The form of content that a chat template reads.

    Args:
        template: of the tokenizer; several by name count as structured.
        model_type: of the transformers config.
    """
    if model_type in FLAT_MODELS:
        return "flat"
    if not isinstance(template, str):
        return "structured"
    return "structured" if any(mark in template for mark in STRUCTURED_MARKS) else "flat"


@dataclass
class Chat:
    """Renders inputs by a chat template.

    Args:
        tokenizer: a transformers tokenizer with a chat template.
        form: of the messages' content.
        kwargs: further arguments of `apply_chat_template`, variables of the template among them.
    """

    tokenizer: Any
    form: Format
    kwargs: dict[str, Any]

    def conversations(self, inputs: Sequence[Any], prompt: str | None = None) -> list[Conversation]:
        """Inputs in their inside form (`engine.inputs`) as conversations.

        Raises:
            InputError: if there are pairs, and the template does not show both texts.
        """
        found = [self.conversation(item, prompt) for item in inputs]
        if any(set(ROLES) <= {message["role"] for message in messages} for messages in found):
            self.check_pairs()
        return found

    def conversation(self, item: str | Pair | Conversation, prompt: str | None = None) -> Conversation:
        """One input as a conversation."""
        if isinstance(item, str):
            messages = [{"role": "user", "content": item}]
        elif isinstance(item, tuple):
            messages = [{"role": role, "content": text} for role, text in zip(ROLES, item, strict=True)]
        else:
            messages = item
        system = [{"role": "system", "content": prompt}] if prompt else []
        return [self.formed(message) for message in [*system, *messages]]

    def formed(self, message: dict[str, Any]) -> dict[str, Any]:
        """A message whose content has the template's form, as far as one text can be either."""
        content = message["content"]
        if self.form == "structured" and isinstance(content, str):
            return message | {"content": [{"type": "text", "text": content}]}
        if self.form == "flat" and isinstance(content, list) and len(content) == 1 and is_text_part(content[0]):
            return message | {"content": content[0]["text"]}
        return message

    def render(self, messages: Conversation) -> str:
        """A conversation as the text that the model reads."""
        return self.tokenizer.apply_chat_template(messages, tokenize=False, **self.kwargs)

    def ending(self, messages: Conversation) -> list[int]:
        """The tokens with which every conversation of these roles ends, whatever its texts are."""
        first, second = (
            self.ids(self.render([self.with_text(message, text) for message in messages])) for text in SHORT
        )
        if first == second:
            return []
        same = 0
        while same < min(len(first), len(second)) and first[-1 - same] == second[-1 - same]:
            same += 1
        return first[len(first) - same :]

    def with_text(self, message: dict[str, Any], text: str) -> dict[str, Any]:
        """The message with another text; what the system says stays."""
        if message["role"] == "system":
            return message
        content = text if isinstance(message["content"], str) else [{"type": "text", "text": text}]
        return message | {"content": content}

    def ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]

    def endings(self, conversations: Sequence[Conversation]) -> list[np.ndarray]:
        """`ending` of each conversation, int64; those of one kind are rendered once."""
        known: dict[Any, np.ndarray] = {}
        found = []
        for messages in conversations:
            key = repr([message if message["role"] == "system" else message["role"] for message in messages])
            if key not in known:
                known[key] = np.array(self.ending(messages), np.int64)
            found.append(known[key])
        return found

    def check_pairs(self) -> None:
        """Raise `InputError` unless both texts of a pair show in what the template renders."""
        if (failure := self.pair_failure()) is not None:
            raise InputError(f"The chat template cannot show pairs: {failure}. {self.repair}")

    def pair_failure(self) -> str | None:
        """Why the template cannot show both texts of a pair; None if it can."""
        try:
            base, *others = [self.render(self.conversation(pair)) for pair in TRIED]
        except Exception as error:  # whatever a template raises
            return f"it raised {type(error).__name__}: {error}"
        lost = [role for role, text in zip(ROLES, others, strict=True) if text == base]
        return f"it does not show the message of role {' and '.join(map(repr, lost))}" if lost else None

    @property
    def repair(self) -> str:
        return (
            "Pairs are messages of the roles 'query' and 'document'; set a chat template that shows both, such as\n"
            f"{EXAMPLE}\nby processor_kwargs={{'chat_template': …}} when loading, model.tokenizer.chat_template = … "
            "afterwards, or a file chat_template.jinja in the model's folder."
        )


def is_text_part(part: object) -> bool:
    return isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)


def put_back(row: np.ndarray, ending: np.ndarray) -> None:
    """Write the end of a template over the last tokens of a row, in place."""
    if len(ending):
        length = min(len(row), len(ending))
        row[len(row) - length :] = ending[len(ending) - length :]
