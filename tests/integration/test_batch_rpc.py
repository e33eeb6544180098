"""BatchProcess over a real channel: order, limits, faults, cancelling, resuming, draining."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import grpc
import pytest
from google.rpc import code_pb2
from liner.v1 import enrichment_pb2, track_pb2
from support.grpc_errors import fails
from support.server import Stubs, served

INVALID = grpc.StatusCode.INVALID_ARGUMENT
Request = enrichment_pb2.BatchProcessRequest


def config(**options: object) -> Request:
    """Return the first message of a batch."""
    return Request(config=enrichment_pb2.BatchConfig(**options))


def items(*ids: str, **track: object) -> Request:
    """Return a message of items that have these ids and a title."""
    fields = {"title": "x", **track}
    return Request(
        items=enrichment_pb2.BatchItems(
            items=[
                enrichment_pb2.BatchItem(item_id=name, track=track_pb2.Track(**fields))
                for name in ids
            ]
        )
    )


class Seen:
    """Everything a stream sent, sorted by kind."""

    def __init__(self) -> None:
        self.opened: enrichment_pb2.BatchOpened | None = None
        self.results: list[enrichment_pb2.BatchResult] = []
        self.progress: list[enrichment_pb2.BatchProgress] = []
        self.summary: enrichment_pb2.BatchSummary | None = None
        self.draining: enrichment_pb2.BatchDraining | None = None

    def add(self, response: enrichment_pb2.BatchProcessResponse) -> None:
        """Take one message in."""
        kind = response.WhichOneof("response")
        if kind == "results":
            self.results.extend(response.results.results)
        elif kind == "progress":
            self.progress.append(response.progress)
        elif kind is not None:
            setattr(self, kind, getattr(response, kind))

    @property
    def errors(self) -> dict[str, str]:
        """Reasons of failed items by id."""
        return {r.item_id: r.error.reason for r in self.results if r.HasField("error")}


async def run(stubs: Stubs, requests: Iterable[Request]) -> Seen:
    """Send a whole batch and return what came back."""
    seen = Seen()
    async for response in stubs.enrichment.BatchProcess(iter(requests)):
        seen.add(response)
    return seen


async def test_every_item_is_answered_once_and_counted(stubs: Stubs):
    """Half-closing means "no more": all results, a last progress, the summary, OK."""
    ids = [f"t{n}" for n in range(450)]

    seen = await run(stubs, [config(), items(*ids[:200]), items(*ids[200:400]), items(*ids[400:])])

    assert seen.opened is not None
    assert seen.opened.batch_id
    assert sorted(r.item_id for r in seen.results) == sorted(ids)
    assert [r.sequence for r in seen.results] == list(range(1, 451))
    assert seen.summary is not None
    assert (seen.summary.received, seen.summary.succeeded, seen.summary.failed) == (450, 450, 0)
    assert (seen.progress[-1].finished, seen.progress[-1].in_flight) == (450, 0)


async def test_one_bad_item_does_not_disturb_the_others(stubs: Stubs):
    """Each failure comes back as that item's error, with its reason and its violations."""
    seen = await run(
        stubs,
        [
            config(),
            items("good"),
            items("", title="no id"),
            items("empty", title=""),
            items("lost", audio=track_pb2.Audio(object_name="no/such.flac")),
            items("text", audio=track_pb2.Audio(inline=b"hello " * 99, file_name="x.mp3")),
            items("good"),
            items("last"),
        ],
    )

    assert [r.item_id for r in seen.results if r.HasField("enriched")].count("good") == 1
    assert "last" in {r.item_id for r in seen.results if r.HasField("enriched")}
    assert seen.errors == {
        "": "INVALID_REQUEST",
        "empty": "INVALID_REQUEST",
        "lost": "OBJECT_NOT_FOUND",
        "text": "AUDIO_UNSUPPORTED",
        "good": "INVALID_REQUEST",
    }
    double = next(r for r in seen.results if r.item_id == "good" and r.HasField("error"))
    assert [v.reason for v in double.error.violations] == ["ITEM_ID_DUPLICATE"]
    assert seen.summary is not None
    assert dict(seen.summary.failed_by_reason)["INVALID_REQUEST"] == 3


async def test_results_come_in_order_when_asked(stubs: Stubs, tmp_path: Path):
    """Slow first, fast after: an ordered batch holds the fast ones back."""
    broken = track_pb2.Audio(inline=b"fLaC" + bytes(999))
    fast = [f"fast{n}" for n in range(30)]

    seen = await run(stubs, [config(ordered=True), items("slow", audio=broken), items(*fast)])

    assert [r.item_id for r in seen.results] == ["slow", *fast]


@pytest.mark.parametrize(
    ("requests", "reason"),
    [
        ([items("a")], {"config": "CONFIG_FIRST"}),
        ([], {"config": "CONFIG_FIRST"}),
        ([config(), config()], {"config": "CONFIG_TWICE"}),
        ([config(), Request()], {"request": "REQUIRED"}),
        ([config(), items(*map(str, range(201)))], {"items": "TOO_MANY_ITEMS"}),
        ([config(batch_id="a b")], {"config.batch_id": "BATCH_ID_FORMAT"}),
        ([config(max_in_flight=-1)], {"config.max_in_flight": "NUMBER_RANGE"}),
    ],
)
async def test_a_broken_protocol_ends_the_stream_with_its_reason(stubs: Stubs, requests, reason):
    """Only the stream's own rules end the stream, and say which one was broken."""
    async with fails(INVALID) as failure:
        await run(stubs, requests)

    assert failure.violations == reason


