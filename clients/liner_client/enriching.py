"""Many inputs through one batch: audio is sent ahead while results come back."""

import asyncio
import stat
from collections import deque
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from itertools import islice

from google.rpc import code_pb2
from liner.v1 import enrichment_pb2, track_pb2

from liner_client.client import LinerClient
from liner_client.errors import (
    LinerError,
    PermissionDeniedError,
    UnauthenticatedError,
    UnavailableError,
    to_item,
)
from liner_client.inputs import Entry
from liner_client.records import Outcome

UPLOADS_AHEAD = 4
"""Uploads at once: enough to keep a server listening, few enough to keep memory low."""


CALLS_AT_ONCE = 8
"""Calls at once where every track is a call of its own."""


def fails_for_all(error: LinerError) -> bool:
    """Whether what failed for one input would fail for every other too.

    That is so when the caller is not accepted, or when nobody answered: a server that does
    answer, and says that this track's audio could not be listened to now, names its reason.
    """
    if isinstance(error, UnavailableError):
        return error.reason == "UNAVAILABLE"
    return isinstance(error, UnauthenticatedError | PermissionDeniedError)


async def stored_track(liner: LinerClient, entry: Entry) -> track_pb2.Track | track_pb2.Error:
    """Return the entry's track with its audio stored, or why it could not be."""
    track = track_pb2.Track()
    track.CopyFrom(entry.track)
    if entry.path is None:
        return track
    try:
        if not stat.S_ISREG((await asyncio.to_thread(entry.path.stat)).st_mode):
            # A pipe cannot be read twice, and some devices never end.
            return track_pb2.Error(
                code=code_pb2.INVALID_ARGUMENT, reason="FILE_UNREADABLE", message="is not a file"
            )
        stored = await liner.upload_file(entry.path)
    except LinerError as error:
        if fails_for_all(error):
            raise
        return to_item(error)
    except OSError as error:
        return track_pb2.Error(
            code=code_pb2.NOT_FOUND,
            reason="FILE_UNREADABLE",
            message=error.strerror or "the file cannot be read",
        )
    track.audio.object_name = stored.object_name
    track.audio.file_name = entry.row.get("path", entry.path.name).rsplit("/", 1)[-1]
    return track


async def run_entries(
    liner: LinerClient, entries: Iterable[Entry], *, config: enrichment_pb2.BatchConfig
) -> AsyncGenerator[Outcome | enrichment_pb2.BatchProgress | enrichment_pb2.BatchSummary, None]:
    """Yield one outcome an entry, in between how the batch stands, and its summary last.

    An input that fails is an outcome like any other; only what would fail for all of them is
    raised. With the config's `ordered` the outcomes come in the order of the entries; with its
    `validate_profile` they are judged and not enriched. Entries are taken as they are needed.
    """
    failed: deque[Outcome] = deque()
    open_entries: dict[str, Entry] = {}
    order = _Order(kept=config.ordered)

    async def items() -> AsyncGenerator[tuple[str, track_pb2.Track], None]:
        waiting = iter(entries)
        ahead: deque[tuple[Entry, asyncio.Task[track_pb2.Track | track_pb2.Error]]] = deque()
        try:
            while True:
                for entry in islice(waiting, UPLOADS_AHEAD - len(ahead)):
                    order.expect(entry)
                    ahead.append((entry, asyncio.ensure_future(stored_track(liner, entry))))
                if not ahead:
                    break
                entry, task = ahead.popleft()
                ready = await task
                if isinstance(ready, track_pb2.Track):
                    open_entries[entry.item_id] = entry
                    yield entry.item_id, ready
                else:
                    failed.append(Outcome(entry=entry, error=ready))
        finally:
            for _, task in ahead:
                task.cancel()
            await asyncio.gather(*(task for _, task in ahead), return_exceptions=True)

    async with aclosing(liner.enrich_many(items(), config=config)) as events:
        async for event in events:
            while failed:
                for outcome in order.release(failed.popleft()):
                    yield outcome
            if isinstance(event, enrichment_pb2.BatchResult):
                entry = open_entries.pop(event.item_id)
                for outcome in order.release(_outcome(entry, event)):
                    yield outcome
            elif not isinstance(event, enrichment_pb2.BatchOpened):
                yield event


async def judge_each(
    liner: LinerClient,
    entries: Iterable[Entry],
    *,
    profile: enrichment_pb2.DeliveryProfile.ValueType,
) -> AsyncGenerator[Outcome, None]:
    """Yield one outcome an entry, in their order, by one call each: nothing compares them.

    For servers whose batch processing is switched off.
    """

    async def judge(entry: Entry) -> Outcome:
        track = await stored_track(liner, entry)
        if isinstance(track, track_pb2.Error):
            return Outcome(entry=entry, error=track)
        try:
            return Outcome(entry=entry, judged=await liner.validate(track, profile=profile))
        except LinerError as error:
            if fails_for_all(error):
                raise
            return Outcome(entry=entry, error=to_item(error))

    waiting = iter(entries)
    ahead: deque[asyncio.Task[Outcome]] = deque()
    try:
        while True:
            for entry in islice(waiting, CALLS_AT_ONCE - len(ahead)):
                ahead.append(asyncio.ensure_future(judge(entry)))
            if not ahead:
                break
            yield await ahead.popleft()
    finally:
        for task in ahead:
            task.cancel()
        await asyncio.gather(*ahead, return_exceptions=True)


def _outcome(entry: Entry, result: enrichment_pb2.BatchResult) -> Outcome:
    if result.HasField("enriched"):
        return Outcome(entry=entry, answer=result.enriched)
    if result.HasField("validated"):
        return Outcome(entry=entry, judged=result.validated)
    return Outcome(entry=entry, error=result.error)


class _Order:
    """Holds outcomes back until all before them are there; lets them pass when there is no order.

    The server keeps the order of what it was sent; what failed here has to be put in between.
    """

    def __init__(self, *, kept: bool) -> None:
        self._expected: deque[str] | None = deque() if kept else None
        self._held: dict[str, Outcome] = {}

    def expect(self, entry: Entry) -> None:
        """Say which comes next in the order."""
        if self._expected is not None:
            self._expected.append(entry.item_id)

    def release(self, outcome: Outcome) -> list[Outcome]:
        """Return what may go now that this outcome is there."""
        if self._expected is None:
            return [outcome]
        self._held[outcome.entry.item_id] = outcome
        released = []
        while self._expected and self._expected[0] in self._held:
            released.append(self._held.pop(self._expected.popleft()))
        return released
