"""Answers already worked out, so that the same question is not asked twice."""

import hashlib
from collections import OrderedDict
from typing import Protocol

from liner.v1 import enrichment_pb2


class Shelf(Protocol):
    """Answers that outlive this process; slower than memory, and never in the way of an answer."""

    async def find(self, key: bytes) -> enrichment_pb2.EnrichMetadataResponse | None:
        """Return a fresh copy of the answer, or None if there is none to be had soon."""

    def keep(self, key: bytes, answer: enrichment_pb2.EnrichMetadataResponse) -> None:
        """Take an answer to keep; returns at once."""


class AnswerCache:
    """Keeps the newest answers in memory, serialized, up to a number of entries; behind them a
    shelf may keep more.

    What is the asker's own stays out: `track_id` and `audio` of an answer are for whoever asked
    first, and must be set anew for those who ask later.
    """

    def __init__(self, entries: int, shelf: Shelf | None = None) -> None:
        self._entries = entries
        self._shelf = shelf
        self._answers: OrderedDict[bytes, bytes] = OrderedDict()

    def get(self, key: bytes) -> enrichment_pb2.EnrichMetadataResponse | None:
        """Return a fresh copy of an answer in memory, marked as known before, or None."""
        data = self._answers.get(key)
        if data is None:
            return None
        self._answers.move_to_end(key)
        return as_known(enrichment_pb2.EnrichMetadataResponse.FromString(data))

    async def fetch(self, key: bytes) -> enrichment_pb2.EnrichMetadataResponse | None:
        """Return an answer from the shelf, marked as known before, or None; memory has it then."""
        found = await self._shelf.find(key) if self._shelf is not None else None
        if found is None:
            return None
        self._remember(key, found)
        return as_known(found)

    def put(self, key: bytes, answer: enrichment_pb2.EnrichMetadataResponse) -> None:
        """Keep an answer; in memory the one longest unused makes room."""
        shared = enrichment_pb2.EnrichMetadataResponse()
        shared.CopyFrom(answer)
        shared.track.ClearField("track_id")
        shared.track.ClearField("audio")
        self._remember(key, shared)
        if self._shelf is not None:
            self._shelf.keep(key, shared)

    def _remember(self, key: bytes, answer: enrichment_pb2.EnrichMetadataResponse) -> None:
        if not self._entries:
            return
        self._answers[key] = answer.SerializeToString()
        while len(self._answers) > self._entries:
            self._answers.popitem(last=False)


def as_known(
    answer: enrichment_pb2.EnrichMetadataResponse,
) -> enrichment_pb2.EnrichMetadataResponse:
    """Return a copy for a caller who was not the first to ask: it cost nothing again."""
    known = enrichment_pb2.EnrichMetadataResponse()
    known.CopyFrom(answer)
    known.processing.from_cache = True
    known.processing.retry_count = 0
    known.processing.ClearField("usage")
    return known


def answer_key(*parts: bytes) -> bytes:
    """Return a digest of the parts; no other split of the same bytes gives the same one."""
    digest = hashlib.blake2b(digest_size=32)
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()
