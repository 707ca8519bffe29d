"""Evaluators over made-up vectors: what is recorded from version 6.2.0 and compared here. Runs under both libraries.

The model is a stand-in that looks its vectors up by the number that a text begins with.
"""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import torch

N, H = 60, 16
ALL = ["cosine", "dot", "euclidean", "manhattan"]


class Card:
    def set_evaluation_metrics(self, *args: Any, **kwargs: Any) -> None:
        """Takes anything."""


class StandIn:
    """Vectors by number; texts 3 k and 3 k + 1 are alike, some are equal."""

    similarity_fn_name = "cosine"
    model_card_data = Card()
    device = torch.device("cpu")
    truncate_dim = None
    training = False

    def __init__(self, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.table = torch.randn(N, H, generator=generator)
        self.table[1::3] = self.table[0::3] + 0.8 * torch.randn(len(self.table[1::3]), H, generator=generator)
        self.table[41] = self.table[40] = self.table[4]

    def encode(self, texts: Any, **kwargs: Any) -> Any:
        rows = self.table[[int(text.split()[0]) for text in texts]]
        if (dim := kwargs.get("truncate_dim")) is not None:
            rows = rows[:, :dim]
        if kwargs.get("convert_to_tensor"):
            return rows
        return list(rows) if kwargs.get("convert_to_numpy") is False else rows.numpy()

    encode_query = encode_document = encode

    def similarity(self, a: Any, b: Any) -> Any:
        from sentence_transformers.util import cos_sim

        return cos_sim(a, b)

    def eval(self) -> StandIn:
        return self

    @contextlib.contextmanager
    def truncate_sentence_embeddings(self, dim: int | None) -> Any:
        yield

    truncate_embeddings = truncate_sentence_embeddings


def text(i: int) -> str:
    return f"{i} text"


FIRST, SECOND = [text(i) for i in range(0, 57, 3)], [text(i + 1 + i % 2) for i in range(0, 57, 3)]
GOLD = [float(np.sin(i)) for i in range(19)]
BINARY = [1 if i % 2 == 0 else 0 for i in range(0, 57, 3)]
QUERIES = {f"q{i}": text(i) for i in range(0, 30, 3)}
CORPUS = {f"d{(i * 7) % N}": text((i * 7) % N) for i in range(N) if (i * 7) % N % 3}
RELEVANT = {f"q{i}": {f"d{i + 1}", f"d{i + 2}", f"d{(i * 5 + 10) % N}"} for i in range(0, 27, 3)}
RELEVANT["q3"].add("lost")
KNOWN = {query: {d for d in docs if d in CORPUS} for query, docs in RELEVANT.items()}
SAMPLES = [
    {"query": text(i), "positive": [text(i + 1), text(40)], "negative": [text(i + 2), text(41), text((i + 7) % N)]}
    for i in range(0, 30, 3)
]
DUPLICATES = [(f"s{i}", f"s{i + 1}") for i in range(0, 57, 3)] + [("s1", "s5"), ("s5", "s9")]
FRAME = [{"en": text(i), "de": text(i + 1), "fr": text(i + 2) if i % 2 else ""} for i in range(0, 57, 3)]

# name: (class, arguments by position, arguments by name)
CASES: dict[str, tuple[str, list[Any], dict[str, Any]]] = {
    "similarity": ("EmbeddingSimilarityEvaluator", [FIRST, SECOND, GOLD], {}),
    "similarity-all": (
        "EmbeddingSimilarityEvaluator",
        [FIRST, SECOND, GOLD],
        {"similarity_fn_names": ALL, "name": "sts", "truncate_dim": 5},
    ),
    "similarity-main": (
        "EmbeddingSimilarityEvaluator",
        [FIRST, SECOND, [round(g, 1) for g in GOLD]],
        {"similarity_fn_names": ALL, "main_similarity": "dot"},
    ),
    "binary": ("BinaryClassificationEvaluator", [FIRST, SECOND, BINARY], {}),
    "binary-all": (
        "BinaryClassificationEvaluator",
        [FIRST, SECOND, BINARY],
        {"similarity_fn_names": ALL, "name": "quora"},
    ),
    "triplet": ("TripletEvaluator", [FIRST, [text(i + 1) for i in range(0, 57, 3)], SECOND[::-1]], {"name": "t"}),
    "triplet-all": (
        "TripletEvaluator",
        [FIRST, [text(i + 1) for i in range(0, 57, 3)], SECOND[::-1]],
        {"similarity_fn_names": ALL, "margin": 0.2},
    ),
    "retrieval": ("InformationRetrievalEvaluator", [QUERIES, CORPUS, KNOWN], {"name": "ir"}),
    "retrieval-missing": ("InformationRetrievalEvaluator", [QUERIES, CORPUS, RELEVANT], {}),
    "retrieval-k": (
        "InformationRetrievalEvaluator",
        [QUERIES, CORPUS, KNOWN],
        {
            "corpus_chunk_size": 7,
            "mrr_at_k": [1, 5],
            "ndcg_at_k": [3, 20],
            "accuracy_at_k": [2],
            "precision_recall_at_k": [4],
            "map_at_k": [3, 50],
        },
    ),
    "reranking": ("RerankingEvaluator", [SAMPLES], {}),
    "reranking-single": ("RerankingEvaluator", [SAMPLES], {"use_batched_encoding": False, "at_k": 2, "name": "r"}),
    "mining": (
        "ParaphraseMiningEvaluator",
        [{f"s{i}": text(i) for i in range(N) if i not in (40, 41)}, DUPLICATES],
        {},
    ),
    "mining-closure": (
        "ParaphraseMiningEvaluator",
        [{f"s{i}": text(i) for i in range(N) if i not in (40, 41)}, DUPLICATES],
        {"add_transitive_closure": True, "top_k": 4, "name": "m"},
    ),
    "translation": ("TranslationEvaluator", [FIRST, [text(i + 1) for i in range(0, 57, 3)]], {"name": "en-de"}),
    "mse": ("MSEEvaluator", [FIRST, SECOND], {"teacher_model": StandIn(3)}),
    "mse-name": ("MSEEvaluator", [FIRST, SECOND], {"teacher_model": StandIn(3), "name": "en-de"}),
    "mse-frame": ("MSEEvaluatorFromDataFrame", [FRAME, StandIn(3), [("en", "de"), ("en", "fr")]], {}),
}


class Scorer:
    """Scores of pairs by the numbers that the texts begin with; some are equal."""

    model_card_data = Card()

    def __init__(self, labels: int = 1) -> None:
        self.num_labels = labels

    def predict(self, pairs: Any, **kwargs: Any) -> Any:
        numbers = [(int(a.split()[0]) * 7 + int(b.split()[0]) * 13) % 29 for a, b in pairs]
        scores = np.array(numbers, np.float32) / 29
        if self.num_labels == 1:
            return scores
        return np.stack([np.sin(9 * (i + 1) * scores) for i in range(self.num_labels)], 1)


def ranking(i: int, positives: int) -> dict[str, Any]:
    """A query with a search's ranking that holds a changing part of its relevant documents."""
    relevant = [text(i + 1), text(40), text(i + 3)][:positives]
    found = [text(i + 2), text(i + 5), text(3), *([text(i + 1)] if i % 2 else []), text(50 - i)]
    return {"query": text(i), "positive": relevant, "documents": found}


PAIRS = [[a, b] for a, b in zip(FIRST, SECOND, strict=True)]
OPEN = [{"query": text(3), "positive": [], "negative": [text(4), text(9)]}]
RANKINGS = [ranking(i, 1 + i % 3) for i in range(9)]
CROSS_CASES: dict[str, tuple[str, list[Any], dict[str, Any]]] = {
    "cross-binary": ("CrossEncoderClassificationEvaluator", [PAIRS, BINARY], {"name": "qqp"}),
    "cross-classes": ("CrossEncoderClassificationEvaluator", [PAIRS, [i % 3 for i in range(19)]], {}),
    "cross-correlation": ("CrossEncoderCorrelationEvaluator", [PAIRS, GOLD], {"name": "sts"}),
    "cross-reranking": ("CrossEncoderRerankingEvaluator", [SAMPLES], {"at_k": 3, "name": "r"}),
    "cross-reranking-open": ("CrossEncoderRerankingEvaluator", [SAMPLES[:4] + OPEN], {}),
    "cross-rankings": ("CrossEncoderRerankingEvaluator", [RANKINGS], {"at_k": 4}),
    "cross-rankings-strict": ("CrossEncoderRerankingEvaluator", [RANKINGS], {"always_rerank_positives": False}),
    "cross-rankings-mixed": ("CrossEncoderRerankingEvaluator", [SAMPLES[:3] + RANKINGS[:4]], {}),
    "cross-older": ("CEBinaryClassificationEvaluator", [PAIRS, BINARY], {"name": "old"}),
    "cross-older-correlation": ("CECorrelationEvaluator", [PAIRS, GOLD], {}),
    "cross-older-reranking": ("CERerankingEvaluator", [SAMPLES], {"at_k": 5}),
}
CASES |= CROSS_CASES


# ---- sparse encoders: the same vectors with their negative entries at 0


class SparseStandIn(StandIn):
    """Sparse vectors by number."""

    similarity_fn_name = "dot"

    def encode(self, texts: Any, **kwargs: Any) -> Any:
        rows = torch.relu(self.table[[int(text.split()[0]) for text in texts]])
        if (most := kwargs.get("max_active_dims")) is not None:
            rows = rows * (rows >= rows.topk(most, dim=1).values[:, -1:])
        return rows.to_sparse() if kwargs.get("convert_to_sparse_tensor", True) else rows

    encode_query = encode_document = encode

    @staticmethod
    def sparsity(rows: Any) -> dict[str, float]:
        active = float((rows.to_dense() != 0).sum(1).float().mean())
        return {"active_dims": active, "sparsity_ratio": 1 - active / rows.shape[1]}

    def similarity(self, a: Any, b: Any) -> Any:
        from sentence_transformers.util import dot_score

        return dot_score(a, b)


SPARSE_CASES: dict[str, tuple[str, list[Any], dict[str, Any]]] = {
    "sparse-similarity": ("SparseEmbeddingSimilarityEvaluator", [FIRST, SECOND, GOLD], {"max_active_dims": 5}),
    "sparse-binary": ("SparseBinaryClassificationEvaluator", [FIRST, SECOND, BINARY], {"similarity_fn_names": ALL}),
    "sparse-triplet": (
        "SparseTripletEvaluator", [FIRST, SECOND, [text(i + 2) for i in range(0, 57, 3)]], {"name": "t"},
    ),
    "sparse-retrieval": (
        "SparseInformationRetrievalEvaluator", [QUERIES, CORPUS, KNOWN], {"corpus_chunk_size": 7, "name": "ir"},
    ),
    "sparse-reranking": ("SparseRerankingEvaluator", [SAMPLES], {"max_active_dims": 4}),
    "sparse-reranking-single": ("SparseRerankingEvaluator", [SAMPLES], {"use_batched_encoding": False, "at_k": 2}),
    "sparse-translation": ("SparseTranslationEvaluator", [FIRST, [text(i + 1) for i in range(0, 57, 3)]], {}),
    "sparse-mse": ("SparseMSEEvaluator", [FIRST, SECOND], {"teacher_model": SparseStandIn(3), "name": "m"}),
}  # fmt: skip
CASES |= SPARSE_CASES


def stand_in(name: str) -> Any:
    """The model that a case measures."""
    if name in SPARSE_CASES:
        return SparseStandIn()
    return StandIn() if name not in CROSS_CASES else Scorer(3 if name == "cross-classes" else 1)


def make(evaluation: Any, name: str) -> Any:
    """The evaluator of a case; those of other kinds of models are in packages of their own."""
    kind, args, kwargs = CASES[name]
    if name in CROSS_CASES:
        from sentence_transformers.cross_encoder import evaluation
    elif name in SPARSE_CASES:
        from sentence_transformers.sparse_encoder import evaluation
    return getattr(evaluation, kind)(*args, **kwargs)


def run(evaluation: Any, name: str, folder: Any) -> dict[str, Any]:
    """Metrics, primary metric, and the CSV file: its name, first line and number of lines."""
    evaluator = make(evaluation, name)
    return written(evaluator, evaluator(stand_in(name), output_path=str(folder), epoch=1, steps=7), folder)


def written(evaluator: Any, metrics: dict[str, float], folder: Any) -> dict[str, Any]:
    """What an evaluator found and wrote."""
    from pathlib import Path

    (file,) = Path(folder).glob("*.csv")
    lines = file.read_text().splitlines()
    return {
        "metrics": {key: float(value) for key, value in metrics.items()},
        "primary": evaluator.primary_metric,
        "csv": [file.name, lines[0], len(lines)],
    }


# ---- rankings in the place of a model


def ranked(seed: int) -> list[dict[str, Any]]:
    """Queries with six of twelve documents in a random order; some relevant ones are not among them."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for i in range(5):
        documents = [f"d{j}" for j in torch.randperm(12, generator=generator)[:6].tolist()]
        rows.append({"query_id": str(i), "query": f"q{i}", "positive": [f"d{i}", f"d{i + 5}"], "documents": documents})
    return rows


FUSION_CASES: dict[str, dict[str, Any]] = {"fusion": {}, "fusion-k": {"at_k": 3, "rrf_k": 1, "name": "f"}}


def run_fusion(name: str, folder: Any) -> dict[str, Any]:
    """As `run`, of two rankings in the place of a model."""
    from sentence_transformers.sparse_encoder.evaluation import ReciprocalRankFusionEvaluator

    evaluator = ReciprocalRankFusionEvaluator(ranked(1), ranked(2), **FUSION_CASES[name])
    return written(evaluator, evaluator(output_path=str(folder), epoch=1, steps=7), folder)
