"""Arguments of modules, helpers and encoders that no other test gives, by what they change."""

from __future__ import annotations

import json
import logging
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers.base import BaseModel
from sentence_transformers.base.losses import has_static_embedding_input, uses_gradient_cache
from sentence_transformers.multi_vector_encoder.modules import (
    HierarchicalTokenPooling,
    LambdaTokenPooling,
    MultiVectorMask,
)
from sentence_transformers.sparse_encoder.modules import SparseAutoEncoder
from torch import nn
from torch.utils.data import DataLoader

from sentence_transformers import (
    CrossEncoder,
    InputExample,
    LoggingHandler,
    MultiVectorEncoder,
    SentenceTransformer,
    losses,
    models,
    util,
)
from sentence_transformers.errors import InputError
from tests.golden.layouts import GOLDEN

QUERY, DOCUMENT = "a cat sat", "rain fell all night, and more"


# ---- late interaction


@pytest.mark.parametrize("tasks", ["query", ["query", "document"], None])
@pytest.mark.parametrize(
    "pooling",
    [
        lambda tasks: LambdaTokenPooling(lambda vectors: vectors[:1], tasks=tasks),
        lambda tasks: HierarchicalTokenPooling(pool_factor=100, tasks=tasks),
    ],
)
def test_sides_whose_tokens_are_pooled(pooling, tasks):
    """Pooled to one vector, or with the first, which is protected, to two."""
    model = MultiVectorEncoder(str(GOLDEN / "out_mv"), device="cpu")
    whole = {"query": len(model.encode_query(QUERY)), "document": len(model.encode_document(DOCUMENT))}
    found = {
        "query": len(model.encode_query(QUERY, token_pooling=pooling(tasks))),
        "document": len(model.encode_document(DOCUMENT, token_pooling=pooling(tasks))),
    }
    for side, count in found.items():
        assert (count <= 2) == (side in (tasks or ["document"]))
        assert count <= 2 or count == whole[side]


@pytest.mark.parametrize("tasks", ["query", ["query", "document"], None])
def test_sides_that_go_without_skipped_words(tasks):
    model = MultiVectorEncoder(str(GOLDEN / "out_mv"), device="cpu")
    place = next(i for i, module in enumerate(model) if isinstance(module, MultiVectorMask))
    ids = {side: model.preprocess(["rain rain"], task=side)["input_ids"][0].tolist() for side in ("query", "document")}
    word = model.tokenizer.convert_ids_to_tokens(ids["query"])[-2]
    whole, fewer = [], []
    for kept, words in ((whole, []), (fewer, [word])):
        model[place] = MultiVectorMask(skiplist_words=words, skiplist_tasks=tasks)
        model[place].resolve_with_tokenizer(model.tokenizer)
        kept += [len(model.encode("rain rain", task=side)) for side in ("query", "document")]
    token = model.tokenizer.convert_tokens_to_ids(word)
    for side, before, after in zip(("query", "document"), whole, fewer, strict=True):
        assert before - after == (ids[side].count(token) if side in (tasks or ["document"]) else 0)


# ---- routers, auto-encoders


@pytest.mark.parametrize("default", ["query", "document"])
def test_the_default_route(default):
    sides = [
        models.StaticEmbedding(SentenceTransformer(str(GOLDEN / "out_static")).tokenizer, embedding_dim=4) for _ in "qd"
    ]
    router = models.Router.for_query_document([sides[0]], [sides[1]], default_route=default, allow_empty_key=True)
    model = SentenceTransformer(modules=[router], device="cpu")
    expected = SentenceTransformer(modules=[sides[default == "document"]], device="cpu").encode("rain")
    np.testing.assert_array_equal(model.encode("rain"), expected)


def test_a_router_without_a_default_route():
    side = models.StaticEmbedding(SentenceTransformer(str(GOLDEN / "out_static")).tokenizer, embedding_dim=4)
    settings: dict[str, Any] = {"default_route": None}
    router = models.Router.for_query_document([side], [side], allow_empty_key=True, **settings)
    model = SentenceTransformer(modules=[router], device="cpu")
    filled = models.Router.for_query_document([side], [side], allow_empty_key=False, **settings)
    with pytest.raises(InputError, match="route"):
        SentenceTransformer(modules=[filled], device="cpu").encode("rain")
    assert model[0].default_route == "query"  # with allow_empty_key the first route is the default


