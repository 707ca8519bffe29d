"""What runs on GPUs and Macs, seen on a machine without them: see `tests.fake_gpu`.

The right value is always that of the CPU. On "mps" every operation must be among those that have a kernel there.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import accelerate
import datasets
import numpy as np
import pytest
import torch

from sentence_transformers import (
    CrossEncoder,
    MultiVectorEncoder,
    SentenceTransformer,
    SparseEncoder,
    evaluation,
    losses,
    util,
)
from sentence_transformers.backends import packed_attention
from sentence_transformers.engine import engine
from sentence_transformers.engine.outputs import Output, TokenOutput
from sentence_transformers.engine.result_buffer import ResultBuffer
from sentence_transformers.evaluation.mse import squared_error
from sentence_transformers.features import Features, Packing
from sentence_transformers.late_interaction import maxsim
from sentence_transformers.losses.gradient_cache import RandContext
from sentence_transformers.modules.bow import BoW
from sentence_transformers.modules.cnn import CNN
from sentence_transformers.modules.dense import Dense
from sentence_transformers.modules.dropout import Dropout
from sentence_transformers.modules.layer_norm import LayerNorm
from sentence_transformers.modules.lstm import LSTM
from sentence_transformers.modules.normalize import Normalize
from sentence_transformers.modules.pooling import Pooling, pool
from sentence_transformers.modules.static_embedding import StaticEmbedding
from sentence_transformers.modules.token_pooling import HierarchicalTokenPooling
from sentence_transformers.modules.tokenizer import WhitespaceTokenizer
from sentence_transformers.modules.transformer import Transformer
from sentence_transformers.modules.weighted_layer_pooling import WeightedLayerPooling
from sentence_transformers.modules.word_embeddings import WordEmbeddings
from sentence_transformers.modules.word_weights import WordWeights
from sentence_transformers.training.collator import Preprocess, SentenceTransformerDataCollator
from sentence_transformers.training.samplers import (
    DefaultBatchSampler,
    GroupByLabelBatchSampler,
    NoDuplicatesBatchSampler,
)
from tests import models
from tests.fake_gpu import FakeGPU, device_of, mps_kernels
from tests.golden import evaluation_cases, loss_cases, multi_vector_cases, score_models

TEXTS = [*models.TEXTS[:8], "never " * 30]
KINDS = ("cuda", "mps")
TORCH = tuple(int(part) for part in torch.__version__.split(".")[:2])


def close(actual: Any, expected: Any, atol: float = 2e-5) -> None:
    np.testing.assert_allclose(np.asarray(actual), np.asarray(expected), rtol=1e-4, atol=atol)


def check(seen: FakeGPU) -> None:
    """Something ran on the device, and all of it can run there."""
    assert seen.kernels
    if seen.kind == "mps" and TORCH >= (2, 13):  # older ones have fewer
        assert seen.kernels.keys() <= mps_kernels(), seen.kernels.keys() - mps_kernels()


# ---- encoding


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", models.ARCHITECTURES)
def test_architectures(folder_of: Callable[[str], Path], name: str, kind: str) -> None:
    model = SentenceTransformer(str(folder_of(name)), device="cpu")
    home = importlib.import_module(type(model.transformers_model).__module__)
    if any(isinstance(one, torch.jit.ScriptFunction) for one in vars(home).values()):
        pytest.skip(f"{name} of this transformers runs TorchScript, which takes no fake tensors")
    vectors = model.encode(TEXTS)
    tokens = model.encode(TEXTS[:3], output_value="token_embeddings")
    with FakeGPU(kind) as seen:
        model.to(kind)
        close(model.encode(TEXTS), vectors)
        found = model.encode(TEXTS, convert_to_tensor=True)
        assert found.device == torch.device(kind, 0)
        close(found.cpu(), vectors)
        for row, expected in zip(model.encode(TEXTS[:3], output_value="token_embeddings"), tokens, strict=True):
            close(row.cpu(), expected)
    check(seen)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", Pooling.POOLING_MODES)
def test_poolings_and_their_gradients(mode: str, kind: str) -> None:
    lengths = torch.tensor([3, 0, 5, 1])
    rows = torch.randn(9, 4, requires_grad=True)
    factor = torch.randn(4, 4)
    expected = pool(rows, lengths, mode)
    (gradient,) = torch.autograd.grad((expected * factor).sum(), rows)
    with FakeGPU(kind) as seen:
        moved = rows.detach().to(kind).requires_grad_()
        found = pool(moved, lengths.to(kind), mode)
        (moved_gradient,) = torch.autograd.grad((found * factor.to(kind)).sum(), moved)
        assert device_of(found).type == kind
        found, moved_gradient = found.detach().cpu(), moved_gradient.cpu()
    close(found, expected.detach())
    close(moved_gradient, gradient)
    check(seen)


@pytest.mark.parametrize("kind", KINDS)
def test_static_models(kind: str) -> None:
    model = SentenceTransformer(modules=[StaticEmbedding(models.raw_tokenizer(), embedding_dim=8)], device="cpu")
    expected = model.encode(TEXTS)
    with FakeGPU(kind) as seen:
        model.to(kind)
        close(model.encode(TEXTS), expected)
    check(seen)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", score_models.SPARSE)
def test_sparse_encoders(name: str, kind: str, tmp_path: Path) -> None:
    score_models.SPARSE[name](tmp_path)
    model = SparseEncoder(str(tmp_path), device="cpu")
    forms: list[dict[str, Any]] = [{}, {"max_active_dims": 3, "save_to_cpu": True}, {"convert_to_sparse_tensor": False}]
    expected = [model.encode(score_models.TEXTS, **form).to_dense() for form in forms]
    with FakeGPU(kind) as seen:
        model.to(kind)
        for form, rows in zip(forms, expected, strict=True):
            close(model.encode(score_models.TEXTS, **form).to_dense().cpu(), rows)
    check(seen)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", multi_vector_cases.FOLDERS)
def test_multi_vector_encoders(name: str, kind: str, tmp_path: Path) -> None:
    multi_vector_cases.FOLDERS[name](tmp_path)
    model = MultiVectorEncoder(str(tmp_path), device="cpu")
    scores = model.similarity(model.encode_query(TEXTS[:3]), model.encode_document(TEXTS))
    with FakeGPU(kind) as seen:
        model.to(kind)
        queries, documents = (
            encode(texts) for encode, texts in ((model.encode_query, TEXTS[:3]), (model.encode_document, TEXTS))
        )
        assert {device_of(row).type for row in [*queries, *documents]} == {kind}
        close(model.similarity(queries, documents).cpu(), scores)
    check(seen)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", score_models.SCORERS)
def test_cross_encoders(name: str, kind: str, tmp_path: Path) -> None:
    score_models.SCORERS[name](tmp_path)
    model = CrossEncoder(str(tmp_path), device="cpu")
    expected = model.predict(score_models.PAIRS)
    with FakeGPU(kind) as seen:
        model.to(kind)
        close(model.predict(score_models.PAIRS), expected)
    check(seen)


# ---- training


@pytest.mark.parametrize("kind", ["mps"])  # refuses all that "cuda" does
@pytest.mark.parametrize("name", loss_cases.CASES)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_losses(name: str, kind: str) -> None:
    _, _, columns, labels = loss_cases.CASES[name]
    expected, gradient = loss_cases.run(losses, name)
    with FakeGPU(kind) as seen:
        vectors = [column.detach().to(kind).requires_grad_() for column in loss_cases.vectors_of(columns)]
        target = loss_cases.labels_of(labels)
        loss = loss_cases.make(losses, name, loss_cases.StandIn().to(kind)).to(kind)
        value = loss([{"vectors": column} for column in vectors], None if target is None else target.to(kind))
        terms = list(value.values()) if isinstance(value, dict) else [value]
        sum(terms).backward()
        found = [torch.zeros(column.shape) if column.grad is None else column.grad.cpu() for column in vectors]
    close([float(term.detach()) for term in terms], expected)
    close(torch.stack(found), gradient)
    check(seen)


@pytest.mark.parametrize("kind", KINDS)
def test_random_numbers_are_repeated(kind: str) -> None:
    with FakeGPU(kind):
        rows = torch.ones(50).to(kind)
        first, second = (torch.nn.functional.dropout(rows).cpu() for _ in range(2))
        state = RandContext(rows)
        third, fourth = (torch.nn.functional.dropout(rows).cpu() for _ in range(2))
        with state:
            again = torch.nn.functional.dropout(rows).cpu()
        fifth = torch.nn.functional.dropout(rows).cpu()
        with state:
            twice = torch.nn.functional.dropout(rows).cpu()
    assert torch.equal(again, third) and torch.equal(twice, third)
    assert len({tuple(drawn.tolist()) for drawn in (first, second, third, fourth, fifth)}) == 5


def test_max_pooling_of_a_text_without_tokens_is_zero() -> None:
    rows = torch.tensor([[-2.0, 1.0], [-1.0, -3.0]])
    assert pool(rows, torch.tensor([0, 2, 0]), "max").tolist() == [[0, 0], [-1, 1], [0, 0]]


# ---- attention on CUDA in 16 bit


class Flash:
    """`aten._flash_attention_forward` written out: each sequence by itself, in float32."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(
        self, q, k, v, cu_q, cu_k, max_q, max_k, dropout_p, is_causal, return_debug_mask, *, scale=None,
        window_size_left=None, window_size_right=None,
    ):  # fmt: skip
        assert (
            cu_q.dtype == torch.int32 and dropout_p == 0 and {q.dtype, k.dtype, v.dtype} < {torch.half, torch.bfloat16}
        )
        self.calls += 1
        parts = []
        for start, stop in itertools.pairwise(cu_q.tolist()):
            places = torch.arange(stop - start)
            ahead = places[None, :] - places[:, None]  # of each query (row): how far each key (column) lies behind it
            seen = torch.ones_like(ahead, dtype=torch.bool) if not is_causal else ahead <= 0
            if window_size_left != -1:
                seen &= ahead >= -window_size_left
            if window_size_right != -1:
                seen &= ahead <= window_size_right
            groups = q.shape[1] // k.shape[1]
            query = q[start:stop].float()
            keys, values = (side[start:stop].float().repeat_interleave(groups, 1) for side in (k, v))
            scores = torch.einsum("ihd,jhd->hij", query, keys) * (scale or q.shape[2] ** -0.5)
            weights = scores.masked_fill(~seen.to(scores.device), -torch.inf).softmax(-1)
            parts.append(torch.einsum("hij,jhd->ihd", weights, values))
        return torch.cat(parts).to(q.dtype), None, None, None, None


