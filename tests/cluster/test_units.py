"""Encoding on many machines, without Ray: files cut into units, a worker's unit, a job's folder, the arithmetic."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from sentence_transformers.databases import QdrantDatabase

from sentence_transformers import CrossEncoder, SentenceTransformer, SparseEncoder
from sentence_transformers.cli.ray import with_address
from sentence_transformers.cluster import encode_dataset, estimate, ray_cluster, sources
from sentence_transformers.cluster.encode import in_words, kind_of
from sentence_transformers.cluster.job import Folder, shard_name
from sentence_transformers.cluster.sources import Columns, Record, Reject
from sentence_transformers.cluster.worker import Task, Worker
from sentence_transformers.engine import engine
from sentence_transformers.errors import InputError, MissingExtraError
from sentence_transformers.modules.text_input import TextInput
from sentence_transformers.quantization import quantize_embeddings
from sentence_transformers.storage.fingerprint import of_model
from tests.fake_gpu import FakeGPU
from tests.golden import score_models
from tests.models import TEXTS

ROWS: list[dict[str, Any]] = [
    {"id": f"k{n}", "text": text, "n": n}
    for n, text in enumerate([*TEXTS, 'two\nlines, "quoted"', "\n", ",", '"', "ü" * 500, "a\r\nb"])
]


def write(kind: str, path: Path, rows: list[dict[str, Any]] = ROWS) -> Path:
    """Rows as a file of each format."""
    file = path / f"rows.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), file, row_group_size=7)
    elif kind == "jsonl":
        file.write_text("\n".join(json.dumps(row, ensure_ascii=bool(row["n"] % 2)) for row in rows), encoding="utf-8")
    else:
        with file.open("w", encoding="utf-8-sig", newline="") as stream:
            writer = csv.DictWriter(stream, ["id", "text", "n"], quoting=csv.QUOTE_ALL)
            writer.writeheader()
            writer.writerows(rows)
    return file


KINDS = pytest.mark.parametrize("kind", ["parquet", "jsonl", "csv"])


@KINDS
@pytest.mark.parametrize("shard_rows", [1, 4, 10, 1000])
@pytest.mark.parametrize("block", [3, 2**22])
def test_units_are_all_rows_once(
    kind: str, shard_rows: int, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In order, wherever the file is cut and however large the blocks are in which it is looked through."""
    monkeypatch.setattr(sources, "BLOCK", block)
    found = sources.survey(str(write(kind, tmp_path)), shard_rows)
    units = sources.units_of([found])
    assert found.columns == ["id", "text", "n"] and found.rows == len(ROWS)
    assert found.sha256 == sources.sha256_of(found.path) and found.size == Path(found.path).stat().st_size
    assert [unit.rows for unit in units[:-1]] == [shard_rows] * (len(units) - 1)
    assert [unit.first for unit in units] == list(range(0, len(ROWS), shard_rows))
    rows = [row for unit in units for row in sources.read(unit, Columns(("text",), "id", ("n",)), found.columns)]
    number = str if kind == "csv" else int
    assert rows == [Record(row["id"], row["text"], {"n": number(row["n"])}) for row in ROWS]
    plain = [row for unit in units for row in sources.read(unit, Columns(("text", "id")), found.columns)]
    assert plain == [Record(n, (row["text"], row["id"]), {}) for n, row in enumerate(ROWS)]


