"""Which probability a model's score means: `liner-server calibrate --results CSV --out TABLE`.

Each field, model and prompt version gets a logistic curve of its own, fitted on one half of the
judged answers; what is reported was measured on the other half, with the code that serves.
"""

import csv
import datetime
import hashlib
import io
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from liner_server.core.calibration import Calibration, log_odds
from liner_server.evaluation import metrics
from liner_server.evaluation.regress import classify

COLUMNS = ("field", "model", "prompt_version", "score", "right")
"""That a file of results must have; others are passed over, but for `track_id` and `stated`."""

_PENALTY = 2.0
"""Holds a curve's slope as in the tables that ship."""

_EARNED = 2.0
"""What a stated confidence must add to the log-likelihood to have a part in a curve: what chance
adds to one weight is more than this one time in twenty."""


class ResultsError(ValueError):
    """The results cannot be used; the text says where and why."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One answer of a model, and whether it was right."""

    field: str
    source: str
    """As a provider looks its curves up: provider, model and prompt version."""
    score: float
    right: bool
    stated: float | None
    """The confidence that the model put in words, where it is known."""
    held_out: bool
    """In the half that nothing is fitted on."""


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A curve, and how good it is on answers that it was not fitted on."""

    curve: Mapping[str, Any]
    """One row of the table."""
    judged: int
    right: int
    raw: metrics.Confidence
    """The same answers with the score itself for the probability."""
    calibrated: metrics.Confidence


def run(results: Path, out: Path, *, least: int) -> str:
    """Fit all curves that the results allow, write the table and return a report to print.

    Raises:
        OSError: a file cannot be read or written.
        ResultsError: a row is wrong, or no curve could be fitted; nothing is written.

    """
    data = results.read_bytes()
    groups: defaultdict[tuple[str, str], list[Judged]] = defaultdict(list)
    for row in read(data):
        groups[row.field, row.source].append(row)
    fitted, left_out = [], []
    for (field, source), rows in sorted(groups.items()):
        held = sum(row.held_out for row in rows)
        if len(rows) < least:
            left_out.append(f"left out: {field} {source}, {len(rows)} results of {least} needed")
        elif min(held, len(rows) - held) < least / 4:
            left_out.append(f"left out: {field} {source}, too few tracks to cut in halves")
        else:
            fitted.append(fit(rows))
    if not fitted:
        raise ResultsError("\n".join(["no curve could be fitted", *left_out]))
    _write(out, _provenance(data, results, out, least) | {"curves": [one.curve for one in fitted]})
    return "\n".join([*_table(fitted), *left_out, f"curves written to {out}: {len(fitted)}"])


def read(data: bytes) -> Iterator[Judged]:
    """Yield the rows of a CSV of results.

    Raises:
        ResultsError: a column is missing or a value cannot be used.

    """
    try:
        text = io.StringIO(data.decode("utf-8-sig"), newline="")
    except UnicodeDecodeError as error:
        raise ResultsError("the results are not UTF-8") from error
    rows = csv.DictReader(text)
    try:
        missing = [name for name in COLUMNS if name not in (rows.fieldnames or ())]
        if missing:
            raise ResultsError(f"missing columns: {', '.join(missing)}")
        for row in rows:
            yield _judged(row, rows.line_num)
    except (ValueError, csv.Error) as error:
        raise ResultsError(f"line {rows.line_num}: {error}") from error


def fit(rows: Sequence[Judged]) -> Fitted:
    """Return the curve of one field and source; both halves must hold answers."""
    learnt = [row for row in rows if not row.held_out]
    held = [row for row in rows if row.held_out]
    curve = _curve(learnt)
    calibration = Calibration.parse({"curves": [curve]})
    found = [
        calibration.calibrated(
            r.field, r.source, r.score, {} if r.stated is None else {"stated": r.stated}
        ).probability
        for r in held
    ]
    hits = [row.right for row in held]
    return Fitted(
        curve=curve,
        judged=len(held),
        right=sum(hits),
        raw=metrics.confidence([row.score for row in held], hits),
        calibrated=metrics.confidence(found, hits),
    )


def _judged(row: Mapping[str, str | None], line: int) -> Judged:
    empty = [name for name in COLUMNS if not (row[name] or "").strip()]
    if empty:
        raise ResultsError(f"{', '.join(empty)} is empty")
    field, model, prompt_version, score, right = ((row[name] or "").strip() for name in COLUMNS)
    said = (row.get("stated") or "").strip()
    if right not in ("0", "1"):
        raise ResultsError(f"right is {right[:20]!r}, neither 0 nor 1")
    # By the track, so that no curve is judged on a track it has learnt from.
    unit = row.get("track_id") or f"line {line}"
    return Judged(
        field=field,
        source=f"{model}:{prompt_version}",
        score=_share("score", score),
        right=right == "1",
        stated=_share("stated", said) if said else None,
        held_out=bool(hashlib.sha256(unit.encode()).digest()[0] & 1),
    )


def _share(name: str, text: str) -> float:
    number = float(text)
    if not 0 <= number <= 1:
        raise ResultsError(f"{name} is {text[:20]}, not in 0 to 1")
    return number


def _curve(rows: Sequence[Judged]) -> dict[str, Any]:
    hits = np.array([int(row.right) for row in rows])
    right = int(hits.sum())
    columns = {"score": np.array([log_odds(row.score) for row in rows])}
    given = [row.stated for row in rows if row.stated is not None]
    mean = float(np.mean(given)) if given else 0.0
    weights: dict[str, float] = {}
    # The same answer whatever the score and the words: their average.
    intercept = log_odds((right + 1) / (len(rows) + 2))
    if 0 < right < len(rows):
        alone = _fitted(columns, hits)
        columns["stated"] = np.array([mean if r.stated is None else r.stated for r in rows])
        both = _fitted(columns, hits)
        if "stated" in both[0] and (
            _likelihood(both, columns, hits) - _likelihood(alone, columns, hits) > _EARNED
        ):
            weights, intercept = both
        elif alone[0]:
            weights, intercept = alone
    slope = weights.pop("score", 0.0)
    total = slope * columns["score"]
    for name, weight in weights.items():
        total = total + weight * columns[name]
    return {
        "field": rows[0].field,
        "source": rows[0].source,
        "n": len(rows),
        "right": right,
        "intercept": intercept,
        "score": slope,
        "weights": weights,
        "means": dict.fromkeys(weights, mean),
        "highest": metrics.surest(total, hits),
    }


_Line = tuple[dict[str, float], float]
"""Weights by column, and an intercept."""


def _fitted(columns: Mapping[str, NDArray[np.float64]], hits: NDArray[np.intp]) -> _Line:
    """Return the line through the columns that speak for an answer.

    One that says nothing, or that speaks against it, has no weight: that would be chance.
    """
    names = list(columns)
    while names:
        model = classify(np.stack([columns[n] for n in names], 1), hits, penalty=_PENALTY)
        slopes = model.linear[:, 0] / model.scale
        if slopes.min() > 0:
            intercept = float(model.bias[0] - (slopes * model.mean).sum())
            return dict(zip(names, map(float, slopes), strict=True)), intercept
        del names[int(slopes.argmin())]
    return {}, log_odds((hits.sum() + 1) / (len(hits) + 2))


def _likelihood(
    line: _Line, columns: Mapping[str, NDArray[np.float64]], hits: NDArray[np.intp]
) -> float:
    weights, intercept = line
    total = np.full(len(hits), intercept)
    for name, weight in weights.items():
        total = total + weight * columns[name]
    return float(-np.logaddexp(0, np.where(hits == 1, -total, total)).sum())


def _provenance(data: bytes, results: Path, out: Path, least: int) -> dict[str, Any]:
    command = f"liner-server calibrate --results {results.name} --out {out.name} --least {least}"
    return {
        "provenance": {
            "data": results.name,
            "sha256": hashlib.sha256(data).hexdigest(),
            "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
            "command": command,
        }
    }


def _table(fitted: Sequence[Fitted]) -> Iterator[str]:
    wide = max(len(f"{one.curve['field']} {one.curve['source']}") for one in fitted)
    head = "fitted on  judged on  right   raw ECE    ECE  raw Brier  Brier  coverage at 95 %"
    yield f"{'curve':{wide}}  {head}"
    for one in fitted:
        name = f"{one.curve['field']} {one.curve['source']}"
        yield (
            f"{name:{wide}}  {one.curve['n']:9}  {one.judged:9}  {one.right / one.judged:5.2f}"
            f"  {one.raw.ece:8.3f}  {one.calibrated.ece:5.3f}  {one.raw.brier:9.3f}"
            f"  {one.calibrated.brier:5.3f}  {one.calibrated.coverage_95:16.2f}"
        )


def _write(path: Path, data: Mapping[str, Any]) -> None:
    # A server may read it at any moment: whole or not at all.
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    fresh.replace(path)
