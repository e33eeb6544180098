"""What every object store promises, run on every backend."""

import asyncio
import hashlib
import os
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import google_crc32c
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from liner.v1 import storage_pb2
from liner_server.errors import (
    ConflictError,
    DataLossError,
    InvalidRequestError,
    NotFoundError,
    OutOfRangeError,
    ResourceExhaustedError,
)
from liner_server.objects.local import LocalObjectStore
from liner_server.objects.signing import SigningKeys, UrlSigner
from liner_server.ports import ObjectStore
from support.fake_gcs import shared_gcs
from support.google_keys import service_account

Open = Callable[[Path], AbstractAsyncContextManager[ObjectStore]]
LIMIT = 1 << 20


def local(folder: Path) -> AbstractAsyncContextManager[ObjectStore]:
    """Open the local backend."""
    signer = UrlSigner(SigningKeys(folder / "signing.keys"))
    signer.base_url = "http://127.0.0.1:9090"
    return LocalObjectStore(folder, max_object_bytes=LIMIT, signer=signer)


def gcs(folder: Path) -> AbstractAsyncContextManager[ObjectStore]:
    """Open the backend on Cloud Storage; the folder remembers its bucket."""
    fake = shared_gcs()
    folder.mkdir(parents=True, exist_ok=True)
    known = folder / "bucket"
    if not known.exists():
        known.write_text(fake.new_bucket())
    store = fake.store(known.read_text(), folder / "scratch", max_object_bytes=LIMIT)
    store.bucket.credentials = service_account()
    return store


BACKENDS: dict[str, Open] = {"local": local, "gcs": gcs}


@pytest.fixture(params=BACKENDS)
def open_store(request: pytest.FixtureRequest) -> Open:
    """How to open the backend under test; twice on one folder is a restart."""
    return BACKENDS[request.param]


@pytest.fixture
async def store(open_store: Open, tmp_path: Path) -> AsyncIterator[ObjectStore]:
    """The backend under test, empty."""
    async with open_store(tmp_path / "objects") as store:
        yield store


async def put(
    store: ObjectStore,
    name: str,
    data: bytes,
    finish: storage_pb2.UploadFinish | None = None,
    **spec: object,
) -> storage_pb2.StoredObject:
    """Store an object in one go."""
    async with store.upload(storage_pb2.UploadSpec(object_name=name, **spec)) as upload:
        for at in range(0, len(data), 1000):
            await upload.append(data[at : at + 1000])
        return await upload.commit(finish or storage_pb2.UploadFinish())


async def get(store: ObjectStore, name: str, **options: int) -> bytes:
    """Read an object, or a part of it."""
    async with store.read(name, **options) as (_, chunks):
        return b"".join([chunk async for chunk in chunks])


async def test_what_is_stored_comes_back_with_its_facts(store):
    """Bytes, size, both checksums, type, pairs, and a generation."""
    data = os.urandom(5000)

    stored = await put(store, "a/b.flac", data, content_type="audio/flac", metadata={"tier": "pro"})

    assert await get(store, "a/b.flac") == data
    assert await store.stat("a/b.flac") == stored
    assert stored.size_bytes == 5000
    assert stored.crc32c == google_crc32c.value(data)
    assert stored.sha256 == hashlib.sha256(data).hexdigest()
    assert (stored.content_type, dict(stored.metadata)) == ("audio/flac", {"tier": "pro"})
    assert stored.generation > 0
    assert stored.HasField("create_time")


async def test_an_empty_object_is_an_object(store):
    """Whether an empty file is of use is not the store's to say."""
    await put(store, "empty", b"")

    assert await get(store, "empty") == b""


async def opened(store: ObjectStore, name: str) -> None:
    """Open an object as a local file, and no more."""
    async with store.local_file(name):
        pass


@pytest.mark.parametrize(
    "act",
    [
        lambda s: s.stat("no"),
        lambda s: get(s, "no"),
        lambda s: s.delete("no"),
        lambda s: opened(s, "no"),
    ],
)
async def test_what_is_not_there_is_not_found(store, act):
    """The same error from every door."""
    with pytest.raises(NotFoundError):
        await act(store)


async def test_an_upload_is_invisible_until_it_is_committed(store):
    """Readers see a whole object or none; leaving without a commit leaves nothing."""
    async with store.upload(storage_pb2.UploadSpec(object_name="x")) as upload:
        await upload.append(b"half")
        with pytest.raises(NotFoundError):
            await store.stat("x")

    with pytest.raises(NotFoundError):
        await store.stat("x")


async def test_generations_grow_and_preconditions_hold(store):
    """Two writers who both saw "nothing there" cannot both win."""
    first = await put(store, "x", b"1", if_generation_match=0)
    with pytest.raises(ConflictError):
        await put(store, "x", b"2", if_generation_match=0)
    second = await put(store, "x", b"2", if_generation_match=first.generation)
    with pytest.raises(ConflictError):
        await store.delete("x", if_generation_match=first.generation)
    with pytest.raises(ConflictError):
        await get(store, "x", if_generation_match=first.generation)

    assert second.generation > first.generation
    assert await get(store, "x") == b"2"
    await store.delete("x", if_generation_match=second.generation)
    third = await put(store, "x", b"3", if_generation_match=0)
    assert third.generation > second.generation


