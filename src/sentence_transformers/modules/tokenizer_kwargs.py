"""Settings of one call of a tokenizer: `processing_kwargs`, of a module and of a call.

    {"common": {…}, "text": {…}, "chat_template": {…}}

"text" and "common" hold keyword arguments of the tokenizer's call (`max_length`, `padding`, `truncation`, …), the
former before the latter; "chat_template" those of `apply_chat_template`, variables of the template among them, and
`restore_suffix`. A call's settings win over the module's, key by key. The buckets of other modalities may be there and
mean nothing to texts.
"""

from __future__ import annotations

import inspect
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sentence_transformers.errors import InputError
from sentence_transformers.util.whose_code import is_foreign

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

BUCKETS = ("audio", "chat_template", "common", "image", "text", "video")
CUTTING = ("padding", "truncation", "max_length")  # may stand beside the chat template's arguments, and win there
FIXED = ("tokenize", "return_dict", "return_tensors")
UNPADDED = {  # what a run of tokens without padding shows exactly: argument -> its values; None for any
    "add_special_tokens": (True, False),
    "max_length": None,
    "padding": (True, False, "longest", "do_not_pad"),
    "truncation": (True, False, "longest_first", "do_not_truncate"),
    "verbose": None,
}
PADDED = {"padding": True, "truncation": "longest_first"}


@dataclass(frozen=True)
class TokenizerCall:
    """Arguments of one call.

    Attributes:
        text: keyword arguments of the tokenizer's call.
        template: keyword arguments of `apply_chat_template`, but for those that are the tokenizer's.
        restore_suffix: whether the end of a chat template is put back where a conversation was cut.
        logits_to_keep: last positions whose logits a language model computes; None for its own choice.
    """

    text: dict[str, Any]
    template: dict[str, Any]
    restore_suffix: bool = True
    logits_to_keep: int | None = None

    @classmethod
    def of(cls, saved: object, given: object, messages: bool = False, causal: bool = False) -> TokenizerCall:
        """The settings of a module and of a call together.

        Args:
            messages: whether the inputs are rendered by a chat template.
            causal: whether the model predicts words, and so has logits to keep.

        Raises:
            InputError: for settings that are no dictionaries of dictionaries, and for values that cannot be meant.
        """
        if saved in (None, {}) and given in (None, {}):
            return cls({}, {})
        warn_unknown(given, "per-call ")
        buckets = [checked(saved), checked(given)]
        merged = {name: {k: v for bucket in buckets for k, v in bucket.get(name, {}).items()} for name in BUCKETS}
        text, template = merged["common"] | merged["text"], merged["chat_template"]
        if messages:
            text |= {key: template.pop(key) for key in CUTTING if key in template}
            if fixed := sorted(template.keys() & set(FIXED)):
                raise InputError(f"processing_kwargs['chat_template'] may not set {fixed}, which this library sets.")
            if text.pop("add_special_tokens", False):
                raise InputError(
                    "processing_kwargs['text'] asks for add_special_tokens=True, but the inputs of this model are "
                    "rendered by a chat template, which brings the special tokens itself. Leave it out."
                )
        if text.pop("return_tensors", "pt") != "pt":
            raise InputError("processing_kwargs cannot set return_tensors: features are torch tensors ('pt').")
        keep = text.pop("logits_to_keep", None)
        if keep is not None and (not isinstance(keep, int) or isinstance(keep, bool) or keep < 0):
            raise InputError(f"logits_to_keep must be a non-negative integer (0 for all), got {keep!r}.")
        most = text.get("max_length")
        if most is not None and (not isinstance(most, int) or isinstance(most, bool) or most < 1):
            raise InputError(f"max_length in processing_kwargs must be an integer of at least 1, got {most!r}.")
        return cls(text, template, bool(template.pop("restore_suffix", True)), keep if causal else None)

    @property
    def unpadded(self) -> bool:
        """Whether tokens that are not padded yet are cut exactly as the tokenizer's own call does it."""
        return self.logits_to_keep is None and all(
            key in UNPADDED and ((values := UNPADDED[key]) is None or value in values)
            for key, value in self.text.items()
        )

    def limit(self, default: int | None) -> int | None:
        """Most tokens of a text; None for no limit."""
        if self.text.get("truncation", True) in (False, "do_not_truncate"):
            return None
        return self.text.get("max_length") or default

    def arguments(self, limit: int | None) -> dict[str, Any]:
        """Keyword arguments of the tokenizer's own call for a padded batch."""
        length = {} if limit is None else {"max_length": limit}
        given = {key: value for key, value in self.text.items() if key != "max_length" or value is not None}
        return PADDED | length | given | {"return_tensors": "pt"}


def checked(settings: object) -> dict[str, dict[str, Any]]:
    """Settings as they are, {} for None; `InputError` for what is no dictionary of dictionaries."""
    if settings is None:
        return {}
    if not isinstance(settings, dict):
        raise InputError(
            f"processing_kwargs must be a dictionary such as {{'text': {{'max_length': 64}}}}, got {settings!r}."
        )
    for name in settings.keys() & set(BUCKETS):
        if not isinstance(settings[name], dict):
            raise InputError(
                f"processing_kwargs[{name!r}] must be a dictionary of keyword arguments, got {settings[name]!r}."
            )
    return settings


def warn_unknown(settings: object, whose: str) -> None:
    """Say that settings of unknown kinds have no effect."""
    if unknown := sorted(map(str, checked(settings).keys() - set(BUCKETS))):
        logger.warning(
            "Unknown keys in %sprocessing_kwargs are ignored: %s. Known are %s; arguments of the tokenizer belong "
            "under 'text'.",
            whose,
            unknown,
            list(BUCKETS),
        )


CALLS = ("__call__", "_encode_plus", "_batch_encode_plus", "encode_plus", "batch_encode_plus", "pad")


def calls_as_transformers(tokenizer: object) -> bool:
    """Whether a tokenizer's call is that of the transformers library: not overridden, not patched, not a wrapper's."""
    if getattr(tokenizer, "split_special_tokens", False) or set(CALLS) & getattr(tokenizer, "__dict__", {}).keys():
        return False
    methods = [getattr(type(tokenizer), name, None) for name in CALLS]
    return methods[0] is not None and not any(
        method is not None and is_foreign(method, ("transformers.",)) for method in methods
    )


def check_arguments(tokenizer: PreTrainedTokenizerBase, arguments: dict[str, Any]) -> None:
    """Raise `InputError` for arguments that a tokenizer with a Rust backend would pass over in silence."""
    if not calls_as_transformers(tokenizer) or not hasattr(tokenizer, "backend_tokenizer"):
        return
    known = {
        name
        for method in (type(tokenizer).__call__, type(tokenizer)._encode_plus)
        for name in inspect.signature(method).parameters
    }
    if unknown := sorted(arguments.keys() - known):
        raise InputError(
            f"processing_kwargs['text'] has arguments that {type(tokenizer).__name__} does not take: {unknown}. "
            f"It takes {sorted(known - {'self', 'kwargs', 'text'})}."
        )