@pytest.fixture(autouse=True)
def tried_anew() -> Iterator[None]:
    packed_attention.flash_works.cache_clear()
    yield
    packed_attention.flash_works.cache_clear()


CASES = [(causal, window, heads) for causal in (False, True) for window in (None, 3) for heads in (4, 2)]


@pytest.mark.parametrize(("causal", "window", "heads"), CASES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_16_bit_attention_is_one_kernel(monkeypatch, dtype, causal, window, heads) -> None:
    monkeypatch.setattr(torch.ops.aten, "_flash_attention_forward", kernel := Flash())
    generator = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(1, n, 15, 8, generator=generator).to(dtype) for n in (4, heads, heads))
    arguments = {"is_causal": causal, "sliding_window": window, "scaling": 0.3}
    expected, _ = packed_attention.attend(torch.nn.Module(), q, k, v, None, packing=Packing([6, 5, 4]), **arguments)
    assert not kernel.calls
    with FakeGPU("cuda"):
        packing = Packing([6, 5, 4], "cuda")
        found, _ = packed_attention.attend(
            torch.nn.Module(), *(x.to("cuda") for x in (q, k, v)), None, packing=packing, **arguments
        )
        assert kernel.calls == 2  # the trial and this one
        close(found.float().cpu(), expected.float(), atol=3e-2)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("FlashAttention only supports Ampere GPUs or newer."),
        NotImplementedError("Could not run 'aten::_flash_attention_forward'"),
        TypeError("unexpected keyword argument 'window_size_left'"),
    ],
)
def test_without_the_kernel_16_bit_models_still_run_packed(folder_of, monkeypatch, error, caplog) -> None:
    def kernel(*args: Any, **kwargs: Any) -> Any:
        raise error

    monkeypatch.setattr(torch.ops.aten, "_flash_attention_forward", kernel)
    folder, settings = str(folder_of("modernbert")), {"dtype": torch.bfloat16}
    expected = SentenceTransformer(folder, device="cpu").encode(TEXTS)
    model = SentenceTransformer(folder, device="cpu", model_kwargs=settings)
    with FakeGPU("cuda"):
        model.to("cuda")
        found = model.encode(TEXTS)
        assert model[0].packs
    close(found, expected, atol=0.1)
    assert str(error) in caplog.text


