"""Search in quantised embeddings, exact in whole numbers, without any further library.

Documents are codes as `quantize_embeddings` makes them; queries stay float. Two steps:

1. *Find* `top_k * rescore_multiplier` candidates by whole numbers, over all documents, block by block:

       binary, ubinary   H − 2 · Hamming distance = Σ sign(q) sign(d)
       int8, uint8       Σ w c,  w = q · step in 8 bits,  c the codes: qᵀd but for a constant and the rounding of w

2. *Rescore* them by the float query and the dequantised document (±1 for bits; low + (code + ½) · step for bytes), or
   by `originals`: float documents, usually a memory-mapped file, of which only the rows of the candidates are read.
   Bits have a sieve before that, as memory is cheaper to read than a disk: `SIEVE` times as many are found, and those
   are read whose bits fit the float query best.

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
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from sentence_transformers.errors import InputError
from sentence_transformers.quantization import PRECISIONS, Precision, to_numpy
from sentence_transformers.search.blocks import Product, best_documents, best_of_blocks
from sentence_transformers.search.topk import Best, merge
from sentence_transformers.similarity import cos_sim, dot_score
from sentence_transformers.util.tensor import ArrayLike, to_tensor

FEW_QUERIES = 8
"""Up to so many queries, counting bits is quicker than unpacking and multiplying them."""
BLOCK = 2**20
"""Scores held at once, at most; also values of candidates that are rescored at once."""
WORDS_AT_ONCE = 2**17
"""Words of 64 bits that one thread counts before it adds them up: what the cache holds."""
SIEVE = 10
"""Candidates by Hamming distance for each one whose original is read."""
SAMPLE = 16
"""One of so many distances tells about all."""
LEAST_DOCUMENTS, MOST_DOCUMENTS = 2048, 65536
"""Documents of one block."""
SIGNS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1) * np.float32(2) - 1
"""The ±1 that each byte of bits stands for."""
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
    wanted = min(top_k * rescore_multiplier, len(documents)) if rescore else top_k
    sieved = rescore and originals is not None and codes.packed
    values, ids = codes.find(queries, min(wanted * SIEVE, len(documents)) if sieved else wanted)
    if sieved:
        ids = rescored(queries, ids, codes.dequantized, "dot")[1][:, :wanted]
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
        signs = np.packbits(queries > 0, axis=1) ^ self.shift  # the codes are read as they are stored
        threads = torch.get_num_threads()
        best: list[Best | None] = [None] * len(queries)
        with ThreadPoolExecutor(threads) as pool:
            count = BitCounts(pool, threads)
            for start in range(0, len(self.documents), BLOCK):
                documents = np.ascontiguousarray(self.documents[start : start + BLOCK]).view(np.uint8)
                for row in range(len(queries)):
                    (distances,) = count(signs[row : row + 1], documents)
                    ids = nearest(distances, k)
                    found = torch.from_numpy(-distances[ids])[None], torch.from_numpy(ids + start)[None]
                    best[row] = merge(best[row], found, k)
        values, ids = (torch.cat(rows).numpy() for rows in zip(*filter(None, best), strict=True))
        return self.dimension + 2.0 * values, ids

    @property
    def shift(self) -> np.uint8:
        """The highest bit, if it is turned in all bytes: their sign is."""
        return np.uint8(128 if self.precision in ("binary", "uint8") else 0)

    def blocks(self, size: int) -> Iterator[tuple[int, np.ndarray]]:
        """The documents in blocks of `size` rows: uint8 for bits, int8 for bytes, whatever the sign they are stored
        with; each with the number of its first row.
        """
        for start in range(0, len(self.documents), size):
            block = np.ascontiguousarray(self.documents[start : start + size]).view(np.uint8)
            block = block ^ self.shift if self.shift else block
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
            return signs(codes, self.dimension)
        low, step = self.scale
        return low + (codes + np.float32(0.5)) * step


def signs(bits: np.ndarray, dimension: int) -> np.ndarray:
    """Bits uint8 (n, ⌈H/8⌉) as ±1, float32 (n, H)."""
    return SIGNS.take(bits, axis=0).reshape(len(bits), -1)[:, :dimension]


@dataclass(frozen=True)
class BitCounts:
    """Hamming distances of bits (q, B) and (n, B), as int16 (q, n); threads share the documents."""

    pool: ThreadPoolExecutor
    threads: int

    def __call__(self, queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
        words = pad(documents, 16).view(np.uint64)
        distances = np.empty((len(queries), len(words)), np.int16)
        cuts = np.linspace(0, len(words), self.threads + 1).astype(int)
        parts = [slice(begin, end) for begin, end in pairwise(cuts)]
        for query, row in zip(pad(queries, 16).view(np.uint64), distances, strict=True):
            many = np.tile(query, (max(1, WORDS_AT_ONCE // len(query)), 1))
            for _ in self.pool.map(lambda part, many=many, row=row: count_bits(many, words[part], row[part]), parts):
                pass
        return distances


def count_bits(query: np.ndarray, documents: np.ndarray, distances: np.ndarray) -> None:
    """Write the Hamming distances of documents (n, W) to `distances` (n,).

    Args:
        query: the same one many times, (step, W); so many documents are compared with it at once.
    """
    mixed, counts = np.empty(query.shape, np.uint64), np.empty(query.shape, np.uint8)
    for start in range(0, len(documents), len(query)):
        block = documents[start : start + len(query)]
        size = len(block)
        np.bitwise_xor(block, query[:size], out=mixed[:size])
        np.bitwise_count(mixed[:size], out=counts[:size])
        sum_rows(counts[:size], distances[start : start + size])


def sum_rows(counts: np.ndarray, totals: np.ndarray) -> None:
    """Write the sums of rows of an even number of counts (n, W), uint8 up to 64, to `totals` (n,), int16.

    Neighbours are added as the halves of one uint16, three at a time: 3 · 64 fits into a half.
    """
    pairs = counts.view(np.uint16)
    for first in range(0, pairs.shape[1], 3):
        some = pairs[:, first].copy()
        for column in range(first + 1, min(first + 3, pairs.shape[1])):
            some += pairs[:, column]
        np.add(some & 255, some >> 8, out=some)
        np.add(some.view(np.int16), totals if first else np.int16(0), out=totals)


def nearest(distances: np.ndarray, k: int) -> np.ndarray:
    """The k least of whole distances (n,), equal ones by place: their places, int64 (min(k, n),).

    What is at most as far as half as many again as wanted, by a sample, is sorted; should that be too few, then what
    is at most as far as the k-th by counting all.
    """
    k = min(k, len(distances))
    places = within(distances, distances[::SAMPLE], 1.5 * k / SAMPLE + 4)
    if len(places) < k:
        places = within(distances, distances, k)
    return places[distances[places].argsort(kind="stable")][:k]


def within(distances: np.ndarray, some: np.ndarray, count: float) -> np.ndarray:
    """Places of the distances that are not above the least one up to which there are `count` of `some`."""
    return np.flatnonzero(distances <= np.searchsorted(np.bincount(some).cumsum(), count))


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
        scores = np.einsum("qch,qh->qc", documents, some)
        if similarity == "cosine":
            lengths = np.linalg.norm(some, axis=1)[:, None] * np.linalg.norm(documents, axis=2)
            scores /= lengths.clip(1e-12)
        values[start : start + step] = scores
    order = np.lexsort((ids, -values))
    return np.take_along_axis(values, order, 1), np.take_along_axis(ids, order, 1)


def check_queries(queries: ArrayLike) -> np.ndarray:
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
