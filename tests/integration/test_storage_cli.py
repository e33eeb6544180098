"""`liner cp`, `sign`, `ls`, `rm` and `liner-server rotate-signing-key` against a real server."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest
from support.server import server_process


async def run(*words: str, stdin: bytes | None = None, **environment: str) -> tuple[int, str, str]:
    """Run a command of ours; return its exit code, output and errors."""
    module, *rest = words
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *rest),
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, errors = await process.communicate(stdin)
    return process.returncode or 0, out.decode().strip(), errors.decode()


async def test_the_walk_of_the_readme(tmp_path: Path):
    """In, a URL to read, a URL to write once, a new key, out."""
    song = tmp_path / "song.wav"
    song.write_bytes(b"sound")
    async with server_process(tmp_path / "data") as server, aiohttp.ClientSession() as http:
        environment = {"LINER_SERVER": server.grpc_address}

        async def liner(*words: str) -> tuple[int, str, str]:
            return await run("liner_client.cli", *words, **environment)

        stored = await liner("cp", str(song), "liner:in/song.wav", "--meta", "tier=free")
        listed = await liner("ls", "in/", "--output", "json")
        code, url, _ = await liner("sign", "in/song.wav", "--expires", "60")
        async with http.get(url) as response:
            assert (code, await response.read()) == (0, b"sound")
        code, url, told = await liner(
            "sign", "in/new.wav", "--write", "--content-type", "audio/wav", "--max-bytes", "9"
        )
        assert "Content-Type: audio/wav" in told
        statuses = []
        for body in (b"0123456789", b"sound", b"again"):
            async with http.put(url, data=body, headers={"Content-Type": "audio/wav"}) as response:
                statuses.append(response.status)
        rotated = await run(
            *("liner_server", "rotate-signing-key", "--keep", "0"),
            LINER_DATA_DIR=str(tmp_path / "data"),
        )
        async with http.get(url) as response:
            void = response.status
        removed = await liner("rm", "in/song.wav", "in/new.wav")
        wrong = await liner("cp", str(song), "liner:x", "--meta", "tier")
        late = await liner("sign", "x", "--expires", "700000")

    assert stored[:2] == (0, "in/song.wav")
    assert '"tier": "free"' in listed[1]
    assert statuses == [413, 200, 412]
    assert rotated[0] == 0
    assert void == 403
    assert removed[0] == 0
    assert (wrong[0], late[0]) == (2, 2)


@pytest.mark.parametrize("data", [b"", os.urandom(1_500_000)])
async def test_what_comes_from_a_pipe_goes_in(tmp_path: Path, data: bytes):
    """It is read once only, so it is kept until it is stored; a name is of the caller's own."""
    fifo = tmp_path / "song.wav"
    os.mkfifo(fifo)
    async with server_process(tmp_path / "data") as server:
        environment = {"LINER_SERVER": server.grpc_address, "TMPDIR": str(tmp_path)}
        named = await run(
            "liner_client.cli", "cp", "-", "liner:in/a.wav", stdin=data, **environment
        )
        nameless = await run("liner_client.cli", "cp", "-", "liner:in/", stdin=data, **environment)
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.to_thread(fifo.write_bytes, data))
            piped = group.create_task(
                run("liner_client.cli", "cp", str(fifo), "liner:in/", **environment)
            )
        back = tmp_path / "back"
        for name in ("in/a.wav", "in/song.wav"):
            assert (await run("liner_client.cli", "cp", f"liner:{name}", str(back), **environment))[
                0
            ] == 0
            assert back.read_bytes() == data
        listed = await run("liner_client.cli", "ls", "in/", "--output", "json", **environment)

    assert named[:2] == (0, "in/a.wav")
    assert nameless[0] == 2
    assert piped.result()[:2] == (0, "in/song.wav")
    assert listed[1].count("audio/") == 2
    assert not list(tmp_path.glob("liner-*"))


async def test_a_token_that_owns_a_prefix_names_by_content_below_it(tmp_path: Path):
    """Else it could send nothing without a name."""
    (tmp_path / "song.wav").write_bytes(b"sound")
    made = await run(
        *("liner_server", "token", "label-a", "--role", "objects.write"),
        *("--role", "objects.read", "--prefix", "label-a/"),
    )
    token, line = (text.partition(": ")[2] for text in made[1].splitlines())
    (tmp_path / "tokens").write_text(line)
    async with server_process(
        tmp_path / "data", {"LINER_TOKENS_FILE": str(tmp_path / "tokens")}
    ) as server:
        environment = {"LINER_SERVER": server.grpc_address, "LINER_TOKEN": token}
        command = ("liner_client.cli", "cp", str(tmp_path / "song.wav"), "liner:")

        refused = await run(*command, **environment)
        stored = await run(*command, **environment, LINER_OBJECT_PREFIX="label-a/")

    assert (refused[0], "label-a/" in refused[2]) == (4, True)
    assert stored[1].startswith("label-a/audio/")
