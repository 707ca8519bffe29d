"""Qdrant (embedded) and Seismic for real, Elasticsearch and OpenSearch against the double of `doubles`.

What is right is said by a double loop over the weights; all weights are multiples of 1/8, which every engine stores
exactly.
"""

from __future__ import annotations

import importlib.util
import json
import socket
import sys
import time
import warnings

import numpy as np
import pytest
import scipy.sparse
import torch
from sentence_transformers.sparse_encoder import search_engines

from sentence_transformers.connectors.search_engines import common
from sentence_transformers.errors import InputError, MissingExtraError, SearchEngineError
from tests.search.doubles import running

TOKENS = ["the", "cat", "sat", "on", "mat", ".", "##s", "東", "a b", "x", "y", "z"]
HTTP = ("elasticsearch", "opensearch")
NEEDS_SEISMIC = pytest.mark.skipif(
    importlib.util.find_spec("seismic") is None, reason="pyseismic-lsr has no wheel for this Python"
)
SEISMIC = pytest.param("seismic", marks=NEEDS_SEISMIC)
ENGINES = ("qdrant", SEISMIC, *HTTP)


def weights(rows: int, seed: int) -> np.ndarray:
    """Non-negative weights (rows, V), two thirds of them zero; the last row is empty."""
    random = np.random.RandomState(seed)
    matrix = random.randint(1, 40, (rows, len(TOKENS))) / 8 * (random.rand(rows, len(TOKENS)) < 1 / 3)
    matrix[-1] = 0
    return matrix


QUERIES, DOCUMENTS = weights(5, 0), weights(30, 1)


def decoded(matrix: np.ndarray) -> list:
    """As `SparseEncoder.decode` says it: heaviest token first."""
    texts = [[(token, w) for token, w in zip(TOKENS, row.tolist(), strict=True) if w] for row in matrix]
    return [sorted(text, key=lambda pair: -pair[1]) for text in texts]


def sparse(matrix: np.ndarray) -> torch.Tensor:
    return torch.tensor(matrix, dtype=torch.float32).to_sparse()


def expected_hits(queries: np.ndarray, documents: np.ndarray, top_k: int) -> list:
    """Every dot product by hand; no common token, no hit."""
    results = []
    for query in queries.tolist():
        hits = []
        for number, document in enumerate(documents.tolist()):
            if any(q and d for q, d in zip(query, document, strict=True)):
                score = sum(q * d for q, d in zip(query, document, strict=True))
                hits.append({"corpus_id": number, "score": score})
        results.append(sorted(hits, key=lambda hit: (-hit["score"], hit["corpus_id"]))[:top_k])
    return results


@pytest.fixture
def double(request):
    """The running double of the engine that the test is parametrised with; None for those that run for real."""
    name = request.node.callspec.params["engine"]
    if name not in HTTP:
        yield None
        return
    with running(name) as server:
        yield server


@pytest.fixture
def search(engine, double):
    """The engine's function, of plain matrices: `search(queries, documents, **more)`."""
    function = getattr(search_engines, f"semantic_search_{engine}")
    form = sparse if engine == "qdrant" else decoded
    place = {"qdrant": {"location": ":memory:"}, "seismic": {}}.get(engine) or ({"hosts": double.url} if double else {})

    def run(queries, documents=None, **more):
        documents = None if documents is None else form(documents)
        if "corpus_index" not in more:
            more = {**place, **more}
        return function(form(queries), documents, **more)

    return run


def assert_hits(found, expected):
    assert found == expected
    for hits in found:
        assert all(list(hit) == ["corpus_id", "score"] for hit in hits)
        assert all([type(value) for value in hit.values()] == [int, float] for hit in hits)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("top_k", [1, 4, 100])
def test_hits_are_the_greatest_dot_products(engine, search, top_k):
    results, seconds = search(QUERIES, DOCUMENTS, top_k=top_k)
    expected = expected_hits(QUERIES, DOCUMENTS, top_k)
    assert [[hit["score"] for hit in hits] for hits in results] == [[h["score"] for h in hits] for hits in expected]
    if top_k == 100:  # with fewer the engines choose among equal scores as they like
        assert_hits(results, expected)
    assert type(seconds) is float and seconds > 0


