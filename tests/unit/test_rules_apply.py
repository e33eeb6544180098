"""What is suggested can be carried out, mends its fault, and breaks nothing else."""

from dataclasses import replace

import pytest
from liner.v1 import enrichment_pb2, track_pb2
from liner_server.audio.measurements import Listening
from liner_server.core.fields import artist_text
from liner_server.core.rules.apply import apply_suggestions
from liner_server.core.validator import validate
from liner_server.evaluation import catalogue
from liner_server.evaluation.faults import FAULTS, heard_faults

_APPLE = enrichment_pb2.DELIVERY_PROFILE_APPLE
_TRACKS = [catalogue.clean(seed) for seed in range(12)]


def _suggestion(field: str, current: str, suggested: str) -> enrichment_pb2.Suggestion:
    return enrichment_pb2.Suggestion(field=field, current=current, suggested=suggested)


def _faulty(track: track_pb2.Track, fault: str) -> track_pb2.Track:
    copy = track_pb2.Track()
    copy.CopyFrom(track)
    FAULTS[fault][1](copy)
    return copy


def _unmended(track: track_pb2.Track, rule_id: str, listening: Listening | None = None) -> set[str]:
    """Return what is wrong after a rule's suggestions were applied and was not before."""
    before = validate(track, profile=_APPLE, listening=listening)
    fixes = [s for s in before.suggestions if s.rule_id == rule_id]
    if not fixes:
        return set()
    mended = apply_suggestions(track, fixes)
    after = {i.rule_id for i in validate(mended, profile=_APPLE, listening=listening).issues}
    known = {i.rule_id for i in before.issues} - {rule_id}
    return after - known


@pytest.mark.parametrize("fault", FAULTS)
def test_a_suggestion_mends_its_fault_and_breaks_no_other_rule(fault: str) -> None:
    """A fix that leaves the rule broken would be applied for ever; one that breaks another, too."""
    rule_id = FAULTS[fault][0]

    # A code that was in the wrong field leaves that field empty: it has to be asked for.
    allowed = {"FIELD_MISSING"} if rule_id == "ISRC_OTHER_CODE" else set()

    assert [t.track_id for t in _TRACKS if _unmended(_faulty(t, fault), rule_id) - allowed] == []


def test_what_is_suggested_from_the_audio_makes_the_statement_agree() -> None:
    """The measured value is offered in the form in which the field takes it."""
    left = {
        fault: unmended
        for track in _TRACKS
        for fault, rule_id, listening in heard_faults(track)
        if (unmended := _unmended(track, rule_id, listening))
    }

    assert left == {}


@pytest.mark.parametrize("fault", FAULTS)
def test_applying_everything_again_and_again_comes_to_an_end(fault: str) -> None:
    """Two rules must not undo each other's work."""
    track = _faulty(_TRACKS[0], fault)
    before = _errors(track)

    for _ in range(6):
        fixes = validate(track, profile=_APPLE).suggestions
        if not fixes:
            break
        track = apply_suggestions(track, fixes)

    assert not validate(track, profile=_APPLE).suggestions
    assert not _errors(track) - before - {"FIELD_MISSING"}


def _errors(track: track_pb2.Track) -> set[str]:
    issues = validate(track, profile=_APPLE).issues
    return {i.rule_id for i in issues if i.severity == enrichment_pb2.SEVERITY_ERROR}


@pytest.mark.parametrize(
    ("title", "name", "credited"),
    [
        ("Song (feat. Anna Weiss)", "Omar", ["Omar", "Anna Weiss (featured)"]),
        ("Song ft. Anna Weiss & Ida Blom", "Omar", ["Omar", "Anna Weiss", "Ida Blom"]),
        ("Song (feat. Anna, Ida & Eva)", "Omar", ["Omar", "Anna", "Ida", "Eva"]),
        ("Song (feat. Simon & Garfunkel)", "Omar", ["Omar", "Simon & Garfunkel"]),
        ("Song (feat. omar)", "Omar", ["Omar"]),
        ("Song", "Omar feat. Anna Weiss", ["Omar", "Anna Weiss"]),
        ("Song", "Omar (Featuring Anna Weiss)", ["Omar", "Anna Weiss"]),
    ],
)
def test_a_guest_leaves_the_text_and_gets_a_credit(
    title: str, name: str, credited: list[str]
) -> None:
    """Cutting the guest out of the title alone would lose who is to be paid."""
    track = track_pb2.Track(title=title, artists=[track_pb2.Artist(name=name)])

    mended = apply_suggestions(track, validate(track, profile=_APPLE).suggestions)

    assert mended.title == "Song"
    assert [a.name for a in mended.artists] == [c.removesuffix(" (featured)") for c in credited]
    assert all(a.role == track_pb2.ARTIST_ROLE_FEATURED for a in mended.artists[1:])


def test_no_guest_is_lost_where_two_rules_find_one_each() -> None:
    """Each of them cuts a name out of a text, so each name must find a place of its own."""
    track = track_pb2.Track(title="Song (feat. Anna Bee) [prod. by Max Roe]")
    for name in ("Omar feat. Eva Dee", "Ida Blom ft. Jo Ray", "Tom Fox; Kim Lee"):
        track.artists.add(name=name)

    for _ in range(3):
        track = apply_suggestions(track, validate(track, profile=_APPLE).suggestions)

    assert track.title == "Song"
    assert sorted(artist_text(a) for a in track.artists) == [
        *("Anna Bee (featured)", "Eva Dee (featured)", "Ida Blom", "Jo Ray (featured)"),
        *("Kim Lee", "Max Roe (producer)", "Omar", "Tom Fox"),
    ]


