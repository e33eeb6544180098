"""What a server remembers of batches that broke off stays within bounds."""

from datetime import timedelta

import pytest
from liner.v1 import enrichment_pb2, track_pb2
from liner_server.context import Principal
from liner_server.errors import FailedPreconditionError
from liner_server.rpc.batch_records import BatchRecords


def test_the_oldest_broken_batches_forget_their_items_first() -> None:
    """A client that breaks off a thousand large batches must not fill the server's memory."""
    records = BatchRecords(timedelta(hours=1), most_items=5)
    principal = Principal(name="anyone", roles=frozenset())

    broken = []
    for name in ("first", "second", "third"):
        record, _ = records.open(enrichment_pb2.BatchConfig(batch_id=name), principal)
        for place in range(2):
            record.memory.add(f"item {place}", track_pb2.Track(title="x"), None, place=place)
        broken.append(record)
        records.close(record)

    assert [len(record.memory) for record in broken] == [0, 2, 2]
    resumed, _ = records.open(enrichment_pb2.BatchConfig(batch_id="first"), principal)
    assert resumed is broken[0]


def test_the_oldest_broken_batches_forget_their_results_first() -> None:
    """256 batches of 16 MiB each would be 4 GiB; whoever has all results may still go on."""
    records = BatchRecords(timedelta(hours=1), most_bytes=5_000)
    principal = Principal(name="anyone", roles=frozenset())

    for name in ("first", "second", "third"):
        record, _ = records.open(enrichment_pb2.BatchConfig(batch_id=name), principal)
        record.add(enrichment_pb2.BatchResult(item_id="a" * 2_000))
        records.close(record)

    assert [len(_missed(records, name)) for name in ("second", "third")] == [1, 1]
    with pytest.raises(FailedPreconditionError, match="send what is unfinished"):
        _missed(records, "first")
    assert _missed(records, "first", after=1) == []


def _missed(records: BatchRecords, name: str, after: int = 0) -> list[enrichment_pb2.BatchResult]:
    config = enrichment_pb2.BatchConfig(batch_id=name, resume_after=after)
    _, missed = records.open(config, Principal(name="anyone", roles=frozenset()))
    return missed


def test_an_answer_to_an_item_without_a_name_is_not_the_next_ones() -> None:
    """Each of them is refused with the reason; after a resumption none may vanish."""
    records = BatchRecords(timedelta(hours=1))
    principal = Principal(name="anyone", roles=frozenset())
    record, _ = records.open(enrichment_pb2.BatchConfig(batch_id="a"), principal)
    for name in ("", "b"):
        record.add(enrichment_pb2.BatchResult(item_id=name))
    records.close(record)

    resumed, _ = records.open(enrichment_pb2.BatchConfig(batch_id="a", resume_after=2), principal)

    assert [resumed.answered(name) for name in ("", "b")] == [False, True]