def test_a_kernel_that_is_wrong_is_not_used(monkeypatch) -> None:
    monkeypatch.setattr(torch.ops.aten, "_flash_attention_forward", lambda q, *args, **kwargs: (q,))
    rows = torch.randn(1, 2, 9, 8).half()
    expected, _ = packed_attention.attend(torch.nn.Module(), rows, rows, rows, None, packing=Packing([5, 4]))
    with FakeGPU("cuda"):
        moved = rows.to("cuda")
        found, _ = packed_attention.attend(
            torch.nn.Module(), moved, moved, moved, None, packing=Packing([5, 4], "cuda")
        )
        close(found.cpu(), expected)


def test_autocast_brings_queries_and_values_to_one_type(monkeypatch) -> None:
    """As in Qwen3 and Gemma 3, whose normed queries and keys are float32 there."""
    monkeypatch.setattr(torch.ops.aten, "_flash_attention_forward", kernel := Flash())
    q, k, v = torch.randn(3, 1, 2, 9, 8)
    expected, _ = packed_attention.attend(torch.nn.Module(), q, k, v, None, packing=Packing([5, 4]))
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: kind == "cuda")
    monkeypatch.setattr(torch, "get_autocast_dtype", lambda kind: torch.bfloat16)
    with FakeGPU("cuda"):
        moved = [q.to("cuda"), k.to("cuda"), v.to("cuda").bfloat16()]
        found, _ = packed_attention.attend(torch.nn.Module(), *moved, None, packing=Packing([5, 4], "cuda"))
        assert kernel.calls == 2 and found.dtype == torch.bfloat16
        close(found.float().cpu(), expected, atol=3e-2)


