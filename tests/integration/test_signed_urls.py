"""Signed URLs of the local backend over real HTTP: what they allow, and that nothing else works."""

import asyncio
import base64
import contextlib
import os
import random
import urllib.request
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import google_crc32c
import pytest
from liner.v1 import storage_pb2
from liner_server.objects.signing import SigningKeys
from support.eventually import eventually
from support.server import Stubs, served

READ, WRITE = storage_pb2.SIGNED_URL_OPERATION_READ, storage_pb2.SIGNED_URL_OPERATION_WRITE


@dataclass(frozen=True, kw_only=True)
class Service:
    """A running service and what asks it."""

    stubs: Stubs
    http: aiohttp.ClientSession
    folder: Path
    address: str

    async def put(self, name: str, data: bytes, **fields: object) -> storage_pb2.StoredObject:
        """Store an object over gRPC."""
        frames = [
            storage_pb2.UploadRequest(spec=storage_pb2.UploadSpec(object_name=name, **fields)),
            storage_pb2.UploadRequest(chunk=storage_pb2.Chunk(data=data)),
            storage_pb2.UploadRequest(finish=storage_pb2.UploadFinish()),
        ]
        return (await self.stubs.storage.Upload(iter(frames))).object

    async def sign(self, name: str, operation: int, **fields: object) -> str:
        """Return a signed URL."""
        request = storage_pb2.GetSignedURLRequest(object_name=name, operation=operation, **fields)
        return (await self.stubs.storage.GetSignedURL(request)).url

    async def ask(self, method: str, url: str, **options: object) -> tuple[int, str, bytes]:
        """Return status, reason of a refusal, and body."""
        async with self.http.request(method, url, **options) as response:
            body = await response.read()
            reason = ""
            if response.status >= 400 and response.content_type == "application/json":
                reason = (await response.json())["reason"]
            return response.status, reason, body

    async def raw(self, method: str, target: bytes, host: bytes, body: bytes = b"") -> int:
        """Send a request byte for byte and return the status of the answer."""
        name, _, port = self.address.rpartition(":")
        reader, writer = await asyncio.open_connection(name, int(port))
        try:
            writer.write(
                method.encode()
                + b" "
                + target
                + b" HTTP/1.1\r\nHost: "
                + host
                + b"\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body)
                + body
            )
            await writer.drain()
            line = await reader.readline()
            return int(line.split()[1]) if line else 400
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    """A running service."""
    async with served(tmp_path) as (app, stubs), aiohttp.ClientSession() as http:
        yield Service(stubs=stubs, http=http, folder=tmp_path, address=app.http_address)


async def test_an_object_is_read_by_its_url_whole_and_in_parts(service: Service):
    """A player seeks; a browser saves and never runs what somebody uploaded."""
    data = os.urandom(3_000_000)
    await service.put("in/é å.flac", b"x")
    await service.stubs.storage.Delete(storage_pb2.DeleteRequest(object_name="in/é å.flac"))
    frames = [
        storage_pb2.UploadRequest(
            spec=storage_pb2.UploadSpec(object_name="in/é å.flac", content_type="audio/flac")
        ),
        *(
            storage_pb2.UploadRequest(
                chunk=storage_pb2.Chunk(offset=at, data=data[at : at + 10**6])
            )
            for at in range(0, len(data), 10**6)
        ),
        storage_pb2.UploadRequest(finish=storage_pb2.UploadFinish()),
    ]
    await service.stubs.storage.Upload(iter(frames))
    url = await service.sign("in/é å.flac", READ)

    async with service.http.get(url) as response:
        whole = await response.read()
        headers = response.headers

    assert whole == data
    assert headers["Content-Type"] == "audio/flac"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Content-Disposition"] == "attachment"
    for asked, status, part in [
        ("bytes=0-0", 206, data[:1]),
        ("bytes=1000-1999", 206, data[1000:2000]),
        ("bytes=2999990-", 206, data[2_999_990:]),
        ("bytes=-7", 206, data[-7:]),
        ("bytes=2999990-99999999", 206, data[2_999_990:]),
        ("bytes=0-", 206, data),
        ("bytes=1-0", 200, data),
        ("bytes=0-1,5-6", 200, data),
        ("lines=0-1", 200, data),
        ("bytes=3000000-", 416, b""),
        ("bytes=-0", 416, b""),
    ]:
        got, _, body = await service.ask("GET", url, headers={"Range": asked})
        assert (asked, got, body) == (asked, status, part)
    assert (await service.ask("HEAD", url))[0] == 200


