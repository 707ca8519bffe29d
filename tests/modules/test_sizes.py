"""Modules say how large they are, under the names that code asks them by."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sentence_transformers.models import BoW, StaticEmbedding, WordEmbeddings
from sentence_transformers.models.tokenizer import WhitespaceTokenizer
from sentence_transformers.sparse_encoder.models import SparseStaticEmbedding
from tokenizers import Tokenizer, models

from sentence_transformers import SentenceTransformer
from sentence_transformers.errors import InputError
from tests.golden import layouts

TOKENIZER = Tokenizer(models.WordLevel({"a": 0, "b": 1, "[UNK]": 2}, unk_token="[UNK]"))


def test_sizes_of_tables():
    static = StaticEmbedding(TOKENIZER, embedding_weights=np.zeros((3, 5), np.float32))
    assert (static.num_embeddings, static.embedding_dim) == (3, 5)
    assert StaticEmbedding(TOKENIZER, embedding_dim=5, base_model="bert").base_model == "bert"
    with pytest.raises(TypeError, match="embedding_dims"):
        StaticEmbedding(TOKENIZER, embedding_dims=5)
    assert WordEmbeddings(WhitespaceTokenizer(["a", "b"]), torch.ones(2, 7)).embeddings_dimension == 7
    assert BoW(["a", "b", "c"]).sentence_embedding_dimension == 3
    assert SparseStaticEmbedding(TOKENIZER).num_dimensions == 3


@pytest.fixture
def model(tmp_path) -> SentenceTransformer:
    layouts.LAYOUTS["dense_with_old_keys"](tmp_path / "model")
    return SentenceTransformer(str(tmp_path / "model"), device="cpu")


def test_lower_case_may_be_set(model):
    """From then on texts are tokenised as their lower-case forms; that cannot be taken back."""
    transformer = model[0]
    assert transformer.do_lower_case is False
    lower = model.encode("a text").tolist()
    transformer.do_lower_case = True
    assert transformer.do_lower_case is True
    assert model.encode("A TEXT").tolist() == lower
    with pytest.raises(InputError, match="give the module another tokenizer"):
        transformer.do_lower_case = False


def test_first_and_last_module(model):
    assert model._first_module() is model[0]
    assert model._last_module() is model[-1]


def test_target_device_is_the_device(model, caplog):
    """Reading it gives the device; setting it moves the model; both say what to use instead."""
    assert model._target_device == torch.device("cpu")
    model._target_device = torch.device("meta")
    assert model.device == torch.device("meta")
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    reading, setting = caplog.messages
    assert reading == "_target_device is deprecated; use model.device."
    assert setting == "_target_device is deprecated; use model.to(device)."
