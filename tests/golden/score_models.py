"""Tiny cross-encoders and sparse encoders of every layout, as folders.

`SCORERS` (cross-encoders) and `SPARSE` (sparse encoders) map a name to a function that writes one folder. The module
knows nothing of this library, so that `record_scores.py` can build the very same folders for version 6.2.0 and the
tests can build them for this one. Vocabularies are written out and weights come from a frozen random generator: the
same numbers on every machine.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from tests.golden.layouts import modules, update, write
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

H = 16
LENGTH = 40
"""Tokens of the longest input."""

TEXTS = ["", "yes", "no", "The river.", "yes no yes", "The quick brown fox", "🙂 naïve", "a b c " * 20]
PAIRS = [
    ("yes", "no"),
    ("", ""),
    ("The river.", "a quick brown fox"),
    ("a quick brown fox", "The river."),
    ("yes", "naïve 🙂 river " * 12),
    ("a b c d e f " * 5, "no"),
    ("yes " * 30, "The river. " * 30),
]
PROMPT = "brown: "
YES = 260
"""Id of the token "yes" in the vocabulary of bytes."""

WORDS = ["the", "river", "quick", "brown", "fox", "yes", "no", "na", "##ive", "##ve", "##y", *".:,!?'-"]
LETTERS = "abcdefghijklmnopqrstuvwxyz"

# types in modules.json
TRANSFORMER = "sentence_transformers.base.modules.transformer.Transformer"
POOLING = "sentence_transformers.sentence_transformer.modules.pooling.Pooling"
ROUTER = "sentence_transformers.base.modules.router.Router"
SPLADE = "sentence_transformers.sparse_encoder.modules.splade_pooling.SpladePooling"
AUTO_ENCODER = "sentence_transformers.sparse_encoder.modules.sparse_auto_encoder.SparseAutoEncoder"
STATIC = "sentence_transformers.sparse_encoder.modules.sparse_static_embedding.SparseStaticEmbedding"
MLM = "sentence_transformers.sparse_encoder.models.MLMTransformer"
OLD_SPLADE = "sentence_transformers.sparse_encoder.models.SpladePooling"
LOGIT_SCORE = "sentence_transformers.cross_encoder.modules.logit_score.LogitScore"

Writer = Callable[[Path], None]
SCORERS: dict[str, Writer] = {}
SPARSE: dict[str, Writer] = {}


def scorer(writer: Writer) -> Writer:
    """Register a cross-encoder under its function's name."""
    SCORERS[writer.__name__] = writer
    return writer


def sparse(writer: Writer) -> Writer:
    """Register a sparse encoder under its function's name."""
    SPARSE[writer.__name__] = writer
    return writer


# ---- tokenizers

# kind: (special tokens in the order of their ids, template of one text, of a pair, names)
BERT = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
ROBERTA = {"pad": "<pad>", "unk": "<unk>", "cls": "<s>", "sep": "</s>", "bos": "<s>", "eos": "</s>", "mask": "<mask>"}
KINDS: dict[str, tuple[list[str], str, str, dict[str, str]]] = {
    "bert": (list(BERT.values()), "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", BERT),
    "mpnet": (["<s>", "<pad>", "</s>", "<unk>", "<mask>"], "<s> $A </s>", "<s> $A </s> </s> $B </s>", ROBERTA),
    "roberta": (["<s>", "<pad>", "</s>", "<unk>", "<mask>"], "<s> $A </s>", "<s> $A </s> </s> $B </s>", ROBERTA),
    "llama": (["<pad>", "<s>", "</s>"], "<s> $A", "<s> $A </s> $B", {"pad": "<pad>", "bos": "<s>", "eos": "</s>"}),
}


def tokenizer(kind: str, inputs: tuple[str, ...], **settings: Any) -> Any:
    """WordPiece over `WORDS` and letters ("bert", "mpnet") or over bytes, where "yes" and "no" are one token each."""
    from transformers import PreTrainedTokenizerFast

    special, single, pair, names = KINDS[kind]
    if kind in ("bert", "mpnet"):
        pieces = dict.fromkeys([*special, *WORDS, *LETTERS, *(f"##{letter}" for letter in LETTERS)])
        rust = Tokenizer(models.WordPiece({name: i for i, name in enumerate(pieces)}, unk_token=names["unk"]))
        rust.normalizer = normalizers.BertNormalizer(lowercase=True)
        rust.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        rust.decoder = decoders.WordPiece()
    else:
        pieces = dict.fromkeys([*special, *sorted(pre_tokenizers.ByteLevel.alphabet()), "ye", "yes", "no"])
        merges = [("y", "e"), ("ye", "s"), ("n", "o")]
        rust = Tokenizer(models.BPE({name: i for i, name in enumerate(pieces)}, merges))
        rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        rust.decoder = decoders.ByteLevel()
    rust.add_special_tokens(special)
    ids = [(name, rust.token_to_id(name)) for name in special if name in single or name in pair]
    rust.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=ids)
    named = {f"{name}_token": token for name, token in names.items()}
    lengths = {"model_max_length": LENGTH, "model_input_names": list(inputs)}
    return PreTrainedTokenizerFast(tokenizer_object=rust, **(lengths | named | settings))


