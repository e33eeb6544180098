"""Nobody who reaches a port can write a log line of his own."""

import asyncio
import json
import struct
from pathlib import Path

import pytest
from support.http import fetch
from support.raw_http2 import GOAWAY, PREFACE, SETTINGS, frame
from support.server import connected, server_process

FORGED = b'x\n{"event": "forged", "level": "info"}\r\n\x1b[2J'


async def _send(address: str, *parts: bytes) -> None:
    """Send what no client of ours would, and wait until the server has had enough."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    for part in parts:
        writer.write(part)
        await writer.drain()
    writer.write_eof()
    async with asyncio.timeout(10):
        await reader.read()
    writer.close()


async def test_what_peers_send_begins_no_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """gRPC's core would write a peer's farewell as it came, before anybody is authenticated."""
    async with server_process(tmp_path) as server:
        for code in (0, 2, 11):
            goaway = frame(GOAWAY, struct.pack(">II", 0, code) + FORGED)
            await _send(server.grpc_address, PREFACE + frame(SETTINGS), goaway)
        await _send(server.grpc_address, b"GET / HTTP/1.1\n" + FORGED)
        await _send(server.http_address, b"GET /" + FORGED + b" HTTP/1.1\r\n\r\n")
        async with connected(server.grpc_address) as stubs:
            await stubs.channel.channel_ready()
        status, _ = await fetch(f"http://{server.http_address}/healthz")
        await server.terminate()

    lines = capfd.readouterr().err.splitlines()

    assert status == 200
    events = [json.loads(line)["event"] for line in lines]
    assert {"serving", "stopped"} <= set(events)
    assert "forged" not in events
