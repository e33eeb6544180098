"""Answers already worked out, so that the same question is not asked twice."""

import hashlib
from collections import OrderedDict

from liner.v1 import enrichment_pb2


class AnswerCache:
    """Keeps the newest answers in memory, serialized, up to a number of entries."""

    def __init__(self, entries: int) -> None:
        self._entries = entries
        self._answers: OrderedDict[bytes, bytes] = OrderedDict()

    def get(self, key: bytes) -> enrichment_pb2.EnrichMetadataResponse | None:
        """Return a fresh copy of the answer, marked as known before, or None."""
        data = self._answers.get(key)
        if data is None:
            return None
        self._answers.move_to_end(key)
        return as_known(enrichment_pb2.EnrichMetadataResponse.FromString(data))

    def put(self, key: bytes, answer: enrichment_pb2.EnrichMetadataResponse) -> None:
        """Keep an answer; the one longest unused makes room."""
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
