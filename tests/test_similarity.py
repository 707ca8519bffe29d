"""Similarities: against double loops over the formulas, against recorded values, and laws that each function obeys."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from sentence_transformers import late_interaction
from sentence_transformers import similarity as sim
from sentence_transformers.errors import InputError
from sentence_transformers.late_interaction import xtr_kd_scores, xtr_scores

GOLDEN = np.load(Path(__file__).parent / "golden" / "search.npz")

A = [[1.0, 2.0, 3.0, -1.0], [4.0, -5.0, 0.0, 2.0]]
B = [[1.0, 0.0, 2.0, 0.0], [0.0, 1.0, 0.0, 3.0], [-3.0, 3.0, 3.0, 1.0]]

FORMULAS = {
    "cos_sim": lambda x, y: (
        sum(p * q for p, q in zip(x, y, strict=True))
        / math.sqrt(sum(p * p for p in x))
        / math.sqrt(sum(q * q for q in y))
    ),
    "dot_score": lambda x, y: sum(p * q for p, q in zip(x, y, strict=True)),
    "manhattan_sim": lambda x, y: -sum(abs(p - q) for p, q in zip(x, y, strict=True)),
    "euclidean_sim": lambda x, y: -math.sqrt(sum((p - q) ** 2 for p, q in zip(x, y, strict=True))),
}
NAMES = sorted(FORMULAS)


def loop(name, a, b):
    return np.array([[FORMULAS[name](x, y) for y in b] for x in a])


@pytest.mark.parametrize("name", NAMES)
def test_all_pairs_equals_the_formula(name):
    np.testing.assert_allclose(getattr(sim, name)(A, B), loop(name, A, B), atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_pairwise_is_the_diagonal_of_the_formula(name):
    np.testing.assert_allclose(getattr(sim, f"pairwise_{name}")(A, B[:2]), loop(name, A, B[:2]).diagonal(), atol=1e-6)


@pytest.mark.parametrize("key", [key for key in GOLDEN.files if key.startswith("pairs/")])
def test_values_of_the_existing_library(key):
    name = key.removeprefix("pairs/")
    documents = GOLDEN["documents"][: 5 if name.startswith("pairwise") else None]
    np.testing.assert_allclose(getattr(sim, name)(GOLDEN["queries"], documents), GOLDEN[key], atol=2e-6)


INPUT_FORMS = {
    "list of integers": lambda a: [[int(x) for x in row] for row in a],
    "integer array": lambda a: np.array(a, dtype=np.int64),
    "integer tensor": lambda a: torch.tensor(a).int(),
    "float16 array": lambda a: np.array(a, dtype=np.float16),
    "bfloat16 tensor": lambda a: torch.tensor(a).bfloat16(),
    "list of tensors": lambda a: [torch.tensor(row) for row in a],
    "list of arrays": lambda a: [np.array(row, dtype=np.float32) for row in a],
    "read-only array": lambda a: np.frombuffer(np.array(a, dtype=np.float32).tobytes(), np.float32).reshape(len(a), -1),
    "reversed view": lambda a: np.array(a[::-1], dtype=np.float32)[::-1],
    "COO": lambda a: torch.tensor(a).to_sparse(),
    "CSR": lambda a: torch.tensor(a).to_sparse_csr(),
    "list of sparse": lambda a: [torch.tensor(row).to_sparse() for row in a],
}


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta state")
@pytest.mark.parametrize("form", INPUT_FORMS)
@pytest.mark.parametrize("name", NAMES)
def test_equivalent_inputs_give_dense_float32(name, form):
    convert, pairwise = INPUT_FORMS[form], getattr(sim, f"pairwise_{name}")
    for left, right in ((convert(A), convert(B)), (A, convert(B)), (convert(A), B)):
        result = getattr(sim, name)(left, right)
        assert (result.dtype, result.layout, result.shape) == (torch.float32, torch.strided, (2, 3))
        np.testing.assert_allclose(result, loop(name, A, B), atol=1e-6)
    np.testing.assert_allclose(pairwise(convert(A), convert(B[:2])), loop(name, A, B[:2]).diagonal(), atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_sparse_rows_are_made_dense_in_blocks(name, monkeypatch):
    monkeypatch.setattr(sim, "DENSE_BLOCK", 1)
    a, b = torch.tensor(A).to_sparse(), torch.tensor(B).to_sparse()
    np.testing.assert_allclose(getattr(sim, name)(a, b), loop(name, A, B), atol=1e-6)
    pairs = getattr(sim, f"pairwise_{name}")(a, torch.tensor(B[:2]).to_sparse())
    np.testing.assert_allclose(pairs, loop(name, A, B[:2]).diagonal(), atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_float64_keeps_its_precision(name):
    result = getattr(sim, name)(np.array(A), torch.tensor(B))
    assert result.dtype == torch.float64
    np.testing.assert_allclose(getattr(sim, name)(np.array(A), np.array(B)), loop(name, A, B), rtol=1e-13)


@pytest.mark.parametrize("name", NAMES)
def test_one_vector_is_one_row(name):
    np.testing.assert_allclose(getattr(sim, name)(A[0], B), loop(name, A[:1], B), atol=1e-6)
    np.testing.assert_allclose(getattr(sim, name)(A[0], B[0]), loop(name, A[:1], B[:1]), atol=1e-6)
    assert getattr(sim, f"pairwise_{name}")(A[0], B[0]).shape == ()
    np.testing.assert_allclose(getattr(sim, f"pairwise_{name}")(A, B[0]), loop(name, A, B[:1])[:, 0], atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_no_rows(name):
    assert getattr(sim, name)(torch.zeros(0, 4), B).shape == (0, 3)
    assert getattr(sim, name)(torch.zeros(0, 4).to_sparse(), torch.tensor(B).to_sparse()).shape == (0, 3)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "a, b",
    [
        ([[1.0, 2.0]], B),
        ([], B),
        (torch.ones(2, 2, 4), B),
        ([[1.0], [1.0, 2.0]], B),
        ([["a"]], B),
        (3.0, B),
    ],
    ids=["dimension", "empty list", "three axes", "ragged", "text", "number"],
)
def test_invalid_inputs(name, a, b):
    with pytest.raises(InputError):
        getattr(sim, name)(a, b)


@pytest.mark.parametrize("a, b", [(A, B), (A, [[1.0]] * 2), (1.0, 2.0)], ids=["rows", "dimension", "numbers"])
@pytest.mark.parametrize("name", [f"pairwise_{name}" for name in NAMES] + ["pairwise_angle_sim"])
def test_invalid_pairs(name, a, b):
    with pytest.raises(InputError):
        getattr(sim, name)(a, b)


def test_zero_vectors_have_cosine_zero():
    zero = [[0.0] * 4]
    assert sim.cos_sim(zero, B).tolist() == [[0.0, 0.0, 0.0]]
    assert sim.pairwise_cos_sim(zero, zero).tolist() == [0.0]
    assert sim.pairwise_angle_sim(zero, A[:1]).tolist() == [0.0]
    assert sim.pairwise_angle_sim(A[:1], zero).tolist() == [0.0]


@pytest.mark.parametrize("name", [*NAMES, *(f"pairwise_{name}" for name in NAMES), "pairwise_angle_sim"])
def test_gradient_is_the_numerical_one(name):
    a = torch.tensor(A, dtype=torch.float64, requires_grad=True)
    b = torch.tensor(B[:2], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(getattr(sim, name), (a, b))


def test_angle_is_complex_division():
    def angle(x, y):
        half = len(x) // 2
        z, w = (np.array(v[:half]) + 1j * np.array(v[half:]) for v in (x, y))
        quotient = (z / w) * (np.abs(w) ** 2) / np.linalg.norm(z) / np.linalg.norm(w)
        return abs(quotient.real.sum() + quotient.imag.sum())

    expected = [angle(A[0], [1.0, -2.0, 2.0, 1.0]), angle(A[1], B[2])]
    np.testing.assert_allclose(sim.pairwise_angle_sim(A, [[1.0, -2.0, 2.0, 1.0], B[2]]), expected, atol=1e-6)
    with pytest.raises(InputError, match="even"):
        sim.pairwise_angle_sim([[1.0, 2.0, 3.0]], [[1.0, 2.0, 3.0]])


def test_pytorch_cos_sim_is_deprecated():
    with pytest.warns(DeprecationWarning, match="cos_sim"):
        result = sim.pytorch_cos_sim(A, B)
    np.testing.assert_allclose(result, loop("cos_sim", A, B), atol=1e-6)


# MaxSim


def maxsim_loop(queries, documents):
    """Σᵢ maxⱼ qᵢ·dⱼ with plain loops."""
    return np.array(
        [[sum(max(float(np.dot(q, d)) for d in doc) for q in query) for doc in documents] for query in queries]
    )


@pytest.fixture
def tokens():
    random = np.random.RandomState(3)
    queries = [random.randn(n, 4).astype(np.float32) for n in (3, 1, 2)]
    documents = [random.randn(n, 4).astype(np.float32) for n in (2, 7, 1)]
    documents[2] -= 5 * np.sign(queries[0].sum(0))  # negative scores: padding must not win with 0
    return queries, documents


@pytest.mark.parametrize("chunk_elements", [None, 1, 30, 10**6])
def test_maxsim_equals_the_loops(tokens, chunk_elements):
    queries, documents = tokens
    expected = maxsim_loop(queries, documents)
    assert expected.min() < 0
    lengths = np.array([len(q) for q in queries])
    kwargs = {"chunk_elements": chunk_elements}
    np.testing.assert_allclose(sim.maxsim(queries, documents, **kwargs), expected, atol=1e-5)
    np.testing.assert_allclose(sim.mean_maxsim(queries, documents, **kwargs), expected / lengths[:, None], atol=1e-5)
    np.testing.assert_allclose(sim.maxsim_pairwise(queries, documents, **kwargs), expected.diagonal(), atol=1e-5)
    means = sim.mean_maxsim_pairwise(queries, documents, **kwargs)
    np.testing.assert_allclose(means, expected.diagonal() / lengths, atol=1e-5)


@pytest.mark.parametrize(
    "form",
    [
        lambda items: [torch.tensor(item) for item in items],
        lambda items: [item.tolist() for item in items],
        lambda items: torch.nn.utils.rnn.pad_sequence([torch.tensor(item) for item in items], batch_first=True),
    ],
    ids=["tensors", "nested lists", "padded"],
)
def test_maxsim_equivalent_inputs(tokens, form):
    queries, documents = tokens
    np.testing.assert_allclose(sim.maxsim(form(queries), form(documents)), maxsim_loop(queries, documents), atol=1e-5)


def test_maxsim_of_half_precision_is_float32(tokens):
    queries, documents = ([torch.tensor(item).bfloat16() for item in side] for side in tokens)
    result = sim.maxsim(queries, documents)
    assert result.dtype == torch.float32
    rounded = [[item.float().numpy() for item in side] for side in (queries, documents)]
    np.testing.assert_allclose(result, maxsim_loop(*rounded), atol=1e-4)


def test_maxsim_masks(tokens):
    queries, documents = tokens
    q, d = np.stack([queries[0], queries[0]]), np.stack([documents[1]])
    q_mask, d_mask = torch.tensor([[1, 0, 1], [0, 0, 1]]), torch.tensor([[0, 1, 1, 0, 1, 0, 0]])
    kept_queries = [queries[0][[0, 2]], queries[0][[2]]]
    expected = maxsim_loop(kept_queries, [documents[1][[1, 2, 4]]])
    np.testing.assert_allclose(sim.maxsim(q, d, q_mask, d_mask), expected, atol=1e-5)
    np.testing.assert_allclose(sim.maxsim(q, d, q_mask.bool(), d_mask.bool()), expected, atol=1e-5)
    np.testing.assert_allclose(sim.mean_maxsim(q, d, q_mask, d_mask), expected / [[2], [1]], atol=1e-5)


def test_maxsim_leaves_out_what_is_all_zero(tokens):
    """In the middle of a ragged item too, and in blocks of any size."""
    queries, documents = tokens
    holes = [np.insert(item, [0, 1, len(item)], 0, axis=0) for item in documents]
    for chunk_elements in (None, 5):
        scores = sim.maxsim([np.insert(q, 1, 0, axis=0) for q in queries], holes, chunk_elements=chunk_elements)
        np.testing.assert_allclose(scores, maxsim_loop(queries, documents), atol=1e-5)


def test_maxsim_without_tokens(tokens):
    queries, documents = tokens
    none = np.zeros((0, 4), dtype=np.float32)
    scores = sim.maxsim([queries[0], none], [documents[0], none])
    assert scores[0, 1] == -1e9 and scores[1].tolist() == [0.0, -1e9]
    assert sim.mean_maxsim([queries[0]], [none])[0, 0] == pytest.approx(-1e9 / 3)
    assert sim.maxsim_pairwise([queries[0]], [none]).tolist() == [-1e9]
    zeros = np.zeros((1, 2, 4), dtype=np.float32)
    assert sim.maxsim(queries[0], zeros).tolist() == [[-1e9]]


def test_maxsim_of_nothing(tokens):
    queries, documents = tokens
    assert sim.maxsim([], documents).shape == (0, 3)
    assert sim.maxsim(queries, []).shape == (3, 0)
    assert sim.maxsim_pairwise([], []).shape == (0,)


def test_maxsim_gradient_reaches_only_the_best_tokens():
    query = torch.tensor([[1.0, 0.0], [0.0, 2.0]], requires_grad=True)
    document = torch.tensor([[3.0, 0.0], [0.0, 5.0], [1.0, 1.0]], requires_grad=True)
    sim.maxsim(query, document).sum().backward()
    assert query.grad.tolist() == [[3.0, 0.0], [0.0, 5.0]]
    assert document.grad.tolist() == [[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]]


def test_maxsim_never_holds_more_than_chunk_elements(monkeypatch):
    sizes = []
    for name in ("_best", "_best_of_groups"):
        best = getattr(late_interaction, name)
        spy = lambda s, other, best=best: sizes.append(s.numel()) or best(s, other)  # noqa: E731
        monkeypatch.setattr(late_interaction, name, spy)
    sim.maxsim(torch.ones(10, 3, 4), torch.ones(50, 5, 4), chunk_elements=200)
    sim.maxsim_pairwise(torch.ones(50, 3, 4), torch.ones(50, 5, 4), chunk_elements=200)
    assert max(sizes) <= 200 and sum(sizes) == 10 * 3 * 50 * 5 + 50 * 3 * 5


@pytest.mark.parametrize(
    "a, b, masks",
    [
        (torch.ones(2, 3, 4), torch.ones(2, 3, 5), {}),
        (torch.ones(4), torch.ones(2, 3, 4), {}),
        (torch.ones(1, 2, 3, 4), torch.ones(2, 3, 4), {}),
        ([torch.ones(4)], [torch.ones(3, 4)], {}),
        ([torch.ones(3, 4), torch.ones(3, 5)], [torch.ones(3, 4)], {}),
        (torch.ones(2, 3, 4), torch.ones(2, 3, 4), {"a_mask": torch.ones(2, 2)}),
        (torch.ones(2, 3, 4), torch.ones(2, 3, 4), {"b_mask": torch.ones(1, 3)}),
    ],
    ids=["dimension", "one vector", "four axes", "list of vectors", "mixed", "mask tokens", "mask rows"],
)
@pytest.mark.parametrize("function", [sim.maxsim, sim.maxsim_pairwise], ids=["all", "pairwise"])
def test_maxsim_invalid_inputs(function, a, b, masks):
    with pytest.raises(InputError):
        function(a, b, **masks)


def test_maxsim_pairs_must_match():
    with pytest.raises(InputError, match="2 and 3"):
        sim.maxsim_pairwise(torch.ones(2, 3, 4), torch.ones(3, 3, 4))


# SimilarityFunction


@pytest.mark.parametrize(
    "name, function, pairwise",
    [
        ("cosine", sim.cos_sim, sim.pairwise_cos_sim),
        ("dot", sim.dot_score, sim.pairwise_dot_score),
        ("euclidean", sim.euclidean_sim, sim.pairwise_euclidean_sim),
        ("manhattan", sim.manhattan_sim, sim.pairwise_manhattan_sim),
        ("maxsim", sim.maxsim, sim.maxsim_pairwise),
        ("meanmaxsim", sim.mean_maxsim, sim.mean_maxsim_pairwise),
    ],
)
def test_similarity_function_by_name(name, function, pairwise):
    for key in (name, sim.SimilarityFunction(name)):
        assert sim.SimilarityFunction.to_similarity_fn(key) is function
        assert sim.SimilarityFunction.to_similarity_pairwise_fn(key) is pairwise


def test_similarity_function_names():
    values = ["cosine", "dot", "euclidean", "manhattan", "maxsim", "meanmaxsim"]
    assert sim.SimilarityFunction.possible_values() == values
    assert sim.SimilarityFunction.DOT is sim.SimilarityFunction.DOT_PRODUCT
    for unknown in ("nope", None, "COSINE"):
        with pytest.raises(ValueError, match="not a valid"):
            sim.SimilarityFunction.to_similarity_fn(unknown)


def test_sparse_inputs_do_not_warn():
    a = torch.tensor(A).to_sparse()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in NAMES:
            getattr(sim, name)(a, a)


# ---- masks in several forms, compilation, warnings, devices


def test_masks_of_items_are_the_padded_mask(tokens):
    queries, documents = ([torch.tensor(item) for item in side] for side in tokens)
    kept_q = [torch.arange(len(query)) % 3 != 1 for query in queries]
    kept_d = [(torch.arange(len(document)) + 1) % 4 != 0 for document in documents]
    expected = torch.tensor(
        maxsim_loop(
            [q[keep].numpy() for q, keep in zip(queries, kept_q, strict=True)],
            [d[keep].numpy() for d, keep in zip(documents, kept_d, strict=True)],
        )
    )
    padded = [torch.nn.utils.rnn.pad_sequence(side, batch_first=True) for side in (kept_q, kept_d)]
    for masks in ((kept_q, kept_d), padded, ([m.tolist() for m in kept_q], [m.numpy() for m in kept_d])):
        for chunk in (None, 1, 7):
            found = sim.maxsim(queries, documents, *masks, chunk_elements=chunk)
            torch.testing.assert_close(found, expected.to(found), rtol=1e-4, atol=1e-4)
    count = min(len(queries), len(documents))
    pairs = sim.maxsim_pairwise(queries[:count], documents[:count], kept_q[:count], kept_d[:count])
    torch.testing.assert_close(pairs, expected.to(pairs)[:count, :count].diagonal(), rtol=1e-4, atol=1e-4)


def test_masks_of_single_items():
    query, document = torch.randn(5, 4), torch.randn(7, 4)
    q_mask, d_mask = torch.tensor([1, 0, 1, 1, 0]), torch.tensor([1, 1, 0, 0, 1, 1, 0])
    expected = (query[q_mask != 0] @ document[d_mask != 0].T).amax(1).sum()
    torch.testing.assert_close(sim.maxsim(query, document, q_mask, d_mask), expected[None, None])
    torch.testing.assert_close(sim.maxsim_pairwise(query, document, q_mask, d_mask), expected[None])


@pytest.mark.parametrize(
    ("mask", "error", "says"),
    [
        ("abc", TypeError, "`a_mask` must be a tensor, an array or a list of masks, got str"),
        (5, TypeError, "got int"),
        ([torch.ones(3)], InputError, "has 1 masks for 2 items"),
        ([torch.ones(3), torch.ones(4)], InputError, "a mask of 4 tokens, but the longest item has 3"),
        (torch.ones(2), InputError, r"must have the shape \(2, 3\)"),
    ],
)
def test_masks_that_do_not_fit(mask, error, says):
    for function in (sim.maxsim, sim.maxsim_pairwise):
        with pytest.raises(error, match=says):
            function(torch.randn(2, 3, 4), torch.randn(2, 5, 4), mask)


def test_maxsim_is_one_graph(tokens):
    queries, documents = (
        torch.nn.utils.rnn.pad_sequence([torch.tensor(item) for item in side], batch_first=True) for side in tokens
    )
    masks = [(side != 0).any(-1) for side in (queries, documents)]
    torch._dynamo.reset()
    compiled = torch.compile(sim.maxsim, fullgraph=True, backend="eager")
    for normalize in (False, True):
        found = compiled(queries, documents, *masks, 200, normalize)
        expected = torch.tensor(maxsim_loop(*tokens)).to(found)
        lengths = torch.tensor([len(query) for query in tokens[0]])[:, None] if normalize else 1
        torch.testing.assert_close(found, expected / lengths, rtol=1e-4, atol=1e-4)


def test_documents_without_tokens_are_said_once(caplog):
    late_interaction.warn_of_empty_documents.cache_clear()
    query, document = torch.randn(2, 3, 4), torch.randn(2, 5, 4)
    sim.maxsim(query, document)
    assert not caplog.text
    for _ in range(2):
        assert (sim.maxsim(query, document * 0) == -1e9).all()
        assert (sim.maxsim_pairwise(query, document, b_mask=torch.zeros(2, 5)) == -1e9).all()
    assert caplog.text.count("A document has no token that counts") == 1


def test_sides_on_two_devices_meet_on_one():
    """Tensors of the device "meta" have no values, but raise where two devices are mixed."""
    there, here = torch.empty(3, 4, device="meta"), torch.ones(3, 4)
    for function in (sim.cos_sim, sim.dot_score, sim.euclidean_sim, sim.pairwise_cos_sim, sim.pairwise_dot_score):
        assert function(there, here).device.type == function(here, there).device.type == "meta"
    queries, masks = torch.empty(2, 3, 4, device="meta"), (torch.ones(2, 3), torch.ones(2, 5))
    assert xtr_scores(queries, torch.ones(2, 5, 4), *masks, top_k=2).device.type == "meta"
    assert xtr_kd_scores(queries, torch.ones(2, 3, 5, 4), top_k=2).shape == (2, 3)
