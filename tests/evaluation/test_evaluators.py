"""Evaluators: metrics of version 6.2.0, formulas written out, and what holds for every one of them."""

from __future__ import annotations

import csv
import itertools
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sentence_transformers import InputExample, SentenceTransformer, evaluation, losses
from sentence_transformers.evaluation import metrics
from tests import models
from tests.golden import evaluation_cases as cases

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "evaluation.json").read_text())


# 6.2.0 cannot run these with a stand-in; their metrics are those of the dense twins and of the laws below
NOT_RECORDED = {"sparse-reranking", "sparse-reranking-single", "sparse-translation"}


@pytest.mark.parametrize("name", [name for name in (*cases.CASES, *cases.FUSION_CASES) if name not in NOT_RECORDED])
def test_metrics_and_files_are_those_of_6_2_0(name: str, tmp_path: Path) -> None:
    fused = name in cases.FUSION_CASES
    found = cases.run_fusion(name, tmp_path) if fused else cases.run(evaluation, name, tmp_path)
    expected = GOLDEN[name]
    assert found["primary"] == expected["primary"]
    assert found["csv"] == expected["csv"]
    assert found["metrics"].keys() == expected["metrics"].keys()
    for key, value in found["metrics"].items():
        assert value == pytest.approx(expected["metrics"][key], rel=1e-6, abs=1e-6), key


# ---- what holds for every evaluator


@pytest.mark.parametrize("name", cases.CASES)
def test_laws(name: str, tmp_path: Path) -> None:
    evaluator, model = cases.make(evaluation, name), cases.stand_in(name)
    first = evaluator(model, str(tmp_path), 0, 1)
    again = evaluator(model, str(tmp_path), 1, 2)
    assert first == again and all(isinstance(value, float) for value in first.values())
    assert evaluator.primary_metric in first
    (file,) = tmp_path.glob("*.csv")
    rows = list(csv.reader(file.open()))
    assert len(rows) == 3 and len({len(row) for row in rows}) == 1 and rows[0][:2] == ["epoch", "steps"]
    json.dumps(evaluator.get_config_dict())
    assert evaluator(model) == first and evaluator.description


def test_nothing_is_written_without_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cases.make(evaluation, "retrieval")(cases.StandIn())
    assert not list(tmp_path.iterdir())


def test_the_order_of_the_corpus_does_not_matter() -> None:
    found = [
        evaluation.InformationRetrievalEvaluator(cases.QUERIES, corpus, cases.KNOWN, corpus_chunk_size=size)(
            cases.StandIn()
        )
        for corpus in (cases.CORPUS, dict(reversed(cases.CORPUS.items())))
        for size in (3, 11, 50_000)
    ]
    assert all(one == found[0] for one in found)


# ---- metrics, by formulas of their own


def test_rankings_document_by_document() -> None:
    chance = np.random.default_rng(0)
    relevant, counts = chance.random((30, 12)) < 0.3, chance.integers(4, 9, 30)
    counts = np.maximum(counts, relevant.sum(1))
    for k in (1, 5, 12):
        ndcg, precision, mean_precision, first = [], [], [], []
        for row, count in zip(relevant, counts, strict=True):
            gain = sum(1 / np.log2(i + 2) for i in range(k) if row[i])
            best = sum(1 / np.log2(i + 2) for i in range(min(k, count)))
            ndcg.append(gain / best)
            precision.append(sum(row[:k]) / k)
            hits = [sum(row[: i + 1]) / (i + 1) for i in range(k) if row[i]]
            mean_precision.append(sum(hits) / min(k, count))
            first.append(next((1 / (i + 1) for i in range(k) if row[i]), 0))
        np.testing.assert_allclose(metrics.ndcg_at(relevant, counts, k), ndcg)
        np.testing.assert_allclose(metrics.precision_at(relevant, k), precision)
        np.testing.assert_allclose(metrics.average_precision_at(relevant, counts, k), mean_precision)
        np.testing.assert_allclose(metrics.reciprocal_rank_at(relevant, k), first)


def test_correlations_are_scipys() -> None:
    stats = pytest.importorskip("scipy.stats")
    chance = np.random.default_rng(1)
    x, y = chance.integers(0, 6, 50), chance.normal(size=50)
    assert metrics.pearson(x, y) == pytest.approx(stats.pearsonr(x, y)[0])
    assert metrics.spearman(x, y) == pytest.approx(stats.spearmanr(x, y)[0])
    assert np.isnan(metrics.spearman(np.ones(5), np.arange(5)))


