"""Vector databases: PostgreSQL with pgvector and embedded Qdrant for real, Elasticsearch and OpenSearch by the doubles.

What is right is said by loops over plain numbers. Values are multiples of 1/8, which half precision stores exactly.
"""

from __future__ import annotations

import math
import pickle
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
import torch
from qdrant_client import QdrantClient
from sentence_transformers.databases import (
    Database,
    ElasticsearchDatabase,
    OpenSearchDatabase,
    PostgresDatabase,
    QdrantDatabase,
    upload,
)

from sentence_transformers import SentenceTransformer, SparseEncoder
from sentence_transformers.connectors.common import Batch
from sentence_transformers.errors import DatabaseWriteError, InputError, MissingExtraError, SearchEngineError
from sentence_transformers.quantization import quantize_embeddings
from sentence_transformers.search.filters import matches, parse
from tests.models import TEXTS
from tests.search import postgres
from tests.search.doubles import EngineDouble, running

CLASSES = {
    "qdrant": QdrantDatabase,
    "postgres": PostgresDatabase,
    "elasticsearch": ElasticsearchDatabase,
    "opensearch": OpenSearchDatabase,
}
FORMS = [
    (name, precision, metric)
    for name, one in CLASSES.items()
    for precision in one.precisions
    for metric in ({"sparse": ("dot",), "binary": ("hamming",)}.get(precision) or one.metrics)
]
H = 16
PLACES = ("Rome", "Oslo", "Lima")


def numbers(rows: int, seed: int) -> np.ndarray:
    """(rows, H) multiples of 1/8 between −2 and 2; no row is zero."""
    return np.random.RandomState(seed).choice(np.delete(np.arange(-16, 17), 16), (rows, H)) / 8


def weights(rows: int, seed: int) -> np.ndarray:
    """The same without negative values, and half of them zero."""
    return np.abs(numbers(rows, seed)) * (np.random.RandomState(seed + 9).rand(rows, H) < 1 / 2)


METADATA = [
    {
        "place": PLACES[n % 3],
        "n": n,
        "half": n / 2,
        "even": n % 2 == 0,
        "tags": [f"t{n % 4}"],
        **({"odd": n} if n % 2 else {}),
    }
    for n in range(40)
]


def score(metric: str, a: list[float], b: list[float]) -> float:
    """The greater the better."""
    pairs = list(zip(a, b, strict=True))
    if metric == "cosine":
        return sum(x * y for x, y in pairs) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))
    if metric == "dot":
        return sum(x * y for x, y in pairs)
    if metric == "euclidean":
        return -math.sqrt(sum((x - y) ** 2 for x, y in pairs))
    return -sum(abs(x - y) for x, y in pairs) if metric == "manhattan" else -sum((x > 0) != (y > 0) for x, y in pairs)


def best(metric: str, queries: np.ndarray, documents: np.ndarray, top_k: int, allowed: Any = None) -> list[list[float]]:
    """The scores of the best documents; of sparse vectors those that share no dimension are none."""
    results = []
    for query in queries.tolist():
        found = [score(metric, query, one) for n, one in enumerate(documents.tolist()) if not allowed or n in allowed]
        results.append(sorted(found, reverse=True)[:top_k])
    return results


@pytest.fixture(scope="module")
def postgres_server() -> Iterator[str]:
    """Where a real PostgreSQL with pgvector runs."""
    try:
        with postgres.running() as conninfo:
            yield conninfo
    except postgres.NoPostgres as error:
        pytest.skip(str(error))


@pytest.fixture
def double(request: pytest.FixtureRequest) -> Iterator[EngineDouble | None]:
    """The double of the engine in the test's parameters, if it has one."""
    name = request.node.callspec.params["name"] if hasattr(request.node, "callspec") else None
    if name not in ("elasticsearch", "opensearch"):
        yield None
        return
    with running(name) as server:
        yield server


Make = Callable[..., Database]


