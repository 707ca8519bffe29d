"""The weights that are seen are the weights that compute, however they were changed: after each change `encode` equals
that of a model loaded from what is saved now.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from sentence_transformers import SentenceTransformer, models
from tests.models import build

TEXTS = ["a cat sat on the mat", "the quick brown fox", "hi"]


def scaled_by_numpy(parameter: nn.Parameter) -> None:
    view = parameter.detach().numpy()
    view *= 0.5


def fused_step(parameter: nn.Parameter) -> None:
    parameter.grad = torch.ones_like(parameter)
    torch.optim.AdamW([parameter], lr=0.1, fused=True).step()
    parameter.grad = None


def in_place(parameter: nn.Parameter) -> None:
    with torch.no_grad():
        parameter.mul_(0.5)


def averaged(parameter: nn.Parameter) -> None:
    parameter.data.copy_(parameter.data * 0.9 + 0.01)


CHANGES = {
    "in place": in_place,
    "by data": lambda parameter: parameter.data.mul_(0.5),
    "one number": lambda parameter: parameter.data.view(-1)[3:4].add_(2),
    "other data": lambda parameter: setattr(parameter, "data", parameter.data * 0.5),
    "moving average": averaged,
    "NumPy": scaled_by_numpy,
    "fused optimizer": fused_step,
}


@pytest.fixture(params=["bert", "modernbert"])
def model(request, tmp_path):
    build(request.param, tmp_path / "model")
    made = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    made.encode(TEXTS)
    return made


def assert_computed(model, folder):
    """That the model computes with what it would save."""
    model.save_pretrained(str(folder))
    expected = SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(model.encode(TEXTS), expected, atol=2e-6)


@pytest.mark.parametrize("change", CHANGES)
def test_changed_weights_are_computed_with(model, tmp_path, change):
    before = model.encode(TEXTS)
    for parameter in model.parameters():
        CHANGES[change](parameter)
    found = model.encode(TEXTS)
    assert np.abs(found - before).max() > 1e-4
    assert_computed(model, tmp_path / "saved")


def test_a_loaded_state_and_a_way_back(model, tmp_path):
    before, state = model.encode(TEXTS), copy.deepcopy(model.state_dict())
    for parameter in model.parameters():
        parameter.data.zero_()
    model.encode(TEXTS)
    model.load_state_dict(state)
    np.testing.assert_allclose(model.encode(TEXTS), before, atol=1e-6)


def test_a_held_view_is_no_way_round(model, tmp_path):
    """A NumPy view writes without PyTorch: as long as somebody holds one, nothing is kept of the weight."""
    views = [parameter.detach().numpy() for parameter in model.parameters()]
    model.encode(TEXTS)
    for view in views:
        view *= 0.5
    assert_computed(model, tmp_path / "saved")


def test_merged_adapters(model, tmp_path):
    """Adding to the weights what an adapter computes gives the vectors of the adapter."""
    peft = pytest.importorskip("peft")
    names = [name for name, part in model.transformers_model.named_modules() if isinstance(part, nn.Linear)]
    model.add_adapter(peft.LoraConfig(r=2, target_modules=names[:2], init_lora_weights=False))
    model.eval()
    expected = model.encode(TEXTS)
    layers = [part for part in model.modules() if isinstance(part, peft.tuners.lora.LoraLayer)]
    for layer in layers:
        layer.merge()
    np.testing.assert_allclose(model.encode(TEXTS), expected, atol=1e-5)
    for layer in layers:
        layer.unmerge()
    np.testing.assert_allclose(model.encode(TEXTS), expected, atol=1e-5)


# ---- code of the caller's on the way


class FirstToken(models.Pooling):
    def forward(self, features, **kwargs):
        assert features["attention_mask"].shape == features["token_embeddings"].shape[:2]
        features["sentence_embedding"] = features["token_embeddings"][:, 0]
        return features


def test_a_forward_of_ones_own_sees_padded_batches(model):
    size = model.get_embedding_dimension()
    expected = SentenceTransformer(modules=[model[0], models.Pooling(size, "cls")], device="cpu").encode(TEXTS)
    found = SentenceTransformer(modules=[model[0], FirstToken(size)], device="cpu").encode(TEXTS)
    np.testing.assert_allclose(found, expected, atol=2e-6)


class Suffixed(SentenceTransformer):
    def preprocess(self, inputs, *args, **kwargs):
        return super().preprocess([text + " extra" for text in inputs], *args, **kwargs)


def test_preprocess_is_called_wherever_it_is_replaced(model):
    expected = model.encode([text + " extra" for text in TEXTS])
    np.testing.assert_allclose(Suffixed(modules=list(model), device="cpu").encode(TEXTS), expected, atol=2e-6)
    for part in (model, model[0]):
        original = part.preprocess
        part.preprocess = lambda inputs, *args, own=original, **kwargs: own(
            [text + " extra" for text in inputs], *args, **kwargs
        )
        np.testing.assert_allclose(model.encode(TEXTS), expected, atol=2e-6)
        del part.preprocess


def test_hooks_see_padded_batches_once(model):
    expected, shapes = model.encode(TEXTS), []
    hook = model.transformers_model.register_forward_hook(lambda part, args, out: shapes.append(out[0].shape[:2]))
    found = model.encode(TEXTS)
    hook.remove()
    np.testing.assert_allclose(found, expected, atol=2e-6)
    assert [shape[0] for shape in shapes] == [len(TEXTS)]


def test_a_patched_forward_counts(model, monkeypatch):
    own = model[1].forward
    monkeypatch.setattr(
        model[1], "forward", lambda features: {"sentence_embedding": 2 * own(features)["sentence_embedding"]}
    )
    expected = 2 * SentenceTransformer(modules=[model[0], models.Pooling(model[1].embedding_dimension)]).encode(TEXTS)
    np.testing.assert_allclose(model.encode(TEXTS), expected, atol=4e-6)
