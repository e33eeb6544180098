"""Spans of what a call goes through, in W3C trace context; nothing at all where nobody wants them.

Whoever has something to time asks `span`, whoever sends work elsewhere lets `carrier` go with it.
Both cost next to nothing until `traced` is open; OpenTelemetry is imported only then. Spans hold
names, codes and counts; what callers state, prompts and keys never go into one.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from enum import StrEnum
from typing import Protocol

Attributes = Mapping[str, str | int | float | bool]
NONE: Attributes = {}


class Kind(StrEnum):
    """On which side of a hop a span is."""

    SERVER = "SERVER"
    CLIENT = "CLIENT"
    PRODUCER = "PRODUCER"
    CONSUMER = "CONSUMER"
    INTERNAL = "INTERNAL"


class Span(Protocol):
    """One piece of work being timed."""

    def note(self, attributes: Attributes) -> None:
        """Add what became known meanwhile."""

    def fail(self, reason: str) -> None:
        """Mark it as failed; `reason` is one of our own."""

    def end(self) -> None:
        """Stop the time; more than once does no harm."""


class Tracer(Protocol):
    """Makes spans and sends them; `tracing_otel` has the one of the running service."""

    def begin(
        self, name: str, kind: Kind, carrier: Mapping[str, str], attributes: Attributes
    ) -> Span:
        """Begin a span and make it the current one of this task, for good.

        With a `traceparent` in the carrier it goes on with that trace, else with the task's.
        """

    def span(
        self, name: str, kind: Kind, carrier: Mapping[str, str], attributes: Attributes
    ) -> AbstractContextManager[Span]:
        """The same for as long as a context is open; an exception marks it as failed."""

    def carrier(self) -> dict[str, str]:
        """Return the current span's `traceparent` as metadata; empty without one."""

    def sampled_trace_id(self) -> str:
        """Return the current trace's id if its spans are sent, else nothing."""


class _Silent:
    """The span of those who trace nothing."""

    def note(self, attributes: Attributes) -> None:
        """Forget it."""

    def fail(self, reason: str) -> None:
        """Forget it."""

    def end(self) -> None:
        """Nothing was begun."""


_SILENT = _Silent()
_tracer: Tracer | None = None


@contextmanager
def traced(tracer: Tracer) -> Iterator[None]:
    """Let everything in this process be traced while the context is open."""
    global _tracer
    before, _tracer = _tracer, tracer
    try:
        yield
    finally:
        _tracer = before


def is_on() -> bool:
    """Whether anything is traced."""
    return _tracer is not None


def begin(
    name: str,
    kind: Kind = Kind.INTERNAL,
    *,
    carrier: Mapping[str, str] = {},
    attributes: Attributes = NONE,
) -> Span:
    """Begin a span that ends with its task, or when it is told to."""
    return _SILENT if _tracer is None else _tracer.begin(name, kind, carrier, attributes)


def span(
    name: str,
    kind: Kind = Kind.INTERNAL,
    *,
    carrier: Mapping[str, str] = {},
    attributes: Attributes = NONE,
) -> AbstractContextManager[Span]:
    """Time what the context holds."""
    if _tracer is None:
        return nullcontext(_SILENT)
    return _tracer.span(name, kind, carrier, attributes)


def carrier() -> dict[str, str]:
    """Return what lets another process go on with this trace."""
    return {} if _tracer is None else _tracer.carrier()


def exemplar() -> dict[str, str] | None:
    """Return what a histogram may show of the call it counts: its trace, if that can be found."""
    trace_id = "" if _tracer is None else _tracer.sampled_trace_id()
    return {"trace_id": trace_id} if trace_id else None
