"""Hard negatives: for each (query, positive) pair of a data set, documents that look relevant and are not.

    candidates of a query    the documents nearest to it, without its own positives, from rank range_min to range_max
    kept                     those not above max_score, not below min_score, and below the query's worst positive by a
                             margin:  s < p − absolute_margin,  s < p − |p| · relative_margin
    chosen                   the first num_negatives of them, or that many at random

Embeddings are scaled to length 1 and compared by the model's own similarity, so that limits and margins mean the same
for models of cosine and of dot products. Queries go through the search in blocks (`search.blocks`), and only the
nearest documents of each are held. A cross-encoder may score the candidates anew before they are chosen.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from sentence_transformers._deprecation import deprecated
from sentence_transformers.errors import InputError, MissingExtraError
from sentence_transformers.protocols import Reranker
from sentence_transformers.search.blocks import as_source, best_documents
from sentence_transformers.similarity import cos_sim, dot_score, named_function, pairwise_cos_sim
from sentence_transformers.storage.fingerprint import of_model
from sentence_transformers.util.atomic import replacing
from sentence_transformers.util.misc import column_values, similarity_fct_name
from sentence_transformers.util.tensor import to_tensor

if TYPE_CHECKING:
    from datasets import Dataset

    from sentence_transformers.encoders.sentence_transformer import SentenceTransformer

logger = logging.getLogger(__name__)

FORMATS = ("triplet", "n-tuple", "labeled-pair", "labeled-list")
QUERY_BLOCK, DOCUMENT_BLOCK = 512, 65536


@dataclass(frozen=True)
class Rules:
    """Which candidates may be negatives, and how many of them are taken."""

    range_min: int
    range_max: int
    max_score: float | None
    min_score: float | None
    absolute_margin: float | None
    relative_margin: float | None
    num_negatives: int
    sampling_strategy: str

    def __post_init__(self) -> None:
        if self.num_negatives < 1:
            raise InputError(f"num_negatives must be at least 1, got {self.num_negatives}.")
        if self.range_min < 0 or self.range_max <= self.range_min:
            raise InputError(f"range_max={self.range_max} must be greater than range_min={self.range_min}, which must "
                             "be at least 0.")  # fmt: skip
        if self.range_max - self.range_min < self.num_negatives:
            raise InputError(
                f"num_negatives={self.num_negatives} cannot be found: the ranks from range_min={self.range_min} to "
                f"range_max={self.range_max} are only {self.range_max - self.range_min} candidates. Decrease "
                "num_negatives or range_min, or increase range_max."
            )
        if self.sampling_strategy not in ("random", "top"):
            raise InputError(f"sampling_strategy must be 'random' or 'top', got {self.sampling_strategy!r}.")


@dataclass
class Found:
    """Candidates of Q queries, by falling score: documents and scores of shape (Q, K); `mask` tells which there are."""

    documents: np.ndarray
    scores: np.ndarray
    mask: np.ndarray


@dataclass
class Pairs:
    """The data set's pairs: M positives in the order of their queries.

    Attributes:
        queries: the distinct queries.
        texts: the distinct documents, the candidates.
        query_of: (M,) number of each pair's query, rising.
        document_of: (M,) number of each pair's positive among `texts`.
    """

    queries: list[str]
    texts: list[str]
    query_of: np.ndarray
    document_of: np.ndarray

    @classmethod
    def of(cls, anchors: list[str], positives: list[str], corpus: list[str] | None) -> Pairs:
        queries = list(dict.fromkeys(anchors))
        texts = list(dict.fromkeys([*(corpus or []), *positives]))
        query_number = {text: i for i, text in enumerate(queries)}
        text_number = {text: i for i, text in enumerate(texts)}
        distinct = list(dict.fromkeys(zip(anchors, positives, strict=True)))
        query_of = np.array([query_number[a] for a, _ in distinct])
        order = np.argsort(query_of, kind="stable")
        document_of = np.array([text_number[p] for _, p in distinct])
        return cls(queries, texts, query_of[order], document_of[order])


def mine_hard_negatives(
    dataset: Dataset,
    model: SentenceTransformer,
    anchor_column_name: str | None = None,
    positive_column_name: str | None = None,
    corpus: list[str] | None = None,
    cross_encoder: Reranker | None = None,
    range_min: int = 0,
    range_max: int | None = None,
    max_score: float | None = None,
    min_score: float | None = None,
    absolute_margin: float | None = None,
    relative_margin: float | None = None,
    num_negatives: int = 3,
    sampling_strategy: Literal["random", "top"] = "top",
    query_prompt_name: str | None = None,
    query_prompt: str | None = None,
    corpus_prompt_name: str | None = None,
    corpus_prompt: str | None = None,
    include_positives: bool = False,
    output_format: Literal["triplet", "n-tuple", "labeled-pair", "labeled-list"] = "triplet",
    output_scores: bool = False,
    batch_size: int = 32,
    faiss_batch_size: int = 16384,
    use_faiss: bool = False,
    use_multi_process: list[str] | bool = False,
    verbose: bool = True,
    cache_folder: str | None = None,
    as_triplets: bool | None = None,
    margin: float | None = None,
) -> Any:
    """Add hard negatives to a data set of (query, positive) pairs.

    Args:
        dataset: a `Dataset`. A query with several positives is given in several rows.
        model: embeds queries and documents.
        anchor_column_name, positive_column_name: the columns; default: the first two.
        corpus: candidates besides the positives.
        cross_encoder: scores positives and candidates anew.
        range_min, range_max: ranks of the candidates, the query's own positives left out (so many as the query with
            the most positives has are looked at in addition); by default just as many as are wanted, ten times as many
            where a limit of scores or a margin is set.
        max_score, min_score: scores that negatives may have.
        absolute_margin, relative_margin: how far below the query's worst positive negatives must lie.
        num_negatives: negatives per pair.
        sampling_strategy: "top" takes the nearest, "random" any (seeded by `torch.manual_seed`).
        query_prompt_name, query_prompt, corpus_prompt_name, corpus_prompt: for `encode_query` and `encode_document`.
        include_positives: leave the positives among the candidates; output is "n-tuple" then.
        output_format: "triplet": rows (query, positive, negative); "n-tuple": (query, positive, negative_1, …), only
            where there are enough; "labeled-pair": (query, text, label 1 or 0); "labeled-list": (query, texts, labels).
        output_scores: add a column with the scores; in labelled formats instead of the labels.
        batch_size: for encoding.
        faiss_batch_size, use_faiss: search with faiss, for models of cosine or dot products; by default the exact
            search of this library is used.
        use_multi_process: encode in one worker process per device, or on the devices listed.
        verbose: print what was found.
        cache_folder: keep embeddings there; they are used again for the same texts and model.
        as_triplets, margin: older names of `output_format` and `absolute_margin`.

    Returns:
        A `Dataset` in the output format.

    Raises:
        InputError: for missing columns, rows with None, an empty data set, or settings that contradict each other.
    """
    if as_triplets is not None:
        deprecated("as_triplets is now output_format.", stacklevel=2)
        output_format = "triplet" if as_triplets else "n-tuple"
    if margin is not None:
        deprecated("margin is now absolute_margin.", stacklevel=2)
        absolute_margin = margin
    if output_format == "n-tuple-scores":  # type: ignore[comparison-overlap]
        deprecated("'n-tuple-scores' is now 'n-tuple' with output_scores=True.", stacklevel=2)
        output_format, output_scores = "n-tuple", True
    if output_format not in FORMATS:
        raise InputError(f"Unknown output_format {output_format!r}; known are {', '.join(FORMATS)}.")
    if include_positives and output_format != "n-tuple":
        logger.warning('include_positives=True gives output_format="n-tuple", so that the order of the ranks is kept.')
        output_format = "n-tuple"
    check_model(model)
    names = columns_of(dataset, anchor_column_name, positive_column_name)
    pairs = Pairs.of(texts_in(dataset, names[0]), texts_in(dataset, names[1]), corpus)
    limited = any(limit is not None for limit in (max_score, min_score, absolute_margin, relative_margin))
    if range_max is None:
        range_max = range_min + num_negatives * (10 if limited else 1)
    rules = Rules(
        range_min,
        range_max,
        max_score,
        min_score,
        absolute_margin,
        relative_margin,
        num_negatives,
        sampling_strategy,
    )
    encode = Encoding(model, batch_size, use_multi_process, cache_folder, verbose)
    query_vectors = encode(pairs.queries, "query", query_prompt, query_prompt_name)
    text_vectors = encode(pairs.texts, "document", corpus_prompt, corpus_prompt_name)
    found = search(pairs, query_vectors, text_vectors, rules, include_positives, model, use_faiss, faiss_batch_size)
    positive_scores = pair_scores(model, query_vectors, text_vectors, pairs)
    if cross_encoder is not None:
        positive_scores, found = rescored(cross_encoder, pairs, found, batch_size, verbose)
    found = limited_to(found, rules, worst_positive(pairs, positive_scores))
    report = Report(pairs, found, rules)
    chosen = choose(found, rules)
    mined = FORMAT[output_format](pairs, positive_scores, chosen, rules, names, output_scores)
    if verbose:
        report.show(positive_scores, chosen)
    elif not mined[names[0]]:
        logger.warning(report.shortage())
    from datasets import Dataset

    return Dataset.from_dict(mined)


# ---- what there is


def check_model(model: SentenceTransformer) -> None:
    """Raise `InputError` for models whose embeddings are not one dense vector a text."""
    from sentence_transformers import CrossEncoder, MultiVectorEncoder, SparseEncoder

    if isinstance(model, (CrossEncoder, MultiVectorEncoder, SparseEncoder)):
        raise InputError(
            f"mine_hard_negatives needs a model that gives one dense vector a text, a SentenceTransformer, got a "
            f"{type(model).__name__}. A CrossEncoder can score candidates anew: cross_encoder=…"
        )


def columns_of(dataset: Dataset, anchor: str | None, positive: str | None) -> tuple[str, str]:
    """The names of the two columns."""
    try:
        import datasets  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("datasets", "train", "mine_hard_negatives") from error
    columns = list(dataset.column_names)
    if missing := [name for name in (anchor, positive) if name is not None and name not in columns]:
        raise InputError(f"The data set has no column {missing[0]!r}; it has {columns}.")
    rest = [name for name in columns if name not in (anchor, positive)]
    anchor = anchor or (rest.pop(0) if rest else None)
    positive = positive or (rest.pop(0) if rest else None)
    if anchor is None or positive is None:
        raise InputError(f"The data set needs two columns, queries and positives; it has {columns}.")
    if len(dataset) == 0:
        raise InputError("The data set is empty: there are no pairs to find negatives for.")
    return anchor, positive


def texts_in(dataset: Dataset, column: str) -> list[str]:
    """A column; `InputError` naming the first row that holds no text."""
    values = column_values(dataset, column)
    for i, value in enumerate(values):
        if not isinstance(value, str):
            raise InputError(f"Row {i} of column {column!r} is {value!r:.60}; expected a text.")
    return values


class Encoding:
    """Embeds texts of one side, keeping the vectors in a folder if one is given."""

    def __init__(
        self, model: SentenceTransformer, batch_size: int, processes: list[str] | bool, folder: str | None, bar: bool
    ) -> None:
        self.model, self.batch_size, self.folder, self.bar = model, batch_size, folder, bar
        self.processes = processes

    def __call__(self, texts: list[str], side: str, prompt: str | None, prompt_name: str | None) -> np.ndarray:
        if self.folder is None:
            return self.encode(texts, side, prompt, prompt_name)
        key = repr(("normalized", side, prompt, prompt_name, len(texts)))
        digest = hashlib.sha256(
            "\0".join([key, of_model(self.model), *texts]).encode("utf-8", "surrogatepass")
        ).hexdigest()
        file = Path(self.folder, f"{side}_embeddings_{digest[:32]}.npy")
        if file.is_file():
            return np.load(file)
        vectors = self.encode(texts, side, prompt, prompt_name)
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as fresh:
            np.save(fresh, vectors)
        return vectors

    def encode(self, texts: list[str], side: str, prompt: str | None, prompt_name: str | None) -> np.ndarray:
        """Texts -> (N, H), of length 1."""
        encode = getattr(self.model, f"encode_{side}")
        common = {
            "prompt": prompt,
            "prompt_name": prompt_name,
            "batch_size": self.batch_size,
            "normalize_embeddings": True,
        }
        if not self.processes:
            return encode(texts, show_progress_bar=self.bar, convert_to_numpy=True, **common)
        devices = self.processes if isinstance(self.processes, list) else None
        pool = self.model.start_multi_process_pool(target_devices=devices)
        try:
            return encode(texts, pool=pool, **common)
        finally:
            self.model.stop_multi_process_pool(pool)


# ---- candidates


def search(
    pairs: Pairs, queries: np.ndarray, texts: np.ndarray, rules: Rules, with_positives: bool,
    model: SentenceTransformer,
    use_faiss: bool, faiss_batch_size: int,
) -> Found:  # fmt: skip
    """The candidates of each query, by rank; its positives are left out unless they are wanted."""
    count = len(pairs.texts)
    own = np.bincount(pairs.query_of, minlength=len(pairs.queries))
    most = min(rules.range_max + (0 if with_positives else int(own.max())), count)
    similarity = named_function(getattr(model, "similarity", cos_sim))
    if use_faiss:
        if similarity not in (cos_sim, dot_score):
            raise InputError(
                "use_faiss=True searches by inner products, but this model compares otherwise "
                f"({similarity_fct_name(similarity)}). Leave use_faiss out: the library's own search takes any measure."
            )
        scores, ids = search_faiss(queries, texts, most, faiss_batch_size)
    else:
        best = best_documents(as_source(queries), as_source(texts), most, similarity, QUERY_BLOCK, DOCUMENT_BLOCK)
        scores, ids = (part.cpu().numpy() for part in best)
    mask = np.ones(ids.shape, dtype=bool)
    if not with_positives:
        mine = np.unique(pairs.query_of.astype(np.int64) * count + pairs.document_of)
        mask = ~np.isin(np.arange(len(ids))[:, None] * count + ids, mine)
    mask &= mask.cumsum(1) > rules.range_min
    return Found(ids, scores, mask)


def search_faiss(queries: np.ndarray, documents: np.ndarray, top_k: int, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """The nearest documents by inner product of normalised vectors."""
    try:
        import faiss
    except ImportError as error:
        raise MissingExtraError("faiss-cpu", "faiss", "mine_hard_negatives(use_faiss=True)") from error
    sides = [side / np.linalg.norm(side, axis=1, keepdims=True).clip(1e-12) for side in (queries, documents)]
    index = faiss.IndexFlatIP(documents.shape[1])
    index.add(sides[1])
    parts = [index.search(sides[0][start : start + batch], top_k) for start in range(0, len(queries), batch)]
    return np.concatenate([scores for scores, _ in parts]), np.concatenate([ids for _, ids in parts])


def pair_scores(model: SentenceTransformer, queries: np.ndarray, texts: np.ndarray, pairs: Pairs) -> np.ndarray:
    """(M,) similarity of each pair."""
    pairwise = named_function(getattr(model, "similarity_pairwise", pairwise_cos_sim))
    found = pairwise(queries[pairs.query_of], texts[pairs.document_of])
    return to_tensor(found).detach().float().cpu().numpy()


def rescored(
    cross_encoder: Reranker, pairs: Pairs, found: Found, batch_size: int, bar: bool
) -> tuple[np.ndarray, Found]:
    """Scores of the pairs and of the candidates by a cross-encoder; candidates in their new order."""
    rows, places = np.nonzero(found.mask)
    asked = [(pairs.queries[q], pairs.texts[d]) for q, d in zip(pairs.query_of, pairs.document_of, strict=True)]
    asked += [(pairs.queries[q], pairs.texts[found.documents[q, k]]) for q, k in zip(rows, places, strict=True)]
    scores = np.asarray(cross_encoder.predict(asked, batch_size=batch_size, show_progress_bar=bar), dtype=np.float32)
    fresh = np.full(found.scores.shape, -np.inf, dtype=np.float32)
    fresh[rows, places] = scores[len(pairs.query_of) :]
    order = np.argsort(-fresh, axis=1, kind="stable")
    taken = (np.take_along_axis(part, order, 1) for part in (found.documents, fresh, found.mask))
    return scores[: len(pairs.query_of)], Found(*taken)


def worst_positive(pairs: Pairs, scores: np.ndarray) -> np.ndarray:
    """(Q,) the lowest score among each query's positives."""
    worst = np.full(len(pairs.queries), np.inf, dtype=scores.dtype)
    np.minimum.at(worst, pairs.query_of, scores)
    return worst


