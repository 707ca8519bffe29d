"""Search in quantised embeddings, exact in whole numbers, without any further library.

Documents are codes as `quantize_embeddings` makes them; queries stay float. Two steps:

1. *Find* `top_k * rescore_multiplier` candidates by whole numbers, over all documents, block by block:

       binary, ubinary   H − 2 · Hamming distance = Σ sign(q) sign(d)
       int8, uint8       Σ w c,  w = q · step in 8 bits,  c the codes: qᵀd but for a constant and the rounding of w

2. *Rescore* them by the float query and the dequantised document (±1 for bits; low + (code + ½) · step for bytes), or
   by `originals`: float documents, usually a memory-mapped file, of which only the rows of the candidates are read.

Hamming distances of a few queries are counted with XOR and popcount; for more of them the bits of each block are
unpacked to 0 and 1 and multiplied as int8, which a processor does at 256 and more bits at a time. Documents may be
memory-mapped: they are read once, in order, and at most one block of scores is held.

Paper on rescoring of binary codes: https://arxiv.org/abs/2106.00882 (Yamada et al., 2021).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from sentence_transformers.errors import InputError
from sentence_transformers.search.best import order
from sentence_transformers.search.blocks import Product, best_documents, best_of_blocks
from sentence_transformers.search.quantization import PRECISIONS, Precision, to_numpy
from sentence_transformers.similarity import cos_sim, dot_score
from sentence_transformers.util.tensor import to_tensor

FEW_QUERIES = 8
"""Up to so many queries, counting bits is quicker than unpacking and multiplying them."""
BLOCK = 2**20
"""Scores held at once, at most; also values of candidates that are rescored at once."""
WORDS_AT_ONCE = 2**15
"""Words of 64 bits that one thread counts before it adds them up: what the cache holds."""
LEAST_DOCUMENTS, MOST_DOCUMENTS = 2048, 65536
"""Documents of one block."""
DTYPES = {"float32": np.float32, "int8": np.int8, "uint8": np.uint8, "binary": np.int8, "ubinary": np.uint8}


def search_quantized(
    queries: np.ndarray | Tensor,
    documents: np.ndarray,
    precision: Precision,
    top_k: int = 10,
    *,
    ranges: np.ndarray | None = None,
    rescore: bool = True,
    rescore_multiplier: int = 4,
    similarity: Literal["dot", "cosine"] = "dot",
    originals: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The best documents of each query; the steps and formulas stand at the top of this module.

    Args:
        queries: float of shape (Q, H), or (H,) for one query.
        documents: (N, H) int8, uint8 or float32, or (N, ⌈H/8⌉) for "binary" (int8) and "ubinary" (uint8); also
            memory-mapped.
        precision: of the documents. With "float32" there is one exact step.
        ranges: (2, H), the ranges that the bytes were made with; without them the codes themselves (+ ½) are the
            values of the documents.
        rescore: whether to take the second step; without it the scores are those of the first.
        rescore_multiplier: candidates per result, at least 1.
        similarity: "dot", or "cosine": the dot product over the lengths of the query and of the (dequantised) document.
            Bits and bytes are *found* by the dot product in both cases, so documents should have about one length.
        originals: (N, H) float, the documents before they were quantised, to rescore with.

    Returns:
        scores: float32 of shape (Q, min(top_k, N)), best first; equal scores by id.
        ids: int64 of the same shape, rows of `documents`.

    Raises:
        InputError: if type or shape of the documents does not fit precision and queries, a query is quantised or holds
            NaN or infinity, or a number is out of range.
    """
    queries = check_queries(queries)
    check(queries, documents, precision, top_k, ranges, rescore_multiplier, similarity, originals)
    top_k = min(top_k, len(documents))
    if not len(queries) or not top_k:
        return np.zeros((len(queries), top_k), np.float32), np.zeros((len(queries), top_k), np.int64)
    if precision == "float32":
        measure = cos_sim if similarity == "cosine" else dot_score
        best = best_documents(torch.from_numpy(queries), documents, top_k, measure, 1024, MOST_DOCUMENTS)
        return best[0].float().numpy(), best[1].numpy()
    codes = Codes(documents, precision, queries.shape[1], ranges)
    values, ids = codes.find(queries, min(top_k * rescore_multiplier, len(documents)) if rescore else top_k)
    if rescore:
        read = codes.dequantized if originals is None else lambda rows: np.asarray(originals[rows], np.float32)
        values, ids = rescored(queries, ids, read, similarity)
    return values[:, :top_k].astype(np.float32), ids[:, :top_k]


