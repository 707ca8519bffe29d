"""Sentence Transformers: text to vectors and scores.

    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer("all-MiniLM-L6-v2")
    embeddings = model.encode(["A sentence.", "Another one."])
    model.similarity(embeddings, embeddings)

Importing this package loads nothing else; each public name is loaded when it is first used.
"""

from __future__ import annotations

import sys

from sentence_transformers import _names

__version__ = "6.2.0+packed.1"
__MODEL_HUB_ORGANIZATION__ = "sentence-transformers"

__all__ = [
    "CrossEncoder",
    "CrossEncoderModelCardData",
    "CrossEncoderTrainer",
    "CrossEncoderTrainingArguments",
    "DefaultBatchSampler",
    "Index",
    "InputExample",
    "LoggingHandler",
    "MultiDatasetDefaultBatchSampler",
    "MultiVectorEncoder",
    "MultiVectorEncoderModelCardData",
    "MultiVectorEncoderTrainer",
    "MultiVectorEncoderTrainingArguments",
    "ParallelSentencesDataset",
    "SentenceTransformer",
    "SentenceTransformerModelCardData",
    "SentenceTransformerTrainer",
    "SentenceTransformerTrainingArguments",
    "SentencesDataset",
    "SimilarityFunction",
    "SparseEncoder",
    "SparseEncoderModelCardData",
    "SparseEncoderTrainer",
    "SparseEncoderTrainingArguments",
    "export_dynamic_quantized_onnx_model",
    "export_optimized_onnx_model",
    "export_static_quantized_openvino_model",
    "mine_hard_negatives",
    "quantize_embeddings",
    "resolve_ids",
]

_public = frozenset(__all__) | set(_names.PACKAGES["evaluation"].split())  # evaluators are looked for here too
_names.install()
sys.modules[__name__].__class__ = _names.FrontDoor
