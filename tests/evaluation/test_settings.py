"""Evaluators do what they are told: similarities asked for, further models, precisions, overridden methods."""

from __future__ import annotations

import csv
import gc
import logging
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sentence_transformers import SentenceTransformer, _names, evaluation
from sentence_transformers.evaluation import metrics
from tests import models
from tests.golden import evaluation_cases as cases

NEAR = [cases.text(i + 1) for i in range(0, 57, 3)]
FAR = cases.SECOND[::-1]


def rows_of(texts: list[str]) -> np.ndarray:
    return cases.StandIn().table[[int(text.split()[0]) for text in texts]].numpy()


def dots(first: list[str], second: list[str]) -> np.ndarray:
    return np.array([float(a @ b) for a, b in zip(rows_of(first), rows_of(second), strict=True)])


class Euclidean(cases.StandIn):
    """Other vectors, compared by their distance."""

    similarity_fn_name = "euclidean"

    def __init__(self) -> None:
        super().__init__(7)

    def similarity(self, a: Any, b: Any) -> Any:
        return -torch.cdist(torch.as_tensor(a), torch.as_tensor(b))


# ---- the similarity that is asked for


@pytest.mark.parametrize("names", [None, ["cosine"], ["cosine", "dot"]])
def test_the_main_similarity_is_reported(names: Any, tmp_path: Path) -> None:
    pairs = evaluation.EmbeddingSimilarityEvaluator(
        cases.FIRST, cases.SECOND, cases.GOLD, main_similarity="dot", similarity_fn_names=names, name="sts"
    )
    triplets = evaluation.TripletEvaluator(
        cases.FIRST, NEAR, FAR, main_similarity_function="dot", similarity_fn_names=names, name="dev"
    )
    for evaluator in (pairs, triplets):
        assert str(evaluator.primary_metric).split("_")[-1 if evaluator is pairs else 0] == "dot"  # before any call
    found = pairs(cases.StandIn(), str(tmp_path))
    assert pairs.primary_metric == "sts_spearman_dot"
    assert found["sts_spearman_dot"] == pytest.approx(metrics.spearman(cases.GOLD, dots(cases.FIRST, cases.SECOND)))
    assert found["sts_pearson_dot"] == pytest.approx(metrics.pearson(cases.GOLD, dots(cases.FIRST, cases.SECOND)))
    assert ("sts_spearman_cosine" in found) == bool(names)
    ordered = evaluation.SequentialEvaluator([pairs])(cases.StandIn())
    assert ordered["sequential_score"] == found["sts_spearman_dot"]
    found = triplets(cases.StandIn(), str(tmp_path))
    assert triplets.primary_metric == "dev_dot_accuracy"
    assert found["dev_dot_accuracy"] == pytest.approx(np.mean(dots(cases.FIRST, NEAR) > dots(cases.FIRST, FAR)))
    header = next(csv.reader((tmp_path / "triplet_evaluation_dev_results.csv").open()))
    assert header == triplets.csv_headers and "accuracy_dot" in header


def test_the_main_score_function_of_retrieval_is_reported() -> None:
    arguments = (cases.QUERIES, cases.CORPUS, cases.KNOWN)
    found = evaluation.InformationRetrievalEvaluator(*arguments, main_score_function="dot", name="ir")
    alone = evaluation.InformationRetrievalEvaluator(*arguments, score_functions={"mine": lambda a, b: a @ b.T})
    expected = alone(cases.StandIn())
    result = found(cases.StandIn())
    assert found.primary_metric == "ir_dot_ndcg@10" and "ir_cosine_ndcg@10" in result
    assert all(result[f"ir_dot_{key.removeprefix('mine_')}"] == value for key, value in expected.items())


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("EmbeddingSimilarityEvaluator", "Semantic Similarity"),
        ("SparseMSEEvaluator", "Knowledge Distillation"),
        ("MultiVectorTripletEvaluator", "Multi Vector Triplet"),
        ("CEBinaryAccuracyEvaluator", "Cross Encoder Binary Accuracy"),
        ("CEF1Evaluator", "Cross Encoder F1"),
    ],
)
def test_evaluators_in_words(name: str, words: str) -> None:
    """As 6.2.0 has them: the kind of task in a card's metadata is made of them."""
    assert object.__new__(_names.home(name)).description == words


