"""Rows of analytics through outages, full disks and killed processes."""

import os
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from liner.v1 import analytics_pb2
from liner_server.analytics.bigquery import BigQuerySink, Place
from liner_server.analytics.bigquery_setup import set_up
from liner_server.analytics.bigquery_write import BigQueryWriteSink
from liner_server.analytics.buffer import AnalyticsBuffer
from liner_server.analytics.journal import Journal
from liner_server.analytics.sqlite import SqliteSink
from liner_server.context import Principal, RequestContext
from liner_server.core.router import Plan
from liner_server.errors import UnavailableError
from liner_server.ports_analytics import Table
from support import small_disk
from support.analytics_kills import outage
from support.analytics_worker import answer
from support.bigquery_fake import FakeBigQuery, FaultError, fake_bigquery
from support.bigquery_write_fake import bigquery_write_fake
from support.eventually import eventually

CONTEXT = RequestContext(
    request_id='r"1', principal=Principal(name="t", roles=frozenset()), deadline=1e12
)
PLAN = Plan(lanes=(), experiment="e", variant="control", allocation="control=1", unit="track 1")


class Counts:
    """An observer that remembers what it was told."""

    def __init__(self) -> None:
        self.rows: Counter[str] = Counter()
        self.waiting = -1

    def rows_counted(self, outcome: str, count: int) -> None:
        """Count rows."""
        self.rows[outcome] += count

    def rows_waiting(self, count: int) -> None:
        """Keep how many wait."""
        self.waiting = count


def note(buffer: AnalyticsBuffer, name: str = "n") -> None:
    """Take note of one answer."""
    buffer.answered(PLAN, answer(name), CONTEXT, operation="enrich", outcome="ok", seconds=0.25)


async def test_a_row_says_what_its_answer_said(tmp_path: Path) -> None:
    """The row is put together from bytes long after the answer was sent."""
    counts = Counts()
    async with SqliteSink(tmp_path / "a.sqlite") as sink:
        async with AnalyticsBuffer(sink, tmp_path / "j", observer=counts) as buffer:
            note(buffer)
            buffer.answered(PLAN, None, CONTEXT, operation="batch", outcome="DEADLINE", seconds=1.0)
            await eventually(lambda: counts.rows["stored"] == 2)
        found = await sink._file.read(
            lambda db: db.execute(
                "SELECT request_id, track, experiment, variant, model, success, error_code,"
                " confidence, processing_seconds, operation, fields FROM ai_experiments"
                " ORDER BY time"
            ).fetchall()
        )

    assert [row[:-1] for row in found] == [
        ('r"1', buffer.track("track 1"), "e", "control", "qwen2", 1, "", 0.8, 0.25, "enrich"),
        ('r"1', buffer.track("track 1"), "e", "control", "embedded", 0, "DEADLINE", 0, 1, "batch"),
    ]
    assert '"field": "field11"' in found[0][-1]
    assert "track 1" not in buffer.track("track 1")


@pytest.fixture
async def place(tmp_path: Path) -> "object":
    """A BigQuery with its tables."""
    with fake_bigquery() as (kept, address):
        where = Place(project="liner-test", dataset="ai_metrics", emulator=address)
        async for _ in set_up(where):
            pass
        yield kept, where


async def test_the_write_api_loses_no_row_to_faults_and_sends_zeros(
    tmp_path: Path, place: tuple[FakeBigQuery, Place]
) -> None:
    """Down, over its quota, a column late: by gRPC the same becomes of rows as by REST."""
    kept, where = place
    counts = Counts()
    del kept.tables["ai_experiments"]["schema"]["fields"][-1]
    kept.db.execute("ALTER TABLE ai_experiments DROP COLUMN fields")
    kept.failures += [FaultError(503, "backendError", "down"), FaultError(429, "quota", "slow")]
    async with (
        bigquery_write_fake(kept) as address,
        BigQueryWriteSink(replace(where, write_emulator=address)) as sink,
        AnalyticsBuffer(sink, tmp_path / "j", observer=counts) as buffer,
    ):
        note(buffer)
        await eventually(lambda: not kept.failures and counts.rows["spilled"] == 1)
        assert [part.note async for part in set_up(where) if part.state == "changed"] == [
            "new columns: fields"
        ]
        await eventually(lambda: counts.rows["stored"] == 1, within=20)
    async with BigQueryWriteSink(replace(where, write_emulator=address)) as sink:
        with pytest.raises(UnavailableError):
            await sink.insert(Table.OUTCOMES, [analytics_pb2.OutcomeRow(row_id="r")])

    assert counts.rows["dropped"] == 0
    # Left out, they would be NULL, and a row with from_cache NULL counts nowhere.
    found = kept.db.execute("SELECT from_cache, needs_review, cost_usd FROM ai_experiments")
    assert found.fetchall() == [(0, 0, 0.0)]


