"""What the command line makes of files, folders and lists."""

import csv
import io
import json
import os
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from liner.v1 import track_pb2
from liner_client.inputs import InputError, collect


def _touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


def _nothing() -> io.StringIO:
    return io.StringIO()


def test_a_folder_gives_its_audio_in_a_fixed_order(tmp_path: Path) -> None:
    """Two runs over a folder must be comparable; covers and hidden files are no tracks."""
    for name in ("b/2.MP3", "b/1.flac", "a.wav", "cover.jpg", ".hidden.wav", ".git/x.wav"):
        _touch(tmp_path / name)

    entries = collect([str(tmp_path)], stdin=_nothing())

    assert [e.item_id for e in entries] == [
        str(tmp_path / name) for name in ("a.wav", "b/1.flac", "b/2.MP3")
    ]


def test_a_named_file_is_sent_whatever_it_is_called(tmp_path: Path) -> None:
    """The server judges by the bytes; a wrong extension is for it to report."""
    path = _touch(tmp_path / "song.xyz")

    [entry] = collect([str(path)], stdin=_nothing())

    assert entry.path == path


def test_a_file_named_twice_is_one_input(tmp_path: Path) -> None:
    """`liner enrich album album/*.flac` must not pay for each song twice."""
    path = _touch(tmp_path / "a.wav")

    entries = collect([str(path), str(tmp_path), str(path)], stdin=_nothing())

    assert len(entries) == 1


def test_a_csv_states_fields_and_names_audio_beside_it(tmp_path: Path) -> None:
    """A label's spreadsheet is the usual delivery; empty cells state nothing."""
    (tmp_path / "list.csv").write_text(
        "path,title,artists,bpm,isrc\na.wav,So What,Miles Davis; Bill Evans,136,\n",
        encoding="utf-8-sig",
    )

    [entry] = collect([str(tmp_path / "list.csv")], stdin=_nothing())

    assert entry.path == tmp_path / "a.wav"
    assert [artist.name for artist in entry.track.artists] == ["Miles Davis", "Bill Evans"]
    assert entry.track.bpm == 136
    assert not entry.track.HasField("isrc")


def test_json_lines_state_fields_as_the_contract_names_them() -> None:
    """What a program writes goes in as it is, artists with roles included."""
    row = {
        "item_id": "x1",
        "title": "A",
        "artists": [{"name": "B", "role": "ARTIST_ROLE_FEATURED"}, "C"],
        "object_name": "audio/1.wav",
        "tags": {"mood": "blue"},
    }

    [entry] = collect(["-"], stdin=io.StringIO(json.dumps(row) + "\n\n"))

    assert (entry.item_id, entry.path) == ("x1", None)
    assert entry.track.audio.object_name == "audio/1.wav"
    assert [artist.role for artist in entry.track.artists] == [2, 0]
    assert entry.track.tags["mood"] == "blue"


def test_standard_input_may_be_plain_paths() -> None:
    """`find ... | liner enrich -` works as with any other tool."""
    entries = collect(["-"], stdin=io.StringIO("a.wav\nsub/b c.mp3\n"))

    assert [e.path for e in entries] == [Path("a.wav"), Path("sub/b c.mp3")]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"titel": "x"}', r"line 1: there is no column 'titel' \(do you mean 'title'"),
        ('{"title": "x"}\n{"title": 5}', "line 2"),
        ('{"title": ', "line 1: not JSON"),
        ('{"bpm": "fast"}', "line 1.*bpm"),
        ('{"bpm": true}', "line 1.*bpm is neither"),
        ("{}", "neither path nor any field"),
        ('{"item_id": "a", "title": "x"}\n{"item_id": "a", "title": "y"}', "two inputs"),
        ("", "standard input is empty"),
    ],
)
def test_a_wrong_list_is_said_with_its_line(text: str, told: str) -> None:
    """In a list of ten thousand the line number is what helps."""
    with pytest.raises(InputError, match=told):
        collect(["-"], stdin=io.StringIO(text))


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("a.csv", "title\nCaf\u00e9\n".encode("latin-1"), "is not UTF-8"),
        ("a.jsonl", b'{"title": "Caf\xe9"}\n', "is not UTF-8"),
        ("a.csv", b"title,bpm,title\nA,120,B\n", "two columns are called 'title'"),
        ("a.jsonl", b'{"path": "a\\u0000b.wav"}\n', "line 1: no path holds a NUL"),
        ("a.jsonl", b'{"path": "\\ud800"}\n', "line 1: holds half a character"),
        ("a.jsonl", b'{"tags": ' + b"[" * 50_000 + b"\n", "line 1: is nested too deeply"),
    ],
)
def test_a_list_that_cannot_be_read_as_it_was_meant_is_refused(
    tmp_path: Path, name: str, data: bytes, told: str
) -> None:
    """A letter that was replaced, or a column that was dropped, is found by nobody later."""
    (tmp_path / name).write_bytes(data)

    with pytest.raises(InputError, match=told):
        collect([str(tmp_path / name)], stdin=_nothing())


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    """A typing error must not end as an empty result."""
    with pytest.raises(InputError, match="no such file"):
        collect([str(tmp_path / "nope.wav")], stdin=_nothing())


