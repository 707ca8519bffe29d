"""What a job takes, before it is started: arithmetic on one measured number, the tokens a core encodes in a second.

core-hours   documents × tokens / (tokens per second of a core × 3600)
storage      documents × (bytes of a vector + 8 of its id)
memory       of each worker: the model, one shard of texts and vectors, and 0.4 GB for Python, torch and Ray

bytes of a vector   float32 4 H     float16 2 H     int8 H     binary H / 8     sparse 8 for each of its values
"""

from __future__ import annotations

from typing import NamedTuple

from sentence_transformers.errors import InputError

BYTES_PER_DIMENSION = {"float32": 4.0, "float16": 2.0, "int8": 1.0, "binary": 1 / 8}
BYTES_PER_SPARSE_VALUE = 8
BYTES_PER_ID = 8
BYTES_PER_TOKEN_OF_TEXT = 6
PROCESS = 0.4e9


class Estimate(NamedTuple):
    """What a job takes.

    Attributes:
        core_hours: of all cores together.
        hours: with `cores` of them.
        worker_memory: bytes of each worker.
        storage: bytes of all vectors and ids, by precision.
    """

    core_hours: float
    hours: float
    worker_memory: float
    storage: dict[str, float]


def estimate(
    documents: int,
    tokens_per_document: float,
    tokens_per_second: float,
    *,
    dimension: int = 384,
    cores: int = 1,
    model_bytes: float = 90e6,
    shard_rows: int = 10_000,
    sparse_values: float | None = None,
) -> Estimate:
    """What encoding a collection takes.

    Args:
        documents, tokens_per_document: the collection.
        tokens_per_second: that one core encodes, as a job reports it (`Summary.tokens_per_second` over its cores).
        dimension: H, of the vectors.
        cores: that work at the same time.
        model_bytes: of the weights of one copy.
        shard_rows: as for `encode_dataset`.
        sparse_values: values of a sparse vector that are not zero; adds "sparse" to the storage.

    Raises:
        InputError: for a number that is not positive.

    Example:
        >>> estimate(1_000_000, 100, 4000).core_hours
        6.94…
    """
    given = {
        "documents": documents,
        "tokens_per_document": tokens_per_document,
        "tokens_per_second": tokens_per_second,
        "dimension": dimension,
        "cores": cores,
    }
    if wrong := [name for name, value in given.items() if not value > 0]:
        raise InputError(f"{wrong[0]} must be positive, got {given[wrong[0]]!r}.")
    core_hours = documents * tokens_per_document / tokens_per_second / 3600
    storage = {name: documents * (size * dimension + BYTES_PER_ID) for name, size in BYTES_PER_DIMENSION.items()}
    if sparse_values is not None:
        storage["sparse"] = documents * (BYTES_PER_SPARSE_VALUE * sparse_values + BYTES_PER_ID)
    shard = shard_rows * (4 * dimension + BYTES_PER_TOKEN_OF_TEXT * tokens_per_document)
    return Estimate(core_hours, core_hours / cores, PROCESS + model_bytes + shard, storage)