def test_margins_are_settings_that_a_card_shows() -> None:
    evaluator = evaluation.TripletEvaluator(cases.FIRST, NEAR, FAR, margin={"cosine": 0.2})
    assert evaluator.get_config_dict() == {"margin": {"cosine": 0.2, "dot": 0.0, "euclidean": 0.0, "manhattan": 0.0}}
    assert evaluation.TripletEvaluator(cases.FIRST, NEAR, FAR).get_config_dict() == {}


# ---- one evaluator, several models


@pytest.mark.parametrize("name", [name for name in cases.CASES if name not in cases.CROSS_CASES])
def test_a_second_model_is_measured_as_by_a_new_evaluator(name: str, tmp_path: Path) -> None:
    used, new = cases.make(evaluation, name), cases.make(evaluation, name)
    first, second = cases.stand_in(name), cases.stand_in(name)
    if name not in cases.SPARSE_CASES:
        second = Euclidean()
    gone = weakref.ref(first)
    used(first, str(tmp_path / "used"))
    del first
    gc.collect()
    assert gone() is None, "the evaluator holds the model"
    assert used(second) == new(second)
    assert used.primary_metric == new.primary_metric and getattr(used, "csv_headers", 0) == getattr(
        new, "csv_headers", 0
    )


def test_late_interaction_evaluators_hold_no_model_and_take_the_similarity_of_each() -> None:
    from sentence_transformers.multi_vector_encoder.evaluation import (
        MultiVectorInformationRetrievalEvaluator,
        MultiVectorRerankingEvaluator,
    )

    class Tokens(cases.StandIn):
        sign = 1.0
        similarity_fn_name = "maxsim"

        def encode(self, texts: Any, **kwargs: Any) -> Any:
            return [row[None] for row in super().encode(texts, convert_to_tensor=True)]

        encode_query = encode_document = encode

        def similarity(self, a: Any, b: Any, **kwargs: Any) -> Any:
            return self.sign * torch.stack([torch.cat([(x @ y.T).amax(1).sum(0, keepdim=True) for y in b]) for x in a])

    class Reversed(Tokens):
        sign = -1.0

    retrieval = MultiVectorInformationRetrievalEvaluator(cases.QUERIES, cases.CORPUS, cases.KNOWN, chunk_elements=99)
    reranking = MultiVectorRerankingEvaluator(cases.SAMPLES)
    for used, make in (
        (retrieval, lambda: MultiVectorInformationRetrievalEvaluator(cases.QUERIES, cases.CORPUS, cases.KNOWN)),
        (reranking, lambda: MultiVectorRerankingEvaluator(cases.SAMPLES)),
    ):
        first = Tokens()
        gone = weakref.ref(first)
        before = used(first)
        del first
        gc.collect()
        assert gone() is None
        after = used(Reversed())
        assert after == make()(Reversed()) and after != before


def test_a_primary_metric_set_by_hand_stays() -> None:
    evaluator = evaluation.EmbeddingSimilarityEvaluator(cases.FIRST, cases.SECOND, cases.GOLD)
    evaluator.primary_metric = "pearson_cosine"
    evaluator(cases.StandIn())
    assert evaluator.primary_metric == "pearson_cosine"


# ---- precisions


def test_bits_with_and_without_sign_are_the_same_bits() -> None:
    arguments = (cases.FIRST, cases.SECOND, cases.GOLD)
    bits = [rows_of(column) > 0 for column in arguments[:2]]
    cosines = [(a & b).sum() / np.sqrt(a.sum() * b.sum()) for a, b in zip(*bits, strict=True)]

    class Model(cases.StandIn):
        def encode(self, texts: Any, precision: str = "float32", normalize_embeddings: bool = False, **kwargs: Any) -> Any:  # noqa: E501  # fmt: skip
            from sentence_transformers.util import quantize_embeddings

            assert normalize_embeddings
            return quantize_embeddings(super().encode(texts), precision)

    for precision in ("binary", "ubinary"):
        found = evaluation.EmbeddingSimilarityEvaluator(*arguments, precision=precision)(Model())
        assert found["pearson_cosine"] == pytest.approx(metrics.pearson(cases.GOLD, np.array(cosines)))


