"""What a peer sends to the HTTP side port that no client of ours would."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest
from liner.v1 import storage_pb2
from liner_server.rpc import object_urls, side_port
from prometheus_client import CollectorRegistry, Gauge
from support.eventually import eventually
from support.http import fetch
from support.server import served

GET = b"GET /healthz HTTP/1.1\r\nHost: test\r\n"


@pytest.fixture
async def address() -> AsyncIterator[str]:
    """A side port with room for eight connections."""
    registry = CollectorRegistry()
    Gauge("made_up", "Something to show", registry=registry)
    port = side_port.side_port(
        "127.0.0.1:0", registry=registry, healthy=lambda: True, most_connections=8
    )
    async with port as number:
        yield f"127.0.0.1:{number}"


async def _opened(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = address.rpartition(":")
    return await asyncio.open_connection(host, int(port))


async def _first_line(address: str, sent: bytes) -> bytes:
    """Send bytes and return the first line of the answer; empty when there is none."""
    reader, writer = await _opened(address)
    async with asyncio.timeout(10):
        writer.write(sent)
        await writer.drain()
        line = await reader.readline()
    writer.close()
    return line


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /healthz HTTP/1.1\r\n\r\n",
        GET + b"Host: other\r\n\r\n",
        GET + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        GET + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
        GET + b"Content-Length: +5\r\n\r\nabcde",
        GET + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        GET + b"Folded: a\r\n b\r\n\r\n",
        GET + b"Space : a\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: test\r\n\r\n",
        b"GET http://[::1/healthz HTTP/1.1\r\nHost: test\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: test\r\n\r\n",
        GET + b"Long: " + b"a" * 100_000 + b"\r\n\r\n",
        GET + b"A: b\r\n" * 10_000 + b"\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
async def test_what_is_no_request_is_refused_and_not_logged(
    address: str, sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """A line of thirteen kilobytes a request, as it was, fills a disk from outside."""
    with caplog.at_level(logging.DEBUG, "aiohttp.server"):
        assert b" 400 " in await _first_line(address, sent)

    assert caplog.records == []


@pytest.mark.parametrize(
    "accept",
    [
        b"application/openmetrics-text;version=\xff",
        b"application/openmetrics-text;version=a.b.c",
        b"application/openmetrics-text;version=",
        b"text/plain;version=x;escaping=y",
        b"a/b;q=0.1," * 700,
    ],
)
async def test_metrics_are_shown_whatever_is_accepted(address: str, accept: bytes) -> None:
    """A version that is no number was an error of the server's."""
    sent = b"GET /metrics HTTP/1.1\r\nHost: test\r\nAccept: " + accept + b"\r\n\r\n"

    assert b" 200 " in await _first_line(address, sent)


async def test_a_body_that_unpacks_to_more_is_not_unpacked(
    address: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing asked here comes compressed; reading on unpacked it all the same, and failed."""
    sent = GET + b"Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nabcde"

    assert b" 200 " in await _first_line(address, sent)
    assert b" 200 " in await _first_line(address, GET + b"\r\n")
    assert caplog.records == []


async def test_connections_that_ask_for_nothing_make_room(address: str) -> None:
    """Probes and scrapes get through whoever holds connections, and as many as he likes."""
    held = [await _opened(address) for _ in range(50)]
    for _, writer in held[::2]:
        writer.write(b"GET /healthz HTTP/1.1\r\nHos")

    status, _ = await fetch(f"http://{address}/healthz")

    async with asyncio.timeout(10):
        assert [await reader.read() for reader, _ in held[:40]] == [b""] * 40
    assert status == 200
    for _, writer in held:
        writer.close()


async def test_a_head_that_does_not_end_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A byte now and then held a connection for an hour."""
    monkeypatch.setattr(side_port, "_IDLE_SECONDS", 0.3)
    port = side_port.side_port("127.0.0.1:0", registry=CollectorRegistry(), healthy=lambda: True)
    async with port as number:
        reader, writer = await _opened(f"127.0.0.1:{number}")
        writer.write(GET)

        async def ended() -> bool:
            writer.write(b"a")
            return reader.at_eof()

        reading = asyncio.create_task(reader.read())
        await eventually(ended)
        assert await reading == b""
        writer.close()


async def _signed(stubs, name: str, operation: int) -> str:
    request = storage_pb2.GetSignedURLRequest(object_name=name, operation=operation)
    return (await stubs.storage.GetSignedURL(request)).url


async def test_transfers_that_do_not_go_on_end_and_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has a signed URL is not trusted with more than the object: not with files and sockets."""
    monkeypatch.setattr(object_urls, "_MOST_TRANSFERS", 4)
    monkeypatch.setattr(object_urls, "_STALLED_SECONDS", 3.0)
    async with served(tmp_path) as (app, stubs), AsyncExitStack() as stack:
        url = await _signed(stubs, "a/b", storage_pb2.SIGNED_URL_OPERATION_WRITE)
        path = url.removeprefix(f"http://{app.http_address}").encode()
        head = b"PUT " + path + b" HTTP/1.1\r\nHost: " + app.http_address.encode()
        head += b"\r\nContent-Length: 100\r\n\r\n"
        held = []
        for _ in range(4):
            reader, writer = await _opened(app.http_address)
            stack.callback(writer.close)
            writer.write(head + b"some")
            held.append(reader)
        session = await stack.enter_async_context(aiohttp.ClientSession())

        async def refused() -> bool:
            async with session.put(url, data=b"x") as answer:
                return answer.status == 503 and "TOO_MANY_TRANSFERS" in await answer.text()

        await eventually(refused, within=3)
        assert (await fetch(f"http://{app.http_address}/healthz"))[0] == 200
        async with asyncio.timeout(10):
            assert {(await reader.readline()).split()[1] for reader in held} == {b"408"}
        async with session.put(url, data=b"x") as answer:
            assert answer.status == 200

    assert list((tmp_path / "objects" / "uploads").iterdir()) == []