def test_average_precision_with_ties_threshold_by_threshold() -> None:
    chance = np.random.default_rng(2)
    labels, scores = chance.integers(0, 2, 40), chance.integers(0, 9, 40) / 9
    total, before = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        chosen = scores >= threshold
        recall = labels[chosen].sum() / labels.sum()
        total += (recall - before) * labels[chosen].mean()
        before = recall
    assert metrics.average_precision(labels, scores) == pytest.approx(total)


def test_best_thresholds_by_trying_all() -> None:
    chance = np.random.default_rng(3)
    labels, scores = chance.integers(0, 2, 40), chance.normal(size=40)
    ordered = sorted(scores, reverse=True)
    middles = [(a + b) / 2 for a, b in itertools.pairwise(ordered)]
    cuts = [scores > ordered[0], *(scores > middle for middle in middles), scores >= ordered[-1]]
    accuracy, threshold = metrics.best_accuracy(labels, scores)
    assert accuracy == pytest.approx(max((cut == labels).mean() for cut in cuts))
    assert ((scores > threshold) == labels).mean() == pytest.approx(accuracy)
    best = metrics.best_f1(labels, scores)
    assert best.f1 == pytest.approx(max(2 * (labels * cut).sum() / (labels.sum() + cut.sum()) for cut in cuts))


@pytest.mark.parametrize(
    ("scores", "labels", "accuracy", "f1"),
    [
        ([0.9, 0.5, 0.1], [1, 1, 1], (1, 0.1), (1, 1, 1, 0.1)),  # all above the threshold
        ([0.9, 0.5, 0.1], [0, 0, 0], (1, 0.9), (0, 0, 0, 0)),  # none
        ([0.9, 0.8, 0.5, 0.3, 0.1], [1, 0, 1, 0, 1], (0.6, 0.85), (0.75, 0.6, 1, 0.1)),
        ([0.5, 0.5, 0.5, 0.5], [1, 0, 1, 0], (0.5, 0.5), (2 / 3, 0.5, 1, 0.5)),  # equal scores stay together
        ([0.9, 0.5, 0.5, 0.1], [1, 1, 0, 0], (0.75, 0.7), (0.8, 2 / 3, 1, 0.3)),
        ([0.7], [1], (1, 0.7), (1, 1, 1, 0.7)),
        ([0.7], [0], (1, 0.7), (0, 0, 0, 0)),
    ],
)
def test_thresholds_as_recorded_from_6_2_0(
    scores: list[float], labels: list[int], accuracy: tuple[float, ...], f1: tuple[float, ...]
) -> None:
    values, truth = np.array(scores), np.array(labels)
    evaluator = evaluation.BinaryClassificationEvaluator
    assert evaluator.find_best_acc_and_threshold(values, truth, True) == pytest.approx(accuracy)
    assert evaluator.find_best_f1_and_threshold(values, truth, True) == pytest.approx(f1)
    distances = evaluator.find_best_acc_and_threshold(-values, truth, False)
    assert distances == pytest.approx((accuracy[0], -accuracy[1]))


@pytest.mark.parametrize(
    ("sources", "targets", "there", "again"),
    [
        (["a1", "a1", "b"], ["a2", "b", "b"], 2 / 3, 2 / 3),  # another row of the wanted text is right
        (["a1", "a2"], ["a3", "a4"], 1 / 2, 1 / 2),  # an equal vector of another text is not
        (["a1"] * 3, ["a2", "a3", "a4"], 1 / 3, 1),
    ],
)
def test_repeated_translations(sources: list[str], targets: list[str], there: float, again: float) -> None:
    class Letters(cases.StandIn):
        def encode(self, texts: Any, **kwargs: Any) -> Any:
            return torch.stack([torch.tensor([1.0, 0.0] if text[0] == "a" else [0.6, 0.8]) for text in texts])

    found = evaluation.TranslationEvaluator(sources, targets)(Letters())
    assert found["src2trg_accuracy"] == pytest.approx(there) and found["trg2src_accuracy"] == pytest.approx(again)


def test_a_function_among_several_evaluators(model: SentenceTransformer) -> None:
    one = lambda model, output_path=None, epoch=-1, steps=-1: {"own": 0.5}  # noqa: E731
    assert evaluation.SequentialEvaluator([one])(model) == {"own": 0.5, "sequential_score": 0.5}


