"""What the analysis hears in pieces, sounds and recordings, before anything is fitted on it."""

import csv
import pickle
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from liner_server.audio import chroma, gate, key, loop, rhythm
from liner_server.audio.measurements import Content
from liner_server.audio.spectra import SAMPLE_RATE, Floats, is_silent
from liner_server.evaluation import synth
from liner_server.evaluation.encode import read
from liner_server.evaluation.score import key_is_heard
from liner_server.evaluation.sounds import SOUNDS, render_sound
from liner_server.evaluation.styles import STYLES

_PATCHES = 3
"""Of musicnn's, a clip: enough to know its kind."""

LEAST_SECONDS = 4
"""Shorter sounds that are not music teach nothing about beats."""

_CHUNK = 100


@dataclass(frozen=True, kw_only=True)
class Heard:
    """A piece, sound or recording: its labels, and what was heard in it."""

    name: str
    content: Content
    bpm: float | None
    """None for what is not music or has no labelled tempo."""

    octave_open: bool = False
    """Half or double the tempo is as good an answer."""

    key: str | None
    """As `key.KEYS` spells it; None for what has none or no certain one."""

    pitched: bool | None = None
    """False for what has no notes at all, None where nobody knows."""

    seconds: float
    measures: Floats
    """As `gate.describe` takes them."""

    embedding: Floats
    """(200,): the mean over patches."""

    rhythm: rhythm.Rhythm | None
    """None where no tempo is to be learned."""

    loop: loop.Loop
    """How the strokes lie in it, and its ends."""

    notes: chroma.Chroma

    recorded: bool = False
    """Out of `recordings`, and not of the generator."""

    def right_tempi(self, tempi: Floats) -> NDArray[np.bool_]:
        """Return which tempi are within 4 % of the label."""
        ratios = (1.0, 0.5, 2.0) if self.octave_open else (1.0,)
        near = [np.abs(tempi / ((self.bpm or np.inf) * ratio) - 1) < 0.04 for ratio in ratios]
        return np.asarray(np.any(near, axis=0))


@dataclass(frozen=True, kw_only=True)
class Keyed:
    """A piece's key and notes, for which nothing else has to be heard."""

    key: str
    notes: chroma.Chroma


def hear(
    mono: Floats, *, name: str, content: Content, bpm: float | None = None,
    octave_open: bool = False, key_name: str | None = None, pitched: bool | None = None,
    with_rhythm: bool = True, recorded: bool = False,
) -> Heard:  # fmt: skip
    """Return all that is heard in a signal."""
    return Heard(
        name=name,
        content=content,
        bpm=bpm,
        octave_open=octave_open,
        key=key_name,
        pitched=True if key_name else pitched,
        seconds=len(mono) / SAMPLE_RATE,
        measures=gate.describe(mono)[1],
        embedding=gate.embedding_of(mono, patches=_PATCHES).mean(0),
        rhythm=rhythm.hear(mono) if with_rhythm else None,
        loop=loop.measure(mono),
        notes=chroma.measure(mono),
        recorded=recorded,
    )


def hear_piece(seed: int) -> Heard:
    """Return what is heard in one of the generator's pieces."""
    piece = synth.draw(seed)
    style = STYLES[piece.style]
    return hear(
        synth.render(piece, sample_rate=SAMPLE_RATE).mean(1),
        name=f"{piece.style} {seed}",
        content=Content.MUSIC,
        bpm=piece.bpm,
        octave_open=piece.octave_open,
        key_name=canonical(piece.key) if key_is_heard(piece) else None,
        pitched=None if style.chords or style.bass or style.melody else False,
    )


def hear_notes(seed: int) -> Keyed | None:
    """Return the notes of one of the generator's pieces, if they say what key it is in."""
    piece = synth.draw(seed)
    if not key_is_heard(piece):
        return None
    mono = synth.render(piece, sample_rate=SAMPLE_RATE).mean(1)
    return Keyed(key=canonical(piece.key), notes=chroma.measure(mono))


def hear_sound(seed: int) -> Heard:
    """Return what is heard in one of the generator's sounds that are not music."""
    content, mono = sound(seed)
    return hear(mono, name=f"{content.value} {seed}", content=content, pitched=False)


def hear_clip(row: dict[str, str]) -> Heard | None:
    """Return what is heard in a recording of `recordings`' lists; None if that is silence."""
    mono = read(Path(row["path"]), SAMPLE_RATE)
    if is_silent(mono):
        return None
    content = Content(row["content"])
    bpm = float(row["bpm"]) if row["bpm"] else None
    # Half of the sounds are enough to learn that they have no beat. Played round, as short files
    # are, they all have one: telling those from loops is the gate's work.
    other = content is not Content.MUSIC and len(mono) > LEAST_SECONDS * SAMPLE_RATE
    other = other and bool(zlib.crc32(row["path"].encode()) % 2)
    return hear(
        mono,
        name=Path(row["path"]).name,
        content=content,
        bpm=bpm,
        octave_open=row["bpm_octave_ok"] == "true",
        key_name=canonical(row["key"]) if row["key"] else None,
        pitched=None if content is Content.MUSIC else False,
        with_rhythm=bpm is not None or other,
        recorded=True,
    )


def sound(seed: int) -> tuple[Content, Floats]:
    """Return a random sound that is not music and not silence, and its kind."""
    rng = np.random.default_rng([seed, 4])
    # Speech and calls count double: they are what is met.
    kinds = [*(kind for kind in SOUNDS if kind != "silence"), "speech", "calls"]
    kind = kinds[seed % len(kinds)]
    # A short clatter cannot be told from a loop of percussion, by anyone.
    shortest = 8 if kind == "knocks" else 1
    seconds = float(np.exp(rng.uniform(np.log(shortest), np.log(20))))
    samples = render_sound(kind, seconds=seconds, seed=seed, sample_rate=SAMPLE_RATE)
    return Content.SPEECH if kind == "speech" else Content.NOISE, samples.mean(1)


def canonical(name: str) -> str:
    """Return a generator's key as the estimator spells it."""
    tonic, mode = name.split()
    return f"{key.NOTES[synth.NOTES.index(tonic)]} {mode}"


def rows_of(path: Path | None) -> list[dict[str, str]]:
    """Return the rows of a list that `recordings` wrote; none without a list."""
    if path is None:
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def cached(folder: Path, name: str, work: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    """Return the work's results that are not None, from the cache as far as it has them.

    Results are kept by the hundred, so that work which was stopped goes on where it was.
    """
    results: list[Any] = []
    with ProcessPoolExecutor() as pool:
        for start in range(0, len(items), _CHUNK):
            path = folder / f"{name}-{start:05d}.pickle"
            if path.exists():
                results += pickle.loads(path.read_bytes())  # noqa: S301 - our own file
                continue
            part = list(pool.map(work, items[start : start + _CHUNK], chunksize=4))
            path.write_bytes(pickle.dumps(part))
            results += part
    return [result for result in results if result is not None]
