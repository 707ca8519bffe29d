"""Encoding on Ray: one machine, two nodes of which one is killed, a driver that is killed, each source and output.

Most tests share one Ray on this machine; that of two nodes has a cluster of its own (`ray.cluster_utils.Cluster`),
which is several nodes, each with its processes, on one machine.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from sentence_transformers.databases import PostgresDatabase

from sentence_transformers import CrossEncoder, SentenceTransformer, SparseEncoder
from sentence_transformers.cluster import Summary, encode_dataset, staging
from sentence_transformers.errors import InputError, WorkerError
from tests.cli.conftest import Run, run  # noqa: F401
from tests.models import SENTENCES
from tests.search import postgres

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'ray[data]'")

WORDS = sorted(set(" ".join(SENTENCES).split()))
OBJECT_STORE = 100 * 2**20
QUIET = {"log_to_driver": False, "logging_level": "ERROR", "include_dashboard": False}


@pytest.fixture(scope="module")
def one_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Ray on this machine, with two cores."""
    ray.init(address="local", num_cpus=2, object_store_memory=OBJECT_STORE, **QUIET)
    yield
    ray.shutdown()


def write(path: Path, count: int, bad: dict[int, Any] | None = None) -> list[str]:
    """A file of JSON lines with ids; those in `bad` have that text."""
    words, size = WORDS, len(WORDS)
    texts = [f"{words[n % size]} {words[n // size % size]}: {SENTENCES[n % len(SENTENCES)]}" for n in range(count)]
    rows = [{"id": f"k{n}", "text": (bad or {}).get(n, text)} for n, text in enumerate(texts)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return texts


def vectors_of(folder: Path) -> tuple[list[Any], np.ndarray]:
    """Ids and vectors of all shards; each id once."""
    table = pq.read_table(sorted(folder.glob("part-*.parquet")))
    assert len(set(table["id"].to_pylist())) == table.num_rows
    return table["id"].to_pylist(), np.stack(table["embedding"].to_numpy())


def assert_complete(folder: Path, ids: list[Any], expected: np.ndarray) -> None:
    """Every row once, in order, with the vector that `encode` gives."""
    found, vectors = vectors_of(folder)
    assert found == ids
    np.testing.assert_allclose(vectors, expected, atol=1e-5)


def test_encode_resume_and_refuse(one_machine: None, bert_folder: Path, tmp_path: Path) -> None:
    """One job from begin to end, what becomes of bad rows, what is done again, and what is refused."""
    file, out = tmp_path / "rows.jsonl", tmp_path / "out"
    texts = write(file, 60, bad={7: None, 33: 5})
    job: dict[str, Any] = {
        "id_column": "id",
        "output": out,
        "shard_rows": 16,
        "threads": 1,
        "workers": 1,
        "max_reject_share": 0.1,
    }
    first = encode_dataset(str(file), str(bert_folder), **job)
    assert first[:5] == (60, 58, 0, 2, first.tokens) and first.tokens > 0 and first.texts_per_second > 0
    assert [json.loads(line) for line in Path(first.rejects or "").read_text().splitlines()] == [
        {"id": "k7", "reason": "'text' is null"},
        {"id": "k33", "reason": "'text' is 5 of type int"},
    ]
    kept = [n for n in range(60) if n not in (7, 33)]
    expected = SentenceTransformer(str(bert_folder), device="cpu").encode_document([texts[n] for n in kept])
    assert_complete(out, [f"k{n}" for n in kept], expected)

    (out / "part-000001.parquet").write_bytes(b"x" * (out / "part-000001.parquet").stat().st_size)
    (out / "part-000003.parquet").unlink()
    times = {path: path.stat().st_mtime_ns for path in out.glob("part-*.parquet")}
    again = encode_dataset(str(file), str(bert_folder), **job)
    assert again[:4] == (60, 58, 15 + 15, 2)
    changed = {path.name for path in out.glob("part-*.parquet") if times.get(path) != path.stat().st_mtime_ns}
    assert changed == {"part-000001.parquet", "part-000003.parquet"}
    assert_complete(out, [f"k{n}" for n in kept], expected)

    before = {path: path.read_bytes() for path in sorted(out.iterdir())}
    other = SentenceTransformer(str(bert_folder), device="cpu")
    other.max_seq_length = 8
    for change, words in [
        ({"model": other}, "another model"),
        ({"shard_rows": 8}, "other settings: shard_rows: 16 there, 8 here"),
        ({"normalize_embeddings": True}, "other settings: encode"),
        ({"id_column": None}, "other settings: columns"),
    ]:
        with pytest.raises(InputError, match=words):
            encode_dataset(**{"source": str(file), "model": str(bert_folder), **job, **change})  # type: ignore[arg-type]
    write(file, 60, bad={7: None, 33: 6})
    with pytest.raises(InputError, match="another input: sha256"):
        encode_dataset(str(file), str(bert_folder), **job)
    with pytest.raises(InputError, match=r"no column 'body'; it has 'id', 'text'"):
        encode_dataset(str(file), str(bert_folder), column="body", output=tmp_path / "other")
    assert {path: path.read_bytes() for path in sorted(out.iterdir())} == before


def test_an_address_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "rows.jsonl", 3)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    for address in ("127.0.0.1:1", "ray://127.0.0.1:1"):
        with pytest.raises(InputError, match="No Ray cluster answers at"):
            encode_dataset(str(tmp_path / "rows.jsonl"), "model", output=tmp_path / "out", address=address)


