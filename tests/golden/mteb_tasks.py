"""MTEB tasks of five kinds on real texts, and the models that are measured with them.

`scores()` runs everything with whichever `sentence_transformers` is installed: `record_mteb.py` with version 6.2.0, the
tests with this library. All texts and weights come from packages (`benchmarks.texts`, `benchmarks.models`).

    LeeSTS                  fifty news texts; how alike people found them       (STS)
    ArxivTags               tags of papers -> abstracts that carry them         (retrieval)
    ArxivTitles             titles -> abstract among ten candidates             (re-ranking)
    NewsGroups              posts of four groups                                (classification)
    NewsGroupClusters       the same posts                                      (clustering)
"""

from __future__ import annotations

import random
import tempfile
from typing import Any

import mteb
from benchmarks import models, texts
from datasets import Dataset, DatasetDict
from mteb.abstasks import AbsTaskClassification, AbsTaskClustering, AbsTaskRetrieval, AbsTaskSTS
from mteb.abstasks.task_metadata import TaskMetadata

GROUPS = ("rec.autos", "sci.space", "rec.sport.hockey", "sci.med")
CUT = 300  # characters of a post or abstract
PROMPTS = {"query": "query: ", "document": "passage: ", "STS": "likeness: ", "Classification": "group: "}


def metadata(name: str, kind: str, main_score: str) -> TaskMetadata:
    """What MTEB wants to know of a task."""
    return TaskMetadata(
        name=name,
        type=kind,
        main_score=main_score,
        description=f"{name}, made from texts of packages.",
        reference="https://example.org",
        dataset={"path": f"local/{name}", "revision": "1"},
        category="t2t",
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        date=("2000-01-01", "2020-12-31"),
        domains=["Written"],
        task_subtypes=[],
        license="not specified",
        annotations_creators="human-annotated",
        dialect=[],
        modalities=["text"],
        sample_creation="found",
        bibtex_citation="",
    )


class LeeSTS(AbsTaskSTS):
    """Pairs of news texts and the mean of people's judgements."""

    metadata = metadata("LeeSTS", "STS", "cosine_spearman")
    min_score, max_score = 0, 1

    def load_data(self, **kwargs: Any) -> None:
        documents, alike = texts.lee()
        rows = [
            {"sentence1": documents[i], "sentence2": documents[j], "score": alike[j][i]}
            for i in range(20) for j in range(i)
        ]  # fmt: skip
        self.dataset, self.data_loaded = DatasetDict(test=Dataset.from_list(rows)), True


class ArxivTags(AbsTaskRetrieval):
    """The tags that a person gave to papers find those papers."""

    metadata = metadata("ArxivTags", "Retrieval", "ndcg_at_10")

    def load_data(self, **kwargs: Any) -> None:
        papers = texts.arxiv()[:120]
        tags = sorted({tag for paper in papers for tag in paper.tags})
        found = {tag: {f"d{i}": 1 for i, paper in enumerate(papers) if tag in paper.tags} for tag in tags}
        chosen = [tag for tag in tags if 2 <= len(found[tag]) <= 15]
        self.dataset = retrieval(
            [paper.abstract[:CUT] for paper in papers],
            chosen,
            {f"q{i}": found[tag] for i, tag in enumerate(chosen)},
        )
        self.data_loaded = True


class ArxivTitles(AbsTaskRetrieval):
    """A title finds its abstract among ten."""

    metadata = metadata("ArxivTitles", "Reranking", "map_at_1000")

    def load_data(self, **kwargs: Any) -> None:
        papers = texts.arxiv()[:60]
        chosen = random.Random(1)
        candidates = {f"q{i}": [f"d{i}", *(f"d{j}" for j in sorted(chosen.sample(range(60), 9)) if j != i)]
                      for i in range(30)}  # fmt: skip
        self.dataset = retrieval(
            [paper.abstract[:CUT] for paper in papers],
            [paper.title for paper in papers[:30]],
            {f"q{i}": {f"d{i}": 1} for i in range(30)},
            candidates,
        )
        self.data_loaded = True


class NewsGroups(AbsTaskClassification):
    """Posts of four news groups."""

    metadata = metadata("NewsGroups", "Classification", "accuracy")
    n_experiments = 3

    def load_data(self, **kwargs: Any) -> None:
        self.dataset = DatasetDict(train=posts("train", 30), test=posts("test", 25))
        self.data_loaded = True


class NewsGroupClusters(AbsTaskClustering):
    """The same posts without their labels."""

    metadata = metadata("NewsGroupClusters", "Clustering", "v_measure")
    max_document_to_embed, max_fraction_of_documents_to_embed, n_clusters = 100, None, 3

    def load_data(self, **kwargs: Any) -> None:
        self.dataset = DatasetDict(test=posts("test", 25).rename_columns({"text": "sentences", "label": "labels"}))
        self.data_loaded = True


def posts(part: str, each: int) -> Dataset:
    rows = texts.newsgroups(part)
    chosen = [(text[:CUT], label) for label, group in enumerate(GROUPS)
              for text in [text for text, name in rows if name == group][:each]]  # fmt: skip
    return Dataset.from_list([{"text": text, "label": label} for text, label in chosen])


def retrieval(documents: list[str], queries: list[str], relevant: Any, candidates: Any = None) -> Any:
    """The data of a retrieval task in MTEB's form."""
    corpus = Dataset.from_list([{"id": f"d{i}", "title": "", "text": text} for i, text in enumerate(documents)])
    asked = Dataset.from_list([{"id": f"q{i}", "text": text} for i, text in enumerate(queries)])
    split = {"corpus": corpus, "queries": asked, "relevant_docs": relevant, "top_ranked": candidates}
    return {"default": {"test": split}}


TASKS = (LeeSTS, ArxivTags, ArxivTitles, NewsGroups, NewsGroupClusters)
RANKING = (ArxivTitles,)


def evaluated(model: Any, tasks: tuple[type, ...]) -> dict[str, float]:
    """Main scores of `mteb.evaluate`."""
    results = mteb.evaluate(model, [task() for task in tasks], cache=None, show_progress_bar=False)
    return {result.task_name: float(result.get_score()) for result in results}


def run(model: Any, tasks: tuple[type, ...]) -> dict[str, float]:
    """Main scores of the older `mteb.MTEB(tasks=…).run(model)`."""
    with tempfile.TemporaryDirectory() as folder:
        results = mteb.MTEB(tasks=[task() for task in tasks]).run(model, output_folder=folder, verbosity=0)
        return {result.task_name: float(result.get_score()) for result in results}


def scores() -> dict[str, dict[str, float]]:
    """Kind of model -> task -> main score."""
    from sentence_transformers import CrossEncoder, SentenceTransformer, SparseEncoder

    dense = str(models.model_folder())
    return {
        "dense": evaluated(SentenceTransformer(dense), TASKS),
        "dense, MTEB.run": run(SentenceTransformer(dense), TASKS[:3]),
        "dense, prompts": evaluated(SentenceTransformer(dense, prompts=PROMPTS), TASKS),
        "cross-encoder": evaluated(CrossEncoder(str(models.classifier())), RANKING),
        "cross-encoder, MTEB.run": run(CrossEncoder(str(models.classifier())), RANKING),
        "sparse": evaluated(SparseEncoder(str(texts.splade())), TASKS),
    }
