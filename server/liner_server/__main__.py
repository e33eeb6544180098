"""`liner-server`: serve, and what an operator needs around it."""

import asyncio
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

app = typer.Typer(
    name="liner-server",
    help="Liner's server. Settings come from LINER_* variables; see .env.example.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def serve() -> None:
    """Serve gRPC and the HTTP side port until SIGTERM.

    Prints `liner-server ready grpc=HOST:PORT http=HOST:PORT` on standard output as soon as
    health answers SERVING; logs go to standard error. Exit codes: 0 stopped as asked, 2 a
    setting cannot be used, 1 anything else.
    """
    # Heavy imports wait until here, so that --help and wrong settings answer at once.
    from liner_server.settings import SettingsError, load

    try:
        settings = load()
    except SettingsError as error:
        _stop(f"liner-server cannot start:\n{error}")
    import uvloop

    from liner_server.app import serve as serve_until_stopped
    from liner_server.errors import LinerError

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve_until_stopped(settings))
    except (SettingsError, LinerError, OSError) as error:
        _stop(f"liner-server cannot start: {error}")


@app.command()
def worker() -> None:
    """Work on queued jobs until SIGTERM, without serving gRPC.

    For a data folder that no server has open: `serve` works on its queue itself. Prints
    `liner-server worker ready http=HOST:PORT` on standard output when it begins; /metrics and
    /healthz are at that address. Exit codes: 0 stopped as asked, 2 it cannot start, 1 anything
    else.
    """
    from liner_server.settings import SettingsError, load

    try:
        settings = load()
    except SettingsError as error:
        _stop(f"liner-server worker cannot start:\n{error}")
    import uvloop

    from liner_server.app import work
    from liner_server.errors import LinerError

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(work(settings))
    except LinerError as error:
        why = ""
        if error.reason in ("STORE_IN_USE", "QUEUE_IN_USE"):
            why = "; a server that has it works on its queue itself (LINER_WORKERS)"
        _stop(f"liner-server worker cannot start: {error}{why}")
    except (SettingsError, OSError) as error:
        _stop(f"liner-server worker cannot start: {error}")


@app.command("setup-cloud")
def setup_cloud(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done.")
    ] = False,
) -> None:
    """Make the Pub/Sub topics and subscriptions that LINER_QUEUE=pubsub needs.

    Creates what is missing and mends what differs (dead-letter policy, exactly-once delivery,
    retention, no expiry); run it as often as you like. Prints one line a part: what it is, what
    became of it, its path. Needs GOOGLE_CLOUD_PROJECT and an account with roles/pubsub.editor.
    Exit codes: 0 everything is there, 1 something is not (dry run), 2 it cannot be done.
    """
    from liner_server.errors import LinerError
    from liner_server.settings import SettingsError, load

    try:
        settings = load()
    except SettingsError as error:
        _stop(f"liner-server setup-cloud:\n{error}")
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
        _stop(f"liner-server setup-cloud: {error}")
    if not whole:
        raise typer.Exit(1)


@app.command()
def token(
    name: Annotated[str, typer.Argument(help="Who will carry it; shown in logs.")],
    role: Annotated[list[str], typer.Option(help="What it allows; may be repeated.")],
) -> None:
    """Make a bearer token.

    Prints the token once, and the line to put into LINER_TOKENS_FILE; the file holds only its
    SHA-256. Callers send it as `authorization: Bearer TOKEN`.
    """
    from liner_server.rpc.identity import new_token

    try:
        secret, line = new_token(name, role)
    except ValueError as error:
        _stop(f"liner-server token: {error}")
    typer.echo(f"token (shown once): {secret}")
    typer.echo(f"line for LINER_TOKENS_FILE: {line}")


@app.command()
def health(
    address: Annotated[
        str, typer.Argument(help="HOST:PORT; default: where this environment would serve.")
    ] = "",
    timeout: Annotated[float, typer.Option(help="Seconds to wait.")] = 2.0,
) -> None:
    """Ask a server whether it serves; exit code 0 only if it does. For container health checks."""
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    from liner_server.settings import SettingsError, load

    if not address:
        try:
            address = load().grpc_bind
        except SettingsError as error:
            _stop(str(error))
    # A server that listens everywhere listens on loopback too.
    for everywhere, loopback in (("0.0.0.0:", "127.0.0.1:"), ("[::]:", "[::1]:")):
        if address.startswith(everywhere):
            address = address.replace(everywhere, loopback)
    with grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=timeout)
        except grpc.RpcError as error:
            _stop(f"{address}: {error.code().name}", code=1)
    state = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    typer.echo(f"{address}: {state}")
    if state != "SERVING":
        raise typer.Exit(1)


