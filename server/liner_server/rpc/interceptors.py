"""One interceptor round every call: identity, request context, metrics, errors.

The four concerns are parts of their own (`identity`, `Telemetry`, `status`, `core.retry`), put
together here once a method: four interceptors one inside the other cost three times as much.
`intercept_service` only picks a handler; what has to happen around the call happens in the
wrapped behaviour.
"""

import asyncio
import math
import re
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeAlias

import grpc
import structlog
from google.protobuf.message import DecodeError
from google.rpc import status_pb2
from py_grpc_prometheus import grpc_utils

from liner_server import tracing
from liner_server.context import Principal, RequestContext, current
from liner_server.core.retry import RetryBudget
from liner_server.errors import DeadlineError, InvalidRequestError, LinerError
from liner_server.rpc import identity, status
from liner_server.telemetry import Telemetry

_log = structlog.get_logger()
_REQUEST_ID = re.compile(r"^[\x21-\x7e]{1,128}$")
_MODEL = re.compile(r"^[A-Za-z0-9._:-]{1,64}$")
_OURS = "/liner.v1."
_CODES = {code.value[0]: code for code in grpc.StatusCode}

_Context = grpc.aio.ServicerContext[Any, Any]
_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class Running:
    """The handlers at work, so that stopping can wait for them after grpc's own stop returned."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def add(self, task: asyncio.Task[Any]) -> None:
        """Count a handler's task until it ends."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def idle(self) -> None:
        """Return when none is at work."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def wait(self, grace: timedelta) -> int:
        """Wait for all, cancel those still at work after `grace`; return how many those were."""
        if not self._tasks:
            return 0
        _, late = await asyncio.wait(self._tasks, timeout=grace.total_seconds())
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=1)
        return len(late)


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Lets a call in, gives it its `RequestContext`, counts it, and words its failure."""

    def __init__(
        self,
        *,
        authenticator: Callable[[], identity.TokenAuthenticator] | None,
        telemetry: Telemetry,
        retry_budget: RetryBudget,
        default_deadline: timedelta,
        running: Running,
    ) -> None:
        """Take what tells who is known now; None: everybody is the local principal."""
        self._authenticator = authenticator
        self._telemetry = telemetry
        self._budget = retry_budget
        self._default_deadline = default_deadline.total_seconds()
        self._running = running
        self._wrapped: dict[str, _Handler] = {}
        self._refusing: dict[str, _Handler] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable["_Handler | None"]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "_Handler | None":
        """Return the method's handler, wrapped once; callers choose names, so None is not kept.

        Who may not call it is refused before grpc reads the request: else anybody could make the
        server hold a hundred messages of the largest size for each connection.
        """
        method = handler_call_details.method
        task = asyncio.current_task()
        if task is not None and method.startswith(_OURS):
            # From its first byte on: stopping waits for a call whose request still comes in.
            self._running.add(task)
        wrapped = self._wrapped.get(method)
        if wrapped is None:
            handler = await continuation(handler_call_details)
            if handler is None:
                return handler
            wrapped = self._wrap(method, handler)
            self._wrapped[method] = wrapped
        if self._authenticator is not None:
            metadata = _texts(handler_call_details.invocation_metadata)
            try:
                identity.authorise(self._principal(method, metadata), method)
            except LinerError:
                return self._refusing[method]
        return wrapped

    def _wrap(self, method: str, handler: _Handler) -> _Handler:
        call = _Call(self, method, handler)
        # Whatever the method's own kind: one that streams in is called before anything is read.
        self._refusing[method] = grpc.stream_stream_rpc_method_handler(call.stream(_nothing))
        kinds = (
            ("unary_unary", grpc.unary_unary_rpc_method_handler, call.unary),
            ("unary_stream", grpc.unary_stream_rpc_method_handler, call.stream),
            ("stream_unary", grpc.stream_unary_rpc_method_handler, call.unary),
            ("stream_stream", grpc.stream_stream_rpc_method_handler, call.stream),
        )
        for name, make, around in kinds:
            behaviour = getattr(handler, name)
            if behaviour is not None:
                # The wrapping parses ours itself: what grpc cannot parse it answers with UNKNOWN
                # and the exception's text, counted nowhere.
                parse = None if call.ours else handler.request_deserializer
                return make(around(behaviour), parse, handler.response_serializer)
        return handler

    def admit(self, method: str, context: _Context, *, streams: bool) -> RequestContext:
        """Return the call's context: who, how long, which model.

        Without a deadline of the caller's a unary call gets the default one and a stream none: its
        items have their own times, and it may run for hours.

        Raises:
            LinerError: not known, not allowed, or metadata that cannot be used.

        """
        metadata = _texts(context.invocation_metadata())
        principal = self._principal(method, metadata)
        identity.authorise(principal, method)
        request_id = _single(metadata, "liner-request-id", _REQUEST_ID) or uuid.uuid4().hex
        remaining = context.time_remaining()
        unlimited = remaining is None or remaining > 1e9
        if unlimited or remaining is None:
            seconds = math.inf if streams else self._default_deadline
        else:
            seconds = remaining
        if "grpc-previous-rpc-attempts" not in metadata:
            self._budget.deposit()
        return RequestContext(
            request_id=request_id,
            principal=principal,
            deadline=asyncio.get_running_loop().time() + seconds,
            model=_single(metadata, "liner-model", _MODEL),
            retry_budget=self._budget,
        )

    def _principal(self, method: str, metadata: dict[str, list[str]]) -> Principal:
        if self._authenticator is None:
            return identity.LOCAL
        if identity.ROLE_OF_METHOD.get(method) == identity.OPEN:
            return identity.NOBODY
        return self._authenticator().principal_of(metadata.get("authorization", ()))

    def known(self) -> object:
        """Return what is another object once tokens have changed."""
        return self._authenticator and self._authenticator()

    def readmit(self, method: str, context: _Context) -> None:
        """Let a stream go on after a change of tokens, if its caller might begin it now.

        Raises:
            UnauthenticatedError, PermissionDeniedError: it might not.

        """
        principal = self._principal(method, _texts(context.invocation_metadata()))
        identity.authorise(principal, method)

    def pushback(self, error: LinerError, context: _Context) -> tuple[tuple[str, str], ...]:
        """Return what tells the client's own retry policy when to come back, or not to."""
        if not error.retryable:
            return (("grpc-retry-pushback-ms", "-1"),)
        attempts = dict(context.invocation_metadata() or ()).get("grpc-previous-rpc-attempts")
        if attempts is not None and not self._budget.withdraw():
            # Too many repeats already: an outage must not be multiplied by polite clients.
            return (("grpc-retry-pushback-ms", "-1"),)
        if error.retry_after is None:
            return ()
        milliseconds = round(error.retry_after.total_seconds() * 1000)
        return (("grpc-retry-pushback-ms", str(milliseconds)),)

    @property
    def telemetry(self) -> Telemetry:
        """Where calls are counted."""
        return self._telemetry


