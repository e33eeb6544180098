"""Spans by OpenTelemetry, sent to a collector by OTLP over gRPC."""

import asyncio
import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from liner_server.errors import LinerError
from liner_server.tracing import Attributes, Kind, Span

_EXPORT_SECONDS = 5
_CLOSE_SECONDS = 1.0
"""Time for the last spans when the process ends: a collector that is gone must not hold it up."""

_PROPAGATOR = TraceContextTextMapPropagator()


class _OtelSpan:
    def __init__(self, span: trace.Span) -> None:
        self._span = span

    def note(self, attributes: Attributes) -> None:
        self._span.set_attributes(dict(attributes))

    def fail(self, reason: str) -> None:
        self._span.set_status(trace.StatusCode.ERROR, reason)

    def end(self) -> None:
        if self._span.is_recording():
            self._span.end()


class OtelTracer:
    """Sends spans in the background; those that cannot be sent are dropped, never waited for.

    Close it with `close`, which takes at most a second.
    """

    def __init__(self, *, endpoint: str, share: float, service: str, version: str) -> None:
        """Take the collector's address and the part of new traces that is sampled."""
        # The exporter tells each failure; one that lasts would fill the logs.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        self._provider = TracerProvider(
            sampler=ParentBasedTraceIdRatio(share),
            resource=Resource.create({"service.name": service, "service.version": version}),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(
            BatchSpanProcessor(
                OTLPSpanExporter(
                    endpoint=endpoint,
                    insecure=not endpoint.startswith("https://"),
                    timeout=_EXPORT_SECONDS,
                )
            )
        )
        self._tracer = self._provider.get_tracer("liner", version)

    def begin(
        self, name: str, kind: Kind, carrier: Mapping[str, str], attributes: Attributes
    ) -> Span:
        """Begin a span and make it the current one of this task, for good."""
        span = self._start(name, kind, carrier, attributes)
        otel_context.attach(trace.set_span_in_context(span))
        return _OtelSpan(span)

    @contextmanager
    def span(
        self, name: str, kind: Kind, carrier: Mapping[str, str], attributes: Attributes
    ) -> Iterator[Span]:
        """Time what the context holds."""
        span = self._start(name, kind, carrier, attributes)
        before = otel_context.attach(trace.set_span_in_context(span))
        ours = _OtelSpan(span)
        try:
            yield ours
        except BaseException as error:
            # No message: it may hold what callers or models said.
            ours.fail(error.reason if isinstance(error, LinerError) else type(error).__name__)
            raise
        finally:
            span.end()
            otel_context.detach(before)

    def carrier(self) -> dict[str, str]:
        """Return the current span's `traceparent`; no `tracestate`, whose content is others'."""
        carried: dict[str, str] = {}
        _PROPAGATOR.inject(carried)
        return {key: value for key, value in carried.items() if key == "traceparent"}

    def sampled_trace_id(self) -> str:
        """Return the current trace's id if its spans are sent."""
        current = trace.get_current_span().get_span_context()
        if not (current.is_valid and current.trace_flags.sampled):
            return ""
        return trace.format_trace_id(current.trace_id)

    async def close(self) -> None:
        """Send what is left, as far as the time goes."""
        loop, closed = asyncio.get_running_loop(), asyncio.Event()

        def shut_down() -> None:
            self._provider.shutdown()
            # The loop may be gone by then.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(closed.set)

        # Shutting down waits for the collector as long as it likes, so it is left behind.
        threading.Thread(target=shut_down, daemon=True).start()
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await closed.wait()

    def _start(
        self, name: str, kind: Kind, carrier: Mapping[str, str], attributes: Attributes
    ) -> trace.Span:
        traceparent = carrier.get("traceparent")
        parent = _PROPAGATOR.extract({"traceparent": traceparent}) if traceparent else None
        return self._tracer.start_span(
            name, parent, kind=trace.SpanKind[kind], attributes=dict(attributes)
        )