async def test_an_empty_object_is_read_and_has_no_part(service: Service):
    """As everywhere in HTTP: no byte is there, so none can be asked for."""
    await service.put("empty", b"")
    url = await service.sign("empty", READ)

    assert await service.ask("GET", url) == (200, "", b"")
    assert (await service.ask("GET", url, headers={"Range": "bytes=0-"}))[0] == 416
    assert (await service.ask("GET", url, headers={"Range": "bytes=-1"}))[0] == 416


@pytest.mark.parametrize("headers", [{}, {"Range": "bytes=0-99"}])
async def test_a_reader_is_answered_while_the_object_is_replaced(service: Service, headers):
    """It asked for no generation, so it gets one of them whole; never a refusal."""
    await service.put("hot", b"0" * 100)
    url = await service.sign("hot", READ)
    seen: set[bytes] = set()

    for turn in range(100):
        (status, reason, body), _ = await asyncio.gather(
            service.ask("GET", url, headers=headers),
            service.put("hot", b"%d" % (turn % 10) * 100),
        )
        assert (status, reason) == (206 if headers else 200, "")
        assert (len(body), len(set(body))) == (100, 1)
        seen.add(body)

    assert len(seen) > 1


async def test_a_file_that_was_lost_is_the_servers_fault(service: Service):
    """500, so that whoever watches answers sees it; 400 would blame the reader."""
    await service.put("x", b"data")
    url = await service.sign("x", READ)
    for file in (service.folder / "objects" / "data").glob("*/*"):
        file.unlink()

    assert (await service.ask("GET", url))[:2] == (500, "FILE_LOST")


async def test_ordinary_clients_keep_the_address_as_it_was_signed(service: Service):
    """One that spells it in another way would be refused."""
    name = "in/Don't Stop! (5 + 1 = 6) [*&$,;@#?~^{|}<\">`%].wav"
    await service.put(name, b"data")
    url = await service.sign(name, READ)

    assert await service.ask("GET", url) == (200, "", b"data")

    def read() -> bytes:
        with urllib.request.urlopen(url, timeout=10) as response:  # noqa: S310 - our own
            return response.read()

    assert await asyncio.to_thread(read) == b"data"


async def test_an_object_is_written_once_by_its_url(service: Service):
    """With its type, its checksum, and no second time: another generation is there then."""
    url = await service.sign("in/a.flac", WRITE, content_type="audio/flac")
    crc = base64.b64encode(google_crc32c.value(b"data").to_bytes(4, "big")).decode()
    headers = {"Content-Type": "audio/flac", "X-Goog-Hash": f"crc32c={crc}"}

    first = await service.ask("PUT", url, data=b"data", headers=headers)
    again = await service.ask("PUT", url, data=b"evil", headers={"Content-Type": "audio/flac"})

    stat = await service.stubs.storage.StatObject(
        storage_pb2.StatObjectRequest(object_name="in/a.flac")
    )
    assert first[0] == 200
    assert again[:2] == (412, "GENERATION")
    assert (stat.object.size_bytes, stat.object.content_type) == (4, "audio/flac")


