"""What Google Cloud must hold for Liner."""

import asyncio
from typing import Annotated

import typer

from liner_server.commands.stop import stop

app = typer.Typer()


@app.command("setup-cloud")
def setup_cloud(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done.")
    ] = False,
) -> None:
    """Make what Google Cloud must hold: topics and subscriptions, rules of the bucket, tables.

    Creates what is missing and mends what differs (dead-letter policy, exactly-once delivery,
    retention, no expiry); run it as often as you like. Prints one line a part: what it is, what
    became of it, its path. For Pub/Sub it needs GOOGLE_CLOUD_PROJECT and an account with
    roles/pubsub.editor. With LINER_OBJECTS=gcs it gives GCS_BUCKET the lifecycle rules that are
    equal to a clean-up's for temp/, unfinished uploads and LINER_RETENTION_PREFIXES
    (roles/storage.admin). With LINER_ANALYTICS=bigquery it makes BIGQUERY_DATASET and its tables
    and adds columns that are new (roles/bigquery.dataEditor, roles/bigquery.user). With either,
    Pub/Sub is left alone unless LINER_QUEUE=pubsub.
    Exit codes: 0 everything is there, 1 something is not (dry run), 2 it cannot be done.
    """
    from liner_server.errors import LinerError
    from liner_server.settings import SettingsError, load

    try:
        settings = load()
    except SettingsError as error:
        stop(f"liner-server setup-cloud:\n{error}")
    from liner_server.app import set_up_cloud

    async def run() -> bool:
        whole = True
        async for part in set_up_cloud(settings, dry_run=dry_run):
            note = f"  ({part.note})" if part.note else ""
            typer.echo(f"{part.kind:<12}  {part.state:<7}  {part.path}{note}")
            whole = whole and part.state not in ("missing", "differs")
        return whole

    try:
        whole = asyncio.run(run())
    except (SettingsError, LinerError) as error:
        stop(f"liner-server setup-cloud: {error}")
    if not whole:
        raise typer.Exit(1)
