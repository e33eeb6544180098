"""Answers for a labelled set of recordings: `liner-server eval --labels LABELS.csv --out OUT.csv`.

The labels file has a `path` column, relative to itself; all other columns are passed over here, so
nothing an answer could be copied from is read. Scoring is `quality`'s work.
"""

import csv
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from liner_server.audio.errors import AudioError
from liner_server.audio.limits import Limits
from liner_server.audio.listen import listen
from liner_server.audio.measurements import Key, Listening, Tempo
from liner_server.core.calibration import Calibration
from liner_server.core.tagging import tagging_claims

COLUMNS = (
    "path",
    "bpm",
    "bpm_confidence",
    "bpm_alternatives",
    "key",
    "key_confidence",
    "duration",
    "genre",
    "genre_confidence",
    "content",
)
"""Of the file written; an empty field is an answer Liner does not give."""


def evaluate(labels: Path, out: Path, *, workers: int = 2) -> list[dict[str, str]]:
    """Answer every recording of a labels file, write the answers and return them.

    A recording that cannot be heard gets a row with its path alone, so that rows match the
    labels one to one.
    """
    with labels.open(newline="", encoding="utf-8") as file:
        paths = [row["path"] for row in csv.DictReader(file)]
    places = [labels.parent / path for path in paths]
    with ProcessPoolExecutor(workers) as pool:
        heard = list(pool.map(hear, places))
    calibration = Calibration.load()
    rows = [
        {"path": path, **(answers(one, calibration) if one is not None else {})}
        for path, one in zip(paths, heard, strict=True)
    ]
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return rows


def hear(path: Path) -> Listening | None:
    """Return what listening to a file yields, or None where it cannot be heard."""
    try:
        return listen(path, name=path.name, limits=Limits())
    except (AudioError, OSError):
        return None


def answers(heard: Listening, calibration: Calibration) -> dict[str, str]:
    """Return one row of the answers, without its path."""
    row = {
        **measured(heard.tempo, heard.key, calibration),
        "duration": f"{heard.format.duration_seconds:.3f}",
        "content": heard.content.value,
    }
    for claim in tagging_claims(heard.tagging, heard.tempo, calibration):
        if claim.field == "genre":
            row["genre"] = claim.value
            row["genre_confidence"] = f"{claim.confidence:.4f}"
    return row


def measured(tempo: Tempo, key: Key, calibration: Calibration) -> dict[str, str]:
    """Return the columns of tempo and key; nothing where they were not answered."""
    row = {}
    if tempo.bpm is not None:
        sure = calibration.calibrated("bpm", "measured", tempo.score, tempo.features)
        row["bpm"] = f"{tempo.bpm:.2f}"
        row["bpm_confidence"] = f"{sure.probability:.4f}"
        row["bpm_alternatives"] = ";".join(f"{bpm:.2f}" for bpm, _ in tempo.candidates[1:])
    if key.key is not None:
        sure = calibration.calibrated("key", "measured", key.score, key.features)
        row["key"] = key.key
        row["key_confidence"] = f"{sure.probability:.4f}"
    return row
