"""The numbers that evaluators report, as functions of arrays.

Scores are floats where greater means more alike; labels are 0 or 1. A ranking is given as the relevance of each query's
documents, best first: bool of shape (Q, K), with the number of relevant documents of each query, (Q,).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


def pearson(x: np.ndarray, y: np.ndarray) -> float:
    """Correlation Σ (x − x̄)(y − ȳ) / (‖x − x̄‖ ‖y − ȳ‖); NaN if either is constant."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    x, y = x - x.mean(), y - y.mean()
    norm = np.linalg.norm(x) * np.linalg.norm(y)
    return float(np.clip(x @ y / norm, -1, 1)) if norm else float("nan")


def ranks(x: np.ndarray) -> np.ndarray:
    """1-based ranks of values; equal values share the mean of their ranks."""
    _, inverse, counts = np.unique(np.asarray(x), return_inverse=True, return_counts=True)
    ends = counts.cumsum()
    return ((ends - counts + 1 + ends) / 2)[inverse]


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson correlation of the ranks."""
    return pearson(ranks(x), ranks(y))


def average_precision(labels: np.ndarray, scores: np.ndarray) -> float:
    """Σ (recall_n − recall_{n−1}) · precision_n over the distinct scores as thresholds, highest first."""
    order = np.argsort(-np.asarray(scores), kind="stable")
    labels, scores = np.asarray(labels)[order], np.asarray(scores)[order]
    last = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)  # the last place of each run of equal scores
    hits = labels.cumsum()[last]
    if not hits[-1]:
        return 0.0
    precision, recall = hits / (last + 1), hits / hits[-1]
    return float((np.diff(recall, prepend=0) * precision).sum())


def matthews(labels: np.ndarray, predictions: np.ndarray) -> float:
    """(TP·TN − FP·FN) / √((TP+FP)(TP+FN)(TN+FP)(TN+FN)); 0 if a factor is 0. Matthews 1975."""
    labels, predictions = np.asarray(labels).astype(bool), np.asarray(predictions).astype(bool)
    tp, tn = float((labels & predictions).sum()), float((~labels & ~predictions).sum())
    fp, fn = float((~labels & predictions).sum()), float((labels & ~predictions).sum())
    norm = np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    return (tp * tn - fp * fn) / norm if norm else 0.0


def f1_of_classes(labels: np.ndarray, predictions: np.ndarray) -> tuple[float, float, float]:
    """F1 = 2 TP / (2 TP + FP + FN) of classes: its mean over the classes that occur, over all rows together, and over
    the classes weighted by their number of rows (macro, micro, weighted).
    """
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    classes = np.union1d(labels, predictions)
    hits = np.array([((labels == one) & (predictions == one)).sum() for one in classes])
    rows, guesses = (np.array([(column == one).sum() for one in classes]) for column in (labels, predictions))
    f1 = 2 * hits / (rows + guesses)
    return float(f1.mean()), float(hits.sum() / len(labels)), float((f1 * rows).sum() / rows.sum())


def best_accuracy(labels: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    """The greatest accuracy of "score above threshold", and that threshold: see `cuts`."""
    hits, above, threshold = cuts(labels, scores)
    right = hits + (len(labels) - hits[-1]) - (above - hits)  # true positives and true negatives
    best = int(right.argmax())
    return float(right[best] / len(labels)), float(threshold[best])


class BestF1(NamedTuple):
    f1: float
    precision: float
    recall: float
    threshold: float


def best_f1(labels: np.ndarray, scores: np.ndarray) -> BestF1:
    """The greatest F1 of "score above threshold", with its precision, recall and threshold: see `cuts`."""
    hits, above, threshold = cuts(labels, scores)
    if not hits.any():
        return BestF1(0.0, 0.0, 0.0, 0.0)
    f1 = 2 * hits / (above + hits[-1])  # 2 TP / (2 TP + FP + FN)
    best = int(f1.argmax())
    return BestF1(
        float(f1[best]), *(float(x) for x in (hits[best] / above[best], hits[best] / hits[-1], threshold[best]))
    )


def cuts(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All ways to cut N scored rows in two: none above, then one more of the K distinct scores each time.

    Returns:
        Of shape (K + 1,): rows of label 1 above the cut, rows above it, and the threshold, midway between the
        neighbouring scores; the highest score for none above, the lowest for all.
    """
    order = np.argsort(-np.asarray(scores), kind="stable")
    labels, scores = np.asarray(labels)[order], np.asarray(scores)[order]
    above = np.append(np.flatnonzero(np.diff(scores, prepend=np.nan)), len(scores))  # 0, …, N
    bounds = np.concatenate([scores[:1], scores, scores[-1:]])
    hits = np.concatenate([[0], labels.cumsum()])[above]
    return hits, above, (bounds[above] + bounds[above + 1]) / 2


