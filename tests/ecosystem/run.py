"""Unmodified client libraries on this one: each in a virtual environment of its own, with a small real script.

    python tests/ecosystem/run.py                  all clients
    python tests/ecosystem/run.py keybert setfit   some of them
    python tests/ecosystem/run.py --fresh          throws the environments away first
    python tests/ecosystem/run.py --write          also rewrites the table in docs/ecosystem.md

One environment, `base`, holds what all of them need: torch (the pinned build), transformers and so on, but neither
this library nor a client. A client's environment sees it through a `.pth` file, gets this repository installed (from a
built wheel, not editable), then the client from the package index as anybody would install it. What pip brings there
stands before `base` on the path, so a client that wants another version of something gets it. Then

    1. the distribution `sentence-transformers` must still be the one of this repository, in this environment;
    2. torch and transformers must still be the pinned ones;
    3. `clients/use_NAME.py` must run, with the hub switched off, on the real all-MiniLM-L6-v2 and real texts.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
PAGE = ROOT / "docs" / "ecosystem.md"
CLIENTS: dict[str, list[str]] = {  # name of the script -> what is installed for it
    "keybert": ["keybert"],
    "bertopic": ["bertopic"],
    "setfit": ["setfit"],
    "langchain": ["langchain-huggingface"],
    "llama_index": ["llama-index-embeddings-huggingface"],
    "haystack": ["sentence-transformers-haystack"],
    "txtai": ["txtai", "scikit-learn"],
    "chromadb": ["chromadb"],
    "mteb": ["mteb"],
}
WHERE_FROM = """
import json, sys
from importlib import metadata
import sentence_transformers, torch, transformers
print(json.dumps({
    "file": sentence_transformers.__file__,
    "version": metadata.version("sentence-transformers"),
    "torch": torch.__version__.partition("+")[0],
    "transformers": transformers.__version__,
    "client": {name: metadata.version(name) for name in sys.argv[1:]},
}))
"""


class Outcome(NamedTuple):
    """What came out for one client.

    Attributes:
        name: the client.
        versions: distribution -> version that was run.
        seconds: time of the script.
        error: empty if all is well.
    """

    name: str
    versions: dict[str, str]
    seconds: float
    error: str


class Failure(RuntimeError):
    """A step of a client's test failed."""


def main() -> int:
    """Run the clients named on the command line; 1 if any failed."""
    chosen = options()
    cache = Path(chosen.cache)
    if chosen.fresh:
        shutil.rmtree(cache, ignore_errors=True)
    base = base_environment(cache)
    wheel = built_wheel(cache, base)
    outcomes = []
    for name in chosen.clients or CLIENTS:
        outcomes.append(outcome := run_client(name, cache, base, wheel))
        state = f"FAILED\n{outcome.error}" if outcome.error else "ok"
        print(f"{name:<12} {versions_of(outcome):<60} {outcome.seconds:6.1f} s  {state}", flush=True)
    if chosen.write:
        write_table(outcomes)
    return int(any(outcome.error for outcome in outcomes))


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("clients", nargs="*", choices=[[], *CLIENTS], help="which clients; default: all")
    parser.add_argument("--cache", default=ROOT / ".cache" / "ecosystem", help="folder of the environments")
    parser.add_argument("--fresh", action="store_true", help="make all environments anew")
    parser.add_argument("--write", action="store_true", help="rewrite the table in docs/ecosystem.md")
    return parser.parse_args()


# ---- environments


def base_environment(cache: Path) -> Path:
    """The environment with torch and the other dependencies; made when it is not there."""
    folder = cache / "base"
    if not (folder / "complete").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        run([sys.executable, "-m", "venv", folder])
        pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8")
        torch = next(line for line in pinned.splitlines() if line.startswith("torch=="))
        install(folder, torch)
        install(folder, f"{ROOT}[demo,train,sparse]")
        run([python_of(folder), "-m", "pip", "uninstall", "-q", "-y", "sentence-transformers"])
        (folder / "complete").touch()
    return folder


def built_wheel(cache: Path, base: Path) -> Path:
    """This repository as a wheel."""
    folder = cache / "wheel"
    shutil.rmtree(folder, ignore_errors=True)
    run([python_of(base), "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, ROOT])
    return next(folder.glob("*.whl"))


def client_environment(name: str, cache: Path, base: Path, wheel: Path) -> Path:
    """The environment of one client, with today's state of this repository."""
    folder = cache / name
    if not (folder / "complete").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        run([sys.executable, "-m", "venv", folder])
        (site_packages(folder) / "base.pth").write_text(f"{site_packages(base)}\n", encoding="utf-8")
    install(folder, "--no-deps", "--force-reinstall", wheel)
    if not (folder / "complete").is_file():
        install(folder, *CLIENTS[name])
        (folder / "complete").touch()
    return folder


def install(folder: Path, *what: str | Path) -> None:
    """Install with pip, the pinned versions as constraints."""
    run([python_of(folder), "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", *what])


def python_of(folder: Path) -> Path:
    return folder / "bin" / "python"


def site_packages(folder: Path) -> Path:
    return next((folder / "lib").glob("python*/site-packages"))


# ---- one client


def run_client(name: str, cache: Path, base: Path, wheel: Path) -> Outcome:
    """Make the environment, look whose library is in it, run the script."""
    versions: dict[str, str] = {}
    start = time.perf_counter()
    try:
        folder = client_environment(name, cache, base, wheel)
        versions = check_environment(name, folder)
        start = time.perf_counter()
        print(run([python_of(folder), HERE / "clients" / f"use_{name}.py"], cwd=cache), end="")
    except Failure as failure:
        return Outcome(name, versions, time.perf_counter() - start, str(failure))
    return Outcome(name, versions, time.perf_counter() - start, "")


def check_environment(name: str, folder: Path) -> dict[str, str]:
    """Versions of the client; raises `Failure` if this library, torch or transformers is not the one it should be."""
    clients = [package.partition("[")[0] for package in CLIENTS[name]]
    seen = json.loads(run([python_of(folder), "-c", WHERE_FROM, *clients], cwd=folder))
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    expected = re.search(r'^version = "(.+)"$', project, re.M)
    if not seen["file"].startswith(str(folder)) or expected is None or seen["version"] != expected[1]:
        raise Failure(f"Installing {clients} replaced this library: {seen}")
    pinned = dict(re.findall(r"^(\w+)==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.M))
    if any(seen[package] != version for package, version in pinned.items()):
        raise Failure(f"Installing {clients} changed the pinned versions: {seen}")
    return seen["client"]


def run(command: list[str | Path], cwd: Path | None = None) -> str:
    """What a command prints; raises `Failure` with its last words if it fails."""
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false"}
    environment |= {"ECOSYSTEM_ROOT": str(ROOT), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, env=environment)
    if done.returncode:
        words = " ".join(map(str, command[:6]))
        raise Failure(f"`{words} …` failed:\n{done.stdout[-1500:]}\n{done.stderr[-4000:]}")
    return done.stdout


# ---- the table in the documentation


def versions_of(outcome: Outcome) -> str:
    return ", ".join(f"{name} {version}" for name, version in outcome.versions.items())


def write_table(outcomes: list[Outcome]) -> None:
    """Put the versions that were run into the page's table; the other columns are written by hand."""
    text = PAGE.read_text(encoding="utf-8")
    for outcome in outcomes:
        for name, version in outcome.versions.items():
            text = re.sub(rf"(?m)^\| {re.escape(name)} \|[^|]*\|", f"| {name} | {version} |", text)
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