async def test_an_outage_delays_rows_and_loses_none(
    tmp_path: Path, place: tuple[FakeBigQuery, Place]
) -> None:
    """Answers go on while BigQuery is away, and every row is there afterwards."""
    kept, where = place
    counts = Counts()
    kept.down = True
    async with (
        BigQuerySink(where) as sink,
        AnalyticsBuffer(sink, tmp_path / "j", observer=counts) as buffer,
    ):
        for number in range(500):
            note(buffer, str(number))
        await eventually(lambda: counts.rows["spilled"] > 0)
        kept.down = False
        await eventually(lambda: counts.rows["stored"] == 500)

        assert buffer.waiting == 0
    assert kept.count("ai_experiments") == 500
    assert counts.rows["dropped"] == 0
    # Nothing is left to be told again.
    assert list((tmp_path / "j").glob("*.journal")) == []


async def test_what_waits_at_the_end_is_delivered_by_the_next_process(
    tmp_path: Path, place: tuple[FakeBigQuery, Place]
) -> None:
    """A stop during an outage must not cost rows either."""
    kept, where = place
    kept.down = True
    async with (
        BigQuerySink(where) as sink,
        AnalyticsBuffer(sink, tmp_path / "j", observer=Counts()) as buffer,
    ):
        note(buffer)
    kept.down = False
    counts = Counts()

    async with (
        BigQuerySink(where) as sink,
        AnalyticsBuffer(sink, tmp_path / "j", observer=counts) as buffer,
    ):
        await eventually(lambda: counts.rows["stored"] == 1)

    assert kept.count("ai_experiments") == 1


async def test_a_row_that_is_refused_is_set_aside_and_the_others_go_on(
    tmp_path: Path, place: tuple[FakeBigQuery, Place]
) -> None:
    """A row that BigQuery never takes must not keep all that follow waiting."""
    kept, where = place
    counts = Counts()
    async with (
        BigQuerySink(where) as sink,
        AnalyticsBuffer(sink, tmp_path / "j", observer=counts) as buffer,
    ):
        buffer.put(Table.OUTCOMES, analytics_pb2.OutcomeRow(row_id="", field="genre"))
        buffer.put(Table.OUTCOMES, analytics_pb2.OutcomeRow(row_id="good", field="genre"))
        await eventually(lambda: counts.rows["stored"] == 1)

    assert counts.rows["dropped"] == 1
    assert '"reason": "it has no row_id"' in (tmp_path / "j" / "refused.jsonl").read_text()
    assert kept.count("enrichment_outcomes") == 1


@pytest.mark.parametrize(
    "fault",
    [
        FaultError(429, "rateLimitExceeded", "slow down"),
        FaultError(403, "quotaExceeded", "Quota exceeded"),
        FaultError(404, "notFound", "no table"),
        FaultError(500, "internalError", "broken"),
    ],
    ids=lambda fault: fault.reason,
)
async def test_a_failure_of_the_whole_request_leaves_its_rows_waiting(
    tmp_path: Path, place: tuple[FakeBigQuery, Place], fault: FaultError
) -> None:
    """Whatever it was, somebody mends it, and the rows are worth the wait."""
    kept, where = place
    counts = Counts()
    async with (
        BigQuerySink(where) as sink,
        AnalyticsBuffer(sink, tmp_path / "j", observer=counts) as buffer,
    ):
        kept.failures.append(fault)
        note(buffer)
        await eventually(lambda: counts.rows["stored"] == 1)

    assert (counts.rows["dropped"], counts.rows["spilled"]) == (0, 1)


