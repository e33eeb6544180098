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
    right, track_id (a hash unless LINER_ANALYTICS_TRACK_IDS=plain). Of several judgements of a
    field the newest counts. A server may be running. Exit codes: 0 written, 2 not written.
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
                (s.prompt_version, s.model, row.field, s.score, int(s.right), row.track)
                async for row in sink.outcomes(start=datetime.now(UTC) - timedelta(days=days))
                for s in row.scores
            ]
        with out.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("field", "model", "prompt_version", "score", "right", "track_id"))
            for prompt, model, field, score, right, track in rows:
                writer.writerow((field, model, prompt, f"{score:.6f}", right, track))
        return len(rows)

    try:
        written = asyncio.run(run())
    except (LinerError, OSError) as error:
        stop(f"liner-server export-reviews: {error}")
    typer.echo(f"{written} judged scores in {out}")