def test_attention_on_another_device_than_the_packing() -> None:
    """As with `device_map`: later layers lie on the next GPU."""
    rows, packing = torch.randn(1, 2, 9, 8), Packing([5, 4], "cpu", attention_lengths=[3, 4])
    expected, _ = packed_attention.attend(torch.nn.Module(), rows, rows, rows, None, packing=packing)
    with FakeGPU("cuda"):
        moved, packing = rows.to("cuda:1"), Packing([5, 4], "cuda:0", attention_lengths=[3, 4])
        found, _ = packed_attention.attend(torch.nn.Module(), moved, moved, moved, None, packing=packing)
        assert found.device == torch.device("cuda:1")
        close(found.cpu(), expected)
        assert packing.on(torch.device("cuda:1")) is packing.on(torch.device("cuda:1"))


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("MPS backend out of memory (…)"),
              RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")],
)  # fmt: skip
def test_out_of_memory_says_nothing_about_a_model(folder_of, monkeypatch, error) -> None:
    module = SentenceTransformer(str(folder_of("modernbert")), device="cpu")[0]
    run = type(module).run

    def full(*args: Any, **kwargs: Any) -> Any:
        raise error

    monkeypatch.setattr(type(module), "run", full)
    with pytest.raises(type(error), match=re.escape(str(error))):
        module.packs  # noqa: B018
    monkeypatch.setattr(type(module), "run", run)
    assert module.packs


def test_a_leak_that_is_smaller_than_rounding_is_found() -> None:
    """A neighbour's influence of 1 % passes for rounding in 16 bit, but not beside the same shapes."""
    table = torch.randn(20, 8, generator=torch.Generator().manual_seed(0)).bfloat16()

    def alone(ids: torch.Tensor) -> torch.Tensor:
        return table[ids]

    def leaking(sequences: list[torch.Tensor]) -> torch.Tensor:
        rows = table[torch.cat(sequences)]
        return rows + 0.03 * rows.mean(0)

    def noisy(sequences: list[torch.Tensor]) -> torch.Tensor:
        return table[torch.cat(sequences)] * 1.03

    sequences = [torch.arange(5), torch.arange(6, 9), torch.arange(10, 17)]
    assert packed_attention.difference(leaking, alone, sequences) == "neighbours change a text's vectors"
    assert packed_attention.difference(noisy, alone, sequences) is None


def test_tf32_is_no_reason_to_pad(monkeypatch) -> None:
    got, expected = torch.tensor([1.0, 1.0005]), torch.tensor([1.0, 1.0])
    assert not packed_attention.same(got, expected)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")
        assert packed_attention.same(got, expected)
    finally:
        torch.set_float32_matmul_precision(before)


# ---- numbers


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_zero_rows_stay_zero_and_small_rows_get_length_1(folder_of, dtype) -> None:
    rows = torch.tensor([[0.0, 0.0], [3.0, -4.0], [3e-5, 4e-5], [3e4, 4e4]], dtype=dtype)
    unit = torch.tensor([[0, 0], [0.6, -0.8], [0.6, 0.8], [0.6, 0.8]])
    sparse = torch.sparse_coo_tensor([[0, 1, 1, 2, 2, 3, 3], [0, 0, 1, 0, 1, 0, 1]], rows.flatten()[[0, *range(2, 8)]])
    features = {"sentence_embedding": rows, "token_embeddings": rows, "packing": Packing([2, 2])}
    found = [
        util.normalize_embeddings(rows),
        util.normalize_embeddings(sparse).to_dense(),
        util.normalize_embeddings(sparse.to_sparse_csr()).to_dense(),
        Normalize()(dict(features))["sentence_embedding"],
        torch.from_numpy(Output(normalize=True).rows(None, features, 4)),
        torch.cat(TokenOutput(normalize=True).rows(None, features, 2)),
    ]
    for each in found:
        assert each.dtype == dtype or (dtype == torch.bfloat16 and each.dtype == torch.float32)
        close(each.float(), unit, atol=4e-3 if dtype == torch.bfloat16 else 1e-3)


# ---- search


SIDES = ("gpu", "cpu", "numpy", "float64", "float16 gpu", "list")


def placed(rows: torch.Tensor, form: str, kind: str) -> Any:
    """Rows as one of the forms that a caller may have them in."""
    if form == "list":
        return [row.to(kind) for row in rows]
    if form == "numpy":
        return rows.numpy()
    if form == "float64":
        return rows.numpy().astype(np.float64)
    return rows if form == "cpu" else (rows.half() if "16" in form else rows).to(kind)