async def test_a_table_that_lacks_a_column_costs_no_row(
    tmp_path: Path, place: tuple[FakeBigQuery, Place]
) -> None:
    """A new release whose columns nobody has added yet: its rows wait until `setup-cloud` ran."""
    kept, where = place
    fields = kept.tables["ai_experiments"]["schema"]["fields"]
    taken = [field for field in fields if field["name"] in ("from_cache", "fields")]
    kept.tables["ai_experiments"]["schema"]["fields"] = [f for f in fields if f not in taken]
    for field in taken:
        kept.db.execute(f"ALTER TABLE ai_experiments DROP COLUMN {field['name']}")
    counts = Counts()
    async with (
        BigQuerySink(where) as sink,
        AnalyticsBuffer(sink, tmp_path / "j", observer=counts) as buffer,
    ):
        for number in range(3):
            note(buffer, str(number))
        await eventually(lambda: counts.rows["spilled"] == 3)
        changed = [part async for part in set_up(where)]
        await eventually(lambda: counts.rows["stored"] == 3)

    assert [part.note for part in changed if part.state == "changed"] == [
        "new columns: from_cache, fields"
    ]
    assert (counts.rows["dropped"], kept.count("ai_experiments")) == (0, 3)


async def test_set_up_adds_what_nested_rows_lack(place: tuple[FakeBigQuery, Place]) -> None:
    """A table of an earlier release would refuse rows whose scores have grown by a field."""
    kept, where = place
    columns = {f["name"]: f for f in kept.tables["enrichment_outcomes"]["schema"]["fields"]}
    scores = columns["scores"]
    whole = [field["name"] for field in scores["fields"]]
    scores["fields"] = [field for field in scores["fields"] if field["name"] != "stated"]

    changed = [part async for part in set_up(where)]
    again = [part async for part in set_up(where)]

    [scores] = [
        field
        for field in kept.tables["enrichment_outcomes"]["schema"]["fields"]
        if field["name"] == "scores"
    ]
    assert [part.note for part in changed if part.state == "changed"] == ["new columns: scores"]
    assert [field["name"] for field in scores["fields"]] == whole
    assert scores["mode"] == "REPEATED"
    assert {part.state for part in again} == {"exists"}


async def test_past_the_bound_rows_are_dropped_and_counted(
    tmp_path: Path, place: tuple[FakeBigQuery, Place]
) -> None:
    """A disk full of rows would take the server's own room."""
    kept, where = place
    counts = Counts()
    kept.down = True
    async with (
        BigQuerySink(where) as sink,
        AnalyticsBuffer(sink, tmp_path / "j", observer=counts, max_bytes=20_000) as buffer,
    ):
        for number in range(100):
            note(buffer, str(number))
        size = sum(file.stat().st_size for file in (tmp_path / "j").iterdir())

        assert 0 < buffer.waiting < 100
        assert counts.rows["dropped"] == 100 - buffer.waiting
        assert size <= 20_000


def test_an_entry_cut_off_by_a_power_failure_ends_its_file_only(tmp_path: Path) -> None:
    """What was whole before it is still told."""
    journal = Journal(tmp_path, max_bytes=1 << 20)
    journal.open()
    for number in range(3):
        assert journal.append(1, b"head", bytes([number]))
    journal.close()
    [path] = tmp_path.glob("*.journal")
    os.truncate(path, path.stat().st_size - 1)

    again = Journal(tmp_path, max_bytes=1 << 20)
    again.open()
    batch = again.read(10)

    assert batch is not None
    assert [entry.body for entry in batch.entries] == [b"\0", b"\1"]
    again.done(batch)
    assert (again.waiting, again.read(10)) == (0, None)
    again.close()
    assert list(tmp_path.glob("*.journal")) == []


async def test_what_a_disk_spoilt_is_counted_and_the_rest_is_stored(tmp_path: Path) -> None:
    """One flipped bit must not cost the thousands of rows behind it, nor cost its row unseen."""
    journal = Journal(tmp_path / "j", max_bytes=1 << 20)
    journal.open()
    for number in range(5):
        row = analytics_pb2.OutcomeRow(row_id=f"r{number}", enrichment_id=f"e{number}")
        assert journal.append(1, row.SerializeToString())
    journal.close()
    [path] = (tmp_path / "j").glob("*.journal")
    data = path.read_bytes()
    path.write_bytes(data.replace(b"r1", b"x1").replace(b"r3", b"x3") + bytes(4096))
    counts = Counts()

    async with SqliteSink(tmp_path / "a.sqlite") as sink:
        async with AnalyticsBuffer(sink, tmp_path / "j", observer=counts) as buffer:
            await eventually(lambda: counts.rows["stored"] == 3 and not buffer.waiting)
        rows = [row.row_id async for row in sink.outcomes(start=datetime(1970, 1, 1, tzinfo=UTC))]

    assert sorted(rows) == ["r0", "r2", "r4"]
    assert counts.rows["dropped"] == 2
    assert list((tmp_path / "j").glob("*.journal")) == []


