"""Batches cut, joined, packed and padded, against batches written out by hand."""

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
    "flattened": {
        "input_ids": torch.tensor([[5, 6, 7, 8, 9, 10]]),
        "position_ids": torch.tensor([[0, 1, 2, 0, 0, 1]]),
        "cu_seq_lens_q": torch.tensor([0, 3, 4, 6], dtype=torch.int32),
        "max_length_q": 3,
    },
}
VECTORS = torch.arange(12.0).reshape(6, 2)  # of the six tokens
EXPECTED = [VECTORS[:3].tolist(), VECTORS[3:4].tolist(), VECTORS[4:].tolist()]


def with_vectors(layout: str) -> dict[str, Any]:
    """A plain dictionary with vectors of the tokens, of two layers, and of the texts, which are as wide as a batch."""
    vectors = VECTORS
    if layout == "padded":
        vectors = torch.full((3, 3, 2), 7.0)
        vectors[ROWS[layout]["attention_mask"].bool()] = VECTORS
    vectors = vectors[None] if layout == "flattened" else vectors
    texts = torch.arange(9.0).reshape(3, 3)
    more = {"token_embeddings": vectors, "all_layer_embeddings": [vectors, -vectors], "sentence_embedding": texts}
    return ROWS[layout] | more | {"modality": "text"}


def texts_of(features: Features) -> list[list[int]]:
    """The token ids of each text."""
    return [ids.tolist() for ids in features.split("input_ids")]


@pytest.mark.parametrize("layout", ["padded", "packed", "offsets"])
def test_cut_and_joined(layout: str) -> None:
    features = Features.of(ROWS[layout])
    assert features.joinable
    assert (features.layout, features.text_count, features.text_lengths) == (layout, 3, [3, 1, 2])
    assert texts_of(features) == TEXTS
    taken = features.take([2, 1])
    assert texts_of(taken) == [[9, 10], [8]] and taken["input_ids"].numel() == (4 if layout == "padded" else 3)
    joined = Features.join([taken, ROWS[layout]])  # a plain dictionary is one too
    assert texts_of(joined) == [[9, 10], [8], *TEXTS] and joined.signature == features.signature
    assert Features.of(features) is features and texts_of(features) == TEXTS


@pytest.mark.parametrize("layout", ROWS)
def test_split(layout: str) -> None:
    features = Features.of(with_vectors(layout))
    assert (features.layout, features.joinable, features.text_lengths) == (layout, False, [3, 1, 2])
    assert texts_of(features) == TEXTS and features.split("modality") == ["text"] * 3
    assert [rows.tolist() for rows in features.split("token_embeddings")] == EXPECTED
    assert [row.tolist() for row in features.split("sentence_embedding")] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    own = Features.of({**features, "of_a_module": features["token_embeddings"]})  # told by its shape
    assert [rows.tolist() for rows in own.split("of_a_module")] == EXPECTED
    features.split("token_embeddings")[0].zero_()
    assert [rows.tolist() for rows in features.split("token_embeddings")] == EXPECTED


def test_split_where_each_text_is_one_token() -> None:
    features = Features(input_ids=torch.tensor([5, 6]), token_embeddings=torch.ones(2, 4), packing=Packing([1, 1]))
    assert [rows.shape for rows in features.split("token_embeddings")] == [(1, 4), (1, 4)]
    first, second = features.per_text(2)
    assert (first["input_ids"].tolist(), second["input_ids"].tolist()) == ([5], [6])
    assert first["attention_mask"].tolist() == [1] and "packing" not in first


def test_static_vectors_leave_the_tokens_of_a_batch_together() -> None:
    """As version 6.2.0 gives them by `output_value=None`."""
    first, second, third = Features.of(with_vectors("offsets")).per_text(3)
    assert all(text["input_ids"].tolist() == [5, 6, 7, 8, 9, 10] for text in (first, second, third))
    assert (second["offsets"].item(), second["sentence_embedding"].tolist()) == (3, [3, 4, 5])


