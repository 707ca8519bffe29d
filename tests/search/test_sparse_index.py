"""The sparse index: the answers of exact search, however it was filled and stored; damaged folders are refused."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import scipy.sparse
import torch

from sentence_transformers.errors import IndexFormatError, IndexNotFoundError, InputError, SentenceTransformersError
from sentence_transformers.search import sparse_index
from sentence_transformers.search.exact import semantic_search
from sentence_transformers.search.sparse_index import SparseIndex
from sentence_transformers.similarity import dot_score
from tests.search.test_sparse import DOCUMENTS, FORMS, QUERIES, assert_found, random_rows, search_loop

pytestmark = pytest.mark.filterwarnings("ignore:Sparse")
EXPECTED = search_loop(QUERIES, DOCUMENTS, 5)


def sparse(matrix: np.ndarray) -> torch.Tensor:
    return torch.tensor(matrix).to_sparse()


@pytest.fixture
def index() -> SparseIndex:
    return SparseIndex(sparse(DOCUMENTS))


@pytest.fixture
def folder(index, tmp_path):
    index.save(tmp_path / "index")
    return tmp_path / "index"


@pytest.mark.parametrize("form", FORMS)
def test_any_form_of_documents_and_queries(form):
    assert_found(SparseIndex(FORMS[form](DOCUMENTS)).search(FORMS[form](QUERIES), top_k=5), EXPECTED)


@pytest.mark.parametrize("k", [1, 5, 50, 100])
@pytest.mark.parametrize("block_scores", [1, 100, 10**6])
def test_answers_are_those_of_exact_search(index, k, block_scores, monkeypatch):
    monkeypatch.setattr(sparse_index, "BLOCK_SCORES", block_scores)
    found = index.search(sparse(QUERIES), top_k=k)
    assert_found(found, search_loop(QUERIES, DOCUMENTS, k))
    assert found == semantic_search(sparse(QUERIES), sparse(DOCUMENTS), top_k=k, score_function=dot_score)


@pytest.mark.parametrize("sizes", [[50], [1] * 50, [10, 0, 40], [0, 50], [30, 15, 5], [5, 15, 30], [49, 1]])
def test_batches_do_not_matter(sizes, tmp_path):
    index, start = SparseIndex(), 0
    for size in sizes:
        index.add(sparse(DOCUMENTS[start : start + size]))
        start += size
        assert len(index) == start
    assert_found(index.search(sparse(QUERIES), top_k=5), EXPECTED)
    index.save(tmp_path)
    assert_found(index.search(sparse(QUERIES), top_k=5), EXPECTED)
    assert_found(SparseIndex.load(tmp_path).search(sparse(QUERIES), top_k=5), EXPECTED)


def test_few_segments_after_many_additions():
    """One document at a time: at most log2(1000) + 1 inverted indices."""
    index, row = SparseIndex(), sparse(np.ones((1, 3), dtype=np.float32))
    for _ in range(1000):
        index.add(row)
        assert len(index._segments) <= 11
    assert len(index) == 1000


def test_facts(index):
    assert (len(index), index.dimension, repr(index)) == (50, 30, "SparseIndex(50 documents, dimension 30)")
    assert (len(SparseIndex()), SparseIndex().dimension) == (0, None)


def test_nothing_to_find(index):
    assert SparseIndex().search(sparse(QUERIES)) == [[]] * 7
    assert index.search(sparse(QUERIES), top_k=0) == [[]] * 7
    assert index.search(sparse(QUERIES[:0])) == []
    assert SparseIndex(sparse(DOCUMENTS[:0])).search(sparse(QUERIES)) == [[]] * 7
    assert_found(index.search(sparse(QUERIES[2:3]), top_k=2), [[(0, 0.0), (1, 0.0)]])


def test_a_single_query(index):
    assert_found(index.search(sparse(QUERIES[0]), top_k=5), EXPECTED[:1])


@pytest.mark.parametrize(
    "act, message",
    [
        (lambda index: index.add(sparse(DOCUMENTS[:, :7])), r"\(50, 7\).*dimension 30"),
        (lambda index: index.search(sparse(QUERIES[:, :7])), r"query_embeddings.*\(7, 7\).*dimension 30"),
        (lambda index: index.search(sparse(QUERIES), top_k=-1), "top_k"),
        (lambda index: index.add(torch.zeros(2, 3, 30)), r"\(2, 3, 30\)"),
        (lambda index: index.add("text"), "str"),
        (lambda index: index.add(scipy.sparse.csr_array(np.ones((1, 30), complex))), "complex128"),
        (lambda index: SparseIndex().save("nowhere"), "empty"),
    ],
    ids=["documents", "queries", "top_k", "three axes", "text", "complex", "empty"],
)
def test_invalid_arguments(index, act, message):
    with pytest.raises(InputError, match=message):
        act(index)
    assert len(index) == 50


# On disk


@pytest.mark.parametrize("mmap", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_saved_index_gives_the_same_answers(tmp_path, dtype, mmap):
    index = SparseIndex(sparse(DOCUMENTS.astype(dtype)))
    index.save(tmp_path / "deep" / "index")
    loaded = SparseIndex.load(tmp_path / "deep" / "index", mmap=mmap)
    assert repr(loaded) == repr(index)
    assert loaded.search(sparse(QUERIES), top_k=30) == index.search(sparse(QUERIES), top_k=30)
    (segment,) = loaded._segments
    assert segment.values.dtype == dtype
    assert isinstance(segment.values.base, np.memmap) is mmap


@pytest.mark.parametrize("mmap", [True, False])
def test_a_loaded_index_grows_and_is_saved_over_itself(folder, mmap):
    index = SparseIndex.load(folder, mmap=mmap)
    more = random_rows(5, 30, 9)
    index.add(sparse(more))
    expected = search_loop(QUERIES, np.concatenate([DOCUMENTS, more]), 5)
    index.save(folder)
    assert_found(index.search(sparse(QUERIES), top_k=5), expected)
    assert_found(SparseIndex.load(folder).search(sparse(QUERIES), top_k=5), expected)
    assert len(list(folder.iterdir())) == 4


def test_saving_leaves_other_files_alone(index, tmp_path):
    (tmp_path / "my.values.npy").write_text("mine")
    index.save(tmp_path)
    index.save(tmp_path)
    assert (tmp_path / "my.values.npy").read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 5


@pytest.mark.parametrize("step", range(4))
def test_a_save_that_breaks_off_leaves_the_old_index(index, folder, step, monkeypatch):
    """The disk fails while one of the three arrays, or the header, is written."""
    calls = iter(range(4))

    def failing(original):
        def act(*arguments):
            if next(calls) == step:
                raise OSError("No space left on device")
            return original(*arguments)

        return act

    index.add(sparse(DOCUMENTS))
    monkeypatch.setattr(os, "fsync", failing(os.fsync))
    monkeypatch.setattr("pathlib.Path.replace", failing(type(folder).replace))
    with pytest.raises(OSError, match="No space"):
        index.save(folder)
    monkeypatch.undo()
    assert_found(SparseIndex.load(folder).search(sparse(QUERIES), top_k=5), EXPECTED)
    index.save(folder)
    assert len(SparseIndex.load(folder)) == 100
    assert len(list(folder.iterdir())) == 4


def header_with(**changes):
    """A damage: other entries in index.json."""

    def damage(folder):
        header = json.loads((folder / "index.json").read_text())
        (folder / "index.json").write_text(json.dumps({**header, **changes}))

    return damage


def array_of(part, make):
    """A damage: another array in the file of one part."""

    def damage(folder):
        (path,) = folder.glob(f"*.{part}.npy")
        np.save(path, make(np.load(path)), allow_pickle=True)

    return damage


def cut_short(folder):
    (path,) = folder.glob("*.values.npy")
    path.write_bytes(path.read_bytes()[:-10])


def without_values(folder):
    next(folder.glob("*.values.npy")).unlink()


DAMAGES = {
    "not json": (lambda folder: (folder / "index.json").write_text('{"format": '), "not valid JSON"),
    "a list": (lambda folder: (folder / "index.json").write_text("[]"), "does not describe a sparse index"),
    "other format": (header_with(format="faiss"), "does not describe a sparse index"),
    "later version": (header_with(version=2), "version 2.*reads version 1"),
    "no sizes": (header_with(documents=None, postings=-1), "documents, postings"),
    "a path for a generation": (header_with(generation="../other"), "generation"),
    "other dtype": (header_with(dtype="object"), "dtype"),
    "more postings": (header_with(postings=10**6), "promises int32 of shape"),
    "other dimension": (header_with(dimension=31), "promises int64 of shape"),
    "cut short": (cut_short, "values.npy cannot be read"),
    "without values": (without_values, "values.npy cannot be read"),
    "not numpy": (lambda folder: next(folder.glob("*.starts.npy")).write_text("starts"), "starts.npy cannot be read"),
    "pickled": (array_of("documents", lambda a: a.astype(object)), "documents.npy cannot be read"),
    "other type": (array_of("documents", lambda a: a.astype(np.int64)), "int64.*promises int32"),
    "falling starts": (array_of("starts", lambda a: np.concatenate([a[:1], a[1:-1][::-1], a[-1:]])), "damaged"),
    "another end": (array_of("starts", lambda a: a + 1), "damaged"),
}


@pytest.mark.parametrize("mmap", [True, False])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_folders(folder, damage, mmap):
    act, message = DAMAGES[damage]
    act(folder)
    with pytest.raises(IndexFormatError, match=message) as caught:
        SparseIndex.load(folder, mmap=mmap)
    assert isinstance(caught.value, SentenceTransformersError) and isinstance(caught.value, ValueError)
    assert str(folder) in str(caught.value)


def test_no_index(tmp_path):
    for place in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(IndexNotFoundError, match=r"index\.json") as caught:
            SparseIndex.load(place)
        assert isinstance(caught.value, FileNotFoundError)
