import json
import os
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from liner.v1 import enrichment_pb2
from liner_server.flags import FlagsFile, FlagsFileError, parse_flags
from structlog.testing import capture_logs
from support.eventually import eventually

DEFAULTS = enrichment_pb2.FeatureFlags(use_openai_fallback=True, enable_batch_processing=True)
OFTEN = timedelta(milliseconds=5)

ALL = ["ENABLE_EXPERIMENTAL_MODEL", "USE_OPENAI_FALLBACK", "ENABLE_BATCH_PROCESSING"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the flags file is to be; not there yet."""
    return tmp_path / "flags.json"


@pytest.fixture
async def flags(path: Path) -> AsyncIterator[FlagsFile]:
    """Flags from a file that switches the fallback off."""
    write(path, {"USE_OPENAI_FALLBACK": False})
    async with FlagsFile(path, DEFAULTS, interval=OFTEN) as watched:
        yield watched


def write(path: Path, stated: object) -> None:
    """Write the file in place."""
    path.write_text(json.dumps(stated))


@given(st.dictionaries(st.sampled_from(ALL), st.booleans()))
def test_a_flag_that_is_not_stated_has_its_default(stated: dict[str, bool]) -> None:
    """An operator writes down what differs."""
    found = parse_flags(json.dumps(stated).encode(), DEFAULTS)

    for name in ALL:
        field = name.lower()
        assert getattr(found, field) == stated.get(name, getattr(DEFAULTS, field))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"", "not JSON"),
        (b'{"USE_OPENAI_FALLBACK": fal', "not JSON"),
        (b"\xff\xfe{}", "not JSON"),
        (b"[" * 60_000, "not JSON"),
        (b"[]", "not a JSON object"),
        (b"true", "not a JSON object"),
        (b'{"USE_OPENAI_FALBACK": false}', "'USE_OPENAI_FALBACK' is none of"),
        (b'{"use_openai_fallback": false}', "'use_openai_fallback' is none of"),
        (b'{"USE_OPENAI_FALLBACK": "false"}', "neither true nor false"),
        (b'{"USE_OPENAI_FALLBACK": 0}', "neither true nor false"),
        (b'{"USE_OPENAI_FALLBACK": null}', "neither true nor false"),
        (b'{"USE_OPENAI_FALLBACK": NaN}', "neither true nor false"),
        (b'{"USE_OPENAI_FALLBACK": true, "USE_OPENAI_FALLBACK": false}', "twice"),
        (b'{"ENABLE_BATCH_PROCESSING": false, "OTHER": true}', "'OTHER' is none of"),
    ],
)
def test_a_file_with_one_fault_is_refused_as_a_whole(text: bytes, problem: str) -> None:
    """Half of a change is a state that nobody chose, and a typo must not pass for a switch."""
    with pytest.raises(FlagsFileError, match=problem):
        parse_flags(text, DEFAULTS)


@given(st.binary(max_size=200) | st.text().map(str.encode))
def test_no_content_breaks_the_watching(data: bytes) -> None:
    """Whatever is in the file is flags or a refusal; an exception would end the watch."""
    try:
        found = parse_flags(data, DEFAULTS)
    except FlagsFileError:
        return

    assert isinstance(found, enrichment_pb2.FeatureFlags)


def test_a_byte_order_mark_is_passed_over() -> None:
    """Editors write it without being asked."""
    found = parse_flags(b'\xef\xbb\xbf{"USE_OPENAI_FALLBACK": false}', DEFAULTS)

    assert not found.use_openai_fallback


async def test_the_file_is_in_force_before_the_first_request(flags: FlagsFile) -> None:
    """A server that restarts in an incident must not begin with what was switched off."""
    assert not flags.current.use_openai_fallback
    assert flags.current.enable_batch_processing
    assert flags.problem == ""


async def test_a_change_is_in_force_without_a_restart(path: Path, flags: FlagsFile) -> None:
    """And a flag that was taken out of the file has its default again."""
    write(path, {"ENABLE_EXPERIMENTAL_MODEL": True})

    await eventually(lambda: flags.current.enable_experimental_model)
    assert flags.current.use_openai_fallback


async def test_a_change_that_keeps_time_and_size_is_seen(path: Path, flags: FlagsFile) -> None:
    """Tools that copy a file with its times, and quick writers, leave nothing else to see."""
    path.write_text('{"USE_OPENAI_FALLBACK": true }')
    await eventually(lambda: flags.current.use_openai_fallback)
    before = path.stat()

    path.write_text('{"USE_OPENAI_FALLBACK": false}')
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    assert path.stat().st_size == before.st_size
    await eventually(lambda: not flags.current.use_openai_fallback)


async def test_a_file_that_is_replaced_is_followed(path: Path, flags: FlagsFile) -> None:
    """Editors write another file and rename it; orchestrators swap a symbolic link."""
    other = path.with_name("other.json")
    write(other, {"ENABLE_BATCH_PROCESSING": False})
    other.rename(path)
    await eventually(lambda: not flags.current.enable_batch_processing)

    target = path.with_name("target.json")
    write(target, {"ENABLE_EXPERIMENTAL_MODEL": True})
    link = path.with_name("link")
    link.symlink_to(target)
    link.rename(path)

    await eventually(lambda: flags.current.enable_experimental_model)


async def test_a_bad_file_keeps_the_last_good_flags_and_says_so(
    path: Path, flags: FlagsFile
) -> None:
    """A slip in an incident must not switch something else."""
    write(path, {"USE_OPENAI_FALLBACK": True, "ENABLE_BATCH_PROCESING": False})

    await eventually(lambda: flags.problem != "")
    assert "'ENABLE_BATCH_PROCESING' is none of" in flags.problem
    assert str(path) in flags.problem
    assert not flags.current.use_openai_fallback

    write(path, {"ENABLE_BATCH_PROCESSING": False})
    await eventually(lambda: flags.problem == "")
    assert flags.current.use_openai_fallback
    assert not flags.current.enable_batch_processing


async def test_a_bad_file_at_the_start_leaves_the_defaults(path: Path) -> None:
    """The server starts: it is more use with its settings than not at all."""
    path.write_text("on")

    async with FlagsFile(path, DEFAULTS, interval=OFTEN) as flags:
        assert flags.current == DEFAULTS
        assert "not JSON" in flags.problem


async def test_a_bad_file_is_logged_once_a_change(path: Path) -> None:
    """A line a second would bury the log; none would hide the second mistake."""
    async with FlagsFile(path, DEFAULTS, interval=timedelta(hours=1)) as flags:
        with capture_logs() as lines:
            for text in ("one", "two"):
                path.write_text(text)
                for _ in range(5):
                    await flags._look()

    assert [line["log_level"] for line in lines] == ["error", "error"]


async def test_a_file_that_vanishes_keeps_the_last_good_flags(path: Path, flags: FlagsFile) -> None:
    """A volume that comes loose must not open what was closed."""
    path.unlink()

    await eventually(lambda: "it is gone" in flags.problem)
    assert not flags.current.use_openai_fallback


async def test_a_file_may_come_later(path: Path) -> None:
    """The operator writes it when it is needed; until then nothing is wrong."""
    async with FlagsFile(path, DEFAULTS, interval=OFTEN) as flags:
        assert flags.current == DEFAULTS
        assert flags.problem == ""

        write(path, {"ENABLE_EXPERIMENTAL_MODEL": True})

        await eventually(lambda: flags.current.enable_experimental_model)


def _folder(path: Path) -> None:
    path.mkdir()


def _large(path: Path) -> None:
    path.write_text("{" + " " * (64 << 10) + "}")


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (_folder, "Is a directory"),
        (os.mkfifo, "not a regular file"),
        (_large, "larger than 65536 bytes"),
    ],
)
async def test_what_is_no_flags_file_is_refused_without_waiting(
    path: Path, make: Callable[[Path], None], problem: str
) -> None:
    """Opening a pipe would wait for ever, and reading an image would take the memory."""
    make(path)

    async with FlagsFile(path, DEFAULTS, interval=timedelta(hours=1)) as flags:
        assert problem in flags.problem
        opened = open_files()
        for _ in range(10):
            await flags._look()

    assert open_files() <= opened


def open_files() -> int:
    """Return how many files this process has open."""
    return len(list(Path("/dev/fd").iterdir()))


async def test_what_was_handed_out_does_not_change(path: Path, flags: FlagsFile) -> None:
    """One request sees one state of the flags, and cannot change everybody's."""
    taken = flags.current
    taken.enable_experimental_model = True

    write(path, {"USE_OPENAI_FALLBACK": True})
    await eventually(lambda: flags.current.use_openai_fallback)

    assert not flags.current.enable_experimental_model
    assert not taken.use_openai_fallback


async def test_nothing_watches_after_the_end(path: Path) -> None:
    """A stopped server leaves no task behind."""
    async with FlagsFile(path, DEFAULTS, interval=OFTEN) as flags:
        pass

    assert flags._watching is not None
    assert flags._watching.done()
