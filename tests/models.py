"""Tiny models of every architecture: hidden size 32, two layers, four heads, random weights, a tokenizer trained here.

`build(name, folder)` writes a plain transformers checkpoint, as `SentenceTransformer(folder)` loads it. Initialisation
is much wider than in real models and every weight, biases and norms included, is disturbed, so that an attention that
is not masked, not windowed, not causal or given wrong positions changes the vectors visibly.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from sentence_transformers.modules.base import Module

HIDDEN = 32
VOCABULARY = 200
MAX_LENGTH = 64

SENTENCES = [
    "The cat sat on the mat while the dog slept near the door.",
    "A quick brown fox jumps over the lazy dog, again and again.",
    "How many planets are there in the solar system?",
    "Water boils at one hundred degrees at the level of the sea.",
    "She sells sea shells on the shore of a small island.",
    "Every model is wrong, but some models are useful.",
    "Rain fell all night and the river rose over its banks.",
    "He wrote a long letter to a friend who never answered.",
    "Bread, butter, cheese and apples were on the table.",
    "The train to the north leaves at noon from platform four.",
    "Nothing is computed for padding.",
    "Green ideas sleep; old stones do not.",
]
TEXTS = [
    "cat",
    "",
    "The river.",
    *SENTENCES[:8],
    "The river.",
    "never " * 30,
    "🙂 naïve façade – what now?",
    " ".join(SENTENCES[:3]),
    " ".join(SENTENCES),
]
"""From no words at all to far more than MAX_LENGTH tokens, with a duplicate; some have equal lengths."""


@dataclass(frozen=True)
class Architecture:
    """How one tiny model is made.

    Attributes:
        family: config class without "Config".
        settings: config arguments that differ from `COMMON`.
        tokenizer: kind of tokenizer, a key of `TOKENIZERS`.
        packs: whether packed batches are right for it.
        padding_shows: whether tokens see the padding beside them, whatever the mask says.
        causal: whether a token sees only those before it.
        model: model class; the config's default if empty.
        inputs: what its forward pass takes.
    """

    family: str
    settings: dict[str, Any] = field(default_factory=dict)
    tokenizer: str = "bert"
    packs: bool = True
    padding_shows: bool = False
    causal: bool = False
    model: str = ""
    inputs: tuple[str, ...] = ("input_ids", "attention_mask")


COMMON = {
    "hidden_size": HIDDEN,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 80,
    "initializer_range": 0.2,
}
TYPED = ("input_ids", "token_type_ids", "attention_mask")
GROUPED = {"num_key_value_heads": 2, "head_dim": 8}

ARCHITECTURES = {
    "bert": Architecture("Bert", inputs=TYPED),
    "roberta": Architecture("Roberta", {"type_vocab_size": 1}, "roberta"),
    "xlm-roberta": Architecture("XLMRoberta", {"type_vocab_size": 1}, "roberta"),
    "camembert": Architecture("Camembert", {"type_vocab_size": 1}, "roberta"),
    "distilbert": Architecture("DistilBert", {"dim": HIDDEN, "n_layers": 2, "n_heads": 4, "hidden_dim": 48}),
    "electra": Architecture("Electra", {"embedding_size": 16}, inputs=TYPED),
    "albert": Architecture("Albert", {"embedding_size": 16}, inputs=TYPED),
    "ernie": Architecture("Ernie", inputs=TYPED),
    "modernbert": Architecture(
        "ModernBert", {"local_attention": 16, "global_attn_every_n_layers": 2, "num_hidden_layers": 3}
    ),
    "nomic-bert": Architecture("NomicBert", inputs=TYPED),
    "gte": Architecture("Gte", inputs=TYPED),
    "eurobert": Architecture("EuroBert", GROUPED, "llama"),
    "qwen3": Architecture("Qwen3", GROUPED, "qwen", causal=True),
    "llama": Architecture("Llama", GROUPED, "llama", causal=True),
    "mistral": Architecture("Mistral", GROUPED | {"sliding_window": 8}, "llama", causal=True),
    "gemma3": Architecture(
        "Gemma3Text",
        GROUPED | {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]},
        "gemma",
        causal=True,
    ),
    "gemma3-bidirectional": Architecture(
        "Gemma3Text",
        GROUPED
        | {
            "sliding_window": 8,
            "layer_types": ["sliding_attention", "full_attention"],
            "use_bidirectional_attention": True,
        },
        "gemma",
    ),
    "mpnet": Architecture("MPNet", {}, "mpnet", packs=False),
    "deberta-v2": Architecture(
        "DebertaV2",
        {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8, "type_vocab_size": 0},
        packs=False,
    ),
    "t5": Architecture(
        "T5",
        {"d_model": HIDDEN, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "dropout_rate": 0.0},
        "t5",
        packs=False,
        model="T5EncoderModel",
    ),
    "xlnet": Architecture(
        "XLNet",
        {"d_model": HIDDEN, "n_layer": 2, "n_head": 4, "d_inner": 48, "max_position_embeddings": None},
        "xlnet",
        packs=False,
        inputs=TYPED,
    ),
    "mobilebert": Architecture(
        "MobileBert",
        {
            "embedding_size": HIDDEN,
            "intra_bottleneck_size": HIDDEN,
            "true_hidden_size": HIDDEN,
            "initializer_range": 0.02,
        },
        packs=False,
        padding_shows=True,
        inputs=TYPED,
    ),
    "convbert": Architecture("ConvBert", {"embedding_size": HIDDEN}, packs=False, padding_shows=True, inputs=TYPED),
}


# ---- tokenizers

# kind: (model, special tokens in the order of their ids, template of one text, keyword arguments of the wrapper)
TOKENIZERS: dict[str, tuple[str, list[str], str, dict[str, Any]]] = {
    "bert": (
        "wordpiece",
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
        "[CLS] $A [SEP]",
        {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"},
    ),
    "roberta": (
        "bpe",
        ["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        "<s> $A </s>",
        {
            "pad": "<pad>",
            "unk": "<unk>",
            "cls": "<s>",
            "sep": "</s>",
            "bos": "<s>",
            "eos": "</s>",
            "mask": "<mask>",
        },
    ),
    "mpnet": (
        "wordpiece",
        ["<s>", "<pad>", "</s>", "[UNK]", "<mask>"],
        "<s> $A </s>",
        {
            "pad": "<pad>",
            "unk": "[UNK]",
            "cls": "<s>",
            "sep": "</s>",
            "bos": "<s>",
            "eos": "</s>",
            "mask": "<mask>",
        },
    ),
    "llama": ("bpe", ["<pad>", "<s>", "</s>"], "<s> $A", {"pad": "<pad>", "bos": "<s>", "eos": "</s>"}),
    "qwen": ("bpe", ["<|endoftext|>"], "$A <|endoftext|>", {"pad": "<|endoftext|>", "eos": "<|endoftext|>"}),
    "gemma": ("bpe", ["<pad>", "<eos>", "<bos>"], "<bos> $A <eos>", {"pad": "<pad>", "bos": "<bos>", "eos": "<eos>"}),
    "t5": ("bpe", ["<pad>", "</s>", "<unk>"], "$A </s>", {"pad": "<pad>", "unk": "<unk>", "eos": "</s>"}),
    "xlnet": (
        "bpe",
        ["<unk>", "<s>", "</s>", "<cls>", "<sep>", "<pad>"],
        "$A:0 <sep>:0 <cls>:2",
        {"pad": "<pad>", "unk": "<unk>", "cls": "<cls>", "sep": "<sep>", "bos": "<s>", "eos": "</s>"},
    ),
}
LEFT_PADDED = ("llama", "qwen", "gemma", "xlnet")


def raw_tokenizer(kind: str = "bert") -> Tokenizer:
    """A `tokenizers.Tokenizer` trained on `SENTENCES`: one of the caller's own, the same at every call."""
    return Tokenizer.from_str(trained(kind))


