from dataclasses import replace

from liner.v1 import enrichment_pb2, track_pb2
from liner_server.audio.measurements import Listening
from liner_server.core.rules.across_batch import across_batch
from liner_server.evaluation import catalogue

_A, _B = catalogue.clean(1), catalogue.clean(2)


def _copy(track: track_pb2.Track, **values: str) -> track_pb2.Track:
    copy = track_pb2.Track()
    copy.CopyFrom(track)
    for name, value in values.items():
        setattr(copy, name, value)
    return copy


def _heard(sha: str, seconds: float = 200.0, fingerprint: bytes = b"") -> Listening:
    well = catalogue.heard(_A)
    audio = replace(well.format, sha256=sha * 32, duration_seconds=seconds)
    return replace(well, format=audio, fingerprint=fingerprint)


def _found(pairs: list[tuple[int, enrichment_pb2.ValidationIssue]]) -> list[tuple[int, str]]:
    return [(index, issue.rule_id) for index, issue in pairs]


def test_one_isrc_on_two_recordings_is_found() -> None:
    """Royalties of one would be paid to the other."""
    other = _copy(_B, isrc=_A.isrc, upc="")
    batch = [(_A, _heard("aa")), (other, _heard("bb", 240.0))]

    assert (1, "BATCH_ISRC_REUSED") in _found(across_batch(batch))


def test_two_encodings_of_one_recording_may_share_an_isrc() -> None:
    """A digest tells files apart, not recordings; the fingerprint decides."""
    other = _copy(_A, album="Best Of", upc="", release_date=_A.release_date)
    batch = [(_A, _heard("aa", fingerprint=b"x")), (other, _heard("bb", fingerprint=b"x"))]

    assert _found(across_batch(batch, same_recording=lambda a, b: a == b)) == []


def test_one_recording_under_two_isrcs_is_found() -> None:
    """Plays are split over two codes."""
    batch = [(_A, _heard("aa")), (_copy(_A, isrc=_B.isrc, upc="", album="x"), _heard("aa"))]

    assert (1, "BATCH_AUDIO_REUSED") in _found(across_batch(batch))


def test_an_artist_spelled_two_ways_is_found_where_it_is_rare() -> None:
    """The usual spelling is shown, and only the odd ones are flagged."""
    names = ["Beyonce Knowles", "Beyoncé Knowles", "Beyoncé Knowles", "Solange Knowles"]
    batch = [
        (track_pb2.Track(title=f"t{i}", artists=[track_pb2.Artist(name=name)]), None)
        for i, name in enumerate(names)
    ]

    assert _found(across_batch(batch)) == [(0, "BATCH_ARTIST_SPELLING")]


def test_a_title_twice_in_a_release_and_two_years_of_one_release_are_found() -> None:
    """Both make one of the two tracks wrong."""
    dated = [_copy(_A, release_date="2020"), _copy(_A, release_date="2020", isrc="", title="Other")]
    twice = [*dated, _copy(_A, release_date="2021", isrc="")]

    found = _found(across_batch([(track, None) for track in twice]))

    assert (2, "BATCH_TITLE_TWICE") in found
    assert (2, "BATCH_YEAR_CONFLICT") in found
