"""What the older readers of files are told: columns, separators, ranges."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from sentence_transformers.readers import LabelSentenceReader, STSBenchmarkDataReader, STSDataReader, TripletReader


def written(folder: Path, text: str) -> str:
    (folder / "rows.txt").write_text(text, encoding="utf-8")
    return "rows.txt"


@pytest.mark.parametrize("kind", [STSDataReader, STSBenchmarkDataReader])
@pytest.mark.parametrize(
    ("settings", "label"),
    [
        ({"normalize_scores": False}, 3.0),
        ({"normalize_scores": True, "min_score": 1, "max_score": 5}, 0.5),
        ({"min_score": -1, "max_score": 7}, 0.5),
        ({"max_score": 4}, 0.75),
    ],
)
def test_pairs_with_scores(kind, settings, label, tmp_path):
    name = written(tmp_path, 'x;3;"a; b";c\n')
    reader = kind(
        str(tmp_path), s1_col_idx=2, s2_col_idx=3, score_col_idx=1, delimiter=";", quoting=csv.QUOTE_MINIMAL, **settings
    )
    (example,) = reader.get_examples(name)
    assert (example.texts, example.label) == (["a; b", "c"], label)


def test_quotes_that_are_letters(tmp_path):
    name = written(tmp_path, '"a\tb\t5\n')
    (example,) = STSDataReader(str(tmp_path), quoting=csv.QUOTE_NONE).get_examples(name)
    assert (example.texts, example.label) == (['"a', "b"], 1.0)


def test_triplets(tmp_path):
    name = written(tmp_path, 'x,"a, a",b,c\n')
    reader = TripletReader(
        str(tmp_path), s1_col_idx=1, s2_col_idx=3, s3_col_idx=2, delimiter=",", quoting=csv.QUOTE_MINIMAL
    )
    assert [example.texts for example in reader.get_examples(name)] == [["a, a", "c", "b"]]


def test_labelled_sentences(tmp_path):
    name = written(tmp_path, "one text;x;news\nanother;y;sport\na third;z;news\n")
    reader = LabelSentenceReader(str(tmp_path), label_col_idx=2, sentence_col_idx=0, separator=";")
    examples = reader.get_examples(name)
    assert [example.texts for example in examples] == [["one text"], ["another"], ["a third"]]
    assert [example.label for example in examples] == [0, 1, 0]
