"""`liner cp`, `sign`, `ls` and `rm`: stored objects, from a shell."""

import asyncio
import json
import mimetypes
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from google.protobuf import json_format
from rich.text import Text

from liner_client import render
from liner_client.client import LinerClient
from liner_client.commands import OK, REMOTE, SOME_FAILED
from liner_client.enriching import fails_for_all
from liner_client.errors import LinerError
from liner_client.inputs import InputError
from liner_client.output import OutputForm
from liner_client.stopping import at_once

Command = Callable[[str], Callable[[Callable[..., Coroutine[Any, Any, int]]], None]]
"""Makes a command of this name."""

_Form = Annotated[OutputForm, typer.Option("--output", "-o", help="How results are written.")]


def add_to(command: Command) -> None:
    """Add the commands that send, sign, list and delete objects."""
    command("cp")(_cp)
    command("sign")(_sign)
    command("ls")(_ls)
    command("rm")(_rm)


async def _cp(
    liner: LinerClient,
    source: Annotated[str, typer.Argument(help="A file, -, or liner:NAME.")],
    target: Annotated[
        str,
        typer.Argument(help="liner:NAME, liner: to name it by content; a file, a folder, or -."),
    ],
    content_type: Annotated[str, typer.Option(help="MIME type; default: by extension.")] = "",
    meta: Annotated[
        list[str] | None,
        typer.Option(help="KEY=VALUE kept with the object, such as tier=free; may be repeated."),
    ] = None,
) -> int:
    """Send a file to the server's store, or fetch an object from it."""
    return await copy(liner, source, target, content_type=content_type, pairs=meta or ())


async def _sign(
    liner: LinerClient,
    name: Annotated[str, typer.Argument(help="Name of an object.")],
    write: Annotated[
        bool, typer.Option("--write", help="To PUT it, once; else to GET it.")
    ] = False,
    expires: Annotated[
        float, typer.Option(min=1, max=604_800, help="Seconds that the URL is good for.")
    ] = 900.0,
    content_type: Annotated[str, typer.Option(help="MIME type that must be sent.")] = "",
    max_bytes: Annotated[
        int, typer.Option(min=0, help="Most that may be sent; 0: the server's limit.")
    ] = 0,
    output: _Form = OutputForm.TABLE,
) -> int:
    """Make a URL with which anyone may read or write one object, without a token.

    Prints the URL; headers that must be sent with it are told on standard error.
    """
    return await sign(
        liner,
        name,
        write=write,
        expiry=timedelta(seconds=expires),
        content_type=content_type,
        max_bytes=max_bytes,
        form=output,
    )


async def _ls(
    liner: LinerClient,
    prefix: Annotated[str, typer.Argument(help="Only names that begin so.")] = "",
    output: _Form = OutputForm.TABLE,
) -> int:
    """List stored objects by name: size, time, name."""
    return await list_objects(liner, prefix, form=output)


async def _rm(
    liner: LinerClient, names: Annotated[list[str], typer.Argument(help="Names of objects.")]
) -> int:
    """Delete stored objects."""
    return await remove(liner, names)


async def copy(
    liner: LinerClient, source: str, target: str, *, content_type: str, pairs: Sequence[str] = ()
) -> int:
    """Send a file or fetch an object, whichever side has the prefix."""
    if source.startswith(REMOTE) == target.startswith(REMOTE):
        raise InputError(f"one of the two must begin with {REMOTE}: it is the object")
    if source.startswith(REMOTE):
        return await _fetch(liner, source.removeprefix(REMOTE), target)
    name = target.removeprefix(REMOTE)
    if name.endswith("/"):
        if source == "-":
            raise InputError(f"{target} needs a name at its end: what comes from - has none")
        name += Path(source).name
    metadata = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not (key and equals):
            raise InputError(f"--meta takes KEY=VALUE, not {pair}")
        metadata[key] = value
    async with _file_of(source) as path:
        stored = await liner.upload_file(
            path,
            name or None,
            content_type=content_type or _type(source) or _type(name),
            metadata=metadata,
        )
    print(stored.object_name)  # noqa: T201 - the command's data
    return OK


