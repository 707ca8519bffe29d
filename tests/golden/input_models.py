"""The models of `input_cases.py` as either version of the library loads and calls them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Dense, Pooling
from tests.golden.input_cases import Case

import sentence_transformers


def load(case: Case, folder: Path) -> Any:
    """The model of a case, in evaluation mode."""
    if case.encoder != "pooled":
        return getattr(sentence_transformers, case.encoder)(str(folder), device="cpu")
    transformer = Transformer(str(folder))
    size = transformer.get_embedding_dimension()
    dense = Dense(size, 1, activation_function=torch.nn.Identity(), module_output_name="scores")
    with torch.no_grad():
        dense.linear.weight.copy_(torch.linspace(-1, 1, size)[None])
        dense.linear.bias.fill_(0.1)
    modules = [transformer, Pooling(size, "lasttoken"), dense]
    return sentence_transformers.CrossEncoder(modules=modules, device="cpu").eval()


def values_of(model: Any, inputs: list[Any], **kwargs: Any) -> np.ndarray:
    """Embeddings (N, H), or scores (N,) before the activation."""
    if hasattr(model, "predict"):
        return model.predict(inputs, activation_fn=torch.nn.Identity(), **kwargs)
    rows = model.encode(inputs, **kwargs)
    return rows.to_dense().numpy() if torch.is_tensor(rows) else rows
