"""Making an acoustic fingerprint: one word of 32 bits for each eighth of a second.

Each bit says whether the balance between two neighbouring frequency bands has risen or fallen
over half a second. That survives codecs, gain and equalising, which move both bands together
(after Haitsma and Kalker, "A Highly Robust Audio Fingerprinting System", 2002).
"""

import numpy as np
from numpy.typing import NDArray

from liner_server.audio.fingerprint import VERSION
from liner_server.audio.windows import ANALYSIS_RATE_HZ

SECONDS = 120
"""How much of the start of a recording is looked at."""

_FRAME = 8192
_HOP = 2730
_BANDS = 33
_LOWEST_HZ, _HIGHEST_HZ = 200.0, 4_500.0
_SMOOTH = 4
_LAG = 4
_SILENCE = 10 ** (-60 / 20)


def fingerprint(mono: NDArray[np.float32]) -> bytes:
    """Return the fingerprint of a signal at 22,050 Hz, of its first two minutes at most.

    Empty for silence and for less than about two seconds: there is nothing to recognise.
    """
    mono = mono[: SECONDS * ANALYSIS_RATE_HZ]
    frames = (mono.size - _FRAME) // _HOP + 1
    if frames < _SMOOTH + _LAG + 1 or float(np.abs(mono).max()) < _SILENCE:
        return b""
    energy = np.log(_band_energies(mono, frames) + 1e-9)
    balance = energy[:, :-1] - energy[:, 1:]
    summed = np.cumsum(np.vstack([np.zeros((1, _BANDS - 1)), balance]), axis=0)
    smooth = summed[_SMOOTH:] - summed[:-_SMOOTH]
    bits = smooth[_LAG:] > smooth[:-_LAG]
    return bytes([VERSION]) + np.packbits(bits, axis=1).tobytes()


def _band_energies(mono: NDArray[np.float32], frames: int) -> NDArray[np.float64]:
    edges = np.geomspace(_LOWEST_HZ, _HIGHEST_HZ, _BANDS + 1) * _FRAME / ANALYSIS_RATE_HZ
    bins = np.round(edges).astype(int)
    window = np.hanning(_FRAME).astype(np.float32)
    energies = np.empty((frames, _BANDS))
    for index in range(frames):
        start = index * _HOP
        spectrum = np.fft.rfft(mono[start : start + _FRAME] * window)
        power = spectrum.real**2 + spectrum.imag**2
        energies[index] = np.add.reduceat(power[: bins[-1]], bins[:-1])
    return energies
