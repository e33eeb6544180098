"""Looking after stored objects: clean-ups, and the keys of signed URLs."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from liner_server.commands.stop import stop

if TYPE_CHECKING:
    from liner.v1 import storage_pb2

app = typer.Typer()


@app.command()
def cleanup(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what would go.")] = False,
    force: Annotated[
        bool,
        typer.Option("--force", help="However much it is, and whatever the clock says."),
    ] = False,
    metrics: Annotated[
        Path | None,
        typer.Option(help="Write Prometheus metrics here, for a collector of text files."),
    ] = None,
) -> None:
    """Delete what has had its time: temp/ after a day, tiers after theirs, old uploads and results.

    Prints a table: by kind, how many objects were looked at, were due, deleted, noticed (due within
    7 days) and held (legal hold). Works beside a running server: where that has LINER_DATA_DIR
    open, it is asked to do the work (at LINER_GRPC_ADDRESS, with LINER_TOKEN). May run at any
    time, and twice at once. Deletes nothing if more than LINER_CLEANUP_MAX_SHARE of what has a
    tier and a limit would go, or if the clock stands far from the newest object, unless --force.
    Dead letters are dropped by the queue itself. Exit codes: 0 done, 1 it failed on the way,
    2 it cannot be done, 3 refused because too much would go.
    """
    from liner_server.errors import FailedPreconditionError, LinerError
    from liner_server.settings import SettingsError, load

    try:
        settings = load()
    except SettingsError as error:
        stop(f"liner-server cleanup:\n{error}")
    from liner_server.app.cleanup import clean_up
    from liner_server.logs import configure_logs

    configure_logs(settings.log_level, settings.log_format)
    try:
        done, server = asyncio.run(
            clean_up(settings, dry_run=dry_run, force=force, metrics=metrics)
        )
    except SettingsError as error:
        stop(f"liner-server cleanup: {error}")
    except FailedPreconditionError as error:
        refused = error.reason.startswith("CLEANUP_")
        stop(f"liner-server cleanup: {error}", code=3 if refused else 2)
    except (LinerError, OSError) as error:
        stop(f"liner-server cleanup: {error}", code=1)
    _show(done, dry_run=dry_run)
    if server:
        typer.echo(f"done by the server at {server}")


def _show(done: "storage_pb2.RunCleanupResponse", *, dry_run: bool) -> None:
    columns = ("examined", "due", "deleted", "noticed", "held")
    typer.echo(f"{'kind':<12}" + "".join(f"{column:>10}" for column in columns))
    for count in done.counts:
        typer.echo(
            f"{count.kind:<12}" + "".join(f"{getattr(count, column):>10}" for column in columns)
        )
    if done.notices_object:
        typer.echo(f"notices: {done.notices_object}")
    seconds = done.elapsed.ToTimedelta().total_seconds()
    share = f"{done.due_share:.1%} of what has a tier and a limit was due"
    typer.echo(f"{'dry run, nothing was deleted; ' if dry_run else ''}{share}; {seconds:.1f} s")


@app.command("rotate-signing-key")
def rotate_signing_key(
    keep: Annotated[int, typer.Option(help="Older keys that stay valid.", min=0)] = 1,
) -> None:
    """Sign new URLs of local objects with a new key; URLs of the keys that are kept stay valid.

    A running server takes it up at once. With --keep 0 every URL handed out before is void.
    """
    from liner_server.errors import LinerError
    from liner_server.settings import SettingsError, load

    try:
        settings = load()
    except SettingsError as error:
        stop(f"liner-server rotate-signing-key:\n{error}")
    from liner_server.app.storage import signing_keys

    try:
        kid = signing_keys(settings).rotate(keep=keep)
    except LinerError as error:
        stop(f"liner-server rotate-signing-key: {error}")
    typer.echo(f"new URLs are signed with the key {kid}")
