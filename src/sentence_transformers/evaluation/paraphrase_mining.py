"""Are the known duplicates among the most similar pairs of a large set of texts?"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from sentence_transformers.errors import InputError
from sentence_transformers.evaluation.base import EmbeddingEvaluator, Measured, file_name
from sentence_transformers.protocols import Encoder
from sentence_transformers.search.paraphrase import paraphrase_mining_embeddings

Graph = dict[str, dict[str, bool]]


class ParaphraseMiningEvaluator(EmbeddingEvaluator):
    """Average precision and best F1 of mined pairs against known duplicates.

    Args:
        sentences_map: id -> text.
        duplicates_list: pairs of ids that are duplicates; or
        duplicates_dict: `{id1: {id2: True}}`.
        add_transitive_closure: whether duplicates of duplicates are duplicates.
        query_chunk_size, corpus_chunk_size, max_pairs, top_k: see `paraphrase_mining_embeddings`.
        show_progress_bar, batch_size: for `encode`.
        name: put before the names of the metrics.
        write_csv: whether a call with an output folder adds a row to the CSV file.
        truncate_dim: keep only the first dimensions.

    Raises:
        InputError: if there are no texts, or no duplicates among them.
    """

    encode_options: ClassVar[dict[str, bool]] = {"convert_to_tensor": True}

    def __init__(
        self,
        sentences_map: dict[str, str],
        duplicates_list: list[tuple[str, str]] | None = None,
        duplicates_dict: Graph | None = None,
        add_transitive_closure: bool = False,
        query_chunk_size: int = 5000,
        corpus_chunk_size: int = 100000,
        max_pairs: int = 500000,
        top_k: int = 100,
        show_progress_bar: bool = False,
        batch_size: int = 16,
        name: str = "",
        write_csv: bool = True,
        truncate_dim: int | None = None,
    ) -> None:
        super().__init__()
        self.ids, self.sentences = list(sentences_map), list(sentences_map.values())
        graph: Graph = {key: dict(others) for key, others in (duplicates_dict or {}).items()}
        for first, second in duplicates_list or []:
            if first in sentences_map and second in sentences_map:
                graph.setdefault(first, {})[second] = graph.setdefault(second, {})[first] = True
        self._closed = add_transitive_closure
        if add_transitive_closure:
            graph = self.add_transitive_closure(graph)
        self.duplicates = graph
        known = set(sentences_map)
        pairs = {
            tuple(sorted((a, b), key=str))
            for a, others in graph.items()
            for b, yes in others.items()
            if yes and a in known and b in known and a != b
        }
        if not pairs:
            raise InputError(
                f"There are no duplicates among the {len(self.ids)} texts. Ids of texts are like {self.ids[:3]}."
            )
        self.total_num_duplicates, self._pairs = len(pairs), pairs
        self.query_chunk_size, self.corpus_chunk_size = query_chunk_size, corpus_chunk_size
        self.max_pairs, self.top_k = max_pairs, top_k
        self.show_progress_bar, self.batch_size, self.name = show_progress_bar, batch_size, name
        self.write_csv, self.truncate_dim = write_csv, truncate_dim
        self.csv_file = file_name("paraphrase_mining_evaluation", name)
        self.csv_headers = ["epoch", "steps", "precision", "recall", "f1", "threshold", "average_precision"]
        self.primary_metric = "average_precision"

    def _evaluate(self, model: Encoder) -> Measured:
        mined = paraphrase_mining_embeddings(
            self.embed_inputs(model, self.sentences),
            self.query_chunk_size,
            self.corpus_chunk_size,
            self.max_pairs,
            self.top_k,
        )
        hits = np.array([self._is_duplicate(self.ids[i], self.ids[j]) for _, i, j in mined], dtype=np.float64)  # type: ignore[index]
        metrics = mining_metrics(np.array([score for score, _, _ in mined]), hits, self.total_num_duplicates)
        return metrics, [metrics[key] for key in self.csv_headers[2:]]

    def _is_duplicate(self, first: str, second: str) -> bool:
        return tuple(sorted((first, second), key=str)) in self._pairs

    @staticmethod
    def add_transitive_closure(graph: Graph) -> Graph:
        """Duplicates of duplicates are duplicates: every connected part becomes complete."""
        closed: Graph = {}
        seen: set[str] = set()
        for start in graph:
            if start in seen:
                continue
            part, waiting = {start}, [start]
            while waiting:
                fresh = [b for b, yes in graph.get(waiting.pop(), {}).items() if yes and b not in part]
                part.update(fresh)
                waiting += fresh
            seen |= part
            closed |= {a: dict.fromkeys(sorted(part - {a}, key=str), True) for a in part}
        return closed

    def get_config_dict(self) -> dict[str, Any]:
        settings = {"add_transitive_closure": self._closed, "max_pairs": self.max_pairs, "top_k": self.top_k}
        return settings | super().get_config_dict()


def mining_metrics(scores: np.ndarray, hits: np.ndarray, total: int) -> dict[str, float]:
    """Metrics of mined pairs, best first.

    Args:
        scores: (M,), falling.
        hits: (M,) whether each pair is a duplicate.
        total: number of all duplicates.
    """
    if not hits.any():
        return dict.fromkeys(("average_precision", "f1", "precision", "recall", "threshold"), 0.0)
    found = hits.cumsum()
    precision, recall = found / np.arange(1, len(hits) + 1), found / total
    f1 = np.divide(2 * precision * recall, precision + recall, out=np.zeros(len(hits)), where=hits > 0)
    best = int(f1.argmax())
    after = scores[min(best + 1, len(scores) - 1)]
    return {
        "average_precision": float((precision * hits).sum() / total),
        "f1": float(f1[best]),
        "precision": float(precision[best]),
        "recall": float(recall[best]),
        "threshold": float((scores[best] + after) / 2),
    }
