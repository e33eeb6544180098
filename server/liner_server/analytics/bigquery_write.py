"""Rows into BigQuery by its Storage Write API: half the list price of `insertAll`.

The extra `liner[bqstorage]` brings Google's client. Rows go to each table's default stream and can
be read at once. It knows no insert ids: what comes twice is stored twice and counted once, for
every statement begins with one row an id.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Self

import google.auth
import grpc
from google.api_core import exceptions
from google.cloud.bigquery_storage_v1 import types
from google.cloud.bigquery_storage_v1.services.big_query_write import BigQueryWriteAsyncClient
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from liner_server.analytics.bigquery import NO_RETRY, BigQuerySink, Place, translated
from liner_server.errors import UnavailableError
from liner_server.ports_analytics import MESSAGES, AnyRow, Refused, Table

_APPEND_SECONDS = 10.0
_SCOPE = "https://www.googleapis.com/auth/bigquery.insertdata"


class BigQueryWriteSink(BigQuerySink):
    """A `BigQuerySink` whose rows travel by the Storage Write API; it reads like the other one."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._forms = {table: _Form(MESSAGES[table].DESCRIPTOR) for table in Table}
        self._writer: BigQueryWriteAsyncClient

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        try:
            self._writer = await self._open()
        except BaseException:
            await super().__aexit__()
            raise
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._writer.transport.close()  # type: ignore[no-untyped-call]
        await super().__aexit__(*error)

    async def insert(self, table: Table, rows: Sequence[AnyRow]) -> Sequence[Refused]:
        """Store rows; see the port."""
        refused = [Refused(i, "it has no row_id") for i, row in enumerate(rows) if not row.row_id]
        left = [(index, row) for index, row in enumerate(rows) if row.row_id]
        while left:
            with translated(table):
                bad = await self._append(table, [row for _, row in left])
            refused += [Refused(left[position][0], why) for position, why in bad.items()]
            if not bad:
                break
            # One bad row stops all of its request: the others are sent again without it.
            left = [pair for position, pair in enumerate(left) if position not in bad]
        return refused

    async def _open(self) -> BigQueryWriteAsyncClient:
        address = self._place.write_emulator
        make = BigQueryWriteAsyncClient.get_transport_class("grpc_asyncio")
        if address is not None:
            return BigQueryWriteAsyncClient(
                transport=make(channel=grpc.aio.insecure_channel(address))
            )
        credentials, _ = await self._call(
            "credentials", lambda: google.auth.default(scopes=[_SCOPE])
        )
        return BigQueryWriteAsyncClient(transport=make(credentials=credentials))

    async def _append(self, table: Table, rows: Sequence[AnyRow]) -> Mapping[int, str]:
        """Append rows; return those that were refused for themselves, and then none is stored."""
        form = self._forms[table]
        place = self._place
        stream = (
            f"projects/{place.project}/datasets/{place.dataset}/tables/{table}/streams/_default"
        )
        request = types.AppendRowsRequest(
            write_stream=stream,
            proto_rows=types.AppendRowsRequest.ProtoData(
                writer_schema=types.ProtoSchema(proto_descriptor=form.schema),
                rows=types.ProtoRows(serialized_rows=[form.packed(row) for row in rows]),
            ),
        )

        async def requests() -> AsyncIterator[types.AppendRowsRequest]:
            yield request

        answers = await self._writer.append_rows(
            requests(),
            retry=NO_RETRY,
            timeout=_APPEND_SECONDS,
            metadata=(("x-goog-request-params", f"write_stream={stream}"),),
        )
        async for answer in answers:
            if answer.row_errors:
                return {int(one.index): str(one.message) for one in answer.row_errors}
            if answer.error.code:
                status = _STATUS.get(answer.error.code, grpc.StatusCode.UNKNOWN)
                raised: Exception = exceptions.from_grpc_status(  # type: ignore[no-untyped-call]
                    status, answer.error.message
                )
                raise raised
            return {}
        raise UnavailableError("BigQuery ended the stream without an answer", reason="ANALYTICS")


_STATUS = {code.value[0]: code for code in grpc.StatusCode}


class _Form:
    """A table's rows as the Write API wants them: by a schema that stands alone, zeros included.

    Our own messages leave zeros out, which BigQuery would store as NULL.
    """

    def __init__(self, descriptor: Descriptor) -> None:
        self.schema = _alone(descriptor)
        file = descriptor_pb2.FileDescriptorProto(
            name=f"{descriptor.name}.proto", syntax="proto2", message_type=[self.schema]
        )
        pool = descriptor_pool.DescriptorPool()
        pool.Add(file)
        found = pool.FindMessageTypeByName(descriptor.name)
        self._make: type[Message] = message_factory.GetMessageClass(found)

    def packed(self, row: Message) -> bytes:
        """Return a row's bytes."""
        made = self._make()
        _fill(made, row)
        return made.SerializeToString()


def _alone(descriptor: Descriptor) -> descriptor_pb2.DescriptorProto:
    """Return a message's description with those of its parts inside, every field optional."""
    made = descriptor_pb2.DescriptorProto(name=descriptor.name)
    for field in descriptor.fields:
        one = made.field.add(name=field.name, number=field.number, type=field.type)
        one.label = one.LABEL_REPEATED if field.is_repeated else one.LABEL_OPTIONAL
        if field.message_type is not None:
            one.type_name = field.message_type.name
            made.nested_type.append(_alone(field.message_type))
    return made


def _fill(made: Any, row: Message) -> None:
    for field in row.DESCRIPTOR.fields:
        value = getattr(row, field.name)
        if field.is_repeated:
            for entry in value:
                _fill(getattr(made, field.name).add(), entry)
        else:
            setattr(made, field.name, value)
