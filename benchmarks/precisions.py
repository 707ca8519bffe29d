"""What quantised embeddings keep, on real text with real weights: `python -m benchmarks.precisions`.

Documents are 20,000 definitions of WordNet, queries 1,000 examples of use, each with the words of its meaning; the one
relevant document is the definition of that meaning. Embedded by all-MiniLM-L6-v2 (384 dimensions). Each precision is
searched by `search_quantized`; ranges come from 2,000 of the documents.

    recall@10   share of the ten best by exact float search that are among the ten best
    nDCG@10     by the relevant document

The table goes to PRECISIONS.md beside this file. Embeddings are kept in the cache folder of `texts`.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import texts
from benchmarks.worker import model_folder

DOCUMENTS, QUERIES, CALIBRATION, TOP = 20_000, 1_000, 2_000, 10
FILE = "minilm-definitions.npz"
RESULT = Path(__file__).with_name("PRECISIONS.md")


class Row(NamedTuple):
    """A line of the table: how to search, and the bytes of a document in memory while doing it."""

    precision: str
    bytes: int
    rescored_by: str
    options: dict[str, Any]


def rows(dimension: int, on_disk: dict[str, np.ndarray]) -> list[Row]:
    """The precisions and ways of rescoring that are compared."""
    found = [Row("float32", 4 * dimension, "", {"rescore": False})]
    found += [Row("int8", dimension, "", {"rescore": False}), Row("int8", dimension, "the same bytes", {})]
    found.append(Row("ubinary", dimension // 8, "", {"rescore": False}))
    found += [
        Row("ubinary", dimension // 8, f"{name}, {factor} candidates per result", {**options, **multiplier})
        for name, options in (
            ("the same bits", {}),
            ("int8 on disk", {"originals": on_disk["int8"]}),
            ("float32 on disk", {"originals": on_disk["float32"]}),
        )
        for factor in (2, 4, 10, 20)
        for multiplier in ({"rescore_multiplier": factor},)
    ]
    return found


def embeddings() -> dict[str, np.ndarray]:
    """Unit vectors "documents" and "queries", and "relevant": the document of each query. Encoded at the first call."""
    file = texts.cache_folder() / FILE
    if not file.is_file():
        print("encoding definitions with all-MiniLM-L6-v2, once", flush=True)
        draft = file.with_name(f"draft-{FILE}")
        np.savez(draft, **encode())
        draft.replace(file)
    with np.load(file) as arrays:
        return dict(arrays)


def encode() -> dict[str, np.ndarray]:
    """The arrays of `embeddings`."""
    from sentence_transformers import SentenceTransformer

    synsets = list({one.definition: one for one in texts.synsets()}.values())
    random.Random(20).shuffle(synsets)
    synsets = synsets[:DOCUMENTS]
    asked = [number for number, one in enumerate(synsets) if one.examples][:QUERIES]
    questions = [f"{', '.join(synsets[number].words)}: {synsets[number].examples[0]}" for number in asked]
    model = SentenceTransformer(str(model_folder()), device="cpu")
    return {
        "documents": model.encode([one.definition for one in synsets], normalize_embeddings=True),
        "queries": model.encode(questions, normalize_embeddings=True),
        "relevant": np.array(asked),
    }


def measure(arrays: dict[str, np.ndarray]) -> list[list[str]]:
    """The cells of the table."""
    from sentence_transformers import quantize_embeddings
    from sentence_transformers.search.quantized_search import Codes, search_quantized

    documents, queries, relevant = arrays["documents"], arrays["queries"], arrays["relevant"]
    sample = documents[:CALIBRATION]
    ranges = np.stack([sample.min(0), sample.max(0)])
    codes = {name: quantize_embeddings(documents, name, ranges=ranges) for name in ("float32", "int8", "ubinary")}
    int8 = Codes(codes["int8"], "int8", documents.shape[1], ranges).dequantized(np.arange(len(documents)))
    exact = search_quantized(queries, documents, "float32", TOP)[1]
    best = ndcg(exact, relevant)
    table = []
    for row in rows(documents.shape[1], {"int8": int8, "float32": documents}):
        ids = search_quantized(queries, codes[row.precision], row.precision, TOP, ranges=ranges, **row.options)[1]
        recall = np.mean([len({*a} & {*b}) / TOP for a, b in zip(ids.tolist(), exact.tolist(), strict=True)])
        gain = ndcg(ids, relevant)
        cells = [row.precision, str(row.bytes), row.rescored_by or "–"]
        table.append([*cells, f"{recall:.3f}", f"{gain:.4f}", f"{gain / best:.1%}"])
    return table


def ndcg(ids: np.ndarray, relevant: np.ndarray) -> float:
    """Mean nDCG of results (Q, 10) with one relevant document (Q,) each: 1 / log2(1 + its rank)."""
    found = ids == relevant[:, None]
    return float((found / np.log2(np.arange(2, ids.shape[1] + 2))).sum(1).mean())


def main() -> None:
    """Measure and write the table."""
    head = ["precision", "bytes a vector", "rescored by", "recall@10 of float32", "nDCG@10", "of float32's nDCG"]
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *measure(embeddings()))]
    intro = "\n".join(["# What quantised embeddings keep", "", "Made by `python -m benchmarks.precisions`:"])
    what = __doc__.split("\n\n", 1)[1].rsplit("\n\n", 1)[0]
    RESULT.write_text("\n".join([intro, "", what, "", *lines]) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
