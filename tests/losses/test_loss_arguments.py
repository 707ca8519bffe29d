"""Arguments of losses that no other test gives, against the formulas, on vectors that are given."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from sentence_transformers.cross_encoder import losses as of_pairs
from sentence_transformers.cross_encoder.losses import NDCGLoss2PPScheme
from sentence_transformers.multi_vector_encoder import losses as of_tokens
from sentence_transformers.sparse_encoder import losses as sparse
from torch import nn

from sentence_transformers import CrossEncoder, MultiVectorEncoder, SentenceTransformer, SparseEncoder, losses
from sentence_transformers.errors import InputError
from tests.golden.layouts import GOLDEN

torch.manual_seed(1)
A, P, N = torch.randn(3, 4, 6).unbind()
LABELS, MARGINS, TEACHER = torch.tensor([0.1, 0.9, 0.4, 0.2]), torch.randn(4), torch.randn(4, 2)


def minus_distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return -torch.cdist(a, b)


def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """A similarity of pairs that is not the default of any loss: Σ_k a_k b_k², row by row."""
    return (a * b**2).sum(-1)


def value_of(loss: Any, columns: list[torch.Tensor], labels: torch.Tensor | None = None) -> Any:
    with torch.no_grad():
        return loss.compute_loss_from_embeddings(columns, labels)


def cross_entropy(scores: torch.Tensor) -> torch.Tensor:
    """Row i should find column i."""
    return torch.stack([scores[i].logsumexp(0) - scores[i, i] for i in range(len(scores))]).mean()


IN_BATCH = [
    losses.MultipleNegativesRankingLoss(None, scale=2.0, similarity_fct=minus_distance),
    losses.CachedMultipleNegativesRankingLoss(None, scale=2.0, similarity_fct=minus_distance),
    sparse.SparseMultipleNegativesRankingLoss(None, scale=2.0, similarity_fct=minus_distance),
]
SYMMETRIC = [
    losses.MultipleNegativesSymmetricRankingLoss(None, scale=2.0, similarity_fct=minus_distance),
    losses.CachedMultipleNegativesSymmetricRankingLoss(None, scale=2.0, similarity_fct=minus_distance),
]


def in_batch(loss: Any, columns: list[torch.Tensor]) -> torch.Tensor:
    if isinstance(loss, losses.CachedMultipleNegativesRankingLoss):
        return loss.calculate_loss([[column] for column in columns])
    return value_of(loss, columns)


@pytest.mark.parametrize("loss", IN_BATCH, ids=lambda loss: type(loss).__name__)
def test_in_batch_negatives_by_another_similarity(loss):
    torch.testing.assert_close(in_batch(loss, [A, P, N]), cross_entropy(2 * minus_distance(A, torch.cat([P, N]))))


@pytest.mark.parametrize("loss", SYMMETRIC, ids=lambda loss: type(loss).__name__)
def test_symmetric_negatives_by_another_similarity(loss):
    scores = 2 * minus_distance(A, P)
    expected = (cross_entropy(scores) + cross_entropy(scores.T)) / 2
    torch.testing.assert_close(in_batch(loss, [A, P]), expected)


@pytest.mark.parametrize("kind", [losses.CoSENTLoss, sparse.SparseCoSENTLoss])
def test_cosent_by_another_similarity(kind):
    scores = 2 * product(A, P)
    pairs = [scores[i] - scores[j] for i in range(4) for j in range(4) if LABELS[i] < LABELS[j]]
    expected = torch.cat([torch.zeros(1), torch.stack(pairs)]).logsumexp(0)
    torch.testing.assert_close(value_of(kind(model=None, scale=2.0, similarity_fct=product), [A, P], LABELS), expected)


def test_angle_is_cosent_by_the_angle():
    expected = value_of(losses.AnglELoss(None, scale=2.0), [A, P], LABELS)
    torch.testing.assert_close(value_of(sparse.SparseAnglELoss(model=None, scale=2.0), [A, P], LABELS), expected)


@pytest.mark.parametrize("kind", [losses.CosineSimilarityLoss, sparse.SparseCosineSimilarityLoss])
def test_cosine_similarity_by_other_functions(kind):
    model = SimpleNamespace(similarity_fn_name="cosine")
    loss = kind(model=model, loss_fct=nn.L1Loss(), cos_score_transformation=nn.Sigmoid())
    cosines = (A * P).sum(1) / A.norm(dim=1) / P.norm(dim=1)
    expected = (1 / (1 + (-cosines).exp()) - LABELS).abs().mean()
    torch.testing.assert_close(value_of(loss, [A, P], LABELS), expected)


@pytest.mark.parametrize("kind", [losses.MarginMSELoss, sparse.SparseMarginMSELoss])
def test_margins_by_another_similarity(kind):
    expected = (product(A, P) - product(A, N) - MARGINS).square().mean()
    torch.testing.assert_close(value_of(kind(model=None, similarity_fct=product), [A, P, N], MARGINS), expected)


@pytest.mark.parametrize("kind", [losses.DistillKLDivLoss, sparse.SparseDistillKLDivLoss])
def test_distillation_by_another_similarity(kind):
    """KL(teacher ‖ student) with the temperature T, times T², the mean over the queries."""
    loss = kind(model=None, similarity_fct=product, temperature=2.0)
    student = torch.stack([product(A, P), product(A, N)], 1) / 2
    teacher = (TEACHER / 2).softmax(1)
    expected = (teacher * (teacher.log() - student.log_softmax(1))).sum() / 4 * 4
    torch.testing.assert_close(value_of(loss, [A, P, N], TEACHER), expected)


def test_sparse_mse_is_mse():
    expected = (A - P).square().mean()
    torch.testing.assert_close(value_of(sparse.SparseMSELoss(model=None), [A], P), expected)


@pytest.mark.parametrize("kind", [losses.TripletLoss, sparse.SparseTripletLoss])
def test_triplet_margin(kind):
    gap = (A - P).norm(dim=1) - (A - N).norm(dim=1)
    for margin in (0.0, 3.0):
        expected = (gap + margin).clamp_min(0).mean()
        torch.testing.assert_close(value_of(kind(model=None, triplet_margin=margin), [A, P, N]), expected)


def test_second_moment_of_directions():
    """w₂ · max(mean_{i≠j} s_ij² − 1/d, 0), the mean over the columns."""
    loss = losses.GlobalOrthogonalRegularizationLoss(
        None, similarity_fct=lambda a, b: a @ b.T, mean_weight=None, second_moment_weight=3.0
    )
    moments = [sum(float(x @ y) ** 2 for i, x in enumerate(c) for j, y in enumerate(c) if i != j) / 12 for c in (A, P)]
    expected = 3 * sum(max(moment - 1 / 6, 0) for moment in moments) / 2
    assert value_of(loss, [A, P]) == {"gor_second_moment": pytest.approx(expected, rel=1e-5)}


@pytest.mark.parametrize("margins", [(0.8, 0.3), (0.5, -0.2)])
def test_margins_of_mega_batches(margins):
    positive, negative = margins
    loss = losses.MegaBatchMarginLoss(
        None, positive_margin=positive, negative_margin=negative, use_mini_batched_version=False
    )
    cosines = F.normalize(A) @ F.normalize(P).T
    terms = [
        max(positive - cosines[i, i], 0) + max(max(cosines[i, j] for j in range(4) if j != i) - negative, 0)
        for i in range(4)
    ]
    torch.testing.assert_close(value_of(loss, [A, P]), torch.stack([torch.as_tensor(term) for term in terms]).mean())


@pytest.mark.parametrize("parts", [(True, True), (True, False), (False, True)])
def test_parts_that_a_classifier_sees(parts):
    both, difference = parts
    torch.manual_seed(3)
    loss = losses.SoftmaxLoss(
        None,
        6,
        2,
        concatenation_sent_rep=both,
        concatenation_sent_difference=difference,
        loss_fct=nn.CrossEntropyLoss(reduction="sum"),
    )
    seen = torch.cat([*([A, P] if both else []), *([(A - P).abs()] if difference else [])], 1)
    labels = torch.tensor([0, 1, 1, 0])
    logs = (seen @ loss.classifier.weight.T + loss.classifier.bias).log_softmax(1)
    torch.testing.assert_close(value_of(loss, [A, P], labels), -logs[torch.arange(4), labels].sum())


def test_scale_of_contrastive_tension():
    """Both directions of the cross entropy between the two models' vectors, which are equal at the start."""
    model = SentenceTransformer(str(GOLDEN / "out_st"), device="cpu")
    texts = ["the cat", "rain fell", "water"]
    features = [model.preprocess(texts) for _ in range(2)]
    vectors = model.encode(texts, convert_to_tensor=True)
    for scale in (1.0, 5.0):
        loss = losses.ContrastiveTensionLossInBatchNegatives(model, scale=scale, similarity_fct=minus_distance).eval()
        assert float(loss.logit_scale) == pytest.approx(math.log(scale))
        scores = scale * minus_distance(vectors, vectors)
        expected = (cross_entropy(scores) + cross_entropy(scores.T)) / 2
        with torch.no_grad():
            torch.testing.assert_close(loss(features, None), expected, atol=1e-4, rtol=1e-4)


