"""Which tracks an experimental model answers: the same ones every time.

A track's place in [0, 1) is a hash of the experiment's name and of what names the track, so a
retry, another server or another day never moves it to the other arm, and two experiments draw
independently of each other.
"""

import hashlib
from dataclasses import dataclass

CONTROL, TREATMENT = "control", "experimental"
"""The variants of an experiment, as results and analytics name them."""

EXPERIMENTAL = "experimental"
"""Name of the provider that is tried."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One model tried on a share of the tracks."""

    name: str
    """Names the experiment in answers; another name draws other tracks."""

    provider: str = EXPERIMENTAL
    """The name of the provider that is tried."""

    share: float = 0.1
    """Part of all tracks, 0 to 1."""

    shadow: bool = False
    """Ask the experimental model too, but never use what it says."""

    def variant(self, unit: str) -> str:
        """Return the arm of a track; `unit` is its track_id, or a digest of its content."""
        return TREATMENT if self.place(unit) < self.share else CONTROL

    def place(self, unit: str) -> float:
        """Return where a track stands in [0, 1); the share cuts from below, so a ramp only adds."""
        # The length in front keeps name and unit from running into each other.
        text = f"{len(self.name)}:{self.name}:{unit}".encode()
        return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) / 2**64
