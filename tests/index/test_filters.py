"""Filters: the table of what each means, and the index against the plain reading, document by document."""

from __future__ import annotations

import random
from typing import Any

import pytest

from sentence_transformers import Index
from sentence_transformers.errors import InputError
from sentence_transformers.search.filters import matches, parse
from tests.index.cases import COUNT, IDS, METADATA, QUERIES, assert_hits, expected, filled

MEANING = [
    ({"a": 1}, {"a": 1}, True),
    ({"a": 1}, {"a": 1.0}, True),
    ({"a": 1}, {"a": True}, False),
    ({"a": True}, {"a": True}, True),
    ({"a": None}, {"a": None}, True),
    ({"a": None}, {}, False),
    ({"a": [1, 2]}, {"a": [1, 2]}, True),
    ({"a": {"==": {"b": 1}}}, {"a": {"b": 1}}, True),
    ({"a": {"!=": 1}}, {"a": 2}, True),
    ({"a": {"!=": 1}}, {}, True),
    ({"a": {"<": 2}}, {"a": 1.5}, True),
    ({"a": {"<": 2}}, {"a": 2}, False),
    ({"a": {"<=": 2}}, {"a": 2}, True),
    ({"a": {">": "b"}}, {"a": "c"}, True),
    ({"a": {">": "b"}}, {"a": 3}, False),
    ({"a": {">": 0}}, {"a": True}, False),
    ({"a": {">": 0}}, {"a": None}, False),
    ({"a": {">": 0}}, {}, False),
    ({"a": {">=": 1, "<": 3}}, {"a": 2}, True),
    ({"a": {">=": 1, "<": 3}}, {"a": 3}, False),
    ({"a": {"in": [1, "x"]}}, {"a": "x"}, True),
    ({"a": {"in": []}}, {"a": "x"}, False),
    ({"a": {"in": [1]}}, {"a": True}, False),
    ({"a": {"not in": [1, "x"]}}, {"a": "x"}, False),
    ({"a": {"not in": [1, "x"]}}, {}, True),
    ({"a": {"contains": "x"}}, {"a": ["x", "y"]}, True),
    ({"a": {"contains": "x"}}, {"a": "axe"}, True),
    ({"a": {"contains": 1}}, {"a": [True]}, False),
    ({"a": {"contains": 1}}, {"a": 1}, False),
    ({"a": {"exists": True}}, {"a": None}, True),
    ({"a": {"exists": False}}, {}, True),
    ({"a": 1, "b": 2}, {"a": 1, "b": 2}, True),
    ({"a": 1, "b": 2}, {"a": 1}, False),
    ({"or": [{"a": 1}, {"b": 2}]}, {"b": 2}, True),
    ({"or": []}, {"b": 2}, False),
    ({"and": []}, {}, True),
    ({}, {"a": 1}, True),
    ({"not": {"a": 1}}, {"a": 2}, True),
    ({"not": {"a": 1, "b": 2}}, {"a": 1}, True),
    ({"a": 1, "or": [{"b": 2}, {"not": {"c": 3}}]}, {"a": 1, "c": 3}, False),
]


@pytest.mark.parametrize(("given", "metadata", "holds"), MEANING)
def test_meaning(given, metadata, holds):
    assert matches(parse(given), metadata) is holds
    index = Index()
    index.add(embeddings=[[1.0, 0.0]] * 3, metadata=[metadata, {**metadata, "z": 1}, {"a": "!", "b": 0, "c": 0}])
    assert [hit.id for hit in index.search(embeddings=[1.0, 0.0], filter=given) if hit.id < 2] == [0, 1] * holds


def some_filter(choose: random.Random, depth: int = 2) -> dict[str, Any]:
    """A filter of random parts over the fields of the test documents."""
    if depth and choose.random() < 0.5:
        name = choose.choice(["and", "or", "not"])
        parts = [some_filter(choose, depth - 1) for _ in range(choose.randint(1, 3))]
        return {name: parts[0] if name == "not" else parts}
    comparisons = [
        {"year": {choose.choice(["<", "<=", ">", ">="]): choose.randint(1985, 2035)}},
        {"year": choose.randint(1990, 2030)},
        {"lang": {choose.choice(["in", "not in"]): choose.sample(["en", "de", "fr", "it"], 2)}},
        {"lang": {"!=": "en"}},
        {"tags": {"contains": f"t{choose.randint(0, 8)}"}},
        {"score": {">": choose.random() * 40}},
        {"score": choose.choice([None, 6.0])},
        {choose.choice(["score", "tags", "draft"]): {"exists": choose.random() < 0.5}},
        {"draft": choose.random() < 0.5},
    ]
    return choose.choice(comparisons) | (choose.choice(comparisons) if choose.random() < 0.3 else {})


def test_filters_of_all_shapes_against_every_document(tmp_path):
    """60 filters, on segments with deleted documents, in memory and on disk, before and after compacting."""
    choose = random.Random(5)
    given = [some_filter(choose) for _ in range(60)]
    index = filled(Index(), range(180))
    filled(index, range(180, COUNT))
    index.save(tmp_path)
    filled(index, [])
    gone = list(range(7, COUNT, 9))
    index.delete([IDS[row] for row in gone])
    sizes = set()
    for place, one in enumerate(given):
        rows = [row for row in range(COUNT) if row not in gone and matches(parse(one), METADATA[row])]
        sizes.add(len(rows))
        assert_hits(index.search(embeddings=QUERIES, top_k=15, filter=one), expected(QUERIES, rows, 15))
        if place == 30:
            index.compact()
    assert len(sizes) > 20 and min(sizes) == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("year > 2000", "A filter is a dictionary"),
        ({"a": {"=": 1}}, "Unknown operator '=' in the filter of 'a'; known are ==, !=, <"),
        ({"a": {}}, "The filter of 'a' is empty"),
        ({"a": {"<": None}}, "takes a number or a string, got None"),
        ({"a": {"<": True}}, "takes a number or a string, got True"),
        ({"a": {"in": "abc"}}, "'in' in the filter of 'a' takes a list of values, got 'abc'"),
        ({"a": {"in": 3}}, "takes a list of values, got 3"),
        ({"a": {"exists": 1}}, "takes True or False, got 1"),
        ({"or": {"a": 1}}, "'or' in a filter takes a list of filters"),
        ({"not": [{"a": 1}]}, "A filter is a dictionary"),
        ({1: 2}, "names of fields, got 1"),
    ],
)
def test_malformed_filters(given, message):
    with pytest.raises(InputError, match=message):
        parse(given)
    with pytest.raises(InputError, match=message):
        Index(dimension=2).search(embeddings=[1.0, 2.0], filter=given)
