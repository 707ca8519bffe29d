"""Pairs for a chat model: one message per text, rendered by the model's chat template.

    [{"role": "system", "content": prompt}], {"role": "query", "content": q}, {"role": "document", "content": d}

A template that leaves one of the two texts out cannot score pairs, which is found out before any pair is rendered. A
rendered pair that is too long loses tokens of its longer text, so that the end of the template, where the model
answers, is never cut off.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sentence_transformers.errors import InputError

Pair = tuple[str, str]
MARKS = ("first-of-two-texts", "second-of-two-texts")


class ChatPairs:
    """Renders pairs of texts.

    Args:
        tokenizer: a transformers tokenizer with a chat template.
        kwargs: further arguments of `apply_chat_template`.
        max_length: tokens that a rendered pair may have; None for no limit.

    Raises:
        InputError: if the template does not show both texts.
    """

    def __init__(self, tokenizer: Any, kwargs: dict[str, Any], max_length: int | None) -> None:
        self.tokenizer, self.kwargs, self.max_length = tokenizer, kwargs, max_length
        shown = self.render(MARKS, None)
        if missing := [role for role, mark in zip(("query", "document"), MARKS, strict=True) if mark not in shown]:
            raise InputError(
                f"The chat template does not show the message of role {' and '.join(map(repr, missing))}, so pairs "
                "cannot be scored. Set tokenizer.chat_template to one that shows messages of the roles 'query' and "
                "'document'."
            )

    def __call__(self, pairs: Sequence[Pair], prompt: str | None = None) -> list[str]:
        """Pairs as the texts that the model reads."""
        return [self.fitted(pair, prompt) for pair in pairs]

    def render(self, pair: Pair, prompt: str | None) -> str:
        messages = [{"role": "system", "content": prompt}] if prompt else []
        messages += [{"role": "query", "content": pair[0]}, {"role": "document", "content": pair[1]}]
        return self.tokenizer.apply_chat_template(messages, tokenize=False, **self.kwargs)

    def fitted(self, pair: Pair, prompt: str | None) -> str:
        """The rendered pair, its longer text cut until it fits."""
        text = self.render(pair, prompt)
        if self.max_length is None or len(text) <= self.max_length:  # a token has at least one character
            return text
        for _ in range(4):  # cutting a text may change how its end is cut into tokens
            surplus = self.count(text) - self.max_length
            if surplus <= 0:
                break
            pair = self.shorten(pair, surplus)
            text = self.render(pair, prompt)
        return text

    def count(self, text: str) -> int:
        return len(self.ids(text))

    def ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]

    def shorten(self, pair: Pair, surplus: int) -> Pair:
        """Take `surplus` tokens away, longest text first."""
        ids = [self.ids(text) for text in pair]
        lengths = [len(part) for part in ids]
        longer = 0 if lengths[0] > lengths[1] else 1
        difference = lengths[longer] - lengths[1 - longer]
        rest = max(surplus - difference, 0)
        taken = [0, 0]
        taken[longer] = min(surplus, difference) + (rest + 1) // 2
        taken[1 - longer] = rest // 2
        first, second = (
            self.tokenizer.decode(part[: max(len(part) - gone, 0)]) if gone else text
            for part, gone, text in zip(ids, taken, pair, strict=True)
        )
        return first, second
