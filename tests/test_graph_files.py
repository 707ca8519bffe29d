"""Graph files: quantised ones, stale ones, and ones that others made by hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from sentence_transformers import CrossEncoder, SentenceTransformer, export_static_quantized_openvino_model
from sentence_transformers.backends.graph_load import check_origin
from sentence_transformers.backends.graph_quantize import (
    LEVELS,
    PROCESSORS,
    OptimizationConfig,
    OVQuantizationConfig,
    QuantizationConfig,
    settings,
)
from sentence_transformers.errors import InputError, ModelFormatError, ModelNotFoundError
from sentence_transformers.storage.files import Source
from sentence_transformers.storage.fingerprint import of_files
from sentence_transformers.storage.saving import atomic_folder
from tests.models import SENTENCES, build
from tests.test_backends import BACKENDS, with_head

QUANTISED = "openvino_model_qint8_quantized.xml"


def test_settings_come_from_names_dicts_and_objects() -> None:
    assert settings(OptimizationConfig, "O3", "x", LEVELS).enable_gelu_approximation
    foreign = SimpleNamespace(weights_dtype=SimpleNamespace(name="QUInt8"), per_channel=False, something=1)
    assert settings(QuantizationConfig, foreign, "x", PROCESSORS) == QuantizationConfig("QUInt8", per_channel=False)
    assert settings(OVQuantizationConfig, {"num_samples": 5}, "x").num_samples == 5


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (OptimizationConfig, "O9", "must be one of O1, O2"),
        (OptimizationConfig, {"level": 1}, r"unknown keys \['level'\]"),
        (OptimizationConfig, {"optimization_level": 7}, "optimization_level must be"),
        (QuantizationConfig, object(), "must be one of arm64"),
        (QuantizationConfig, {"weights_dtype": "QInt4"}, "QInt8 or QUInt8"),
        (QuantizationConfig, {"is_static": True}, "calibration"),
        (OVQuantizationConfig, {"bits": 4}, "bits must be 8"),
        (OVQuantizationConfig, {"num_samples": 0}, "at least 1"),
    ],
)
def test_settings_that_cannot_be(kind: Any, value: Any, message: str) -> None:
    known = {OptimizationConfig: LEVELS, QuantizationConfig: PROCESSORS}.get(kind)
    with pytest.raises(InputError, match=message):
        settings(kind, value, "config", known)


def test_a_fingerprint_tells_trained_weights_and_nothing_else(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder, other = build("bert", tmp_path / "bert"), tmp_path / "other"
    shutil.copytree(folder, other)
    tensors = load_file(folder / "model.safetensors")
    origin = json.dumps(of_files(Source(str(folder))))
    assert len(of_files(Source(str(folder)))) == sum(tensor.ndim > 1 for tensor in tensors.values())

    save_file(dict(reversed(tensors.items())), other / "model.safetensors", {"note": "other header"})
    check_origin(origin, Source(str(other)), Path("model.onnx"))
    save_file({name: tensor.half() for name, tensor in tensors.items()}, other / "model.safetensors")
    check_origin(origin, Source(str(other)), Path("model.onnx"))
    changed = next(name for name in tensors if name.endswith("1.attention.self.value.weight"))
    save_file(tensors | {changed: tensors[changed] + 1e-3}, other / "model.safetensors")
    with pytest.raises(ModelFormatError, match=f"other weights.*{changed}"):
        check_origin(origin, Source(str(other)), Path("model.onnx"))
    (other / "model.safetensors").write_bytes(b"\xff" * 20)
    assert of_files(Source(str(other))) == {}


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_stale_graph_is_refused(tmp_path: Path, backend: Any) -> None:
    folder = build("bert", tmp_path / "bert")
    SentenceTransformer(str(folder), backend=backend).save_pretrained(str(folder))
    SentenceTransformer(str(folder), backend=backend, model_kwargs={"export": False})
    model = SentenceTransformer(str(folder), device="cpu")
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.01
    model.save_pretrained(str(folder))
    with pytest.raises(ModelFormatError, match="exported from other weights"):
        SentenceTransformer(str(folder), backend=backend)


@pytest.mark.slow
def test_static_quantisation_keeps_vectors_and_scores(tmp_path: Path) -> None:
    pytest.importorskip("nncf")
    saved = str(tmp_path / "saved")
    model = SentenceTransformer(str(build("bert", tmp_path / "bert")), backend="openvino")
    model.save_pretrained(saved)
    export_static_quantized_openvino_model(model, {"num_samples": 20}, saved)
    chosen: dict[str, Any] = {"file_name": QUANTISED}
    quantised = SentenceTransformer(saved, backend="openvino", model_kwargs=chosen)
    first, second = (m.encode(SENTENCES, normalize_embeddings=True) for m in (model, quantised))
    assert 0.97 < (first * second).sum(1).mean() < 1 - 1e-7
    assert {path.name for path in Path(saved, "openvino").iterdir()} >= {QUANTISED, "openvino_model.xml"}

    ranker = CrossEncoder(
        with_head(tmp_path / "ranker", "AutoModelForSequenceClassification", num_labels=3), backend="openvino"
    )
    ranker.save_pretrained(saved + "-ranker")
    export_static_quantized_openvino_model(ranker, OVQuantizationConfig(num_samples=20), saved + "-ranker")
    pairs = list(zip(SENTENCES, reversed(SENTENCES), strict=True))
    again = CrossEncoder(saved + "-ranker", backend="openvino", model_kwargs=chosen)
    scores, found = np.asarray(ranker.predict(pairs)), np.asarray(again.predict(pairs))
    assert np.corrcoef(scores.ravel(), found.ravel())[0, 1] > 0.9  # 32 random dimensions and no training


def test_static_quantisation_of_what_cannot_be(tmp_path: Path) -> None:
    from sentence_transformers.backends.graph_quantize import calibration_texts

    model = SentenceTransformer(str(build("bert", tmp_path / "bert")), device="cpu")
    with pytest.raises(InputError, match="load it with backend"):
        export_static_quantized_openvino_model(model, None, str(tmp_path / "new"))
    assert not (tmp_path / "new").exists()
    with pytest.raises(InputError, match="need dataset_name, dataset_split and column_name"):
        calibration_texts("glue", None, None, None, 10)
    texts = calibration_texts(None, None, None, None, 60)
    assert len(texts) == len(set(texts)) == 60


def lookup_graph(path: Path, shape: list[Any], vocabulary: int, hidden: int) -> np.ndarray:
    """An ONNX file that looks tokens up in a table; returns the table."""
    onnx = pytest.importorskip("onnx")
    table = np.random.default_rng(0).normal(size=(vocabulary, hidden)).astype(np.float32)
    helper, kinds = onnx.helper, onnx.TensorProto
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "input_ids"], ["token_embeddings"])],
        "lookup",
        [helper.make_tensor_value_info(name, kinds.INT64, shape) for name in ("input_ids", "attention_mask")],
        [helper.make_tensor_value_info("token_embeddings", kinds.FLOAT, [*shape, hidden])],
        [onnx.numpy_helper.from_array(table, "table")],
    )
    path.parent.mkdir(exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return table


@pytest.mark.parametrize("shape", [["batch", "length"], [2, 16], [1, "length"], ["batch", 16]])
def test_graphs_of_others_with_open_and_fixed_shapes(tmp_path: Path, shape: list[Any]) -> None:
    folder = build("bert", tmp_path / "bert")
    plain = SentenceTransformer(str(folder), device="cpu")
    hidden = plain[0].get_embedding_dimension()
    table = lookup_graph(folder / "onnx" / "model.onnx", shape, plain[0].vocabulary_size, hidden)
    model = SentenceTransformer(str(folder), backend="onnx")
    assert model.max_seq_length == (16 if shape[1] == 16 else plain.max_seq_length)  # a fixed length is the longest
    model.max_seq_length = 16
    found = model.encode(SENTENCES, output_value="token_embeddings", convert_to_numpy=False)
    for text, rows in zip(SENTENCES, found, strict=True):
        ids = model[0].preprocess([text])["input_ids"][0].numpy()
        np.testing.assert_allclose(np.asarray(rows), table[ids], atol=1e-6)
    if shape[1] == 16:
        model.max_seq_length = 64
        with pytest.raises(InputError, match="max_seq_length=16"):
            model.encode(" ".join(SENTENCES * 3))


def test_saving_keeps_other_graph_files(tmp_path: Path) -> None:
    """A file that was derived from the graph stays where it is when the model is saved again."""
    for state, names in (("old", ("model.onnx", "model_O3.onnx")), ("new", ("model.onnx",))):
        with atomic_folder(tmp_path / "model") as folder:
            (folder / "onnx").mkdir()
            for name in names:
                (folder / "onnx" / name).write_text(state)
    assert {path.name: path.read_text() for path in (tmp_path / "model" / "onnx").iterdir()} == {
        "model.onnx": "new",
        "model_O3.onnx": "old",
    }


def test_a_graph_file_is_fetched_into_the_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all graph files on the hub, the one that is asked for, at the snapshot's commit."""
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError

    snapshot = tmp_path / "models--me--my-model" / "snapshots" / "c0ffee"
    build("bert", snapshot)
    remote = {"onnx/model_O3.onnx"}
    asked: list[tuple[str, str]] = []

    def download(repository: str, name: str, *, revision: str, cache_dir: str, **others: Any) -> str:
        asked.append((repository, name))
        assert revision == "c0ffee" and cache_dir == str(tmp_path)
        if name not in remote:
            raise EntryNotFoundError(name)
        (snapshot / name).parent.mkdir(exist_ok=True)
        (snapshot / name).write_bytes(b"no graph")
        return str(snapshot / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(ModelFormatError, match="cannot open"):
        SentenceTransformer(str(snapshot), backend="onnx", model_kwargs={"file_name": "model_O3.onnx", "export": False})
    assert ("me/my-model", "onnx/model_O3.onnx") in asked
    assert all(Path(name).name.startswith("model_O3.onnx") for _, name in asked)
    with pytest.raises(ModelNotFoundError, match=r"no model\.onnx"):
        SentenceTransformer(str(snapshot), backend="onnx", model_kwargs={"export": False})
