"""The older modules against formulas written out in numpy, laws, and values recorded from version 6.2.0."""

from __future__ import annotations

import gzip
import json
import logging
import math
import sys
import types
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sentence_transformers import CrossEncoder, models
from sentence_transformers._deprecation import legacy
from sentence_transformers.errors import InputError, MissingExtraError, ModelFormatError, UntrustedCodeError
from sentence_transformers.features import Features, Packing
from sentence_transformers.modules.bow import BoW
from sentence_transformers.modules.cnn import CNN
from sentence_transformers.modules.dense import Dense
from sentence_transformers.modules.dropout import Dropout
from sentence_transformers.modules.layer_norm import LayerNorm
from sentence_transformers.modules.lstm import LSTM
from sentence_transformers.modules.normalize import Normalize
from sentence_transformers.modules.tokenizer import (
    ENGLISH_STOP_WORDS,
    PhraseTokenizer,
    TransformersTokenizerWrapper,
    WhitespaceTokenizer,
)
from sentence_transformers.modules.weighted_layer_pooling import WeightedLayerPooling
from sentence_transformers.modules.word_embeddings import WordEmbeddings
from sentence_transformers.modules.word_weights import WordWeights
from sentence_transformers.storage.files import Source
from tests.oracle import oracle_python, run_oracle

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "older_modules.json").read_text(encoding="utf-8"))
CLASSES = {
    cls.__name__: cls for cls in (CNN, LSTM, Dense, Dropout, LayerNorm, Normalize, WeightedLayerPooling, WordWeights)
}
H = 3
LENGTHS = [5, 2, 3, 2, 1]  # neither sorted nor all different
WORDS = ["<pad>", "apple", "berry", "cat", "dog"]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(7)


def array(tensor) -> np.ndarray:
    return torch.as_tensor(tensor).detach().double().numpy()


def close(actual, expected, atol: float = 1e-6) -> None:
    np.testing.assert_allclose(array(actual), array(expected), rtol=1e-5, atol=atol)


# --- formulas ---


@pytest.mark.parametrize("out_features", [2, H])
@pytest.mark.parametrize("use_residual", [False, True])
def test_dense_formula(out_features, use_residual):
    dense = Dense(H, out_features, use_residual=use_residual)
    x = torch.randn(4, H)
    weight, bias = array(dense.linear.weight), array(dense.linear.bias)
    assert hasattr(dense, "residual") == (use_residual and out_features != H)
    by_hand = np.zeros((4, out_features))
    for text in range(4):
        for i in range(out_features):
            by_hand[text, i] = math.tanh(sum(weight[i, j] * float(x[text, j]) for j in range(H)) + bias[i])
    if use_residual:
        by_hand += array(x) if out_features == H else array(x) @ array(dense.residual.weight).T
    close(dense({"sentence_embedding": x.clone()})["sentence_embedding"], by_hand)


def test_dense_first_values_and_names():
    dense = Dense(H, 2, True, None, torch.ones(2, H), torch.tensor([1.0, -1.0]), "token_embeddings", "small")
    features = dense({"token_embeddings": torch.ones(1, 4, H)})
    assert features["small"].tolist() == [[[4.0, 2.0]] * 4]
    assert features["token_embeddings"].shape == (1, 4, H)
    assert dense.get_embedding_dimension() == 2


def test_normalize_formula():
    x = torch.randn(4, H)
    x[2] = 0
    by_hand = [[v / math.sqrt(sum(w * w for w in row)) if any(row) else 0 for v in row] for row in x.tolist()]
    close(Normalize()({"sentence_embedding": x})["sentence_embedding"], by_hand)


def test_layer_norm_formula():
    layer, x = LayerNorm(H), torch.randn(4, H)
    nn.init.normal_(layer.norm.weight)
    nn.init.normal_(layer.norm.bias)
    by_hand = []
    for row in array(x):
        mean = sum(row) / H
        variance = sum((v - mean) ** 2 for v in row) / H
        by_hand.append((row - mean) / math.sqrt(variance + 1e-5) * array(layer.norm.weight) + array(layer.norm.bias))
    close(layer({"sentence_embedding": x})["sentence_embedding"], np.array(by_hand))


def test_dropout_zeroes_a_share_and_scales_the_rest():
    x = torch.ones(100, 100)
    y = Dropout(0.2)({"sentence_embedding": x})["sentence_embedding"]
    kept = y != 0
    close(y[kept], torch.full_like(y[kept], 1.25))
    assert abs(float(kept.float().mean()) - 0.8) < 0.02  # five standard deviations
    assert torch.equal(Dropout(0.2).eval()({"sentence_embedding": x})["sentence_embedding"], x)


