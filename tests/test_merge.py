"""Merging against the formulas of the papers, written out entry by entry in Python floats."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sentence_transformers import SentenceTransformer
from sentence_transformers.errors import InputError
from sentence_transformers.storage import merge
from tests.golden import layouts

ONE = [0.5, -2.0, 1.5, 0.0, 3.0]
TWO = [1.0, 1.0, -0.5, 4.0, 2.5]
THREE = [-1.0, -3.0, 2.0, 0.25, 0.5]
BASE = [0.25, -1.0, 0.0, 0.5, 2.0]


def tensors(*lists: list[float]) -> list[torch.Tensor]:
    return [torch.tensor(values, dtype=torch.float64) for values in lists]


def dot(a: list[float], b: list[float]) -> float:
    return math.fsum(x * y for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0], [0.5, 0.25, 2.0], [2.0, 0.0, -0.5]])
@pytest.mark.parametrize("normalize", [True, False])
def test_linear_is_the_weighted_mean_or_sum(weights, normalize):
    expected = []
    for i in range(5):
        total = weights[0] * ONE[i] + weights[1] * TWO[i] + weights[2] * THREE[i]
        expected.append(total / (weights[0] + weights[1] + weights[2]) if normalize else total)
    np.testing.assert_allclose(merge.linear(tensors(ONE, TWO, THREE), weights, normalize), expected, atol=1e-12)


@pytest.mark.parametrize("t", [0.0, 0.3, 0.5, 1.0])
def test_slerp_turns_from_one_to_the_other(t):
    """The result of two unit vectors is a unit vector at angle t·Ω from the first."""
    one = [x / math.sqrt(dot(ONE, ONE)) for x in ONE]
    two = [x / math.sqrt(dot(TWO, TWO)) for x in TWO]
    result = merge.slerp(tensors(one, two), t).tolist()
    whole = math.acos(dot(one, two))
    assert math.sqrt(dot(result, result)) == pytest.approx(1)
    assert dot(result, one) == pytest.approx(math.cos(t * whole))
    assert dot(result, two) == pytest.approx(math.cos((1 - t) * whole))


def test_slerp_of_parallel_or_zero_tensors_is_the_straight_line():
    doubled, zero = [2 * x for x in ONE], [0.0] * 5
    np.testing.assert_allclose(merge.slerp(tensors(ONE, doubled), 0.25), [1.25 * x for x in ONE])
    np.testing.assert_allclose(merge.slerp(tensors(zero, TWO), 0.25), [0.25 * x for x in TWO])


def test_task_arithmetic_adds_the_differences_to_the_base():
    result = merge.task_arithmetic(tensors(ONE, TWO), tensors(BASE)[0], [0.5, -2.0])
    expected = [b + 0.5 * (x - b) - 2.0 * (y - b) for x, y, b in zip(ONE, TWO, BASE, strict=True)]
    np.testing.assert_allclose(result, expected, atol=1e-12)


def ties_by_hand(models: list[list[float]], base: list[float], weights: list[float], density: float, scale: float):
    """The three steps of the paper, one entry at a time."""
    tasks = [[x - b for x, b in zip(model, base, strict=True)] for model in models]
    keep = math.ceil(density * len(base))
    for task in tasks:
        kept = sorted(range(len(task)), key=lambda i: -abs(task[i]))[:keep]
        for i in range(len(task)):
            if i not in kept:
                task[i] = 0.0
    result = []
    for i in range(len(base)):
        votes = math.fsum(w * task[i] for w, task in zip(weights, tasks, strict=True))
        elected = (votes > 0) - (votes < 0)  # votes that cancel elect no sign
        agreeing = [(w, task[i]) for w, task in zip(weights, tasks, strict=True) if w * task[i] * elected > 0]
        mean = math.fsum(w * x for w, x in agreeing) / math.fsum(w for w, _ in agreeing) if agreeing else 0.0
        result.append(base[i] + scale * mean)
    return result


@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0], [0.2, 1.5, 0.7]])
@pytest.mark.parametrize("density", [0.2, 0.5, 0.6, 1.0])
@pytest.mark.parametrize("scale", [1.0, 0.4])
def test_ties_trims_elects_and_merges(weights, density, scale):
    result = merge.ties(tensors(ONE, TWO, THREE), tensors(BASE)[0], weights, density, scale)
    expected = ties_by_hand([ONE, TWO, THREE], BASE, weights, density, scale)
    np.testing.assert_allclose(result, expected, atol=1e-12)


def test_trim_keeps_the_largest_and_their_shape():
    tensor = torch.tensor([[0.1, -5.0], [3.0, 0.2]])
    assert merge.trim(tensor, 0.5).tolist() == [[0.0, -5.0], [3.0, 0.0]]
    assert merge.trim(tensor, 0.0).tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert merge.trim(torch.tensor(2.0), 0.5).item() == 2.0


# ---- whole models


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Three models of one architecture (a transformer, pooling and a dense layer), and a larger one."""
    root = tmp_path_factory.mktemp("models")
    layouts.LAYOUTS["dense_with_old_keys"](root / "a")
    for i, name in enumerate("bc", 1):
        model = SentenceTransformer(str(root / "a"), device="cpu")
        _ = model.transformers_model
        with torch.no_grad():
            for j, parameter in enumerate(model.parameters()):
                parameter += 0.05 * layouts.wave(*parameter.shape, step=i + 0.1 * j)
        model.save_pretrained(str(root / name))
    layouts.copy(root / "other", "out_st")
    layouts.llama(root / "llama")
    return root