def test_a_failed_list_is_an_input_again(tmp_path: Path) -> None:
    """--failed-out of one run is what the next is given; the error is no field of a track."""
    line = {"path": "/music/a.wav", "title": "x", "error": {"reason": "AUDIO_EMPTY"}}
    (tmp_path / "failed.jsonl").write_text(json.dumps(line) + "\n")

    [entry] = collect([str(tmp_path / "failed.jsonl")], stdin=_nothing())

    assert (entry.path, entry.track.title) == (Path("/music/a.wav"), "x")


@example(name=b"\xef\xbb\xbf")
@given(name=st.binary(min_size=1, max_size=600).filter(lambda b: not set(b) & set(b"\0\n\r")))
def test_any_file_name_becomes_a_valid_id(name: bytes) -> None:
    """File names are bytes; ids are at most 256 bytes of UTF-8, and differ where names do."""
    text = os.fsdecode(name)
    if text.removeprefix("\ufeff").lstrip().startswith("{") or not text.strip():
        return
    other = text + "a"

    entries = collect(["-"], stdin=io.StringIO(f"{text}\n{other}\n"))

    ids = [entry.item_id.encode() for entry in entries]
    assert all(0 < len(one) <= 256 for one in ids)
    assert len(set(ids)) == 2


def test_a_cell_may_hold_the_json_of_what_has_parts(tmp_path: Path) -> None:
    """Roles, identifiers and facts about the file have no other way into a CSV."""
    path = tmp_path / "list.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["title", "artists", "moods", "tags", "properties"])
        writer.writerow(
            [
                "[Untitled]",
                '[{"name": "Ann; Eva", "role": "ARTIST_ROLE_FEATURED", "isni": "1"}]',
                '["calm", "warm; soft"]',
                '{"grid": "x"}',
                '{"codec": "flac", "duration": "2.5s"}',
            ]
        )
        writer.writerow(["Plain", "Ann; Eva", "[calm", "", ""])

    first, second = collect([str(path)], stdin=io.StringIO())

    assert first.track.title == "[Untitled]"
    assert [(a.name, a.role, a.isni) for a in first.track.artists] == [("Ann; Eva", 2, "1")]
    assert list(first.track.moods) == ["calm", "warm; soft"]
    assert dict(first.track.tags) == {"grid": "x"}
    assert first.track.properties.duration.ToTimedelta().total_seconds() == 2.5
    assert [artist.name for artist in second.track.artists] == ["Ann", "Eva"]
    assert list(second.track.moods) == ["[calm"]


def test_a_value_for_no_column_is_said_with_the_columns(tmp_path: Path) -> None:
    """Who typed `artist` needs to hear `artists`, spelled as a list spells it."""
    (tmp_path / "a.csv").write_text("title,artist\nSo What,Miles Davis\n")

    with pytest.raises(InputError, match=r"'artist' \(do you mean 'artists'\?\).*release_date"):
        collect([str(tmp_path / "a.csv")], stdin=_nothing())


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_spreadsheets_part_columns_in_three_ways(tmp_path: Path, delimiter: str) -> None:
    """What a spreadsheet saves depends on its country; rows of empty cells come at the end."""
    rows = [["title", "parental_warning"], ["So What", "not explicit"], ["", ""]]
    path = tmp_path / "a.csv"
    path.write_text("".join(delimiter.join(row) + "\r\n" for row in rows), encoding="utf-8-sig")

    [entry] = collect([str(path)], stdin=_nothing())

    assert entry.track.title == "So What"
    assert entry.track.parental_warning == track_pb2.PARENTAL_WARNING_NOT_EXPLICIT


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.csv", "title,artists\n", "no row below the header"),
        ("a.csv", "", "no row below the header"),
        ("a.jsonl", "\n", "no line in it"),
        ("a.csv", 'title\n"So What\nBlue\n', "unexpected end of data"),
        ("a.csv", "title,parental_warning\nA,rude\n", "one of explicit, .*not 'rude'"),
        ("a.jsonl", '{"title": "A", "upc": 12345678905}', 'upc is text: "12345678905"'),
        ("a.jsonl", '{"title": "A", "item_id": ["a"]}', "item_id is text"),
        ("a.jsonl", "x" * (4 * 1024 * 1024 + 1), "line 1: has more than 4,194,304 characters"),
    ],
)
def test_a_list_that_holds_no_track_says_what_is_wrong(
    tmp_path: Path, name: str, text: str, told: str
) -> None:
    """Nothing is read as something else, and an endless line ends."""
    (tmp_path / name).write_text(text)

    with pytest.raises(InputError, match=told):
        collect([str(tmp_path / name)], stdin=_nothing())


def test_an_empty_path_is_not_the_current_folder() -> None:
    """`liner enrich "$FOLDER"` with the variable unset would send whatever lies around."""
    with pytest.raises(InputError, match="empty"):
        collect([""], stdin=_nothing())


def test_a_device_is_no_input() -> None:
    """Some never end."""
    with pytest.raises(InputError, match="neither a file nor a folder"):
        collect(["/dev/zero"], stdin=_nothing())


def test_inputs_may_be_gone_through_again(tmp_path: Path) -> None:
    """They are read back from a temporary file: each time the same, whatever was stated."""
    row = {"title": "A", "artists": ["B"], "bpm": 120, "path": "a.wav", "item_id": "1"}
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n")

    entries = collect([str(tmp_path / "a.jsonl")], stdin=_nothing())

    assert list(entries) == list(entries)
    [entry] = entries
    assert entry.row == row | {"path": str(tmp_path / "a.wav")}
    assert (entry.track.bpm, entry.path) == (120, tmp_path / "a.wav")
