"""Worker processes compute with the weights that the model has when it is called, as fast as their parent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sentence_transformers import SentenceTransformer, models
from sentence_transformers.backends import prepacked_linear
from sentence_transformers.backends.write_detection import watch
from sentence_transformers.engine import shared_weights, workers
from tests.models import TEXTS, build

pytestmark = pytest.mark.usefixtures("forked_workers")


class Watched(SentenceTransformer):
    """Tells which of its weights are prepared for the kernels of the CPU: those that can be watched."""

    def watched(self, inputs: list[Any]) -> list[Any]:
        return [watched(self) for _ in inputs]


def watched(model: nn.Module) -> set[str]:
    return {name for name in matrices(model) if watch(model.get_parameter(name)) is not None}


def matrices(model: nn.Module) -> set[str]:
    """Names of the weights of linear layers."""
    return {name for name, weight in model.named_parameters() if weight.dim() == 2 and "embeddings.weight" not in name}


@pytest.fixture(params=["bert", "modernbert"])
def model(request: Any, tmp_path: Path) -> Watched:
    return Watched(str(build(request.param, tmp_path / "model")), device="cpu")


@pytest.fixture
def pool(model: Watched) -> Iterator[Any]:
    made = model.start_multi_process_pool(["cpu"])
    yield made
    model.stop_multi_process_pool(made)


CHANGES: dict[str, Any] = {
    "by data": lambda weight: weight.data.mul_(0.25),
    "in place": lambda weight: weight.detach().add_(0.1),
    "other data": lambda weight: setattr(weight, "data", weight.data * 1.5),
    "one number": lambda weight: weight.data.view(-1)[-1:].add_(0.02),
}


def test_changed_weights_reach_the_workers(model: Watched, pool: Any) -> None:
    expected = model.encode(TEXTS)
    state = {name: weight.clone() for name, weight in model.state_dict().items()}
    np.testing.assert_allclose(model.encode(TEXTS, pool=pool), expected, atol=2e-6)
    for name, change in CHANGES.items():
        for weight in model.parameters():
            change(weight)
        before, expected = expected, model.encode(TEXTS)
        assert np.abs(expected - before).max() > 1e-3
        np.testing.assert_allclose(model.encode(TEXTS, pool=pool), expected, atol=2e-6, err_msg=name)
    model.load_state_dict(state)
    np.testing.assert_allclose(model.encode(TEXTS, pool=pool), model.encode(TEXTS), atol=2e-6)
    assert pool.weights.state.version == len(CHANGES) + 1


def test_parent_and_worker_keep_what_they_prepared(model: Watched, pool: Any) -> None:
    model.encode(TEXTS, pool=pool)
    model.encode(TEXTS)
    ((_, _, (found,)),) = workers.map_chunks(pool, "watched", [1], None, {})
    assert watched(model) == found == matrices(model) and len(found) >= 8


def test_changed_settings_reach_the_workers(model: Watched, pool: Any) -> None:
    model.encode(TEXTS, pool=pool)
    model[1].pooling_mode = "max"
    np.testing.assert_allclose(model.encode(TEXTS, pool=pool), model.encode(TEXTS), atol=2e-6)
    model.max_seq_length = 5
    model.prompts["side"] = "the cat "
    settings = {"prompt_name": "side", "normalize_embeddings": True, "truncate_dim": 7}
    np.testing.assert_allclose(model.encode(TEXTS, pool=pool, **settings), model.encode(TEXTS, **settings), atol=2e-6)
    assert pool.weights.state.settings == {("1", "pooling_mode"): "max", ("0", "max_seq_length"): 5}
    model[0].processing_kwargs = {"text": {"verbose": lambda: None}}
    with pytest.raises(ValueError, match=r"processing_kwargs of module '0' .* cannot be sent"):
        model.encode(TEXTS, pool=pool)


def test_other_weights_than_those_of_the_start_are_refused(bert_folder: Path) -> None:
    model = SentenceTransformer(str(bert_folder), device="cpu")
    pool = model.start_multi_process_pool(["cpu"])
    try:
        model.append(models.Normalize())
        with pytest.raises(ValueError, match=r"modules of the model are not those .* start a new pool"):
            model.encode(TEXTS, pool=pool)
        del model[-1]
        model.half()
        with pytest.raises(ValueError, match=r"weights .*embeddings.* are not those"):
            model.encode(TEXTS, pool=pool)
        model.float()
        np.testing.assert_allclose(model.encode(TEXTS, pool=pool), model.encode(TEXTS), atol=2e-6)
    finally:
        model.stop_multi_process_pool(pool)


def test_a_model_too_large_for_a_second_copy_is_shared_as_it_is(bert_folder: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(prepacked_linear, "PACK_LIMIT_BYTES", -1)
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    shared = shared_weights.SharedWeights(model)
    sent = shared.copy_of_model()
    assert all(weight.is_shared() for weight in model.state_dict().values())
    model[0].weight.data.fill_(5)
    assert shared.refresh().version == 0 and float(sent[0].weight.detach().min()) == 5
    model[0].weight = nn.Parameter(torch.zeros(2, 3))
    assert shared.refresh().version == 1 and not sent[0].weight.detach().any()