def test_steps_of_an_auto_encoder():
    torch.manual_seed(0)
    module = SparseAutoEncoder(4, hidden_dim=6, k=2, k_aux=2)
    x = torch.randn(3, 4)
    before = module.encode_pre_act(x=x)
    expected = (x - module.pre_bias) @ module.encoder.weight.T + module.latent_bias
    torch.testing.assert_close(before, expected)
    standard, mean, deviation = module.LN(x=x, eps=0.5)
    torch.testing.assert_close(standard, (x - mean) / (deviation + 0.5))
    torch.testing.assert_close((mean, deviation), (x.mean(1, keepdim=True), x.std(1, keepdim=True)))
    for wanted in (True, False):
        code, aux = module.top_k(x=before, k=2, compute_aux=wanted)
        assert int((code > 0).sum(1).max()) <= 2 and (aux is not None) == wanted


# ---- cross-encoders and `fit`


def test_the_loss_function_of_fit(tmp_path):
    """A loss of one's own is called with scores and labels."""
    seen = []

    class Own(nn.Module):
        def forward(self, scores, labels):
            seen.append((scores.shape, labels.tolist()))
            return scores.square().mean()

    model = CrossEncoder(str(GOLDEN / "out_ce"), device="cpu", num_labels=1)
    rows: Any = [InputExample(texts=["a", "b"], label=1.0), InputExample(texts=["c", "d"], label=0.0)]
    model.fit(DataLoader(rows, batch_size=2), loss_fct=Own(), activation_fct=nn.Tanh(), show_progress_bar=False)
    assert seen == [(torch.Size([2]), [1.0, 0.0])]


def test_pairs_without_labels():
    model = CrossEncoder(str(GOLDEN / "out_ce"), device="cpu", num_labels=1)
    features = model.smart_batching_collate_text_only(batch=[["a cat", "rain"], ["water", "the sun"]])
    expected = model.preprocess([("a cat", "rain"), ("water", "the sun")])
    assert features["input_ids"].tolist() == expected["input_ids"].tolist()


def test_examples_have_numbers():
    assert InputExample(guid="7", texts=["a"]).guid == "7"


# ---- losses: what they are asked


def test_which_losses_work_in_mini_batches():
    model = SentenceTransformer(str(GOLDEN / "out_st"), device="cpu")
    cached = losses.CachedMultipleNegativesRankingLoss(model)
    assert uses_gradient_cache(loss=losses.MatryoshkaLoss(model, cached, [8]))
    assert not uses_gradient_cache(loss=losses.CoSENTLoss(model))
    assert not has_static_embedding_input(model=model)
    assert has_static_embedding_input(model=SentenceTransformer(str(GOLDEN / "out_static"), device="cpu"))


def test_weights_of_matryoshka_in_both_directions():
    """With the last layer alone and no divergence, the loss is that of `MatryoshkaLoss` with the same weights."""
    model = SentenceTransformer(str(GOLDEN / "out_st"), device="cpu").eval()
    inner, width = losses.CosineSimilarityLoss(model), model.get_embedding_dimension()
    features = [model.preprocess(["the cat", "rain"]), model.preprocess(["a dog", "rain fell"])]
    labels, found = torch.tensor([0.9, 0.1]), []
    settings: dict[str, Any] = {"matryoshka_dims": [width, 4], "matryoshka_weights": [1.0, 7.0]}
    last: dict[str, Any] = {"last_layer_weight": 1.0, "prior_layers_weight": 0.0, "kl_div_weight": 0.0}
    for loss in (
        losses.Matryoshka2dLoss(model, inner, **settings, **last, n_dims_per_step=-1, kl_temperature=0.5),
        losses.MatryoshkaLoss(model, inner, **settings),
    ):
        value = loss([dict(column) for column in features], labels)
        found.append(float(value.detach() if isinstance(value, torch.Tensor) else sum(value.values())))
    assert found[0] == pytest.approx(found[1], rel=1e-5)