async def test_of_many_that_create_one_name_one_wins(store):
    """The race that content-addressed uploads run every night."""
    outcomes = await asyncio.gather(
        *(put(store, "x", b"%d" % n, if_generation_match=0) for n in range(8)),
        return_exceptions=True,
    )

    won = [o for o in outcomes if isinstance(o, storage_pb2.StoredObject)]
    assert len(won) == 1
    assert sum(isinstance(o, ConflictError) for o in outcomes) == 7
    assert await store.stat("x") == won[0]


async def test_a_reader_keeps_what_it_began_with(store):
    """Listening to an object that is deleted or replaced meanwhile ends well."""
    await put(store, "x", b"a" * 5000)

    async with store.read("x", chunk_bytes=1000) as (_, chunks), store.local_file("x") as path:
        first = await anext(chunks)
        await put(store, "x", b"b" * 5000)
        await store.delete("x")
        rest = b"".join([chunk async for chunk in chunks])
        heard = path.read_bytes()

    assert first + rest == heard == b"a" * 5000
    with pytest.raises(NotFoundError):
        await store.stat("x")


@pytest.mark.parametrize(
    ("offset", "length", "part"),
    [(0, 0, b"0123456789"), (3, 4, b"3456"), (9, 1, b"9"), (10, 0, b""), (4, 0, b"456789")],
)
async def test_a_range_is_read_exactly(store, offset, length, part):
    """A player asks for the middle of a file."""
    await put(store, "x", b"0123456789")

    assert await get(store, "x", offset=offset, length=length, chunk_bytes=3) == part


@pytest.mark.parametrize(("offset", "length"), [(11, 0), (5, 6), (0, 11)])
async def test_a_range_outside_is_refused(store, offset, length):
    """Fewer bytes than asked for would look like success."""
    await put(store, "x", b"0123456789")

    with pytest.raises(OutOfRangeError):
        await get(store, "x", offset=offset, length=length)


async def test_names_are_listed_in_byte_order_a_part_at_a_time(store):
    """What paging stands on: order, prefix, and "behind this name"."""
    names = ["a/1", "a/10", "a/2", "a/é", "ab", "b"]
    for name in reversed(names):
        await put(store, name, b"x")

    async def listed(prefix: str, **options: object) -> list[str]:
        return [o.object_name for o in await store.list(prefix, **options)]

    assert await listed("") == sorted(names, key=str.encode)
    assert await listed("a/", limit=2) == ["a/1", "a/10"]
    assert await listed("a/", after="a/10") == ["a/2", "a/é"]
    assert await listed("nothing") == []


async def test_names_that_differ_are_different_objects(store):
    """Case and lookalike folders never collide, on any disk."""
    for name in ("Song", "song", "song/a", "SONG/a"):
        await put(store, name, name.encode())

    for name in ("Song", "song", "song/a", "SONG/a"):
        assert await get(store, name) == name.encode()


async def test_wrong_bytes_are_not_stored(store):
    """Checksums and sizes that the caller knows are held against what came."""
    for finish, spec, error in [
        (storage_pb2.UploadFinish(crc32c=1), {}, DataLossError),
        (storage_pb2.UploadFinish(sha256="0" * 64), {}, DataLossError),
        (storage_pb2.UploadFinish(), {"size_bytes": 4}, InvalidRequestError),
    ]:
        with pytest.raises(error):
            await put(store, "x", b"hello", finish, **spec)
        with pytest.raises(NotFoundError):
            await store.stat("x")


async def test_an_object_over_the_limit_is_refused(store):
    """One caller cannot fill the disk with one object."""
    with pytest.raises(ResourceExhaustedError) as error:
        await put(store, "x", bytes(LIMIT + 1))

    assert error.value.reason == "OBJECT_TOO_LARGE"


async def test_a_broken_upload_goes_on_where_it_was(open_store, tmp_path):
    """A restart in between included: the same bytes, the same digest."""
    data = os.urandom(9000)
    spec = storage_pb2.UploadSpec(object_name="x", upload_id="night-1")
    async with open_store(tmp_path) as store, store.upload(spec) as upload:
        await upload.append(data[:4000])
    async with open_store(tmp_path) as store:
        kept = await store.query_upload("night-1")
        async with store.upload(spec) as upload:
            assert upload.offset == kept.persisted_size == 4000
            await upload.append(data[4000:])
            stored = await upload.commit(storage_pb2.UploadFinish())
        after = await store.query_upload("night-1")

        assert stored.sha256 == hashlib.sha256(data).hexdigest()
        assert await get(store, "x") == data
    assert after.object == stored