@dataclass(frozen=True, eq=False)
class Codes:
    """Quantised documents: how to find the best of them, and how to read them as float.

    Args:
        documents, precision, ranges: as in `search_quantized`.
        dimension: H.
    """

    documents: np.ndarray
    precision: Precision
    dimension: int
    ranges: np.ndarray | None = None

    @property
    def packed(self) -> bool:
        """Whether eight dimensions share a byte."""
        return self.precision in ("binary", "ubinary")

    def find(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Scores of the first step (float) and ids, both of shape (Q, k), best first."""
        if not self.packed:
            return self._find_bytes(queries, k)
        if len(queries) <= FEW_QUERIES:
            return self._find_by_counting(queries, k)
        signs = np.where(queries > 0, 1, -1).astype(np.int8)
        values, ids = self._find_by_product(signs, lambda block: np.unpackbits(block, axis=1), k)
        return 2 * values - signs.sum(1, dtype=np.int64)[:, None], ids  # q · (2b - 1) of the bits b

    def _find_bytes(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Codes times weights of one byte each."""
        low, step = self.scale
        weights = queries * step
        units = np.abs(weights).max(1, keepdims=True).clip(1e-30) / 127
        values, ids = self._find_by_product(np.rint(weights / units).astype(np.int8), lambda block: block, k)
        return values * units + (queries @ (low + 128.5 * step))[:, None], ids

    def _find_by_product(
        self, weights: np.ndarray, unpack: Callable[[np.ndarray], np.ndarray], k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Products of int8 weights (Q, H) with documents as int8 (n, H), summed in int32."""
        step = max(1, BLOCK // LEAST_DOCUMENTS)
        queries = [(n, torch.from_numpy(pad(weights[n : n + step]))) for n in range(0, len(weights), step)]
        size = min(MOST_DOCUMENTS, BLOCK // min(step, len(weights)))
        documents = ((n, to_tensor(pad(unpack(block)).view(np.int8))) for n, block in self.blocks(size))
        values, ids = best_of_blocks(lambda: queries, documents, k, Product())
        return values.double().numpy(), ids.numpy()

    def _find_by_counting(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Hamming distances of few queries."""
        signs = np.packbits(queries > 0, axis=1)
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            score = BitCounts(pool, torch.get_num_threads())
            values, ids = best_of_blocks(lambda: [(0, signs)], self.blocks(MOST_DOCUMENTS), k, score)
        return self.dimension + 2.0 * values.numpy(), ids.numpy()

    def blocks(self, size: int) -> Iterator[tuple[int, np.ndarray]]:
        """The documents in blocks of `size` rows: uint8 for bits, int8 for bytes, whatever the sign they are stored
        with; each with the number of its first row.
        """
        shift = np.uint8(128 if self.precision in ("binary", "uint8") else 0)
        for start in range(0, len(self.documents), size):
            block = np.ascontiguousarray(self.documents[start : start + size]).view(np.uint8)
            block = block ^ shift if shift else block  # the highest bit: minus 128
            yield start, block if self.packed else block.view(np.int8)

    @property
    def scale(self) -> tuple[np.ndarray, np.ndarray]:
        """Least value and step of each dimension: value = low + (code + ½) · step, codes from 0 to 255."""
        if self.ranges is None:
            return np.full(self.dimension, -128, np.float32), np.ones(self.dimension, np.float32)
        low, high = np.asarray(self.ranges, np.float32)
        return low, (high - low) / 255

    def dequantized(self, ids: np.ndarray) -> np.ndarray:
        """The documents `ids` (n,) as float32 (n, H)."""
        codes = self.documents[ids].view(np.uint8)
        codes = codes ^ np.uint8(128) if self.precision in ("binary", "int8") else codes
        if self.packed:
            return np.unpackbits(codes, axis=1, count=self.dimension) * np.float32(2) - 1
        low, step = self.scale
        return low + (codes + np.float32(0.5)) * step


@dataclass(frozen=True)
class BitCounts:
    """Minus the Hamming distances of bits (q, B) and (n, B), as whole numbers (q, n); threads share the documents."""

    pool: ThreadPoolExecutor
    threads: int

    def __call__(self, queries: np.ndarray, documents: np.ndarray) -> Tensor:
        scores = np.empty((len(queries), len(documents)), np.int32)
        cuts = np.linspace(0, len(documents), self.threads + 1).astype(int)
        parts = [slice(begin, end) for begin, end in pairwise(cuts)]
        for _ in self.pool.map(lambda part: count_bits(queries, documents[part], scores[:, part]), parts):
            pass
        return torch.from_numpy(scores)


def count_bits(queries: np.ndarray, documents: np.ndarray, scores: np.ndarray) -> None:
    """Write minus the Hamming distances of bits (q, B) and (n, B) to `scores` (q, n)."""
    words = pad(documents, 16).view(np.uint64)
    width = words.shape[1]
    mixed, counts = np.empty(WORDS_AT_ONCE // width * width, np.uint64), np.empty(WORDS_AT_ONCE, np.uint8)
    for query, row in zip(pad(queries, 16).view(np.uint64), scores, strict=True):
        pattern = np.tile(query, WORDS_AT_ONCE // width)
        for start in range(0, len(words), WORDS_AT_ONCE // width):
            block = words[start : start + WORDS_AT_ONCE // width].reshape(-1)
            np.bitwise_xor(block, pattern[: len(block)], out=mixed[: len(block)])
            np.bitwise_count(mixed[: len(block)], out=counts[: len(block)])
            np.negative(sum_rows(counts[: len(block)].reshape(-1, width)), out=row[start : start + len(block) // width])


def sum_rows(counts: np.ndarray) -> np.ndarray:
    """Sums of rows of an even number of counts, uint8 up to 64, as int32 (n,).

    Neighbours are added as the halves of one uint16, three at a time: 3 · 64 fits into a half.
    """
    pairs = counts.view(np.uint16)
    total = np.zeros(len(counts), np.int32)
    for first in range(0, pairs.shape[1], 3):
        some = pairs[:, first].copy()
        for column in range(first + 1, min(first + 3, pairs.shape[1])):
            some += pairs[:, column]
        total += (some & 255) + (some >> 8)
    return total


def pad(rows: np.ndarray, multiple: int = 8) -> np.ndarray:
    """Rows with zeros at the end, so that their length is a multiple of `multiple`; as they are if it is already."""
    missing = -rows.shape[1] % multiple
    return np.pad(rows, ((0, 0), (0, missing))) if missing else np.ascontiguousarray(rows)


def rescored(
    queries: np.ndarray, ids: np.ndarray, read: Callable[[np.ndarray], np.ndarray], similarity: str
) -> tuple[np.ndarray, np.ndarray]:
    """The same ids (Q, C), ordered by the float query and the documents that `read` gives for them; their scores."""
    values = np.empty(ids.shape, np.float32)
    step = max(1, BLOCK // (ids.shape[1] * queries.shape[1]))
    for start in range(0, len(queries), step):
        some = queries[start : start + step]
        documents = read(ids[start : start + step].ravel()).reshape(*ids[start : start + step].shape, -1)
        scores = np.matmul(documents, some[:, :, None])[:, :, 0]
        if similarity == "cosine":
            lengths = np.linalg.norm(some, axis=1)[:, None] * np.linalg.norm(documents, axis=2)
            scores /= lengths.clip(1e-12)
        values[start : start + step] = scores
    best, places = order(torch.from_numpy(values), torch.from_numpy(ids))
    return best.numpy(), places.numpy()


def check_queries(queries: Any) -> np.ndarray:
    """Queries as float32 (Q, H); `InputError` if they are codes, or not finite."""
    array = to_numpy(queries).astype(np.float32)
    if array.ndim not in (1, 2):
        raise InputError(f"`queries` must have shape (Q, H) or (H,), got {array.shape}.")
    array = np.ascontiguousarray(array[None] if array.ndim == 1 else array)
    bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
    if len(bad):
        raise InputError(f"Query {bad[0]} holds NaN or infinity ({len(bad)} of {len(array)} queries do).")
    return array


def check(
    queries: np.ndarray,
    documents: np.ndarray,
    precision: str,
    top_k: int,
    ranges: np.ndarray | None,
    rescore_multiplier: int,
    similarity: str,
    originals: np.ndarray | None,
) -> None:
    """`InputError` for whatever `search_quantized` cannot use."""
    if precision not in PRECISIONS:
        raise InputError(f"Precision {precision!r} is not supported. Choose one of {', '.join(PRECISIONS)}.")
    if similarity not in ("dot", "cosine"):
        raise InputError(f'`similarity` must be "dot" or "cosine", got {similarity!r}.')
    for name, value in (("top_k", top_k), ("rescore_multiplier", rescore_multiplier)):
        if value < 1:
            raise InputError(f"`{name}` must be at least 1, got {value}.")
    dimension = queries.shape[1]
    width = -(-dimension // 8) if precision in ("binary", "ubinary") else dimension
    if documents.ndim != 2 or documents.dtype != DTYPES[precision] or documents.shape[1] != width:
        raise InputError(
            f"Documents of precision {precision!r} for queries of dimension {dimension} must be "
            f"{np.dtype(DTYPES[precision])} of shape (N, {width}), got {documents.dtype} of shape {documents.shape}. "
            "Were both made by the same model, and is this the precision they were quantised with?"
        )
    if ranges is not None and np.shape(ranges) != (2, dimension):
        raise InputError(f"`ranges` must have shape (2, {dimension}), got {np.shape(ranges)}.")
    if originals is not None and originals.shape != (len(documents), dimension):
        raise InputError(f"`originals` must have shape {(len(documents), dimension)}, got {originals.shape}.")
