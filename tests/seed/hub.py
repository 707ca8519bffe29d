"""A local hub cache with tiny models and data sets of the right kinds, under the names that the page uses.

`fill(home)` makes what a machine has that once loaded all of them, and `HF_HOME=home HF_HUB_OFFLINE=1` then finds:

    home/hub/models--ORGANISATION--NAME/{refs/main, snapshots/COMMIT/…}       as huggingface_hub lays it out
    home/datasets/ORGANISATION___NAME/CONFIG/0.0.0/HASH/{dataset_info.json, NAME-SPLIT.arrow}     as datasets does
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests import models
from tests.golden.score_models import SCORERS, SPARSE

COMMIT = "0123456789abcdef0123456789abcdef01234567"
WIDE = 1024  # the page says so of mxbai-embed-large-v1
Rows = list[dict[str, Any]]


def fill(home: Path) -> None:
    """Write everything below `home`."""
    for name, build in MODELS.items():
        build(put_repository(home, name))
    for (name, config, split), rows in data_sets().items():
        put_rows(home, name, {split: rows}, config)


# ---- models


def put_repository(home: Path, name: str) -> Path:
    """The empty snapshot folder of a model in the hub cache."""
    repository = home / "hub" / f"models--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    return snapshot


def encoder(folder: Path, **settings: Any) -> None:
    """A sentence-transformer: BERT, mean pooling, normalisation."""
    from sentence_transformers.models import Normalize, Pooling, Transformer

    from sentence_transformers import SentenceTransformer

    checkpoint = folder.with_name("checkpoint")
    transformer = Transformer(str(models.build("bert", checkpoint, **settings)))
    pooling = Pooling(transformer.get_embedding_dimension())
    SentenceTransformer(modules=[transformer, pooling, Normalize()]).save_pretrained(str(folder))


def plain(architecture: str) -> Callable[[Path], None]:
    """A plain checkpoint without a head."""
    return lambda folder: models.build(architecture, folder) and None


MODELS: dict[str, Callable[..., None]] = {
    "sentence-transformers/all-MiniLM-L6-v2": encoder,
    "mixedbread-ai/mxbai-embed-large-v1": lambda folder: encoder(folder, hidden_size=WIDE, num_hidden_layers=1),
    "xlm-roberta-base": plain("xlm-roberta"),
    "bert-base-uncased": plain("bert"),
    "cross-encoder/bert-base": plain("bert"),
    "cross-encoder/ms-marco-MiniLM-L-6-v2": SCORERS["bert_1"],
    "naver/splade-cocondenser-ensembles": SPARSE["plain_masked_language_model"],
}


# ---- data sets


def data_sets() -> dict[tuple[str, str, str], Rows]:
    """(name, config, split) -> rows."""
    pairs = [{"sentence1": a, "sentence2": b, "score": score} for a, b, score in scored_pairs()]
    return {
        ("sentence-transformers/stsb", "default", "train"): pairs,
        ("sts_multi_mt", "en", "train"): [{**row, "score": row["score"] * 5} for row in pairs],
        ("sentence-transformers/parallel-sentences-talks", "en-fr", "train"): [
            {"english": text, "non_english": f"En français : {text}"} for text in models.SENTENCES
        ],
        ("nq_open", "nq_open", "train"): [
            {"question": f"{text} Number {i}?", "answer": ["yes"]} for i, text in enumerate(models.SENTENCES * 85)
        ],
    }


def scored_pairs() -> list[tuple[str, str, float]]:
    """Pairs of sentences with the share of words they have in common."""
    chosen = random.Random(0)
    pairs = [(a, " ".join(chosen.sample(a.split() + b.split(), 8))) for a in models.SENTENCES for b in models.SENTENCES]
    return [(a, b, len(set(a.split()) & set(b.split())) / 8) for a, b in pairs][:24]


def put_rows(home: Path, name: str, splits: dict[str, Rows], config: str = "default") -> None:
    """Write a data set into the cache of `datasets`, as if it had been loaded before."""
    from datasets import Dataset, DatasetInfo, SplitDict, SplitInfo
    from datasets.arrow_writer import ArrowWriter

    *organisation, short = name.split("/")
    snake = re.sub(r"([a-z\d])([A-Z])", r"\1_\2", re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1_\2", short)).lower()
    folder = home / "datasets" / "___".join([*organisation, snake]) / config / "0.0.0" / COMMIT
    folder.mkdir(parents=True)
    sizes = SplitDict(dataset_name=snake)
    features = None
    for split, rows in splits.items():
        data = Dataset.from_list(rows, features=features)
        features = data.features
        with ArrowWriter(path=str(folder / f"{snake}-{split}.arrow"), features=features) as writer:
            writer.write_table(data.data.table)
            writer.finalize()
        sizes.add(SplitInfo(name=split, num_examples=len(rows), dataset_name=snake))
    info = DatasetInfo(features=features, splits=sizes, config_name=config, dataset_name=snake, version="0.0.0")
    info.write_to_directory(str(folder))
