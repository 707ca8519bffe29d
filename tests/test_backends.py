"""A graph computes what torch computes; a file of another model is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sentence_transformers import CrossEncoder, SentenceTransformer, SparseEncoder
from sentence_transformers.errors import InputError, ModelFormatError, ModelNotFoundError
from tests.models import SENTENCES, build

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytest.importorskip("openvino")
BACKENDS = {"onnx": "model.onnx", "openvino": "openvino_model.xml"}


def with_head(folder: Path, auto_class: str, **settings: Any) -> str:
    """A tiny BERT with a head, random like the rest."""
    import transformers

    build("bert", folder)
    torch.manual_seed(1)
    getattr(transformers, auto_class).from_pretrained(folder, **settings).save_pretrained(folder)
    return str(folder)


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_graph_gives_the_vectors_of_torch_and_refuses_other_models(tmp_path: Path, backend: Any) -> None:
    plain = build("bert", tmp_path / "bert")
    expected = SentenceTransformer(str(plain), device="cpu").encode(SENTENCES)
    exported = SentenceTransformer(str(plain), backend=backend)
    np.testing.assert_allclose(exported.encode(SENTENCES), expected, atol=1e-5)

    saved = tmp_path / "saved"
    exported.save_pretrained(str(saved))
    assert (saved / backend / BACKENDS[backend]).is_file()
    loaded = SentenceTransformer(str(saved), backend=backend, model_kwargs={"export": False})
    np.testing.assert_allclose(loaded.encode(SENTENCES), expected, atol=1e-5)

    other = build("bert", tmp_path / "other", hidden_size=64)
    shutil.copytree(saved / backend, other / backend)
    with pytest.raises(ModelFormatError, match="another model"):
        SentenceTransformer(str(other), backend=backend)


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_scores_and_sparse_vectors_are_those_of_torch(tmp_path: Path, backend: Any) -> None:
    pairs = list(zip(SENTENCES, reversed(SENTENCES), strict=True))
    ranker = with_head(tmp_path / "ranker", "AutoModelForSequenceClassification", num_labels=1)
    expected = CrossEncoder(ranker, device="cpu").predict(pairs)
    np.testing.assert_allclose(CrossEncoder(ranker, backend=backend).predict(pairs), expected, atol=1e-5)

    splade = with_head(tmp_path / "splade", "AutoModelForMaskedLM")
    dense = {"convert_to_sparse_tensor": False}
    weights = SparseEncoder(splade, device="cpu").encode(SENTENCES, **dense)
    found = SparseEncoder(splade, backend=backend).encode(SENTENCES, **dense)
    np.testing.assert_allclose(found.numpy(), weights.numpy(), atol=1e-5)


def test_bad_input(tmp_path: Path) -> None:
    folder = build("bert", tmp_path / "bert")
    with pytest.raises(InputError, match="Unknown backend 'tpu'"):
        SentenceTransformer(str(folder), backend="tpu")  # type: ignore[arg-type]
    with pytest.raises(ModelNotFoundError, match=r"no model\.onnx"):
        SentenceTransformer(str(folder), backend="onnx", model_kwargs={"export": False})
    (folder / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(ModelFormatError, match="cannot open"):
        SentenceTransformer(str(folder), backend="onnx")
