"""A pool of listening processes: audio is heard outside the server, and can be stopped.

Nothing here imports numpy or a decoder, so the server stays small and starts fast. Each process
listens to one file at a time. A file that makes it crash, hang or grow costs that file its answer
and the pool one process, which is replaced; no other file notices.
"""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from liner_server.audio import errors, wire
from liner_server.audio.errors import (
    ListeningBusyError,
    ListeningCrashedError,
    ListeningTimeoutError,
)
from liner_server.audio.limits import Limits
from liner_server.audio.measurements import Listening

_T = TypeVar("_T")

_SOURCE_ROOT = Path(__file__).resolve().parents[2]
"""The folder that holds `liner_server`: a listening process imports from it."""

_KILL_SECONDS = 5.0
"""A killed process is gone in milliseconds, unless the kernel holds it in a read."""


@dataclass(frozen=True, kw_only=True)
class PoolPolicy:
    """How many listening processes there are and when one is replaced."""

    processes: int = 0
    """Files heard at the same time; 0 means one a CPU."""

    max_waiting: int = 256
    """Files that may wait for a process; one more is refused as busy."""

    cpu_allowance: timedelta = timedelta(minutes=5)
    """CPU one file may use, whatever its deadline."""

    start_timeout: timedelta = timedelta(seconds=30)
    """A process that is not ready by then counts as crashed."""

    max_jobs: int = 500
    """Files after which a process is replaced, so that a slow leak never matters."""

    max_rss_bytes: int = 300 << 20
    """A process that still holds more after a file is replaced."""


