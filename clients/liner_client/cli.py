"""`liner`: enrich, validate, and look after what a server holds, from a shell.

Data go to standard output, everything else to standard error. Exit codes: 0 all went well, 1 some
inputs failed or a file could not be written, 2 wrong usage, 3 the server is not available, 4 it
does not accept the caller, 130 interrupted, 141 nobody reads the output any more, 143 terminated.
"""

import asyncio
import contextlib
import inspect
import os
import sys
from collections.abc import Callable, Coroutine
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

try:
    import typer
    from rich.text import Text
except ImportError:
    sys.exit("the command line needs more than the library: install liner[cli]")

from liner.v1 import enrichment_pb2

from liner_client import (
    commands,
    experiment_commands,
    inputs,
    queue_commands,
    render,
    results_commands,
    stopping,
    storage_commands,
)
from liner_client.client import LinerClient
from liner_client.errors import (
    DeadlineError,
    InvalidRequestError,
    LinerError,
    PermissionDeniedError,
    UnauthenticatedError,
    UnavailableError,
)
from liner_client.output import OutputForm
from liner_client.scratch import ScratchError

app = typer.Typer(
    name="liner",
    help="Enrich and validate music-track metadata with a Liner server.",
    epilog=(
        "Exit codes: 0 all went well, 1 some inputs failed, 2 wrong usage, 3 server not available,"
        " 4 not accepted, 130 interrupted; docs/cli.md has them all."
    ),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class Overwrite(StrEnum):
    """What may replace a value that was given."""

    NEVER = "never"
    WHEN_CONFIDENT = "when-confident"
    ALWAYS = "always"


class Profile(StrEnum):
    """Which fields must be there."""

    MINIMAL = "minimal"
    DDEX = "ddex"
    APPLE = "apple"


_OVERWRITE = {
    Overwrite.NEVER: enrichment_pb2.OVERWRITE_POLICY_NEVER,
    Overwrite.WHEN_CONFIDENT: enrichment_pb2.OVERWRITE_POLICY_WHEN_CONFIDENT,
    Overwrite.ALWAYS: enrichment_pb2.OVERWRITE_POLICY_ALWAYS,
}
_PROFILES = {
    Profile.MINIMAL: enrichment_pb2.DELIVERY_PROFILE_MINIMAL,
    Profile.DDEX: enrichment_pb2.DELIVERY_PROFILE_DDEX,
    Profile.APPLE: enrichment_pb2.DELIVERY_PROFILE_APPLE,
}

_Inputs = Annotated[
    list[str],
    typer.Argument(
        metavar="PATHS",
        help="Audio files, folders of them, lists of metadata (.csv, .jsonl), or - for JSON lines"
        " or paths on standard input.",
    ),
]
_Form = Annotated[OutputForm, typer.Option("--output", "-o", help="How results are written.")]
_Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no summary.")]


def _connection(
    *,
    server: Annotated[
        str, typer.Option(envvar="LINER_SERVER", help="HOST:PORT.", rich_help_panel="Connection")
    ] = "127.0.0.1:50051",
    token: Annotated[
        str,
        typer.Option(
            envvar="LINER_TOKEN",
            show_envvar=True,
            help="Bearer token; others see options, so prefer the variable.",
            rich_help_panel="Connection",
        ),
    ] = "",
    tls: Annotated[
        bool, typer.Option(envvar="LINER_TLS", help="Encrypt.", rich_help_panel="Connection")
    ] = False,
    ca_file: Annotated[
        Path | None,
        typer.Option(
            envvar="LINER_CA_FILE",
            exists=True,
            dir_okay=False,
            help="PEM certificates to trust in place of the system's.",
            rich_help_panel="Connection",
        ),
    ] = None,
    plaintext_token: Annotated[
        bool,
        typer.Option(
            "--plaintext-token",
            envvar="LINER_PLAINTEXT_TOKEN",
            help="Send the token without TLS to another machine; something else encrypts the way.",
            rich_help_panel="Connection",
        ),
    ] = False,
    object_prefix: Annotated[
        str,
        typer.Option(
            envvar="LINER_OBJECT_PREFIX",
            help="Before names made of content, for a token that owns a prefix: label-a/.",
            rich_help_panel="Connection",
        ),
    ] = "",
    timeout: Annotated[
        float,
        typer.Option(min=0.001, help="Seconds for one call.", rich_help_panel="Connection"),
    ] = 60.0,
) -> LinerClient:
    try:
        return LinerClient(
            server,
            token=token or None,
            tls=tls,
            root_certificates=ca_file.read_bytes() if ca_file else None,
            plaintext_token=plaintext_token,
            deadline=timedelta(seconds=timeout),
            object_prefix=object_prefix,
        )
    except ValueError as error:
        raise inputs.InputError(str(error)) from None


def _command(
    name: str, group: typer.Typer = app
) -> Callable[[Callable[..., Coroutine[Any, Any, int]]], None]:
    """Make a command of an async function of (client, options) that returns its exit code.

    The options of a connection are the same for all, so they are added here.
    """
    shared = inspect.signature(_connection).parameters

    def register(function: Callable[..., Coroutine[Any, Any, int]]) -> None:
        own = list(inspect.signature(function).parameters.values())[1:]

        def run(**given: Any) -> None:
            async def connected() -> int:
                async with _connection(**{key: given.pop(key) for key in shared}) as liner:
                    return await function(liner, **given)

            raise typer.Exit(execute(connected))

        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own]
        signature = inspect.Signature([*parameters, *shared.values()])
        run.__doc__ = function.__doc__
        vars(run)["__signature__"] = signature
        group.command(name)(run)

    return register


