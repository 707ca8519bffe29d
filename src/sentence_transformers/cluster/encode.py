"""Encode a data set on Ray: the same engine in many processes, on one machine or on hundreds.

    source → units → workers (Ray Data, one model each) → shards of vectors, or a database
                              ↓
                    journal → progress, resuming, rejects

A job that stops, however, goes on when it is called again with the same arguments: units that are done stay, the others
are done. See `cluster.sources` for what is read, `cluster.job` for the folder, `cluster.worker` for a unit.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sentence_transformers.cluster import ray_cluster, sources, staging
from sentence_transformers.cluster.job import INPUT, Folder, shard_name
from sentence_transformers.cluster.worker import Task, Worker, load
from sentence_transformers.connectors.common import Database
from sentence_transformers.engine.progress import progress_bar
from sentence_transformers.errors import InputError, WorkerError
from sentence_transformers.quantization import PRECISIONS, find_ranges
from sentence_transformers.storage.files import sha256_of
from sentence_transformers.storage.fingerprint import of_model

if TYPE_CHECKING:
    from types import ModuleType
    from typing import TypeAlias

    from sentence_transformers.cluster.staging import AnyDataset
    from sentence_transformers.encoders.base import BaseModel
    from sentence_transformers.util.tensor import ArrayLike

    DataSource: TypeAlias = str | os.PathLike[str] | AnyDataset

KINDS = ("SentenceTransformer", "SparseEncoder", "CrossEncoder")
THREADS = 4
CALIBRATION_ROWS = 2000


class Summary(NamedTuple):
    """What a job did.

    Attributes:
        rows: of the source.
        encoded: that have a vector now; `kept` of them from an earlier call.
        rejected: that have none; `rejects` is the file that says why, None without any.
        tokens, seconds: of this call, counted from when the first worker has its model.
        output: the folder, or the name of the collection.
    """

    rows: int
    encoded: int
    kept: int
    rejected: int
    tokens: int
    seconds: float
    output: str
    rejects: str | None

    @property
    def texts_per_second(self) -> float:
        return (self.encoded - self.kept) / self.seconds if self.seconds else 0.0

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds if self.seconds else 0.0


def encode_dataset(
    source: DataSource,
    model: str | os.PathLike[str] | BaseModel,
    *,
    output: str | os.PathLike[str] | Database,
    column: str | Sequence[str] = "text",
    id_column: str | None = None,
    metadata: Sequence[str] = (),
    state: str | os.PathLike[str] | None = None,
    kind: str | None = None,
    precision: str = "float32",
    ranges: ArrayLike | None = None,
    shard_rows: int = 10_000,
    workers: int | None = None,
    threads: int | None = None,
    gpus: float | None = None,
    token_budget: int | None = None,
    address: str | None = None,
    max_reject_share: float = 0.01,
    model_kwargs: dict[str, Any] | None = None,
    show_progress_bar: bool | None = None,
    **encode_kwargs: Any,
) -> Summary:
    """Encode, or score, every row of a data set once, and write the vectors.

    Args:
        source: path, folder or glob of Parquet, JSON lines or CSV that all machines see; a Ray Dataset; a Hugging Face
            data set.
        model: name or folder, which each machine loads for itself, or the model.
        output: a folder that all machines see, for shards `part-000000.parquet`, …; or a database.
        column: of the texts; for a CrossEncoder the two columns of its pairs.
        id_column: of the ids, integers or strings; by default the number of the row is its id.
        metadata: columns that go along into a database.
        state: folder of the journal where the output is a database.
        kind: "SentenceTransformer", "SparseEncoder" or "CrossEncoder"; by default what the model says.
        precision: of dense vectors, as for `quantize_embeddings`. `ranges` (2, H) for "int8" and "uint8"; by default of
            a sample of the source.
        shard_rows: rows of a unit of work, which are a shard.
        workers: processes, each with a model; by default as many as the cluster's cores or GPUs allow.
        threads: cores of each; by default 4, or all of a smaller machine.
        gpus: GPUs of each; by default 1 if the cluster has any.
        token_budget: tokens per micro-batch; by default what suits the device.
        address: of a Ray cluster, "host:port", "ray://host:port" or "auto"; None: Ray as it is connected already, else
            one on this machine for the time of the call.
        max_reject_share: the job stops if more than this share of all rows cannot be encoded.
        model_kwargs: for the class of the model, e.g. {"trust_remote_code": True}.
        show_progress_bar: default: shown if this package's logger is at INFO or below.
        **encode_kwargs: for `encode` or `predict`, e.g. `normalize_embeddings`, `batch_size`, `prompt_name`. Texts are
            encoded as documents, with `task="query"` as queries, with `task="plain"` as neither.

    Raises:
        InputError: for arguments that cannot be meant, a missing column, an address that does not answer, a folder that
            holds something else, too many rejects; for a model or source other than when the job was begun.
        WorkerError: if a unit cannot be read or written, e.g. because the disk is full. What is done stays done.
        MissingExtraError: without Ray.

    Example:
        >>> encode_dataset("corpus/*.parquet", "all-MiniLM-L6-v2", column="text", output="vectors")
    """
    text = (column,) if isinstance(column, str) else tuple(column)
    if isinstance(model, (str, os.PathLike)):
        model = str(Path(model).resolve()) if Path(model).exists() else str(model)  # workers stand in other folders
    columns = sources.Columns(text, id_column, tuple(metadata))
    check_arguments(
        output, state, precision, shard_rows, workers, threads, gpus, token_budget, max_reject_share, columns
    )
    folder = Folder(str(state) if isinstance(output, Database) else output)
    with folder.locked(), ray_cluster.connected(address) as ray:
        manifest = folder.manifest()
        threads, workers, resources = shares(ray, threads, workers, gpus)
        kind = kind or kind_of(model, model_kwargs or {})
        check_kind(kind, text, precision, output)
        task = Task(
            model=model if isinstance(model, str) else ray.put(model),
            kind=kind,
            fingerprint=None,
            columns=columns,
            file_columns={},
            output=output if isinstance(output, Database) else str(folder.path.resolve()),
            threads=threads,
            token_budget=token_budget,
            device="cuda" if resources.get("num_gpus") else "cpu",
            precision=precision,
            model_kwargs=model_kwargs or {},
            encode_kwargs=encode_kwargs,
        )
        paths = files_of(source, folder, columns, shard_rows)
        surveys = ray_cluster.on_cluster(ray, sources.survey, [(path, shard_rows) for path in paths])
        sources.check_columns(surveys, columns)
        units = sources.units_of(surveys)
        task = replace(task, file_columns={one.path: one.columns for one in surveys})
        print_, found = probe_on_cluster(ray, task, units, manifest, ranges, resources)
        job = describe(task, print_, found, surveys, shard_rows)
        if manifest is None:
            folder.write_manifest(job)
        else:
            folder.check_same(manifest, job)
            found = manifest["ranges"]
        task = replace(task, fingerprint=print_, ranges=None if found is None else np.array(found, np.float32))
        return run(ray, folder, task, units, workers, resources, max_reject_share, show_progress_bar)


# ---- before the first unit


def check_arguments(
    output: str | os.PathLike[str] | Database,
    state: str | os.PathLike[str] | None,
    precision: str,
    shard_rows: int,
    workers: int | None,
    threads: int | None,
    gpus: float | None,
    token_budget: int | None,
    max_reject_share: float,
    columns: sources.Columns,
) -> None:
    """`InputError` for arguments that cannot be meant."""
    sizes = {"shard_rows": shard_rows, "workers": workers, "threads": threads, "token_budget": token_budget}
    for name, value in sizes.items():
        if value is not None and (not isinstance(value, int) or value < 1):
            raise InputError(f"{name} must be a whole number of at least 1, got {value!r}.")
    if gpus is not None and not gpus >= 0:
        raise InputError(f"gpus must be a number of at least 0, got {gpus!r}.")
    if not 0 <= max_reject_share <= 1:
        raise InputError(f"max_reject_share must be between 0 and 1, got {max_reject_share!r}.")
    if precision not in PRECISIONS:
        raise InputError(f"Unknown precision {precision!r}; known are {', '.join(PRECISIONS)}.")
    if not isinstance(output, Database):
        if columns.metadata:
            raise InputError("metadata goes into databases; shards have ids, by which it can be found in the source.")
        return
    if state is None:
        raise InputError("With a database as output, `state` must name a folder for the journal of the job.")
    if not output.shared:
        raise InputError(f"{output!r} lives in this process; workers need a database that they can reach.")
    if precision not in ("float32", output.precision):
        raise InputError(f"{output!r} makes its own form of the vectors; leave precision at 'float32'.")


def check_kind(kind: str, text: tuple[str, ...], precision: str, output: str | os.PathLike[str] | Database) -> None:
    """`InputError` if columns, precision or output do not fit the kind of model."""
    if kind not in KINDS:
        raise InputError(f"Unknown kind of model {kind!r}; known are {', '.join(KINDS)}.")
    wanted = 2 if kind == "CrossEncoder" else 1
    if len(text) != wanted:
        raise InputError(f"A {kind} takes {wanted} column{'s' * (wanted > 1)} of text, got column={text!r}.")
    if kind != "SentenceTransformer" and precision != "float32":
        raise InputError(f"A {kind} writes float32 only, got precision={precision!r}.")
    if isinstance(output, Database) and (
        kind == "CrossEncoder" or (kind == "SparseEncoder") != (output.precision == "sparse")
    ):
        raise InputError(f"What a {kind} gives does not go into {output!r}.")


def shares(
    ray: ModuleType, threads: int | None, workers: int | None, gpus: float | None
) -> tuple[int, int, dict[str, float]]:
    """Threads of a worker, number of workers, and what each reserves of a machine."""
    total = ray.cluster_resources()
    cores = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    gpus = gpus if gpus is not None else float(total.get("GPU", 0) > 0)
    threads = threads or max(1, min([THREADS, *(count for count in cores if count)]))
    if threads > max(cores, default=0):
        raise InputError(f"threads={threads}, but the largest machine has {max(cores, default=0)} cores.")
    fits = int(total["GPU"] // gpus) if gpus else sum(count // threads for count in cores)
    resources = {"num_cpus": threads} | ({"num_gpus": gpus} if gpus else {})
    return threads, workers or max(1, fits), resources


def kind_of(model: str | BaseModel, model_kwargs: dict[str, Any]) -> str:
    """The kind of a model, or what a saved one says of itself."""
    if not isinstance(model, str):
        kind = next((one.__name__ for one in type(model).__mro__ if one.__name__ in KINDS), None)
        if kind is None:
            raise InputError(f"The model is a {type(model).__name__}; expected a name, or one of {', '.join(KINDS)}.")
        return kind
    from sentence_transformers.storage import folder, resolve
    from sentence_transformers.storage.files import Source

    names = ("token", "cache_folder", "revision", "local_files_only")
    asked = Source(model, **{name: model_kwargs[name] for name in names if name in model_kwargs})
    source = resolve.resolve(asked, "sentence-transformers")
    saved = folder.read_config(source).get("model_type")
    architectures = (source.json("config.json") or {}).get("architectures") or [""]
    plain = "CrossEncoder" if architectures[0].endswith("ForSequenceClassification") else "SentenceTransformer"
    return str(saved or ("SparseEncoder" if architectures[0].endswith("ForMaskedLM") else plain))


def files_of(source: DataSource, folder: Folder, columns: sources.Columns, shard_rows: int) -> list[str]:
    """The files of a source; a data set is put into some first."""
    if isinstance(source, (str, os.PathLike)):
        return sources.find_files(os.fspath(source))
    if staging.is_dataset(source):
        return staging.spool(source, folder.path / INPUT, columns, shard_rows)
    raise InputError(f"`source` must be a path, a Ray Dataset or a Hugging Face data set, got {type(source).__name__}.")


def probe_on_cluster(
    ray: ModuleType,
    task: Task,
    units: list[sources.Unit],
    manifest: dict[str, Any] | None,
    ranges: ArrayLike | None,
    resources: dict[str, float],
) -> tuple[str, list[list[float]] | None]:
    """The model's fingerprint and the ranges of its vectors, from a machine of the cluster."""
    if ranges is None and manifest is not None and manifest["ranges"] is not None:
        ranges = manifest["ranges"]
    needed = task.precision in ("int8", "uint8") and ranges is None
    sample = [units[i] for i in np.linspace(0, len(units) - 1, min(len(units), 10)).astype(int)] if needed else []
    (answer,) = ray_cluster.on_cluster(ray, probe, [(task, sample)], **resources)
    if task.precision in ("int8", "uint8") and ranges is not None:
        return answer[0], np.asarray(ranges, np.float32).tolist()
    return answer


