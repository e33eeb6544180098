"""The tempo of a mono signal: many candidates, three independent witnesses, a fitted ranking.

Every tempo that a listener favours and every tempo commonly taken for it (half, double, three
halves ...) is described by some hundred measures and ranked by a small fitted table, so that the
octave is decided by evidence and not by a fixed preference. In a short file a second table hears
its length beside that ranking; a third says whether there is a beat at all. Together they give each
candidate a score, which is not a probability of being right until `core.calibration` has had it.
"""

import numpy as np
from numpy.typing import NDArray

from liner_server.audio import rhythm, witness
from liner_server.audio.measurements import Tempo
from liner_server.audio.spectra import SAMPLE_RATE, Floats, is_silent, softmax
from liner_server.audio.tables import load_table

SHORTEST_SECONDS = 0.8
"""Less than two beats at any usual tempo: nothing repeats."""

LISTED = 8
"""Candidates named at most: the answer and seven others."""

_RELATIVES = (0.5, 2.0, 2 / 3, 1.5)
"""Always listed, if they are tempi at all: what another listener may tap instead."""

_FASTEST, _SLOWEST = 400.0, 20.0
_SAME = 0.04
"""Tempi within this share of each other are one tempo, as listeners and tests hold."""


def estimate_tempo(mono: NDArray[np.float32]) -> Tempo:
    """Return the tempo of a mono signal at 22,050 Hz, or a doubt where no beat is heard."""
    if is_silent(mono):
        return Tempo(bpm=None, score=0.0, doubt="silence")
    if len(mono) < SHORTEST_SECONDS * SAMPLE_RATE:
        return Tempo(bpm=None, score=0.0, doubt="too short to hold a beat")
    return judge(rhythm.hear(mono))


def judge(heard: rhythm.Rhythm) -> Tempo:
    """Return the tempo of a rhythm already heard."""
    tempi = np.array(rhythm.candidates(heard))
    if not len(tempi):
        return Tempo(bpm=None, score=0.0, doubt="nothing repeats")
    names, values = rhythm.describe(heard, tempi)
    scores = load_table("tempo").apply(values)[:, 0]
    pulse = load_table("pulse")
    logit = pulse.apply(beat_features(heard, softmax(scores))[1][None])[0, 0]
    beat = float(1 / (1 + np.exp(-logit)))
    if heard.seconds < rhythm.LONGEST_LOOP_SECONDS:
        told = witness.describe(heard, tempi, dict(zip(names, values.T, strict=True)), scores)
        scores = load_table("loop_tempo").apply(told[1])[:, 0]
    candidates = _listed(tempi, softmax(scores) * beat)
    best = candidates[0][0]
    steady = rhythm.stability(heard, best)
    features = {
        "score": candidates[0][1],
        "margin": candidates[0][1] - (candidates[1][1] if len(candidates) > 1 else 0.0),
        "beat": beat,
        "agreement": agreement(heard, best),
        "seconds": heard.seconds,
    }
    if beat < pulse.numbers["least"]:
        return Tempo(
            bpm=None,
            score=candidates[0][1],
            candidates=candidates,
            stability=steady,
            doubt="no steady beat",
            features=features,
        )
    return Tempo(
        bpm=best,
        score=candidates[0][1],
        candidates=candidates,
        stability=steady,
        features=features,
    )


def _listed(tempi: Floats, scores: Floats) -> tuple[tuple[float, float], ...]:
    """Return the best tempi and the best one's relatives with their scores, best first."""
    order = [int(i) for i in np.argsort(-scores)]
    best = float(tempi[order[0]])
    chosen = [(best, float(scores[order[0]]))]

    def add(bpm: float, score: float) -> None:
        if len(chosen) < LISTED and all(abs(bpm / other - 1) >= _SAME for other, _ in chosen):
            chosen.append((bpm, score))

    for i in order[1:4]:
        add(float(tempi[i]), float(scores[i]))
    for ratio in _RELATIVES:
        bpm = best * ratio
        near = np.flatnonzero(np.abs(tempi / bpm - 1) < _SAME)
        if len(near):
            place = near[int(scores[near].argmax())]
            add(float(tempi[place]), float(scores[place]))
        elif _SLOWEST <= bpm <= _FASTEST:
            add(bpm, 0.0)
    for i in order[4:]:
        add(float(tempi[i]), float(scores[i]))
    chosen.sort(key=lambda candidate: -candidate[1])
    return tuple((round(bpm, 2), score) for bpm, score in chosen)


def beat_features(heard: rhythm.Rhythm, shares: Floats) -> tuple[list[str], Floats]:
    """Return what tells whether there is a beat: names and values."""
    features = {
        "onsets comb": float(heard.onsets.comb().max()),
        "low comb": float(heard.low_onsets.comb().max()),
        "beats comb": float(heard.beats.comb().max()),
        "beat strength": heard.beat_strength,
        "best share": float(shares.max()),
        "short": min(1.0, 4 / heard.seconds),
        "onset rate": float(np.log2(max(heard.onset_rate, 0.25))),
    }
    return list(features), np.array(list(features.values()))


def agreement(heard: rhythm.Rhythm, bpm: float) -> float:
    """Return the share of the independent listeners whose own favourite is this tempo."""
    favourites = [rhythm.favourite(view) for view in (heard.onsets, *heard.networks)]
    votes = [abs(favourite / bpm - 1) < _SAME for favourite in favourites]
    # The networks are three of one kind: together they count as much as the onsets.
    return 0.5 * votes[0] + 0.5 * sum(votes[1:]) / max(1, len(votes) - 1)
