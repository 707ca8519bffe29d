"""What stands between a caller's inputs and the tokens: keywords, settings of the tokenizer, kinds of input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sentence_transformers import CrossEncoder, MultiVectorEncoder, SentenceTransformer, SparseEncoder

FORMATS = Path(__file__).resolve().parent / "golden_formats"
SIDES = ("encode_query", "encode_document")
COMMON = {"prompt": None, "batch_size": 32, "show_progress_bar": None, "device": None, "pool": None, "chunk_size": None}
DENSE = {
    "output_value": "sentence_embedding",
    "precision": "float32",
    "convert_to_numpy": True,
    "convert_to_tensor": False,
    "normalize_embeddings": False,
    "truncate_dim": None,
}
SPARSE = {"convert_to_tensor": True, "convert_to_sparse_tensor": True, "save_to_cpu": False, "max_active_dims": None}
TOKENS = {
    "output_value": "token_embeddings",
    "convert_to_numpy": False,
    "normalize_embeddings": False,
    "token_pooling": None,
}
EMBEDDERS = {
    "dense": (SentenceTransformer, "out_st", DENSE),
    "sparse": (SparseEncoder, "out_splade", SPARSE),
    "multi-vector": (MultiVectorEncoder, "out_mv", TOKENS),
}


class Spy:
    """A function that remembers its calls and gives one answer."""

    def __init__(self, answer: Any = None) -> None:
        self.calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self.answer = answer

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls.append((args, kwargs))
        return self.answer


# ---- one call by keywords


@pytest.mark.parametrize("kind", EMBEDDERS)
@pytest.mark.parametrize("method", SIDES)
def test_the_sides_of_a_search_call_encode_once_and_by_name(kind, method):
    """What version 6.2.0 passes on, no more and no less; spies and wrappers read it by name."""
    model_class, folder, own = EMBEDDERS[kind]
    model = model_class(str(FORMATS / folder), device="cpu")
    model.prompts = {"query": "q: ", "passage": "p: "}
    model.encode = spy = Spy("answer")
    task, prompt_name = method.removeprefix("encode_"), {"encode_query": "query", "encode_document": "passage"}[method]
    side = {"prompt_name": prompt_name, "task": task}
    assert getattr(model, method)(["a"]) == "answer"
    assert getattr(model, method)("a", None, "x: ", 4, processing_kwargs={}) == "answer"
    given = {"inputs": "a", "prompt": "x: ", "prompt_name": None, "batch_size": 4, "processing_kwargs": {}}
    assert spy.calls == [
        ((), COMMON | own | side | {"inputs": ["a"]}),
        ((), COMMON | own | side | given),
    ]


@pytest.mark.parametrize("kind", EMBEDDERS)
@pytest.mark.parametrize("method", SIDES)
def test_an_encode_of_ones_own_takes_keywords(kind, method):
    model_class, folder, _ = EMBEDDERS[kind]

    class Shouting(model_class):  # type: ignore[misc, valid-type]
        def encode(self, inputs: Any, **kwargs: Any) -> Any:
            return super().encode([text.upper() + "?" for text in inputs], **kwargs)

    own, plain = Shouting(str(FORMATS / folder), device="cpu"), model_class(str(FORMATS / folder), device="cpu")
    expected = getattr(plain, method)(["YES?", "NO?"])
    found = getattr(own, method)(["yes", "no"])
    for row, right in zip(found, expected, strict=True):
        np.testing.assert_array_equal(dense(row), dense(right))


def dense(row: Any) -> np.ndarray:
    row = row.to_dense() if getattr(row, "is_sparse", False) else row
    return np.asarray(row)


@pytest.mark.parametrize("answer", [np.array([0.1, 0.3, 0.2]), [0.1, 0.3, 0.2]])
def test_rank_calls_predict_once_and_by_name(answer):
    model = CrossEncoder(str(FORMATS / "out_ce"), device="cpu")
    model.predict = spy = Spy(answer)
    ranking = model.rank("q", ["a", "b", "c"], top_k=2, batch_size=4, prompt="p: ")
    assert [result["corpus_id"] for result in ranking] == [1, 2]
    pairs = [["q", "a"], ["q", "b"], ["q", "c"]]
    own = {"inputs": pairs, "prompt_name": None, "activation_fn": None, "convert_to_tensor": True}
    assert spy.calls == [((), COMMON | own | {"prompt": "p: ", "batch_size": 4})]