def test_several_files_are_numbered_through(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        write("jsonl", tmp_path / name)
    found = [sources.survey(path, 10) for path in sources.find_files(f"{tmp_path}/*/rows.jsonl")]
    units = sources.units_of(found)
    ids = [row.id for unit in units for row in sources.read(unit, Columns(("text",)), ["id", "text"])]
    assert ids == list(range(2 * len(ROWS))) and [unit.number for unit in units] == list(range(len(units)))


BAD_LINES = [
    ('{"id": 1, "text": null}', "'text' is null"),
    ('{"id": 1}', "there is no 'text'"),
    ('{"id": 1, "text": 7}', "'text' is 7 of type int"),
    ('{"id": 1, "text": ["a"]}', "of type list"),
    ('{"id": null, "text": "a"}', "the id is None"),
    ('{"id": true, "text": "a"}', "the id is True"),
    ('{"text": "a"', "the line is no JSON"),
    ("[1]", "the line is a JSON list"),
    ('{"id": 1, "text": "\\ud800"}', "not valid Unicode"),
    (b'{"id": 1, "text": "\xff"}', "the line is no JSON"),
]


def test_rows_that_are_rejected(tmp_path: Path) -> None:
    """Each for its reason, under its id or number; the others are not touched, and blank lines are no rows."""
    lines = [line if isinstance(line, bytes) else line.encode() for line, _ in BAD_LINES]
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b'{"id": 5, "text": ""}\n' + b"\n".join(lines) + b'\n\n{"id": 6, "text": "x"}\n\n')
    found = sources.survey(str(file), 4)
    rows = [
        r for unit in sources.units_of([found]) for r in sources.read(unit, Columns(("text",), "id"), found.columns)
    ]
    assert [row for row in rows if isinstance(row, Record)] == [Record(5, "", {}), Record(6, "x", {})]
    rejects = [row for row in rows if isinstance(row, Reject)]
    assert len(rejects) == len(BAD_LINES)
    for number, (reject, (_, words)) in enumerate(zip(rejects, BAD_LINES, strict=True), 1):
        assert words in reject.reason
        assert reject.id in (1, number)


def test_csv_rows_that_are_rejected(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_bytes(b"id,text\n1,fine\n2,too,many\n3\n\n4,\xff\n5,\n")
    found = sources.survey(str(file), 100)
    rows = list(sources.read(sources.units_of([found])[0], Columns(("text",), "id"), found.columns))
    assert rows == [
        Record("1", "fine", {}),
        Reject(1, "the row has 3 fields, the header 2"),
        Reject(2, "the row has 1 fields, the header 2"),
        Reject("4", "'text' is not valid Unicode"),
        Record("5", "", {}),
    ]


def test_random_csv_files_are_cut_where_records_end(tmp_path: Path) -> None:
    """Against Python's csv module, for texts full of quotes and line ends."""
    random = np.random.RandomState(0)
    for seed in range(10):
        texts = ["".join(random.choice(list('a"\n, \r'), random.randint(0, 12))) for _ in range(40)]
        stream = io.StringIO(newline="")
        writer = csv.writer(stream, quoting=csv.QUOTE_ALL)
        writer.writerows([["text"], *([text] for text in texts)])
        file = tmp_path / f"{seed}.csv"
        file.write_text(stream.getvalue(), newline="")
        found = sources.survey(str(file), 7)
        rows = [row for unit in sources.units_of([found]) for row in sources.read(unit, Columns(("text",)), ["text"])]
        assert [row.text for row in rows] == texts


@pytest.mark.parametrize("shard_rows", [1, 3, 100])
def test_any_text_is_cut_as_the_csv_module_reads_it(shard_rows: int, tmp_path: Path) -> None:
    """Quotes inside fields, quotes that are not closed, and line ends of all three kinds."""
    random = np.random.RandomState(1)
    for seed in range(60):
        body = "".join(random.choice(list('ab"",,\n\n\ré'), random.randint(0, 60)))
        text = random.choice(["", "\ufeff"]) + random.choice(["x,y\n", '"x","y"\r\n']) + body
        file = tmp_path / f"{seed}.csv"
        file.write_bytes(text.encode())
        _, *expected = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""))
        found = sources.survey(str(file), shard_rows)
        units = sources.units_of([found])
        rows = [list(sources.read(unit, Columns(("x",)), found.columns)) for unit in units]
        assert found.columns == ["x", "y"] and sum(unit.rows for unit in units) == len(expected)
        places = [number for number, fields in enumerate(expected) if fields]  # others are blank lines
        assert [row.id for part in rows for row in part] == places
        texts = [row.text for part in rows for row in part if isinstance(row, Record)]
        assert texts == [fields[0] for fields in expected if len(fields) == 2]


