"""A missing backend is seen by whoever runs the tests."""

from pathlib import Path

import pytest
from support.external import missing, program


def test_a_missing_backend_skips_and_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer without it can work on, and knows what was not tested."""
    monkeypatch.delenv("REQUIRE_EXTERNAL", raising=False)

    with pytest.raises(pytest.skip.Exception, match="the emulator is missing: apt-get install it"):
        missing("the emulator", install="apt-get install it")


def test_a_missing_backend_fails_where_it_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    """CI must never be green because a backend was absent."""
    monkeypatch.setenv("REQUIRE_EXTERNAL", "1")

    with pytest.raises(pytest.fail.Exception, match="the emulator is missing"):
        missing("the emulator", install="apt-get install it")


def test_a_program_is_found_beside_the_python_that_runs_the_tests() -> None:
    """`.venv/bin/python -m pytest` must work without activating the environment."""
    assert program("ruff", install="make setup").name == "ruff"


def test_a_program_named_by_a_variable_wins_and_must_exist(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A mistyped path must not fall back to another program on the PATH."""
    monkeypatch.delenv("REQUIRE_EXTERNAL", raising=False)
    there = tmp_path / "emulator"
    there.touch(mode=0o755)

    monkeypatch.setenv("LINER_PUBSUB_EMULATOR", str(there))
    assert program("ruff", install="", variable="LINER_PUBSUB_EMULATOR") == there

    monkeypatch.setenv("LINER_PUBSUB_EMULATOR", str(tmp_path / "elsewhere"))
    with pytest.raises(pytest.skip.Exception):
        program("ruff", install="", variable="LINER_PUBSUB_EMULATOR")
