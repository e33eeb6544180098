"""Rules that only many tracks together can break: one code on two recordings, two spellings."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

from liner.v1 import enrichment_pb2

from liner_server.audio.fingerprint import SAME_RECORDING, similarity
from liner_server.core.rules.batch_memory import Entry, fold
from liner_server.core.rules.book import ERROR, WARNING, shown

_Issue = enrichment_pb2.ValidationIssue
_Found = Iterator[tuple[int, _Issue]]

RULE_IDS = (
    ("BATCH_ISRC_REUSED", ERROR, "isrc", "ISO 3901", "One ISRC names one recording."),
    ("BATCH_AUDIO_REUSED", WARNING, "isrc", "ISO 3901", "One recording has one ISRC."),
    ("BATCH_ARTIST_SPELLING", WARNING, "artists", "Liner", "Two spellings are two artist pages."),
    (
        "BATCH_ISNI_TWO_NAMES",
        WARNING,
        "artists[].isni",
        "ISO 27729",
        "One ISNI is one public identity: two names under it mix two people up.",
    ),
    (
        "BATCH_NAME_TWO_ISNIS",
        WARNING,
        "artists[].isni",
        "ISO 27729",
        "One name with two ISNIs is two people, or one of the two is wrong.",
    ),
    ("BATCH_LABEL_SPELLING", WARNING, "label", "Liner", "Two spellings are two labels in reports."),
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

_MOST_COMPARISONS = 10_000
"""Fingerprints compared in one batch, a quarter of a millisecond each, nearest lengths first."""

_APART_SECONDS = 5.0
"""Audio whose lengths differ by more is not the same recording."""

_NEAR_SECONDS = 2.0
"""Audio under two ISRCs is compared when its lengths differ by no more."""

_LATIN = re.compile("[a-z]")
_COUNTED = re.compile("[0-9]+|(?:i{1,3}|iv|v|jr|sr)$")
_SHORTEST_NAME = 8
"""Letters from which one other letter is more likely a slip than another name."""


def across_batch(entries: Sequence[Entry]) -> list[tuple[int, _Issue]]:
    """Return (index, issue) for what the items of one batch say against each other, in order.

    Audio is the same when its SHA-256 is, or when its fingerprints are alike. It differs for
    certain only when they are not or the lengths are more than 5 s apart: two encodings of one
    master have two digests. Without audio an ISRC is used twice when the titles differ by more
    than a guest or a remaster, or the artists have nothing in common.
    """
    found: list[tuple[int, _Issue]] = []
    for rule in (_isrc_reused, _audio_reused, _artists, _labels, _isnis, _titles, _years):
        found.extend(rule(entries))
    return sorted(found, key=lambda pair: pair[0])


def _issue(index: int, rule_id: str, message: str, field: str = "") -> tuple[int, _Issue]:
    _, severity, path, source, _ = _BY_ID[rule_id]
    issue = _Issue(
        rule_id=rule_id, field=field or path, severity=severity, message=message, source=source
    )
    return index, issue


def _same(one: Entry, other: Entry) -> bool | None:
    """Whether two items have one recording; None when that cannot be told."""
    if not one.sha256 or not other.sha256:
        return None
    if one.sha256 == other.sha256:
        return True
    if abs(one.seconds - other.seconds) > _APART_SECONDS:
        return False
    if one.fingerprint and other.fingerprint:
        return similarity(one.fingerprint, other.fingerprint) >= SAME_RECORDING
    return None


def _grouped(
    entries: Sequence[Entry], key: Callable[[Entry], str | None]
) -> Iterator[tuple[str, list[int]]]:
    groups: dict[str, list[int]] = defaultdict(list)
    for index, entry in enumerate(entries):
        if value := key(entry):
            groups[value].append(index)
    return ((value, indices) for value, indices in groups.items() if len(indices) > 1)


def _isrc_reused(entries: Sequence[Entry]) -> _Found:
    for code, indices in _grouped(entries, lambda entry: entry.isrc):
        first = entries[indices[0]]
        for index in indices[1:]:
            same = _same(first, entries[index])
            if same is None:
                same = not _told_apart(first, entries[index])
            if not same:
                yield _issue(
                    index, "BATCH_ISRC_REUSED", f"{code} also names {shown(first.item_id)}"
                )


def _told_apart(one: Entry, other: Entry) -> bool:
    """Whether titles or artists say for certain that these are two recordings."""
    if not _one_script(one.recording, other.recording):
        # A title and its translation or transcription.
        return False
    if one.recording != other.recording:
        return True
    names, others = _named(one), _named(other)
    if not (names and others) or not _one_script("".join(names), "".join(others)):
        return False
    return not any(a in b or b in a for a in names for b in others)


def _named(entry: Entry) -> list[str]:
    """Return the names and ISNIs of the artists of an entry."""
    known = [code or "" for _, code in entry.artists] + [fold(name) for name, _ in entry.artists]
    return [name for name in known if name]


def _one_script(one: str, other: str) -> bool:
    """Whether both texts hold Latin letters, or neither does."""
    return bool(_LATIN.search(one)) == bool(_LATIN.search(other))


def _audio_reused(entries: Sequence[Entry]) -> _Found:
    told: set[int] = set()
    for one, other in (*_same_files(entries), *_alike(entries)):
        late, early = max(one, other), min(one, other)
        codes = {entries[one].isrc, entries[other].isrc}
        if None not in codes and len(codes) == 2 and late not in told:
            told.add(late)
            message = f"the audio is that of {shown(entries[early].item_id)}, under another ISRC"
            yield _issue(late, "BATCH_AUDIO_REUSED", message)


def _same_files(entries: Sequence[Entry]) -> Iterator[tuple[int, int]]:
    for _, indices in _grouped(entries, lambda entry: entry.sha256):
        yield from ((indices[0], index) for index in indices[1:])


def _alike(entries: Sequence[Entry]) -> Iterator[tuple[int, int]]:
    """Yield pairs of files that sound alike, looked for among files of nearly one length."""
    files = {entry.sha256: i for i, entry in enumerate(entries) if entry.fingerprint}
    order = sorted(files.values(), key=lambda i: entries[i].seconds)
    for one, other in islice(_neighbours(entries, order), _MOST_COMPARISONS):
        if _same(entries[one], entries[other]):
            yield one, other


def _neighbours(entries: Sequence[Entry], order: list[int]) -> Iterator[tuple[int, int]]:
    """Yield pairs near in length: every file with its next, then with its next but one ..."""
    step, left = 1, True
    while left:
        left = False
        for one, other in zip(order, order[step:], strict=False):
            if entries[other].seconds - entries[one].seconds > _NEAR_SECONDS:
                continue
            left = True
            yield one, other
        step += 1


def _artists(entries: Sequence[Entry]) -> _Found:
    usual = _usual(name for entry in entries for name, _ in entry.artists if name.strip())
    for index, entry in enumerate(entries):
        for place, (name, _) in enumerate(entry.artists):
            if (best := usual.get(name)) is not None:
                message = f"'{shown(name)}' is spelled '{shown(best)}' elsewhere in the batch"
                yield _issue(index, "BATCH_ARTIST_SPELLING", message, f"artists[{place}].name")


def _labels(entries: Sequence[Entry]) -> _Found:
    usual = _usual(entry.label for entry in entries if entry.label)
    for index, entry in enumerate(entries):
        if (best := usual.get(entry.label)) is not None:
            message = f"'{shown(entry.label)}' is spelled '{shown(best)}' elsewhere in the batch"
            yield _issue(index, "BATCH_LABEL_SPELLING", message)


def _usual(names: Iterable[str]) -> dict[str, str]:
    """Map each rare spelling to the usual one of what is certainly, or very likely, one name."""
    spellings: dict[str, Counter[str]] = defaultdict(Counter)
    for name, count in Counter(names).items():
        spellings[fold(name)][name] = count
    best = {
        # Of equally frequent spellings the tidier one, then the first in the alphabet: the answer
        # must not depend on the order of the tracks.
        key: min(counts, key=lambda name: (-counts[name], not _tidy(name), name))
        for key, counts in spellings.items()
    }
    slips = _slips({key: counts.total() for key, counts in spellings.items()})
    return {
        name: best[slips.get(key, key)]
        for key, counts in spellings.items()
        for name in counts
        if name != best[slips.get(key, key)]
    }


def _tidy(name: str) -> bool:
    return not name.isupper() and not name.islower() and name == " ".join(name.split())


def _slips(frequency: dict[str, int]) -> dict[str, str]:
    """Map rare names to common ones a typing error away; neighbours share three letters."""
    from rapidfuzz import fuzz

    common: dict[str, list[str]] = defaultdict(list)
    for key, count in frequency.items():
        if len(key) >= _SHORTEST_NAME and count >= 3:
            common[key[:3]].append(key)
    slips = {}
    for rare, count in frequency.items():
        for key in common.get(rare[:3], ()) if len(rare) >= _SHORTEST_NAME else ():
            # Three times as frequent: two artists of like standing are two artists.
            if (
                key == rare
                or frequency[key] < 3 * count
                or _COUNTED.sub("", rare) == (_COUNTED.sub("", key))
            ):
                # Johann Strauss I and II are two, as are Studio 54 and Studio 55.
                continue
            if fuzz.ratio(rare, key) >= 92:
                slips[rare] = key
                break
    return slips


def _isnis(entries: Sequence[Entry]) -> _Found:
    names: dict[str, tuple[str, str]] = {}
    codes: dict[str, tuple[str, str]] = {}
    for index, entry in enumerate(entries):
        for place, (name, code) in enumerate(entry.artists):
            if code is None or not name.strip():
                continue
            folded, path = fold(name), f"artists[{place}].isni"
            known, item = names.setdefault(code, (name, entry.item_id))
            if fold(known) != folded:
                message = f"{code} is {shown(known)} in {shown(item)}, and here {shown(name)}"
                yield _issue(index, "BATCH_ISNI_TWO_NAMES", message, path)
            other, item = codes.setdefault(folded, (code, entry.item_id))
            if other != code:
                message = f"{shown(name)} has {code} here and {other} in {shown(item)}"
                yield _issue(index, "BATCH_NAME_TWO_ISNIS", message, path)


def _titles(entries: Sequence[Entry]) -> _Found:
    def key(entry: Entry) -> str | None:
        return f"{entry.release}\0{entry.title}" if entry.release and entry.title else None

    for _, indices in _grouped(entries, key):
        first = entries[indices[0]]
        for index in indices[1:]:
            message = f"{shown(first.item_id)} of the release is called so too"
            yield _issue(index, "BATCH_TITLE_TWICE", message)


def _years(entries: Sequence[Entry]) -> _Found:
    for code, indices in _grouped(entries, lambda entry: entry.upc):
        years = Counter(entries[i].year for i in indices if entries[i].year)
        if len(years) < 2:
            continue
        usual = min(years, key=lambda year: (-years[year], year))
        if 2 * years[usual] < years.total():
            # A compilation, whose recordings are dated by their own releases.
            continue
        for index in indices:
            if entries[index].year not in ("", usual):
                message = f"the release {code} is dated {usual} elsewhere"
                yield _issue(index, "BATCH_YEAR_CONFLICT", message)
