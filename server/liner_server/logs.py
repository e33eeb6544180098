"""Log lines: one JSON object each where a machine reads them, plain text on a terminal."""

import logging
import sys
import time
from collections.abc import Callable
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
    can begin a line of its own. Of the lines that one place in a library writes, ten a minute are
    shown: what peers can provoke shall not fill the disk.
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
    libraries.addFilter(_Sparing())
    libraries.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *processors],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(handlers=[libraries], level=logging.WARNING, force=True)


class _Sparing(logging.Filter):
    """Lets through what a place in a library writes now and then, and says what was left out."""

    _MOST = 10
    _SECONDS = 60.0

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._written: dict[tuple[str, str, int], tuple[float, int]] = {}
        """By place, when its minute began and how many lines it has written since."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.startswith("grpc.") and str(record.msg).startswith("Invalid encoding on"):
            # Metadata that is no text, a token perhaps, in full; the call itself is answered.
            return False
        place = (record.name, record.pathname, record.lineno)
        now = self._clock()
        began, count = self._written.get(place, (now, 0))
        if now - began >= self._SECONDS:
            if count > self._MOST:
                left_out = count - self._MOST
                record.msg = f"{record.getMessage()} (and {left_out} more from here before)"
                record.args = ()
            began, count = now, 0
        self._written[place] = (began, count + 1)
        return count < self._MOST


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
