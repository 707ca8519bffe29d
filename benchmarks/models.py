"""Models with heads that no package carries: the layers of all-MiniLM-L6-v2 under a seeded random head.

    classifier()   BertForSequenceClassification with one label
    masked()       BertForMaskedLM; its bias lets about one word in a hundred be active in a text, as in SPLADE
    int8_graph()   all-MiniLM-L6-v2 itself, with its ONNX graph in int8 beside it

Written once into the cache of `benchmarks.texts`, the first two as plain transformers checkpoints. Time
and memory do not depend on the values of the weights, and equal results are checked all the same.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from benchmarks import texts
from benchmarks.worker import model_folder

SEED = 20
INT8_GRAPH = "onnx/model_qint8_avx512_vnni.onnx"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json")
ACTIVE_BIAS = -4.2  # subtracted from every logit


def classifier() -> Path:
    """A re-ranker of MiniLM's shape: one score from the first token."""
    return texts.fetched(
        "minilm-classifier",
        lambda folder: write(
            folder,
            "BertForSequenceClassification",
            {
                "classifier.weight": normal((1, 384), 0.5),
                "classifier.bias": np.zeros(1, np.float32),
            },
        ),
    )


def masked() -> Path:
    """A masked language model of MiniLM's shape, whose last product uses the word embeddings."""
    return texts.fetched(
        "minilm-masked",
        lambda folder: write(
            folder,
            "BertForMaskedLM",
            {
                "cls.predictions.transform.dense.weight": normal((384, 384), 0.05),
                "cls.predictions.transform.dense.bias": np.zeros(384, np.float32),
                "cls.predictions.transform.LayerNorm.weight": np.ones(384, np.float32),
                "cls.predictions.transform.LayerNorm.bias": np.zeros(384, np.float32),
                "cls.predictions.bias": np.full(30522, ACTIVE_BIAS, np.float32),
            },
        ),
    )


def int8_graph() -> Path:
    """all-MiniLM-L6-v2 with `INT8_GRAPH`."""
    from sentence_transformers import SentenceTransformer, export_dynamic_quantized_onnx_model

    def export(folder: Path) -> None:
        shutil.copytree(model_folder(), folder, dirs_exist_ok=True)
        model = SentenceTransformer(str(folder), device="cpu", backend="onnx")
        export_dynamic_quantized_onnx_model(model, "avx512_vnni", str(folder))

    return texts.fetched("minilm-int8", export)


def normal(shape: tuple[int, ...], scale: float) -> np.ndarray:
    """Seeded normal numbers."""
    return (np.random.default_rng(SEED).standard_normal(shape) * scale).astype(np.float32)


def write(folder: Path, architecture: str, head: dict[str, np.ndarray]) -> None:
    """A checkpoint of the packaged model's layers and a head."""
    source = model_folder()
    body = {f"bert.{name}": tensor for name, tensor in load_file(source / "model.safetensors").items()}
    if architecture == "BertForMaskedLM":
        body = {name: tensor for name, tensor in body.items() if "pooler" not in name}
    body = {name: tensor for name, tensor in body.items() if not name.endswith("position_ids")}
    save_file(body | head, folder / "model.safetensors", metadata={"format": "pt"})
    config: dict[str, Any] = json.loads((source / "config.json").read_text(encoding="utf-8"))
    config |= {"architectures": [architecture]}
    if architecture == "BertForSequenceClassification":
        config |= {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copy(source / name, folder)
