"""What each way of computing costs in quality, on real text with real weights: `python -m benchmarks.ways`.

all-MiniLM-L6-v2 in float32, bfloat16, int8 and as graphs of ONNX Runtime and OpenVINO, compared with float32:

    cosine      mean cosine with the float32 vectors, of 2,000 WordNet glosses
    Spearman    of cosines with people's judgements: 1,225 pairs of the 50 news texts of Lee et al. 2005
    nDCG@10     1,000 examples of use search 4,000 definitions of WordNet; relevant is that of the same meaning

How fast each is against version 6.2.0 comes from the workloads of the same names (`python -m benchmarks.run --only
gloss bfloat16 int8 onnx onnx-int8 openvino`), whose results lie in `results/`. Both together are BACKENDS.md, and a
picture of the documentation.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import report, texts
from benchmarks.models import INT8_GRAPH, int8_graph
from benchmarks.precisions import ndcg
from benchmarks.worker import model_folder
from benchmarks.workloads import TEXTS

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
QUALITY = RESULTS / "ways.json"
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "gloss": ("torch, float32", {}),
    "bfloat16": ("torch, bfloat16", {"model_kwargs": {"dtype": "bfloat16"}}),
    "int8": ("torch, int8", {"model_kwargs": {"dtype": "int8"}}),
    "onnx": ("ONNX Runtime, float32", {"backend": "onnx"}),
    "onnx-int8": ("ONNX Runtime, int8", {"backend": "onnx", "model_kwargs": {"file_name": INT8_GRAPH}}),
    "openvino": ("OpenVINO, float32", {"backend": "openvino"}),
}
DOCUMENTS, QUERIES = 4_000, 1_000


def checks() -> dict[str, Any]:
    """The texts of the checks, and what is known of them."""
    synsets = list({one.definition: one for one in texts.synsets()}.values())
    random.Random(20).shuffle(synsets)
    synsets = synsets[:DOCUMENTS]
    asked = [number for number, one in enumerate(synsets) if one.examples][:QUERIES]
    news, judged = texts.lee()
    return {
        "glosses": TEXTS["glosses"](2000),
        "news": news,
        "judged": np.array(judged),
        "documents": [one.definition for one in synsets],
        "queries": [f"{', '.join(synsets[number].words)}: {synsets[number].examples[0]}" for number in asked],
        "relevant": np.array(asked),
    }


def quality(model: Any, given: dict[str, Any], exact: np.ndarray | None) -> tuple[dict[str, float], np.ndarray]:
    """The three numbers of a model, and its vectors of the glosses."""
    from scipy.stats import spearmanr

    def encoded(name: str) -> np.ndarray:
        vectors = np.asarray(model.encode(given[name]), np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    glosses, news = encoded("glosses"), encoded("news")
    upper = np.triu_indices(len(news), 1)
    best = np.argsort(-(encoded("queries") @ encoded("documents").T), axis=1, kind="stable")[:, :10]
    numbers = {
        "cosine": 1.0 if exact is None else float((glosses * exact).sum(1).mean()),
        "Spearman": float(spearmanr((news @ news.T)[upper], given["judged"][upper]).statistic),
        "nDCG@10": ndcg(best, given["relevant"]),
    }
    return numbers, glosses


def measure() -> dict[str, dict[str, float]]:
    """The numbers of every way."""
    from sentence_transformers import SentenceTransformer

    given, found, exact = checks(), {}, None
    for name, (_, settings) in WAYS.items():
        folder = int8_graph() if name == "onnx-int8" else model_folder()
        model = SentenceTransformer(str(folder), device="cpu", **settings)
        found[name], vectors = quality(model, given, exact)
        exact = vectors if exact is None else exact
        print(name, found[name], flush=True)
    return found


def speeds() -> dict[str, Any]:
    """The rows of the newest result file of these workloads, by name."""
    path = max(RESULTS.glob("*-backends.json"))
    return json.loads(path.read_text(encoding="utf-8"))


def table(found: dict[str, dict[str, float]], results: dict[str, Any]) -> list[str]:
    """A line for each way."""
    times = {row["name"]: row["median"] for row in results["workloads"]}
    lines = ["| Way | times as fast as 6.2.0 | mean cosine | Spearman | nDCG@10 |", "| --- " * 5 + "|"]
    for name, (title, _) in WAYS.items():
        speed = f"{times[name]:.2f}" if name in times else "–"
        one = found[name]
        lines.append(f"| {title} | {speed} | {one['cosine']:.5f} | {one['Spearman']:.4f} | {one['nDCG@10']:.4f} |")
    return lines


def main() -> None:
    results = speeds()
    found = measure()
    QUALITY.write_text(json.dumps(found, indent=1) + "\n")
    page = report.render(results["workloads"], results["machine"], "python -m benchmarks.run --only …")
    page = page.replace("# Benchmark results", "# Benchmark results: ways to compute", 1)
    page = page.replace("Written by `make bench`", "Written by `python -m benchmarks.ways`", 1)
    quality_part = [
        "",
        "## Speed and quality",
        "",
        (__doc__ or "").split("\n\n", 1)[1].strip(),
        "",
        *table(found, results),
    ]
    (HERE / "BACKENDS.md").write_text(page.rstrip("\n") + "\n" + "\n".join(quality_part) + "\n")


if __name__ == "__main__":
    main()
