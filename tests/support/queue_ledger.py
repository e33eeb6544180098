"""What was acknowledged, written down outside the server, and held against its files afterwards."""

import os
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from liner.v1 import enrichment_pb2


class Ledger:
    """A file of the submissions that a server acknowledged; each line is on the disk when told."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("a")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def acknowledged(self, request_id: str, job_id: str) -> None:
        """Write down what a client was told."""
        self.all_acknowledged([(request_id, job_id)])

    def all_acknowledged(self, told: Iterable[tuple[str, str]]) -> None:
        """Write down what clients were told at the same time."""
        self._file.write("".join(f"{request_id} {job_id}\n" for request_id, job_id in told))
        self._file.flush()
        os.fsync(self._file.fileno())

    def jobs(self) -> dict[str, set[str]]:
        """Return the job ids that each request id was told."""
        told: dict[str, set[str]] = {}
        for line in self._path.read_text().splitlines(keepends=True):
            # A killed writer may leave half a line: it had not counted that one yet.
            if line.endswith("\n") and len(words := line.split()) == 2:
                told.setdefault(words[0], set()).add(words[1])
        return told


@dataclass(kw_only=True)
class Verdict:
    """What the files say of the acknowledged jobs."""

    done: int = 0
    """Jobs with a stored result."""

    waiting: int = 0
    """Jobs on the queue, dead letters included."""

    lost: list[str] = field(default_factory=list)
    """Request ids that were acknowledged and are nowhere."""

    doubled: list[str] = field(default_factory=list)
    """Request ids with more than one job, result or place."""

    both: list[str] = field(default_factory=list)
    """Request ids with a result whose job is still on the queue, as between a job's two ends."""

    broken: list[str] = field(default_factory=list)
    """What SQLite's own check says of the files."""


def judge(
    ledger: "Ledger | Mapping[str, set[str]]", data_dir: Path, *, queue_file: str = "queue"
) -> Verdict:
    """Return where each acknowledged job is, read from a stopped server's files."""
    told = ledger.jobs() if isinstance(ledger, Ledger) else ledger
    verdict = Verdict()
    queue = sqlite3.connect(data_dir / f"{queue_file}.sqlite")
    results = sqlite3.connect(data_dir / "results.sqlite")
    try:
        for name, db in (("queue", queue), ("results", results)):
            (said,) = db.execute("PRAGMA integrity_check").fetchone()
            if said != "ok":
                verdict.broken.append(f"{name}: {said}")
        on_queue = {i for (i,) in queue.execute("SELECT message_id FROM messages")}
        by_request = Counter(
            r for (r,) in queue.execute("SELECT request_id FROM messages WHERE request_id <> ''")
        )
        stored = _done(results)
    finally:
        queue.close()
        results.close()
    by_request.update(stored.values())
    for request_id, jobs in told.items():
        done = {job for job in jobs if job in stored}
        verdict.done += bool(done)
        verdict.waiting += bool(jobs & on_queue)
        if not done and not jobs & on_queue:
            verdict.lost.append(request_id)
        if done and jobs & on_queue:
            verdict.both.append(request_id)
        if len(jobs) > 1 or by_request[request_id] > 1:
            verdict.doubled.append(request_id)
    return verdict


def interrupted(data_dir: Path, *, queue_file: str = "queue") -> int:
    """Return how many jobs a killed process was working on that will be worked on again.

    Read-only: what the process left behind stays as it is for its successor.
    """
    uri = f"file:{data_dir}/{{}}.sqlite?mode=ro"
    with (
        closing(sqlite3.connect(uri.format(queue_file), uri=True)) as queue,
        closing(sqlite3.connect(uri.format("results"), uri=True)) as results,
    ):
        held = [i for (i,) in queue.execute("SELECT message_id FROM messages WHERE state = 3")]
        return sum(
            results.execute(
                "SELECT 1 FROM enrichments WHERE enrichment_id = ? AND state = ?",
                (name, enrichment_pb2.ENRICHMENT_STATE_DONE),
            ).fetchone()
            is None
            for name in held
        )


def _done(results: sqlite3.Connection) -> dict[str, str]:
    """Return the request id of each stored result by its id."""
    from liner_server.results.records import unpacked

    found = {}
    for name, record in results.execute(
        "SELECT enrichment_id, record FROM enrichments WHERE state = ?",
        (enrichment_pb2.ENRICHMENT_STATE_DONE,),
    ):
        found[name] = unpacked(enrichment_pb2.Enrichment, record).request_id
    return found
