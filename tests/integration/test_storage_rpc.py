"""StorageService over a real channel: frames, checksums, resuming, pages, bad input."""

import asyncio
import hashlib
import os
import time
from collections.abc import Iterable

import google_crc32c
import grpc
import pytest
from liner.v1 import storage_pb2
from support.grpc_errors import fails
from support.server import Stubs

INVALID = grpc.StatusCode.INVALID_ARGUMENT
Request = storage_pb2.UploadRequest


def spec(name: str = "x", **fields: object) -> Request:
    """Return an upload's first frame."""
    return Request(spec=storage_pb2.UploadSpec(object_name=name, **fields))


def chunk(offset: int, data: bytes, crc32c: int | None = None) -> Request:
    """Return a frame of bytes, checked unless the test breaks the checksum."""
    crc = google_crc32c.value(data) if crc32c is None else crc32c
    return Request(chunk=storage_pb2.Chunk(offset=offset, data=data, crc32c=crc))


def finish(**fields: object) -> Request:
    """Return an upload's last frame."""
    return Request(finish=storage_pb2.UploadFinish(**fields))


async def upload(stubs: Stubs, *frames: Request) -> storage_pb2.StoredObject:
    """Send an upload and return the stored object."""
    return (await stubs.storage.Upload(iter(frames))).object


async def download(stubs: Stubs, name: str, **fields: object) -> bytes:
    """Receive an object, checking what the frames promise."""
    data, responses = b"", []
    async for response in stubs.storage.Download(
        storage_pb2.DownloadRequest(object_name=name, **fields)
    ):
        responses.append(response)
        if response.HasField("chunk"):
            assert response.chunk.offset == len(data) + int(fields.get("offset", 0))
            assert response.chunk.crc32c == google_crc32c.value(response.chunk.data)
            data += response.chunk.data
    assert responses[0].object.object_name == name
    assert responses[-1].finish.crc32c == google_crc32c.value(data)
    assert responses[-1].finish.size_bytes == len(data)
    return data


async def test_an_object_goes_in_and_comes_out(stubs: Stubs):
    """Upload, stat, list, download whole and in part, delete."""
    data = os.urandom(3_000_000)
    frames = [chunk(at, data[at : at + (1 << 20)]) for at in range(0, len(data), 1 << 20)]

    stored = await upload(
        stubs,
        spec("in/a.flac", content_type="audio/flac", size_bytes=len(data)),
        *frames,
        finish(crc32c=google_crc32c.value(data), sha256=hashlib.sha256(data).hexdigest()),
    )

    stat = await stubs.storage.StatObject(storage_pb2.StatObjectRequest(object_name="in/a.flac"))
    assert stat.object == stored
    assert await download(stubs, "in/a.flac") == data
    assert await download(stubs, "in/a.flac", offset=7, length=99) == data[7:106]
    await stubs.storage.Delete(storage_pb2.DeleteRequest(object_name="in/a.flac"))
    async with fails(grpc.StatusCode.NOT_FOUND) as failure:
        await download(stubs, "in/a.flac")
    assert failure.reason == "OBJECT_NOT_FOUND"


