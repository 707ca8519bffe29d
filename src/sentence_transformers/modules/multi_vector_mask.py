"""MultiVectorMask: which tokens of a text keep a vector.

ColBERT (Khattab and Zaharia 2020, https://arxiv.org/abs/2004.12832) leaves the punctuation of documents out: it says
little and its vectors cost as much as others. `skiplist_words` names such tokens and `skiplist_tasks` the sides that go
without them. With `keep_only_token_ids` all other tokens of the texts go too, but those of queries stay.

    packed   rows of the run are dropped                  token_embeddings (T, H) -> (t, H)
    padded   `attention_mask` becomes 0 at the tokens     (B, L)
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from sentence_transformers.features import Features
from sentence_transformers.modules.base import Module
from sentence_transformers.modules.text_input import known_token_id
from sentence_transformers.util.tensor import repad_flattened_features

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from sentence_transformers.encoders.base import BaseModel

logger = logging.getLogger(__name__)


class MultiVectorMask(Module):
    """Drop tokens that should have no vector.

    Args:
        skiplist_words: tokens to leave out, e.g. punctuation. Those that are not one token of the tokenizer are left
            alone, with a warning.
        skiplist_tasks: sides that go without them; default: ["document"]. Texts that are encoded without a task count
            as documents.
        keep_only_token_ids: ids of the only tokens that texts other than queries keep; None or [] for all.
    """

    config_keys: ClassVar[list[str]] = ["skiplist_words", "skiplist_tasks", "keep_only_token_ids"]
    forward_kwargs: ClassVar[set[str]] = {"task"}
    takes_packed = True

    def __init__(
        self,
        skiplist_words: list[str] | None = None,
        *,
        skiplist_tasks: str | list[str] | None = None,
        keep_only_token_ids: list[int] | None = None,
    ) -> None:
        super().__init__()
        self.skiplist_words = list(skiplist_words or [])
        self.skiplist_tasks = as_tasks(skiplist_tasks)
        self.keep_only_token_ids = keep_only_token_ids
        self._token_id: Callable[[str], int | None] | None = None

    def on_model_ready(self, model: BaseModel) -> None:
        tasks = as_tasks(self.skiplist_tasks)
        first = model[0]
        resolve = getattr(first, "resolve", None)
        module = resolve(tasks[0]) if tasks and resolve is not None else first
        if (token_id := getattr(module, "token_id", None)) is not None:
            self._look_up(token_id)
        elif self.skiplist_words:
            self.resolve_with_tokenizer(model.tokenizer)

    def resolve_with_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Look the ids of the words up in a transformers tokenizer; done when the module becomes part of a model."""
        self._look_up(functools.partial(known_token_id, tokenizer))

    def _look_up(self, token_id: Callable[[str], int | None]) -> None:
        """Use the ids that a tokenizer has for the words, now and then."""
        self._token_id = token_id
        missing = [word for word in self.skiplist_words if token_id(word) is None]
        if missing and self.skiplist_tasks:
            logger.warning("Words %s of the skiplist are not tokens of this tokenizer and are left alone.", missing)

    @property
    def _skipped(self) -> list[int]:
        """Ids of the words that are left out."""
        found = map(self._token_id, self.skiplist_words) if self._token_id is not None else ()
        return [token for token in found if token is not None]

    def forward(self, features: dict[str, Any], task: str | None = None, **kwargs) -> dict[str, Any]:
        features = repad_flattened_features(features)
        dropped = self._dropped(features["input_ids"], task)
        if dropped is None:
            return features
        return features | Features.of(features).keep(~dropped)

    def _dropped(self, ids: Tensor, task: str | None) -> Tensor | None:
        """Where the tokens are that go; None if all stay."""
        dropped = None
        applies = self.skiplist_words and (task or "document") in as_tasks(self.skiplist_tasks)
        if applies and (skipped := self._skipped):
            dropped = torch.isin(ids, torch.tensor(skipped, device=ids.device))
        if self.keep_only_token_ids and task != "query":
            others = ~torch.isin(ids, torch.tensor(self.keep_only_token_ids, device=ids.device))
            dropped = others if dropped is None else dropped | others
        return dropped


def as_tasks(tasks: str | list[str] | None) -> list[str]:
    """Names of sides as a list; documents by default."""
    if tasks is None:
        return ["document"]
    return [tasks] if isinstance(tasks, str) else list(tasks)