@dataclass(slots=True)
class _Ongoing:
    """A call being counted."""

    began: float
    span: tracing.Span
    known: object
    """Whom the tokens file knew when the caller was last let in."""


class _Call:
    """The wrapping of one method, with its metric children bound once."""

    def __init__(self, owner: CallInterceptor, method: str, handler: _Handler) -> None:
        self._owner = owner
        self._method = method
        self.ours = method.startswith(_OURS)
        self._parse = handler.request_deserializer if self.ours else None
        self._streams_in = bool(handler.request_streaming)
        self._streams_out = bool(handler.response_streaming)
        _, service, name = method.split("/", 2)
        kind = grpc_utils.get_method_type(self._streams_in, self._streams_out)
        labels = (kind, service, name)
        metrics = owner.telemetry
        self._started = metrics.grpc_started.labels(*labels)
        self._received = metrics.grpc_received.labels(*labels)
        self._sent = metrics.grpc_sent.labels(*labels)
        self._seconds = metrics.grpc_seconds.labels(*labels)
        self._handled = {
            code: metrics.grpc_handled.labels(*labels, code.name) for code in grpc.StatusCode
        }

    def unary(self, behaviour: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
        """Wrap a behaviour that returns one response."""

        async def call(request: Any, context: _Context) -> Any:
            began = self._begin(context)
            try:
                ours = self._open(context)
                body = behaviour(self._count(request, context, began), context)
                if self.ours and not self._streams_in:
                    response = await _within(body, ours)
                else:
                    response = await body
                self._sent.inc()
            except BaseException as error:
                await self._fail(error, context, began)
                raise
            self._end(context, began)
            return response

        return call

    def stream(self, behaviour: Callable[..., Any]) -> Callable[..., AsyncIterator[Any]]:
        """Wrap a behaviour that yields responses."""

        async def call(request: Any, context: _Context) -> AsyncIterator[Any]:
            began = self._begin(context)
            try:
                self._open(context)
                responses = behaviour(self._count(request, context, began), context)
                if hasattr(responses, "__aiter__"):
                    async with aclosing(responses):
                        async for response in responses:
                            self._check(context, began)
                            self._sent.inc()
                            yield response
                else:
                    # A handler that writes to the context, as grpc's own services do.
                    await responses
            except BaseException as error:
                await self._fail(error, context, began)
                raise
            self._end(context, began)

        return call

    def _begin(self, context: _Context) -> _Ongoing:
        self._started.inc()
        span = tracing.begin(
            self._method[1:],
            tracing.Kind.SERVER,
            carrier=_carried(context) if tracing.is_on() else {},
            attributes={"rpc.system": "grpc"},
        )
        return _Ongoing(time.perf_counter(), span, self._owner.known())

    def _open(self, context: _Context) -> RequestContext:
        streams = self._streams_in or self._streams_out
        ours = self._owner.admit(self._method, context, streams=streams)
        current.set(ours)
        context.set_trailing_metadata((("liner-request-id", ours.request_id),))
        return ours

    def _check(self, context: _Context, began: _Ongoing) -> None:
        """Go on with a stream that its caller may still have: it can run for a night."""
        known = self._owner.known()
        if known is not began.known:
            self._owner.readmit(self._method, context)
            began.known = known

    def _count(self, request: Any, context: _Context, began: _Ongoing) -> Any:
        if not self._streams_in:
            self._received.inc()
            return self._parsed(request)
        return self._counted(request, context, began)

    async def _counted(
        self, requests: AsyncIterator[Any], context: _Context, began: _Ongoing
    ) -> AsyncIterator[Any]:
        async for request in requests:
            self._check(context, began)
            self._received.inc()
            yield self._parsed(request)

    def _parsed(self, request: Any) -> Any:
        if self._parse is None:
            return request
        try:
            return self._parse(request)
        except DecodeError as error:
            raise InvalidRequestError.of(
                "request",
                "is not a message of this method, or holds text that is not UTF-8",
                "MESSAGE_MALFORMED",
            ) from error

    def _end(self, context: _Context, began: _Ongoing) -> None:
        code = context.code()
        self._observe(
            _CODES.get(code, grpc.StatusCode.OK) if isinstance(code, int) else code, began
        )

    def _observe(self, code: grpc.StatusCode | None, began: _Ongoing) -> None:
        code = code or grpc.StatusCode.OK
        self._handled[code].inc()
        self._seconds.observe(time.perf_counter() - began.began, tracing.exemplar())
        began.span.note({"rpc.grpc.status_code": code.value[0]})
        if code is not grpc.StatusCode.OK:
            began.span.fail(code.name)
        began.span.end()

    async def _fail(self, error: BaseException, context: _Context, began: _Ongoing) -> None:
        """Count the failure and, where it is ours to word, end the call with its status."""
        if isinstance(error, asyncio.CancelledError | GeneratorExit):
            remaining = context.time_remaining()
            late = remaining is not None and remaining <= 0
            self._observe(
                grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED, began
            )
            return
        if isinstance(error, grpc.aio.AbortError):
            self._end(context, began)
            return
        ours = current.get(None)
        request_id = ours.request_id if ours is not None else uuid.uuid4().hex
        pushback: tuple[tuple[str, str], ...] = ()
        if isinstance(error, LinerError):
            rich = status.to_status(error, request_id=request_id)
            pushback = self._owner.pushback(error, context)
        else:
            _log.error("call failed", method=self._method, request_id=request_id, exc_info=error)
            rich = status.internal(request_id=request_id)
        self._observe(_CODES[rich.code], began)
        await _abort(context, rich, (("liner-request-id", request_id), *pushback))


def _texts(pairs: Iterable[tuple[str, str | bytes]] | None) -> dict[str, list[str]]:
    """Return the metadata that are text, by their keys."""
    found: dict[str, list[str]] = {}
    for key, value in pairs or ():
        if isinstance(value, str):
            found.setdefault(key, []).append(value)
    return found


async def _nothing(_: Any, __: _Context) -> AsyncIterator[Any]:
    """Answer a call that is refused before it comes to that."""
    return
    yield


def _carried(context: _Context) -> dict[str, str]:
    """Return the caller's trace context, if there is one."""
    for key, value in context.invocation_metadata() or ():
        if key == "traceparent" and isinstance(value, str):
            return {key: value}
    return {}


async def _abort(
    context: _Context, rich: status_pb2.Status, trailing: tuple[tuple[str, str], ...]
) -> None:
    # abort_with_status would drop trailing metadata of our own.
    wire = status.for_wire(rich)
    await context.abort(wire.code, wire.details, (*wire.trailing_metadata, *trailing))


async def _within(body: Awaitable[Any], context: RequestContext) -> Any:
    """Wait for a response until the deadline that the context shares with everything below."""
    try:
        async with asyncio.timeout_at(context.deadline):
            return await body
    except TimeoutError as error:
        raise DeadlineError("the deadline passed", reason="DEADLINE") from error


def _single(metadata: dict[str, list[str]], key: str, form: re.Pattern[str]) -> str:
    values = metadata.get(key, [])
    if not values:
        return ""
    if len(values) > 1 or not form.match(values[0]):
        raise InvalidRequestError.of(
            f"metadata.{key}", f"one value of the form {form.pattern}", "METADATA_FORMAT"
        )
    return values[0]
