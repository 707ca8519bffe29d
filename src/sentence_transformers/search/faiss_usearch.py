"""Search in float or quantised embeddings with faiss or usearch, exact or approximate (HNSW graphs).

    corpus_precision   faiss                      usearch
    float32            inner product              cosine distance
    int8               –                          inner product of codes (as 1 − product)
    uint8              inner product of codes     –
    binary             –                          Hamming distance
    ubinary            Hamming distance           Hamming distance

Documents come quantised; float queries are quantised likewise to find candidates. *Rescoring* then orders
`top_k * rescore_multiplier` of them by the inner product of the float query with the dequantised document:
low + code · step for bytes (codes from 0 to 255), 0 and 1 for bits. Without it, scores are what the library measures.

Products of byte codes are no good measure of alikeness, since each dimension has a range of its own;
`search_quantized` weighs them by it and needs no library. These two functions are here for indexes that exist, and for
approximate search.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sentence_transformers.errors import InputError, MissingExtraError
from sentence_transformers.quantization import as_array, find_ranges, quantize, to_numpy
from sentence_transformers.util.tensor import ArrayLike, check_finite, describe

if TYPE_CHECKING:
    import faiss
    from usearch.index import Index as UsearchIndex

    from sentence_transformers.quantization import Precision

logger = logging.getLogger(__name__)

Results = list[list[dict[str, int | float]]]
Found = tuple[np.ndarray, np.ndarray]
BITS = ("binary", "ubinary")
NEIGHBOURS = 16
"""Links of a document in an HNSW graph."""


def semantic_search_faiss(
    query_embeddings: np.ndarray,
    corpus_embeddings: np.ndarray | None = None,
    corpus_index: faiss.Index | faiss.IndexBinary | None = None,
    corpus_precision: Literal["float32", "uint8", "ubinary"] = "float32",
    top_k: int = 10,
    ranges: np.ndarray | None = None,
    calibration_embeddings: np.ndarray | None = None,
    rescore: bool = True,
    rescore_multiplier: int = 2,
    exact: bool = True,
    output_index: bool = False,
) -> tuple[Results, float] | tuple[Results, float, Any]:
    """Search with faiss; what is measured stands at the top of this module.

    Args:
        query_embeddings: float (Q, H); or quantised like the documents, then there is no rescoring.
        corpus_embeddings: the documents, quantised to `corpus_precision`; not needed with `corpus_index`.
        corpus_index: a faiss index, as an earlier call gave it.
        corpus_precision: "float32", "uint8" or "ubinary".
        top_k: results per query; fewer if there are fewer documents.
        ranges: (2, H), the ranges that the bytes of the documents were made with.
        calibration_embeddings: (M, H), where to take the ranges from if they are not given. If neither is, they come
            from the queries, which is hardly ever right.
        rescore: whether to rescore (quantised documents and float queries only).
        rescore_multiplier: candidates per result.
        exact: compare with all documents, or build a graph (HNSW) and follow it. Matters where an index is built.
        output_index: also return the index.

    Returns:
        (results, seconds) or (results, seconds, index). Results are, for each query, a list of
        {"corpus_id": int, "score": float}, best first. Building the index is not part of the seconds.

    Raises:
        InputError: if there is nothing to search, the precision is unknown, shapes or dtypes do not fit, or a number
            is out of range.
        MissingExtraError: if faiss is not installed.
    """
    check(corpus_precision, ("float32", "uint8", "ubinary"), "faiss", corpus_embeddings, corpus_index, top_k)
    try:
        import faiss
    except ImportError as error:
        raise MissingExtraError("faiss-cpu", "faiss", "semantic_search_faiss") from error
    bits = corpus_precision in BITS
    if corpus_index is None:
        documents = check_codes(corpus_embeddings, corpus_precision)
        dimension = documents.shape[1]
        if bits:
            corpus_index = (
                faiss.IndexBinaryFlat(dimension * 8) if exact else faiss.IndexBinaryHNSW(dimension * 8, NEIGHBOURS)
            )
        elif exact:
            corpus_index = faiss.IndexFlatIP(dimension)
        else:
            corpus_index = faiss.IndexHNSWFlat(dimension, NEIGHBOURS, faiss.METRIC_INNER_PRODUCT)
        corpus_index.add(documents if bits else documents.astype(np.float32))
    width = corpus_index.d // 8 if bits else corpus_index.d

    def find(codes: np.ndarray, k: int) -> Found:
        return corpus_index.search(np.ascontiguousarray(codes if bits else codes.astype(np.float32)), k)

    def read(ids: np.ndarray) -> np.ndarray:
        return np.stack([corpus_index.reconstruct(int(row)) for row in ids])

    queries = Queries(query_embeddings, corpus_precision, width, ranges, calibration_embeddings)
    found = queries.search(find, read, corpus_index.ntotal, top_k, rescore, rescore_multiplier)
    return (*found, corpus_index) if output_index else found


def semantic_search_usearch(
    query_embeddings: np.ndarray,
    corpus_embeddings: np.ndarray | None = None,
    corpus_index: UsearchIndex | None = None,
    corpus_precision: Literal["float32", "int8", "ubinary", "binary"] = "float32",
    top_k: int = 10,
    ranges: np.ndarray | None = None,
    calibration_embeddings: np.ndarray | None = None,
    rescore: bool = True,
    rescore_multiplier: int = 2,
    exact: bool = True,
    output_index: bool = False,
) -> tuple[Results, float] | tuple[Results, float, Any]:
    """Search with usearch. Arguments, results and errors as in `semantic_search_faiss`, but for these:

    Args:
        corpus_index: a `usearch.index.Index`, whose keys are the numbers of the documents.
        corpus_precision: "float32", "int8", "binary" or "ubinary".
        exact: whether to compare with all documents or to follow the graph, which is built in both cases.
    """
    check(corpus_precision, ("float32", "int8", "ubinary", "binary"), "usearch", corpus_embeddings, corpus_index, top_k)
    try:
        from usearch.index import Index
    except ImportError as error:
        raise MissingExtraError("usearch", "usearch", "semantic_search_usearch") from error
    bits = corpus_precision in BITS
    if corpus_index is None:
        documents = check_codes(corpus_embeddings, corpus_precision)
        metric = {"float32": "cos", "int8": "ip"}.get(corpus_precision, "hamming")
        dtype = {"float32": "f32", "int8": "i8"}.get(corpus_precision, "b1")
        corpus_index = Index(ndim=documents.shape[1] * (8 if bits else 1), metric=metric, dtype=dtype)
        corpus_index.add(np.arange(len(documents)), packed_bits(documents, corpus_precision) if bits else documents)
    width = -(-corpus_index.ndim // 8) if bits else corpus_index.ndim

    def find(codes: np.ndarray, k: int) -> Found:
        codes = packed_bits(codes, corpus_precision) if bits else codes
        matches = corpus_index.search(np.ascontiguousarray(codes), k, exact=exact)
        shape = (len(codes), -1)
        return np.reshape(matches.distances, shape), np.reshape(matches.keys, shape).astype(np.int64)

    def read(ids: np.ndarray) -> np.ndarray:
        codes: Any = corpus_index.get(ids)  # an array for each of several keys
        return np.stack(codes)

    queries = Queries(query_embeddings, corpus_precision, width, ranges, calibration_embeddings)
    found = queries.search(find, read, len(corpus_index), top_k, rescore, rescore_multiplier)
    return (*found, corpus_index) if output_index else found


class Queries:
    """Queries in both forms, and the two steps of a search: find, rescore.

    Args:
        embeddings: float (Q, H), or codes (Q, width).
        precision: of the documents.
        width: values or bytes of a document.
        ranges, calibration_embeddings: as in `semantic_search_faiss`.
    """

    def __init__(
        self,
        embeddings: np.ndarray,
        precision: Precision,
        width: int,
        ranges: np.ndarray | None,
        calibration_embeddings: np.ndarray | None,
    ) -> None:
        array = as_array(embeddings)
        if array.ndim != 2:
            raise InputError(f"`query_embeddings` must have shape (Q, H), got {array.shape}.")
        self.precision = precision
        self.floats: np.ndarray | None = None
        if array.dtype in (np.int8, np.uint8):
            self.codes, self.ranges = check_codes(array, precision, "query_embeddings"), ranges
        else:
            self.floats = to_numpy(array).astype(np.float32)
            check_finite(self.floats, "query_embeddings")
            self.ranges = None
            if precision in ("int8", "uint8") and len(array):
                self.ranges = find_ranges([self.floats], precision, ranges, calibration_embeddings)
            self.codes = quantize(self.floats, precision, np.zeros((2, 1)) if self.ranges is None else self.ranges)
        if self.codes.shape[1] != width:
            raise InputError(
                f"Queries and documents do not fit: with {precision!r} the documents have {width} values or bytes, "
                f"the queries {self.codes.shape[1]} (given: {describe(array)} and type {array.dtype}). Were both made "
                "by the same model and quantised alike?"
            )

    def search(
        self,
        find: Callable[[np.ndarray, int], Found],
        read: Callable[[np.ndarray], np.ndarray],
        count: int,
        top_k: int,
        rescore: bool,
        multiplier: int,
    ) -> tuple[Results, float]:
        """Results and seconds.

        Args:
            find: the scores and ids (Q, k) of the k best documents; id -1 where there is none.
            read: the codes of documents.
            count: number of documents.
        """
        if rescore and multiplier < 1:
            raise InputError(f"`rescore_multiplier` must be at least 1, got {multiplier}.")
        rescore = rescore and self.precision != "float32"
        if rescore and self.floats is None:
            logger.warning("Queries are quantised, so there is no rescoring. Pass float queries, or `rescore=False`.")
            rescore = False
        start = time.perf_counter()
        if not len(self.codes) or not count:
            return [[] for _ in self.codes], 0.0
        scores, ids = find(self.codes, min(top_k * (multiplier if rescore else 1), count))
        results = []
        for row, (values, some) in enumerate(zip(scores, ids, strict=True)):
            values, some = values[some >= 0], some[some >= 0]
            if rescore and len(some):
                values, some = self.rescored(row, some, read(some))
            results.append(
                [{"corpus_id": int(i), "score": float(s)} for i, s in zip(some[:top_k], values, strict=False)]
            )
        return results, time.perf_counter() - start

    def rescored(self, row: int, ids: np.ndarray, codes: np.ndarray) -> Found:
        """Scores and ids of candidates by float query `row`, best first; equal scores by id."""
        assert self.floats is not None
        if self.precision in BITS:
            documents = np.unpackbits(codes.view(np.uint8), axis=1, count=self.floats.shape[1]).astype(np.float32)
        else:
            assert self.ranges is not None
            low, high = self.ranges
            shift = 128 if self.precision == "int8" else 0
            documents = low + (codes.astype(np.float32) + shift) * ((high - low) / 255)
        scores = documents @ self.floats[row]
        order = np.lexsort((ids, -scores))
        return scores[order], ids[order]


def packed_bits(codes: np.ndarray, precision: str) -> np.ndarray:
    """Bits as uint8, the form in which indexes hold them ("binary" has 128 taken off)."""
    return codes.view(np.uint8) ^ np.uint8(128 if precision == "binary" else 0)


def check(
    precision: str, known: tuple[str, ...], library: str, documents: ArrayLike | None, index: object, top_k: int
) -> None:
    """`InputError` unless there is something to search, in a precision that the library knows."""
    if documents is None and index is None:
        raise InputError("Either `corpus_embeddings` or `corpus_index` must be given.")
    if precision not in known:
        raise InputError(f"`corpus_precision` must be one of {', '.join(known)} for {library}, got {precision!r}.")
    if top_k < 1:
        raise InputError(f"`top_k` must be at least 1, got {top_k}.")


def check_codes(embeddings: ArrayLike | None, precision: str, name: str = "corpus_embeddings") -> np.ndarray:
    """Documents or queries in the dtype of their precision, (N, width); `InputError` if they are not."""
    array = as_array(embeddings)
    wanted = {"float32": np.float32, "int8": np.int8, "binary": np.int8}.get(precision, np.uint8)
    fits = array.dtype.kind == "f" if precision == "float32" else array.dtype == wanted
    if array.ndim != 2 or not fits:
        raise InputError(
            f"`{name}` of precision {precision!r} must be {np.dtype(wanted)} of shape (N, …), got {array.dtype} of "
            f"shape {array.shape}. Quantise them first: quantize_embeddings(embeddings, {precision!r})."
        )
    check_finite(array, name)
    return np.ascontiguousarray(array.astype(wanted, copy=False))
