"""What the command line is given, as tracks: files, folders, and lists of metadata.

A list is CSV with a header, or JSON Lines with one object a line. Its keys are the fields of
`Track` (`title`, `artists`, `isrc`, `bpm` ...) and `path`, the audio, relative to the list.
Lists of values are JSON lists or text with ";" between the values; in CSV too, where a cell may
hold the JSON of a list of artists, of `tags` or of `properties`.
"""

import csv
import difflib
import hashlib
import itertools
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from google.protobuf import json_format
from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from liner.v1 import track_pb2

from liner_client.scratch import Scratch

AUDIO_SUFFIXES = frozenset(
    {".aac", ".aif", ".aifc", ".aiff", ".flac", ".m4a", ".mp3", ".mp4", ".oga", ".ogg", ".opus"}
    | {".wav", ".wave"}
)
"""What is looked for in folders. A file that is named is sent whatever its name says."""

_TABLES = frozenset({".csv", ".tsv"})
_LISTS = _TABLES | {".jsonl", ".ndjson"}
_MAX_ID_BYTES = 256
_MAX_LINE = 4 * 1024 * 1024
"""Characters. No track is longer, and a line without an end must not fill memory."""
_OWN_KEYS = ("item_id", "path", "object_name", "error")
_FIELDS: dict[str, FieldDescriptor] = dict(track_pb2.Track.DESCRIPTOR.fields_by_name)
_KEYS = frozenset({*_OWN_KEYS, *_FIELDS, *(field.json_name for field in _FIELDS.values())})


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


class Inputs:
    """The tracks to work on, in their order; may be gone through any number of times.

    They are kept in a temporary file: a million take hardly more memory than ten.
    """

    def __init__(self) -> None:
        self._kept = Scratch(
            "CREATE TABLE input (place INTEGER PRIMARY KEY, item_id TEXT UNIQUE, path BLOB,"
            " track BLOB, stated TEXT)"
        )
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Entry]:
        for item_id, path, track, stated in self._kept.rows(
            "SELECT item_id, path, track, stated FROM input ORDER BY place"
        ):
            yield Entry(
                item_id=item_id,
                path=None if path is None else Path(os.fsdecode(path)),
                track=track_pb2.Track.FromString(track),
                row=json.loads(stated),
            )

    def add(self, entry: Entry) -> bool:
        """Keep an input; return False when another one has its name and says something else."""
        path = None if entry.path is None else os.fsencode(entry.path)
        values = (entry.item_id, path, entry.track.SerializeToString(), json.dumps(entry.row))
        put = "INSERT OR IGNORE INTO input (item_id, path, track, stated) VALUES (?, ?, ?, ?)"
        if self._kept.run(put, values):
            self._count += 1
            return True
        (known,) = self._kept.row("SELECT stated FROM input WHERE item_id = ?", (entry.item_id,))
        return bool(json.loads(known) == entry.row)


def collect(arguments: Sequence[str], *, stdin: TextIO | None) -> Inputs:
    """Return the inputs that the arguments name, in their order, each file once.

    "-" reads standard input: a path or a JSON object a line.
    """
    inputs = Inputs()
    for argument in arguments:
        before = len(inputs)
        for entry in _read(argument, stdin):
            if not inputs.add(entry):
                raise InputError(
                    f"two inputs are called {entry.item_id!r} and differ: an item_id stands once"
                )
        if len(inputs) == before and len(arguments) == 1:
            raise InputError(_empty(argument))
    if not len(inputs):
        raise InputError("nothing to do: no audio in the folders, no track in the lists")
    return inputs


def _empty(argument: str) -> str:
    if argument == "-":
        return "standard input is empty"
    if Path(argument).is_dir():
        return f"{argument}: no audio file is there ({', '.join(sorted(AUDIO_SUFFIXES))})"
    if Path(argument).suffix.lower() in _TABLES:
        return f"{argument}: there is no row below the header"
    return f"{argument}: there is no line in it"


def _read(argument: str, stdin: TextIO | None) -> Iterator[Entry]:
    try:
        yield from _expand(argument, stdin)
    except UnicodeDecodeError as error:
        # Read with something in place of what cannot be read, a title would be wrong for good.
        raise InputError(f"{argument}: is not UTF-8 ({error.reason}); save it as UTF-8") from None


def _expand(argument: str, stdin: TextIO | None) -> Iterator[Entry]:
    if not argument:
        # Path("") is the current folder: an unset variable would send all of it.
        raise InputError("a path is empty")
    if argument == "-":
        yield from _from_lines(stdin, base=Path(), name="standard input")
        return
    path = Path(argument)
    if path.is_dir():
        yield from (_from_file(found) for found in _audio_in(path))
    elif not path.exists():
        raise InputError(f"{argument}: there is no such file or folder")
    elif path.suffix.lower() in _TABLES:
        yield from _from_table(path)
    elif path.suffix.lower() in _LISTS:
        with _reading(path) as file:
            yield from _from_lines(file, base=path.parent, name=_text(path))
    elif not path.is_file():
        raise InputError(f"{argument}: is neither a file nor a folder")
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