def test_weighted_layer_pooling_formula():
    module = WeightedLayerPooling(H, num_hidden_layers=3, layer_start=1, layer_weights=[0.5, 2.0, -1.0])
    layers = torch.randn(4, 2, 5, H)
    by_hand = (0.5 * array(layers[1]) + 2 * array(layers[2]) - array(layers[3])) / 1.5
    close(module({"all_layer_embeddings": tuple(layers)})["token_embeddings"], by_hand)
    assert WeightedLayerPooling(H, 12, 4).layer_weights.tolist() == [1.0] * 9


def test_weighted_layer_pooling_names_the_right_number_of_layers():
    with pytest.raises(InputError, match="num_hidden_layers=6"):
        WeightedLayerPooling(H, 3, 1)({"all_layer_embeddings": [torch.ones(2, H)] * 7})


def convolution_by_hand(conv: nn.Conv1d, x: np.ndarray) -> np.ndarray:
    """(l, H) -> (l', C) by a loop over positions."""
    weight, bias = array(conv.weight), array(conv.bias)  # (C, H, K), (C,)
    edge, step, width = (weight.shape[2] - 1) // 2, conv.stride[0], weight.shape[2]
    x = np.concatenate([np.zeros((edge, H)), x, np.zeros((edge, H))])
    starts = range(0, len(x) - width + 1, step)
    return np.array([np.einsum("chk,kh->c", weight, x[start : start + width]) + bias for start in starts])


@pytest.mark.parametrize(("kernels", "strides"), [([1, 3, 5], None), ([1, 3], [2, 2]), ([2, 4], None)])
def test_cnn_formula(kernels, strides):
    cnn, x = CNN(H, 2, kernels, strides), torch.randn(6, H)
    by_hand = np.concatenate([convolution_by_hand(conv, array(x)) for conv in cnn.convs], axis=1)
    features = cnn({"token_embeddings": x[None], "attention_mask": torch.ones(1, 6)})
    close(features["token_embeddings"][0], by_hand)
    assert features["attention_mask"].shape == (1, len(by_hand))
    assert by_hand.shape[1] == cnn.get_embedding_dimension() == 2 * len(kernels)


def test_cnn_fills_up_a_text_shorter_than_an_even_kernel():
    cnn, x = CNN(H, 2, [2]), torch.randn(1, H)
    by_hand = convolution_by_hand(cnn.convs[0], np.concatenate([array(x), np.zeros((1, H))]))
    close(cnn({"token_embeddings": x[None]})["token_embeddings"][0], by_hand)


@pytest.mark.parametrize(("kernels", "strides"), [([1, 2], None), ([1, 3], [1, 2]), ([1, 3], [1])])
def test_cnn_refuses_convolutions_that_do_not_line_up(kernels, strides):
    with pytest.raises(InputError, match="kernel_sizes"):
        CNN(H, 2, kernels, strides)


def recurrence_by_hand(x: np.ndarray, parameters: dict[str, np.ndarray], suffix: str) -> np.ndarray:
    """(l, H) -> (l, D): one direction of one layer; gates in the order input, forget, cell, output."""
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    w_x, w_h, b_x, b_h = (parameters[f"encoder.{name}_l0{suffix}"] for name in names)
    h = c = np.zeros(w_h.shape[1])
    outputs = []
    for token in x:
        i, f, g, o = np.split(w_x @ token + b_x + w_h @ h + b_h, 4)
        i, f, o = (1 / (1 + np.exp(-gate)) for gate in (i, f, o))
        c = f * c + i * np.tanh(g)
        h = o * np.tanh(c)
        outputs.append(h)
    return np.array(outputs)


def test_lstm_formula():
    lstm, x = LSTM(H, 2), torch.randn(6, H)
    parameters = {name: array(tensor) for name, tensor in lstm.state_dict().items()}
    forward = recurrence_by_hand(array(x), parameters, "")
    backward = recurrence_by_hand(array(x)[::-1], parameters, "_reverse")[::-1]
    close(lstm({"token_embeddings": x[None]})["token_embeddings"][0], np.concatenate([forward, backward], axis=1))
    assert lstm.get_embedding_dimension() == 4
    assert LSTM(H, 2, bidirectional=False).get_embedding_dimension() == 2


