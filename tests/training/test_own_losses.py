"""A loss of the caller's gets padded features, as `model.preprocess` gives them."""

from __future__ import annotations

import pytest
import torch
from datasets import Dataset

from sentence_transformers import (
    InputExample,
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
    losses,
    models,
)
from sentence_transformers.evaluation import EmbeddingSimilarityEvaluator
from tests.models import build

ROWS = {"anchor": ["one long text of many words", "b", "c", "d"], "positive": list("efgh")}


@pytest.fixture
def model(tmp_path):
    build("bert", tmp_path / "model")
    return SentenceTransformer(modules=[models.Transformer(str(tmp_path / "model")), models.Pooling(32)], device="cpu")


class TokenLevel(torch.nn.Module):
    """The mean square of the vectors of all tokens, by hand."""

    def __init__(self, model):
        super().__init__()
        self.model, self.seen = model, []

    def forward(self, sentence_features, labels):
        total = 0
        for features in sentence_features:
            out = self.model(dict(features))
            mask = features["attention_mask"]
            self.seen.append(tuple(features["input_ids"].shape))
            assert out["token_embeddings"].shape[:2] == mask.shape == features["input_ids"].shape
            total = total + (out["token_embeddings"] * mask[..., None]).pow(2).sum() / mask.sum()
        return total


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_loss_of_ones_own_sees_texts_by_tokens(model, tmp_path, wrapped):
    own = TokenLevel(model)
    loss = losses.MatryoshkaLoss(model, own, [32, 16]) if wrapped else own
    expected = [tuple(model.preprocess(texts)["input_ids"].shape) for texts in ROWS.values()]
    arguments = SentenceTransformerTrainingArguments(
        str(tmp_path / "out"),
        max_steps=1,
        per_device_train_batch_size=4,
        report_to="none",
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
    )
    SentenceTransformerTrainer(model, arguments, Dataset.from_dict(ROWS), loss=loss).train()
    assert own.seen[:2] == expected


def test_fit_keeps_the_best_model_whatever_the_evaluator_is_called(model, tmp_path):
    data = torch.utils.data.DataLoader([InputExample(texts=["a", "b"], label=0.5)] * 4, batch_size=2)
    scores = []
    for name in ("dev", "eval", "eval_x"):
        evaluator = EmbeddingSimilarityEvaluator(list("abc"), list("def"), [0.1, 0.2, 0.3], name=name)
        model.fit(
            [(data, losses.CosineSimilarityLoss(model))],
            evaluator=evaluator,
            evaluation_steps=1,
            output_path=str(tmp_path / name),
            callback=lambda score, epoch, steps: scores.append(score),
            show_progress_bar=False,
        )
        assert (tmp_path / name / "modules.json").is_file()
    assert len(scores) >= 3