@pytest.mark.parametrize(
    ("options", "status", "reason"),
    [
        ({"data": b"12345", "headers": {"Content-Type": "a/b"}}, 413, "OBJECT_TOO_LARGE"),
        ({"data": b"1", "headers": {"Content-Type": "text/html"}}, 415, "CONTENT_TYPE"),
        (
            {"data": b"1", "headers": {"Content-Type": "a/b", "X-Goog-Hash": "crc32c=AAAAAA=="}},
            400,
            "CHECKSUM",
        ),
        (
            {"data": b"1", "headers": {"Content-Type": "a/b", "X-Goog-Hash": "crc32c=?"}},
            400,
            "CHECKSUM",
        ),
        (
            {"data": b"1", "headers": {"Content-Type": "a/b", "Content-Range": "bytes 1-1/2"}},
            400,
            "CONTENT_RANGE",
        ),
    ],
)
async def test_what_the_url_does_not_allow_is_not_written(
    service: Service, options, status, reason
):
    """Too much, another type, other bytes: nothing is visible and nothing is left."""
    url = await service.sign("x", WRITE, content_type="a/b", max_size_bytes=4)

    assert (await service.ask("PUT", url, **options))[:2] == (status, reason)

    listed = await service.stubs.storage.ListObjects(storage_pb2.ListObjectsRequest())
    assert not listed.objects
    assert not list((service.folder / "objects" / "uploads").iterdir())


async def test_a_full_disk_is_said_and_leaves_nothing(
    service: Service, monkeypatch: pytest.MonkeyPatch
):
    """507, as over gRPC RESOURCE_EXHAUSTED, and the URL still works when there is room again."""
    url = await service.sign("x", WRITE)
    real = os.fsync

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    refused = await service.ask("PUT", url, data=b"data")
    monkeypatch.setattr(os, "fsync", real)

    assert refused[:2] == (507, "DISK_FULL")
    assert not list((service.folder / "objects" / "uploads").iterdir())
    assert (await service.ask("PUT", url, data=b"data"))[0] == 200


async def test_addresses_that_parsers_choke_on_are_refused(service: Service):
    """Before anything is signed, anybody may send anything."""
    host = service.address.encode()
    for target in (
        b"http://[x/objects/a?op=read&sig=1",
        b"//[/objects/a?sig=",
        b"/objects/a?kid=%ff&op=%zz&sig=\xc3\xa9",
        b"/objects/" + b"a" * 7000 + b"?sig=" + b"0" * 64,
        b"/objects/a?" + b"&" * 3000 + b"sig=1",
        b"/objects/%00?op=read&kid=x&expires=9&sig=" + b"0" * 64,
    ):
        assert await service.raw("GET", target, host) in (400, 403, 404)


async def test_a_body_without_a_length_is_refused(service: Service):
    """What has no length cannot be held to one before it is read."""
    url = await service.sign("x", WRITE)

    async def pieces():
        yield b"data"

    assert (await service.ask("PUT", url, data=pieces()))[:2] == (411, "LENGTH_MISSING")


async def test_a_url_that_has_expired_or_is_for_another_method_says_so(service: Service):
    """Who holds it may know why; nobody else learns anything."""
    await service.put("x", b"data")
    short = await service.sign("x", READ, expiry={"seconds": 1})
    url = await service.sign("x", READ)

    assert (await service.ask("PUT", url, data=b"evil"))[:2] == (405, "URL_METHOD")
    assert (await service.ask("DELETE", url))[0] == 405

    async def expired() -> bool:
        return (await service.ask("GET", short))[:2] == (403, "URL_EXPIRED")

    await eventually(expired)
    assert (await service.ask("GET", f"http://{service.address}/objects/"))[0] == 403
    assert (await service.ask("GET", f"http://{service.address}/objects/x"))[0] == 403


