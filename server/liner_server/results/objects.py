"""Results in an object store: one object a record, and empty objects whose names are the indexes.

    results/records/ab/ID                           the record, and which request ids reviewed it
    results/newest/AGE/ID                           every record, newest first
    results/review/TODO/CONFIDENCE/AGE/ID           every record that is DONE, in review order
    results/answers/ab/KEY                          an answer that may be given again

ID and KEY are in hex, numbers have leading zeros: names are in the order of the index. A record
is written with the generation that was read, so of two writers one begins anew. Its index
entries are written before it and taken away after it, and an entry counts only if the record
says that it stands there: whatever a crash leaves, a list has every record once.
"""

import asyncio
import contextlib
import hashlib
import json
import math
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeAlias

from liner.v1 import enrichment_pb2, storage_pb2, track_pb2

from liner_server.core.enums import State
from liner_server.errors import ConflictError, NotFoundError, UnavailableError
from liner_server.ports import ObjectStore
from liner_server.results import records
from liner_server.results.pages import Listing, Page, Place, Ranks

_DONE = enrichment_pb2.ENRICHMENT_STATE_DONE
_UNFINISHED = (
    enrichment_pb2.ENRICHMENT_STATE_QUEUED,
    enrichment_pb2.ENRICHMENT_STATE_RUNNING,
)
_NAMES_AT_ONCE = 200
_READS_AT_ONCE = 16
_TRIES = 20
_IN_FLIGHT = timedelta(hours=1)
"""An index entry without its record may belong to a write under way for so long."""

_HEADER = 4

_Entries: TypeAlias = list[str]
_Records: TypeAlias = list[enrichment_pb2.Enrichment]


@dataclass(frozen=True, kw_only=True)
class _Stored:
    """A record as read, and what it takes to write the next one."""

    record: enrichment_pb2.Enrichment | None = None
    generation: int = 0
    reviews: Mapping[str, str] = field(default_factory=dict)
    """What the review of each request id said, as a digest."""


