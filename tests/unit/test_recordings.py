from pathlib import Path

import numpy as np
import pytest
from liner_server.audio.spectra import SAMPLE_RATE
from liner_server.evaluation import arranged, recordings
from liner_server.evaluation.encode import read, write
from liner_server.evaluation.heard import cached
from liner_server.evaluation.recordings import SOURCES, Source

_GROOVE = "Time {time}\nTimesig {sig}\nSeqClear\nDefGroove {name}\nDefGroove {name}Intro\n"


def _library(folder: Path, **files: str) -> Path:
    (folder / "lib" / "stdlib").mkdir(parents=True)
    for name, text in files.items():
        (folder / "lib" / "stdlib" / f"{name}.mma").write_text(text)
    return folder


def test_only_grooves_whose_beat_is_certain_are_taken(tmp_path: Path) -> None:
    """In 6/8 the tempo that MMA is told is not the one that a listener taps."""
    library = _library(
        tmp_path,
        rock=_GROOVE.format(time=4, sig="4 4", name="Rock"),
        waltz=_GROOVE.format(time=3, sig="3 4", name="Waltz"),
        jig=_GROOVE.format(time=6, sig="6 8", name="Jig"),
    )

    found = arranged.grooves(library)

    assert [(groove.name, groove.beats) for groove in found] == [("Rock", 4), ("Waltz", 3)]


def _recording(folder: Path, seconds: float) -> Path:
    path = folder / "a.flac"
    rng = np.random.default_rng(1)
    samples = 0.1 * rng.standard_normal((int(seconds * SAMPLE_RATE), 1)).astype(np.float32)
    write(path, samples, SAMPLE_RATE)
    return path


def test_music_is_cut_into_clips_of_several_lengths(tmp_path: Path) -> None:
    """A gate that learned whole songs alone takes a two-second loop for noise."""
    source = Source(package="p", pattern="*", content="music")
    (tmp_path / "clips").mkdir()

    rows = recordings.cut((source, _recording(tmp_path, 30)), into=tmp_path / "clips")

    lengths = [len(read(Path(row["path"]), SAMPLE_RATE)) / SAMPLE_RATE for row in rows]
    assert lengths[:2] == pytest.approx([20, 6], abs=0.01)
    assert 1 <= lengths[2] <= 3
    assert len({row["split"] for row in rows}) == 1


def test_what_cannot_be_decoded_gives_no_clips(tmp_path: Path) -> None:
    """One broken file of a package must not cost all the others."""
    path = tmp_path / "a.ogg"
    path.write_bytes(b"OggS" + bytes(100))

    assert recordings.cut((SOURCES[0], path), into=tmp_path) == []


def test_recordings_are_chosen_evenly_and_without_jingles(tmp_path: Path) -> None:
    """The first thirty of a folder are all of one language or one animal."""
    root = tmp_path / "p" / "usr" / "share"
    root.mkdir(parents=True)
    for number in range(10):
        (root / f"{number}.wav").touch()
    (root / "tada.wav").touch()
    source = Source(package="p", pattern="*.wav", content="noise", without=("tada",), most=5)

    found = recordings.found(source, tmp_path)

    assert [path.stem for path in found] == ["0", "2", "4", "6", "8"]


def _double(number: int) -> int | None:
    return None if number == 1 else 2 * number


def test_work_that_was_kept_is_not_done_again(tmp_path: Path) -> None:
    """Hearing everything takes an hour; fitting again should not."""
    first = cached(tmp_path, "work", _double, [0, 1, 2])

    again = cached(tmp_path, "work", _fails, [0, 1, 2])

    assert first == again == [0, 4]


def _fails(_: int) -> None:
    raise AssertionError("done again")
