import random
from dataclasses import replace

import pytest
from liner.v1 import enrichment_pb2, track_pb2
from liner_server.audio.fingerprint import VERSION
from liner_server.core.rules.across_batch import RULE_IDS, across_batch
from liner_server.core.rules.batch_memory import BatchMemory, audio_identity, entry_of
from liner_server.evaluation import catalogue

_A, _B = catalogue.clean(1), catalogue.clean(2)
_ISNIS = (_A.artists[0].isni, _B.artists[0].isni)


def _copy(track: track_pb2.Track, **values: str) -> track_pb2.Track:
    copy = track_pb2.Track()
    copy.CopyFrom(track)
    for name, value in values.items():
        setattr(copy, name, value)
    return copy


def _sound(seed: int) -> bytes:
    """A fingerprint of a minute of something; of another seed, of something else."""
    return bytes([VERSION]) + random.Random(seed).randbytes(4 * 480)


def _heard(
    sha: str, seconds: float = 200.0, fingerprint: bytes = b""
) -> enrichment_pb2.AudioIdentity:
    well = catalogue.heard(_A)
    audio = replace(well.format, sha256=sha * 32, duration_seconds=seconds)
    return audio_identity(replace(well, format=audio, fingerprint=fingerprint))


def _found(
    *items: tuple[track_pb2.Track, enrichment_pb2.AudioIdentity | None],
) -> list[tuple[int, str]]:
    entries = [entry_of(f"item {i}", track, audio) for i, (track, audio) in enumerate(items)]
    return [(index, issue.rule_id) for index, issue in across_batch(entries)]


def _by(name: str, **values: str) -> tuple[track_pb2.Track, None]:
    return track_pb2.Track(title=name, artists=[track_pb2.Artist(name=name, **values)]), None


def test_a_clean_catalogue_says_nothing_against_itself() -> None:
    """Other tracks by other artists on other releases have nothing to contradict."""
    tracks = [catalogue.clean(seed) for seed in range(500)]

    assert _found(*((track, None) for track in tracks)) == []


def test_one_isrc_on_two_recordings_is_found() -> None:
    """Royalties of one would be paid to the other."""
    other = _copy(_B, isrc=_A.isrc, upc="")

    assert (1, "BATCH_ISRC_REUSED") in _found((_A, _heard("aa")), (other, _heard("bb", 240.0)))
    assert (1, "BATCH_ISRC_REUSED") in _found((_A, None), (other, None))
    assert (1, "BATCH_ISRC_REUSED") in _found(
        (_A, _heard("aa", 200, _sound(1))), (other, _heard("bb", 201, _sound(2)))
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("Song", "Radio Edit"), ("Song (Radio Edit)", "")),
        (("Song", ""), ("Song (feat. Ann Weiss)", "")),
        (("Song", ""), ("Song - 2011 Remaster", "")),
        (("Song", ""), ("Song", "Album Version")),
        (("東京", ""), ("Tokyo", "")),
    ],
)
def test_one_recording_may_be_called_two_ways_under_one_isrc(
    one: tuple[str, str], other: tuple[str, str]
) -> None:
    """A single and its album share the code; an editor must not be told of a refused delivery."""
    tracks = [_copy(_A, title=t, version_title=v, upc="", album="") for t, v in (one, other)]

    assert "BATCH_ISRC_REUSED" not in {rule for _, rule in _found(*((t, None) for t in tracks))}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("Song", ""), ("Song", "Radio Edit")),
        (("Song", "Clean"), ("Song", "Explicit")),
        (("バード", ""), ("ハート", "")),
        (("Prelude in C Minor", ""), ("Prelude in C# Minor", "")),
    ],
)
def test_two_versions_under_one_isrc_are_found(
    one: tuple[str, str], other: tuple[str, str]
) -> None:
    """An edit, a clean version, another piece: each needs a code of its own."""
    tracks = [_copy(_A, title=t, version_title=v, upc="", album="") for t, v in (one, other)]

    assert (1, "BATCH_ISRC_REUSED") in _found(*((t, None) for t in tracks))