def execute(work: Callable[[], Coroutine[Any, Any, int]]) -> int:
    """Run async work and return the exit code that its end stands for."""
    with stopping.listening() as stops:
        return _run(work, stops)


def _run(work: Callable[[], Coroutine[Any, Any, int]], stops: stopping.Stops) -> int:
    try:
        return _flushed(asyncio.run(work()))
    except inputs.InputError as error:
        return _failed(str(error), commands.USAGE)
    except InvalidRequestError as error:
        # An input that is wrong is a result; what is raised is wrong for the run as a whole.
        return _failed(_told(error), commands.USAGE)
    except (UnauthenticatedError, PermissionDeniedError) as error:
        return _failed(_told(error), commands.AUTHENTICATION)
    except (UnavailableError, DeadlineError) as error:
        return _failed(_told(error), commands.UNAVAILABLE)
    except LinerError as error:
        return _failed(_told(error), commands.SOME_FAILED)
    except ScratchError as error:
        return _failed(str(error), commands.SOME_FAILED)
    except BrokenPipeError:
        _leave_output()
        return commands.NOT_READ
    except OSError as error:
        if error.filename is None:
            _leave_output()
        what = error.filename or "standard output"
        return _failed(f"{what}: {error.strerror or error}", commands.SOME_FAILED)
    except KeyboardInterrupt:
        how = "interrupted" if stops.exit_code == stopping.INTERRUPTED else "terminated"
        return _failed(how, stops.exit_code)


def _flushed(code: int) -> int:
    # What is left of the output meets a full disk or a closed pipe here and not after the end.
    sys.stdout.flush()
    return code


