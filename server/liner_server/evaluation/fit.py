"""Fits the base tables: `python -m liner_server.evaluation.fit --cache DIR --clips CSV`.

Fitted on the project's own pieces and sounds, by seed, and on the clips that `recordings` fetches
and renders: estimators on the first range of seeds and most clips, calibration on the second range
and the other clips; `quality` reports on the third range and on clips never seen here. A cache
keeps what was heard, so that a second fit takes minutes. Tables carry their provenance. `fit_loops`
fits on top of them what the length of a short file tells.
"""

import argparse
import datetime
import json
import sys
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from liner_server.audio import gate, key, rhythm, tempo
from liner_server.audio.measurements import Content
from liner_server.audio.spectra import SAMPLE_RATE, softmax
from liner_server.audio.tables import load_table, parse_table
from liner_server.core.calibration import feature, log_odds
from liner_server.evaluation import metrics
from liner_server.evaluation.heard import (
    LEAST_SECONDS,
    Heard,
    Keyed,
    cached,
    hear_clip,
    hear_notes,
    hear_piece,
    hear_sound,
    rows_of,
)
from liner_server.evaluation.regress import classify, rank

ESTIMATOR_SEEDS = range(1400)
CALIBRATION_SEEDS = range(1400, 1800)
REPORT_SEEDS = range(1800, 2200)
KEY_SEEDS = range(20_000, 21_600)
"""Pieces of which only the key is learned: that takes a tenth of the time."""

SOUND_SEEDS = range(300)
CALIBRATION_SOUND_SEEDS = range(300, 360)
REPORT_SOUND_SEEDS = range(360, 420)

TEMPO_FEATURES = ("margin", "agreement", "beat")
KEY_FEATURES = ("lead", "agreement", "tonal", "log seconds")
"""What tells right answers from wrong ones beside the score."""

RECORDED_COUNTS = 2.0
"""Pieces of the generator that a recorded clip stands for when probabilities are counted."""

MUSIC_ABOVE = 0.5
"""Music is the answer where it is likelier than not, or the likeliest of all. A lower bound was
tried: half as many loops refused, twice as many birds and engines with a tempo."""

LEAST_BEAT, LEAST_TONAL = 0.03, 0.25
"""Below this probability of a beat, or of a tonal centre, there is no answer. Nearly all
music gets a tempo, with a low probability where the beat is weak; the rest stops at the gate."""

_AUDIO_TABLES = Path(gate.__file__).parent / "tables"
CALIBRATION = _AUDIO_TABLES.parent.parent / "core" / "tables" / "calibration.json"


def fit_tempo(everything: Sequence[Heard]) -> dict[str, dict[str, Any]]:
    """Return the tables that rank tempi and that tell whether there is a beat."""
    groups, right, others = [], [], []
    names: list[str] = []
    for heard in everything:
        if heard.rhythm is None or (heard.bpm is None and heard.seconds < LEAST_SECONDS):
            continue
        tempi = np.array(rhythm.candidates(heard.rhythm))
        if not len(tempi):
            continue
        names, values = rhythm.describe(heard.rhythm, tempi)
        if heard.bpm is not None:
            groups.append(values)
            right.append(heard.right_tempi(tempi))
        others.append((heard, heard.rhythm, values))
    ranking = rank(groups, right, penalty=15.0, units=8, networks=3).as_json(names)
    table = parse_table(ranking)
    rows, classes = [], []
    for heard, rhythmic, values in others:
        names, row = tempo.beat_features(rhythmic, softmax(table.apply(values)[:, 0]))
        rows.append(row)
        classes.append(int(heard.bpm is not None))
    pulse = classify(np.array(rows), np.array(classes), penalty=3.0)
    return {"tempo": ranking, "pulse": pulse.as_json(names, numbers={"least": LEAST_BEAT})}


def fit_key(everything: Sequence[Heard], more: Sequence[Keyed]) -> dict[str, dict[str, Any]]:
    """Return the tables that rank keys and that tell whether there is a tonal centre."""
    keyed = [Keyed(key=h.key, notes=h.notes) for h in everything if h.key] + list(more)
    described = [key.describe(one.notes) for one in keyed]
    names = described[0][0]
    right = [np.array([name == one.key for name in key.KEYS]) for one in keyed]
    ranking = rank([values for _, values in described], right, penalty=30.0).as_json(names)
    table = parse_table(ranking)
    rows, classes = [], []
    for heard in everything:
        if heard.pitched is None or not len(heard.notes.frames):
            continue
        shares = softmax(table.apply(key.describe(heard.notes)[1])[:, 0])
        names, row = key.tonal_features(heard.notes, shares)
        rows.append(row)
        classes.append(int(heard.pitched))
    centre = classify(np.array(rows), np.array(classes), penalty=3.0)
    return {"key": ranking, "tonal": centre.as_json(names, numbers={"least": LEAST_TONAL})}


def fit_gate(everything: Iterable[Heard]) -> dict[str, dict[str, Any]]:
    """Return the table that tells music, speech and noise apart."""
    heard = list(everything)
    classes = np.array([gate.CLASSES.index(one.content) for one in heard])
    names = gate.describe(np.sin(np.arange(SAMPLE_RATE, dtype=np.float32)))[0]
    rows = np.array([np.concatenate([one.measures, one.embedding]) for one in heard])
    names += [f"embedding {number}" for number in range(rows.shape[1] - len(names))]
    model = classify(rows, classes, penalty=30.0)
    return {"gate": model.as_json(names, numbers={"music_above": MUSIC_ABOVE})}


