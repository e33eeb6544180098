"""local-bigquery as a process of its own: an emulator whose dialect is not SQLite's.

It needs Python 3.13 and half a gigabyte of wheels, so it has an environment of its own, which
`make local-bigquery` makes; LINER_LOCAL_BIGQUERY names another. Where it is absent its tests are
skipped visibly, under REQUIRE_EXTERNAL too: the fake stands for BigQuery everywhere, and this one
keeps the fake honest where it can run.
"""

import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_MADE = Path(__file__).parents[2] / ".venv-bigquery"

_LAUNCH = """
import os, pathlib, shutil, sys
home = pathlib.Path(os.environ["HOME"])
into = home / ".duckdb" / "extensions" / "v1.5.5" / "linux_amd64"
into.mkdir(parents=True, exist_ok=True)
for folder in map(pathlib.Path, sys.path):
    for file in folder.glob("duckdb_extension_*/**/*.duckdb_extension"):
        shutil.copy(file, into / file.name)
import duckdb
connect = duckdb.connect
def with_zone(*args, **kwargs):
    config = dict(kwargs.pop("config", None) or {})
    zone = config.pop("TimeZone", None)
    opened = connect(*args, config=config, **kwargs)
    if zone:
        opened.execute(f"SET TimeZone='{zone}'")
    return opened
duckdb.connect = with_zone
from local_bigquery.cli import main
sys.exit(main())
"""
"""Its extensions come from wheels, not from the network, and a zone is set after connecting."""


@contextmanager
def local_bigquery(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the HOST:PORTs of an empty emulator, of REST and of the Storage Write API; skips where
    there is none.
    """
    python = Path(os.environ.get("LINER_LOCAL_BIGQUERY") or _MADE) / "bin" / "python"
    if not os.access(python, os.X_OK):
        pytest.skip("local-bigquery is missing: make local-bigquery (needs Python 3.13)")
    port, grpc_port = _free_port(), _free_port()
    home = folder / "home"
    home.mkdir(parents=True)
    arguments = ["--host", "127.0.0.1", "--port", str(port), "--grpc-port", str(grpc_port)]
    arguments += ["--project", "liner-test", "--dataset", "first", "--data-dir", str(folder / "d")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(python), "-c", _LAUNCH, *arguments, "serve"],
            env={**os.environ, "HOME": str(home)},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait(process, port, folder / "log")
        yield f"127.0.0.1:{port}", f"127.0.0.1:{grpc_port}"
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: "subprocess.Popen[Any]", port: int, log: Path) -> None:
    end = time.monotonic() + 40
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=1):
                return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"local-bigquery did not start:\n{log.read_text()[-2000:]}")


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
