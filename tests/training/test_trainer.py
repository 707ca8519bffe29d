"""The trainer: from rows to weights, what is checked before, and what a run leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from packaging.version import Version
from transformers import TrainerCallback

from sentence_transformers import (
    InputExample,
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
    evaluation,
    losses,
)
from sentence_transformers.errors import NonFiniteLossError
from sentence_transformers.modules import router
from sentence_transformers.modules.transformer import Transformer
from sentence_transformers.training import collator
from tests import forked, models
from tests.golden import multi_vector_cases, score_models
from tests.training import runs
from tests.training.killed import train
from tests.training.runs import SETTINGS, logged
from tests.training.two_processes import CASES, SHARDS_ON_CPU

datasets = pytest.importorskip("datasets")
pytest.importorskip("accelerate")
WORDS = models.SENTENCES
PAIRS = {"anchor": WORDS * 2, "positive": [*WORDS[1:], WORDS[0]] * 2}
SCORED = {"a": WORDS, "b": WORDS[::-1], "label": [0.1 * i for i in range(12)]}


@pytest.fixture
def model(bert_folder: Path) -> SentenceTransformer:
    return SentenceTransformer(str(bert_folder), device="cpu")


def dataset(columns: dict[str, list[Any]]) -> Any:
    return datasets.Dataset.from_dict(columns)


def arguments(folder: Path, **settings: Any) -> SentenceTransformerTrainingArguments:
    return SentenceTransformerTrainingArguments(output_dir=str(folder), **SETTINGS | settings)


trainer_of = partial(runs.trainer_of, SentenceTransformerTrainer)


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


# ---- a run


def test_a_run_lowers_the_loss_and_changes_the_vectors(model: SentenceTransformer, tmp_path: Path) -> None:
    before = model.encode(WORDS)
    data = dataset({"anchor": WORDS[:8], "positive": WORDS[1:9]})
    trainer = trainer_of(model, tmp_path, data, losses.MultipleNegativesRankingLoss(model), settings={"max_steps": 30})
    trainer.train()
    assert sum(logged(trainer)[-5:]) < sum(logged(trainer)[:5])
    assert abs(model.encode(WORDS) - before).max() > 1e-3


def test_nothing_is_computed_for_padding(model: SentenceTransformer, tmp_path: Path) -> None:
    trainer = trainer_of(model, tmp_path, dataset(PAIRS), losses.MultipleNegativesRankingLoss(model))
    batch = next(iter(trainer.get_train_dataloader()))
    columns, labels = trainer.collect_features(batch)
    assert labels is None and len(columns) == 2
    for features in columns:
        assert features["input_ids"].shape == (sum(features["packing"].lengths),) and "attention_mask" not in features


def without_dropout(folder: Path) -> SentenceTransformer:
    model = SentenceTransformer(str(folder), device="cpu")
    for part in model.transformers_model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    return model


@pytest.mark.parametrize("architecture", ["bert", "modernbert", "qwen3"])
def test_packed_steps_are_padded_steps(
    folder_of: Any, architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for packs in (True, False):
        model = without_dropout(folder_of(architecture))
        if not packs:
            monkeypatch.setattr(Transformer, "packs", False)
        trainer = trainer_of(
            model, tmp_path, dataset(SCORED), losses.CoSENTLoss(model),
            optimizer_cls_and_kwargs=(torch.optim.SGD, {"lr": 1e-3}),
        )  # fmt: skip
        (features, _), _ = trainer.collect_features(next(iter(trainer.get_train_dataloader())))
        assert ("packing" in features) == packs
        trainer.train()
        found.append(weights(model))
    for name in found[0]:
        torch.testing.assert_close(found[0][name], found[1][name], rtol=1e-3, atol=1e-5)


def test_the_default_loss_and_lists_of_rows(model: SentenceTransformer, tmp_path: Path) -> None:
    rows = [{"sentence1": "Hello", "sentence2": "Hi", "label": 1.0}, {"sentence1": "a", "sentence2": "b", "label": 0.0}]
    trainer = trainer_of(model, tmp_path, rows)
    assert isinstance(trainer.loss, losses.CoSENTLoss)
    assert trainer.train().global_step == 4


def test_several_data_sets_with_their_own_losses_and_prompts(model: SentenceTransformer, tmp_path: Path) -> None:
    seen: list[str] = []
    trainer = trainer_of(
        model,
        tmp_path,
        {"pairs": dataset(PAIRS), "sts": dataset(SCORED)},
        {"pairs": losses.MultipleNegativesRankingLoss(model), "sts": lambda m: losses.CoSENTLoss(m)},
        eval_dataset={"sts": dataset(SCORED)},
        settings={"max_steps": -1, "num_train_epochs": 1, "prompts": {"pairs": {"anchor": "query: "}, "sts": "x "},
                  "multi_dataset_batch_sampler": "round_robin", "eval_strategy": "epoch"},
    )  # fmt: skip
    original = trainer.compute_loss

    def watched(m: Any, inputs: dict[str, Any], **kwargs: Any) -> Any:
        seen.append(inputs["dataset_name"])
        lengths = {key: inputs[key].float().mean() for key in inputs if key.endswith("_lengths")}
        assert all(lengths)
        return original(m, inputs, **kwargs)

    trainer.compute_loss = watched  # type: ignore[method-assign]
    trainer.train()
    assert seen[:6] == ["pairs", "sts"] * 3
    assert any("eval_sts_loss" in entry for entry in trainer.state.log_history)


def test_prompts_come_before_their_column(model: SentenceTransformer) -> None:
    make = collator.SentenceTransformerDataCollator(collator.Preprocess(model), prompts={"a": WORDS[0]})
    plain = collator.SentenceTransformerDataCollator(collator.Preprocess(model))
    rows = [{"a": "cat", "b": "cat"}]
    with_prompt, without = make(rows), plain(rows)
    assert with_prompt["a_lengths"] > without["a_lengths"] and with_prompt["b_lengths"] == without["b_lengths"]


def test_routes_by_column(bert_folder: Path, tmp_path: Path) -> None:
    inner = [SentenceTransformer(str(bert_folder), device="cpu") for _ in range(2)]
    model = SentenceTransformer(
        modules=[router.Router.for_query_document(list(inner[0]), list(inner[1]))], device="cpu"
    )
    before = weights(model)
    trainer = trainer_of(
        model,
        tmp_path,
        dataset(PAIRS),
        losses.MultipleNegativesRankingLoss(model),
        settings={"router_mapping": {"anchor": "query", "positive": "document"}, "max_steps": 2},
    )
    trainer.train()
    after = weights(model)
    for side in ("query", "document"):
        assert any(not torch.equal(before[k], after[k]) for k in before if f"sub_modules.{side}" in k)


def test_learning_rates_by_name(model: SentenceTransformer, tmp_path: Path) -> None:
    trainer = trainer_of(
        model, tmp_path, dataset(PAIRS), losses.MultipleNegativesRankingLoss(model),
        settings={"learning_rate_mapping": {r"\.embeddings\.": 0.0}},
    )  # fmt: skip
    before = weights(model)
    trainer.train()
    after = weights(model)
    moved = [name for name in before if not torch.equal(before[name], after[name])]
    assert moved and not any(".embeddings." in name for name in moved)


def test_the_loss_is_trained_too_and_named_terms_are_logged(model: SentenceTransformer, tmp_path: Path) -> None:
    loss = losses.SoftmaxLoss(model, 32, 2)
    before = loss.classifier.weight.clone()
    data = dataset({"a": WORDS, "b": WORDS[::-1], "label": [0, 1] * 6})
    trainer_of(model, tmp_path, data, loss).train()
    assert not torch.equal(before, loss.classifier.weight)
    trainer = trainer_of(model, tmp_path, dataset(PAIRS), losses.GlobalOrthogonalRegularizationLoss(model))
    trainer.train()
    assert any("gor_mean" in entry for entry in trainer.state.log_history)


def test_streams_and_what_they_need(model: SentenceTransformer, tmp_path: Path) -> None:
    stream = dataset(PAIRS).to_iterable_dataset()
    loss = losses.MultipleNegativesRankingLoss(model)
    assert trainer_of(model, tmp_path, stream, loss).train().global_step == 4
    with pytest.raises(ValueError, match="max_steps"):
        trainer_of(model, tmp_path, stream, loss, settings={"max_steps": -1})
    unknown = datasets.IterableDataset.from_generator(lambda: iter([{"a": "x", "b": "y"}]))
    with pytest.raises(ValueError, match="features="):
        trainer_of(model, tmp_path, unknown, loss)


@pytest.mark.parametrize(
    "settings",
    [
        {"gradient_accumulation_steps": 2},
        {"gradient_checkpointing": True},
        {"bf16": True, "use_cpu": True},
        {"batch_sampler": "no_duplicates"},
        {"dataloader_num_workers": 1},
        {"warmup_ratio": 0.5},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_settings_of_a_run(model: SentenceTransformer, tmp_path: Path, settings: dict[str, Any]) -> None:
    loss = losses.CachedMultipleNegativesRankingLoss(model, mini_batch_size=2)
    trainer = trainer_of(model, tmp_path, dataset(PAIRS), loss, settings=settings)
    assert trainer.train().global_step == 4 and all(value > 0 for value in logged(trainer))


def test_accumulated_steps_are_the_larger_batch(bert_folder: Path, tmp_path: Path) -> None:
    found = []
    for size, accumulate in ((4, 2), (8, 1)):
        model = without_dropout(bert_folder)
        data = dataset({"a": WORDS[:8], "b": WORDS[4:12], "labels": [0.1 * i for i in range(8)]})
        settings = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulate, "max_steps": 1}
        trainer = trainer_of(model, tmp_path, data, losses.CosineSimilarityLoss(model), settings=settings)
        trainer.train()
        found.append(logged(trainer)[0])
    assert found[0] == pytest.approx(found[1], rel=1e-3)


def test_peft_adapters_are_trained(model: SentenceTransformer, tmp_path: Path) -> None:
    peft = models.peft_for_adapters()
    model.add_adapter(peft.LoraConfig(target_modules=["query", "value"], r=2))
    before = weights(model)
    trainer = trainer_of(
        model, tmp_path, dataset(PAIRS), losses.MultipleNegativesRankingLoss(model), settings={"max_steps": 2}
    )
    trainer.train()
    moved = [name for name, tensor in weights(model).items() if not torch.equal(before[name], tensor)]
    assert moved and all("lora" in name for name in moved)


# ---- evaluation, checkpoints, cards


def test_the_best_model_is_loaded_at_the_end(model: SentenceTransformer, tmp_path: Path) -> None:
    evaluator = evaluation.EmbeddingSimilarityEvaluator(WORDS[:6], WORDS[6:], [0.1 * i for i in range(6)], name="dev")
    trainer = trainer_of(
        model, tmp_path, dataset(SCORED), losses.CoSENTLoss(model), evaluator=evaluator,
        settings={"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1,
                  "load_best_model_at_end": True, "metric_for_best_model": "eval_dev_spearman_cosine"},
    )  # fmt: skip
    trainer.train()
    scores = {
        e["step"]: e["eval_dev_spearman_cosine"] for e in trainer.state.log_history if "eval_dev_spearman_cosine" in e
    }
    assert len(scores) == 4 and evaluator(model)["dev_spearman_cosine"] == pytest.approx(max(scores.values()))
    assert (tmp_path / "eval" / "similarity_evaluation_dev_results.csv").is_file()
    best = SentenceTransformer(trainer.state.best_model_checkpoint, device="cpu")
    assert abs(best.encode(WORDS) - model.encode(WORDS)).max() < 1e-6


def test_the_card_tells_the_run(model: SentenceTransformer, tmp_path: Path) -> None:
    evaluator = evaluation.EmbeddingSimilarityEvaluator(WORDS[:6], WORDS[6:], [0.1 * i for i in range(6)], name="dev")
    trainer = trainer_of(
        model, tmp_path, dataset(SCORED), losses.CoSENTLoss(model), eval_dataset=dataset(SCORED), evaluator=evaluator,
        settings={"eval_strategy": "steps", "eval_steps": 2, "warmup_steps": 1},
    )  # fmt: skip
    trainer.train()
    model.save_pretrained(str(tmp_path / "final"))
    card = (tmp_path / "final" / "README.md").read_text()
    for part in ("## Training data", "**Size:** 12 rows", "`CoSENTLoss`", "| label |", "## Training log", "eval_loss",
                 "dev_spearman_cosine", "- `warmup_steps`: 1", "bibtex", "reimers-2019", "model-index"):  # fmt: skip
        assert part in card, part
    assert "prediction_loss_only" not in card.partition("<details>")[0]


def test_evaluate_without_data_runs_the_evaluators(model: SentenceTransformer, tmp_path: Path) -> None:
    evaluators = [evaluation.TripletEvaluator(WORDS[:4], WORDS[4:8], WORDS[8:], name=n) for n in ("one", "two")]
    trainer = trainer_of(
        model, tmp_path, dataset(PAIRS), losses.MultipleNegativesRankingLoss(model), evaluator=evaluators
    )
    found = trainer.evaluate()
    assert {"eval_one_cosine_accuracy", "eval_two_cosine_accuracy", "eval_sequential_score"} <= found.keys()


def test_collators_and_callbacks_get_the_tokenizer(model: SentenceTransformer, tmp_path: Path) -> None:
    seen: list[Any] = []

    class Mine(SentenceTransformerTrainer):
        def get_data_collator(self, model: Any, args: Any, processing_class: Any = None) -> Any:
            seen.append(processing_class)
            return super().get_data_collator(model, args, processing_class)

    class Callback(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            seen.append(kwargs["processing_class"])

    for given in (None, {"another": "tokenizer"}):
        seen.clear()
        args = SentenceTransformerTrainingArguments(output_dir=str(tmp_path), max_steps=1, report_to=[])
        loss = losses.MultipleNegativesRankingLoss(model)
        trainer = Mine(model, args, dataset(PAIRS), None, loss, None, None, given, callbacks=[Callback()])
        trainer.train()
        expected = model.tokenizer if given is None else given
        assert trainer.processing_class is expected and all(one is expected for one in seen) and len(seen) >= 2


@pytest.mark.parametrize("kind", ["batch_sampler", "no_duplicates"])
def test_data_seed_orders_the_rows(model: SentenceTransformer, tmp_path: Path, kind: str) -> None:
    def order(**settings: Any) -> list[list[int]]:
        loss = losses.MultipleNegativesRankingLoss(model)
        trainer = trainer_of(
            model, tmp_path, dataset(PAIRS), loss, {"batch_sampler": kind, "dataloader_drop_last": True, **settings}
        )
        return list(trainer.get_train_dataloader().batch_sampler)

    assert order(seed=1, data_seed=9) == order(seed=9) != order(seed=1)


@pytest.mark.skipif(
    Version(transformers.__version__) < Version("5.17"),
    reason="before 5.17 transformers draws from the random state that it restored before the next step is made",
)
@pytest.mark.parametrize("kind", ["SentenceTransformer", "CrossEncoder", "SparseEncoder", "MultiVectorEncoder"])
def test_a_killed_run_goes_on_as_if_it_had_not_been(bert_folder: Path, tmp_path: Path, kind: str) -> None:
    if kind == "SparseEncoder":
        bert_folder = tmp_path / "splade"
        score_models.SPARSE["splade_bert_max_log1p_relu"](bert_folder)

    def run(out: str, kill: int = -1, resume: bool = False) -> int:
        return forked.run(train, bert_folder, tmp_path / out, kill, resume, kind, error=tmp_path / f"{out}.error")

    assert run("whole") == 0
    assert run("killed", kill=9) == -signal.SIGKILL
    (tmp_path / "killed" / "checkpoint-999").mkdir()  # cut off while it was written
    assert run("killed", resume=True) == 0
    whole, resumed = (torch.load(tmp_path / n / "final.pt", weights_only=True) for n in ("whole", "killed"))
    assert whole.keys() == resumed.keys()
    for name in whole:
        assert torch.equal(whole[name], resumed[name]), name


def test_resuming_needs_a_checkpoint(model: SentenceTransformer, tmp_path: Path) -> None:
    trainer = trainer_of(model, tmp_path, dataset(PAIRS), losses.MultipleNegativesRankingLoss(model))
    with pytest.raises(ValueError, match="no complete checkpoint"):
        trainer.train(resume_from_checkpoint=True)


# ---- what is checked before the first step


@pytest.mark.parametrize(
    ("loss", "columns", "says"),
    [
        ("CoSENTLoss", {"a": WORDS, "b": WORDS}, ["(sentence_A, sentence_B) and a float", "no label column"]),
        ("CoSENTLoss", {"a": WORDS, "label": [0.5] * 12}, ["texts (a) and label column 'label'", "select_columns"]),
        ("CoSENTLoss", {"a": WORDS, "b": WORDS, "label": [3] * 12}, ["cast_column", "int64", "First row"]),
        ("MultipleNegativesRankingLoss", {"a": WORDS, "b": WORDS, "label": [0.5] * 12}, ["remove_columns('label')"]),
        ("TripletLoss", {"a": WORDS, "b": WORDS}, ["texts (anchor, positive, negative)"]),
        ("MSELoss", {"a": WORDS, "label": [0.5] * 12}, ["teacher's embedding"]),
        ("MultipleNegativesRankingLoss", {"a": [], "b": []}, ["is empty"]),
        ("MultipleNegativesRankingLoss", {"a": [*WORDS[:11], None], "b": WORDS}, ["None in row 11, column 'a'"]),
        ("MultipleNegativesRankingLoss", {"a": WORDS, "return_loss": WORDS}, ["reserved"]),
    ],
    ids=range(9),
)  # fmt: skip
def test_data_and_loss_that_do_not_fit(
    model: SentenceTransformer, tmp_path: Path, loss: str, columns: dict[str, list[Any]], says: list[str]
) -> None:
    before = weights(model)
    with pytest.raises(ValueError) as error:
        trainer_of(model, tmp_path, dataset(columns), getattr(losses, loss)(model))
    for part in says:
        assert part in str(error.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_whole_numbers_are_scores_and_floats_are_classes_where_they_can_be(model: Any, tmp_path: Path) -> None:
    trainer_of(model, tmp_path, dataset({"a": WORDS, "b": WORDS, "label": [0, 1] * 6}), losses.CoSENTLoss(model))
    trainer_of(
        model, tmp_path, dataset({"a": WORDS, "b": WORDS, "label": [0.0, 1.0] * 6}), losses.ContrastiveLoss(model)
    )


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["positive", "anchor"], "ORDER"),
        (["anchor", "negative_1", "positive"], "ORDER"),
        (["anchor", "positive", "similarity"], "suggests a label"),
        (["question", "answer"], None),
        (["text_1", "text_2"], None),
    ],
    ids=range(5),
)
def test_a_likely_mix_up_of_columns_warns(names: list[str], says: str | None) -> None:
    found = collator.doubts(names)
    assert (says is None and not found) or any(says in text for text in found)


@pytest.mark.parametrize(
    ("settings", "options", "says"),
    [
        ({"batch_sampler": "clever"}, {}, "batch_sampler='clever' is unknown"),
        ({"prompts": "{broken"}, {}, "not JSON"),
        ({"learning_rate_mapping": {"(": 1e-3}}, {}, "not a regular expression"),
        ({"eval_strategy": "steps", "eval_steps": 1}, {}, "neither an eval_dataset nor an evaluator"),
        ({}, {"train_dataloader": []}, "either train_dataset or train_dataloader"),
    ],
    ids=range(5),
)
def test_settings_that_contradict_each_other(
    model: SentenceTransformer, tmp_path: Path, settings: dict[str, Any], options: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        trainer_of(
            model, tmp_path, dataset(PAIRS), losses.MultipleNegativesRankingLoss(model), settings=settings, **options
        )


def test_losses_without_data_sets(model: SentenceTransformer, tmp_path: Path) -> None:
    loss = losses.MultipleNegativesRankingLoss(model)
    with pytest.raises(ValueError, match="for which there is no loss"):
        trainer_of(model, tmp_path, {"one": dataset(PAIRS)}, {"two": loss})
    with pytest.raises(ValueError, match="single data set"):
        trainer_of(model, tmp_path, dataset(PAIRS), {"two": loss})


def test_a_loss_that_is_no_number_stops_the_run(model: SentenceTransformer, tmp_path: Path) -> None:
    data = dataset({"a": WORDS, "b": WORDS, "label": [float("nan")] + [0.5] * 11})
    trainer = trainer_of(
        model, tmp_path, data, losses.CosineSimilarityLoss(model), settings={"per_device_train_batch_size": 12}
    )
    before = weights(model)
    with pytest.raises(NonFiniteLossError, match=r"CosineSimilarityLoss is nan at step 0.*columns \['a', 'b'\]"):
        trainer.train()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


# ---- data loaders, and fit


EXAMPLES = [InputExample(texts=[a, b], label=0.1 * i) for i, (a, b) in enumerate(zip(WORDS, WORDS[::-1], strict=True))]


def test_vectors_follow_the_weights_in_training(model: SentenceTransformer, tmp_path: Path) -> None:
    """A fused optimizer changes weights without a trace; what is laid out for encoding must be made anew."""
    seen: list[Any] = []

    class Look(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            model.eval()
            seen.append((model.encode(WORDS), weights(model)))

    loss = losses.CachedMultipleNegativesRankingLoss(model, mini_batch_size=4)
    trainer = trainer_of(model, tmp_path, dataset(PAIRS), loss, callbacks=[Look()], settings={"max_steps": 3})
    trainer.train()
    for vectors, state in seen:
        model.load_state_dict(state)
        assert abs(model.encode(WORDS) - vectors).max() < 1e-5
    assert abs(seen[0][0] - seen[2][0]).max() > 1e-3


@pytest.mark.parametrize(
    "rows",
    [
        EXAMPLES,
        [{"a": e.texts[0], "b": e.texts[1], "label": e.label} for e in EXAMPLES],  # type: ignore[index]
        [(e.texts[0], e.texts[1], e.label) for e in EXAMPLES],  # type: ignore[index]
    ],
    ids=["examples", "dictionaries", "tuples"],
)
def test_data_loaders_of_other_peoples_making(model: SentenceTransformer, tmp_path: Path, rows: list[Any]) -> None:
    loader: Any = torch.utils.data.DataLoader(rows, batch_size=4)
    trainer = SentenceTransformerTrainer(
        model=model, args=arguments(tmp_path, max_steps=-1, num_train_epochs=2), train_dataloader=loader,
        loss=losses.CoSENTLoss(model),
    )  # fmt: skip
    assert trainer.train().global_step == 6


def test_fit_evaluates_after_each_epoch_too(model: SentenceTransformer) -> None:
    texts = models.SENTENCES
    evaluator = evaluation.EmbeddingSimilarityEvaluator(texts[:6], texts[6:12], [0.1 * i for i in range(6)])
    loader = torch.utils.data.DataLoader([InputExample(texts=[t, t], label=1.0) for t in texts[:6]], batch_size=2)
    loss, seen = losses.CosineSimilarityLoss(model), []
    model.fit(
        [(loader, loss)],
        evaluator,
        epochs=2,
        evaluation_steps=2,
        callback=lambda score, epoch, steps: seen.append(steps),
        show_progress_bar=False,
    )
    assert seen == [2, 3, 4, 6]


def test_named_terms_of_the_evaluation_loss(model: SentenceTransformer, tmp_path: Path) -> None:
    class Terms(torch.nn.Module):
        def forward(self, features: Any, labels: Any) -> dict[str, torch.Tensor]:
            value = model(features[0])["sentence_embedding"].pow(2).mean()
            return {"one": value, "two": 2 * value}

    trainer = trainer_of(model, tmp_path, dataset(PAIRS), Terms(), eval_dataset={"dev": dataset(PAIRS)})
    found = trainer.evaluate()
    assert found["eval_dev_two"] == pytest.approx(2 * found["eval_dev_one"], rel=1e-5)
    assert found["eval_dev_loss"] == pytest.approx(3 * found["eval_dev_one"], rel=1e-5)


def test_fit_as_of_old(model: SentenceTransformer, tmp_path: Path) -> None:
    scores: list[tuple[float, float, int]] = []
    evaluator = evaluation.EmbeddingSimilarityEvaluator(WORDS[:6], WORDS[6:], [0.1 * i for i in range(6)], name="dev")
    loader: Any = torch.utils.data.DataLoader(EXAMPLES, batch_size=4, shuffle=True)  # type: ignore[arg-type]
    before = model.encode(WORDS)
    model.fit(
        [(loader, losses.CosineSimilarityLoss(model)), (loader, losses.CoSENTLoss(model))],
        evaluator=evaluator,
        epochs=2,
        warmup_steps=1,
        output_path=str(tmp_path / "best"),
        callback=lambda *args: scores.append(args),
        show_progress_bar=False,
        optimizer_params={"lr": 1e-3},
    )
    assert len(scores) == 2 and abs(model.encode(WORDS) - before).max() > 1e-4
    assert evaluator(SentenceTransformer(str(tmp_path / "best"), device="cpu"))["dev_spearman_cosine"] == pytest.approx(
        max(score for score, _, _ in scores)
    )


# ---- two processes

TWO = Path(__file__).with_name("two_processes.py")
FOLDERS = {
    "dense": lambda folder: models.build("bert", folder),
    "padded": lambda folder: models.build("mpnet", folder),
    "cross": score_models.SCORERS["saved_settings"],
    "sparse": score_models.SPARSE["splade_settings"],
    "late": multi_vector_cases.FOLDERS["expanding"],
}


@pytest.fixture(scope="module")
def stepped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the weights of each case after a step, of one process and of two."""
    folder = tmp_path_factory.mktemp("stepped")
    for kind, write in FOLDERS.items():
        write(folder / kind)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment["FSDP_STATE_DICT_TYPE"] = "FULL_STATE_DICT"  # older versions of transformers ask accelerate alone
    for processes in (1, 2):
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        command += [str(TWO), str(folder)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.mark.parametrize("case", list(CASES))
def test_two_processes_make_the_step_of_one(stepped: Path, case: str) -> None:
    if CASES[case].sharing and not SHARDS_ON_CPU:
        pytest.skip("FSDP2 of torch 2.8 adds gradients up wrongly over gloo")
    one, two = (torch.load(stepped / f"{case}-{n}.pt", weights_only=True) for n in (1, 2))
    before, one, two = one["before"], one["after"], two["after"]
    assert before.keys() == one.keys() == two.keys()
    assert max(float((one[name] - before[name]).abs().max()) for name in one) > 1e-4
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=0, atol=1e-5)