def test_word_weights_formula():
    module = WordWeights(WORDS, {"apple": 2.0, "cat": 0.5, "other": 9.0}, unknown_word_weight=3)
    weight_of = {"<pad>": 3, "apple": 2, "berry": 3, "cat": 0.5, "dog": 3}
    x = torch.randn(2, 3, H)
    texts = [["apple", "berry", "cat"], ["dog"]]
    features = module(
        {
            "token_embeddings": x,
            "input_ids": torch.tensor([[1, 2, 3], [4, 0, 0]]),
            "attention_mask": torch.tensor([[1, 1, 1], [1, 0, 0]]),
        }
    )
    by_hand = np.zeros((2, 3, H))
    for row, text in enumerate(texts):
        for place, word in enumerate(text):
            by_hand[row, place] = weight_of[word] * array(x)[row, place]
    close(features["token_embeddings"], by_hand)
    close(features["token_weights_sum"], [sum(weight_of[word] for word in text) for text in texts])


@pytest.mark.parametrize("cumulative", [True, False])
def test_bow_formula(cumulative):
    vocab, texts = ["a", "b", "c"], ["a b a, x", "", "c (C) c"]
    module = BoW(vocab, {"a": 2.0, "c": 0.5}, unknown_word_weight=3, cumulative_term_frequency=cumulative)
    counts = [Counter(["a", "b", "a"]), Counter(), Counter(["c", "c", "c"])]
    by_hand = [
        [w * (n[v] if cumulative else min(1, n[v])) for v, w in zip("abc", (2, 3, 0.5), strict=True)] for n in counts
    ]
    close(module(module.preprocess(texts))["sentence_embedding"], by_hand)
    assert module.get_embedding_dimension() == 3
    assert module.save_in_root is False


def test_bow_counts_a_repeated_word_of_the_vocabulary_once():
    module = BoW(["a", "b", "a"])
    assert module.vocab == ["a", "b"]
    assert module.tokenize(["a a b"])["sentence_embedding"].tolist() == [[2.0, 1.0]]


@pytest.mark.parametrize("module", [BoW(["a"]), WordEmbeddings(WhitespaceTokenizer(["a"]), [[1.0]])])
def test_input_that_is_not_text_is_named(module):
    with pytest.raises(InputError, match=r"Input 1 is \('a', 'b'\) \(tuple\)"):
        module.preprocess(["a", ("a", "b")])


# --- laws ---

TOKEN_MODULES = {
    "Dense": lambda: Dense(H, 2, module_input_name="token_embeddings"),
    "Normalize": lambda: Normalize("token_embeddings"),
    "WeightedLayerPooling": lambda: WeightedLayerPooling(H, 2, 1, layer_weights=[1.0, 3.0]),
    "WordWeights": lambda: WordWeights(WORDS, {"apple": 2.0, "cat": 0.5}, 0.25),
    "CNN": lambda: CNN(H, 2, [1, 3, 5]),
    "CNN with stride": lambda: CNN(H, 2, [1, 3], [2, 2]),
    "CNN with even kernels": lambda: CNN(H, 2, [2, 4]),
    "LSTM": lambda: LSTM(H, 2, num_layers=2),
    "WordEmbeddings": lambda: WordEmbeddings(WhitespaceTokenizer(WORDS), torch.randn(5, H)),
}


def packed_features(lengths=LENGTHS) -> dict:
    total = sum(lengths)
    return {
        "token_embeddings": torch.randn(total, H),
        "all_layer_embeddings": list(torch.randn(3, total, H)),
        "input_ids": torch.randint(1, len(WORDS), (total,)),
        "packing": Packing(lengths),
    }


def texts_alone(module, features) -> list[dict]:
    """Results for each text in a batch of its own."""
    packing, results = features["packing"], []
    for start, length in zip(packing.offsets.tolist(), packing.lengths, strict=False):
        rows = slice(start, start + length)
        results.append(
            module(
                {
                    "token_embeddings": features["token_embeddings"][None, rows],
                    "all_layer_embeddings": [layer[None, rows] for layer in features["all_layer_embeddings"]],
                    "input_ids": features["input_ids"][None, rows],
                    "attention_mask": torch.ones(1, length, dtype=torch.int64),
                }
            )
        )
    return results


