"""The two regressions behind the fitted tables, on scipy's optimiser: no learning library.

Both are the same small model, a linear score with a few hidden units beside it, kept small by a
penalty. `rank` learns which candidate of a group is right, `classify` which class a row is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

Floats = NDArray[np.floating[Any]]

_LIMIT = 4.0
"""Standardised features are clipped here, in fitting as in use."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """A fitted table, before it is written."""

    mean: Floats
    scale: Floats
    linear: Floats
    bias: Floats
    hidden: Floats | None = None
    hidden_bias: Floats | None = None
    output: Floats | None = None

    def as_json(self, features: Sequence[str], **more: Any) -> dict[str, Any]:
        """Return what `audio.tables` reads, numbers to five digits."""
        arrays = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {
            **more,
            "features": list(features),
            **{k: None if v is None else _rounded(v) for k, v in arrays.items()},
        }


def rank(
    groups: Sequence[Floats], right: Sequence[NDArray[np.bool_]], *, penalty: float, units: int = 0,
    networks: int = 1,
) -> Model:  # fmt: skip
    """Return the model that gives the right candidates of each group the highest shares.

    Groups without a right candidate teach nothing and are left out. Several networks from
    different starts are averaged into one, which steadies the shares.
    """
    pairs = [(g, r) for g, r in zip(groups, right, strict=True) if r.any()]
    rows = np.concatenate([g for g, _ in pairs])
    hits = np.concatenate([r for _, r in pairs]).astype(float)
    lengths = [len(g) for g, _ in pairs]
    group = np.repeat(np.arange(len(pairs)), lengths)
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(int)

    def loss(scores: Floats) -> tuple[float, Floats]:
        score = scores[:, 0]
        top = np.maximum.reduceat(score, starts)[group]
        weight = np.exp(score - top)
        total = np.add.reduceat(weight, starts)
        good = np.add.reduceat(weight * hits, starts)
        slope = weight / total[group] - weight * hits / good[group]
        return float(np.log(total / good).sum()), slope[:, None]

    return _fit(rows, 1, loss, penalty=penalty, units=units, networks=networks)


def classify(
    rows: Floats, classes: NDArray[np.intp], *, penalty: float, units: int = 0, networks: int = 1,
    weights: Floats | None = None,
) -> Model:  # fmt: skip
    """Return the model whose scores, through a softmax, are the classes' probabilities.

    With two classes the model has one score: the log-odds of the second. `weights` says how many
    rows each row stands for.
    """
    count = int(classes.max()) + 1
    times = np.ones(len(rows)) if weights is None else weights
    outputs = 1 if count == 2 else count
    truth = np.eye(count)[classes]

    def loss(scores: Floats) -> tuple[float, Floats]:
        full = np.hstack([np.zeros((len(scores), 1)), scores]) if outputs == 1 else scores
        full = full - full.max(1, keepdims=True)
        weight = np.exp(full)
        share = weight / weight.sum(1, keepdims=True)
        slope = (share - truth) * times[:, None]
        value = -times @ np.log((share * truth).sum(1) + 1e-12)
        return float(value), slope[:, 1:] if outputs == 1 else slope

    return _fit(rows, outputs, loss, penalty=penalty, units=units, networks=networks)


def _fit(
    rows: Floats, outputs: int, loss: Callable[[Floats], tuple[float, Floats]],
    *, penalty: float, units: int, networks: int,
) -> Model:  # fmt: skip
    mean, scale = rows.mean(0), rows.std(0) + 1e-6
    standard = np.clip((rows - mean) / scale, -_LIMIT, _LIMIT)
    width = rows.shape[1]
    shapes = [(width, units), (units,), (units, outputs), (width, outputs), (outputs,)]
    sizes = [int(np.prod(shape)) for shape in shapes]
    # Biases go free; the hidden layer's way out is held less than its way in.
    strengths = np.repeat([penalty, 0.0, 0.3 * penalty, penalty, 0.0], sizes)

    def parts(x: Floats) -> list[Floats]:
        pieces = np.split(x, np.cumsum(sizes)[:-1])
        return [p.reshape(s) for p, s in zip(pieces, shapes, strict=True)]

    def objective(x: Floats) -> tuple[float, Floats]:
        hidden, hidden_bias, output, linear, bias = parts(x)
        inner = np.tanh(standard @ hidden + hidden_bias)
        value, slope = loss(inner @ output + standard @ linear + bias)
        back = slope @ output.T * (1 - inner**2)
        gradient = [standard.T @ back, back.sum(0), inner.T @ slope, standard.T @ slope,
                    slope.sum(0)]  # fmt: skip
        joined = np.concatenate([g.ravel() for g in gradient])
        return value + float((strengths * x * x).sum()) / 2, joined + strengths * x

    fitted = []
    for seed in range(networks if units else 1):
        rng = np.random.default_rng(seed)
        start = np.concatenate(
            [rng.normal(0, 0.1, n) if i in (0, 2) else np.zeros(n) for i, n in enumerate(sizes)]
        )
        found = minimize(objective, start, jac=True, method="L-BFGS-B", options={"maxiter": 300})
        fitted.append(parts(found.x))
    count = len(fitted)
    linear = sum((f[3] for f in fitted), np.zeros(shapes[3])) / count
    bias = sum((f[4] for f in fitted), np.zeros(shapes[4])) / count
    if not units:
        return Model(mean=mean, scale=scale, linear=linear, bias=bias)
    return Model(
        mean=mean,
        scale=scale,
        linear=linear,
        bias=bias,
        hidden=np.concatenate([f[0] for f in fitted], axis=1),
        hidden_bias=np.concatenate([f[1] for f in fitted]),
        output=np.concatenate([f[2] for f in fitted]) / count,
    )


def _rounded(values: Floats) -> Any:
    if values.ndim > 1:
        return [_rounded(row) for row in values]
    return [float(f"{value:.5g}") for value in values]