# ---- helpers


def test_teacher_targets(caplog):
    logits = torch.tensor([[0.0, 400.0]])
    util.check_teacher_targets(
        teacher_probabilities=(logits / 2.0).softmax(1),
        teacher_logits=logits,
        teacher_temperature=2.0,
        loss_name="Mine",
    )
    assert "Mine" in caplog.text
    with pytest.raises(InputError, match="Other: a teacher score is NaN"):
        util.check_teacher_targets(logits, torch.tensor([[float("nan")]]), 1.0, "Other")


def test_levels_of_loggers(capsys, monkeypatch):
    logger = logging.getLogger("tests.levels")
    handler = LoggingHandler(level=logging.ERROR)
    logger.addHandler(handler)
    logger.warning("not said")
    logger.error("said")
    logger.removeHandler(handler)
    written = "".join(capsys.readouterr())
    assert "not said" not in written and "said" in written
    calls: dict[str, Any] = {}
    monkeypatch.setitem(
        sys.modules, "coloredlogs", types.SimpleNamespace(install=lambda **kwargs: calls.update(kwargs))
    )
    util.install_logger(given_logger=logger, level="INFO", fmt="%(message)s")
    assert calls == {"logger": logger, "level": "INFO", "fmt": "%(message)s"}


# ---- models


def test_the_base_of_encoders():
    given = BaseModel(
        model_name_or_path=str(GOLDEN / "out_st"), device="cpu", prompts={"mine": "rain "}, default_prompt_name="mine"
    )
    usual = SentenceTransformer(str(GOLDEN / "out_st"), device="cpu")
    assert given.prompts["mine"] == "rain " and given.default_prompt_name == "mine"
    features = given.preprocess(["a cat"])
    with torch.no_grad():
        found, expected = (model[0](dict(features))["token_embeddings"] for model in (given, usual))
    torch.testing.assert_close(found, expected)
    parts = BaseModel(modules=list(usual), backend="torch")
    assert list(parts) == list(usual) and parts.get_backend() == "torch"


def test_settings_of_the_base_of_encoders():
    folder = str(GOLDEN / "out_st")
    model = BaseModel(
        model_name_or_path=folder,
        device="cpu",
        model_kwargs={"dtype": "bfloat16"},
        processor_kwargs={"model_max_length": 7},
        config_kwargs={"hidden_dropout_prob": 0.25},
    )
    assert next(model.parameters()).dtype == torch.bfloat16
    assert (model.max_seq_length, model[0].config.hidden_dropout_prob) == (7, 0.25)


def test_where_the_tokenizer_comes_from(bert_folder):
    """Its file decides, not that of the model's folder."""
    module = models.Transformer(str(GOLDEN / "out_st"), tokenizer_name_or_path=str(bert_folder), backend="torch")
    assert module.tokenizer.get_vocab() == SentenceTransformer(str(bert_folder)).tokenizer.get_vocab()


def test_settings_given_to_load():
    folder = str(GOLDEN / "out_st")
    module = models.Transformer.load(
        folder, processor_kwargs={"model_max_length": 9}, config_kwargs={"hidden_dropout_prob": 0.25}
    )
    assert (module.max_seq_length, module.config.hidden_dropout_prob) == (9, 0.25)


def test_which_settings_file_is_read(tmp_path):
    Path(tmp_path, "other.json").write_text(json.dumps({"max_seq_length": 5, "model_args": {"a": 1}}))
    found = models.Transformer.load_config(model_name_or_path=str(tmp_path), config_filename="other.json")
    assert found == {"max_seq_length": 5, "model_kwargs": {"a": 1}}
    plain = models.Module.load_config(model_name_or_path=str(tmp_path), config_filename="other.json")
    assert plain["max_seq_length"] == 5


@pytest.mark.parametrize(("safe", "file"), [(True, "model.safetensors"), (False, "pytorch_model.bin")])
def test_the_form_of_saved_weights_by_position(safe, file, tmp_path):
    SparseAutoEncoder(4, hidden_dim=6).save(str(tmp_path), safe)
    assert (tmp_path / file).is_file()