class ListeningPool:
    """Hears files in processes of its own: `async with ListeningPool(...) as pool`.

    Processes start on first use, or on `warm_up`. Files are heard in the order they came in.
    """

    def __init__(self, *, policy: PoolPolicy | None = None, limits: Limits | None = None) -> None:
        self._policy = policy or PoolPolicy()
        self._limits = limits or Limits()
        self._size = self._policy.processes or len(os.sched_getaffinity(0))
        self._spare: list[asyncio.Future[_Process]] = []
        self._starting: set[asyncio.Task[_Process]] = set()
        self._all: set[_Process] = set()
        self._busy = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._closed = False
        # Processes die with the thread that started them (PR_SET_PDEATHSIG counts threads), so
        # one thread of our own starts them all and lives as long as the pool.
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="listening-starter")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def size(self) -> int:
        """Files heard at the same time."""
        return self._size

    @property
    def waiting(self) -> int:
        """Files that wait for a process now."""
        return len(self._waiting)

    async def warm_up(self) -> None:
        """Start every process now, so that the first files need not wait for imports."""
        missing = self._size - self._busy - len(self._spare)
        self._spare += [self._begin() for _ in range(missing)]
        # Waited for without being claimed: neither a failure nor a cancelled caller ends them.
        if self._spare:
            await asyncio.wait(self._spare)

    async def listen(self, path: Path, *, name: str, deadline: float) -> Listening:
        """Return what is heard in the file at `path` before `deadline`, in the loop's time.

        `name` is what the caller calls the file; only its extension matters. When the deadline
        passes or the caller is cancelled, the process is killed and its CPU is free at once.

        Raises:
            AudioError: one of its kinds; `errors` lists them.

        """
        request = {"path": str(path), "name": name, "excerpts": 0}
        return await self._run(request, deadline, lambda reply: wire.to_listening(reply["heard"]))

    async def excerpts(self, path: Path, *, count: int, deadline: float) -> list[bytes]:
        """Return at most `count` excerpts of the file at `path`, as `audio.excerpts` cuts them.

        Raises:
            AudioError: as `listen` does.

        """
        request = {"path": str(path), "name": "", "excerpts": count}
        return await self._run(request, deadline, lambda reply: wire.to_excerpts(reply["excerpts"]))

    async def _run(
        self, request: Mapping[str, Any], deadline: float, read: Callable[[dict[str, Any]], _T]
    ) -> _T:
        """Have one of the processes do a piece of work before the deadline; `read` its reply."""
        loop = asyncio.get_running_loop()
        if deadline <= loop.time():
            raise ListeningTimeoutError("the deadline had passed before it could be heard")
        try:
            async with asyncio.timeout_at(deadline):
                await self._acquire()
                try:
                    return await self._hear(request, deadline - loop.time(), read)
                finally:
                    self._release()
        except TimeoutError as error:
            raise ListeningTimeoutError("the deadline passed before it was heard") from error

    async def close(self) -> None:
        """Kill every process and refuse what waits; ends within a second."""
        self._closed = True
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_exception(_stopping())
        self._spare.clear()
        for start in self._starting:
            start.cancel()
        await asyncio.gather(*self._starting, return_exceptions=True)
        await asyncio.gather(*(self._end(process) for process in tuple(self._all)))
        self._starter.shutdown(wait=False)

    async def _acquire(self) -> None:
        """Take one of the places in the pool, first come, first served."""
        if self._closed:
            raise _stopping()
        if self._busy < self._size and not self._waiting:
            self._busy += 1
            return
        if len(self._waiting) >= self._policy.max_waiting:
            raise ListeningBusyError(f"{len(self._waiting)} files wait to be heard already")
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
            elif not waiter.cancelled() and waiter.exception() is None:
                # The place was handed over in the same moment: pass it on.
                self._release()
            raise

    def _release(self) -> None:
        """Hand the place to the longest waiting caller, or free it."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self._busy -= 1

    async def _take(self) -> "_Process":
        """Return a process that waits for work, or a new one.

        A start goes on when its caller leaves, for the next caller: otherwise callers with
        less time than a start takes would never find a process ready.
        """
        while self._spare:
            start = self._spare.pop()
            if not (start.done() and not start.exception() and start.result().dead):
                break
            await self._end(start.result())
        else:
            start = self._begin()
        try:
            return await asyncio.shield(start)
        except asyncio.CancelledError:
            if self._closed:
                raise _stopping() from None
            self._spare.append(start)
            raise

    async def _hear(
        self, request: Mapping[str, Any], seconds: float, read: Callable[[dict[str, Any]], _T]
    ) -> _T:
        process = await self._take()
        keep = False
        try:
            reply = await process.ask({**request, **self._allowance(seconds)})
            if "reason" not in reply:
                found = read(reply)
                keep = self._still_good(process, reply)
                return found
            keep = self._still_good(process, reply)
            raise errors.from_reason(str(reply.get("reason")), str(reply.get("text")))
        except (EOFError, OSError) as error:
            raise await self._post_mortem(process) from error
        except wire.WireError as error:
            raise ListeningCrashedError("the process that listened answered nonsense") from error
        finally:
            if keep and not self._closed:
                spare: asyncio.Future[_Process] = asyncio.get_running_loop().create_future()
                spare.set_result(process)
                self._spare.append(spare)
            else:
                await self._end(process)

    def _still_good(self, process: "_Process", reply: Mapping[str, Any]) -> bool:
        """Whether a process that just answered may hear another file."""
        size = reply.get("rss_bytes")
        return (
            reply.get("reason") != ListeningCrashedError.reason
            and process.jobs < self._policy.max_jobs
            and isinstance(size, int)
            and size <= self._policy.max_rss_bytes
        )

    def _allowance(self, seconds: float) -> dict[str, Any]:
        return {
            "cpu_seconds": min(self._policy.cpu_allowance.total_seconds(), max(seconds, 0.0) + 1),
            "limits": wire.from_limits(self._limits),
        }

    def _begin(self) -> "asyncio.Task[_Process]":
        start = asyncio.create_task(self._start())
        self._starting.add(start)
        start.add_done_callback(self._starting.discard)
        return start

    async def _start(self) -> "_Process":
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        spawning = loop.run_in_executor(self._starter, _spawn, theirs)
        try:
            child = await asyncio.shield(spawning)
        except asyncio.CancelledError:
            # It takes milliseconds, and whoever is started must not be left behind.
            await loop.run_in_executor(self._starter, _kill, await spawning)
            ours.close()
            raise
        except OSError as error:
            ours.close()
            raise ListeningCrashedError(f"no process can be started: {error.strerror}") from error
        ours.setblocking(False)
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        process = _Process(child, reader, writer)
        self._all.add(process)
        try:
            async with asyncio.timeout(self._policy.start_timeout.total_seconds()):
                await process.receive()
        except (EOFError, OSError, wire.WireError, TimeoutError) as error:
            raise await self._post_mortem(process) from error
        except asyncio.CancelledError:
            await self._end(process)
            raise
        return process

    async def _post_mortem(self, process: "_Process") -> errors.AudioError:
        """End a process that no longer answers and say what became of it."""
        code = await self._end(process)
        if self._closed:
            return _stopping()
        if code == -signal.SIGXCPU:
            return ListeningTimeoutError("it used up the CPU time one file may take")
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return ListeningCrashedError(f"the process that listened ended with {how}")

    async def _end(self, process: "_Process") -> int:
        """Kill a process and return how it ended; it is ended even if the caller leaves."""
        if process.ending is None:
            process.ending = asyncio.ensure_future(process.end(self._starter))
        code = await asyncio.shield(process.ending)
        self._all.discard(process)
        return code


class _Process:
    """One listening process and the socket to it."""

    def __init__(
        self,
        child: "subprocess.Popen[bytes]",
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._child = child
        self._reader = reader
        self._writer = writer
        self.jobs = 0
        self.ending: asyncio.Future[int] | None = None

    @property
    def dead(self) -> bool:
        """Whether something killed it while it had nothing to do."""
        return self._child.poll() is not None

    async def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        self.jobs += 1
        self._writer.write(wire.pack(request))
        await self._writer.drain()
        return await self.receive()

    async def receive(self) -> dict[str, Any]:
        head = await self._reader.readexactly(wire.LENGTH.size)
        (length,) = wire.LENGTH.unpack(head)
        if length > wire.MAX_FRAME_BYTES:
            raise wire.WireError(f"a frame of {length} bytes")
        return wire.unpack(await self._reader.readexactly(length))

    async def end(self, executor: ThreadPoolExecutor) -> int:
        # One that ended by itself keeps its own exit code: the signal comes too late for it.
        # Waiting takes milliseconds, so it is not done on the event loop.
        code = await asyncio.get_running_loop().run_in_executor(executor, _kill, self._child)
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()
        return code


def _stopping() -> ListeningBusyError:
    return ListeningBusyError("the server is stopping")


def _kill(child: "subprocess.Popen[bytes]") -> int:
    child.kill()
    try:
        return child.wait(_KILL_SECONDS)
    except subprocess.TimeoutExpired:
        return -signal.SIGKILL


def _spawn(theirs: socket.socket) -> "subprocess.Popen[bytes]":
    """Start a process with nothing of the server's: no environment, no files, no terminal.

    `Popen` starts it with vfork and exec, so no fork handler of the gRPC library runs.
    """
    environment = {
        "PATH": os.defpath,
        "PYTHONPATH": str(_SOURCE_ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        # One thread each: the pool is what uses the CPUs.
        **dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    }
    with theirs:
        return subprocess.Popen(
            [
                *(sys.executable, "-P", "-s", "-m", "liner_server.audio.worker"),
                *(str(theirs.fileno()), str(os.getpid())),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
            cwd="/",
            pass_fds=(theirs.fileno(),),
            start_new_session=True,
        )
