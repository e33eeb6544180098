"""Fits the shipped tables: `python -m liner_server.evaluation.fit --cache DIR --clips CSV`.

Fitted on the project's own pieces and sounds, by seed, and on the clips that `recordings` fetches
and renders for fitting; `quality` reports on later seeds and on clips never seen here. Calibration
counts how often answers are right that were given by tables fitted without the piece: each third
of the data is judged by a fit to the other two. A cache keeps what was heard, so that a second fit
takes minutes. Tables carry their provenance.
"""

import argparse
import datetime
import json
import sys
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

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

SEEDS = range(600)
REPORT_SEEDS = range(1800, 2200)
KEY_SEEDS = range(20_000, 21_200)
"""Pieces of which only the key is learned: that takes a tenth of the time."""

SOUND_SEEDS = range(300)
REPORT_SOUND_SEEDS = range(360, 420)
_FOLDS = 3

TEMPO_FEATURES = ("margin", "agreement", "beat", "log seconds")
KEY_FEATURES = ("lead", "agreement", "tonal", "log seconds")
"""What tells right answers from wrong ones beside the score."""

MUSIC_ABOVE = 0.5
"""Music is the answer where it is likelier than not, or the likeliest of all. A lower bound was
tried: half as many loops refused, twice as many birds and engines with a tempo."""

LEAST_BEAT, LEAST_TONAL = 0.03, 0.25
"""Below this probability of a beat, or of a tonal centre, there is no answer. Nearly all
music gets a tempo, with a low probability where the beat is weak; the rest stops at the gate."""

_LENGTHS = (1.5, 3.0, 6.0, 12.0)
"""Seconds between the lengths in which music and other sounds are evened out."""

_MOST_WEIGHT = 4.0

_AUDIO_TABLES = Path(gate.__file__).parent / "tables"
_CORE_TABLES = _AUDIO_TABLES.parent.parent / "core" / "tables"


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
    seconds = np.array([one.seconds for one in heard])
    weights = _evened(seconds, classes == gate.CLASSES.index(Content.MUSIC))
    model = classify(rows, classes, penalty=30.0, weights=weights)
    return {"gate": model.as_json(names, numbers={"music_above": MUSIC_ABOVE})}


def _evened(seconds: NDArray[np.float64], music: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return weights with which music is half of what there is of any length.

    Noises are short and songs are long in the packages they come from; that says nothing about
    what somebody sends, and a loop of two seconds must not count as a noise for being short.
    """
    place = np.digitize(seconds, _LENGTHS)
    weights = np.ones(len(seconds))
    for number in range(len(_LENGTHS) + 1):
        for kind in (music, ~music):
            inside = (place == number) & kind
            if inside.any():
                weights[inside] = min(_MOST_WEIGHT, (place == number).sum() / inside.sum() / 2)
    return weights


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One answer given without having seen the piece."""

    right: bool
    score: float
    measured: Mapping[str, float]
    recorded: bool
    """A clip of `recordings`, and not of the generator."""


def fit_calibration(judged: Mapping[str, Sequence[Judged]]) -> dict[str, Any]:
    """Return the curves for tempo and key measured by Liner, from answers by field."""
    curves = []
    for field, extra in (("bpm", TEMPO_FEATURES), ("key", KEY_FEATURES)):
        answers = judged[field]
        hits = np.array([one.right for one in answers], int)
        scores = [log_odds(one.score) for one in answers]
        features = [[feature(name, one.measured, 0.0) for name in extra] for one in answers]
        rows = np.column_stack([scores, np.array(features)])
        # The generator is harder than records are, and there is more of it: half and half.
        recorded = np.array([one.recorded for one in answers])
        share = np.where(recorded, recorded.mean(), 1 - recorded.mean())
        model = classify(rows, hits, penalty=2.0, weights=0.5 / share)
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
                "highest": metrics.surest(rows @ weights, hits),
            }
        )
    return {"curves": curves}


