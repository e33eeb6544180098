"""Faults of a master, found block by block: clipping, silence, phase, offset, spectral cut-off."""

import numpy as np
from numpy.typing import NDArray

from liner_server.audio.measurements import Technical

FULL_SCALE = 0.9999
"""The largest 16-bit sample is 0.99997; lossy codecs decode to more than 1."""

_CLIPPED_RUN = 3
"""Samples at full scale in a row that count as clipped: single ones are just loud."""

SILENCE = 10 ** (-60 / 20)
"""A sample under -60 dBFS in every channel is silence."""

_SAME = 10 ** (-40 / 10)
"""Two channels whose difference has less than this share of the energy are one signal."""

_FFT = 4096
_BAND_HZ = 150.0
"""Resolution of the cut-off."""

_LOWEST_CUTOFF_HZ = 9_000.0
"""Lower walls are musical more often than not; encoders filter at 11 kHz and up."""

_HIGHEST_CUTOFF_SHARE = 0.95
"""Of half the sample rate. Higher walls are the anti-alias filter of any converter."""

_WALL_DB = 25.0
"""Drop within `_WALL_HZ` that makes a wall; music rolls off by a tenth of that."""

_WALL_HZ = 600.0
_SHELF_HZ = 1_500.0
"""Width below the wall that must hold sound everywhere: single tones make no wall."""


class TechnicalMeter:
    """Takes the blocks of one file in order and then says what is wrong with it."""

    def __init__(self, *, sample_rate_hz: int, channels: int) -> None:
        self._rate = sample_rate_hz
        self._channels = channels
        self._samples = 0
        self._sums = np.zeros(channels)
        self._peaks = np.zeros(channels, dtype=np.float32)
        self._run = [0] * channels
        self._clipped = 0
        self._first: int | None = None
        self._last = 0
        self._energy = self._difference = self._sum = 0.0
        self._window = np.hanning(_FFT).astype(np.float32)
        self._power = np.zeros(_FFT // 2 + 1)
        self._frames = 0

    def add(self, block: NDArray[np.float32]) -> None:
        """Take the next samples, shaped (channels, samples), full scale 1.0."""
        magnitude = np.abs(block)
        self._sums += block.sum(axis=1, dtype=np.float64)
        np.maximum(self._peaks, magnitude.max(axis=1, initial=0.0), out=self._peaks)
        self._count_clipped(magnitude)
        loud = np.flatnonzero((magnitude > SILENCE).any(axis=0))
        if loud.size:
            if self._first is None:
                self._first = self._samples + int(loud[0])
            self._last = self._samples + int(loud[-1]) + 1
        if self._channels == 2:
            left, right = block
            self._energy += float(np.vdot(block, block))
            self._difference += _energy(left - right)
            self._sum += _energy(left + right)
        self._add_spectrum(block)
        self._samples += block.shape[1]

    def result(self) -> Technical:
        """Return the faults in all that was added. A silent file is all leading silence."""
        samples = max(self._samples, 1)
        first = samples if self._first is None else self._first
        trailing = 0 if self._first is None else self._samples - self._last
        clipped = self._clipped + sum(run for run in self._run if run >= _CLIPPED_RUN)
        audible = self._energy > SILENCE**2 * samples
        return Technical(
            clipped_samples=clipped,
            leading_silence_seconds=first / self._rate,
            trailing_silence_seconds=trailing / self._rate,
            dual_mono=audible and self._difference < _SAME * self._energy,
            phase_inverted=audible and self._sum < _SAME * self._energy,
            silent_channel=self._channels == 2
            and float(self._peaks.min()) <= SILENCE < float(self._peaks.max()),
            dc_offset=float(max(self._sums / samples, key=abs)),
            cutoff_hz=self._cutoff(),
        )

    def _count_clipped(self, magnitude: NDArray[np.float32]) -> None:
        """Count samples in runs at full scale; a run may go on into the next block."""
        for channel in range(self._channels):
            row = magnitude[channel]
            if not self._run[channel] and float(row.max()) < FULL_SCALE:
                continue
            hot = np.concatenate(([False], row >= FULL_SCALE, [False]))
            edges = np.flatnonzero(hot[1:] != hot[:-1])
            starts, ends = edges[::2], edges[1::2]
            lengths = ends - starts
            if lengths.size and starts[0] == 0:
                lengths[0] += self._run[channel]
            elif self._run[channel] >= _CLIPPED_RUN:
                self._clipped += self._run[channel]
            self._run[channel] = 0
            if lengths.size and ends[-1] == row.size:
                self._run[channel] = int(lengths[-1])
                lengths = lengths[:-1]
            self._clipped += int(lengths[lengths >= _CLIPPED_RUN].sum())

    def _add_spectrum(self, block: NDArray[np.float32]) -> None:
        # A quarter of the signal shows a wall as well as all of it.
        for channel in block[:2]:
            whole = channel.size // _FFT * _FFT
            frames = channel[:whole].reshape(-1, _FFT)[::4]
            spectrum = np.fft.rfft(frames * self._window)
            self._power += (np.abs(spectrum) ** 2).sum(axis=0)
            self._frames += frames.shape[0]

    def _cutoff(self) -> float | None:
        """The frequency of a wall: much everywhere just below it and nothing all the way above."""
        if not self._frames:
            return None
        width = max(1, round(_BAND_HZ * _FFT / self._rate))
        hertz = width * self._rate / _FFT
        whole = self._power.size // width * width
        bands = self._power[:whole].reshape(-1, width).mean(axis=1) / self._frames
        # Full scale is 0 dB for a sine; far below any 24-bit noise, all is equally nothing.
        levels = 10 * np.log10(bands / (_FFT / 4) ** 2 + 1e-16)
        shelf, step = round(_SHELF_HZ / hertz), round(_WALL_HZ / hertz)
        lowest = max(shelf, round(_LOWEST_CUTOFF_HZ / hertz))
        highest = int(min(_HIGHEST_CUTOFF_SHARE * self._rate / 2 / hertz, levels.size - 1 - step))
        best, wall = _WALL_DB, None
        for band in range(lowest, highest):
            below = float(np.percentile(levels[band - shelf : band], 20))
            above = float(levels[band + step :].max())
            if below - above > best:
                best, wall = below - above, band
        return None if wall is None else wall * hertz


def _energy(signal: NDArray[np.float32]) -> float:
    return float(np.vdot(signal, signal))
