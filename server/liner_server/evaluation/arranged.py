"""Music that others composed, with known tempo and key: MMA's grooves and music21's scores.

The generator's pieces share its author's idea of music. MMA (Debian's `mma`) holds some three
hundred styles by several hands, and music21's corpus (`pip install music21`) chorales, fiddle
tunes and quartets; played by a sound font they are the nearest thing to labelled records that
anybody can make again. Only fitting needs them.
"""

import contextlib
import importlib
import io
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from liner_server.evaluation import synth
from liner_server.evaluation.score import PITCH_CLASSES
from liner_server.evaluation.soundfont import DRUMS, Note, play, read_midi
from liner_server.evaluation.styles import MAJOR, MAJOR_PROGRESSIONS, MINOR, MINOR_PROGRESSIONS
from liner_server.evaluation.voices import Samples

_PACES = (
    (("slow", "ballad", "lullaby", "bolero", "spiritual", "hymn", "serenade"), (60, 84)),
    (("reggae", "hiphop", "trip", "rnb", "mellow"), (70, 100)),
    (("dnb",), (160, 178)),
    (("fast", "bebop", "punk", "quickstep", "polka", "vienese", "charleston"), (150, 200)),
    (("house", "trance", "techno", "dance", "rave", "disco"), (116, 146)),
)
"""Tempi by words in a groove's name; MMA's files seldom say. Others are played at 80 to 150."""

_LEADS = (0, 4, 11, 22, 24, 26, 40, 56, 60, 65, 66, 68, 71, 73, 80, 81)
_KEYBOARDS = (0, 0, 6, 19, 48, 24, 52, 61)
"""Instruments for scores: piano, harpsichord, organ, strings, guitar, choir, horns."""


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A few seconds of music and what is known about it."""

    name: str
    samples: Samples
    bpm: float | None = None
    octave_open: bool = False
    """Half or double the tempo is as good an answer."""

    key: str | None = None
    """As "F# minor"."""


@dataclass(frozen=True, kw_only=True)
class Groove:
    """One of MMA's, with the beats of its bar."""

    file: str
    name: str
    beats: int


@cache
def grooves(library: Path) -> tuple[Groove, ...]:
    """Return MMA's grooves in 3/4 and 4/4, without intros, fills and endings, ordered by name.

    `library` is the package's `usr/share/mma`.
    """
    found = []
    for path in sorted((library / "lib").rglob("*.mma")):
        text = path.read_text(encoding="latin-1")
        meters = {match.split()[0] for match in re.findall(r"(?im)^\s*time\s+(\d+)", text)}
        signatures = set(re.findall(r"(?im)^\s*timesig\s+(\d+)[\s/]+(\d+)", text))
        if len(meters) != 1 or not meters <= {"3", "4"} or len(signatures - {("2", "2")}) > 1:
            continue
        if any(signature not in {("4", "4"), ("3", "4"), ("2", "2")} for signature in signatures):
            continue
        found += [
            Groove(file=path.stem, name=name, beats=int(*meters))
            for name in re.findall(r"(?im)^\s*defgroove\s+(\S+)", text)
            if not re.search(r"(?i)intro|end|fill|metronome|sus$|plus$", name)
        ]
    return tuple(found)


def index_grooves(library: Path) -> None:
    """Let MMA find its grooves by name, which it does only with an index it writes itself."""
    (library / "plugins").mkdir(exist_ok=True)
    _run_mma(["-G"], library)