@asynccontextmanager
async def _file_of(source: str) -> AsyncIterator[Path]:
    """Yield a file that can be read twice: what comes from a pipe is kept in one meanwhile."""
    path = Path(source)
    if source != "-" and not await asyncio.to_thread(path.is_fifo):
        if await asyncio.to_thread(path.exists) and not await asyncio.to_thread(path.is_file):
            # Some devices never end.
            raise InputError(f"{source}: is not a file")
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="liner-") as folder:
        kept = Path(folder) / ("data" if source == "-" else path.name)
        with at_once():
            _keep(None if source == "-" else path, kept)
        yield kept


def _keep(pipe: Path | None, kept: Path) -> None:
    if pipe is None and sys.stdin is None:
        raise InputError("standard input is closed")
    with kept.open("xb") as file:
        if pipe is None:
            shutil.copyfileobj(sys.stdin.buffer, file)
            return
        with pipe.open("rb") as opened:
            shutil.copyfileobj(opened, file)


def _type(name: str) -> str | None:
    return mimetypes.guess_type(name)[0]


async def _fetch(liner: LinerClient, name: str, target: str) -> int:
    if target == "-":
        async with aclosing(liner.download(name)) as blocks:
            async for data in blocks:
                sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return OK
    path = Path(target)
    if await asyncio.to_thread(path.is_dir):
        path /= name.rsplit("/", 1)[-1]
    await liner.download_file(name, path)
    print(path)  # noqa: T201 - the command's data
    return OK


async def sign(
    liner: LinerClient,
    name: str,
    *,
    write: bool,
    expiry: timedelta,
    content_type: str,
    max_bytes: int,
    form: OutputForm,
) -> int:
    """Write a signed URL, and what must be sent with it."""
    signed = await liner.sign_url(
        name.removeprefix(REMOTE),
        write=write,
        expiry=expiry,
        content_type=content_type,
        max_size_bytes=max_bytes,
    )
    if form is not OutputForm.TABLE:
        _print_json(json_format.MessageToDict(signed, preserving_proto_field_name=True))
        return OK
    print(signed.url)  # noqa: T201 - the command's data
    notes = render.console(stderr=True)
    for key, value in sorted(signed.headers.items()):
        notes.print(Text(f"send with it  {key}: {value}", "dim"), soft_wrap=True)
    return OK


async def list_objects(liner: LinerClient, prefix: str, *, form: OutputForm) -> int:
    """Show the objects below a prefix, one a line."""
    screen = render.console()
    found = []
    async with aclosing(liner.list_objects(prefix.removeprefix(REMOTE))) as stored:
        async for one in stored:
            if form is OutputForm.TABLE:
                made = one.create_time.ToDatetime().strftime("%Y-%m-%d %H:%M")
                line = (
                    f"{one.size_bytes:>12}  {made}  {render.plain(one.object_name, longest=1024)}"
                )
                screen.print(Text(line), soft_wrap=True)
                continue
            record = json_format.MessageToDict(one, preserving_proto_field_name=True)
            if form is OutputForm.JSONL:
                _print_json(record)
            found.append(record)
    if form is OutputForm.JSON:
        _print_json({"objects": found})
    return OK


async def remove(liner: LinerClient, names: Sequence[str]) -> int:
    """Delete objects; one that fails does not keep the others."""
    errors = render.console(stderr=True)
    failed = 0
    for name in names:
        try:
            await liner.delete(name.removeprefix(REMOTE))
        except LinerError as error:
            if fails_for_all(error):
                raise
            failed += 1
            errors.print(Text(f"{render.plain(name)}: {error.reason}: {error}", "red"))
    return SOME_FAILED if failed else OK


def _print_json(value: Mapping[str, Any]) -> None:
    print(json.dumps(value, ensure_ascii=False))  # noqa: T201 - the command's data
