"""Arguments that all evaluators share, by what the model is asked and what is written."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers.cross_encoder import evaluation as of_pairs
from sentence_transformers.multi_vector_encoder import evaluation as of_tokens
from sentence_transformers.sparse_encoder.evaluation import ReciprocalRankFusionEvaluator

from sentence_transformers import MultiVectorEncoder, SentenceTransformer, evaluation
from sentence_transformers.losses import SoftmaxLoss
from tests.golden import evaluation_cases as cases
from tests.golden.layouts import GOLDEN

ASKED = {"batch_size": 3, "show_progress_bar": True}


class Spy(cases.StandIn):
    """Keeps the keyword arguments of each call."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[dict[str, Any]] = []

    def encode(self, texts: Any, **kwargs: Any) -> Any:
        self.calls.append(kwargs)
        return super().encode(texts, **kwargs)

    encode_query = encode_document = encode


class PairSpy(cases.Scorer):
    """The same for a cross-encoder."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.calls: list[dict[str, Any]] = []

    def predict(self, pairs: Any, **kwargs: Any) -> Any:
        self.calls.append(kwargs)
        return super().predict(pairs, **kwargs)


DENSE: dict[str, dict[str, Any]] = {
    "BinaryClassificationEvaluator": {"sentences1": cases.FIRST, "sentences2": cases.SECOND, "labels": cases.BINARY},
    "EmbeddingSimilarityEvaluator": {"sentences1": cases.FIRST, "sentences2": cases.SECOND, "scores": cases.GOLD},
    "InformationRetrievalEvaluator": {
        "queries": cases.QUERIES, "corpus": cases.CORPUS, "relevant_docs": cases.KNOWN
    },
    "MSEEvaluator": {"source_sentences": cases.FIRST, "target_sentences": cases.SECOND},
    "ParaphraseMiningEvaluator": {
        "sentences_map": {f"s{i}": cases.text(i) for i in range(20)}, "duplicates_list": cases.DUPLICATES
    },
    "RerankingEvaluator": {"samples": cases.SAMPLES},
    "TranslationEvaluator": {"source_sentences": cases.FIRST, "target_sentences": cases.SECOND},
    "TripletEvaluator": {"anchors": cases.FIRST, "positives": cases.SECOND, "negatives": cases.SECOND[::-1]},
}  # fmt: skip
PAIRS: dict[str, dict[str, Any]] = {
    "CrossEncoderClassificationEvaluator": {"sentence_pairs": cases.PAIRS, "labels": cases.BINARY},
    "CrossEncoderCorrelationEvaluator": {"sentence_pairs": cases.PAIRS, "scores": cases.GOLD},
    "CrossEncoderRerankingEvaluator": {"samples": cases.RANKINGS},
}


@pytest.mark.parametrize("write_csv", [True, False])
@pytest.mark.parametrize("name", DENSE)
def test_embeddings_are_asked_for_as_told(name, write_csv, tmp_path):
    model, teacher = Spy(), {"teacher_model": Spy()} if name == "MSEEvaluator" else {}
    evaluator = getattr(evaluation, name)(**DENSE[name], **teacher, **ASKED, write_csv=write_csv)
    evaluator(model, str(tmp_path), epoch=2, steps=5)
    assert model.calls and all({**call, **ASKED} == call for call in model.calls)
    files = list(tmp_path.glob("*.csv"))
    assert len(files) == write_csv
    for file in files:
        header, row = csv.reader(file.open())
        assert (header[:2], row[:2], len(row)) == (["epoch", "steps"], ["2", "5"], len(header))


@pytest.mark.parametrize("write_csv", [True, False])
@pytest.mark.parametrize("name", PAIRS)
def test_scores_are_asked_for_as_told(name, write_csv, tmp_path):
    model = PairSpy()
    evaluator = getattr(of_pairs, name)(**PAIRS[name], **ASKED, prompt_name="web", write_csv=write_csv)
    evaluator(model, str(tmp_path), epoch=2, steps=5)
    told = ASKED | {"prompt_name": "web"}
    assert model.calls and all({**call, **told} == call for call in model.calls)
    assert len(list(tmp_path.glob("*.csv"))) == write_csv


@pytest.mark.parametrize("write_csv", [True, False])
@pytest.mark.parametrize("kind", ["MultiVectorDistillationEvaluator", "MultiVectorRerankingEvaluator"])
def test_token_vectors_are_asked_for_as_told(kind, write_csv, tmp_path):
    calls: list[dict[str, Any]] = []

    class Asked(MultiVectorEncoder):
        def encode(self, inputs, **kwargs):
            calls.append(kwargs)
            return super().encode(inputs, **kwargs)

    data: dict[str, Any] = {"samples": [{"query": "a cat", "positive": ["the cat"], "negative": ["rain", "water"]}]}
    if kind == "MultiVectorDistillationEvaluator":
        documents = [["the cat", "rain"], ["a river", "the sun"]]
        data = {"queries": ["a cat", "water"], "documents": documents, "scores": [[2.0, 1.0], [3.0, 0.5]]}
    model = Asked(str(GOLDEN / "out_mv"), device="cpu")
    getattr(of_tokens, kind)(**data, **ASKED, write_csv=write_csv)(model, str(tmp_path))
    assert calls and all({**call, **ASKED} == call for call in calls)
    assert len(list(tmp_path.glob("*.csv"))) == write_csv


def test_temperature_of_a_teacher():
    """Only its scores are divided: KL(teacher ‖ student) by the formula."""
    model = MultiVectorEncoder(str(GOLDEN / "out_mv"), device="cpu")
    queries, documents = ["a cat", "water"], [["the cat", "rain"], ["a river", "the sun"]]
    gold = torch.tensor([[2.0, 1.0], [3.0, 0.5]])
    found = {}
    for temperature in (1.0, 3.0):
        evaluator = of_tokens.MultiVectorDistillationEvaluator(
            queries, documents, gold.tolist(), teacher_temperature=temperature, student_temperature=1.0
        )
        metrics = evaluator(model)
        (found[temperature],) = [value for key, value in metrics.items() if "kl" in key.lower()]
    vectors = model.encode_query(queries)
    student = torch.stack(
        [
            torch.stack([(q @ d.T).amax(1).sum() for d in model.encode_document(row)])
            for q, row in zip(vectors, documents, strict=True)
        ]
    ).log_softmax(1)
    for temperature, value in found.items():
        targets = (gold / temperature).softmax(1)
        expected = float((targets * (targets.log() - student)).sum() / 2)
        assert abs(value) == pytest.approx(expected, rel=1e-3, abs=1e-5)


SIDES = {"query_prompt": "q: ", "corpus_prompt": "d: ", "query_prompt_name": "web", "corpus_prompt_name": "page"}


@pytest.mark.parametrize("given", [("query_prompt", "corpus_prompt"), ("query_prompt_name", "corpus_prompt_name")])
def test_prompts_of_retrieval(given):
    asked: dict[str, list[Any]] = {"query": [], "document": []}

    class Sides(cases.StandIn):
        def encode_query(self, texts, **kwargs):
            asked["query"].append(kwargs)
            return self.encode(texts, **kwargs)

        def encode_document(self, texts, **kwargs):
            asked["document"].append(kwargs)
            return self.encode(texts, **kwargs)

    evaluator = evaluation.InformationRetrievalEvaluator(
        cases.QUERIES, cases.CORPUS, cases.KNOWN, **{name: SIDES[name] for name in given}
    )
    evaluator(Sides())
    for side, name in zip(asked, given, strict=True):
        key = "prompt" if name.endswith("_prompt") else "prompt_name"
        assert asked[side] and all(call[key] == SIDES[name] for call in asked[side])


def test_similarity_of_reranking():
    """The metrics of a similarity that turns the order round are those of the negated scores."""
    turned = evaluation.RerankingEvaluator(cases.SAMPLES, similarity_fct=lambda a, b: -(a @ b.T))(cases.StandIn())
    usual = evaluation.RerankingEvaluator(cases.SAMPLES, similarity_fct=lambda a, b: a @ b.T)(cases.StandIn())
    assert turned["map"] < usual["map"]


def test_pairs_that_are_mined():
    """All pairs of the least number that is asked for, and duplicates as a dictionary."""
    texts = {f"s{i}": cases.text(i) for i in range(12)}
    graph = {"s0": {"s1": True}, "s1": {"s0": True}, "s3": {"s4": True}, "s4": {"s3": True}}
    pairs = [("s0", "s1"), ("s3", "s4")]
    found = [
        evaluation.ParaphraseMiningEvaluator(texts, duplicates_dict=graph, query_chunk_size=5)(cases.StandIn()),
        evaluation.ParaphraseMiningEvaluator(texts, duplicates_list=pairs)(cases.StandIn()),
    ]
    assert found[0] == pytest.approx(found[1])
    alone = evaluation.ParaphraseMiningEvaluator(texts, duplicates_list=[("s0", "s1")], max_pairs=1, top_k=11)
    table = torch.nn.functional.normalize(cases.StandIn().table[:12])
    best = (table @ table.T - 2 * torch.eye(12)).argmax()
    expected = 1.0 if sorted(divmod(int(best), 12)) == [0, 1] else 0.0
    assert alone(cases.StandIn())["average_precision"] == expected


def test_wrong_translations_are_printed(capsys):
    model = cases.StandIn()
    for printed in (False, True):
        evaluator = evaluation.TranslationEvaluator(
            cases.FIRST, cases.FIRST[1:] + cases.FIRST[:1], print_wrong_matches=printed
        )
        evaluator(model)
        assert (cases.FIRST[0] in capsys.readouterr().out) == printed


def test_frames_of_translations(tmp_path):
    """A column per direction, and the teacher's batches."""
    teacher, student = Spy(), Spy()
    evaluator = evaluation.MSEEvaluatorFromDataFrame(
        dataframe=cases.FRAME,
        teacher_model=teacher,
        combinations=[("en", "de"), ("en", "fr")],
        batch_size=3,
        write_csv=True,
    )
    evaluator(student, str(tmp_path))
    assert {call["batch_size"] for call in teacher.calls + student.calls} == {3}
    (file,) = tmp_path.glob("*.csv")
    assert next(csv.reader(file.open()))[2:] == ["en-de", "en-fr"]


