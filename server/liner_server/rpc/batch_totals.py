"""What a batch stream has done so far, and what its items say against each other."""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Collection
from datetime import timedelta

from liner.v1 import enrichment_pb2, track_pb2

from liner_server.core.rules.across_batch import across_batch
from liner_server.core.rules.batch_memory import BatchMemory

_RATE_WINDOW = 10.0
_MOST_ISSUES = 1_000


class BatchTotals:
    """Counts the results of one stream; the progress and the summary are made of it."""

    def __init__(self, memory: BatchMemory) -> None:
        self.received = 0
        self.cancelled = False
        self._memory = memory
        self._first_place = memory.next_place
        self._finished = 0
        self._failures: Counter[str] = Counter()
        self._needs_review = 0
        self._from_cache = 0
        self._usage = track_pb2.Usage()
        self._started = time.monotonic()
        self._marks: deque[tuple[float, int]] = deque([(self._started, 0)])

    def remember(
        self, position: int, item: enrichment_pb2.BatchItem, result: enrichment_pb2.BatchResult
    ) -> None:
        """Keep what others of the batch may contradict; what failed says nothing."""
        if result.HasField("enriched"):
            track, answer = result.enriched.track, result.enriched
            audio = answer.audio_identity if answer.HasField("audio_identity") else None
        elif result.HasField("validated"):
            track, judged = item.track, result.validated
            audio = judged.audio_identity if judged.HasField("audio_identity") else None
        else:
            return
        self._memory.add(item.item_id, track, audio, place=self._first_place + position)

    def count(self, result: enrichment_pb2.BatchResult) -> None:
        """Count one result as it is sent."""
        self._finished += 1
        match result.WhichOneof("outcome"):
            case "enriched":
                processing = result.enriched.processing
                self._needs_review += processing.needs_review
                self._from_cache += processing.from_cache
                self._usage.prompt_tokens += processing.usage.prompt_tokens
                self._usage.completion_tokens += processing.usage.completion_tokens
                self._usage.cost_usd += processing.usage.cost_usd
            case "validated":
                self._needs_review += any(
                    issue.severity == enrichment_pb2.SEVERITY_ERROR
                    for issue in result.validated.issues
                )
            case _:
                self._failures[result.error.reason] += 1

    def progress(self, in_flight: Collection[object]) -> enrichment_pb2.BatchProgress:
        """Return where the batch stands."""
        now = time.monotonic()
        self._marks.append((now, self._finished))
        while len(self._marks) > 2 and now - self._marks[1][0] > _RATE_WINDOW:
            self._marks.popleft()
        since, before = self._marks[0]
        return enrichment_pb2.BatchProgress(
            received=self.received,
            finished=self._finished,
            failed=self._failures.total(),
            needs_review=self._needs_review,
            in_flight=len(in_flight),
            rate=round((self._finished - before) / max(now - since, 1e-3), 2),
        )

    async def summary(self) -> enrichment_pb2.BatchSummary:
        """Return how the batch ended; what was remembered of its items is compared and forgotten.

        Comparing a hundred thousand items takes seconds, so it is done beside the event loop.
        """
        entries = self._memory.take()
        found = await asyncio.to_thread(across_batch, entries)
        summary = enrichment_pb2.BatchSummary(
            received=self.received,
            succeeded=self._finished - self._failures.total(),
            failed=self._failures.total(),
            needs_review=self._needs_review,
            from_cache=self._from_cache,
            usage=self._usage,
            failed_by_reason=self._failures,
            cancelled=self.cancelled,
            batch_issues=[
                enrichment_pb2.BatchIssue(item_id=entries[index].item_id, issue=issue)
                for index, issue in found[:_MOST_ISSUES]
            ],
            batch_issues_omitted=max(0, len(found) - _MOST_ISSUES),
            compared=len(entries),
        )
        summary.elapsed.FromTimedelta(timedelta(seconds=time.monotonic() - self._started))
        return summary
