"""What is remembered of each item of a batch, to compare the items once all are there.

About a kilobyte an item, and another with audio, because a batch may have a million: codes, folded
title, artists, release, label, year, and what tells the audio. The first `MOST_ITEMS` are
remembered, and the fingerprints of the first `MOST_FINGERPRINTS` with audio, half a minute of each.
"""

import re
import sys
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache

from liner.v1 import enrichment_pb2, track_pb2

from liner_server.audio.fingerprint import HOP_SECONDS, WORD_BYTES
from liner_server.audio.measurements import Listening
from liner_server.core.agreement import plain
from liner_server.core.rules import codes, guests

MOST_ITEMS = 100_000
MOST_FINGERPRINTS = 20_000
_NEEDLESS = re.compile(
    r"\b(?:original mix|album version|(?:[0-9]{4} )?(?:digital(?:ly)? )?remaster(?:ed)?"
    r"(?: version)?(?: [0-9]{4})?)\b",
    re.IGNORECASE,
)
"""A remaster may keep its ISRC; an edit, a remix and a clean version may not."""

_THE = re.compile(r"^\s*the\s+(?=\S)", re.IGNORECASE)
_FINGERPRINT_BYTES = 1 + round(30 / HOP_SECONDS) * WORD_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One item, as far as others can contradict it."""

    item_id: str
    isrc: str | None
    """Canonical; None when none is stated or it is not one."""

    title: str
    """Folded, with the version."""

    recording: str
    """The same without guests and what says nothing of the recording, to compare under one ISRC."""

    artists: tuple[tuple[str, str | None], ...]
    """(name as stated, canonical ISNI or None), a nameless one too: places are those of Track."""

    release: str
    """The UPC, else album and first artist; empty when neither is stated."""

    upc: str | None
    year: str
    """Of the release date; empty when none is stated."""

    label: str
    sha256: str = ""
    """Empty when nothing was heard."""

    seconds: float = 0.0
    fingerprint: bytes = b""


@lru_cache(maxsize=16_384)
def fold(text: str) -> str:
    """Return a text without case, accents, punctuation and a leading "the"."""
    return plain(_THE.sub("", text))


def audio_identity(listening: Listening) -> enrichment_pb2.AudioIdentity:
    """Return what tells the audio that was heard from other audio."""
    identity = enrichment_pb2.AudioIdentity(
        sha256=listening.format.sha256, fingerprint=listening.fingerprint
    )
    identity.duration.FromTimedelta(timedelta(seconds=listening.format.duration_seconds))
    return identity


def _recording(title: str, version: str) -> str:
    """Return a title and its version, wherever it stands, as one recording is called."""
    found = guests.in_title(title)
    if found is not None:
        title = f"{title[: found.start()]} {title[found.end() :]}"
    return sys.intern(fold(_NEEDLESS.sub(" ", f"{title} {version}")))


def entry_of(
    item_id: str, track: track_pb2.Track, audio: enrichment_pb2.AudioIdentity | None
) -> Entry:
    """Return what is remembered of a track as it is stated, and of its audio where it was heard."""
    upc = codes.normalise_upc(track.upc) if track.upc else None
    album = f"{fold(track.album)}\0{fold(track.artists[0].name)}" if track.artists else ""
    return Entry(
        item_id=item_id,
        isrc=codes.normalise_isrc(track.isrc) if track.isrc else None,
        title=f"{fold(track.title)}\0{fold(track.version_title)}" if track.title else "",
        recording=_recording(track.title, track.version_title),
        artists=tuple(
            (sys.intern(artist.name), codes.normalise_isni(artist.isni) if artist.isni else None)
            for artist in track.artists
        ),
        release=upc or (album if track.album else ""),
        upc=upc,
        year=track.release_date[:4],
        label=sys.intern(track.label),
        sha256=audio.sha256 if audio is not None else "",
        seconds=audio.duration.ToTimedelta().total_seconds() if audio is not None else 0.0,
        fingerprint=audio.fingerprint[:_FINGERPRINT_BYTES] if audio is not None else b"",
    )


class BatchMemory:
    """The items of one batch, up to the limits."""

    def __init__(
        self, *, most_items: int = MOST_ITEMS, most_fingerprints: int = MOST_FINGERPRINTS
    ) -> None:
        self._most_items = most_items
        self._fingerprints = most_fingerprints
        self._entries: dict[int, Entry] = {}

    def __len__(self) -> int:
        """How many items are remembered."""
        return len(self._entries)

    @property
    def next_place(self) -> int:
        """The place after the last one that is taken."""
        return max(self._entries, default=-1) + 1

    def add(
        self,
        item_id: str,
        track: track_pb2.Track,
        audio: enrichment_pb2.AudioIdentity | None,
        *,
        place: int,
    ) -> None:
        """Remember the item at a place of the batch, unless as many are remembered as may be.

        Beyond the limit of fingerprints, audio is still compared by its digest and its length.
        """
        if len(self._entries) >= self._most_items:
            return
        if audio is not None and audio.fingerprint:
            if self._fingerprints <= 0:
                audio = enrichment_pb2.AudioIdentity(sha256=audio.sha256, duration=audio.duration)
            else:
                self._fingerprints -= 1
        self._entries[place] = entry_of(item_id, track, audio)

    def take(self) -> list[Entry]:
        """Return the items in the order of the batch, and forget them: the batch has ended."""
        entries, self._entries = self._entries, {}
        return [entries[place] for place in sorted(entries)]