@pytest.mark.parametrize("layout", ["packed", "flattened"])
def test_padded(layout: str) -> None:
    vectors = VECTORS.clone().requires_grad_()
    given = with_vectors(layout) | {"token_embeddings": vectors[None] if layout == "flattened" else vectors}
    padded = Features.of(given).pad(padding_id=4)
    assert padded.layout == "padded" and padded.pad() is padded
    assert sorted(padded) == sorted({*with_vectors("padded")})  # nothing is left that describes the run
    assert padded["input_ids"].tolist() == [[5, 6, 7], [8, 4, 4], [9, 10, 4]]
    assert padded["attention_mask"].tolist() == ROWS["padded"]["attention_mask"].tolist()
    rows = [text + [[0, 0]] * (3 - len(text)) for text in EXPECTED]
    assert padded["token_embeddings"].tolist() == rows
    assert [layer.tolist() for layer in padded["all_layer_embeddings"]] == [rows, (-torch.tensor(rows)).tolist()]
    (padded["token_embeddings"] * torch.tensor([1.0, 2, 3])[:, None, None]).sum().backward()
    assert vectors.grad is not None and vectors.grad[:, 0].tolist() == [1, 1, 1, 2, 3, 3]
    assert given["input_ids"].shape[-1] == 6 and type(given) is dict


@pytest.mark.parametrize("lengths", [[2, 2], [3, 1], [0, 0], []])
def test_rows_padded(lengths: list[int]) -> None:
    rows, packing = torch.arange(1.0, 2 * sum(lengths) + 1).reshape(-1, 2), Packing(lengths)
    padded, longest = packing.pad(rows, -1), max(lengths, default=0)
    starts = [sum(lengths[:text]) for text in range(len(lengths))]
    expected = [
        [rows[start + place].tolist() if place < length else [-1, -1] for place in range(longest)]
        for start, length in zip(starts, lengths, strict=True)
    ]
    assert padded.tolist() == expected and padded.shape == (len(lengths), longest, 2)
    assert packing.mask.tolist() == [[int(place < length) for place in range(longest)] for length in lengths]
    padded.zero_()
    assert rows.all()


def test_tokens_that_attention_does_not_look_at() -> None:
    """They are tokens of the text, in each layout: `attention_mask` leaves them out, `kept_mask` does not."""
    packed = Features(input_ids=ROWS["packed"]["input_ids"], packing=Packing([3, 1, 2], "cpu", [1, 1, 2]))
    padded = packed.pad()
    assert padded["attention_mask"].tolist() == [[1, 0, 0], [1, 0, 0], [1, 1, 0]]
    assert padded["kept_mask"].tolist() == ROWS["padded"]["attention_mask"].tolist()
    assert texts_of(packed) == texts_of(padded) == TEXTS
    for features in (packed, padded.pack(0), Features.join([packed.take([0]), packed.take([1, 2])])):
        assert (features["packing"].lengths, features["packing"].attention_lengths) == ([3, 1, 2], [1, 1, 2])
    taken = padded.take([1, 0])
    assert (taken.text_lengths, taken["attention_mask"].sum(1).tolist()) == ([1, 3], [1, 1])


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_tokens_kept(layout: str) -> None:
    features = Features.of(with_vectors(layout))
    kept = features.keep(features["input_ids"] % 2 == 1)
    assert kept.text_lengths == [2, 0, 1] and texts_of(kept) == [[5, 7], [], [9]]
    expected = [VECTORS[[0, 2]].tolist(), [], VECTORS[[4]].tolist()]
    assert [rows.tolist() for rows in kept.split("token_embeddings")] == expected
    assert len(kept["all_layer_embeddings"][0]) == len(kept["token_embeddings"])
    assert features.text_lengths == [3, 1, 2]


@pytest.mark.parametrize("attention_lengths", [None, [1, 1, 2]])
def test_columns_of_a_training_batch(attention_lengths: list[int] | None) -> None:
    """Names of columns may begin alike; what a batch holds are tensors and names."""
    packing = Packing([3, 1, 2], "cpu", attention_lengths)
    columns = {"a": Features.of(ROWS["packed"] | {"packing": packing}), "a_b": Features.of(ROWS["padded"])}
    batch = {"label": torch.ones(3)}
    for name, features in columns.items():
        batch |= features.as_column(name)
    assert all(isinstance(value, torch.Tensor) for value in batch.values()) and batch["a_lengths"].tolist() == [3, 1, 2]
    packed, padded = Features.columns(batch)
    assert packed.keys() == ROWS["packed"].keys() and padded.keys() == ROWS["padded"].keys()
    found = packed["packing"]
    assert (found.lengths, found.attention_lengths) == ([3, 1, 2], attention_lengths)
    assert [texts_of(Features.of(features)) for features in (packed, padded)] == [TEXTS, TEXTS]


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