@pytest.mark.parametrize(("precision", "shift"), [("int8", 128), ("uint8", 0)])
def test_bytes_of_both_columns_have_the_same_ranges(
    precision: Any, shift: int, bert_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = SentenceTransformer(str(bert_folder), device="cpu")
    first, second, gold = models.SENTENCES[:6], models.SENTENCES[6:], [0.1, 0.9, 0.3, 0.2, 0.8, 0.5]
    rows = model.encode([*first, *second], normalize_embeddings=True)
    low, high = rows.min(0), rows.max(0)
    whole = np.floor((rows - low) / ((high - low) / 255)).clip(0, 255) - shift
    scores = np.array(
        [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(whole[:6], whole[6:], strict=True)]
    )
    with caplog.at_level(logging.ERROR):
        found = evaluation.EmbeddingSimilarityEvaluator(first, second, gold, precision=precision)(model)
    assert found["pearson_cosine"] == pytest.approx(metrics.pearson(np.array(gold), scores), abs=1e-3)


# ---- methods that were overridden


def test_the_models_own_similarity_decides(bert_folder: Path) -> None:
    class Reversed(SentenceTransformer):
        def similarity(self, a: Any, b: Any) -> Any:
            return -super().similarity(a, b)

        def similarity_pairwise(self, a: Any, b: Any) -> Any:
            return -super().similarity_pairwise(a, b)

    plain, model = (kind(str(bert_folder), device="cpu") for kind in (SentenceTransformer, Reversed))
    texts = models.SENTENCES
    corpus = {f"d{i}": text for i, text in enumerate(texts)}
    queries = {"q": texts[0]}
    vectors = plain.encode(texts, normalize_embeddings=True)
    farthest = f"d{int((vectors @ vectors[0]).argmin())}"
    retrieval = evaluation.InformationRetrievalEvaluator(queries, corpus, {"q": {farthest}})
    assert retrieval(model)["cosine_accuracy@1"] == 1 and retrieval(plain)["cosine_accuracy@1"] == 0
    triplets = evaluation.TripletEvaluator(texts[:1], texts[:1], [texts[int(farthest[1:])]])
    assert triplets(plain)["cosine_accuracy"] == 1 and triplets(model)["cosine_accuracy"] == 0
    pairs = evaluation.EmbeddingSimilarityEvaluator(texts[:6], texts[6:], [0.1, 0.9, 0.3, 0.2, 0.8, 0.5])
    assert pairs(model)["spearman_cosine"] == pytest.approx(-pairs(plain)["spearman_cosine"])
    named = evaluation.TripletEvaluator(
        texts[:1], texts[:1], [texts[int(farthest[1:])]], similarity_fn_names=["cosine"]
    )
    assert named(model)["cosine_accuracy"] == 1  # a similarity that is asked for by its name is that one
    plain.similarity = lambda a, b: -SentenceTransformer.similarity(plain, a, b)  # type: ignore[method-assign]
    assert retrieval(plain)["cosine_accuracy@1"] == 1


def test_metrics_of_a_subclass() -> None:
    class Mine(evaluation.InformationRetrievalEvaluator):
        def compute_metrics(self, queries_result_list: list[Any]) -> dict[str, dict[int, float]]:
            found = super().compute_metrics(queries_result_list)
            firsts = [hits[0]["corpus_id"] for hits in queries_result_list]
            return found | {"first@k": {1: float(firsts.count("d1"))}}

        @staticmethod
        def compute_dcg_at_k(relevances: Any, k: int) -> float:
            return float(sum(relevances[:k]))

        def embed_inputs(self, model: Any, sentences: Any, **kwargs: Any) -> Any:
            assert kwargs["encode_fn_name"] in ("query", "document")
            return super().embed_inputs(model, sentences, **kwargs)

    arguments = (cases.QUERIES, cases.CORPUS, cases.KNOWN)
    plain = evaluation.InformationRetrievalEvaluator(*arguments, precision_recall_at_k=[10])(cases.StandIn())
    found = Mine(*arguments, precision_recall_at_k=[10])(cases.StandIn())
    assert found["cosine_first@1"] == 1
    assert found["cosine_accuracy@1"] == plain["cosine_accuracy@1"]
    assert found["cosine_ndcg@10"] == pytest.approx(plain["cosine_recall@10"])  # gains without discounts


def test_a_subclass_may_measure_less_where_no_row_is_written() -> None:
    class Precision(evaluation.BinaryClassificationEvaluator):
        def compute_metrics(self, model: Any) -> dict[str, dict[str, float]]:
            return {"cosine": {"ap": 0.5}}

    class Ranks(evaluation.InformationRetrievalEvaluator):
        def compute_metrics(self, queries_result_list: list[Any]) -> dict[str, dict[int, float]]:
            return {"ndcg@k": {10: 0.25}}

    pairs = Precision(cases.FIRST, cases.SECOND, cases.BINARY, write_csv=False)
    assert pairs(cases.StandIn()) == {"cosine_ap": 0.5}
    assert Ranks(cases.QUERIES, cases.CORPUS, cases.KNOWN, write_csv=False)(cases.StandIn()) == {"cosine_ndcg@10": 0.25}


def test_thresholds_of_a_subclass() -> None:
    class Mine(evaluation.BinaryClassificationEvaluator):
        @staticmethod
        def find_best_acc_and_threshold(scores: Any, labels: Any, high_score_more_similar: bool) -> tuple[float, float]:
            return 0.25, float(np.max(scores))

    found = Mine(cases.FIRST, cases.SECOND, cases.BINARY, similarity_fn_names=["dot", "manhattan"])(cases.StandIn())
    assert found["dot_accuracy"] == 0.25
    assert found["dot_accuracy_threshold"] == pytest.approx(dots(cases.FIRST, cases.SECOND).max(), rel=1e-5)
    distances = np.abs(rows_of(cases.FIRST) - rows_of(cases.SECOND)).sum(1)
    assert found["manhattan_accuracy_threshold"] == pytest.approx(distances.max(), rel=1e-5)


def test_older_arguments_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.warns(DeprecationWarning, match="'main_distance_function' is now 'main_similarity_function'"):
        evaluation.TripletEvaluator(cases.FIRST, NEAR, FAR, main_distance_function="dot")
    assert "'main_distance_function' is now 'main_similarity_function'" in caplog.text


def test_no_data_sets_are_refused() -> None:
    from sentence_transformers.cross_encoder.evaluation import CrossEncoderNanoBEIREvaluator

    for kind in (evaluation.NanoBEIREvaluator, CrossEncoderNanoBEIREvaluator):
        with pytest.raises(ValueError, match="dataset_names is empty"):
            kind(dataset_names=[])


# ---- distillation of late interaction models


class OneToken(cases.StandIn):
    """A vector [1, length of the text] for each text."""

    similarity_fn_name = "maxsim"

    def encode(self, texts: Any, **kwargs: Any) -> Any:
        return [torch.tensor([[1.0, float(len(text))]]) for text in texts]

    encode_query = encode_document = encode

    def similarity_pairwise(self, a: Any, b: Any) -> torch.Tensor:
        return torch.stack([(x @ y.T).amax(1).sum() for x, y in zip(a, b, strict=True)])


def test_distillation_by_a_similarity_of_pairs() -> None:
    from sentence_transformers.multi_vector_encoder.evaluation import MultiVectorDistillationEvaluator as Evaluator

    queries, documents, teacher = ["a", "b"], [["x", "yy"], ["z", "ww"]], [[2.0, 1.0], [1.0, 1.0]]
    found = Evaluator(queries, documents, teacher)(OneToken())
    student = torch.tensor([2.0, 3.0]).log_softmax(0)  # 1 · 1 + 1 · length
    expected = sum(torch.sum(p * (p.log() - student)) for p in torch.tensor(teacher).softmax(1)) / 2
    assert found["kl_divergence"] == pytest.approx(float(expected), rel=1e-5)
    assert found["spearman"] == pytest.approx(-0.5)  # a query whose scores are all equal counts 0

    def reversed_lengths(a: Any, b: Any) -> torch.Tensor:
        assert len(a) == len(b) == 2 and a[0].shape == (1, 2)
        return torch.tensor([-float(one[0, 1]) for one in b])

    evaluator = Evaluator(queries, documents, teacher, similarity_fct=reversed_lengths)
    assert evaluator(OneToken())["spearman"] == pytest.approx(0.5)
    assert evaluator.get_config_dict() == {"similarity_fct": "reversed_lengths"}
    for name in ("temperature", "student_temperature", "teacher_temperature"):
        with pytest.raises(ValueError, match=f"{name} must be a finite number above 0, got -1"):
            Evaluator(queries, documents, teacher, **{name: -1.0})
