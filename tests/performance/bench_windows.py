"""What hearing windows of a long file costs in accuracy: against hearing all of it.

Ten-minute pieces of the generator, never seen in fitting, with tempi that wander and careless
cuts; half of them begin with two minutes of noise, as live recordings do. A measurement, not a
test.
"""

import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import numpy as np
from liner_server.audio.key import estimate_key
from liner_server.audio.spectra import SAMPLE_RATE, Floats
from liner_server.audio.tempo import estimate_tempo
from liner_server.audio.windows import Windows
from liner_server.core.keys import relation
from liner_server.evaluation import metrics, synth
from liner_server.evaluation.heard import canonical
from liner_server.evaluation.styles import STYLES

_SECONDS = 600
_SEEDS = range(2200, 2236)


def _signal(seed: int) -> tuple[synth.Piece, Floats]:
    style = sorted(name for name, traits in STYLES.items() if traits.chords)[seed % 24]
    piece = replace(
        synth.draw(seed, style=style, loop=False), seconds=float(_SECONDS), modulation=0
    )
    mono = synth.render(piece, sample_rate=SAMPLE_RATE).mean(1)
    if seed % 2:
        crowd = 0.05 * np.random.default_rng(seed).standard_normal(120 * SAMPLE_RATE)
        mono = np.concatenate([crowd.astype(np.float32), mono])
    return piece, mono


def _judged(seed: int) -> tuple[tuple[bool, bool], tuple[bool, bool]]:
    """Whether tempo and key are right from the whole, and from the windows."""
    piece, whole = _signal(seed)
    windows = Windows()
    for block in np.array_split(whole, 100):
        windows.add(block)
    results = []
    for signal in (whole, windows.signal()):
        tempo, key = estimate_tempo(signal).bpm, estimate_key(signal).key
        results.append(
            (
                metrics.tempo_right(tempo, piece.bpm),
                key is not None and relation(key, canonical(piece.key)) == "same",
            )
        )
    return results[0], results[1]


def test_windows_against_the_whole() -> None:
    """Tempo and key right of the same pieces, heard both ways."""
    with ProcessPoolExecutor(2) as pool:
        pairs = list(pool.map(_judged, _SEEDS))

    for index, what in enumerate(("tempo", "key")):
        whole = sum(pair[0][index] for pair in pairs)
        kept = sum(pair[1][index] for pair in pairs)
        lost = sum(pair[0][index] and not pair[1][index] for pair in pairs)
        won = sum(pair[1][index] and not pair[0][index] for pair in pairs)
        sys.stdout.write(
            f"{what} right of {len(pairs)}: whole {whole}, windows {kept} "
            f"({lost} lost, {won} won)   target: windows >= whole\n"
        )