def padded_on(side: str, features: dict) -> dict:
    """The batch padded with noise, so that a result that looks at padding is wrong."""
    batch = Features.of(features).pad()
    noise = torch.full((len(LENGTHS), max(LENGTHS), H), 7.0)
    keep = batch["attention_mask"].bool()[..., None]
    batch["token_embeddings"] = torch.where(keep, batch["token_embeddings"], noise)
    if side == "left":
        shifts = [max(LENGTHS) - length for length in LENGTHS]
        for key in ("token_embeddings", "input_ids", "attention_mask"):
            batch[key] = torch.stack([row.roll(by, 0) for row, by in zip(batch[key], shifts, strict=True)])
        layers = batch["all_layer_embeddings"]
        batch["all_layer_embeddings"] = [
            torch.stack([row.roll(by, 0) for row, by in zip(layer, shifts, strict=True)]) for layer in layers
        ]
    return batch


@pytest.mark.parametrize("name", TOKEN_MODULES)
def test_packed_equals_alone(name):
    module, features = TOKEN_MODULES[name]().eval(), packed_features()
    alone = texts_alone(module, features)
    packed = module(dict(features))
    assert module.takes_packed
    assert packed["packing"].lengths == [one["token_embeddings"].shape[1] for one in alone]
    close(packed["token_embeddings"], torch.cat([one["token_embeddings"][0] for one in alone]))
    if name == "WordWeights":
        close(packed["token_weights_sum"], torch.cat([one["token_weights_sum"] for one in alone]))


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("name", TOKEN_MODULES)
def test_padded_equals_alone(name, side):
    module, features = TOKEN_MODULES[name]().eval(), packed_features()
    alone = texts_alone(module, features)
    padded = module(padded_on(side, features))
    assert padded["token_embeddings"].shape[:2] == padded["attention_mask"].shape
    for row, mask, one in zip(padded["token_embeddings"], padded["attention_mask"], alone, strict=True):
        close(row[mask.bool()], one["token_embeddings"][0])
    if name == "WordWeights":
        close(padded["token_weights_sum"], torch.cat([one["token_weights_sum"] for one in alone]))


@pytest.mark.parametrize("name", ["CNN", "CNN with even kernels", "LSTM"])
def test_a_text_without_tokens_stays_empty(name):
    module, tokens = TOKEN_MODULES[name]().eval(), torch.randn(2, 4, H)
    mask = torch.tensor([[0, 0, 0, 0], [1, 1, 1, 1]])
    features = module({"token_embeddings": tokens, "attention_mask": mask})
    alone = module({"token_embeddings": tokens[1:]})["token_embeddings"]
    close(features["token_embeddings"][1:, : alone.shape[1]], alone)
    assert not features["token_embeddings"][0].any()
    assert features["attention_mask"].sum(1).tolist() == [0, alone.shape[1]]
    nothing = module({"token_embeddings": tokens[:1], "attention_mask": mask[:1]})
    assert not nothing["token_embeddings"].any()


def test_stride_removes_entries_of_the_tokens_before():
    features = packed_features()
    result = CNN(H, 2, [1], [2])(features)
    assert result["packing"].lengths == [3, 1, 2, 1, 1]
    assert set(result) == {"packing", "token_embeddings"}
    assert Features.of(result).pad()["token_embeddings"].shape == (5, 3, 2)


TRAINABLE = {name: make for name, make in TOKEN_MODULES.items() if name not in ("Normalize", "WordEmbeddings")}
TRAINABLE["WordEmbeddings"] = lambda: WordEmbeddings(WhitespaceTokenizer(WORDS), torch.randn(5, H), True)
TRAINABLE["Dense with residual"] = lambda: Dense(H, 2, use_residual=True, module_input_name="token_embeddings")


@pytest.mark.parametrize("name", TRAINABLE)
def test_gradient_reaches_every_weight(name):
    module = TRAINABLE[name]()
    tokens = module(packed_features())["token_embeddings"]
    (tokens * torch.randn_like(tokens)).sum().backward()
    parameters = dict(module.named_parameters())
    assert parameters
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in parameters.values())


def test_gradient_reaches_layer_norm_and_its_input():
    layer, x = LayerNorm(H), torch.randn(2, H, requires_grad=True)
    (layer({"sentence_embedding": x})["sentence_embedding"] * torch.randn(2, H)).sum().backward()
    assert all(tensor.grad.any() for tensor in (x, layer.norm.weight, layer.norm.bias))


def test_word_embeddings_are_frozen_unless_asked():
    assert not WordEmbeddings(WhitespaceTokenizer(WORDS), torch.randn(5, H)).emb_layer.weight.requires_grad


MODULES = {
    **TOKEN_MODULES,
    "Dense with everything": lambda: Dense(H, 2, False, nn.ReLU(), None, None, "a", "b", True),
    "LayerNorm": lambda: LayerNorm(H),
    "Dropout": lambda: Dropout(0.3),
    "BoW": lambda: BoW(WORDS, {"cat": 2.0}, 0.5, False),
    "PhraseTokenizer": lambda: WordEmbeddings(PhraseTokenizer(WORDS, ["dog"]), torch.randn(5, H), True, 7),
}


