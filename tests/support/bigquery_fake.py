"""A small BigQuery: its REST surface over an in-memory SQLite, on a real socket.

Datasets, tables, `insertAll` and parametrised queries, as far as Liner uses them. Statements are
run by SQLite, so what is proved is that Liner's statements and parameters arrive; that BigQuery's
own dialect takes them is proved where local-bigquery can run (support/local_bigquery.py).
"""

import contextlib
import gzip
import json
import re
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_TABLE = re.compile(
    r"^/bigquery/v2/projects/[^/]+/datasets/(?P<dataset>[^/]+)/tables/(?P<table>[^/]+)"
)
_NAME = re.compile(r"`[^`]+\.([A-Za-z_]+)`")
_KINDS = {"INTEGER": "INTEGER", "FLOAT": "REAL", "BOOLEAN": "INTEGER", "TIMESTAMP": "INTEGER"}


class FaultError(Exception):
    """An error as BigQuery words it."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code, self.reason = code, reason


class FakeBigQuery:
    """What the server keeps, and a back door to it."""

    def __init__(self) -> None:
        self.db = sqlite3.connect(":memory:", check_same_thread=False)
        self.db.create_function("UNIX_MICROS", 1, lambda micros: micros)
        self.db.create_function("DIV", 2, lambda one, other: int(one // other))
        self.db.create_function("LEAST", 2, min)
        self.datasets: dict[str, dict[str, Any]] = {}
        self.tables: dict[str, dict[str, Any]] = {}
        self.calls: list[str] = []
        """Method and path of every request, in order."""
        self.failures: list[FaultError] = []
        """What the next requests get, one each."""
        self.down = False
        """Whether every request gets 503."""
        self.forgets = False
        """Whether insert ids are forgotten at once, as BigQuery does after a minute."""
        self._seen: set[tuple[str, str]] = set()
        self._lock = threading.Lock()

    def count(self, table: str) -> int:
        """Return how many rows a table holds, copies included."""
        with self._lock:
            return int(self.db.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0])  # noqa: S608

    def answer(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to one request."""
        with self._lock:
            self.calls.append(f"{method} {path}")
            if self.down:
                raise FaultError(503, "backendError", "the backend is down")
            if self.failures:
                raise self.failures.pop(0)
            return self._route(method, path, body)

    def _route(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if path.endswith("/insertAll"):
            return self._insert(_table(path), body)
        if path.endswith("/queries"):
            return self._query(body)
        if method == "POST" and path.endswith("/tables"):
            return self._create(body)
        if method == "POST" and path.endswith("/datasets"):
            name = body["datasetReference"]["datasetId"]
            if name in self.datasets:
                raise FaultError(409, "duplicate", f"Already Exists: Dataset {name}")
            self.datasets[name] = body
            return body
        if match := _TABLE.match(path):
            found = self._known(match["table"])
            if method == "PATCH":
                self._patch(match["table"], found, body)
            return found
        if method == "GET" and "/datasets/" in path:
            name = path.rpartition("/")[2]
            if name not in self.datasets:
                raise FaultError(404, "notFound", f"Not found: Dataset {name}")
            return self.datasets[name]
        raise FaultError(501, "notImplemented", f"{method} {path}")

    def _known(self, table: str) -> dict[str, Any]:
        if table not in self.tables:
            raise FaultError(404, "notFound", f"Not found: Table {table}")
        return self.tables[table]

    def _create(self, body: dict[str, Any]) -> dict[str, Any]:
        reference = body["tableReference"]
        if reference["datasetId"] not in self.datasets:
            raise FaultError(404, "notFound", f"Not found: Dataset {reference['datasetId']}")
        name = reference["tableId"]
        if name in self.tables:
            raise FaultError(409, "duplicate", f"Already Exists: Table {name}")
        self.tables[name] = {**body, "numRows": "0"}
        columns = ", ".join(_column(field) for field in body["schema"]["fields"])
        self.db.execute(f"CREATE TABLE {name}({columns})")
        return self.tables[name]

    def _patch(self, name: str, found: dict[str, Any], body: dict[str, Any]) -> None:
        present = {field["name"] for field in found["schema"]["fields"]}
        for field in body.get("schema", found["schema"])["fields"]:
            if field["name"] not in present:
                if field.get("mode") == "REQUIRED":
                    raise FaultError(400, "invalid", "a new column cannot be required")
                self.db.execute(f"ALTER TABLE {name} ADD COLUMN {_column(field)}")
        found.update(body)

    def _insert(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        fields = {field["name"]: field for field in self._known(name)["schema"]["fields"]}
        bad = []
        for index, row in enumerate(body["rows"]):
            why = _wrong(row["json"], fields)
            if why:
                bad.append({"index": index, "errors": [{"reason": "invalid", "message": why}]})
        if bad:
            wrong = {entry["index"] for entry in bad}
            bad += [
                {"index": index, "errors": [{"reason": "stopped", "message": ""}]}
                for index in range(len(body["rows"]))
                if index not in wrong
            ]
            return {"insertErrors": bad}
        for row in body["rows"]:
            key = (name, row["insertId"])
            if key in self._seen and not self.forgets:
                continue
            self._seen.add(key)
            columns = list(row["json"])
            values = [_stored(row["json"][column], fields[column]) for column in columns]
            marks = ", ".join("?" * len(columns))
            self.db.execute(
                f"INSERT INTO {name}({', '.join(columns)}) VALUES ({marks})",  # noqa: S608
                values,
            )
        return {}

    def _query(self, body: dict[str, Any]) -> dict[str, Any]:
        for table in _NAME.findall(body["query"]):
            self._known(table)
        bound = {one["name"]: _bound(one) for one in body.get("queryParameters", ())}
        cursor = self.db.execute(_NAME.sub(r"\1", body["query"]), bound)
        names = [column[0] for column in cursor.description]
        rows = cursor.fetchall()
        nested = {
            field["name"]: field
            for table in self.tables.values()
            for field in table["schema"]["fields"]
            if field["type"] == "RECORD"
        }
        fields = [
            nested.get(name) or {"name": name, "type": _kind(rows, place), "mode": "NULLABLE"}
            for place, name in enumerate(names)
        ]
        return {
            "jobComplete": True,
            "jobReference": {"projectId": "p", "jobId": "j", "location": "US"},
            "schema": {"fields": fields},
            "totalRows": str(len(rows)),
            "rows": [
                {"f": [{"v": _sent(v, f)} for v, f in zip(row, fields, strict=True)]}
                for row in rows
            ],
        }


@contextlib.contextmanager
def fake_bigquery() -> Iterator[tuple[FakeBigQuery, str]]:
    """Yield an empty BigQuery and its HOST:PORT."""
    kept = FakeBigQuery()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _any(self) -> None:
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Content-Encoding") == "gzip":
                data = gzip.decompress(data)
            status = 200
            try:
                said = kept.answer(
                    self.command, self.path.partition("?")[0], json.loads(data or b"{}")
                )
            except FaultError as fault:
                status = fault.code
                one = {"reason": fault.reason, "message": str(fault), "domain": "global"}
                said = {"error": {"code": status, "message": str(fault), "errors": [one]}}
            told = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(told)))
            self.end_headers()
            self.wfile.write(told)

        do_GET = do_POST = do_PATCH = do_PUT = _any  # noqa: N815 - names of the base class

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield kept, f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        kept.db.close()


