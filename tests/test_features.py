"""Batches cut, joined and packed, against batches written out by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sentence_transformers.errors import InputError
from sentence_transformers.features import Features, Packing

TEXTS = [[5, 6, 7], [8], [9, 10]]
ROWS = {
    "padded": {
        "input_ids": torch.tensor([[5, 6, 7], [8, 0, 0], [9, 10, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1], [1, 0, 0], [1, 1, 0]]),
    },
    "packed": {
        "input_ids": torch.tensor([5, 6, 7, 8, 9, 10]),
        "position_ids": torch.tensor([2, 3, 4, 2, 2, 3]),
        "packing": Packing([3, 1, 2]),
    },
    "offsets": {"input_ids": torch.tensor([5, 6, 7, 8, 9, 10]), "offsets": torch.tensor([0, 3, 4])},
}


def texts_of(features: Features) -> list[list[int]]:
    """The token ids of each text."""
    ids = features["input_ids"]
    if features.layout == "padded":
        return [row[mask.bool()].tolist() for row, mask in zip(ids, features["attention_mask"], strict=True)]
    return [part.tolist() for part in ids.split(features.text_lengths)]


@pytest.mark.parametrize("layout", ROWS)
def test_cut_and_joined(layout: str) -> None:
    features = Features.of(ROWS[layout])
    assert (features.layout, features.text_count, features.text_lengths) == (layout, 3, [3, 1, 2])
    assert texts_of(features) == TEXTS
    taken = features.take([2, 1])
    assert texts_of(taken) == [[9, 10], [8]] and taken["input_ids"].numel() == (4 if layout == "padded" else 3)
    joined = Features.join([taken, ROWS[layout]])  # a plain dictionary is one too
    assert texts_of(joined) == [[9, 10], [8], *TEXTS] and joined.signature == features.signature
    assert Features.of(features) is features and texts_of(features) == TEXTS


def test_packed() -> None:
    packed = Features.of(ROWS["padded"]).pack(position_offset=2)
    assert packed.keys() == ROWS["packed"].keys() and packed["packing"].lengths == [3, 1, 2]
    assert all(packed[key].tolist() == ROWS["packed"][key].tolist() for key in ("input_ids", "position_ids"))


def test_entries_of_other_features_are_attributes() -> None:
    features: Any = Features(pixel_values=torch.ones(2, 3), lengths=[4, 5], count=7)
    assert (features.lengths, features.count, features.layout, features.text_count) == ([4, 5], 7, None, 2)
    assert not any(hasattr(features, name) for name in ("kept_mask", "text_lengths", "token_mask"))
    with pytest.raises(InputError, match="how many texts there are; they have modality"):
        Features(modality="text").text_count  # noqa: B018
