"""Notes into samples through a sound font: sampled instruments, which the generator has not.

Only fitting needs it, so the player is no dependency of Liner: `pip install --no-deps
tinysoundfont` (MIT) where tables are fitted. Sound fonts are named by the caller; `recordings`
takes them from Debian.
"""

import importlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from liner_server.evaluation.voices import Samples

DRUMS = 9
"""The channel whose pitches are drums."""

_BLOCK = 64


@dataclass(frozen=True, slots=True)
class Note:
    """One note of one instrument."""

    time: float
    """Seconds from the start; negative if it began before."""

    seconds: float
    channel: int
    program: int
    """General MIDI instrument, 0 to 127; on channel 9 the drum kit."""

    pitch: int
    velocity: int


def play(notes: Iterable[Note], *, seconds: float, font: Path, sample_rate: int) -> Samples:
    """Return the notes as (frames, 2) float32, cut after `seconds`."""
    player, number = _player(font, sample_rate)
    player.notes_off()
    player.sounds_off()
    events: list[tuple[float, int, Note]] = []
    for note in notes:
        if note.time + note.seconds <= 0 or note.time >= seconds:
            continue
        events += [(max(0.0, note.time), 1, note), (note.time + note.seconds, 0, note)]
    events.sort(key=lambda event: event[:2])
    parts: list[Samples] = []
    now = 0
    total = round(seconds * sample_rate)

    def advance(frame: int) -> None:
        nonlocal now
        if frame > now:
            parts.append(np.frombuffer(player.generate(frame - now), np.float32).copy())
            now = frame

    for time, starts, note in events:
        advance(min(total, round(time * sample_rate)))
        if time >= seconds:
            break
        if starts:
            bank = 128 if note.channel == DRUMS else 0
            player.program_select(note.channel, number, bank, note.program)
            player.noteon(note.channel, note.pitch, note.velocity)
        else:
            player.noteoff(note.channel, note.pitch)
    advance(total)
    return np.concatenate(parts).reshape(-1, 2)


def read_midi(data: bytes) -> list[Note]:
    """Return the notes of a MIDI file, their times by its own tempi."""
    module: Any = importlib.import_module("tinysoundfont._tinysoundfont")
    kinds = module.MidiMessageType
    programs = dict.fromkeys(range(16), 0)
    open_notes: dict[tuple[int, int], tuple[float, int, int]] = {}
    notes: list[Note] = []
    for message in module._midi_load_memory(data):
        kind, channel = message["type"], message["channel"]
        if kind == kinds.PROGRAM_CHANGE:
            programs[channel] = message["program"]
            continue
        if kind not in (kinds.NOTE_ON, kinds.NOTE_OFF):
            continue
        place = (channel, message["key"])
        if place in open_notes:
            begin, program, velocity = open_notes.pop(place)
            seconds = max(0.02, message["t"] - begin)
            notes.append(Note(begin, seconds, channel, program, place[1], velocity))
        if kind == kinds.NOTE_ON and message.get("velocity"):
            open_notes[place] = (message["t"], programs[channel], message["velocity"])
    return sorted(notes, key=lambda note: note.time)


@cache
def _player(font: Path, sample_rate: int) -> tuple[Any, int]:
    """Return a player with the font loaded, which takes a second, and the font's number."""
    module: Any = importlib.import_module("tinysoundfont")
    player = module.Synth(gain=-6, samplerate=sample_rate)
    return player, player.sfload(str(font))