def _table(path: str) -> str:
    match = _TABLE.match(path)
    assert match is not None, path
    return match["table"]


def _column(field: dict[str, Any]) -> str:
    return f"{field['name']} {_KINDS.get(field['type'], 'TEXT')}"


def _wrong(row: dict[str, Any], fields: dict[str, dict[str, Any]]) -> str:
    for name in row:
        if name not in fields:
            return f"no such field: {name}."
    for name, field in fields.items():
        if field.get("mode") == "REQUIRED" and row.get(name) is None:
            return f"Missing required field: {name}."
    return ""


def _stored(value: Any, field: dict[str, Any]) -> Any:
    if field["type"] == "TIMESTAMP":
        return _micros(value)
    return json.dumps(value) if field["type"] == "RECORD" else value


def _bound(parameter: dict[str, Any]) -> Any:
    value = parameter["parameterValue"]["value"]
    match parameter["parameterType"]["type"]:
        case "INT64":
            return int(value)
        case "TIMESTAMP":
            return _micros(value)
    return value


def _micros(text: str) -> int:
    since = datetime.fromisoformat(text.replace(" ", "T", 1)) - datetime.fromisoformat(
        "1970-01-01T00:00:00+00:00"
    )
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _kind(rows: Sequence[Sequence[Any]], place: int) -> str:
    value = rows[0][place] if rows else ""
    return {int: "INTEGER", float: "FLOAT"}.get(type(value), "STRING")


def _sent(value: Any, field: dict[str, Any]) -> Any:
    if field["type"] != "RECORD":
        return None if value is None else str(value)
    return [
        {"v": {"f": [{"v": _plain(entry.get(part["name"]))} for part in field["fields"]]}}
        for entry in json.loads(value or "[]")
    ]


def _plain(value: Any) -> Any:
    return None if value is None else str(value).lower() if isinstance(value, bool) else str(value)
