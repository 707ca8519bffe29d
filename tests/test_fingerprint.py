"""The fingerprint of a model changes with all that its outputs depend on, and with nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers.models import Dense, Pooling

from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.storage.fingerprint import of_model

CHANGES: dict[str, Callable[[Any], Any]] = {
    "one weight": lambda m: m[0].auto_model.embeddings.word_embeddings.weight.data[60, 5].add_(1e-3),
    "a bias": lambda m: m[2].linear.bias.data[3].add_(1e-6),
    "dtype": lambda m: m.bfloat16(),
    "pooling": lambda m: m.__setitem__(1, Pooling(32, "max")),
    "slope of an activation": lambda m: setattr(m[2].activation_function, "negative_slope", 0.5),
    "one module less": lambda m: m.__delitem__(2),
    "prompt": lambda m: m.prompts.update(query="one: "),
    "truncate_dim": lambda m: setattr(m, "truncate_dim", 8),
    "max_seq_length": lambda m: setattr(m, "max_seq_length", 6),
    "tokenizer": lambda m: setattr(m.tokenizer, "truncation_side", "left"),
}
NOT_CHANGES: dict[str, Callable[[Any], Any]] = {
    "encoding": lambda m: m.encode(["a text", "b"]),
    "looking at the transformers model": lambda m: m[0].auto_model,
    "training": lambda m: m.train(),
    "another budget": lambda m: [setattr(module, "token_budget", 64) for module in m],
    "another place": lambda m: setattr(m, "came_from", Path("/elsewhere")),
}


def loaded(folder: Path) -> SentenceTransformer:
    model = SentenceTransformer(str(folder), device="cpu", prompts={"query": "q: "})
    torch.manual_seed(0)
    model.append(Dense(32, 8, activation_function=torch.nn.LeakyReLU(0.1)))
    return model


@pytest.mark.parametrize("change", [*CHANGES, *NOT_CHANGES])
def test_what_changes_a_fingerprint(change: str, bert_folder: Path) -> None:
    model = loaded(bert_folder)
    before = of_model(model)
    assert before == of_model(loaded(bert_folder))
    (CHANGES | NOT_CHANGES)[change](model)
    assert (of_model(model) != before) == (change in CHANGES)


def test_the_activation_of_a_cross_encoder_counts(bert_folder: Path) -> None:
    model = CrossEncoder(str(bert_folder), device="cpu", num_labels=1)
    found = {of_model(model)}
    for activation in (torch.nn.Identity(), torch.nn.LeakyReLU(0.1), torch.nn.LeakyReLU(0.2), torch.tanh):
        model.activation_fn = activation
        found.add(of_model(model))
    assert len(found) == 5
