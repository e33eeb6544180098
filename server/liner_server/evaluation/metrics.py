"""How good answers and their probabilities are: the measures of music information retrieval."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_TEMPO_TOLERANCE = 0.04
_DRAWS = 500
_NOTES = {"C": 0, "C#": 1, "Db": 1, "D": 2, "D#": 3, "Eb": 3, "E": 4, "F": 5, "F#": 6, "Gb": 6,
          "G": 7, "G#": 8, "Ab": 8, "A": 9, "A#": 10, "Bb": 10, "B": 11, "Cb": 11, "E#": 5,
          "Fb": 4, "B#": 0}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Confidence:
    """How far probabilities can be trusted."""

    answered: int
    """How many of the labelled items got an answer."""

    ece: float
    """Expected calibration error over ten bins: mean gap between stated and true."""

    ece_by_chance: float
    """What it would be on average if every probability were true: of few answers, far from 0."""

    brier: float
    coverage_95: float
    """Share of all labelled items that can be accepted unseen at 95 % precision."""


def tempo_right(bpm: float | None, label: float, *, octave_ok: bool = False) -> bool:
    """Return whether a tempo is within 4 % of the label (Acc1)."""
    if bpm is None:
        return False
    ratios = (1.0, 0.5, 2.0) if octave_ok else (1.0,)
    return any(abs(bpm / (label * ratio) - 1) <= _TEMPO_TOLERANCE for ratio in ratios)


def tempo_related(bpm: float | None, label: float) -> bool:
    """Return whether a tempo is right up to a factor of two or three (Acc2)."""
    if bpm is None:
        return False
    ratios = (1.0, 0.5, 2.0, 1 / 3, 3.0)
    return any(abs(bpm / (label * ratio) - 1) <= _TEMPO_TOLERANCE for ratio in ratios)


def key_score(key: str | None, label: str) -> float:
    """Return the MIREX score: 1 right, 0.5 a fifth away, 0.3 relative, 0.2 parallel, else 0."""
    if key is None:
        return 0.0
    (tonic, minor), (true_tonic, true_minor) = _parts(key), _parts(label)
    if (tonic, minor) == (true_tonic, true_minor):
        return 1.0
    if minor == true_minor:
        return 0.5 if (tonic - true_tonic) % 12 in (5, 7) else 0.0
    if tonic == true_tonic:
        return 0.2
    relative = (true_tonic + 3) % 12 if true_minor else (true_tonic + 9) % 12
    return 0.3 if tonic == relative else 0.0


def confidence(probabilities: Sequence[float | None], hits: Sequence[bool]) -> Confidence:
    """Return the figures for all labelled items; None marks one that got no answer."""
    answered = [(p, h) for p, h in zip(probabilities, hits, strict=True) if p is not None]
    if not answered:
        return Confidence(answered=0, ece=0.0, ece_by_chance=0.0, brier=0.0, coverage_95=0.0)
    stated = np.array([p for p, _ in answered])
    right = np.array([h for _, h in answered], np.float64)
    draws = np.random.default_rng(0).random((_DRAWS, len(stated))) < stated
    order = np.argsort(-stated, kind="stable")
    precision = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    # Equal probabilities are accepted together or not at all.
    last = np.append(np.diff(stated[order]) != 0, True)
    enough = np.flatnonzero((precision >= 0.95) & last)
    return Confidence(
        answered=len(answered),
        ece=float(_ece(stated, right)),
        ece_by_chance=float(_ece(stated, draws.astype(np.float64)).mean()),
        brier=float(np.mean((stated - right) ** 2)),
        coverage_95=(int(enough[-1]) + 1) / len(hits) if len(enough) else 0.0,
    )


def reliability(
    probabilities: Sequence[float | None], hits: Sequence[bool]
) -> list[tuple[float, float, int]]:
    """Return (mean stated, share right, count) of each of ten bins that is not empty."""
    answered = [(p, h) for p, h in zip(probabilities, hits, strict=True) if p is not None]
    stated = np.array([p for p, _ in answered])
    right = np.array([h for _, h in answered], np.float64)
    return [
        (float(stated[inside].mean()), float(right[inside].mean()), int(inside.sum()))
        for inside in _bins(stated)
    ]


def surest(scores: NDArray[np.float64], hits: NDArray[np.intp]) -> float:
    """Return the share right among the surest tenth, by Laplace's rule of succession.

    Whoever is as sure as the last of them belongs to them.
    """
    last = np.sort(scores)[-max(10, len(scores) // 10) :][0]
    top = scores >= last
    return float((hits[top].sum() + 1) / (top.sum() + 2))


def _ece(stated: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the calibration error of (n,) outcomes, or of each row of (draws, n)."""
    bins = np.minimum((stated * 10).astype(int), 9)[:, None] == np.arange(10)
    return np.asarray(np.abs((stated - right) @ bins).sum(-1) / len(stated))


def _bins(stated: NDArray[np.float64]) -> list[NDArray[np.bool_]]:
    index = np.minimum((stated * 10).astype(int), 9)
    return [index == i for i in range(10) if (index == i).any()]


def _parts(name: str) -> tuple[int, bool]:
    tonic, mode = name.split()
    return _NOTES[tonic], mode.startswith("min")
