"""Fits what short files add: `python -m liner_server.evaluation.fit_loops --cache DIR --clips CSV`.

On top of the tables of `fit`, which stay as they are: how the length of a file and the strokes in
it change the ranking of tempi, how they change what kind of sound a short file is, and what the
tempo's score then means. Loops and other pieces of the generator, and clips of `recordings`. The
curve is counted on seeds that no table was fitted on and on all clips: those kept from the tables
are too few, and of them alone it says too little of what is sure. Hearing everything takes some
forty minutes of CPU, the fit one.
"""

import argparse
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from liner_server.audio import gate, loop, rhythm, witness
from liner_server.audio.measurements import Content
from liner_server.audio.tables import load_table
from liner_server.evaluation import fit
from liner_server.evaluation.heard import Heard, cached, hear_clip, hear_piece, hear_sound, rows_of
from liner_server.evaluation.regress import classify, rank

SEEDS = fit.ESTIMATOR_SEEDS
SOUND_SEEDS = fit.SOUND_SEEDS
CALIBRATION_SEEDS = fit.CALIBRATION_SEEDS
CALIBRATION_SOUND_SEEDS = fit.CALIBRATION_SOUND_SEEDS

LEAST_WITNESS = -1.0
"""Log-odds that strokes off the grid take from music at most: not all of it is a loop."""

SHORT_MUSIC_ABOVE = 0.4
"""Probability from which a short file is music. With it fewer loops are refused and fewer noises
get a tempo than at one half without the witness; counted on thirds of the fitting clips, each
judged by a fit to the other two."""


def fit_tempo(everything: Sequence[Heard]) -> dict[str, dict[str, Any]]:
    """Return the table that hears a file's length beside the ranking of `fit`."""
    groups, right = [], []
    names: list[str] = []
    for heard in everything:
        if heard.rhythm is None or heard.bpm is None:
            continue
        if heard.seconds >= rhythm.LONGEST_LOOP_SECONDS:
            continue
        tempi = np.array(rhythm.candidates(heard.rhythm))
        if not len(tempi):
            continue
        measures, values = rhythm.describe(heard.rhythm, tempi)
        scores = load_table("tempo").apply(values)[:, 0]
        measured = dict(zip(measures, values.T, strict=True))
        names, told = witness.describe(heard.rhythm, tempi, measured, scores)
        groups.append(told)
        right.append(heard.right_tempi(tempi))
    return {"loop_tempo": rank(groups, right, penalty=10.0).as_json(names)}


def fit_gate(everything: Sequence[Heard]) -> dict[str, dict[str, Any]]:
    """Return the table of how much likelier a loop is to have its strokes so than another sound.

    It knows nothing of what the gate heard: the two are added, as witnesses are who do not know
    of each other. Music that was cut anywhere is left out, since its strokes lie anywhere.
    """
    rows, classes = [], []
    names: list[str] = []
    for heard in everything:
        if heard.seconds >= gate.SHORT_SECONDS:
            continue
        music = heard.content is Content.MUSIC
        if music and heard.recorded and heard.bpm is None:
            continue
        names, row = loop.describe(heard.loop)
        rows.append(row)
        classes.append(int(music))
    loops = np.array(classes)
    weights = np.where(loops, 0.5 / loops.mean(), 0.5 / (1 - loops.mean()))
    model = classify(np.array(rows), loops, penalty=1.0, weights=weights)
    numbers = {"least": LEAST_WITNESS, "music_above": SHORT_MUSIC_ABOVE}
    return {"loop_gate": model.as_json(names, numbers=numbers)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Fit the tables and write them where the package reads them."""
    parser = argparse.ArgumentParser(prog="liner_server.evaluation.fit_loops", description=__doc__)
    parser.add_argument("--cache", type=Path, required=True, help="folder for what was heard")
    parser.add_argument("--clips", type=Path, help="fit.csv that `recordings` wrote")
    chosen = parser.parse_args(arguments)
    chosen.cache.mkdir(parents=True, exist_ok=True)

    clips: list[Heard] = cached(chosen.cache, "clips", hear_clip, rows_of(chosen.clips))
    used = [clip for clip in clips if not _held(clip)]
    pieces = cached(chosen.cache, "pieces", hear_piece, SEEDS)
    sounds = cached(chosen.cache, "sounds", hear_sound, SOUND_SEEDS)
    origin = f"generator, pieces {SEEDS}, sounds {SOUND_SEEDS}, and {len(used)} clips of recordings"
    everything = [*pieces, *sounds, *used]
    fit.write_tables(fit_tempo(everything) | fit_gate(everything), origin, module="fit_loops")

    counted = cached(chosen.cache, "calibration", hear_piece, CALIBRATION_SEEDS)
    counted += cached(chosen.cache, "calibration-sounds", hear_sound, CALIBRATION_SOUND_SEEDS)
    curve = fit.fit_curve([*counted, *clips], "bpm", fit.TEMPO_FEATURES)
    shipped = json.loads(fit.CALIBRATION.read_text(encoding="utf-8"))
    others = [row for row in shipped["curves"] if row["field"] != "bpm"]
    origin = (
        f"bpm: generator, pieces {CALIBRATION_SEEDS}, sounds {CALIBRATION_SOUND_SEEDS}, and all "
        f"{len(clips)} clips of recordings"
    )
    told = fit.provenance(origin, "fit_loops")["provenance"]
    fit.write(fit.CALIBRATION, shipped | {"curves": [{**curve, "provenance": told}, *others]})


def _held(clip: Heard) -> bool:
    """Whether a clip is kept from the tables, as in `fit`."""
    return zlib.crc32(clip.name.encode()) % 5 == 4


if __name__ == "__main__":
    main()
