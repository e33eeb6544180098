"""What analytics holds, for other tools."""

import asyncio
import csv
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from liner_server.commands.stop import stop

app = typer.Typer()


@app.command("export-reviews")
def export_reviews(
    out: Annotated[Path, typer.Option(help="CSV to write, for `liner-server calibrate`.")],
    days: Annotated[float, typer.Option(help="Reviews of so many days.", min=0.01)] = 365.0,
) -> None:
    """Write what editors said of models' own scores, as `liner-server calibrate` reads it.

    One row a model's score of a value that an editor judged: field, model, prompt_version, score,
    right, track_id (a hash unless LINER_ANALYTICS_TRACK_IDS=plain), stated (the confidence it put
    in words, empty where it is not known). Of several judgements of a field the newest counts. A
    server may be running. Exit codes: 0 written, 2 not written.
    """
    from liner_server.errors import LinerError
    from liner_server.settings import SettingsError, load

    try:
        settings = load()
    except SettingsError as error:
        stop(f"liner-server export-reviews:\n{error}")
    from liner_server.app.analytics import open_sink

    async def run() -> int:
        async with AsyncExitStack() as stack:
            sink = await open_sink(settings, stack)
            if sink is None:
                stop("liner-server export-reviews: LINER_ANALYTICS=off: nothing is kept")
            rows = [
                (row, score)
                async for row in sink.outcomes(start=datetime.now(UTC) - timedelta(days=days))
                for score in row.scores
            ]
        with out.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            names = ("field", "model", "prompt_version", "score", "right", "track_id", "stated")
            writer.writerow(names)
            for row, of in rows:
                stated = f"{of.stated:.6f}" if of.stated else ""
                said = (f"{of.score:.6f}", int(of.right), row.track, stated)
                writer.writerow((row.field, of.model, of.prompt_version, *said))
        return len(rows)

    try:
        written = asyncio.run(run())
    except (LinerError, OSError) as error:
        stop(f"liner-server export-reviews: {error}")
    typer.echo(f"{written} judged scores in {out}")
