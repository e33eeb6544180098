"""The demo's eight files: made-up music with known answers, and what a label says of it.

Six are whole, with the faults that deliveries have; one ends early and one is no audio at all.
Beside them lie `delivery.jsonl`, what the label sends, and `truth.json`, what is right.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from liner_server.evaluation.encode import write
from liner_server.evaluation.synth import Piece, render

SAMPLE_RATE = 44_100

DELIVERY = "delivery.jsonl"
"""Name of the list of what the label sends, one JSON object a track."""

TRUTH = "truth.json"
"""Name of the list of what is right."""

_LEVEL = np.float32(0.6)
"""Leaves room for peaks between samples: no file has a fault that it is not meant to have."""

_NO_AUDIO = (
    "Liner notes\n\nSide A was recorded in one night. Somebody then saved these notes under the\n"
    "name of the last song, and so they were delivered.\n"
) * 8


@dataclass(frozen=True, kw_only=True)
class _DemoTrack:
    """One file of the demo."""

    path: str
    problem: str
    """What is wrong with it, for people."""

    piece: Piece | None
    """Its music; None when there is none."""

    sent: dict[str, Any] = field(default_factory=dict)
    """What the label states, as fields of Track."""

    tags: dict[str, str] = field(default_factory=dict)
    """What is written into the file."""

    expect: dict[str, Any] = field(default_factory=dict)
    """What an answer must show: a `decision` by field, an `issue` whose rule_id holds a word, by
    field, an `error` by reason, `truncated`, or `clean`: nothing worse than a note."""

    kept_share: float = 1.0
    """Share of the file's bytes that arrive."""


_TRACKS = (
    _DemoTrack(
        path="1-harbour-lights.wav",
        problem="none: all that was sent is right",
        piece=Piece(bpm=124, key="A minor", style="house", seed=11),
        sent={
            "title": "Harbour Lights",
            "artists": ["Nadia Brandt"],
            "album": "North Quay",
            "label": "Slow Tide",
            "isrc": "GBSLT2400001",
            "release_date": "2024-05-17",
            "bpm": 124,
            "key": "A minor",
        },
        tags={"title": "Harbour Lights", "artist": "Nadia Brandt"},
        expect={"decision": {"bpm": "KEPT", "key": "KEPT", "title": "KEPT"}, "clean": True},
    ),
    _DemoTrack(
        path="2-midnight-drive.flac",
        problem="title in capitals",
        piece=Piece(bpm=112, key="E minor", style="funk", seed=12),
        sent={
            "title": "MIDNIGHT DRIVE",
            "artists": ["Ola Vance"],
            "isrc": "GBSLT2400002",
            "bpm": 112,
        },
        tags={"title": "MIDNIGHT DRIVE", "artist": "Ola Vance"},
        expect={"issue": {"title": "CAPS"}, "decision": {"key": "FILLED"}},
    ),
    _DemoTrack(
        path="3-paper-boats.mp3",
        problem="ISRC with letters where digits belong",
        piece=Piece(bpm=96, key="G major", style="rock", seed=13),
        sent={"title": "Paper Boats", "artists": ["The Lamplighters"], "isrc": "GB-SLT-24-OOO3"},
        tags={"title": "Paper Boats", "artist": "The Lamplighters", "TSRC": "GBSLT24OOO3"},
        expect={"issue": {"isrc": "ISRC"}, "decision": {"bpm": "FILLED", "key": "FILLED"}},
    ),
    _DemoTrack(
        path="4-slow-lane.ogg",
        problem="tempo stated an octave too low",
        piece=Piece(bpm=126, key="D minor", style="house", seed=14),
        sent={
            "title": "Slow Lane",
            "artists": ["Nadia Brandt"],
            "isrc": "GBSLT2400004",
            "bpm": 63,
        },
        tags={"title": "Slow Lane", "artist": "Nadia Brandt"},
        expect={"decision": {"bpm": "PROPOSED"}},
    ),
    _DemoTrack(
        path="5-glass-garden.m4a",
        problem="no key",
        piece=Piece(bpm=116, key="C major", style="bossa", seed=15),
        sent={
            "title": "Glass Garden",
            "artists": ["Ola Vance"],
            "isrc": "GBSLT2400005",
            "bpm": 116,
        },
        tags={"title": "Glass Garden", "artist": "Ola Vance"},
        expect={"decision": {"key": "FILLED", "bpm": "KEPT"}},
    ),
    _DemoTrack(
        path="6-second-hand.aiff",
        problem="nothing sent: only tags and sound",
        piece=Piece(bpm=120, key="F major", style="rock", seed=16),
        tags={"title": "Second Hand", "artist": "The Lamplighters", "album": "Found Objects"},
        expect={"decision": {"title": "FILLED", "bpm": "FILLED", "key": "FILLED"}},
    ),
    _DemoTrack(
        path="7-cut-short.flac",
        problem="the file ends early",
        piece=Piece(bpm=128, key="B minor", style="house", seed=17),
        sent={"title": "Cut Short", "artists": ["Nadia Brandt"], "isrc": "GBSLT2400007"},
        tags={"title": "Cut Short", "artist": "Nadia Brandt"},
        expect={"truncated": True},
        kept_share=0.6,
    ),
    _DemoTrack(
        path="8-liner-notes.mp3",
        problem="a text file by another name",
        piece=None,
        sent={"title": "Liner Notes", "artists": ["The Lamplighters"], "isrc": "GBSLT2400008"},
        expect={"error": "AUDIO_UNSUPPORTED"},
    ),
)


def make_demo_tracks(directory: Path) -> list[dict[str, Any]]:
    """Write the eight files, what the label sends of them and the truth; return the truth.

    Each entry has `path` (within the directory), `bpm` and `key` (None without music), `problem`
    and `expect`. The same bytes come out each time, but for what encoders put in.
    """
    directory.mkdir(parents=True, exist_ok=True)
    truth = []
    delivery = []
    for track in _TRACKS:
        _make(directory / track.path, track)
        delivery.append({"path": track.path, **track.sent})
        truth.append(
            {
                "path": track.path,
                "bpm": track.piece.bpm if track.piece else None,
                "key": track.piece.key if track.piece else None,
                "problem": track.problem,
                "expect": track.expect,
            }
        )
    lines = [json.dumps(line, ensure_ascii=False) + "\n" for line in delivery]
    (directory / DELIVERY).write_text("".join(lines), encoding="utf-8")
    (directory / TRUTH).write_text(json.dumps(truth, indent=2) + "\n", encoding="utf-8")
    return truth


def _make(path: Path, track: _DemoTrack) -> None:
    if track.piece is None:
        path.write_text(_NO_AUDIO, encoding="utf-8")
        return
    samples = render(track.piece, sample_rate=SAMPLE_RATE) * _LEVEL
    write(path, samples, SAMPLE_RATE, tags=track.tags)
    if track.kept_share < 1:
        whole = path.read_bytes()
        path.write_bytes(whole[: int(len(whole) * track.kept_share)])
