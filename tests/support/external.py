"""Backends that are not part of the project: skipped visibly, or required."""

import os
import shutil
import sys
from pathlib import Path
from typing import NoReturn

import pytest


def externals_required() -> bool:
    """Return whether a missing backend is an error, as CI says with REQUIRE_EXTERNAL=1."""
    return os.environ.get("REQUIRE_EXTERNAL", "") not in ("", "0")


def missing(what: str, *, install: str) -> NoReturn:
    """Skip the test for want of `what`, or fail it where externals are required.

    A suite that skips in silence looks green while it proves nothing, so the reason names what
    to install.
    """
    reason = f"{what} is missing: {install}"
    if externals_required():
        pytest.fail(f"{reason} (REQUIRE_EXTERNAL is set)", pytrace=False)
    pytest.skip(reason)


def program(name: str, *, install: str, variable: str | None = None) -> Path:
    """Return the path of a program, from an environment variable or the PATH, or call `missing`.

    Programs of the environment that runs the tests are found though it is not activated.
    """
    stated = os.environ.get(variable) if variable else None
    if stated:
        if not os.access(stated, os.X_OK):
            missing(f"{name} at {variable}={stated}", install=install)
        return Path(stated)
    return Path(_on_path(name) or missing(name, install=install))


def _on_path(name: str) -> str | None:
    beside_python = str(Path(sys.executable).parent)
    return shutil.which(name, path=beside_python) or shutil.which(name)
