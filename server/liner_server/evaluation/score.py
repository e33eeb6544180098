"""What is played when: a piece's notes and strokes, from its style and seed."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from liner_server.evaluation.styles import (
    MAJOR,
    MAJOR_PROGRESSIONS,
    MINOR,
    MINOR_PROGRESSIONS,
    STYLES,
    Style,
)

if TYPE_CHECKING:
    from liner_server.evaluation.synth import Piece

_NUMERALS = {"i": 0, "ii": 1, "iii": 2, "iv": 3, "v": 4, "vi": 5, "vii": 6}
PITCH_CLASSES = {
    "C": 0, "C#": 1, "Db": 1, "D": 2, "Eb": 3, "D#": 3, "E": 4, "F": 5, "F#": 6, "Gb": 6, "G": 7,
    "Ab": 8, "G#": 8, "A": 9, "Bb": 10, "A#": 10, "B": 11,
}  # fmt: skip
"""Semitones above C."""

_STEPS = {"4/4": (16, 4), "3/4": (12, 4), "6/8": (12, 6)}
"""Sixteenths in a bar, and in a beat."""

_GAINS = {"drums": 0.9, "bass": 0.8, "chords": 0.35, "melody": 0.6}


@dataclass(frozen=True, slots=True)
class Event:
    """One note or stroke."""

    time: float
    """Seconds from the start of the recording; negative if it began before."""

    seconds: float
    part: str
    voice: str
    pitch: float
    gain: float


@dataclass(frozen=True, slots=True)
class Chord:
    """Pitch classes of one harmony, root first."""

    tones: tuple[int, ...]
    scale: tuple[int, ...]
    """Pitch classes that a melody may use above it."""


def compose(piece: "Piece") -> Iterator[Event]:
    """Yield everything that is played, in no order."""
    style = STYLES[piece.style]
    rng = np.random.default_rng([piece.seed, 2])
    steps_a_bar, steps_a_beat = _STEPS[style.meter]
    clock = _Clock(piece, style, steps_a_beat)
    first_bar = int(piece.start_beat * steps_a_beat // steps_a_bar)
    total_steps = (piece.start_beat + piece.seconds * piece.bpm / 60 * 1.04) * steps_a_beat
    last_bar = int(np.ceil(total_steps / steps_a_bar))
    last_step = np.inf
    if piece.stop_beat is not None:
        last_step = (piece.start_beat + piece.stop_beat) * steps_a_beat
    chords = _harmony(piece, style, rng)
    parts: list[_Part] = [
        _Drums(style, steps_a_bar, rng),
        _Bass(style, steps_a_bar, rng),
        _Chords(style, steps_a_bar, rng),
        _Melody(style, steps_a_bar, steps_a_beat, rng),
    ]
    # A part is silent for eight bars now and then, so that pieces have sections.
    rests = rng.random((len(parts), 64)) < 0.12
    rests[:, first_bar // 8] = False
    for number, part in enumerate(parts):
        name = ("drums", "bass", "chords", "melody")[number]
        if name in piece.mute:
            continue
        for bar in range(first_bar, last_bar + 1):
            if rests[number, bar // 8 % 64]:
                continue
            for step, length, voice, pitch, gain in part.bar(bar, chords):
                position = bar * steps_a_bar + step
                if position >= last_step or voice in piece.mute:
                    continue
                time = clock.at(position) + rng.normal(0, 1) * piece.jitter_seconds
                end = clock.at(position + length)
                if time > piece.seconds or end < 0:
                    continue
                strength = gain * _GAINS[name] * rng.uniform(0.8, 1.0)
                yield Event(time, max(0.03, end - clock.at(position)), name, voice, pitch, strength)


def key_is_heard(piece: "Piece") -> bool:
    """Return whether a piece's sounds, and not only its composer, say what key it is in.

    A riff of three notes is in many keys and a chord without third in two modes; and where the
    relative key's chord sounds as long as the tonic's and the progression does not begin at home,
    the very same chords are another piece's in the relative key.
    """
    tonic_name, mode = piece.key.split()
    tonic, third = PITCH_CLASSES[tonic_name], 4 if mode == "major" else 3
    heard = np.zeros(12)
    for event in compose(piece):
        begin, end = max(0.0, event.time), min(piece.seconds, event.time + event.seconds)
        if event.part != "drums" and end > begin:
            heard[int(event.pitch - tonic) % 12] += end - begin
    shares = heard / max(1e-9, heard.sum())
    if (shares > 0.005).sum() < 5 or min(shares[0], shares[third]) < 0.04:
        return False
    rng = np.random.default_rng([piece.seed, 2])
    row = _harmony(piece, STYLES[piece.style], rng).first_row
    roots = [(chord.tones[0] - tonic) % 12 for chord in row]
    if not STYLES[piece.style].chords and not STYLES[piece.style].bass:
        return True
    relative = roots.count(9 if mode == "major" else 3)
    return roots.count(0) > relative or (roots[0] == 0 and roots.count(0) == relative)


class _Clock:
    """From sixteenths to seconds: swing, drift and where the recording was cut."""

    def __init__(self, piece: "Piece", style: Style, steps_a_beat: int) -> None:
        self._beat = 60 / piece.bpm
        self._steps = steps_a_beat
        self._swing = style.swing if piece.swing is None else piece.swing
        if steps_a_beat == 6:  # compound time swings already
            self._swing = 0.0
        self._drift = piece.drift
        self._phase = piece.seed % 7
        self._start = 0.0
        self._start = self.at(piece.start_beat * steps_a_beat)

    def at(self, step: float) -> float:
        beats, share = divmod(step / self._steps, 1.0)
        middle = 0.5 + self._swing / 2
        share = share * 2 * middle if share < 0.5 else middle + (share - 0.5) * 2 * (1 - middle)
        seconds = (beats + share) * self._beat
        # A wave 23 s long: its slope, and so the tempo's excursion, is at most `drift`.
        length = 23 / (2 * np.pi)
        wander = self._drift * length * np.sin(seconds / length + self._phase)
        return float(seconds + wander - self._start)


def _harmony(piece: "Piece", style: Style, rng: np.random.Generator) -> "_Harmony":
    tonic_name, mode = piece.key.split()
    progressions = MAJOR_PROGRESSIONS if mode == "major" else MINOR_PROGRESSIONS
    # Half of all pieces change harmony after eight bars; the first progression starts at home.
    chosen = [str(progressions[rng.integers(len(progressions))]) for _ in range(2)]
    if rng.random() < 0.5:
        chosen[1] = chosen[0]
    sevenths = rng.random() < (0.7 if style.swing or style.arpeggio else 0.2)
    tonic = PITCH_CLASSES[tonic_name]
    rows = [
        [_chord(name, tonic, mode, sevenths=sevenths) for name in text.split()] for text in chosen
    ]
    beats = piece.seconds * piece.bpm / 60
    steps_a_bar, steps_a_beat = _STEPS[style.meter]
    turn = int((piece.start_beat + beats * 2 / 3) * steps_a_beat / steps_a_bar)
    return _Harmony(rows, style.bars_a_chord, piece.modulation, turn)


class _Harmony:
    """Which chord sounds at a place in the piece."""

    def __init__(
        self, rows: list[list[Chord]], bars_a_chord: float, modulation: int, turn: int
    ) -> None:
        self._rows = rows
        self._bars = bars_a_chord
        self._modulation = modulation
        self._turn = turn

    @property
    def first_row(self) -> list[Chord]:
        """The progression that the piece begins with."""
        return self._rows[0]

    def at(self, bar: float) -> Chord:
        row = self._rows[int(bar // 8) % 2]
        chord = row[int(bar / self._bars + 1e-6) % len(row)]
        shift = self._modulation if bar >= self._turn else 0
        if not shift:
            return chord
        return Chord(
            tuple((tone + shift) % 12 for tone in chord.tones),
            tuple((tone + shift) % 12 for tone in chord.scale),
        )


def _chord(name: str, tonic: int, mode: str, *, sevenths: bool) -> Chord:
    """Return the chord a roman numeral names: case is its mode, `o` diminished, `b` lowered."""
    scale = MAJOR if mode == "major" else MINOR
    flat, plain = name.startswith("b"), name.lstrip("b").rstrip("o")
    degree = _NUMERALS[plain.lower()]
    root = (MAJOR[degree] - 1) if flat else scale[degree]
    third = 4 if plain.isupper() else 3
    tones = [root, root + third, root + (6 if name.endswith("o") else 7)]
    notes = set(scale) | {tone % 12 for tone in tones}
    if mode == "minor" and plain == "V":
        notes.discard(10)  # the leading note takes the place of the natural seventh
    if sevenths and not flat:
        small = plain == "V" or (root + 11) % 12 not in scale
        tones.append(root + (10 if small else 11))
    return Chord(
        tuple((tonic + tone) % 12 for tone in tones),
        tuple(sorted((tonic + n) % 12 for n in notes)),
    )


_Stroke = tuple[float, float, str, float, float]
"""Step in the bar, length in steps, voice, pitch, gain."""


class _Part(Protocol):
    """One player."""

    def bar(self, bar: int, chords: _Harmony) -> Iterator[_Stroke]: ...


class _Drums:
    """The groove, with fills at the end of every eighth bar."""

    def __init__(self, style: Style, steps: int, rng: np.random.Generator) -> None:
        self._rng = rng
        self._steps = steps
        self._rows = {
            name: [_play(mark, rng) for mark in (row * 2)[:steps]]
            for name, row in style.drums.items()
            if name in ("kick", "snare") or rng.random() < 0.9 or len(style.drums) < 3
        }

    def bar(self, bar: int, chords: _Harmony) -> Iterator[_Stroke]:
        fill = bar % 8 == 7 and "snare" in self._rows and self._rng.random() < 0.6
        for name, row in self._rows.items():
            for step, gain in enumerate(row):
                if gain and not (fill and step >= self._steps - 4):
                    accent = 1.0 if step % 4 == 0 else 0.8
                    yield step, 1, name, 0.0, gain * accent
        if fill:
            for step in range(self._steps - 4, self._steps):
                yield step, 1, "snare" if step % 2 else "tom", 0.0, 0.7


def _play(mark: str, rng: np.random.Generator) -> float:
    if mark == "?":
        return 0.8 if rng.random() < 0.4 else 0.0
    return {"x": 1.0, "o": 0.35}.get(mark, 0.0)


class _Bass:
    """Root, fifth, octave or a walk."""

    def __init__(self, style: Style, steps: int, rng: np.random.Generator) -> None:
        self._rng = rng
        self._row = (style.bass * 2)[:steps]
        self._steps = steps
        self._voice = str(rng.choice(style.bass_voices))

    def bar(self, bar: int, chords: _Harmony) -> Iterator[_Stroke]:
        marks = [(step, mark) for step, mark in enumerate(self._row) if mark != "."]
        for number, (step, mark) in enumerate(marks):
            end = marks[number + 1][0] if number + 1 < len(marks) else self._steps
            chord = chords.at(bar + step / self._steps)
            tone = chord.tones[0]
            if mark == "f":
                tone = (tone + 7) % 12
            elif mark == "w" and step % 8:
                tone = int(self._rng.choice(chord.tones))
            pitch = 31 + (tone - 31) % 12 + (12 if mark == "o" else 0)
            yield step, (end - step) * 0.9, self._voice, pitch, 1.0


class _Chords:
    """Harmony, struck or broken."""

    def __init__(self, style: Style, steps: int, rng: np.random.Generator) -> None:
        self._row = (style.chords * 2)[:steps]
        self._steps = steps
        self._voice = str(rng.choice(style.chord_voices))
        self._power = style.power and rng.random() < 0.6
        if self._power:
            self._voice = "distorted"
        self._arpeggio = style.arpeggio
        self._staccato = style.staccato
        self._low = int(rng.integers(50, 62))

    def bar(self, bar: int, chords: _Harmony) -> Iterator[_Stroke]:
        strokes = [step for step, mark in enumerate(self._row) if mark == "x"]
        for number, step in enumerate(strokes):
            end = strokes[number + 1] if number + 1 < len(strokes) else self._steps
            tones = chords.at(bar + step / self._steps).tones
            if self._power:
                root = 40 + (tones[0] - 40) % 12
                pitches = [root, root + 7, root + 12]
            else:
                pitches = sorted(self._low + (tone - self._low) % 12 for tone in tones)
            length = (end - step) * self._staccato
            if self._arpeggio:
                yield step, length * 2, self._voice, pitches[number % len(pitches)], 1.6
            else:
                for pitch in pitches:
                    yield step, length, self._voice, pitch, 1.0


class _Melody:
    """A wandering line on a rhythm that comes back."""

    def __init__(self, style: Style, steps: int, beat: int, rng: np.random.Generator) -> None:
        self._rng = rng
        self._steps = steps
        self._voice = str(rng.choice(style.lead_voices))
        self._centre = int(rng.integers(64, 76))
        self._place = float(self._centre)
        # A two-bar rhythm that comes back, as tunes have; more often on beats than between.
        weights = np.array([_weight(step % beat, beat) for step in range(steps * 2)])
        chance = np.clip(weights * style.melody * steps / beat / weights[:steps].sum() * 1.0, 0, 1)
        self._rhythm = np.flatnonzero(rng.random(steps * 2) < chance)
        self._sounding = style.melody > 0

    def bar(self, bar: int, chords: _Harmony) -> Iterator[_Stroke]:
        if not self._sounding:
            return
        half = bar % 2 * self._steps
        strokes = [int(s) - half for s in self._rhythm if half <= s < half + self._steps]
        for number, step in enumerate(strokes):
            end = strokes[number + 1] if number + 1 < len(strokes) else self._steps
            chord = chords.at(bar + step / self._steps)
            strong = step % 4 == 0
            allowed = chord.tones if strong and self._rng.random() < 0.75 else chord.scale
            self._place += self._rng.normal(0, 2.5) - 0.15 * (self._place - self._centre)
            near = [p for p in range(int(self._place) - 6, int(self._place) + 7)
                    if p % 12 in allowed]  # fmt: skip
            pitch = min(near, key=lambda p: abs(p - self._place), default=self._centre)
            yield step, min(end - step, 8) * 0.95, self._voice, pitch, 1.0


def _weight(step: int, beat: int) -> float:
    if step == 0:
        return 1.0
    if beat == 6:
        return {2: 0.35, 4: 0.7}.get(step, 0.03)
    return 0.5 if step % 2 == 0 else 0.08