DIMENSIONS = {"CNN": 8, "LSTM": 8, "Pooling": 6, "Dense": 3, "LayerNorm": 6}


@pytest.mark.parametrize("name", DIMENSIONS)
def test_older_names_of_the_dimension(name):
    """As in `Pooling(cnn.get_word_embedding_dimension())` of scripts from version 2 on."""
    settings = {
        "CNN": {"out_channels": 4, "kernel_sizes": [1, 3]},
        "LSTM": {"hidden_dim": 4},
        "Dense": {"out_features": 3},
    }
    module = getattr(models, name)(6, **settings.get(name, {}))
    assert module.get_word_embedding_dimension() == module.get_embedding_dimension() == DIMENSIONS[name]
    assert not hasattr(models.Normalize(), "get_word_embedding_dimension")


def test_printed_as_in_6_2_0():
    """Recorded with 6.2.0."""
    assert repr(models.Pooling(6, "cls")) == (
        "Pooling({'embedding_dimension': 6, 'pooling_mode': 'cls', 'include_prompt': True})"
    )
    assert repr(models.WordWeights(["a"], {"a": 0.5})) == (
        "WordWeights({'vocab': ['a'], 'word_weights': {'a': 0.5}, 'unknown_word_weight': 1})"
    )
    modality = "{'text': {'method': 'forward', 'method_output_name': 'logits'}}"
    assert str(CrossEncoder(str(Path(__file__).parents[1] / "golden_formats" / "out_ce"), device="cpu")) == (
        "CrossEncoder(\n  (0): Transformer({'transformer_task': 'sequence-classification', "
        f"'modality_config': {modality}, "
        "'module_output_name': 'scores', 'architecture': 'BertForSequenceClassification'})\n)"
    )


@pytest.mark.parametrize("safe", [True, False])
@pytest.mark.parametrize("name", MODULES)
def test_round_trip_through_a_folder(name, safe, tmp_path):
    module = MODULES[name]()
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    (tmp_path / "part").mkdir()
    module.save(str(tmp_path / "part"), safe_serialization=safe)
    kind, source = type(module), Source(str(tmp_path), "part")
    for again in (kind.load(str(tmp_path), subfolder="part"), kind.from_source(source)):
        assert again.get_config_dict() == module.get_config_dict()
        assert repr(again) == repr(module)
        assert again.state_dict().keys() == module.state_dict().keys()
        assert all(torch.equal(again.state_dict()[key], value) for key, value in module.state_dict().items())
        if hasattr(module, "tokenizer"):
            assert type(again.tokenizer) is type(module.tokenizer)
            assert vars(again.tokenizer) == vars(module.tokenizer)


# --- settings, names, errors ---


def saved_dense(folder: Path, **settings) -> str:
    Dense(H, H).save(str(folder))
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return str(folder)


def test_dense_does_not_run_a_name_from_outside_torch(tmp_path, caplog):
    folder = saved_dense(tmp_path, activation_function="antigravity.fly")
    dense = Dense.load(folder)
    assert isinstance(dense.activation_function, nn.Tanh)
    assert "antigravity.fly" in caplog.text
    assert "trust_remote_code" in caplog.text
    assert "antigravity" not in sys.modules


def test_dense_runs_a_trusted_name(tmp_path):
    folder = saved_dense(tmp_path, activation_function="math.fsum")
    assert Dense.load(folder, trust_remote_code=True).activation_function is math.fsum


@pytest.mark.parametrize("name", ["torch.hub.load", "torch.tanh", "torch.nn.modules.activation.Nope", "torch.no.Such"])
def test_dense_refuses_names_in_torch_that_are_no_modules(name, tmp_path):
    with pytest.raises(ModelFormatError, match=name):
        Dense.load(saved_dense(tmp_path, activation_function=name))


def test_dense_leaves_out_unknown_settings_with_a_warning(tmp_path, caplog):
    assert Dense.load(saved_dense(tmp_path, colour="red")).in_features == H
    assert "colour" in caplog.text


