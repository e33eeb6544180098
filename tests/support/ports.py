"""Ports for programs that cannot be told to take a free one."""

import contextlib
import secrets
import socket


def free_port() -> int:
    """Return a free port of loopback.

    Below the ephemeral range, where no test's own connection can take it while the program is
    down; and drawn, so that two runs on one machine do not wait for the same one.
    """
    for _ in range(100):
        port = 18_000 + secrets.randbelow(14_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("no free port below 32000")
