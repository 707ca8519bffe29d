"""From texts to tokens to features, for modules that read text with a transformers tokenizer.

    texts -> ragged tokens (nothing padded)     `tokens`, which the engine plans by
          -> packed or padded features          `features`

A private copy of the tokenizer does the cutting, so that any number of threads may use it. Texts longer than
`max_seq_length` are cut; the first time that happens a warning says how many. `preprocess` takes the same way, unless
the settings of the call ask for what only a padded batch shows, or the tokenizer's own call is not that of the
transformers library: then the tokenizer itself is called, padding included (`unpadded` tells which).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from sentence_transformers.backends.pretrained import NO_LIMIT, Checkpoint, TokenizerFile
from sentence_transformers.engine.inputs import as_batch, as_inputs, with_prompt
from sentence_transformers.engine.tokenization import BatchTokenizer, Tokens, check_ids, settings_of
from sentence_transformers.errors import InputError, ModelFormatError
from sentence_transformers.features import Features, Packing
from sentence_transformers.modules import query_expansion
from sentence_transformers.modules.base import InputModule
from sentence_transformers.modules.chat import Chat, message_format, put_back
from sentence_transformers.modules.tokenizer_kwargs import TokenizerCall, calls_as_transformers, check_arguments

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

own_call = threading.RLock()  # a tokenizer's own call changes its settings: one thread at a time
MOST_TOKENIZERS = 2  # kept ready: one for each side of a search


class TextInput(InputModule):
    """The tokenising part of a module.

    Attributes:
        max_seq_length: most tokens per text, special tokens included.
        query_length, document_length: the same for one side of a search, if set.
        processing_kwargs: arguments of the tokenizer's call and of the chat template (`modules.tokenizer_kwargs`).
        modality_config: kind of input -> where the model's output for it is. With "message", every input is rendered
            by the tokenizer's chat template (`modules.chat`).
    """

    query_length: int | None
    document_length: int | None
    _query_expansion: dict[str, Any] | None = None
    processing_kwargs: dict[str, Any]
    modality_config: dict[str, Any]
    transformer_task: str
    _checkpoint: Checkpoint
    _tokenizer: Any
    _lower_case: bool = False
    position_offset: Any = 0
    vocabulary_rows: Any = None  # number of tokens that the weights know, if there is a table
    learned_positions: Any = None  # tokens that the weights have positions for, if there is a table

    def preprocess(
        self,
        inputs: Sequence[Any],
        prompt: str | None = None,
        processing_kwargs: dict[str, Any] | None = None,
        task: str | None = None,
        max_length: int | None = None,
        **kwargs,
    ) -> dict[str, Any]:
        """Texts, pairs of texts or, where there is a chat template, conversations as a padded batch.

        Args:
            processing_kwargs: arguments of the tokenizer's call and of the chat template, such as
                {"text": {"max_length": 64}}; they win over the module's own.
            max_length: most tokens of a text, in the place of the model's own limit; an expanded query of fixed length
                stays as long as it is.

        Returns:
            `Features`: input_ids and attention_mask, int64 of shape (B, L); token_type_ids where the model has
            segments; what else the tokenizer gives; prompt_length, if there is a prompt and no chat template; modality.

        Raises:
            InputError: naming the first input that the model cannot take; for settings that cannot be meant.
        """
        items = as_inputs(as_batch(inputs), self.renders)
        call = self._call(processing_kwargs)
        if not items or (self._unpadded(call) and call.text.get("padding", True) in (True, "longest")):
            return self.features(self._tokens(items, prompt, call, task, max_length), packed=False)
        return self._padded(items, prompt, call, task, max_length)

    def tokens(
        self,
        inputs: Sequence[Any],
        prompt: str | None = None,
        task: str | None = None,
        max_length: int | None = None,
        processing_kwargs: dict[str, Any] | None = None,
    ) -> Tokens:
        """Inputs as one unpadded run of tokens; arguments as of `preprocess`. Right where `unpadded` says so."""
        call = self._call(processing_kwargs)
        return self._tokens(as_inputs(inputs, self.renders), prompt, call, task, max_length)

    def unpadded(self, processing_kwargs: dict[str, Any] | None = None) -> bool:
        """Whether `tokens` gives what the tokenizer's own call gives, with the settings of a call."""
        return self._unpadded(self._call(processing_kwargs))

    def _unpadded(self, call: TokenizerCall) -> bool:
        return call.unpadded and (isinstance(self._cutter, TokenizerFile) or calls_as_transformers(self._cutter))

    @property
    def renders(self) -> bool:
        """Whether inputs are rendered by a chat template."""
        return "message" in self.modality_config

    def _call(self, processing_kwargs: dict[str, Any] | None) -> TokenizerCall:
        """The settings of a call, the module's own among them."""
        return TokenizerCall.of(self.processing_kwargs, processing_kwargs, self.renders, self.causal)

    @property
    def causal(self) -> bool:
        """Whether the model predicts words."""
        return self.transformer_task == "text-generation"

    def _tokens(
        self, inputs: Sequence[Any], prompt: str | None, call: TokenizerCall, task: str | None, max_length: int | None
    ) -> Tokens:
        limit = call.limit(self.limit(task, max_length))
        where = getattr(self.__dict__.get("_checkpoint"), "tokenizer_name", "this model")
        try:
            tokens = self._cut(inputs, prompt, call, limit, task)
        except Exception as error:
            if type(error) is not Exception:  # what the tokenizers library raises
                raise
            raise ModelFormatError(f"The tokenizer of {where} (tokenizer.json) cannot cut a text: {error}.") from error
        if (rows := self.vocabulary_rows) is not None:
            check_ids(tokens.ids, rows, where)
        if not call.text.get("max_length"):
            self._report(tokens, limit)
        return self._expand(tokens) if self._expands(task) else tokens

    def _expands(self, task: str | None) -> bool:
        """Whether the texts of a side are filled with further tokens.

        Raises:
            InputError: if they are rendered by a chat template.
        """
        if task != "query" or self.query_expansion is None:
            return False
        if self.renders:
            raise InputError(
                "query_expansion fills queries with further tokens, which cannot be combined with a chat template. "
                "Set model[0].query_expansion = None; a template sees the side as `task` and can add tokens itself."
            )
        return True

    def _expand(self, tokens: Tokens) -> Tokens:
        expansion: Any = self.query_expansion
        return tokens.fill(expansion["length"], self.expansion_token(), expansion["attend"])

    def _cut(
        self, inputs: Sequence[Any], prompt: str | None, call: TokenizerCall, limit: int | None, task: str | None
    ) -> Tokens:
        """Inputs as tokens, before anything is added to them."""
        if self.renders:
            return self._cut_rendered(inputs, prompt, call, limit, task)
        tokenizer = self.batch_tokenizer(limit, call.text.get("add_special_tokens"))
        if not prompt:
            return tokenizer(inputs)
        return tokenizer(with_prompt(inputs, prompt), self.prompt_length(tokenizer, prompt))

    def _chat(self, call: TokenizerCall, task: str | None) -> Chat:
        """What renders the inputs of a call."""
        form = self.modality_config["message"].get("format", "auto")
        if form == "auto":
            template = getattr(self.tokenizer, "chat_template", None)
            form = message_format(template, getattr(self.config, "model_type", None))
        return Chat(self.tokenizer, form, ({"task": task} if task else {}) | call.template)

    def _cut_rendered(
        self, inputs: Sequence[Any], prompt: str | None, call: TokenizerCall, limit: int | None, task: str | None
    ) -> Tokens:
        """Inputs rendered by the chat template, as tokens; those that were cut end as the template does."""
        chat = self._chat(call, task)
        conversations = chat.conversations(inputs, prompt)
        tokens = self.batch_tokenizer(limit, special=False)([chat.render(messages) for messages in conversations])
        full = np.flatnonzero(tokens.lengths == limit).tolist()
        if call.restore_suffix and full:
            tokens = replace(tokens, ids=tokens.ids.copy())
            with own_call:
                endings = chat.endings([conversations[row] for row in full])
            for row, ending in zip(full, endings, strict=True):
                put_back(tokens.ids[tokens.offsets[row] : tokens.offsets[row + 1]], ending)
        return tokens

    def _padded(
        self, inputs: Sequence[Any], prompt: str | None, call: TokenizerCall, task: str | None, max_length: int | None
    ) -> Features:
        """A padded batch by the tokenizer's own call."""
        limit = self.limit(task, max_length)
        arguments = call.arguments(None if limit == self.max_seq_length else limit)
        check_arguments(self.tokenizer, arguments)
        with own_call:
            if self.renders:
                features = self._pad_rendered(inputs, prompt, call, arguments, task)
            else:
                features = Features(
                    self.tokenizer(with_prompt(inputs, prompt) if prompt else list(inputs), **arguments)
                )
            features["modality"] = self.modality
            if prompt and not self.renders:
                special = {key: arguments[key] for key in ("add_special_tokens",) if key in arguments}
                features["prompt_length"] = self.without_closing(self.tokenizer([prompt], **special)["input_ids"][0])
        if self._expands(task):
            features |= self.features(self._expand(unpadded_tokens(features)), packed=False)
        return features | self._logits_to_keep(features, call.logits_to_keep)

    def _logits_to_keep(self, features: dict[str, Any], asked: int | None = None) -> dict[str, int]:
        """The entry of a causal model's padded batch that says how many last positions have logits.

        Args:
            asked: by the caller; 0 for all. None: the last one, if that is a token of each text.

        Raises:
            InputError: if some of those asked for are padding.
        """
        if not self.causal:
            return {}
        mask = features.get("attention_mask")
        whole = mask is None or bool(mask[:, -1:].all())
        if asked and not whole:
            raise InputError(
                f"logits_to_keep={asked} asks for the logits of the last positions, which are padding in this batch. "
                "Set model.tokenizer.padding_side = 'left', as it was when the model was loaded."
            )
        keep = 1 if asked is None and whole else asked
        return {} if keep is None else {"logits_to_keep": keep}

    def _pad_rendered(
        self,
        inputs: Sequence[Any],
        prompt: str | None,
        call: TokenizerCall,
        arguments: dict[str, Any],
        task: str | None,
    ) -> Features:
        """Inputs rendered by the chat template, as a padded batch."""
        chat = self._chat(call, task)
        conversations = chat.conversations(inputs, prompt)
        features = Features(
            self.tokenizer([chat.render(messages) for messages in conversations], add_special_tokens=False, **arguments)
        )
        limit = call.limit(arguments.get("max_length", self.max_seq_length))
        if call.restore_suffix and limit is not None:
            ids = features["input_ids"]
            mask = features.get("attention_mask", torch.ones_like(ids)).bool()
            full = (mask.sum(1) == limit).nonzero()[:, 0].tolist()
            for row, ending in zip(full, chat.endings([conversations[row] for row in full]), strict=True):
                kept = ids[row][mask[row]].numpy()
                put_back(kept, ending)
                ids[row, mask[row]] = torch.from_numpy(kept)
        return features

    # ---- the tokenizer

    @property
    def processor(self) -> Any:
        """The transformers tokenizer, or the processor that holds it."""
        if self._tokenizer is None or isinstance(self._tokenizer, TokenizerFile):
            file = self._tokenizer
            self._tokenizer = self._checkpoint.tokenizer(file)
            if file is not None:
                self.tokenizer.model_max_length = file.model_max_length
        return self._tokenizer

    @processor.setter
    def processor(self, value: Any) -> None:
        self._tokenizer = value

    @property
    def tokenizer(self) -> Any:
        """The transformers tokenizer. It may be replaced; encoding uses a private copy of it, made again then."""
        own = self.processor
        return own if hasattr(own, "convert_tokens_to_ids") else getattr(own, "tokenizer", own)

    @tokenizer.setter
    def tokenizer(self, value: Any) -> None:
        self._tokenizer = value

    @property
    def do_lower_case(self) -> bool:
        """Whether the tokenizer was told to lower-case texts first. May be set, not unset."""
        return self._lower_case

    @do_lower_case.setter
    def do_lower_case(self, value: bool) -> None:
        if self._lower_case and not value:
            raise InputError("The tokenizer lower-cases texts and is saved so; give the module another tokenizer.")
        if value and not self._lower_case:
            lower_case(self.tokenizer)
            self.tokenizer = self.tokenizer  # the copy that encoding uses is made again
        self._lower_case = bool(value)

    @property
    def _cutter(self) -> Any:
        """What texts are cut with: the tokenizer, or its file alone."""
        return self._tokenizer if isinstance(self._tokenizer, TokenizerFile) else self.tokenizer

    @property
    def max_seq_length(self) -> int | None:
        """Most tokens per text, special tokens included; longer texts are cut. No more than the model has learned
        positions for, whatever is set; None where nothing limits it.
        """
        limits = [n for n in (self._cutter.model_max_length, self.learned_positions) if n is not None and n < 10**20]
        return min(limits, default=None)

    @max_seq_length.setter
    def max_seq_length(self, value: int | None) -> None:
        if value is not None and value < 1:
            raise InputError(f"max_seq_length must be at least 1 or None, got {value}.")
        self._cutter.model_max_length = NO_LIMIT if value is None else int(value)
        most = self.learned_positions
        if value is not None and most is not None and value > most:
            logger.warning("max_seq_length = %d is more than the model has positions for: %d is used.", value, most)

    @property
    def gives_types(self) -> bool:
        """Whether the tokenizer gives the types of tokens."""
        return "token_type_ids" in self._cutter.model_input_names

    @property
    def modality(self) -> str:
        """The kind of input that the model sees."""
        return "message" if self.renders else "text"

    def features(self, tokens: Tokens, packed: bool, device: torch.device | str = "cpu") -> dict[str, Any]:
        """Tokens as a packed or padded batch on `device`."""
        ids = torch.from_numpy(tokens.ids)
        types = None if tokens.type_ids is None else torch.from_numpy(tokens.type_ids)
        about: dict[str, Any] = {"modality": self.modality}
        if tokens.prompt_length:
            about["prompt_length"] = tokens.prompt_length
        if packed:
            packing = Packing(tokens.lengths, device, tokens.attention_lengths)
            features = {"packing": packing, "input_ids": ids.to(device, non_blocking=True)}
            features["position_ids"] = packing.positions + self.position_offset
            if types is not None:
                features["token_type_ids"] = types.to(device, non_blocking=True)
            return features | about
        packing = Packing(tokens.lengths, "cpu", tokens.attention_lengths)
        run = Features(input_ids=ids, packing=packing)
        if types is not None or self.gives_types:
            run["token_type_ids"] = torch.zeros_like(ids) if types is None else types
        padded = run.pad(self.padding_id)
        if getattr(self._cutter, "padding_side", "right") == "left":
            padded = padded.map_tokens(lambda rows: shift_left(rows, packing))
        moved = {key: value.to(device) for key, value in padded.items()}
        return Features(moved | about | self._logits_to_keep(moved))

    @property
    def query_expansion(self) -> dict[str, Any] | None:
        """How queries are filled with further tokens (`modules.query_expansion`); None if they are not. May be set."""
        return self._query_expansion

    @query_expansion.setter
    def query_expansion(self, value: dict[str, Any] | None) -> None:
        self._query_expansion = None if value is None else query_expansion.checked(value)

    def reader(self, task: str | None = None) -> BatchTokenizer:
        """What cuts the texts of one side."""
        return self.batch_tokenizer(self._call(None).limit(self.limit(task)))

    def batch_tokenizer(self, limit: int | None, special: bool | None = None) -> BatchTokenizer:
        """The private copy of the tokenizer; one per state of the tokenizer and length.

        Args:
            limit: most tokens of a text.
            special: whether special tokens are added; default: as the model's settings say.
        """
        cutter = self._cutter
        if special is None:
            special = not self.renders and self._call(None).text.get("add_special_tokens", True)
        owner, kept = self.__dict__.get("_batch_tokenizers", (None, {}))
        kept = kept if owner is cutter else {}
        fixed = isinstance(cutter, TokenizerFile)  # a file that nobody has in hand
        key = (None if fixed else settings_of(cutter), limit, special)
        found = kept.get(key)
        if found is None:
            with own_call:
                found = BatchTokenizer(cutter, limit, special, self.gives_types)
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
        usual = [getattr(self._cutter, f"{kind}_token_id", None) for kind in ("mask", "eos")]
        found = self.token_id(name) if name is not None else next((i for i in usual if i is not None), None)
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
        return self.without_closing(tokenizer([prompt]).ids)

    def without_closing(self, ids: np.ndarray) -> int:
        """The number of tokens of a text, without the closing special token."""
        closing = len(ids) and int(ids[-1]) in (self._cutter.sep_token_id, self._cutter.eos_token_id)
        return len(ids) - int(bool(closing))

    def _report(self, tokens: Tokens, limit: int | None) -> None:
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

    @property
    def padding_id(self) -> int:
        """Token that fills up padded batches."""
        return getattr(self._cutter, "pad_token_id", None) or 0


