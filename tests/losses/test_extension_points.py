"""What people change in losses takes effect: models and losses subclassed, patched or hooked, and losses of their own.

Expected values come from the same loss of an untouched model, from uncached losses, or from formulas written out.
"""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from sentence_transformers.base.losses import CachedLossMixin, RandContext
from torch import Tensor, nn

from sentence_transformers import MultiVectorEncoder, SentenceTransformer, SparseEncoder, losses
from sentence_transformers.losses.merged_forward import column_merging_disabled, embed_columns, merge_feature_batches
from tests import models
from tests.golden import score_models

WORDS = models.SENTENCES
COLUMNS = [WORDS[:3], [WORDS[3], "cat", WORDS[5]], ["a", *WORDS[6:8]]]


def still(model: Any) -> Any:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    for part in model.modules():
        for name in ("attention_dropout", "dropout_prob"):
            if isinstance(getattr(part, name, None), float):
                setattr(part, name, 0.0)
    return model


def load(kind: type[SentenceTransformer], folder: Path) -> Any:
    model = kind(str(folder), device="cpu")
    model.transformers_model  # noqa: B018  # the network, whose dropout is switched off
    return still(model)


@pytest.fixture
def model(bert_folder: Path) -> Any:
    return load(SentenceTransformer, bert_folder)


def batch(model: Any, columns: int = 3) -> list[dict[str, Any]]:
    return [model.preprocess(column) for column in COLUMNS[:columns]]


def gradients(model: Any, value: Any) -> dict[str, Tensor]:
    model.zero_grad()
    (sum(value.values()) if isinstance(value, dict) else value).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-5)


# ---- the model's forward pass

