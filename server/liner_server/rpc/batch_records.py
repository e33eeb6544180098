"""What a server remembers of its batches, so that a broken stream can go on."""

import time
import uuid
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from datetime import timedelta

from liner.v1 import enrichment_pb2

from liner_server.context import Principal
from liner_server.core.rules.batch_memory import BatchMemory
from liner_server.errors import FailedPreconditionError, PermissionDeniedError

_KEPT_RESULTS = 2048
"""More than fits between a server and a client that reads: what came before was received."""

_KEPT_BYTES = 16 << 20
_KEPT_BYTES_IN_ALL = 256 << 20
"""Of results of streams that ended: beyond, the oldest batches cannot be resumed any more."""

_KEPT_ITEMS = 200_000
"""Items remembered of batches that broke off: beyond, the oldest are compared with nothing more."""


@dataclass(kw_only=True)
class BatchRecord:
    """One batch: its newest results and the number of the last."""

    batch_id: str
    owner: str
    sequence: int = 0
    used: float = 0.0
    open: bool = False
    memory: BatchMemory = field(default_factory=BatchMemory)
    """What the batch's items say, until it ends and they are compared."""

    _kept: deque[enrichment_pb2.BatchResult] = field(default_factory=deque)
    _answered: set[str] = field(default_factory=set)
    _bytes: int = 0

    def add(self, result: enrichment_pb2.BatchResult) -> None:
        """Give a result its sequence and keep it until newer ones take its place."""
        self.sequence += 1
        result.sequence = self.sequence
        self._kept.append(result)
        self._bytes += result.ByteSize()
        while len(self._kept) > _KEPT_RESULTS or self._bytes > _KEPT_BYTES:
            self._bytes -= self._kept.popleft().ByteSize()

    def resume(self, after: int) -> list[enrichment_pb2.BatchResult]:
        """Return the results that come after a sequence.

        Raises:
            FailedPreconditionError: they are no longer all here, or there never were so many.

        """
        oldest = self._kept[0].sequence if self._kept else self.sequence + 1
        if not oldest - 1 <= after <= self.sequence:
            raise FailedPreconditionError(
                f"batch {self.batch_id} can be resumed after {oldest - 1} to {self.sequence}, "
                f"not {after}; send what is unfinished as a new batch",
                reason="RESUME_POINT_LOST",
            )
        # Items without a name are all refused: the answer to one is not the next one's.
        self._answered = {result.item_id for result in self._kept if result.item_id}
        return [result for result in self._kept if result.sequence > after]

    @property
    def size(self) -> int:
        """Bytes of the results that are kept."""
        return self._bytes

    def drop_results(self) -> None:
        """Keep no result: the batch goes on only for whoever received them all."""
        self._kept.clear()
        self._bytes = 0

    def answered(self, item_id: str) -> bool:
        """Whether the item was finished before the stream was resumed."""
        return item_id in self._answered


class BatchRecords:
    """The batches of this process, the newest 256, each for a while after it was last used."""

    def __init__(
        self,
        keep: timedelta,
        *,
        most: int = 256,
        most_items: int = _KEPT_ITEMS,
        most_bytes: int = _KEPT_BYTES_IN_ALL,
    ) -> None:
        self._keep = keep.total_seconds()
        self._most = most
        self._most_items = most_items
        self._most_bytes = most_bytes
        self._records: OrderedDict[str, BatchRecord] = OrderedDict()

    def open(
        self, config: enrichment_pb2.BatchConfig, principal: Principal
    ) -> tuple[BatchRecord, list[enrichment_pb2.BatchResult]]:
        """Return the batch that a config names or begins, and the results to send again.

        Raises:
            FailedPreconditionError: it is open elsewhere, or its resume point is lost.
            PermissionDeniedError: it is another principal's.

        """
        self._forget()
        record = self._records.get(config.batch_id)
        if record is None:
            if config.resume_after:
                raise FailedPreconditionError(
                    f"nothing is known of batch {config.batch_id}; "
                    "send what is unfinished as a new batch",
                    reason="RESUME_POINT_LOST",
                )
            record = BatchRecord(batch_id=config.batch_id or uuid.uuid4().hex, owner=principal.name)
        if record.owner != principal.name:
            raise PermissionDeniedError(
                "this batch is another caller's", reason="BATCH_NOT_OWNED", resource=record.batch_id
            )
        if record.open:
            raise FailedPreconditionError(
                f"batch {record.batch_id} is open on another stream", reason="BATCH_OPEN"
            )
        missed = record.resume(config.resume_after)
        record.open = True
        self._records[record.batch_id] = record
        self._records.move_to_end(record.batch_id)
        return record, missed

    def close(self, record: BatchRecord) -> None:
        """Say that the batch's stream ended; it may be resumed from now on."""
        record.open = False
        record.used = time.monotonic()
        self._records.move_to_end(record.batch_id)
        remembered = size = 0
        for other in reversed(self._records.values()):
            remembered += len(other.memory)
            if remembered > self._most_items and not other.open:
                remembered -= len(other.memory)
                other.memory = BatchMemory()
            size += other.size
            if size > self._most_bytes and not other.open:
                size -= other.size
                other.drop_results()

    def _forget(self) -> None:
        now = time.monotonic()
        for batch_id, record in list(self._records.items()):
            stale = now - record.used > self._keep or len(self._records) > self._most
            if not record.open and stale:
                del self._records[batch_id]