class ObjectResultStore:
    """The `ResultStore` in an `ObjectStore`, for any number of processes."""

    def __init__(
        self,
        objects: ObjectStore,
        *,
        prefix: str = "results/",
        now: Callable[[], float] = time.time,
    ) -> None:
        self._objects = objects
        self._prefix = prefix
        self._now = now

    async def put(self, enrichment: enrichment_pb2.Enrichment) -> bool:
        """Store a record unless its id is taken; see the port."""
        for attempt in range(_TRIES):
            stored = await self._again(attempt, enrichment.enrichment_id)
            record = records.to_store(enrichment, stored.record, self._micros())
            if record is None:
                return False
            if await self._replace(stored, record, stored.reviews):
                return True
        raise _busy()

    async def update_state(
        self, job_id: str, state: State, *, error: track_pb2.Error | None = None
    ) -> bool:
        """Say where a job stands; see the port."""
        for attempt in range(_TRIES):
            stored = await self._again(attempt, job_id)
            record = records.moved(stored.record, job_id, state, error, self._micros())
            if record is None:
                return False
            if await self._replace(stored, record, stored.reviews):
                return True
        raise _busy()

    async def get(self, enrichment_id: str) -> enrichment_pb2.Enrichment:
        """Return a record; see the port."""
        record = (await self._read(enrichment_id)).record
        if record is None:
            raise records.not_found(enrichment_id)
        return record

    async def list(
        self, request: enrichment_pb2.ListEnrichmentsRequest
    ) -> enrichment_pb2.ListEnrichmentsResponse:
        """Return a page of records; see the port."""
        listing = Listing.of(request)
        page = Page(listing)
        async with contextlib.aclosing(self._listed(listing)) as found:
            async for record in found:
                if not page.add(record):
                    break
        return page.response

    async def add_review(
        self, enrichment_id: str, review: enrichment_pb2.Review, *, request_id: str = ""
    ) -> enrichment_pb2.Enrichment:
        """Add an editor's judgement; see the port."""
        for attempt in range(_TRIES):
            stored = await self._again(attempt, enrichment_id)
            before = stored.reviews.get(request_id)
            if stored.record is not None and before is not None:
                records.check_repeated(bytes.fromhex(before), review, request_id)
                return stored.record
            record = records.reviewed(stored.record, enrichment_id, review)
            said = dict(stored.reviews)
            if request_id:
                said[request_id] = records.judgement(review).hex()
            if await self._replace(stored, record, said):
                return record
        raise _busy()

    async def delete_before(self, time: datetime) -> int:
        """Delete old records; see the port."""
        limit = Listing.age_of(time)
        deleted = 0
        # Ages grow along the index: all that is old is behind this name.
        start = f"{self._prefix}newest/{limit:019d}/~"
        async for entry in self._names(f"{self._prefix}newest/", after=start):
            stored = await self._read(_id_in(entry.object_name))
            record = stored.record
            if record is None or self._newest_entry(Ranks.of(record)) != entry.object_name:
                if self._is_settled(entry):
                    await self._drop(entry.object_name)
                continue
            if record.state in _UNFINISHED:
                continue
            # The newest-first entry goes last: it is what leads the next clean-up here.
            if record.state == _DONE:
                await self._drop(self._review_entry(Ranks.of(record)))
            try:
                await self._objects.delete(
                    self._record_name(record.enrichment_id), if_generation_match=stored.generation
                )
            except NotFoundError:
                pass
            except ConflictError:
                if record.state == _DONE:
                    # Somebody reviews it at this moment, so it is in use: next time.
                    await self._enter(self._review_entry(Ranks.of(record)))
                continue
            await self._drop(entry.object_name)
            deleted += 1
        await self._sweep(limit)
        return deleted

    async def find_answer(
        self, key: bytes, *, since: datetime
    ) -> enrichment_pb2.EnrichMetadataResponse | None:
        """Return a kept answer; see the port."""
        found = await self._bytes(self._answer_name(key))
        if found is None or records.micros(found[0].custom_time) < records.micros(since):
            return None
        return records.unpacked(enrichment_pb2.EnrichMetadataResponse, found[1])

    async def keep_answer(self, key: bytes, answer: enrichment_pb2.EnrichMetadataResponse) -> None:
        """Keep an answer; see the port."""
        spec = storage_pb2.UploadSpec(object_name=self._answer_name(key))
        spec.custom_time.CopyFrom(records.stamp(self._micros()))
        await self._write(spec, records.packed(answer))

    async def forget_answers_before(self, time: datetime) -> int:
        """Forget old answers; see the port."""
        forgotten = 0
        async for entry in self._names(f"{self._prefix}answers/"):
            if records.micros(entry.custom_time) >= records.micros(time):
                continue
            with contextlib.suppress(NotFoundError, ConflictError):
                await self._objects.delete(entry.object_name, if_generation_match=entry.generation)
                forgotten += 1
        return forgotten

    # Records.

    async def _again(self, attempt: int, enrichment_id: str) -> _Stored:
        """Read the record as it is now, a moment later each time another writer was quicker."""
        if attempt:
            await asyncio.sleep(random.random() * 0.01 * attempt)  # noqa: S311 - a wait
        return await self._read(enrichment_id)

    async def _read(self, enrichment_id: str) -> _Stored:
        found = await self._bytes(self._record_name(enrichment_id))
        if found is None:
            return _Stored()
        stored, data = found
        end = _HEADER + int.from_bytes(data[:_HEADER], "big")
        return _Stored(
            record=records.unpacked(enrichment_pb2.Enrichment, data[end:]),
            generation=stored.generation,
            reviews=json.loads(data[_HEADER:end] or b"{}"),
        )

    async def _replace(
        self, stored: _Stored, record: enrichment_pb2.Enrichment, reviews: Mapping[str, str]
    ) -> bool:
        """Write a record in place of what was read; False if that is no longer there."""
        ranks = Ranks.of(record)
        entries = {self._newest_entry(ranks)}
        if record.state == _DONE:
            entries.add(self._review_entry(ranks))
        old: set[str] = set()
        if stored.record is not None:
            before = Ranks.of(stored.record)
            old = {self._newest_entry(before)}
            if stored.record.state == _DONE:
                old.add(self._review_entry(before))
        for entry in entries - old:
            await self._enter(entry)
        header = json.dumps(reviews).encode() if reviews else b""
        data = len(header).to_bytes(_HEADER, "big") + header + records.packed(record)
        spec = storage_pb2.UploadSpec(
            object_name=self._record_name(record.enrichment_id),
            if_generation_match=stored.generation,
        )
        try:
            await self._write(spec, data)
        except ConflictError:
            return False
        for entry in old - entries:
            await self._drop(entry)
        return True

    # Indexes.

    async def _listed(self, listing: Listing) -> AsyncGenerator[enrichment_pb2.Enrichment, None]:
        """Yield the records that a listing wants, in its order."""
        prefix = f"{self._prefix}{'newest' if listing.newest_first else 'review'}/"
        after = ""
        if listing.after is not None:
            after = self._entry(listing.after)
        elif listing.newest_first and listing.least_age is not None:
            after = f"{prefix}{listing.least_age:019d}/~"
        if not listing.newest_first and listing.todo is not None:
            prefix += f"{listing.todo}/"
        most_age = math.inf if listing.most_age is None else listing.most_age
        batch: _Entries = []
        async for entry in self._names(prefix, after=after):
            if listing.newest_first and _age_in(entry.object_name) > most_age:
                # Ages grow along the index: what follows is older still.
                break
            batch.append(entry.object_name)
            if len(batch) == _READS_AT_ONCE:
                for record in await self._standing(batch, listing):
                    yield record
                batch.clear()
        for record in await self._standing(batch, listing):
            yield record

    async def _standing(self, entries: _Entries, listing: Listing) -> _Records:
        """Read the records of index entries; those that stand there and are wanted."""
        read = await asyncio.gather(*(self._read(_id_in(entry)) for entry in entries))
        found = []
        for entry, stored in zip(entries, read, strict=True):
            if stored.record is None or stored.record.state != _DONE:
                continue
            ranks = Ranks.of(stored.record)
            place = ranks.place(newest_first=listing.newest_first)
            if self._entry(place) == entry and listing.wants(ranks):
                found.append(stored.record)
        return found

    async def _sweep(self, limit: int) -> None:
        """Drop old entries of the review index where no record stands: a crash left them."""
        async for entry in self._names(f"{self._prefix}review/"):
            if _age_in(entry.object_name) <= limit or not self._is_settled(entry):
                continue
            record = (await self._read(_id_in(entry.object_name))).record
            if record is None or self._review_entry(Ranks.of(record)) != entry.object_name:
                await self._drop(entry.object_name)

    def _is_settled(self, entry: storage_pb2.StoredObject) -> bool:
        written = entry.create_time.ToNanoseconds() / 1e9
        return self._now() - written > _IN_FLIGHT.total_seconds()

    async def _names(
        self, prefix: str, *, after: str = ""
    ) -> AsyncIterator[storage_pb2.StoredObject]:
        while found := await self._objects.list(prefix, after=after, limit=_NAMES_AT_ONCE):
            for entry in found:
                yield entry
            after = found[-1].object_name

    async def _enter(self, entry: str) -> None:
        spec = storage_pb2.UploadSpec(object_name=entry, if_generation_match=0)
        with contextlib.suppress(ConflictError):
            await self._write(spec, b"")

    async def _drop(self, entry: str) -> None:
        with contextlib.suppress(NotFoundError):
            await self._objects.delete(entry)

    # Names and bytes.

    def _record_name(self, enrichment_id: str) -> str:
        name = enrichment_id.encode()
        # Ids of one day begin alike; a digest spreads them over what a cloud store splits by.
        return f"{self._prefix}records/{hashlib.sha256(name).hexdigest()[:2]}/{name.hex() or '-'}"

    def _answer_name(self, key: bytes) -> str:
        return f"{self._prefix}answers/{key.hex()[:2]}/{key.hex()}"

    def _newest_entry(self, ranks: Ranks) -> str:
        return self._entry(ranks.place(newest_first=True))

    def _review_entry(self, ranks: Ranks) -> str:
        return self._entry(ranks.place(newest_first=False))

    def _entry(self, place: Place) -> str:
        *numbers, name = place
        *before, age = (int(number) for number in numbers)
        kind = "review" if before else "newest"
        parts = [f"{before[0]}/{before[1]:07d}"] if before else []
        parts += [f"{age:019d}", str(name).encode().hex()]
        return f"{self._prefix}{kind}/{'/'.join(parts)}"

    async def _bytes(self, name: str) -> tuple[storage_pb2.StoredObject, bytes] | None:
        try:
            async with self._objects.read(name) as (stored, chunks):
                return stored, b"".join([chunk async for chunk in chunks])
        except NotFoundError:
            return None

    async def _write(self, spec: storage_pb2.UploadSpec, data: bytes) -> None:
        async with self._objects.upload(spec) as upload:
            if data:
                await upload.append(data)
            await upload.commit(storage_pb2.UploadFinish())

    def _micros(self) -> int:
        return round(self._now() * 1_000_000)


def _id_in(entry: str) -> str:
    return bytes.fromhex(entry.rpartition("/")[2]).decode()


def _age_in(entry: str) -> int:
    return int(entry.split("/")[-2])


def _busy() -> UnavailableError:
    return UnavailableError(
        "others keep writing this enrichment",
        reason="ENRICHMENT_BUSY",
        retry_after=timedelta(seconds=1),
    )
