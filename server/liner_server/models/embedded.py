"""The provider that is always there: what was measured of the audio, with no network.

It listens through the evidence that the enricher already gathered, so asking it costs nothing.
"""

from liner_server.core.calibration import Calibration
from liner_server.core.claims import ProviderAnswer
from liner_server.core.evidence import measured_claims
from liner_server.ports import Question

VERSION = "1"


class EmbeddedProvider:
    """Answers from measurement: tempo, key, loudness and the facts of the file."""

    name = "embedded"
    hears_audio = True

    def __init__(self, calibration: Calibration) -> None:
        self._calibration = calibration

    @property
    def version(self) -> str:
        """Changes whenever the same audio may get another answer."""
        return f"{VERSION}+{self._calibration.version}"

    @property
    def fields(self) -> tuple[str, ...]:
        """Paths it can answer."""
        from liner_server.core.fields import FIELDS

        return ("bpm", "key", *(path for path in FIELDS if path.startswith("properties.")))

    async def propose(self, question: Question) -> ProviderAnswer:
        """Return what was measured; nothing when there is no audio."""
        heard = question.listening
        claims = measured_claims(heard, self._calibration) if heard is not None else []
        return ProviderAnswer(claims=claims, model_version=self.version)
