"""What a run takes, refuses and says before its first step; expected values of 6.2.0 are named so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers.datasets import NoDuplicatesDataLoader, SentenceLabelDataset
from sentence_transformers.models import Dense, Pooling, Router, Transformer
from transformers import HfArgumentParser

from sentence_transformers import (
    CrossEncoderTrainingArguments,
    InputExample,
    MultiVectorEncoderTrainingArguments,
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
    SparseEncoderTrainingArguments,
    losses,
)
from sentence_transformers.errors import UntrustedCodeError
from sentence_transformers.evaluation import EmbeddingSimilarityEvaluator
from sentence_transformers.training import collator, optimizers
from tests import models
from tests.fake_gpu import FakeGPU
from tests.training import runs
from tests.training.runs import SETTINGS

datasets = pytest.importorskip("datasets")
PAIRS = {"anchor": models.SENTENCES, "positive": models.SENTENCES[::-1]}
EXAMPLES = [InputExample(texts=[a, b], label=i % 2) for i, (a, b) in enumerate(zip(*PAIRS.values(), strict=True))]
ARGUMENTS = [
    SentenceTransformerTrainingArguments,
    SparseEncoderTrainingArguments,
    CrossEncoderTrainingArguments,
    MultiVectorEncoderTrainingArguments,
]


@pytest.fixture
def model(bert_folder: Path) -> SentenceTransformer:
    return SentenceTransformer(str(bert_folder), device="cpu")


def trainer_of(model: Any, folder: Path, columns: Any = PAIRS, loss: Any = None, **options: Any) -> Any:
    loss = losses.MultipleNegativesRankingLoss(model) if loss is None else loss
    return runs.trainer_of(SentenceTransformerTrainer, model, folder, columns, loss, **options)


# ---- arguments


@pytest.mark.parametrize("kind", ARGUMENTS)
def test_arguments_from_a_command_line(kind: Any) -> None:
    line = ["--output_dir=x", '--prompts={"a": "query: "}', "--batch_sampler=no_duplicates",
            "--multi_dataset_batch_sampler=round_robin", '--router_mapping={"a": "query"}',
            '--learning_rate_mapping={"bias": 0.001}']  # fmt: skip
    if kind is MultiVectorEncoderTrainingArguments:
        line.append('--max_length={"query": 8}')
    (found,) = HfArgumentParser(kind).parse_args_into_dataclasses(line)
    assert found.prompts == {"a": "query: "} and found.router_mapping == {"a": "query"}
    assert found.batch_sampler == "no_duplicates" and found.multi_dataset_batch_sampler == "round_robin"
    assert found.learning_rate_mapping == {"bias": 0.001}
    assert getattr(found, "max_length", {"query": 8}) == {"query": 8}
    (plain,) = HfArgumentParser(kind).parse_args_into_dataclasses(["--output_dir=x", "--prompts=query: "])
    assert plain.prompts == "query: " and plain.batch_sampler == "batch_sampler"


def test_one_process_trains_on_one_gpu(model: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    args = SentenceTransformerTrainingArguments(str(tmp_path), **SETTINGS)
    assert args.device
    args._n_gpu = 2  # as transformers sets it where there are two
    trainer = SentenceTransformerTrainer(
        model, args, datasets.Dataset.from_dict(PAIRS), loss=losses.MultipleNegativesRankingLoss(model)
    )
    trainer.train()
    assert trainer.args.n_gpu == 1 and trainer.args.train_batch_size == SETTINGS["per_device_train_batch_size"]
    assert "torchrun" in caplog.text and not isinstance(trainer.model_wrapped, torch.nn.DataParallel)


@pytest.mark.parametrize(
    ("rates", "softmax", "expected"),  # 16 parameters decay, 23 do not
    [
        ({}, False, [(16, True, None), (23, False, None)]),
        ({"embeddings": 1.0}, False, [(13, True, None), (21, False, None), (3, True, 1.0), (2, False, 1.0)]),
        ({"word_emb": 1.0}, False, [(15, True, None), (23, False, None), (1, True, 1.0)]),
        ({"word_emb": 1.0, "embeddings": 2.0}, False,
         [(13, True, None), (21, False, None), (0, True, 1.0), (3, True, 2.0), (2, False, 2.0)]),
        ({"classifier": 1.0}, True, [(16, True, None), (23, False, None), (1, True, 1.0), (1, False, 1.0)]),
    ],
    ids=range(5),
)  # fmt: skip
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_groups_of_parameters_are_those_of_6_2_0(
    model: Any, tmp_path: Path, rates: dict[str, float], softmax: bool, expected: list[Any], weight_decay: float
) -> None:
    columns = {**PAIRS, "label": [0, 1] * 6} if softmax else PAIRS
    loss = losses.SoftmaxLoss(model, 32, 2) if softmax else None
    settings = {"weight_decay": weight_decay, "learning_rate_mapping": rates}
    groups = trainer_of(model, tmp_path, columns, loss, settings=settings).create_optimizer().param_groups
    found = [(len(group["params"]), group["weight_decay"], group["lr"]) for group in groups]
    assert found == [(n, weight_decay if decays else 0.0, rate or SETTINGS["learning_rate"])
                     for n, decays, rate in expected]  # fmt: skip


def test_a_part_of_a_model_is_made_with_modules(model: Any) -> None:
    with pytest.raises(ValueError, match=r"SentenceTransformer\(modules=list\(model\)\[:1\]\)"):
        model[:1]
    assert len(SentenceTransformer(modules=list(model)[:1])) == 1


def test_what_cannot_be_trained_is_told(model: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no trained parameter has 'nothing' in its name"):
        trainer_of(model, tmp_path, settings={"learning_rate_mapping": {"nothing": 1.0}}).train()
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="Nothing can be trained"):
        trainer_of(model, tmp_path).train()
    assert "backend='torch'" in optimizers.why_untrainable(type("Graph", (), {"backend": "onnx"}))


def test_the_loss_is_looked_at_without_a_pause_before_the_backward_pass(model: Any, tmp_path: Path) -> None:
    data = {**PAIRS, "label": [0.5] * 12}
    trainer = trainer_of(model, tmp_path, data, losses.CosineSimilarityLoss(model))
    batch = next(iter(trainer.get_train_dataloader()))
    model.train()
    with FakeGPU("cuda") as seen:
        model.to("cuda")
        moved = {key: value.to("cuda") if torch.is_tensor(value) else value for key, value in batch.items()}
        features, labels = trainer.collect_features(moved)
        trainer.loss(features, labels)
        before = seen.reads.total()
        trainer.compute_loss(model, moved)
        assert seen.reads.total() == 2 * before  # as many as the loss itself
        state = collator.Preprocess(model).__getstate__()
        assert {one.device.type for one in state["model"].parameters()} == {"cpu"}
        model.to("cpu")


# ---- data


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (EXAMPLES, r"list of InputExample.*Dataset.from_dict.*train_dataloader=DataLoader"),
        (SentenceLabelDataset(EXAMPLES), r"SentenceLabelDataset.*train_dataloader=DataLoader"),
        ({"pairs": SentenceLabelDataset(EXAMPLES)}, r"train_dataset\['pairs'\] is a SentenceLabelDataset"),
        (torch.utils.data.TensorDataset(torch.ones(2)), r"TensorDataset, not a datasets.Dataset"),
        ({"q": list("ab"), "id": [1, 2]}, r"Column 'id' holds numbers \(int 1 in row 0.*remove_columns\('id'\)"),
        ({"q": list("ab"), "vector": [[0.5], [0.5]]}, r"'vector'"),
        ({"q": list("ab"), "negatives": [["x", "y"]] * 2}, r"'negatives'.* lists.*one text"),
    ],
    ids=range(7),
)
def test_data_of_another_kind(model: Any, tmp_path: Path, data: Any, says: str) -> None:
    with pytest.raises(ValueError, match=f"(?s){says}"):
        trainer_of(model, tmp_path, data, settings={"per_device_train_batch_size": 2, "max_steps": 1}).train()


def test_a_column_is_named_whatever_is_raised_for_it() -> None:
    def fail(texts: list[str], **settings: Any) -> Any:
        raise LookupError("own words")

    with pytest.raises(LookupError) as error:
        collator.SentenceTransformerDataCollator(fail)([{"q": "a"}])
    assert "'q'" in error.value.__notes__[0]


def test_a_loader_that_cannot_fill_a_batch_does_not_run_for_ever() -> None:
    with pytest.raises(ValueError, match="cannot be filled"):
        next(iter(NoDuplicatesDataLoader([InputExample(texts=["same", str(i)]) for i in range(8)], 4)))


@pytest.mark.parametrize(
    ("names", "told"),
    [(["query_id", "answer"], ["query_id"]), (["q", "doc_ids", "id"], ["doc_ids", "id"]), (["video", "identity"], [])],
)
def test_columns_that_look_like_ids(names: list[str], told: list[str], caplog: pytest.LogCaptureFixture) -> None:
    collate = collator.SentenceTransformerDataCollator(lambda texts, **settings: {"input_ids": torch.ones(1)})
    for _ in range(2):
        collate([dict.fromkeys(names, "a")])
    assert [str(told) in message for message in caplog.messages if "ids" in message] == [True] * bool(told)


@pytest.mark.parametrize(
    ("max_length", "expected"),
    [
        (64, [{"max_length": 64}, {"max_length": 64}]),
        ({"query": 32, "document": 180}, [{"max_length": 32}, {"max_length": 180}]),
        ({"query": 32}, [{"max_length": 32}, {}]),
        (None, [{}, {}]),
    ],
    ids=range(4),
)
def test_limits_and_tasks_reach_preprocess(max_length: Any, expected: list[Any]) -> None:
    """As in 6.2.0: prompt and task always, `max_length` where there is one for the task."""
    seen = []

    def preprocess(texts: list[str], **settings: Any) -> Any:
        seen.append(settings)
        return {"input_ids": torch.ones(len(texts), 2)}

    routes = {"a": "query", "b": "document"}
    settings = {"router_mapping": routes, "prompts": {"a": "P"}, "max_length": max_length}
    collator.SentenceTransformerDataCollator(preprocess, **settings)([{"a": "x", "b": "y"}])
    assert seen == [
        {"prompt": "P", "task": "query", **expected[0]},
        {"prompt": None, "task": "document", **expected[1]},
    ]


def test_limits_cut_texts(model: Any, caplog: pytest.LogCaptureFixture) -> None:
    rows = [{"a": text} for text in models.SENTENCES]
    for preprocess in (collator.Preprocess(model), model.preprocess):
        batch = collator.SentenceTransformerDataCollator(preprocess, max_length=5)(rows)
        found = batch["a_lengths"] if "a_lengths" in batch else batch["a_attention_mask"].sum(1)
        assert found.tolist() == [5] * len(rows)
    collator.CrossEncoderDataCollator(model.preprocess, max_length=5)
    assert "max_length=5 has no effect" in caplog.text


# ---- settings by column


def routed(folder: Path, **settings: Any) -> SentenceTransformer:
    sides = [[Transformer(str(folder)), Pooling(32)] for _ in range(2)]
    return SentenceTransformer(modules=[Router(dict(zip(("query", "document"), sides, strict=True)), **settings)])


@pytest.mark.parametrize("settings", [{}, {"default_route": "document"}], ids=["no default", "default"])
def test_a_router_must_be_told_its_columns(bert_folder: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    model = routed(bert_folder, **settings)
    with pytest.raises(ValueError, match="router_mapping"):
        trainer_of(model, tmp_path)
    routes = {"anchor": "query", "positive": "document"}
    trainer_of(model, tmp_path, settings={"router_mapping": routes})
    assert model.model_card_data.train_datasets[0]["router_mapping"] == routes
    trainer_of(model, tmp_path, data_collator=collator.SentenceTransformerDataCollator(model.preprocess))


def test_settings_of_columns_that_are_not_there(
    bert_folder: Path, model: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = {"pairs": datasets.Dataset.from_dict(PAIRS)}
    trainer_of(model, tmp_path, data, settings={"prompts": {"pairs": {"anchor": "a"}, "anchor": "b"}})
    trainer_of(model, tmp_path, settings={"prompts": "all"})
    assert not caplog.messages
    trainer_of(model, tmp_path, settings={"prompts": {"query": "q: "}})
    trainer_of(model, tmp_path, data, settings={"prompts": {"pairs": {"question": "q: "}}})
    trainer_of(routed(bert_folder), tmp_path, settings={"router_mapping": {"questions": "query"}})
    expected = ["prompts names ['query']", "prompts names ['question']", "router_mapping names ['questions']"]
    assert all(said in text for said, text in zip(expected, caplog.messages, strict=True))


def test_a_sampler_for_a_stream(model: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stream = datasets.Dataset.from_dict(PAIRS).to_iterable_dataset()
    for kind in ("batch_sampler", "no_duplicates"):
        trainer_of(model, tmp_path, stream, settings={"batch_sampler": kind, "max_steps": 1}).train()
    assert [message for message in caplog.messages if "no effect on an IterableDataset" in message] == [
        "batch_sampler=BatchSamplers.NO_DUPLICATES has no effect on an IterableDataset."
    ]


def test_data_sets_of_equal_size_have_their_own_order(model: Any, tmp_path: Path) -> None:
    data = {name: datasets.Dataset.from_dict({"a": list("abcdefghijkl"), "b": list("abcdefghijkl")}) for name in "xy"}
    settings = {"multi_dataset_batch_sampler": "round_robin"}
    trainer = trainer_of(model, tmp_path, data, settings=settings)
    trainer.data_collator = lambda rows: rows
    batches = [[row["a"] for row in batch] for batch in trainer.get_train_dataloader()]
    one, other = [text for batch in batches[::2] for text in batch], [text for batch in batches[1::2] for text in batch]
    assert len(batches) == 6 and sorted(one) == sorted(other) and one != other


def test_names_of_data_sets_by_a_transform(model: Any, tmp_path: Path) -> None:
    trainer = trainer_of(model, tmp_path)
    batch = {"a": ["x", "y"]}
    assert trainer.add_dataset_name_transform(batch) == batch
    found = trainer.add_dataset_name_transform(batch, "nli", lambda b: {"a": [t.upper() for t in b["a"]]})
    assert found == {"a": ["X", "Y"], "dataset_name": ["nli", "nli"]}


# ---- models and checkpoints of one's own


class OwnPooling(Pooling):
    """Not a class of this library."""


class OwnModel(SentenceTransformer):
    """Made in its own way."""

    def __init__(self, parts: list[Any]) -> None:
        super().__init__(modules=parts, device="cpu")


class OwnActivation(torch.nn.PReLU):
    """With a parameter of its own."""


@pytest.mark.parametrize("own", ["module", "inside a router", "activation"])
def test_the_best_model_has_modules_of_ones_own(bert_folder: Path, tmp_path: Path, own: str) -> None:
    parts = [Transformer(str(bert_folder)), OwnPooling(32)]
    if own == "activation":
        parts.append(Dense(32, 32, activation_function=OwnActivation()))
    model = OwnModel([Router({"query": parts}, "query")] if own == "inside a router" else parts)
    settings = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1, "eval_strategy": "steps", "eval_steps": 1,
                "load_best_model_at_end": True, "metric_for_best_model": "eval_loss"}  # fmt: skip
    trainer = trainer_of(model, tmp_path, eval_dataset=datasets.Dataset.from_dict(PAIRS), settings=settings)
    trainer.train()
    best = trainer.state.best_model_checkpoint
    saved = SentenceTransformer(best, device="cpu", trust_remote_code=True)
    assert abs(saved.encode(models.SENTENCES) - model.encode(models.SENTENCES)).max() < 1e-6
    with pytest.raises(UntrustedCodeError):
        SentenceTransformer(best, device="cpu")
    resumed = trainer_of(model, tmp_path, settings={"max_steps": 3})
    assert resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2")).global_step == 3


@pytest.mark.parametrize("local", [False, True])
def test_arguments_that_cannot_be_pickled(
    model: Any, tmp_path: Path, local: bool, caplog: pytest.LogCaptureFixture
) -> None:
    from sentence_transformers.training.samplers import DefaultBatchSampler

    def make(dataset: Any, batch_size: int, drop_last: bool, **settings: Any) -> Any:
        return DefaultBatchSampler(dataset, batch_size, drop_last, **settings)

    settings = {"save_strategy": "steps", "save_steps": 2, "batch_sampler": make if local else DefaultBatchSampler}
    trainer = trainer_of(model, tmp_path, settings=settings)
    assert trainer.train().global_step == 4
    folder = tmp_path / "checkpoint-2"
    assert (folder / "training_args.bin").exists() != local and ("training_args.bin" in caplog.text) == local
    assert (folder / "modules.json").is_file() and not list(folder.glob(".*"))


@pytest.mark.parametrize("own_collator", [False, True])
def test_models_made_anew(bert_folder: Path, tmp_path: Path, own_collator: bool) -> None:
    made = []

    def make(trial: Any = None) -> SentenceTransformer:
        made.append(SentenceTransformer(str(bert_folder), device="cpu"))
        return made[-1]

    mine = collator.SentenceTransformerDataCollator(lambda texts, **kw: made[-1].preprocess(texts))
    options = {"data_collator": mine} if own_collator else {}
    trainer = trainer_of(
        None, tmp_path, loss=losses.MultipleNegativesRankingLoss, model_init=make, settings={"max_steps": 2}, **options
    )
    assert len(made) == 1 and trainer.model is made[0]
    assert trainer.train().global_step == 2 and len(made) == 2
    assert (
        trainer.model is made[-1] and trainer.loss.model is made[-1] and (trainer.data_collator is mine) == own_collator
    )
    assert trainer.model.model_card_data.train_datasets
    before = made[0].encode(models.SENTENCES)
    assert abs(trainer.model.encode(models.SENTENCES) - before).max() > 1e-4


# ---- fit


def test_fit_writes_the_evaluators_files_and_tells_of_use_amp(
    model: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loader: Any = torch.utils.data.DataLoader(EXAMPLES, batch_size=6)  # type: ignore[arg-type]
    for use_amp in (False, True):
        assert "fp16=True" not in caplog.text
        model.fit(
            [(loader, losses.CosineSimilarityLoss(model))],
            evaluator=EmbeddingSimilarityEvaluator(list("abc"), list("def"), [0.1, 0.2, 0.3], name="dev"),
            evaluation_steps=1,
            output_path=str(tmp_path / "fitted"),
            show_progress_bar=False,
            use_amp=use_amp,
        )
    assert "fp16=True" in caplog.text  # the processor has no kernels for it
    assert (tmp_path / "fitted" / "eval" / "similarity_evaluation_dev_results.csv").is_file()
