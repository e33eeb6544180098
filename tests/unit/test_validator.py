from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from liner.v1 import enrichment_pb2, track_pb2
from liner_server.core.enums import Profile
from liner_server.core.rules import tidy
from liner_server.core.rules.page import page
from liner_server.core.validator import FAMILIES, validate
from liner_server.evaluation import catalogue
from liner_server.evaluation.faults import FAULTS, heard_faults

_APPLE = enrichment_pb2.DELIVERY_PROFILE_APPLE
_MINIMAL = enrichment_pb2.DELIVERY_PROFILE_MINIMAL
_ERROR = enrichment_pb2.SEVERITY_ERROR
_TRACKS = [catalogue.clean(seed) for seed in range(40)]


def _ids(answer: enrichment_pb2.ValidateMetadataResponse) -> set[str]:
    return {issue.rule_id for issue in answer.issues}


def test_a_clean_catalogue_meets_hardly_any_error() -> None:
    """An editor who is shown false errors stops reading the true ones: at most 0.5 %."""
    tracks = [catalogue.clean(seed) for seed in range(5000)]

    answers = [validate(track, profile=_APPLE) for track in tracks]

    wrong = sum(any(i.severity == _ERROR for i in answer.issues) for answer in answers)
    assert wrong <= 0.005 * len(tracks)


@pytest.mark.parametrize("fault", FAULTS)
def test_an_injected_fault_is_found(fault: str) -> None:
    """Each kind of fault, put into clean tracks of many scripts and kinds, meets its rule."""
    rule_id, inject = FAULTS[fault]
    missed = []
    for track in _TRACKS:
        faulty = track_pb2.Track()
        faulty.CopyFrom(track)
        inject(faulty)
        if rule_id not in _ids(validate(faulty, profile=_APPLE)):
            missed.append(faulty.track_id)

    assert not missed


def test_what_the_audio_contradicts_is_found() -> None:
    """Statements are held against the file, and the file against what shops accept."""
    missed = [
        fault
        for track in _TRACKS
        for fault, rule_id, listening in heard_faults(track)
        if rule_id not in _ids(validate(track, profile=_APPLE, listening=listening))
    ]

    assert not missed


def test_audio_that_agrees_raises_nothing() -> None:
    """The same measurements without the faults must be silent, or the finding proves nothing."""
    for track in _TRACKS:
        answer = validate(track, profile=_APPLE, listening=catalogue.heard(track))

        assert not answer.issues
        assert answer.scores.audio_match == 1


@pytest.mark.parametrize(
    ("name", "severity"),
    [
        *((name, None) for name in ("AC/DC", "blink-182", "Tyler, The Creator", "ABBA")),
        *((name, None) for name in ("Earth, Wind & Fire", "Simon & Garfunkel", "宇多田ヒカル")),
        ("NOT A HERO", enrichment_pb2.SEVERITY_INFO),
    ],
)
def test_names_that_look_wrong_and_are_right_pass(name: str, severity: int | None) -> None:
    """Artists write their names as they please; at most an editor is asked."""
    track = track_pb2.Track(title="Golden River", artists=[track_pb2.Artist(name=name)])

    worst = min((i.severity for i in validate(track, profile=_MINIMAL).issues), default=None)

    assert worst == severity


def test_errors_come_first_and_the_score_falls() -> None:
    """The list is read from the top, and the score must mean something beside it."""
    track = _TRACKS[0]
    faulty = track_pb2.Track()
    faulty.CopyFrom(track)
    faulty.isrc, faulty.title = "junk", "GOLDEN RIVER"

    answer = validate(faulty, profile=_MINIMAL)

    severities = [issue.severity for issue in answer.issues]
    assert severities == sorted(severities)
    assert answer.scores.identifiers == 0.5
    assert answer.confidence == pytest.approx(0.5 * 0.85)
    assert validate(track, profile=_MINIMAL).confidence == 1


def test_what_is_not_stated_has_no_score() -> None:
    """A score of 1 for identifiers that nobody stated would be an invention."""
    answer = validate(track_pb2.Track(title="Golden River"), profile=_MINIMAL)

    assert not answer.scores.HasField("identifiers")
    assert not answer.scores.HasField("audio_match")
    assert answer.scores.completeness == 0.5


@pytest.mark.parametrize(
    ("profile", "path", "severity"),
    [
        (enrichment_pb2.DELIVERY_PROFILE_MINIMAL, "artists", enrichment_pb2.SEVERITY_WARNING),
        (enrichment_pb2.DELIVERY_PROFILE_DDEX, "isrc", _ERROR),
        (enrichment_pb2.DELIVERY_PROFILE_DDEX, "p_line", enrichment_pb2.SEVERITY_WARNING),
        (enrichment_pb2.DELIVERY_PROFILE_APPLE, "territories", _ERROR),
        (enrichment_pb2.DELIVERY_PROFILE_APPLE, "language", enrichment_pb2.SEVERITY_WARNING),
    ],
)
def test_what_is_missing_is_as_bad_as_the_delivery_makes_it(
    profile: Profile, path: str, severity: int
) -> None:
    """Without an ISRC no DDEX message can be written; a draft may still be without one."""
    answer = validate(track_pb2.Track(title="Golden River"), profile=profile)

    assert [i.severity for i in answer.issues if i.field == path] == [severity]


def test_what_a_master_needs_is_asked_only_where_masters_are_delivered() -> None:
    """An MP3 is a fine input to enrichment and no fault of a DDEX message."""
    track = track_pb2.Track()
    track.CopyFrom(_TRACKS[0])
    track.properties.container = track.properties.codec = "mp3"

    assert "DELIVERY_LOSSY" in _ids(validate(track, profile=_APPLE))
    assert not validate(track, profile=enrichment_pb2.DELIVERY_PROFILE_DDEX).issues


@settings(max_examples=150)
@given(
    text=st.text(max_size=80),
    field=st.sampled_from(
        [
            *("title", "version_title", "album", "isrc", "iswc", "upc", "key", "language"),
            *("genre", "release_date", "p_line", "c_line", "lyrics", "label", "publisher"),
        ]
    ),
)
def test_no_text_makes_a_rule_fail(text: str, field: str) -> None:
    """All input is hostile; a rule that raises would fail the whole request."""
    track = track_pb2.Track(**{field: text})  # type: ignore[arg-type]
    track.artists.add(name=text, isni=text, ipi=text)
    track.territories.append(text)

    answer = validate(track, profile=_APPLE)

    assert 0 <= answer.confidence <= 1


def test_a_track_waved_through_as_canonical_breaks_no_identifier_rule() -> None:
    """The short cut for tidy tracks must never hide what a rule would have found."""
    for _, inject in FAULTS.values():
        track = track_pb2.Track()
        track.CopyFrom(_TRACKS[0])
        inject(track)

        found = any(list(rule.check(track, None)) for rule in FAMILIES["identifiers"])

        assert not (found and tidy.canonical(track))


def test_every_rule_has_an_id_of_its_own_and_a_reason() -> None:
    """Programs compare ids, and docs/rules.md explains each."""
    rules = [rule for family in FAMILIES.values() for rule in family]

    assert len({rule.rule_id for rule in rules}) == len(rules)
    assert all(rule.source and rule.why.endswith(".") for rule in rules)


def test_the_page_of_rules_is_up_to_date() -> None:
    """`python -m liner_server.core.rules.page > docs/rules.md` writes it."""
    written = Path(__file__).parents[2] / "docs" / "rules.md"

    assert written.read_text("utf-8") == page()
