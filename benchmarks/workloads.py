"""The workloads: what is run, how one number is made of a pair of runs, and which number is to be reached.

A pair is one run under the existing library and one under this library, right after each other. By `measure`, a pair
of times (t_peer, t_ours) gives

    speedup   t_peer / t_ours        at least the target
    latency   t_ours / t_peer        at most the target
    seconds   t_ours                 at most the target
    memory    growth of resident memory while encoding, ours / peer; at most the target

`max_memory` bounds the growth of memory, ours / peer, in a row that measures time. The vectors of the two runs are
compared as well: largest absolute difference, or mean cosine where the dtype differs.
For a search the scores of the best documents stand for the vectors.
All choices of texts are seeded: the same texts in every process, on every machine.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks import embeddings, models, texts

SEED = 20
SPEEDUP, LATENCY, SECONDS, MEMORY = "speedup", "latency", "seconds", "memory"
QUERIES = (
    "What is the capital of France?",
    "how to install a package offline",
    "small furry animal that eats nuts",
    "restore a backup after disk failure",
    "why does my network card not work",
    "a feeling of great happiness",
    "list all users of the system",
    "person who repairs shoes",
    "encrypt a partition on a laptop",
    "the act of forgiving someone",
)


@dataclass(frozen=True)
class Workload:
    """One line of the table. `kind` picks the function in worker.py; the rest is handed to it."""

    name: str
    title: str
    kind: str = "encode"
    measure: str = SPEEDUP
    target: float | None = None
    max_difference: float | None = 1e-5
    min_cosine: float | None = None
    agreement: str = "mean cosine"
    min_peak_share: float | None = None
    max_memory: float | None = None
    model: str = ""
    repeats: int = 3
    warm_up_pairs: int = 0
    texts: str = ""
    count: int = 0
    batch_size: int = 0
    family: str = "SentenceTransformer"
    loss: str = ""
    loss_kwargs: dict[str, Any] = field(default_factory=dict)
    inner_loss: str = ""
    encode_kwargs: dict[str, Any] = field(default_factory=dict)
    our_model_kwargs: dict[str, Any] = field(default_factory=dict)
    our_backend: str = ""

    @property
    def wants_gemm(self) -> bool:
        """Whether the GEMM peak of the machine is measured around the work."""
        return self.min_peak_share is not None


WORKLOADS = (
    Workload("gloss", "2,000 WordNet glosses", target=1.5, min_peak_share=0.75, texts="glosses", count=2000),
    Workload("paragraph", "400 handbook paragraphs", target=1.8, min_peak_share=0.75, texts="paragraphs", count=400),
    Workload("mix", "mix: log-normal lengths, 30% duplicates", target=2.5, repeats=2, texts="mix", count=2000),
    Workload(
        "bfloat16",
        "glosses in bfloat16 against the default dtype",
        target=2.5,
        max_difference=None,
        min_cosine=0.9995,
        texts="glosses",
        count=2000,
        our_model_kwargs={"dtype": "bfloat16"},
    ),
    Workload(
        "int8",
        "glosses, products in int8 against the default dtype",
        target=3.5,
        max_difference=None,
        min_cosine=0.99,
        texts="glosses",
        count=2000,
        our_model_kwargs={"dtype": "int8"},
    ),
    Workload(
        "onnx", "glosses by ONNX Runtime against torch", texts="glosses", count=2000, our_backend="onnx", target=1.5
    ),
    Workload(
        "openvino",
        "glosses by OpenVINO against torch",
        target=1.5,
        max_difference=1e-3,
        texts="glosses",
        count=2000,
        our_backend="openvino",
    ),
    Workload(
        "onnx-int8",
        "glosses by ONNX Runtime, weights and products in int8, against torch in float32",
        max_difference=None,
        min_cosine=0.99,
        texts="glosses",
        count=2000,
        model="int8_graph",
        our_backend="onnx",
        our_model_kwargs={"file_name": models.INT8_GRAPH},
    ),
    Workload("megabyte", "10 texts of 1 MB each", target=5.0, texts="megabytes", count=10),
    Workload("query", "one short query, warm", "query", LATENCY, target=0.45, repeats=200, texts="queries", count=10),
    Workload(
        "cold",
        "fresh process to first embedding",
        "cold",
        LATENCY,
        target=0.45,
        warm_up_pairs=1,
        texts="queries",
        count=1,
    ),
    Workload(
        "import",
        "`import sentence_transformers`",
        "import",
        SECONDS,
        target=0.1,
        max_difference=None,
        warm_up_pairs=1,
    ),
    Workload("static", "StaticEmbedding, 100,000 glosses", "static", target=3.0, texts="glosses", count=100_000),
    Workload(
        "predict",
        "re-ranker: 600 (gloss, paragraph) pairs",
        "predict",
        target=1.6,
        model="classifier",
        repeats=2,
        texts="pairs",
        count=600,
    ),
    Workload(
        "rank",
        "re-ranker: one query over 100 paragraphs",
        "rank",
        target=1.7,
        model="classifier",
        repeats=5,
        texts="paragraphs",
        count=100,
    ),
    *(
        Workload(
            f"{model}-{kind}",
            f"sparse, {title}: {count} {kind}",
            "sparse",
            target=3.0,
            max_memory=0.25,
            model=model,
            repeats=2,
            texts=kind,
            count=count,
        )
        for model, title in (("splade", "2 layers, real"), ("masked", "6 layers, MiniLM's shape"))
        for kind, count in (("paragraphs", 200), ("glosses", 600))
    ),
    Workload(
        "index",
        "`Index` of 1,000,000 × 384, binary: opened to first answer",
        "index",
        SECONDS,
        target=0.3,
        max_difference=None,
        warm_up_pairs=1,
    ),
    Workload(
        "sparse_search",
        "exact sparse search, 100 queries over 50,000 encoded glosses, top 10",
        "sparse_search",
        target=5.0,
        repeats=5,
        count=50_000,
    ),
    Workload(
        "search",
        "`semantic_search`, 1,000 queries x 500,000 x 384, top 10",
        "search",
        target=1.8,
        repeats=2,
        count=500_000,
    ),
    Workload(
        "paraphrases",
        "`paraphrase_mining_embeddings`, 20,000 x 384",
        "paraphrases",
        target=4.0,
        repeats=2,
        count=20_000,
    ),
    Workload(
        "communities",
        "`community_detection`, 20,000 x 384",
        "communities",
        target=1.8,
        max_difference=0,
        repeats=2,
        count=20_000,
    ),
    Workload(
        "binary",
        "binary search, rescored from disk, against exact float search: 1,000,000 x 384, one query at a time",
        "binary",
        target=15.0,
        max_difference=None,
        min_cosine=0.96,
        agreement="recall",
        repeats=2,
        count=1_000_000,
    ),
    Workload(
        "train-mnrl",
        "training: in-batch negatives, 32 (gloss, paragraph) pairs",
        "train",
        target=2.5,
        max_memory=0.5,
        max_difference=1e-3,
        texts="pairs",
        count=320,
        batch_size=32,
        repeats=5,
        loss="MultipleNegativesRankingLoss",
    ),
    Workload(
        "train-cached",
        "training: cached in-batch negatives, 256 pairs, mini-batch 32",
        "train",
        target=2.5,
        max_difference=1e-3,
        texts="pairs",
        count=768,
        batch_size=256,
        repeats=1,
        loss="CachedMultipleNegativesRankingLoss",
        loss_kwargs={"mini_batch_size": 32},
    ),
    Workload(
        "train-sts",
        "training: CoSENT, 64 short pairs",
        "train",
        target=1.5,
        max_difference=1e-3,
        texts="scored",
        count=640,
        batch_size=64,
        repeats=6,
        loss="CoSENTLoss",
    ),
    Workload(
        "train-bce",
        "training a re-ranker: binary cross entropy, 32 (gloss, paragraph) pairs",
        "train",
        target=1.8,
        max_memory=0.6,
        max_difference=1e-3,
        model="classifier",
        texts="judged",
        count=320,
        batch_size=32,
        repeats=5,
        family="CrossEncoder",
        loss="BinaryCrossEntropyLoss",
    ),
    Workload(
        "train-splade",
        "training a sparse encoder: SpladeLoss of in-batch negatives, 32 (gloss, paragraph) pairs",
        "train",
        target=3.0,
        max_memory=1 / 3,
        max_difference=1e-3,
        model="masked",
        texts="pairs",
        count=320,
        batch_size=32,
        repeats=5,
        family="SparseEncoder",
        loss="SpladeLoss",
        loss_kwargs={"document_regularizer_weight": 3e-5, "query_regularizer_weight": 5e-5},
        inner_loss="SparseMultipleNegativesRankingLoss",
    ),
    Workload(
        "train-lambda",
        "training a re-ranker: LambdaLoss, 8 queries x 16 paragraphs",
        "train",
        target=1.8,
        max_difference=1e-3,
        model="classifier",
        texts="lists",
        count=24,
        batch_size=8,
        repeats=2,
        family="CrossEncoder",
        loss="LambdaLoss",
    ),
    Workload(
        "retrieval",
        "retrieval evaluator, 1,000 queries x 50,000 documents",
        "retrieval",
        target=2.0,
        max_memory=0.5,
        repeats=2,
        count=50_000,
    ),
    Workload(
        "mine",
        "`mine_hard_negatives`, 20,000 pairs",
        "mine",
        target=2.0,
        max_difference=0,
        repeats=1,
        texts="doubled",
        count=20_000,
    ),
    Workload(
        "memory",
        "memory: 400 paragraphs, `batch_size=128`",
        measure=MEMORY,
        repeats=1,
        texts="paragraphs",
        count=400,
        encode_kwargs={"batch_size": 128},
    ),
)


def quick(workload: Workload) -> Workload:
    """The workload in the sizes of `--quick`, which only shows that everything runs."""
    few = workload.texts and workload.kind != "static"  # texts for a transformer; the others are vectors
    count = min(workload.count, 40 if few else 2000)
    repeats = min(workload.repeats, 5 if workload.kind == "query" else 1)
    return replace(workload, title=f"{workload.title} (quick)", count=count, repeats=repeats, warm_up_pairs=0)


def texts_of(workload: Workload) -> list[Any]:
    """The texts that a workload encodes."""
    if not workload.texts:
        return []
    return TEXTS[workload.texts](workload.count)


def gloss_texts(count: int) -> list[str]:
    """Distinct glosses in a seeded random order."""
    return _shuffled_glosses()[:count]


def paragraph_texts(count: int) -> list[str]:
    """The first distinct paragraphs of the handbook."""
    return list(dict.fromkeys(texts.paragraphs()))[:count]


def megabyte_texts(count: int) -> list[str]:
    """The paragraphs of the handbook, again and again, from another one on in each text."""
    found = paragraph_texts(400)
    whole = " ".join(found)
    return [(" ".join(found[i:]) + " " + whole * (1 + 1_000_000 // len(whole)))[:1_000_000] for i in range(count)]


def mix_texts(count: int) -> list[str]:
    """The realistic mix, made of the sentences of the handbook and of glosses."""
    sentences = [part for text in texts.paragraphs() for part in re.split(r"(?<=[.!?]) ", text) if part]
    return make_mix(sentences + gloss_texts(len(sentences)), count)


def pair_texts(count: int) -> list[tuple[str, str]]:
    """A gloss and a paragraph each, in the order of both."""
    return list(zip(gloss_texts(count), paragraph_texts(count), strict=True))


def judged_texts(count: int) -> list[tuple[str, str, float]]:
    """A gloss and a paragraph each, every second pair relevant."""
    return [(gloss, paragraph, float(i % 2)) for i, (gloss, paragraph) in enumerate(pair_texts(count))]


def list_texts(count: int, documents: int = 16) -> list[tuple[str, list[str], list[float]]]:
    """A gloss each, with paragraphs and their grades from 0 to 3."""
    found = paragraph_texts(count * documents)
    parts = [found[start : start + documents] for start in range(0, len(found), documents)]
    return [
        (gloss, part, [float(i % 4) for i in range(len(part))])
        for gloss, part in zip(gloss_texts(count), parts, strict=False)
    ]


def scored_texts(count: int) -> list[tuple[str, str, float]]:
    """Two short glosses each, and the share of words they have in common."""
    short = [gloss for gloss in _shuffled_glosses() if 20 < len(gloss) < 90][: 2 * count]
    pairs = zip(short[:count], short[count:], strict=True)
    return [(a, b, len({*a.split()} & {*b.split()}) / len({*a.split()} | {*b.split()})) for a, b in pairs]


def make_mix(sentences: list[str], count: int, duplicates: float = 0.3, seed: int = SEED) -> list[str]:
    """`count` texts with log-normal numbers of words (median 20, sigma 0.9), a share of which occur elsewhere too.

    Each text joins random sentences until it is long enough and is then cut. `round(count * duplicates)` of the texts
    are further copies of one of the others; the order is random.
    """
    chance = random.Random(seed)
    distinct: dict[str, None] = {}
    while len(distinct) < count - round(count * duplicates):
        length = max(1, round(chance.lognormvariate(mu=2.9957, sigma=0.9)))  # exp(2.9957) = 20
        words: list[str] = []
        while len(words) < length:
            words += chance.choice(sentences).split()
        distinct[" ".join(words[:length])] = None
    mix = list(distinct)
    mix += chance.choices(mix, k=count - len(mix))
    chance.shuffle(mix)
    return mix


@cache
def _shuffled_glosses() -> list[str]:
    """All distinct glosses in a seeded random order."""
    found = list(dict.fromkeys(texts.glosses()))
    random.Random(SEED).shuffle(found)
    return found


MODELS = {
    "classifier": models.classifier,
    "masked": models.masked,
    "int8_graph": models.int8_graph,
    "splade": texts.splade,
}
TEXTS: dict[str, Callable[[int], list[Any]]] = {
    "glosses": gloss_texts,
    "paragraphs": paragraph_texts,
    "mix": mix_texts,
    "megabytes": megabyte_texts,
    "pairs": lambda count: pair_texts(count),
    "scored": lambda count: scored_texts(count),
    "judged": lambda count: judged_texts(count),
    "lists": lambda count: list_texts(count),
    "doubled": lambda count: gloss_texts(2 * count),
    "queries": lambda count: list(QUERIES[:count]),
}


def job(workload: Workload, ours: bool) -> dict[str, Any]:
    """What one worker process is told: plain data for its job file."""
    static = workload.kind in ("static", "mine")
    tokenizer, weights = texts.wordllama() if static else (Path(), Path())
    return {
        "kind": workload.kind,
        "texts": texts_of(workload),
        "repeats": workload.repeats,
        "gemm": workload.wants_gemm,
        "encode_kwargs": workload.encode_kwargs,
        "model_kwargs": workload.our_model_kwargs if ours else {},
        "backend": workload.our_backend if ours else "",
        "model": str(MODELS[workload.model]()) if workload.model else None,
        "tokenizer": str(tokenizer) if static else None,
        "weights": str(weights) if static else None,
        "count": workload.count,
        "batch_size": workload.batch_size,
        "family": workload.family,
        "loss": workload.loss,
        "loss_kwargs": workload.loss_kwargs,
        "inner_loss": workload.inner_loss,
        "embeddings": str(embeddings.sparse_glosses()) if workload.kind == "sparse_search" else None,
        "mixtures": str(embeddings.mixtures(workload.count)) if workload.kind == "binary" else None,
        "index": str(embeddings.large_index()) if workload.kind == "index" else None,
    }