def test_label_accuracy_writes_where_it_should(tmp_path):
    from torch.utils.data import DataLoader

    from sentence_transformers import InputExample

    model = SentenceTransformer(str(GOLDEN / "out_st"), device="cpu")
    loader: Any = DataLoader([InputExample(texts=["a", "b"], label=0)] * 2, batch_size=2)  # type: ignore[arg-type]
    head = SoftmaxLoss(model, model.get_embedding_dimension(), 2)
    for write in (False, True):
        evaluator = evaluation.LabelAccuracyEvaluator(loader, softmax_model=head, write_csv=write)
        evaluator(model, str(tmp_path))
        assert len(list(tmp_path.glob("*.csv"))) == write


def test_files_of_rank_fusion(tmp_path):
    samples = [{"query_id": "q", "query": "a", "documents": ["x", "y"], "positive": ["x"]}]
    for table, predictions in ((False, False), (True, False), (False, True)):
        folder = Path(tmp_path, f"{table}{predictions}")
        folder.mkdir()
        evaluator = ReciprocalRankFusionEvaluator(
            dense_samples=samples, sparse_samples=samples, write_csv=table, write_predictions=predictions
        )
        evaluator(output_path=str(folder))
        assert [len(list(folder.glob(f"*.{kind}"))) for kind in ("csv", "jsonl")] == [table, predictions]
        for file in folder.glob("*.jsonl"):
            assert json.loads(file.read_text().splitlines()[0])["query"] == "a"
