"""The provider that is always there: what was measured of the audio, with no network.

It listens through the evidence that the enricher already gathered, so asking it costs nothing.
"""

import hashlib
from collections.abc import Sequence
from decimal import Decimal
from functools import cache
from importlib import resources

from liner.v1 import track_pb2

from liner_server.core.calibration import Calibrated, Calibration
from liner_server.core.claims import ProviderAnswer
from liner_server.core.evidence import MEASURED_OF_MUSIC, measured_claims
from liner_server.core.fields import FIELDS
from liner_server.ports import Question

VERSION = "2"
_PACKAGES = ("liner_server.core", "liner_server.audio")


@cache
def _tables_digest() -> str:
    """Return a digest of every fitted table: with other numbers come other answers."""
    digest = hashlib.blake2b(digest_size=4)
    for package in _PACKAGES:
        folder = resources.files(package) / "tables"
        for table in sorted(folder.iterdir(), key=lambda entry: entry.name):
            if table.name.endswith(".json"):
                digest.update(table.name.encode() + table.read_bytes())
    return digest.hexdigest()


class EmbeddedProvider:
    """Answers from measurement: tempo, key, the tagger's words, loudness, the facts of the file."""

    name = "embedded"
    hears_audio = True

    def __init__(self, calibration: Calibration) -> None:
        self._calibration = calibration

    @property
    def version(self) -> str:
        """Changes whenever the same audio may get another answer."""
        return f"{VERSION}+{_tables_digest()}"

    @property
    def fields(self) -> tuple[str, ...]:
        """Paths it can answer."""
        return (*MEASURED_OF_MUSIC, *(path for path in FIELDS if path.startswith("properties.")))

    def answerable(self, question: Question) -> frozenset[str]:
        """Return the fields wanted that are measured; none without audio."""
        fields = frozenset(self.fields) if question.listening is not None else frozenset()
        return fields & question.fields if question.fields else fields

    def ceiling(self, path: str, *, heard: bool) -> Calibrated:
        """Return certainty: the facts of a file are counted."""
        return Calibrated(probability=1.0, basis=track_pb2.CONFIDENCE_BASIS_EXACT)

    def estimate(self, question: Question) -> Decimal:
        """Return nothing: its CPU is paid for already."""
        return Decimal(0)

    async def propose(self, question: Question) -> ProviderAnswer:
        """Return what was measured; nothing when there is no audio."""
        heard = question.listening
        claims = measured_claims(heard, self._calibration) if heard is not None else []
        return ProviderAnswer(claims=claims, model_version=self.version)

    async def propose_many(self, questions: Sequence[Question]) -> list[ProviderAnswer]:
        """Return what was measured for each question."""
        return [await self.propose(question) for question in questions]
