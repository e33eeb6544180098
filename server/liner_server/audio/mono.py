"""One channel out of several."""

import numpy as np
from numpy.typing import NDArray

_CANCELLED = 1e-4
"""Share of the energy that is left when two channels are each other's negative."""


def mono(block: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the mean of the channels of (channels, samples); one where they cancel each other."""
    mean: NDArray[np.float32] = block.mean(axis=0)
    if block.shape[0] == 2 and np.vdot(mean, mean) < _CANCELLED * np.vdot(block, block):
        return np.ascontiguousarray(block[0])
    return mean
