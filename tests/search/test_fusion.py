"""Fusion of rankings, against the formulas with pencil and paper."""

from __future__ import annotations

from fractions import Fraction

import pytest

from sentence_transformers.errors import InputError
from sentence_transformers.search.fusion import reciprocal_rank_fusion, weighted_fusion


def test_reciprocal_ranks_add_up():
    """b is second and first: 1/62 + 1/61; a is first once, c second once."""
    expected = {"b": Fraction(1, 62) + Fraction(1, 61), "a": Fraction(1, 61), "c": Fraction(1, 62)}
    found = reciprocal_rank_fusion([["a", "b"], ["b", "c"]])
    assert [key for key, _ in found] == ["b", "a", "c"]
    assert dict(found) == pytest.approx({key: float(value) for key, value in expected.items()})


def test_reciprocal_ranks_with_weights_and_another_k():
    found = reciprocal_rank_fusion([[7, 8], [9]], k=0, weights=[1, 3])
    assert found == [(9, 3.0), (7, 1.0), (8, 0.5)]


def test_weighted_scores_are_scaled_to_one():
    """(3 − 2) / (4 − 2) = 0.5; a ranking of one document counts fully."""
    found = weighted_fusion([[("a", 4.0), ("b", 3.0), ("c", 2.0)], [("c", -3.0)]], weights=[2, 1])
    assert [key for key, _ in found] == ["a", "b", "c"]
    assert [score for _, score in found] == pytest.approx([2.0, 1.0, 1.0])


def test_equal_scores_keep_the_order_of_appearance():
    assert [key for key, _ in reciprocal_rank_fusion([["x", "y"], ["z", "w"]])] == ["x", "z", "y", "w"]


def test_one_ranking_stays_as_it_is_and_none_is_empty():
    assert [key for key, _ in reciprocal_rank_fusion([[3, 1, 2]])] == [3, 1, 2]
    assert reciprocal_rank_fusion([]) == weighted_fusion([]) == weighted_fusion([[], []]) == []


@pytest.mark.parametrize("weights", [[1], [1, 2, 3], [1, -1], [1, float("nan")], [1, float("inf")]])
def test_weights_must_fit(weights):
    with pytest.raises(InputError, match="2 numbers"):
        reciprocal_rank_fusion([["a"], ["b"]], weights=weights)


def test_other_bad_input():
    with pytest.raises(InputError, match="negative"):
        reciprocal_rank_fusion([["a"]], k=-1)
    with pytest.raises(InputError, match="twice"):
        reciprocal_rank_fusion([["a", "a"]])
    with pytest.raises(InputError, match="twice"):
        weighted_fusion([[("a", 1.0), ("a", 2.0)]])
