"""The Storage Write API in front of a `FakeBigQuery`: AppendRows to default streams, on a port.

A row's bytes are read by the schema that came with them, as BigQuery does: what a writer leaves
out is NULL.
"""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import grpc
from google.cloud.bigquery_storage_v1 import types
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.rpc import status_pb2

from support.bigquery_fake import FakeBigQuery, FaultError

_STREAM = re.compile(r"^projects/[^/]+/datasets/[^/]+/tables/([^/]+)/streams/_default$")
_CODES = {403: 7, 404: 5, 429: 8, 503: 14}


@asynccontextmanager
async def bigquery_write_fake(kept: FakeBigQuery) -> AsyncIterator[str]:
    """Yield the HOST:PORT at which rows can be appended to the tables of `kept`."""

    async def append(
        requests: AsyncIterator[types.AppendRowsRequest],
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> AsyncIterator[types.AppendRowsResponse]:
        async for request in requests:
            yield _appended(kept, request)

    server = grpc.aio.server()
    handler = grpc.stream_stream_rpc_method_handler(
        append,
        request_deserializer=types.AppendRowsRequest.deserialize,
        response_serializer=types.AppendRowsResponse.serialize,
    )
    service = "google.cloud.bigquery.storage.v1.BigQueryWrite"
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(service, {"AppendRows": handler})]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


def _appended(kept: FakeBigQuery, request: types.AppendRowsRequest) -> types.AppendRowsResponse:
    stream = _STREAM.match(request.write_stream)
    assert stream is not None, request.write_stream
    rows = [
        # No insert ids: a row that comes twice is there twice.
        {"insertId": uuid4().hex, "json": row}
        for row in _rows(request)
    ]
    try:
        path = f"/bigquery/v2/projects/p/datasets/d/tables/{stream[1]}/insertAll"
        said = kept.answer("POST", path, {"rows": rows})
    except FaultError as fault:
        error = status_pb2.Status(code=_CODES.get(fault.code, 3), message=str(fault))
        return types.AppendRowsResponse(error=error)
    wrong = [
        (entry["index"], entry["errors"][0]["message"])
        for entry in said.get("insertErrors", ())
        if entry["errors"][0]["reason"] != "stopped"
    ]
    if wrong and wrong[0][1].startswith("no such field"):
        # A schema that does not fit is refused as a whole.
        error = status_pb2.Status(code=3, message=f"Schema mismatch: {wrong[0][1]}")
        return types.AppendRowsResponse(error=error)
    return types.AppendRowsResponse(
        row_errors=[types.RowError(index=i, code=1, message=why) for i, why in wrong]
    )


def _rows(request: types.AppendRowsRequest) -> list[dict[str, Any]]:
    schema = request.proto_rows.writer_schema.proto_descriptor
    pool = descriptor_pool.DescriptorPool()
    pool.Add(
        descriptor_pb2.FileDescriptorProto(
            name="writer.proto", syntax="proto2", message_type=[schema]
        )
    )
    made = message_factory.GetMessageClass(pool.FindMessageTypeByName(schema.name))
    found = []
    for data in request.proto_rows.rows.serialized_rows:
        row = _plain(made.FromString(data))
        time = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=row["time"])
        found.append({**row, "time": time.strftime("%Y-%m-%dT%H:%M:%S.%fZ")})
    return found


def _plain(message: Any) -> dict[str, Any]:
    return {
        field.name: [_plain(entry) for entry in getattr(message, field.name)]
        if field.is_repeated
        else getattr(message, field.name)
        if message.HasField(field.name)
        else None
        for field in message.DESCRIPTOR.fields
    }