@lru_cache
def trained(kind: str) -> str:
    """The tokenizer as JSON. Training breaks ties at random, so that it is done once per process."""
    model, special, template, named = TOKENIZERS[kind]
    if model == "wordpiece":
        tokenizer = Tokenizer(models.WordPiece(unk_token=named["unk"]))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        trainer: Any = trainers.WordPieceTrainer(vocab_size=VOCABULARY, special_tokens=special, show_progress=False)
    else:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=VOCABULARY + 256,  # all bytes are tokens
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template,
        pair=f"{template} $B:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in special if token in template],
    )
    return tokenizer.to_str()


def wrapped_tokenizer(kind: str = "bert", inputs: tuple[str, ...] = TYPED, **kwargs: Any) -> Any:
    """The same as transformers knows it."""
    from transformers import PreTrainedTokenizerFast

    named = {f"{name}_token": token for name, token in TOKENIZERS[kind][3].items()}
    side = "left" if kind in LEFT_PADDED else "right"
    settings = {"model_max_length": MAX_LENGTH, "padding_side": side, "model_input_names": list(inputs)}
    return PreTrainedTokenizerFast(tokenizer_object=raw_tokenizer(kind), **settings | named | kwargs)


# ---- models


def build(name: str, folder: str | Path, **settings: Any) -> Path:
    """Write the tiny model called `name` into `folder`, with some config settings of the caller's."""
    import transformers

    architecture = ARCHITECTURES[name]
    tokenizer = wrapped_tokenizer(architecture.tokenizer, architecture.inputs)
    ids = {"pad_token_id": tokenizer.pad_token_id, "vocab_size": len(tokenizer)}
    ids |= {f"{end}_token_id": getattr(tokenizer, f"{end}_token_id") for end in ("bos", "eos", "sep", "cls")}
    settings = {k: v for k, v in (COMMON | ids | architecture.settings | settings).items() if v is not None}
    config_class = getattr(transformers, f"{architecture.family}Config", None)
    if config_class is None:
        import pytest

        pytest.skip(f"transformers {transformers.__version__} has no {architecture.family} models")
    config = config_class(**settings)
    torch.manual_seed(0)
    model_class = getattr(transformers, architecture.model) if architecture.model else None
    model = model_class(config) if model_class else transformers.AutoModel.from_config(config)
    disturb(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Path(folder)


def peft_for_adapters() -> Any:
    """The module `peft`; a test that adds adapters is skipped where transformers asks for a newer one."""
    import pytest
    from transformers.integrations import peft

    return pytest.importorskip("peft", minversion=peft.MIN_PEFT_VERSION)


@torch.no_grad()
def disturb(model: torch.nn.Module) -> None:
    """Add noise to every weight, so that biases, norms and the vector of the padding token matter too."""
    for weight in model.parameters():
        weight += 0.1 * torch.randn_like(weight)


class Fault(Module):
    """A last module that fails on request: `encode(texts, fault="raise" or "sleep")`.

    Args:
        shortest: number of tokens from which a batch is affected.
    """

    forward_kwargs: ClassVar[set[str]] = {"fault"}
    takes_packed = True

    def __init__(self, shortest: int = 0) -> None:
        super().__init__()
        self.shortest = shortest

    def forward(self, features: dict[str, Any], fault: str | None = None, **kwargs) -> dict[str, Any]:
        if fault is not None and features["packing"].longest >= self.shortest:
            if fault == "sleep":
                time.sleep(60)
            raise ValueError("a fault on request")
        return features


class Blank(torch.nn.Module):
    """As little as a worker process needs: its `encode` gives zeros, `rows` for each text."""

    def encode(self, texts: list[str], rows: int = 1) -> np.ndarray:
        return np.zeros((len(texts) * rows, HIDDEN), np.float32)


def texts_of_many_lengths(count: int) -> Iterator[str]:
    """`count` different short texts."""
    words = " ".join(SENTENCES).split()
    for i in range(count):
        yield f"{i} " + " ".join(words[(i * 7 + k) % len(words)] for k in range(i % 9))
