"""Commands that the documentation names exist, with the options it gives them."""

import re
from pathlib import Path
from typing import Any

import pytest
import typer
from liner_client.cli import app as client
from liner_server.__main__ import app as server

ROOT = Path(__file__).parents[2]
PAGES = sorted([*(ROOT / "docs").glob("*.md"), ROOT / "README.md"])
_SPAN = re.compile(r"`(liner(?:-server)? [^`]+)`|^ *(liner(?:-server)? .+)$", re.MULTILINE)


def found(page: Path) -> list[str]:
    """Return the commands of a page, from running text and from its blocks."""
    text = page.read_text().replace("\\\n", " ")
    return [" ".join((span or line).split()) for span, line in _SPAN.findall(text)]


def fault(command: str) -> str:
    """Return what is wrong with a command; empty for nothing."""
    program, *words = command.split(" #")[0].split()
    here: Any = typer.main.get_command(server if program == "liner-server" else client)
    while words and words[0] in getattr(here, "commands", ()):
        here = here.commands[words.pop(0)]
    if hasattr(here, "commands") and words and re.fullmatch(r"[a-z][a-z-]+", words[0]):
        return f"there is no {words[0]!r}"
    options = {name for one in here.params for name in (*one.opts, *one.secondary_opts)}
    asked = {word.strip("[],;|").partition("=")[0] for word in words}
    unknown = {word for word in asked if word.startswith("--")} - options - {"--help"}
    return f"it has no {', '.join(sorted(unknown))}" if unknown else ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_a_page_exists(page: Path) -> None:
    """Whoever follows a runbook at night copies what it says."""
    wrong = {command: why for command in found(page) if (why := fault(command))}

    assert wrong == {}


@pytest.mark.parametrize(
    "command", ["liner queue replya", "liner queue replay --every", "liner-server check"]
)
def test_a_command_that_is_none_is_found(command: str) -> None:
    """The check itself must be able to fail."""
    assert fault(command)