@pytest.mark.parametrize("engine", ENGINES)
def test_an_index_is_searched_again(engine, search):
    first, _, index = search(QUERIES, DOCUMENTS, top_k=30, output_index=True)
    again, _, same = search(QUERIES[::-1].copy(), corpus_index=index, top_k=30, output_index=True)
    assert again == first[::-1]
    assert same == index
    assert search(QUERIES[:1], corpus_index=index, top_k=30)[0] == first[:1]


@pytest.mark.parametrize("engine", ["qdrant", *HTTP])
def test_batches_do_not_matter(engine, search, double, monkeypatch):
    monkeypatch.setattr(common, "DOCUMENTS_PER_REQUEST", 7)
    monkeypatch.setattr(common, "QUERIES_PER_REQUEST", 2)
    assert search(QUERIES, DOCUMENTS, top_k=30)[0] == expected_hits(QUERIES, DOCUMENTS, 30)
    if double:
        assert sum(path.startswith("/sparse_index_") and "_bulk" in path for _, path, _ in double.requests) == 5


@pytest.mark.parametrize("engine", ENGINES)
def test_nothing_to_find(engine, search):
    assert search(QUERIES[-1:], DOCUMENTS)[0] == [[]]
    assert search(QUERIES[:2], DOCUMENTS, top_k=0)[0] == [[], []]
    assert search(QUERIES[:0], DOCUMENTS)[0] == []
    assert search(QUERIES[:2], DOCUMENTS[:0])[0] == [[], []]


@pytest.mark.parametrize("form", [torch.Tensor.to_sparse_csr, lambda t: t.to_sparse(), scipy.sparse.csr_array])
def test_qdrant_takes_any_sparse_form(form):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support")
        forms = [form(torch.tensor(matrix, dtype=torch.float32)) for matrix in (QUERIES, DOCUMENTS)]
    results, _ = search_engines.semantic_search_qdrant(*forms, top_k=30, location=":memory:")
    assert results == expected_hits(QUERIES, DOCUMENTS, 30)


def test_qdrant_takes_negative_values_and_a_single_query():
    query, documents = torch.tensor([1.0, -2.0]).to_sparse(), torch.tensor([[1.0, 1.0], [3.0, 0.0]]).to_sparse()
    results, _ = search_engines.semantic_search_qdrant(query, documents, location=":memory:")
    assert results == [[{"corpus_id": 1, "score": 3.0}, {"corpus_id": 0, "score": -1.0}]]


def test_qdrant_layout():
    """The vector is named as by version 6.2.0, so collections are understood both ways."""
    _, _, (client, name) = search_engines.semantic_search_qdrant(
        sparse(QUERIES), sparse(DOCUMENTS), output_index=True, location=":memory:"
    )
    assert name.startswith("sparse_collection_")
    (record,) = client.retrieve(name, [3], with_vectors=True)
    vector = record.vector["text"]
    assert dict(zip(vector.indices, vector.values, strict=True)) == {
        term: value for term, value in enumerate(DOCUMENTS[3]) if value
    }


@NEEDS_SEISMIC
def test_seismic_settings():
    settings = {"index_kwargs": {"n_postings": 10}, "search_kwargs": {"query_cut": 1, "heap_factor": 1.0}}
    query, documents = [[("cat", 2.0), ("mat", 1.0)]], [[("mat", 4.0)], [("cat", 1.0), ("mat", 1.0)], [("cat", 1.0)]]
    results, _ = search_engines.semantic_search_seismic(query, documents, **settings)
    assert results == [[{"corpus_id": 1, "score": 3.0}, {"corpus_id": 2, "score": 2.0}]]  # "mat" alone finds nothing
    with pytest.raises(TypeError, match="telepathy"):
        search_engines.semantic_search_seismic(query, documents, search_kwargs={"telepathy": True})


