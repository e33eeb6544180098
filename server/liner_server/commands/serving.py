"""What runs: the server, the worker, and what is asked of them."""

import asyncio
from typing import Annotated

import typer

from liner_server.commands.stop import stop

app = typer.Typer()


@app.command()
def serve() -> None:
    """Serve gRPC and the HTTP side port until SIGTERM.

    Prints `liner-server ready grpc=HOST:PORT http=HOST:PORT` on standard output as soon as
    health answers SERVING; logs go to standard error. Exit codes: 0 stopped as asked, 2 a
    setting cannot be used, 1 anything else.
    """
    # Heavy imports wait until here, so that --help and wrong settings answer at once.
    from liner_server.settings import SettingsError, load, silence_grpc

    silence_grpc()
    try:
        settings = load()
    except SettingsError as error:
        stop(f"liner-server cannot start:\n{error}")
    import uvloop

    from liner_server.app import serve as serve_until_stopped
    from liner_server.errors import LinerError

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve_until_stopped(settings))
    except (SettingsError, LinerError, OSError) as error:
        stop(f"liner-server cannot start: {error}")


@app.command()
def worker() -> None:
    """Work on queued jobs until SIGTERM, without serving gRPC.

    For a data folder that no server has open: `serve` works on its queue itself. Prints
    `liner-server worker ready http=HOST:PORT` on standard output when it begins; /metrics and
    /healthz are at that address. With PORT set (Cloud Run) it answers grpc.health.v1 there, and
    nothing else. Exit codes: 0 stopped as asked, 2 it cannot start, 1 anything
    else.
    """
    from liner_server.settings import SettingsError, load, silence_grpc

    silence_grpc()
    try:
        settings = load()
    except SettingsError as error:
        stop(f"liner-server worker cannot start:\n{error}")
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
        stop(f"liner-server worker cannot start: {error}{why}")
    except (SettingsError, OSError) as error:
        stop(f"liner-server worker cannot start: {error}")


@app.command()
def token(
    name: Annotated[str, typer.Argument(help="Who will carry it; shown in logs.")],
    role: Annotated[list[str], typer.Option(help="What it allows; may be repeated.")],
    prefix: Annotated[
        list[str] | None,
        typer.Option(
            help="Beginning of object names, such as label-a/, that are this caller's alone; it may"
            " use no others then. May be repeated."
        ),
    ] = None,
) -> None:
    """Make a bearer token.

    Prints the token once, and the line to put into LINER_TOKENS_FILE; the file holds only its
    SHA-256. Callers send it as `authorization: Bearer TOKEN`.
    """
    from liner_server.rpc.identity import new_token

    try:
        secret, line = new_token(name, role, prefix or ())
    except ValueError as error:
        stop(f"liner-server token: {error}")
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
            stop(str(error))
    # A server that listens everywhere listens on loopback too.
    for everywhere, loopback in (("0.0.0.0:", "127.0.0.1:"), ("[::]:", "[::1]:")):
        if address.startswith(everywhere):
            address = address.replace(everywhere, loopback)
    with grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=timeout)
        except grpc.RpcError as error:
            stop(f"{address}: {error.code().name}", code=1)
    state = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    typer.echo(f"{address}: {state}")
    if state != "SERVING":
        raise typer.Exit(1)
