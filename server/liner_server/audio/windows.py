"""The part of a file that tempo, key and content are judged on, chosen while it streams by.

Files under five and a half minutes are kept whole. Of a longer one, half-minute windows spread
evenly over all of it are kept: every window until ten are held, then every second one, every
fourth and so on. So memory has a bound, and nothing needs to be known of the length beforehand,
which only a header could tell.
"""

import numpy as np
from numpy.typing import NDArray

ANALYSIS_RATE_HZ = 22_050
"""Sample rate of the mono signal that is analysed."""

WINDOW_SECONDS = 30
MAX_WINDOWS = 10

_FADE = ANALYSIS_RATE_HZ // 200
"""5 ms, so that the joint of two windows is not heard as an attack."""


class Windows:
    """Collects a mono signal, usually at 22,050 Hz, and keeps a bounded part of it."""

    def __init__(
        self,
        *,
        window_seconds: int = WINDOW_SECONDS,
        max_windows: int = MAX_WINDOWS,
        rate_hz: int = ANALYSIS_RATE_HZ,
    ):
        self._length = window_seconds * rate_hz
        self._most = max_windows
        self._kept: list[NDArray[np.float32]] = []
        self._stride = 1
        self._index = 0
        self._current: list[NDArray[np.float32]] = []
        self._held = 0

    def add(self, mono: NDArray[np.float32]) -> None:
        """Take the next samples."""
        while mono.size:
            part, mono = np.split(mono, [self._length - self._held])
            if self._index % self._stride == 0:
                self._current.append(part)
            self._held += part.size
            if self._held == self._length:
                self._finish_window()

    def signal(self) -> NDArray[np.float32]:
        """Return what was kept as one signal: the whole file, or its windows end to end."""
        parts = list(self._kept)
        if self._current and (self._stride == 1 or not parts):
            parts.append(np.concatenate(self._current))
        if not parts:
            return np.zeros(0, np.float32)
        if self._stride > 1:
            parts = [_faded(part) for part in parts]
        return np.concatenate(parts)

    def _finish_window(self) -> None:
        if self._current:
            if len(self._kept) == self._most:
                self._kept = self._kept[::2]
                self._stride *= 2
            if self._index % self._stride == 0:
                self._kept.append(np.concatenate(self._current))
        self._current, self._held = [], 0
        self._index += 1


def _faded(part: NDArray[np.float32]) -> NDArray[np.float32]:
    if part.size < 2 * _FADE:
        return part
    part = part.copy()
    ramp = np.linspace(0, 1, _FADE, dtype=np.float32)
    part[:_FADE] *= ramp
    part[-_FADE:] *= ramp[::-1]
    return part
