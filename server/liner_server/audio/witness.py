"""What the length of a short file, and where its strokes lie in it, say of each tempo.

Most short files of music are loops of whole bars. So a tempo at which the file is four, eight or
sixteen beats long, and whose beats fall on strokes counted from the very start, is the likelier
one, whoever of the listeners prefers another. Every measure here fades with the number of beats
and is zero in a song, where any tempo makes some whole number of them; what says that the file is
no loop (silence in front, a sound that dies away) takes part, so that a fitted table can trust the
length less.
"""

from collections.abc import Mapping

import numpy as np

from liner_server.audio.rhythm import Rhythm
from liner_server.audio.spectra import Floats

_AT_ONCE = 0.03
"""Seconds of silence in front that a loop may have."""

_OF_LENGTH = ("loop of beats", "loop of bars", "nearly bars", "loop of a power of two",
              "hardly a bar", "few beats")  # fmt: skip
_OF_PACE = ("octaves", "octaves squared", "onsets a beat", "onsets a beat squared",
            "counted beats agree")  # fmt: skip
"""What the ranking measures already and weighs otherwise in a short file."""


def describe(
    rhythm: Rhythm, tempi: Floats, measured: Mapping[str, Floats], scores: Floats
) -> tuple[list[str], Floats]:
    """Return the names of the features and their values, shape (tempi, features).

    `measured` are `rhythm.describe`'s columns by name, `scores` what the ranking made of them.
    """
    loop, short = rhythm.loop, measured["short"]
    hertz = tempi / 60
    beats = loop.seconds * hertz
    few = np.clip(2 - beats / 12, 0, 1)
    whole = np.maximum(1, np.round(beats))
    exact = 0.004 + 0.01 / loop.seconds
    power = np.isin(whole, (4, 8, 16, 32))
    cues = {
        **{name: measured[name] for name in _OF_LENGTH},
        "exactly a power of two": few * power * np.exp(-0.5 * ((beats / whole - 1) / exact) ** 2),
        "strokes on beats": few * loop.on_grid(hertz),
        "strokes on halves": few * loop.on_grid(2 * hertz),
        "strokes on thirds": few * loop.on_grid(3 * hertz),
        "strokes on quarters": few * loop.on_grid(4 * hertz),
    }
    at_once = float(loop.quiet_before < _AT_ONCE)
    dies = min(1.0, 4 * loop.quiet_after / loop.seconds)
    columns = {
        "ranking": scores,
        "ranking, short": scores * short,
        **cues,
        **{f"{name}, begins at once": cue * at_once for name, cue in cues.items()},
        **{f"{name}, dies away": cue * dies for name, cue in cues.items()},
        **{f"{name}, short": measured[name] * short for name in _OF_PACE},
    }
    return list(columns), np.stack(list(columns.values()), axis=1)
