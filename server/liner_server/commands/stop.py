"""How a command ends that cannot do what it was asked."""

import sys
from typing import NoReturn

import typer


def stop(message: str, *, code: int = 2) -> NoReturn:
    """Say why on standard error and leave with `code`."""
    sys.stderr.write(message + "\n")
    raise typer.Exit(code)
