"""Losses of sparse encoders: values and gradients of version 6.2.0, formulas, and what cannot be meant."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers.sparse_encoder import losses
from sentence_transformers.sparse_encoder.modules import SparseAutoEncoder

from sentence_transformers import SparseEncoder
from sentence_transformers.losses import splade
from sentence_transformers.losses.csr import normalized_mean_squared_error
from tests import models
from tests.golden import loss_cases, score_models

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "sparse_losses.npz")
COLUMNS = [models.SENTENCES[:5], [*models.SENTENCES[4:8], "cat"], models.SENTENCES[6:11]]


@pytest.fixture
def model(tmp_path: Path) -> SparseEncoder:
    next(iter(score_models.SPARSE.values()))(tmp_path)
    model = SparseEncoder(str(tmp_path), device="cpu")
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


def batch(model: SparseEncoder, columns: int) -> list[dict[str, Any]]:
    return [model.preprocess(column) for column in COLUMNS[:columns]]


@pytest.mark.parametrize("name", loss_cases.SPARSE_CASES)
def test_values_and_gradients_are_those_of_6_2_0(name: str) -> None:
    value, gradient = loss_cases.run_sparse(losses, name)
    np.testing.assert_allclose(value, GOLDEN[f"{name}.value"], rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(gradient, GOLDEN[f"{name}.gradient"], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", loss_cases.CSR_CASES)
def test_codes_and_reconstructions_are_those_of_6_2_0(name: str) -> None:
    value, gradient = loss_cases.run_csr(losses, SparseAutoEncoder, name)
    np.testing.assert_allclose(value, GOLDEN[f"{name}.value"], rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(gradient, GOLDEN[f"{name}.gradient"], rtol=1e-3, atol=1e-5)


# ---- formulas, written out


def test_flops_one_by_one() -> None:
    rows = [[0.0, 1.0, 2.0], [0.5, 0.0, 0.0], [0.0, 3.0, 0.0]]
    expected = sum((sum(row[j] for row in rows) / 3) ** 2 for j in range(3))
    assert float(splade.flops(torch.tensor(rows))) == pytest.approx(expected)
    wide = [row if sum(value != 0 for value in row) > 1 else [0.0] * 3 for row in rows]
    expected = sum((sum(row[j] for row in wide) / 3) ** 2 for j in range(3))
    assert float(splade.flops(torch.tensor(rows), threshold=1)) == pytest.approx(expected)


def test_normalized_error_of_the_mean_is_one() -> None:
    target = torch.randn(6, 4)
    mean = target.mean(0).expand_as(target)
    assert float(normalized_mean_squared_error(mean, target)) == pytest.approx(1.0, rel=1e-5)


# ---- what holds for every one of them


def test_the_list_has_every_loss() -> None:
    listed = {kind for kind, *_ in loss_cases.SPARSE_CASES.values()} | {"CSRLoss", "CSRReconstructionLoss"}
    assert listed == set(losses.__all__)


@pytest.mark.parametrize("name", loss_cases.SPARSE_CASES)
def test_settings_are_arguments(name: str) -> None:
    loss = loss_cases.make_sparse(losses, name, loss_cases.StandIn())
    json.dumps(loss.get_config_dict())
    settings = {key: getattr(loss, key) for key in inspect.signature(type(loss).__init__).parameters if key != "self"}
    assert type(loss)(**settings).get_config_dict() == loss.get_config_dict()
    assert isinstance(loss.citation, str)


WRAPPERS: dict[str, Any] = {
    "splade": lambda m: losses.SpladeLoss(m, losses.SparseMultipleNegativesRankingLoss(m), 0.01, 0.02),
    "cached": lambda m: losses.CachedSpladeLoss(
        m, losses.SparseMultipleNegativesRankingLoss(m), 0.01, 0.02, mini_batch_size=4
    ),
    "triplet": lambda m: losses.SpladeLoss(m, losses.SparseTripletLoss(m), 0.01),
}


def gradients(model: SparseEncoder, loss: Any) -> dict[str, torch.Tensor]:
    model.zero_grad()
    terms = loss(batch(model, 3), None)
    sum(terms.values()).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", WRAPPERS)
def test_gradients_reach_every_weight_that_is_used(model: SparseEncoder, name: str) -> None:
    found = gradients(model, WRAPPERS[name](model))
    without = [n for n, p in model.named_parameters() if n not in found or not bool(found[n].abs().sum() > 0)]
    assert all("pooler" in n or "token_type" in n for n in without), without


def test_cached_is_not_cached(model: SparseEncoder) -> None:
    plain, cached = WRAPPERS["splade"](model), WRAPPERS["cached"](model)
    terms = [{key: float(value) for key, value in loss(batch(model, 3), None).items()} for loss in (plain, cached)]
    assert terms[0] == pytest.approx(terms[1], rel=1e-4)
    expected, got = gradients(model, plain), gradients(model, cached)
    for name in expected:
        torch.testing.assert_close(got[name], expected[name], rtol=1e-3, atol=1e-5)


# ---- bad input


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda m, inner: losses.SpladeLoss(m, inner, -1.0), "document_regularizer_weight must be at least 0"),
        (lambda m, inner: losses.SpladeLoss(m, inner, 1.0, -0.1), "query_regularizer_weight must be at least 0"),
        (
            lambda m, inner: losses.SpladeLoss(m, inner, 1.0, query_regularizer_threshold=-2),
            "query_regularizer_threshold",
        ),
        (lambda m, inner: losses.FlopsLoss(m, -3), "threshold must be at least 0"),
        (lambda m, inner: losses.SpladeLoss(m, torch.nn.Identity(), 1.0), "compute_loss_from_embeddings"),
        (lambda m, inner: losses.CSRLoss(m, torch.nn.Identity()), "compute_loss_from_embeddings"),
        (lambda m, inner: losses.CachedSpladeLoss(m, inner, 1.0, mini_batch_size=0), "at least 1"),
        (lambda m, inner: inner([], None), "Use it within SpladeLoss"),
        (lambda m, inner: losses.FlopsLoss(m)([], None), "within SpladeLoss"),
        (lambda m, inner: losses.CSRReconstructionLoss(m)([]), "Use CSRLoss"),
        (lambda m, inner: losses.CSRLoss(m)([{"vectors": v} for v in loss_cases.vectors_of(2)]), "SparseAutoEncoder"),
    ],
    ids=range(11),
)
def test_what_cannot_be_meant_is_said(make: Any, says: str) -> None:
    model = loss_cases.StandIn()
    with pytest.raises(ValueError, match=says):
        make(model, losses.SparseMultipleNegativesRankingLoss(model))
