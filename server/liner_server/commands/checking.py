"""Trying a configuration before it serves anybody."""

import asyncio
import json
from dataclasses import asdict
from typing import Annotated

import typer

from liner_server.commands.stop import stop

app = typer.Typer()


@app.command("check-config")
def check_config(
    timeout: Annotated[float, typer.Option(help="Seconds for each part.", min=0.1)] = 5.0,
    output: Annotated[
        str, typer.Option(help="table, or json: one object a line.", metavar="table|json")
    ] = "table",
) -> None:
    """Read the environment, try everything it names, and say what works and what to do.

    One line a part: its name, `works`, `off` (not configured), `doubt` (it works, but) or `FAILS`,
    what was found, and what to do. Nothing is changed, and a running server is not disturbed. A
    model that hears is sent two words and some silence, others are only asked for their list.
    Exit codes: 0 nothing fails, 1 something does, 2 the settings cannot be used.
    """
    from liner_server.settings import SettingsError, load, silence_grpc

    silence_grpc()
    if output not in ("table", "json"):
        stop(f"liner-server check-config: --output is table or json, not {output[:20]!r}")
    try:
        settings = load()
    except SettingsError as error:
        stop(f"liner-server check-config: the settings cannot be used:\n{error}")
    from liner_server.app.check import Finding, Works
    from liner_server.app.check import check_config as tried

    async def findings() -> list[Finding]:
        return [finding async for finding in tried(settings, seconds=timeout)]

    found = asyncio.run(findings())
    if output == "json":
        for finding in found:
            typer.echo(json.dumps(asdict(finding)))
    else:
        _table(found)
    if any(finding.works is Works.NO for finding in found):
        raise typer.Exit(1)


def _table(found: list) -> None:  # type: ignore[type-arg]
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("part", box=None, pad_edge=False)
    for name in ("", "found", "what to do"):
        # A path whose end is cut off names nothing.
        table.add_column(name, overflow="fold")
    colours = {"works": "green", "off": "dim", "doubt": "yellow", "FAILS": "bold red"}
    for finding in found:
        works = Text(finding.works, style=colours[finding.works])
        table.add_row(finding.part, works, Text(finding.detail), Text(finding.todo))
    Console().print(table)
