"""Scores answers against labels and writes docs/quality.md: `make quality`.

`python -m liner_server.evaluation.quality --out docs/quality.md [--labels NAME=LABELS.csv ...]`
always reports on the generator's pieces and sounds of the report seeds, which nothing was fitted
on, and on each labelled set it is given. Takes some five minutes on two free cores.
"""

import argparse
import csv
import datetime
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from liner_server.audio.gate import classify_content
from liner_server.audio.key import estimate_key
from liner_server.audio.measurements import Content, Key, Tempo
from liner_server.audio.spectra import SAMPLE_RATE
from liner_server.audio.tempo import LISTED, estimate_tempo
from liner_server.core.calibration import Calibration
from liner_server.core.keys import parse_key
from liner_server.evaluation import fit, metrics, synth
from liner_server.evaluation.heard import sound
from liner_server.evaluation.labelled import evaluate, measured
from liner_server.evaluation.score import key_is_heard
from liner_server.evaluation.styles import STYLES


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One recording's labels beside what Liner said."""

    content: str
    label_bpm: float | None = None
    octave_ok: bool = False
    label_key: str | None = None
    key_certain: bool = True
    """Whether the sounds say what key it is, and not only its composer."""

    said: Mapping[str, str] = field(default_factory=dict)
    """A row as `labelled` writes it."""

    @property
    def bpm(self) -> float | None:
        """The tempo answered."""
        return float(self.said["bpm"]) if self.said.get("bpm") else None

    def probability(self, name: str) -> float | None:
        """Return how sure Liner was of an answer; None where it gave none."""
        text = self.said.get(f"{name}_confidence")
        return float(text) if text else None

    def tempo_right(self) -> bool:
        """Return whether the tempo answered is right."""
        return metrics.tempo_right(self.bpm, self.label_bpm or 0.0, octave_ok=self.octave_ok)

    def tempo_listed(self) -> bool:
        """Return whether the tempo answered or an alternative is right."""
        others = [float(text) for text in self.said.get("bpm_alternatives", "").split(";") if text]
        return self.tempo_right() or any(
            metrics.tempo_right(bpm, self.label_bpm or 0.0, octave_ok=self.octave_ok)
            for bpm in others
        )

    def key_score(self) -> float:
        """Return the MIREX score of the key answered."""
        return metrics.key_score(self.said.get("key") or None, self.label_key or "")


def from_labels(labels: Path) -> list[Answer]:
    """Return the answers for a labels file (columns path, bpm, bpm_octave_ok, key, content)."""
    with labels.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with tempfile.TemporaryDirectory() as folder:
        said = evaluate(labels, Path(folder) / "predictions.csv")
    return [
        Answer(
            content=row.get("content") or "music",
            label_bpm=float(row["bpm"]) if row.get("bpm") else None,
            octave_ok=(row.get("bpm_octave_ok") or "").lower() == "true",
            label_key=parse_key(row.get("key") or ""),
            said=answer,
        )
        for row, answer in zip(rows, said, strict=True)
    ]


def from_generator() -> list[Answer]:
    """Return the answers for the report seeds, music and not."""
    with ProcessPoolExecutor() as pool:
        music = list(pool.map(_piece, fit.REPORT_SEEDS, chunksize=8))
        other = list(pool.map(_sound, fit.REPORT_SOUND_SEEDS, chunksize=8))
    return music + other


def _piece(seed: int) -> Answer:
    piece = synth.draw(seed)
    mono = synth.render(piece, sample_rate=SAMPLE_RATE).mean(1)
    style = STYLES[piece.style]
    tonal = bool(style.chords or style.bass or style.melody)
    return Answer(
        content="music",
        label_bpm=piece.bpm,
        octave_ok=piece.octave_open,
        label_key=parse_key(piece.key) if tonal else None,
        key_certain=tonal and key_is_heard(piece),
        said=_said(mono),
    )


def _sound(seed: int) -> Answer:
    content, mono = sound(seed)
    return Answer(content=content.value, said=_said(mono))


def _said(mono: NDArray[np.float32]) -> dict[str, str]:
    content, _ = classify_content(mono)
    tempo, key = Tempo(bpm=None, score=0.0), Key(key=None, score=0.0)
    if content is Content.MUSIC:
        tempo, key = estimate_tempo(mono), estimate_key(mono)
    return {"content": content.value, **measured(tempo, key, Calibration.load())}


