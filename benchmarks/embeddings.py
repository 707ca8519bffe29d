"""Embeddings for the search workloads, made once and kept: both libraries then search the same numbers.

The first 50,000 glosses of the seeded order are the documents, the next 100 the queries, encoded by this library with
the SPLADE of `texts.splade`. One .npz file: for "queries" and "documents" the CSR arrays `starts` (N + 1,), `terms` and
`values`, and `dimension`.

`python -m benchmarks.embeddings` makes the file and prints what is in it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks import texts

DOCUMENTS, QUERIES = 50_000, 100
FILE = "splade-glosses.npz"
LARGE = 1_000_000
"""Vectors of the large index."""


def sparse_glosses() -> Path:
    """The file of the embeddings; encoded at the first call, which takes some minutes."""
    file = texts.cache_folder() / FILE
    if not file.is_file():
        print("encoding glosses with SPLADE, once", flush=True)
        arrays = encode_glosses()
        draft = file.with_name(f"draft-{FILE}")
        np.savez(draft, **arrays)
        draft.replace(file)
    return file


def mixtures(count: int, queries: int = 100) -> Path:
    """A file of `queries` + `count` unit vectors: real embeddings of `precisions`, then sums of two of them each.

    The first `queries` rows are the real embeddings of queries, the others mix two real documents in random shares.
    """
    from benchmarks.precisions import embeddings

    file = texts.cache_folder() / f"mixtures-{count}.npy"
    if not file.is_file():
        real, chance = embeddings(), np.random.default_rng(20)
        draft = file.with_name(f"draft-{file.name}")
        shape = (queries + count, real["documents"].shape[1])
        rows = np.lib.format.open_memmap(draft, mode="w+", dtype=np.float32, shape=shape)
        rows[:queries] = real["queries"][:queries]
        for start in range(queries, len(rows), 10_000):
            size = min(10_000, len(rows) - start)
            first, second = (real["documents"][chance.integers(len(real["documents"]), size=size)] for _ in range(2))
            share = chance.random((size, 1), np.float32)
            mixed = share * first + (1 - share) * second
            rows[start : start + size] = mixed / np.linalg.norm(mixed, axis=1, keepdims=True)
        rows.flush()
        draft.replace(file)
    return file


def large_index(precision: str = "binary", rescore: str | None = "float32") -> Path:
    """A folder with an `Index` of a million vectors around 5,000 centres, the vectors as .npy, and a query."""
    folder = texts.cache_folder() / f"index-{precision}"
    if not (folder / "query.npy").is_file():
        from sentence_transformers import Index

        print(f"making an index of {LARGE:,} vectors, once", flush=True)
        index = Index(dimension=384, precision=precision, rescore=rescore)
        index.save(folder)
        vectors = np.lib.format.open_memmap(folder / "vectors.npy", "w+", np.float32, (LARGE, 384))
        centres = np.random.default_rng(0).normal(size=(5000, 384)).astype(np.float32)
        for start in range(0, LARGE, LARGE // 10):
            random = np.random.default_rng(start + 1)
            part = centres[random.integers(5000, size=LARGE // 10)]
            part += 0.7 * random.normal(size=part.shape).astype(np.float32)
            vectors[start : start + len(part)] = part
            index.add([f"text {start + row}" for row in range(len(part))], embeddings=part)
        index.compact()
        index.close()
        np.save(folder / "query.npy", vectors[LARGE // 3] + centres[7] / 2)
    return folder


def encode_glosses() -> dict[str, np.ndarray]:
    """The CSR arrays of documents and queries."""
    from benchmarks.workloads import gloss_texts
    from sentence_transformers import SparseEncoder

    model = SparseEncoder(str(texts.splade()), device="cpu")
    glosses = gloss_texts(DOCUMENTS + QUERIES)
    parts = {"documents": glosses[:DOCUMENTS], "queries": glosses[DOCUMENTS:]}
    arrays: dict[str, np.ndarray] = {}
    for name, part in parts.items():
        rows = model.encode(part, show_progress_bar=False).coalesce()
        numbers, terms = rows.indices().numpy()
        starts = np.searchsorted(numbers, np.arange(len(part) + 1))
        arrays |= {f"{name}.starts": starts, f"{name}.terms": terms.astype(np.int32)}
        arrays |= {f"{name}.values": rows.values().numpy(), "dimension": np.array(rows.shape[1])}
    return arrays


if __name__ == "__main__":
    with np.load(sparse_glosses()) as content:
        for part in ("queries", "documents"):
            count, stored = len(content[f"{part}.starts"]) - 1, len(content[f"{part}.values"])
            print(f"{count:,} {part} with {stored / count:.1f} of {int(content['dimension']):,} dimensions each")
