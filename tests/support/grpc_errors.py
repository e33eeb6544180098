"""Reads google.rpc details out of a failed call."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status


@dataclass(kw_only=True)
class Failure:
    """How a call failed; filled when the `fails` context ends."""

    code: grpc.StatusCode = grpc.StatusCode.OK
    message: str = ""
    reason: str = ""
    request_id: str = ""
    violations: dict[str, str] = field(default_factory=dict)
    """Reason by field."""
    retry_after: float | None = None
    trailing: dict[str, str | bytes] = field(default_factory=dict)


@asynccontextmanager
async def fails(code: grpc.StatusCode) -> AsyncIterator[Failure]:
    """Expect the call inside to fail with `code`; yields what it failed with."""
    failure = Failure()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        yield failure
    error = caught.value
    failure.code, failure.message = error.code(), error.details() or ""
    failure.trailing = dict(error.trailing_metadata() or ())
    status = rpc_status.from_call(error)  # type: ignore[arg-type]  # it does take one
    for packed in status.details if status is not None else ():
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        retry = error_details_pb2.RetryInfo()
        if packed.Unpack(info):
            failure.reason, failure.request_id = info.reason, info.metadata["request_id"]
        elif packed.Unpack(bad):
            failure.violations = {v.field: v.reason for v in bad.field_violations}
        elif packed.Unpack(retry):
            failure.retry_after = retry.retry_delay.ToTimedelta().total_seconds()
    assert error.code() is code, f"{error.code()}: {error.details()}"
