"""`resolve_ids`: ids written in several forms, names of the columns that come out, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sentence_transformers import resolve_ids

datasets = pytest.importorskip("datasets")
DOCUMENTS = {"doc_id": ["d1", "d2", "d3"], "text": ["one", "two", "three"]}


@pytest.mark.parametrize(
    ("rows", "lists", "expected"),
    [
        ({"doc_ids": ["['d1', 'd2']", '["d3","d1"]']}, False, {"doc_1": ["one", "three"], "doc_2": ["two", "one"]}),
        (
            {"doc_ids": [" ['d3', 'd2', 'd1']"], "scores": ["[1.0, 0.5, 2]"]},
            True,
            {"docs": [["three", "two"]], "scores": [[1.0, 0.5]]},
        ),
        ({"doc_ids": [("d1", "d2", "d3")], "label": [(1, 2, 3)]}, True, {"docs": [["one", "two"]], "label": [(1, 2)]}),
        ({"doc_id": ["d1"], "label": ["a text"]}, True, {"doc": ["one"], "label": ["a text"]}),
        ({"query_ids": [["d1"]]}, True, {"queries": [["one"]]}),
        ({"candidates": [["d1"]]}, True, {"candidates": [["one"]]}),
        ({"doc_id": [["d1"]]}, True, {"doc": [["one"]]}),
        ({"doc_idx": ["d2"]}, False, {"doc": ["two"]}),
    ],
    ids=range(8),
)
def test_ids_as_lists_texts_and_tuples(rows: Any, lists: bool, expected: Any) -> None:
    lookup = datasets.Dataset.from_dict(DOCUMENTS)
    form: Any = "lists" if lists else "columns"
    assert resolve_ids({next(iter(rows)): lookup}, max_list_length=2, output_format=form)(rows) == expected


@pytest.mark.parametrize(
    ("rows", "options", "error", "says"),
    [
        ({"doc_ids": ["['d1', 'd2'"]}, {}, ValueError, "Column 'doc_ids' has a text that begins as a list and is none"),
        ({"doc_id": ["d1"], "scores": ["[1, a]"]}, {}, ValueError, "Column 'scores' has a text that begins as a list"),
        ({"doc_ids": [["d1"]], "doc_1_id": ["d2"]}, {}, ValueError, "Column 'doc_1' would come out twice"),
        (
            {"docs": [["d1"]], "doc_ids": [["d2"]]},
            {"output_format": "lists"},
            ValueError,
            "'docs' would come out twice",
        ),
        ({"label_id": ["d1"], "label": [1]}, {}, ValueError, "Column 'label' would come out twice"),
        ({"doc_id": ["d1"]}, {"keep_columns": "scores"}, TypeError, "must be a list of names, got the text 'scores'"),
        ({"doc_id": np.array(["d1"])}, {}, TypeError, r"Column 'doc_id' is a ndarray.*with_format\(None\)"),
        ({"doc_id": ["d1"], "label": np.array([1])}, {}, TypeError, r"Column 'label' is a ndarray.*with_format"),
        ({"doc_id": "d1"}, {}, TypeError, "batched=True"),
    ],
    ids=range(9),
)
def test_ids_that_cannot_be_resolved(rows: Any, options: Any, error: type[Exception], says: str) -> None:
    lookup = datasets.Dataset.from_dict(DOCUMENTS)
    with pytest.raises(error, match=says):
        resolve_ids({name: lookup for name in rows if name not in ("scores", "label")}, **options)(rows)


@pytest.mark.parametrize("kind", ["numpy", "pandas", "torch"])
def test_a_formatted_data_set_is_refused(kind: str) -> None:
    resolve = resolve_ids({"doc_id": datasets.Dataset.from_dict({"id": [1], "text": ["one"]})})
    rows = datasets.Dataset.from_dict({"doc_id": [1]})
    with pytest.raises(TypeError, match=r"with_format\(None\)"):
        rows.with_format(kind).map(resolve, batched=True)
    assert rows.map(resolve, batched=True, remove_columns=["doc_id"])[:] == {"doc": ["one"]}


def test_lookups_that_are_none(caplog: pytest.LogCaptureFixture) -> None:
    lookup = datasets.Dataset.from_dict(DOCUMENTS)
    wrong: list[Any] = [(), (lookup,), (lookup, "doc_id", "text", "more")]
    for given in wrong:
        with pytest.raises(ValueError, match=f"got a tuple of {len(given)}"):
            resolve_ids({"doc_id": given})
    for given in ({"d1": "one"}, ("d1", "doc_id"), [lookup, "doc_id"]):
        with pytest.raises(TypeError, match="must hold a Dataset, got"):
            resolve_ids({"doc_id": given})
    assert not caplog.text
    again = datasets.Dataset.from_dict({"id": ["d", "e", "d"], "text": ["first", "x", "last"]})
    assert resolve_ids({"doc_id": again})({"doc_id": ["d"]}) == {"doc": ["last"]}
    assert "has 1 rows whose 'id' occurs again" in caplog.text
