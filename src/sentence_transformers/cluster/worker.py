"""The worker of a job: one model, and unit after unit read, encoded and written.

    unit → rows → records and rejects → vectors → shard or database → what was done

What a worker gives back is small (numbers, checksum, rejects); vectors go from it to their place without passing
through Ray's memory or the driver. A unit that is done twice, because a worker died after it had written, is written
twice the same: a shard is replaced as a whole, rows of a database by their ids.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sentence_transformers.cluster import sources
from sentence_transformers.cluster.job import shard_name
from sentence_transformers.encoders.cross_encoder import CrossEncoder
from sentence_transformers.encoders.sentence_transformer import SentenceTransformer
from sentence_transformers.encoders.sparse_encoder import SparseEncoder
from sentence_transformers.engine import engine
from sentence_transformers.engine.prompts import chosen_side
from sentence_transformers.errors import DatabaseWriteError, InputError
from sentence_transformers.quantization import quantize
from sentence_transformers.storage.files import sha256_of
from sentence_transformers.storage.fingerprint import of_model
from sentence_transformers.util.atomic import replacing
from sentence_transformers.util.csr import SparseRows, arrow_table, sparse_rows

CLASSES = {one.model_type: one for one in (SentenceTransformer, SparseEncoder, CrossEncoder)}


@dataclass(frozen=True)
class Task:
    """What every worker of a job is told.

    Attributes:
        model: name or folder, or a reference to the model itself in Ray's memory.
        kind: "SentenceTransformer", "SparseEncoder" or "CrossEncoder".
        fingerprint: of the model, which each worker compares with its own; None to find it out.
        columns, file_columns: of the source; the latter by path.
        output: the folder of shards, or a database.
        threads, token_budget, device: of each worker.
        precision, ranges: of the vectors, as `quantize_embeddings` has them.
        model_kwargs: for the class of the model. encode_kwargs: for `encode` or `predict`.
    """

    model: Any
    kind: str
    fingerprint: str | None
    columns: sources.Columns
    file_columns: dict[str, list[str]]
    output: Any
    threads: int = 1
    token_budget: int | None = None
    device: str = "cpu"
    precision: str = "float32"
    ranges: Any = None
    model_kwargs: dict[str, Any] = field(default_factory=dict)
    encode_kwargs: dict[str, Any] = field(default_factory=dict)


class Worker:
    """One process with one model; Ray Data calls it with batches of units."""

    def __init__(self, task: Task) -> None:
        self.task = task
        torch.set_num_threads(task.threads)
        self.model = load(task)
        for module in self.model.modules() if task.token_budget is not None else ():
            if hasattr(module, "tokens"):
                module.token_budget = task.token_budget
        if task.fingerprint is not None and of_model(self.model) != task.fingerprint:
            raise InputError(f"The model on this machine ({platform.node()}) is not that of the job.")

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        """{"unit": [JSON of units]} -> {"done": [JSON of what was done]}."""
        return {"done": [json.dumps(self.run(sources.Unit(**json.loads(unit)))) for unit in batch["unit"]]}

    def run(self, unit: sources.Unit) -> dict[str, Any]:
        """Do one unit. A failure to read or write is part of the answer; anything else is raised."""
        begin = time.perf_counter()
        try:
            rows = list(sources.read(unit, self.task.columns, self.task.file_columns[unit.path]))
            records, rejects = split(rows)
            vectors = self.encode([record.text for record in records])
            written = self.write(unit, records, vectors)
        except (OSError, DatabaseWriteError) as error:
            return {"unit": unit.number, "error": f"{type(error).__name__}: {error}"}
        return {
            "unit": unit.number,
            "rows": len(rows),
            "rejects": [list(reject) for reject in rejects],
            "tokens": self.count_tokens([record.text for record in records]),
            "seconds": round(time.perf_counter() - begin, 3),
            **written,
        }

    def encode(self, texts: list[Any]) -> Any:
        """Vectors, scores or sparse rows of texts or pairs."""
        given = {"show_progress_bar": False, **self.task.encode_kwargs}
        if self.task.kind == "CrossEncoder":
            return np.asarray(self.model.predict(texts, **given))
        given = chosen_side(self.model, given)
        if self.task.kind == "SparseEncoder":
            rows = sparse_rows(self.model.encode(texts, save_to_cpu=True, **given))
            assert rows is not None
            return replace(rows, terms=rows.terms.astype(np.int32))
        vectors = self.model.encode(texts, **given)
        return quantize(vectors.astype(np.float32), self.task.precision, self.task.ranges)  # type: ignore[arg-type]

    def count_tokens(self, texts: list[Any]) -> int:
        """Tokens of the texts; 0 if the model's input module does not say. Costs about 1 % of encoding them."""
        module = engine.input_module(self.model, "document")
        return int(module.tokens(texts, None).offsets[-1]) if texts and hasattr(module, "tokens") else 0

    def write(
        self, unit: sources.Unit, records: Sequence[sources.Record], vectors: np.ndarray | SparseRows
    ) -> dict[str, Any]:
        """Put the vectors in their place; size and checksum of a shard. Without any record there is none.

        A shard has the columns id, int64 or string, and embedding, a list of fixed length (float32, int8, uint8).
        Sparse: indices (list of int32) and values (list of float32). Scores: score, a float32, or embedding for several
        labels.
        """
        if not records:  # nothing to say, not even the type of the ids
            return {}
        if not isinstance(self.task.output, str):
            metadata = [record.metadata for record in records]
            rows = vectors.to_tensor() if isinstance(vectors, SparseRows) else vectors
            self.task.output.write([([record.id for record in records], rows, metadata)])
            return {}
        path = Path(self.task.output, shard_name(unit.number))
        table = arrow_table({"id": [record.id for record in records]}, vectors)
        with replacing(path) as fresh:
            with fresh.open("wb") as file:
                sources.parquet().write_table(table, file, compression="zstd", use_dictionary=False)
            return {"size": fresh.stat().st_size, "sha256": sha256_of(fresh)}


def split(rows: list[Any]) -> tuple[list[sources.Record], list[sources.Reject]]:
    """Records and rejects. Ids are of one type: that of the first record."""
    records = [row for row in rows if isinstance(row, sources.Record)]
    rejects = [row for row in rows if isinstance(row, sources.Reject)]
    kind = type(records[0].id) if records else int
    other = [row for row in records if type(row.id) is not kind]
    rejects += [sources.Reject(row.id, f"the id is no {kind.__name__} as those before it") for row in other]
    return [row for row in records if type(row.id) is kind] if other else records, rejects


def load(task: Task) -> Any:
    """The model of a task, on its device."""
    if isinstance(task.model, str):
        return CLASSES[task.kind](task.model, device=task.device, **task.model_kwargs)
    import ray

    return ray.get(task.model).to(task.device)