def test_matthews_from_its_four_counts() -> None:
    labels, guesses = np.array([1, 1, 1, 0, 0, 0, 0, 1]), np.array([1, 0, 1, 0, 1, 0, 0, 1])
    assert metrics.matthews(labels, guesses) == pytest.approx((3 * 3 - 1 * 1) / np.sqrt(4 * 4 * 4 * 4))


# ---- real models, files, further parts


@pytest.fixture
def model(bert_folder: Path) -> SentenceTransformer:
    return SentenceTransformer(str(bert_folder), device="cpu")


def test_predictions_are_written(tmp_path: Path) -> None:
    evaluator = evaluation.InformationRetrievalEvaluator(
        cases.QUERIES, cases.CORPUS, cases.KNOWN, write_predictions=True, name="p", map_at_k=[10]
    )
    evaluator(cases.StandIn(), str(tmp_path))
    lines = (tmp_path / "Information-Retrieval_evaluation_p_predictions_cosine.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["query_id"] for row in rows] == list(cases.KNOWN)
    scores = [hit["score"] for hit in rows[0]["results"]]
    assert len(scores) == 10 and scores == sorted(scores, reverse=True)


def test_several_evaluators_and_the_models_card(model: SentenceTransformer) -> None:
    texts = models.SENTENCES
    one = evaluation.EmbeddingSimilarityEvaluator(texts[:6], texts[6:12], [0.1 * i for i in range(6)], name="sts")
    two = evaluation.TripletEvaluator(texts[:4], texts[4:8], texts[8:12], name="tri")
    both = evaluation.SequentialEvaluator([one, two], main_score_function=sum)
    found = both(model)
    assert found["sequential_score"] == pytest.approx(found["sts_spearman_cosine"] + found["tri_cosine_accuracy"])
    assert "sts_spearman_cosine" in "".join(map(str, model.model_card_data.eval_results_dict.values()))


def test_label_accuracy(model: SentenceTransformer, tmp_path: Path) -> None:
    loss = losses.SoftmaxLoss(model, 32, 3)
    examples = [InputExample(texts=[a, b], label=i % 3) for i, (a, b) in enumerate(zip(models.SENTENCES[:6], models.SENTENCES[6:], strict=True))]  # fmt: skip # noqa: E501
    loader: Any = torch.utils.data.DataLoader(examples, batch_size=4)  # type: ignore[arg-type]
    found = evaluation.LabelAccuracyEvaluator(loader, softmax_model=loss, name="nli")(model, str(tmp_path))
    features = [model.tokenize([e.texts[i] for e in examples]) for i in range(2)]
    _, logits = loss(features, None)
    expected = (logits.argmax(1) == torch.tensor([e.label for e in examples])).float().mean()
    assert found == {"nli_accuracy": pytest.approx(float(expected))}


def nano_beir(form: str, target: Path) -> None:
    """Two data sets in a local folder, written in one of the forms that are read."""
    datasets = pytest.importorskip("datasets")
    for name in ("NanoMSMARCO", "NanoNQ"):
        parts = {
            "corpus": [{"_id": f"d{i}", "text": text} for i, text in enumerate(models.SENTENCES)],
            "queries": [
                {"_id": f"q{i}", "text": text.split(",")[0][:20]} for i, text in enumerate(models.SENTENCES[:5])
            ],
            "qrels": [{"query-id": f"q{i}", "corpus-id": f"d{i}"} for i in range(5)],
            "bm25": [{"query-id": f"q{i}", "corpus-ids": [f"d{j}" for j in (7, i, 8, 9)]} for i in range(5)],
        }
        for part, rows in parts.items():
            data, folder = datasets.Dataset.from_list(rows), target / part
            folder.mkdir(exist_ok=True)
            if form == "jsonl":
                data.to_json(folder / f"{name}.jsonl")
            elif form == "parquet":
                data.to_parquet(folder / f"{name}.parquet")
            else:
                data.save_to_disk(folder / name)


@pytest.mark.parametrize("form", ["jsonl", "parquet", "saved"])
def test_nano_beir_from_a_folder(form: str, tmp_path: Path, model: SentenceTransformer) -> None:
    nano_beir(form, tmp_path)
    evaluator = evaluation.NanoBEIREvaluator(["msmarco", "nq"], dataset_id=str(tmp_path))
    found = evaluator(model, str(tmp_path / "out"))
    both = [found[f"{name}_cosine_ndcg@10"] for name in ("NanoMSMARCO", "NanoNQ")]
    assert evaluator.primary_metric == "NanoBEIR_mean_cosine_ndcg@10"
    assert found["NanoBEIR_mean_cosine_ndcg@10"] == pytest.approx(np.mean(both)) and 0 < both[0] <= 1
    assert (tmp_path / "out" / "NanoBEIR_evaluation_mean_results.csv").is_file()


def test_nano_beir_of_re_rankers_sorts_what_bm25_found(tmp_path: Path) -> None:
    """The scores of the stand-in are known, so are the rankings: the relevant document among (7, i, 8, 9)."""
    from sentence_transformers.cross_encoder.evaluation import CrossEncoderNanoBEIREvaluator

    nano_beir("jsonl", tmp_path)

    class Ordered(cases.Scorer):
        def predict(self, pairs: Any, **kwargs: Any) -> np.ndarray:
            return np.array([-models.SENTENCES.index(document) for _, document in pairs], np.float32)

    evaluator = CrossEncoderNanoBEIREvaluator(["msmarco", "nq"], dataset_id=str(tmp_path), rerank_k=3)
    found = evaluator(Ordered(1), str(tmp_path / "out"))
    assert evaluator.primary_metric == "NanoBEIR_R3_mean_ndcg@10" and found[evaluator.primary_metric] == 1.0
    assert found["NanoMSMARCO_R3_mrr@10"] == 1.0 and found["NanoMSMARCO_R3_base_mrr@10"] == 0.5


def test_nano_beir_of_sparse_encoders(tmp_path: Path) -> None:
    from sentence_transformers.sparse_encoder.evaluation import SparseNanoBEIREvaluator

    from sentence_transformers import SparseEncoder
    from tests.golden import score_models

    nano_beir("jsonl", tmp_path)
    next(iter(score_models.SPARSE.values()))(tmp_path / "model")
    sparse = SparseEncoder(str(tmp_path / "model"), device="cpu")
    evaluator = SparseNanoBEIREvaluator(["msmarco"], dataset_id=str(tmp_path), max_active_dims=4)
    found = evaluator(sparse)
    assert evaluator.primary_metric == "NanoBEIR_mean_4_dot_ndcg@10" and 0 <= found[evaluator.primary_metric] <= 1
    assert 0 < found["NanoBEIR_mean_4_query_active_dims"] <= 4 and found["NanoMSMARCO_4_avg_flops"] >= 0


# ---- bad input


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda e: e.InformationRetrievalEvaluator({}, {"d": "x"}, {}), "no queries"),
        (lambda e: e.InformationRetrievalEvaluator({"q": "x"}, {"d": "x"}, {"p": {"d"}}), "None of the 1 queries"),
        (lambda e: e.InformationRetrievalEvaluator({"q": "x"}, {"d": "x"}, {"q": {"e"}}), "not in the corpus, e.g."),
        (lambda e: e.InformationRetrievalEvaluator({"q": "x"}, {}, {"q": {"e"}}), "corpus is empty"),
        (lambda e: e.InformationRetrievalEvaluator({"q": None}, {"d": "x"}, {"q": {"d"}}), r"queries\[0\] is None"),
        (lambda e: e.EmbeddingSimilarityEvaluator(["a"], ["b", "c"], [1]), "2 of sentences2"),
        (lambda e: e.EmbeddingSimilarityEvaluator([], [], []), "nothing to evaluate"),
        (lambda e: e.EmbeddingSimilarityEvaluator(["a"], ["b"], [float("nan")]), r"scores\[0\] is nan"),
        (lambda e: e.BinaryClassificationEvaluator(["a"], ["b"], [2]), r"labels\[0\] is 2"),
        (lambda e: e.RerankingEvaluator([{"query": "a", "positive": []}]), r"samples\[0\] has no \['negative'\]"),
        (lambda e: e.RerankingEvaluator([{"query": "a", "positive": [], "negative": ["b"]}]), "None of the 1 samples"),
        (lambda e: e.ParaphraseMiningEvaluator({"a": "x"}, [("b", "c")]), "no duplicates"),
        (lambda e: e.TranslationEvaluator(["a"], []), "0 of target_sentences"),
        (lambda e: e.NanoBEIREvaluator(["nothing"]), "Unknown data set"),
        (lambda e: e.SequentialEvaluator([]), "at least one"),
        (lambda e: e.LabelAccuracyEvaluator([]), "needs softmax_model"),
    ],
    ids=range(16),
)
def test_what_cannot_be_meant_is_said(make: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make(evaluation)


def test_relevant_ids_that_are_missing_are_named(caplog: pytest.LogCaptureFixture) -> None:
    cases.make(evaluation, "retrieval-missing")
    assert "relevant document ids are not in the corpus" in caplog.text


def test_older_names(model: SentenceTransformer) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        evaluator = evaluation.RerankingEvaluator(cases.SAMPLES, mrr_at_k=3)
    assert evaluator.at_k == 3 and evaluator.compute_metrices.__func__ is type(evaluator).compute_metrics


class Asked(cases.StandIn):
    """Vectors by the text's place among the sentences, and what was asked of `encode_query` and `encode_document`."""

    def __init__(self) -> None:
        super().__init__()
        self.queries: list[dict[str, Any]] = []
        self.documents: list[dict[str, Any]] = []

    def vectors(self, texts: Any, **kwargs: Any) -> Any:
        numbers = [next(i for i, text in enumerate(models.SENTENCES) if text.startswith(given)) for given in texts]
        return self.encode([f"{3 * number} text" for number in numbers], **kwargs)

    def encode_query(self, texts: Any, **kwargs: Any) -> Any:
        self.queries.append(kwargs)
        return self.vectors(texts, **kwargs)

    def encode_document(self, texts: Any, **kwargs: Any) -> Any:
        self.documents.append(kwargs)
        return self.vectors(texts, **kwargs)


def test_nano_beir_does_what_it_is_told(tmp_path: Path) -> None:
    nano_beir("jsonl", tmp_path)
    model, folder = Asked(), tmp_path / "out"
    folder.mkdir()
    evaluator = evaluation.NanoBEIREvaluator(
        ["msmarco", "nq"],
        dataset_id=str(tmp_path),
        mrr_at_k=[2],
        ndcg_at_k=[3],
        accuracy_at_k=[1],
        precision_recall_at_k=[4],
        map_at_k=[5],
        show_progress_bar=True,
        batch_size=3,
        write_csv=False,
        truncate_dim=6,
        aggregate_fn=max,
        aggregate_key="best",
        query_prompts={"msmarco": "q: ", "nq": "n: "},
        corpus_prompts="d: ",
        write_predictions=True,
    )
    found = evaluator(model, str(folder))
    assert {key.rpartition("_")[2] for key in found if key.startswith("NanoNQ_")} == {
        "mrr@2", "ndcg@3", "accuracy@1", "precision@4", "recall@4", "map@5"
    }  # fmt: skip
    (best,) = [value for key, value in found.items() if key.startswith("NanoBEIR_best") and key.endswith("ndcg@3")]
    assert best == max(v for k, v in found.items() if k.startswith(("NanoNQ", "NanoMSMARCO")) and k.endswith("ndcg@3"))
    calls = model.queries + model.documents
    assert all((c["batch_size"], c["show_progress_bar"], c["truncate_dim"]) == (3, True, 6) for c in calls)
    assert sorted({call["prompt"] for call in model.queries}) == ["n: ", "q: "]
    assert {call["prompt"] for call in model.documents} == {"d: "}
    assert not list(folder.rglob("*.csv")) and list(folder.rglob("*.jsonl"))


def test_nano_beir_of_re_rankers_does_what_it_is_told(tmp_path: Path) -> None:
    from sentence_transformers.cross_encoder.evaluation import CrossEncoderNanoBEIREvaluator

    nano_beir("jsonl", tmp_path)
    calls: list[dict[str, Any]] = []

    class Ordered(cases.Scorer):
        def predict(self, pairs: Any, **kwargs: Any) -> np.ndarray:
            calls.append(kwargs)
            return np.array([-models.SENTENCES.index(document) for _, document in pairs], np.float32)

    evaluator = CrossEncoderNanoBEIREvaluator(
        ["msmarco", "nq"],
        dataset_id=str(tmp_path),
        rerank_k=1,
        at_k=2,
        always_rerank_positives=False,
        prompt_name="web",
        batch_size=3,
        show_progress_bar=True,
        write_csv=False,
        aggregate_fn=max,
        aggregate_key="best",
    )
    found = evaluator(Ordered(1), str(tmp_path / "out"))
    assert all((c["batch_size"], c["show_progress_bar"], c["prompt_name"]) == (3, True, "web") for c in calls)
    assert found["NanoMSMARCO_R1_mrr@2"] == 0.0  # the first that BM25 found is not relevant, and no other is ranked
    assert "NanoBEIR_R1_best_ndcg@2" in found and not list(tmp_path.rglob("*_results.csv"))
