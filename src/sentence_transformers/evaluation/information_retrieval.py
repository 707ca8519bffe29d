"""Are the relevant documents found? The measures of information retrieval over queries, documents and relevance.

Documents are encoded chunk by chunk, and of each chunk's scores only the best of every query are kept
(`search.blocks`): memory is one chunk of vectors, one block of scores, and queries × the largest k. Equal scores are
ordered by document id.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from sentence_transformers.errors import InputError
from sentence_transformers.evaluation import metrics as measures
from sentence_transformers.evaluation.base import EmbeddingEvaluator, check_texts, file_name, log_when
from sentence_transformers.protocols import SearchEncoder, Texts
from sentence_transformers.search.blocks import as_source, best_documents
from sentence_transformers.search.topk import merge
from sentence_transformers.similarity import SimilarityFunction, named_function
from sentence_transformers.util.atomic import replacing
from sentence_transformers.util.tensor import ArrayLike

if TYPE_CHECKING:
    from sentence_transformers.evaluation.nano_beir import NanoBEIREvaluator

logger = logging.getLogger(__name__)

ScoreFunction = Callable[[Any, Any], Tensor]
Best = dict[str, tuple[Tensor, Tensor]]
QUERY_BLOCK = 256
DOCUMENT_BLOCK = 16384


class InformationRetrievalEvaluator(EmbeddingEvaluator):
    """Accuracy, precision, recall, MRR, NDCG and MAP of retrieval.

    Args:
        queries: id -> text.
        corpus: id -> document.
        relevant_docs: query id -> ids of the relevant documents. Queries without any are left out.
        corpus_chunk_size: documents encoded at a time.
        mrr_at_k, ndcg_at_k, accuracy_at_k, precision_recall_at_k, map_at_k: the k of each measure.
        show_progress_bar, batch_size: for `encode`.
        name: put before the names of the metrics.
        write_csv: whether a call with an output folder adds a row to the CSV file.
        truncate_dim: keep only the first dimensions.
        score_functions: name -> (q, H), (d, H) -> (q, d); default: the model's own similarity.
        main_score_function: the one of the primary metric, reported in any case; default: the best of the first call.
        query_prompt, query_prompt_name, corpus_prompt, corpus_prompt_name: prompts of either side.
        write_predictions: also write what was found, as JSON lines, into the output folder.

    Raises:
        InputError: if there are no queries, none has a relevant document, or none of the relevant ids is in the corpus.
    """

    config_keys = ("truncate_dim", "query_prompt", "query_prompt_name", "corpus_prompt", "corpus_prompt_name")
    encode_options: ClassVar[dict[str, bool]] = {"convert_to_tensor": True}

    def __init__(
        self,
        queries: dict[str, Any],
        corpus: dict[str, Any],
        relevant_docs: dict[str, set[str]],
        corpus_chunk_size: int = 50000,
        mrr_at_k: list[int] = [10],  # noqa: B006  # the contract; never changed
        ndcg_at_k: list[int] = [10],  # noqa: B006
        accuracy_at_k: list[int] = [1, 3, 5, 10],  # noqa: B006
        precision_recall_at_k: list[int] = [1, 3, 5, 10],  # noqa: B006
        map_at_k: list[int] = [100],  # noqa: B006
        show_progress_bar: bool = False,
        batch_size: int = 32,
        name: str = "",
        write_csv: bool = True,
        truncate_dim: int | None = None,
        score_functions: dict[str, ScoreFunction] | None = None,
        main_score_function: str | SimilarityFunction | None = None,
        query_prompt: str | None = None,
        query_prompt_name: str | None = None,
        corpus_prompt: str | None = None,
        corpus_prompt_name: str | None = None,
        write_predictions: bool = False,
    ) -> None:
        super().__init__()
        self.queries_ids = [key for key in queries if relevant_docs.get(key)]
        self.queries = [queries[key] for key in self.queries_ids]
        self.corpus_ids = list(corpus)
        self.corpus = [corpus[key] for key in self.corpus_ids]
        self.relevant_docs = relevant_docs
        self._check(queries)
        self.corpus_chunk_size, self.batch_size, self.show_progress_bar = (
            corpus_chunk_size,
            batch_size,
            show_progress_bar,
        )
        self.mrr_at_k, self.ndcg_at_k, self.accuracy_at_k = mrr_at_k, ndcg_at_k, accuracy_at_k
        self.precision_recall_at_k, self.map_at_k = precision_recall_at_k, map_at_k
        self.name, self.write_csv, self.truncate_dim = name, write_csv, truncate_dim
        self.score_functions = score_functions
        self.score_function_names = sorted(score_functions) if score_functions else []
        self.main_score_function = SimilarityFunction(main_score_function) if main_score_function else None
        self.query_prompt, self.query_prompt_name = query_prompt, query_prompt_name
        self.corpus_prompt, self.corpus_prompt_name = corpus_prompt, corpus_prompt_name
        self.write_predictions = write_predictions
        self.csv_file = file_name("Information-Retrieval_evaluation", name)
        self.csv_headers = self.headers(self.score_function_names)
        self.predictions_file = file_name("Information-Retrieval_evaluation", name, "predictions").replace(
            ".csv", ".jsonl"
        )

    def _check(self, queries: dict[str, Any]) -> None:
        if not queries:
            raise InputError("There are no queries to evaluate.")
        if not self.queries_ids:
            known = list(self.relevant_docs)[:3]
            raise InputError(
                f"None of the {len(queries)} queries has a relevant document. Query ids are like {list(queries)[:3]}, "
                f"those in relevant_docs like {known}."
            )
        if not self.corpus:
            raise InputError("There are no documents: the corpus is empty.")
        check_texts("queries", self.queries)
        check_texts("corpus", self.corpus)
        there = set(self.corpus_ids)
        missing = {doc for key in self.queries_ids for doc in self.relevant_docs[key] if doc not in there}
        if not missing:
            return
        total = sum(len(self.relevant_docs[key]) for key in self.queries_ids)
        text = f"{len(missing)} relevant document ids are not in the corpus, e.g. {sorted(map(repr, missing))[:3]}"
        if all(doc not in there for key in self.queries_ids for doc in self.relevant_docs[key]):
            raise InputError(f"{text}: none of them is. Corpus ids are like {self.corpus_ids[:3]}.")
        logger.warning("%s (of %d judgements); they count as not found.", text, total)

    def __call__(
        self,
        model: SearchEncoder,
        output_path: str | None = None,
        epoch: int = -1,
        steps: int = -1,
        *args: Any,
        **kwargs: Any,
    ) -> dict[str, float]:
        logger.info(
            "Retrieval%s: %d queries, %d documents.", log_when(epoch, steps), len(self.queries), len(self.corpus)
        )
        self._functions(model)
        scores: dict[str, Any] = self._scores(model, *args, output_path=output_path, **kwargs)
        columns = self._columns()
        row = (scores[name][f"{kind.lower()}@k"][k] for name in self.score_function_names for kind, k in columns)
        k = max(self.ndcg_at_k)
        find_primary(self, list(scores), k, lambda name: scores[name]["ndcg@k"][k])
        found = {
            f"{name}_{measure.replace('@k', '@' + str(k))}": value
            for name, part in scores.items()
            for measure, values in part.items()
            for k, value in values.items()
        }
        return self._report(model, (found, row), output_path, epoch, steps)

    def _functions(self, model: SearchEncoder) -> dict[str, ScoreFunction]:
        """The score functions of a call: those given, else the model's own; the main one among them."""
        functions = self.score_functions or {model.similarity_fn_name: self._own_similarity(model)}
        if self.main_score_function is not None and self.main_score_function.value not in functions:
            main = self.main_score_function.value
            functions = functions | {main: SimilarityFunction.to_similarity_fn(main)}
        if self.score_function_names != sorted(functions):
            self.score_function_names = sorted(functions)
            self.csv_headers = self.headers(self.score_function_names)
        return functions

    def _own_similarity(self, model: SearchEncoder) -> ScoreFunction:
        own: ScoreFunction = model.similarity
        return own

    def _columns(self) -> list[tuple[str, int]]:
        """Measure and k of each column of the CSV file, for one score function."""
        both = [(kind, k) for k in self.precision_recall_at_k for kind in ("Precision", "Recall")]
        rest = (("MRR", self.mrr_at_k), ("NDCG", self.ndcg_at_k), ("MAP", self.map_at_k))
        return [*(("Accuracy", k) for k in self.accuracy_at_k), *both, *((kind, k) for kind, ks in rest for k in ks)]

    def headers(self, names: Sequence[str]) -> list[str]:
        """The first line of the CSV file."""
        return ["epoch", "steps", *(f"{name}-{kind}@{k}" for name in names for kind, k in self._columns())]

    def get_corpus_id_ranks(self) -> Tensor:
        """(D,) int64: the place of each document's id among the sorted ids, by which equal scores are ordered."""
        return self._id_ranks

    @cached_property
    def _id_ranks(self) -> Tensor:
        order = sorted(range(len(self.corpus_ids)), key=lambda i: str(self.corpus_ids[i]))
        places = torch.empty(len(order), dtype=torch.int64, device="cpu")
        places[torch.tensor(order, device="cpu")] = torch.arange(len(order), device="cpu")
        return places

    def compute_all_metrics(
        self,
        model: SearchEncoder,
        corpus_model: SearchEncoder | None = None,
        corpus_embeddings: np.ndarray | Tensor | None = None,
        output_path: str | None = None,
    ) -> Any:
        """The metrics of each score function: {name: {"ndcg@k": {10: …}, …}}.

        Args:
            corpus_model: another model for the documents.
            corpus_embeddings: (D, H) of the documents, in their order, instead of encoding them.
            output_path: where predictions go.
        """
        functions = self._functions(model)
        queries = self.embed_inputs(
            model,
            self.queries,
            encode_fn_name="query",
            prompt_name=self.query_prompt_name,
            prompt=self.query_prompt,
        )
        order = self.get_corpus_id_ranks().argsort()
        best = self._search(corpus_model or model, queries, corpus_embeddings, order, functions)
        results = {name: (scores, order[ids.cpu()]) for name, (scores, ids) in best.items()}
        if self.write_predictions and output_path is not None:
            for name, (scores, ids) in results.items():
                self._write_predictions(Path(output_path), name, scores, ids)
        found = {name: self._measured(scores, ids) for name, (scores, ids) in results.items()}
        for part in found.values():
            self.output_scores(part)
        return found

    compute_metrices = compute_all_metrics

    def _scores(self, model: SearchEncoder, *args: Any, **kwargs: Any) -> Any:
        return self.compute_all_metrics(model, *args, **kwargs)

    def _search(
        self,
        model: SearchEncoder,
        queries: ArrayLike,
        corpus_embeddings: np.ndarray | Tensor | None,
        order: Tensor,
        functions: dict[str, ScoreFunction],
    ) -> Best:
        """The best documents of every query by each function, with the document's place in `order`."""
        top_k = max(*self.mrr_at_k, *self.ndcg_at_k, *self.accuracy_at_k, *self.precision_recall_at_k, *self.map_at_k)
        best: Best = {}
        query_source = as_source(queries)
        for start in range(0, len(order), self.corpus_chunk_size):
            rows = order[start : start + self.corpus_chunk_size].tolist()
            if corpus_embeddings is None:
                texts = [self.corpus[i] for i in rows]
                chunk = self.embed_inputs(
                    model,
                    texts,
                    encode_fn_name="document",
                    prompt_name=self.corpus_prompt_name,
                    prompt=self.corpus_prompt,
                )
            else:
                chunk = corpus_embeddings[rows]
            source = as_source(chunk)
            for name, function in functions.items():
                known = named_function(function)
                found = best_documents(query_source, source, top_k, known, QUERY_BLOCK, DOCUMENT_BLOCK)
                best[name] = merge(best.get(name), (found[0], found[1] + start), top_k)
        return best

    def _measured(self, scores: Tensor, ids: Tensor) -> dict[str, dict[int, float]]:
        """The metrics of what was found; by `compute_metrics` where that was overridden."""
        own = getattr(self.compute_metrics, "__func__", None) is InformationRetrievalEvaluator.compute_metrics
        return self._measure(ids.numpy()) if own else self.compute_metrics(self._hits(scores, ids))

    def _measure(self, ids: np.ndarray) -> dict[str, dict[int, float]]:
        """The metrics of rankings: (Q, K) rows of documents, best first."""
        size = len(self.corpus_ids) + 1
        counts = np.array([len(self.relevant_docs[key]) for key in self.queries_ids])
        pairs = np.arange(len(ids))[:, None] * size + ids + 1  # one number for each query and document; -1 is none
        relevant = np.isin(pairs, self._relevant_pairs)

        def mean(values: np.ndarray) -> float:
            return float(values.mean())

        ks = self.precision_recall_at_k
        return {
            "accuracy@k": {k: mean(measures.accuracy_at(relevant, k)) for k in self.accuracy_at_k},
            "precision@k": {k: mean(measures.precision_at(relevant, k)) for k in ks},
            "recall@k": {k: mean(measures.recall_at(relevant, counts, k)) for k in ks},
            "ndcg@k": {k: mean(self._ndcg_at(relevant, counts, k)) for k in self.ndcg_at_k},
            "mrr@k": {k: mean(measures.reciprocal_rank_at(relevant, k)) for k in self.mrr_at_k},
            "map@k": {k: mean(measures.average_precision_at(relevant, counts, k)) for k in self.map_at_k},
        }

    def _ndcg_at(self, relevant: np.ndarray, counts: np.ndarray, k: int) -> np.ndarray:
        """(Q,) NDCG of the first k; by `compute_dcg_at_k` where that was overridden."""
        dcg = self.compute_dcg_at_k
        if dcg is InformationRetrievalEvaluator.compute_dcg_at_k:
            return measures.ndcg_at(relevant, counts, k)
        gains = [dcg(row[:k].astype(int).tolist(), k) for row in relevant]
        return np.array(gains) / np.array([dcg([1] * int(count), k) for count in counts])

    @cached_property
    def _row_of(self) -> dict[str, int]:
        """The row of each document."""
        return {key: i for i, key in enumerate(self.corpus_ids)}

    @cached_property
    def _relevant_pairs(self) -> np.ndarray:
        """Each query and relevant document as one number, as in `_measure`."""
        row_of, size = self._row_of, len(self.corpus_ids) + 1
        return np.array(
            [
                i * size + row_of[doc] + 1
                for i, key in enumerate(self.queries_ids)
                for doc in self.relevant_docs[key]
                if doc in row_of
            ],
            dtype=np.int64,
        )

    def compute_metrics(self, queries_result_list: list[Any]) -> dict[str, dict[int, float]]:
        """The metrics of results given as one list of {"corpus_id": …, "score": …} per query."""
        longest = max((len(hits) for hits in queries_result_list), default=0)
        row_of = self._row_of
        ids = np.full((len(queries_result_list), longest), -1)
        for i, hits in enumerate(queries_result_list):
            ranked = sorted(hits, key=lambda hit: (-hit["score"], str(hit["corpus_id"])))
            ids[i, : len(hits)] = [row_of.get(hit["corpus_id"], -1) for hit in ranked]
        return self._measure(ids)

    def _hits(self, scores: Tensor, ids: Tensor) -> list[list[dict[str, Any]]]:
        """What was found, as one list of {"corpus_id": …, "score": …} per query, best first."""
        return [
            [{"corpus_id": self.corpus_ids[i], "score": s} for i, s in zip(row_ids, row_scores, strict=True)]
            for row_scores, row_ids in zip(scores.tolist(), ids.tolist(), strict=True)
        ]

    def _write_predictions(self, folder: Path, name: str, scores: Tensor, ids: Tensor) -> None:
        """One line per query: what was found."""
        file = Path(self.predictions_file)
        file = file.with_name(f"{file.stem}_{name}{file.suffix}")
        folder.mkdir(parents=True, exist_ok=True)
        lines = [
            json.dumps({"query_id": key, "query": query, "results": hits}, ensure_ascii=False)
            for key, query, hits in zip(self.queries_ids, self.queries, self._hits(scores, ids), strict=True)
        ]
        with replacing(folder / file) as fresh:
            fresh.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def embed_inputs(
        self,
        model: SearchEncoder,
        sentences: Texts,
        encode_fn_name: str | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """Texts of a side -> (B, H)."""
        return self._encode(model, sentences, encode_fn_name, prompt_name=prompt_name, prompt=prompt, **kwargs)

    def output_scores(self, scores: dict[str, dict[int, float]]) -> None:
        """Log metrics, one a line."""
        for measure, values in scores.items():
            for k, value in values.items():
                logger.info("%s: %.4f", measure.replace("@k", f"@{k}"), value)

    @staticmethod
    def compute_dcg_at_k(relevances: Sequence[float], k: int) -> float:
        """Discounted cumulative gain of the first k."""
        return float(measures.dcg(np.asarray(relevances[:k], np.float64)))


def find_primary(
    evaluator: InformationRetrievalEvaluator | NanoBEIREvaluator,
    names: Sequence[str],
    k: int,
    value_of: Callable[[str], float],
) -> None:
    """Make NDCG at `k` of the main function primary, or of the best one of the first call with these functions.

    Args:
        names: of the functions.
        value_of: name -> that NDCG.
    """
    if evaluator.main_score_function is not None:
        evaluator.find_primary(f"{evaluator.main_score_function.value}_ndcg@{k}")
    elif (evaluator.primary_metric or "").removeprefix(f"{evaluator.name}_") not in {
        f"{one}_ndcg@{k}" for one in names
    }:
        evaluator.find_primary(f"{max(names, key=value_of)}_ndcg@{k}")