@pytest.fixture
def make(name: str, double: EngineDouble | None, request: pytest.FixtureRequest) -> Iterator[Make]:
    """Makes databases of the kind in the test's parameters; they are emptied and closed at the end."""
    place: dict[str, Any] = {"hosts": double.url} if double else {}
    if name == "qdrant":
        place = {"client": QdrantClient(":memory:")}
    if name == "postgres":
        place = {"conninfo": request.getfixturevalue("postgres_server")}
    with ExitStack() as ends:

        def database(collection: str = "documents", **settings: Any) -> Database:
            made = CLASSES[name](collection, **{**place, **settings})
            ends.callback(made.close)
            ends.callback(made.drop)
            return made

        yield database


@pytest.fixture
def database(make: Make) -> Database:
    return make()


EACH = pytest.mark.parametrize("name", CLASSES)


# ---- search


@pytest.mark.parametrize(("name", "precision", "metric"), FORMS)
def test_hits_are_the_best_scores(make: Make, precision: str, metric: str) -> None:
    numbers_of = weights if precision == "sparse" else numbers
    documents, queries = numbers_of(40, 0), numbers_of(5, 1)
    form = (lambda x: torch.tensor(x).to_sparse()) if precision == "sparse" else (lambda x: x)
    database = make(precision=precision, metric=metric)
    assert database.write([([f"d{n}" for n in range(40)], form(documents), METADATA)]) == 40
    results = database.search(form(queries), top_k=7)
    scores = [[hit.score for hit in hits] for hits in results]
    np.testing.assert_allclose(scores, best(metric, queries, documents, 7), rtol=1e-5, atol=1e-5)
    for query, hits in zip(queries.tolist(), results, strict=True):
        for hit in hits:
            number = int(hit.id[1:])
            assert hit.score == pytest.approx(score(metric, query, documents[number].tolist()), abs=1e-4)
            assert hit.metadata == METADATA[number]


@EACH
def test_integer_ids_forms_and_one_query(make: Make) -> None:
    """Numpy, torch and lists; ids of numpy; a query (H,) is one query; fewer documents than asked for."""
    database, documents = make(), numbers(3, 3)
    database.write([(np.array([7]), documents[:1]), ([8], torch.tensor(documents[1:2]), [{"a": 1}])])
    database.write([([9], documents[2:].tolist(), None)])
    (hits,) = database.search(documents[1], top_k=10)
    assert {hit.id for hit in hits} == {7, 8, 9} and all(type(hit.id) is int for hit in hits)
    assert hits[0] == (8, pytest.approx(1, abs=1e-5), None, {"a": 1})
    assert database.search(documents, top_k=0) == [[], [], []]


FILTERS: list[tuple[dict[str, Any], Callable[[dict[str, Any]], bool]]] = [
    ({}, lambda m: True),
    ({"place": "Rome"}, lambda m: m["place"] == "Rome"),
    ({"place": {"in": ["Rome", "Oslo"]}}, lambda m: m["place"] in ("Rome", "Oslo")),
    ({"place": {"in": []}}, lambda m: False),
    ({"place": {"not in": ["Rome", "Oslo"]}}, lambda m: m["place"] == "Lima"),
    ({"n": 12}, lambda m: m["n"] == 12),
    ({"n": {"!=": 12}}, lambda m: m["n"] != 12),
    ({"half": 2.5}, lambda m: m["half"] == 2.5),
    ({"half": 2}, lambda m: m["half"] == 2),
    ({"even": True}, lambda m: m["even"]),
    ({"tags": {"contains": "t3"}}, lambda m: "t3" in m["tags"]),
    ({"n": {">=": 5, "<": 20}}, lambda m: 5 <= m["n"] < 20),
    ({"half": {">": 3.5, "<=": 9}}, lambda m: 3.5 < m["half"] <= 9),
    ({"place": "Lima", "n": {">": 10}}, lambda m: m["place"] == "Lima" and m["n"] > 10),
    ({"or": [{"n": 3}, {"not": {"half": {"<": 18}}}]}, lambda m: m["n"] == 3 or m["half"] >= 18),
    ({"or": []}, lambda m: False),
    ({"and": []}, lambda m: True),
    ({"odd": {"exists": True}}, lambda m: "odd" in m),
    ({"odd": {"exists": False}}, lambda m: "odd" not in m),
    ({"odd": {"!=": "x"}}, lambda m: True),
    ({"place": {">": 1}}, lambda m: False),
    ({"nothing": "x"}, lambda m: False),
]
NOT_IN_QDRANT = [
    ({"place": {"contains": "o"}}, lambda m: "o" in m["place"]),
    ({"place": {"contains": "*"}}, lambda m: False),
    ({"place": {"<": "Oslo"}}, lambda m: m["place"] < "Oslo"),
]