async def test_an_upload_belongs_to_one_stream_and_one_name(store):
    """Two streams into one part file would weave their bytes together."""
    spec = storage_pb2.UploadSpec(object_name="x", upload_id="u")
    other = storage_pb2.UploadSpec(object_name="y", upload_id="u")

    async with store.upload(spec) as upload:
        await upload.append(b"a")
        with pytest.raises(ConflictError):
            async with store.upload(spec):
                pass
    with pytest.raises(InvalidRequestError):
        async with store.upload(other):
            pass
    with pytest.raises(NotFoundError):
        await store.query_upload("unknown")


async def test_objects_survive_a_restart(open_store, tmp_path):
    """Durable when the call returned."""
    async with open_store(tmp_path) as store:
        stored = await put(store, "x", b"data")
    async with open_store(tmp_path) as store:
        assert await store.stat("x") == stored
        assert await get(store, "x") == b"data"


async def test_pairs_and_times_of_the_callers_own_are_kept(store):
    """Retention counts from the custom time; a list tells both too."""
    metadata = {"tier": "free", "Mixed-Case": "ü"}

    stored = await put(
        store, "x", b"data", metadata=metadata, custom_time={"seconds": 1_577_836_800}
    )

    assert stored == await store.stat("x")
    assert list(await store.list("x")) == [stored]
    assert dict(stored.metadata) == metadata
    assert stored.custom_time.seconds == 1_577_836_800


async def test_what_was_judged_is_deleted_and_nothing_else(store):
    """Of two clean-ups each object is deleted by one; what was replaced meanwhile stays."""
    old = [await put(store, name, b"old") for name in ("a", "b", "c")]
    fresh = await put(store, "b", b"new")
    await store.delete("c")

    first, second = await asyncio.gather(store.delete_all(old), store.delete_all(old))

    assert [one.object_name for one in (*first, *second)] == ["a"]
    assert list(await store.list("")) == [fresh]
    assert await store.delete_all([]) == []


async def test_only_uploads_whose_day_is_over_are_dropped(store):
    """What may still be resumed stays, and so does what is open."""
    spec = storage_pb2.UploadSpec(object_name="x", upload_id="u")
    async with store.upload(spec) as upload:
        await upload.append(b"half")

    assert await store.drop_uploads() == 0

    assert (await store.query_upload("u")).persisted_size == 4


def signing(
    name: str, *, writes: bool = False, **fields: object
) -> storage_pb2.GetSignedURLRequest:
    """Return a request for a URL that is good for a minute."""
    operation = (
        storage_pb2.SIGNED_URL_OPERATION_WRITE if writes else storage_pb2.SIGNED_URL_OPERATION_READ
    )
    return storage_pb2.GetSignedURLRequest(
        object_name=name, operation=operation, expiry={"seconds": 60}, **fields
    )


async def test_a_url_is_signed_for_what_is_there(store):
    """Reading needs an object; writing needs the generation that the caller states."""
    stored = await put(store, "x", b"data")

    read = await store.signed_url(signing("x"))
    write = await store.signed_url(signing("new", writes=True, content_type="audio/flac"))

    assert read.url.startswith("http://127.0.0.1:")
    assert write.headers["Content-Type"] == "audio/flac"
    assert read.expire_time.seconds == pytest.approx(time.time() + 60, abs=5)
    with pytest.raises(NotFoundError):
        await store.signed_url(signing("nothing"))
    with pytest.raises(ConflictError):
        await store.signed_url(signing("x", writes=True, if_generation_match=0))
    assert (
        await store.signed_url(signing("x", writes=True, if_generation_match=stored.generation))
    ).url


_names = st.sampled_from(["a", "b", "a/b"])
_steps = st.one_of(
    st.tuples(st.just("put"), _names, st.binary(max_size=40), st.sampled_from([None, 0, "own"])),
    st.tuples(st.just("delete"), _names, st.just(b""), st.none()),
    st.tuples(st.just("restart"), st.just(""), st.just(b""), st.none()),
)


@settings(max_examples=25)
@given(steps=st.lists(_steps, max_size=12))
@pytest.mark.parametrize("backend", BACKENDS)
def test_any_sequence_of_calls_behaves_like_a_dict(backend, steps):
    """The store against the simplest model of it, restarts included."""

    async def run(folder: Path) -> None:
        model: dict[str, tuple[bytes, int]] = {}
        context = BACKENDS[backend](folder)
        store = await context.__aenter__()
        for step, name, data, expected in steps:
            if step == "restart":
                await context.__aexit__(None, None, None)
                context = BACKENDS[backend](folder)
                store = await context.__aenter__()
            elif step == "put":
                spec = {}
                if expected is not None:
                    held = model[name][1] if name in model else 0
                    spec = {"if_generation_match": held if expected == "own" else 0}
                try:
                    stored = await put(store, name, data, **spec)
                except ConflictError:
                    assert spec["if_generation_match"] != (model[name][1] if name in model else 0)
                else:
                    model[name] = (data, stored.generation)
            elif name in model:
                await store.delete(name)
                del model[name]
            else:
                with pytest.raises(NotFoundError):
                    await store.delete(name)
            assert [o.object_name for o in await store.list("")] == sorted(model)
            for held, (content, _) in model.items():
                assert await get(store, held) == content
        await context.__aexit__(None, None, None)

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run(Path(folder)))
