"""What each argument of a trainer and of its settings does, for every kind of model."""

from __future__ import annotations

import pytest
import torch
from sentence_transformers.base import BaseTrainingArguments, BatchSamplers, MultiDatasetBatchSamplers

from sentence_transformers import (
    CrossEncoder,
    CrossEncoderTrainer,
    CrossEncoderTrainingArguments,
    InputExample,
    MultiVectorEncoder,
    MultiVectorEncoderTrainer,
    MultiVectorEncoderTrainingArguments,
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
    SparseEncoder,
    SparseEncoderTrainer,
    SparseEncoderTrainingArguments,
)
from tests.golden.layouts import GOLDEN
from tests.training import runs

pytest.importorskip("accelerate")
PAIRS = {"query": ["a cat", "rain", "the river", "yes"], "document": ["cats", "it rains", "a river", "no"]}
LABELS = [1.0, 0.0, 0.8, 0.1]
LABELLED = ("dense", "pairs")  # whose default loss takes them
KINDS = {
    "dense": (SentenceTransformer, "out_st", SentenceTransformerTrainer),
    "sparse": (SparseEncoder, "out_splade", SparseEncoderTrainer),
    "tokens": (MultiVectorEncoder, "out_mv", MultiVectorEncoderTrainer),
    "pairs": (CrossEncoder, "out_ce", CrossEncoderTrainer),
}
ARGUMENTS = [
    BaseTrainingArguments,
    SentenceTransformerTrainingArguments,
    SparseEncoderTrainingArguments,
    MultiVectorEncoderTrainingArguments,
    CrossEncoderTrainingArguments,
]


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def model_of(kind):
    encoder, folder, _ = KINDS[kind]
    return encoder(str(GOLDEN / folder), device="cpu")


def trainer_of(kind, folder, model=None, columns=PAIRS, **options):
    data = dict(columns, label=LABELS) if columns and kind in LABELLED else columns
    settings = {"max_steps": 1} | options.pop("settings", {})
    return runs.trainer_of(options.pop("trainer", KINDS[kind][2]), model, folder, data, settings=settings, **options)


def weights_of(model):
    return [weight.detach().clone() for weight in model.parameters()]


def changed(model, before):
    return any(not torch.equal(new, old) for new, old in zip(model.parameters(), before, strict=True))


def test_the_optimizer_that_is_given_steps(kind, tmp_path):
    model = model_of(kind)
    before, first = weights_of(model), next(model.parameters())
    optimizer = torch.optim.SGD([first], lr=0.5)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    trainer = trainer_of(kind, tmp_path, model, optimizers=(optimizer, schedule))
    trainer.train()
    after = weights_of(model)
    assert schedule.last_epoch == 1 and not torch.equal(after[0], before[0])
    assert all(torch.equal(new, old) for new, old in zip(after[1:], before[1:], strict=True))


def test_the_collator_and_what_it_is_made_of(kind, tmp_path):
    seen = []

    class Mine(KINDS[kind][2]):
        def get_data_collator(self, model, args, processing_class=None):
            seen.append(processing_class)
            return super().get_data_collator(model, args, processing_class)

    model = model_of(kind)
    own = trainer_of(kind, tmp_path, model, trainer=Mine, processing_class=model.tokenizer)
    assert seen == [model.tokenizer] and own.processing_class is model.tokenizer

    def collate(rows):
        seen.append(len(rows))
        return own.data_collator(rows)

    collate.valid_label_columns = own.data_collator.valid_label_columns
    trainer_of(kind, tmp_path, model, data_collator=collate).train()
    assert seen[1:] == [4]


def test_a_model_that_is_made_for_the_run(kind, tmp_path):
    made = []

    def make():
        made.append(model_of(kind))
        return made[-1]

    trainer = trainer_of(kind, tmp_path, model_init=make)
    trainer.train()
    assert trainer.model is made[-1] and changed(made[-1], weights_of(model_of(kind)))


def test_examples_in_a_loader(kind, tmp_path):
    model = model_of(kind)
    before = weights_of(model)
    examples = [
        InputExample(texts=list(texts), **({"label": label} if kind in LABELLED else {}))
        for *texts, label in zip(*PAIRS.values(), LABELS, strict=True)
    ]
    loader = torch.utils.data.DataLoader(examples, batch_size=2, collate_fn=list)
    trainer_of(kind, tmp_path, model, columns=None, train_dataloader=loader, settings={"max_steps": 2}).train()
    assert changed(model, before)


@pytest.mark.parametrize("name", ["compute_metrics", "preprocess_logits_for_metrics"])
def test_metrics_of_logits_are_not_taken_in_silence(kind, name, tmp_path, caplog):
    with caplog.at_level("WARNING"):
        trainer_of(kind, tmp_path, model_of(kind), **{name: print})
    assert f"{name} has no effect here: give an evaluator instead." in caplog.text


@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_settings_of_every_kind(arguments, tmp_path):
    args = arguments(
        output_dir=str(tmp_path),
        prompts={"query": "q: "},
        batch_sampler="no_duplicates",
        multi_dataset_batch_sampler="round_robin",
        router_mapping={"query": "query"},
        learning_rate_mapping={r"model\.": 1e-2},
        warmup_ratio=0.25,
    )
    assert args.get_warmup_steps(12) == 3
    assert args.batch_sampler is BatchSamplers.NO_DUPLICATES
    assert args.multi_dataset_batch_sampler is MultiDatasetBatchSamplers.ROUND_ROBIN
    assert (args.prompts, args.router_mapping) == ({"query": "q: "}, {"query": "query"})
    assert args.learning_rate_mapping == {r"model\.": 1e-2}
    with pytest.raises(ValueError, match="odd"):
        arguments(output_dir=str(tmp_path), batch_sampler="odd")
