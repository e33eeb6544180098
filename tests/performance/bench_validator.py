"""Prints how fast and how well tracks are validated without audio, on one core.

Run: `python tests/performance/bench_validator.py [TRACKS]`. Three catalogues: typical (labels,
artists and albums repeat, as they do), distinct (no text occurs twice, a kilobyte of lyrics
each), faulty (one fault in each track). "asked in full" is the same with the short cut for tidy
tracks left out, in turns with the other, so that a busy machine slows both: compare the two. CPU
time is taken of pieces of 100 tracks; `median` is of all pieces, `best` of the least disturbed.
"""

import statistics
import sys
import time
from collections.abc import Sequence

from liner.v1 import enrichment_pb2, track_pb2
from liner_server.core import validator
from liner_server.core.validator import validate
from liner_server.evaluation import catalogue
from liner_server.evaluation.faults import FAULTS

_APPLE = enrichment_pb2.DELIVERY_PROFILE_APPLE
_PIECE = 100
_SHORT_CUT = validator.GROUPS
_IN_FULL = tuple(
    # What needs the audio is left out of both: it was never asked without any.
    (family, rules, tidy if tidy.__name__ == "nothing_heard" else lambda _: False)
    for family, rules, tidy in _SHORT_CUT
)


def main(count: int) -> None:
    """Print tracks a second of CPU, the share of false errors, and the worst fault's recall."""
    typical = [catalogue.clean(seed) for seed in range(count)]
    kinds = list(FAULTS)
    faulty = [_with(track, kinds[i % len(kinds)]) for i, track in enumerate(typical)]
    sys.stdout.write(f"{count} tracks each, tracks a CPU second\n")
    sys.stdout.write(f"{'catalogue':10}{'':>16}{'median':>9}{'best':>9}\n")
    for name, tracks in (
        ("typical", typical),
        ("distinct", [_distinct(track, seed) for seed, track in enumerate(typical)]),
        ("faulty", faulty),
    ):
        _print_rates(name, tracks)
    answers = [validate(track, profile=_APPLE) for track in typical]
    false = sum(any(i.severity == 1 for i in answer.issues) for answer in answers)
    recalls = {name: _recall(name, typical[:200]) for name in FAULTS}
    worst = min(recalls, key=lambda name: recalls[name])
    sys.stdout.write(
        f"false_error_share {false / count:.4f}\nfault_kinds {len(recalls)}\n"
        f"worst_fault {worst} {recalls[worst]:.3f}\n"
    )


def _print_rates(name: str, tracks: Sequence[track_pb2.Track]) -> None:
    taken: dict[str, list[float]] = {"short cut": [], "asked in full": []}
    for start in range(0, len(tracks) - _PIECE + 1, _PIECE):
        for way, groups in (("short cut", _SHORT_CUT), ("asked in full", _IN_FULL)):
            validator.GROUPS = groups
            began = time.process_time()
            for track in tracks[start : start + _PIECE]:
                validate(track, profile=_APPLE)
            taken[way].append(time.process_time() - began)
    validator.GROUPS = _SHORT_CUT
    for way, seconds in taken.items():
        median, best = statistics.median(seconds), min(seconds)
        sys.stdout.write(f"{name:10}{way:>16}{_PIECE / median:9.0f}{_PIECE / best:9.0f}\n")


def _distinct(track: track_pb2.Track, seed: int) -> track_pb2.Track:
    """Return the track with every text made its own, and lyrics as long as a song's."""
    word = "".join("abcdefghijklmnopqrstuvwxyz"[int(digit)] for digit in f"{seed:07}").title()
    copy = track_pb2.Track()
    copy.CopyFrom(track)
    for path in ("title", "album", "label", "p_line", "c_line"):
        setattr(copy, path, f"{getattr(copy, path)} {word}")
    for artist in copy.artists:
        artist.name = f"{artist.name} {word}"
    copy.lyrics = f"{copy.lyrics}\n" * (1000 // len(copy.lyrics) + 1) + word
    return copy


def _with(track: track_pb2.Track, fault: str) -> track_pb2.Track:
    faulty = track_pb2.Track()
    faulty.CopyFrom(track)
    FAULTS[fault][1](faulty)
    return faulty


def _recall(fault: str, tracks: Sequence[track_pb2.Track]) -> float:
    answers = [validate(_with(track, fault), profile=_APPLE) for track in tracks]
    found = sum(any(i.rule_id == FAULTS[fault][0] for i in a.issues) for a in answers)
    return found / len(tracks)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5000)