@pytest.mark.parametrize("precision", ["float32", "sparse"])
@EACH
def test_filters(name: str, make: Make, precision: str) -> None:
    """Each filter chooses what it says."""
    documents, queries = weights(40, 0) + 1 / 8, weights(2, 1) + 1 / 8
    metric = "dot"
    database = make(precision=precision, metric=metric)
    database.write([(range(40), documents, METADATA)])
    if name == "qdrant":
        for filter, _ in NOT_IN_QDRANT[2:]:
            with pytest.raises(InputError, match="Qdrant cannot filter by"):
                database.search(queries, filter=filter)
    for filter, passes in FILTERS + (NOT_IN_QDRANT if name != "qdrant" else []):
        by_language = {n for n in range(40) if matches(parse(filter), METADATA[n])}
        assert by_language == {n for n in range(40) if passes(METADATA[n])}, filter
        allowed = {n for n, entry in enumerate(METADATA) if passes(entry)}
        results = database.search(queries, top_k=40, filter=filter)
        assert [{hit.id for hit in hits} for hits in results] == [allowed, allowed], filter
    results = database.search(queries, top_k=3, filter={"place": "Oslo"})
    oslo = {n for n in range(40) if n % 3 == 1}
    scores = [[hit.score for hit in hits] for hits in results]
    np.testing.assert_allclose(scores, best(metric, queries, documents, 3, oslo), rtol=1e-5)


@pytest.mark.parametrize("filter", [[1], {"a": {}}, {"a": {"above": 1}}, {"a": {"<": None}}, {1: 2}])
def test_filters_of_another_form(filter: Any) -> None:
    with pytest.raises(InputError, match="filter"):
        QdrantDatabase("x", location=":memory:").search(numbers(1, 0), filter=filter)


# ---- writing


@EACH
def test_what_is_there_is_replaced(database: Database) -> None:
    first, second = numbers(4, 0), numbers(4, 1)
    database.write([(["a", "b", "c", "d"], first, None)])
    database.write([(["b", "d", "e"], second[:3], [{"text": "new", "n": n} for n in range(3)])])
    assert database.count() == 5
    assert database.search(second[0], 1)[0][0] == ("b", pytest.approx(1, abs=1e-5), "new", {"n": 0})
    assert database.existing(["a", "b", "z", "e"]) == {"a", "b", "e"}
    database.delete(["a", "e", "z"])
    assert database.count() == 3 and database.existing(["a", "b", "e"]) == {"b"}
    database.drop()
    assert database.count() == 0 and database.existing(["b"]) == set()


