"""The trainer of cross-encoders: what it adds to the base trainer, and what is checked before the first step."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers.cross_encoder import losses
from sentence_transformers.cross_encoder.evaluation import (
    CrossEncoderClassificationEvaluator,
    CrossEncoderCorrelationEvaluator,
)

from sentence_transformers import (
    CrossEncoder,
    CrossEncoderTrainer,
    CrossEncoderTrainingArguments,
    InputExample,
)
from sentence_transformers.losses.cross import scores_of
from sentence_transformers.modules.transformer import Transformer
from tests import models
from tests.training import runs
from tests.training.runs import logged

datasets = pytest.importorskip("datasets")
pytest.importorskip("accelerate")
WORDS = models.SENTENCES
PAIRS = {"a": WORDS, "b": WORDS[::-1]}
BINARY = PAIRS | {"label": [i % 2 for i in range(12)]}
LISTS = {
    "query": WORDS[:6],
    "documents": [WORDS[i : i + 2 + i % 3] for i in range(6)],
    "labels": [[1.0, 0.0, 0.5, 0.2][: 2 + i % 3] for i in range(6)],
}


@pytest.fixture
def model(bert_folder: Path) -> CrossEncoder:
    return CrossEncoder(str(bert_folder), num_labels=1, device="cpu")


def without_dropout(folder: Path, labels: int = 1) -> CrossEncoder:
    torch.manual_seed(7)
    model = CrossEncoder(str(folder), num_labels=labels, device="cpu")
    for part in model.transformers_model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    return model


trainer_of = partial(runs.trainer_of, CrossEncoderTrainer)


# ---- a run


@pytest.mark.parametrize(
    ("columns", "loss"),
    [
        (BINARY, None),
        (PAIRS | {"c": WORDS, "label": [[0.5, 0.1]] * 12}, "MarginMSELoss"),
        (PAIRS, "MultipleNegativesRankingLoss"),
        (PAIRS | {"c": WORDS}, "CachedMultipleNegativesRankingLoss"),
        (LISTS, "LambdaLoss"),
        (LISTS, "PListMLELoss"),
    ],
    ids=["default", "margin", "negatives", "cached", "lambda", "plistmle"],
)
def test_a_run_lowers_the_loss_and_changes_the_scores(
    bert_folder: Path, tmp_path: Path, columns: dict[str, Any], loss: str | None
) -> None:
    model = without_dropout(bert_folder)
    before = model.predict(list(zip(WORDS, WORDS[::-1], strict=True)))
    made = None if loss is None else getattr(losses, loss)(model)
    trainer = trainer_of(model, tmp_path, columns, made, settings={"max_steps": 16, "per_device_train_batch_size": 12})
    assert loss is not None or isinstance(trainer.loss, losses.BinaryCrossEntropyLoss)
    trainer.train()
    assert sum(logged(trainer)[-4:]) < sum(logged(trainer)[:4])
    assert abs(model.predict(list(zip(WORDS, WORDS[::-1], strict=True))) - before).max() > 1e-4


def test_classes(bert_folder: Path, tmp_path: Path) -> None:
    model = without_dropout(bert_folder, 3)
    evaluator = CrossEncoderClassificationEvaluator(
        list(map(list, zip(WORDS, WORDS[::-1], strict=True))), [i % 3 for i in range(12)], name="dev"
    )
    columns = PAIRS | {"label": [i % 3 for i in range(12)]}
    trainer = trainer_of(
        model, tmp_path, columns, evaluator=evaluator, eval_dataset=datasets.Dataset.from_dict(columns),
        settings={"eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 2,
                  "load_best_model_at_end": True, "metric_for_best_model": "eval_dev_f1_macro"},
    )  # fmt: skip
    assert isinstance(trainer.loss, losses.CrossEntropyLoss)
    trainer.train()
    found = [entry["eval_dev_f1_macro"] for entry in trainer.state.log_history if "eval_dev_f1_macro" in entry]
    assert len(found) == 2 and evaluator(model)["dev_f1_macro"] == pytest.approx(max(found))
    assert all("eval_loss" in entry for entry in trainer.state.log_history if "eval_dev_f1_macro" in entry)


@pytest.mark.parametrize("loss", ["BinaryCrossEntropyLoss", "LambdaLoss"])
def test_packed_steps_are_padded_steps(
    bert_folder: Path, tmp_path: Path, loss: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for packs in (True, False):
        model = without_dropout(bert_folder)
        if not packs:
            monkeypatch.setattr(Transformer, "packs", False)
        columns = BINARY if loss == "BinaryCrossEntropyLoss" else LISTS
        trainer = trainer_of(
            model, tmp_path, columns, getattr(losses, loss)(model),
            optimizer_cls_and_kwargs=(torch.optim.SGD, {"lr": 1e-3}),
        )  # fmt: skip
        trainer.train()
        found.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
    for name in found[0]:
        torch.testing.assert_close(found[0][name], found[1][name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("size", [None, 0, 3])
def test_mini_batches_do_not_matter(bert_folder: Path, size: int | None) -> None:
    model = without_dropout(bert_folder)
    labels = [torch.tensor(row) for row in LISTS["labels"]]
    values = []
    for mini_batch_size in (1, size):
        model.zero_grad()
        value = losses.ListNetLoss(model, mini_batch_size=mini_batch_size)([LISTS["query"], LISTS["documents"]], labels)
        value.backward()
        values.append((float(value.detach()), model.model.classifier.weight.grad.clone()))
    assert values[0][0] == pytest.approx(values[1][0], rel=1e-4)
    torch.testing.assert_close(values[0][1], values[1][1], rtol=1e-3, atol=1e-5)


def test_cached_is_not_cached(bert_folder: Path) -> None:
    model = without_dropout(bert_folder)
    gradients = []
    for loss in (
        losses.MultipleNegativesRankingLoss(model, None),
        losses.CachedMultipleNegativesRankingLoss(model, None, mini_batch_size=5),
    ):
        model.zero_grad()
        loss([WORDS[:5], WORDS[5:10]], None).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-3, atol=1e-5)


def test_negatives_of_other_rows(model: CrossEncoder) -> None:
    queries, first, second = ([f"{letter}{i}" for i in range(5)] for letter in "qpn")
    for wanted, given in ((None, 8), (0, 0), (3, 3), (8, 8), (100, 8)):
        loss = losses.MultipleNegativesRankingLoss(model, wanted)
        rows = list(zip(*loss.get_in_batch_negatives(queries, [first, second]), strict=True)) if wanted != 0 else []
        for i, row in enumerate(rows):
            assert len(row) == len(set(row)) == given and not {f"p{i}", f"n{i}"} & set(row)
        assert len(loss.pairs([queries, first, second])) == 5 * (2 + given)


def test_prompts_come_before_the_first_text(model: CrossEncoder, tmp_path: Path) -> None:
    seen: list[Any] = []

    class Watched(torch.nn.Module):
        def forward(self, inputs: Any, labels: Any, prompt: Any = None, task: Any = None) -> torch.Tensor:
            seen.append((len(inputs), prompt, task))
            return losses.BinaryCrossEntropyLoss(model)(inputs, labels, prompt, task)

    for prompts, wanted in (("x: ", "x: "), ({"a": "q: ", "b": "d: "}, "q: "), (None, None)):
        trainer_of(model, tmp_path, BINARY, Watched(), settings={"prompts": prompts, "max_steps": 1}).train()
        assert seen.pop() == (2, wanted, None) and not seen
    pairs = [(WORDS[0], WORDS[1])]
    plain, prompted = (scores_of(model.eval(), pairs, prompt) for prompt in (None, "x: "))
    assert float(prompted.detach()) == pytest.approx(
        float(model.predict(pairs[0], prompt="x: ", activation_fn=torch.nn.Identity())), rel=1e-3
    )
    assert float(plain.detach()) != pytest.approx(float(prompted.detach()), rel=1e-4)


def test_streams_and_several_data_sets(model: CrossEncoder, tmp_path: Path) -> None:
    stream = datasets.Dataset.from_dict(BINARY).to_iterable_dataset()
    assert trainer_of(model, tmp_path, stream).train().global_step == 4
    many = {"pairs": datasets.Dataset.from_dict(BINARY), "lists": datasets.Dataset.from_dict(LISTS)}
    own = {"pairs": losses.BinaryCrossEntropyLoss(model), "lists": lambda m: losses.RankNetLoss(m)}
    settings = {"multi_dataset_batch_sampler": "round_robin", "prompts": {"lists": "q: "}}
    trainer = CrossEncoderTrainer(
        model=model,
        args=CrossEncoderTrainingArguments(
            output_dir=str(tmp_path), max_steps=3, save_strategy="no", report_to=[], disable_tqdm=True, **settings
        ),
        train_dataset=many,
        loss=own,
    )
    assert trainer.train().global_step == 3


def test_the_card_tells_the_run(model: CrossEncoder, tmp_path: Path) -> None:
    trainer = trainer_of(model, tmp_path, LISTS, losses.LambdaLoss(model))
    trainer.train()
    model.save_pretrained(str(tmp_path / "final"))
    card = (tmp_path / "final" / "README.md").read_text()
    for part in ("`LambdaLoss`", "NDCGLoss2PPScheme", "wang2018lambdaloss", "list of 2 to 4 values", "## Training log"):
        assert part in card, part
    again = CrossEncoder(str(tmp_path / "final"), device="cpu")
    pair = (WORDS[0], WORDS[1])
    assert float(again.predict(pair)) == pytest.approx(float(model.predict(pair)), abs=1e-6)


# ---- older ways


def examples(label: Any = float) -> list[InputExample]:
    return [
        InputExample(texts=[a, b], label=label(i % 2)) for i, (a, b) in enumerate(zip(*PAIRS.values(), strict=True))
    ]


def test_data_loaders_as_the_page_writes_them(model: CrossEncoder, tmp_path: Path) -> None:
    loader: Any = torch.utils.data.DataLoader(examples(), batch_size=4)  # type: ignore[arg-type]
    args = CrossEncoderTrainingArguments(
        output_dir=str(tmp_path), num_train_epochs=1, save_strategy="no", report_to=[], disable_tqdm=True
    )
    trainer = CrossEncoderTrainer(model=model, args=args, train_dataloader=loader, loss=losses.MSELoss(model))
    assert trainer.train().global_step == 3


@pytest.mark.parametrize("labels", [1, 2])
def test_fit_as_of_old(bert_folder: Path, tmp_path: Path, labels: int) -> None:
    model = CrossEncoder(str(bert_folder), num_labels=labels, device="cpu")
    pairs = list(map(list, zip(*PAIRS.values(), strict=True)))
    evaluator: Any = CrossEncoderCorrelationEvaluator(pairs, [0.1 * i for i in range(12)], name="dev")
    if labels == 2:
        evaluator = CrossEncoderClassificationEvaluator(pairs, [i % 2 for i in range(12)], name="dev")
    scores: list[Any] = []
    loader: Any = torch.utils.data.DataLoader(examples(int), batch_size=4, shuffle=True)  # type: ignore[arg-type]
    before = model.predict(pairs)
    model.fit(
        train_dataloader=loader,
        evaluator=evaluator,
        epochs=2,
        warmup_steps=1,
        output_path=str(tmp_path / "best"),
        callback=lambda *args: scores.append(args),
        show_progress_bar=False,
        optimizer_params={"lr": 1e-3},
    )
    assert len(scores) == 2 and abs(model.predict(pairs) - before).max() > 1e-4
    best = evaluator(CrossEncoder(str(tmp_path / "best"), device="cpu"))[evaluator.primary_metric]
    assert best == pytest.approx(max(score for score, _, _ in scores))
    features, targets = model.smart_batching_collate(examples()[:3])
    assert features["input_ids"].shape[0] == 3 and targets.dtype == (torch.float32 if labels == 1 else torch.int64)


# ---- what is checked before the first step

CLASSES = PAIRS | {"label": [0, 1] * 5 + [2, 0]}


@pytest.mark.parametrize(
    ("loss", "columns", "says"),
    [
        ("BinaryCrossEntropyLoss", PAIRS | {"label": [0.5] * 7 + [1.5] * 5}, ["label 1.5 in row 7", "from 0 to 1"]),
        ("BinaryCrossEntropyLoss", PAIRS | {"label": [0.5, -0.1] * 6}, ["label -0.1 in row 1"]),
        ("BinaryCrossEntropyLoss", PAIRS, ["no label column"]),
        ("BinaryCrossEntropyLoss", LISTS, ["(sentence_A, sentence_B) and a float"]),
        ("MultipleNegativesRankingLoss", BINARY, ["remove_columns('label')"]),
        ("LambdaLoss", BINARY | {"label": [[1.0, 0.0]] * 12}, ["list of documents", "Give each row"]),
        ("LambdaLoss", LISTS | {"labels": [[1.0, 0.0]] * 6}, ["row 1 has 3 documents and 2 labels", "'documents'"]),
        (
            "ListNetLoss",
            {"query": WORDS[:2], "documents": [["a"], []], "labels": [[1.0], []]},
            ["row 1 has a query without documents"],
        ),
        ("MarginMSELoss", PAIRS | {"label": [0.5] * 12}, ["(query, positive, negative)"]),
    ],
    ids=range(9),
)  # fmt: skip
def test_data_and_loss_that_do_not_fit(
    model: CrossEncoder, tmp_path: Path, loss: str, columns: dict[str, Any], says: list[str]
) -> None:
    with pytest.raises(ValueError) as error:
        trainer_of(model, tmp_path, columns, getattr(losses, loss)(model))
    for part in says:
        assert part in str(error.value), str(error.value)


def test_classes_that_the_model_has_no_score_for(bert_folder: Path, tmp_path: Path) -> None:
    two, three, one = (CrossEncoder(str(bert_folder), num_labels=n, device="cpu") for n in (2, 3, 1))
    with pytest.raises(ValueError, match=r"label 2 in row 10.*from 0 to 1: the model has num_labels=2"):
        trainer_of(two, tmp_path, CLASSES)
    trainer_of(three, tmp_path, CLASSES)
    trainer_of(two, tmp_path, PAIRS | {"label": [0, 1, -100] * 4})  # -100 is left out by cross entropy
    with pytest.raises(ValueError, match="num_labels=2 or more"):
        losses.CrossEntropyLoss(one)
    for name in losses.__all__:
        loss = getattr(losses, name)
        if name.endswith("Loss") and name != "CrossEntropyLoss":
            with pytest.raises(ValueError, match="num_labels=1"):
                loss(two)


@pytest.mark.parametrize(
    ("inputs", "labels", "says"),
    [
        ([["a", "b"], [["x"], []]], [torch.ones(1), torch.ones(0)], "row 1 of the batch has a query without documents"),
        ([["a"], [["x", "y"]]], [torch.ones(3)], "row 0 of the batch has 2 documents and 3 labels"),
        ([["a"], ["x"]], [torch.ones(1)], "list of documents is expected"),
        ([["a"], [["x"]]], None, "list of labels for each of 1 queries"),
    ],
    ids=range(4),
)
def test_lists_that_are_none(model: CrossEncoder, inputs: Any, labels: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        losses.ListNetLoss(model)(inputs, labels)


def test_losses_of_dense_models_given_a_cross_encoder(model: CrossEncoder) -> None:
    from sentence_transformers import losses as top
    from sentence_transformers.losses import cross, cross_negatives

    for name, module in (
        ("MSELoss", cross),
        ("MarginMSELoss", cross),
        ("MultipleNegativesRankingLoss", cross_negatives),
        ("CachedMultipleNegativesRankingLoss", cross_negatives),
    ):
        loss = getattr(top, name)(model)
        assert type(loss) is getattr(module, name) is getattr(losses, name) is not getattr(top, name)
    assert np.isfinite(float(top.LambdaLoss(model)([["a"], [["b", "c"]]], [torch.tensor([1.0, 0.0])]).detach()))
