"""From texts to tokens to features, for modules that read text with a transformers tokenizer.

    texts -> ragged tokens (nothing padded)     `tokens`, which the engine plans by
          -> packed or padded features          `features`

A private copy of the tokenizer does the cutting, so that any number of threads may use it. Texts longer than
`max_seq_length` are cut; the first time that happens a warning says how many.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sentence_transformers.backends.origin import TokenizerFile
from sentence_transformers.inference.packing import Packing, pad_rows
from sentence_transformers.inference.tokens import BatchTokenizer, Tokens
from sentence_transformers.modules.base import InputModule
from sentence_transformers.modules.chat import ChatPairs

logger = logging.getLogger(__name__)


class TextInput(InputModule):
    """The tokenising part of a module.

    Attributes:
        max_seq_length: most tokens per text, special tokens included.
        query_length, document_length: the same for one side of a search, if set.
        processing_kwargs: {"text": {"add_special_tokens": …}, "chat_template": {…}}.
    """

    max_seq_length: int | None
    query_length: int | None
    document_length: int | None
    processing_kwargs: dict[str, Any]
    _cutter: Any
    _tokenizer: Any
    chats: Any = False
    position_offset: Any = 0

    def preprocess(
        self,
        inputs: Sequence[Any],
        prompt: str | None = None,
        processing_kwargs: dict[str, Any] | None = None,
        task: str | None = None,
        **kwargs,
    ) -> dict[str, Any]:
        """Texts, or (text, text) pairs, as a padded batch.

        Returns:
            input_ids and attention_mask, int64 of shape (B, L); token_type_ids where the model has segments;
            prompt_length, if there is a prompt.
        """
        return self.features(self.tokens(inputs, prompt, task=task), packed=False)

    def tokens(self, inputs: Sequence[Any], prompt: str | None = None, task: str | None = None) -> Tokens:
        """Texts, or (text, text) pairs, as one unpadded run of tokens; `prompt` is put before each text."""
        if self.chats and inputs and not isinstance(inputs[0], str):
            chat = ChatPairs(self.tokenizer, self.processing_kwargs.get("chat_template", {}), self.max_seq_length)
            return self._report(self.batch_tokenizer(task, special=False)(chat(inputs, prompt)))
        tokenizer = self.batch_tokenizer(task)
        if not prompt:
            return self._report(tokenizer(inputs))
        if inputs and isinstance(inputs[0], str):
            return self._report(tokenizer([prompt + text for text in inputs], self.prompt_length(tokenizer, prompt)))
        return self._report(tokenizer([(prompt + first, second) for first, second in inputs]))

    def features(self, tokens: Tokens, packed: bool, device: torch.device | str = "cpu") -> dict[str, Any]:
        """Tokens as a packed or padded batch on `device`."""
        ids = torch.from_numpy(tokens.ids)
        types = None if tokens.type_ids is None else torch.from_numpy(tokens.type_ids)
        features: dict[str, Any] = {"modality": "text"}
        if tokens.prompt_length:
            features["prompt_length"] = tokens.prompt_length
        packing = Packing(tokens.lengths, device)
        if packed:
            features |= {"packing": packing, "input_ids": ids.to(device, non_blocking=True)}
            features["position_ids"] = packing.positions + self.position_offset
            if types is not None:
                features["token_type_ids"] = types.to(device, non_blocking=True)
            return features
        packing = Packing(tokens.lengths)
        left = getattr(self._cutter, "padding_side", "right") == "left"
        steps = torch.arange(packing.longest)
        features["input_ids"] = pad_rows(ids, packing, self.padding_id)
        features["attention_mask"] = (steps[None, :] < packing.lengths_tensor[:, None]).long()
        if types is not None:
            features["token_type_ids"] = pad_rows(types, packing)
        elif "token_type_ids" in self._cutter.model_input_names:
            features["token_type_ids"] = torch.zeros_like(features["input_ids"])
        for key in ("input_ids", "attention_mask", "token_type_ids"):
            if key in features:
                features[key] = (shift_left(features[key], packing) if left else features[key]).to(device)
        return features

    def batch_tokenizer(self, task: str | None = None, special: bool | None = None) -> BatchTokenizer:
        """The private copy of the tokenizer; one per tokenizer, length and task.

        Args:
            special: whether special tokens are added; default: as the model's settings say.
        """
        limit = {"query": self.query_length, "document": self.document_length}.get(task or "") or self.max_seq_length
        cutter = self._cutter
        if special is None:
            special = self.processing_kwargs.get("text", {}).get("add_special_tokens", True)
        key = (len(cutter), limit, special)
        kept = self.__dict__.get("_batch_tokenizer")
        if kept is None or kept[0] is not cutter or kept[1] != key:
            with_types = "token_type_ids" in cutter.model_input_names
            kept = self.__dict__["_batch_tokenizer"] = (cutter, key, BatchTokenizer(cutter, limit, special, with_types))
        return kept[2]

    def id_to_tokens(self, ids: Sequence[int]) -> list[str]:
        if isinstance(self._tokenizer, TokenizerFile):
            return [self._tokenizer.backend_tokenizer.id_to_token(i) for i in ids]
        return super().id_to_tokens(ids)

    def prompt_length(self, tokenizer: BatchTokenizer, prompt: str) -> int:
        """Tokens that the prompt takes at the start of a text, without the closing special token."""
        ids = tokenizer([prompt]).ids
        closing = len(ids) and int(ids[-1]) in (self._cutter.sep_token_id, self._cutter.eos_token_id)
        return len(ids) - int(bool(closing))

    def _report(self, tokens: Tokens) -> Tokens:
        """Say once per model that texts were cut."""
        if tokens.cut and not self.__dict__.get("_cut_reported"):
            self.__dict__["_cut_reported"] = True
            logger.warning(
                "%d of %d texts are longer than max_seq_length = %s tokens and were cut. "
                "Raise `model.max_seq_length` if the model allows it, or split the texts. (Said once per model.)",
                tokens.cut,
                len(tokens),
                self.max_seq_length,
            )
        return tokens

    @property
    def padding_id(self) -> int:
        """Token that fills up padded batches."""
        return getattr(self._cutter, "pad_token_id", None) or 0


def shift_left(tensor: Tensor, packing: Packing) -> Tensor:
    """Move the padding of a right-padded (B, L) tensor to the left."""
    gaps = tensor.shape[1] - packing.lengths_tensor[:, None]
    return tensor.gather(1, (torch.arange(tensor.shape[1])[None, :] - gaps) % tensor.shape[1])
