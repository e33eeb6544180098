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
    hidden: Floats
    """(features, units) into tanh; no units in a purely linear table."""

    hidden_bias: Floats
    output: Floats
    """(units, outputs)."""

    numbers: Mapping[str, float]
    """Thresholds that were fitted with it."""

    def apply(self, values: Floats) -> Floats:
        """Return scores, shape (rows, outputs), of feature rows."""
        # Clipped: what lies far outside the fitted range must not decide alone.
        standard = np.clip((values - self.mean) / self.scale, -4, 4)
        units = np.tanh(standard @ self.hidden + self.hidden_bias)
        return np.asarray(standard @ self.linear + self.bias + units @ self.output)


@cache
def load_table(name: str) -> Table:
    """Return a shipped table by name, read once a process."""
    text = (resources.files(__name__) / f"{name}.json").read_text(encoding="utf-8")
    return parse_table(json.loads(text))


def parse_table(data: Mapping[str, Any]) -> Table:
    """Return the table that JSON data describes."""
    linear = np.asarray(data["linear"], np.float64)
    width, outputs = linear.shape
    return Table(
        features=tuple(data["features"]),
        mean=np.asarray(data["mean"], np.float64),
        scale=np.asarray(data["scale"], np.float64),
        linear=linear,
        bias=np.asarray(data["bias"], np.float64),
        hidden=np.asarray(
            np.zeros((width, 0)) if data["hidden"] is None else data["hidden"], np.float64
        ),
        hidden_bias=np.asarray(
            [] if data["hidden_bias"] is None else data["hidden_bias"], np.float64
        ),
        output=np.asarray(
            np.zeros((0, outputs)) if data["output"] is None else data["output"], np.float64
        ),
        numbers=dict(data.get("numbers", {})),
    )
