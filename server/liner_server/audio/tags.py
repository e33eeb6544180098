"""Embedded tags as text under Liner's field paths: claims, found in a hostile file.

Nothing is parsed or corrected here: "ISRC: us-rc1-76-07839" stays as it is, so that the
validator can say what is wrong with it and the ledger can show an editor what the file says.
"""

import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import BinaryIO

from tinytag import TinyTag

_FIELDS: Mapping[str, tuple[str, ...]] = {
    "title": ("title",),
    "version_title": ("subtitle", "version", "tit3"),
    "artists": ("artist",),
    "album": ("album",),
    "label": ("label", "organization", "record label", "recordlabel"),
    "publisher": ("publisher", "tpub"),
    "release_date": ("releasedate", "release date", "tdrl", "year", "date", "tdrc"),
    "isrc": ("isrc", "tsrc"),
    "iswc": ("iswc",),
    "upc": ("barcode", "upc", "ean", "ean/upn"),
    "genre": ("genre",),
    "moods": ("mood", "tmoo"),
    "bpm": ("bpm", "tbpm", "tempo", "tmpo"),
    "key": ("initial_key", "initialkey", "key", "tkey"),
    "language": ("language", "tlan"),
    "lyrics": ("lyrics", "unsyncedlyrics", "uslt"),
    "p_line": ("p_line", "phonographic copyright", "phonographiccopyright", "producedby", "tpro"),
    "c_line": ("c_line", "copyright", "tcop"),
    "composer": ("composer",),
    "lyricist": ("lyricist",),
    "album_artist": ("albumartist",),
    "parental_warning": ("itunesadvisory", "parental_warning", "advisory"),
}
"""Field path -> names in tags, best first. composer, lyricist and album_artist are no fields of a
Track but roles of its artists; they keep a path of their own because a tag gives the role."""

_MANY = frozenset({"artists", "genre", "moods", "composer", "lyricist"})
"""Fields whose repeated tags are all kept, joined by "; " as found."""

_LONGEST = {"lyrics": 20_000}
_LONGEST_OTHER = 500
"""Characters kept of one value."""

_MOST_VALUES = 20
"""Values kept of one repeated tag."""

_MAX_READ_BYTES = 32 << 20
"""tinytag reads no more than this: a cover is megabytes, a frame that claims more is an attack."""


def read_tags(file: BinaryIO) -> dict[str, str]:
    """Return the tags embedded in an open file, as text; empty when there are none or it is broken.

    ID3v1, ID3v2, Vorbis comments, MP4 atoms, RIFF INFO and AIFF text chunks. No value holds a
    control character other than a line break, and each is cut to a length of its own.
    """
    file.seek(0)
    try:
        found = TinyTag.get(file_obj=_Bounded(file), duration=False, image=False)  # type: ignore[arg-type]
    # A parser in the way of hostile bytes: whatever it raises means "no tags".
    except Exception:
        return {}
    by_name: dict[str, list[str]] = {}
    for name, value in _values(found):
        with suppress(UnicodeError):
            clean = _clean(value)
            if clean:
                by_name.setdefault(name.lower(), []).append(clean)
    if not any(name in by_name for name in _FIELDS["label"]) and "publisher" in by_name:
        # ID3's TPUB is called publisher and holds the label, in practice and in MusicBrainz.
        by_name["label"] = by_name.pop("publisher")
    tags = {}
    for path, names in _FIELDS.items():
        values = next((by_name[name] for name in names if name in by_name), None)
        if values:
            text = _together(values) if path in _MANY else values[0]
            tags[path] = text[: _LONGEST.get(path, _LONGEST_OTHER)]
    return tags


def _values(found: TinyTag) -> Iterator[tuple[str, str]]:
    for name in ("title", "artist", "album", "albumartist", "composer", "genre", "year"):
        value = getattr(found, name)
        if isinstance(value, str):
            yield name, value
    for name, values in found.other.items():
        for value in values[:_MOST_VALUES]:
            if isinstance(value, str):
                yield str(name), value


def _together(values: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(values))


def _clean(text: str) -> str:
    """Text without control characters, lone surrogates and unassigned code points."""
    longest = max(_LONGEST.values())
    kept = (
        character
        for character in text[: 2 * longest].replace("\r\n", "\n")
        if character in "\n\t" or unicodedata.category(character) not in {"Cc", "Cs", "Cn", "Co"}
    )
    return "".join(kept).strip()


class _Bounded:
    """A file that gives out a bounded number of bytes in all, whatever the frames claim."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._left = _MAX_READ_BYTES

    def read(self, size: int = -1) -> bytes:
        wanted = self._left if size < 0 else min(size, self._left)
        data = self._file.read(wanted)
        self._left -= len(data)
        return data

    def seek(self, position: int, whence: int = 0) -> int:
        return self._file.seek(position, whence)

    def tell(self) -> int:
        return self._file.tell()
