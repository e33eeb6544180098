"""Fitted tables: small JSON files with their provenance, and what applies them.

`liner_server.evaluation.fit` writes them. Each names the features it was fitted on, in order, so
that a table and the code that feeds it cannot drift apart unseen.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import numpy as np

from liner_server.audio.spectra import Floats


@dataclass(frozen=True, kw_only=True)
class Table:
    """A linear score and, where it has one, a small hidden layer beside it."""

    features: tuple[str, ...]
    mean: Floats
    scale: Floats
    linear: Floats
    """(features, outputs)."""

    bias: Floats
    hidden: Floats | None
    """(features, units) into tanh; None for a purely linear table."""

    hidden_bias: Floats | None
    output: Floats | None
    """(units, outputs)."""

    numbers: Mapping[str, float]
    """Thresholds that were fitted with it."""

    def apply(self, values: Floats) -> Floats:
        """Return scores, shape (rows, outputs), of feature rows."""
        # Clipped: what lies far outside the fitted range must not decide alone.
        standard = np.clip((values - self.mean) / self.scale, -4, 4)
        scores = standard @ self.linear + self.bias
        if self.hidden is not None:
            scores = scores + np.tanh(standard @ self.hidden + self.hidden_bias) @ self.output
        return np.asarray(scores)


@cache
def load_table(name: str) -> Table:
    """Return a shipped table by name, read once a process."""
    text = (resources.files(__name__) / f"{name}.json").read_text(encoding="utf-8")
    return parse_table(json.loads(text))


def parse_table(data: Mapping[str, Any]) -> Table:
    """Return the table that JSON data describes."""

    def array(key: str) -> Floats | None:
        return np.asarray(data[key], np.float64) if data.get(key) is not None else None

    return Table(
        features=tuple(data["features"]),
        mean=np.asarray(data["mean"], np.float64),
        scale=np.asarray(data["scale"], np.float64),
        linear=np.asarray(data["linear"], np.float64),
        bias=np.asarray(data["bias"], np.float64),
        hidden=array("hidden"),
        hidden_bias=array("hidden_bias"),
        output=array("output"),
        numbers=dict(data.get("numbers", {})),
    )
