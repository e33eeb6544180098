"""A file between the answers and the backend: what is in it survives the process.

Entries are appended with one write each, so a killed process loses none, and read back in order.
Files that another process left behind are taken over; those of one that lives are locked by it.
A spoilt entry is passed over; one that is cut off, or whose length is spoilt, ends its file,
and what came before it is read. What is lost so is counted.
"""

import fcntl
import os
import struct
import time
import zlib
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

import structlog

_log = structlog.get_logger()
_FRAME = struct.Struct("<IIBI")
"""Bytes that follow the frame, their checksum, the kind, the length of the head."""

_SEGMENT_BYTES = 8 << 20
_SUFFIX = ".journal"


@dataclass(frozen=True)
class Entry:
    """What was appended: two parts whose meaning the kind tells."""

    kind: int
    head: bytes
    body: bytes


@dataclass
class _Segment:
    path: Path
    handle: int
    size: int
    """Bytes that hold whole entries, as far as is known."""
    entries: int = 0
    read: int = 0
    """Bytes that are done with."""


@dataclass(frozen=True)
class Batch:
    """The oldest entries, and what `Journal.done` needs to forget them."""

    entries: list[Entry]
    segment: _Segment = field(repr=False)
    end: int
    lost: int = 0
    """Entries that cannot be read, as far as they could be counted when the file was opened."""


class Journal:
    """Entries in files of one folder; every method but `read` and `sync` from one thread."""

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        """Take how many bytes may wait; what comes when they do is refused."""
        self._folder = folder
        self._max_bytes = max_bytes
        self._segments: deque[_Segment] = deque()
        self._active: _Segment
        self._waiting_bytes = 0
        self.waiting = 0
        """Entries appended and not done."""

    def open(self) -> None:
        """Take over what others left, and begin a file.

        Raises:
            OSError: the folder cannot be used.

        """
        self._folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(self._folder.glob(f"*{_SUFFIX}")):
            segment = _adopted(path)
            if segment is not None:
                self._segments.append(segment)
                self.waiting += segment.entries
                self._waiting_bytes += segment.size
        self._begin()

    def close(self) -> None:
        """Leave what waits to the next process."""
        for segment in self._segments:
            if segment.read == segment.size:
                segment.path.unlink(missing_ok=True)
            os.close(segment.handle)
        self._segments.clear()

    def append(self, kind: int, head: bytes, body: bytes = b"") -> bool:
        """Keep an entry; False if there is no room for it."""
        data = head + body
        length = len(data)
        size = _FRAME.size + length
        if self._waiting_bytes + size > self._max_bytes:
            return False
        frame = _FRAME.pack(length, zlib.crc32(data), kind, len(head))
        active = self._active
        try:
            if active.size >= _SEGMENT_BYTES:
                active = self._begin()
            written = os.write(active.handle, frame + data)
        except OSError:
            written = 0
        if written != size:
            # A full disk may take a part; the next entry must not follow it.
            if written:
                os.ftruncate(active.handle, active.size)
            return False
        active.size += size
        active.entries += 1
        self._waiting_bytes += size
        self.waiting += 1
        return True

    def read(self, most: int) -> Batch | None:
        """Return the oldest entries, at most so many; None if there are none. In any thread."""
        for segment in list(self._segments):
            if segment.read < segment.size:
                return _batch(segment, most)
        return None

    def done(self, batch: Batch) -> None:
        """Forget a batch."""
        segment = batch.segment
        forgotten = batch.end - segment.read
        segment.read = batch.end
        segment.entries -= len(batch.entries) + batch.lost
        self._waiting_bytes -= forgotten
        self.waiting -= len(batch.entries) + batch.lost
        if segment.read < segment.size:
            return
        if segment is self._active:
            # Nothing waits: the file begins anew, and a restart has nothing to tell twice.
            os.ftruncate(segment.handle, 0)
            segment.size = segment.read = 0
        else:
            self._segments.remove(segment)
            segment.path.unlink(missing_ok=True)
            os.close(segment.handle)

    def sync(self) -> None:
        """Make what was appended survive a power failure too. In any thread."""
        for segment in list(self._segments):
            try:
                os.fdatasync(segment.handle)
            except OSError as error:
                _log.warning("the analytics journal cannot be synced", error=str(error))

    def _begin(self) -> _Segment:
        path = self._folder / f"{time.time_ns():020}-{os.getpid()}{_SUFFIX}"
        handle = os.open(
            path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600
        )
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._active = _Segment(path, handle, 0)
        self._segments.append(self._active)
        return self._active


def _adopted(path: Path) -> _Segment | None:
    """Return a file that nobody uses, or None."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    size = os.fstat(handle).st_size
    if not size:
        path.unlink(missing_ok=True)
        os.close(handle)
        return None
    segment = _Segment(path, handle, size)
    position = 0
    # Only the frames are read here, to count: a backlog may be large.
    while position + _FRAME.size <= size:
        length = _FRAME.unpack(os.pread(handle, _FRAME.size, position))[0]
        if not length:
            # Zeros, as a power failure leaves them.
            break
        position += _FRAME.size + length
        segment.entries += position <= size
    return segment


def _batch(segment: _Segment, most: int) -> Batch:
    entries: list[Entry] = []
    position, end, lost = segment.read, segment.size, 0
    while len(entries) < most and position < end:
        frame = os.pread(segment.handle, _FRAME.size, position)
        length = _FRAME.unpack(frame)[0] if len(frame) == _FRAME.size else 0
        if not 0 < length <= end - position - _FRAME.size:
            _log.error("the analytics journal is cut off", path=str(segment.path), at=position)
            return Batch(entries, segment, end, lost=segment.entries - len(entries))
        _, checksum, kind, head = _FRAME.unpack(frame)
        data = os.pread(segment.handle, length, position + _FRAME.size)
        if zlib.crc32(data) == checksum:
            entries.append(Entry(kind, data[:head], data[head:]))
        else:
            _log.error("an entry of the analytics journal is spoilt", path=str(segment.path))
            lost += 1
        position += _FRAME.size + length
    return Batch(entries, segment, position, lost=lost)
