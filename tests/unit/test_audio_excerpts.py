"""Excerpts for a model that hears: the form endpoints take, from any file, in the pool."""

import asyncio
import io
import wave
from pathlib import Path

import numpy as np
import pytest
from liner_server.audio import errors
from liner_server.audio.excerpts import RATE_HZ, SECONDS, cut_excerpts
from liner_server.audio.limits import Limits
from liner_server.audio.pool import ListeningPool, PoolPolicy
from support.audio_files import Signal, encode, sine, stereo, wav


def opened(excerpt: bytes) -> tuple[tuple[int, int, int], Signal]:
    """The form of a WAV file and its samples."""
    with wave.open(io.BytesIO(excerpt)) as reader:
        form = (reader.getframerate(), reader.getnchannels(), reader.getsampwidth())
        samples = np.frombuffer(reader.readframes(reader.getnframes()), "<i2")
    return form, samples.astype(np.float32) / 32_768


def rising(minutes: int) -> Signal:
    """Minutes of a tone, each louder than the one before."""
    parts = [
        stereo(sine(440, 60, level_db=-26 + 6 * index, rate=44_100)) for index in range(minutes)
    ]
    return np.concatenate(parts, axis=1)


def test_excerpts_are_spread_over_the_file_in_the_form_models_take(tmp_path: Path) -> None:
    """The start of a track is an intro, and a model that hears it only says "ambient"."""
    path = tmp_path / "song"
    path.write_bytes(encode(rising(4), "flac"))

    found = [opened(excerpt) for excerpt in cut_excerpts(path, count=2, limits=Limits())]

    assert [form for form, _ in found] == [(RATE_HZ, 1, 2)] * 2
    assert [len(samples) for _, samples in found] == [RATE_HZ * SECONDS] * 2
    # Each lies in one minute or touches two: the first and second, then the third and fourth.
    first, second = (20 * np.log10(np.abs(samples).max()) for _, samples in found)
    assert -26.5 < first < -19.5
    assert -14.5 < second < -7.5


@pytest.mark.parametrize("seconds", [0.3, 12.0, 30.0])
def test_a_short_file_gives_one_excerpt_all_of_it(seconds: float, tmp_path: Path) -> None:
    """The same half minute twice costs twice and says nothing new."""
    path = tmp_path / "song"
    path.write_bytes(wav(stereo(sine(440, seconds, rate=44_100))))

    [excerpt] = cut_excerpts(path, count=3, limits=Limits())

    assert len(opened(excerpt)[1]) == pytest.approx(seconds * RATE_HZ, abs=RATE_HZ // 50)


async def test_the_pool_cuts_what_it_also_hears(tmp_path: Path) -> None:
    """Hostile bytes are decoded in a process that may die, for excerpts too."""
    path, broken = tmp_path / "song", tmp_path / "broken"
    path.write_bytes(encode(rising(1), "mp3"))
    broken.write_bytes(b"not audio at all")
    deadline = asyncio.get_running_loop().time() + 50

    async with ListeningPool(policy=PoolPolicy(processes=1)) as pool:
        excerpts = await pool.excerpts(path, count=2, deadline=deadline)
        with pytest.raises(errors.AudioError) as refused:
            await pool.excerpts(broken, count=2, deadline=deadline)
        heard = await pool.listen(path, name="song.mp3", deadline=deadline)

    assert [opened(excerpt)[0] for excerpt in excerpts] == [(RATE_HZ, 1, 2)] * 2
    assert refused.value.reason == "AUDIO_UNSUPPORTED"
    assert heard.format.duration_seconds == pytest.approx(60, abs=0.2)