BROKEN: list[tuple[str, list[Request], grpc.StatusCode, str]] = [
    ("nothing at all", [], INVALID, "SPEC_FIRST"),
    ("bytes before the spec", [chunk(0, b"a")], INVALID, "SPEC_FIRST"),
    ("two specs", [spec(), spec()], INVALID, "SPEC_TWICE"),
    ("an empty frame", [spec(), Request()], INVALID, "REQUIRED"),
    ("no finish", [spec(), chunk(0, b"a")], INVALID, "FINISH_MISSING"),
    ("a gap", [spec(), chunk(0, b"a"), chunk(2, b"b")], INVALID, "CHUNK_OUT_OF_ORDER"),
    ("twice the same", [spec(), chunk(0, b"a"), chunk(0, b"a")], INVALID, "CHUNK_OUT_OF_ORDER"),
    ("too large a chunk", [spec(), chunk(0, bytes((1 << 20) + 1))], INVALID, "CHUNK_TOO_LARGE"),
    ("a bad name", [spec("../x"), finish()], INVALID, "OBJECT_NAME"),
    ("a bad upload id", [spec(upload_id="a b"), finish()], INVALID, "UPLOAD_ID_FORMAT"),
    ("a negative size", [spec(size_bytes=-1), finish()], INVALID, "NUMBER_RANGE"),
    ("too much metadata", [spec(metadata={"k": "v" * 9000})], INVALID, "METADATA_TOO_LARGE"),
    ("a hidden line", [spec(metadata={"k": "a\r\nb"})], INVALID, "CONTROL_CHARACTER"),
    ("a forged digest", [spec(metadata={"Liner-sha256": "0"})], INVALID, "METADATA_RESERVED"),
    ("a line in an id", [spec(upload_id="a\n"), finish()], INVALID, "UPLOAD_ID_FORMAT"),
    ("a long request id", [spec(request_id="r" * 129)], INVALID, "TEXT_TOO_LONG"),
    ("a broken time", [spec(custom_time={"nanos": -1})], INVALID, "TIME_RANGE"),
    ("no digest", [spec(), finish(sha256="abc")], INVALID, "SHA256_FORMAT"),
    ("too many bytes", [spec(size_bytes=1), chunk(0, b"ab")], INVALID, "SIZE_MISMATCH"),
    (
        "far too large",
        [spec(size_bytes=1 << 40)],
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "OBJECT_TOO_LARGE",
    ),
    ("another size", [spec(size_bytes=2), chunk(0, b"a"), finish()], INVALID, "SIZE_MISMATCH"),
    ("a bad chunk", [spec(), chunk(0, b"a", 1)], grpc.StatusCode.DATA_LOSS, "CHECKSUM"),
    (
        "a bad whole",
        [spec(), chunk(0, b"a"), finish(crc32c=1)],
        grpc.StatusCode.DATA_LOSS,
        "CHECKSUM",
    ),
    (
        "a stale generation",
        [spec(if_generation_match=5), chunk(0, b"a"), finish()],
        grpc.StatusCode.ABORTED,
        "GENERATION",
    ),
]


@pytest.mark.parametrize(
    ("frames", "code", "reason"), [b[1:] for b in BROKEN], ids=[b[0] for b in BROKEN]
)
async def test_a_broken_upload_is_refused_and_leaves_nothing(stubs: Stubs, frames, code, reason):
    """A precise status, and no object that anyone could take for a whole one."""
    async with fails(code) as failure:
        await upload(stubs, *frames)

    listed = await stubs.storage.ListObjects(storage_pb2.ListObjectsRequest())
    assert reason in (failure.reason, *failure.violations.values())
    assert not listed.objects


async def persisted(stubs: Stubs, upload_id: str) -> int:
    """Return how much of an upload is kept; 0 when nothing is known of it."""
    try:
        query = storage_pb2.QueryUploadRequest(upload_id=upload_id)
        return (await stubs.storage.QueryUpload(query)).persisted_size
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.NOT_FOUND:
            raise
        return 0


async def _broken_off(frames: Iterable[Request]):
    for frame in frames:
        yield frame
    raise ConnectionError("the line went dead")


@pytest.mark.parametrize("cut", range(0, 10, 3))
async def test_an_upload_that_broke_off_is_resumed(stubs: Stubs, cut: int):
    """From the persisted size on, whatever the moment; at most one chunk is sent twice."""
    data = os.urandom(10_000)
    name, upload_id = f"cut-{cut}", f"u{cut}"
    frames = [spec(name, upload_id=upload_id)]
    frames += [chunk(n * 1000, data[n * 1000 : (n + 1) * 1000]) for n in range(cut)]
    with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
        await stubs.storage.Upload(_broken_off(frames))

    # The server may still be about to notice that the line is dead.
    stored, kept = None, 0
    while stored is None:
        kept = await persisted(stubs, upload_id)
        rest = [spec(name, upload_id=upload_id), chunk(kept, data[kept:]), finish()]
        try:
            stored = await upload(stubs, *rest)
        except grpc.aio.AioRpcError as error:
            if error.code() not in (grpc.StatusCode.ABORTED, INVALID):
                raise

    assert kept % 1000 == 0
    assert kept <= cut * 1000
    assert stored.sha256 == hashlib.sha256(data).hexdigest()