def test_elasticsearch_requests():
    """The bodies, word for word."""
    with running("elasticsearch") as double:
        search_engines.semantic_search_elasticsearch(
            [[("cat", 1.5), (".", 0.5)]], [[("cat", 1.0), (".", 0.5), ("_", 0.25)], []], top_k=3, hosts=double.url
        )
    requests = [(method, path.partition("?")[0], body) for method, path, body in double.requests]
    ((name, documents),) = double.indices.items()
    assert documents == {"0": {"id": "0", "tokens": {"cat": 1.0, "_": 0.5}}, "1": {"id": "1", "tokens": {}}}
    assert [path for _, path, _ in requests] == [f"/{name}", f"/{name}/_bulk", f"/{name}/_refresh", f"/{name}/_msearch"]
    clauses = [
        {"rank_feature": {"field": "tokens.cat", "linear": {}, "boost": 1.5}},
        {"rank_feature": {"field": "tokens._", "linear": {}, "boost": 0.5}},
    ]
    query = {"bool": {"should": clauses, "minimum_should_match": 1}}
    assert [json.loads(line) for line in requests[-1][2].splitlines()] == [
        {},
        {"size": 3, "_source": False, "query": query},
    ]


def test_opensearch_requests():
    with running("opensearch") as double:
        search_engines.semantic_search_opensearch([[("cat", 1.5), (".", 0.5)]], [[("cat", 1.0)]], hosts=[double.url])
    query = json.loads(double.requests[-1][2].splitlines()[1])
    assert query["query"] == {"neural_sparse": {"tokens": {"query_tokens": {"cat": 1.5, ".": 0.5}}}}


@pytest.mark.parametrize("engine", ["qdrant", *HTTP])
def test_a_ready_client_is_used(engine, search, double):
    _, _, (client, _) = search(QUERIES, DOCUMENTS, output_index=True)
    place = {"location": None} if engine == "qdrant" else {"hosts": None}
    results, _, (same, _) = search(QUERIES, DOCUMENTS, top_k=30, output_index=True, client=client, **place)
    assert same is client
    assert results == expected_hits(QUERIES, DOCUMENTS, 30)


# Bad input


@pytest.mark.parametrize("engine", ENGINES)
def test_without_documents(engine, search):
    with pytest.raises(InputError, match="corpus_index"):
        search(QUERIES)
    with pytest.raises(InputError, match="top_k"):
        search(QUERIES, DOCUMENTS, top_k=-1)


@pytest.mark.parametrize("name", [SEISMIC, *HTTP])
@pytest.mark.parametrize(
    "texts, message",
    [
        (torch.zeros(2, 3), r"Tensor of shape \(2, 3\)"),
        ([("cat", 1.0)], "number 0 is"),
        ([[("cat", 1.0)], [("cat",)]], "number 1 is"),
        ([[(1, 1.0)]], "number 0 is"),
        ([[("cat", "heavy")]], "number 0 is"),
        ([[("cat", -1.0)]], "text 0"),
        ([[("cat", float("nan"))]], "text 0"),
        ("text", "str"),
    ],
    ids=["tensor", "flat", "short pair", "number for a token", "text for a weight", "negative", "nan", "text"],
)
def test_bad_tokens(name, texts, message):
    function = getattr(search_engines, f"semantic_search_{name}")
    with pytest.raises(InputError, match=message):
        function(texts, [[("cat", 1.0)]])
    with pytest.raises(InputError, match=f"(?s){message}.*corpus|corpus.*{message}"):
        function([[("cat", 1.0)]], texts)


@pytest.mark.parametrize("embeddings", [torch.zeros(2, 3), [[1.0]], torch.zeros(2, 2, 2).to_sparse()])
def test_bad_embeddings_for_qdrant(embeddings):
    for arguments in ((embeddings, sparse(DOCUMENTS)), (sparse(QUERIES), embeddings)):
        with pytest.raises(InputError, match="must be a sparse tensor"):
            search_engines.semantic_search_qdrant(*arguments, location=":memory:")


# Engines that fail


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def call(engine: str, url: str, **more):
    function = getattr(search_engines, f"semantic_search_{engine}")
    place = {"url": url} if engine == "qdrant" else {"hosts": [url]}
    form = sparse if engine == "qdrant" else decoded
    return function(form(QUERIES), form(DOCUMENTS), **place, **more)


@pytest.mark.parametrize("engine", ["qdrant", *HTTP])
def test_an_engine_that_is_not_there(engine):
    begin = time.monotonic()
    with pytest.raises(SearchEngineError, match=r"(?i)could not be reached.*nothing was written.*refused") as caught:
        call(engine, f"http://127.0.0.1:{closed_port()}")
    assert isinstance(caught.value, ConnectionError)
    assert engine in str(caught.value).lower()
    assert time.monotonic() - begin < 5


