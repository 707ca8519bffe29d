"""Products in int8: near the float32 vectors, the same alone and in any batch, and nothing of it on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sentence_transformers import CrossEncoder, SentenceTransformer, SparseEncoder
from sentence_transformers.backends.matmul_kernels import (
    GELU_LOWEST,
    FloatProduct,
    Int8Product,
    around_zero,
    from_lowest,
    saturates,
)
from sentence_transformers.errors import InputError
from tests.golden.score_models import SCORERS, SPARSE
from tests.models import TEXTS

INT8 = {"model_kwargs": {"dtype": "int8"}}


@pytest.mark.parametrize("lowest", [None, GELU_LOWEST])
def test_products_are_those_of_the_rounded_numbers(lowest: float | None) -> None:
    """The product of rounded weights and rows, computed here in float64; and near that of the numbers themselves."""
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(40, 64, generator=generator), torch.randn(48, 64, generator=generator)
    bias, residual = torch.randn(48, generator=generator), torch.randn(40, 48, generator=generator)
    x[3] = 0
    if lowest is not None:
        x = torch.nn.functional.gelu(x)
    product = Int8Product(weight, bias, lowest)
    rows, scales = around_zero(x) if lowest is None else from_lowest(x, lowest)
    rounded = (rows.double() - 128) * scales if lowest is None else rows.double() * scales + lowest
    assert (rounded - x).abs().max() <= scales.max() * 0.51
    per_output = weight.abs().amax(1, keepdim=True) / (63 if saturates() else 127)
    expected = rounded @ (torch.round(weight / per_output) * per_output).double().T + bias
    torch.testing.assert_close(product(x).double(), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(product.plus(x, residual).double(), expected + residual, atol=1e-4, rtol=1e-4)
    exact = FloatProduct(weight, bias)(x)
    assert (product(x) - exact).abs().mean() < 0.02 * exact.abs().mean()


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_vectors_are_near_and_do_not_depend_on_neighbours(folder_of: Callable[[str], Path], name: str) -> None:
    """Cosine with float32 above 0.99; alone, in a batch and in reverse order the same."""
    folder = str(folder_of(name))
    exact = SentenceTransformer(folder, device="cpu").encode(TEXTS, normalize_embeddings=True)
    model = SentenceTransformer(folder, device="cpu", **INT8)
    vectors = model.encode(TEXTS, normalize_embeddings=True)
    assert vectors.dtype == np.float32 and model.dtype == torch.float32
    assert np.abs(vectors - exact).max() > 1e-5, "nothing was rounded"
    assert (vectors * exact).sum(1).min() > 0.99
    alone = np.stack([model.encode(text, normalize_embeddings=True) for text in TEXTS])
    np.testing.assert_allclose(alone, vectors, atol=1e-6)
    np.testing.assert_allclose(model.encode(TEXTS[::-1], normalize_embeddings=True)[::-1], vectors, atol=1e-6)


def test_scores_and_sparse_vectors_are_near(tmp_path: Path) -> None:
    """The other kinds compute by the same layers."""
    pairs = [(text, TEXTS[0]) for text in TEXTS]
    folder = str(tmp_path / "scorer")
    SCORERS["bert_1"](tmp_path / "scorer")
    exact, near = (CrossEncoder(folder, device="cpu", **more).predict(pairs) for more in ({}, INT8))
    assert 0 < np.abs(exact - near).max() < 0.05
    folder = str(tmp_path / "sparse")
    SPARSE["splade_bert_max_relu"](tmp_path / "sparse")
    models = [SparseEncoder(folder, device="cpu", **more) for more in ({}, INT8)]
    exact, near = (model.encode(TEXTS, convert_to_sparse_tensor=False).numpy() for model in models)
    assert 0 < np.abs(exact - near).max() < 0.1 * exact.max()


def test_saved_and_trained_in_float32(bert_folder: Path, tmp_path: Path) -> None:
    """The weights on disk are those that were loaded; with gradients the products are exact."""
    model = SentenceTransformer(str(bert_folder), device="cpu", **INT8)
    model.encode(TEXTS)
    model.save_pretrained(tmp_path / "saved")
    before, after = (load_file(folder / "model.safetensors") for folder in (bert_folder, tmp_path / "saved"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    features = model.preprocess(TEXTS[:3])
    expected = SentenceTransformer(str(bert_folder), device="cpu").encode(TEXTS[:3])
    with torch.enable_grad():
        vectors = model(features)["sentence_embedding"]
    vectors.sum().backward()
    np.testing.assert_allclose(vectors.detach().numpy(), expected, atol=1e-5)


def test_where_there_is_no_int8(folder_of: Callable[[str], Path], bert_folder: Path) -> None:
    """Another architecture, another backend, further settings: an error that says what there is."""
    for folder, more in (("mpnet", {}), ("bert", {"config_kwargs": {"hidden_act": "relu"}})):
        with pytest.raises(InputError, match="dtype 'int8' is for models of the BERT family"):
            SentenceTransformer(str(folder_of(folder)), device="cpu", **INT8, **more)