# ---- folders


def sparse_folder(folder: Path, *entries: tuple[str, str], **settings: Any) -> None:
    """Write modules.json and the settings of a sparse encoder."""
    modules(folder, *entries)
    write(folder / "config_sentence_transformers.json", {"model_type": "SparseEncoder"} | settings)


# ---- transformers checkpoints

COMMON = {"hidden_size": H, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
COMMON |= {"max_position_embeddings": 96, "type_vocab_size": 2}
PLAIN = ("input_ids", "attention_mask")
TYPED = ("input_ids", "token_type_ids", "attention_mask")
# family: (config settings, kind of tokenizer, what the forward pass takes)
FAMILIES: dict[str, tuple[dict[str, Any], str, tuple[str, ...]]] = {
    "Bert": ({}, "bert", TYPED),
    "Roberta": ({"type_vocab_size": 1}, "roberta", PLAIN),
    "XLMRoberta": ({"type_vocab_size": 1}, "roberta", PLAIN),
    "DistilBert": ({"dim": H, "n_layers": 2, "n_heads": 2, "hidden_dim": 24}, "bert", PLAIN),
    "ModernBert": (
        {"num_hidden_layers": 3, "local_attention": 8, "global_attn_every_n_layers": 2, "classifier_pooling": "mean"},
        "bert",
        PLAIN,
    ),
    "Electra": ({"embedding_size": 8}, "bert", TYPED),
    "Albert": ({"embedding_size": 8}, "bert", TYPED),
    "MPNet": ({}, "mpnet", PLAIN),
    "Llama": ({"num_key_value_heads": 1}, "llama", PLAIN),
    "Qwen2": ({"num_key_value_heads": 1}, "llama", PLAIN),
}


def numbers(seed: int = 0) -> Callable[..., torch.Tensor]:
    """A function that draws float32 tensors of any shape from the standard normal distribution."""
    generator = np.random.RandomState(seed)  # the one generator whose numbers never change
    return lambda *shape: torch.from_numpy(generator.standard_normal(shape).astype(np.float32))


@torch.no_grad()
def fill(model: torch.nn.Module) -> None:
    """Weights of 0.3 times the normal distribution, about 1 for norms: every part of the model shows in its values."""
    normal = numbers()
    for name, weight in model.named_parameters():
        scale = "norm" in name.lower() and name.endswith("weight")
        weight.copy_(1 + 0.1 * normal(*weight.shape) if scale else 0.3 * normal(*weight.shape))


def checkpoint(folder: Path, family: str, head: str = "", names: dict[str, Any] | None = None, **settings: Any) -> None:
    """Write a plain transformers checkpoint: `{family}{head}`, "Model" if there is no head."""
    import transformers

    own, kind, inputs = FAMILIES[family]
    words = tokenizer(kind, inputs, **(names or {}))
    ids = {"pad_token_id": words.pad_token_id, "vocab_size": len(words)}
    ids |= {f"{end}_token_id": getattr(words, f"{end}_token_id") for end in ("bos", "eos", "sep", "cls")}
    ids = {name: value for name, value in ids.items() if value is not None}
    config = getattr(transformers, f"{family}Config")(**(COMMON | ids | own | settings))
    model = getattr(transformers, family + (head or "Model"))(config)
    fill(model)
    model.save_pretrained(folder)
    words.save_pretrained(folder)


# ---- cross-encoders


def classifier(folder: Path, family: str, labels: int) -> None:
    checkpoint(folder, family, "ForSequenceClassification", num_labels=labels)


for _family in ("Bert", "Roberta", "XLMRoberta", "DistilBert", "ModernBert", "Electra", "Albert"):
    for _labels in (1, 3):
        SCORERS[f"{_family.lower()}_{_labels}"] = lambda folder, f=_family, n=_labels: classifier(folder, f, n)


@scorer
def saved_settings(folder: Path) -> None:
    """Today's layout, with a prompt that is always used and an activation function."""
    classifier(folder, "Bert", 1)
    modules(folder, ("", TRANSFORMER))
    write(folder / "sentence_bert_config.json", {"transformer_task": "sequence-classification"})
    settings: dict[str, Any] = {"model_type": "CrossEncoder", "activation_fn": "torch.nn.modules.activation.Tanh"}
    settings |= {"prompts": {"ask": PROMPT}, "default_prompt_name": "ask"}
    write(folder / "config_sentence_transformers.json", settings)


@scorer
def activation_before_5(folder: Path) -> None:
    """The activation function in config.json, as versions 4 and 5 wrote it."""
    classifier(folder, "Bert", 1)
    name = "torch.nn.modules.activation.Tanh"
    update(folder / "config.json", sentence_transformers={"activation_fn": name, "version": "4.1.0"})


@scorer
def activation_before_4(folder: Path) -> None:
    """The activation function in config.json, as versions before 4 wrote it."""
    classifier(folder, "Bert", 1)
    update(folder / "config.json", sbert_ce_default_activation_function="torch.nn.modules.linear.Identity")


@scorer
def causal(folder: Path) -> None:
    """A language model without a chat template: query and document are an ordinary pair."""
    checkpoint(folder, "Llama", "ForCausalLM")


CHAT = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}</s>Is it?"
CHAT += "{% if add_generation_prompt %}<assistant>{% endif %}"
DOCUMENT_FIRST = "<s>{% for role in ['document', 'system', 'query'] %}{% for m in messages if m.role == role %}"
DOCUMENT_FIRST += "({{ m.content }}){% endfor %}{% endfor %}"