def test_two_artists_intros_under_one_isrc_are_found() -> None:
    """The commonest titles are those that a code pasted twice hides behind."""

    def intro(name: str) -> tuple[track_pb2.Track, None]:
        artist = track_pb2.Artist(name=name)
        return track_pb2.Track(title="Intro", isrc=_A.isrc, artists=[artist]), None

    assert _found(intro("Ann Weiss"), intro("Omar Diaz")) == [(1, "BATCH_ISRC_REUSED")]
    assert _found(intro("Ann Weiss"), intro("Ann Weiss Band")) == []
    assert _found(intro("宇多田ヒカル"), intro("Hikaru Utada")) == []


def test_two_encodings_of_one_recording_may_share_an_isrc() -> None:
    """A digest tells files apart, not recordings; the fingerprint decides."""
    other = _copy(_A, album="Best Of", upc="", release_date=_A.release_date)

    assert _found((_A, _heard("aa", 200, _sound(1))), (other, _heard("bb", 200.1, _sound(1)))) == []


def test_one_recording_under_two_isrcs_is_found() -> None:
    """Plays are split over two codes, whether the file is the same or only the sound."""
    other = _copy(_A, isrc=_B.isrc, upc="", album="x")

    assert (1, "BATCH_AUDIO_REUSED") in _found((_A, _heard("aa")), (other, _heard("aa")))
    assert (1, "BATCH_AUDIO_REUSED") in _found(
        (_A, _heard("aa", 200, _sound(1))), (other, _heard("bb", 201, _sound(1)))
    )
    assert _found((_A, _heard("aa", 200, _sound(1))), (other, _heard("bb", 201, _sound(2)))) == []


def test_an_artist_spelled_two_ways_is_found_where_it_is_rare() -> None:
    """The usual spelling is shown, and only the odd ones are flagged."""
    names = ["Beyonce Knowles", "Beyoncé Knowles", "Beyoncé Knowles", "Solange Knowles"]

    assert _found(*map(_by, names)) == [(0, "BATCH_ARTIST_SPELLING")]


def test_of_equally_frequent_spellings_the_tidier_is_taken_for_the_usual_one() -> None:
    """Nobody should be told to write a name in capitals because two tracks disagree."""
    for names in (["ANN WEISS", "Ann Weiss"], ["Ann Weiss", "ANN WEISS"]):
        odd = names.index("ANN WEISS")

        assert _found(*map(_by, names)) == [(odd, "BATCH_ARTIST_SPELLING")]


def test_places_are_those_of_the_track_though_an_artist_has_no_name() -> None:
    """A path that is one off would have somebody else's credit changed."""
    tracks = [track_pb2.Track(title=str(i)) for i in range(3)]
    for track, name in zip(tracks, ("Ann Weiss", "Ann Weiss", "ann weiss"), strict=True):
        track.artists.add(name=" ", isni=_ISNIS[0])
        track.artists.add(name=name)
    entries = [entry_of(track.title, track, None) for track in tracks]

    found = [(index, issue.field) for index, issue in across_batch(entries)]

    assert found == [(2, "artists[1].name")]


def test_a_slip_of_one_letter_is_found_only_beside_a_name_that_is_common() -> None:
    """Two artists with similar names are two artists, until one is a hundred times as frequent."""
    many = ["Florence Welch"] * 3

    slip = _found(*map(_by, [*many, "Florence Welsh"]))
    two = _found(*map(_by, [*many, "Florence Welsh", "Florence Welsh"]))

    assert slip == [(3, "BATCH_ARTIST_SPELLING")]
    assert two == []


def test_a_label_spelled_two_ways_is_found() -> None:
    """Sales reports would count it as two labels."""
    batch = [
        (track_pb2.Track(title=str(i), label=label), None)
        for i, label in enumerate(["North & South", "North and South", "North & South", "East"])
    ]

    assert _found(*batch) == [(1, "BATCH_LABEL_SPELLING")]


