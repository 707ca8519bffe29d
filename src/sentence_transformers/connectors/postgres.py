"""Vectors in PostgreSQL with the extension pgvector (0.8 or later): https://github.com/pgvector/pgvector

    PostgresDatabase("glosses", "postgresql://user@localhost/database")

The table has the columns `id` (bigint or text, primary key), `embedding` and `metadata` (jsonb):

    precision    float32      float16       binary    sparse
    type         vector(H)    halfvec(H)    bit(H)    sparsevec(V)

A batch goes by binary COPY into a temporary table and from there into the table, in one transaction: all of it is
there or nothing. Searches compare with every row, exactly, until `create_index` has built a graph (HNSW), which is best
done after loading. Every name and value goes to the server quoted or as a parameter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from sentence_transformers.connectors.common import Database, Hit, Hits, Id, Layout, Metadata, Rows, as_hit
from sentence_transformers.connectors.search_engines.common import TIMEOUT, explain
from sentence_transformers.errors import MissingExtraError, SearchEngineError
from sentence_transformers.search.filters import Condition
from sentence_transformers.util.csr import SparseRows

if TYPE_CHECKING:
    import psycopg
    from psycopg import sql

TYPES = {"float32": "vector", "float16": "halfvec", "binary": "bit", "sparse": "sparsevec"}
OPERATORS = {"cosine": "<=>", "dot": "<#>", "euclidean": "<->", "manhattan": "<+>", "hamming": "<~>"}
CLASSES = {"cosine": "cosine", "dot": "ip", "euclidean": "l2", "manhattan": "l1", "hamming": "hamming"}
ID_TYPES = {"int": "bigint", "str": "text"}
MOST_SCANNED = 1000


class PostgresDatabase(Database):
    """A table of PostgreSQL.

    Args:
        name: of the table.
        conninfo: where the server is, as libpq takes it: "postgresql://user@host/database", or "" with `connection`.
        schema: of the table; None for the first of the user's search path.
        precision, metric: see `Database`.
        **connection: for `psycopg.connect`: `host`, `user`, `password`, `dbname`, `connect_timeout` (10 seconds by
            default) and so on.

    Raises:
        InputError: for an unknown precision or metric.
        MissingExtraError: at the first use, if psycopg or pgvector are not installed.
        SearchEngineError: if the server has no pgvector and the user may not install it.
    """

    title: ClassVar[str] = "PostgreSQL"
    documents_per_request: ClassVar[int] = 2000

    def __init__(
        self,
        name: str,
        conninfo: str = "",
        *,
        schema: str | None = None,
        precision: str = "float32",
        metric: str | None = None,
        **connection: Any,
    ) -> None:
        super().__init__(name, precision, metric, connection)
        self.conninfo, self.schema = conninfo, schema

    def connect(self) -> Any:
        try:
            import psycopg
            from pgvector.psycopg import register_vector
        except ImportError as error:
            raise MissingExtraError(error.name or "psycopg", "pgvector", "PostgreSQL") from error
        self.failures = (psycopg.Error, OSError)
        client = psycopg.connect(self.conninfo, autocommit=True, **{"connect_timeout": TIMEOUT, **self.connection})
        try:
            install(client)
            register_vector(client)
        except BaseException:
            client.close()
            raise
        return client

    def run(self, statement: str, values: Sequence[Any] = (), **names: Any) -> Any:
        """One statement; {table} and other names in it are put in quoted."""
        from psycopg import sql

        return self.client.execute(sql.SQL(statement).format(table=self.table, **names), values)  # type: ignore[arg-type]

    @property
    def table(self) -> Any:
        """The quoted name of the table."""
        from psycopg import sql

        return sql.Identifier(*([self.schema] if self.schema else []), self.name)

    # ---- the table

    def layout(self) -> Layout | None:
        columns = dict(
            self.client.execute(
                "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute "
                "WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped",
                [self.table.as_string(self.client)],
            ).fetchall()
        )
        if not columns:
            return None
        kind, _, size = columns.get("embedding", "no column embedding").rpartition(".")[2].partition("(")
        dimension = size.rstrip(")")
        ids = next((name for name, kind in ID_TYPES.items() if kind == columns.get("id")), f"{columns.get('id')}")
        return Layout(int(dimension) if dimension.isdigit() else None, kind, ids)

    def planned(self, dimension: int, ids: str) -> Layout:
        return Layout(dimension, TYPES[self.precision], ids)

    def create(self, dimension: int, ids: str) -> None:
        from psycopg import sql

        with self.client.transaction():
            self.client.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", [self.table.as_string(self.client)])
            self.run(
                "CREATE TABLE IF NOT EXISTS {table} (id {id} PRIMARY KEY, embedding {kind}({dimension}) NOT NULL, "
                "metadata jsonb NOT NULL)",
                id=sql.SQL(ID_TYPES[ids]),  # type: ignore[arg-type]
                kind=sql.SQL(TYPES[self.precision]),  # type: ignore[arg-type]
                dimension=sql.Literal(dimension),
            )

    def create_index(self, m: int = 16, ef_construction: int = 64) -> None:
        """Build the HNSW graph, so that searches look at a part of the rows only (and may miss some of the best).

        pgvector builds graphs over up to 2,000 dimensions as float32, 4,000 as float16, 64,000 as binary, and over
        sparse vectors with up to 1,000 values.

        Args:
            m: connections of each row.
            ef_construction: candidates looked at for each row while building.
        """
        from psycopg import sql

        with self.asking("build an index"):
            self.run(
                "CREATE INDEX ON {table} USING hnsw (embedding {kind}) WITH (m = {m}, ef_construction = {ef})",
                kind=sql.SQL(f"{TYPES[self.precision]}_{CLASSES[self.metric]}_ops"),  # type: ignore[arg-type]
                m=sql.Literal(m),
                ef=sql.Literal(ef_construction),
            )

    def count(self) -> int:
        with self.asking("count"):
            return self.run("SELECT count(*) FROM {table}").fetchone()[0] if self.layout() else 0

    def drop(self) -> None:
        with self.asking("drop"):
            self.run("DROP TABLE IF EXISTS {table}")
        self._layout = None

    # ---- rows

    def store(self, ids: list[Id], rows: Rows, metadata: Metadata) -> None:
        from psycopg.types.json import Jsonb

        kinds = [{"int": "int8", "str": "text"}[type(ids[0]).__name__], TYPES[self.precision], "jsonb"]
        with self.client.transaction():
            self.run("CREATE TEMP TABLE batch_of_vectors ON COMMIT DROP AS SELECT * FROM {table} WITH NO DATA")
            with self.client.cursor().copy(
                "COPY batch_of_vectors (id, embedding, metadata) FROM STDIN (FORMAT BINARY)"
            ) as copy:
                copy.set_types(kinds)
                for key, vector, entry in zip(ids, self.vectors_of(rows), metadata, strict=True):
                    copy.write_row((key, vector, Jsonb(dict(entry))))
            self.run(
                "INSERT INTO {table} (id, embedding, metadata) SELECT id, embedding, metadata FROM batch_of_vectors "
                "ON CONFLICT (id) DO UPDATE SET embedding = EXCLUDED.embedding, metadata = EXCLUDED.metadata"
            )

    def vectors_of(self, rows: Rows) -> list[Any]:
        """pgvector's form of each row."""
        from pgvector import Bit, HalfVector, SparseVector, Vector

        if isinstance(rows, SparseRows):
            pairs = (dict(zip(terms.tolist(), values.tolist(), strict=True)) for terms, values in rows)
            return [SparseVector({i: value for i, value in one.items() if value}, rows.dimension) for one in pairs]
        if self.precision == "binary":
            return [Bit(np.unpackbits(row).astype(bool)) for row in rows]
        return [HalfVector(row) if self.precision == "float16" else Vector(row) for row in rows]

    def find(self, queries: Rows, top_k: int, chosen: tuple[sql.Composable, list[Any]] | None) -> list[Hits]:
        from psycopg import sql

        condition, values = chosen or (sql.SQL("true"), [])
        operator = sql.SQL(OPERATORS[self.metric])  # type: ignore[arg-type]
        results: list[Hits] = []
        with self.client.transaction():
            look = str(min(max(top_k, 40), MOST_SCANNED))
            self.client.execute("SELECT set_config('hnsw.ef_search', %s, true)", [look])
            self.client.execute("SELECT set_config('hnsw.iterative_scan', 'strict_order', true)")
            for query in self.vectors_of(queries):
                found = self.run(
                    "SELECT id, embedding {operator} %s AS distance, metadata FROM {table} WHERE {condition} "
                    "ORDER BY distance LIMIT %s",
                    [query, *values, top_k],
                    operator=operator,
                    condition=condition,
                )
                hits = [self.hit(*row) for row in found]
                results.append([hit for hit in hits if hit.score or self.precision != "sparse"])
        return results

    def hit(self, key: Id, distance: float, metadata: dict[str, Any]) -> Hit:
        """A row as a hit; pgvector says 1 − cosine and minus the dot product."""
        return as_hit(key, 1 - distance if self.metric == "cosine" else 0.0 - distance, metadata)

    def compared(self, one: Condition) -> tuple[Any, list[Any]]:
        """A comparison as SQL with placeholders, and their values. A field that is missing gives null, hence false."""
        from psycopg.types.json import Jsonb

        if one.operator == "exists":
            return self.combined("and" if one.value else "not", [(quoted("metadata ? %s"), [one.field])])
        if one.operator == "in":
            return quoted("coalesce(metadata -> %s = ANY(%s), false)"), [
                one.field,
                [Jsonb(value) for value in one.value],
            ]
        if one.operator == "==":
            return quoted("coalesce(metadata -> %s = %s, false)"), [one.field, Jsonb(one.value)]
        if one.operator == "contains":
            form = "(jsonb_typeof(metadata -> %s) = 'array' AND metadata -> %s @> %s)"
            parts = [(quoted(form), [one.field, one.field, Jsonb([one.value])])]
            if isinstance(one.value, str):
                form = "(jsonb_typeof(metadata -> %s) = 'string' AND strpos(metadata ->> %s, %s) > 0)"
                parts.append((quoted(form), [one.field, one.field, one.value]))
            return quoted("coalesce({}, false)", self.combined("or", parts)[0]), [
                v for _, values in parts for v in values
            ]
        if isinstance(one.value, str):
            form = "coalesce(jsonb_typeof(metadata -> %s) = 'string' AND metadata ->> %s COLLATE \"C\" {} %s, false)"
            return quoted(form, quoted(one.operator)), [one.field, one.field, one.value]
        form = "coalesce(jsonb_typeof(metadata -> %s) = 'number' AND metadata -> %s {} %s, false)"
        return quoted(form, quoted(one.operator)), [one.field, one.field, Jsonb(one.value)]

    def combined(self, operator: str, parts: list[Any]) -> tuple[Any, list[Any]]:
        values = [value for _, those in parts for value in those]
        if operator == "not":
            return quoted("NOT ({})", parts[0][0]), values
        if not parts:
            return quoted("true" if operator == "and" else "false"), []
        return quoted("({})", quoted(f" {operator.upper()} ").join(part for part, _ in parts)), values

    def present(self, ids: list[Id]) -> set[Id]:
        if self.layout() is None:
            return set()
        return {key for (key,) in self.run("SELECT id FROM {table} WHERE id = ANY(%s)", [ids])}

    def remove(self, ids: list[Id]) -> None:
        self.run("DELETE FROM {table} WHERE id = ANY(%s)", [ids])


def install(client: psycopg.Connection) -> None:
    """See that the server's database has the extension.

    Raises:
        SearchEngineError: if it has not and this user cannot change that.
    """
    import psycopg

    if client.execute("SELECT 1 FROM pg_extension WHERE extname = 'vector'").fetchone():
        return
    try:
        with client.transaction():
            client.execute("SELECT pg_advisory_xact_lock(hashtext('sentence_transformers: pgvector'))")
            client.execute("CREATE EXTENSION IF NOT EXISTS vector")
    except psycopg.Error as error:
        raise SearchEngineError(
            "This database of PostgreSQL has no extension pgvector, and it cannot be added: "
            f"{explain(error)}. Install it on the server (Debian: postgresql-N-pgvector) and let an administrator "
            "say: CREATE EXTENSION vector"
        ) from error


def quoted(form: str, *parts: Any) -> Any:
    """SQL that this file has written itself, with other such pieces put in."""
    from psycopg import sql

    piece = sql.SQL(form)  # type: ignore[arg-type]
    return piece.format(*parts) if parts else piece