def fit_calibration(heard: Sequence[Heard]) -> dict[str, Any]:
    """Return the curves for tempo and key measured by Liner."""
    return {
        "curves": [
            fit_curve(heard, "bpm", TEMPO_FEATURES),
            fit_curve(heard, "key", KEY_FEATURES),
        ]
    }


def fit_curve(heard: Sequence[Heard], field: str, extra: Sequence[str]) -> dict[str, Any]:
    """Return one field's curve, with what was counted.

    A recorded clip counts `RECORDED_COUNTS` times: they are few, and nearer to what is met.
    """
    scores, features, hits, weights = [], [], [], []
    for one in heard:
        if gate.judge(one.measures, one.embedding, one.loop)[0] is not Content.MUSIC:
            continue
        found = judged(one, field)
        if found is None:
            continue
        hit, score, measured = found
        scores.append(log_odds(score))
        features.append([feature(name, measured, 0.0) for name in extra])
        hits.append(int(hit))
        weights.append(RECORDED_COUNTS if one.recorded else 1.0)
    rows = np.column_stack([scores, np.array(features)])
    model = classify(rows, np.array(hits), penalty=2.0, weights=np.array(weights))
    slopes = model.linear[:, 0] / model.scale
    return {
        "field": field,
        "source": "measured",
        "n": len(hits),
        "right": int(sum(hits)),
        "intercept": float(model.bias[0] - slopes @ model.mean),
        "score": float(slopes[0]),
        "weights": {n: float(w) for n, w in zip(extra, slopes[1:], strict=True)},
        "means": {n: float(m) for n, m in zip(extra, model.mean[1:], strict=True)},
        # Laplace's rule on the surest tenth: n right of n seen is no proof of certainty.
        "highest": metrics.surest(rows @ slopes, np.array(hits)),
    }


def judged(one: Heard, field: str) -> tuple[bool, float, dict[str, float]] | None:
    """Return whether an answer is right, its score and features; None without answer or label."""
    music = one.content is Content.MUSIC
    if field == "bpm":
        if one.rhythm is None or (music and one.bpm is None):
            return None
        found = tempo.judge(one.rhythm)
        if found.bpm is None:
            return None
        hit = music and bool(one.right_tempi(np.array([found.bpm]))[0])
        return hit, found.score, dict(found.features)
    if one.pitched is None:
        return None
    named = key.judge(one.notes)
    if named.key is None:
        return None
    return named.key == one.key, named.score, dict(named.features)


def main(arguments: Sequence[str] | None = None) -> None:
    """Fit every table and write it where the package reads it."""
    parser = argparse.ArgumentParser(prog="liner_server.evaluation.fit", description=__doc__)
    parser.add_argument("--cache", type=Path, required=True, help="folder for what was heard")
    parser.add_argument("--clips", type=Path, help="fit.csv that `recordings` wrote")
    chosen = parser.parse_args(arguments)
    chosen.cache.mkdir(parents=True, exist_ok=True)

    clips: list[Heard] = cached(chosen.cache, "clips", hear_clip, rows_of(chosen.clips))
    held = [clip for clip in clips if zlib.crc32(clip.name.encode()) % 5 == 4]
    used = [clip for clip in clips if zlib.crc32(clip.name.encode()) % 5 != 4]
    pieces = cached(chosen.cache, "pieces", hear_piece, ESTIMATOR_SEEDS)
    sounds = cached(chosen.cache, "sounds", hear_sound, SOUND_SEEDS)
    keyed = cached(chosen.cache, "keys", hear_notes, KEY_SEEDS)
    origin = (
        f"generator, pieces {ESTIMATOR_SEEDS}, sounds {SOUND_SEEDS}, and {len(used)} clips of "
        "evaluation.recordings"
    )
    everything: list[Heard] = [*pieces, *sounds, *used]
    write_tables(fit_gate(everything), origin)
    write_tables(fit_tempo(everything), origin)
    write_tables(fit_key(everything, keyed), f"{origin}; keys also of pieces {KEY_SEEDS}")

    held += cached(chosen.cache, "calibration", hear_piece, CALIBRATION_SEEDS)
    held += cached(chosen.cache, "calibration-sounds", hear_sound, CALIBRATION_SOUND_SEEDS)
    origin = (
        f"generator, pieces {CALIBRATION_SEEDS}, sounds {CALIBRATION_SOUND_SEEDS}, and other "
        "clips of evaluation.recordings"
    )
    write(CALIBRATION, provenance(origin) | fit_calibration(held))


def provenance(origin: str, module: str = "fit") -> dict[str, Any]:
    """Return what a table says about where it comes from."""
    today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    command = f"python -m liner_server.evaluation.{module} --cache DIR --clips DIR/fit.csv"
    return {"provenance": {"data": origin, "date": today, "command": command}}


def write_tables(tables: dict[str, dict[str, Any]], origin: str, *, module: str = "fit") -> None:
    """Write the audio tables, each with its provenance."""
    for name, table in tables.items():
        write(_AUDIO_TABLES / f"{name}.json", provenance(origin, module) | table)
    load_table.cache_clear()


def write(path: Path, data: dict[str, Any]) -> None:
    """Write one table, a row a line, so that a change can be read."""
    path.write_text(json.dumps(data, separators=(",", ":")).replace('],"', '],\n"') + "\n")
    sys.stderr.write(f"{path.name}: {path.stat().st_size} bytes\n")


if __name__ == "__main__":
    main()
