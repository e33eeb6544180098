"""Runs a script on a disk that is really small: the errors are the kernel's and not ours."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from support.external import missing


def run(folder: Path, script: str, *, size: str = "4m") -> None:
    """Run a script, which finds the disk's path in `sys.argv[1]`, on a fresh tmpfs.

    Nobody else sees the disk: it is mounted in a namespace of its own. Where that is not
    allowed the test is skipped, or fails if externals are required.

    Raises:
        AssertionError: the script failed; the text is what it wrote to standard error.

    """
    unshare = shutil.which("unshare")
    mount = f'mount -t tmpfs -o size={size} tmpfs "$0"'
    allowed = unshare and subprocess.run(
        [unshare, "-rm", "sh", "-c", mount, str(folder)], capture_output=True, check=False
    )
    if not unshare or not allowed or allowed.returncode:
        missing(
            "a small disk (unshare -rm and mount -t tmpfs)",
            install="allow user namespaces, or run as root with CAP_SYS_ADMIN",
        )
    done = subprocess.run(
        [
            *(unshare, "-rm", "sh", "-c", f'{mount} && exec "$1" -c "$2" "$0"', str(folder)),
            *(sys.executable, script),
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
