"""Laws of the index: what it answers depends on the documents that are in it, not on how they came there."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import safetensors.numpy

from sentence_transformers import Index
from sentence_transformers.errors import IndexLockedError, IndexNotFoundError, InputError
from tests.index.cases import (
    COUNT,
    DIMENSION,
    IDS,
    METADATA,
    QUERIES,
    TEXTS,
    VECTORS,
    assert_hits,
    expected,
    filled,
    vectors,
)

SIMILARITIES = ["cosine", "dot", "euclidean"]
ALL = list(range(COUNT))


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("top_k", [1, 10, COUNT, 10 * COUNT])
def test_answers_are_those_of_sorting_all_scores(similarity, top_k):
    found = filled(Index(similarity=similarity)).search(embeddings=QUERIES, top_k=top_k)
    assert_hits(found, expected(QUERIES, ALL, top_k, similarity))


@pytest.mark.parametrize("sizes", [[COUNT], [1] * 20 + [COUNT - 20], [100, 0, 200], [200, 100], [150, 75, 50, 25]])
@pytest.mark.parametrize("stored", [False, True])
def test_pieces_and_places_do_not_matter(sizes, stored, tmp_path):
    index, start = Index(), 0
    if stored:
        index.save(tmp_path)
    for size in sizes:
        filled(index, range(start, start + size)) if size else index.add(embeddings=VECTORS[:0], texts=[])
        start += size
    assert len(index) == COUNT and list(index.ids) == IDS
    assert_hits(index.search(embeddings=QUERIES), expected(QUERIES, ALL, 10))
    if stored:
        assert_hits(Index.load(tmp_path).search(embeddings=QUERIES), expected(QUERIES, ALL, 10))


def test_saved_and_loaded_gives_the_same_hits(tmp_path):
    index = filled(Index())
    before = index.search(embeddings=QUERIES)
    index.save(tmp_path / "new" / "folder")
    loaded = Index.load(tmp_path / "new" / "folder")
    assert index.search(embeddings=QUERIES) == loaded.search(embeddings=QUERIES) == before
    hit = before[0][0]
    number = IDS.index(hit.id)
    assert (hit.text, hit.metadata) == (TEXTS[number], METADATA[number])
    assert loaded.get(hit.id)[2:] == hit[2:]


@pytest.mark.parametrize("stored", [False, True])
def test_deleted_is_as_if_it_had_never_been_there(stored, tmp_path):
    index = filled(Index())
    if stored:
        index.save(tmp_path)
    gone = [*range(0, COUNT, 3), *range(100, 180, 2)]
    left = [row for row in ALL if row not in gone]
    index.delete([IDS[row] for row in dict.fromkeys(gone)])
    for _ in range(2):
        assert len(index) == len(left) and list(index.ids) == [IDS[row] for row in left]
        assert IDS[0] not in index and IDS[1] in index
        assert_hits(index.search(embeddings=QUERIES, top_k=20), expected(QUERIES, left, 20))
        if stored:
            index = Index.load(tmp_path)
            assert_hits(index.search(embeddings=QUERIES, top_k=20), expected(QUERIES, left, 20))
        index.compact()
    filled(index, dict.fromkeys(gone))
    assert_hits(index.search(embeddings=QUERIES, top_k=20), expected(QUERIES, ALL, 20))


def test_everything_can_be_deleted(tmp_path):
    index = filled(Index())
    index.save(tmp_path)
    index.delete(IDS)
    assert len(index) == 0 and index.search(embeddings=QUERIES) == [[]] * len(QUERIES)
    index.compact()
    assert Index.load(tmp_path).dimension == DIMENSION
    assert [path.name for path in tmp_path.glob("*.safetensors")] == []


def test_replace_puts_new_documents_in_the_place_of_old_ones():
    index = filled(Index())
    index.add(["new"], embeddings=QUERIES[0], ids=[IDS[5]], metadata=[{"new": 1}], replace=True)
    assert len(index) == COUNT
    hit = index.search(embeddings=QUERIES[0], top_k=1)[0]
    assert hit.id == IDS[5] and hit.score == pytest.approx(1) and hit[2:] == ("new", {"new": 1})


@pytest.mark.parametrize("precision", ["float32", "int8", "binary"])
@pytest.mark.parametrize("stored", [False, True])
def test_update_changes_what_is_given_alone(precision, stored, tmp_path):
    index = filled(Index(precision=precision), range(200))
    filled(index, range(200, COUNT))
    if stored:
        index.save(tmp_path)
        filled(index, [])
    rows = [250, 3, 100, 20]
    before = {hit.id: hit for hits in index.search(embeddings=VECTORS[rows], top_k=COUNT) for hit in hits}
    index.update([IDS[row] for row in rows], metadata=[{"new": row} for row in rows])
    after = {hit.id: hit for hits in index.search(embeddings=VECTORS[rows], top_k=COUNT) for hit in hits}
    assert {id: hit.score for id, hit in after.items()} == pytest.approx({id: hit.score for id, hit in before.items()})
    assert all(index.get(IDS[row])[2:] == (TEXTS[row], {"new": row}) for row in rows)
    index.update(IDS[3], "other", embeddings=VECTORS[100])
    assert index.get(IDS[3])[2:] == ("other", {"new": 3})
    two = index.search(embeddings=VECTORS[100], top_k=2)
    assert [hit.id for hit in two] == [IDS[100], IDS[3]] and two[0].score == two[1].score
    assert list(index.ids)[-4:] == [IDS[250], IDS[100], IDS[20], IDS[3]]
    with pytest.raises(InputError, match="The id 'x' is not in the index"):
        index.update(["x", IDS[0]], metadata=[{}, {}])
    with pytest.raises(InputError, match="2 documents, but 1 metadata"):
        index.update([IDS[1], IDS[2]], metadata=[{}])


def test_ids_that_are_not_given_are_new_numbers(tmp_path):
    index = Index()
    assert index.add(embeddings=vectors(3)) == [0, 1, 2]
    assert index.add(embeddings=vectors(2), ids=[10, "a"]) == [10, "a"]
    index.delete([10])
    index.save(tmp_path)
    index.close()
    assert Index.load(tmp_path).add(embeddings=vectors(2)) == [11, 12]


def test_strings_and_numbers_are_different_ids():
    index = Index()
    index.add(embeddings=vectors(2), ids=[1, "1"])
    index.delete("1")
    assert list(index.ids) == [1]


def test_one_query_gives_one_list():
    index = filled(Index())
    assert index.search(embeddings=QUERIES[0]) == index.search(embeddings=QUERIES[:1])[0]
    assert index.search(embeddings=QUERIES.tolist()) == index.search(embeddings=QUERIES)
    assert Index().search(embeddings=QUERIES) == [[]] * len(QUERIES)


def test_equal_scores_are_in_order_of_adding():
    index = Index()
    for number in range(10):
        index.add(embeddings=np.ones((1, 4)), ids=[f"{number}"])
    assert [hit.id for hit in index.search(embeddings=np.ones(4), top_k=5)] == list("01234")


def test_any_file_of_arrays_is_a_safetensors_file(tmp_path):
    filled(Index(similarity="dot")).save(tmp_path)
    (path,) = tmp_path.glob("*.safetensors")
    np.testing.assert_array_equal(safetensors.numpy.load_file(path)["dense.float32"], VECTORS)


# ---- readers and writers


def test_one_writer_many_readers(tmp_path):
    writer = filled(Index(), range(10))
    writer.save(tmp_path)
    reader = Index.load(tmp_path)
    with pytest.raises(IndexLockedError, match="One writer at a time"):
        reader.delete([IDS[0]])
    filled(writer, range(10, 20))
    assert len(reader) == 10
    assert reader.refresh() and not reader.refresh()
    assert len(reader) == 20
    writer.close()
    reader.delete([IDS[0]])
    assert writer.refresh() and len(writer) == 19


def test_a_writer_begins_with_what_others_committed(tmp_path):
    first = filled(Index(), range(10))
    first.save(tmp_path)
    first.close()
    second = Index.load(tmp_path)
    filled(second, range(10, 20))
    second.close()
    filled(first, range(20, 30))
    assert list(first.ids) == IDS[:30]
    with pytest.raises(InputError, match="in the index already"):
        filled(first, [15])


def test_a_reader_keeps_what_it_opened(tmp_path):
    writer = filled(Index())
    writer.save(tmp_path)
    reader = Index.load(tmp_path)
    writer.delete(IDS[:200])
    writer.compact()
    assert_hits(reader.search(embeddings=QUERIES), expected(QUERIES, ALL, 10))


def test_saving_elsewhere_moves_the_index(tmp_path):
    index = filled(Index(), range(10))
    index.save(tmp_path / "a")
    index.save(tmp_path / "b")
    filled(index, range(10, 20))
    assert (len(Index.load(tmp_path / "a")), len(Index.load(tmp_path / "b"))) == (10, 20)
    Index.load(tmp_path / "a").add(embeddings=vectors(1))


def test_saving_replaces_an_index(tmp_path):
    filled(Index()).save(tmp_path)
    index = filled(Index(), range(5))
    index.save(tmp_path)
    assert list(Index.load(tmp_path).ids) == IDS[:5]
    assert len(list(tmp_path.glob("*.safetensors"))) == 1


def test_searches_run_beside_changes(tmp_path):
    """Every search sees some commit: all or none of the documents that one `add` brings."""
    index = filled(Index(), range(100))
    index.save(tmp_path)
    sizes, done = set(), threading.Event()

    def search() -> None:
        while not done.is_set():
            sizes.add(len(index.search(embeddings=QUERIES[0], top_k=COUNT)))

    threads = [threading.Thread(target=search) for _ in range(2)]
    [thread.start() for thread in threads]
    for start in range(100, COUNT, 50):
        filled(index, range(start, start + 50))
    done.set()
    [thread.join() for thread in threads]
    assert sizes and sizes <= {100, 150, 200, 250, 300}


# ---- bad input


def unchanged(index: Index) -> None:
    assert len(index) == COUNT
    assert_hits(index.search(embeddings=QUERIES), expected(QUERIES, ALL, 10))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"embeddings": vectors(2), "ids": ["new", IDS[7]]}, rf"The id '{IDS[7]}' is in the index already"),
        ({"embeddings": vectors(3), "ids": ["a", "b", "a"]}, "The id 'a' is given more than once"),
        ({"embeddings": vectors(1), "ids": [1.5]}, r"number 0 is 1.5 \(float\)"),
        ({"embeddings": vectors(1), "ids": [True]}, "whole numbers; number 0 is True"),
        ({"embeddings": vectors(2), "ids": ["a"]}, "2 documents, but 1 ids"),
        ({"embeddings": vectors(2), "texts": ["a"]}, "2 documents, but 1 texts"),
        ({"embeddings": vectors(2), "texts": ["a", 3]}, "Text number 1 is 3 of type int"),
        ({"embeddings": vectors(2), "metadata": [{}]}, "2 documents, but 1 metadata"),
        ({"embeddings": vectors(2), "metadata": [{}, {"at": {1, 2}}]}, r"number 1, field 'at': \{1, 2\} \(set\)"),
        ({"embeddings": vectors(1), "metadata": [{"x": float("nan")}]}, "field 'x': nan cannot be stored"),
        ({"embeddings": vectors(1), "metadata": [{"x": {"y": {3: 1}}}]}, "field 'x'"),
        ({"embeddings": vectors(1), "metadata": [{3: 1}]}, "has the field 3"),
        ({"embeddings": vectors(1), "metadata": ["a"]}, "must be dictionaries; number 0 is 'a'"),
        ({"embeddings": np.full((2, DIMENSION), np.nan)}, "NaN or infinity in 2 rows, the first is row 0"),
        ({"embeddings": np.full((2, DIMENSION), np.inf)}, "NaN or infinity"),
        ({"embeddings": np.ones((2, 5))}, f"dimension 5, the index has {DIMENSION}"),
        ({"embeddings": np.ones((2, DIMENSION), np.int8)}, "int8 of shape .* expected float"),
        ({"embeddings": np.ones((2, 2, DIMENSION))}, r"shape \(N, H\)"),
        ({"texts": ["a"]}, "has no model for texts"),
        ({}, "texts, `embeddings`, or both"),
    ],
)
def test_bad_documents_change_nothing(arguments, message):
    index = filled(Index())
    with pytest.raises(InputError, match=message):
        index.add(**arguments)
    unchanged(index)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"embeddings": QUERIES, "top_k": 0}, "`top_k` must be a whole number of at least 1, got 0"),
        ({"embeddings": QUERIES, "top_k": -1}, "got -1"),
        ({"embeddings": QUERIES, "top_k": 2.5}, "got 2.5"),
        ({"embeddings": np.ones(5)}, f"dimension 5, the index has {DIMENSION}"),
        ({"embeddings": np.ones(DIMENSION, np.uint8)}, "uint8 of shape"),
        ({"embeddings": np.full(DIMENSION, np.nan)}, "NaN or infinity"),
        ({"queries": "text"}, "has no model for texts"),
        ({"queries": ["a", "b"], "embeddings": QUERIES}, "one entry in each list"),
        ({"queries": ["a", 3], "embeddings": QUERIES}, "Text number 1 is 3"),
        ({"sparse_embeddings": np.ones((1, 9))}, "no vectors of that kind: `sparse_embeddings`"),
        ({"embeddings": QUERIES, "mode": "hybrid"}, "no vectors of that kind: `sparse_embeddings`"),
        ({"embeddings": QUERIES, "mode": "fuzzy"}, "Unknown mode 'fuzzy'; known are None, 'dense', 'sparse'"),
        ({"embeddings": QUERIES, "fusion": "max"}, "Unknown fusion 'max'"),
        ({"embeddings": QUERIES, "candidates": 0}, "`candidates` must"),
        ({"embeddings": QUERIES, "rescore_multiplier": 0}, "`rescore_multiplier` must"),
        ({"embeddings": QUERIES, "reranker": "a"}, "must be a CrossEncoder, got str"),
        (
            {"embeddings": QUERIES, "filter": {"yaer": 1}},
            "the field 'yaer' .* fields are draft, lang, score, tags, year",
        ),
        ({"embeddings": QUERIES, "filter": {"year": {"~": 1}}}, "Unknown operator '~' in the filter of 'year'"),
        ({}, "Give `search` texts"),
    ],
)
def test_bad_queries(arguments, message):
    with pytest.raises(InputError, match=message):
        filled(Index()).search(**arguments)


def test_deleting_what_is_not_there_changes_nothing():
    index = filled(Index())
    with pytest.raises(InputError, match="The ids 'x', 'y' are not in the index"):
        index.delete([IDS[0], "x", "y"])
    unchanged(index)
    with pytest.raises(KeyError):
        index.get("x")


def test_bad_settings():
    with pytest.raises(InputError, match="Unknown similarity 'manhattan'"):
        Index(similarity="manhattan")
    with pytest.raises(InputError, match="`dimension`"):
        Index(dimension=-3)
    with pytest.raises(InputError, match="SentenceTransformer or a SparseEncoder, got str"):
        Index("all-MiniLM-L6-v2")
    with pytest.raises(InputError, match="Unknown precision 'int4'; known are 'float32', 'int8', 'binary'"):
        Index(precision="int4")
    with pytest.raises(InputError, match="'int8' cannot be rescored with 'int8'"):
        Index(precision="int8", rescore="int8")
    with pytest.raises(InputError, match="Unknown approximate 'annoy'"):
        Index(approximate="annoy")


def test_no_index_in_a_folder(tmp_path):
    with pytest.raises(IndexNotFoundError, match=r"index\.json is missing"):
        Index.load(tmp_path)
