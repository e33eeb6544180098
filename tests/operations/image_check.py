"""`make image-check`: the Dockerfile's steps run here, and what comes of them serves, read-only.

It stands for `docker build` and `docker run --read-only` where there is no engine: every RUN line
is run in order in a scratch folder, from the lock files; then the server is started as the image's
user on a root file system that cannot be written, and asked for its health by the image's own
command. The base image itself is not part of it.
"""

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from liner_server.rpc.identity import new_token
from support.dockerfile import Image, build, instructions
from support.external import missing
from support.ports import free_port

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    """What the Dockerfile builds."""
    # Not pytest's folder: the image's user must be able to enter it.
    folder = Path(tempfile.mkdtemp(prefix="liner-image-"))
    folder.chmod(0o755)
    try:
        yield build(ROOT, folder, _python())
    finally:
        shutil.rmtree(folder)


def _python() -> Path:
    """Return a Python that every user may run, if there is one."""
    for path in (Path("/usr/bin/python3"), Path(sys.executable).resolve()):
        check = "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))"
        if path.exists() and not subprocess.run([path, "-c", check], check=False).returncode:
            return path
    raise AssertionError("no Python with venv")


@pytest.mark.timeout(900)
def test_every_run_line_was_run(image: Image) -> None:
    """A step that was passed over would fail on the day of the build."""
    lines = [
        rest for name, rest in instructions((ROOT / "Dockerfile").read_text()) if name == "RUN"
    ]
    size = subprocess.run(
        ["du", "-sm", image.root], capture_output=True, text=True, check=True
    ).stdout.split()[0]
    print(f"{len(image.ran)} RUN lines; the image adds {size} MB to its base")  # noqa: T201

    assert len(image.ran) == len(lines) == 4


def test_what_builds_is_not_shipped(image: Image) -> None:
    """Whoever breaks in finds no pip, no tests and no sources beside the package."""
    packages = {path.name for path in (image.root / "opt/liner").glob("lib/*/site-packages/*")}

    assert {"liner_server", "liner_client", "liner", "BeatNet", "musicnn"} <= packages
    assert not {"pip", "setuptools", "hatchling", "pytest", "tests"} & packages
    assert {path.name for path in image.root.iterdir()} == {"opt", "var"}


@pytest.mark.timeout(120)
async def test_it_serves_as_its_user_on_a_read_only_disk(image: Image) -> None:
    """`docker run --read-only` with a volume for the data."""
    data = image.root / "var/lib/liner"
    assert (data.stat().st_uid, data.stat().st_gid, data.stat().st_mode & 0o777) == (
        10001,
        10001,
        0o700,
    )
    _, line = new_token("ops", ["admin"])
    tokens = image.root.parent / "tokens"
    tokens.write_text(line + "\n")
    grpc_port, http_port = free_port(), free_port()
    environment = {
        **{key: value for key, value in image.env.items() if key != "PATH"},
        "PATH": f"{image.root}/opt/liner/bin:/usr/bin:/bin",
        "LINER_GRPC_ADDRESS": image.env["LINER_GRPC_ADDRESS"].replace("50051", str(grpc_port)),
        "LINER_HTTP_ADDRESS": image.env["LINER_HTTP_ADDRESS"].replace("9090", str(http_port)),
    }
    # Without tokens it must refuse to listen to others, whatever else is right.
    refused = await _run(image, data, environment, *image.command)
    assert refused[0] == 2
    assert "LINER_TOKENS_FILE" in refused[1]

    environment["LINER_TOKENS_FILE"] = str(tokens)
    server = await asyncio.create_subprocess_exec(
        *_read_only(image, data, *image.command),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert server.stdout is not None
    try:
        async with asyncio.timeout(60):
            ready = await server.stdout.readline()
        health = await _run(image, data, environment, *image.health)
        who = Path(f"/proc/{server.pid}/status").read_text()
    finally:
        server.terminate()
        async with asyncio.timeout(20):
            _, said = await server.communicate()

    assert ready.startswith(b"liner-server ready"), said.decode()
    assert health[0] == 0, health[1]
    assert "Uid:\t10001\t10001\t10001" in who
    assert server.returncode == 0, said.decode()
    assert sorted(path.name for path in data.iterdir()), "it keeps its files on the volume"


def _read_only(image: Image, data: Path, *command: str) -> list[str]:
    """Return a command that runs another one as the image's user, where only `data` is writable."""
    user, _, group = image.user.partition(":")
    drop = f"setpriv --reuid {user} --regid {group} --clear-groups --no-new-privs"
    # Where something else is mounted it stays as it is; nothing of the image lies there.
    mounts = 'mount --bind "$0" "$0" && mount -o remount,bind,ro / && ! touch "$1" 2>/dev/null'
    script = f'{mounts} && shift && exec {drop} "$@"'
    return [
        *("unshare", "--mount", "--propagation", "private", "sh", "-c", script),
        *(str(data), str(image.root / "opt/liner/written"), *command),
    ]


async def _run(
    image: Image, data: Path, environment: dict[str, str], *command: str
) -> tuple[int, str]:
    if os.geteuid() != 0 or not shutil.which("unshare") or not shutil.which("setpriv"):
        missing("a read-only root file system", install="run as root, with unshare and setpriv")
    process = await asyncio.create_subprocess_exec(
        *_read_only(image, data, *command),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    async with asyncio.timeout(60):
        out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode()
