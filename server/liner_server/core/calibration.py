"""From raw scores to probabilities that can be believed, by tables fitted on labelled data.

A score of 0.9 means that one tempo beat the others clearly; it does not mean that nine of ten such
answers are right. Which share is right was counted, per field and source, on pieces that the
estimators were not fitted on, and a logistic curve drawn through it. Where nothing was counted the
number is a guess: it is capped and says so. Plain Python: this runs in the server process, which
loads no numpy.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Self

from liner.v1 import track_pb2

from liner_server.core.enums import Basis

UNFITTED_CAP = 0.6
"""No score without a fitted table becomes a higher probability than this: below the 0.8 at which
an answer is taken without review."""


@dataclass(frozen=True, kw_only=True)
class Calibrated:
    """A probability and what it rests on."""

    probability: float
    basis: Basis
    """CALIBRATED by a fitted table, or UNCALIBRATED: the raw score, capped."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A logistic curve over the score's log-odds and a few features."""

    intercept: float
    score: float
    """Weight of the score's log-odds."""

    weights: Mapping[str, float]
    """By feature, a weight; a name with `log ` before it takes the logarithm."""

    means: Mapping[str, float]
    """What stands for a feature that is not given: its mean in the data."""

    highest: float
    """No answer is surer than the data allowed to find out."""

    def at(self, score: float, features: Mapping[str, float]) -> float:
        """Return the probability that an answer with this score and features is right."""
        total = self.intercept + self.score * log_odds(score)
        for name, weight in self.weights.items():
            total += weight * feature(name, features, self.means[name])
        return min(self.highest, 1 / (1 + math.exp(-max(-30.0, min(30.0, total)))))


class Calibration:
    """The shipped curves by field and source."""

    def __init__(self, curves: Mapping[tuple[str, str], Curve], *, version: str = "none") -> None:
        self._curves = dict(curves)
        self.version = version
        """Changes with any number in the tables: answers made under another differ."""

    @classmethod
    def load(cls, *more: Path) -> Self:
        """Return the calibration that ships with Liner, and curves of more files, which win.

        Raises:
            OSError, ValueError, KeyError, TypeError: a file cannot be read as a table.

        """
        package = resources.files("liner_server.core") / "tables" / "calibration.json"
        data = json.loads(package.read_text(encoding="utf-8"))
        for path in more:
            data["curves"] += json.loads(path.read_text(encoding="utf-8"))["curves"]
        return cls.parse(data)

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> Self:
        """Return the calibration that JSON data describes."""
        return cls(
            {
                (row["field"], row["source"]): Curve(
                    intercept=float(row["intercept"]),
                    score=float(row["score"]),
                    weights={str(k): float(v) for k, v in row["weights"].items()},
                    means={str(k): float(v) for k, v in row["means"].items()},
                    highest=float(row["highest"]),
                )
                for row in data["curves"]
            },
            version=hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:8],
        )

    def calibrated(
        self, field: str, source: str, score: float, features: Mapping[str, float] | None = None
    ) -> Calibrated:
        """Return the probability that a field's answer with this raw score is right.

        `field` is Liner's path ("bpm", "key"), `source` who answers ("measured", "tag" ...),
        `score` in [0, 1]; a score that is not a number counts as 0.
        """
        if not math.isfinite(score):
            score = 0.0
        score = min(1.0, max(0.0, score))
        curve = self._curves.get((field, source))
        if curve is None:
            return Calibrated(
                probability=min(score, UNFITTED_CAP), basis=track_pb2.CONFIDENCE_BASIS_UNCALIBRATED
            )
        return Calibrated(
            probability=curve.at(score, features or {}), basis=track_pb2.CONFIDENCE_BASIS_CALIBRATED
        )

    def ceiling(self, field: str, source: str) -> Calibrated:
        """Return the highest probability that any answer of this source can get."""
        curve = self._curves.get((field, source))
        if curve is None:
            return Calibrated(
                probability=UNFITTED_CAP, basis=track_pb2.CONFIDENCE_BASIS_UNCALIBRATED
            )
        # Features may lift it by nobody knows how much.
        most = curve.highest if curve.weights else max(curve.at(0.0, {}), curve.at(1.0, {}))
        return Calibrated(probability=most, basis=track_pb2.CONFIDENCE_BASIS_CALIBRATED)


def log_odds(score: float) -> float:
    """Return the logarithm of the odds, for scores kept a thousandth away from 0 and 1."""
    score = min(0.999, max(0.001, score))
    return math.log(score / (1 - score))


def feature(name: str, features: Mapping[str, float], mean: float) -> float:
    """Return a feature as a curve takes it; its mean where it was not given or is no number."""
    plain = name.removeprefix("log ")
    value = features.get(plain)
    if value is None or not math.isfinite(value):
        return mean
    return math.log(max(value, 1e-3)) if plain != name else value