def accompaniment(seed: int, *, library: Path, font: Path, sample_rate: int) -> Clip | None:
    """Return a groove on a random progression, perhaps with a tune; None where MMA refuses.

    Half are loops of whole bars, and most of those of one or a few instruments alone, as sample
    packs hold them.
    """
    rng = np.random.default_rng([seed, 5])
    every = grooves(library)
    # Files have few grooves or many; each file is as likely.
    files = sorted({groove.file for groove in every})
    file = str(rng.choice(files))
    groove = [g for g in every if g.file == file][int(rng.integers(99)) % sum(
        g.file == file for g in every)]  # fmt: skip
    low, high = next(
        (pace for words, pace in _PACES if any(word in file.lower() for word in words)), (80, 150)
    )
    bpm = round(float(np.exp(rng.uniform(np.log(low), np.log(high)))), int(rng.integers(0, 2)))
    mode = str(rng.choice(["major", "minor"]))
    tonic = str(rng.choice(synth.NOTES))
    bars = 24
    chords = _chords(tonic, mode, bars, rng)
    notes = _mma(groove, bpm, chords, library)
    if not notes:
        return None
    if rng.random() < 0.6:
        notes += _tune(tonic, mode, groove.beats, bpm, bars, rng)
    piece = synth.draw(seed)
    bar = groove.beats * 60 / bpm
    if rng.random() < 0.5:
        length = int(rng.choice([1, 2, 4, 8], p=[0.35, 0.35, 0.2, 0.1])) * bar
        begin = bar * int(rng.integers(0, 12))
        seconds = length * (1 + (rng.normal(0, 0.01) if rng.random() < 0.2 else 0))
        notes = _thinned(notes, rng)
        if rng.random() < 0.2:
            # Nothing is played after the last bar; what sounds by then rings on.
            notes = [note for note in notes if note.time < begin + length - 0.01]
            seconds = length + float(rng.uniform(0.1, 2.0)) * 60 / bpm
    else:
        begin, seconds = float(rng.uniform(0, 8)), float(rng.uniform(10, 26))
    notes = [replace(note, time=note.time - begin) for note in notes]
    if not any(0 <= note.time < seconds for note in notes):
        return None
    pitched = {note.pitch % 12 for note in notes
               if note.channel != DRUMS and 0 <= note.time < seconds}  # fmt: skip
    return Clip(
        name=f"{groove.file}-{groove.name}-{seed}",
        samples=_mastered(notes, piece, seconds, font, sample_rate),
        bpm=bpm,
        octave_open=len({(n.channel, n.pitch if n.channel == DRUMS else 0) for n in notes}) == 1,
        # A riff of three notes is in many keys.
        key=f"{tonic} {mode}" if len(pitched) >= 5 else None,
    )


def tune(path: Path, seed: int, *, font: Path, sample_rate: int) -> Clip | None:
    """Return half a minute of a score from music21's corpus; None if its key is not certain."""
    rng = np.random.default_rng([seed, 6])
    read: Any = importlib.import_module("music21.converter")
    with contextlib.redirect_stderr(io.StringIO()):
        try:
            score = read.parse(path)
            key = _key_of(score)
            found = _score_notes(score, rng)
        except Exception:
            return None
    if key is None or len(found) < 20:
        return None
    shift = int(rng.integers(-5, 7))
    tonic, mode = key.split()
    key = f"{synth.NOTES[(PITCH_CLASSES[tonic] + shift) % 12]} {mode}"
    signature = score.recurse().getElementsByClass("TimeSignature").first()
    simple = signature is not None and signature.ratioString in ("4/4", "3/4", "2/4")
    bpm = float(rng.integers(76, 132))
    beat = 60 / bpm
    notes = [
        replace(n, time=n.time * beat, seconds=n.seconds * beat, pitch=n.pitch + shift)
        for n in found
    ]
    last = max(note.time + note.seconds for note in notes)
    seconds = float(min(last, rng.uniform(12, 32)))
    piece = synth.draw(seed)
    return Clip(
        name=f"{path.stem}-{seed}",
        samples=_mastered(notes, piece, seconds, font, sample_rate),
        bpm=bpm if simple else None,
        octave_open=True,
        key=key,
    )


def _mma(groove: Groove, bpm: float, chords: Sequence[str], library: Path) -> list[Note]:
    """Return what MMA makes of chords, one a bar."""
    lines = [f"Tempo {bpm}", f"Groove {groove.name}"]
    lines += [f"{number} {chord}" for number, chord in enumerate(chords, 1)]
    with tempfile.TemporaryDirectory() as folder:
        script, out = Path(folder) / "song.mma", Path(folder) / "song.mid"
        script.write_text("\n".join(lines) + "\n", encoding="ascii")
        _run_mma(["-f", str(out), str(script)], library)
        return read_midi(out.read_bytes()) if out.exists() else []


def _run_mma(arguments: Sequence[str], library: Path) -> None:
    subprocess.run(
        [sys.executable, str(library.parents[1] / "bin" / "mma"), *arguments],
        env={"PYTHONPATH": str(library)},
        capture_output=True,
        check=False,
        timeout=600,
    )