def test_dense_of_old_takes_defaults_from_the_model(tmp_path):
    folder = saved_dense(tmp_path)
    old = {
        "in_features": H,
        "out_features": H,
        "bias": True,
        "activation_function": "torch.nn.modules.linear.Identity",
    }
    (tmp_path / "config.json").write_text(json.dumps(old))
    assert Dense.load(folder).module_input_name == "sentence_embedding"
    dense = Dense.load(folder, init_defaults={"module_input_name": "token_embeddings"})
    assert (dense.module_input_name, dense.module_output_name) == ("token_embeddings", "token_embeddings")


def test_dense_writes_the_residual_only_if_there_is_one():
    assert "use_residual" not in Dense(H, H).get_config_dict()
    assert Dense(H, H, use_residual=True).get_config_dict()["use_residual"] is True


def test_normalize_without_a_folder_means_defaults(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("config.json").write_text('{"module_input_name": "not mine"}')
    for module in (Normalize.load(str(tmp_path), subfolder="2_Normalize"), Normalize.load()):
        assert module.get_config_dict() == dict.fromkeys(Normalize.config_keys, "sentence_embedding")


def test_load_is_from_source(tmp_path):
    """With the place that the arguments name, and what else was given."""

    class Mine(Dropout):
        @classmethod
        def from_source(cls, source, **kwargs):
            return source, kwargs

    given = Mine.load(
        "user/model", "2_Mine", "secret", "cache", "main", True, init_defaults={"dropout": 0.5}, backend="torch"
    )
    source = Source("user/model", "2_Mine", "secret", "cache", "main", True)
    assert given == (source, {"init_defaults": {"dropout": 0.5}, "backend": "torch"})
    (tmp_path / "config.json").write_text("{}")
    assert Dropout.from_source(source=Source(str(tmp_path)), init_defaults={"dropout": 0.5}).dropout == 0.5


RENAMED = [
    (WeightedLayerPooling, {"word_embedding_dimension": H}, "embedding_dimension"),
    (LSTM, {"word_embedding_dimension": H, "hidden_dim": 2}, "embedding_dimension"),
    (CNN, {"in_word_embedding_dimension": H}, "in_embedding_dimension"),
]


@pytest.mark.parametrize(("cls", "arguments", "new"), RENAMED)
def test_older_argument_names(cls, arguments, new, tmp_path):
    with pytest.warns(DeprecationWarning, match=new) as caught:
        module = cls(**arguments)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert getattr(module, new) == H
    module.save(str(tmp_path))
    path = tmp_path / cls.config_file_name
    path.write_text(path.read_text().replace(f'"{new}"', f'"{next(iter(arguments))}"'))
    assert getattr(cls.load(str(tmp_path)), new) == H  # a file of old gives no warning


@pytest.mark.parametrize(("cls", "arguments", "new"), RENAMED)
def test_two_names_of_one_argument(cls, arguments, new):
    with pytest.warns(DeprecationWarning), pytest.raises(TypeError, match=new):
        cls(**arguments, **{new: H})


def test_renamed_gives_one_warning_for_all_names_and_none_for_new_ones(recwarn):
    @legacy(a="x", b="y")
    def pair(x, y):
        return x, y

    assert pair(1, y=2) == (1, 2)
    assert not recwarn
    assert pair(a=1, b=2) == (1, 2)
    assert [warning.category for warning in recwarn] == [DeprecationWarning]
    with pytest.warns(DeprecationWarning), pytest.raises(TypeError):
        pair(1, a=1, y=2)


# --- word tokenizers and tables ---


@pytest.fixture
def fake_nltk(monkeypatch):
    """nltk's word cutter, as far as recorded."""
    module = types.ModuleType("nltk")
    module.word_tokenize = lambda text, preserve_line: GOLDEN["phrase_words"][text]
    monkeypatch.setitem(sys.modules, "nltk", module)


@pytest.mark.parametrize("case", GOLDEN["whitespace"], ids=lambda case: str(list(case["arguments"])))
def test_whitespace_tokenizer_golden(case):
    tokenizer = WhitespaceTokenizer(**case["arguments"])
    assert [tokenizer.tokenize(text) for text in GOLDEN["texts"]] == case["ids"]


@pytest.mark.parametrize("case", GOLDEN["phrase"], ids=lambda case: str(list(case["arguments"])))
def test_phrase_tokenizer_golden(case, fake_nltk):
    tokenizer = PhraseTokenizer(**case["arguments"])
    assert [tokenizer.tokenize(text) for text in GOLDEN["phrase_texts"]] == case["ids"]


def test_stop_words_golden():
    assert sorted(ENGLISH_STOP_WORDS) == GOLDEN["stop_words"]


@pytest.mark.parametrize(
    ("word", "index"),
    [
        ("apple", 0),
        ("(apple).", 0),
        ("Apple", 1),
        ("APPLE", 0),
        ('"APPLE"', 0),
        ("the", None),
        ("The.", None),
        ("pear", None),
    ],
)
def test_lookup_tries_three_spellings(word, index):
    assert WhitespaceTokenizer(["apple", "Apple", "the"]).tokenize(word) == ([] if index is None else [index])


def test_phrase_tokenizer_names_the_missing_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "nltk", None)
    with pytest.raises(MissingExtraError, match="nltk"):
        PhraseTokenizer(["a"]).tokenize("a")


