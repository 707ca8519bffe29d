"""Record what version 6.2.0 computes for every folder of `score_models.py`: `scores.npz` beside this file.

Run it with an interpreter that has sentence-transformers 6.2.0:

    python tests/golden/record_scores.py

For each cross-encoder there is one array per call over `PAIRS`: `name/logits` (no activation function, (n,) or
(n, labels)), `name/scores` and `name/prompt`; for each sparse encoder one array (n, V) over `TEXTS`: `name/encode`,
`name/query`, `name/document` and `name/prompt` (left out if equal to `name/encode`). `name/facts` is a JSON object: the
settings that the loaded model reports. `auto_encoder/...` are the features that a SparseAutoEncoder gives for the input
`auto_encoder/x`, step by step.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers.sparse_encoder.modules import SparseAutoEncoder

from sentence_transformers import CrossEncoder, SparseEncoder

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))
from tests.golden.score_models import (
    AUTO_ENCODER_STEPS,
    AUTO_ENCODERS,
    PAIRS,
    PROMPT,
    SCORERS,
    SPARSE,
    TEXTS,
    auto_encoder_input,
    set_weights,
)

PLAIN = torch.nn.Identity()


def scorer_facts(model: CrossEncoder) -> dict[str, Any]:
    return {
        "modules": [type(module).__name__ for module in model],
        "num_labels": model.num_labels,
        "max_seq_length": model.max_seq_length,
        "activation_fn": type(model.activation_fn).__name__,
        "prompts": model.prompts,
        "default_prompt_name": model.default_prompt_name,
        "ranking": model.rank(PAIRS[2][0], [text for _, text in PAIRS]) if model.num_labels == 1 else None,
        "ids": [model.preprocess([pair])["input_ids"][0].tolist() for pair in PAIRS],
    }


def record_scorer(name: str) -> dict[str, np.ndarray]:
    with tempfile.TemporaryDirectory() as folder:
        SCORERS[name](Path(folder))
        model = CrossEncoder(folder, device="cpu")
        return {
            f"{name}/facts": np.array(json.dumps(scorer_facts(model))),
            f"{name}/logits": model.predict(PAIRS, activation_fn=PLAIN),
            f"{name}/scores": model.predict(PAIRS),
            f"{name}/prompt": model.predict(PAIRS, activation_fn=PLAIN, prompt=PROMPT),
        }


def sparse_facts(model: SparseEncoder) -> dict[str, Any]:
    embeddings = model.encode(TEXTS)
    return {
        "modules": [type(module).__name__ for module in model],
        "max_seq_length": model.max_seq_length,
        "dimension": model.get_embedding_dimension(),
        "prompts": model.prompts,
        "similarity_fn_name": model.similarity_fn_name,
        "max_active_dims": model.max_active_dims,
        "decoded": model.decode(embeddings, top_k=3),
        "sparsity": model.sparsity(embeddings),
        "similarity": model.similarity(embeddings, embeddings).tolist(),
    }


def record_sparse(name: str) -> dict[str, np.ndarray]:
    with tempfile.TemporaryDirectory() as folder:
        SPARSE[name](Path(folder))
        model = SparseEncoder(folder, device="cpu")
        arrays = {
            "encode": model.encode(TEXTS),
            "query": model.encode_query(TEXTS),
            "document": model.encode_document(TEXTS),
            "prompt": model.encode(TEXTS, prompt=PROMPT),
        }
        arrays = {call: rows.to_dense().numpy() for call, rows in arrays.items()}
        plain = arrays["encode"]
        different = {call: rows for call, rows in arrays.items() if rows is plain or not np.array_equal(rows, plain)}
        facts = np.array(json.dumps(sparse_facts(model)))
        return {f"{name}/{call}": rows for call, rows in different.items()} | {f"{name}/facts": facts}


def record_auto_encoder(name: str) -> dict[str, np.ndarray]:
    module = SparseAutoEncoder(**AUTO_ENCODERS[name])
    set_weights(module)
    arrays = {}
    for step, training in enumerate(AUTO_ENCODER_STEPS):
        module.train(training)
        features = module({"sentence_embedding": auto_encoder_input(step)})
        features["stats_last_nonzero"] = module.stats_last_nonzero
        for key, rows in features.items():
            arrays[f"auto_encoder/{name}/{step}/{key}"] = rows.detach().numpy().copy()
    return arrays


def main() -> None:
    arrays: dict[str, np.ndarray] = {}
    for name in SCORERS:
        arrays |= record_scorer(name)
        print(name, arrays[f"{name}/logits"].tolist())
    for name in SPARSE:
        arrays |= record_sparse(name)
        print(name, (arrays[f"{name}/encode"] != 0).sum(1))
    for name in AUTO_ENCODERS:
        arrays |= record_auto_encoder(name)
    np.savez_compressed(Path(__file__).with_name("scores.npz"), **arrays)


if __name__ == "__main__":
    main()
