"""What one caller does, another does not see: devices, truncation, merged calls, worker processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sentence_transformers import CrossEncoder, MultiVectorEncoder, SentenceTransformer, SparseEncoder
from sentence_transformers.engine import workers
from sentence_transformers.engine.dynamic_batching import Batcher
from tests import models
from tests.fake_gpu import FakeGPU, device_of
from tests.golden import multi_vector_cases, score_models

TEXTS = models.TEXTS[:6]


@pytest.fixture
def model(bert_folder) -> SentenceTransformer:
    return SentenceTransformer(str(bert_folder), device="cpu")


# ---- truncate_embeddings


def test_truncation_is_for_the_context_that_asked_for_it(model) -> None:
    inside, done, seen = threading.Event(), threading.Event(), []

    def other() -> None:
        inside.wait(20)
        seen.extend([model.encode("cat").shape, model.get_embedding_dimension(), model.truncate_dim])
        done.set()

    thread = threading.Thread(target=other)
    thread.start()
    with model.truncate_embeddings(8):
        inside.set()
        done.wait(20)
        assert model.encode("cat").shape == (8,)
        assert (model.truncate_dim, model.get_embedding_dimension()) == (8, 8)
        with model.truncate_embeddings(None):
            assert model.encode("cat").shape == (models.HIDDEN,)
        with model.truncate_embeddings(4):
            model.truncate_dim = 3
            assert model.encode("cat").shape == (3,)
        assert model.encode("cat").shape == (8,)
    thread.join()
    assert seen == [(models.HIDDEN,), models.HIDDEN, None]
    assert model.encode("cat").shape == (models.HIDDEN,)
    model.truncate_dim = 5
    with model.truncate_embeddings(8):
        assert model.encode("cat").shape == (8,)
    assert model.encode("cat").shape == (5,) and model.get_saved_config()["truncate_dim"] == 5


def test_two_models_are_truncated_apart(model, bert_folder) -> None:
    other = SentenceTransformer(str(bert_folder), device="cpu", truncate_dim=7)
    with model.truncate_embeddings(8):
        assert (model.encode("cat").shape, other.encode("cat").shape) == ((8,), (7,))
        with other.truncate_embeddings(6):
            assert (model.encode("cat").shape, other.encode("cat").shape) == ((8,), (6,))


def test_truncation_of_calls_that_are_merged(model) -> None:
    async def short() -> Any:
        with model.truncate_embeddings(8):
            return await model.encode_async(["cat", "dog"])

    async def both() -> list[Any]:
        return await asyncio.gather(short(), model.encode_async(["cat", "dog"]), short())

    found, whole = asyncio.run(both()), model.encode(["cat", "dog"])
    for vectors, dimension in zip(found, (8, models.HIDDEN, 8), strict=True):
        np.testing.assert_allclose(vectors, whole[:, :dimension], atol=1e-6)


def test_truncation_reaches_lanes(model) -> None:
    texts = [f"{text} {i}" for i in range(40) for text in models.SENTENCES]
    with model.truncate_embeddings(8):
        assert model.encode(texts).shape == (480, 8)


# ---- encode(device=…)


KINDS: dict[str, Any] = {
    "dense": lambda folder: SentenceTransformer(str(models.build("bert", folder)), device="cpu"),
    "modernbert": lambda folder: SentenceTransformer(str(models.build("modernbert", folder)), device="cpu"),
    "sparse": lambda folder: (
        score_models.SPARSE["inference_free"](folder), SparseEncoder(str(folder), device="cpu"),
    )[1],
    "multi": lambda folder: (
        multi_vector_cases.FOLDERS["expanding"](folder), MultiVectorEncoder(str(folder), device="cpu"),
    )[1],
    "cross": lambda folder: (score_models.SCORERS["bert_1"](folder), CrossEncoder(str(folder), device="cpu"))[1],
}  # fmt: skip
FORMS: dict[str, dict[str, Any]] = {
    "dense": {"convert_to_tensor": True},
    "modernbert": {"convert_to_tensor": True},
    "sparse": {"convert_to_sparse_tensor": False},
    "cross": {"convert_to_tensor": True},
}


@pytest.mark.parametrize("kind", KINDS)
def test_another_device_is_for_the_call_and_not_for_the_model(kind, tmp_path) -> None:
    model, form = KINDS[kind](tmp_path), FORMS.get(kind, {})
    inputs: Any = [("how old", text) for text in TEXTS] if kind == "cross" else TEXTS
    call = model.predict if kind == "cross" else model.encode
    expected = call(inputs, **form)
    with FakeGPU("cuda") as seen:
        weights = [(weight.data_ptr(), device_of(weight)) for weight in model.parameters()]
        found = call(inputs, device="cuda", **form)
        assert [(weight.data_ptr(), device_of(weight)) for weight in model.parameters()] == weights
        assert model.device == torch.device("cpu")
        assert {device_of(row).type for row in found} == {"cuda"}
        found = [row.cpu() for row in found]
        assert seen.kernels
        before = seen.kernels.total()
        here = call(inputs, **form)
        assert seen.kernels.total() == before
    for row, other, again in zip(found, expected, here, strict=True):
        torch.testing.assert_close(row, other, rtol=1e-4, atol=2e-5)
        torch.testing.assert_close(again, other)


def test_hooks_and_settings_hold_on_another_device(model) -> None:
    seen = []
    model[0].auto_model.encoder.layer[1].register_forward_hook(
        lambda module, args, out: seen.append(device_of(args[0]))
    )
    model.max_seq_length = 5
    model[1].pooling_mode = "max"
    expected = model.encode(TEXTS)
    seen.clear()
    with FakeGPU("cuda"):
        found = model.encode(TEXTS, device="cuda:1")
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert {str(device) for device in seen} == {"cuda:1"}


def test_late_chunking_on_another_device(bert_folder) -> None:
    from sentence_transformers.modules.dense import Dense

    parts = list(SentenceTransformer(str(bert_folder), device="cpu"))
    model = SentenceTransformer(modules=[*parts, Dense(models.HIDDEN, 4)], device="cpu")
    _, expected = model.encode_passages(TEXTS, late=True, max_tokens=12)
    with FakeGPU("cuda"):
        _, found = model.encode_passages(TEXTS, late=True, max_tokens=12, device="cuda")
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["cpu", "cpu:0", torch.device("cpu")])
def test_the_same_device_needs_no_copy(model, monkeypatch, name) -> None:
    monkeypatch.setattr(SentenceTransformer, "to", None)
    monkeypatch.setattr(SentenceTransformer, "__deepcopy__", None, raising=False)
    assert model.encode("cat", device=name).shape == (models.HIDDEN,)


# ---- calls merged by the batcher


def merged(*calls: dict[str, Any]) -> list[int]:
    """Sizes of the batches in which calls of one text each are computed, when all wait."""
    sizes: list[int] = []
    first = threading.Event()

    def encode(texts: list[str], **kwargs: Any) -> list[str]:
        if texts == ["first"]:
            first.wait(20)
        else:
            sizes.append(len(texts))
        return texts

    batcher = Batcher(encode)

    async def main() -> None:
        tasks = [asyncio.create_task(batcher.submit(["first"], {}))]
        await asyncio.sleep(0.05)
        tasks += [asyncio.create_task(batcher.submit([str(i)], kwargs)) for i, kwargs in enumerate(calls)]
        await asyncio.sleep(0.05)
        first.set()
        assert await asyncio.gather(*tasks) == [["first"], *([str(i)] for i in range(len(calls)))]

    asyncio.run(main())
    return sorted(sizes)


class Same:
    """Prints like every other one."""

    def __repr__(self) -> str:
        return "Same()"


LONG = [np.zeros(5000), np.zeros(5000)]
LONG[1][2500] = 1
ONE = Same()


@pytest.mark.parametrize(
    ("calls", "sizes"),
    [
        ([{"prompt": "a: ", "task": "query"}, {"task": "query", "prompt": "a: "}], [2]),
        ([{"ids": [1, {"a": (2, None)}]}, {"ids": [1, {"a": (2, None)}]}], [2]),
        ([{"weights": ONE}, {"weights": ONE}], [2]),
        ([{"weights": LONG[0]}, {"weights": LONG[1]}], [1, 1]),
        ([{"weights": torch.from_numpy(LONG[0])}, {"weights": torch.from_numpy(LONG[1])}], [1, 1]),
        ([{"pooling": Same()}, {"pooling": Same()}], [1, 1]),
        ([{"flag": True}, {"flag": 1}], [1, 1]),
        ([{"ids": [1, 2]}, {"ids": (1, 2)}], [1, 1]),
        ([{"a": 1}, {"a": 1, "b": None}], [1, 1]),
    ],
)
def test_calls_are_merged_only_if_their_arguments_are_the_same(calls, sizes) -> None:
    assert merged(*calls) == sizes


def test_an_encode_that_is_replaced_is_the_one_that_is_called(model) -> None:
    asyncio.run(model.encode_async("cat"))
    model.encode = lambda texts, **kwargs: [f"replaced {text}" for text in texts]
    assert asyncio.run(model.encode_async("cat")) == "replaced cat"


# ---- worker processes


class Plain(torch.nn.Module):
    """What a pool needs of a model."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def pid(self, inputs: list[Any]) -> list[int]:
        return [os.getpid() for _ in inputs]