def state(folder) -> dict[str, np.ndarray]:
    model = SentenceTransformer(str(folder), device="cpu")
    _ = model.transformers_model
    return {name: tensor.double().numpy() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("given", ["folders", "models"])
def test_a_merged_model_encodes_with_the_merged_weights(folders, given, tmp_path):
    """The mean of every weight; the models that went in stay as they were; saved, it comes back."""
    a, b = state(folders / "a"), state(folders / "b")
    models = [str(folders / "a"), folders / "b"]
    if given == "models":
        models = [SentenceTransformer(str(name), device="cpu") for name in models]
        before = models[0].encode(layouts.TEXTS)
    merged = SentenceTransformer.merge(models, "linear", parameters={"weights": [3, 1]})
    assert isinstance(merged, SentenceTransformer)
    result = {name: tensor.double().numpy() for name, tensor in merged.state_dict().items()}
    assert result.keys() == a.keys()
    for name, tensor in result.items():
        np.testing.assert_allclose(tensor, 0.75 * a[name] + 0.25 * b[name], atol=1e-6, err_msg=name)
    if given == "models":
        np.testing.assert_array_equal(models[0].encode(layouts.TEXTS), before)
    merged.save_pretrained(str(tmp_path / "merged"))
    again = SentenceTransformer(str(tmp_path / "merged"), device="cpu")
    np.testing.assert_allclose(again.encode(layouts.TEXTS), merged.encode(layouts.TEXTS), atol=1e-6)
    assert np.abs(merged.encode("text") - SentenceTransformer(str(folders / "a")).encode("text")).max() > 1e-4


def test_a_model_merged_with_itself_is_itself(folders):
    a = str(folders / "a")
    expected = SentenceTransformer(a, device="cpu").encode(layouts.TEXTS)
    for method, base in (("linear", None), ("slerp", None), ("ties", folders / "b")):
        merged = SentenceTransformer.merge([a, a], method, base_model=base)
        np.testing.assert_allclose(merged.encode(layouts.TEXTS), expected, atol=1e-5, err_msg=method)


def test_task_arithmetic_of_whole_models(folders):
    a, b, c = (state(folders / name) for name in "abc")
    merged = SentenceTransformer.merge(
        [folders / "b", folders / "c"],
        "task_arithmetic",
        base_model=folders / "a",
        parameters={"weights": [0.5, -1.0]},
        dtype="float64",
    )
    for name, tensor in merged.state_dict().items():
        expected = a[name] + 0.5 * (b[name] - a[name]) - (c[name] - a[name])
        np.testing.assert_allclose(tensor.numpy(), expected, atol=1e-6, err_msg=name)


def test_types_of_computing_and_result(folders):
    merged = SentenceTransformer.merge([folders / "a", folders / "b"], dtype=None, out_dtype="bfloat16")
    assert merged.dtype == torch.bfloat16
    assert SentenceTransformer.merge([folders / "a", folders / "b"], dtype=torch.float64).dtype == torch.float32


@pytest.mark.parametrize(
    ("models", "method", "kwargs", "words"),
    [
        ("ab", "stir", {}, "'stir'.*linear, slerp, task_arithmetic, ties"),
        ("a", "linear", {}, "at least two"),
        ("abc", "slerp", {}, "two models, got 3"),
        ("ab", "ties", {}, "base_model"),
        ("ab", "task_arithmetic", {}, "base_model"),
        ("ab", "linear", {"base_model": "c"}, "base_model"),
        ("ab", "linear", {"parameters": {"weights": [1]}}, r"2 models.*\[1.0\]"),
        ("ab", "linear", {"parameters": {"weights": [1, -1]}}, "add up to 0"),
        ("ab", "linear", {"parameters": {"t": 0.5}}, r"\['t'\].*normalize.*weights"),
        ("ab", "slerp", {"parameters": {"t": 1.5}}, "t must lie between 0 and 1, got 1.5"),
        ("ab", "linear", {"dtype": "float99"}, "float99"),
        (["a", "other"], "linear", {}, "other.*another architecture.*2.linear"),
        (["other", "llama"], "linear", {}, "llama.*another architecture"),
    ],
)
def test_what_cannot_be_merged_is_named(folders, models, method, kwargs, words):
    with pytest.raises(InputError, match=words):
        SentenceTransformer.merge([folders / name for name in models], method, **kwargs)


def test_models_of_another_size_are_refused(folders):
    small = SentenceTransformer(str(folders / "a"), device="cpu")
    large = SentenceTransformer(str(folders / "a"), device="cpu")
    large[2].linear = torch.nn.Linear(16, 7)
    with pytest.raises(InputError, match=r"2\.linear\.weight has shape \(7, 16\) instead of \(5, 16\)"):
        SentenceTransformer.merge([small, large])
