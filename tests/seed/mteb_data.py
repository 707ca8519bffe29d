"""Tiny data for every task of MTEB that the page asks for, by the kind of the task, under the task's own name.

The data sets of these tasks are some gigabytes; the page's code loads them itself. `install()` lets each task of text
load rows made of `models.SENTENCES` instead, with the columns, splits and languages that the task says it has. All else
is MTEB's own: choice of tasks, prompts, calls of the model, scores.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from datasets import Dataset, DatasetDict
from mteb import abstasks
from mteb.abstasks.abstask import AbsTask

from tests.models import SENTENCES
from tests.seed.hub import scored_pairs

TEXTS = [f"{text} Number {i}." for i in range(4) for text in SENTENCES]


def install() -> None:
    """Replace the loading of data in every kind of task."""
    for kind in kinds(AbsTask):
        if "load_data" in vars(kind):
            kind.load_data = load_data


def kinds(kind: type) -> Iterator[type]:
    """A class and all those below it."""
    yield kind
    for below in kind.__subclasses__():
        yield from kinds(below)


def load_data(self: Any, **kwargs: Any) -> None:
    """In the place of a task's own."""
    if self.data_loaded:
        return
    if isinstance(self, abstasks.AbsTaskRetrieval):
        self.dataset = {subset: {split: retrieval(self) for split in self.eval_splits} for subset in self.hf_subsets}
    else:
        rows = Dataset.from_list(rows_of(self))
        splits = DatasetDict(dict.fromkeys({*self.eval_splits, "train"}, rows))
        self.dataset = dict.fromkeys(self.hf_subsets, splits) if self.metadata.is_multilingual else splits
    self.data_loaded = True


def retrieval(task: Any) -> dict[str, Any]:
    """Twelve documents, three queries, and for re-ranking the candidates."""
    corpus = Dataset.from_list([{"id": f"d{i}", "title": "", "text": text} for i, text in enumerate(TEXTS[:12])])
    queries = Dataset.from_list([{"id": f"q{i}", "text": text} for i, text in enumerate(SENTENCES[:3])])
    candidates = {f"q{i}": [f"d{j}" for j in range(12)] for i in range(3)}
    return {
        "corpus": corpus,
        "queries": queries,
        "relevant_docs": {f"q{i}": {f"d{i}": 1} for i in range(3)},
        "top_ranked": candidates if task.metadata.type == "Reranking" else None,
    }


def rows_of(task: Any) -> list[dict[str, Any]]:
    """The rows of a split."""
    if isinstance(task, abstasks.AbsTaskSTS):
        low, high = task.min_score, task.max_score
        return [{"sentence1": a, "sentence2": b, "score": low + score * (high - low)} for a, b, score in scored_pairs()]
    if isinstance(task, abstasks.AbsTaskPairClassification):
        names = task.input1_column_name, task.input2_column_name, task.label_column_name
        return [dict(zip(names, (a, b, int(score > 0.5)), strict=True)) for a, b, score in scored_pairs()]
    if isinstance(task, abstasks.AbsTaskSummarization):
        low, high = task.min_score, task.max_score
        grades = [low, (low + high) / 2, high]
        return [
            {"text": text, "human_summaries": TEXTS[:2], "machine_summaries": TEXTS[2:5], "relevance": grades}
            for text in SENTENCES
        ]
    labels = [i % 2 for i in range(len(TEXTS))]
    return [
        {task.input_column_name: text, task.label_column_name: label} for text, label in zip(TEXTS, labels, strict=True)
    ]