async def test_a_dropped_connection_leaves_no_object_and_no_bytes(service: Service):
    """In mid-body, at any byte."""
    url = urlsplit(await service.sign("x", WRITE))
    host, _, port = service.address.rpartition(":")
    for sent in (0, 1, 70_000):
        _, writer = await asyncio.open_connection(host, int(port))
        head = f"PUT {url.path}?{url.query} HTTP/1.1\r\nHost: {url.netloc}\r\n"
        writer.write(head.encode() + b"Content-Length: 90000\r\n\r\n" + bytes(sent))
        await writer.drain()
        writer.transport.abort()
    uploads = service.folder / "objects" / "uploads"

    async def cleared() -> bool:
        return not list(uploads.iterdir())

    await eventually(cleared)

    listed = await service.stubs.storage.ListObjects(storage_pb2.ListObjectsRequest())
    assert not listed.objects


async def test_a_url_lives_as_long_as_its_key(service: Service):
    """Rotation: older keys verify while they are kept, and not a moment longer."""
    await service.put("x", b"data")
    keys = SigningKeys(service.folder / "signing.keys")
    first = await service.sign("x", READ)

    keys.rotate(keep=1)
    second = await service.sign("x", READ)
    kept = (await service.ask("GET", first))[0], (await service.ask("GET", second))[0]
    keys.rotate(keep=0)

    assert kept == (200, 200)
    assert (await service.ask("GET", first))[:2] == (403, "URL_SIGNATURE")
    assert (await service.ask("GET", second))[:2] == (403, "URL_SIGNATURE")
    assert (service.folder / "signing.keys").stat().st_mode & 0o077 == 0


def mutations(text: bytes) -> list[bytes]:
    """Every text that differs from this one in one byte, three ways a byte: a bit flipped, another
    of the same alphabet, and one that parsers might take for the same."""
    rng = random.Random(7)
    found = []
    for at, byte in enumerate(text):
        others = {byte ^ 1, byte ^ 0x20, rng.choice(b"0123456789abcdefABCDEF%/?&=+-._~ ")}
        found += [text[:at] + bytes([other]) + text[at + 1 :] for other in others - {byte}]
    return found


@pytest.mark.parametrize("operation", [READ, WRITE])
async def test_no_byte_of_a_signed_url_can_be_changed(service: Service, operation: int):
    """Host, path and query, both methods, sent as they are: not one is let in."""
    await service.put("in/a+b ü.flac", b"data")
    fields: Mapping[str, object] = {"content_type": "audio/flac"} if operation == WRITE else {}
    url = urlsplit(await service.sign("in/a+b ü.flac", operation, **fields))
    target, host = f"{url.path}?{url.query}".encode(), url.netloc.encode()
    method, body = ("PUT", b"evil") if operation == WRITE else ("GET", b"")

    let_in = [
        (changed, status)
        for changed in mutations(target)
        if (status := await service.raw(method, changed, host, body)) < 400
    ]
    let_in += [
        (changed, status)
        for changed in mutations(host)
        if (status := await service.raw(method, target, changed, body)) < 400
    ]

    assert let_in == []
    async with service.http.get(await service.sign("in/a+b ü.flac", READ)) as response:
        assert await response.read() == b"data"
    if operation == READ:
        assert await service.raw(method, target, host) == 200


async def test_extra_and_doubled_parameters_are_refused(service: Service):
    """What was not signed is not there: nothing may be appended, put before, or left out."""
    await service.put("x", b"data")
    url = await service.sign("x", READ)
    head, _, signature = url.rpartition("&sig=")

    for forged in (
        url + "&op=write",
        url + "&expires=99999999999",
        url + "#x",
        f"{head}&expires=99999999999&sig={signature}",
        f"{head}&sig={signature}&sig={signature}",
        f"{head}&sig=",
        head,
        url.replace("/objects/x", "/objects/%78"),
        url.replace("/objects/", "/objects//"),
        url.replace("/objects/", "/objects/./"),
    ):
        target = forged.partition(service.address)[2].encode()
        assert await service.raw("GET", target, service.address.encode()) in (400, 403, 404)