async def test_pages_tell_where_the_next_begins(stubs: Stubs):
    """AIP-158: sizes are wishes, tokens are opaque and belong to their prefix."""
    for n in range(7):
        await upload(stubs, spec(f"p/{n}"), finish())

    names, token = [], ""
    while True:
        page = await stubs.storage.ListObjects(
            storage_pb2.ListObjectsRequest(prefix="p/", page_size=3, page_token=token)
        )
        names += [o.object_name for o in page.objects]
        token = page.next_page_token
        if not token:
            break
        last = token

    assert names == [f"p/{n}" for n in range(7)]
    for bad in ("rubbish", "é", last):
        async with fails(INVALID) as failure:
            await stubs.storage.ListObjects(
                storage_pb2.ListObjectsRequest(prefix="other/", page_token=bad)
            )
        assert failure.violations == {"page_token": "PAGE_TOKEN"}


async def test_a_page_fits_into_a_message_whatever_the_objects_carry(stubs: Stubs):
    """A thousand objects with all the pairs they may have are more than gRPC lets through."""
    heavy = {"k": "v" * 8000}
    for n in range(420):
        await upload(stubs, spec(f"p/{n:03}", metadata=heavy), finish())

    first = await stubs.storage.ListObjects(storage_pb2.ListObjectsRequest(page_size=1000))
    rest = await stubs.storage.ListObjects(
        storage_pb2.ListObjectsRequest(page_size=1000, page_token=first.next_page_token)
    )

    names = [o.object_name for page in (first, rest) for o in page.objects]
    assert first.ByteSize() < 4 << 20
    assert names == [f"p/{n:03}" for n in range(420)]
    assert not rest.next_page_token


SIGNING: list[tuple[str, dict[str, object], grpc.StatusCode, str]] = [
    ("no operation", {"operation": 0}, INVALID, "ENUM_UNKNOWN"),
    ("an unknown operation", {"operation": 9}, INVALID, "ENUM_UNKNOWN"),
    ("a bad name", {"object_name": "../x"}, INVALID, "OBJECT_NAME"),
    ("over 7 days", {"expiry": {"seconds": 604_801}}, INVALID, "DURATION_RANGE"),
    ("no time at all", {"expiry": {}}, INVALID, "DURATION_RANGE"),
    ("a time before now", {"expiry": {"seconds": -5}}, INVALID, "DURATION_RANGE"),
    ("a negative size", {"operation": 2, "max_size_bytes": -1}, INVALID, "NUMBER_RANGE"),
    ("a hidden header", {"operation": 2, "content_type": "a\r\nb"}, INVALID, "CONTROL_CHARACTER"),
    ("nothing to read", {}, grpc.StatusCode.NOT_FOUND, "OBJECT_NOT_FOUND"),
    (
        "a stale generation",
        {"operation": 2, "if_generation_match": 5},
        grpc.StatusCode.ABORTED,
        "GENERATION",
    ),
]


@pytest.mark.parametrize(
    ("fields", "code", "reason"), [s[1:] for s in SIGNING], ids=[s[0] for s in SIGNING]
)
async def test_what_cannot_be_signed_is_refused(stubs: Stubs, fields, code, reason):
    """A URL that could never work, or work too long, is not handed out."""
    request = {"object_name": "x", "operation": 1} | fields

    async with fails(code) as failure:
        await stubs.storage.GetSignedURL(storage_pb2.GetSignedURLRequest(**request))

    assert reason in (failure.reason, *failure.violations.values())


async def test_a_signed_url_holds_for_a_quarter_of_an_hour_unless_said_otherwise(stubs: Stubs):
    """As the contract promises."""
    await upload(stubs, spec("x"), finish())
    request = storage_pb2.GetSignedURLRequest(
        object_name="x", operation=storage_pb2.SIGNED_URL_OPERATION_READ
    )

    response = await stubs.storage.GetSignedURL(request)

    assert response.expire_time.seconds == pytest.approx(time.time() + 900, abs=5)