async def test_no_more_items_are_read_than_may_be_open(tmp_path: Path):
    """A sender that does not read its results is slowed, and memory stays flat."""
    async with served(tmp_path, batch_max_in_flight=4) as (_, stubs):
        sent = 0

        async def flood() -> AsyncIterator[Request]:
            nonlocal sent
            yield config()
            for n in range(5000):
                # Big answers, so that the transport's own window fills up too.
                yield items(f"t{n}", lyrics="la " * 20_000)
                sent += 1

        call = stubs.enrichment.BatchProcess(flood())
        opened = await call.read()
        before = -1
        while before != sent:
            # Waiting until nothing more goes out is the point: there is no event for "stuck".
            before = sent
            await asyncio.sleep(0.5)
        call.cancel()

    assert opened.opened.max_in_flight == 4
    assert 4 <= sent < 1000


async def test_a_cancelled_batch_answers_every_open_item(stubs: Stubs):
    """After cancel: results of what was open, as CANCELLED, then a summary that says so."""
    slow = items("slow", audio=track_pb2.Audio(inline=b"RIFF" + bytes(40)))

    seen = await run(
        stubs,
        [config(), slow, Request(cancel=enrichment_pb2.BatchCancel(reason="wrong folder"))],
    )

    assert seen.summary is not None
    assert seen.summary.cancelled
    assert [r.item_id for r in seen.results] == ["slow"]
    assert seen.results[0].error.code in (code_pb2.CANCELLED, code_pb2.INVALID_ARGUMENT)


async def test_a_broken_stream_goes_on_where_it_stopped(stubs: Stubs):
    """The client names the last result it has; it gets the missed ones and nothing twice."""
    ids = [f"t{n}" for n in range(40)]
    first = Seen()

    async def forever() -> AsyncIterator[Request]:
        yield config(batch_id="night-1")
        yield items(*ids)
        await asyncio.Event().wait()

    call = stubs.enrichment.BatchProcess(forever())
    while len(first.results) < 40:
        first.add(await call.read())
    call.cancel()
    had = sorted(first.results, key=lambda r: r.sequence)[:25]

    async def again() -> Seen:
        while True:
            try:
                return await run(
                    stubs,
                    [
                        config(batch_id="night-1", resume_after=25),
                        items(*(set(ids) - {r.item_id for r in had})),
                        items("new"),
                    ],
                )
            except grpc.aio.AioRpcError as error:
                if "open on another stream" not in (error.details() or ""):
                    raise
                # The server has not yet seen that the first stream is gone.
                await asyncio.sleep(0.01)

    second = await again()

    assert second.opened is not None
    assert second.opened.resumed == 15
    assert [r.sequence for r in second.results] == list(range(26, 42))
    got = [r.item_id for r in had] + [r.item_id for r in second.results]
    assert sorted(got) == sorted([*ids, "new"])


async def test_a_resume_point_that_is_gone_is_refused(stubs: Stubs):
    """Better a clear refusal than a batch with a hole in it."""
    async with fails(grpc.StatusCode.FAILED_PRECONDITION) as failure:
        await run(stubs, [config(batch_id="never-seen", resume_after=7)])

    assert failure.reason == "RESUME_POINT_LOST"


async def test_a_stopping_server_finishes_what_is_open_and_says_where_to_go_on(tmp_path: Path):
    """SIGTERM in the middle of a night's ingest loses nothing."""
    async with served(tmp_path) as (app, stubs):
        seen = Seen()

        async def endless() -> AsyncIterator[Request]:
            yield config(batch_id="b")
            yield items(*(f"t{n}" for n in range(20)))
            await asyncio.Event().wait()

        call = stubs.enrichment.BatchProcess(endless())
        while len(seen.results) < 20:
            seen.add(await call.read())
        stopping = asyncio.create_task(app.stop())
        while (response := await call.read()) is not grpc.aio.EOF:
            seen.add(response)
        await stopping

        assert await call.code() == grpc.StatusCode.OK
    assert seen.draining is not None
    assert (seen.draining.batch_id, seen.draining.last_sequence) == ("b", 20)


async def test_the_flag_closes_the_door(tmp_path: Path):
    """ENABLE_BATCH_PROCESSING off: refused with the flag's name, unary calls go on."""
    async with (
        served(tmp_path, enable_batch_processing=False) as (_, stubs),
        fails(grpc.StatusCode.FAILED_PRECONDITION) as failure,
    ):
        await run(stubs, [config()])

    assert failure.reason == "BATCH_PROCESSING_OFF"


async def test_a_config_with_absurd_times_is_the_callers_fault(stubs: Stubs):
    """No number of seconds may be an error of the server's."""
    absurd = {"seconds": 10**18}

    async with fails(INVALID) as failure:
        await run(stubs, [config(item_timeout=absurd, progress_interval=absurd)])

    assert set(failure.violations) == {"config.item_timeout", "config.progress_interval"}


async def test_a_message_that_is_none_ends_its_stream_with_a_reason(stubs: Stubs):
    """What was answered before it stays answered; the server has nothing to look into."""
    raw = stubs.channel.stream_stream(
        "/liner.v1.EnrichmentService/BatchProcess",
        response_deserializer=enrichment_pb2.BatchProcessResponse.FromString,
    )

    async with fails(INVALID) as failure:
        async for _ in raw(iter([config().SerializeToString(), b"\xff\xff\xff"])):
            pass

    assert failure.reason == "INVALID_REQUEST"
