"""Every argument of the similarity and late interaction functions, against loops over the formulas."""

from __future__ import annotations

import inspect
import pickle

import numpy as np
import pytest
import torch
from sentence_transformers.multi_vector_encoder import scoring

from sentence_transformers import util

torch.manual_seed(0)
QUERIES, DOCUMENTS, CANDIDATES = torch.randn(3, 4, 5), torch.randn(3, 6, 5), torch.randn(3, 2, 6, 5)
Q_MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 1, 1]])
D_MASK = torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0], [1] * 6])
C_MASK = torch.stack([D_MASK, D_MASK.flip(0)], 1)


def best(query: torch.Tensor, document: torch.Tensor, q_mask: torch.Tensor, d_mask: torch.Tensor, mean: bool) -> float:
    """Σᵢ maxⱼ qᵢᵀdⱼ over the tokens that count; with `mean` divided by the number of query tokens."""
    rows = [
        max(float(q @ d) for d, there in zip(document, d_mask, strict=True) if there)
        for q, wanted in zip(query, q_mask, strict=True)
        if wanted
    ]
    return sum(rows) / (len(rows) if mean else 1)


def expected(kind: str, masked: bool, mean: bool) -> torch.Tensor:
    q_mask, d_mask, c_mask = (mask if masked else torch.ones_like(mask) for mask in (Q_MASK, D_MASK, C_MASK))
    if kind == "pairwise":
        return torch.tensor([best(QUERIES[n], DOCUMENTS[n], q_mask[n], d_mask[n], mean) for n in range(3)])
    if kind == "kd":
        rows = [[best(QUERIES[n], CANDIDATES[n, k], q_mask[n], c_mask[n, k], mean) for k in range(2)] for n in range(3)]
        return torch.tensor(rows)
    return torch.tensor(
        [[best(QUERIES[n], DOCUMENTS[m], q_mask[n], d_mask[m], mean) for m in range(3)] for n in range(3)]
    )


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("normalized", [None, False, True])
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("colbert_scores", "all"),
        ("colbert_scores_pairwise", "pairwise"),
        ("colbert_kd_scores", "kd"),
        ("mean_colbert_scores", "all"),
        ("mean_colbert_scores_pairwise", "pairwise"),
        ("mean_colbert_kd_scores", "kd"),
    ],
)
def test_late_interaction(name, kind, normalized, masked):
    given = {} if normalized is None else {"length_normalize": normalized}
    masks = {"queries_mask": Q_MASK, "documents_mask": C_MASK if kind == "kd" else D_MASK} if masked else {}
    documents = CANDIDATES if kind == "kd" else DOCUMENTS
    mean = name.startswith("mean_") if normalized is None else normalized
    for elements in (None, 1):
        found = getattr(scoring, name)(
            queries_embeddings=QUERIES, documents_embeddings=documents, chunk_elements=elements, **masks, **given
        )
        torch.testing.assert_close(found, expected(kind, masked, mean))


@pytest.mark.parametrize("name", ["colbert_scores", "colbert_scores_pairwise", "colbert_kd_scores"])
def test_mean_scores_are_functions_of_their_own(name):
    plain, mean = (getattr(scoring, one) for one in (name, f"mean_{name}"))
    arguments = [inspect.signature(one).parameters for one in (plain, mean)]
    assert list(arguments[0]) == list(arguments[1])
    assert [one["length_normalize"].default for one in arguments] == [False, True]
    assert mean.__name__ == f"mean_{name}" and pickle.loads(pickle.dumps(mean)) is mean


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("name", ["maxsim", "mean_maxsim", "maxsim_pairwise", "mean_maxsim_pairwise"])
def test_maxsim_by_length(name, normalized):
    found = getattr(util, name)(
        a=QUERIES,
        b=DOCUMENTS,
        a_mask=Q_MASK,
        b_mask=D_MASK,
        chunk_elements=1,
        length_normalize=normalized,
        device="cpu",
    )
    torch.testing.assert_close(found, expected("pairwise" if "pair" in name else "all", True, normalized))


def found_by(query: torch.Tensor, q_mask: torch.Tensor, documents: list[torch.Tensor], top_k: int) -> list[float]:
    """XTR of one query and documents that compete: per query token the `top_k` nearest tokens of all are found."""
    total, hits = [0.0] * len(documents), [0] * len(documents)
    for q, wanted in zip(query, q_mask, strict=True):
        if not wanted:
            continue
        all_of = sorted(((float(q @ d), n) for n, document in enumerate(documents) for d in document), reverse=True)
        for n in range(len(documents)):
            if own := [value for value, owner in all_of[:top_k] if owner == n]:
                total[n] += max(own)
                hits[n] += 1
    return [value / max(1, count) for value, count in zip(total, hits, strict=True)]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("elements", [None, 1])
@pytest.mark.parametrize("name", ["xtr_scores", "xtr_kd_scores", "xtr_scores_pairwise"])
def test_xtr(name, elements, masked):
    kd = name == "xtr_kd_scores"
    q_mask, d_mask, c_mask = (mask if masked else torch.ones_like(mask) for mask in (Q_MASK, D_MASK, C_MASK))
    masks = {"queries_mask": Q_MASK, "documents_mask": C_MASK if kd else D_MASK} if masked else {}
    documents = [d[there.bool()] for d, there in zip(DOCUMENTS, d_mask, strict=True)]
    flat = [d[there.bool()] for d, there in zip(CANDIDATES.flatten(0, 1), c_mask.flatten(0, 1), strict=True)]
    rows = torch.tensor([found_by(QUERIES[n], q_mask[n], flat if kd else documents, 5) for n in range(3)])
    if kd:
        rows = torch.stack([rows[n, 2 * n : 2 * n + 2] for n in range(3)])
    if name == "xtr_scores_pairwise":
        rows = rows.diagonal()
    found = getattr(scoring, name)(
        queries_embeddings=QUERIES,
        documents_embeddings=CANDIDATES if kd else DOCUMENTS,
        top_k=5,
        chunk_elements=elements,
        **masks,
    )
    torch.testing.assert_close(found, rows)


@pytest.mark.parametrize(
    ("name", "pairwise", "formula"),
    [
        ("manhattan_sim", "pairwise_manhattan_sim", lambda a, b: -np.abs(a - b).sum()),
        ("euclidean_sim", "pairwise_euclidean_sim", lambda a, b: -np.sqrt(((a - b) ** 2).sum())),
        ("dot_score", "pairwise_dot_score", lambda a, b: a @ b),
        ("cos_sim", "pairwise_cos_sim", lambda a, b: a @ b / np.linalg.norm(a) / np.linalg.norm(b)),
    ],
)
def test_similarities_by_name(name, pairwise, formula):
    a, b = QUERIES[0].numpy(), DOCUMENTS[0, :4].numpy()
    table = np.array([[formula(x, y) for y in b] for x in a])
    np.testing.assert_allclose(getattr(util, name)(a=a, b=b), table, rtol=1e-5)
    np.testing.assert_allclose(getattr(util, pairwise)(a=a, b=b), table.diagonal(), rtol=1e-5)
