"""Encoding on Ray measured: two workers of one thread against one process of two threads, and the driver's memory.

    python -m benchmarks.cluster [--glosses 20000] [--memory 20000 100000]

Both encode the same WordNet glosses with all-MiniLM-L6-v2; loading the model and starting Ray are not counted. The
memory of the driver is the largest that it had, in a process of its own for each number of rows; a static model encodes
them, so that the driver's part is what is seen. Results go to
`benchmarks/cluster.json`; `--glosses 0` or `--memory` without numbers leave a part as it was.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import texts

MODEL = "all-MiniLM-L6-v2"
RESULTS = Path(__file__).with_suffix(".json")


def write_rows(path: Path, count: int) -> list[str]:
    """Glosses as JSON lines, from the beginning again where there are not enough; each row is another text."""
    glosses = texts.glosses()
    rows = [glosses[n % len(glosses)] + (f" ({n})" if n >= len(glosses) else "") for n in range(count)]
    path.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows), encoding="utf-8")
    return rows


def one_process(path: Path) -> dict[str, float]:
    """Texts a second of `encode` with two threads."""
    import torch

    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(2)
    rows = [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]
    model = SentenceTransformer(MODEL, device="cpu")
    model.encode(rows[:200])
    begin = time.perf_counter()
    model.encode(rows)
    return {"texts_per_second": len(rows) / (time.perf_counter() - begin)}


def two_workers(path: Path) -> dict[str, float]:
    """Texts a second of two workers with a thread each."""
    from sentence_transformers.cluster import encode_dataset

    with tempfile.TemporaryDirectory() as folder:
        done = encode_dataset(str(path), MODEL, output=folder, shard_rows=500, workers=2, threads=1)
    return {"texts_per_second": done.texts_per_second, "tokens_per_second": done.tokens_per_second}


def driver_memory(path: Path) -> dict[str, float]:
    """The largest memory of a driver, in MB."""
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    from sentence_transformers import SentenceTransformer
    from sentence_transformers.cluster import encode_dataset

    tokenizer, weights = texts.wordllama()
    import torch
    from safetensors.torch import load_file
    from tokenizers import Tokenizer

    vectors = next(iter(load_file(weights).values())).to(torch.float32)
    model = SentenceTransformer(modules=[StaticEmbedding(Tokenizer.from_file(str(tokenizer)), vectors)], device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        encode_dataset(str(path), model, output=folder, shard_rows=1000, workers=2, threads=1)
    return {"megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


KINDS = {"one_process": one_process, "two_workers": two_workers, "driver_memory": driver_memory}


def in_process(kind: str, path: Path) -> dict[str, Any]:
    """A measurement in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.cluster", "--kind", kind, "--file", str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--glosses", type=int, default=20_000)
    parser.add_argument("--memory", type=int, nargs="*", default=[20_000, 100_000])
    parser.add_argument("--kind", choices=KINDS)
    parser.add_argument("--file", type=Path)
    given = parser.parse_args()
    if given.kind:
        print(json.dumps(KINDS[given.kind](given.file)))
        return
    results: dict[str, Any] = {"machine": f"{platform.machine()}, {os.cpu_count()} cores"}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "rows.jsonl")
        if given.glosses:
            write_rows(path, given.glosses)
            results["glosses"] = given.glosses
            results |= {kind: in_process(kind, path) for kind in ("one_process", "two_workers")}
            speeds = [results[kind]["texts_per_second"] for kind in ("two_workers", "one_process")]
            results["share"] = speeds[0] / speeds[1]
        for count in given.memory:
            write_rows(path, count)
            results[f"driver_memory_{count}"] = in_process("driver_memory", path)["megabytes"]
    before = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    text = json.dumps(before | results, indent=1)
    RESULTS.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
