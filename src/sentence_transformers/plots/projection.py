"""Many dimensions -> two, to look at.

pca    the two directions of the greatest variance: X = embeddings − mean, X = U S Vᵀ, points = U₂ S₂. Linear, exact,
       the same every time. The sign of a direction is chosen so that its largest component in V is positive.
tsne   neighbours stay neighbours, distances between groups mean little (van der Maaten and Hinton, 2008);
       scikit-learn computes it
umap   likewise, faster for many points (McInnes et al., 2018); umap-learn computes it
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np

from sentence_transformers.errors import InputError, MissingExtraError
from sentence_transformers.util.tensor import describe

Method = Literal["pca", "tsne", "umap"]


def project(embeddings: Any, method: Method = "pca", seed: int = 0) -> tuple[np.ndarray, str]:
    """Points (N, 2) of embeddings (N, H), and a note how they came about.

    Raises:
        InputError: for an unknown method, fewer than two embeddings, or values that are not finite.
        MissingExtraError: if the package that computes the method is not installed.
    """
    if method not in get_args(Method):
        raise InputError(f"Unknown projection {method!r}; known are {', '.join(get_args(Method))}.")
    rows = np.asarray(embeddings.cpu() if hasattr(embeddings, "cpu") else embeddings, dtype=np.float32)
    if rows.ndim != 2 or len(rows) < 2 or not np.isfinite(rows).all():
        raise InputError(f"A map needs two or more embeddings (N, H) of finite numbers, got {describe(embeddings)}.")
    if method == "pca":
        return principal(rows)
    if method == "tsne":
        return tsne(rows, seed), "t-SNE of cosine distances: near is alike, far says little"
    return umap(rows, seed), "UMAP of cosine distances: near is alike, far says little"


def principal(rows: np.ndarray) -> tuple[np.ndarray, str]:
    """The first two principal components."""
    centred = rows - rows.mean(0)
    _, lengths, directions = np.linalg.svd(centred, full_matrices=False)
    two = directions[:2]
    two = two * np.sign(two[np.arange(len(two)), np.abs(two).argmax(1)])[:, None]
    points = centred @ two.T
    if points.shape[1] < 2:
        points = np.pad(points, ((0, 0), (0, 2 - points.shape[1])))
    shares = lengths[:2] ** 2 / max((lengths**2).sum(), 1e-30)
    shown = " and ".join(f"{share:.0%}" for share in shares)
    return points, f"principal components: {shown} of the variance"


def tsne(rows: np.ndarray, seed: int) -> np.ndarray:
    """t-SNE by scikit-learn."""
    try:
        from sklearn.manifold import TSNE
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "plot", "t-SNE") from error
    perplexity = min(30.0, max(1.0, (len(rows) - 1) / 3))
    return TSNE(2, perplexity=perplexity, metric="cosine", init="random", random_state=seed).fit_transform(rows)


def umap(rows: np.ndarray, seed: int) -> np.ndarray:
    """UMAP by umap-learn."""
    try:
        from umap import UMAP
    except ImportError as error:
        raise MissingExtraError("umap-learn", None, "UMAP") from error
    neighbours = min(15, len(rows) - 1)
    return UMAP(n_neighbors=neighbours, metric="cosine", random_state=seed, n_jobs=1).fit_transform(rows)
