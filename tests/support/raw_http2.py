"""HTTP/2 as no client of ours would write it, frame by frame and without a library."""

import asyncio
import struct
from dataclasses import dataclass

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RESET, SETTINGS, GOAWAY = 0, 1, 3, 4, 7
END_STREAM, END_HEADERS = 1, 4


def frame(kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0) -> bytes:
    """Return one frame."""
    head = struct.pack(">I", len(payload))[1:] + bytes([kind, flags])
    return head + struct.pack(">I", stream) + payload


def call_headers(path: bytes, *more: tuple[bytes, bytes], stream: int = 1) -> bytes:
    """Return the frame that opens a gRPC call of this path, with this metadata besides."""
    fields = (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path),
        (b":authority", b"test"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
        *more,
    )
    block = b"".join(b"\0" + _text(name) + _text(value) for name, value in fields)
    return frame(HEADERS, block, flags=END_HEADERS, stream=stream)


def message(data: bytes = b"", *, stream: int = 1) -> bytes:
    """Return the frame of a call's only message."""
    body = b"\0" + struct.pack(">I", len(data)) + data
    return frame(DATA, body, flags=END_STREAM, stream=stream)


@dataclass(frozen=True)
class Frame:
    """One frame as it came."""

    kind: int
    flags: int
    stream: int
    payload: bytes


class RawConnection:
    """A connection with its preface sent: `async with RawConnection(address) as connection`."""

    def __init__(self, address: str) -> None:
        self._host, _, self._port = address.rpartition(":")
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def __aenter__(self) -> "RawConnection":
        self._reader, self._writer = await asyncio.open_connection(self._host, int(self._port))
        await self.send(PREFACE + frame(SETTINGS))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    async def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._writer.write(data)
        await self._writer.drain()

    async def answer(self, *, stream: int = 1, within: float = 10.0) -> bytes:
        """Return the payload of the header frames that a stream is answered with, up to its end.

        Raises:
            TimeoutError: it is not ended within so many seconds.
            IncompleteReadError: the server closed the connection.

        """
        found = b""
        async with asyncio.timeout(within):
            while True:
                came = await self._frame()
                if came.stream != stream:
                    continue
                if came.kind == HEADERS:
                    found += came.payload
                if came.kind == RESET or came.flags & END_STREAM:
                    return found

    async def _frame(self) -> Frame:
        head = await self._reader.readexactly(9)
        payload = await self._reader.readexactly(int.from_bytes(head[:3], "big"))
        return Frame(head[3], head[4], int.from_bytes(head[5:], "big"), payload)


def _text(data: bytes) -> bytes:
    """Return a literal of HPACK: its length in seven bits and what goes over, then itself."""
    size = len(data)
    if size < 127:
        return bytes([size]) + data
    out, size = b"\x7f", size - 127
    while size >= 128:
        out, size = out + bytes([size % 128 + 128]), size // 128
    return out + bytes([size]) + data
