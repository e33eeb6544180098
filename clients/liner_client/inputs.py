"""What the command line is given, as tracks: files, folders, and lists of metadata.

A list is CSV with a header, or JSON Lines with one object a line. Its keys are the fields of
`Track` (`title`, `artists`, `isrc`, `bpm` ...) and `path`, the audio, relative to the list.
Lists of values are JSON lists or text with ";" between the values; in CSV too, where a cell may
hold the JSON of a list of artists, of `tags` or of `properties`.
"""

import csv
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from liner.v1 import track_pb2

AUDIO_SUFFIXES = frozenset(
    {".aac", ".aif", ".aifc", ".aiff", ".flac", ".m4a", ".mp3", ".mp4", ".oga", ".ogg", ".opus"}
    | {".wav", ".wave"}
)
"""What is looked for in folders. A file that is named is sent whatever its name says."""

_LISTS = frozenset({".csv", ".jsonl", ".ndjson"})
_MAX_ID_BYTES = 256
_OWN_KEYS = frozenset({"path", "item_id", "object_name", "error"})


class InputError(Exception):
    """The command line names something that cannot be used; the text says what and where."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One track to work on."""

    item_id: str
    """Unique among the inputs; the path as it was given, where there is one."""

    path: Path | None = None
    """Audio to upload; None when there is none, or when it is stored already."""

    track: track_pb2.Track = field(default_factory=track_pb2.Track)
    """What is stated; its audio is set only for a stored object."""

    row: dict[str, Any] = field(default_factory=dict)
    """The input as a list could hold it, to write down what failed."""


def collect(arguments: Sequence[str], *, stdin: TextIO) -> list[Entry]:
    """Return the entries that the arguments name, in their order, each file once.

    "-" reads standard input: a path or a JSON object a line.
    """
    entries: dict[str, Entry] = {}
    for argument in arguments:
        for entry in _read(argument, stdin):
            known = entries.get(entry.item_id)
            if known is None:
                entries[entry.item_id] = entry
            elif known.row != entry.row:
                raise InputError(f"two inputs are called {entry.item_id!r}: give item_id to both")
    if not entries:
        raise InputError("no audio file is there")
    return list(entries.values())


def _read(argument: str, stdin: TextIO) -> Iterator[Entry]:
    try:
        yield from _expand(argument, stdin)
    except UnicodeDecodeError as error:
        # Read with something in place of what cannot be read, a title would be wrong for good.
        raise InputError(f"{argument}: is not UTF-8 ({error.reason}); save it as UTF-8") from None


def _expand(argument: str, stdin: TextIO) -> Iterator[Entry]:
    if argument == "-":
        yield from _from_lines(stdin, base=Path(), name="standard input")
        return
    path = Path(argument)
    if path.is_dir():
        yield from (_from_file(found) for found in _audio_in(path))
    elif not path.exists():
        raise InputError(f"{argument}: there is no such file or folder")
    elif path.suffix.lower() == ".csv":
        yield from _from_csv(path)
    elif path.suffix.lower() in _LISTS:
        with _reading(path) as file:
            yield from _from_lines(file, base=path.parent, name=argument)
    else:
        yield _from_file(path)


def _audio_in(folder: Path) -> Iterator[Path]:
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if Path(name).suffix.lower() in AUDIO_SUFFIXES and not name.startswith("."):
                yield Path(root, name)


def _from_file(path: Path) -> Entry:
    return Entry(item_id=_id(path), path=path, row={"path": _text(path)})


def _reading(path: Path) -> TextIO:
    # utf-8-sig: spreadsheets put a mark before the first column's name.
    return path.open(encoding="utf-8-sig", newline="")


def _from_csv(path: Path) -> Iterator[Entry]:
    with _reading(path) as file:
        reader = csv.DictReader(file)
        try:
            twice = [name for name, n in Counter(reader.fieldnames or ()).items() if n > 1]
            if twice:
                raise InputError(f"{path}: two columns are called {twice[0]!r}")
            for row in reader:
                where = f"{path}, line {reader.line_num}"
                if None in row:
                    raise InputError(f"{where}: more values than the header has names")
                stated = {key: value for key, value in row.items() if value}
                yield _from_row(stated, base=path.parent, where=where)
        except csv.Error as error:
            raise InputError(f"{path}, line {reader.line_num}: {error}") from None


def _from_lines(lines: Iterable[str], *, base: Path, name: str) -> Iterator[Entry]:
    for number, line in enumerate(lines, 1):
        where = f"{name}, line {number}"
        if not line.strip():
            continue
        if not line.lstrip().startswith("{"):
            yield _from_row({"path": line.rstrip("\r\n")}, base=base, where=where)
            continue
        try:
            row = json.loads(line)
            json.dumps(row, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise InputError(f"{where}: holds half a character") from None
        except ValueError as error:
            raise InputError(f"{where}: not JSON: {error}") from None
        except RecursionError:
            raise InputError(f"{where}: is nested too deeply") from None
        yield _from_row(row, base=base, where=where)


def _from_row(row: dict[str, Any], *, base: Path, where: str) -> Entry:
    track = track_pb2.Track()
    stated = {key: value for key, value in row.items() if key not in _OWN_KEYS}
    try:
        json_format.ParseDict({k: _shaped(k, v) for k, v in stated.items()}, track)
    except json_format.ParseError as error:
        raise InputError(f"{where}: {error}") from None
    path = None
    kept = {key: value for key, value in row.items() if key != "error"}
    if row.get("object_name"):
        track.audio.object_name = str(row["object_name"])
    elif row.get("path"):
        if "\0" in str(row["path"]):
            raise InputError(f"{where}: no path holds a NUL")
        path = base / str(row["path"])
        kept["path"] = _text(path)
    elif not stated:
        raise InputError(f"{where}: neither path nor any field of a track")
    item_id = row.get("item_id") or (_id(path) if path else where)
    return Entry(item_id=_short(str(item_id)), path=path, track=track, row=kept)


def _shaped(name: str, value: Any) -> Any:
    """Return a value as the field wants it: "A; B" as a list, names as artists."""
    descriptor: FieldDescriptor | None = track_pb2.Track.DESCRIPTOR.fields_by_name.get(name)
    if descriptor is None or (descriptor.message_type is None and not descriptor.is_repeated):
        if isinstance(value, bool):
            # No field of a track is one; as a number it would pass for a tempo of 1.
            raise json_format.ParseError(f"{name} is neither true nor false")
        return value
    if name != "artists" and descriptor.message_type is not None:
        return _json(value)
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = _json(value)
    if isinstance(value, str):
        value = [part.strip() for part in value.split(";") if part.strip()]
    if name == "artists" and isinstance(value, list):
        return [{"name": part} if isinstance(part, str) else part for part in value]
    return value


def _json(value: Any) -> Any:
    """Return what a cell of a CSV says in JSON, or the cell as it is when it is none."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        return value


def _text(path: Path) -> str:
    # A file name may hold bytes that are not UTF-8; messages and JSON may not.
    return os.fsencode(path).decode("utf-8", "replace")


def _id(path: Path) -> str:
    text = _text(path)
    if os.fsencode(path) != text.encode():
        # Two such names may look the same once the bytes are replaced.
        text += "#" + hashlib.sha256(os.fsencode(path)).hexdigest()[:12]
    return _short(text)


def _short(text: str) -> str:
    if len(text.encode()) <= _MAX_ID_BYTES:
        return text
    return "..." + hashlib.sha256(text.encode()).hexdigest()[:32] + text[-40:]