def limited_to(found: Found, rules: Rules, worst: np.ndarray) -> Found:
    """The candidates that the rules on scores allow."""
    mask, limit = found.mask.copy(), worst[:, None]
    if rules.max_score is not None:
        mask &= found.scores <= rules.max_score
    if rules.min_score is not None:
        mask &= found.scores >= rules.min_score
    if rules.absolute_margin is not None:
        mask &= found.scores <= limit - rules.absolute_margin
    if rules.relative_margin is not None:
        mask &= found.scores <= limit - np.abs(limit) * rules.relative_margin
    return Found(found.documents, found.scores, mask)


def choose(found: Found, rules: Rules) -> Found:
    """The negatives of each query: (Q, num_negatives) in the order of the ranks, those there are first."""
    keys = np.broadcast_to(np.arange(found.mask.shape[1], dtype=np.float64), found.mask.shape)
    if rules.sampling_strategy == "random":
        keys = torch.rand(found.mask.shape, dtype=torch.float64, device="cpu").numpy()
    keys = np.where(found.mask, keys, np.inf)
    taken = np.argsort(keys, axis=1, kind="stable")[:, : rules.num_negatives]
    there = np.isfinite(np.take_along_axis(keys, taken, 1))
    taken = np.sort(np.where(there, taken, found.mask.shape[1]), axis=1)
    there = taken < found.mask.shape[1]
    taken = np.minimum(taken, found.mask.shape[1] - 1)
    missing = rules.num_negatives - taken.shape[1]
    parts = [np.take_along_axis(part, taken, 1) for part in (found.documents, found.scores)]
    if missing > 0:
        parts = [np.pad(part, ((0, 0), (0, missing))) for part in parts]
        there = np.pad(there, ((0, 0), (0, missing)))
    return Found(parts[0], parts[1], there)


