"""Routes: which one a batch takes, and what the modules inside are given."""

from __future__ import annotations

import logging
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from sentence_transformers import SentenceTransformer
from sentence_transformers.errors import InputError
from sentence_transformers.modules.base import InputModule, Module
from sentence_transformers.modules.dropout import Dropout
from sentence_transformers.modules.normalize import Normalize
from sentence_transformers.modules.router import Router
from sentence_transformers.storage.files import Source


class Lengths(InputModule):
    """One vector per text, all entries the length of the text."""

    def __init__(self, dimension: int = 2, max_seq_length: int | None = None) -> None:
        super().__init__()
        self.dimension = dimension
        if max_seq_length is not None:
            self.max_seq_length = max_seq_length

    def preprocess(self, inputs: Any, prompt: str | None = None, **kwargs: Any) -> dict[str, Any]:
        return {"lengths": torch.tensor([float(len(text)) for text in inputs])}

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return features | {"sentence_embedding": features["lengths"][:, None].repeat(1, self.dimension)}

    def get_embedding_dimension(self) -> int:
        return self.dimension


class Times(Module):
    """Vectors times a factor of the module, and one of the call."""

    forward_kwargs: ClassVar[set[str]] = {"factor"}

    def __init__(self, own: float = 1.0) -> None:
        super().__init__()
        self.own = own

    def forward(self, features: dict[str, Any], factor: float = 1.0, **kwargs: Any) -> dict[str, Any]:
        assert not kwargs
        return features | {"sentence_embedding": features["sentence_embedding"] * self.own * factor}


class Plus(Module):
    """Vectors plus a number of the call, under a name that is set on the instance."""

    def __init__(self) -> None:
        super().__init__()
        self.forward_kwargs = {"more"}

    def forward(self, features: dict[str, Any], more: float = 0.0) -> dict[str, Any]:
        return features | {"sentence_embedding": features["sentence_embedding"] + more}


def router(**kwargs: Any) -> Router:
    return Router({"query": [Lengths(), Times(10)], "document": [Lengths(), Times(100), Plus()]}, **kwargs)


def letters(mappings: dict[Any, str]) -> SentenceTransformer:
    """A model whose routes a, b, c, d give vectors of 1, 2, 3, 4 times the length of the text."""
    routes = {name: [Lengths(), Times(i)] for i, name in enumerate("abcd", 1)}
    return SentenceTransformer(modules=[Router(routes, route_mappings=mappings, allow_empty_key=False)], device="cpu")


def test_features_remember_the_task():
    """What preprocess was told, forward does; a call's own argument wins."""
    model = SentenceTransformer(modules=[router(default_route="document")], device="cpu")
    assert model(model.preprocess(["ab"], task="query"))["sentence_embedding"].tolist() == [[20, 20]]
    assert model(model.preprocess(["ab"]))["sentence_embedding"].tolist() == [[200, 200]]
    assert model(model.preprocess(["ab"], task="query"), task="document")["sentence_embedding"].tolist() == [[200, 200]]


ALL_FOUR = {("query", "text"): "a", ("query", None): "b", (None, "text"): "c", (None, None): "d"}


@pytest.mark.parametrize(
    ("mappings", "task", "modality", "expected"),
    [
        (ALL_FOUR, "query", None, 1),
        (ALL_FOUR, "query", "image", 2),
        (ALL_FOUR, None, None, 3),
        (ALL_FOUR, "other", None, 3),
        (ALL_FOUR, "other", "image", 4),
        (ALL_FOUR, None, "image", 4),
        ({(None, "text"): "c"}, "anything", None, 3),
        ({(None, None): "d"}, "anything", None, 4),
        ({(None, None): "d"}, "anything", "image", 4),
        ({("query", ("text", "image")): "b"}, "query", ("image", "text"), 2),
        ({}, "c", None, 3),
        ({}, None, "b", 2),
    ],
)
def test_route_mappings(mappings, task, modality, expected):
    """The order is (task, modality), (task, any), (any, modality), (any, any), then a route of that name."""
    model = letters(mappings)
    chosen = {"modality": modality} if modality else {}
    features = model.preprocess(["x"], task=task, **chosen)
    assert model(features)["sentence_embedding"].tolist() == [[expected, expected]]
    assert model.encode("x", task=task, **chosen).tolist() == [expected, expected]


