"""The law that every architecture keeps: packed = padded = alone, in vectors and in gradients.

The reference is transformers itself, one text at a time, with its own "eager" attention and nothing of this library:

    e_1 … e_n = AutoModel(tokens of one text),    vector = (1/n) Σ e_i,    loss = Σ vector²  over all texts
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from sentence_transformers import SentenceTransformer
from sentence_transformers.engine.tokenization import Tokens
from sentence_transformers.features import Features
from sentence_transformers.modules.pooling import Pooling
from sentence_transformers.modules.transformer import Transformer
from tests import models
from tests.models import ARCHITECTURES, HIDDEN, MAX_LENGTH, TEXTS, Architecture

FEW = ["cat", "The river.", *models.SENTENCES[:3], " ".join(models.SENTENCES[:3])]
PACKED = [name for name, architecture in ARCHITECTURES.items() if architecture.packs]
PADDED = [name for name in ARCHITECTURES if name not in PACKED]
CAUSAL = [name for name, architecture in ARCHITECTURES.items() if architecture.causal]


def close(actual: Any, expected: Any, atol: float = 1e-5) -> None:
    np.testing.assert_allclose(np.asarray(actual), np.asarray(expected), rtol=1e-5, atol=atol)


class Case:
    """One architecture: the model under test beside the reference."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        self.architecture: Architecture = ARCHITECTURES[name]
        self.model = SentenceTransformer(str(folder), device="cpu")
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        model_class = getattr(transformers, self.architecture.model or "AutoModel")
        self.reference = model_class.from_pretrained(folder, attn_implementation="eager").eval()
        with torch.no_grad():
            self.rows = [self.alone(text) for text in TEXTS]
        self.vectors = torch.stack([row.mean(0) for row in self.rows]).numpy()

    def alone(self, text: str) -> torch.Tensor:
        """Token vectors (l, H) of one text by the reference."""
        tokens = self.tokenizer(text, truncation=True, max_length=MAX_LENGTH, return_tensors="pt")
        return self.reference(**tokens).last_hidden_state[0]

    def twin(self, **kwargs: Any) -> SentenceTransformer:
        """The same model, loaded once more with other settings of `Transformer`."""
        transformer = Transformer(str(self.folder), **kwargs)
        return SentenceTransformer(modules=[transformer, Pooling(HIDDEN, "mean")], device="cpu")


@pytest.fixture(scope="module")
def case_of(folder_of: Callable[[str], Path]) -> Callable[[str], Case]:
    """Name -> `Case`, made once."""
    made: dict[str, Case] = {}

    def case(name: str) -> Case:
        if name not in made:
            made[name] = Case(name, folder_of(name))
        return made[name]

    return case


@pytest.fixture(params=ARCHITECTURES)
def case(request: pytest.FixtureRequest, case_of: Callable[[str], Case]) -> Case:
    return case_of(request.param)


# ---- vectors


def test_packs(case):
    """Packed batches are used exactly where they are right."""
    assert case.model[0].packs is case.architecture.packs


def test_together_is_alone_is_reference(case):
    """A text's vector is transformers' own, whatever the neighbours, the batch size and the order."""
    assert case.vectors.std(0).min() > 1e-3  # the texts differ, so a mix-up would show
    close(case.model.encode(TEXTS), case.vectors)
    close([case.model.encode(text, batch_size=1) for text in TEXTS], case.vectors)
    close(case.model.encode(TEXTS, batch_size=1), case.vectors)
    close(case.model.encode(TEXTS[::-1], batch_size=3)[::-1], case.vectors)


def test_token_embeddings(case):
    """So are the vectors of its tokens: one row per token, none for padding."""
    for rows, expected in zip(case.model.encode(TEXTS, output_value="token_embeddings"), case.rows, strict=True):
        assert rows.shape == expected.shape
        close(rows, expected)


