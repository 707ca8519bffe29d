"""Record what version 6.2.0 computes with its older modules: `older_modules.json` beside this file.

Run it with an interpreter that has sentence-transformers 6.2.0 and nltk:

    python tests/golden/record_older_modules.py

Each case holds everything needed to repeat it: class, arguments, weights, features (or texts) and results. Inputs come
from a seed. Texts of different length are run one at a time, which is what a module owes them in any batch.
"""

from __future__ import annotations

import json
from pathlib import Path

import nltk
import torch
from sentence_transformers.sentence_transformer import modules
from sentence_transformers.sentence_transformer.modules import tokenizer

H = 3
SENTENCES = {"sentence_embedding": (4, H)}
TOKENS = {"token_embeddings": (2, 5, H)}
SHORT_TOKENS = {"token_embeddings": (1, 2, H)}
RELU, SIGMOID = "torch.nn.modules.activation.ReLU", "torch.nn.modules.activation.Sigmoid"

NUMERIC = {
    "dense": ("Dense", {"in_features": H, "out_features": 2}, SENTENCES),
    "dense_relu_nobias": (
        "Dense",
        {"in_features": H, "out_features": 4, "bias": False, "activation_function": RELU},
        SENTENCES,
    ),
    "dense_residual_same": ("Dense", {"in_features": H, "out_features": H, "use_residual": True}, SENTENCES),
    "dense_residual_other": (
        "Dense",
        {"in_features": H, "out_features": 2, "use_residual": True, "activation_function": SIGMOID},
        SENTENCES,
    ),
    "dense_tokens": (
        "Dense",
        {"in_features": H, "out_features": 2, "module_input_name": "token_embeddings", "module_output_name": "small"},
        TOKENS,
    ),
    "normalize": ("Normalize", {}, SENTENCES),
    "normalize_tokens": ("Normalize", {"module_input_name": "token_embeddings"}, TOKENS),
    "layer_norm": ("LayerNorm", {"dimension": H}, SENTENCES),
    "dropout": ("Dropout", {"dropout": 0.5}, SENTENCES),
    "weighted_layer_pooling": (
        "WeightedLayerPooling",
        {"embedding_dimension": H, "num_hidden_layers": 3, "layer_start": 1},
        {"all_layer_embeddings": (4, 2, 5, H)},
    ),
    "cnn": ("CNN", {"in_embedding_dimension": H, "out_channels": 2, "kernel_sizes": [1, 3, 5]}, TOKENS),
    "cnn_short": ("CNN", {"in_embedding_dimension": H, "out_channels": 2, "kernel_sizes": [1, 3, 5]}, SHORT_TOKENS),
    "cnn_even": ("CNN", {"in_embedding_dimension": H, "out_channels": 2, "kernel_sizes": [2, 4]}, TOKENS),
    "cnn_stride": (
        "CNN",
        {"in_embedding_dimension": H, "out_channels": 2, "kernel_sizes": [1, 3], "stride_sizes": [2, 2]},
        TOKENS,
    ),
    "lstm": ("LSTM", {"embedding_dimension": H, "hidden_dim": 2}, TOKENS),
    "lstm_short": ("LSTM", {"embedding_dimension": H, "hidden_dim": 2}, SHORT_TOKENS),
    "lstm_deep": (
        "LSTM",
        {"embedding_dimension": H, "hidden_dim": 2, "num_layers": 2, "bidirectional": False},
        TOKENS,
    ),
}

WORDS = ["<pad>", "apple", "Berry", "the", "cat", "e.g.", "x-y", "berry"]
TEXTS = ["apple cat", "", "The cat, apple; BERRY? Berry!", "(cat) -x-y- e.g. e.g.. the", "cat apple cat cat dog"]
WEIGHTS = {"apple": 2.0, "berry": 0.25, "dog": 3.0}

TOKENIZERS = [
    {"vocab": WORDS},
    {"vocab": WORDS, "do_lower_case": True},
    {"vocab": WORDS, "stop_words": ["cat", "Berry"]},
    {"vocab": ["q", "cat", "q", "cat", "apple"], "stop_words": []},
]

PHRASES = ["new", "york", "new_york", "new_york_city", "city", "in_the", "the", "Big_Apple", "a_a", "a", "b", "a_b_c"]
PHRASE_TEXTS = ["New York City is in the city.", "in the new york", "new-york, new york!", "big apple Big Apple"]
PHRASE_TEXTS += ["A a a b c", "a b", "", "New_York the new, york"]
PHRASE_TOKENIZERS = [
    {"vocab": PHRASES},
    {"vocab": PHRASES, "stop_words": ["new_york"], "max_ngram_length": 2},
    {"vocab": [word.replace("_", " ") for word in PHRASES], "ngram_separator": " ", "do_lower_case": True},
]