def test_quotes_inside_of_fields_and_ids_of_several_files(tmp_path: Path) -> None:
    lines = ["text,n", *(f'{i}" pipe,{i}' for i in range(8))]
    for name in "ab":
        (tmp_path / f"{name}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    found = [sources.survey(path, 3) for path in sources.find_files(str(tmp_path))]
    units = sources.units_of(found)
    assert [unit.rows for unit in units] == [3, 3, 2, 3, 3, 2]
    rows = [row for unit in units for row in sources.read(unit, Columns(("text",)), ["text", "n"])]
    assert rows == [Record(i, f'{i % 8}" pipe', {}) for i in range(16)]


def test_long_fields_of_csv(tmp_path: Path) -> None:
    limit = csv.field_size_limit()
    long = "word " * 40_000
    file = tmp_path / "rows.csv"
    file.write_text(f'text\n"{long}"\nshort\n', encoding="utf-8")
    found = sources.survey(str(file), 1)
    rows = [row for unit in sources.units_of([found]) for row in sources.read(unit, Columns(("text",)), ["text"])]
    assert rows == [Record(0, long, {}), Record(1, "short", {})] and csv.field_size_limit() == limit


@KINDS
def test_a_file_that_changed_since_it_was_counted(kind: str, tmp_path: Path) -> None:
    file = write(kind, tmp_path)
    found = sources.survey(str(file), 1000)
    write(kind, tmp_path, ROWS[: len(ROWS) // 2])
    with pytest.raises(OSError, match=f"has changed: unit 0 has .*{len(ROWS)} were counted"):
        list(sources.read(sources.units_of([found])[0], Columns(("text",), "id"), found.columns))


# ---- a worker


def task_of(
    path: Path, folder: Path, kind: str, columns: Columns, output: Any, **settings: Any
) -> tuple[Task, list[Any]]:
    """A task over one file, and its units."""
    found = sources.survey(str(path), 10)
    task = Task(str(folder), kind, None, columns, {found.path: found.columns}, output, **settings)
    return task, sources.units_of([found])


def run(task: Task, units: list[Any]) -> list[dict[str, Any]]:
    worker = Worker(task)
    answers = worker({"unit": [unit.json() for unit in units]})["done"]
    return [json.loads(answer) for answer in answers]


def shards(folder: Path, count: int) -> pa.Table:
    return pa.concat_tables([pq.read_table(folder / shard_name(n)) for n in range(count)])


@pytest.mark.parametrize("precision", ["float32", "int8", "uint8", "binary", "ubinary"])
def test_shards_hold_what_encode_gives(precision: Any, bert_folder: Path, tmp_path: Path) -> None:
    model = SentenceTransformer(str(bert_folder), device="cpu")
    texts = [row["text"] for row in ROWS]
    vectors = model.encode_document(texts)
    ranges = np.stack([vectors.min(0), vectors.max(0)])
    file = write("jsonl", tmp_path)
    settings = {"precision": precision, "ranges": ranges, "threads": torch.get_num_threads()}
    task, units = task_of(file, bert_folder, "SentenceTransformer", Columns(("text",), "id"), str(tmp_path), **settings)
    done = run(task, units)
    table = shards(tmp_path, len(units))
    assert table["id"].to_pylist() == [row["id"] for row in ROWS]
    expected = quantize_embeddings(vectors, precision, ranges)
    found = np.stack(table["embedding"].to_numpy(zero_copy_only=False))
    assert found.dtype == expected.dtype
    tolerance = 1e-5 if precision == "float32" else 1  # a code may move by one with the last digit of a float
    np.testing.assert_allclose(found.astype(float), expected.astype(float), atol=tolerance)
    assert sum(entry["rows"] for entry in done) == len(ROWS) and not any(entry["rejects"] for entry in done)
    assert sum(entry["tokens"] for entry in done) == model[0].tokens(texts, None).offsets[-1]
    for entry in done:
        path = tmp_path / shard_name(entry["unit"])
        assert (entry["size"], entry["sha256"]) == (path.stat().st_size, sources.sha256_of(str(path)))
    assert not list(tmp_path.glob(".*"))


def test_scores_of_pairs(bert_folder: Path, tmp_path: Path) -> None:
    model = CrossEncoder(str(bert_folder), device="cpu", num_labels=1)
    model.save_pretrained(str(tmp_path / "model"))
    file, kind = write("parquet", tmp_path), kind_of(str(tmp_path / "model"), {})
    task, units = task_of(file, tmp_path / "model", kind, Columns(("text", "id")), str(tmp_path))
    assert task.kind == "CrossEncoder"
    run(task, units)
    expected = model.predict([(row["text"], row["id"]) for row in ROWS])
    table = shards(tmp_path, len(units))
    column = "score" if expected.ndim == 1 else "embedding"
    np.testing.assert_allclose(np.stack(table[column].to_numpy()), expected, atol=1e-5)
    assert table["id"].to_pylist() == list(range(len(ROWS)))


def test_sparse_shards(bert_folder: Path, tmp_path: Path) -> None:
    model = SparseEncoder(str(bert_folder), device="cpu", max_active_dims=6)
    model.save_pretrained(str(tmp_path / "model"))
    assert kind_of(str(tmp_path / "model"), {}) == "SparseEncoder"
    task, units = task_of(
        write("csv", tmp_path), tmp_path / "model", "SparseEncoder", Columns(("text",), "id"), str(tmp_path)
    )
    run(task, units)
    table = shards(tmp_path, len(units))
    dense = np.zeros((len(ROWS), model.get_embedding_dimension() or 0))
    for row, (indices, values) in enumerate(
        zip(table["indices"].to_pylist(), table["values"].to_pylist(), strict=True)
    ):
        assert len(indices) <= 6
        dense[row, indices] = values
    expected = model.encode_document([row["text"] for row in ROWS], convert_to_sparse_tensor=False)
    np.testing.assert_allclose(dense, expected, atol=1e-5)


def test_into_a_database(bert_folder: Path, tmp_path: Path) -> None:
    with QdrantDatabase("x", location=":memory:") as database:
        columns = Columns(("text",), "id", ("n", "text"))
        task, units = task_of(write("jsonl", tmp_path), bert_folder, "SentenceTransformer", columns, database)
        assert all("size" not in entry for entry in run(task, units))
        run(task, units)  # twice is the same
        assert database.count() == len(ROWS)
        vectors = SentenceTransformer(str(bert_folder), device="cpu").encode_document([row["text"] for row in ROWS])
        hits = [found[0] for found in database.search(vectors, top_k=1)]
        assert [hit.score for hit in hits] == pytest.approx([1] * len(ROWS), abs=1e-5)
        assert hits[3].text == ROWS[3]["text"] and hits[3].metadata == {"n": 3}


def test_a_full_disk_is_no_shard(bert_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left of what could not be written, and the answer says why."""
    file = write("jsonl", tmp_path)
    task, units = task_of(file, bert_folder, "SentenceTransformer", Columns(("text",)), str(tmp_path))
    before = sorted(tmp_path.iterdir())

    def full(table: Any, stream: Any, **settings: Any) -> None:
        stream.write(b"begun")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    (answer,) = run(task, units[:1])
    assert answer == {"unit": 0, "error": "OSError: [Errno 28] No space left on device"}
    assert sorted(tmp_path.iterdir()) == before


def test_units_without_any_record(bert_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": null}\n' * 3)
    task, units = task_of(
        tmp_path / "rows.jsonl", bert_folder, "SentenceTransformer", Columns(("text",)), str(tmp_path)
    )
    (answer,) = run(task, units)
    assert [key for key, _ in answer["rejects"]] == [0, 1, 2] and "size" not in answer


def test_another_model_is_noticed(bert_folder: Path, folder_of: Callable[[str], Path], tmp_path: Path) -> None:
    model = SentenceTransformer(str(bert_folder), device="cpu")
    own = of_model(model)
    assert own == of_model(SentenceTransformer(str(bert_folder), device="cpu"))
    model.encode(TEXTS)
    assert own == of_model(model)
    model.max_seq_length = 20
    changed = {own, of_model(model), of_model(SentenceTransformer(str(folder_of("roberta")), device="cpu"))}
    model.max_seq_length = 64
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] += 1e-3
    assert len(changed | {of_model(model)}) == 4
    file = write("jsonl", tmp_path)
    task, _ = task_of(file, bert_folder, "SentenceTransformer", Columns(("text",)), str(tmp_path))
    with pytest.raises(InputError, match="is not that of the job"):
        Worker(Task(**{**vars(task), "fingerprint": of_model(model)}))


# ---- the folder of a job


def test_a_journal_that_was_cut_off(tmp_path: Path) -> None:
    """The line that was being written when the machine died does not count, nor does it spoil the next."""
    folder = Folder(tmp_path)
    with folder.journal() as note:
        note({"unit": 0, "rows": 2, "rejects": [["a", "null"], ["b", "null"]]})
        note({"unit": 2, "rows": 1, "rejects": []})
    whole = (tmp_path / "journal.jsonl").read_bytes()
    for cut in range(2, 35):  # without its line end alone a line is whole
        (tmp_path / "journal.jsonl").write_bytes(whole[:-cut])
        assert set(folder.done()) == {0}
        with folder.journal() as note:
            note({"unit": 1, "rows": 3, "rejects": [["c", "ü"]]})
        assert {unit: entry["rejects"] for unit, entry in folder.done().items()} == {0: 2, 1: 1}
    path = folder.write_rejects(folder.done())
    assert path is not None
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert rows == [{"id": key, "reason": why} for key, why in (("a", "null"), ("b", "null"), ("c", "ü"))]


def test_one_job_per_folder(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "job")
    with folder.locked():
        assert folder.manifest() is None
        job = {
            "model": {"fingerprint": "1"},
            "settings": {"columns": ("text",), "shard_rows": 3},
            "source": [{"size": 1}],
        }
        folder.write_manifest(job)
        found = folder.manifest()
        assert found is not None
        folder.check_same(found, job)
        for part, value, words in [
            ("model", {"fingerprint": "2"}, "another model: fingerprint: '1' there, '2' here"),
            ("settings", {"columns": ("text",), "shard_rows": 4}, "other settings: shard_rows: 3 there, 4 here"),
            ("source", [{"size": 2}], "another input: size: 1 there, 2 here"),
        ]:
            with pytest.raises(InputError, match=words):
                folder.check_same(found, {**job, part: value})
        with pytest.raises(InputError, match="Another job is writing"), Folder(tmp_path / "job").locked():
            pass
    (tmp_path / "job" / "manifest.json").write_text("{")
    with pytest.raises(InputError, match="damaged"):
        folder.manifest()
    (tmp_path / "job" / "manifest.json").unlink()
    for name in ("thesis.txt", "input"):  # the user's own, which nothing may write into or remove
        (tmp_path / "job" / name).touch()
        with pytest.raises(InputError, match=f"holds no job of encode_dataset, but '{name}'"):
            folder.manifest()
        (tmp_path / "job" / name).unlink()


# ---- bad input, before Ray is started


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"shard_rows": 0}, "shard_rows must be"),
        ({"workers": 0}, "workers must be"),
        ({"threads": 1.5}, "threads must be"),
        ({"token_budget": 0}, "token_budget must be"),
        ({"gpus": -1}, "gpus must be"),
        ({"max_reject_share": 2}, "max_reject_share"),
        ({"precision": "int4"}, "Unknown precision 'int4'"),
        ({"metadata": ["n"]}, "metadata goes into databases"),
        ({"output": QdrantDatabase("x", location=":memory:")}, "`state` must name a folder"),
        ({"output": QdrantDatabase("x", location=":memory:"), "state": "s"}, "lives in this process"),
        ({"output": QdrantDatabase("x"), "state": "s", "precision": "int8"}, "makes its own form"),
    ],
)
def test_arguments_that_cannot_be_meant(settings: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        encode_dataset("rows.jsonl", "model", **{"output": tmp_path / "out", **settings})
    assert not (tmp_path / "out").exists()


def test_files_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "rows.txt").touch()
    for source, words in [
        (f"{tmp_path}/*.parquet", "no file at"),
        (f"{tmp_path}/rows.txt", "is none of"),
        (str(tmp_path), "no file at"),
        ("s3://bucket/rows.parquet", "is an address"),
    ]:
        with pytest.raises(InputError, match=words):
            sources.find_files(source)
    found = sources.survey(str(write("csv", tmp_path)), 10)
    with pytest.raises(InputError, match="no column 'body'; it has 'id', 'text', 'n'"):
        sources.check_columns([found], Columns(("body",)))


def test_without_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'ray\[data\]'"):
        encode_dataset("rows.jsonl", "model", output=tmp_path / "out")


# ---- sizes


# ---- a whole job, in this process


class Inline:
    """In the place of Ray: everything runs in this process, and what was asked of a cluster is noted."""

    def __init__(self) -> None:
        self.reserved: list[dict[str, Any]] = []
        self.workers: list[int] = []
        self.tasks: list[Task] = []

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 4.0, "GPU": 2.0}

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": {"CPU": 4.0}}]

    def put(self, value: Any) -> Any:
        return value

    @contextlib.contextmanager
    def connected(self, address: str | None) -> Iterator[Inline]:
        yield self

    def on_cluster(self, ray: Any, function: Any, calls: Any, **options: Any) -> list[Any]:
        self.reserved.append(options)
        return [function(*arguments) for arguments in calls]

    def answers(self, ray: Any, worker: Any, task: Task, units: Any, workers: int, resources: Any) -> Iterator[Any]:
        self.workers.append(workers)
        self.tasks.append(task)
        one = worker(task)
        for unit in units:
            yield json.loads(one({"unit": [unit.json()]})["done"][0])


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> Inline:
    inline = Inline()
    for name in ("connected", "on_cluster", "answers"):
        monkeypatch.setattr(ray_cluster, name, getattr(inline, name))
    return inline


def job(source: Path, model: Path, output: Path, **settings: Any) -> np.ndarray:
    """Encode a data set; all vectors, in the order of their ids."""
    done = encode_dataset(str(source), str(model), **{"output": output, "gpus": 0, "threads": 1, **settings})
    parts = [pq.read_table(path) for path in sorted(output.glob("part-*.parquet"))]
    assert done.rows == done.encoded == sum(part.num_rows for part in parts) == len(ROWS)
    return np.stack([row for part in parts for row in part["embedding"].to_numpy(zero_copy_only=False)])


def test_a_token_budget(inline: Inline, bert_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[list[int]] = []
    features = TextInput.features

    def noted(self: Any, tokens: Any, *args: Any, **kwargs: Any) -> Any:
        sizes.append(list(tokens.lengths))
        return features(self, tokens, *args, **kwargs)

    source = write("jsonl", tmp_path)
    expected = job(source, bert_folder, tmp_path / "whole")
    monkeypatch.setattr(TextInput, "features", noted)
    found = job(source, bert_folder, tmp_path / "parts", token_budget=80)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert len(sizes) > 5 and all(sum(lengths) <= 80 or len(lengths) == 1 for lengths in sizes)
    assert max(map(len, sizes)) > 1


def test_a_token_budget_holds_for_both_routes(tmp_path: Path) -> None:
    score_models.SPARSE["inference_free"](tmp_path)
    task = Task(str(tmp_path), "SparseEncoder", None, Columns(("text",)), {}, "", token_budget=80)
    model = Worker(task).model
    assert [engine.input_module(model, task).token_budget for task in ("query", "document")] == [80, 80]


def test_gpus_of_a_worker(inline: Inline, bert_folder: Path, tmp_path: Path) -> None:
    source = write("jsonl", tmp_path)
    expected = job(source, bert_folder, tmp_path / "cpu", workers=3)
    assert inline.reserved[1:2] == [{"num_cpus": 1}] and inline.tasks[0].device == "cpu" and inline.workers == [1]
    with FakeGPU("cuda") as seen:
        found = job(source, bert_folder, tmp_path / "gpu", gpus=0.5, shard_rows=2, workers=None)
    assert inline.reserved[-2] == {"num_cpus": 1, "num_gpus": 0.5} and inline.tasks[1].device == "cuda"
    assert inline.workers[1] == 4  # two GPUs of two halves
    assert seen.kernels
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_ranges_of_bytes(inline: Inline, bert_folder: Path, tmp_path: Path) -> None:
    source = write("jsonl", tmp_path)
    vectors = job(source, bert_folder, tmp_path / "float32")
    given = np.stack([vectors.min(0) - 1, vectors.max(0) + 1])
    codes = job(source, bert_folder, tmp_path / "given", precision="uint8", ranges=given)
    assert np.array_equal(codes, quantize_embeddings(vectors, "uint8", ranges=given))
    found = job(source, bert_folder, tmp_path / "found", precision="uint8")
    own = np.stack([vectors.min(0), vectors.max(0)])  # all rows are a sample here
    np.testing.assert_allclose(found.astype(int), quantize_embeddings(vectors, "uint8", ranges=own), atol=1)


@pytest.mark.parametrize(
    ("settings", "same"),
    [
        ({"model_kwargs": {"truncate_dim": 8}}, lambda model, texts: model.encode_document(texts)[:, :8]),
        ({"normalize_embeddings": True}, lambda model, texts: model.encode_document(texts, normalize_embeddings=True)),
        ({"prompt": "a: "}, lambda model, texts: model.encode([f"a: {text}" for text in texts])),
        ({"kind": "SentenceTransformer", "batch_size": 2}, lambda model, texts: model.encode_document(texts)),
    ],
)
def test_arguments_of_model_and_encode(
    inline: Inline, bert_folder: Path, tmp_path: Path, settings: dict[str, Any], same: Any
) -> None:
    expected = same(SentenceTransformer(str(bert_folder), device="cpu"), [row["text"] for row in ROWS])
    np.testing.assert_allclose(
        job(write("csv", tmp_path), bert_folder, tmp_path / "out", **settings), expected, atol=1e-5
    )


def test_queries_and_documents(inline: Inline, bert_folder: Path, tmp_path: Path) -> None:
    model = SentenceTransformer(str(bert_folder), device="cpu", prompts={"query": "q: ", "document": "d: "})
    model.save_pretrained(str(tmp_path / "model"))
    source, texts = write("jsonl", tmp_path), [row["text"] for row in ROWS]
    for task, encode in ((None, model.encode_document), ("query", model.encode_query), ("plain", model.encode)):
        settings = {} if task is None else {"task": task}
        found = job(source, tmp_path / "model", tmp_path / str(task), **settings)
        np.testing.assert_allclose(found, encode(texts), atol=1e-5)


def test_a_progress_bar(inline: Inline, bert_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write("jsonl", tmp_path)
    job(source, bert_folder, tmp_path / "quiet", show_progress_bar=False)
    assert capsys.readouterr().err == ""
    job(source, bert_folder, tmp_path / "shown", show_progress_bar=True)
    assert f"{len(ROWS)}/{len(ROWS)}" in capsys.readouterr().err


def test_arguments_that_look_alike(inline: Inline, bert_folder: Path, tmp_path: Path) -> None:
    """A job goes on only with the same arguments; the `repr` of these two is the same."""
    first, second = np.zeros(5000), np.zeros(5000)
    second[2500] = 1
    assert repr(first) == repr(second) and in_words(first) != in_words(second)
    assert in_words(first) == in_words(first.copy()) and in_words("a") == "'a'"


def test_estimate_is_its_formula() -> None:
    found = estimate(10_000_000, 120, 4000, dimension=384, cores=32, sparse_values=100)
    assert found.core_hours == pytest.approx(10_000_000 * 120 / 4000 / 3600)
    assert found.hours == pytest.approx(found.core_hours / 32)
    assert found.storage == {
        "float32": 10_000_000 * (1536 + 8),
        "float16": 10_000_000 * (768 + 8),
        "int8": 10_000_000 * (384 + 8),
        "binary": 10_000_000 * (48 + 8),
        "sparse": 10_000_000 * (800 + 8),
    }
    assert found.worker_memory == pytest.approx(0.4e9 + 90e6 + 10_000 * (4 * 384 + 6 * 120))
    with pytest.raises(InputError, match="tokens_per_second must be positive, got 0"):
        estimate(1, 1, 0)


def test_an_option_with_or_without_an_address() -> None:
    for line, expected in [
        ("encode a --ray", "encode a --ray local"),
        ("encode --ray a.csv -o b", "encode --ray local a.csv -o b"),
        ("encode a --ray head:6379 -o b", "encode a --ray head:6379 -o b"),
        ("encode a --ray ray://10.0.0.1:10001", "encode a --ray ray://10.0.0.1:10001"),
        ("encode --ray auto a --quiet", "encode --ray auto a --quiet"),
        ("encode a --ray --quiet", "encode a --ray local --quiet"),
        ("encode a --ray=head:1", "encode a --ray=head:1"),
    ]:
        assert with_address(line.split()) == expected.split()
