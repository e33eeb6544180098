"""A TCP proxy that breaks connections off: in the middle of an answer, or before any of it."""

import contextlib
import socket
import threading
from typing import Self
from urllib.parse import urlsplit


class CuttingProxy:
    """Stands before an HTTP server: `with CuttingProxy(url) as proxy`."""

    def __init__(self, upstream: str) -> None:
        parts = urlsplit(upstream)
        self._upstream = (parts.hostname or "", parts.port or 80)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.cut = 0
        """How many connections were broken off."""
        self._cuts: list[int] = []
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._run(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        # Closing alone does not wake a thread that waits in accept.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join()
        for one in list(self._sockets):
            _drop(one)
        for thread in self._threads:
            thread.join()

    def cut_answers(self, *after: int) -> None:
        """Break the next connections off after so many bytes of an answer, one each."""
        with self._lock:
            self._cuts = list(after)

    def _run(self, work: object, *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self._sockets.add(near)
                far = socket.create_connection(self._upstream)
                self._sockets.add(far)
                self._run(self._pass, near, far, False)
                self._run(self._pass, far, near, True)

    def _pass(self, source: socket.socket, target: socket.socket, answers: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                kept = self._kept(len(data)) if answers else len(data)
                target.sendall(data[:kept])
                if kept < len(data):
                    break
        for one in (source, target):
            _drop(one)

    def _kept(self, size: int) -> int:
        """Return how much of an answer gets through before the line breaks."""
        with self._lock:
            if not self._cuts:
                return size
            if self._cuts[0] >= size:
                self._cuts[0] -= size
                return size
            self.cut += 1
            return self._cuts.pop(0)


def _drop(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