def _lines(file: TextIO, name: str) -> Iterator[str]:
    number = 0
    while line := file.readline(_MAX_LINE + 1):
        number += 1
        if len(line) > _MAX_LINE:
            raise InputError(f"{name}, line {number}: has more than {_MAX_LINE:,} characters")
        yield line


def _from_table(path: Path) -> Iterator[Entry]:
    with _reading(path) as file:
        lines = _lines(file, str(path))
        header = next(lines, "")
        # Strict: a quote that nobody closes would swallow the rest of the list into one cell.
        reader = csv.DictReader(
            itertools.chain((header,), lines), delimiter=_delimiter(header), strict=True
        )
        try:
            twice = [name for name, n in Counter(reader.fieldnames or ()).items() if n > 1]
            if twice:
                raise InputError(f"{path}: two columns are called {twice[0]!r}")
            for row in reader:
                where = f"{_text(path)}, line {reader.line_num}"
                if None in row:
                    raise InputError(f"{where}: more values than the header has names")
                # Spreadsheets leave rows of empty cells at the end.
                if stated := {key: value for key, value in row.items() if value}:
                    yield _from_row(stated, base=path.parent, where=where)
        except csv.Error as error:
            raise InputError(f"{path}, line {reader.line_num}: {error}") from None


def _delimiter(header: str) -> str:
    """Return what stands between columns: no name of one holds any of these."""
    return max(",;\t", key=header.count)


def _from_lines(file: TextIO | None, *, base: Path, name: str) -> Iterator[Entry]:
    if file is None:
        raise InputError(f"{name} is closed")
    for number, line in enumerate(_lines(file, name), 1):
        where = f"{name}, line {number}"
        if number == 1 and line.startswith("\ufeff{"):
            # A mark of the byte order, which a file does not have here any more and a pipe may.
            # Before anything else it is part of a file's name.
            line = line[1:]
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
    for key in row:
        if key not in _KEYS:
            raise InputError(f"{where}: {_unknown(key)}")
    track = track_pb2.Track()
    stated = {key: value for key, value in row.items() if key not in _OWN_KEYS}
    try:
        json_format.ParseDict({k: _shaped(k, v) for k, v in stated.items()}, track)
    except json_format.ParseError as error:
        raise InputError(f"{where}: {error}") from None
    named = {key: _own_text(row, key, where) for key in ("item_id", "path", "object_name")}
    path = None
    kept = {key: value for key, value in row.items() if key != "error"}
    if named["object_name"]:
        track.audio.object_name = named["object_name"]
    elif named["path"]:
        if "\0" in named["path"]:
            raise InputError(f"{where}: no path holds a NUL")
        path = base / named["path"]
        kept["path"] = _text(path)
    elif not stated:
        raise InputError(f"{where}: neither path nor any field of a track")
    item_id = named["item_id"] or (_id(path) if path else where)
    return Entry(item_id=_short(item_id), path=path, track=track, row=kept)


def _own_text(row: dict[str, Any], key: str, where: str) -> str:
    value = row.get(key)
    if value is None or isinstance(value, str):
        return value if value and value.strip() else ""
    if key == "item_id" and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise InputError(f"{where}: {key} is text")


def _unknown(key: str) -> str:
    """Return what to say of a column that is none."""
    if not key:
        return "a value stands in a column without a name"
    names = [*_OWN_KEYS[:-1], *_FIELDS]
    near = difflib.get_close_matches(key.strip().lower().replace(" ", "_"), names, n=1)
    asked = f" (do you mean {near[0]!r}?)" if near else ""
    return f"there is no column {key!r}{asked}; the columns are {', '.join(names)}"


def _shaped(name: str, value: Any) -> Any:
    """Return a value as the field wants it: "A; B" as a list, names as artists."""
    descriptor = _FIELDS.get(name)
    if descriptor is None or (descriptor.message_type is None and not descriptor.is_repeated):
        if isinstance(value, bool):
            # No field of a track is one; as a number it would pass for a tempo of 1.
            raise json_format.ParseError(f"{name} is neither true nor false")
        if descriptor is None:
            return value
        if descriptor.enum_type is not None and isinstance(value, str):
            return _word(descriptor.enum_type, name, value)
        if descriptor.type == descriptor.TYPE_STRING and isinstance(value, int | float):
            # A number has lost the zeros at its beginning already.
            raise json_format.ParseError(f'{name} is text: "{value}", in quotes')
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


def _word(kind: EnumDescriptor, name: str, value: str) -> str:
    """Return an enum's value in full, for the word that people say: "not explicit"."""
    unset, *known = (value.name for value in kind.values)
    prefix = unset.removesuffix("UNSPECIFIED")
    full = prefix + value.strip().removeprefix(prefix).upper().replace(" ", "_").replace("-", "_")
    if full not in known:
        words = ", ".join(value.removeprefix(prefix).lower() for value in known)
        raise json_format.ParseError(f"{name} is one of {words}; not {value!r}")
    return full


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