def accuracy_at(relevant: np.ndarray, k: int) -> np.ndarray:
    """(Q, K) -> (Q,): whether any of the first k documents is relevant."""
    return np.asarray(relevant[:, :k].any(1), np.float64)


def precision_at(relevant: np.ndarray, k: int) -> np.ndarray:
    """(Q, K) -> (Q,): relevant ones among the first k, divided by k."""
    return relevant[:, :k].sum(1) / k


def recall_at(relevant: np.ndarray, counts: np.ndarray, k: int) -> np.ndarray:
    """(Q, K) -> (Q,): relevant ones among the first k, divided by all relevant ones."""
    return relevant[:, :k].sum(1) / counts


def reciprocal_rank_at(relevant: np.ndarray, k: int) -> np.ndarray:
    """(Q, K) -> (Q,): 1 / rank of the first relevant document, 0 if it is not among the first k."""
    first = relevant[:, :k]
    return np.where(first.any(1), 1 / (first.argmax(1) + 1.0), 0.0) if first.shape[1] else np.zeros(len(relevant))


def dcg(gains: np.ndarray) -> np.ndarray:
    """(…, K) -> (…): Σ gain_i / log2(i + 1), i from 1. Järvelin & Kekäläinen 2002."""
    return np.asarray((gains / np.log2(np.arange(2, gains.shape[-1] + 2))).sum(-1))


def ndcg_at(relevant: np.ndarray, counts: np.ndarray, k: int) -> np.ndarray:
    """(Q, K) -> (Q,): DCG of the first k, divided by that of the best possible ranking."""
    ideal = (np.arange(k)[None, :] < counts[:, None]).astype(np.float64)
    best = dcg(ideal)
    return np.divide(dcg(relevant[:, :k].astype(np.float64)), best, out=np.zeros(len(counts)), where=best > 0)


def average_precision_at(relevant: np.ndarray, counts: np.ndarray, k: int) -> np.ndarray:
    """(Q, K) -> (Q,): mean of the precision at each relevant document among the first k, over min(k, relevant ones)."""
    first = relevant[:, :k].astype(np.float64)
    precision = first.cumsum(1) / np.arange(1, first.shape[1] + 1)
    return (precision * first).sum(1) / np.minimum(k, counts).clip(min=1)


def ndcg_with_ties(labels: np.ndarray, scores: np.ndarray, k: int) -> float:
    """NDCG of the first k; documents of equal score share the mean gain of their places. McSherry & Najork 2008."""
    discounts = np.where(np.arange(len(scores)) < k, 1 / np.log2(np.arange(2, len(scores) + 2)), 0.0)
    _, inverse, counts = np.unique(-scores, return_inverse=True, return_counts=True)
    gains = np.bincount(inverse, labels.astype(np.float64)) / counts
    ends = counts.cumsum()
    totals = np.append(0, discounts.cumsum())
    ideal = (np.sort(labels)[::-1] * discounts).sum()
    return float((gains * (totals[ends] - totals[ends - counts])).sum() / ideal) if ideal else 0.0


def ranking(labels: np.ndarray, scores: np.ndarray, k: int) -> tuple[float, float, float]:
    """(N,) labels and (N,) scores of one query's documents -> average precision, reciprocal rank at k, NDCG at k."""
    relevant = labels.astype(bool)[np.argsort(-scores, kind="stable")][None]
    return (
        average_precision(labels, scores),
        float(reciprocal_rank_at(relevant, k)[0]),
        ndcg_with_ties(labels, scores, k),
    )