def probe(task: Task, sample: list[sources.Unit]) -> tuple[str, list[list[float]] | None]:
    """Load the model; its fingerprint, and the ranges of the vectors of a sample of the rows."""
    model = load(task)
    own = of_model(model)
    if not sample:
        return own, None
    texts: list[str] = []
    for unit in sample:
        rows = sources.read(unit, task.columns, task.file_columns[unit.path])
        texts += [row.text for row in rows if isinstance(row, sources.Record)][: CALIBRATION_ROWS // len(sample)]
    worker = Worker(replace(task, precision="float32"))
    return own, find_ranges([worker.encode(texts)], task.precision, None, None).tolist()  # type: ignore[arg-type]


def describe(
    task: Task, own: str, ranges: list[list[float]] | None, surveys: Sequence[sources.Survey], shard_rows: int
) -> dict[str, Any]:
    """The manifest of a job: all that its vectors depend on."""
    return {
        "model": {"kind": task.kind, "fingerprint": own},
        "settings": {
            "columns": {"text": task.columns.text, "id": task.columns.id, "metadata": task.columns.metadata},
            "precision": task.precision,
            "shard_rows": shard_rows,
            "output": repr(task.output) if isinstance(task.output, Database) else "shards",
            "encode": {name: in_words(value) for name, value in sorted(task.encode_kwargs.items())},
        },
        "source": [{"name": Path(one.path).name, "size": one.size, "sha256": one.sha256} for one in surveys],
        "rows": sum(one.rows for one in surveys),
        "ranges": ranges,
    }


def in_words(value: object) -> str:
    """An argument, so that two are equal only if they say the same; the `repr` of a large array leaves values out."""
    if hasattr(value, "shape"):
        array = np.ascontiguousarray(value)
        return f"{array.dtype} of shape {array.shape}, sha256 {hashlib.sha256(array.tobytes()).hexdigest()}"
    return repr(value)


# ---- unit after unit


def run(
    ray: ModuleType,
    folder: Folder,
    task: Task,
    units: list[sources.Unit],
    workers: int,
    resources: dict[str, float],
    max_reject_share: float,
    show_progress_bar: bool | None,
) -> Summary:
    """Do the units that are not done, note each, and sum up."""
    folder.sweep()
    done = kept_units(ray, folder)
    left = [unit for unit in units if unit.number not in done]
    total = sum(unit.rows for unit in units)
    kept = sum(entry["rows"] - entry["rejects"] for entry in done.values())
    rejected = sum(entry["rejects"] for entry in done.values())
    check_rejects(folder, done, rejected, total, max_reject_share)
    tokens, begin = 0, 0.0
    with folder.journal() as note, progress_bar(total, show_progress_bar) as advance:
        advance(sum(entry["rows"] for entry in done.values()))
        for entry in ray_cluster.answers(ray, Worker, task, left, min(workers, len(left)), resources) if left else ():
            if "error" in entry:
                raise WorkerError(
                    f"Unit {entry['unit']} of {len(units)} ({shard_name(entry['unit'])}) failed and does not count as "
                    f"done; {len(done)} are done: {entry['error']}. Call again with the same arguments to go on."
                )
            note(entry)
            begin = begin or time.perf_counter() - entry["seconds"]  # when the first worker was ready
            tokens, rejected = tokens + entry["tokens"], rejected + len(entry["rejects"])
            done[entry["unit"]] = {"rows": entry["rows"], "rejects": len(entry["rejects"])}
            advance(entry["rows"], f"{tokens / (time.perf_counter() - begin):,.0f} tokens/s")
            if rejected > max_reject_share * total:
                check_rejects(folder, folder.done(), rejected, total, max_reject_share)
    seconds = time.perf_counter() - begin if left else 0.0
    rejects = folder.write_rejects(folder.done())
    shutil.rmtree(folder.path / INPUT, ignore_errors=True)
    rows = sum(entry["rows"] for entry in done.values())
    place = task.output if isinstance(task.output, str) else task.output.name
    return Summary(rows, rows - rejected, kept, rejected, tokens, seconds, place, str(rejects) if rejects else None)


def kept_units(ray: ModuleType, folder: Folder) -> dict[int, dict[str, Any]]:
    """The units that are done: noted in the journal, and their shards whole by size and checksum."""
    done = {number: entry for number, entry in folder.done().items() if folder.whole(entry)}
    shards = [entry for entry in done.values() if "sha256" in entry]
    calls = [(str(folder.path.resolve() / shard_name(entry["unit"])),) for entry in shards]
    for entry, found in zip(shards, ray_cluster.on_cluster(ray, sha256_of, calls), strict=True):
        if found != entry["sha256"]:
            del done[entry["unit"]]
    return done


def check_rejects(folder: Folder, done: dict[int, Any], rejected: int, total: int, share: float) -> None:
    """`InputError` if too many rows cannot be encoded; the reject file is written first."""
    if rejected > share * total:
        path = folder.write_rejects(done)
        raise InputError(
            f"{rejected:,} of {total:,} rows cannot be encoded, more than max_reject_share={share} allows; {path} has "
            "the id and reason of each. Repair the input, or allow more: what is done so far stays."
        )