@scorer
def causal_chat(folder: Path) -> None:
    """A language model that is asked through its chat template."""
    checkpoint(folder, "Llama", "ForCausalLM", {"chat_template": CHAT, "model_max_length": 56})


@scorer
def causal_document_first(folder: Path) -> None:
    """A chat template that turns the order round."""
    checkpoint(folder, "Llama", "ForCausalLM", {"chat_template": DOCUMENT_FIRST})


@scorer
def causal_generation(folder: Path) -> None:
    """A saved folder: a score of "yes" alone, after the words that open the answer."""
    causal_chat(folder)
    modules(folder, ("", TRANSFORMER), ("1_LogitScore", LOGIT_SCORE))
    write(folder / "config_sentence_transformers.json", {"model_type": "CrossEncoder"})
    logits = {"method": "forward", "method_output_name": "logits"}
    settings: dict[str, Any] = {"transformer_task": "text-generation", "module_output_name": "causal_logits"}
    settings |= {"modality_config": {"text": logits, "message": logits | {"format": "flat"}}}
    settings |= {"processing_kwargs": {"chat_template": {"add_generation_prompt": True}}}
    write(folder / "sentence_bert_config.json", settings)
    settings = {"true_token_id": YES, "false_token_id": None, "module_input_name": "causal_logits"}
    write(folder / "1_LogitScore" / "config.json", settings)


# ---- sparse encoders


def masked_language_model(folder: Path, family: str) -> None:
    checkpoint(folder, family, "ForMaskedLM")
    write(folder / "sentence_bert_config.json", {"transformer_task": "fill-mask"})


def splade_pooling(folder: Path, strategy: str, activation: str) -> None:
    config = {"pooling_strategy": strategy, "activation_function": activation, "embedding_dimension": None}
    write(folder / "config.json", config)


def splade(folder: Path, family: str, strategy: str, activation: str, **settings: Any) -> None:
    masked_language_model(folder, family)
    splade_pooling(folder / "1_SpladePooling", strategy, activation)
    sparse_folder(folder, ("", TRANSFORMER), ("1_SpladePooling", SPLADE), **settings)


for _family in ("Bert", "Roberta", "DistilBert", "ModernBert", "MPNet"):
    for _how in (("max", "relu"), ("max", "log1p_relu"), ("sum", "relu"), ("sum", "log1p_relu")):
        if _family == "Bert" or _how in (("max", "relu"), ("sum", "log1p_relu")):
            _name = f"splade_{_family.lower()}_{'_'.join(_how)}"
            SPARSE[_name] = lambda folder, f=_family, how=_how: splade(folder, f, *how)


def static(folder: Path) -> None:
    """A weight for each token: (V,)."""
    words = tokenizer("bert", TYPED)
    words.save_pretrained(folder)
    write(folder / "config.json", {"frozen": False})
    save_file({"weight": numbers(1)(len(words)).abs()}, folder / "model.safetensors")


@sparse
def plain_masked_language_model(folder: Path) -> None:
    checkpoint(folder, "Bert", "ForMaskedLM")


