"""Analytics in BigQuery: rows streamed by `insertAll`, counted by the statements of SQLite.

Google's client is a blocking one, so its calls run in threads of this module. Row ids travel as
insert ids, which BigQuery drops repeated ones by for about a minute; what comes twice later than
that is stored twice and counted once, for every statement begins with one row an id.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Self, TypeVar

import requests
from google.api_core import exceptions
from google.auth import exceptions as auth_exceptions
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from liner.v1 import analytics_pb2

from liner_server.analytics import queries
from liner_server.core.rows import fill, plain
from liner_server.errors import (
    FailedPreconditionError,
    LinerError,
    ResourceExhaustedError,
    UnavailableError,
)
from liner_server.ports_analytics import MESSAGES, AnyRow, Refused, Table, Tally, Window

_T = TypeVar("_T")
NO_RETRY: Any = None
"""Google's own retries go on for minutes; what waits in the journal comes again anyway."""

_INSERT_SECONDS = 10.0
_QUERY_SECONDS = 60.0
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TYPES = {
    FieldDescriptor.TYPE_STRING: "STRING",
    FieldDescriptor.TYPE_INT64: "INTEGER",
    FieldDescriptor.TYPE_BOOL: "BOOLEAN",
    FieldDescriptor.TYPE_DOUBLE: "FLOAT",
}


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the tables are."""

    project: str
    dataset: str
    emulator: str | None = None
    """HOST:PORT of an emulator, in place of Google's service."""
    write_emulator: str | None = None
    """HOST:PORT of an emulator of the Storage Write API, where rows go that way."""

    def client(self) -> bigquery.Client:
        """Return a client; whoever takes it closes it.

        Raises:
            FailedPreconditionError: there are no credentials.

        """
        if self.emulator:
            return bigquery.Client(
                project=self.project,
                credentials=AnonymousCredentials(),  # type: ignore[no-untyped-call]
                client_options={"api_endpoint": f"http://{self.emulator}"},
            )
        with translated("credentials"):
            return bigquery.Client(project=self.project)

    def path(self, table: Table) -> str:
        """Return a table's full name."""
        return f"{self.project}.{self.dataset}.{table}"


class BigQuerySink:
    """The `AnalyticsSink` of one dataset: `async with BigQuerySink(place)`.

    It opens though BigQuery cannot be reached: rows wait in the buffer before it.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._client: bigquery.Client
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="bigquery")

    async def __aenter__(self) -> Self:
        self._client = await self._call("credentials", self._place.client)
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.get_running_loop().run_in_executor(self._threads, self._client.close)
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def insert(self, table: Table, rows: Sequence[AnyRow]) -> Sequence[Refused]:
        """Store rows; see the port."""
        refused = [Refused(i, "it has no row_id") for i, row in enumerate(rows) if not row.row_id]
        left = [(index, row) for index, row in enumerate(rows) if row.row_id]
        while left:
            sent = [row for _, row in left]
            bad = await self._call(table, partial(self._insert, table, sent))
            refused += [Refused(left[position][0], why) for position, why in bad.items()]
            if not bad:
                break
            # One bad row stops all of its request: the others are sent again without it.
            left = [pair for position, pair in enumerate(left) if position not in bad]
        return refused

    async def tally(self, window: Window, *, bins: bool = True) -> Tally:
        """Return the counts; see the port."""
        micros = (window.start - _EPOCH) // timedelta(microseconds=1)
        parameters = [
            bigquery.ScalarQueryParameter("experiment", "STRING", window.experiment),
            bigquery.ScalarQueryParameter("time_from", "TIMESTAMP", window.start),
            bigquery.ScalarQueryParameter("time_before", "TIMESTAMP", window.end),
            bigquery.ScalarQueryParameter("start", "INT64", micros),
            bigquery.ScalarQueryParameter(
                "width", "INT64", max(1, window.width // timedelta(microseconds=1))
            ),
        ]
        names = (*queries.JUDGED, *(queries.BINNED if bins else ()))
        answers = await asyncio.gather(*(self._ask(name, parameters) for name in names))
        found = dict(zip(names, answers, strict=True))
        return queries.tally(found.__getitem__, bins=bins)

    async def traffic(self) -> Sequence[analytics_pb2.TrafficRow]:
        """Return the changes of shares; see the port."""
        return queries.traffic_rows(await self._ask(queries.TRAFFIC, ()))

    async def outcomes(self, *, start: datetime) -> AsyncIterator[analytics_pb2.OutcomeRow]:
        """Yield the judgements; see the port."""
        parameters = [bigquery.ScalarQueryParameter("time_from", "TIMESTAMP", start)]
        for record in await self._ask(queries.OUTCOMES, parameters):
            row = analytics_pb2.OutcomeRow()
            fill(row, record)
            yield row

    async def delete_before(self, time: datetime) -> int:
        """Do nothing: partitions end by themselves, as `setup-cloud` set them up."""
        return 0

    async def _ask(
        self, statement: str, parameters: Iterable[bigquery.ScalarQueryParameter]
    ) -> list[Mapping[str, Any]]:
        text = statement.format(**{table: f"`{self._place.path(table)}`" for table in Table})
        # Only tables of the statement's own are named, so a name in `text` is no parameter.
        used = [one for one in parameters if f"@{one.name}" in text]

        def ask() -> list[Mapping[str, Any]]:
            found = self._client.query_and_wait(
                text,
                job_config=bigquery.QueryJobConfig(query_parameters=used),
                api_timeout=_QUERY_SECONDS,
                wait_timeout=_QUERY_SECONDS,
                retry=NO_RETRY,
                job_retry=NO_RETRY,
            )
            return [dict(row.items()) for row in found]

        return await self._call("query", ask)

    def _insert(self, table: Table, rows: Sequence[AnyRow]) -> dict[int, str]:
        """Stream rows; return those that were refused for themselves."""
        found: Any = self._client.insert_rows_json(
            self._place.path(table),
            [_streamed(row) for row in rows],
            row_ids=[row.row_id for row in rows],
            retry=NO_RETRY,
            timeout=_INSERT_SECONDS,
        )
        bad: dict[int, str] = {}
        for entry in found:
            # "stopped": nothing is wrong with this row but its neighbour.
            faults = [fault for fault in entry["errors"] if fault.get("reason") != "stopped"]
            if faults:
                why = str(faults[0].get("message", faults[0]))
                if why.startswith("no such field"):
                    # The table is older than this release: it lacks a column, and no row is bad.
                    raise FailedPreconditionError(
                        f"BigQuery, {table}: {why[:200]}; `liner-server setup-cloud` adds columns",
                        reason="ANALYTICS_MISSING",
                    )
                bad[int(entry["index"])] = why
        if found and not bad:
            raise UnavailableError("BigQuery stopped at no row", reason="ANALYTICS")
        return bad

    async def _call(self, what: str, work: Callable[[], _T]) -> _T:
        def run() -> _T:
            with translated(what):
                return work()

        return await asyncio.get_running_loop().run_in_executor(self._threads, run)


def schema(table: Table) -> list[bigquery.SchemaField]:
    """Return a table's columns, as its message has them."""
    return _fields(MESSAGES[table].DESCRIPTOR)