# ---- slow


@pytest.mark.slow
def test_the_command_line(one_machine: None, bert_folder: Path, run: Run, tmp_path: Path) -> None:  # noqa: F811
    """The vectors of the command without --ray, the code that says that rows were rejected, and wrong usage."""
    texts = write(tmp_path / "rows.jsonl", 40)
    model = SentenceTransformer(str(bert_folder), device="cpu", prompts={"query": "a query: ", "document": "a text: "})
    model.save_pretrained(str(tmp_path / "model"))
    for side, encode in ([], model.encode), (["--as", "query"], model.encode_query):
        out = tmp_path / f"out{len(side)}"
        more = ["--id-column", "id", "-o", out, *side, "--workers", 1]
        ended = run("encode", "rows.jsonl", "-m", "model", *more, "--ray")
        assert ended.code == 0 and "40 texts -> " in ended.err
        assert_complete(out, [f"k{n}" for n in range(40)], encode(texts))
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n' * 120 + '{"text": null}\n')
    ended = run("encode", "rows.jsonl", "--ray", "-m", "model", "-o", "bad", "--workers", 1)
    assert ended.code == 3 and "1 rows could not be encoded" in ended.err and "rejects.jsonl" in ended.err
    for more in (["--limit", 3, "-o", "x"], ["--with-text", "-o", "x"], []):
        assert run("encode", "rows.jsonl", "-m", "model", "--ray", *more).code == 2


@pytest.mark.slow
def test_too_many_rejects(one_machine: None, bert_folder: Path, tmp_path: Path) -> None:
    """The job stops, says why, and goes on when more are allowed."""
    write(tmp_path / "rows.jsonl", 60, bad={7: None, 33: 5})
    job: dict[str, Any] = {"output": tmp_path / "out", "shard_rows": 16, "threads": 1}
    with pytest.raises(InputError, match=r"[12] of 60 rows .* max_reject_share=0.01.*rejects.jsonl"):
        encode_dataset(str(tmp_path / "rows.jsonl"), str(bert_folder), max_reject_share=0.01, **job)
    assert len((tmp_path / "out" / "rejects.jsonl").read_text().splitlines()) >= 1
    done = encode_dataset(str(tmp_path / "rows.jsonl"), str(bert_folder), max_reject_share=0.05, **job)
    assert (done.encoded, done.rejected) == (58, 2) and done.kept > 0


@pytest.mark.slow
def test_data_sets_of_ray_and_hugging_face(one_machine: None, bert_folder: Path, tmp_path: Path) -> None:
    """The model itself, in place of its name; ids are row numbers; what is walked again must be the same."""
    datasets = pytest.importorskip("datasets")
    model = SentenceTransformer(str(bert_folder), device="cpu", prompts={"document": "text: "})
    texts = write(tmp_path / "rows.jsonl", 50)
    expected = model.encode_document(texts)
    rows = [{"n": n, "body": text} for n, text in enumerate(texts)]
    sources = {
        "ray": lambda given: ray.data.from_items(given, override_num_blocks=7),
        "table": datasets.Dataset.from_list,
        "stream": lambda given: datasets.Dataset.from_list(given).to_iterable_dataset(),
    }
    for name, make in sources.items():
        out = tmp_path / name
        job: dict[str, Any] = {"column": "body", "output": out, "shard_rows": 16, "threads": 1}
        assert encode_dataset(make(rows), model, **job).encoded == 50
        assert_complete(out, list(range(50)), expected)
        (out / "part-000002.parquet").unlink()
        assert encode_dataset(make(rows), model, **job).kept == 34
        assert_complete(out, list(range(50)), expected)
        with pytest.raises(InputError, match="another input"):
            encode_dataset(make(rows[::-1]), model, **job)
        with pytest.raises(InputError, match="no column 'text'; it has"):
            encode_dataset(make(rows), model, output=tmp_path / "other")


@pytest.mark.slow
def test_slow_blocks_of_a_ray_dataset_stay_in_their_place(one_machine: None) -> None:
    """Blocks are read in the order of the data set, though the first is ready last."""

    def late(row: dict[str, int]) -> dict[str, int]:
        time.sleep(4 if row["n"] == 0 else 0)
        return row

    source = ray.data.from_items([{"n": n} for n in range(40)], override_num_blocks=8).map(late)
    assert [n for table in staging.chunks(source, ["n"], 16) for n in table["n"].to_pylist()] == list(range(40))
    assert not source.context.execution_options.preserve_order


@pytest.mark.slow
def test_pairs_sparse_vectors_and_bytes(one_machine: None, bert_folder: Path, tmp_path: Path) -> None:
    texts = write(tmp_path / "rows.jsonl", 40)
    cross = CrossEncoder(str(bert_folder), device="cpu", num_labels=1)
    job: dict[str, Any] = {"shard_rows": 9, "threads": 1}
    source = str(tmp_path / "rows.jsonl")
    encode_dataset(source, cross, column=("text", "id"), output=tmp_path / "cross", **job)
    table = pq.read_table(sorted((tmp_path / "cross").glob("*.parquet")))
    np.testing.assert_allclose(
        table["score"], cross.predict([(text, f"k{n}") for n, text in enumerate(texts)]), atol=1e-5
    )

    sparse = SparseEncoder(str(bert_folder), device="cpu", max_active_dims=5)
    encode_dataset(source, sparse, output=tmp_path / "sparse", **job)
    table = pq.read_table(sorted((tmp_path / "sparse").glob("*.parquet")))
    expected = sparse.encode_document(texts, convert_to_sparse_tensor=False).numpy()
    for row, indices, values in zip(expected, table["indices"].to_pylist(), table["values"].to_pylist(), strict=True):
        np.testing.assert_allclose(row[indices], values, atol=1e-5)
        assert np.count_nonzero(row) == np.count_nonzero(values)

    dense = str(bert_folder)
    encode_dataset(source, dense, output=tmp_path / "int8", precision="int8", **job)
    ranges = np.array(json.loads((tmp_path / "int8" / "manifest.json").read_text())["ranges"])
    vectors = SentenceTransformer(dense, device="cpu").encode_document(texts)
    np.testing.assert_allclose(ranges, [vectors.min(0), vectors.max(0)], atol=1e-5)
    _, codes = vectors_of(tmp_path / "int8")
    assert codes.dtype == np.int8
    np.testing.assert_allclose((codes + 128.5) / 255 * (ranges[1] - ranges[0]) + ranges[0], vectors, atol=0.05)

    for change, words in [
        ({"column": ("text", "id")}, "takes 1 column of text"),
        ({"model": cross}, "takes 2 columns of text"),
        ({"model": sparse, "precision": "int8"}, "writes float32 only"),
        ({"threads": 64}, "largest machine has 2 cores"),
        ({"kind": "Oracle"}, "Unknown kind"),
        ({"source": [1]}, "must be a path, a Ray Dataset"),
    ]:
        with pytest.raises(InputError, match=words):
            encode_dataset(**{"source": source, "model": dense, "output": tmp_path / "new", **job, **change})  # type: ignore[arg-type]


@pytest.mark.slow
def test_into_postgres(one_machine: None, bert_folder: Path, tmp_path: Path) -> None:
    """Workers write into the database; killed after the write or before, each row is there once."""
    texts = write(tmp_path / "rows.jsonl", 50)
    try:
        with postgres.running() as conninfo, PostgresDatabase("documents", conninfo) as database:
            job: dict[str, Any] = {"id_column": "id", "output": database, "metadata": ["text"], "shard_rows": 8}
            done = encode_dataset(
                str(tmp_path / "rows.jsonl"), str(bert_folder), state=tmp_path / "state", threads=1, **job
            )
            assert done.encoded == 50 == database.count() and done.output == "documents"
            vectors = SentenceTransformer(str(bert_folder), device="cpu").encode_document(texts)
            for text, (hit,) in zip(texts, database.search(vectors, top_k=1), strict=True):
                assert hit.score == pytest.approx(1, abs=1e-5) and hit.text == text
            again = encode_dataset(
                str(tmp_path / "rows.jsonl"), str(bert_folder), state=tmp_path / "state2", threads=1, **job
            )
            assert again.encoded == 50 == database.count()
            database.drop()
            broken = PostgresDatabase("documents", "host=127.0.0.1 port=1 user=x dbname=x")
            with pytest.raises(WorkerError, match=r"does not count as done; 0 are done.*nothing was written"):
                encode_dataset(
                    str(tmp_path / "rows.jsonl"),
                    str(bert_folder),
                    state=tmp_path / "state3",
                    threads=1,
                    **{**job, "output": broken},
                )
    except postgres.NoPostgres as error:
        pytest.skip(str(error))


