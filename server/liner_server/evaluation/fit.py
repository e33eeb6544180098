"""Fits the shipped tables: `python -m liner_server.evaluation.fit --cache DIR`.

Everything is fitted on the project's own pieces and sounds, by seed: estimators on the first
range, calibration on the second; `quality` reports on the third. The gate also takes labelled
recordings with `--sounds CSV` (columns path,content), since synthetic speech is too easily told.
A cache keeps what was heard, so that a second fit takes seconds. Tables carry their provenance.
"""

import argparse
import csv
import datetime
import json
import pickle
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from liner_server.audio import chroma, gate, key, rhythm, tempo
from liner_server.audio.measurements import Content
from liner_server.audio.spectra import SAMPLE_RATE, Floats, softmax
from liner_server.audio.tables import parse_table
from liner_server.core.calibration import feature, log_odds
from liner_server.evaluation import metrics, synth
from liner_server.evaluation.regress import classify, rank
from liner_server.evaluation.sounds import SOUNDS, render_sound
from liner_server.evaluation.styles import STYLES

ESTIMATOR_SEEDS = range(1400)
CALIBRATION_SEEDS = range(1400, 1800)
REPORT_SEEDS = range(1800, 2200)
SOUND_SEEDS = range(300)
CALIBRATION_SOUND_SEEDS = range(300, 360)
REPORT_SOUND_SEEDS = range(360, 420)

_LOOP_STYLES = ("drums", "percussion", "clatter", "metronome", "breakbeat", "bass line", "riff",
                "solo", "ambient")  # fmt: skip
"""What gates take for noise: the gate gets extra loops of these."""

_AUDIO_TABLES = Path(gate.__file__).parent / "tables"
_CORE_TABLES = _AUDIO_TABLES.parent.parent / "core" / "tables"


@dataclass(frozen=True, kw_only=True)
class Heard:
    """A piece or sound, with what the analysis heard in it."""

    bpm: float | None
    """None for what is not music."""

    key: str | None
    """None for what has no key: sounds, and styles of drums alone."""

    rhythm: rhythm.Rhythm
    notes: chroma.Chroma


def hear_piece(seed: int) -> Heard:
    """Return what is heard in one of the generator's pieces."""
    piece = synth.draw(seed)
    mono = synth.render(piece, sample_rate=SAMPLE_RATE).mean(1)
    style = STYLES[piece.style]
    tonal = bool(style.chords or style.bass or style.melody)
    return Heard(
        bpm=piece.bpm,
        key=piece.key if tonal else None,
        rhythm=rhythm.hear(mono),
        notes=chroma.measure(mono),
    )


def hear_sound(seed: int) -> Heard:
    """Return what is heard in one of the generator's sounds that are not music."""
    mono = sound(seed)[1]
    return Heard(bpm=None, key=None, rhythm=rhythm.hear(mono), notes=chroma.measure(mono))


def sound(seed: int) -> tuple[Content, Floats]:
    """Return a random sound that is not music and not silence, and its kind."""
    rng = np.random.default_rng([seed, 4])
    # Speech and calls count double: they are what is met.
    kinds = [*(kind for kind in SOUNDS if kind != "silence"), "speech", "calls"]
    kind = kinds[seed % len(kinds)]
    # A short clatter cannot be told from a loop of percussion, by anyone.
    seconds = float(rng.uniform(8, 20) if kind == "knocks" else rng.uniform(2, 20))
    samples = render_sound(kind, seconds=seconds, seed=seed, sample_rate=SAMPLE_RATE)
    return Content.SPEECH if kind == "speech" else Content.NOISE, samples.mean(1)