LOSSES: dict[str, Any] = {
    "ranking": lambda m: losses.MultipleNegativesRankingLoss(m),
    "cached": lambda m: losses.CachedMultipleNegativesRankingLoss(m, mini_batch_size=2),
    "guided": lambda m: losses.GISTEmbedLoss(m, m),
    "matryoshka": lambda m: losses.MatryoshkaLoss(m, losses.MultipleNegativesRankingLoss(m), [32, 8]),
    "layers": lambda m: losses.AdaptiveLayerLoss(m, losses.MultipleNegativesRankingLoss(m), n_layers_per_step=-1),
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("way", ["subclass", "patch", "hook", "module"])
def test_a_forward_pass_of_ones_own_sees_padded_batches(name: str, way: str, bert_folder: Path) -> None:
    seen: list[dict[str, Any]] = []

    class Watched(SentenceTransformer):
        def forward(self, input: Any, **kwargs: Any) -> Any:
            seen.append(input)
            return super().forward(input, **kwargs)

    plain, model = load(SentenceTransformer, bert_folder), load(SentenceTransformer, bert_folder)
    if way == "subclass":
        model = load(Watched, bert_folder)
    elif way == "patch":
        original = model.forward
        model.forward = lambda features, **kwargs: (seen.append(features), original(features, **kwargs))[1]
    elif way == "hook":
        model.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    else:
        model[0].register_forward_hook(lambda module, args, output: seen.append(output))
    patched = vars(model).get("forward")
    value, expected = LOSSES[name](model)(batch(model)), LOSSES[name](plain)(batch(plain))
    assert float(value.detach()) == pytest.approx(float(expected.detach()), rel=1e-4)
    assert_same(gradients(model, value), gradients(plain, expected))
    assert seen and all(features["attention_mask"].dim() == 2 for features in seen)
    assert all(len(features["token_embeddings" if way == "module" else "input_ids"]) <= 6 for features in seen)
    if name == "ranking":
        assert [len(features["input_ids"]) for features in seen] == [3, 6]
    assert vars(model).get("forward") is patched  # a patch is still there after the step


def test_features_that_were_packed_are_padded_for_it(model: Any) -> None:
    from sentence_transformers.features import Features

    seen: list[Any] = []
    expected = losses.MultipleNegativesRankingLoss(model)(batch(model)).detach()
    model.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    packed = [Features.of(features).pack(0) for features in batch(model)]
    for loss in (losses.MultipleNegativesRankingLoss(model), losses.CachedMultipleNegativesRankingLoss(model)):
        assert float(loss(packed).detach()) == pytest.approx(float(expected), rel=1e-4)
    assert all(features["attention_mask"].dim() == 2 for features in seen)
    padding = model.tokenizer.pad_token_id
    assert all((features["input_ids"] == padding).equal(features["attention_mask"] == 0) for features in seen)


def test_columns_of_a_patched_model_can_be_kept_apart(model: Any) -> None:
    seen: list[int] = []
    model.register_forward_pre_hook(lambda module, args: seen.append(len(args[0]["input_ids"])))
    with column_merging_disabled():
        apart = embed_columns(model, batch(model))
    together = embed_columns(model, batch(model), separate_first=True)
    assert seen == [3, 3, 3, 3, 6]
    for one, other in zip(apart, together, strict=True):
        torch.testing.assert_close(one, other)


# ---- cached losses of one's own


class Nearness(CachedLossMixin, nn.Module):
    """Mean squared distance of two columns."""

    def __init__(self, model: Any, size: int = 2, uses: int = 2) -> None:
        super().__init__()
        self.model, self.mini_batch_size, self.uses = model, size, uses
        self.shapes: list[list[tuple[int, ...]]] = []

    def calculate_loss(self, reps: Any, labels: Any = None, *, with_backward: bool = False) -> Tensor:
        self.shapes = [[tuple(part.shape) for part in column] for column in reps]
        columns = [torch.cat(column) for column in reps][: self.uses]
        value = (columns[0] - columns[-1]).pow(2).mean() + columns[0].mean()
        if with_backward:
            value.backward()
            return value.detach()
        return value

    def forward(self, sentence_features: Any, labels: Any = None) -> Tensor:
        return self.forward_cached(sentence_features, labels)


class Stepwise(Nearness):
    """The same through a step that is overridden."""

    calls: tuple[Any, ...] = ()

    def embed_minibatch(self, sentence_feature: Any, begin: int, end: int, *args: Any, **kwargs: Any) -> Any:
        self.calls = (*self.calls, (begin, end))
        assert sentence_feature["input_ids"].dim() == 2
        return super().embed_minibatch(sentence_feature, begin, end, *args, **kwargs)


@pytest.mark.parametrize("kind", [Nearness, Stepwise])
def test_a_cached_loss_of_ones_own(kind: type[Nearness], model: Any) -> None:
    loss = kind(model)
    value = loss(batch(model, 2))
    assert loss.shapes == [[(2, 32), (1, 32)]] * 2
    found = gradients(model, value * 3)
    first, second = (model(features)["sentence_embedding"] for features in batch(model, 2))
    expected = (first - second).pow(2).mean() + first.mean()
    assert float(value.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    assert_same(found, gradients(model, expected * 3))
    with torch.no_grad():
        assert float(kind(model)(batch(model, 2))) == pytest.approx(float(expected.detach()), rel=1e-5)
    if isinstance(loss, Stepwise):
        assert loss.calls == ((0, 2), (2, 3)) * 4  # two columns, two passes
    with pytest.raises(ValueError, match="column 1 get no gradient"):
        kind(model, uses=1)(batch(model, 2))


def test_the_second_pass_of_a_step_meets_the_same_dropout(bert_folder: Path) -> None:
    model = SentenceTransformer(str(bert_folder), device="cpu").train()
    model.transformers_model  # noqa: B018
    seen: list[Tensor] = []

    class Kept(Stepwise):
        def embed_minibatch(self, *args: Any, **kwargs: Any) -> Any:
            found = super().embed_minibatch(*args, **kwargs)
            seen.append(found[0].detach())
            return found

    Kept(model)(batch(model, 2)).backward()
    assert len(seen) == 8
    for first, second in zip(seen[:4], seen[4:], strict=True):
        torch.testing.assert_close(first, second)


def counted(loss: Any) -> list[int]:
    """Replace a step of a loss by one that counts."""
    calls: list[int] = []
    original = loss.embed_minibatch

    def step(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return original(*args, **kwargs)

    loss.embed_minibatch = step
    return calls


@pytest.mark.parametrize("name", ["ranking", "guided", "mega"])
def test_steps_of_cached_losses_can_be_replaced(name: str, model: Any) -> None:
    make = {
        "ranking": lambda: losses.CachedMultipleNegativesRankingLoss(model, mini_batch_size=2),
        "guided": lambda: losses.CachedGISTEmbedLoss(model, model, mini_batch_size=2),
        "mega": lambda: losses.MegaBatchMarginLoss(model, mini_batch_size=2),
    }[name]
    columns = 2 if name == "mega" else 3
    expected = make()(batch(model, columns))
    wanted = gradients(model, expected)
    loss = make()
    calls = counted(loss)
    value = loss(batch(model, columns))
    assert len(calls) == 2 * columns
    assert float(value.detach()) == pytest.approx(float(expected.detach()), rel=1e-4)
    assert_same(gradients(model, value), wanted)
    assert len(calls) == 4 * columns


def test_steps_of_cached_losses_of_tokens_and_of_sparse_vectors(tmp_path: Path, bert_folder: Path) -> None:
    tokens = still(MultiVectorEncoder(str(bert_folder), device="cpu"))
    tokens[0].auto_model  # noqa: B018
    still(tokens)
    next(iter(score_models.SPARSE.values()))(tmp_path / "sparse")
    sparse = SparseEncoder(str(tmp_path / "sparse"), device="cpu")
    sparse[0].auto_model  # noqa: B018
    still(sparse)
    for model, make in (
        (tokens, lambda: losses.CachedMultiVectorMultipleNegativesRankingLoss(tokens, mini_batch_size=2)),
        (
            sparse,
            lambda: losses.CachedSpladeLoss(
                sparse, losses.SparseMultipleNegativesRankingLoss(sparse), 0.1, 0.2, mini_batch_size=2
            ),
        ),
    ):
        expected = make()(batch(model))
        wanted = gradients(model, expected)
        loss = make()
        calls = counted(loss)
        value = loss(batch(model))
        assert_same(gradients(model, value), wanted)
        assert len(calls) == 12
        if isinstance(value, dict):
            assert {k: float(v.detach()) for k, v in value.items()} == pytest.approx(
                {k: float(v.detach()) for k, v in expected.items()}, rel=1e-4
            )


def test_names_of_the_gradient_cache_at_their_older_places() -> None:
    for path in (
        "losses.CachedMultipleNegativesRankingLoss",
        "losses.CachedGISTEmbedLoss",
        "sentence_transformer.losses.cached_multiple_negatives_ranking",
        "sentence_transformer.losses.cached_gist_embed",
        "multi_vector_encoder.losses.cached_multiple_negatives_ranking",
        "cross_encoder.losses.cached_multiple_negatives_ranking",
        "base.losses.gradcache",
    ):
        assert importlib.import_module(f"sentence_transformers.{path}").RandContext is RandContext, path
    merged = importlib.import_module("sentence_transformers.base.losses.merged_forward")
    assert merged.embed_columns is embed_columns and merged.merge_feature_batches is merge_feature_batches
    with RandContext(torch.zeros(1)) as state:
        first = torch.rand(3)
    with state:
        assert torch.equal(torch.rand(3), first)


# ---- losses around losses


class Near(nn.Module):
    """A loss that calls the model: the mean squared distance of two columns."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model, self.calls = model, 0

    def forward(self, sentence_features: Any, labels: Any = None) -> Tensor:
        self.calls += 1
        first, second = (self.model(features)["sentence_embedding"] for features in sentence_features)
        return (first - second).pow(2).mean()


def layers_by_hand(model: Any, features: dict[str, Any]) -> list[Tensor]:
    """Mean vectors of each layer of a BERT model, the embeddings first."""
    wanted = {key: value for key, value in features.items() if key in ("input_ids", "token_type_ids", "attention_mask")}
    states = model.transformers_model(**wanted, output_hidden_states=True).hidden_states
    mask = features["attention_mask"][..., None].float()
    return [(state * mask).sum(1) / mask.sum(1) for state in states]


@pytest.mark.parametrize("dims", [None, [32, 8]])
@pytest.mark.parametrize(("weighting", "weights"), [("uniform", (1, 1)), ("linear", (1, 1 / 2)), ("log", None)])
def test_layers_of_a_loss_that_calls_the_model(dims: Any, weighting: Any, weights: Any, model: Any) -> None:
    weights = weights or [1 / (1 + float(torch.tensor(1.0 + i).log())) for i in range(2)]
    inner = Near(model)
    settings: dict[str, Any] = {
        "n_layers_per_step": -1, "layer_weighting": weighting, "last_layer_weight": 0.7, "prior_layers_weight": 0.4,
    }  # fmt: skip
    if dims is None:
        loss = losses.AdaptiveLayerLoss(model, inner, **settings)
    else:
        loss = losses.Matryoshka2dLoss(model, inner, dims, n_dims_per_step=-1, **settings)

    def near(pair: Any) -> Tensor:
        if dims is None:
            return (pair[0] - pair[1]).pow(2).mean()
        cut = [[F.normalize(side[:, :dim], dim=1) for side in pair] for dim in dims]
        return torch.stack([(first - second).pow(2).mean() for first, second in cut]).sum()

    first, second = (layers_by_hand(model, features) for features in batch(model, 2))
    expected = 0.7 * near((first[-1], second[-1]))
    teacher = torch.cat([first[-1], second[-1]]).detach() / 0.3
    for i, weight in enumerate(weights):
        student = torch.cat([first[i], second[i]]) / 0.3
        divergence = (teacher.softmax(1) * (teacher.log_softmax(1) - student.log_softmax(1))).sum(1).mean()
        expected = expected + weight * 0.4 / 2 * near((first[i], second[i])) + 0.3 * divergence
    value = loss(batch(model, 2), None)
    assert float(value.detach()) == pytest.approx(float(expected.detach()), rel=1e-4)
    assert_same(gradients(model, value), gradients(model, expected))
    assert inner.calls == 3 * (1 if dims is None else 2)
    assert "forward" not in vars(model)


@pytest.mark.parametrize("outer", ["matryoshka", "layers"])
def test_a_forward_of_ones_own_in_the_inner_loss_counts(outer: str, model: Any) -> None:
    class Twice(losses.MultipleNegativesRankingLoss):
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            return super().forward(*args, **kwargs) * 2

    def around(loss: Any) -> Any:
        if outer == "matryoshka":
            return losses.MatryoshkaLoss(model, loss, [32, 8])
        return losses.AdaptiveLayerLoss(model, loss, n_layers_per_step=-1, kl_div_weight=0)

    once, twice = (around(kind(model))(batch(model)).detach() for kind in (losses.MultipleNegativesRankingLoss, Twice))
    assert float(twice) == pytest.approx(2 * float(once), rel=1e-4)


def test_a_cached_loss_of_ones_own_inside_matryoshka(model: Any) -> None:
    loss = Nearness(model)
    patched = loss.calculate_loss
    loss.calculate_loss = lambda *args, **kwargs: patched(*args, **kwargs)  # type: ignore[method-assign]
    before = loss.calculate_loss
    value = losses.MatryoshkaLoss(model, loss, [32, 8])(batch(model, 2))
    vectors = embed_columns(model, batch(model, 2))
    expected = torch.zeros(())
    for dim in (32, 8):
        first, second = (F.normalize(column[:, :dim], dim=1) for column in vectors)
        expected = expected + (first - second).pow(2).mean() + first.mean()
    assert float(value.detach()) == pytest.approx(float(expected.detach()), rel=1e-4)
    assert_same(gradients(model, value), gradients(model, expected))
    assert loss.calculate_loss is before


def test_guided_losses_inside_matryoshka(model: Any) -> None:
    value = losses.MatryoshkaLoss(model, losses.GISTEmbedLoss(model, model), [32])(batch(model)).detach()
    assert float(value) == pytest.approx(float(losses.GISTEmbedLoss(model, model)(batch(model)).detach()), rel=1e-3)


# ---- settings and attributes


def test_a_scale_that_is_no_scale_is_refused(model: Any) -> None:
    for kind in (
        losses.MultipleNegativesRankingLoss,
        losses.CachedMultipleNegativesRankingLoss,
        losses.SparseMultipleNegativesRankingLoss,
        losses.MultiVectorMultipleNegativesRankingLoss,
    ):
        for scale in (0, -1.0, float("nan")):
            with pytest.raises(ValueError, match="scale must be a number above 0"):
                kind(model, scale=scale)


def test_losses_that_are_parts_can_be_replaced(model: Any) -> None:
    rows = batch(model)
    vectors = embed_columns(model, rows)
    for kind in (losses.GISTEmbedLoss, losses.CachedGISTEmbedLoss):
        loss = kind(model, model, contrast_anchors=False, contrast_positives=False, margin=-10.0)
        scores = F.normalize(vectors[0], dim=1) @ F.normalize(torch.cat(vectors[1:]), dim=1).T / 0.01
        for part in (nn.CrossEntropyLoss(label_smoothing=0.3), nn.CrossEntropyLoss(reduction="sum")):
            loss.cross_entropy_loss = part
            expected = part(scores, torch.arange(3))
            assert float(loss(rows).detach()) == pytest.approx(float(expected.detach()), rel=1e-3)
    margin = losses.MarginMSELoss(model)
    margin.loss_fct = nn.L1Loss()
    a, p, n = vectors
    gap = ((a * p).sum(1) - (a * n).sum(1) - torch.tensor([1.0, 2, 3])).abs().mean()
    assert float(margin(rows, torch.tensor([1.0, 2, 3])).detach()) == pytest.approx(float(gap.detach()), rel=1e-4)
    divergence = losses.DistillKLDivLoss(model)
    divergence.loss_fct = nn.KLDivLoss(reduction="sum")
    labels = torch.tensor([[1.0, 2], [0, 1], [3, 1]])
    plain = losses.DistillKLDivLoss(model)(rows, labels).detach()
    assert float(divergence(rows, labels).detach()) == pytest.approx(3 * float(plain), rel=1e-4)
    pairs = losses.ContrastiveTensionLoss(model)
    summed = pairs(rows[:2], torch.tensor([1, 0, 1])).detach()
    pairs.criterion = nn.BCEWithLogitsLoss()
    assert float(pairs(rows[:2], torch.tensor([1, 0, 1])).detach()) == pytest.approx(float(summed) / 3, rel=1e-4)


def test_labels_other_than_0_and_1_are_said_once(model: Any) -> None:
    pair = [torch.randn(4, 3), torch.randn(4, 3)]
    for kind, says in ((losses.ContrastiveLoss, "weigh"), (losses.OnlineContrastiveLoss, "ignored")):
        loss = kind(model)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            loss.compute_loss_from_embeddings(pair, torch.tensor([1, 0, 1, 0]))
        with pytest.warns(UserWarning, match=says) as caught:
            loss.compute_loss_from_embeddings(pair, torch.tensor([1, 0.5, 1, 0]))
            loss.compute_loss_from_embeddings(pair, torch.tensor([1, 0.5, 1, 0]))
        assert len(caught) == 1


@pytest.mark.parametrize("labels", [[1, 0, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0], [1, 0.3, 0, 0]])
def test_online_contrastive_pair_by_pair(labels: list[float], model: Any) -> None:
    distances = [0.526, 0.2524, 0.3, 0.4554]
    loss = losses.OnlineContrastiveLoss(model, distance_metric=lambda a, b: a[:, 0])
    positives = [d for d, label in zip(distances, labels, strict=True) if label == 1]
    negatives = [d for d, label in zip(distances, labels, strict=True) if label == 0]
    far = max(positives) if positives else sum(negatives) / len(negatives)
    near = min(negatives) if negatives else sum(positives) / len(positives)
    expected = sum(d**2 for d in positives if d > near) + sum(max(0.5 - d, 0) ** 2 for d in negatives if d < far)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = loss.compute_loss_from_embeddings([torch.tensor(distances)[:, None]] * 2, torch.tensor(labels))
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_a_dimension_that_is_not_trained_is_said(model: Any, caplog: pytest.LogCaptureFixture) -> None:
    losses.MatryoshkaLoss(model, Near(model), [32, 8])
    assert not caplog.text
    losses.Matryoshka2dLoss(model, Near(model), [16, 8])
    assert "full dimension, 32, is not among matryoshka_dims [16, 8]" in caplog.text


def test_a_projection_is_made_as_it_was_saved(model: Any, tmp_path: Path) -> None:
    saved = losses.EmbedDistillLoss(model, projection_dim=5)
    for path in (tmp_path / "projection", tmp_path / "projection.safetensors"):
        saved.save_projection(path)
        assert path.is_file()
        found = losses.EmbedDistillLoss(model)
        found.load_projection(path)
        assert found.projection_dim == 5
        vectors = torch.randn(2, 32)
        torch.testing.assert_close(found.projection(vectors), saved.projection(vectors))
    with pytest.raises(ValueError, match="has 5 dimensions, but projection_dim=4"):
        losses.EmbedDistillLoss(model, projection_dim=4).load_projection(path)


def test_parts_of_the_denoising_loss(model: Any) -> None:
    loss = losses.DenoisingAutoEncoderLoss(model)
    assert loss.encoder is model and loss.tokenizer_encoder is model.tokenizer
