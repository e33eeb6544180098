"""What a server remembers of batches that broke off stays within bounds."""

from datetime import timedelta

from liner.v1 import enrichment_pb2, track_pb2
from liner_server.context import Principal
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