def gate_row(seed: int) -> tuple[int, Floats]:
    """Return the class and the gate's features of a piece or sound."""
    if seed % 5 >= 3:
        content, mono = sound(seed)
    else:
        loop = seed % 5 == 0
        style = _LOOP_STYLES[seed // 5 % len(_LOOP_STYLES)] if loop else None
        piece = synth.draw(seed, style=style, loop=True if loop else None)
        mono = synth.render(piece, sample_rate=SAMPLE_RATE).mean(1)[: 20 * SAMPLE_RATE]
        content = Content.MUSIC
    return gate.CLASSES.index(content), gate.describe(mono)[1]


def gate_recording(row: tuple[str, str]) -> tuple[int, Floats]:
    """Return the class and the gate's features of a labelled recording."""
    from liner_server.evaluation.labelled import decode

    path, content = row
    return gate.CLASSES.index(Content(content)), gate.describe(decode(Path(path)))[1]


def same_tempo(tempi: Floats, bpm: float) -> NDArray[np.bool_]:
    """Return which tempi are within 4 % of the label."""
    return np.asarray(np.abs(tempi / bpm - 1) < 0.04)


def fit_tempo(pieces: Sequence[Heard], sounds: Sequence[Heard]) -> dict[str, dict[str, Any]]:
    """Return the tables that rank tempi and that tell whether there is a beat."""
    groups: list[Floats] = []
    right: list[NDArray[np.bool_]] = []
    names: list[str] = []
    for heard in pieces:
        tempi = np.array(rhythm.candidates(heard.rhythm))
        names, values = rhythm.describe(heard.rhythm, tempi)
        groups.append(values)
        right.append(same_tempo(tempi, heard.bpm or 0.0))
    model = rank(groups, right, penalty=5.0, units=8, networks=3)
    ranking = model.as_json(names)
    table = parse_table(ranking)
    rows, classes = [], []
    for heard in (*pieces, *sounds):
        tempi = np.array(rhythm.candidates(heard.rhythm))
        if not len(tempi):
            continue
        values = rhythm.describe(heard.rhythm, tempi)[1]
        shares = softmax(table.apply(values)[:, 0])
        names, row = tempo.beat_features(heard.rhythm, shares)
        rows.append(row)
        classes.append(int(heard.bpm is not None))
    pulse = classify(np.array(rows), np.array(classes), penalty=3.0)
    return {"tempo": ranking, "pulse": pulse.as_json(names, numbers={"least": 0.25})}


def fit_key(pieces: Sequence[Heard], sounds: Sequence[Heard]) -> dict[str, dict[str, Any]]:
    """Return the tables that rank keys and that tell whether there is a tonal centre."""
    tonal = [heard for heard in pieces if heard.key]
    described = [key.describe(heard.notes) for heard in tonal]
    names = described[0][0]
    right = [np.array([name == canonical(heard.key or "") for name in key.KEYS]) for heard in tonal]
    ranking = rank([values for _, values in described], right, penalty=10.0).as_json(names)
    table = parse_table(ranking)
    rows, classes = [], []
    for heard in (*pieces, *sounds):
        if not len(heard.notes.frames):
            continue
        shares = softmax(table.apply(key.describe(heard.notes)[1])[:, 0])
        names, row = key.tonal_features(heard.notes, shares)
        rows.append(row)
        classes.append(int(heard.key is not None))
    centre = classify(np.array(rows), np.array(classes), penalty=3.0)
    return {"key": ranking, "tonal": centre.as_json(names, numbers={"least": 0.25})}


def fit_gate(rows: Iterable[tuple[int, Floats]]) -> dict[str, dict[str, Any]]:
    """Return the table that tells music, speech and noise apart."""
    classes, values = zip(*rows, strict=True)
    model = classify(np.array(values), np.array(classes), penalty=10.0, units=6, networks=3)
    names = gate.describe(np.sin(np.arange(SAMPLE_RATE, dtype=np.float32)))[0]
    return {"gate": model.as_json(names, numbers={"music_above": 0.25})}


def fit_calibration(heard: Sequence[Heard]) -> dict[str, Any]:
    """Return the curves for tempo and key measured by Liner."""
    curves = []
    for field, extra in (
        ("bpm", ("margin", "agreement", "beat", "log seconds")),
        ("key", ("margin", "agreement", "tonal", "log seconds")),
    ):
        scores, features, hits = [], [], []
        for one in heard:
            if field == "bpm":
                found = tempo.judge(one.rhythm)
                if found.bpm is None:
                    continue
                hit = bool(one.bpm and same_tempo(np.array(found.bpm), one.bpm))
            else:
                named = key.judge(one.notes)
                if named.key is None:
                    continue
                hit = bool(one.key and named.key == canonical(one.key))
            judged = found if field == "bpm" else named
            scores.append(log_odds(judged.score))
            features.append([feature(name, judged.features, 0.0) for name in extra])
            hits.append(int(hit))
        rows = np.column_stack([scores, np.array(features)])
        model = classify(rows, np.array(hits), penalty=2.0)
        weights = model.linear[:, 0] / model.scale
        curves.append(
            {
                "field": field,
                "source": "measured",
                "n": len(hits),
                "right": int(sum(hits)),
                "intercept": float(model.bias[0] - weights @ model.mean),
                "score": float(weights[0]),
                "weights": {n: float(w) for n, w in zip(extra, weights[1:], strict=True)},
                "means": {n: float(m) for n, m in zip(extra, model.mean[1:], strict=True)},
                # Laplace's rule on the surest tenth: n right of n seen is no proof of certainty.
                "highest": metrics.surest(rows @ weights, np.array(hits)),
            }
        )
    return {"curves": curves}


def canonical(name: str) -> str:
    """Return a generator's key as the estimator spells it."""
    tonic, mode = name.split()
    return f"{key.NOTES[synth.NOTES.index(tonic)]} {mode}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Fit every table and write it where the package reads it."""
    parser = argparse.ArgumentParser(prog="liner_server.evaluation.fit", description=__doc__)
    parser.add_argument("--cache", type=Path, required=True, help="folder for what was heard")
    parser.add_argument("--sounds", type=Path, help="CSV of recordings for the gate")
    parser.add_argument("--sounds-from", default="", help="where those recordings come from")
    chosen = parser.parse_args(arguments)
    chosen.cache.mkdir(parents=True, exist_ok=True)

    gate_rows = cached(chosen.cache, "gate", gate_row, range(7000, 7800))
    origin = "generator, seeds 7000-7799"
    if chosen.sounds:
        with chosen.sounds.open(newline="", encoding="utf-8") as file:
            listed = [(row["path"], row["content"]) for row in csv.DictReader(file)]
        gate_rows = gate_rows + cached(chosen.cache, "recordings", gate_recording, listed)
        origin += f", and {len(listed)} recordings: {chosen.sounds_from}"
    write_tables(fit_gate(gate_rows), origin)

    pieces = cached(chosen.cache, "pieces", hear_piece, ESTIMATOR_SEEDS)
    sounds = cached(chosen.cache, "sounds", hear_sound, SOUND_SEEDS)
    origin = f"generator, pieces {ESTIMATOR_SEEDS}, sounds {SOUND_SEEDS}"
    write_tables(fit_tempo(pieces, sounds), origin)
    write_tables(fit_key(pieces, sounds), origin)

    for module in (tempo, key):
        module.load_table.cache_clear()
    held = cached(chosen.cache, "calibration", hear_piece, CALIBRATION_SEEDS)
    held += cached(chosen.cache, "calibration-sounds", hear_sound, CALIBRATION_SOUND_SEEDS)
    origin = f"generator, pieces {CALIBRATION_SEEDS}, sounds {CALIBRATION_SOUND_SEEDS}"
    write(_CORE_TABLES / "calibration.json", provenance(origin) | fit_calibration(held))


def cached(folder: Path, name: str, work: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    """Return the work's results for all items, from the cache if it has them."""
    path = folder / f"{name}.pickle"
    if path.exists():
        return list(pickle.loads(path.read_bytes()))  # noqa: S301 - our own file
    with ProcessPoolExecutor() as pool:
        results = list(pool.map(work, items, chunksize=8))
    path.write_bytes(pickle.dumps(results))
    return results


def provenance(origin: str) -> dict[str, Any]:
    """Return what a table says about where it comes from."""
    today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    command = "python -m liner_server.evaluation.fit --cache DIR"
    return {"provenance": {"data": origin, "date": today, "command": command}}


def write_tables(tables: dict[str, dict[str, Any]], origin: str) -> None:
    """Write the audio tables, each with its provenance."""
    for name, table in tables.items():
        write(_AUDIO_TABLES / f"{name}.json", provenance(origin) | table)


def write(path: Path, data: dict[str, Any]) -> None:
    """Write one table, a row a line, so that a change can be read."""
    path.write_text(json.dumps(data, separators=(",", ":")).replace('],"', '],\n"') + "\n")
    sys.stderr.write(f"{path.name}: {path.stat().st_size} bytes\n")


if __name__ == "__main__":
    main()
