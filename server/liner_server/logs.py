"""Log lines: one JSON object each where a machine reads them, plain text on a terminal."""

import logging
import sys

import structlog

from liner_server.settings import LogFormat


def configure_logs(level: str, form: LogFormat) -> None:
    """Send log lines at or above `level` to standard error.

    Values are rendered by the JSON encoder (or escaped on a terminal), so no text from outside
    can begin a line of its own.
    """
    console = form is LogFormat.CONSOLE or (form is LogFormat.AUTO and sys.stderr.isatty())
    renderer: structlog.typing.Processor
    if console:
        renderer = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    else:
        renderer = structlog.processors.JSONRenderer(default=repr)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([] if console else [structlog.processors.format_exc_info]),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level)),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
