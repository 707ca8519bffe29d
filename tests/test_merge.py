"""Merging against the formulas of the papers, written out entry by entry in Python floats."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sentence_transformers import SentenceTransformer
from sentence_transformers.encoders import merge_methods as methods
from sentence_transformers.errors import InputError
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
    np.testing.assert_allclose(methods.linear(tensors(ONE, TWO, THREE), weights, normalize), expected, atol=1e-12)


@pytest.mark.parametrize("t", [0.0, 0.3, 0.5, 1.0])
def test_slerp_turns_from_one_to_the_other(t):
    """The result of two unit vectors is a unit vector at angle t·Ω from the first."""
    one = [x / math.sqrt(dot(ONE, ONE)) for x in ONE]
    two = [x / math.sqrt(dot(TWO, TWO)) for x in TWO]
    result = methods.slerp(tensors(one, two), t).tolist()
    whole = math.acos(dot(one, two))
    assert math.sqrt(dot(result, result)) == pytest.approx(1)
    assert dot(result, one) == pytest.approx(math.cos(t * whole))
    assert dot(result, two) == pytest.approx(math.cos((1 - t) * whole))


def test_slerp_of_parallel_or_zero_tensors_is_the_straight_line():
    doubled, zero = [2 * x for x in ONE], [0.0] * 5
    np.testing.assert_allclose(methods.slerp(tensors(ONE, doubled), 0.25), [1.25 * x for x in ONE])
    np.testing.assert_allclose(methods.slerp(tensors(zero, TWO), 0.25), [0.25 * x for x in TWO])


def test_task_arithmetic_adds_the_differences_to_the_base():
    result = methods.task_arithmetic(tensors(ONE, TWO), tensors(BASE)[0], [0.5, -2.0])
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
    result = methods.ties(tensors(ONE, TWO, THREE), tensors(BASE)[0], weights, density, scale)
    expected = ties_by_hand([ONE, TWO, THREE], BASE, weights, density, scale)
    np.testing.assert_allclose(result, expected, atol=1e-12)


def test_trim_keeps_the_largest_and_their_shape():
    tensor = torch.tensor([[0.1, -5.0], [3.0, 0.2]])
    assert methods.trim(tensor, 0.5).tolist() == [[0.0, -5.0], [3.0, 0.0]]
    assert methods.trim(tensor, 0.0).tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert methods.trim(torch.tensor(2.0), 0.5).item() == 2.0


# ---- thinning task vectors out, and the other means


def test_middle_leaves_out_the_largest_and_the_smallest():
    """Of ten entries with density 0.6 and gamma 0.2: the two largest and the two smallest go."""
    task = torch.tensor([0.0, -9.0, 1.0, -8.0, 2.0, 7.0, -3.0, 6.0, 4.0, -5.0])
    assert methods.middle(task, 0.6, 0.2).tolist() == [0, 0, 0, 0, 2, 7, -3, 6, 4, -5]
    assert methods.middle(task, 0.9, 0.2).tolist() == [0, 0, 1, -8, 2, 7, -3, 6, 4, -5]  # the density comes first
    assert methods.middle(task, 1.0, 0.2).tolist() == task.tolist()


def test_breadcrumbs_sums_what_is_left():
    """Density 0.6 of five entries is three; gamma 0.2 takes the largest, the smallest goes with it."""
    left = []
    for model in (ONE, TWO):
        task = [x - b for x, b in zip(model, BASE, strict=True)]
        order = sorted(range(5), key=lambda i: -abs(task[i]))
        left.append([x if i in order[1:4] else 0.0 for i, x in enumerate(task)])
    expected = [b + 2 * (0.5 * x + 3 * y) for b, x, y in zip(BASE, *left, strict=True)]
    result = methods.breadcrumbs(tensors(ONE, TWO), tensors(BASE)[0], [0.5, 3.0], False, 0.6, 0.2, scale=2)
    np.testing.assert_allclose(result, expected)


def test_breadcrumbs_ties_elects_a_sign():
    base = torch.zeros(4, dtype=torch.float64)
    models = tensors([1.0, -2.0, 3.0, 4.0], [2.0, 1.0, -5.0, 4.0])
    assert methods.breadcrumbs(models, base, [1, 1], True, 1.0, 0.0).tolist() == [3, -2, -5, 8]
    assert methods.breadcrumbs(models, base, [1, 1], True, 1.0, 0.0, normalize=True).tolist() == [1.5, -2, -5, 4]
    assert methods.breadcrumbs(models, base, [1, 1], True, [1.0, 0.5], [0.0, 0.25]).tolist() == [3, -2, 3, 8]


@pytest.mark.parametrize("rescale", [True, False])
def test_dare_keeps_a_share_and_scales_it_up(rescale):
    """Every entry is one of two values, in the asked share; scaled up, the mean is that of the task vector."""
    torch.manual_seed(0)
    result = methods.dare([torch.full((40_000,), 3.0)], torch.ones(40_000), [0.5], False, 0.25, rescale)
    kept = 1 + 0.5 * 2.0 * (4 if rescale else 1)
    assert set(result.tolist()) == {1.0, kept}
    assert (result == kept).double().mean().item() == pytest.approx(0.25, abs=0.01)


def test_dare_ties_elects_among_what_is_left():
    """With nothing dropped it is the sum of those that agree; weights and density are those of each model."""
    base = torch.zeros(3, dtype=torch.float64)
    models = tensors([1.0, -2.0, 3.0], [2.0, 1.0, -1.0])
    assert methods.dare(models, base, [1, 1], True).tolist() == [3, -2, 3]
    assert methods.dare(models, base, [1, 3], True).tolist() == [7, 3, 0]
    assert methods.dare(models, base, [1, 1], False, [1.0, 0.0], rescale=False).tolist() == [1, -2, 3]


def test_della_keeps_large_entries_more_often():
    """Chances rise by rank in the row from density - epsilon to density + epsilon; what stays is divided by them."""
    row = [0.1, -3.0, 2.0, 0.5, -1.0]
    chance = [0.3, 0.7, 0.6, 0.4, 0.5]  # ranks 0, 4, 3, 1, 2 of five
    np.testing.assert_allclose(methods.chances(torch.tensor([row, row[::-1]]), 0.5, 0.2)[0], chance, atol=1e-6)
    np.testing.assert_allclose(methods.chances(torch.tensor([row, row[::-1]]), 0.5, 0.2)[1], chance[::-1], atol=1e-6)
    torch.manual_seed(1)
    task = torch.tensor(row, dtype=torch.float64).repeat(20_000, 1)
    result = methods.della([task], torch.zeros_like(task), [1.0], False, False, 0.5, 0.2)
    for column, x, p in zip(result.T, row, chance, strict=True):
        assert {round(value, 9) for value in column.tolist()} == {0.0, round(x / p, 9)}
        assert (column != 0).double().mean().item() == pytest.approx(p, abs=0.02)


def test_sce_weights_by_the_square_and_erases_the_minority():
    base = torch.zeros(4, dtype=torch.float64)
    models = tensors([1.0, 2.0, -1.0, 0.0], [1.0, -3.0, -1.0, 1.0])
    expected = [1.0, -3.0, -1.0, 1.0]  # each a mean of the entries of one sign: the second alone where they differ
    np.testing.assert_allclose(methods.sce(models, base), expected)
    models = tensors([1.0, 5.0, -1.0, 0.0], [2.0, -3.0, -1.0, 1.0])
    first, second = 27 / 42, 15 / 42
    np.testing.assert_allclose(methods.sce(models, base), [first + 2 * second, 5.0, -1.0, 1.0])
    # variances 0.25, 16, 0, 0.25: of the four entries one is kept, and the weights come from that one
    np.testing.assert_allclose(methods.sce(models, base, 0.25), [0.0, 5.0, 0.0, 0.0])


def test_model_stock_goes_as_far_as_the_angle_says():
    """Three orthogonal task vectors: stay at the base. Three equal ones: go to them. 60 degrees: t = 1.5 / 2."""
    base = torch.ones(3, dtype=torch.float64)
    orthogonal = [base + 2 * row for row in torch.eye(3, dtype=torch.float64)]
    np.testing.assert_allclose(methods.model_stock(orthogonal, base), base)
    np.testing.assert_allclose(methods.model_stock([orthogonal[0]] * 3, base), orthogonal[0])
    slanted = [base + row for row in 1 - torch.eye(3, dtype=torch.float64)]  # cosine 1/2 each with each
    np.testing.assert_allclose(methods.model_stock(slanted, base), [1 + 0.75 * 2 / 3] * 3)
    rows = [torch.stack([one, other]) for one, other in zip(slanted, orthogonal, strict=True)]
    by_row = methods.model_stock(rows, torch.stack([base, base]), filter_wise=True)
    np.testing.assert_allclose(by_row, [[1.5] * 3, [1.0] * 3])


def test_nearswap_takes_what_is_near():
    result = methods.nearswap(tensors(BASE, [0.3, -1.2, 5.0, 0.5, -2.0]), 0.1)
    np.testing.assert_allclose(result, [0.3, -1.1, 0.1, 0.5, 1.9])


def test_karcher_mean_of_a_circle():
    """On a circle it is the mean of the angles, at the mean of the lengths; on the sphere the angles balance out."""
    angles, lengths = [0.1, 0.5, 1.5], [1.0, 2.0, 6.0]
    points = tensors(*[[r * math.cos(a), r * math.sin(a)] for a, r in zip(angles, lengths, strict=True)])
    np.testing.assert_allclose(methods.karcher(points), [3 * math.cos(0.7), 3 * math.sin(0.7)], atol=1e-6)
    three = tensors([1.0, 0.2, 0.0], [0.3, 1.0, 0.1], [0.2, 0.1, 1.0])
    mean = methods.karcher(three, max_iter=100, tol=1e-12).tolist()
    units = [[x / math.sqrt(dot(v, v)) for x in v] for v in (tensor.tolist() for tensor in three)]

    def spread(point: list[float]) -> float:
        length = math.sqrt(dot(point, point))
        return sum(math.acos(dot(point, unit) / length) ** 2 for unit in units)

    for i in range(3):
        for step in (-0.01, 0.01):
            assert spread([x + step * (j == i) for j, x in enumerate(mean)]) >= spread(mean) - 1e-12
    assert methods.karcher(tensors([0.0, 0.0], [0.0, 2.0])).tolist() == [0, 1]
    first = methods.karcher(points, max_iter=0)
    assert math.atan2(first[1], first[0]) == pytest.approx(
        math.atan2(*reversed([sum(c) for c in zip(*[(math.cos(a), math.sin(a)) for a in angles], strict=True)]))
    )
    assert methods.karcher(points, tol=10.0).tolist() == first.tolist()


def test_nuslerp_of_wholes_rows_columns_and_task_vectors():
    """Columns at right angles meet half way at 45 degrees, whatever the other columns do."""
    first = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    second = torch.tensor([[0.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    half = math.sqrt(0.5)
    columns = methods.nuslerp([first, second], None, [1, 1], nuslerp_flatten=False)
    np.testing.assert_allclose(columns, [[half, 0], [half, 1]])
    rows = methods.nuslerp([first.T, second.T], None, [1, 1], nuslerp_flatten=False, nuslerp_row_wise=True)
    np.testing.assert_allclose(rows, [[half, half], [0, 1]])
    whole = methods.nuslerp(tensors([2.0, 0.0], [0.0, 2.0]), None, [2, 1])
    np.testing.assert_allclose(whole, [2 * math.cos(math.pi / 6), 2 * math.sin(math.pi / 6)])
    moved = methods.nuslerp(tensors([7.0, 5.0], [5.0, 7.0]), tensors([5.0, 5.0])[0], [2, 1])
    np.testing.assert_allclose(moved, [5 + 2 * math.cos(math.pi / 6), 5 + 2 * math.sin(math.pi / 6)])


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


def test_a_merged_model_has_a_card_of_its_own_and_may_replace_a_source(folders, tmp_path):
    SentenceTransformer(str(folders / "a"), device="cpu").save_pretrained(str(tmp_path))
    first = SentenceTransformer(str(tmp_path), device="cpu")
    first.model_card_data.set_license("mit")
    merged = SentenceTransformer.merge([first, str(folders / "b")])
    assert merged.came_from is None and first.came_from == tmp_path
    expected = merged.encode(["one two"])
    merged.save_pretrained(str(tmp_path))
    np.testing.assert_array_equal(SentenceTransformer(str(tmp_path), device="cpu").encode(["one two"]), expected)
    card = (tmp_path / "README.md").read_text()
    assert "- merge\n" in card and "license: mit\n" in card


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


def test_names_of_settings_as_mergekit_has_them(folders):
    """`weight` is `weights`, `lambda` is `scale`; a map gives each model its own; one number is for all."""
    a, b, c = (state(folders / name) for name in "abc")
    models = [folders / name for name in "abc"]
    merged = SentenceTransformer.merge(models[:2], parameters={"weight": [0.6, 0.4]})
    for name, tensor in merged.state_dict().items():
        np.testing.assert_allclose(tensor.numpy(), 0.6 * a[name] + 0.4 * b[name], atol=1e-6, err_msg=name)
    for weight in ([0.5, 0.25], {1: 0.5, 2: 0.25, 0: 9.0}):  # the base, model 0, has none
        merged = SentenceTransformer.merge(
            models, "task_arithmetic", base_model=models[0], parameters={"weight": weight, "lambda": 2}
        )
        for name, tensor in merged.state_dict().items():
            expected = a[name] + 2 * (0.5 * (b[name] - a[name]) + 0.25 * (c[name] - a[name]))
            np.testing.assert_allclose(tensor.numpy(), expected, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("given", ["folders", "models"])
def test_the_base_of_slerp_is_where_it_starts(folders, given):
    models = [folders / "a", folders / "b"]
    if given == "models":
        models = [SentenceTransformer(str(model), device="cpu") for model in models]
    for base, t, expected in ((None, 0.0, "a"), (0, 0.0, "a"), (1, 0.0, "b"), (1, 1.0, "a")):
        base_model = None if base is None else models[base]
        merged = SentenceTransformer.merge(models, "slerp", base_model=base_model, parameters={"t": t})
        for name, tensor in state(folders / expected).items():
            np.testing.assert_allclose(merged.state_dict()[name].numpy(), tensor, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("method", [name for name, how in methods.METHODS.items() if how.base != "never"])
def test_a_model_merged_into_its_base_with_itself_is_itself(folders, method):
    """Every method gives back the base if all models are the base."""
    settings = {"della": {"density": 0.5, "epsilon": 0.1}, "nearswap": {"t": 0.01}}
    settings["della_linear"] = settings["della"]
    a = str(folders / "a")
    models = [a, a] if methods.METHODS[method].base == "first" else [a, a, a]
    base = SentenceTransformer(a, device="cpu") if methods.METHODS[method].base != "first" else a
    merged = SentenceTransformer.merge(models[-2:], method, base_model=base, parameters=settings.get(method))
    for name, tensor in state(folders / "a").items():
        np.testing.assert_allclose(merged.state_dict()[name].numpy(), tensor, atol=1e-6, err_msg=name)


def test_types_of_computing_and_result(folders):
    merged = SentenceTransformer.merge([folders / "a", folders / "b"], dtype=None, out_dtype="bfloat16")
    assert merged.dtype == torch.bfloat16
    assert SentenceTransformer.merge([folders / "a", folders / "b"], dtype=torch.float64).dtype == torch.float32


@pytest.mark.parametrize(
    ("models", "method", "kwargs", "words"),
    [
        ("ab", "stir", {}, "'stir'.*linear, slerp, .*, task_arithmetic, ties"),
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
        ("ab", "linear", {"parameters": {"weight": [1, 1], "weights": [1, 1]}}, "two names of one parameter"),
        ("ab", "linear", {"parameters": {"weight": {0: 1.0}}}, r"no entry for the models \[1\]"),
        ("ab", "linear", {"batch_options": object()}, "batch_options is for mergekit"),
        ("ab", "ram", {}, "'ram' of mergekit is not available"),
        ("ab", "slerp", {"base_model": "c"}, "one of the two models"),
        ("ab", "nearswap", {"base_model": "a"}, "needs the parameter t"),
        ("ab", "nearswap", {"base_model": "a", "parameters": {"t": -1.0}}, "t must lie between 0 and inf"),
        ("ab", "model_stock", {"base_model": "a"}, "at least 2 models besides the base, got 1"),
        ("abc", "nuslerp", {}, "2 models besides the base, got 3"),
        ("ab", "nuslerp", {"parameters": {"weight": [1, -1]}}, "add up to 0"),
        ("ab", "dare_linear", {"base_model": "c", "parameters": {"density": 0}}, "density must be above 0"),
        ("ab", "della", {"base_model": "c", "parameters": {"density": 0.5}}, "della needs the parameter epsilon"),
        ("ab", "della", {"base_model": "c", "parameters": {"density": 0.9, "epsilon": 0.2}}, "got 0.9 and 0.2"),
        ("ab", "breadcrumbs", {"base_model": "c", "parameters": {"gamma": [0.1]}}, "2 models need as many gamma"),
        (["a", "other"], "linear", {}, "other.*another architecture.*2.linear"),
        (["other", "llama"], "linear", {}, "llama.*another architecture"),
    ],
)
def test_what_cannot_be_merged_is_named(folders, models, method, kwargs, words):
    with pytest.raises(InputError, match=words):
        base = {"base_model": folders / kwargs["base_model"]} if "base_model" in kwargs else {}
        SentenceTransformer.merge([folders / name for name in models], method, **kwargs | base)


def test_models_of_another_size_are_refused(folders):
    small = SentenceTransformer(str(folders / "a"), device="cpu")
    large = SentenceTransformer(str(folders / "a"), device="cpu")
    large[2].linear = torch.nn.Linear(16, 7)
    with pytest.raises(InputError, match=r"2\.linear\.weight has shape \(7, 16\) instead of \(5, 16\)"):
        SentenceTransformer.merge([small, large])
