"""Writes the made-up catalogue as a list that `liner validate` and `liner enrich` read."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from liner.v1 import track_pb2

from liner_server.evaluation.catalogue import clean
from liner_server.evaluation.faults import FAULTS

COLUMNS = (
    *("item_id", "title", "version_title", "artists", "album", "label", "release_date", "isrc"),
    *("iswc", "upc", "territories", "language", "genre", "subgenres", "moods", "bpm", "key"),
    *("energy", "danceability", "instruments", "tags", "publisher", "p_line", "c_line", "lyrics"),
    *("parental_warning", "properties"),
)
"""The fields of `Track`, and the name under which results come back."""

_NOT_IN_A_FILE = frozenset({"bpm not a number"})
"""A request with it is refused before any rule is asked."""


def write_catalogue(path: Path, *, tracks: int, faults: bool) -> int:
    """Write a catalogue of so many tracks, in CSV with the header `COLUMNS`; return its rows.

    With `faults` every track has one, each kind in turn, and its `item_id` says which and by what
    rule it is found; six more tracks are clean alone and contradict each other.
    """
    rows = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for item_id, track in _faulty(tracks) if faults else _clean(tracks):
            writer.writerow(_row(item_id, track))
            rows += 1
    return rows


def _clean(tracks: int) -> Iterator[tuple[str, track_pb2.Track]]:
    for seed in range(tracks):
        yield f"{seed + 1:05}", clean(seed)


def _faulty(tracks: int) -> Iterator[tuple[str, track_pb2.Track]]:
    kinds = [kind for kind in FAULTS if kind not in _NOT_IN_A_FILE]
    for seed in range(tracks):
        kind = kinds[seed % len(kinds)]
        rule_id, inject = FAULTS[kind]
        track = clean(seed)
        inject(track)
        yield f"{seed + 1:05} {kind}: {rule_id}", track
    if tracks:
        yield from _contradictions(tracks)


def _contradictions(tracks: int) -> Iterator[tuple[str, track_pb2.Track]]:
    """Yield tracks that are clean, each alone."""
    seed = tracks + 1_000
    first = clean(seed)
    yield f"{tracks + 1:05} clean", first

    reused = clean(seed + 1)
    reused.isrc = first.isrc
    yield f"{tracks + 2:05} isrc of another: BATCH_ISRC_REUSED", reused

    labelled = clean(seed + 2)
    labelled.label = "Example-Records"
    yield f"{tracks + 3:05} label spelled otherwise: BATCH_LABEL_SPELLING", labelled

    spelled = clean(seed + 3)
    spelled.artists[1].name = "Mira Sölberg"
    yield f"{tracks + 4:05} artist spelled otherwise: BATCH_ARTIST_SPELLING", spelled

    identified = clean(seed + 4)
    identified.artists[0].name = "Ida Lindqvist"
    identified.artists[0].isni = first.artists[0].isni
    yield f"{tracks + 5:05} isni of another: BATCH_ISNI_TWO_NAMES", identified

    again = clean(seed + 5)
    again.upc, again.title = first.upc, first.title
    again.release_date = first.release_date
    yield f"{tracks + 6:05} title twice in a release: BATCH_TITLE_TWICE", again


def _row(item_id: str, track: track_pb2.Track) -> dict[str, str]:
    stated = json_format.MessageToDict(track, preserving_proto_field_name=True)
    return {"item_id": item_id} | {
        name: _cell(name, value) for name, value in stated.items() if name in COLUMNS
    }


def _cell(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and name != "artists":
        return "; ".join(value)
    return json.dumps(value, ensure_ascii=False)
