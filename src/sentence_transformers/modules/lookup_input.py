"""Texts to tokens for modules that look each token up in a table: without special tokens, nothing padded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sentence_transformers.engine.inputs import as_batch, as_inputs, with_prompt
from sentence_transformers.engine.tokenization import BatchTokenizer, Tokens, settings_of
from sentence_transformers.modules.base import InputModule
from sentence_transformers.modules.tokenizer_kwargs import calls_as_transformers

if TYPE_CHECKING:
    from sentence_transformers.protocols import AnyTokenizer


class LookupInput(InputModule):
    """The tokenising part of a module."""

    modalities: Sequence[str] = ["text"]
    takes_packed = True
    packs = True

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_batch_tokenizer"}

    def limit(self) -> int | None:
        """Most tokens of a text; None for any number."""
        return None

    def tokens(self, inputs: Sequence[str], prompt: str | None = None, task: str | None = None) -> Tokens:
        """Texts as one run of tokens, without special tokens."""
        texts = as_inputs(as_batch(inputs))
        texts = with_prompt(texts, prompt) if prompt else texts
        own = cut_by_itself(self.tokenizer, texts, self.limit())
        return self.reader(task)(texts) if own is None else Tokens.from_lists(own)

    def reader(self, task: str | None = None) -> BatchTokenizer:
        """What cuts the texts: a private copy of the tokenizer, made anew when that or the limit has changed."""
        tokenizer, limit = self.tokenizer, self.limit()
        settings = (settings_of(tokenizer), limit)
        owner, made_for, found = self.__dict__.get("_batch_tokenizer", (None, None, None))
        if owner is not tokenizer or made_for != settings:
            found = BatchTokenizer(tokenizer, limit, special_tokens=False)
            self.__dict__["_batch_tokenizer"] = (tokenizer, settings, found)
        return found


def cut_by_itself(tokenizer: AnyTokenizer, texts: list[str], limit: int | None) -> list[list[int]] | None:
    """The token ids of texts by a tokenizer whose methods are not those of the libraries; None for those.

    Called is `encode_batch` where there is one, else the tokenizer.
    """
    from tokenizers import Tokenizer

    if type(tokenizer) is Tokenizer:
        return None
    if hasattr(tokenizer, "encode_batch"):
        return [encoding.ids for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)]
    if calls_as_transformers(tokenizer):
        return None
    length = {} if limit is None else {"truncation": True, "max_length": limit}
    return tokenizer(texts, add_special_tokens=False, **length)["input_ids"]