@pytest.mark.parametrize("side", ["right", "left"])
def test_padded_batches(case, side):
    """`model(preprocess(texts))`, padded on either side, gives the same vectors where padding can be masked at all."""
    if side == "left" and case.architecture.tokenizer not in models.LEFT_PADDED:
        pytest.skip("positions are counted from the left end of the batch")
    model = case.twin(processor_kwargs={"padding_side": side})
    features = model.preprocess(TEXTS)
    filled = features["attention_mask"].sum(1)
    assert features["attention_mask"].shape == (len(TEXTS), MAX_LENGTH)
    shortest = int(filled.argmin())
    assert bool(features["attention_mask"][shortest, 0 if side == "right" else -1])
    assert not features["attention_mask"][shortest, -1 if side == "right" else 0]
    with torch.no_grad():
        vectors = model(features)["sentence_embedding"].numpy()
    if case.architecture.padding_shows:
        assert abs(vectors - case.vectors).max() > 1e-3
    else:
        close(vectors, case.vectors)


@pytest.mark.parametrize("name", PACKED)
def test_packing_can_be_switched_off(case_of, name):
    """With unpad_inputs=False the same model pads, and gives the same vectors."""
    case = case_of(name)
    model = case.twin(unpad_inputs=False)
    assert model[0].packs is False
    close(model.encode(TEXTS), case.vectors)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_direction(case_of, name):
    """The last word changes the first token's vector unless the model is causal: the reference has something to say."""
    case = case_of(name)
    first, second = case.model.encode(["He fell asleep again", "He fell asleep today"], output_value="token_embeddings")
    change = float((first[0] - second[0]).abs().max())
    assert (change < 1e-6) if case.architecture.causal else (change > 1e-4)


@pytest.mark.parametrize("name", ["llama", "mistral", "gemma3"])
@pytest.mark.parametrize("when", ["saved", "set"])
def test_causal_models_that_are_told_to_look_both_ways(case_of, tmp_path, name, when):
    """By `config.is_causal = False`; windows of transformers are one token wider then."""
    case = Case(name, models.build(name, tmp_path, is_causal=False))
    assert abs(case.vectors - case_of(name).vectors).max() > 1e-2
    if when == "set":
        case.model = SentenceTransformer(str(case_of(name).folder), device="cpu")
        case.model.encode(TEXTS)
        case.model.config.is_causal = False
    close(case.model.encode(TEXTS), case.vectors)


def test_window_ends_what_a_token_sees(case_of):
    """Two causal layers with a window of 8: a changed token reaches the 14 after it and no further."""
    model = case_of("mistral").model
    first = list(range(100, 124))
    second = [*first[:2], 50, *first[3:]]
    with torch.no_grad():
        features = model[0](model[0].features(Tokens.from_lists([first, second]), packed=True))
    before, after = features["token_embeddings"].split(len(first))
    change = (before - after).abs().amax(1)
    assert change[:2].max() < 1e-6
    assert change[2:17].min() > 1e-6
    assert change[17:].max() < 1e-6


@pytest.mark.parametrize("name", ["modernbert", "mistral", "gemma3", "gemma3-bidirectional"])
def test_windows_are_shorter_than_the_texts(case_of, tmp_path, name):
    """Without the window the vectors of long texts would be others, so the law above covers it."""
    wide = {"local_attention": 512} if name == "modernbert" else {"sliding_window": 512}
    other = SentenceTransformer(str(models.build(name, tmp_path, **wide)), device="cpu").encode(TEXTS)
    change = abs(other - case_of(name).vectors).max(1)
    lengths = np.array([len(rows) for rows in case_of(name).rows])
    assert change[lengths == MAX_LENGTH].max() > 1e-3
    window = getattr(case_of(name).model[0].auto_model.config, "sliding_window", 4)  # old transformers halve it
    assert change[lengths <= min(window, 4)].max() < 1e-5


@pytest.mark.parametrize("name", ["llama", "qwen3", "bert"])
def test_text_without_tokens(case_of, name):
    """Without special tokens an empty text has nothing to pool: zeros, and its neighbours are undisturbed."""
    model = case_of(name).twin(processing_kwargs={"text": {"add_special_tokens": False}})
    both, alone = model.encode(["", "The river."]), model.encode("The river.")
    assert not both[0].any() and not model.encode("").any()
    assert model.encode(["", ""]).shape == (2, HIDDEN)
    close(both[1], alone)
    assert model.encode("", output_value="token_embeddings").shape == (0, HIDDEN)


# ---- pairs, last tokens