def report(sets: Mapping[str, Sequence[Answer]], command: str) -> str:
    """Return docs/quality.md for answers by the name of their set."""
    today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    lines = [
        "# Accuracy and calibration",
        "",
        f"Written by `{command}` on {today}; not by hand.",
        "",
        (
            "The tables that rank, gate and calibrate are fitted on the generator's seeds "
            f"{_span(fit.ESTIMATOR_SEEDS)} and {_span(fit.CALIBRATION_SEEDS)}; the set *generator* "
            f"below is seeds {_span(fit.REPORT_SEEDS)}, unseen. Each table's file names its data. "
            "Unanswered counts as wrong, except under calibration, which is about answers given. "
            "Other sets are labelled recordings that are not in the repository: "
            '`make quality LABELS="NAME=labels.csv"`.'
        ),
        "",
        "## Tempo",
        "",
        (
            "Acc1: within 4 % of the label (or of its half or double where the label is open). "
            "Acc2: also a factor of two or three. Listed: the answer or one of at most "
            f"{LISTED - 1} alternatives is right. ECE is the mean gap between stated and true; "
            "beside it what chance alone gives so many answers whose probabilities are all true."
        ),
        "",
        *_table(
            ("set", "n", "answered", "Acc1", "Acc2", "listed", *_SURENESS),
            [_tempo_row(name, answers) for name, answers in sets.items()],
        ),
        "",
        "## Key",
        "",
        (
            "Weighted as MIREX does: a fifth away 0.5, relative 0.3, parallel 0.2. A generated "
            "piece counts where its sounds say what key it is in: a riff of three notes is in "
            "many, and some progressions are another piece's in the relative key. With those that "
            "do not: *every key*."
        ),
        "",
        *_table(
            ("set", "n", "answered", "exact", "weighted", *_SURENESS),
            [_key_row(name, answers) for name, answers in _by_certainty(sets).items()],
        ),
        "",
        "## What is not music",
        "",
        "Given neither tempo nor key, of all recordings labelled so; and music wrongly refused.",
        "",
        *_table(
            ("set", "not music", "no tempo, no key", "music", "refused"),
            [_gate_row(name, answers) for name, answers in sets.items()],
        ),
        "",
        "## Reliability",
        "",
        "Of answers given with about this probability, the share that was right (count).",
    ]
    for name, answers in sets.items():
        lines += ["", f"### {name}", ""]
        lines += _table(
            ("field", *(f"{i / 10:.1f}-{(i + 1) / 10:.1f}" for i in range(10))),
            [_reliability_row("bpm", answers), _reliability_row("key", answers)],
        )
    return "\n".join(lines) + "\n"


def _by_certainty(sets: Mapping[str, Sequence[Answer]]) -> dict[str, Sequence[Answer]]:
    """Return the sets without uncertain keys, and beside each that has any, all of it."""
    split: dict[str, Sequence[Answer]] = {}
    for name, answers in sets.items():
        split[name] = [a for a in answers if a.key_certain]
        if any(a.label_key and not a.key_certain for a in answers):
            split[f"{name}, every key"] = answers
    return split


def _tempo_row(name: str, answers: Sequence[Answer]) -> Sequence[str]:
    labelled = [a for a in answers if a.label_bpm]
    if not labelled:
        return (name, "0", *("-",) * 8)
    hits = [a.tempo_right() for a in labelled]
    sure = metrics.confidence([a.probability("bpm") for a in labelled], hits)
    related = [metrics.tempo_related(a.bpm, a.label_bpm or 0.0) or a.tempo_right()
               for a in labelled]  # fmt: skip
    return (
        name,
        str(len(labelled)),
        str(sure.answered),
        _share(hits),
        _share(related),
        _share([a.tempo_listed() for a in labelled]),
        *_sureness(sure),
    )


def _key_row(name: str, answers: Sequence[Answer]) -> Sequence[str]:
    labelled = [a for a in answers if a.label_key]
    if not labelled:
        return (name, "0", *("-",) * 7)
    scores = [a.key_score() for a in labelled]
    hits = [score == 1 for score in scores]
    sure = metrics.confidence([a.probability("key") for a in labelled], hits)
    mean = sum(scores) / len(scores)
    return (
        name, str(len(labelled)), str(sure.answered), _share(hits), f"{mean:.3f}", *_sureness(sure)
    )  # fmt: skip


def _gate_row(name: str, answers: Sequence[Answer]) -> Sequence[str]:
    music = [a for a in answers if a.content == "music"]
    other = [a for a in answers if a.content != "music"]
    silent = [not a.said.get("bpm") and not a.said.get("key") for a in other]
    refused = [a.said.get("content") != "music" for a in music]
    return name, str(len(other)), str(sum(silent)), str(len(music)), str(sum(refused))


def _reliability_row(name: str, answers: Sequence[Answer]) -> Sequence[str]:
    if name == "bpm":
        pairs = [(a.probability(name), a.tempo_right()) for a in answers if a.label_bpm]
    else:
        pairs = [
            (a.probability(name), a.key_score() == 1)
            for a in answers
            if a.label_key and a.key_certain
        ]
    cells = ["-"] * 10
    if any(stated is not None for stated, _ in pairs):
        for stated, right, count in metrics.reliability(*zip(*pairs, strict=True)):
            cells[min(9, int(stated * 10))] = f"{right:.2f} ({count})"
    return name, *cells


_SURENESS = ("ECE", "by chance", "Brier", "coverage at 95 %")


def _sureness(sure: metrics.Confidence) -> tuple[str, ...]:
    return (
        f"{sure.ece:.3f}",
        f"{sure.ece_by_chance:.3f}",
        f"{sure.brier:.3f}",
        f"{sure.coverage_95:.2f}",
    )


def _share(hits: Sequence[bool]) -> str:
    return f"{sum(hits) / len(hits):.3f}"


def _span(seeds: range) -> str:
    return f"{seeds.start}-{seeds.stop - 1}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the report."""
    parser = argparse.ArgumentParser(prog="liner_server.evaluation.quality", description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--labels", action="append", default=[], metavar="NAME=CSV")
    chosen = parser.parse_args(arguments)
    sets: dict[str, Sequence[Answer]] = {"generator": from_generator()}
    for entry in chosen.labels:
        name, _, path = entry.partition("=")
        sets[name] = from_labels(Path(path))
    chosen.out.write_text(report(sets, "make quality"), encoding="utf-8")


if __name__ == "__main__":
    main()