@pytest.mark.parametrize("engine", ["qdrant", *HTTP])
def test_an_engine_that_does_not_answer_in_time(engine):
    with running("opensearch" if engine == "qdrant" else engine) as double:
        double.delay = 3.0
        begin = time.monotonic()
        with pytest.raises(SearchEngineError, match=r"(?i)time"):
            call(engine, double.url, timeout=1)
        assert time.monotonic() - begin < 2.5
        double.delay = 0.0


@pytest.mark.parametrize("revives", [True, False])
@pytest.mark.parametrize("engine", HTTP)
def test_an_engine_that_dies_half_way(engine, revives, monkeypatch):
    """Create, one batch of 10, then the connection is cut at the second batch of 3."""
    monkeypatch.setattr(common, "DOCUMENTS_PER_REQUEST", 10)
    with running(engine) as double:
        double.dies_at, double.revives = 3, revives
        end = "was removed" if revives else "may be left behind"
        with pytest.raises(SearchEngineError, match=f"after 10 of 30 documents were written.*{end}"):
            call(engine, double.url)
        assert bool(double.indices) is not revives


@pytest.mark.parametrize("engine", HTTP)
def test_an_engine_that_dies_while_searching(engine, search, double):
    _, _, index = search(QUERIES, DOCUMENTS, output_index=True)
    double.dies_at = 0
    with pytest.raises(SearchEngineError, match="failed to search the index 'sparse_index_"):
        search(QUERIES, corpus_index=index)
    assert index[1] in double.indices


def test_qdrant_that_dies_half_way(monkeypatch):
    from qdrant_client import QdrantClient
    from qdrant_client.http.exceptions import ResponseHandlingException

    monkeypatch.setattr(common, "DOCUMENTS_PER_REQUEST", 10)
    client, written = QdrantClient(":memory:"), []
    upsert = client.upsert

    def dying(name, points, **more):
        if written:
            raise ResponseHandlingException(ConnectionResetError("connection reset"))
        written.extend(points)
        return upsert(name, points, **more)

    monkeypatch.setattr(client, "upsert", dying)
    with pytest.raises(SearchEngineError, match=r"after 10 of 30 documents were written.*reset.*was removed"):
        search_engines.semantic_search_qdrant(sparse(QUERIES), sparse(DOCUMENTS), client=client)
    assert client.get_collections().collections == []


def test_what_elasticsearch_refuses():
    """A window of more than 10,000 hits, and a server that is not Elasticsearch."""
    with running("elasticsearch") as double, pytest.raises(SearchEngineError, match="Result window is too large"):
        call("elasticsearch", double.url, top_k=10_001)
    with running("opensearch") as double, pytest.raises(SearchEngineError, match="UnsupportedProductError"):
        call("elasticsearch", double.url)


def test_documents_that_are_refused(monkeypatch):
    """An engine with a rule that is not foreseen here: the error has its words, the index is removed."""
    with running("opensearch") as double:
        monkeypatch.setattr(double, "unfit_tokens", lambda tokens: "too heavy" if "cat" in tokens else None)
        with pytest.raises(SearchEngineError, match=r"after 0 of 30 documents.*\d+ documents were refused.*too heavy"):
            call("opensearch", double.url)
        assert double.indices == {}


@pytest.mark.parametrize(
    "engine, module, package",
    [
        ("qdrant", "qdrant_client", "qdrant-client"),
        ("elasticsearch", "elasticsearch", "elasticsearch"),
        ("opensearch", "opensearchpy", "opensearch-py"),
        ("seismic", "seismic", "pyseismic-lsr"),
    ],
)
def test_missing_clients_are_named_with_the_command(engine, module, package, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    function = getattr(search_engines, f"semantic_search_{engine}")
    form = sparse if engine == "qdrant" else decoded
    with pytest.raises(MissingExtraError, match=rf"pip install '{package}'.*'{engine}'"):
        function(form(QUERIES), form(DOCUMENTS))


def test_the_names_are_exported():
    names = {f"semantic_search_{engine}" for engine in ("qdrant", "seismic", *HTTP)}
    assert names | {"SparseIndex"} == set(search_engines.__all__)
    assert all(callable(getattr(search_engines, name)) for name in names)
