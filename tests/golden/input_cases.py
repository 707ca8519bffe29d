"""Inputs, settings of the tokenizer and chat templates, as a table of calls on tiny models.

`CHECKPOINTS` maps a name to a function that writes a plain transformers checkpoint, `CASES` a name to one call. The
module knows nothing of this library, so that `record_inputs.py` can make the very same calls with version 6.2.0 and the
tests can make them with this one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.golden.score_models import CHAT, checkpoint

STRUCTURED = "{% for m in messages %}<{{ m.role }}>{% for p in m.content %}{% if p.type == 'text' %}{{ p.text }}"
STRUCTURED += "{% endif %}{% endfor %}\n{% endfor %}END"
BY_NAME = {"default": STRUCTURED, "other": "{{ task }}:{{ mood }}:{{ messages[-1]['content'][0]['text'] }}"}
LENGTHS = {"model_max_length": 56}
LONGER = {"model_max_length": 90}  # nothing is cut: most of a template's letters are unknown to these vocabularies

CHECKPOINTS: dict[str, Callable[[Path], None]] = {
    "llama": lambda folder: checkpoint(folder, "Llama", "ForCausalLM", LENGTHS | {"chat_template": CHAT}),
    "qwen2": lambda folder: checkpoint(folder, "Qwen2", "ForCausalLM", LENGTHS | {"chat_template": CHAT}),
    "llama_classifier": lambda folder: checkpoint(
        folder, "Llama", "ForSequenceClassification", LENGTHS | {"chat_template": CHAT}, num_labels=1
    ),
    "bert": lambda folder: checkpoint(folder, "Bert", "", LONGER | {"chat_template": CHAT}),
    "bert_structured": lambda folder: checkpoint(folder, "Bert", "", LONGER | {"chat_template": STRUCTURED}),
    "bert_by_name": lambda folder: checkpoint(folder, "Bert", "", LONGER | {"chat_template": BY_NAME}),
    "bert_masked": lambda folder: checkpoint(folder, "Bert", "ForMaskedLM", LONGER | {"chat_template": CHAT}),
    "bert_classifier": lambda folder: checkpoint(
        folder, "Bert", "ForSequenceClassification", LONGER | {"chat_template": CHAT}, num_labels=1
    ),
    "plain": lambda folder: checkpoint(folder, "Bert"),
    "plain_classifier": lambda folder: checkpoint(folder, "Bert", "ForSequenceClassification", num_labels=1),
    "plain_masked": lambda folder: checkpoint(folder, "Bert", "ForMaskedLM"),
    "cut_on_the_left": lambda folder: checkpoint(folder, "Bert", "", {"truncation_side": "left"}),
}

LONG = "a b c d e " * 30
TEXTS = ["yes no", "", "fox"]
PAIRS = [("yes", "no"), ("the river", "fox")]
CONVERSATIONS = [
    [{"role": "user", "content": "yes"}],
    [{"role": "system", "content": "S"}, {"role": "user", "content": "fox"}, {"role": "assistant", "content": "no"}],
]
LONG_TEXTS = [LONG, "yes"]
LONG_PAIRS = [(LONG, "no"), ("no", LONG), (LONG, LONG), ("yes", "no")]
LONG_CONVERSATIONS = [[{"role": "system", "content": "S"}, {"role": "user", "content": LONG}], CONVERSATIONS[1]]


@dataclass(frozen=True)
class Case:
    """One call.

    Attributes:
        encoder: class that loads the checkpoint; "pooled" builds a CrossEncoder of Transformer, Pooling and Dense.
        checkpoint: key of `CHECKPOINTS`.
        inputs: of the call.
        settings: `processing_kwargs` of the call.
        saved: `processing_kwargs` of the module.
        others: further arguments: prompt, task.
    """

    encoder: str
    checkpoint: str
    inputs: list[Any]
    settings: dict[str, Any] = field(default_factory=dict)
    saved: dict[str, Any] = field(default_factory=dict)
    others: dict[str, Any] = field(default_factory=dict)


PROMPT = {"prompt": "fox "}
GENERATION = {"chat_template": {"add_generation_prompt": True}}
KEPT_CUT = {"text": {"max_length": 20}, "chat_template": {"restore_suffix": False}}

CASES: dict[str, Case] = {}
for _model, _encoder in (
    ("llama", "SentenceTransformer"),
    ("qwen2", "SentenceTransformer"),
    ("bert", "SentenceTransformer"),
    ("bert_structured", "SentenceTransformer"),
    ("bert_masked", "SparseEncoder"),
    ("llama", "CrossEncoder"),
    ("qwen2", "CrossEncoder"),
    ("llama_classifier", "CrossEncoder"),
    ("bert_classifier", "CrossEncoder"),
    ("qwen2", "pooled"),
):
    _pairs_only = _encoder in ("CrossEncoder", "pooled")
    _name = f"{_encoder}/{_model}"
    CASES[f"{_name}/pairs"] = Case(_encoder, _model, PAIRS)
    CASES[f"{_name}/pairs with a prompt"] = Case(_encoder, _model, PAIRS, others=PROMPT)
    CASES[f"{_name}/generation"] = Case(_encoder, _model, PAIRS, GENERATION)
    if not _pairs_only:
        CASES[f"{_name}/texts"] = Case(_encoder, _model, TEXTS)
        CASES[f"{_name}/texts with a prompt"] = Case(_encoder, _model, TEXTS, others=PROMPT)
        if _model != "bert_structured":
            CASES[f"{_name}/conversations"] = Case(_encoder, _model, CONVERSATIONS, others=PROMPT)
    if "bert" not in _model:
        CASES[f"{_name}/long pairs"] = Case(_encoder, _model, LONG_PAIRS)
        CASES[f"{_name}/long pairs with a prompt"] = Case(_encoder, _model, LONG_PAIRS, GENERATION, others=PROMPT)
        CASES[f"{_name}/hardly anything but the end"] = Case(_encoder, _model, LONG_PAIRS, {"text": {"max_length": 12}})
        CASES[f"{_name}/shorter than the end"] = Case(_encoder, _model, LONG_PAIRS, {"text": {"max_length": 5}})
        CASES[f"{_name}/end not put back"] = Case(_encoder, _model, LONG_PAIRS, KEPT_CUT)
        CASES[f"{_name}/not cut"] = Case(_encoder, _model, PAIRS + LONG_PAIRS[:1], {"text": {"truncation": False}})
        if not _pairs_only:
            CASES[f"{_name}/long conversations"] = Case(_encoder, _model, LONG_CONVERSATIONS)
CASES["template by name"] = Case(
    "SentenceTransformer",
    "bert_by_name",
    TEXTS,
    {"chat_template": {"chat_template": "other", "mood": "no", "task": "yes"}},
)
CASES["template of several"] = Case("SentenceTransformer", "bert_by_name", TEXTS)

TEXT_SETTINGS: dict[str, dict[str, Any]] = {
    "max_length": {"text": {"max_length": 5}},
    "common": {"common": {"max_length": 5}},
    "padding to a length": {"text": {"padding": "max_length", "max_length": 9}},
    "padding to the model's length": {"text": {"padding": "max_length"}},
    "padding to a multiple": {"text": {"pad_to_multiple_of": 8}},
    "no special tokens": {"text": {"add_special_tokens": False, "max_length": 6}},
    "first text cut": {"text": {"truncation": "only_first", "max_length": 12}},
    "padding on the left": {"text": {"padding_side": "left"}},
    "no types": {"text": {"return_token_type_ids": False}},
}
for _encoder, _model in (
    ("SentenceTransformer", "plain"),
    ("SparseEncoder", "plain_masked"),
    ("CrossEncoder", "plain_classifier"),
):
    _inputs: list[Any] = [("a b c d e f g h i j k l", "no"), ("yes", "fox")]
    _inputs += [] if _encoder == "CrossEncoder" else ["yes no", "a b c d e f g h i j k l m"]
    for _setting, _value in TEXT_SETTINGS.items():
        CASES[f"{_encoder}/{_setting}"] = Case(_encoder, _model, _inputs, _value)
        CASES[f"{_encoder}/{_setting}, saved"] = Case(_encoder, _model, _inputs, saved=_value)
    CASES[f"{_encoder}/saved and given"] = Case(
        _encoder, _model, _inputs, {"text": {"max_length": 7}}, {"text": {"max_length": 5, "padding": "max_length"}}
    )
    CASES[f"{_encoder}/pairs and texts with a prompt"] = Case(_encoder, _model, _inputs, others=PROMPT)
CASES["cut on the left"] = Case("SentenceTransformer", "cut_on_the_left", LONG_TEXTS + LONG_PAIRS)