def test_an_isni_with_two_names_and_a_name_with_two_isnis_are_found() -> None:
    """Either pays somebody else; another spelling of the name is no other person."""
    ann, eva = _by("Ann Weiss", isni=_ISNIS[0]), _by("Eva Blom", isni=_ISNIS[0])

    assert _found(ann, eva) == [(1, "BATCH_ISNI_TWO_NAMES")]
    assert _found(ann, _by("Ann Weiss", isni=_ISNIS[1])) == [(1, "BATCH_NAME_TWO_ISNIS")]
    assert (1, "BATCH_ISNI_TWO_NAMES") not in _found(ann, _by("ann weiss", isni=_ISNIS[0]))


def test_a_title_twice_in_a_release_and_two_years_of_one_release_are_found() -> None:
    """Both make one of the two tracks wrong."""
    dated = [_copy(_A, release_date="2020"), _copy(_A, release_date="2020", isrc="", title="Other")]
    twice = [*dated, _copy(_A, release_date="2021", isrc="")]

    found = _found(*((track, None) for track in twice))

    assert (2, "BATCH_TITLE_TWICE") in found
    assert (2, "BATCH_YEAR_CONFLICT") in found


def test_a_compilation_of_many_years_has_no_odd_one() -> None:
    """A release date is the recording's: a best-of dates every track otherwise."""
    tracks = [
        _copy(_A, title=str(year), isrc="", release_date=str(year)) for year in range(1990, 2000)
    ]

    assert _found(*((track, None) for track in tracks)) == []


def test_father_and_son_are_two() -> None:
    """Johann Strauss I is no slip for Johann Strauss II, nor one studio for another."""
    many = ["Johann Strauss II"] * 5 + ["Studio Band 54"] * 5

    assert _found(*map(_by, [*many, "Johann Strauss I", "Studio Band 55"])) == []


def test_words_that_marks_tell_apart_are_two_titles() -> None:
    """A bird and a heart differ in Japanese by what would be accents in Latin letters."""
    tracks = [_copy(_A, title=title, isrc="") for title in ("バード", "ハート")]

    assert _found(*((track, None) for track in tracks)) == []


def test_the_message_names_the_other_item() -> None:
    """An editor must find both sides of a contradiction."""
    entries = [entry_of(name, _A, None) for name in ("first.wav", "second.wav")]

    [(index, issue)] = [
        pair for pair in across_batch(entries) if pair[1].rule_id == "BATCH_TITLE_TWICE"
    ]

    assert index == 1
    assert "first.wav" in issue.message
    assert issue.source
    assert issue.severity == enrichment_pb2.SEVERITY_WARNING


def test_memory_is_bounded_in_items_and_in_fingerprints() -> None:
    """A batch may have a million items; what is compared must not grow with it."""
    memory = BatchMemory(most_items=3, most_fingerprints=1)

    for place in (1, 0, 2, 3, 4):
        memory.add(f"item {place}", _A, _heard("aa", 200, _sound(place)), place=place)
    entries = memory.take()

    assert [entry.item_id for entry in entries] == ["item 0", "item 1", "item 2"]
    assert [bool(entry.fingerprint) for entry in entries] == [False, True, False]
    assert all(entry.sha256 for entry in entries)
    assert len(entries[1].fingerprint) < 1_000
    assert memory.take() == []


def test_many_files_of_one_length_are_compared_within_bounds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Comparing each with each would take hours: the nearest are compared, and then no more."""
    compared = 0

    def counted(one: bytes, other: bytes) -> float:
        nonlocal compared
        compared += 1
        return 0.0

    monkeypatch.setattr("liner_server.core.rules.across_batch.similarity", counted)
    entry = entry_of("x", _A, _heard("aa", 200, _sound(1)))
    entries = [
        replace(entry, item_id=str(i), isrc=None, release="", sha256=str(i)) for i in range(3_000)
    ]

    across_batch(entries)

    assert compared == 10_000


def test_every_rule_across_a_batch_is_documented_once() -> None:
    """Programs compare ids."""
    assert len({rule_id for rule_id, *_ in RULE_IDS}) == len(RULE_IDS)
