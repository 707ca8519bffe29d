"""A graph computes what torch computes; a file of another model is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sentence_transformers import (
    CrossEncoder,
    SentenceTransformer,
    SparseEncoder,
    export_dynamic_quantized_onnx_model,
    export_optimized_onnx_model,
)
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

    both = str(tmp_path / "both")  # saved where it came from: the weights that the graph was made from stay
    SentenceTransformer(str(plain), device="cpu").save_pretrained(both)
    SentenceTransformer(both, backend=backend).save_pretrained(both)
    for found in (SentenceTransformer(both, device="cpu"), SentenceTransformer(both, backend=backend)):
        np.testing.assert_allclose(found.encode(SENTENCES), expected, atol=1e-5)

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


@pytest.mark.slow
def test_derived_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = SentenceTransformer(str(build("bert", tmp_path / "bert")), backend="onnx")
    expected, saved = model.encode(SENTENCES, normalize_embeddings=True), str(tmp_path / "saved")
    model.save_pretrained(saved)
    export_optimized_onnx_model(model, "O2", saved)
    export_optimized_onnx_model(model, "O3", saved, file_suffix="mine")
    export_dynamic_quantized_onnx_model(model, "avx2", saved)
    names = {"model.onnx", "model_O2.onnx", "model_mine.onnx", "model_quint8_avx2.onnx"}
    assert {path.name for path in Path(saved, "onnx").iterdir()} == names
    for name, least in (("model_O2.onnx", 0.99999), ("model_mine.onnx", 0.999), ("model_quint8_avx2.onnx", 0.95)):
        derived = SentenceTransformer(saved, backend="onnx", model_kwargs={"file_name": name})
        found = derived.encode(SENTENCES, normalize_embeddings=True)
        assert (found * expected).sum(1).min() > least, name

    import huggingface_hub

    sent: list[Any] = []

    def create_commit(self: Any, repo_id: str, operations: Any, *, create_pr: bool, **message: Any) -> None:
        sent.append((repo_id, [add.path_in_repo for add in operations], create_pr))

    monkeypatch.setattr(huggingface_hub.HfApi, "create_commit", create_commit)
    export_optimized_onnx_model(model, "O1", "me/model", push_to_hub=True, create_pr=True)
    assert sent == [("me/model", ["onnx/model_O1.onnx"], True)]
    with pytest.raises(InputError, match="must be one of O1, O2"):
        export_optimized_onnx_model(model, "O9", saved)  # type: ignore[arg-type]


def test_files_are_derived_from_onnx_alone(tmp_path: Path) -> None:
    model = SentenceTransformer(str(build("bert", tmp_path / "bert")), device="cpu")
    with pytest.raises(InputError, match="load it with backend"):
        export_dynamic_quantized_onnx_model(model, "arm64", str(tmp_path / "new"))
    assert not (tmp_path / "new").exists()


def test_bad_input(tmp_path: Path) -> None:
    folder = build("bert", tmp_path / "bert")
    with pytest.raises(InputError, match="Unknown backend 'tpu'"):
        SentenceTransformer(str(folder), backend="tpu")  # type: ignore[arg-type]
    with pytest.raises(ModelNotFoundError, match=r"no model\.onnx"):
        SentenceTransformer(str(folder), backend="onnx", model_kwargs={"export": False})
    (folder / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(ModelFormatError, match="cannot open"):
        SentenceTransformer(str(folder), backend="onnx")
