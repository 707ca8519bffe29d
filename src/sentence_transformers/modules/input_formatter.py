"""Inputs by kind, and as messages of a chat template: for modules of one's own.

    formatter = InputFormatter("qwen3", processor=tokenizer)
    formatter.parse_inputs(["a", "b"])         ("text", {"text": ["a", "b"]}, {})
    formatter.to_message({"text": "a"})        [{"role": "user", "content": …}]

`content` is a string ("flat") or a list of parts {"type": "text", "text": …} ("structured"), as the template reads it.
`Transformer.input_formatter` is the one of a loaded module, which itself renders texts by `modules.chat`.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from sentence_transformers.engine.inputs import is_conversation, is_message, with_prompt
from sentence_transformers.errors import InputError
from sentence_transformers.modules.chat import ROLES, Chat, is_text_part, message_format
from sentence_transformers.modules.modality import (
    MULTIMODAL_DICT_KEYS,
    MessageFormat,
    Modality,
    infer_batch_modality,
    infer_modality,
)

logger = logging.getLogger(__name__)

Messages = list[dict[str, Any]]


@dataclass(frozen=True)
class InputFormatter:
    """Sorts inputs by kind and turns them into messages.

    Args:
        model_type: of the transformers config, as "bert".
        message_format: "structured", "flat", or "auto" (default): as the chat template of `processor` reads it.
        processor: a tokenizer or processor with a chat template.
        supported_modalities: kinds that the model takes; paths and URLs of other kinds are texts then.
    """

    model_type: str | None
    message_format: MessageFormat = "auto"
    processor: Any = None
    supported_modalities: Sequence[Any] | None = None

    def __post_init__(self) -> None:
        if self.message_format == "auto":
            form = message_format(getattr(self.processor, "chat_template", None), self.model_type)
            object.__setattr__(self, "message_format", form)
        elif self.message_format not in ("structured", "flat"):
            raise InputError(f"message_format must be 'auto', 'structured' or 'flat', got {self.message_format!r:.80}.")

    def parse_inputs(self, inputs: Sequence[Any]) -> tuple[Any, dict[Any, list[Any]], defaultdict[str, dict[str, Any]]]:
        """Inputs by kind.

        Returns:
            The kind of all ("message" if they are of several, and if there are pairs other than of texts); for each
            kind the values of all inputs; for each kind what the processor has to know, such as `sampling_rate`.

        Raises:
            InputError: for an input of no kind, and sounds of different sampling rates.
        """
        extra: defaultdict[str, dict[str, Any]] = defaultdict(dict)
        pairs = [not is_text_pair(item) and is_pair(item) for item in inputs]
        kind = "message" if any(pairs) else infer_batch_modality(inputs, self.supported_modalities)
        if kind == "message":
            return kind, {"message": [self._messages(item, extra) for item in inputs]}, extra
        values: dict[Any, list[Any]] = {}
        for item in inputs:
            for part, value in self._typed(item, extra).items():
                values.setdefault(part, []).append(value)
        return kind, values or {kind: []}, extra

    def _messages(self, item: object, extra: defaultdict[str, dict[str, Any]]) -> Messages:
        if is_message(item):
            return [item]
        if is_conversation(item):
            return item
        return self.pair_to_messages(item) if is_pair(item) else self.to_message(self._typed(item, extra))

    def _typed(self, item: object, extra: defaultdict[str, dict[str, Any]]) -> dict[str, Any]:
        """An input as a dictionary of its kinds; what else it says goes into `extra`."""
        kind = infer_modality(item, self.supported_modalities)
        parts = dict(item) if isinstance(item, dict) and item.keys() <= MULTIMODAL_DICT_KEYS else {kind: item}
        for part, value in parts.items():
            if not isinstance(value, dict) or "array" not in value:
                continue
            parts[part] = value["array"]
            rest = {key: known for key, known in value.items() if key != "array"}
            if part == "video":
                extra[part].setdefault("video_metadata", []).append(rest.get("video_metadata"))
            elif extra[part].setdefault("sampling_rate", rest.get("sampling_rate")) != rest.get("sampling_rate"):
                raise InputError(
                    f"The sounds of a batch have the sampling rates {extra[part]['sampling_rate']} and "
                    f"{rest.get('sampling_rate')}; a processor takes one. Resample them, or encode them apart."
                )
        return parts

    def to_message(self, typed_input: dict[str, Any], role: str = "user") -> Messages:
        """One input of one kind or several, {kind: value or list of values}, as one message."""
        if self.message_format == "flat":
            if len(typed_input) == 1:
                return [{"role": role, "content": next(iter(typed_input.values()))}]
            logger.warning("A flat message holds one value; the input has %s. It is structured.", list(typed_input))
        parts = [
            {"type": kind, kind: one}
            for kind, value in typed_input.items()
            for one in (value if isinstance(value, (list, tuple)) and kind not in ("video", "message") else [value])
        ]
        return [{"role": role, "content": parts}]

    def pair_to_messages(self, pair: Sequence[Any]) -> Messages:
        """A pair of inputs as the messages of query and document."""
        extra: defaultdict[str, dict[str, Any]] = defaultdict(dict)
        typed = [self._typed(half, extra) for half in pair]
        return [self.to_message(half, role)[0] for half, role in zip(typed, ROLES, strict=True)]

    def batch_to_message(
        self, modality: Modality, processor_inputs: dict[str, list[Any]]
    ) -> tuple[str, dict[str, Any]]:
        """What `parse_inputs` found, as messages: ("message", {"message": [messages of each input]})."""
        kinds = [modality] if isinstance(modality, str) else [kind for kind in processor_inputs if kind in modality]
        rows = zip(*(processor_inputs[kind] for kind in kinds), strict=True)
        if kinds == ["message"]:
            return "message", {"message": [messages for (messages,) in rows]}
        return "message", {
            "message": [
                self.pair_to_messages(row[0])
                if kinds == ["text"] and is_text_pair(row[0])
                else self.to_message(dict(zip(kinds, row, strict=True)))
                for row in rows
            ]
        }

    def normalize_messages(self, messages: Messages) -> Messages:
        """Messages whose content has the form that the template reads, as far as it can have; other keys stay."""
        return [self._chat().formed(message) for message in messages]

    def prepend_prompt_to_messages(self, messages: list[Messages], prompt: str) -> list[Messages]:
        """Conversations with a system message before each."""
        return [[*self.to_message({"text": prompt}, "system"), *conversation] for conversation in messages]

    def prepend_prompt_to_texts(self, texts: Sequence[Any], prompt: str) -> list[Any]:
        """Texts with a prompt before each, before the first text of a pair; pairs become lists."""
        return [item if isinstance(item, str) else list(item) for item in with_prompt(texts, prompt)]

    def has_pair_roles(self, messages_batch: Sequence[Messages]) -> bool:
        """Whether a conversation has messages of both roles of a pair."""
        return any(set(ROLES) <= {message["role"] for message in messages} for messages in messages_batch)

    def pair_roles_failure(self, chat_template_kwargs: dict[str, Any] | None = None) -> str | None:
        """Why the chat template cannot show both texts of a pair; None if it can.

        Args:
            chat_template_kwargs: further arguments of `apply_chat_template`.
        """
        if getattr(self.processor, "chat_template", None) is None:
            return "the model has no chat template"
        return self._chat(chat_template_kwargs).pair_failure()

    def _chat(self, kwargs: dict[str, Any] | None = None) -> Chat:
        return Chat(self.processor, self.message_format, kwargs or {})  # type: ignore[arg-type]

    @staticmethod
    def is_text_pair(value: object) -> bool:
        """Whether an input is a pair of texts."""
        return is_text_pair(value)

    @staticmethod
    def is_text_only_messages(messages_batch: Sequence[Messages]) -> bool:
        """Whether all messages hold text only."""
        contents = [message["content"] for messages in messages_batch for message in messages]
        return all(
            isinstance(content, str) or (isinstance(content, list) and all(map(is_text_part, content)))
            for content in contents
        )


def is_pair(value: object) -> TypeGuard[Sequence[Any]]:
    """Whether an input is a pair of inputs of whatever kind."""
    return isinstance(value, (tuple, list)) and len(value) == 2 and not any(is_message(half) for half in value)


def is_text_pair(value: object) -> bool:
    return is_pair(value) and all(isinstance(half, str) for half in value)
