"""Vectors made up from a text's hash: for load tests, never for meaning."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np


def simulated(texts: Sequence[str], dimension: int, unit: bool) -> np.ndarray:
    """Standard normal vectors, drawn from a generator that the text's BLAKE2 hash seeds.

    Args:
        unit: scale each to length 1.

    Returns:
        float32 of shape (len(texts), dimension).
    """
    rows = np.empty((len(texts), dimension), np.float32)
    for row, text in zip(rows, texts, strict=True):
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        row[:] = np.random.Generator(np.random.Philox(int.from_bytes(digest))).standard_normal(dimension, np.float32)
    if unit and len(rows):
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows
