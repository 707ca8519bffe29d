"""`encode`: what is written is what `model.encode` gives, whatever the form of the file, also after a kill."""

from __future__ import annotations

import csv
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sentence_transformers import SentenceTransformer, SparseEncoder
from sentence_transformers.cli.embedding_writers import Chunks
from tests.cli.conftest import TEXTS, Run

ROWS = [{"number": i, "body": text} for i, text in enumerate(TEXTS)]


def write_rows(path: Path) -> Path:
    """ROWS in the form that the suffix says."""
    if ".csv" in path.name or ".tsv" in path.name:
        opened: Any = gzip.open if path.suffix == ".gz" else open
        with opened(path, "wt") as file:
            writer = csv.DictWriter(file, ROWS[0].keys(), delimiter="\t" if ".tsv" in path.name else ",")
            writer.writeheader()
            writer.writerows(ROWS)
    elif path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(ROWS), path)
    else:
        path.write_text("\n".join(map(json.dumps, ROWS)))
    return path


@pytest.fixture(scope="module")
def expected(bert_folder: Path) -> np.ndarray:
    return SentenceTransformer(str(bert_folder)).encode(TEXTS)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.csv.gz", "a.jsonl", "a.parquet"])
def test_every_form_of_input(run: Run, tmp_path: Path, bert_folder: Path, expected: np.ndarray, name: str) -> None:
    ended = run("encode", write_rows(tmp_path / name), "-m", bert_folder, "--column", "body", "-o", "out.npy")
    assert ended.code == 0, ended.err
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected, atol=1e-6)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, "out.npy"])


@pytest.mark.parametrize("name", ["out.npy", "out.jsonl", "out.parquet", "-"])
def test_every_form_of_output(run: Run, tmp_path: Path, facts: Path, bert_folder: Path, expected, name: str) -> None:
    """Chunks of two texts, so that five texts are three of them."""
    texts = [] if name == "out.npy" else ["--with-text"]
    ended = run("encode", facts, "-m", bert_folder, "-o", name, "--chunk-size", 2, *texts)
    assert ended.code == 0, ended.err
    if name == "out.npy":
        rows = [{"embedding": row} for row in np.load(tmp_path / name)]
    elif name == "out.parquet":
        import pyarrow.parquet as pq

        rows = pq.read_table(tmp_path / name).to_pylist()
    else:
        lines = ended.out if name == "-" else (tmp_path / name).read_text()
        rows = [json.loads(line) for line in lines.splitlines()]
    np.testing.assert_allclose([row["embedding"] for row in rows], expected, atol=1e-6)
    if texts:
        assert [(row["id"], row["text"]) for row in rows] == list(enumerate(TEXTS))


def test_options_reach_the_model(run: Run, tmp_path: Path, facts: Path, bert_folder: Path) -> None:
    options = ["--prompt", "A word: ", "--truncate-dim", 8, "--normalize", "--limit", 3, "--precision", "float16"]
    assert run("encode", facts, "-m", bert_folder, "-o", "out.npy", *options).code == 0
    model = SentenceTransformer(str(bert_folder))
    wanted = model.encode(TEXTS[:3], prompt="A word: ", truncate_dim=8, normalize_embeddings=True)
    found = np.load(tmp_path / "out.npy")
    assert found.dtype == np.float16
    np.testing.assert_allclose(found, wanted, atol=1e-3)


def test_side_takes_the_prompt_of_the_model(run: Run, tmp_path: Path, facts: Path, bert_folder: Path) -> None:
    model = SentenceTransformer(str(bert_folder), prompts={"query": "Why? ", "document": "Here: "})
    model.save_pretrained(str(tmp_path / "prompted"))
    assert run("encode", facts, "-m", "prompted", "--as", "query", "-o", "out.npy").code == 0
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), model.encode_query(TEXTS), atol=1e-6)


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
def test_sparse(run: Run, tmp_path: Path, facts: Path, sparse_folder: Path, name: str) -> None:
    """Indices and values put back are the model's vectors; the kind is found out from the folder."""
    assert run("encode", facts, "-m", sparse_folder, "-o", name, "--chunk-size", 3).code == 0
    if name == "out.jsonl":
        rows = [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
    else:
        import pyarrow.parquet as pq

        rows = pq.read_table(tmp_path / name).to_pylist()
    wanted = SparseEncoder(str(sparse_folder)).encode(TEXTS).to_dense().numpy()
    found = np.zeros_like(wanted)
    for i, row in enumerate(rows):
        found[i, row["indices"]] = row["values"]
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_sparse_vectors_go_into_no_npy_file(run: Run, facts: Path, sparse_folder: Path) -> None:
    ended = run("encode", facts, "-m", sparse_folder, "-o", "out.npy")
    assert ended.code == 2 and "dense vectors" in ended.err


def test_resumes_behind_the_finished_chunks(
    run: Run, tmp_path: Path, facts: Path, bert_folder: Path, expected: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was computed is not computed again, and the result is as if nothing had happened."""
    add, encode = Chunks.add, SentenceTransformer.encode
    computed: list[str] = []

    def add_one(self: Chunks, fields: dict[str, Any]) -> None:
        if self.parts:
            raise KeyboardInterrupt
        add(self, fields)

    def counted(self: Any, inputs: list[str], *args: Any, **kwargs: Any) -> Any:
        computed.extend(inputs)
        return encode(self, inputs, *args, **kwargs)

    command = ["encode", facts, "-m", bert_folder, "-o", "out.npy", "--chunk-size", 2]
    monkeypatch.setattr(Chunks, "add", add_one)
    ended = run(*command)
    assert ended.code == 130
    assert "Interrupted" in ended.err
    assert not (tmp_path / "out.npy").exists()
    monkeypatch.setattr(Chunks, "add", add)
    other = run(*command, "--truncate-dim", 8)
    assert other.code == 2
    assert "truncate_dim" in other.err
    monkeypatch.setattr(SentenceTransformer, "encode", counted)
    assert run(*command).code == 0
    assert computed == TEXTS[2:]
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected, atol=1e-6)
    assert not (tmp_path / "out.npy.unfinished").exists()


def test_restart_forgets(run: Run, tmp_path: Path, facts: Path, bert_folder: Path) -> None:
    Chunks(tmp_path / "out.npy", {"chunk_size": 2, "model": "another"})
    command = ["encode", facts, "-m", bert_folder, "-o", "out.npy", "--chunk-size", 2]
    assert run(*command).code == 2
    assert run(*command, "--restart").code == 0


@pytest.mark.slow
def test_resumes_after_a_kill(tmp_path: Path, bert_folder: Path) -> None:
    """SIGKILL in the middle, then the same command again: the same file as without."""
    texts = [f"Text number {i} of many, and {'so ' * (i % 30)}on." for i in range(20_000)]
    (tmp_path / "many.txt").write_text("\n".join(texts))
    command = [sys.executable, "-m", "sentence_transformers", "encode", "many.txt", "-m", str(bert_folder)]
    command += ["-o", "out.npy", "--chunk-size", "500"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL)
    for _ in range(600):
        if len(list(tmp_path.glob("out.npy.unfinished/*.npy"))) >= 3:
            break
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "out.npy").exists()
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Going on after" in done.stderr
    expected = SentenceTransformer(str(bert_folder)).encode(texts)
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["missing.txt"], 2, "does not exist"),
        (["facts.txt", "-o", "out.xlsx"], 2, ".npy, .jsonl, .parquet"),
        (["facts.txt", "-o", "no/out.npy"], 2, "the folder"),
        (["facts.txt", "-o", "out.npy", "--with-text"], 2, "vectors alone"),
        (["two.csv"], 2, "--column"),
        (["two.csv", "--column", "c"], 1, "column 'c'"),
        (["two.csv", "--column", "a", "--id-column", "c"], 1, "no column 'c'"),
        (["bad.jsonl"], 1, "line 2 is not JSON"),
        (["latin.txt"], 1, "not UTF-8"),
        (["empty.txt"], 2, "no texts"),
        (["facts.unknown"], 2, "--input-format"),
        (["facts.txt", "--truncate-dim", "4000"], 1, "truncate_dim=4000"),
        (["facts.txt", "--precision", "int4"], 2, "int4"),
        (["facts.txt", "--prompt-name", "nobody"], 1, "nobody"),
    ],
)
def test_bad_input_is_told(
    run: Run, tmp_path: Path, facts: Path, bert_folder: Path, arguments: list[str], code: int, says: str
) -> None:
    (tmp_path / "two.csv").write_text("a,b\n1,2\n")
    (tmp_path / "bad.jsonl").write_text('"one"\n{"text": \n')
    (tmp_path / "latin.txt").write_bytes("gr\xfcn\n".encode("latin-1"))
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "facts.unknown").write_text("a\n")
    ended = run("encode", *arguments, "-m", bert_folder)
    said = " ".join(ended.err.replace("│", " ").split())
    assert (ended.code, says in said) == (code, True), ended
    assert "Traceback" not in ended.err
    assert ended.out == ""