def test_contrastive_tension_in_batch_reads_the_first_column() -> None:
    """The second of (anchor, anchor) is the same text; it is not looked at, as in 6.2.0."""
    model = SentenceTransformer(str(GOLDEN / "out_st"), device="cpu").eval()
    first, second = (model.preprocess(texts) for texts in (["the cat", "rain fell"], ["water", "the"]))
    loss = losses.ContrastiveTensionLossInBatchNegatives(model).eval()
    with torch.no_grad():
        torch.testing.assert_close(loss([first, second]), loss([first]))


PAIRED = (
    losses.ContrastiveLoss,
    losses.OnlineContrastiveLoss,
    losses.CosineSimilarityLoss,
    losses.CoSENTLoss,
    losses.AnglELoss,
)


@pytest.mark.parametrize("kind", PAIRED)
def test_labels_in_a_column_are_those_in_a_row(kind: Any) -> None:
    labels = torch.tensor([1.0, 0.0, 1.0, 0.0])
    torch.testing.assert_close(value_of(kind(None), [A, P], labels[:, None]), value_of(kind(None), [A, P], labels))


@pytest.mark.parametrize("kind", [of_pairs.BinaryCrossEntropyLoss, of_pairs.MSELoss, of_pairs.CrossEntropyLoss])
def test_labels_of_pairs_in_a_column_are_those_in_a_row(kind: Any) -> None:
    classes = 2 if kind is of_pairs.CrossEntropyLoss else 1
    model = CrossEncoder(str(GOLDEN / "out_st"), num_labels=classes, device="cpu").eval()
    loss, columns, labels = kind(model), [["the cat", "rain fell"], ["water", "the"]], torch.tensor([1.0, 0.0])
    with torch.no_grad():
        torch.testing.assert_close(loss(columns, labels[:, None]), loss(columns, labels))


