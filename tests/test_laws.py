"""The laws that every kind of model keeps, over one list of cases: a new kind is one more entry of `KINDS`.

    alone = together = in any order = in any batch size = packed = padded = after a round trip through disk

What each kind computes is tested in its own file; here only that it does not depend on what it must not depend on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sentence_transformers import CrossEncoder, MultiVectorEncoder, SentenceTransformer, SparseEncoder
from sentence_transformers.features import Features
from sentence_transformers.util import select_max_active_dims
from tests import models
from tests.golden import layouts, multi_vector_cases, score_models

Model = SentenceTransformer | CrossEncoder | SparseEncoder | MultiVectorEncoder


@dataclass(frozen=True)
class Kind:
    """One kind of model.

    Attributes:
        model_class: the class.
        inputs: what it takes, of many lengths, with a duplicate and texts of equal length.
        rows: model, inputs, keyword arguments -> float array of shape (N, …).
        result: name of its result among the features of `forward`.
        folders: name of a case -> function that writes its folder.
    """

    model_class: type[Any]
    inputs: list[Any]
    rows: Callable[..., np.ndarray]
    result: str
    folders: dict[str, Callable[[Path], Any]]


def sparse_rows(model: SparseEncoder, inputs: Sequence[str], **kwargs: Any) -> np.ndarray:
    return model.encode(list(inputs), **kwargs).to_dense().numpy()


def token_rows(model: MultiVectorEncoder, inputs: Sequence[str], **kwargs: Any) -> np.ndarray:
    """Of both sides, filled up with zeros."""
    sides = (model.encode_query(list(inputs), **kwargs), model.encode_document(list(inputs), **kwargs))
    return np.stack([[filled(row) for row in rows] for rows in sides], axis=1)


def filled(row: torch.Tensor) -> np.ndarray:
    return torch.nn.functional.pad(row, (0, 0, 0, 64 - len(row))).numpy()


KINDS = {
    "dense": Kind(
        SentenceTransformer,
        models.TEXTS,
        lambda model, inputs, **kwargs: model.encode(list(inputs), **kwargs),
        "sentence_embedding",
        {
            **{
                name: lambda folder, name=name: models.build(name, folder)
                for name in ("bert", "modernbert", "qwen3", "mpnet", "mobilebert")
            },
            "two poolings, normalised": layouts.LAYOUTS["out_st"],
            "static": layouts.LAYOUTS["out_static"],
        },
    ),
    "cross": Kind(
        CrossEncoder,
        [*score_models.PAIRS, score_models.PAIRS[0], ("yes", "no"), ("no", "yes")],
        lambda model, inputs, **kwargs: model.predict(list(inputs), activation_fn=torch.nn.Identity(), **kwargs),
        "scores",
        score_models.SCORERS,
    ),
    "sparse": Kind(
        SparseEncoder,
        [*score_models.TEXTS, score_models.TEXTS[3], "no yes", "yes no"],
        sparse_rows,
        "sentence_embedding",
        score_models.SPARSE,
    ),
    "late": Kind(
        MultiVectorEncoder,
        [*multi_vector_cases.TEXTS, "no yes", "yes no"],
        token_rows,
        "",
        {name: multi_vector_cases.FOLDERS[name] for name in ("expanding", "at_least", "stanford", "pylate")},
    ),
}
CASES = [(kind, name) for kind, found in KINDS.items() for name in found.folders]


class Case:
    """A model of the list, and its rows of all inputs at once."""

    def __init__(self, kind: str, name: str, folder: Path) -> None:
        self.kind = KINDS[kind]
        self.folder = folder
        self.kind.folders[name](folder)
        self.model = self.kind.model_class(str(folder), device="cpu")
        self.inputs = self.kind.inputs
        self.together = self.rows()

    def rows(self, inputs: Sequence[Any] | None = None, model: Model | None = None, **kwargs: Any) -> np.ndarray:
        return self.kind.rows(model or self.model, self.inputs if inputs is None else inputs, **kwargs)


@pytest.fixture(scope="module", params=CASES, ids=[f"{kind}-{name}" for kind, name in CASES])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(*request.param, tmp_path_factory.mktemp("law"))


def same(actual: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_the_inputs_tell_a_mix_up(case):
    """One row per input; the rows of different inputs differ, so that a wrong order would show."""
    assert len(case.together) == len(case.inputs)
    flat = case.together.reshape(len(case.inputs), -1)
    assert len(np.unique(flat.round(6), axis=0)) >= len(set(case.inputs)) // 3


def test_alone_is_together(case):
    same(np.concatenate([case.rows([one]) for one in case.inputs]), case.together)


@pytest.mark.parametrize("batch_size", [1, 3, 1000])
def test_batch_size_does_not_matter(case, batch_size):
    same(case.rows(batch_size=batch_size), case.together)


def test_order_does_not_matter(case):
    order = np.random.default_rng(0).permutation(len(case.inputs))
    same(case.rows([case.inputs[i] for i in order]), case.together[order])


def test_identical_inputs_have_identical_rows(case):
    twice = case.rows([one for one in case.inputs for _ in range(2)])
    np.testing.assert_array_equal(twice[::2], twice[1::2])


def test_a_pair_of_lanes_is_one(case):
    """Side by side on two cores, or one after the other."""
    threads = torch.get_num_threads()
    try:
        rows = []
        for count in (1, 2):
            torch.set_num_threads(count)
            rows.append(case.rows())
    finally:
        torch.set_num_threads(threads)
    same(rows[0], rows[1])


def test_packed_is_padded(case):
    """The features of a padded batch, through `forward`, give the rows of the engine's packed one."""
    module = case.model[0].resolve(None)
    if not case.kind.result:
        pytest.skip("each side by itself: tests/test_multi_vector.py")
    if not getattr(module, "packs", False) or not hasattr(module, "tokens"):
        pytest.skip("runs padded, in batches of equal length where padding shows")
    tokens = module.tokens(case.inputs, case.model.prompt_text(None, None))
    for packed in (True, False):
        features = module.features(tokens, packed=packed)
        if packed and Features.of(features).layout != "packed":
            pytest.skip("has no layouts: texts are bags of tokens")
        with torch.no_grad():
            found = case.model(features)[case.kind.result].to_dense()
        found = select_max_active_dims(found, getattr(case.model, "max_active_dims", None))
        same(found.numpy().reshape(case.together.shape), case.together)


def test_a_round_trip_through_disk(case, tmp_path):
    case.model.save_pretrained(str(tmp_path / "saved"))
    again = case.kind.model_class(str(tmp_path / "saved"), device="cpu")
    same(case.rows(model=again), case.together)
    assert again.prompts == case.model.prompts
    assert [type(module) for module in again] == [type(module) for module in case.model]