def hits(results: list[list[dict[str, Any]]]) -> tuple[list[list[int]], np.ndarray]:
    ids = [[hit["corpus_id"] for hit in row] for row in results]
    return ids, np.array([[hit["score"] for hit in row] for row in results])


@pytest.fixture(scope="module")
def rows() -> torch.Tensor:
    """(40, 16), which float16 holds exactly."""
    return torch.randn(40, 16, generator=torch.Generator().manual_seed(3)).half().float()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("score", [util.cos_sim, util.dot_score, util.euclidean_sim])
def test_semantic_search(rows, score, kind) -> None:
    ids, scores = hits(util.semantic_search(rows[:5], rows, top_k=4, score_function=score))
    for queries, documents in itertools.product(SIDES, SIDES):
        if "gpu" not in queries + documents and "list" not in (queries, documents):
            continue
        with FakeGPU(kind) as seen:
            results = util.semantic_search(
                placed(rows[:5], queries, kind), placed(rows, documents, kind), top_k=4, score_function=score
            )
        found, values = hits(results)
        assert found == ids, (queries, documents)
        close(values, scores, atol=5e-3 if score is util.euclidean_sim else 2e-5)  # differences of large numbers
        check(seen)


@pytest.mark.parametrize("kind", KINDS)
def test_late_interaction_search_stays_on_the_device(kind) -> None:
    generator = torch.Generator().manual_seed(4)
    queries, documents = (
        [torch.randn(n, 8, generator=generator) for n in sizes] for sizes in ((3, 4, 2), (5, 2, 7, 3))
    )
    ids, scores = hits(util.semantic_search(queries, documents, top_k=2, score_function=maxsim))
    for moved_queries, moved_documents in ((True, True), (False, True), (True, False)):
        with FakeGPU(kind) as seen:
            results = util.semantic_search(
                [item.to(kind) if moved_queries else item for item in queries],
                [item.to(kind) if moved_documents else item for item in documents],
                top_k=2,
                score_function=maxsim,
            )
        found, values = hits(results)
        assert found == ids
        close(values, scores)
        check(seen)
        assert seen.kernels["mm"] and seen.copies[kind, "cpu"] <= 3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["gpu", "float16 gpu", "list"])
@pytest.mark.parametrize(
    "settings", [{"top_k": 3}, {"top_k": 30, "max_pairs": 20}, {"query_chunk_size": 7, "top_k": 2}]
)
def test_paraphrase_mining(rows, settings, form, kind) -> None:
    expected = np.array(util.paraphrase_mining_embeddings(rows, **settings))
    with FakeGPU(kind) as seen:
        found = np.array(util.paraphrase_mining_embeddings(placed(rows, form, kind), **settings))
    assert found[:, 1:].tolist() == expected[:, 1:].tolist()
    close(found[:, 0], expected[:, 0])
    check(seen)


@pytest.mark.parametrize("kind", KINDS)
def test_paraphrase_mining_of_a_model(bert_folder, kind) -> None:
    model = SentenceTransformer(str(bert_folder), device="cpu")
    expected = np.array(util.paraphrase_mining(model, models.SENTENCES))
    with FakeGPU(kind) as seen:
        found = np.array(util.paraphrase_mining(model.to(kind), models.SENTENCES))
    assert found[:, 1:].tolist() == expected[:, 1:].tolist()
    check(seen)


@pytest.mark.parametrize("kind", KINDS)
def test_communities(kind) -> None:
    generator = torch.Generator().manual_seed(5)
    rows = (
        torch.randn(4, 16, generator=generator)[:, None] + 0.1 * torch.randn(4, 6, 16, generator=generator)
    ).flatten(0, 1)
    expected = util.community_detection(rows, threshold=0.9, min_community_size=4, batch_size=7)
    with FakeGPU(kind) as seen:
        found = util.community_detection(rows.to(kind), threshold=0.9, min_community_size=4, batch_size=7)
    assert found == expected and len(found) == 4
    check(seen)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", ["int8", "uint8", "binary", "ubinary"])
def test_quantization(rows, precision, kind) -> None:
    expected = util.quantize_embeddings(rows, precision)
    with FakeGPU(kind):
        found = util.quantize_embeddings(rows.to(kind), precision)
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_sparse_search(rows, kind) -> None:
    sparse = (rows * (rows > 1)).to_sparse()
    ids, scores = hits(
        util.semantic_search(sparse.to_dense(), sparse.to_dense(), top_k=3, score_function=util.dot_score)
    )
    with FakeGPU(kind):
        moved = sparse.to(kind)
        found, values = hits(util.semantic_search(moved, moved, top_k=3, score_function=util.dot_score))
    close(values, scores)
    assert [a for a, b in zip(found, scores, strict=True) if b.all()] == [
        a for a, b in zip(ids, scores, strict=True) if b.all()
    ]