KILLED = """
import os, signal, sys
from tests.test_concurrency import Plain, workers
if __name__ == "__main__":
    pool = workers.start(Plain(), ["cpu"])
    (_, _, rows), = workers.map_chunks(pool, "pid", [1], None, {})
    print(rows[0], flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(os.name != "posix", reason="kill -9")
def test_workers_end_with_a_parent_that_is_killed(tmp_path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(KILLED, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    worker, deadline = int(done.stdout), time.monotonic() + 20
    while time.monotonic() < deadline and runs(worker):
        time.sleep(0.05)
    alive = runs(worker)
    with contextlib.suppress(ProcessLookupError):
        os.kill(worker, signal.SIGKILL)
    assert not alive


def runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = f"/proc/{pid}/stat"
    if os.path.exists(stat):  # noqa: PTH110
        with open(stat, encoding="utf-8") as file:  # noqa: PTH123
            return file.read().rpartition(")")[2].split()[0] != "Z"  # ended, and nobody has asked how
    return True


def test_the_model_goes_back_to_its_device_when_the_pool_is_stopped(monkeypatch) -> None:
    class Ended:
        name, pid, exitcode = "worker", 1, 0

        def __init__(self, **kwargs: Any) -> None:
            pass

        def start(self) -> None:
            pass

        def is_alive(self) -> bool:
            return False

        def join(self, timeout: float | None = None) -> None:
            pass

    class Context:
        Process = Ended

        def __init__(self) -> None:
            self.Queue, self.Value, self.Pipe = real.Queue, real.Value, real.Pipe

    real = torch.multiprocessing.get_context("spawn")
    monkeypatch.setattr(workers.mp, "get_context", lambda kind: Context())
    with FakeGPU("cuda"):
        model = Plain().to("cuda:1")
        pool = workers.start(model, ["cuda:0", "cuda:1"])
        assert model.weight.device == torch.device("cpu")
        workers.stop(pool)
        assert model.weight.device == torch.device("cuda:1")


def test_a_worker_works_on_its_own_gpu(monkeypatch) -> None:
    """Kernels of other makers ask for the current device."""
    chosen: list[Any] = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)

    class Ended(Exception):
        pass

    class Inbox:
        def get(self) -> Any:
            raise Ended

    with FakeGPU("cuda"), pytest.raises(Ended):
        workers.work("cuda:1", Plain(), Inbox(), None, None, 0)
    assert chosen == [torch.device("cuda:1")]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_calls_are_merged_after_a_fork(model) -> None:
    """As in a server that loads its model before it forks: threads do not come along."""
    model.encode = lambda texts, **kwargs: [f"{os.getpid()} {text}" for text in texts]
    assert asyncio.run(model.encode_async("cat")) == f"{os.getpid()} cat"
    child = os.fork()
    if not child:
        try:
            found = asyncio.run(asyncio.wait_for(model.encode_async("cat"), 10))
            os._exit(0 if found == f"{os.getpid()} cat" else 1)
        finally:
            os._exit(2)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