async def test_a_spoilt_length_ends_its_file_and_all_behind_it_is_counted(tmp_path: Path) -> None:
    """Nobody can tell where the next entry begins; nothing is read into the air."""
    journal = Journal(tmp_path, max_bytes=1 << 20)
    journal.open()
    for number in range(5):
        assert journal.append(1, b"head", bytes([number]))
    batch = journal.read(1)
    assert batch is not None
    [path] = tmp_path.glob("*.journal")
    with path.open("r+b") as file:
        file.seek(2 * (13 + 5))
        file.write(b"\xff\xff\xff\x7f")
    journal.done(batch)

    batch = journal.read(10)

    assert batch is not None
    assert [entry.body for entry in batch.entries] == [b"\1"]
    assert batch.lost == 3
    journal.done(batch)
    assert (journal.waiting, journal.read(10)) == (0, None)
    # It goes on behind it.
    assert journal.append(1, b"next")
    batch = journal.read(10)
    assert batch is not None
    assert [entry.head for entry in batch.entries] == [b"next"]
    journal.close()


def test_a_file_of_a_process_that_lives_is_left_alone(tmp_path: Path) -> None:
    """Two processes on one folder must not deliver each other's rows, or delete them."""
    one, other = (Journal(tmp_path, max_bytes=1 << 20) for _ in range(2))
    one.open()
    one.append(1, b"mine")
    other.open()

    assert other.read(10) is None
    other.close()
    assert one.read(10) is not None
    one.close()


def test_a_full_disk_refuses_an_entry_and_spoils_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write may be taken in part; the next entry must not follow that part."""
    journal = Journal(tmp_path, max_bytes=1 << 20)
    journal.open()
    journal.append(1, b"before")
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: write(handle, data[:5]))
    refused = journal.append(1, b"cut off")
    monkeypatch.setattr(os, "write", write)
    journal.append(1, b"after")

    batch = journal.read(10)

    assert refused is False
    assert batch is not None
    assert [entry.head for entry in batch.entries] == [b"before", b"after"]
    journal.close()


_FULL = """
import asyncio
import sys
from collections import Counter
from pathlib import Path

from liner_server.analytics.buffer import AnalyticsBuffer
from liner_server.context import Principal, RequestContext
from liner_server.core.router import Plan
from liner_server.errors import UnavailableError
from support.analytics_worker import answer
from support.eventually import eventually

CONTEXT = RequestContext(
    request_id="r", principal=Principal(name="t", roles=frozenset()), deadline=1e12
)
PLAN = Plan(lanes=(), experiment="e", variant="control", allocation="control=1", unit="t")
DISK = Path(sys.argv[1])
counted = Counter()


class Counts:
    def rows_counted(self, outcome, count):
        counted[outcome] += count

    def rows_waiting(self, count):
        pass


class Sink:
    down, seen = True, set()

    async def insert(self, table, rows):
        if self.down:
            raise UnavailableError("it is down", reason="ANALYTICS")
        self.seen.update(row.row_id for row in rows)
        return []


async def main():
    sink = Sink()
    async with AnalyticsBuffer(sink, DISK / "j", observer=Counts()) as buffer:

        async def note(count):
            for _ in range(count):
                buffer.answered(
                    PLAN, answer("n"), CONTEXT, operation="enrich", outcome="ok", seconds=0.1
                )

        ballast = DISK / "ballast"
        ballast.write_bytes(bytes(3 << 20))
        await note(3000)
        kept = buffer.waiting
        assert 0 < kept < 3000, kept
        assert counted["dropped"] == 3000 - kept, counted
        ballast.unlink()
        await note(500)
        assert buffer.waiting == kept + 500, (buffer.waiting, kept)
        sink.down = False
        await eventually(lambda: not buffer.waiting, within=30)
        assert len(sink.seen) == kept + 500, (len(sink.seen), kept)


asyncio.run(main())
"""


def test_a_disk_that_is_full_drops_rows_counts_them_and_goes_on_with_room(tmp_path: Path) -> None:
    """On a real small disk: what it took is whole, and each row that it refused is counted."""
    small_disk.run(tmp_path, _FULL)


async def test_no_row_is_lost_or_counted_twice_by_an_outage_with_kills(tmp_path: Path) -> None:
    """Down, killed, down again, back, killed while it recovers: each row counts once."""
    found = await outage(tmp_path / "j", 3000)

    assert found.told >= 2900
    assert (found.lost, found.twice) == (0, 0)