def _chords(tonic: str, mode: str, bars: int, rng: np.random.Generator) -> list[str]:
    rows = MAJOR_PROGRESSIONS if mode == "major" else MINOR_PROGRESSIONS
    row = str(rng.choice(rows)).split()
    scale = MAJOR if mode == "major" else MINOR
    sevenths = rng.random() < 0.3
    slow = 2 if rng.random() < 0.25 else 1
    names = []
    for bar in range(bars):
        numeral = row[bar // slow % len(row)]
        plain = numeral.lstrip("b").rstrip("o")
        degree = ("i", "ii", "iii", "iv", "v", "vi", "vii").index(plain.lower())
        root = MAJOR[degree] - 1 if numeral.startswith("b") else scale[degree]
        name = synth.NOTES[(PITCH_CLASSES[tonic] + root) % 12]
        name += "dim" if numeral.endswith("o") else "" if plain.isupper() else "m"
        if sevenths and not numeral.endswith("o"):
            name += "7" if plain == "V" or not plain.isupper() else "M7"
        names.append(name)
    return names


def _tune(
    tonic: str, mode: str, beats: int, bpm: float, bars: int, rng: np.random.Generator
) -> list[Note]:
    """Return a wandering line on a rhythm of two bars that comes back."""
    scale = [(PITCH_CLASSES[tonic] + step) % 12 for step in (MAJOR if mode == "major" else MINOR)]
    steps = beats * 4
    weight = np.where(np.arange(steps) % 2 == 0, np.where(np.arange(steps) % 4 == 0, 0.7, 0.3), 0)
    rhythm = np.flatnonzero(rng.random(steps) < weight)
    if not len(rhythm):
        return []
    program, place = int(rng.choice(_LEADS)), 72.0
    unit = 60 / bpm / 2
    notes = []
    for half in range(0, bars, 2):
        for number, step in enumerate(rhythm):
            place += rng.normal(0, 2.5) - 0.2 * (place - 72)
            near = [p for p in range(int(place) - 3, int(place) + 4) if p % 12 in scale]
            pitch = min(near, key=lambda p: abs(p - place))
            end = rhythm[number + 1] if number + 1 < len(rhythm) else steps
            time = (half * beats * 2 + int(step)) * unit
            notes.append(Note(time, min(4, int(end - step)) * unit * 0.9, 8, program, pitch, 100))
    return notes


def _thinned(notes: list[Note], rng: np.random.Generator) -> list[Note]:
    """Return all notes, the drums alone, one drum alone or one instrument alone."""
    drums = [note for note in notes if note.channel == DRUMS]
    others = sorted({note.channel for note in notes} - {DRUMS})
    kind = rng.random()
    if kind < 0.4 and drums:
        if kind < 0.08:
            pitches = sorted({note.pitch for note in drums})
            drums = [note for note in drums if note.pitch == rng.choice(pitches)] or drums
        # Kits beyond the standard one: room, power, electronic, 808, jazz, brushes.
        kit = int(rng.choice([0, 8, 16, 24, 25, 32, 40]))
        return [replace(note, program=kit) for note in drums]
    if kind < 0.65 and others:
        channel = int(rng.choice(others))
        return [note for note in notes if note.channel == channel]
    if kind < 0.75 and others:
        channel = int(rng.choice(others))
        return [note for note in notes if note.channel in (channel, DRUMS)]
    return notes


def _mastered(
    notes: Sequence[Note], piece: synth.Piece, seconds: float, font: Path, sample_rate: int
) -> Samples:
    """Return the notes as played, in the room and with the noise that a piece was drawn with."""
    dry = play(notes, seconds=seconds, font=font, sample_rate=sample_rate)
    rng = np.random.default_rng([piece.seed, 7])
    return synth.master(dry, piece, sample_rate, rng)[: len(dry)]


def _key_of(score: Any) -> str | None:
    """Return a score's key, if its signature and its last bass note agree on one."""
    keys = list(score.recurse().getElementsByClass("KeySignature"))
    if len({k.sharps for k in keys}) != 1:
        return None
    major = keys[0].sharps * 7 % 12
    named = {k.mode for k in keys if hasattr(k, "mode")} - {None}
    if named - {"major", "minor"} or len(named) > 1:
        return None
    bass = list(score.parts[-1].recurse().notes) if score.parts else list(score.recurse().notes)
    last = bass[-1].pitches[0].pitchClass
    found = {major: "major", (major + 9) % 12: "minor"}.get(last)
    if found is None or (named and named != {found}):
        return None
    return f"{synth.NOTES[last]} {found}"


def _score_notes(score: Any, rng: np.random.Generator) -> list[Note]:
    """Return a score's notes, times in quarters; parts on one instrument or on several."""
    one = int(rng.choice(_KEYBOARDS))
    mixed = rng.random() < 0.3
    notes = []
    for number, part in enumerate(list(score.parts)[:8] or [score]):
        program = int(rng.choice(_LEADS)) if mixed else one
        notes += [
            Note(
                float(element.offset),
                max(0.1, float(element.quarterLength) * 0.95),
                number,
                program,
                int(pitch.midi),
                int(rng.integers(70, 105)),
            )
            for element in part.flatten().notes
            for pitch in element.pitches
        ]
    return notes