# ---- a default device


@pytest.mark.parametrize("padding", ["packed", "padded", "left", "expanded"])
def test_batches_are_made_on_the_cpu_whatever_the_default_device(folder_of, padding) -> None:
    name = {"padded": "mpnet", "left": "qwen3"}.get(padding, "bert")
    model = SentenceTransformer(str(folder_of(name)), device="cpu")
    if padding == "expanded":
        model[0].query_expansion = {"strategy": "fixed", "length": 12}
    expected = model.preprocess(TEXTS, task="query")
    vectors = model.encode(TEXTS)
    with FakeGPU("cuda", default=True):
        features = model.preprocess(TEXTS, task="query")
        found = model.encode(TEXTS)
        model.to("cuda")
        moved = model.encode(TEXTS)
    for key, value in expected.items():
        if isinstance(value, torch.Tensor):
            assert device_of(features[key]) == torch.device("cpu") and torch.equal(features[key], value)
    close(found, vectors)
    close(moved, vectors)


@pytest.mark.parametrize("name", ["bert", "mpnet"])
def test_a_step_of_training_whatever_the_default_device(folder_of, name) -> None:
    model = SentenceTransformer(str(folder_of(name)), device="cpu")
    loss = losses.CachedMultipleNegativesRankingLoss(model, mini_batch_size=2)
    collate = SentenceTransformerDataCollator(Preprocess(model))
    records = [{"anchor": a, "positive": b} for a, b in itertools.pairwise(models.SENTENCES[:6])]

    def step(kind: str) -> float:
        batch = collate([dict(record) for record in records])
        moved = {key: value.to(kind) if isinstance(value, torch.Tensor) else value for key, value in batch.items()}
        return float(loss(Features.columns(moved), moved.get("label")).detach())

    expected = step("cpu")
    with FakeGPU("cuda", default=True):
        model.to("cuda")
        assert step("cuda") == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("sampler", [DefaultBatchSampler, NoDuplicatesBatchSampler, GroupByLabelBatchSampler])
def test_samplers_whatever_the_default_device(sampler) -> None:
    data = datasets.Dataset.from_dict({"text": [f"text {i}" for i in range(12)], "label": [i % 3 for i in range(12)]})

    def rows() -> list[list[int]]:
        return list(sampler(data, batch_size=4, drop_last=False, generator=torch.Generator().manual_seed(1), seed=1))

    expected = rows()
    with FakeGPU("cuda", default=True):
        assert rows() == expected


# ---- a model spread over devices (device_map)


def spread(transformer: Any, devices: list[str]) -> None:
    """Each layer to the next device, the embeddings to the first, as `device_map` does."""
    model = transformer.auto_model
    places = dict.fromkeys((name for name, _ in model.named_children()), devices[-1])
    for name in ("embeddings", "embed_tokens", "rotary_emb"):
        if name in places:
            places[name] = devices[0]
    layers = next(name for name in ("encoder", "layers") if name in places)
    del places[layers]
    prefix = "encoder.layer" if layers == "encoder" else layers
    places |= {f"{prefix}.{i}": devices[i % len(devices)] for i in range(model.config.num_hidden_layers)}
    accelerate.dispatch_model(model, places, force_hooks=True)


@pytest.mark.parametrize("name", ["bert", "modernbert", "mistral"])
def test_layers_on_two_gpus(folder_of, name) -> None:
    folder = str(folder_of(name))
    dense = Dense(models.HIDDEN, 8)
    parts = [Pooling(models.HIDDEN, "mean"), dense]
    expected = SentenceTransformer(modules=[Transformer(folder), *parts], device="cpu").encode(TEXTS)
    transformer = Transformer(folder)
    with FakeGPU("cuda"):
        spread(transformer, ["cuda:1", "cuda:0"])
        model = SentenceTransformer(modules=[transformer, *parts])
        assert {weight.device.index for weight in transformer.parameters()} == {0, 1}
        assert model.device == dense.linear.weight.device == torch.device("cuda:1")
        close(model.encode(TEXTS), expected)
        assert transformer.packs


def test_expanded_queries_on_two_gpus(tmp_path) -> None:
    multi_vector_cases.FOLDERS["expanding"](tmp_path)
    model = MultiVectorEncoder(str(tmp_path), device="cpu")
    expected = model.encode_query(TEXTS)
    with FakeGPU("cuda"):
        spread(model[0], ["cuda:0", "cuda:1"])
        for module in list(model)[1:]:
            module.to("cuda:0")
        found = [row.cpu() for row in model.encode_query(TEXTS)]
    for row, other in zip(found, expected, strict=True):
        close(row, other)


