"""Decoding files in memory with the project's own decoder."""

import io

import numpy as np
from liner_server.audio.decode import Decoding
from liner_server.audio.limits import Limits
from liner_server.audio.measurements import Problem
from liner_server.audio.sniff import sniff

from support.audio_files import Signal


def decoded(data: bytes, *, limits: Limits | None = None) -> Signal:
    """Return all samples of a file."""
    return heard(data, limits=limits)[0]


def heard(data: bytes, *, limits: Limits | None = None) -> tuple[Signal, tuple[Problem, ...]]:
    """Return all samples of a file, and what was wrong with it."""
    file = io.BytesIO(data)
    with Decoding(file, sniff(file), size=len(data), limits=limits or Limits()) as decoding:
        blocks = list(decoding.blocks())
        return np.concatenate(blocks, axis=1), decoding.problems()
