"""Prints how fast and how well tracks are validated without audio, on one core.

Run: `PYTHONPATH=tests python tests/performance/bench_validator.py [TRACKS]`.
"""

import sys
import time

from liner.v1 import enrichment_pb2, track_pb2
from liner_server.core.validator import validate
from liner_server.evaluation import catalogue
from liner_server.evaluation.faults import FAULTS

_APPLE = enrichment_pb2.DELIVERY_PROFILE_APPLE


def main(count: int) -> None:
    """Print tracks a second of CPU, the share of false errors, and the worst fault's recall."""
    tracks = [catalogue.clean(seed) for seed in range(count)]
    validate(tracks[0], profile=_APPLE)
    start = time.process_time()
    answers = [validate(track, profile=_APPLE) for track in tracks]
    seconds = time.process_time() - start
    false = sum(any(i.severity == 1 for i in answer.issues) for answer in answers)
    recalls = {name: _recall(name, tracks[:200]) for name in FAULTS}
    worst = min(recalls, key=lambda name: recalls[name])
    sys.stdout.write(
        f"tracks {count}\ntracks_per_cpu_second {count / seconds:.0f}\n"
        f"false_error_share {false / count:.4f}\nfault_kinds {len(recalls)}\n"
        f"worst_fault {worst} {recalls[worst]:.3f}\n"
    )


def _recall(fault: str, tracks: list[track_pb2.Track]) -> float:
    rule_id, inject = FAULTS[fault]
    found = 0
    for track in tracks:
        faulty = track_pb2.Track()
        faulty.CopyFrom(track)
        inject(faulty)
        found += any(i.rule_id == rule_id for i in validate(faulty, profile=_APPLE).issues)
    return found / len(tracks)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5000)