@pytest.mark.parametrize("first", ["disk", "cpu"])
def test_weights_that_are_loaded_from_disk_when_they_are_needed(folder_of, tmp_path, first) -> None:
    folder, second = str(folder_of("bert")), {"disk": "cpu", "cpu": "disk"}[first]
    settings = {
        "device_map": {"embeddings": first, "encoder": second, "pooler": second},
        "offload_folder": str(tmp_path / "offloaded"),
    }
    model = SentenceTransformer(folder, model_kwargs=settings)
    assert model.device == torch.device("cpu") and model[0].packs
    close(model.encode(TEXTS), SentenceTransformer(folder, device="cpu").encode(TEXTS))


# ---- memory


OUT_OF_MEMORY = {
    "cuda": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "mps": RuntimeError("MPS backend out of memory (MPS allocated: 1.00 GB)."),
    "cublas": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
}


@pytest.mark.parametrize("name", OUT_OF_MEMORY)
def test_a_batch_that_does_not_fit_is_halved(bert_folder, monkeypatch, name) -> None:
    model = SentenceTransformer(str(bert_folder), device="cpu")
    expected = model.encode(TEXTS)
    rows, counts = Output.rows, []

    def too_many(self: Output, model: Any, features: dict[str, Any], count: int) -> Any:
        counts.append(count)
        if count > 3:
            raise OUT_OF_MEMORY[name]
        return rows(self, model, features, count)

    monkeypatch.setattr(Output, "rows", too_many)
    done: list[int] = []
    monkeypatch.setattr(engine, "progress_bar", lambda *args: contextlib.nullcontext(done.append))
    with FakeGPU("mps" if name == "mps" else "cuda") as seen:
        model.to(seen.kind)
        found = engine.run(model, TEXTS, engine.EncodeRequest(Output()))
    close(found, expected)
    assert sum(done) == len(TEXTS) and max(counts) > 3


def test_a_result_that_does_not_fit_is_no_reason_to_halve(bert_folder, monkeypatch) -> None:
    model = SentenceTransformer(str(bert_folder), device="cpu")
    calls, done = [], []

    def full(self: ResultBuffer, rows: Any) -> Any:
        calls.append(len(rows))
        raise OUT_OF_MEMORY["cuda"]

    monkeypatch.setattr(ResultBuffer, "_empty", full)
    monkeypatch.setattr(engine, "progress_bar", lambda *args: contextlib.nullcontext(done.append))
    with FakeGPU("cuda"):
        model.to("cuda")
        with pytest.raises(torch.OutOfMemoryError, match="Tried to allocate"):
            engine.run(model, TEXTS, engine.EncodeRequest(Output(tensor=True)))
    assert calls == [len(set(TEXTS))] and not done


# ---- evaluation


@pytest.mark.parametrize("kind", ["mps"])
@pytest.mark.parametrize("name", evaluation_cases.CASES)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_evaluators(name, kind, tmp_path, monkeypatch) -> None:
    """Of models whose tensors are on a device."""
    expected = evaluation_cases.run(evaluation, name, tmp_path / "cpu")
    encode = evaluation_cases.StandIn.encode

    def there(*args: Any, **kwargs: Any) -> Any:
        rows = encode(*args, **kwargs)
        return (
            [row.to(kind) for row in rows]
            if isinstance(rows, list)
            else rows.to(kind)
            if torch.is_tensor(rows)
            else rows
        )

    for method in ("encode", "encode_query", "encode_document"):
        monkeypatch.setattr(evaluation_cases.StandIn, method, there)
    with FakeGPU(kind) as seen:
        found = evaluation_cases.run(evaluation, name, tmp_path / kind)
    assert found["metrics"].keys() == expected["metrics"].keys()
    close(list(found["metrics"].values()), list(expected["metrics"].values()), atol=1e-5)
    if seen.kernels:
        check(seen)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("teacher", "student"), list(itertools.product(("dense", "sparse", "csr", "numpy"), repeat=2)))
def test_squared_error(teacher, student, kind) -> None:
    generator = torch.Generator().manual_seed(0)
    rows = [torch.relu(torch.randn(5, 6, generator=generator)) for _ in range(2)]
    made = {
        "dense": lambda part: part.to(kind),
        "sparse": lambda part: part.to_sparse().to(kind),
        "csr": lambda part: part.to_sparse_csr(),
        "numpy": lambda part: part.numpy(),
    }
    expected = 100 * ((rows[0] - rows[1]) ** 2).mean()
    with FakeGPU(kind):
        found = squared_error(made[teacher](rows[0]), made[student](rows[1]))
    assert found == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("works", [True, False])
