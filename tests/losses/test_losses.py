"""Losses: values and gradients of version 6.2.0, formulas written out, and what holds for every one of them."""

from __future__ import annotations

import inspect
import json
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers.cross_encoder import losses as cross_losses

from sentence_transformers import SentenceTransformer, _names, losses
from sentence_transformers.losses.base import Accepts, Loss
from sentence_transformers.losses.gradient_cache import cached_loss
from sentence_transformers.losses.merged_forward import column_merging_disabled, embed_columns, mini_batches
from sentence_transformers.losses.pairs import cosent
from tests import models
from tests.golden import loss_cases

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "losses.npz")
WORDS = models.SENTENCES
COLUMNS = [[*WORDS[:5], "cat"], ["cat", *WORDS[3:8]], [*WORDS[6:11], ""], WORDS[5:11]]


@pytest.fixture(autouse=True)
def quiet() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


@pytest.fixture
def model(tmp_path: Path) -> SentenceTransformer:
    models.build("bert", tmp_path / "bert")
    model = SentenceTransformer(str(tmp_path / "bert"), device="cpu")
    for module in model.transformers_model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


@pytest.mark.parametrize("name", loss_cases.CASES)
def test_values_and_gradients_are_those_of_6_2_0(name: str) -> None:
    value, gradient = loss_cases.run(losses, name)
    np.testing.assert_allclose(value, GOLDEN[f"{name}.value"], rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(gradient, GOLDEN[f"{name}.gradient"], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", loss_cases.TEXT_CASES)
def test_losses_of_texts_are_those_of_6_2_0(name: str) -> None:
    value, gradient = loss_cases.run_texts(losses, name)
    np.testing.assert_allclose(value, GOLDEN[f"{name}.value"], rtol=2e-4, atol=1e-6)
    scale = GOLDEN[f"{name}.gradient"][0]
    np.testing.assert_allclose(gradient / scale, GOLDEN[f"{name}.gradient"] / scale, atol=1e-3)


@pytest.mark.parametrize("name", loss_cases.CROSS_CASES)
def test_losses_of_cross_encoders_are_those_of_6_2_0(name: str) -> None:
    value, gradient = loss_cases.run_cross(cross_losses, name)
    np.testing.assert_allclose(value, GOLDEN[f"{name}.value"], rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(gradient, GOLDEN[f"{name}.gradient"], rtol=1e-3, atol=2e-6)


# ---- formulas, written out


def test_cosent_is_the_sum_over_pairs_of_rows() -> None:
    scores, labels = torch.randn(9), torch.tensor([0.1, 0.5, 0.5, 0.9, 0.1, 0.0, 1.0, 0.5, 0.2])
    total = sum(
        math.exp(float(scores[j] - scores[i]))
        for i in range(9)
        for j in range(9)
        if float(labels[i]) > float(labels[j])
    )
    assert float(cosent(scores, labels)) == pytest.approx(math.log1p(total), rel=1e-5)


def test_cosent_of_equal_labels_is_zero() -> None:
    assert float(cosent(torch.randn(4), torch.ones(4))) == 0


def test_in_batch_negatives_is_cross_entropy_over_the_documents() -> None:
    a, p, n = loss_cases.vectors_of(3)
    loss = losses.MultipleNegativesRankingLoss(loss_cases.StandIn(), scale=5.0)
    documents = torch.nn.functional.normalize(torch.cat([p, n]), dim=1)
    scores = torch.nn.functional.normalize(a, dim=1) @ documents.T * 5
    expected = torch.nn.functional.cross_entropy(scores, torch.arange(len(a)))
    assert float(loss.compute_loss_from_embeddings([a, p, n])) == pytest.approx(float(expected), rel=1e-5)


def test_semi_hard_triplets_one_by_one() -> None:
    (vectors,), labels = loss_cases.vectors_of(1), loss_cases.labels_of("class")
    assert labels is not None
    d = torch.cdist(vectors, vectors).detach()
    terms = []
    for i in range(len(labels)):
        others = [k for k in range(len(labels)) if labels[k] != labels[i]]
        for p in range(len(labels)):
            if p == i or labels[p] != labels[i]:
                continue
            farther = [float(d[i, k]) for k in others if d[i, k] > d[i, p]]
            negative = min(farther) if farther else max(float(d[i, k]) for k in others)
            terms.append(max(float(d[i, p]) - negative + 0.7, 0))
    loss = losses.BatchSemiHardTripletLoss(loss_cases.StandIn(), margin=0.7)
    assert float(loss.compute_loss_from_embeddings([vectors], labels)) == pytest.approx(np.mean(terms), rel=1e-3)


# ---- what holds for every loss

PER_BATCH = [name for name, (kind, *_) in loss_cases.CASES.items() if "Matryoshka" not in kind]


@pytest.mark.parametrize("name", PER_BATCH)
def test_the_order_of_the_rows_does_not_matter(name: str) -> None:
    _, _, columns, labels = loss_cases.CASES[name]
    vectors, targets, order = loss_cases.vectors_of(columns), loss_cases.labels_of(labels), torch.randperm(loss_cases.B)
    loss = loss_cases.make(losses, name, loss_cases.StandIn())
    terms = [
        loss(
            [{"vectors": v[rows].detach().requires_grad_()} for v in vectors],
            None if targets is None else targets[rows],
        )
        for rows in (torch.arange(loss_cases.B), order)
    ]
    first, second = ([float(t) for t in (term.values() if isinstance(term, dict) else [term])] for term in terms)
    assert first == pytest.approx(second, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("name", loss_cases.CASES)
def test_settings_can_be_written_and_columns_are_told(name: str) -> None:
    loss = loss_cases.make(losses, name, loss_cases.StandIn())
    json.dumps(loss.get_config_dict(), default=str)
    assert isinstance(loss.citation, str)
    columns, kind = loss_cases.CASES[name][2:]
    kinds = {"binary": "class", "ones": "class", "zeros": "class", "teachers": "embedding", "teacher": "embedding"}
    label = kinds.get(kind, "scores" if kind.startswith("scores") else kind)
    assert all(isinstance(row, Accepts) for row in loss.accepts)
    fits = [row.fits(columns, label) or row.fits(columns, "score") for row in loss.accepts]  # type: ignore[arg-type]
    assert not loss.accepts or any(fits)


@pytest.mark.parametrize("name", loss_cases.CASES)
def test_a_loss_made_anew_from_its_settings_is_the_same(name: str) -> None:
    """Settings are arguments of the constructor under their own names, and all there is to know."""
    _, _, columns, labels = loss_cases.CASES[name]
    vectors, targets = [{"vectors": v.detach()} for v in loss_cases.vectors_of(columns)], loss_cases.labels_of(labels)
    loss = loss_cases.make(losses, name, loss_cases.StandIn())
    arguments = inspect.signature(type(loss).__init__).parameters
    elsewhere = {"margin": "triplet_margin"} if hasattr(loss, "triplet_margin") else {}  # its name since version 2
    settings = {key: getattr(loss, elsewhere.get(key, key)) for key in arguments if key != "self"}
    again = type(loss)(**settings)
    assert again.get_config_dict() == loss.get_config_dict()
    first, second = (one([dict(v) for v in vectors], targets) for one in (loss, again))
    total = [sum(value.values()) if isinstance(value, dict) else value for value in (first, second)]
    assert float(total[0].detach()) == float(total[1].detach())


WITH_LABELS = {
    "score": [0.1, 0.9, 0.4, 0.4, 0.0, 1.0],
    "class": [0, 1, 0, 1, 0, 1],
    "vector": [[0.1 * ((i + j) % 7) for j in range(32)] for i in range(6)],
    "scores": [[0.1 * i, 0.5 - 0.1 * i] for i in range(6)],
}
TEXT_LOSSES: dict[str, tuple[Any, int, Any]] = {
    "cosent": (lambda m: losses.CoSENTLoss(m), 2, "score"),
    "angle": (lambda m: losses.AnglELoss(m), 2, "score"),
    "cosine": (lambda m: losses.CosineSimilarityLoss(m), 2, "score"),
    "contrastive": (lambda m: losses.ContrastiveLoss(m), 2, "class"),
    "online": (lambda m: losses.OnlineContrastiveLoss(m), 2, "class"),
    "mnrl": (lambda m: losses.MultipleNegativesRankingLoss(m), 3, None),
    "symmetric": (lambda m: losses.MultipleNegativesSymmetricRankingLoss(m), 2, None),
    "cached": (lambda m: losses.CachedMultipleNegativesRankingLoss(m, mini_batch_size=4), 3, None),
    "cached-tokens": (lambda m: losses.CachedMultipleNegativesRankingLoss(m, mini_batch_num_tokens=40), 2, None),
    "cached-symmetric": (lambda m: losses.CachedMultipleNegativesSymmetricRankingLoss(m, mini_batch_size=4), 2, None),
    "guided": (lambda m: losses.GISTEmbedLoss(m, m), 3, None),
    "guided-cached": (lambda m: losses.CachedGISTEmbedLoss(m, m, mini_batch_size=4), 4, None),
    "mega": (lambda m: losses.MegaBatchMarginLoss(m, mini_batch_size=3), 2, None),
    "triplet": (lambda m: losses.TripletLoss(m), 3, None),
    "softmax": (lambda m: losses.SoftmaxLoss(m, 32, 2), 2, "class"),
    "batch-all": (lambda m: losses.BatchAllTripletLoss(m), 1, "class"),
    "batch-hard": (lambda m: losses.BatchHardTripletLoss(m), 1, "class"),
    "batch-soft": (lambda m: losses.BatchHardSoftMarginTripletLoss(m), 1, "class"),
    "batch-semi": (lambda m: losses.BatchSemiHardTripletLoss(m), 1, "class"),
    "tension": (lambda m: losses.ContrastiveTensionLoss(m), 2, "class"),
    "tension-in-batch": (lambda m: losses.ContrastiveTensionLossInBatchNegatives(m), 2, None),
    "denoising": (lambda m: losses.DenoisingAutoEncoderLoss(m, tie_encoder_decoder=True), 2, None),
    "mse": (lambda m: losses.MSELoss(m), 1, "vector"),
    "embed": (lambda m: losses.EmbedDistillLoss(m, projection_dim=32), 1, "vector"),
    "margin-mse": (lambda m: losses.MarginMSELoss(m), 3, "score"),
    "distill-kl": (lambda m: losses.DistillKLDivLoss(m), 3, "scores"),
    "orthogonal": (lambda m: losses.GlobalOrthogonalRegularizationLoss(m), 2, None),
    "matryoshka": (lambda m: losses.MatryoshkaLoss(m, losses.CoSENTLoss(m), [32, 8]), 2, "score"),
    "matryoshka-cached": (
        lambda m: losses.MatryoshkaLoss(m, losses.CachedMultipleNegativesRankingLoss(m, mini_batch_size=4), [32, 8]),
        2,
        None,
    ),
    "layers": (lambda m: losses.AdaptiveLayerLoss(m, losses.MultipleNegativesRankingLoss(m)), 2, None),
    "layers-dims": (lambda m: losses.Matryoshka2dLoss(m, losses.CoSENTLoss(m), [32, 8]), 2, "score"),
}


def test_the_list_has_every_loss(model: SentenceTransformer) -> None:
    """A new loss of embeddings joins the list, and with it the law below."""
    listed = {type(make(model)) for make, _, _ in TEXT_LOSSES.values()}
    homes = [_names.home(name) for name, place in _names.HOME.items() if place.startswith("losses.")]
    found = {one for one in homes if isinstance(one, type) and issubclass(one, Loss)}
    elsewhere = ("losses.sparse", "losses.splade", "losses.csr")  # tests/losses/test_sparse.py
    elsewhere += ("losses.multi_vector",)  # tests/test_multi_vector.py
    assert listed == {one for one in found if not one.__module__.endswith(elsewhere)}


def batch(model: SentenceTransformer, columns: int) -> list[dict[str, Any]]:
    return [model.preprocess(column) for column in COLUMNS[:columns]]


@pytest.mark.parametrize("name", TEXT_LOSSES)
def test_gradients_reach_every_weight_that_is_used(model: SentenceTransformer, name: str) -> None:
    make, columns, labels = TEXT_LOSSES[name]
    torch.manual_seed(0)
    loss = make(model)
    targets = torch.tensor(WITH_LABELS[labels]) if labels else None
    value = loss(batch(model, columns), targets)
    (sum(value.values()) if isinstance(value, dict) else value).backward()
    without = [n for n, p in loss.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)]
    assert all("pooler" in name or "token_type" in name for name in without), without


@pytest.mark.parametrize("architecture", ["bert", "modernbert", "qwen3", "mpnet", "mobilebert"])
def test_columns_together_are_columns_alone(architecture: str, tmp_path: Path) -> None:
    models.build(architecture, tmp_path / "m")
    model = SentenceTransformer(str(tmp_path / "m"), device="cpu").eval()
    together = embed_columns(model, batch(model, 3))
    with column_merging_disabled():
        apart = embed_columns(model, batch(model, 3))
    alone = [torch.cat([embed_columns(model, [model.preprocess([t])])[0] for t in column]) for column in COLUMNS[:3]]
    for one, two, three, column in zip(together, apart, alone, COLUMNS, strict=False):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(one, three, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(one, torch.tensor(model.encode(column)), rtol=1e-3, atol=1e-4)


def gradients(model: SentenceTransformer, loss: Any, columns: int) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss(batch(model, columns), None).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("size", [1, 4, 100])
@pytest.mark.parametrize("directions", [("query_to_doc",), loss_cases.ALL])
def test_cached_is_not_cached(model: SentenceTransformer, size: int, directions: Any) -> None:
    plain = losses.MultipleNegativesRankingLoss(model, directions=directions)
    cached = losses.CachedMultipleNegativesRankingLoss(model, mini_batch_size=size, directions=directions)
    expected, got = gradients(model, plain, 3), gradients(model, cached, 3)
    assert expected.keys() == got.keys()
    for name in expected:
        torch.testing.assert_close(got[name], expected[name], rtol=1e-3, atol=1e-5)


def test_cached_in_blocks_of_rows(model: SentenceTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sentence_transformers.losses.in_batch_negatives.BLOCK_ROWS", 1)
    cached = losses.CachedMultipleNegativesRankingLoss(model, mini_batch_size=2)
    expected = gradients(model, losses.MultipleNegativesRankingLoss(model), 3)
    got = gradients(model, cached, 3)
    for name in expected:
        torch.testing.assert_close(got[name], expected[name], rtol=1e-3, atol=1e-5)


def test_the_second_pass_meets_the_same_dropout(tmp_path: Path) -> None:
    models.build("bert", tmp_path / "m")
    model = SentenceTransformer(str(tmp_path / "m"), device="cpu").train()
    seen: list[torch.Tensor] = []
    model.register_forward_hook(lambda module, inputs, output: seen.append(output["sentence_embedding"].detach()))
    value = cached_loss(model, batch(model, 2), lambda columns, _: sum(c.square().sum() for c in columns), 4)
    passes = len(seen)
    value.backward()
    assert passes == 4 and len(seen) == 8  # a hooked model sees each column's mini-batches by themselves
    for first, second in zip(seen[:4], seen[4:], strict=True):
        torch.testing.assert_close(first, second)
    assert not torch.allclose(embed_columns(model, batch(model, 1))[0], embed_columns(model, batch(model, 1))[0])


def test_a_loss_without_gradients_is_computed_too(model: SentenceTransformer) -> None:
    loss = losses.CachedMultipleNegativesRankingLoss(model, mini_batch_size=4)
    with torch.no_grad():
        value = loss(batch(model, 2), None)
    plain = losses.MultipleNegativesRankingLoss(model)(batch(model, 2), None)
    assert not value.requires_grad and float(value) == pytest.approx(float(plain), rel=1e-4)


def test_guided_cached_is_guided(model: SentenceTransformer) -> None:
    plain = gradients(model, losses.GISTEmbedLoss(model, model, temperature=0.1, margin=0.05), 3)
    cached = gradients(model, losses.CachedGISTEmbedLoss(model, model, 0.1, mini_batch_size=4, margin=0.05), 3)
    for name in plain:
        torch.testing.assert_close(cached[name], plain[name], rtol=1e-3, atol=1e-5)


def test_matryoshka_calls_any_loss_once_a_dimension(model: SentenceTransformer) -> None:
    class Own(torch.nn.Module):
        def __init__(self, model: Any) -> None:
            super().__init__()
            self.model, self.widths = model, []

        def forward(self, features: Any, labels: Any) -> torch.Tensor:
            first, second = (self.model(dict(part))["sentence_embedding"] for part in features)
            self.widths.append(first.shape[1])
            return (first - second).square().sum()

    own, runs = Own(model), []
    model.register_forward_hook(lambda *args: runs.append(1))
    losses.MatryoshkaLoss(model, own, [32, 16, 4])(batch(model, 2), None).backward()
    assert own.widths == [32, 16, 4] and "forward" not in vars(model)


def test_denoising_restores_texts_and_shares_weights(tmp_path: Path) -> None:
    models.build("bert", tmp_path / "m")
    model = SentenceTransformer(str(tmp_path / "m"), device="cpu")
    loss = losses.DenoisingAutoEncoderLoss(model, tie_encoder_decoder=True)
    encoder = dict(model.transformers_model.named_parameters())
    shared = [n for n, p in loss.decoder.bert.named_parameters() if any(p is q for q in encoder.values())]
    assert len(shared) == len([n for n in encoder if "pooler" not in n])
    value = loss(batch(model, 2), None)
    value.backward()
    assert math.isfinite(float(value)) and encoder["embeddings.word_embeddings.weight"].grad is not None


# ---- bad input


@pytest.mark.parametrize(
    ("make", "columns", "labels", "says"),
    [
        (lambda m: losses.CoSENTLoss(m), 2, None, "expects labels"),
        (lambda m: losses.CoSENTLoss(m), 2, torch.zeros(3), "one per example"),
        (lambda m: losses.CoSENTLoss(m), 3, torch.zeros(7), "expects 2 text columns, got 3"),
        (lambda m: losses.OnlineContrastiveLoss(m), 2, torch.zeros(7, 2), "one label per row, got labels of shape"),
        (lambda m: losses.MSELoss(m), 1, torch.zeros(7), "labels of shape"),
        (lambda m: losses.ContrastiveTensionLoss(m), 3, torch.zeros(7), "expects 2 text columns, got 3"),
        (lambda m: losses.ContrastiveTensionLossInBatchNegatives(m), 3, None, "expects 1 to 2 text columns, got 3"),
        (lambda m: losses.TripletLoss(m), 2, None, "expects 3 text columns"),
        (lambda m: losses.MultipleNegativesRankingLoss(m), 1, None, "at least 2"),
        (lambda m: losses.MSELoss(m), 1, torch.zeros(7, 5), "projection_dim=5"),
        (lambda m: losses.MarginMSELoss(m), 4, torch.zeros(7, 7), "expected 2 margins or 3 scores"),
        (lambda m: losses.MultipleNegativesRankingLoss(m, directions=("doc_to_doc",)), 2, None, "query_to_doc"),
        (lambda m: losses.DistillKLDivLoss(m, temperature=0), 3, None, "above 0"),
        (lambda m: losses.EmbedDistillLoss(m, "manhattan"), 1, None, "known are mse, l2, cosine"),
        (lambda m: losses.MatryoshkaLoss(m, losses.CoSENTLoss(m), [64]), 2, torch.zeros(7), "more than the 16"),
        (lambda m: losses.MatryoshkaLoss(m, losses.CoSENTLoss(m), [8], [1, 2]), 2, None, "as many weights"),
        (lambda m: losses.CrossEntropyLoss(m), 2, None, "SoftmaxLoss"),
    ],
    ids=range(17),
)
def test_what_cannot_be_meant_is_said(make: Any, columns: int, labels: Any, says: str) -> None:
    vectors = [{"vectors": v} for v in loss_cases.vectors_of(columns)]
    with pytest.raises(ValueError, match=says):
        make(loss_cases.StandIn())(vectors, labels)


def test_layers_refuse_what_they_cannot_hold(model: SentenceTransformer) -> None:
    with pytest.raises(ValueError, match="mini-batches"):
        losses.AdaptiveLayerLoss(model, losses.CachedMultipleNegativesRankingLoss(model))
    with pytest.raises(ValueError, match="Unknown layer_weighting"):
        losses.AdaptiveLayerLoss(model, losses.CoSENTLoss(model), layer_weighting="no")  # type: ignore[arg-type]


def test_a_projection_is_saved_and_read(tmp_path: Path) -> None:
    one, two = (losses.MSELoss(loss_cases.StandIn(), projection_dim=5) for _ in range(2))
    one.save_projection(tmp_path)
    two.load_projection(tmp_path)
    assert one.projection is not None and two.projection is not None
    torch.testing.assert_close(one.projection.state_dict(), two.projection.state_dict())


def test_losses_of_that_name_for_cross_encoders(tmp_path: Path) -> None:
    from sentence_transformers import CrossEncoder

    models.build("bert", tmp_path / "m")
    one, two = (CrossEncoder(str(tmp_path / "m"), num_labels=n, device="cpu") for n in (1, 2))
    texts = [list(WORDS[:3]), list(WORDS[3:6])]
    value = losses.MSELoss(one)(texts, torch.tensor([0.1, 0.5, 1.0]))
    scores = one.predict(list(zip(*texts, strict=True)), activation_fn=torch.nn.Identity())
    assert float(value) == pytest.approx(float(np.mean((scores - [0.1, 0.5, 1.0]) ** 2)), rel=1e-3)
    classes = losses.CrossEntropyLoss(two)
    value = classes(texts, torch.tensor([0, 1, 1]))
    logits = two.predict(list(zip(*texts, strict=True)), convert_to_tensor=True)
    expected = torch.nn.functional.cross_entropy(logits.float(), torch.tensor([0, 1, 1]))
    assert float(value) == pytest.approx(float(expected), rel=1e-3)
    value.backward()
    with pytest.raises(ValueError, match="num_labels=1"):
        losses.MSELoss(two)


@pytest.mark.parametrize(("count", "size"), [(7, 3), (64, 32), (10, 1), (5, 100), (1, 1), (400, 32)])
def test_mini_batches_have_equally_many_tokens(count: int, size: int) -> None:
    """⌈B / size⌉ of them on every process, whatever the lengths; none has much more than its share of the tokens."""
    lengths = [1 + (i * 37) % 120 for i in range(count)]
    groups = mini_batches(lengths, size, None)
    assert sorted(i for group in groups for i in group) == list(range(count)) and all(groups)
    assert len(groups) == math.ceil(count / size)
    tokens = [sum(lengths[i] for i in group) for group in groups]
    assert max(tokens) <= sum(lengths) / len(groups) + 2 * max(lengths)
    assert mini_batches([0, 0, 0], 2, None) == [[0, 1], [2]]
