"""What kind of sound a signal is, so that speech and noise get no tempo and no key."""

import numpy as np
from numpy.typing import NDArray

from liner_server.audio import chroma
from liner_server.audio.measurements import Content
from liner_server.audio.spectra import is_silent


def classify_content(mono: NDArray[np.float32]) -> tuple[Content, float]:
    """Return what a mono signal at 22,050 Hz holds, and a raw score in [0, 1] for it."""
    if is_silent(mono):
        return Content.SILENCE, 1.0
    strength = chroma.measure(mono).tuning_strength
    return Content.MUSIC, min(1.0, 0.5 + strength)
