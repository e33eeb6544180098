"""A listening process: `python -m liner_server.audio.worker FD PARENT`.

It answers one request at a time on the socket FD and ends when the socket closes or its parent
dies. Standard input and output are not used for the protocol, so whatever a library prints
cannot corrupt it. Limits are set before any byte of audio is read.
"""

import contextlib
import ctypes
import os
import resource
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import Any

from liner_server.audio import errors, wire

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38

_ADDRESS_SPACE_BYTES = 2 << 30
"""Address space, of which an hour's file needs well under half; not resident memory."""

_OPEN_FILES = 64
_NICENESS = 10
"""Requests are answered first; listening takes what is left."""


def main(arguments: list[str]) -> None:
    """Serve requests until the other end closes."""
    descriptor, parent = int(arguments[0]), int(arguments[1])
    _confine(parent)
    with socket.socket(fileno=descriptor) as connection, contextlib.suppress(EOFError):
        _warm_up()
        _send(connection, {"ready": True})
        while True:
            _send(connection, _answer(_receive(connection)))


def _confine(parent: int) -> None:
    """Give up what listening never needs, and make sure not to outlive the server."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        if os.getppid() != parent:
            sys.exit("the server is gone")
    # A terminal's Ctrl-C reaches the whole group; the server decides when listening ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(_NICENESS)
    for limit, most in (
        (resource.RLIMIT_AS, _ADDRESS_SPACE_BYTES),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(limit)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(limit, (most, most))


def _warm_up() -> None:
    """Import what listening needs, so that the first request does not pay for it."""
    import liner_server.audio.listen  # noqa: F401


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    """What was heard, or why nothing was. Never raises for what a file holds."""
    _allow_cpu(request["cpu_seconds"])
    try:
        reply = _heard(request)
    except errors.AudioError as error:
        reply = {"reason": error.reason, "text": str(error)}
    except Exception as error:
        reply = {"reason": errors.ListeningCrashedError.reason, "text": _what_happened(error)}
    return {**reply, "rss_bytes": _resident_bytes()}


def _heard(request: dict[str, Any]) -> dict[str, Any]:
    """What was asked for: all that listening yields, or excerpts for a model."""
    from liner_server.audio.excerpts import cut_excerpts
    from liner_server.audio.listen import listen

    path, limits = Path(request["path"]), wire.to_limits(request["limits"])
    if request["excerpts"]:
        excerpts = cut_excerpts(path, count=request["excerpts"], limits=limits)
        return {"excerpts": [wire.from_bytes(excerpt) for excerpt in excerpts]}
    return {"heard": wire.from_listening(listen(path, name=request["name"], limits=limits))}


def _what_happened(error: Exception) -> str:
    """What an operator needs to find a fault of ours, without anything the file holds."""
    if isinstance(error, OSError):
        what = f"{type(error).__name__} ({error.strerror})"
    else:
        what = type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    where = [frame for frame in frames if "liner_server" in frame.filename][-1]
    return f"{what} at {Path(where.filename).name}:{where.lineno}"


def _resident_bytes() -> int:
    """Memory held now, which tells a leak from one large file; elsewhere than on Linux the peak."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return pages * resource.getpagesize()


def _allow_cpu(seconds: float) -> None:
    """Kill this process once it has used that much more CPU: a backstop to the deadline."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    used = usage.ru_utime + usage.ru_stime
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used + seconds) + 1, hard))


def _send(connection: socket.socket, message: dict[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError):
        connection.sendall(wire.pack(message))


def _receive(connection: socket.socket) -> dict[str, Any]:
    (length,) = wire.LENGTH.unpack(_read(connection, wire.LENGTH.size))
    return wire.unpack(_read(connection, length))


def _read(connection: socket.socket, size: int) -> bytes:
    parts = []
    while size:
        part = connection.recv(min(size, 1 << 16))
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


if __name__ == "__main__":
    main(sys.argv[1:])