def known_token_id(tokenizer: PreTrainedTokenizerBase, token: str) -> int | None:
    """The id of a token of a transformers tokenizer; None if it has no such token."""
    found = tokenizer.convert_tokens_to_ids(token)
    unknown = getattr(tokenizer, "unk_token_id", None)
    known = found != unknown or token == getattr(tokenizer, "unk_token", None)
    return found if known and isinstance(found, int) else None


def unpadded_tokens(features: Features) -> Tokens:
    """The tokens of a padded batch, on the CPU."""
    keys = [key for key in ("input_ids", "token_type_ids") if key in features]
    ids, *types = ([row.tolist() for row in features.split(key)] for key in keys)
    return Tokens.from_lists(ids, *types, prompt_length=features.get("prompt_length", 0))


def shift_left(tensor: Tensor, packing: Packing) -> Tensor:
    """Move the padding of a right-padded (B, L) tensor to the left."""
    gaps = tensor.shape[1] - packing.lengths_tensor[:, None]
    return tensor.gather(1, (torch.arange(tensor.shape[1], device=tensor.device)[None, :] - gaps) % tensor.shape[1])


def lower_case(tokenizer: Any) -> None:
    """Make the tokenizer lower-case its input, in a way that is saved with it."""
    rust = getattr(tokenizer, "backend_tokenizer", None)
    if rust is None:
        tokenizer.do_lower_case = True
        return
    from tokenizers import normalizers

    lower = normalizers.Lowercase()
    rust.normalizer = lower if rust.normalizer is None else normalizers.Sequence([lower, rust.normalizer])
