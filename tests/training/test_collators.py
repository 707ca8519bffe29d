"""What each argument of a data collator does, by what `preprocess_fn` is asked and what the batch holds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sentence_transformers.base import BaseDataCollator
from sentence_transformers.cross_encoder import CrossEncoderDataCollator
from sentence_transformers.multi_vector_encoder import MultiVectorEncoderDataCollator
from sentence_transformers.sentence_transformer import SentenceTransformerDataCollator
from sentence_transformers.sparse_encoder import SparseEncoderDataCollator

COLLATORS = [
    BaseDataCollator,
    SentenceTransformerDataCollator,
    SparseEncoderDataCollator,
    MultiVectorEncoderDataCollator,
]
ROWS = [{"question": "a", "answer": "b", "rating": 0.5}, {"question": "c", "answer": "d", "rating": 1.0}]


class Asked:
    """A `preprocess_fn` that notes what it is asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[str], dict[str, Any]]] = []

    def __call__(self, texts: list[str], **settings: Any) -> dict[str, Any]:
        self.calls.append((texts, {key: value for key, value in settings.items() if value is not None}))
        return {"input_ids": torch.tensor([[ord(text)] for text in texts])}


@pytest.mark.parametrize("collator", COLLATORS)
@pytest.mark.parametrize("by_dataset", [False, True])
def test_arguments_of_collators(collator, by_dataset):
    """As in 6.2.0, by data set where the rows name one; lengths by the side of a column, or by the column too."""
    asked = Asked()
    prompts, routes = {"question": "q: "}, {"question": "query", "answer": "document"}
    collate = collator(
        preprocess_fn=asked,
        valid_label_columns=["rating"],
        router_mapping={"mine": routes} if by_dataset else routes,
        prompts={"mine": prompts} if by_dataset else prompts,
        max_length={"question": 5, "document": 7},
    )
    batch = collate([row | ({"dataset_name": "mine"} if by_dataset else {}) for row in ROWS])
    torch.testing.assert_close(batch["label"], torch.tensor([0.5, 1.0]))
    assert asked.calls == [
        (["a", "c"], {"prompt": "q: ", "task": "query", "max_length": 5}),
        (["b", "d"], {"task": "document", "max_length": 7}),
    ]
    assert batch["question_input_ids"].flatten().tolist() == [97, 99] and "rating_input_ids" not in batch


@pytest.mark.parametrize("collator", COLLATORS)
def test_one_prompt_and_one_length_for_all_columns(collator):
    asked = Asked()
    rows = [{key: row[key] for key in ("question", "answer")} for row in ROWS]
    assert "label" not in collator(asked, prompts="p: ", max_length=3)(rows)
    assert [(said["prompt"], said["max_length"]) for _, said in asked.calls] == [("p: ", 3)] * 2


def test_arguments_of_the_collator_of_pairs():
    """Pairs stay texts; their prompt and route are those of the first column."""
    collate = CrossEncoderDataCollator(
        preprocess_fn=Asked(),
        valid_label_columns=["rating"],
        router_mapping={"mine": {"question": "query"}},
        prompts={"question": "q: ", "answer": "a: "},
    )
    batch = collate(ROWS)
    assert (batch["question"], batch["answer"]) == (["a", "c"], ["b", "d"])
    torch.testing.assert_close(batch["label"], torch.tensor([0.5, 1.0]))
    assert collate.of_pairs(["question", "answer"], "mine") == {"prompt": "q: ", "task": "query"}
    assert collate.of_pairs(["answer"], None) == {"prompt": "a: "}
