"""Uploads to a real server that is killed in the middle of them, and cut lines, many times."""

import asyncio
import hashlib
import os
import random
from collections.abc import AsyncIterator
from pathlib import Path

import google_crc32c
import grpc
from liner.v1 import storage_pb2
from support.server import Stubs, connected, server_process

CHUNK = 16 << 10
KILLS = int(os.environ.get("STORAGE_KILLS", "6"))


async def frames(
    name: str, data: bytes, upload_id: str, offset: int
) -> AsyncIterator[storage_pb2.UploadRequest]:
    """Yield an upload's frames from an offset on, giving way to others in between."""
    spec = storage_pb2.UploadSpec(object_name=name, upload_id=upload_id)
    yield storage_pb2.UploadRequest(spec=spec)
    for at in range(offset, len(data), CHUNK):
        part = data[at : at + CHUNK]
        chunk = storage_pb2.Chunk(offset=at, data=part, crc32c=google_crc32c.value(part))
        yield storage_pb2.UploadRequest(chunk=chunk)
        await asyncio.sleep(0)
    yield storage_pb2.UploadRequest(finish=storage_pb2.UploadFinish())


async def kept(stubs: Stubs, upload_id: str) -> storage_pb2.QueryUploadResponse:
    """Return what the server has of an upload."""
    try:
        query = storage_pb2.QueryUploadRequest(upload_id=upload_id)
        return await stubs.storage.QueryUpload(query)
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.NOT_FOUND:
            raise
        return storage_pb2.QueryUploadResponse()


async def test_a_killed_server_has_whole_objects_or_none_and_no_stray_bytes(tmp_path: Path):
    """kill -9 at random moments of four uploads: two are resumed after each, two are not."""
    rng = random.Random(21)
    data = {f"{kind}-{n}": rng.randbytes(3 << 20) for kind in ("id", "no") for n in range(2)}
    done: set[str] = set()
    for _ in range(KILLS):
        async with server_process(tmp_path) as server, connected(server.grpc_address) as stubs:
            listed = await stubs.storage.ListObjects(storage_pb2.ListObjectsRequest())
            for one in listed.objects:
                digest = hashlib.sha256(data[one.object_name]).hexdigest()
                assert one.sha256 == digest
            assert done <= {one.object_name for one in listed.objects}
            parts = list((tmp_path / "objects" / "uploads").iterdir())
            assert len(parts) <= 2, "only what has an id is kept over a start"

            async def send(name: str, stubs: Stubs = stubs) -> None:
                upload_id = name if name.startswith("id") else ""
                known = await kept(stubs, upload_id) if upload_id else None
                if known is not None and known.HasField("object"):
                    done.add(name)
                    return
                offset = known.persisted_size if known is not None else 0
                call = stubs.storage.Upload(frames(name, data[name], upload_id, offset))
                await call
                done.add(name)

            tasks = [asyncio.create_task(send(name)) for name in sorted(set(data) - done)]
            if not tasks:
                break
            await asyncio.wait(tasks, timeout=rng.uniform(0.005, 0.2))
            server.process.kill()
            await server.process.wait()
            await asyncio.gather(*tasks, return_exceptions=True)
    async with server_process(tmp_path) as server, connected(server.grpc_address) as stubs:
        for name in sorted(set(data) - done):
            upload_id = name if name.startswith("id") else ""
            known = await kept(stubs, upload_id or "none")
            if not known.HasField("object"):
                await stubs.storage.Upload(
                    frames(name, data[name], upload_id, known.persisted_size)
                )
        listed = await stubs.storage.ListObjects(storage_pb2.ListObjectsRequest())

    assert {o.object_name: o.sha256 for o in listed.objects} == {
        name: hashlib.sha256(content).hexdigest() for name, content in data.items()
    }
    assert not list((tmp_path / "objects" / "uploads").iterdir())
    files = [p for p in (tmp_path / "objects" / "data").rglob("*") if p.is_file()]
    assert len(files) == len(data)
