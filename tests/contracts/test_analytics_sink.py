"""What every backend of analytics promises: rows count once, and all count alike."""

import itertools
import math
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from liner.v1 import analytics_pb2
from liner_server.analytics.bigquery import BigQuerySink, Place
from liner_server.analytics.bigquery_setup import set_up
from liner_server.analytics.bigquery_write import BigQueryWriteSink
from liner_server.analytics.sqlite import SqliteSink
from liner_server.ports_analytics import AnalyticsSink, Assigned, Sums, Table, Window
from support.bigquery_fake import fake_bigquery
from support.bigquery_write_fake import bigquery_write_fake
from support.local_bigquery import local_bigquery

Open = Callable[[Path], AbstractAsyncContextManager[AnalyticsSink]]
START = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
_ids = itertools.count()


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The addresses of a local-bigquery, one for all tests: it takes seconds to start."""
    with local_bigquery(tmp_path_factory.mktemp("bigquery")) as addresses:
        yield addresses


@asynccontextmanager
async def sqlite(folder: Path) -> AsyncIterator[AnalyticsSink]:
    """Open the backend of one file."""
    async with SqliteSink(folder / "analytics.sqlite") as sink:
        yield sink


@asynccontextmanager
async def bigquery(address: str, write: str | None = None) -> AsyncIterator[AnalyticsSink]:
    """Open the backend of BigQuery on an emulator, in a dataset of its own; `write`: with the
    Storage Write API there.
    """
    place = Place(
        project="liner-test",
        dataset=f"d{next(_ids)}",
        emulator=address,
        write_emulator=write,
    )
    assert [part.state async for part in set_up(place)] == ["created"] * 4
    async with BigQueryWriteSink(place) if write else BigQuerySink(place) as sink:
        yield sink


@pytest.fixture(params=["sqlite", "fake", "fake-write", "local-bigquery", "local-bigquery-write"])
async def sink(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[AnalyticsSink]:
    """The backend under test, empty."""
    if request.param == "sqlite":
        async with sqlite(tmp_path) as opened:
            yield opened
    elif request.param == "fake":
        with fake_bigquery() as (_, address):
            async with bigquery(address) as opened:
                yield opened
    elif request.param == "fake-write":
        with fake_bigquery() as (kept, address):
            async with bigquery_write_fake(kept) as write, bigquery(address, write) as opened:
                yield opened
    else:
        rest, write = request.getfixturevalue("emulator")
        async with bigquery(rest, write if request.param.endswith("write") else None) as opened:
            yield opened


def micros(time: datetime) -> int:
    """Return a time as rows have it."""
    return (time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def answer(
    name: str,
    variant: str = "control",
    *,
    at: float = 0,
    success: bool = True,
    **columns: object,
) -> analytics_pb2.ExperimentRow:
    """Return the row of an answer, `at` so many seconds after START."""
    columns = {"track": name, "experiment": "e", "confidence": 0.9, "row_id": name, **columns}
    return analytics_pb2.ExperimentRow(
        time=micros(START + timedelta(seconds=at)),
        variant=variant,
        allocation="control=0.5,experimental=0.5",
        success=success,
        **columns,  # type: ignore[arg-type]
    )


def judged(
    name: str,
    *,
    accepted: bool,
    enrichment: str,
    field: str = "genre",
    variant: str = "control",
    at: float = 0,
    confidence: float = 0.85,
) -> analytics_pb2.OutcomeRow:
    """Return the row of a judgement."""
    return analytics_pb2.OutcomeRow(
        row_id=name,
        time=micros(START + timedelta(seconds=at)),
        enrichment_id=enrichment,
        track=f"track of {enrichment}",
        experiment="e",
        variant=variant,
        field=field,
        verdict="ACCEPT" if accepted else "REJECT",
        accepted=accepted,
        confidence=confidence,
        reviewer="ana",
        scores=[analytics_pb2.JudgedScore(model="qwen2:m", score=0.7, right=accepted)],
    )


def window(*, hours: float = 24) -> Window:
    """Return the hours from START."""
    return Window(experiment="e", start=START, end=START + timedelta(hours=hours), width=HOUR)


async def insert(sink: AnalyticsSink, *rows: object) -> None:
    """Store rows, each in its table, and expect that all are taken."""
    for row in rows:
        table = {
            analytics_pb2.ExperimentRow: Table.EXPERIMENTS,
            analytics_pb2.OutcomeRow: Table.OUTCOMES,
            analytics_pb2.TrafficRow: Table.TRAFFIC,
        }[type(row)]  # type: ignore[index]
        assert await sink.insert(table, [row]) == []  # type: ignore[list-item]


async def test_a_judgement_is_the_same_without_the_bins(sink: AnalyticsSink) -> None:
    """Guardrails are looked at all day and need no distributions."""
    await insert(sink, answer("a1"), judged("j1", accepted=True, enrichment="x"))

    whole = await sink.tally(window())
    short = await sink.tally(window(), bins=False)

    assert whole.seconds
    assert whole.confidence
    assert whole.reliability
    assert short == replace(whole, seconds=(), confidence=(), reliability=())


async def test_nothing_stored_counts_nothing(sink: AnalyticsSink) -> None:
    """The first report of an experiment is an empty one, not an error."""
    tally = await sink.tally(window())

    assert (tally.periods, tally.reviewed, tally.assigned) == ([], [], [])
    assert await sink.traffic() == []
    assert [row async for row in sink.outcomes(start=START)] == []


async def test_answers_are_summed_by_variant_and_period(sink: AnalyticsSink) -> None:
    """These sums are all that intervals and guardrails are made of."""
    await sink.insert(
        Table.EXPERIMENTS,
        [
            answer("a", processing_seconds=1.0, cost_usd=0.25, fallback_used=True),
            answer("b", processing_seconds=3.0, confidence=0.5, checked_fields=4, agreed_fields=3),
            answer("c", success=False, error_code="DEADLINE", confidence=0.0),
            answer("d", at=3700, processing_seconds=2.0),
            answer("e", "experimental", processing_seconds=0.5),
        ],
    )

    periods = {(p.variant, p.period): p for p in (await sink.tally(window())).periods}

    assert set(periods) == {("control", 0), ("control", 1), ("experimental", 0)}
    first = periods["control", 0]
    assert first.success == Sums(count=3, total=2, squares=2)
    assert (first.confidence.count, first.confidence.total) == (2, pytest.approx(1.4))
    assert first.confidence.squares == pytest.approx(0.81 + 0.25)
    assert first.seconds == Sums(count=3, total=4.0, squares=10.0)
    assert first.cost == Sums(count=3, total=0.25, squares=0.0625)
    assert first.agreement == Sums(count=1, total=0.75, squares=0.5625)
    assert first.fallbacks == 1


async def test_a_row_that_comes_twice_counts_once(sink: AnalyticsSink) -> None:
    """Rows are delivered at least once: after a crash the last ones come again."""
    rows = [answer("a"), answer("b", "experimental")]
    await sink.insert(Table.EXPERIMENTS, rows)
    await sink.insert(Table.EXPERIMENTS, [*rows, answer("c")])
    said = judged("j", accepted=True, enrichment="x")
    await insert(sink, said, said)

    tally = await sink.tally(window())

    assert {p.variant: p.success.count for p in tally.periods} == {"control": 2, "experimental": 1}
    assert [(r.fields, r.accepted_fields) for r in tally.reviewed] == [(1, 1)]
    assert len([row async for row in sink.outcomes(start=START)]) == 1


async def test_a_track_counts_once_by_its_first_answer(sink: AnalyticsSink) -> None:
    """Answers about one track are alike: counted apart they would look like more evidence."""
    await sink.insert(
        Table.EXPERIMENTS,
        [
            answer("later", track="t", at=20, success=False, error_code="MODEL"),
            answer("first", track="t", at=10),
            answer("known", track="t", at=5, from_cache=True, confidence=0.1),
        ],
    )

    tally = await sink.tally(window())

    assert [(p.success.count, p.success.total) for p in tally.periods] == [(1, 1)]
    assert tally.assigned == [
        Assigned(allocation="control=0.5,experimental=0.5", variant="control", tracks=1)
    ]


async def test_all_tracks_that_were_drawn_are_counted(sink: AnalyticsSink) -> None:
    """The ratio of samples must see failures and known answers, or it would find them missing."""
    await sink.insert(
        Table.EXPERIMENTS,
        [
            answer("a", from_cache=True),
            answer("b", success=False, error_code="ABORTED"),
            answer("c", "experimental"),
            answer("none", "", experiment=""),
        ],
    )

    assigned = (await sink.tally(window())).assigned

    assert {one.variant: one.tracks for one in assigned} == {"control": 2, "experimental": 1}


async def test_only_the_window_counts(sink: AnalyticsSink) -> None:
    """A report of one day is of that day, its first instant in and its last one out."""
    await sink.insert(
        Table.EXPERIMENTS,
        [answer("before", at=-0.000001), answer("first", at=0), answer("end", at=3600)],
    )

    tally = await sink.tally(window(hours=1))

    assert sum(p.success.count for p in tally.periods) == 1


async def test_times_and_confidences_fall_into_bins(sink: AnalyticsSink) -> None:
    """Quantiles and histograms come from these; 0 and 1 have their places too."""
    await sink.insert(
        Table.EXPERIMENTS,
        [
            answer("a", confidence=0.0, processing_seconds=0.0),
            answer("b", confidence=1.0, processing_seconds=1.0),
            answer("c", confidence=0.501, processing_seconds=1.0),
        ],
    )

    tally = await sink.tally(window())

    assert {b.bin: b.count for b in tally.confidence} == {0: 1, 10: 1, 19: 1}
    slowest = max(tally.seconds, key=lambda b: b.bin)
    assert (slowest.bin, slowest.count) == (math.floor(math.log(1.0001) / math.log(1.02)), 2)


async def test_the_newest_judgement_of_a_field_counts(sink: AnalyticsSink) -> None:
    """An editor who thinks again is believed, and is still one editor."""
    await insert(
        sink,
        judged("one", accepted=True, enrichment="x", at=1),
        judged("two", accepted=False, enrichment="x", at=2),
        judged("other", accepted=True, enrichment="x", field="moods", at=3),
        judged("third", accepted=True, enrichment="y", at=4, confidence=0.2),
    )

    tally = await sink.tally(window())

    [reviewed] = tally.reviewed
    assert (reviewed.fields, reviewed.accepted_fields) == (3, 2)
    assert reviewed.accepted == Sums(count=2, total=1.5, squares=1.25)
    assert {b.bin: (b.count, b.accepted) for b in tally.reliability} == {2: (1, 1), 8: (2, 1)}
    found = {row.row_id: row async for row in sink.outcomes(start=START)}
    assert set(found) == {"two", "other", "third"}
    assert found["two"] == judged("two", accepted=False, enrichment="x", at=2)


async def test_a_row_without_an_id_is_refused_and_spoils_no_other(sink: AnalyticsSink) -> None:
    """One bad row among two hundred must not keep the rest waiting for ever."""
    refused = await sink.insert(
        Table.EXPERIMENTS, [answer("a"), answer("b", row_id=""), answer("c", at=1)]
    )

    assert [one.index for one in refused] == [1]
    assert refused[0].reason
    assert sum(p.success.count for p in (await sink.tally(window())).periods) == 2


async def test_changes_of_shares_come_back_in_order(sink: AnalyticsSink) -> None:
    """The newest one is in force, so the order is what matters."""
    rows = [
        analytics_pb2.TrafficRow(
            row_id=f"r{number}",
            time=micros(START) + number,
            experiment="e",
            variant="experimental",
            traffic=number / 10,
            principal="ana",
            reason='a "quoted" reason; DROP TABLE x --',
            stopped=number == 2,
        )
        for number in (2, 0, 1)
    ]
    await sink.insert(Table.TRAFFIC, rows)

    assert await sink.traffic() == sorted(rows, key=lambda row: row.time)


@pytest.mark.parametrize(
    "text",
    ["Beyonc\u00e9 \u2014 \u6771\u4eac", "a'b\"c\\d", "line\nbreak\ttab", "@experiment {x} `"],
)
async def test_what_callers_typed_is_only_text(sink: AnalyticsSink, text: str) -> None:
    """Request ids and plain track ids are callers' own; none of them is part of a statement."""
    said = judged("one", accepted=True, enrichment="x")
    said.track = said.reviewer = text
    await insert(sink, answer("a", track=text, request_id=text), said)

    assert [row async for row in sink.outcomes(start=START)] == [said]
    assert sum(p.success.count for p in (await sink.tally(window())).periods) == 1
