"""Retrieval on NanoBEIR: thirteen small data sets of the BEIR benchmark, and their mean.

The data sets come from the hub, or from a folder that is given as `dataset_id`. The folder has, for each of `corpus`,
`queries` and `qrels`, a folder {Name} written by `Dataset.save_to_disk`, or a file {Name}.parquet or {Name}.jsonl;
{Name} is e.g. NanoMSMARCO. Columns are `_id` and `text`, of qrels `query-id` and `corpus-id`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from sentence_transformers.errors import InputError, MissingExtraError
from sentence_transformers.evaluation.base import BaseEvaluator
from sentence_transformers.evaluation.information_retrieval import InformationRetrievalEvaluator, ScoreFunction
from sentence_transformers.protocols import Reranker, SearchEncoder
from sentence_transformers.similarity import SimilarityFunction

if TYPE_CHECKING:
    from sentence_transformers.evaluation.cross_encoder import CrossEncoderNanoBEIREvaluator

NAMES = {
    "climatefever": "ClimateFEVER",
    "dbpedia": "DBPedia",
    "fever": "FEVER",
    "fiqa2018": "FiQA2018",
    "hotpotqa": "HotpotQA",
    "msmarco": "MSMARCO",
    "nfcorpus": "NFCorpus",
    "nq": "NQ",
    "quoraretrieval": "QuoraRetrieval",
    "scidocs": "SCIDOCS",
    "arguana": "ArguAna",
    "scifact": "SciFact",
    "touche2020": "Touche2020",
}
DATASET_NAME_TO_HUMAN_READABLE = NAMES
DatasetNameType = Literal[
    "climatefever", "dbpedia", "fever", "fiqa2018", "hotpotqa", "msmarco", "nfcorpus", "nq", "quoraretrieval",
    "scidocs", "arguana", "scifact", "touche2020",
]  # fmt: skip


class NanoBEIREvaluator(BaseEvaluator):
    """The measures of `InformationRetrievalEvaluator` on each data set, and over all.

    Args:
        dataset_names: names as "msmarco", "nq"; default: all thirteen.
        dataset_id: hub id of the collection, or a local folder.
        aggregate_fn: list of values -> value over all data sets.
        aggregate_key: its name.
        query_prompts, corpus_prompts: one for all, or by data set.
        others: see `InformationRetrievalEvaluator`.

    Raises:
        InputError: for unknown names or none, or a folder without one of the data sets.
        MissingExtraError: if the `datasets` package is not installed.
    """

    information_retrieval_class: ClassVar[Any] = InformationRetrievalEvaluator
    limit_name: ClassVar[str] = "truncate_dim"  # what that one calls its limit of dimensions

    def __init__(
        self,
        dataset_names: list[str] | None = None,
        dataset_id: str = "sentence-transformers/NanoBEIR-en",
        mrr_at_k: list[int] = [10],  # noqa: B006  # the contract; never changed
        ndcg_at_k: list[int] = [10],  # noqa: B006
        accuracy_at_k: list[int] = [1, 3, 5, 10],  # noqa: B006
        precision_recall_at_k: list[int] = [1, 3, 5, 10],  # noqa: B006
        map_at_k: list[int] = [100],  # noqa: B006
        show_progress_bar: bool = False,
        batch_size: int = 32,
        write_csv: bool = True,
        truncate_dim: int | None = None,
        score_functions: dict[str, ScoreFunction] | None = None,
        main_score_function: str | SimilarityFunction | None = None,
        aggregate_fn: Callable[[list[float]], float] = np.mean,  # type: ignore[assignment]
        aggregate_key: str = "mean",
        query_prompts: str | dict[str, str] | None = None,
        corpus_prompts: str | dict[str, str] | None = None,
        write_predictions: bool = False,
    ) -> None:
        super().__init__()
        names = list(NAMES) if dataset_names is None else some_names(dataset_names)
        self.dataset_names, self.dataset_id = names, dataset_id
        self.aggregate_fn, self.aggregate_key, self.write_csv = aggregate_fn, aggregate_key, write_csv
        self.truncate_dim, self.show_progress_bar = truncate_dim, show_progress_bar
        self.query_prompts, self.corpus_prompts = self._prompts(query_prompts), self._prompts(corpus_prompts)
        self.main_score_function = SimilarityFunction(main_score_function) if main_score_function else None
        ending = f"_{truncate_dim}" if truncate_dim is not None else ""
        self.name = f"NanoBEIR_{aggregate_key}{ending}"
        self.csv_file = f"NanoBEIR_evaluation_{aggregate_key}_results.csv"
        shared = {
            "mrr_at_k": mrr_at_k,
            "ndcg_at_k": ndcg_at_k,
            "accuracy_at_k": accuracy_at_k,
            "precision_recall_at_k": precision_recall_at_k,
            "map_at_k": map_at_k,
            "show_progress_bar": show_progress_bar,
            "batch_size": batch_size,
            "write_csv": write_csv,
            "score_functions": score_functions,
            "main_score_function": main_score_function,
            "write_predictions": write_predictions,
            **({} if truncate_dim is None else {self.limit_name: truncate_dim}),
        }
        self.evaluators = [self._evaluator(name, ending, shared) for name in names]
        self.ndcg_at_k = ndcg_at_k
        self.score_function_names: list[str] = self.evaluators[0].score_function_names
        self.csv_headers: list[str] = self.evaluators[0].csv_headers

    def _prompts(self, prompts: str | dict[str, str] | None) -> dict[str, str]:
        if isinstance(prompts, str):
            return dict.fromkeys(self.dataset_names, prompts)
        return dict(prompts or {})

    def _evaluator(self, name: str, ending: str, shared: dict[str, Any]) -> Any:
        """The retrieval evaluator of one data set."""
        folder = full_name(name)
        corpus, queries, qrels = (load_part(self.dataset_id, part, folder) for part in ("corpus", "queries", "qrels"))
        relevant: dict[str, set[str]] = {}
        for row in qrels:
            relevant.setdefault(row["query-id"], set()).add(row["corpus-id"])
        return self.information_retrieval_class(
            queries=texts_by_id(queries),
            corpus=texts_by_id(corpus),
            relevant_docs=relevant,
            name=f"{folder}{ending}",
            query_prompt=self.query_prompts.get(name),
            corpus_prompt=self.corpus_prompts.get(name),
            **shared,
        )

    def __call__(
        self,
        model: SearchEncoder,
        output_path: str | None = None,
        epoch: int = -1,
        steps: int = -1,
        *args: Any,
        **kwargs: Any,
    ) -> dict[str, float]:
        every, overall = measure_all(self, model, output_path, epoch, steps)
        self.score_function_names, self.csv_headers = (
            self.evaluators[0].score_function_names,
            self.evaluators[0].csv_headers,
        )
        row = [overall[key_of(header)] for header in self.csv_headers[2:]]
        self._find_primary(overall)
        return every | self._report(model, (overall, row), output_path, epoch, steps)

    def _find_primary(self, overall: dict[str, float]) -> None:
        """NDCG at the largest k of the main function, or of the best one of the first call with these functions."""
        k = max(self.ndcg_at_k)
        keys = [f"{name}_ndcg@{k}" for name in self.score_function_names]
        if self.main_score_function is not None:
            self.find_primary(f"{self.main_score_function.value}_ndcg@{k}")
        elif (self.primary_metric or "").removeprefix(f"{self.name}_") not in keys:
            self.find_primary(max(keys, key=overall.__getitem__))

    def get_config_dict(self) -> dict[str, Any]:
        shown = ("dataset_names", "dataset_id", "truncate_dim", "query_prompts", "corpus_prompts")
        return {name: getattr(self, name) for name in shown if getattr(self, name)}


def measure_all(
    evaluator: NanoBEIREvaluator | CrossEncoderNanoBEIREvaluator,
    model: SearchEncoder | Reranker,
    output_path: str | None,
    epoch: int,
    steps: int,
) -> tuple[dict[str, float], dict[str, float]]:
    """The metrics of the evaluators of single data sets, under their full names, and over all data sets."""
    every: dict[str, float] = {}
    columns: dict[str, list[float]] = {}
    for one in evaluator.evaluators:
        found = one(model, output_path, epoch, steps)
        every.update(found)
        for key, value in found.items():
            columns.setdefault(key.removeprefix(f"{one.name}_"), []).append(value)
    return every, {key: float(evaluator.aggregate_fn(values)) for key, values in columns.items()}


def key_of(header: str) -> str:
    """The metric of a column of the CSV file: cosine-NDCG@10 -> cosine_ndcg@10."""
    name, _, measure = header.rpartition("-")
    return f"{name}_{measure.lower()}"


def some_names(names: list[str]) -> list[str]:
    """Names of data sets; `InputError` if there are none."""
    if not names:
        raise InputError("dataset_names is empty: name at least one data set, or give None for all.")
    return names


def full_name(name: str) -> str:
    """msmarco -> NanoMSMARCO; names of other collections stay as they are."""
    if name.lower() in NAMES:
        return f"Nano{NAMES[name.lower()]}"
    if name.startswith("Nano"):
        return name
    raise InputError(f"Unknown data set {name!r}; known are {', '.join(NAMES)}.")


def texts_by_id(rows: Iterable[dict[str, str]]) -> dict[str, str]:
    """The texts of `corpus` or `queries`; empty ones are left out."""
    return {row["_id"]: row["text"] for row in rows if row["text"]}


def load_part(dataset_id: str, part: str, name: str) -> Any:
    """The rows of one part of a data set, from a folder or the hub."""
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError("datasets", "train", "NanoBEIREvaluator") from error
    folder = Path(dataset_id)
    if not folder.is_dir():
        return datasets.load_dataset(dataset_id, part, split=name)
    for ending, kind in (("parquet", "parquet"), ("jsonl", "json")):
        file = folder / part / f"{name}.{ending}"
        if file.is_file():
            return datasets.load_dataset(kind, data_files=str(file), split="train")
    if (folder / part / name).is_dir():
        return datasets.load_from_disk(str(folder / part / name))
    raise InputError(f"{folder} has no {part}/{name}.parquet, {part}/{name}.jsonl or saved data set {part}/{name}.")