# ---- what comes out

Names = tuple[str, str]
Columns = dict[str, list[Any]]


def as_triplets_format(
    pairs: Pairs, scores: np.ndarray, chosen: Found, rules: Rules, names: Names, with_scores: bool
) -> Columns:
    """One row per pair and negative."""
    mask = chosen.mask[pairs.query_of]
    rows, places = np.nonzero(mask)
    queries, negatives = pairs.query_of[rows], chosen.documents[pairs.query_of[rows], places]
    columns: Columns = {
        names[0]: [pairs.queries[q] for q in queries],
        names[1]: [pairs.texts[d] for d in pairs.document_of[rows]],
        "negative": [pairs.texts[d] for d in negatives],
    }
    if with_scores:
        columns["scores"] = np.stack([scores[rows], chosen.scores[queries, places]], 1).tolist()
    return columns


def as_tuples(
    pairs: Pairs, scores: np.ndarray, chosen: Found, rules: Rules, names: Names, with_scores: bool
) -> Columns:
    """One row per pair that has all its negatives."""
    rows = np.flatnonzero(np.take(chosen.mask.all(1), pairs.query_of))
    queries = pairs.query_of[rows]
    columns: Columns = {
        names[0]: [pairs.queries[q] for q in queries],
        names[1]: [pairs.texts[d] for d in pairs.document_of[rows]],
    }
    for k in range(rules.num_negatives):
        columns[f"negative_{k + 1}"] = [pairs.texts[d] for d in chosen.documents[queries, k]]
    if with_scores:
        columns["scores"] = np.concatenate([scores[rows, None], chosen.scores[queries]], 1).tolist()
    return columns


