"""The worker of a job: one model, and unit after unit read, encoded and written.

    unit → rows → records and rejects → vectors → shard or database → what was done

What a worker gives back is small (numbers, checksum, rejects); vectors go from it to their place without passing
through Ray's memory or the driver. A unit that is done twice, because a worker died after it had written, is written
twice the same: a shard is replaced as a whole, rows of a database by their ids.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
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
from sentence_transformers.index.files import sync_folder
from sentence_transformers.quantization import quantize
from sentence_transformers.search.inverted_index import SparseRows, sparse_rows

CLASSES = {one.model_type: one for one in (SentenceTransformer, SparseEncoder, CrossEncoder)}
PROBES = ("", "The quick brown fox jumps over the lazy dog, 42 times.", "Ünïcode – 東京 🙂 naïve")


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
        if task.fingerprint is not None and fingerprint(self.model) != task.fingerprint:
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
            return sparse_rows(self.model.encode(texts, save_to_cpu=True, **given))
        vectors = self.model.encode(texts, **given)
        return quantize(vectors.astype(np.float32), self.task.precision, self.task.ranges)  # type: ignore[arg-type]

    def count_tokens(self, texts: list[Any]) -> int:
        """Tokens of the texts; 0 if the model's input module does not say. Costs about 1 % of encoding them."""
        module = engine.input_module(self.model, "document")
        return int(module.tokens(texts, None).offsets[-1]) if texts and hasattr(module, "tokens") else 0

    def write(self, unit: sources.Unit, records: Sequence[sources.Record], vectors: Any) -> dict[str, Any]:
        """Put the vectors in their place; size and checksum of a shard. Without any record there is none."""
        if not records:  # nothing to say, not even the type of the ids
            return {}
        if not isinstance(self.task.output, str):
            metadata = [record.metadata for record in records]
            rows = vectors.to_tensor() if isinstance(vectors, SparseRows) else vectors
            self.task.output.write([([record.id for record in records], rows, metadata)])
            return {}
        path = Path(self.task.output, shard_name(unit.number))
        draft = path.with_name(f"{path.name}.{uuid.uuid4().hex}.draft")
        try:
            with draft.open("wb") as file:
                sources.parquet().write_table(table(records, vectors), file, compression="zstd", use_dictionary=False)
                file.flush()
                os.fsync(file.fileno())
            entry = {"size": draft.stat().st_size, "sha256": sources.checksum(str(draft))}
            draft.replace(path)
            sync_folder(path.parent)
        finally:
            draft.unlink(missing_ok=True)
        return entry


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


def fingerprint(model: Any) -> str:
    """SHA-256 over what makes a model's vectors: class, modules, settings, weights, and how it cuts some texts."""
    digest = hashlib.sha256(f"{type(model).__name__}\n{model!r}\n".encode())
    settings = {name: value for name, value in model.get_saved_config().items() if name != "__version__"}
    digest.update(json.dumps([settings, model.max_seq_length], sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        data = tensor.detach().cpu().contiguous()
        digest.update(data.reshape(-1).view(torch.uint8).numpy().data if data.numel() else b"")
    module = engine.input_module(model, "document")
    if hasattr(module, "tokens"):
        digest.update(module.tokens(list(PROBES), None).ids.tobytes())
    return digest.hexdigest()


def table(records: Sequence[sources.Record], vectors: Any) -> Any:
    """Ids and vectors as an Arrow table.

    id: int64 or string. embedding: a list of fixed length (float32, int8, uint8). Sparse: indices (list of int32) and
    values (list of float32). Scores: score, a float32, or a list of fixed length for several labels.
    """
    import pyarrow as pa

    columns = {"id": pa.array([record.id for record in records])}
    if isinstance(vectors, SparseRows):
        starts = pa.array(vectors.starts.astype(np.int32))
        columns["indices"] = pa.ListArray.from_arrays(starts, pa.array(vectors.terms.astype(np.int32)))
        columns["values"] = pa.ListArray.from_arrays(starts, pa.array(vectors.values.astype(np.float32)))
    elif vectors.ndim == 1:
        columns["score"] = pa.array(vectors.astype(np.float32))
    else:
        flat = pa.array(np.ascontiguousarray(vectors).reshape(-1))
        columns["embedding"] = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
    return pa.table(columns)