def answers_unseen(everything: Sequence[Heard], keyed: Sequence[Keyed]) -> dict[str, list[Judged]]:
    """Return the answers to each third of the pieces by tables fitted to the other two.

    The tables in the package are overwritten meanwhile.
    """
    judged: dict[str, list[Judged]] = {"bpm": [], "key": []}
    for fold in range(_FOLDS):
        seen = [one for one in everything if _fold_of(one) != fold]
        write_tables(fit_gate(seen) | fit_tempo(seen) | fit_key(seen, keyed), "a part")
        for one in everything:
            if _fold_of(one) != fold:
                continue
            if gate.judge(one.measures, one.embedding)[0] is not Content.MUSIC:
                continue
            for field, answers in judged.items():
                found = _judged(one, field)
                if found is not None:
                    answers.append(found)
    return judged


def _fold_of(one: Heard) -> int:
    return zlib.crc32(one.name.encode()) % _FOLDS


def _judged(one: Heard, field: str) -> Judged | None:
    """Return the answer by the tables as they are; None without answer or label."""
    music = one.content is Content.MUSIC
    if field == "bpm":
        if one.rhythm is None or (music and one.bpm is None):
            return None
        found = tempo.judge(one.rhythm)
        if found.bpm is None:
            return None
        hit = music and bool(one.right_tempi(np.array([found.bpm]))[0])
        return Judged(right=hit, score=found.score, measured=found.features, recorded=one.recorded)
    if one.pitched is None:
        return None
    named = key.judge(one.notes)
    if named.key is None:
        return None
    return Judged(
        right=named.key == one.key,
        score=named.score,
        measured=named.features,
        recorded=one.recorded,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Fit every table and write it where the package reads it."""
    parser = argparse.ArgumentParser(prog="liner_server.evaluation.fit", description=__doc__)
    parser.add_argument("--cache", type=Path, required=True, help="folder for what was heard")
    parser.add_argument("--clips", type=Path, help="fit.csv that `recordings` wrote")
    chosen = parser.parse_args(arguments)
    chosen.cache.mkdir(parents=True, exist_ok=True)

    clips: list[Heard] = cached(chosen.cache, "clips", hear_clip, rows_of(chosen.clips))
    pieces = cached(chosen.cache, "pieces", hear_piece, SEEDS)
    sounds = cached(chosen.cache, "sounds", hear_sound, SOUND_SEEDS)
    keyed = cached(chosen.cache, "keys", hear_notes, KEY_SEEDS)
    origin = (
        f"generator, pieces {SEEDS}, sounds {SOUND_SEEDS}, and {len(clips)} clips of "
        "evaluation.recordings"
    )
    everything: list[Heard] = [*pieces, *sounds, *clips]
    judged = answers_unseen(everything, keyed)
    write(
        _CORE_TABLES / "calibration.json",
        provenance(f"{origin}, in thirds, each judged by the others") | fit_calibration(judged),
    )
    write_tables(fit_gate(everything) | fit_tempo(everything), origin)
    write_tables(fit_key(everything, keyed), f"{origin}; keys also of pieces {KEY_SEEDS}")


def provenance(origin: str) -> dict[str, Any]:
    """Return what a table says about where it comes from."""
    today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    command = "python -m liner_server.evaluation.fit --cache DIR --clips DIR/fit.csv"
    return {"provenance": {"data": origin, "date": today, "command": command}}


def write_tables(tables: dict[str, dict[str, Any]], origin: str) -> None:
    """Write the audio tables, each with its provenance."""
    for name, table in tables.items():
        write(_AUDIO_TABLES / f"{name}.json", provenance(origin) | table)
    load_table.cache_clear()


def write(path: Path, data: dict[str, Any]) -> None:
    """Write one table, a row a line, so that a change can be read."""
    path.write_text(json.dumps(data, separators=(",", ":")).replace('],"', '],\n"') + "\n")
    sys.stderr.write(f"{path.name}: {path.stat().st_size} bytes\n")


if __name__ == "__main__":
    main()