@pytest.mark.parametrize(
    ("title", "version", "flag", "mended", "flagged"),
    [
        ("Song (Explicit)", "", "UNSPECIFIED", "Song", "EXPLICIT"),
        ("Song - Clean Version", "", "UNSPECIFIED", "Song", "EXPLICIT_CONTENT_EDITED"),
        ("Song", "Explicit", "UNSPECIFIED", "Song", "EXPLICIT"),
        ("Song (Explicit)", "", "EXPLICIT", "Song", "EXPLICIT"),
        # One of the two is wrong, and nobody but a person knows which.
        ("Song (Explicit)", "", "NOT_EXPLICIT", "Song (Explicit)", "NOT_EXPLICIT"),
        ("Song (Official Video)", "", "UNSPECIFIED", "Song", "UNSPECIFIED"),
    ],
)
def test_a_warning_leaves_the_title_only_for_its_own_field(
    title: str, version: str, flag: str, mended: str, flagged: str
) -> None:
    """An explicit recording whose title lost the word would be sold as a clean one."""
    track = track_pb2.Track(title=title, version_title=version)
    track.artists.add(name="Omar")
    track.parental_warning = track_pb2.ParentalWarning.Value(f"PARENTAL_WARNING_{flag}")

    after = apply_suggestions(track, validate(track, profile=_APPLE).suggestions)

    assert after.title == mended
    assert not after.version_title
    assert track_pb2.ParentalWarning.Name(after.parental_warning)[17:] == flagged


def test_a_machine_does_not_make_the_wrong_file_the_right_one() -> None:
    """Another digest, or minutes more, say that the audio was mixed up, not the statement."""
    for track in _TRACKS:
        for fault, rule_id, listening in heard_faults(track):
            if rule_id in ("AUDIO_DIGEST", "DURATION_AGAINST_AUDIO"):
                answer = validate(track, profile=_APPLE, listening=listening)

                assert rule_id in {i.rule_id for i in answer.issues}, fault
                assert rule_id not in {s.rule_id for s in answer.suggestions}, fault


def test_what_is_heard_is_offered_for_writing_only_where_it_is_sure() -> None:
    """A key that is right three times in four is worth a look, and not worth the label's own."""
    track = _TRACKS[0]
    found = {
        rule_id: listening
        for _, rule_id, listening in heard_faults(track)
        if rule_id in ("BPM_AGAINST_AUDIO", "KEY_AGAINST_AUDIO")
    }
    for rule_id, heard in found.items():
        for score, offered in ((0.95, True), (0.75, False)):
            listening = replace(
                heard,
                tempo=replace(heard.tempo, score=score),
                key=replace(heard.key, score=score),
            )

            answer = validate(track, profile=_APPLE, listening=listening)

            assert rule_id in {i.rule_id for i in answer.issues}
            assert (rule_id in {s.rule_id for s in answer.suggestions}) is offered


def test_every_kind_of_path_is_carried_out_and_the_original_stays() -> None:
    """Scalars, lists, entries, artists' fields, tags and file properties all have paths."""
    track = track_pb2.Track(title="a", territories=["DE", "XX", "FR"], moods=["calm"])
    track.artists.add(name="Ann", isni="1")
    track.artists.add(name="Ann")
    track.tags["grid"] = "x"
    original = track.SerializeToString(deterministic=True)

    mended = apply_suggestions(
        track,
        [
            _suggestion("title", "a", "B"),
            _suggestion("territories[1]", "XX", ""),
            _suggestion("territories[2]", "FR", "CH"),
            _suggestion("moods", "calm", "calm; warm"),
            _suggestion("artists[0].isni", "1", ""),
            _suggestion("artists[1]", "Ann", "Eva (producer)"),
            _suggestion("artists[2]", "", "Ida"),
            _suggestion("tags.grid", "x", "y"),
            _suggestion("properties.duration", "", "12.5"),
        ],
    )

    assert (mended.title, list(mended.territories)) == ("B", ["DE", "CH"])
    assert [(a.name, a.role) for a in mended.artists] == [
        ("Ann", track_pb2.ARTIST_ROLE_UNSPECIFIED),
        ("Eva", track_pb2.ARTIST_ROLE_PRODUCER),
        ("Ida", track_pb2.ARTIST_ROLE_MAIN),
    ]
    assert not mended.artists[0].HasField("isni")
    assert (dict(mended.tags), list(mended.moods)) == ({"grid": "y"}, ["calm", "warm"])
    assert mended.properties.duration.ToTimedelta().total_seconds() == 12.5
    assert track.SerializeToString(deterministic=True) == original


def test_an_entry_that_went_meanwhile_is_not_taken_away_again() -> None:
    """One rule rewrites the list, another takes away an entry of it: both may be right."""
    track = track_pb2.Track(territories=["Worldwide", "US", "us"])

    mended = apply_suggestions(
        track,
        [
            _suggestion("territories[2]", "us", ""),
            _suggestion("territories", "Worldwide; US; us", "Worldwide"),
        ],
    )

    assert list(mended.territories) == ["Worldwide"]


def test_a_suggestion_that_no_longer_fits_is_left_out() -> None:
    """Between validating and mending, somebody else may have mended."""
    track = track_pb2.Track(title="New")

    mended = apply_suggestions(track, [_suggestion("title", "Old", "Other")])

    assert mended.title == "New"


@pytest.mark.parametrize("path", ["nonsense", "artists[0].nonsense", "artists[7].name", "audio"])
def test_a_path_that_is_none_is_refused(path: str) -> None:
    """Leaving it out in silence would look like a mended track."""
    with pytest.raises(ValueError, match=r"artist|path"):
        apply_suggestions(track_pb2.Track(), [_suggestion(path, "", "x")])
