"""A loopback HTTP server that answers like Elasticsearch or OpenSearch: the part of their interface that is used here.

The real engines are Java servers and cannot run in the tests. The double keeps what their documentation says:

    PUT, DELETE /name      create an index with its mappings; remove it
    POST /name/_bulk       write documents, an answer for each one; weights must be positive, names without dots
                           (Elasticsearch)
    POST /name/_refresh    only now what was written can be found
    POST /name/_msearch    several searches: Elasticsearch `rank_feature` clauses, OpenSearch `neural_sparse`;
                           nearest neighbours of vectors (exactly), with the scores that the documentation gives
    HEAD /name, GET /name/_mapping, POST /name/_mget, GET or POST /name/_count

Every answer of Elasticsearch carries the header `X-Elastic-Product`, without which its client refuses to go on. Stored
weights are exact here; the real engines keep 9 significant bits. A request of any other form is answered with 400.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

from tests.search import vectors
from tests.search.vectors import Refused

RESULT_WINDOW = 10_000


class EngineDouble(ThreadingHTTPServer):
    """One engine: its indices, and every request it got as (method, path, body)."""

    daemon_threads = True

    def __init__(self, product: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.product = product
        self.indices: dict[str, dict[str, dict[str, Any]]] = {}
        self.visible: dict[str, dict[str, dict[str, Any]]] = {}
        self.mappings: dict[str, dict[str, Any]] = {}
        self.requests: list[tuple[str, str, str]] = []
        self.dies_at: int | None = None
        """Number of the request from which on connections are cut; None: never."""
        self.revives = False
        """Whether it cuts that one connection only."""
        self.delay = 0.0
        self.most_documents: int | None = None
        """How many documents an index holds before the disk is full; None: any number."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is no news."""

    def answer(self, method: str, path: str, body: str) -> dict[str, Any]:
        """What the engine says to one request."""
        name, _, action = unquote(path.partition("?")[0]).strip("/").partition("/")
        if (method, action) == ("PUT", ""):
            return self.create(name, json.loads(body))
        if name not in self.indices:
            raise Refused(404, "index_not_found_exception", f"no such index [{name}]")
        if (method, action) == ("HEAD", ""):
            return {}
        if (method, action) == ("GET", "_mapping"):
            return {name: {"mappings": self.mappings[name]}}
        if action == "_count":
            return {"count": len(self.visible[name])}
        if (method, action) == ("POST", "_mget"):
            return {"docs": [self.get(name, asked) for asked in json.loads(body)["docs"]]}
        if (method, action) == ("DELETE", ""):
            del self.indices[name]
            return {"acknowledged": True}
        if method in ("POST", "PUT") and action == "_bulk":
            return self.bulk(name, [json.loads(line) for line in body.splitlines()])
        if (method, action) == ("POST", "_refresh"):
            self.visible[name] = dict(self.indices[name])
            return {"_shards": {"total": 1, "successful": 1, "failed": 0}}
        if (method, action) == ("POST", "_msearch"):
            lines = [json.loads(line) for line in body.splitlines()]
            return {"took": 1, "responses": [self.search(name, query) for query in lines[1::2]]}
        raise Refused(400, "illegal_argument_exception", f"unexpected {method} {path}")

    def create(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        if name != name.lower() or name in self.indices:
            raise Refused(400, "resource_already_exists_exception", f"index [{name}] already exists")
        vectors.check_mapping(self.product, body)
        self.indices[name], self.visible[name] = {}, {}
        self.mappings[name] = body["mappings"]
        return {"acknowledged": True, "shards_acknowledged": True, "index": name}

    def get(self, name: str, asked: dict[str, Any]) -> dict[str, Any]:
        """One document by its id, also before a refresh."""
        if asked.get("_source") is not False:
            raise Refused(400, "illegal_argument_exception", f"unexpected {asked}")
        return {"_index": name, "_id": asked["_id"], "found": asked["_id"] in self.indices[name]}

    def bulk(self, name: str, lines: list[dict[str, Any]]) -> dict[str, Any]:
        items = []
        rest = iter(lines)
        for action in rest:
            ((kind, target),) = action.items()
            number = target["_id"]
            if kind == "delete":
                status = 200 if self.indices[name].pop(number, None) else 404
                items.append({kind: {"_index": name, "_id": number, "status": status}})
                continue
            document = next(rest)
            error = self.complaint(name, number, document)
            if error is None:
                self.indices[name][number] = document
                items.append({"index": {"_index": name, "_id": number, "status": 201}})
            else:
                items.append({"index": {"_index": name, "_id": number, "status": 400, "error": error}})
        return {"took": 1, "errors": any("error" in item.get("index", {}) for item in items), "items": items}

    def complaint(self, name: str, number: str, document: dict[str, Any]) -> dict[str, str] | None:
        """Why a document cannot be stored."""
        index = self.indices[name]
        if self.most_documents is not None and number not in index and len(index) >= self.most_documents:
            reason = "disk usage exceeded flood-stage watermark, index has read-only-allow-delete block"
            return {"type": "cluster_block_exception", "reason": reason}
        reason = self.unfit_tokens(document.get("tokens", {}))
        reason = reason or vectors.unfit(self.product, self.mappings[name], document)
        return {"type": "document_parsing_exception", "reason": reason} if reason else None

    def unfit_tokens(self, tokens: dict[str, float]) -> str | None:
        """Why `rank_features` cannot hold these weights."""
        for token, weight in tokens.items():
            if not weight > 0:
                return f"[rank_features] fields must have strictly positive values but found [{weight}] for [{token}]"
            if self.product == "elasticsearch" and "." in token:
                return f"[rank_features] fields do not support dots in feature names but found [{token}]"
        return None

    def search(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        if body["size"] > RESULT_WINDOW:
            error = {"type": "illegal_argument_exception", "reason": "Result window is too large"}
            return {"error": error, "status": 400}
        scores = self.scores(name, body)
        shown = body.get("_source")
        hits = []
        for number, score in scores.items():
            source = self.visible[name][number]
            hit = {"_index": name, "_id": number, "_score": score}
            hits.append(hit if shown is False else hit | {"_source": {key: source[key] for key in shown}})
        hits.sort(key=lambda hit: -hit["_score"])
        found = hits[: body["size"]]
        return {"took": 1, "timed_out": False, "status": 200, "hits": {"total": {"value": len(hits)}, "hits": found}}

    def scores(self, name: str, body: dict[str, Any]) -> dict[str, float]:
        """The score of every document that a search finds."""
        documents = self.visible[name]
        if vectors.is_knn(body):
            return vectors.scores(self.product, self.mappings[name], documents, body)
        query = body["query"]
        if query.keys() == {"bool"} and "must" in query["bool"]:
            documents = vectors.chosen(documents, query["bool"]["filter"])
            (query,) = query["bool"]["must"]
        weights = self.weights(query)
        found = {}
        for number, document in documents.items():
            tokens = document["tokens"]
            if tokens.keys() & weights.keys():
                found[number] = sum(weight * tokens[token] for token, weight in weights.items() if token in tokens)
        return found

    def weights(self, query: dict[str, Any]) -> dict[str, float]:
        """Token -> weight, out of the form that this engine understands."""
        if self.product == "opensearch":
            return query["neural_sparse"]["tokens"]["query_tokens"]
        clauses = [clause["rank_feature"] for clause in query["bool"]["should"]]
        if query["bool"]["minimum_should_match"] != 1 or any(clause["linear"] != {} for clause in clauses):
            raise Refused(400, "parsing_exception", str(query))
        return {clause["field"].removeprefix("tokens."): clause["boost"] for clause in clauses}


class Handler(BaseHTTPRequestHandler):
    """Reads requests, writes answers."""

    protocol_version = "HTTP/1.1"
    server: EngineDouble

    def handle_request(self) -> None:
        engine = self.server
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        engine.requests.append((self.command, self.path, body))
        if engine.dies_at is not None and len(engine.requests) >= engine.dies_at:
            if engine.revives:
                engine.dies_at = None
            self.close_connection = True
            return
        threading.Event().wait(engine.delay)
        try:
            status, answer = 200, engine.answer(self.command, self.path, body)
        except Refused as refusal:
            status, kind, reason = refusal.args
            answer = {"error": {"type": kind, "reason": reason, "root_cause": []}, "status": status}
        self.respond(status, json.dumps(answer).encode())

    def respond(self, status: int, data: bytes) -> None:
        self.send_response(status)
        kind = "application/json"
        if self.server.product == "elasticsearch":
            self.send_header("X-Elastic-Product", "Elasticsearch")
            kind = self.headers.get("Accept") or kind
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    do_HEAD = do_GET = do_PUT = do_POST = do_DELETE = handle_request

    def log_message(self, *args: Any) -> None:
        """Nothing on the terminal."""


@contextmanager
def running(product: str) -> Iterator[EngineDouble]:
    """A double that serves until the end of the block."""
    server = EngineDouble(product)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