def _leave_output() -> None:
    """Let nothing that could not be written be tried again at the end of the process."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _told(error: LinerError) -> str:
    named = f" (request {error.request_id})" if error.request_id else ""
    return f"{error.reason}: {error}{named}"


def _failed(message: str, code: int) -> int:
    # With nobody to tell it to, the exit code is what is left.
    with contextlib.suppress(OSError):
        told = Text(f"liner: {render.plain(message, longest=1000)}", "red")
        render.console(stderr=True).print(told)
    return code


def _collected(paths: list[str]) -> inputs.Inputs:
    with stopping.at_once():
        return inputs.collect(paths, stdin=sys.stdin)


@_command("enrich")
async def _enrich(
    liner: LinerClient,
    paths: _Inputs,
    output: _Form = OutputForm.TABLE,
    fields: Annotated[
        str, typer.Option(help="Only these, with commas: bpm,key. Default: all that can be found.")
    ] = "",
    min_confidence: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Below this a field needs review. Server default: 0.8."),
    ] = None,
    overwrite: Annotated[
        Overwrite, typer.Option(help="What may replace a given value.")
    ] = Overwrite.NEVER,
    model: Annotated[str, typer.Option(help="embedded, qwen2 or openai.")] = "",
    skip_cache: Annotated[bool, typer.Option("--skip-cache", help="Compute anew.")] = False,
    ordered: Annotated[
        bool, typer.Option("--ordered", help="Results in the order of the inputs.")
    ] = False,
    all_fields: Annotated[
        bool, typer.Option("--all-fields", help="A row for kept and unknown fields too.")
    ] = False,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Keep what is done here, to go on after a stop.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the checkpoint; failed inputs run again.")
    ] = False,
    failed_out: Annotated[
        Path | None,
        typer.Option(help="Write failed inputs here, as a list that `liner enrich` reads."),
    ] = None,
    quiet: _Quiet = False,
) -> int:
    """Find out what is true of tracks: values with confidence, source and reason.

    Audio is uploaded once, then all goes through one resumable batch. With --output jsonl there
    is exactly one line an input, failed ones included, and one more with `batch_issues` when
    inputs contradict each other; docs/cli.md lists the keys.
    """
    if resume and checkpoint is None:
        raise inputs.InputError("--resume needs --checkpoint FILE")
    options = enrichment_pb2.EnrichOptions(
        model=model,
        min_confidence=min_confidence,
        overwrite_policy=_OVERWRITE[overwrite],
        skip_cache=skip_cache,
    )
    options.fields.paths.extend(part.strip() for part in fields.split(",") if part.strip())
    run = commands.EnrichRun(
        entries=_collected(paths),
        options=options,
        form=output,
        ordered=ordered,
        every_field=all_fields,
        quiet=quiet,
        checkpoint=checkpoint,
        resume=resume,
        failed_out=failed_out,
    )
    return await commands.enrich(liner, run)


@_command("validate")
async def _validate(
    liner: LinerClient,
    paths: _Inputs,
    profile: Annotated[Profile, typer.Option(help="Which fields must be there.")] = Profile.MINIMAL,
    output: _Form = OutputForm.TABLE,
    quiet: _Quiet = False,
) -> int:
    """Judge what is stated of tracks by the rules; with audio, against what is heard too.

    Last comes what the tracks say against each other: one ISRC on two recordings, an artist
    spelled two ways. Exit code 1 when any track has an error, alone or together.
    """
    return await commands.validate(
        liner, _collected(paths), profile=_PROFILES[profile], form=output, quiet=quiet
    )


@_command("models")
async def _models(liner: LinerClient, output: _Form = OutputForm.TABLE) -> int:
    """Show the models, whether they are ready, and the feature flags."""
    return await commands.models(liner, form=output)


@_command("health")
async def _health(liner: LinerClient, output: _Form = OutputForm.TABLE) -> int:
    """Show whether the server takes calls; exit code 3 when it does not."""
    return await commands.health(liner, form=output)


storage_commands.add_to(_command)


_results = typer.Typer(help="Look through what was stored, and review it.", no_args_is_help=True)
app.add_typer(_results, name="results")
results_commands.add_to(lambda name: _command(name, _results))


_command("submit")(queue_commands.submit)
_queue = typer.Typer(help="Look into the queue, and mend it.", no_args_is_help=True)
app.add_typer(_queue, name="queue")
queue_commands.add_to(lambda name: _command(name, _queue))


_experiment = typer.Typer(
    help="Which model is better, and who gets how much of the tracks.", no_args_is_help=True
)
app.add_typer(_experiment, name="experiment")
experiment_commands.add_to(lambda name: _command(name, _experiment))


@app.command("demo")
def _demo(
    audio: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="Your folder in place of made tracks."),
    ] = None,
    keep: Annotated[
        Path | None, typer.Option(file_okay=False, help="Keep tracks and server data here.")
    ] = None,
    models: Annotated[
        bool,
        typer.Option("--models", help="Two stand-ins for models; one is taken down half-way."),
    ] = False,
) -> None:
    """Start a server, let it enrich eight made-up tracks, and check every answer.

    With --models it is 48 tracks without audio and two stand-ins for language models, and what
    is checked is that the second takes over. Exit code 0 only if all that was expected came.
    """
    if models:
        from liner_client.demo_models import run_models_demo

        if audio is not None:
            raise typer.BadParameter("has no use for audio", param_hint="--models")
        raise typer.Exit(execute(lambda: run_models_demo(keep=keep)))
    from liner_client.demo import run_demo

    raise typer.Exit(execute(lambda: run_demo(audio=audio, keep=keep)))


def main() -> NoReturn:
    """Run the command line."""
    if None in (sys.stdin, sys.stdout, sys.stderr):
        # Files that are opened later must not take the place of what the caller closed.
        while os.open(os.devnull, os.O_RDWR) <= 2:
            pass
        if sys.stdout is None:
            sys.exit("liner: standard output is closed" if sys.stderr else commands.SOME_FAILED)
        if sys.stderr is None:
            sys.stderr = os.fdopen(2, "w", encoding="utf-8")
    app()
    raise SystemExit(0)


if __name__ == "__main__":
    main()
