"""EnrichmentService over a real channel: the main job, and every bad request's own status."""

import math
from pathlib import Path

import grpc
import pytest
from google.protobuf import field_mask_pb2
from liner.v1 import enrichment_pb2, storage_pb2, track_pb2
from liner_server.evaluation.encode import write
from liner_server.evaluation.synth import Piece, render
from support.grpc_errors import fails
from support.server import Stubs

INVALID = grpc.StatusCode.INVALID_ARGUMENT
PIECE = Piece(bpm=120.0, key="A minor", seconds=12.0, style="rock", seed=3)


@pytest.fixture(scope="module")
def song(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve seconds of music of known tempo and key, small enough to send inline."""
    path = tmp_path_factory.mktemp("audio") / "song.ogg"
    write(path, render(PIECE), 44_100, tags={"title": "Tagged Title", "bpm": "60"})
    return path


def request_for(**track: object) -> enrichment_pb2.EnrichMetadataRequest:
    """Return a request for a track with these fields."""
    return enrichment_pb2.EnrichMetadataRequest(track=track_pb2.Track(**track))


async def upload(stubs: Stubs, name: str, data: bytes) -> None:
    """Store an object as a client would."""

    async def frames():
        yield storage_pb2.UploadRequest(spec=storage_pb2.UploadSpec(object_name=name))
        for at in range(0, len(data), 1 << 19):
            chunk = storage_pb2.Chunk(offset=at, data=data[at : at + (1 << 19)])
            yield storage_pb2.UploadRequest(chunk=chunk)
        yield storage_pb2.UploadRequest(finish=storage_pb2.UploadFinish())

    await stubs.storage.Upload(frames())


async def test_audio_is_heard_and_every_field_has_its_evidence(stubs: Stubs, song: Path):
    """The main job, through the front door, with audio that was uploaded once."""
    await upload(stubs, "in/song.ogg", song.read_bytes())

    answer = await stubs.enrichment.EnrichMetadata(
        request_for(title="Given", audio=track_pb2.Audio(object_name="in/song.ogg")), timeout=30
    )

    fields = {result.field: result for result in answer.fields}
    assert fields["title"].decision == track_pb2.DECISION_KEPT
    assert fields["bpm"].source == track_pb2.SOURCE_MEASURED
    assert float(fields["bpm"].value) == pytest.approx(PIECE.bpm, rel=0.04)
    assert fields["key"].value == PIECE.key
    assert "60" in {alternative.value for alternative in fields["bpm"].alternatives}
    assert answer.track.properties.duration.ToTimedelta().total_seconds() == pytest.approx(
        PIECE.seconds, abs=0.2
    )
    assert answer.track.properties.container == "ogg"
    assert -60 < answer.track.properties.integrated_loudness_lufs < 0
    assert answer.processing.model == "embedded"
    assert answer.processing.model_version
    assert answer.processing.processing_time.ToTimedelta().total_seconds() > 0
    assert all(0 <= result.confidence <= 1 for result in answer.fields)
    assert all(result.reason for result in answer.fields)


async def test_the_same_question_is_answered_from_memory(stubs: Stubs, song: Path):
    """Retries and doubles in a catalogue must not be listened to twice."""
    request = request_for(audio=track_pb2.Audio(inline=song.read_bytes()))

    first = await stubs.enrichment.EnrichMetadata(request, timeout=30)
    again = await stubs.enrichment.EnrichMetadata(request, timeout=30)
    request.options.skip_cache = True
    anew = await stubs.enrichment.EnrichMetadata(request, timeout=30)

    assert [a.processing.from_cache for a in (first, again, anew)] == [False, True, False]
    assert again.fields == first.fields
    assert again.processing.enrichment_id == first.processing.enrichment_id


async def test_only_the_fields_asked_for_are_answered(stubs: Stubs, song: Path):
    """A caller who wants the key pays for no more and reads no more."""
    request = request_for(title="A", audio=track_pb2.Audio(inline=song.read_bytes()))
    request.options.fields.CopyFrom(field_mask_pb2.FieldMask(paths=["key"]))

    answer = await stubs.enrichment.EnrichMetadata(request, timeout=30)

    assert [result.field for result in answer.fields] == ["key"]
    assert not answer.track.HasField("bpm")
    assert not answer.track.HasField("properties")


async def test_metadata_chooses_the_model_and_names_the_request(stubs: Stubs):
    """`liner-model` and `liner-request-id` are honoured, and the id comes back."""
    call = stubs.enrichment.EnrichMetadata(
        request_for(title="A"),
        metadata=(("liner-model", "embedded"), ("liner-request-id", "ingest-7")),
    )

    assert (await call).processing.model == "embedded"
    assert ("liner-request-id", "ingest-7") in list(await call.trailing_metadata())
    async with fails(INVALID) as failure:
        await stubs.enrichment.EnrichMetadata(
            request_for(title="A"), metadata=(("liner-model", "gpt-9"),)
        )
    assert failure.violations == {"options.model": "MODEL_UNKNOWN"}


async def test_validation_needs_no_audio_and_no_model(stubs: Stubs):
    """A team that only wants its ISRCs checked sends the text alone."""
    verdict = await stubs.enrichment.ValidateMetadata(
        enrichment_pb2.ValidateMetadataRequest(
            track=track_pb2.Track(
                title="Song", isrc="not an isrc", artists=[track_pb2.Artist(name="Ana")]
            )
        )
    )

    assert any(issue.rule_id.startswith("ISRC") for issue in verdict.issues)
    assert verdict.scores.identifiers < 1
    assert verdict.scores.completeness == 1
    assert not verdict.scores.HasField("audio_match")
    assert 0 <= verdict.confidence < 1


BAD: list[tuple[str, dict[str, object], dict[str, str]]] = [
    ("no title and no audio", {"album": "x"}, {"track": "TITLE_OR_AUDIO_REQUIRED"}),
    ("long text", {"title": "x" * 1025}, {"track.title": "TEXT_TOO_LONG"}),
    ("long in another script", {"title": "音" * 400}, {"track.title": "TEXT_TOO_LONG"}),
    ("not a number", {"title": "x", "bpm": math.nan}, {"track.bpm": "NUMBER_NOT_FINITE"}),
    ("infinite", {"title": "x", "energy": math.inf}, {"track.energy": "NUMBER_NOT_FINITE"}),
    ("many moods", {"title": "x", "moods": ["m"] * 101}, {"track.moods": "LIST_TOO_LONG"}),
    (
        "long artist",
        {"title": "x", "artists": [track_pb2.Artist(name="y" * 2000)]},
        {"track.artists[0].name": "TEXT_TOO_LONG"},
    ),
    (
        "audio that is nowhere",
        {"title": "x", "audio": track_pb2.Audio()},
        {"track.audio": "AUDIO_REQUIRED"},
    ),
    (
        "empty audio",
        {"title": "x", "audio": track_pb2.Audio(inline=b"")},
        {"track.audio.inline": "AUDIO_EMPTY"},
    ),
    (
        "too much inline",
        {"title": "x", "audio": track_pb2.Audio(inline=bytes((2 << 20) + 1))},
        {"track.audio.inline": "AUDIO_INLINE_TOO_LARGE"},
    ),
    (
        "unknown enum value",
        {"title": "x", "parental_warning": 77},
        {"track.parental_warning": "ENUM_UNKNOWN"},
    ),
    (
        "several at once",
        {"title": "x" * 1025, "bpm": math.nan},
        {"track.title": "TEXT_TOO_LONG", "track.bpm": "NUMBER_NOT_FINITE"},
    ),
]


@pytest.mark.parametrize(("track", "violations"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
async def test_a_bad_track_is_refused_with_every_fault_named(stubs: Stubs, track, violations):
    """The caller mends all faults in one round, not one a call."""
    async with fails(INVALID) as failure:
        await stubs.enrichment.EnrichMetadata(request_for(**track))

    assert failure.violations == violations
    assert failure.reason == "INVALID_REQUEST"
    assert failure.request_id


async def test_a_request_without_a_track_is_refused(stubs: Stubs):
    """Unset is not the same as empty."""
    async with fails(INVALID) as failure:
        await stubs.enrichment.EnrichMetadata(enrichment_pb2.EnrichMetadataRequest())

    assert failure.violations == {"track": "REQUIRED"}


@pytest.mark.parametrize("path", ["tempo", "audio", "properties.nothing", "artists.name", ""])
async def test_an_unknown_field_path_is_refused(stubs: Stubs, path: str):
    """A typo in a mask must not silently ask for nothing."""
    request = request_for(title="x")
    request.options.fields.paths.append(path)

    async with fails(INVALID) as failure:
        await stubs.enrichment.EnrichMetadata(request)

    assert failure.violations == {"options.fields": "FIELD_UNKNOWN"}


async def test_a_missing_object_is_not_found(stubs: Stubs):
    """NOT_FOUND with the object's name: the operator knows which upload was lost."""
    async with fails(grpc.StatusCode.NOT_FOUND) as failure:
        await stubs.enrichment.EnrichMetadata(
            request_for(audio=track_pb2.Audio(object_name="in/nothing.flac"))
        )

    assert failure.reason == "OBJECT_NOT_FOUND"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"#EXTM3U\nhttp://169.254.169.254/latest\n", "AUDIO_UNSUPPORTED"),
        (b"dear sir or madam " * 50, "AUDIO_UNSUPPORTED"),
        (b"fLaC" + bytes(300), "AUDIO_BROKEN"),
    ],
)
async def test_what_is_no_audio_is_refused_with_its_reason(stubs: Stubs, data: bytes, reason: str):
    """Playlists are never followed, text is never decoded, and nothing else is disturbed."""
    async with fails(INVALID) as failure:
        await stubs.enrichment.EnrichMetadata(
            request_for(title="x", audio=track_pb2.Audio(inline=data, file_name="x.mp3"))
        )
    healthy = await stubs.enrichment.EnrichMetadata(request_for(title="x"))

    assert failure.reason == reason
    assert healthy.track.title == "x"


