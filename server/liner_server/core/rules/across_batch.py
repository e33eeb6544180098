"""Rules that only many tracks together can break: one code on two recordings, two spellings."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence

from liner.v1 import enrichment_pb2, track_pb2

from liner_server.audio.measurements import Listening
from liner_server.core.rules import codes
from liner_server.core.rules.book import ERROR, WARNING, shown

Entry = tuple[track_pb2.Track, Listening | None]
SameRecording = Callable[[bytes, bytes], bool]
_Issue = enrichment_pb2.ValidationIssue

RULE_IDS = (
    ("BATCH_ISRC_REUSED", ERROR, "isrc", "ISO 3901", "One ISRC names one recording."),
    ("BATCH_AUDIO_REUSED", WARNING, "isrc", "ISO 3901", "One recording has one ISRC."),
    ("BATCH_ARTIST_SPELLING", WARNING, "artists", "Liner", "Two spellings are two artist pages."),
    (
        "BATCH_TITLE_TWICE",
        WARNING,
        "title",
        "Apple Music Style Guide",
        "Titles of a release differ.",
    ),
    ("BATCH_YEAR_CONFLICT", WARNING, "release_date", "DDEX ERN", "One release has one date."),
)
"""(id, severity, field, source, why) of every rule here."""
_BY_ID = {entry[0]: entry for entry in RULE_IDS}


def across_batch(
    entries: Sequence[Entry], *, same_recording: SameRecording | None = None
) -> list[tuple[int, _Issue]]:
    """Return (index, issue) for what the tracks of one batch say against each other.

    Audio is the same when its SHA-256 is, or when `same_recording` says so of two acoustic
    fingerprints. It differs for certain only when `same_recording` denies it or the measured
    durations are more than 5 s apart: two encodings of one master have two digests.
    """
    found: list[tuple[int, _Issue]] = []
    found += _isrc_reused(entries, same_recording)
    found += _audio_reused(entries, same_recording)
    found += _spellings(entries)
    found += _titles(entries)
    found += _years(entries)
    return sorted(found, key=lambda pair: pair[0])


def _issue(index: int, rule_id: str, message: str, field: str = "") -> tuple[int, _Issue]:
    _, severity, path, source, _ = _BY_ID[rule_id]
    issue = _Issue(
        rule_id=rule_id, field=field or path, severity=severity, message=message, source=source
    )
    return index, issue


def _same(one: Entry, other: Entry, same_recording: SameRecording | None) -> bool | None:
    a, b = one[1], other[1]
    if a is None or b is None:
        return None
    if a.format.sha256 == b.format.sha256:
        return True
    if abs(a.format.duration_seconds - b.format.duration_seconds) > 5:
        return False
    if same_recording is not None and a.fingerprint and b.fingerprint:
        return same_recording(a.fingerprint, b.fingerprint)
    return None


def _grouped(
    entries: Sequence[Entry], key: Callable[[track_pb2.Track], str | None]
) -> Iterator[tuple[str, list[int]]]:
    groups: dict[str, list[int]] = defaultdict(list)
    for index, (track, _) in enumerate(entries):
        if value := key(track):
            groups[value].append(index)
    return ((value, indices) for value, indices in groups.items() if len(indices) > 1)


def _isrc_reused(
    entries: Sequence[Entry], same_recording: SameRecording | None
) -> Iterator[tuple[int, _Issue]]:
    for code, indices in _grouped(entries, lambda track: codes.normalise_isrc(track.isrc)):
        first = indices[0]
        for index in indices[1:]:
            same = _same(entries[first], entries[index], same_recording)
            if same is None:
                same = fold(entries[first][0].title) == fold(entries[index][0].title)
            if not same:
                yield _issue(index, "BATCH_ISRC_REUSED", f"{code} also names track {first + 1}")


def _audio_reused(
    entries: Sequence[Entry], same_recording: SameRecording | None
) -> Iterator[tuple[int, _Issue]]:
    heard = [(e[1].format.duration_seconds, i) for i, e in enumerate(entries) if e[1] is not None]
    heard.sort()
    for place, (seconds, index) in enumerate(heard):
        # Only neighbours in length can be one recording, which keeps a large batch cheap.
        for length, other in heard[place + 1 :]:
            if length - seconds > 2:
                break
            codes_of = [codes.normalise_isrc(entries[i][0].isrc) for i in (index, other)]
            if None in codes_of or codes_of[0] == codes_of[1]:
                continue
            if _same(entries[index], entries[other], same_recording):
                late, early = max(index, other), min(index, other)
                yield _issue(late, "BATCH_AUDIO_REUSED", f"the audio is that of track {early + 1}")


def fold(text: str) -> str:
    """Return a text without case, accents, punctuation and a leading "the"."""
    plain = unicodedata.normalize("NFKD", text.casefold()).replace("&", " and ")
    plain = "".join(c for c in plain if not unicodedata.combining(c))
    return re.sub(r"\W+", "", re.sub(r"^the\s+", "", plain)) or text.casefold()


def _spellings(entries: Sequence[Entry]) -> Iterator[tuple[int, _Issue]]:
    names: dict[str, Counter[str]] = defaultdict(Counter)
    for track, _ in entries:
        for artist in track.artists:
            if artist.name:
                names[fold(artist.name)][artist.name] += 1
    usual = {key: counts.most_common(1)[0][0] for key, counts in names.items()}
    merged = _near(names)
    for index, (track, _) in enumerate(entries):
        for place, artist in enumerate(track.artists):
            key = fold(artist.name) if artist.name else ""
            best = usual.get(merged.get(key, key), artist.name)
            if best != artist.name:
                yield _issue(
                    index,
                    "BATCH_ARTIST_SPELLING",
                    f"'{shown(artist.name)}' is spelled '{shown(best)}' elsewhere in the batch",
                    f"artists[{place}].name",
                )


def _near(names: dict[str, Counter[str]]) -> dict[str, str]:
    """Map rare spellings to common ones a typing error away; neighbours share three letters."""
    from rapidfuzz import fuzz

    blocks: dict[str, list[str]] = defaultdict(list)
    for key in names:
        if len(key) >= 8:
            blocks[key[:3]].append(key)
    merged = {}
    for block in blocks.values():
        block.sort(key=lambda key: -names[key].total())
        for place, rare in enumerate(block):
            for common in block[:place]:
                # Three times as frequent: two artists of like standing are two artists.
                often = names[common].total() >= 3 * names[rare].total()
                if often and fuzz.ratio(rare, common) >= 92:
                    merged[rare] = common
                    break
    return merged


def _titles(entries: Sequence[Entry]) -> Iterator[tuple[int, _Issue]]:
    def key(track: track_pb2.Track) -> str | None:
        release = track.upc or (
            f"{track.album}\0{track.artists[0].name}" if track.album and track.artists else ""
        )
        if not release or not track.title:
            return None
        return f"{release}\0{fold(track.title)}\0{fold(track.version_title)}"

    for _, indices in _grouped(entries, key):
        for index in indices[1:]:
            yield _issue(
                index,
                "BATCH_TITLE_TWICE",
                f"track {indices[0] + 1} of the release is called so too",
            )


def _years(entries: Sequence[Entry]) -> Iterator[tuple[int, _Issue]]:
    for code, indices in _grouped(entries, lambda track: codes.normalise_upc(track.upc)):
        years = Counter(
            entries[i][0].release_date[:4] for i in indices if entries[i][0].release_date
        )
        if len(years) < 2:
            continue
        usual = years.most_common(1)[0][0]
        for index in indices:
            date = entries[index][0].release_date
            if date and date[:4] != usual:
                yield _issue(
                    index, "BATCH_YEAR_CONFLICT", f"the release {code} is dated {usual} elsewhere"
                )
