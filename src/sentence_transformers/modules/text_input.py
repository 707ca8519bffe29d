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
from sentence_transformers.errors import InputError
from sentence_transformers.inference.packing import Packing, pad_rows
from sentence_transformers.inference.tokens import BatchTokenizer, Tokens
from sentence_transformers.modules import query_expansion
from sentence_transformers.modules.base import InputModule
from sentence_transformers.modules.chat import ChatPairs

logger = logging.getLogger(__name__)

MOST_TOKENIZERS = 2  # kept ready: one for each side of a search


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
    _query_expansion: dict[str, Any] | None = None
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
        max_length: int | None = None,
        **kwargs,
    ) -> dict[str, Any]:
        """Texts, or (text, text) pairs, as a padded batch.

        Args:
            max_length: most tokens of a text, in the place of the model's own limit; an expanded query of fixed length
                stays as long as it is.

        Returns:
            input_ids and attention_mask, int64 of shape (B, L); token_type_ids where the model has segments;
            prompt_length, if there is a prompt.
        """
        return self.features(self.tokens(inputs, prompt, task=task, max_length=max_length), packed=False)

    def tokens(
        self,
        inputs: Sequence[Any],
        prompt: str | None = None,
        task: str | None = None,
        max_length: int | None = None,
    ) -> Tokens:
        """Texts, or (text, text) pairs, as one unpadded run of tokens; `prompt` is put before each text."""
        limit = self.limit(task, max_length)
        tokens = self._report(self._cut(inputs, prompt, limit), limit)
        expansion = self.query_expansion if task == "query" else None
        if expansion is None:
            return tokens
        return tokens.fill(expansion["length"], self.expansion_token(), expansion["attend"])

    def _cut(self, inputs: Sequence[Any], prompt: str | None, limit: int | None) -> Tokens:
        """Texts as tokens, before anything is added to them."""
        if self.chats and inputs and not isinstance(inputs[0], str):
            chat = ChatPairs(self.tokenizer, self.processing_kwargs.get("chat_template", {}), self.max_seq_length)
            return self.batch_tokenizer(limit, special=False)(chat(inputs, prompt))
        tokenizer = self.batch_tokenizer(limit)
        if not prompt:
            return tokenizer(inputs)
        if inputs and isinstance(inputs[0], str):
            return tokenizer([prompt + text for text in inputs], self.prompt_length(tokenizer, prompt))
        return tokenizer([(prompt + first, second) for first, second in inputs])

    def features(self, tokens: Tokens, packed: bool, device: torch.device | str = "cpu") -> dict[str, Any]:
        """Tokens as a packed or padded batch on `device`."""
        ids = torch.from_numpy(tokens.ids)
        types = None if tokens.type_ids is None else torch.from_numpy(tokens.type_ids)
        features: dict[str, Any] = {"modality": "text"}
        if tokens.prompt_length:
            features["prompt_length"] = tokens.prompt_length
        packing = Packing(tokens.lengths, device, tokens.seen)
        if packed:
            features |= {"packing": packing, "input_ids": ids.to(device, non_blocking=True)}
            features["position_ids"] = packing.positions + self.position_offset
            if types is not None:
                features["token_type_ids"] = types.to(device, non_blocking=True)
            return features
        packing = Packing(tokens.lengths)
        left = getattr(self._cutter, "padding_side", "right") == "left"
        steps = torch.arange(packing.longest, device="cpu")
        features["input_ids"] = pad_rows(ids, packing, self.padding_id)
        features["attention_mask"] = (steps[None, :] < packing.lengths_tensor[:, None]).long()
        if tokens.seen is not None:
            features["kept_mask"] = features["attention_mask"]
            features["attention_mask"] = (steps[None, :] < torch.from_numpy(tokens.seen)[:, None]).long()
        if types is not None:
            features["token_type_ids"] = pad_rows(types, packing)
        elif "token_type_ids" in self._cutter.model_input_names:
            features["token_type_ids"] = torch.zeros_like(features["input_ids"])
        for key in ("input_ids", "attention_mask", "token_type_ids", "kept_mask"):
            if key in features:
                features[key] = (shift_left(features[key], packing) if left else features[key]).to(device)
        return features

    @property
    def query_expansion(self) -> dict[str, Any] | None:
        """How queries are filled with further tokens (`modules.query_expansion`); None if they are not. May be set."""
        return self._query_expansion

    @query_expansion.setter
    def query_expansion(self, value: dict[str, Any] | None) -> None:
        self._query_expansion = None if value is None else query_expansion.checked(value)

    def reader(self, task: str | None = None) -> BatchTokenizer:
        """What cuts the texts of one side."""
        return self.batch_tokenizer(self.limit(task))

    def batch_tokenizer(self, limit: int | None, special: bool | None = None) -> BatchTokenizer:
        """The private copy of the tokenizer; one per tokenizer and length.

        Args:
            limit: most tokens of a text.
            special: whether special tokens are added; default: as the model's settings say.
        """
        cutter = self._cutter
        if special is None:
            special = self.processing_kwargs.get("text", {}).get("add_special_tokens", True)
        owner, kept = self.__dict__.get("_batch_tokenizers", (None, {}))
        kept = kept if owner is cutter else {}
        key = (len(cutter), limit, special)
        found = kept.get(key)
        if found is None:
            found = BatchTokenizer(cutter, limit, special, "token_type_ids" in cutter.model_input_names)
            newest = list(kept.items())[1 - MOST_TOKENIZERS :]  # each is a copy of the vocabulary
            self.__dict__["_batch_tokenizers"] = (cutter, {**dict(newest), key: found})
        return found

    def limit(self, task: str | None, asked: int | None = None) -> int | None:
        """Most tokens of a text of one side; those asked for, if fewer than the model takes.

        Raises:
            InputError: if queries are expanded to more tokens than the model takes.
        """
        most = self.max_seq_length
        if task == "query" and self.query_expansion is not None:
            length = self.query_expansion["length"]
            if most is not None and length > most:
                raise InputError(
                    f"query_expansion asks for {length} tokens, but max_seq_length is {most}. Set a smaller length: "
                    f"model[0].query_expansion = {{'strategy': 'fixed', 'length': {min(most, 32)}}}."
                )
            if self.query_expansion["strategy"] == "fixed":
                return length
        if asked is not None:
            return asked if most is None else min(asked, most)
        return {"query": self.query_length, "document": self.document_length}.get(task or "") or most

    def token_id(self, token: str) -> int | None:
        """The id of a token; None if the tokenizer has no such token."""
        cutter = self._cutter
        if isinstance(cutter, TokenizerFile):
            return cutter.backend_tokenizer.token_to_id(token)
        return known_token_id(cutter, token)

    def expansion_token(self) -> int:
        """The id of the token that queries are filled with.

        Raises:
            InputError: if the tokenizer has no such token.
        """
        name = (self.query_expansion or {}).get("token")
        found = self.token_id(name) if name is not None else getattr(self._cutter, "mask_token_id", None)
        if found is None:
            raise InputError(
                f"query_expansion fills queries with {name or 'the mask token'!r}, which this tokenizer does not have. "
                "Name one of its tokens: model[0].query_expansion = {..., 'token': '…'}."
            )
        return found

    def id_to_tokens(self, ids: Sequence[int]) -> list[str]:
        if isinstance(self._tokenizer, TokenizerFile):
            return [self._tokenizer.backend_tokenizer.id_to_token(i) for i in ids]
        return super().id_to_tokens(ids)

    def prompt_length(self, tokenizer: BatchTokenizer, prompt: str) -> int:
        """Tokens that the prompt takes at the start of a text, without the closing special token."""
        ids = tokenizer([prompt]).ids
        closing = len(ids) and int(ids[-1]) in (self._cutter.sep_token_id, self._cutter.eos_token_id)
        return len(ids) - int(bool(closing))

    def _report(self, tokens: Tokens, limit: int | None) -> Tokens:
        """Say once per model that texts were cut."""
        if tokens.cut and not self.__dict__.get("_cut_reported"):
            self.__dict__["_cut_reported"] = True
            logger.warning(
                "%d of %d texts are longer than %s = %s tokens and were cut. "
                "Raise `model.max_seq_length` if the model allows it, or split the texts. (Said once per model.)",
                tokens.cut,
                len(tokens),
                "max_seq_length" if limit == self.max_seq_length else "the limit of their side",
                limit,
            )
        return tokens

    @property
    def padding_id(self) -> int:
        """Token that fills up padded batches."""
        return getattr(self._cutter, "pad_token_id", None) or 0


def known_token_id(tokenizer: Any, token: str) -> int | None:
    """The id of a token of a transformers tokenizer; None if it has no such token."""
    found = tokenizer.convert_tokens_to_ids(token)
    unknown = getattr(tokenizer, "unk_token_id", None)
    return None if found == unknown and token != getattr(tokenizer, "unk_token", None) else found


def shift_left(tensor: Tensor, packing: Packing) -> Tensor:
    """Move the padding of a right-padded (B, L) tensor to the left."""
    gaps = tensor.shape[1] - packing.lengths_tensor[:, None]
    return tensor.gather(1, (torch.arange(tensor.shape[1], device=tensor.device)[None, :] - gaps) % tensor.shape[1])