async def test_a_message_over_the_limit_is_refused_before_it_is_read(stubs: Stubs):
    """4 MiB is the most a message may have; grpc itself says so."""
    request = request_for(title="x", audio=track_pb2.Audio(inline=bytes(5 << 20)))

    async with fails(grpc.StatusCode.RESOURCE_EXHAUSTED):
        await stubs.enrichment.EnrichMetadata(request)


async def test_a_short_deadline_ends_as_deadline_exceeded(stubs: Stubs, song: Path):
    """The caller's time is the caller's; the listening process is killed and replaced."""
    request = request_for(audio=track_pb2.Audio(inline=song.read_bytes()))

    async with fails(grpc.StatusCode.DEADLINE_EXCEEDED):
        await stubs.enrichment.EnrichMetadata(request, timeout=0.05)
    answer = await stubs.enrichment.EnrichMetadata(request, timeout=30)

    assert answer.processing.from_cache is False


async def test_models_and_flags_are_listed(stubs: Stubs):
    """An operator sees what answers and which switches are on."""
    listed = await stubs.enrichment.ListModels(enrichment_pb2.ListModelsRequest())

    assert [(m.name, m.ready, m.hears_audio) for m in listed.models] == [("embedded", True, True)]
    assert "bpm" in listed.models[0].fields
    assert listed.flags.enable_batch_processing


@pytest.mark.parametrize("body", [b"\xff\xff\xff", b"\x0a\x05\x0a\x03\xff\xfe\xfd"])
async def test_a_request_that_cannot_be_parsed_is_told_so(stubs: Stubs, body: bytes):
    """Some clients send text that is not UTF-8; they must learn that, and no exception's name."""
    raw = stubs.channel.unary_unary("/liner.v1.EnrichmentService/EnrichMetadata")

    async with fails(grpc.StatusCode.INVALID_ARGUMENT) as failure:
        await raw(body)

    assert failure.reason == "INVALID_REQUEST"
    assert set(failure.violations) == {"request"}


async def test_a_status_fits_into_what_a_client_accepts(stubs: Stubs):
    """Past 8 KiB of trailing metadata the reason would be lost for "metadata too large"."""
    options = enrichment_pb2.EnrichOptions()
    options.fields.paths.extend(["\U0001f600" * 64] * 100)
    request = enrichment_pb2.EnrichMetadataRequest(
        track=track_pb2.Track(title="x"), options=options
    )

    async with fails(grpc.StatusCode.INVALID_ARGUMENT) as failure:
        await stubs.enrichment.EnrichMetadata(request)

    assert set(failure.violations) == {"options.fields"}
