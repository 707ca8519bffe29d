"""Readers, data sets of examples, lookups of ids."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers.datasets import NoDuplicatesDataLoader, SentenceLabelDataset
from sentence_transformers.readers import (
    LabelSentenceReader,
    NLIDataReader,
    PairedFilesReader,
    STSBenchmarkDataReader,
    STSDataReader,
    TripletReader,
)

from sentence_transformers import InputExample, ParallelSentencesDataset, SentencesDataset, resolve_ids
from sentence_transformers.losses import ContrastiveTensionDataLoader
from sentence_transformers.training import dataloaders


def rows(examples: list[InputExample]) -> list[Any]:
    return [(*(example.texts or []), example.label) for example in examples]


def test_readers(tmp_path: Path) -> None:
    (tmp_path / "sts.tsv").write_text("a b\tc\t2.5\nd\te\t5\n")
    assert rows(STSDataReader(str(tmp_path)).get_examples("sts.tsv")) == [("a b", "c", 0.5), ("d", "e", 1.0)]
    (tmp_path / "stsb.csv").write_text("x\tx\tx\tx\t1\tone\ttwo\n")
    assert rows(STSBenchmarkDataReader(str(tmp_path)).get_examples("stsb.csv")) == [("one", "two", 0.2)]
    (tmp_path / "labels.tsv").write_text("good\tyes\nbad\tno\ngood\tfine\n")
    assert rows(LabelSentenceReader(str(tmp_path)).get_examples("labels.tsv", 3)) == [
        ("yes", 0), ("no", 1), ("fine", 0),
    ]  # fmt: skip
    (tmp_path / "t.tsv").write_text("h\th\th\na\tp\tn\n")
    assert rows(TripletReader(str(tmp_path), has_header=True).get_examples("t.tsv")) == [("a", "p", "n", 0)]
    for name, text in (("s1.x.gz", "a\nb\n"), ("s2.x.gz", "c\nd\n"), ("labels.x.gz", "entailment\nneutral\n")):
        with gzip.open(tmp_path / name, "wt") as file:
            file.write(text)
    assert rows(NLIDataReader(str(tmp_path)).get_examples("x.gz")) == [("a", "c", 1), ("b", "d", 2)]
    paired = PairedFilesReader([str(tmp_path / "s1.x.gz"), str(tmp_path / "s2.x.gz")])
    assert rows(paired.get_examples()) == [("a", "c", 1), ("b", "d", 1)]
    with pytest.raises(ValueError, match="column 2 is wanted"):
        TripletReader(str(tmp_path)).get_examples("labels.tsv")
    with pytest.raises(ValueError, match="There is no file"):
        STSDataReader(str(tmp_path)).get_examples("none")


EXAMPLES = [InputExample(texts=[f"t{i}", f"u{i % 5}"], label=i % 3) for i in range(20)]


def test_examples_in_batches() -> None:
    assert len(SentencesDataset(EXAMPLES, None)) == 20
    for batch in NoDuplicatesDataLoader(list(EXAMPLES), 4):
        texts = [text for example in batch for text in example.texts]
        assert len(set(texts)) == len(texts) == 8


@pytest.mark.parametrize("replacement", [True, False])
def test_labels_come_together(replacement: bool) -> None:
    drawn = list(SentenceLabelDataset(EXAMPLES, samples_per_label=2, with_replacement=replacement))
    assert len(drawn) == 20
    assert all(a.label == b.label and a is not b for a, b in zip(drawn[::2], drawn[1::2], strict=True))
    if not replacement:
        assert len({id(example) for example in drawn[:18]}) == 18  # 7, 7 and 6 of a label


@pytest.mark.parametrize(("count", "expected"), [(1, 24), (2, 24), (3, 24), (5, 25), (8, 24)])  # recorded from 6.2.0
def test_an_epoch_has_as_many_examples_as_there_are(count: int, expected: int) -> None:
    examples = [InputExample(texts=[str(i)], label=i % 3) for i in range(24)]
    for replacement in (False, True):
        data = SentenceLabelDataset(examples, samples_per_label=count, with_replacement=replacement)
        assert len(data) == 24 and len(list(data)) == expected


def test_pairs_for_contrastive_tension() -> None:
    batches = list(ContrastiveTensionDataLoader([f"s{i}" for i in range(40)], batch_size=8, pos_neg_ratio=4))
    for batch in batches:
        assert [example.label for example in batch] == [1, 0, 0, 0] * 2
        assert all((example.texts[0] == example.texts[1]) == bool(example.label) for example in batch)
    with pytest.raises(ValueError, match="multiple"):
        ContrastiveTensionDataLoader(["a"], batch_size=3, pos_neg_ratio=2)


def test_translations_have_the_teachers_vector(tmp_path: Path) -> None:
    calls: list[int] = []

    class Teacher:
        def encode(self, texts: list[str], **kwargs: Any) -> np.ndarray:
            calls.append(len(texts))
            return np.array([[float(len(text)), float(ord(text[0]))] for text in texts])

    file = tmp_path / "en-de.tsv.gz"
    with gzip.open(file, "wt") as out:
        out.write("cat\tKatze\nriver\tFluss\n" + "x" * 200 + "\ty\n")
    data = ParallelSentencesDataset(None, Teacher())
    data.load_data(str(file), weight=2)
    assert len(data) == 4
    seen = [data[i] for i in range(40)]
    vectors = {example.texts[0]: tuple(example.label) for example in seen}
    assert vectors == {"cat": (3, 99), "Katze": (3, 99), "river": (5, 114), "Fluss": (5, 114)}
    assert sum(calls) == 2


def test_ids_become_values() -> None:
    datasets = pytest.importorskip("datasets")
    queries = datasets.Dataset.from_dict({"query_id": [1, 2], "query": ["q1", "q2"]})
    documents = datasets.Dataset.from_dict({"id": ["a", "b", "c"], "text": ["A", "B", "C"]})
    batch = {"query_id": [2, 1], "document_ids": [["a", "b"], ["c", "a"]], "scores": [[1, 2], [3, 4]], "x": [0, 0]}
    resolve = resolve_ids({"query_id": queries, "document_ids": documents})
    assert resolve(batch) == {
        "query": ["q2", "q1"], "document_1": ["A", "C"], "document_2": ["B", "A"], "scores": [[1, 2], [3, 4]],
    }  # fmt: skip
    lists = resolve_ids({"document_ids": (documents, "id", "text")}, max_list_length=1, output_format="lists")
    assert lists(batch) == {"documents": [["A"], ["C"]], "scores": [[1], [3]]}
    with pytest.raises(KeyError, match="'z'"):
        resolve({**batch, "document_ids": [["z", "a"], ["a", "b"]]})
    with pytest.raises(ValueError, match="lists"):
        resolve({**batch, "document_ids": [["a"], ["a", "b"]]})
    with pytest.raises(ValueError, match="no single value column"):
        resolve_ids({"id": datasets.Dataset.from_dict({"id": [1], "a": [1], "b": [1]})})


@pytest.mark.parametrize(("count", "expected"), [(9, [[[0, 1], [4, 5]], [[2, 3], [6, 7]]]), (3, [[], []])])
def test_processes_share_the_batches_of_a_loader(
    monkeypatch: pytest.MonkeyPatch, count: int, expected: list[Any]
) -> None:
    """Equally many batches of equal size for each of two processes; what is left over is left out."""
    texts = [{"a": str(i)} for i in range(count)]
    monkeypatch.setattr(dataloaders, "get_world_size", lambda: 2)
    for rank in range(2):
        monkeypatch.setattr(dataloaders, "get_rank", lambda rank=rank: rank)
        loader = [texts[i : i + 2] for i in range(0, len(texts), 2)]
        found = list(dataloaders.BatchStream(loader, lambda rows: [int(row["a"]) for row in rows]))
        assert found == expected[rank]
