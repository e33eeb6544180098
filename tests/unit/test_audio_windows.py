"""Long files are judged on windows from all over them, in bounded memory."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from liner_server.audio.windows import ANALYSIS_RATE_HZ, MAX_WINDOWS, Windows

SECOND = ANALYSIS_RATE_HZ


def kept(seconds: int, *, window: int, most: int, block: int = 5_000) -> list[int]:
    """The seconds of a signal that are kept: each second of it holds its own number."""
    windows = Windows(window_seconds=window, max_windows=most)
    signal = np.repeat(np.arange(1, seconds + 1, dtype=np.float32), SECOND)
    for start in range(0, signal.size, block):
        windows.add(signal[start : start + block])
    # The middle of each second, away from the fades at the joints.
    return [round(float(value)) for value in windows.signal()[SECOND // 2 :: SECOND]]


@given(seconds=st.integers(1, 40), block=st.integers(1_000, 90_000))
def test_a_short_file_is_kept_whole(seconds: int, block: int) -> None:
    """Nothing is gained by leaving out part of a song."""
    assert kept(seconds, window=4, most=10, block=block) == list(range(1, seconds + 1))


@given(seconds=st.integers(44, 300))
def test_windows_of_a_long_file_are_bounded_and_evenly_spread(seconds: int) -> None:
    """Intro, middle and end are all heard, and memory does not grow with the file."""
    found = kept(seconds, window=4, most=10)

    starts = found[::4]
    assert 5 <= len(starts) <= 10
    assert starts[0] == 1
    assert len({later - earlier for earlier, later in itertools.pairwise(starts)}) == 1
    # What follows the last window is less than the distance between two.
    assert seconds - starts[-1] < 2 * (starts[1] - starts[0])


def test_the_most_that_is_kept_is_five_minutes() -> None:
    """26 MB of samples, for any file."""
    windows = Windows()
    minute = np.ones(60 * SECOND, np.float32)
    for _ in range(30):
        windows.add(minute)

    assert windows.signal().size <= MAX_WINDOWS * 30 * SECOND


def test_joints_are_faded() -> None:
    """A jump between two windows would be heard as an attack."""
    windows = Windows(window_seconds=1, max_windows=2)
    windows.add(np.ones(4 * SECOND, np.float32))

    signal = windows.signal()

    assert np.abs(np.diff(signal)).max() < 0.02
    assert signal.min() == 0


def test_nothing_in_gives_nothing_out() -> None:
    """A file that decodes to nothing is refused elsewhere; this must not be the place."""
    assert Windows().signal().size == 0
