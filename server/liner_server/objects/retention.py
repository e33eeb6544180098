"""A clean-up: looks at every object, refuses what looks wrong, writes notices, deletes.

The store is read twice, a page at a time: first everything is counted, so that a run that would
take too much is refused whole; then notices are written and what is due is deleted, each object
in exactly the generation that was judged. So a run may be broken off anywhere, and two may run at
once. The rules are in `core/retention.py`.
"""

import json
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from datetime import UTC, datetime, timedelta
from typing import Protocol, Self

import structlog
from liner.v1 import storage_pb2

from liner_server.context import RESERVED
from liner_server.core.retention import Census, RetentionPolicy, Verdict
from liner_server.errors import ConflictError, LinerError, NotFoundError
from liner_server.ports import ObjectStore, Upload

_log = structlog.get_logger()
_PAGE = 1000
_LAST_RUN = RESERVED + "retention/last-run"
_NOTICES = RESERVED + "notices/"
_NOTICES_KEPT = timedelta(days=400)


class RetentionObserver(Protocol):
    """Is told what became of objects."""

    def retained(self, outcome: str, count: int) -> None:
        """Count objects; `outcome` is kept, held, noticed, deleted or gone."""


class Retention:
    """Runs clean-ups of an `ObjectStore`, and of what else grows old beside it."""

    def __init__(
        self,
        objects: ObjectStore,
        policy: RetentionPolicy,
        *,
        observer: RetentionObserver,
        clear_results: Callable[[], Awaitable[tuple[int, int]]] | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Take what deletes old results and known answers and returns how many of each."""
        self._objects = objects
        self._policy = policy
        self._observer = observer
        self._clear_results = clear_results
        self._now = now

    async def run(
        self, *, dry_run: bool, force: bool, principal: str
    ) -> storage_pb2.RunCleanupResponse:
        """Delete what has had its time and return what was done.

        Raises:
            FailedPreconditionError: too much would go at once, or the clock looks wrong.
            LinerError: the store failed; what was deleted until then is deleted.

        """
        began = time.monotonic()
        now = datetime.fromtimestamp(self._now(), UTC)
        last_run = await self._last_run()
        census = Census(policy=self._policy, now=now)
        async with aclosing(self._pages()) as pages:
            async for page in pages:
                for stored in page:
                    self._look(census, stored, last_run)
        if not dry_run:
            if not force:
                census.check(last_run)
            _log.info("clean-up begins", principal=principal, due=census.due, force=force)
        response = storage_pb2.RunCleanupResponse(due_share=census.share)
        notices = None if dry_run else await self._sweep(census, last_run, principal)
        for kind, count in census.counts.items():
            response.counts.add(kind=kind, **vars(count))
        if notices is not None:
            response.notices_object = notices.stored
            await self._clear_the_rest(response, now, principal)
            if not notices.lost:
                await self._note_run(now)
            self._tell(census)
        response.elapsed.FromTimedelta(timedelta(seconds=time.monotonic() - began))
        return response

    def _look(
        self, census: Census, stored: storage_pb2.StoredObject, last_run: datetime | None
    ) -> Verdict:
        verdict = census.add(stored)
        if self._to_notice(verdict, stored, census.now, last_run):
            census.counts[verdict.kind].noticed += 1
        return verdict

    def _to_notice(
        self,
        verdict: Verdict,
        stored: storage_pb2.StoredObject,
        now: datetime,
        last_run: datetime | None,
    ) -> bool:
        """Whether the object came into the days of notice since the last run."""
        if verdict.due is None or verdict.held or verdict.kind == "temp" or verdict.due <= now:
            return False
        begins = verdict.due - self._policy.notice
        if begins > now:
            return False
        if last_run is None or begins > last_run:
            return True
        return stored.create_time.ToDatetime(tzinfo=UTC) > last_run

    async def _sweep(self, census: Census, last_run: datetime | None, principal: str) -> "_Notices":
        """Write notices and delete what is due."""
        seen = Census(policy=self._policy, now=census.now)
        async with (
            _Notices(self._objects, census.now) as notices,
            aclosing(self._pages()) as pages,
        ):
            async for page in pages:
                due: list[tuple[storage_pb2.StoredObject, Verdict]] = []
                lines = []
                for stored in page:
                    verdict = seen.add(stored)
                    if self._to_notice(verdict, stored, census.now, last_run):
                        lines.append(_notice(stored, verdict))
                    elif verdict.due and not verdict.held and verdict.due <= census.now:
                        due.append((stored, verdict))
                await notices.add(lines)
                await self._delete(due, census, principal)
        return notices

    async def _delete(
        self,
        due: Sequence[tuple[storage_pb2.StoredObject, Verdict]],
        census: Census,
        principal: str,
    ) -> None:
        for kind in {verdict.kind for _, verdict in due}:
            batch = [stored for stored, verdict in due if verdict.kind == kind]
            deleted = await self._objects.delete_all(batch)
            census.counts[kind].deleted += len(deleted)
            for stored in deleted:
                _log.info(
                    "object deleted",
                    object=stored.object_name,
                    generation=stored.generation,
                    kind=kind,
                    principal=principal,
                )

    async def _clear_the_rest(
        self, response: storage_pb2.RunCleanupResponse, now: datetime, principal: str
    ) -> None:
        uploads = await self._objects.drop_uploads()
        response.counts.add(kind="uploads", examined=uploads, due=uploads, deleted=uploads)
        old = await self._old_notices(now)
        await self._objects.delete_all(old)
        if self._clear_results is None:
            return
        for kind, gone in zip(("results", "answers"), await self._clear_results(), strict=True):
            response.counts.add(kind=kind, examined=gone, due=gone, deleted=gone)
            if gone:
                _log.info("deleted for age", kind=kind, count=gone, principal=principal)

    async def _old_notices(self, now: datetime) -> list[storage_pb2.StoredObject]:
        listed = await self._objects.list(_NOTICES, limit=_PAGE)
        return [n for n in listed if n.create_time.ToDatetime(tzinfo=UTC) < now - _NOTICES_KEPT]

    async def _pages(self) -> AsyncGenerator[Sequence[storage_pb2.StoredObject], None]:
        """Yield all objects but the server's own, a page at a time."""
        after = ""
        while page := await self._objects.list("", after=after, limit=_PAGE):
            after = page[-1].object_name
            yield [stored for stored in page if not stored.object_name.startswith(RESERVED)]

    async def _last_run(self) -> datetime | None:
        try:
            async with self._objects.read(_LAST_RUN) as (_, chunks):
                data = b"".join([chunk async for chunk in chunks])
            return datetime.fromtimestamp(float(json.loads(data)["time"]), UTC)
        except (NotFoundError, ConflictError):
            return None
        except (ValueError, KeyError, TypeError, OverflowError):
            _log.warning("the time of the last clean-up cannot be read", object=_LAST_RUN)
            return None

    async def _note_run(self, now: datetime) -> None:
        spec = storage_pb2.UploadSpec(object_name=_LAST_RUN, content_type="application/json")
        try:
            async with self._objects.upload(spec) as upload:
                await upload.append(json.dumps({"time": now.timestamp()}).encode())
                await upload.commit(storage_pb2.UploadFinish())
        except LinerError as error:
            # A full disk: the next run writes some notices again, and that is all.
            _log.warning("the time of this clean-up was not kept", reason=error.reason)

    def _tell(self, census: Census) -> None:
        counts = census.counts.values()
        deleted = sum(count.deleted for count in counts)
        held = sum(count.held for count in counts)
        for outcome, count in (
            ("deleted", deleted),
            ("gone", census.due - deleted),
            ("noticed", sum(count.noticed for count in counts)),
            ("held", held),
            ("kept", sum(count.examined for count in counts) - census.due - held),
        ):
            self._observer.retained(outcome, max(count, 0))


class _Notices:
    """The notices of one run, in an object that exists if there is any.

    One that cannot be written, as on a full disk, keeps nothing from being deleted: that makes the
    room. The next run writes those notices again.
    """

    def __init__(self, objects: ObjectStore, now: datetime) -> None:
        self._objects = objects
        self._name = f"{_NOTICES}{now:%Y-%m-%dT%H-%M-%SZ}-{uuid.uuid4().hex[:8]}.jsonl"
        self._stack = AsyncExitStack()
        self._upload: Upload | None = None
        self.lost = False
        """Whether there was a notice that could not be written."""
        self.stored = ""
        """Name of the object; empty where there was nothing to write."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        async with self._stack:
            if self._upload is None or self.lost or kind is not None:
                return
            try:
                await self._upload.commit(storage_pb2.UploadFinish())
            except LinerError as error:
                self._fail(error)
            else:
                self.stored = self._name

    async def add(self, lines: Sequence[str]) -> None:
        """Add rows."""
        if not lines or self.lost:
            return
        try:
            if self._upload is None:
                spec = storage_pb2.UploadSpec(
                    object_name=self._name, content_type="application/jsonl"
                )
                self._upload = await self._stack.enter_async_context(self._objects.upload(spec))
            await self._upload.append("".join(lines).encode())
        except LinerError as error:
            self._fail(error)

    def _fail(self, error: LinerError) -> None:
        self.lost = True
        _log.error("notices were not written", reason=error.reason, error=error.message)


def _notice(stored: storage_pb2.StoredObject, verdict: Verdict) -> str:
    """Return the row that says what will be deleted, and when."""
    row = {
        "object_name": stored.object_name,
        "generation": stored.generation,
        "kind": verdict.kind,
        "size_bytes": stored.size_bytes,
        "delete_time": verdict.due.isoformat() if verdict.due else None,
    }
    return json.dumps(row, ensure_ascii=False) + "\n"