@sparse
def splade_settings(folder: Path) -> None:
    """Today's layout with settings of its own."""
    splade(folder, "Bert", "max", "relu", prompts={"query": PROMPT}, similarity_fn_name="cosine", max_active_dims=5)


@sparse
def splade_old_names(folder: Path) -> None:
    """As version 5.0 wrote it."""
    checkpoint(folder, "Bert", "ForMaskedLM")
    write(folder / "sentence_bert_config.json", {"max_seq_length": 12, "do_lower_case": False})
    config = {"pooling_strategy": "max", "activation_function": "relu", "word_embedding_dimension": None}
    write(folder / "1_SpladePooling" / "config.json", config)
    sparse_folder(folder, ("", MLM), ("1_SpladePooling", OLD_SPLADE))


@sparse
def sparse_static_idf(folder: Path) -> None:
    """Weights of tokens in a JSON file; most tokens have none."""
    static(folder)
    (folder / "model.safetensors").unlink()
    write(folder / "config.json", {"path": str(folder / "idf.json"), "frozen": True})
    write(folder / "idf.json", {"yes": 2.5, "river": 1.25, "##ive": 0.5, ".": -1.5})
    sparse_folder(folder, ("", STATIC))


@sparse
def sparse_static(folder: Path) -> None:
    static(folder / "0_SparseStaticEmbedding")
    sparse_folder(folder, ("0_SparseStaticEmbedding", STATIC))


@sparse
def inference_free(folder: Path) -> None:
    """Queries are looked up, documents go through a transformer."""
    static(folder / "query_0_SparseStaticEmbedding")
    masked_language_model(folder / "document_0_Transformer", "Bert")
    splade_pooling(folder / "document_1_SpladePooling", "max", "relu")
    types = {
        "query_0_SparseStaticEmbedding": STATIC,
        "document_0_Transformer": TRANSFORMER,
        "document_1_SpladePooling": SPLADE,
    }
    structure = {"query": list(types)[:1], "document": list(types)[1:]}
    parameters = {"default_route": "document", "allow_empty_key": True, "route_mappings": {}}
    write(folder / "router_config.json", {"types": types, "structure": structure, "parameters": parameters})
    sparse_folder(folder, ("", ROUTER))


def auto_encoder(folder: Path, normalize: bool) -> None:
    """A dense encoder whose vectors are spread over 4·H dimensions, of which few stay."""
    checkpoint(folder, "Bert")
    config = {"embedding_dimension": H, "pooling_mode": "mean", "include_prompt": True}
    write(folder / "1_Pooling" / "config.json", config)
    settings = {"input_dim": H, "hidden_dim": 4 * H, "k": 6, "k_aux": 8, "normalize": normalize, "dead_threshold": 30}
    write(folder / "2_SparseAutoEncoder" / "config.json", settings)
    normal = numbers(2)
    tensors = {"decoder.linear.weight": normal(4 * H, H), "latent_bias": normal(4 * H), "pre_bias": normal(H)}
    tensors["stats_last_nonzero"] = torch.zeros(4 * H, dtype=torch.int64)
    metadata = {"encoder.weight": "decoder.linear.weight"}
    save_file(tensors, folder / "2_SparseAutoEncoder" / "model.safetensors", metadata)
    sparse_folder(folder, ("", TRANSFORMER), ("1_Pooling", POOLING), ("2_SparseAutoEncoder", AUTO_ENCODER))


@sparse
def csr(folder: Path) -> None:
    auto_encoder(folder, normalize=False)


@sparse
def csr_normalized(folder: Path) -> None:
    auto_encoder(folder, normalize=True)


# ---- the auto-encoder alone

AUTO_ENCODERS = {
    name: {"input_dim": 4, "hidden_dim": 20, "k": 3, "k_aux": 5, "normalize": normalize, "dead_threshold": 3}
    for name, normalize in (("plain", False), ("normalized", True))
}
AUTO_ENCODER_STEPS = (False, True, True, True, False, True)
"""Whether each forward pass is one of training: latents die in the third."""


def set_weights(module: torch.nn.Module) -> None:
    """The same weights for any SparseAutoEncoder of these sizes."""
    normal = numbers(3)
    tensors = {"encoder.weight": normal(20, 4), "latent_bias": normal(20), "pre_bias": normal(4)}
    with torch.no_grad():
        for name, weight in module.named_parameters():
            weight.copy_(tensors[name])


def auto_encoder_input(step: int) -> torch.Tensor:
    """Three vectors, others in each step. (3, 4)"""
    return numbers(10 + step)(3, 4)