def as_labeled_pairs(
    pairs: Pairs, scores: np.ndarray, chosen: Found, rules: Rules, names: Names, with_scores: bool
) -> Columns:
    """One row per query and text: its positives, then its negatives, for queries that have any of these."""
    queries: list[int] = []
    texts: list[int] = []
    labels: list[Any] = []
    bounds = np.searchsorted(pairs.query_of, np.arange(len(pairs.queries) + 1))
    for q in np.flatnonzero(chosen.mask.any(1)).tolist():
        mine, there = slice(bounds[q], bounds[q + 1]), chosen.mask[q]
        documents = [*pairs.document_of[mine].tolist(), *chosen.documents[q, there].tolist()]
        queries += [q] * len(documents)
        texts += documents
        positives = bounds[q + 1] - bounds[q]
        if with_scores:
            labels += [*scores[mine].tolist(), *chosen.scores[q, there].tolist()]
        else:
            labels += [1] * positives + [0] * (len(documents) - positives)
    return {
        names[0]: [pairs.queries[q] for q in queries],
        names[1]: [pairs.texts[d] for d in texts],
        "score" if with_scores else "label": labels,
    }


def as_lists(pairs: Pairs, scores: np.ndarray, chosen: Found, rules: Rules, names: Names, with_scores: bool) -> Columns:
    """One row per pair: the positive and the negatives as a list."""
    rows = np.flatnonzero(np.take(chosen.mask.any(1), pairs.query_of))
    texts, labels = [], []
    for row in rows:
        query = pairs.query_of[row]
        there = chosen.mask[query]
        negatives = chosen.documents[query, there]
        texts.append([pairs.texts[pairs.document_of[row]], *(pairs.texts[d] for d in negatives)])
        own = [float(scores[row]), *chosen.scores[query, there].tolist()]
        labels.append(own if with_scores else [1] + [0] * len(negatives))
    queries = [pairs.queries[q] for q in pairs.query_of[rows]]
    return {names[0]: queries, names[1]: texts, "scores" if with_scores else "labels": labels}