@pytest.mark.slow
def test_a_full_disk(one_machine: None, bert_folder: Path, tmp_path: Path) -> None:
    """A shard that cannot be written is not counted; when there is room the job goes on."""
    write(tmp_path / "rows.jsonl", 40)
    out = tmp_path / "out"
    job: dict[str, Any] = {"output": out, "shard_rows": 10, "threads": 1, "workers": 1}

    def block() -> None:
        while not (out / "journal.jsonl").is_file():
            time.sleep(0.01)
        (out / "part-000002.parquet").mkdir()  # no file can be renamed to the name of a folder

    threading.Thread(target=block).start()
    with pytest.raises(WorkerError, match=r"Unit 2 of 4 \(part-000002.parquet\) failed and does not count as done"):
        encode_dataset(str(tmp_path / "rows.jsonl"), str(bert_folder), **job)
    (out / "part-000002.parquet").rmdir()
    done = encode_dataset(str(tmp_path / "rows.jsonl"), str(bert_folder), **job)
    assert done.encoded == 40 and not list(out.glob(".*"))
    assert vectors_of(out)[0] == list(range(40))


@contextmanager
def two_nodes() -> Iterator[Any]:
    """A cluster of two nodes with a core each."""
    from ray.cluster_utils import Cluster

    ray.shutdown()
    cluster = Cluster()
    node = {"num_cpus": 1, "object_store_memory": OBJECT_STORE, "include_dashboard": False}
    try:
        cluster.add_node(**node)
        second = cluster.add_node(**{**node, "num_cpus": 1})
        cluster.wait_for_nodes()
        yield cluster, second
    finally:
        ray.shutdown()
        cluster.shutdown()


@pytest.mark.slow
def test_a_node_is_killed(tmp_path: Path) -> None:
    """Two nodes, a worker on each, one node killed in the middle: real text, complete and equal."""
    from benchmarks import texts

    glosses = texts.glosses()[:1500]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in glosses))
    out = tmp_path / "out"

    with two_nodes() as (cluster, second):

        def kill() -> None:
            while not (out / "journal.jsonl").is_file() or len((out / "journal.jsonl").read_bytes().splitlines()) < 3:
                time.sleep(0.05)
            cluster.remove_node(second, allow_graceful=False)

        killer = threading.Thread(target=kill)
        killer.start()
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        done = encode_dataset(
            str(tmp_path / "rows.jsonl"), "all-MiniLM-L6-v2", output=out, shard_rows=50, threads=1, workers=2
        )
        killer.join()
        assert len([node for node in ray.nodes() if node["Alive"]]) == 1
    assert done.encoded == 1500
    assert_complete(out, list(range(1500)), SentenceTransformer("all-MiniLM-L6-v2", device="cpu").encode(glosses))


DRIVER = """
import sys
from sentence_transformers.cluster import encode_dataset
print(encode_dataset(sys.argv[1], sys.argv[2], output=sys.argv[3], shard_rows=20, threads=1, workers=1))
"""


@pytest.mark.slow
def test_the_driver_is_killed(bert_folder: Path, tmp_path: Path) -> None:
    """SIGKILL in the middle, then once more with the same arguments."""
    ray.shutdown()
    texts = write(tmp_path / "rows.jsonl", 3000)
    out = tmp_path / "out"
    command = [sys.executable, "-c", DRIVER, str(tmp_path / "rows.jsonl"), str(bert_folder), str(out)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    driver = subprocess.Popen(command, env=environment, start_new_session=True)
    while not (out / "journal.jsonl").is_file() or len((out / "journal.jsonl").read_bytes().splitlines()) < 4:
        assert driver.poll() is None
        time.sleep(0.02)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:  # the workers of a dead driver end by themselves, a little later
        before = len(list(out.glob("part-*.parquet")))
        time.sleep(2)
        if before == len(list(out.glob("part-*.parquet"))):
            break
    begun = len((out / "journal.jsonl").read_bytes().splitlines())
    assert 4 <= begun < 150
    done: Summary = encode_dataset(
        str(tmp_path / "rows.jsonl"), str(bert_folder), output=out, shard_rows=20, threads=1, workers=1
    )
    assert done.kept == 20 * begun and done.encoded == 3000
    expected = SentenceTransformer(str(bert_folder), device="cpu").encode_document(texts)
    assert_complete(out, list(range(3000)), expected)
