"""Pooling: its settings, and the layouts that it reads."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

from sentence_transformers.errors import InputError
from sentence_transformers.modules.cnn import CNN
from sentence_transformers.modules.lstm import LSTM
from sentence_transformers.modules.multi_vector_mask import MultiVectorMask
from sentence_transformers.modules.pooling import Pooling
from sentence_transformers.modules.splade_pooling import SpladePooling
from sentence_transformers.modules.token_pooling import LambdaTokenPooling
from sentence_transformers.modules.word_weights import WordWeights

ROWS = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0], [9.0, 10.0]]
TEXTS = [ROWS[:3], ROWS[3:]]
IDS = [[1, 2, 3], [2, 1]]


def flattened(**more: Any) -> dict[str, Any]:
    """Two texts of three and two tokens, as transformers' collator for padding-free batches has them."""
    bounds = torch.tensor([0, 3, 5], dtype=torch.int32)
    return {
        "token_embeddings": torch.tensor([ROWS]),
        "input_ids": torch.tensor([[*IDS[0], *IDS[1]]]),
        "position_ids": torch.tensor([[0, 1, 2, 0, 1]]),
        "seq_idx": torch.tensor([[0, 0, 0, 1, 1]]),
        "cu_seq_lens_q": bounds,
        "cu_seq_lens_k": bounds,
        "max_length_q": 3,
        "max_length_k": 3,
        **more,
    }


def padded() -> dict[str, Any]:
    return {
        "token_embeddings": torch.tensor([TEXTS[0], [*TEXTS[1], [50.0, 60.0]]]),
        "input_ids": torch.tensor([IDS[0], [*IDS[1], 0]]),
        "attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]]),
    }


def by_hand(rows: list[list[float]], mode: str, skip: int = 0) -> list[float]:
    """One text, number by number."""
    places = range(skip, len(rows))
    if mode == "cls":
        return rows[skip]
    if mode == "lasttoken":
        return rows[-1]
    columns = [[rows[i][j] for i in places] for j in range(2)]
    if mode == "max":
        return [max(column) for column in columns]
    weights = [i + 1.0 if mode == "weightedmean" else 1.0 for i in places]
    total = sum(weights) ** 0.5 if mode == "mean_sqrt_len_tokens" else sum(weights)
    return [sum(w * x for w, x in zip(weights, column, strict=True)) / total for column in columns]


@pytest.mark.parametrize("skip", [0, 1])
@pytest.mark.parametrize("mode", [*Pooling.POOLING_MODES, ("cls", "mean"), ("max", "weightedmean", "lasttoken")])
def test_a_flattened_batch_is_pooled_text_by_text(mode, skip):
    modes = [mode] if isinstance(mode, str) else mode
    expected = [[x for one in modes for x in by_hand(rows, one, skip)] for rows in TEXTS]
    features = Pooling(2, mode, include_prompt=not skip)(flattened(prompt_length=1))
    torch.testing.assert_close(features["sentence_embedding"], torch.tensor(expected))
    assert features["token_embeddings"].shape == (1, 5, 2)


@pytest.mark.parametrize(
    "module",
    [
        SpladePooling("max"),
        SpladePooling("sum"),
        CNN(2, 3),
        LSTM(2, 3),
        WordWeights(["a", "b", "c", "d"], {"b": 2.0, "c": 3.0}),
        LambdaTokenPooling(lambda rows: rows[:1] + rows[-1:]),
        MultiVectorMask(keep_only_token_ids=[1, 3]),
    ],
    ids=lambda module: type(module).__name__,
)
def test_modules_that_mix_tokens_see_the_texts_of_a_flattened_batch(module):
    """The result is that of the padded batch, wherever a token counts."""
    results = []
    for batch in (flattened(), padded()):
        features = module(batch)
        if "sentence_embedding" in features:
            results.append(features["sentence_embedding"])
        else:
            results.append(features["token_embeddings"][features["attention_mask"].bool()])
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("length", [1, torch.tensor(1), torch.tensor([1]), torch.tensor([1, 1]), [1, 1]])
def test_prompt_length_once_or_for_each_text(length):
    features = Pooling(2, "mean", include_prompt=False)(padded() | {"prompt_length": length})
    assert features["sentence_embedding"].tolist() == [[4, 5], [9, 10]]


def test_prompts_of_different_length_are_refused():
    with pytest.raises(InputError, match=r"must be equally long, got prompt_length \[1, 2\]"):
        Pooling(2, include_prompt=False)(padded() | {"prompt_length": torch.tensor([1, 2])})


def test_several_modes_are_a_tuple():
    assert Pooling(2, ["cls", "mean"]).pooling_mode == ("cls", "mean")
    assert Pooling(2, ["mean"]).pooling_mode == "mean"


def test_older_booleans_warn_where_they_are_given(tmp_path):
    with pytest.warns(FutureWarning, match=r"use pooling_mode=\('cls', 'mean'\)") as caught:
        pooling = Pooling(2, pooling_mode_mean_tokens=True, pooling_mode_cls_token=True)
    assert caught[0].filename == __file__
    assert pooling.pooling_mode == ("cls", "mean")
    (tmp_path / "config.json").write_text('{"word_embedding_dimension": 2, "pooling_mode_max_tokens": true}')
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Pooling.load(str(tmp_path)).pooling_mode == "max"
    with pytest.raises(TypeError, match="give one of them"):
        Pooling(2, "mean", pooling_mode_cls_token=True)