def test_pairs_have_token_types(case_of):
    """(text, text) pairs: packed, padded and transformers' own call agree on segments and vectors."""
    case = case_of("bert")
    pairs = [("The river.", "Water boils."), ("cat", "She sells sea shells on the shore."), ("", "dog")]
    expected = []
    for first, second in pairs:
        tokens = case.tokenizer(first, second, return_tensors="pt")
        assert tokens["token_type_ids"].sum() > 0
        with torch.no_grad():
            expected.append(case.reference(**tokens).last_hidden_state[0].mean(0).numpy())
    tokens = case.model[0].tokens(pairs)
    for packed in (True, False):
        with torch.no_grad():
            features = case.model(case.model[0].features(tokens, packed=packed))
        close(features["sentence_embedding"], expected)


@pytest.mark.parametrize("name", CAUSAL)
def test_last_token(case_of, name):
    """Causal models with last-token pooling, whichever side is padded."""
    case = case_of(name)
    expected = np.stack([rows[-1].numpy() for rows in case.rows])
    for side in ("right", "left"):
        transformer = Transformer(str(case.folder), processor_kwargs={"padding_side": side})
        model = SentenceTransformer(modules=[transformer, Pooling(HIDDEN, "lasttoken")], device="cpu")
        close(model.encode(TEXTS), expected)
        with torch.no_grad():
            close(model(model.preprocess(TEXTS))["sentence_embedding"], expected)


def test_plain_causal_checkpoint_takes_the_last_token(case_of, tmp_path):
    """A checkpoint of a causal language model without modules.json gets last-token pooling."""
    folder = models.build("llama", tmp_path, architectures=["LlamaForCausalLM"])
    config = transformers.AutoConfig.from_pretrained(folder)
    torch.manual_seed(1)
    language_model = transformers.LlamaForCausalLM(config)
    language_model.save_pretrained(folder)
    model = SentenceTransformer(str(folder), device="cpu")
    expected = []
    for text in FEW:
        tokens = case_of("llama").tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            expected.append(language_model.model(**tokens).last_hidden_state[0, -1].numpy())
    assert model[1].pooling_mode == "lasttoken"
    close(model.encode(FEW), expected)


# ---- gradients


def gradients(model: torch.nn.Module, loss: torch.Tensor) -> dict[str, np.ndarray]:
    """Gradient of each weight that has one, after which the model has none."""
    model.zero_grad()
    loss.backward()
    found = {name: p.grad.numpy().copy() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


def loss_of(model: SentenceTransformer, packed: bool) -> torch.Tensor:
    """Sum of the squares of the vectors of `FEW`."""
    features = model[0].features(model[0].tokens(FEW), packed=packed)
    assert (Features.of(features).layout == "packed") is packed
    return model(features)["sentence_embedding"].square().sum()


def assert_same_gradients(actual: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert actual.keys() == expected.keys()
    largest = max(abs(gradient).max() for gradient in expected.values())
    for name, gradient in expected.items():
        close(actual[name] / largest, gradient / largest)


def test_gradients(case):
    """Σ vector² has the reference's gradients, packed and padded, and they reach the token embeddings."""
    reference = case.reference
    expected = gradients(reference, sum(case.alone(text).mean(0).square().sum() for text in FEW))
    table = reference.get_input_embeddings().weight
    name = next(name for name, weight in reference.named_parameters() if weight is table)
    assert abs(expected[name]).max() > 1e-4
    layouts = [True, False] if case.architecture.packs else [False]
    for packed in layouts:
        if case.architecture.padding_shows:
            features = [case.model[0].features(case.model[0].tokens([text]), packed=False) for text in FEW]
            loss = sum(case.model(row)["sentence_embedding"].square().sum() for row in features)
        else:
            loss = loss_of(case.model, packed)
        assert_same_gradients(gradients(case.model[0].auto_model, loss), expected)


@pytest.mark.parametrize("name", ["bert", "roberta", "modernbert", "llama", "deberta-v2"])
def test_gradient_checkpointing(case_of, name):
    """Layers computed twice give the gradients of layers computed once."""
    case = case_of(name)
    model = case.twin()
    for module in model[0].auto_model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    expected = gradients(model, loss_of(model, model[0].packs))
    model.gradient_checkpointing_enable()
    model.train()
    calls: list[str] = []
    linear = next(m for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and "layer" in n)
    linear.register_forward_hook(lambda *_: calls.append("call"))
    assert_same_gradients(gradients(model, loss_of(model, model[0].packs)), expected)
    assert len(calls) == 2