@EACH
def test_batches_are_drawn_one_at_a_time(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next batch is drawn when the one before it is stored; requests are no larger than they should be."""
    monkeypatch.setattr(type(database), "documents_per_request", 3)
    stored: list[int] = []
    store = type(database).store
    monkeypatch.setattr(type(database), "store", lambda self, *rows: (stored.append(len(rows[0])), store(self, *rows)))

    def batches() -> Iterator[Any]:
        for n in range(3):
            assert sum(stored) == 5 * n
            yield [5 * n + i for i in range(5)], numbers(5, n)

    assert database.write(batches()) == 15 == database.count()
    assert stored == [3, 2] * 3


@EACH
def test_pickled_databases_connect_anew(make: Make) -> None:
    database = make()
    database.write([([1], numbers(1, 0))])
    copy = pickle.loads(pickle.dumps(database))
    assert repr(copy) == repr(database) and copy.metric == "cosine"
    if database.shared:
        assert copy.count() == 1
        copy.write([([2], numbers(1, 1))])
        copy.close()
        assert database.count() == 2


BAD_BATCHES = [
    (([1, 2, 1], numbers(3, 0)), "id 1 occurs twice"),
    (([1, "2"], numbers(2, 0)), "number 1 is '2'"),
    (([True], numbers(1, 0)), "number 0 is True"),
    (([1.5], numbers(1, 0)), "number 0 is 1.5"),
    (([1, 2], numbers(3, 0)), "2 ids, 3 vectors"),
    (([1], numbers(1, 0), [{}, {}]), "2 entries of metadata"),
    (([1], numbers(1, 0), [{"x": object()}]), "metadata of 1"),
    (([1], numbers(1, 0), [{"x": math.nan}]), "metadata of 1"),
    (([1], numbers(1, 0), ["text"]), "metadata of 1"),
    (([1], numbers(1, 0) * math.nan), "finite"),
    (([1], numbers(1, 0) * math.inf), "finite"),
    (([1], torch.tensor(numbers(1, 0)).to_sparse()), "sparse vectors for a database of float32"),
    (([1], ["text"]), "numbers"),
    (([1], numbers(1, 0)[:, :8]), "dimension 8"),
    ((["1"], numbers(1, 0)), "type str"),
]


@pytest.mark.parametrize(("batch", "words"), BAD_BATCHES, ids=range(len(BAD_BATCHES)))
@EACH
def test_bad_batches_change_nothing(name: str, database: Database, batch: Any, words: str) -> None:
    if words == "type str" and name != "postgres":
        pytest.skip("only a table has one type of ids")
    database.write([([0], numbers(1, 5))])
    with pytest.raises(InputError, match=words):
        database.write([batch])
    assert database.count() == 1


@EACH
def test_a_collection_made_for_something_else(name: str, make: Make) -> None:
    make().write([([0], numbers(1, 5))])
    other = make(precision="sparse")
    with pytest.raises(
        InputError, match=r"'documents' already, and it does not fit: it holds .*16.*to be written.*sparse"
    ):
        other.write([([1], weights(1, 0))])
    with pytest.raises(InputError, match="queries have dimension 8"):
        make().search(numbers(1, 0)[:, :8])


@EACH
def test_nothing_to_search(database: Database) -> None:
    with pytest.raises(SearchEngineError, match="nothing of the name 'documents'"):
        database.search(numbers(1, 0))
    with pytest.raises(InputError, match="top_k"):
        database.search(numbers(1, 0), top_k=-1)


def test_settings_that_a_database_does_not_have() -> None:
    with pytest.raises(
        InputError, match="Qdrant stores vectors as float32 or float16 or sparse; got precision='binary'"
    ):
        QdrantDatabase("x", precision="binary")
    with pytest.raises(
        InputError, match="Elasticsearch compares float32 vectors by cosine or dot or euclidean; got 'manh"
    ):
        ElasticsearchDatabase("x", metric="manhattan")
    with pytest.raises(InputError, match="sparse vectors by dot"):
        PostgresDatabase("x", precision="sparse", metric="cosine")
    with pytest.raises(InputError, match="quantization"):
        QdrantDatabase("x", quantization="int4")
    with pytest.raises(InputError, match="needs a name"):
        PostgresDatabase("")


@pytest.mark.parametrize("name", ["elasticsearch", "opensearch"])
def test_negative_weights_have_no_place_in_rank_features(make: Make) -> None:
    with pytest.raises(InputError, match="not be negative"):
        make(precision="sparse").write([([1], -weights(1, 0))])


def test_qdrant_ids() -> None:
    with QdrantDatabase("x", location=":memory:") as database, pytest.raises(InputError, match="whole numbers from 0"):
        database.write([([-1], numbers(1, 0))])


def test_what_a_batch_becomes() -> None:
    """Plain ids, rows of the database's precision, an entry of metadata for each."""
    ids, rows, metadata = QdrantDatabase("x", location=":memory:").checked(Batch(np.array([3, 4]), [[1, 0], [0, 2]]))
    assert ids == [3, 4] and type(ids[0]) is int and metadata == [{}, {}]
    assert isinstance(rows, np.ndarray) and rows.dtype == np.float32 and rows.tolist() == [[1, 0], [0, 2]]


# ---- databases that fail


@pytest.mark.parametrize("name", CLASSES)
def test_unreachable(name: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place: dict[str, Any] = {
        "postgres": {"host": "127.0.0.1", "port": port},
        "qdrant": {"url": f"http://127.0.0.1:{port}"},
    }
    database = CLASSES[name]("x", **place.get(name, {"hosts": f"http://127.0.0.1:{port}"}))
    with pytest.raises(DatabaseWriteError, match=r"could not be reached.*nothing was written to 'x'") as caught:
        database.write([([1], numbers(1, 0))])
    assert caught.value.written == 0
    with pytest.raises(SearchEngineError, match="failed to search in 'x'"):
        database.search(numbers(1, 0))


FULL = """
    CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF (SELECT count(*) FROM documents) > 10 THEN
            RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full';
        END IF; RETURN NULL; END $$;
    CREATE TRIGGER full_disk AFTER INSERT ON documents FOR EACH ROW EXECUTE FUNCTION full_disk();
"""


@pytest.mark.parametrize(("name", "stored"), [("postgres", 8), ("elasticsearch", 10), ("opensearch", 10)])
def test_full(name: str, stored: int, make: Make, double: EngineDouble | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error counts what is there, and it is there: a transaction is all or nothing, a bulk request is not."""
    database = make()
    monkeypatch.setattr(type(database), "documents_per_request", 4)
    database.fit(H, "int")
    if double is not None:
        double.most_documents = 10
    else:
        database.client.execute(FULL)
    with pytest.raises(
        DatabaseWriteError, match=rf"(?=.*\b{stored} documents)(?=.*(disk|space)).*replaced, not doubled"
    ) as caught:
        database.write([(range(30), numbers(30, 0))])
    assert caught.value.written == stored
    if double is not None:
        database.publish()
        double.most_documents = None
    else:
        database.client.execute("DROP TRIGGER full_disk ON documents; DROP FUNCTION full_disk")
    assert database.count() == stored
    assert database.write([(range(30), numbers(30, 0))]) == 30 == database.count()


def test_qdrant_that_fails_half_way(monkeypatch: pytest.MonkeyPatch) -> None:
    database = QdrantDatabase("x", location=":memory:")
    monkeypatch.setattr(QdrantDatabase, "documents_per_request", 4)
    upsert, calls = database.client.upsert, iter(range(9))

    def fails(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == 2:
            raise OSError("No space left on device")
        return upsert(*args, **kwargs)

    monkeypatch.setattr(database.client, "upsert", fails)
    with pytest.raises(
        DatabaseWriteError, match=r"failed after 8 documents .* up to id 7: OSError: No space"
    ) as caught:
        database.write([(range(30), numbers(30, 0))])
    assert caught.value.written == 8 == database.count()


@pytest.mark.parametrize("name", ["elasticsearch", "opensearch"])
def test_server_that_dies_half_way(name: str, database: Database, double: EngineDouble, monkeypatch: Any) -> None:
    monkeypatch.setattr(type(database), "documents_per_request", 4)
    database.fit(H, "int")
    double.dies_at = len(double.requests) + 3
    with pytest.raises(DatabaseWriteError, match="failed after 8 documents were written to 'documents', up to id 7"):
        database.write([(range(30), numbers(30, 0))])
    double.dies_at = None


@pytest.mark.parametrize(
    ("name", "module", "package"),
    [
        ("qdrant", "qdrant_client", "qdrant-client"),
        ("elasticsearch", "elasticsearch", "elasticsearch"),
        ("opensearch", "opensearchpy", "opensearch-py"),
        ("postgres", "psycopg", "psycopg"),
        ("postgres", "pgvector.psycopg", "pgvector"),
    ],
)
def test_missing_packages(name: str, module: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=f"pip install '{package}"):
        CLASSES[name]("x").write([([1], numbers(1, 0))])


# ---- PostgreSQL


@pytest.mark.parametrize("name", ["postgres"])
def test_names_are_quoted(make: Make) -> None:
    """No name and no value is ever read as SQL."""
    other, evil = make("other"), make("x'\"; DROP TABLE other; --")
    for database in (other, evil):
        database.write([(["'; DROP TABLE other; --"], numbers(1, 0), [{"a'b": "'; DROP TABLE other"}])])
    assert evil.search(numbers(1, 0), filter={"a'b": "'; DROP TABLE other"})[0][0].id == "'; DROP TABLE other; --"
    assert evil.search(numbers(1, 0), filter={"a'b": "x", "' OR true; --": 1, "c')": {">": 1}}) == [[]]
    assert other.count() == evil.count() == 1


@pytest.mark.parametrize("name", ["postgres"])
@pytest.mark.parametrize("precision", PostgresDatabase.precisions)
def test_columns_and_graphs(make: Make, precision: str) -> None:
    """Each precision is a column of its type; a search uses the graph once it is built, and finds nearly the same."""
    documents, kind = weights(400, 0) + 1 / 8, {"float32": "vector", "float16": "halfvec", "binary": "bit"}
    database = make(precision=precision, schema="public")
    database.write([(range(400), documents - (precision == "binary"), None)])
    assert f"{kind.get(precision, 'sparsevec')}(16)" in str(
        database.client.execute("SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attname = 'embedding'")
        .fetchall()
    )  # fmt: skip
    queries = documents[:20] - (precision != "sparse")
    exact = database.search(queries, top_k=10)
    database.create_index(m=16, ef_construction=100)
    database.client.execute("SET enable_seqscan = off")
    graph = database.search(queries, top_k=10)
    scores = [np.mean([[hit.score for hit in hits] for hits in found]) for found in (exact, graph)]
    assert scores[1] == pytest.approx(scores[0], rel=0.03)
    operator = {"binary": "<~>", "sparse": "<#>"}.get(precision, "<=>")
    (plan,) = database.client.execute(
        "EXPLAIN (FORMAT JSON) SELECT id FROM documents "
        f"ORDER BY embedding {operator} (SELECT embedding FROM documents LIMIT 1) LIMIT 3"
    ).fetchone()
    assert "documents_embedding_idx" in str(plan)


@pytest.mark.parametrize("name", ["postgres"])
def test_a_lost_connection_is_opened_again(make: Make) -> None:
    database, other = make(), make()
    database.write([([1], numbers(1, 0))])
    pid = database.client.info.backend_pid
    other.client.execute("SELECT pg_terminate_backend(%s)", [pid])
    with pytest.raises(DatabaseWriteError, match="nothing was written"):
        database.write([([2], numbers(1, 1))])
    assert database.write([([2], numbers(1, 1))]) == 1
    assert other.count() == 2


@pytest.mark.parametrize("name", ["postgres"])
def test_a_server_without_the_extension(make: Make, postgres_server: str) -> None:
    make("one").count()
    import psycopg

    with psycopg.connect(postgres_server, autocommit=True) as admin:
        admin.execute("CREATE DATABASE plain; ")
        admin.execute("CREATE ROLE guest LOGIN")
    guest = PostgresDatabase("x", postgres_server.replace("user=test", "user=guest").replace("=postgres", "=plain"))
    with pytest.raises(DatabaseWriteError, match=r"no extension pgvector.*CREATE EXTENSION vector"):
        guest.write([([1], numbers(1, 0))])


# ---- from texts to hits


@pytest.fixture(scope="module")
def dense(folder_of: Any) -> SentenceTransformer:
    return SentenceTransformer(str(folder_of("bert")), device="cpu", prompts={"document": "a text: "})


@EACH
def test_upload(make: Make, dense: SentenceTransformer) -> None:
    """Every document has the vector that `encode_document` gives, with its text and id."""
    database = make()
    items = [{"id": f"x{n}", "text": text, "n": n} for n, text in enumerate(TEXTS)]
    assert upload(dense, items, database, chunk_size=4)[:2] == (len(TEXTS), 0)
    vectors = dense.encode_document(TEXTS)
    for n, hits in enumerate(database.search(vectors, top_k=1)):
        assert hits[0].score == pytest.approx(1, abs=1e-5)
        assert hits[0].text[:100] == TEXTS[n][:100]  # two are equal up to the model's last token
    assert database.count() == len(TEXTS)


def test_upload_reads_one_chunk_ahead_and_resumes(dense: SentenceTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed at any chunk, a second call encodes only what is not there."""
    database, read = QdrantDatabase("x", location=":memory:"), 0

    def source() -> Iterator[tuple[int, str]]:
        nonlocal read
        for n in range(30):
            read += 1
            assert read <= database.count() + 8
            yield n, f"text {n}"

    store, calls = QdrantDatabase.store, iter(range(9))

    def full(self: Any, *rows: Any) -> None:
        if next(calls) == 2:
            raise OSError("full")
        store(self, *rows)

    monkeypatch.setattr(QdrantDatabase, "store", full)
    with pytest.raises(DatabaseWriteError, match=r"Stopped after 8 documents.*resume=True") as caught:
        upload(dense, source(), database, chunk_size=4)
    assert caught.value.written == 8 == database.count()
    encoded: list[str] = []
    encode = dense.encode
    monkeypatch.setattr(dense, "encode", lambda texts, **kwargs: (encoded.extend(texts), encode(texts, **kwargs))[1])
    read = 0
    assert upload(dense, source(), database, chunk_size=4, resume=True)[:2] == (22, 8)
    assert encoded == [f"text {n}" for n in range(8, 30)] and database.count() == 30


@EACH
def test_upload_of_sparse_embeddings(make: Make, folder_of: Any) -> None:
    model = SparseEncoder(str(folder_of("bert")), device="cpu", max_active_dims=5)
    model[2].eval()
    database = make(precision="sparse")
    upload(model, TEXTS, database, store_text=False)
    vectors = model.encode_document(TEXTS, convert_to_sparse_tensor=False).numpy().astype(float)
    results = database.search(torch.tensor(vectors).to_sparse(), top_k=3)
    found = [[hit.score for hit in hits] for hits in results]
    expected = [[one for one in scores if one] for scores in best("dot", vectors, vectors, 3)]
    assert [len(one) for one in found] == [len(one) for one in expected]
    np.testing.assert_allclose(np.concatenate(found), np.concatenate(expected), rtol=1e-4)
    assert results[0][0][2:] == (None, {})


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("one text", "iterable of documents"),
        ([b"bytes"], "Document 0 is b'bytes'"),
        (["fine", 3], "Document 1 is 3"),
        ([{"id": 1, "content": "x"}], r"no 'text', only \['content', 'id'\]"),
        ([{"id": 1, "text": None}], "text of document 0 is None"),
        ([(1, 2)], "text of document 0 is 2"),
        ([(1, "a"), ("b", "c")], "number 1 is 'b'"),
    ],
)
def test_documents_of_another_form(dense: SentenceTransformer, source: Any, words: str) -> None:
    with QdrantDatabase("x", location=":memory:") as database, pytest.raises(InputError, match=words):
        upload(dense, source, database)


def test_upload_into_something_else(dense: SentenceTransformer) -> None:
    with pytest.raises(InputError, match="QdrantDatabase, got dict"):
        upload(dense, ["text"], {})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["postgres", "elasticsearch", "opensearch"])
def test_bits_packed_by_quantize_embeddings(make: Make) -> None:
    """Both packed forms are the bits that the database makes itself."""
    documents = numbers(20, 0)
    for precision in ("binary", "ubinary"):
        database = make(precision, precision="binary")
        database.write([(range(20), quantize_embeddings(documents, precision), None)])
        results = database.search(documents, top_k=1)
        assert [hits[0].id for hits in results] == list(range(20)) and not any(h[0].score for h in results)
