"""Log lines say which call they belong to, and nobody outside can write one."""

import json
import logging
from collections.abc import Iterator
from dataclasses import replace

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from liner_server import context
from liner_server.context import Principal, RequestContext
from liner_server.logs import configure_logs
from liner_server.settings import LogFormat

HOSTILE = 'x\n{"event": "forged"}\r\x1b[2J\x00\u2028\u202e'


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    """Give the other tests their logging back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:], root.level = handlers, level


@pytest.fixture
def call() -> Iterator[RequestContext]:
    """The call that this test is part of."""
    call = RequestContext(
        request_id="r-1", principal=Principal(name="ingest", roles=frozenset()), deadline=0
    )
    before, track = context.current.set(call), context.track_id.set("track-7")
    yield call
    context.current.reset(before)
    context.track_id.reset(track)


def _line(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    [line] = capsys.readouterr().err.splitlines()
    found = json.loads(line)
    assert isinstance(found, dict)
    return found


def test_a_line_within_a_call_names_it(capsys, call: RequestContext) -> None:
    """One request id finds everything that was said about a call."""
    configure_logs("INFO", LogFormat.JSON)
    structlog.get_logger().info("something")

    line = _line(capsys)

    assert (line["request_id"], line["principal"]) == ("r-1", "ingest")
    assert "track_id" not in line


def test_track_ids_are_logged_only_where_wanted(capsys, call: RequestContext) -> None:
    """They are the customers' own, and may say more than a log should."""
    configure_logs("INFO", LogFormat.JSON, track_ids=True)
    structlog.get_logger().info("something")

    assert _line(capsys)["track_id"] == "track-7"


def test_a_line_that_names_its_own_call_keeps_it(capsys, call: RequestContext) -> None:
    """What a statement says outright is never replaced."""
    configure_logs("INFO", LogFormat.JSON)
    structlog.get_logger().info("something", request_id="r-2")

    assert _line(capsys)["request_id"] == "r-2"


@given(text=st.text() | st.just(HOSTILE))
def test_no_value_can_begin_a_line_of_its_own(text: str) -> None:
    """What is logged comes from requests, models and files."""
    lines: list[str] = []
    configure_logs("INFO", LogFormat.JSON)
    structlog.configure(logger_factory=lambda *_: _Collecting(lines))
    call = RequestContext(
        request_id=text, principal=Principal(name=text, roles=frozenset()), deadline=0
    )
    before = context.current.set(replace(call))
    try:
        structlog.get_logger().warning("event", text=text, nested={"a": [text]})
    finally:
        context.current.reset(before)

    [line] = lines
    assert len(line.splitlines()) == 1
    assert line.isascii()
    assert json.loads(line)["text"] == text


class _Collecting:
    def __init__(self, lines: list[str]) -> None:
        self._lines = lines

    def warning(self, line: str) -> None:
        self._lines.append(line)


@pytest.mark.parametrize("form", [LogFormat.JSON, LogFormat.CONSOLE])
def test_an_error_from_outside_forges_nothing(capsys, form: LogFormat) -> None:
    """Messages of exceptions quote what was sent; a terminal obeys escape sequences."""
    configure_logs("INFO", form)
    structlog.get_logger().error("call failed", text=HOSTILE, exc_info=ValueError(HOSTILE))

    shown = capsys.readouterr().err
    assert "ValueError" in shown
    assert "\x1b[2J" not in shown
    assert not {"\x00", "\r", "\u2028", "\u202e"} & set(shown)
    lines = shown.splitlines()
    assert not any(line.startswith('{"event": "forged"') for line in lines)
    if form is LogFormat.JSON:
        assert [json.loads(line)["event"] for line in lines] == ["call failed"]
    else:
        assert all(line.startswith("  | ") for line in lines[1:])


def test_what_libraries_log_has_the_same_form(capsys, call: RequestContext) -> None:
    """A plain line among JSON is lost, and could be anybody's text."""
    configure_logs("INFO", LogFormat.JSON)
    logging.getLogger("some.library").warning("refused %s", HOSTILE)
    logging.getLogger("some.library").info("chatter")

    line = _line(capsys)

    assert line["event"] == f"refused {HOSTILE}"
    assert (line["logger"], line["level"]) == ("some.library", "warning")
    assert line["request_id"] == "r-1"


def test_what_a_library_says_over_and_over_is_said_ten_times_a_minute(capsys) -> None:
    """Whoever can make a library complain could fill the disk."""
    configure_logs("INFO", LogFormat.JSON)
    [sparing] = [f for h in logging.getLogger().handlers for f in h.filters]
    now = [0.0]
    sparing._clock = lambda: now[0]

    for minute in (0.0, 61.0):
        now[0] = minute
        for number in range(1000):
            logging.getLogger("library").error("connection %d is odd", number)
    logging.getLogger("library").error("something else")

    lines = [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()]
    assert len(lines) == 21
    assert lines[10] == "connection 0 is odd (and 990 more from here before)"
    assert lines[-1] == "something else"


def test_metadata_that_is_no_text_is_not_logged(capsys) -> None:
    """grpc would show it in full: a token with one wrong byte is nearly a token."""
    configure_logs("INFO", LogFormat.JSON)

    logging.getLogger("grpc._cython.cygrpc").error("Invalid encoding on %r", b"Bearer \xffcanary")

    assert capsys.readouterr().err == ""