@pytest.mark.parametrize("name", ["bert", "modernbert", "qwen3", "gemma3"])
def test_training_in_bfloat16(folder_of, monkeypatch, name, works) -> None:
    """Autocast, as `bf16=True` asks for it: training, evaluation loss and encoding, with and without the kernel."""
    model = SentenceTransformer(str(folder_of(name)), device="cpu")
    without_dropout(model)
    loss = losses.MultipleNegativesRankingLoss(model)
    collate = SentenceTransformerDataCollator(Preprocess(model))
    batch = collate([{"anchor": a, "positive": b} for a, b in itertools.pairwise(models.SENTENCES[:6])])

    def step(kind: str, training: bool) -> float:
        model.train(training)
        moved = {key: value.to(kind) if isinstance(value, torch.Tensor) else value for key, value in batch.items()}
        value = loss(Features.columns(moved), moved.get("label"))
        if training:
            value.backward()
        return float(value.detach())

    def refused(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("FlashAttention only supports Ampere GPUs or newer.")

    expected, vectors = step("cpu", True), model.encode(TEXTS)
    monkeypatch.setattr(torch.ops.aten, "_flash_attention_forward", kernel := Flash() if works else refused)
    enabled = torch.is_autocast_enabled
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: enabled("cpu"))
    monkeypatch.setattr(torch, "get_autocast_dtype", lambda kind: torch.bfloat16)
    with FakeGPU("cuda"), torch.autocast("cpu", torch.bfloat16):
        model.to("cuda")
        assert step("cuda", True) == pytest.approx(expected, rel=0.1, abs=0.1)
        with torch.no_grad():
            assert step("cuda", False) == pytest.approx(expected, rel=0.1, abs=0.1)
        found = model.encode(TEXTS)
        assert model[0].packs
    close(util.pairwise_cos_sim(found, vectors), np.ones(len(TEXTS)), atol=0.02)
    if works:
        assert kernel.calls > 2


def without_dropout(model: SentenceTransformer) -> None:
    for module in model.transformers_model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name in ("attention_dropout", "dropout_prob"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


# ---- other modules


VOCABULARY = ["the", "cat", "river", "never", "quick", "brown"]


def words() -> Any:
    return WordEmbeddings(WhitespaceTokenizer(VOCABULARY), torch.randn(len(VOCABULARY), 8).numpy())


MODULES: dict[str, Callable[[str], list[Any]]] = {
    "bags": lambda folder: [BoW(VOCABULARY), Dense(len(VOCABULARY), 4)],
    "words": lambda folder: [words(), WordWeights(VOCABULARY, {"cat": 0.5, "river": 2.0}), Pooling(8, "mean")],
    "lstm": lambda folder: [words(), LSTM(8, 6), Pooling(12, "max")],
    "cnn": lambda folder: [words(), CNN(8, 5), Pooling(15, "mean")],
    "layers": lambda folder: [
        Transformer(folder, config_kwargs={"output_hidden_states": True}),
        WeightedLayerPooling(models.HIDDEN, 2, 1),
        Pooling(models.HIDDEN, "mean"),
    ],
    "modes": lambda folder: [
        Transformer(folder),
        Pooling(models.HIDDEN, ["cls", "mean", "max"], include_prompt=False),
        Dense(3 * models.HIDDEN, 8),
        LayerNorm(8),
        Dropout(0.1),
        Normalize(),
    ],
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", MODULES)
def test_modules(bert_folder, name, kind) -> None:
    model = SentenceTransformer(modules=MODULES[name](str(bert_folder)), device="cpu", prompts={"p": "the cat "})
    expected = model.encode(TEXTS, prompt_name="p")
    with FakeGPU(kind) as seen:
        model.to(kind)
        close(model.encode(TEXTS, prompt_name="p"), expected)
    check(seen)


@pytest.mark.parametrize("kind", KINDS)
def test_hard_negatives(bert_folder, kind) -> None:
    data = datasets.Dataset.from_dict({"a": models.SENTENCES[:8], "b": models.SENTENCES[4:12]})
    model = SentenceTransformer(str(bert_folder), device="cpu")
    settings: dict[str, Any] = {"num_negatives": 1, "relative_margin": 0.01, "verbose": False}
    expected = util.mine_hard_negatives(data, model, **settings).to_dict()
    with FakeGPU(kind) as seen:
        assert util.mine_hard_negatives(data, model.to(kind), **settings).to_dict() == expected
    check(seen)


@pytest.mark.parametrize("kind", KINDS)
def test_token_pooling(tmp_path, kind) -> None:
    multi_vector_cases.FOLDERS["expanding"](tmp_path)
    model, pooling = MultiVectorEncoder(str(tmp_path), device="cpu"), HierarchicalTokenPooling(2)
    expected = model.encode_document(TEXTS, token_pooling=pooling)
    with FakeGPU(kind) as seen:
        model.to(kind)
        found = [row.cpu() for row in model.encode_document(TEXTS, token_pooling=pooling)]
    for row, other in zip(found, expected, strict=True):
        close(row, other)
    check(seen)