def _fields(descriptor: Descriptor) -> list[bigquery.SchemaField]:
    made = []
    for field in descriptor.fields:
        if field.message_type is not None:
            nested = _fields(field.message_type)
            made.append(bigquery.SchemaField(field.name, "RECORD", "REPEATED", fields=nested))
        else:
            kind = "TIMESTAMP" if field.name == "time" else _TYPES[field.type]
            required = field.name in ("row_id", "time")
            mode = "REQUIRED" if required else "NULLABLE"
            made.append(bigquery.SchemaField(field.name, kind, mode))
    return made


def _streamed(row: AnyRow) -> dict[str, Any]:
    """Return a row as `insertAll` takes it."""
    time = _EPOCH + timedelta(microseconds=row.time)
    return {**plain(row), "time": time.strftime("%Y-%m-%dT%H:%M:%S.%fZ")}


class translated:  # noqa: N801 - reads as the statement it is
    """Turns what Google's client raises into errors of ours."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        if error is not None and (told := _error(self._what, error)) is not None:
            raise told from error


def _error(what: str, error: BaseException) -> LinerError | None:
    text = f"BigQuery, {what}: {getattr(error, 'message', '') or type(error).__name__}"[:500]
    match error:
        case LinerError():
            return None
        case exceptions.NotFound():
            return FailedPreconditionError(
                f"{text}; `liner-server setup-cloud` makes the tables", reason="ANALYTICS_MISSING"
            )
        case exceptions.Forbidden() | exceptions.Unauthorized():
            # Quotas come as 403 too; those pass.
            if "quota" in text.lower() or "rate" in text.lower():
                return ResourceExhaustedError(text, reason="ANALYTICS_QUOTA")
            return FailedPreconditionError(text, reason="ANALYTICS_FORBIDDEN")
        case exceptions.TooManyRequests():
            return ResourceExhaustedError(text, reason="ANALYTICS_QUOTA")
        case exceptions.BadRequest():
            return FailedPreconditionError(text, reason="ANALYTICS_REFUSED")
        case auth_exceptions.DefaultCredentialsError():
            return FailedPreconditionError(
                f"BigQuery, {what}: there are none; run as a service account that may use it, or "
                "`gcloud auth application-default login`",
                reason="ANALYTICS_CREDENTIALS",
            )
        case (
            exceptions.GoogleAPICallError()
            | exceptions.RetryError()
            | auth_exceptions.GoogleAuthError()
            | requests.RequestException()
            | TimeoutError()
            | OSError()
        ):
            return UnavailableError(text, reason="ANALYTICS")
    return None