def test_transformers_tokenizer_as_word_tokenizer(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    ids = {word: index for index, word in enumerate([*WORDS, "[UNK]"])}
    words = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    module = WordEmbeddings(PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]"), torch.randn(6, H))
    module.save(str(tmp_path))
    again = WordEmbeddings.load(str(tmp_path))
    assert isinstance(again.tokenizer, TransformersTokenizerWrapper)
    assert again.tokenizer.get_vocab() == ids
    assert again.preprocess(["cat apple pear"])["input_ids"].tolist() == [[3, 1, 5]]


class OwnTokenizer(WhitespaceTokenizer):
    """From outside of the library."""


def test_tokenizer_class_from_elsewhere_needs_trust(tmp_path):
    module = TOKEN_MODULES["WordEmbeddings"]()
    module.save(str(tmp_path))
    path = tmp_path / "wordembedding_config.json"
    saved = json.loads(path.read_text())
    public = "sentence_transformers.sentence_transformer.modules.tokenizer.whitespace.WhitespaceTokenizer"
    assert saved["tokenizer_class"] == public
    older = "sentence_transformers.models.tokenizer.WhitespaceTokenizer.WhitespaceTokenizer"
    path.write_text(json.dumps(saved | {"tokenizer_class": older}))
    assert WordEmbeddings.load(str(tmp_path)).tokenizer.get_vocab() == WORDS
    path.write_text(json.dumps(saved | {"tokenizer_class": f"{__name__}.OwnTokenizer"}))
    trusted = WordEmbeddings.from_source(Source(str(tmp_path)), trust_remote_code=True)
    assert type(trusted.tokenizer) is OwnTokenizer
    path.write_text(json.dumps(saved | {"tokenizer_class": "antigravity.Tokenizer"}))
    with pytest.raises(UntrustedCodeError, match="antigravity"):
        WordEmbeddings.load(str(tmp_path))
    path.write_text(json.dumps(saved | {"tokenizer_class": "sentence_transformers.modules.dense.Dense"}))
    with pytest.raises(ModelFormatError, match="not a WordTokenizer"):
        WordEmbeddings.load(str(tmp_path))


LINES = "apple 1 2 3\nberry 4 5 6\nodd 1 2\ncat 7 8 9 \n"


@pytest.mark.parametrize("packer", [None, gzip])
@pytest.mark.parametrize("header", ["", "3 3\n"])
@pytest.mark.parametrize("separator", [" ", "\t"])
def test_word_embeddings_from_text_file(tmp_path, caplog, packer, header, separator):
    content = (header + LINES).replace(" ", separator).encode()
    path = tmp_path / ("table.txt.gz" if packer else "table.txt")
    path.write_bytes(packer.compress(content) if packer else content)
    with caplog.at_level(logging.WARNING):
        module = WordEmbeddings.from_text_file(str(path), item_separator=separator)
    assert module.tokenizer.get_vocab() == ["PADDING_TOKEN", "apple", "berry", "cat"]
    assert module.emb_layer.weight.tolist() == [[0, 0, 0], [1, 2, 3], [4, 5, 6], [7, 8, 9]]
    assert "odd" in caplog.text
    limited = WordEmbeddings.from_text_file(str(path), True, separator, WhitespaceTokenizer(stop_words=["x"]), 2)
    assert limited.tokenizer.get_vocab() == ["PADDING_TOKEN", "apple", "berry"]
    assert limited.tokenizer.stop_words == {"x"}
    assert limited.update_embeddings


@pytest.mark.parametrize(
    ("content", "message"), [("", "no line"), ("3 2\n", "no line"), ("apple 1 x\n", "Line 1.*apple")]
)
def test_word_embeddings_from_a_useless_file(tmp_path, content, message):
    (tmp_path / "table.txt").write_text(content)
    with pytest.raises(InputError, match=message):
        WordEmbeddings.from_text_file(str(tmp_path / "table.txt"))


# --- version 6.2.0 ---


def golden_module(case: dict) -> nn.Module:
    arguments = dict(case["arguments"])
    if name := arguments.get("activation_function"):
        arguments["activation_function"] = getattr(nn, name.rpartition(".")[2])()
    module = CLASSES[case["class"]](**arguments).eval()
    module.load_state_dict({name: torch.tensor(values) for name, values in case["state"].items()})
    return module


@pytest.mark.parametrize("name", GOLDEN["numeric"])
def test_golden_values(name):
    case = GOLDEN["numeric"][name]
    module = golden_module(case)
    features = {key: torch.tensor(value) for key, value in case["features"].items()}
    close(module(features)[case["output"]], case["expected"])
    assert module.get_config_dict() == case["config"]


@pytest.mark.parametrize("case", GOLDEN["bow"], ids=["counted", "once"])
def test_golden_bow(case):
    module = BoW(**case["arguments"])
    close(module.preprocess(case["texts"], prompt=case["prompt"])["sentence_embedding"], case["expected"])


@pytest.mark.parametrize("case", GOLDEN["word_embeddings"], ids=["whole", "cut"])
def test_golden_word_embeddings(case):
    module = WordEmbeddings(WhitespaceTokenizer(case["vocab"]), case["table"], **case["arguments"])
    features = module(module.preprocess(case["texts"], prompt="cat "))
    for key, expected in case["expected"].items():
        close(features[key], expected)


def test_golden_word_weights():
    case = GOLDEN["word_weights"]
    features = WordWeights(**case["arguments"])({key: torch.tensor(value) for key, value in case["features"].items()})
    for key, expected in case["expected"].items():
        close(features[key], expected)


LOAD_IN_ORACLE = """
import json, pathlib, sys, torch
from sentence_transformers.sentence_transformer import modules

folder, results = pathlib.Path(sys.argv[1]), {}
for name, case in json.loads((folder / "cases.json").read_text()).items():
    module = getattr(modules, case["class"]).load(str(folder), subfolder=name).eval()
    if "texts" in case:
        features = module.preprocess(case["texts"])
    else:
        features = {key: torch.tensor(value) for key, value in case["features"].items()}
    if "all_layer_embeddings" in features:
        features["all_layer_embeddings"] = list(features["all_layer_embeddings"])
    if "token_embeddings" in features:
        mask = torch.ones(features["token_embeddings"].shape[:2], dtype=torch.int64)
        features = {"attention_mask": mask, "sentence_lengths": mask.sum(1)} | features
    with torch.no_grad():
        results[name] = module(features)[case["output"]].tolist()
    (folder / "theirs" / name).mkdir(parents=True)
    module.save(str(folder / "theirs" / name))
print(json.dumps(results))
"""


def folder_cases() -> dict[str, tuple[nn.Module, dict]]:
    """Modules to save, and what to run them on."""
    cases = {name: (golden_module(case), case) for name, case in GOLDEN["numeric"].items()}
    weights = GOLDEN["word_weights"]
    cases["word_weights"] = WordWeights(**weights["arguments"]), weights | {"output": "token_embeddings"}
    table = WordEmbeddings(WhitespaceTokenizer(WORDS, ["dog"], True), torch.randn(5, H), max_seq_length=2)
    texts = {"texts": ["Cat apple", "dog berry cat apple"]}
    cases["word_embeddings"] = table, texts | {"output": "token_embeddings"}
    cases["bow"] = BoW(WORDS, {"cat": 2.0}, 0.5), texts | {"output": "sentence_embedding"}
    return cases


@pytest.mark.slow
@pytest.mark.skipif(oracle_python() is None, reason="needs version 6.2.0; set ORACLE_PYTHON")
def test_folders_are_understood_both_ways(tmp_path):
    cases = folder_cases()
    plain = {}
    for name, (module, case) in cases.items():
        (tmp_path / name).mkdir()
        module.save(str(tmp_path / name))
        plain[name] = {"class": type(module).__name__} | case
    (tmp_path / "cases.json").write_text(json.dumps(plain))
    theirs = json.loads(run_oracle(LOAD_IN_ORACLE, tmp_path).splitlines()[-1])
    assert theirs.keys() == cases.keys()
    for name, (module, case) in cases.items():
        for ours in (module, type(module).load(str(tmp_path), subfolder=f"theirs/{name}").eval()):
            if "texts" in case:
                features = ours.preprocess(case["texts"])
            else:
                features = {key: torch.tensor(value) for key, value in case["features"].items()}
            close(ours(features)[case["output"]], theirs[name])