@app.command()
def synth(
    out: Annotated[
        Path | None, typer.Option(help="Folder for the demo's eight tracks; made if missing.")
    ] = None,
    catalogue: Annotated[
        Path | None,
        typer.Option(help="CSV to write: made-up metadata without audio, for `liner validate`."),
    ] = None,
    tracks: Annotated[int, typer.Option(help="Rows of the catalogue.", min=1)] = 250,
    faults: Annotated[
        bool, typer.Option("--faults", help="Put a fault into each track of the catalogue.")
    ] = False,
) -> None:
    """Make things to try Liner on: short tracks of known tempo and key, or a catalogue.

    --out writes the demo's eight short tracks, made by Liner's own generator, with truth.json.
    --catalogue writes a list that `liner validate` reads; with --faults each `item_id` says what
    is wrong with the track and which rule finds it.
    """
    if out is None and catalogue is None:
        _stop("liner-server synth: give --out FOLDER or --catalogue FILE.csv")
    if out is not None:
        from liner_server.evaluation.demo_tracks import make_demo_tracks

        out.mkdir(parents=True, exist_ok=True)
        for track in make_demo_tracks(out):
            typer.echo(track["path"])
    if catalogue is not None:
        from liner_server.evaluation.catalogue_file import write_catalogue

        try:
            rows = write_catalogue(catalogue, tracks=tracks, faults=faults)
        except OSError as error:
            _stop(f"liner-server synth: {catalogue}: {error.strerror}")
        typer.echo(f"{rows} tracks in {catalogue}")


@app.command("eval")
def evaluate_labels(
    labels: Annotated[Path, typer.Option(help="CSV with the columns path,bpm,key,...")],
    out: Annotated[Path, typer.Option(help="CSV to write.")],
    workers: Annotated[int, typer.Option(help="Files heard at once.", min=1)] = 2,
) -> None:
    """Answer for every labelled file what Liner would answer.

    `path` is taken from the folder of LABELS; no label is looked at. Writes path, bpm,
    bpm_confidence, bpm_alternatives (joined with ";"), key, key_confidence, duration, genre,
    genre_confidence; a field that Liner abstains from is empty.
    """
    from liner_server.evaluation.labelled import evaluate

    try:
        rows = evaluate(labels, out, workers=workers)
    except OSError as error:
        _stop(f"liner-server eval: {error}")
    typer.echo(f"{len(rows)} files, answers in {out}")


@app.command()
def calibrate(
    results: Annotated[
        Path, typer.Option(help="CSV with the columns field,model,prompt_version,score,right.")
    ],
    out: Annotated[Path, typer.Option(help="Table to write, for LINER_CALIBRATION_FILE.")],
    least: Annotated[int, typer.Option(help="Results that a curve needs.", min=20)] = 200,
) -> None:
    """Fit which probability a model's score means, from answers that somebody judged.

    One row of RESULTS is one answer: `field` as in Track, `model` as PROVIDER:MODEL (such as
    qwen2:Qwen/Qwen2-Audio-7B-Instruct), `prompt_version`, `score` as the model gave it, 0 to 1,
    and `right`, 1 or 0. A column `track_id`, where there is one, keeps all answers about a track
    together. Half of the results are fitted on; the figures printed are of the other half.
    Exit codes: 0 written, 2 not written.
    """
    from liner_server.evaluation.calibrate import ResultsError, run

    try:
        report = run(results, out, least=least)
    except (OSError, ResultsError) as error:
        _stop(f"liner-server calibrate: {error}")
    typer.echo(report)


@app.command("play-model")
def play_model(
    model: Annotated[list[str], typer.Option(help="Name it lists; may be repeated.")],
    port: Annotated[int, typer.Option(help="On 127.0.0.1; 0: a free one.", min=0, max=65535)] = 0,
    delay: Annotated[float, typer.Option(help="Seconds before each answer.", min=0)] = 0.0,
    unsure: Annotated[list[str] | None, typer.Option(help="Field it never can tell.")] = None,
) -> None:
    """Play a language model for a demonstration, until SIGTERM. It is none: never use its answers.

    Speaks as an OpenAI-compatible endpoint and answers Liner's prompts from the words in them,
    always the same, so that routing, fallback and cost can be tried where there is no model.
    Prints `play-model ready URL`; set QWEN2_ENDPOINT or LINER_OPENAI_ENDPOINT to the URL.
    """
    from liner_server.evaluation.played_model import Part, serve

    part = Part(models=model, delay=delay, unsure=unsure or ())
    try:
        asyncio.run(serve(part, port=port))
    except OSError as error:
        _stop(f"liner-server play-model: {error}", code=1)


def _stop(message: str, *, code: int = 2) -> NoReturn:
    sys.stderr.write(message + "\n")
    raise typer.Exit(code)


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
