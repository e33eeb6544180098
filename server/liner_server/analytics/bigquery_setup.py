"""The dataset and tables that analytics needs in BigQuery: made, and given new columns."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

from google.api_core import exceptions
from google.cloud import bigquery

from liner_server.analytics.bigquery import NO_RETRY, Place, schema, translated
from liner_server.cloud_parts import Part
from liner_server.ports_analytics import Table

_CALL_SECONDS = 30.0
_CLUSTERED = ["experiment", "variant"]
_WHAT = {
    Table.EXPERIMENTS: "Answers of Liner, one row each",
    Table.OUTCOMES: "What editors said of fields, one row a judgement",
    Table.TRAFFIC: "Changes of experiments' shares, one row each",
}


async def set_up(
    place: Place, *, location: str = "US", kept: timedelta = timedelta(0), dry_run: bool = False
) -> AsyncIterator[Part]:
    """Create what is missing, add columns that are new, and yield each part.

    `location` is where a new dataset lies. Days older than `kept` end by themselves; 0: never.
    Columns are only added, and no row is touched; a column of another type is told and left alone.

    Raises:
        FailedPreconditionError: this account may not.
        UnavailableError: BigQuery cannot be reached.

    """
    client = await asyncio.to_thread(place.client)
    try:
        yield await asyncio.to_thread(_dataset, client, place, location, dry_run)
        for table in Table:
            yield await asyncio.to_thread(_table, client, place, table, kept, dry_run)
    finally:
        client.close()  # type: ignore[no-untyped-call]


def _dataset(client: bigquery.Client, place: Place, location: str, dry_run: bool) -> Part:
    path = f"{place.project}.{place.dataset}"
    with translated(path):
        try:
            client.get_dataset(path, retry=NO_RETRY, timeout=_CALL_SECONDS)
        except exceptions.NotFound:
            if dry_run:
                return Part(kind="dataset", path=path, state="missing")
            wanted = bigquery.Dataset(path)
            wanted.location = location
            client.create_dataset(wanted, exists_ok=True, retry=NO_RETRY, timeout=_CALL_SECONDS)
            return Part(kind="dataset", path=path, state="created")
    return Part(kind="dataset", path=path, state="exists")


def _table(
    client: bigquery.Client, place: Place, table: Table, kept: timedelta, dry_run: bool
) -> Part:
    path = place.path(table)
    # The log of shares is small, and its oldest rows say when an experiment began.
    expires = int(kept.total_seconds() * 1000) if kept and table is not Table.TRAFFIC else None
    with translated(path):
        try:
            found = client.get_table(path, retry=NO_RETRY, timeout=_CALL_SECONDS)
        except exceptions.NotFound:
            if dry_run:
                return Part(kind="table", path=path, state="missing")
            made = bigquery.Table(path, schema=schema(table))
            made.description = _WHAT[table]
            made.time_partitioning = bigquery.TimePartitioning(field="time", expiration_ms=expires)
            made.clustering_fields = _CLUSTERED
            client.create_table(made, exists_ok=True, retry=NO_RETRY, timeout=_CALL_SECONDS)
            return Part(kind="table", path=path, state="created")
        return _mended(client, found, table, expires, dry_run)


def _mended(
    client: bigquery.Client, found: bigquery.Table, table: Table, expires: int | None, dry_run: bool
) -> Part:
    path = f"{found.project}.{found.dataset_id}.{found.table_id}"
    present = {field.name: field for field in found.schema}
    added = [field for field in schema(table) if field.name not in present]
    grown = {
        field.name: grown
        for field in schema(table)
        if field.name in present and (grown := _grown(present[field.name], field))
    }
    other = [
        field.name
        for field in schema(table)
        if field.name in present and _kind(present[field.name]) != _kind(field)
    ]
    partitioning = found.time_partitioning
    late = partitioning is not None and partitioning.expiration_ms != expires
    if other:
        note = f"of another type, to be mended by hand: {', '.join(other)}"
        return Part(kind="table", path=path, state="differs", note=note)
    if not added and not grown and not late:
        note = "" if partitioning is not None else "it is not partitioned by day"
        return Part(kind="table", path=path, state="exists", note=note)
    new = [*(field.name for field in added), *grown]
    notes = [f"new columns: {', '.join(new)}"] if new else []
    fields = ["schema"] if new else []
    if late:
        notes.append("how long days are kept")
        fields.append("time_partitioning")
    if not dry_run:
        # A column that is new to a table with rows cannot be required.
        kept = [grown.get(field.name, field) for field in found.schema]
        found.schema = [*kept, *(_nullable(field) for field in added)]
        if late and partitioning is not None:
            partitioning.expiration_ms = expires
            found.time_partitioning = partitioning
        client.update_table(found, fields, retry=NO_RETRY, timeout=_CALL_SECONDS)
    state = "differs" if dry_run else "changed"
    return Part(kind="table", path=path, state=state, note="; ".join(notes))


_SAME = {"INT64": "INTEGER", "FLOAT64": "FLOAT", "BOOL": "BOOLEAN", "STRUCT": "RECORD"}


def _kind(field: bigquery.SchemaField) -> tuple[str, bool]:
    kind = str(field.field_type).upper()
    return _SAME.get(kind, kind), field.mode == "REPEATED"


def _grown(
    present: bigquery.SchemaField, wanted: bigquery.SchemaField
) -> bigquery.SchemaField | None:
    """Return a column of rows with what it lacks; None where it lacks nothing."""
    names = {field.name for field in present.fields}
    lacking = [_nullable(field) for field in wanted.fields if field.name not in names]
    if not lacking:
        return None
    inner = [field.to_api_repr() for field in (*present.fields, *lacking)]
    return bigquery.SchemaField.from_api_repr({**present.to_api_repr(), "fields": inner})


def _nullable(field: bigquery.SchemaField) -> bigquery.SchemaField:
    if field.mode != "REQUIRED":
        return field
    resource: dict[str, Any] = {**field.to_api_repr(), "mode": "NULLABLE"}
    return bigquery.SchemaField.from_api_repr(resource)