def test_a_task_without_a_route_is_refused():
    model = letters({(None, "text"): "c"})
    with pytest.raises(InputError, match="'image' is none that a route is for"):
        model.encode("x", task="query", modality="image")
    with pytest.raises(InputError, match=r"No route for task='query'; routes are \['a', 'b', 'c', 'd'\]"):
        letters({}).encode("x", task="query")


def test_modules_inside_routes_get_their_keyword_arguments():
    """Each module of the chosen route gets those that it takes, and no others; those of no module are refused."""
    model = SentenceTransformer(modules=[router()], device="cpu")
    assert model.get_model_kwargs() == ["factor", "modality", "more", "task"]
    assert model.encode("ab", task="query", factor=3, more=7).tolist() == [60, 60]
    assert model.encode("ab", task="document", factor=3, more=7).tolist() == [607, 607]
    with pytest.raises(InputError, match=r"unknown keyword arguments \['fctor'\]"):
        model.encode("ab", fctor=3)


def test_a_router_inside_a_router():
    """Keyword arguments, task and modality arrive at the innermost modules."""
    inner = Router({"text": [Lengths(), Times(2)], "image": [Lengths(), Times(3)]}, allow_empty_key=False)
    model = SentenceTransformer(modules=[Router({"query": [inner], "document": [Lengths()]})], device="cpu")
    assert model.encode("ab", task="query", factor=5).tolist() == [20, 20]


def test_a_route_is_a_sequence_of_modules():
    """It can be indexed, iterated over, and called on features."""
    routes = router()
    route = routes.sub_modules["document"]
    assert type(route) is nn.Sequential
    assert [type(module) for module in route] == [Lengths, Times, Plus]
    assert route(routes.preprocess(["abc"]))["sentence_embedding"].tolist() == [[300, 300]]


def test_routes_that_do_not_fit_are_said(caplog):
    uneven = Router({"query": [Lengths(3, 5)], "document": [Lengths(4, 9)]})
    with caplog.at_level(logging.WARNING):
        assert uneven.get_embedding_dimension() == 3
        assert uneven.max_seq_length == 9
    first, second = caplog.messages
    assert first == "The routes have different embedding dimensions, {'query': 3, 'document': 4}; the first one counts."
    assert second == "The routes have different max_seq_length, {'query': 5, 'document': 9}; the largest counts."
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        uneven.max_seq_length = 7
        even = Router({"query": [Lengths(3, 5)], "document": [Lengths(3, 5)]})
        assert (even.get_embedding_dimension(), even.max_seq_length, uneven.max_seq_length) == (3, 5, 7)
    assert caplog.messages == []
    with caplog.at_level(logging.WARNING):
        router().max_seq_length = 7
    assert caplog.messages == ["No module of the Router has a max_seq_length that could be set; nothing is cut."]


def test_without_a_tokenizer():
    assert router().tokenizer is None
    assert SentenceTransformer(modules=[router()], device="cpu").tokenizer is None


class OwnDropout(Dropout):
    """Reads the folder of a `Dropout`."""


def test_classes_of_the_caller_in_the_place_of_those_that_are_named(tmp_path):
    routes: dict[str, list[nn.Module]] = {name: [Normalize(), Dropout(0.5)] for name in ("query", "document")}
    Router(routes).save(str(tmp_path))
    names = [folder.name for folder in tmp_path.glob("*Dropout")]
    given: dict[str, type[nn.Module]] = dict.fromkeys(names, OwnDropout)
    for loaded in (
        Router.load(str(tmp_path), module_classes=given),
        Router.from_source(Source(str(tmp_path)), module_classes=given),
    ):
        assert [type(part) for part in loaded.routes["query"]] == [Normalize, OwnDropout]
        assert loaded.routes["document"][1].dropout == 0.5
