"""Approximate search: few of the nearest are missed, scores are exact, and filters, deletions and files are as ever."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from sentence_transformers import Index
from sentence_transformers.errors import IndexFormatError
from sentence_transformers.index import graph
from sentence_transformers.index.settings import Settings
from tests.index.cases import unit

COUNT, DIMENSION = 2000, 32
LIBRARIES = ["usearch", "faiss"]
FORMS = [("float32", None), ("int8", None), ("binary", "float32"), ("binary", None)]


def clustered(count: int, seed: int) -> np.ndarray:
    """Vectors around 40 centres, which is what text looks like."""
    centres = np.random.default_rng(0).normal(size=(40, DIMENSION))
    random = np.random.default_rng(seed)
    return (centres[random.integers(40, size=count)] + random.normal(size=(count, DIMENSION))).astype(np.float32)


VECTORS, QUERIES = clustered(COUNT, 1), clustered(50, 2)


@pytest.fixture(autouse=True)
def small_graphs(monkeypatch):
    monkeypatch.setattr(graph, "LEAST", 500)


def filled(**settings) -> Index:
    index = Index(**settings)
    index.add(embeddings=VECTORS[:1500], metadata=[{"n": n % 10} for n in range(1500)])
    index.add(embeddings=VECTORS[1500:], metadata=[{"n": n % 10} for n in range(1500, COUNT)])
    return index


def recall(found: list, right: list) -> float:
    """The share of the right ids that were found."""
    pairs = zip(found, right, strict=True)
    return float(np.mean([len({a.id for a in one} & {b.id for b in other}) / len(other) for one, other in pairs]))


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize(("precision", "rescore"), FORMS)
@pytest.mark.parametrize("similarity", ["cosine", "dot", "euclidean"])
def test_recall(library, precision, rescore, similarity, tmp_path):
    if precision == "binary" and similarity != "cosine":
        pytest.skip("bits are the same for every similarity")
    index = filled(similarity=similarity, precision=precision, rescore=rescore, approximate=library)
    assert [segment.graph is not None for segment in index._state.segments] == [True, True]
    right = index.search(embeddings=QUERIES, exact=True, rescore_multiplier=10)
    found = index.search(embeddings=QUERIES, rescore_multiplier=10)
    least = 0.75 if precision == "binary" else 0.9  # bits of 32 dimensions have few distances, so many ties
    assert recall(found, right) > least
    scores = {(place, hit.id): hit.score for place, hits in enumerate(right) for hit in hits}
    for place, hits in enumerate(found):
        for hit in hits:
            assert hit.score == pytest.approx(scores.get((place, hit.id), hit.score), rel=1e-5, abs=1e-5)
    index.save(tmp_path)
    index.close()
    assert recall(Index.load(tmp_path).search(embeddings=QUERIES, rescore_multiplier=10), right) > least


@pytest.mark.parametrize("library", LIBRARIES)
def test_filters_and_deletions(library, tmp_path):
    index = filled(approximate=library)
    index.save(tmp_path)
    index.delete(list(range(0, COUNT, 2)))
    for given, rows in [(None, range(1, COUNT, 2)), ({"n": 3}, range(3, COUNT, 10))]:
        found = index.search(embeddings=QUERIES, filter=given)
        right = [np.argsort(-(unit(VECTORS[rows]) @ unit(QUERIES[place])), kind="stable")[:10] for place in range(50)]
        ids = [{rows[place] for place in some.tolist()} for some in right]
        assert all({hit.id for hit in hits} <= set(rows) and len(hits) == 10 for hits in found)
        assert np.mean([len({hit.id for hit in hits} & some) / 10 for hits, some in zip(found, ids, strict=True)]) > 0.9


@pytest.mark.parametrize("library", LIBRARIES)
def test_more_hits_than_documents(library):
    found = filled(approximate=library).search(embeddings=QUERIES[0], top_k=3000)
    assert len({hit.id for hit in found}) == len(found) == COUNT


@pytest.mark.parametrize("library", LIBRARIES)
def test_damaged_graphs(library, tmp_path):
    index = filled(approximate=library)
    index.save(tmp_path)
    index.close()
    (path,) = tmp_path.glob("*.graph")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    loaded = Index.load(tmp_path)
    assert len(loaded.search(embeddings=QUERIES[0], exact=True)) == 10
    for use in (
        lambda: loaded.search(embeddings=QUERIES[0]),
        loaded.verify,
        lambda: Index.load(tmp_path, check="open"),
    ):
        with pytest.raises(IndexFormatError, match=r"\.graph is damaged: it does not match its checksum"):
            use()
    path.write_bytes(content[:-1])
    with pytest.raises(IndexFormatError, match=r"\.graph is damaged: it has"):
        Index.load(tmp_path)


def test_small_segments_have_no_graph():
    index = Index(approximate="usearch")
    index.add(embeddings=VECTORS[:499])
    assert index._state.segments[0].graph is None
    assert len(index.search(embeddings=QUERIES)[0]) == 10


class Watched(graph.Graph):
    """A graph whose searches last until they are let go, and which notes the breadth that each of them sees."""

    def __init__(self) -> None:
        super().__init__(Settings(), inner=0)
        self.begun, self.go, self.seen = threading.Semaphore(0), threading.Event(), []

    def _empty(self) -> None: ...
    def _add(self, start, vectors) -> None: ...
    def write(self, path) -> None: ...
    @classmethod
    def read(cls, path, settings): ...

    def _look_at(self, breadth: int) -> None:
        self.inner = breadth

    def _find(self, vectors: np.ndarray, count: int) -> np.ndarray:
        before = self.inner
        self.begun.release()
        self.go.wait(20)
        self.seen.append((count, before, self.inner))
        return np.zeros((len(vectors), 1), np.int64)


def test_searches_do_not_change_each_others_breadth():
    watched = Watched()
    with ThreadPoolExecutor(4) as pool:
        wide = [pool.submit(watched.find, QUERIES[:1], 900) for _ in range(2)]
        assert all(watched.begun.acquire(timeout=20) for _ in wide)  # side by side
        narrow = [pool.submit(watched.find, QUERIES[:1], 10) for _ in range(2)]
        assert not watched.begun.acquire(timeout=0.2)
        watched.go.set()
        for future in wide + narrow:
            future.result(timeout=20)
    assert sorted(watched.seen) == [(10, graph.BREADTH, graph.BREADTH)] * 2 + [(900, 900, 900)] * 2


@pytest.mark.parametrize("library", LIBRARIES)
def test_searches_from_many_threads_find_what_each_finds_alone(library):
    index = filled(approximate=library)
    sizes = [5, 400, 60, 1000] * 8
    alone = {size: [hit.id for hit in index.search(embeddings=QUERIES[0], top_k=size)] for size in set(sizes)}
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda size: index.search(embeddings=QUERIES[0], top_k=size), sizes))
    assert [[hit.id for hit in hits] for hits in found] == [alone[size] for size in sizes]
