"""ColBERT models of other libraries: what their files say, in this library's terms.

Stanford   a plain checkpoint, architecture "HF_ColBERT": the encoder and a projection `linear.weight` in one file;
           `artifact.metadata` has the markers of queries and documents, their lengths and what is left out
PyLate     modules.json with a Transformer and its own Dense; config_sentence_transformers.json has the rest
"""

from __future__ import annotations

import string
from typing import TYPE_CHECKING, Any

from sentence_transformers.errors import ModelFormatError
from sentence_transformers.modules.dense import Dense
from sentence_transformers.storage import weights
from sentence_transformers.storage.files import Source

if TYPE_CHECKING:
    from sentence_transformers.modules.transformer import Transformer

STANFORD = "HF_ColBERT"  # architecture in config.json
PYLATE = "ColBERT"  # model_type of PyLate 3
QUERY_LENGTH = 32
PUNCTUATION = list(string.punctuation)
PYLATE_KEYS = {"query_prefix", "document_prefix", "attend_to_expansion_tokens", "do_query_expansion", "skiplist_words"}


def expansion(length: int, attend: bool) -> dict[str, Any]:
    """ColBERT's queries: filled to one length."""
    return {"strategy": "fixed", "length": length, "attend": bool(attend)}


# ---- Stanford


def architectures(source: Source) -> list[str]:
    """The class names in config.json."""
    config = source.json("config.json") or {}
    return [str(name) for name in config.get("architectures") or []]


def is_stanford(source: Source) -> bool:
    return STANFORD in architectures(source)


def stanford_settings(source: Source) -> dict[str, Any]:
    """`artifact.metadata`; {} without that file."""
    return source.json("artifact.metadata") or {}


def stanford_prompts(source: Source) -> dict[str, str]:
    """The markers that queries and documents begin with."""
    settings = stanford_settings(source)
    markers = {"query": ("query_token_id", "[unused0]"), "document": ("doc_token_id", "[unused1]")}
    return {side: f"{settings.get(key) or default} " for side, (key, default) in markers.items()}


def set_up_stanford(transformer: Transformer, source: Source) -> tuple[Dense, list[str]]:
    """Set the transformer's lengths, query expansion and markers.

    Returns:
        The projection, and the words of the skiplist.
    """
    settings = stanford_settings(source)
    transformer.document_length = settings.get("doc_maxlen")
    length, attend = settings.get("query_maxlen") or QUERY_LENGTH, settings.get("attend_to_mask_tokens", False)
    transformer.query_expansion = expansion(length, attend)
    add_markers(transformer, stanford_prompts(source))
    weight = weights.read_tensors(source).get("linear.weight")
    if weight is None:
        raise ModelFormatError(f"{source.name} says that it is a ColBERT model but has no projection linear.weight.")
    projection = Dense(
        weight.shape[1], weight.shape[0], False, None, init_weight=weight.float(), module_input_name="token_embeddings"
    )
    return projection, PUNCTUATION if settings.get("mask_punctuation", True) else []


def add_markers(transformer: Transformer, prompts: dict[str, str]) -> None:
    """Let the tokenizer keep those markers whole that are in its vocabulary."""
    markers = [text.strip() for text in prompts.values()]
    known = [marker for marker in markers if transformer.token_id(marker) is not None]
    if known:
        transformer.tokenizer.add_tokens(known, special_tokens=True)


# ---- PyLate


def is_pylate(config: dict[str, Any]) -> bool:
    """Whether the settings of a model without `model_type` are those of PyLate."""
    return bool(PYLATE_KEYS & config.keys())


def pylate_prompts(config: dict[str, Any]) -> dict[str, str]:
    """The prompts, each behind the prefix of its side."""
    own = config.get("prompts") or {}
    sides = {side: (config.get(f"{side}_prefix") or "") + own.get(side, "") for side in ("query", "document")}
    return own | sides


def set_up_pylate(transformer: Transformer, config: dict[str, Any]) -> list[str]:
    """Set lengths and query expansion as the settings say; returns the words of the skiplist."""
    transformer.document_length = config.get("document_length")
    length = config.get("query_length")
    attend = config.get("attend_to_expansion_tokens", config.get("attend_to_mask_tokens"))
    if config.get("do_query_expansion", length is not None or attend is not None):
        transformer.query_expansion = expansion(length or QUERY_LENGTH, bool(attend))
    else:
        transformer.query_length = length
    words = config.get("skiplist_words")
    return PUNCTUATION if words is None else list(words)