@pytest.mark.parametrize("loss", [losses.CoSENTLoss, losses.MultipleNegativesRankingLoss, losses.MegaBatchMarginLoss])
def test_a_batch_without_texts_is_refused(loss: Any) -> None:
    model = SentenceTransformer(str(GOLDEN / "out_st"), device="cpu")
    with pytest.raises(InputError, match="The batch has no texts"):
        loss(model)([model.preprocess([]), model.preprocess([])], torch.zeros(0))


class Price(nn.Module):
    """A regulariser of one's own: the sum of all entries times a factor."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def compute_loss_from_embeddings(self, embeddings: torch.Tensor, labels: Any = None) -> torch.Tensor:
        return self.factor * embeddings.sum()


def test_regularizers_of_ones_own():
    settings: dict[str, Any] = {
        "document_regularizer": Price(3.0),
        "query_regularizer": Price(5.0),
        "document_regularizer_weight": 0.5,
        "query_regularizer_weight": 2.0,
    }
    inner = sparse.SparseMultipleNegativesRankingLoss(None)
    found = value_of(sparse.SpladeLoss(None, inner, **settings), [A, P])
    assert found["document_regularizer_loss"] == pytest.approx(0.5 * 3 * float(P.sum()), rel=1e-4)
    assert found["query_regularizer_loss"] == pytest.approx(2 * 5 * float(A.sum()), rel=1e-4)
    cached = sparse.CachedSpladeLoss(None, inner, **settings).calculate_loss([[A], [P]])
    total = cached if isinstance(cached, torch.Tensor) else sum(cached.values())
    torch.testing.assert_close(total, sum(found.values()))


@pytest.mark.parametrize("mu", [0.0, 3.0])
def test_weight_of_the_first_scheme(mu):
    """mu · |1/D_{|i−j|} − 1/D_{|i−j|+1}| · |G_i − G_j|  +  |1/D_i − 1/D_j| · |G_i − G_j|, D_n = log₂(1 + n)."""
    gains = torch.tensor([3.0, 0.0, 1.0])
    discounts = [math.log2(2 + i) for i in range(3)]
    found = NDCGLoss2PPScheme(mu=mu)(gains[None], torch.tensor([discounts]), true_sorted=gains[None])
    for i in range(3):
        for j in range(3):
            if i != j:
                far = abs(1 / math.log2(1 + abs(i - j)) - 1 / math.log2(2 + abs(i - j)))
                near = abs(1 / discounts[i] - 1 / discounts[j])
                expected = (mu * far + near) * abs(float(gains[i] - gains[j]))
                assert float(found[0, i, j]) == pytest.approx(expected, rel=1e-5)


# ---- mini-batches


CACHED = [
    (losses.CachedMultipleNegativesRankingLoss, "CachedMultipleNegativesRankingLoss", 2),
    (losses.CachedMultipleNegativesSymmetricRankingLoss, "CachedMultipleNegativesSymmetricRankingLoss", 2),
    (losses.CachedGISTEmbedLoss, "CachedGISTEmbedLoss", 2),
    (losses.MegaBatchMarginLoss, "MegaBatchMarginLoss", 2),
]


@pytest.mark.parametrize(("kind", "name", "columns"), CACHED, ids=lambda value: value if isinstance(value, str) else "")
def test_mini_batches_by_tokens_and_their_bar(kind, name, columns, capsys):
    """The value is that of mini-batches by texts; how many tokens go through the model together is what was asked."""
    model = SentenceTransformer(str(GOLDEN / "out_st"), device="cpu").eval()
    texts = ["the cat sat on the mat", "rain", "a river rose", "water and rain fell all night"]
    features = [model.preprocess(texts), model.preprocess(texts[::-1])]
    guide = {"guide": SentenceTransformer(str(GOLDEN / "out_st"), device="cpu")} if "GIST" in name else {}
    longest = int(max(part["attention_mask"].sum(1).max() for part in features))
    usual = kind(model, **guide)(features, None)
    assert "mini-batches" not in capsys.readouterr().err
    seen: list[int] = []
    model.register_forward_pre_hook(lambda module, given: seen.append(int(given[0]["attention_mask"].sum())))
    value = kind(model, **guide, mini_batch_num_tokens=longest, show_progress_bar=True)(features, None)
    torch.testing.assert_close(value, usual)
    assert max(seen) == longest and len(seen) > 2
    assert "mini-batches" in capsys.readouterr().err


GUIDED = pytest.mark.parametrize("kind", [losses.GISTEmbedLoss, losses.CachedGISTEmbedLoss])
GUIDES = {"out_st": SentenceTransformer, "out_static": SentenceTransformer, "out_splade": SparseEncoder}
GUIDES |= {"out_router": SentenceTransformer, "out_mv": MultiVectorEncoder, "out_ce": CrossEncoder}


@GUIDED
@pytest.mark.parametrize(
    ("student", "guide"),
    [
        ("out_st", "out_static"),
        ("out_static", "out_st"),
        ("out_static", "out_static"),
        ("out_splade", "out_static"),
        ("out_static", "out_router"),
        ("out_router", "out_splade"),
    ],
)
def test_models_and_guides_of_other_kinds(kind, student, guide):
    """A table of static vectors reads no features of a transformers model, and the other way round."""
    model, told = (GUIDES[name](str(GOLDEN / name), device="cpu").eval() for name in (student, guide))
    columns = [["a b c d", "yes", "x y ; z"], ["a b", "yes no", "z"]]  # of tokens that all three vocabularies have

    def similarities(encoder):
        vectors = [encoder.encode(texts, convert_to_tensor=True) for texts in columns]
        a, p = (F.normalize(v.to_dense() if v.is_sparse else v) for v in vectors)
        return [a @ p.T, a @ a.T, p @ p.T]

    scores, limits = similarities(model), similarities(told)
    limit = limits[0].diagonal()[:, None]
    rows = torch.cat([s.masked_fill(t > limit, -torch.inf) for s, t in zip(scores, limits, strict=True)], 1) / 0.05
    for first in (3, 6):  # a text with itself is no negative, whatever its last digit says
        rows[range(3), range(first, first + 3)] = -torch.inf
    rows[range(3), range(3)] = scores[0].diagonal() / 0.05
    expected = (rows.logsumexp(1) - rows[range(3), range(3)]).mean()
    with torch.no_grad():
        found = kind(model, told, temperature=0.05)([model.preprocess(texts) for texts in columns], None)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@GUIDED
@pytest.mark.parametrize("name", ["out_mv", "out_ce"])
@pytest.mark.parametrize("place", ["model", "guide"])
def test_models_without_a_vector_per_text_are_refused(kind, name, place):
    models = {key: SentenceTransformer(str(GOLDEN / "out_st"), device="cpu") for key in ("model", "guide")}
    models[place] = GUIDES[name](str(GOLDEN / name), device="cpu")
    with pytest.raises(ValueError, match=f"{kind.__name__} compares .* the {place}, a {GUIDES[name].__name__}"):
        kind(**models)


@GUIDED
@pytest.mark.parametrize(("strategy", "margin"), [("absolute", 0.0), ("absolute", 0.003), ("relative", 0.004)])
def test_margin_strategy_of_guided_losses(kind, strategy, margin):
    """Others count whose guided similarity is at most that of the pair, less the margin or the share of it."""
    model = SentenceTransformer(str(GOLDEN / "out_st"), device="cpu").eval()
    guide = SentenceTransformer(str(GOLDEN / "out_st"), device="cpu")
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in guide.parameters():
            parameter += torch.randn_like(parameter)
    anchors = ["the cat sat on the mat", "rain", "water boils at one hundred degrees"]
    positives = ["the cat sat on a mat", "rain fell", "water boils at noon"]

    def similarities(encoder: SentenceTransformer) -> list[torch.Tensor]:
        a, p = (F.normalize(encoder.encode(texts, convert_to_tensor=True)) for texts in (anchors, positives))
        return [a @ p.T, a @ a.T, p @ p.T]

    told, scores = similarities(guide), similarities(model)
    own = told[0].diagonal()[:, None]
    limit = own - margin if strategy == "absolute" else own * (1 - margin)
    rows = torch.cat([s.masked_fill(t > limit, -torch.inf) for s, t in zip(scores, told, strict=True)], 1) / 0.05
    rows[range(3), range(3)] = scores[0].diagonal() / 0.05
    expected = (rows.logsumexp(1) - rows[range(3), range(3)]).mean()
    loss = kind(model, guide, temperature=0.05, margin_strategy=strategy, margin=margin)
    found = loss([model.preprocess(texts) for texts in (anchors, positives)], None).detach()
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_teacher_temperature_of_late_interaction():
    """Only the teacher's scores are divided by it."""
    from sentence_transformers import MultiVectorEncoder

    model = MultiVectorEncoder(str(GOLDEN / "out_mv"), device="cpu").eval()
    sides = [("query", ["the cat", "rain"]), ("document", ["a cat sat", "rain fell"]), ("document", ["water", "sun"])]
    features = [model.preprocess(texts, task=task) for task, texts in sides]
    teacher = torch.tensor([[1.0, 3.0], [2.0, 0.5]])
    encoded = [model.encode(texts, task=task) for task, texts in sides]
    student = torch.stack(
        [torch.stack([(q @ d.T).amax(1).sum() for q, d in zip(encoded[0], encoded[k], strict=True)]) for k in (1, 2)],
        1,
    )
    for temperature in (1.0, 4.0):
        loss = of_tokens.MultiVectorDistillKLDivLoss(
            model=model, student_temperature=1.0, teacher_temperature=temperature
        )
        targets = (teacher / temperature).softmax(1)
        expected = (targets * (targets.log() - student.log_softmax(1))).sum() / 2
        with torch.no_grad():
            torch.testing.assert_close(loss(features, teacher), expected, atol=1e-4, rtol=1e-4)


def test_margins_of_late_interaction():
    from sentence_transformers import MultiVectorEncoder

    model = MultiVectorEncoder(str(GOLDEN / "out_mv"), device="cpu").eval()
    sides = [("query", ["the cat", "rain"]), ("document", ["a cat sat", "rain fell"]), ("document", ["water", "sun"])]
    features = [model.preprocess(texts, task=task) for task, texts in sides]
    q, p, n = [model.encode(texts, task=task) for task, texts in sides]
    scores = [[float((a @ b.T).amax(1).sum()) for a, b in zip(q, other, strict=True)] for other in (p, n)]
    expected = sum((x - y - m) ** 2 for x, y, m in zip(*scores, (0.5, -1.0), strict=True)) / 2
    with torch.no_grad():
        found = of_tokens.MultiVectorMarginMSELoss(model=model)(features, torch.tensor([0.5, -1.0]))
    assert float(found) == pytest.approx(expected, rel=1e-4)
