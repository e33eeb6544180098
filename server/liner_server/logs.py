"""Log lines: one JSON object each where a machine reads them, plain text on a terminal."""

import logging
import sys
from io import StringIO
from typing import TextIO

import structlog

from liner_server import context, tracing
from liner_server.settings import LogFormat


def configure_logs(level: str, form: LogFormat, *, track_ids: bool = False) -> None:
    """Send log lines at or above `level` to standard error, with the call that they belong to.

    A line within a call has its `request_id` and `principal`, its `trace_id` if it is traced, and
    with `track_ids` the caller's own id of the track. What libraries log comes in the same form,
    from WARNING up.

    Values are rendered by the JSON encoder (or escaped on a terminal), so no text from outside
    can begin a line of its own.
    """
    console = form is LogFormat.CONSOLE or (form is LogFormat.AUTO and sys.stderr.isatty())
    renderer: structlog.typing.Processor
    if console:
        renderer = structlog.dev.ConsoleRenderer(exception_formatter=_escaped_traceback)
    else:
        renderer = structlog.processors.JSONRenderer(default=repr)
    processors: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        _TheCall(track_ids=track_ids),
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        *([] if console else [structlog.processors.format_exc_info]),
    ]
    structlog.configure(
        processors=[*processors, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level)),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    libraries = logging.StreamHandler(sys.stderr)
    libraries.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *processors],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(handlers=[libraries], level=logging.WARNING, force=True)


class _TheCall:
    """Adds which call a line belongs to."""

    def __init__(self, *, track_ids: bool) -> None:
        self._track_ids = track_ids

    def __call__(
        self, _: object, __: str, event: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        ours = context.current.get(None)
        if ours is not None:
            event.setdefault("request_id", ours.request_id)
            event.setdefault("principal", ours.principal.name)
        event.update(tracing.exemplar() or {})
        if self._track_ids and (track_id := context.track_id.get("")):
            event.setdefault("track_id", track_id[:256])
        return event


def _escaped_traceback(sio: TextIO, exc_info: structlog.typing.ExcInfo) -> None:
    """Write a traceback whose lines cannot be taken for log lines, and move no cursor."""
    plain = StringIO()
    structlog.dev.plain_traceback(plain, exc_info)
    for line in plain.getvalue().strip().splitlines():
        shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)
        sio.write(f"\n  | {shown}")