FORMAT = {
    "triplet": as_triplets_format,
    "n-tuple": as_tuples,
    "labeled-pair": as_labeled_pairs,
    "labeled-list": as_lists,
}


class Report:
    """What was found, in a table."""

    def __init__(self, pairs: Pairs, found: Found, rules: Rules) -> None:
        self.pairs, self.rules = pairs, rules
        self.enough = np.take(found.mask.sum(1) >= rules.num_negatives, pairs.query_of)

    def show(self, positive_scores: np.ndarray, chosen: Found) -> None:
        """Print the table."""
        rows, places = np.nonzero(chosen.mask[self.pairs.query_of])
        negative = chosen.scores[self.pairs.query_of[rows], places]
        columns = {"Positive": positive_scores, "Negative": negative, "Difference": positive_scores[rows] - negative}
        print(f"{'Metric':<10}" + "".join(f"{name:>15}" for name in columns))
        print(f"{'Count':<10}" + "".join(f"{len(values):>15,}" for values in columns.values()))
        measures: dict[str, Any] = {
            "Mean": np.mean,
            "Median": np.median,
            "Std": np.std,
            "Min": np.min,
            "25%": lambda values: np.percentile(values, 25),
            "75%": lambda values: np.percentile(values, 75),
            "Max": np.max,
        }
        for name, measure in measures.items():
            cells = [f"{measure(values):>15.4f}" if len(values) else f"{'-':>15}" for values in columns.values()]
            print(f"{name:<10}" + "".join(cells))
        if shortage := self.shortage():
            print(shortage)

    def shortage(self) -> str:
        """How many pairs have too few negatives, and which settings to change; "" if all have enough."""
        short = int((~self.enough).sum())
        if not short:
            return ""
        limits = ("max_score", "min_score", "absolute_margin", "relative_margin")
        given = {name: getattr(self.rules, name) for name in ("range_max", *limits)}
        settings = ", ".join(f"{name}={value}" for name, value in given.items() if value is not None)
        return (
            f"{short:,} of {len(self.enough):,} pairs have fewer than {self.rules.num_negatives} negatives. "
            f"Other values of {settings} would find more."
        )