def arguments_of(arguments: dict) -> dict:
    """The arguments with an activation function in place of its dotted name."""
    if name := arguments.get("activation_function"):
        return arguments | {"activation_function": getattr(torch.nn, name.rpartition(".")[2])()}
    return arguments


def numeric_case(class_name: str, arguments: dict, shapes: dict) -> dict:
    module = getattr(modules, class_name)(**arguments_of(arguments)).eval()
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape).add(0.5 if parameter.ndim == 1 else 0).float()
    features = {key: torch.randn(shape) for key, shape in shapes.items()}
    inputs = {key: value.tolist() for key, value in features.items()}
    if "token_embeddings" in features:
        count, length = features["token_embeddings"].shape[:2]
        features["attention_mask"] = torch.ones(count, length, dtype=torch.int64)
        features["sentence_lengths"] = torch.full((count,), length)
    if "all_layer_embeddings" in features:
        features["all_layer_embeddings"] = list(features["all_layer_embeddings"])
    with torch.no_grad():
        results = module(features)
    output = next(key for key in ("small", "token_embeddings", "sentence_embedding") if key in results)
    state = {name: tensor.tolist() for name, tensor in module.state_dict().items()}
    return {
        "class": class_name,
        "arguments": arguments,
        "state": state,
        "features": inputs,
        "output": output,
        "expected": results[output].tolist(),
        "config": module.get_config_dict(),
    }


def bow_case(**arguments) -> dict:
    module = modules.BoW(WORDS, **arguments)
    expected = module(module.preprocess(TEXTS, prompt="apple "))["sentence_embedding"].tolist()
    return {"arguments": {"vocab": WORDS, **arguments}, "texts": TEXTS, "prompt": "apple ", "expected": expected}


def word_embeddings_case(**arguments) -> dict:
    table = torch.randn(len(WORDS), H)
    module = modules.WordEmbeddings(tokenizer.WhitespaceTokenizer(WORDS), table, **arguments)
    features = module(module.preprocess(TEXTS, prompt="cat "))
    keys = ("input_ids", "attention_mask", "token_embeddings")
    expected = {key: features[key].tolist() for key in keys}
    return {"vocab": WORDS, "table": table.tolist(), "arguments": arguments, "texts": TEXTS, "expected": expected}


def word_weights_case() -> dict:
    module = modules.WordWeights(WORDS, WEIGHTS, unknown_word_weight=0.5)
    ids, mask = torch.tensor([[1, 2, 4], [7, 0, 0]]), torch.tensor([[1, 1, 1], [1, 0, 0]])
    tokens = torch.randn(2, 3, H)
    with torch.no_grad():
        features = module({"input_ids": ids, "attention_mask": mask, "token_embeddings": tokens.clone()})
    return {
        "arguments": {"vocab": WORDS, "word_weights": WEIGHTS, "unknown_word_weight": 0.5},
        "features": {"input_ids": ids.tolist(), "attention_mask": mask.tolist(), "token_embeddings": tokens.tolist()},
        "expected": {key: features[key].tolist() for key in ("token_embeddings", "token_weights_sum")},
    }


def tokenizer_cases(cls: type, settings: list[dict], texts: list[str]) -> list[dict]:
    return [{"arguments": s, "ids": [cls(**s).tokenize(text) for text in texts]} for s in settings]


def record() -> dict:
    torch.manual_seed(13)
    return {
        "numeric": {name: numeric_case(*case) for name, case in NUMERIC.items()},
        "bow": [
            bow_case(),
            bow_case(word_weights=WEIGHTS, unknown_word_weight=0.5, cumulative_term_frequency=False),
        ],
        "word_embeddings": [word_embeddings_case(), word_embeddings_case(max_seq_length=2)],
        "word_weights": word_weights_case(),
        "texts": TEXTS,
        "whitespace": tokenizer_cases(tokenizer.WhitespaceTokenizer, TOKENIZERS, TEXTS),
        "phrase_texts": PHRASE_TEXTS,
        "phrase_words": {text: nltk.word_tokenize(text, preserve_line=True) for text in PHRASE_TEXTS},
        "phrase": tokenizer_cases(tokenizer.PhraseTokenizer, PHRASE_TOKENIZERS, PHRASE_TEXTS),
        "stop_words": sorted(tokenizer.ENGLISH_STOP_WORDS),
    }


if __name__ == "__main__":
    Path(__file__).with_name("older_modules.json").write_text(
        json.dumps(record(), ensure_ascii=False), encoding="utf-8"
    )
