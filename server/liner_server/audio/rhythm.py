"""What a signal's rhythm looks like to three independent listeners, and how well a tempo fits it.

One listener is spectral flux: where new energy appears, in all bands and in the lowest. The other
is BeatNet: where a network trained on records taps its foot. Each gives envelopes over time; a
tempo fits one if the envelope repeats after a beat, two beats, a bar (autocorrelation) and pulses
at that rate (Fourier). The two measures fail differently: the first also likes slower multiples,
the second faster ones. The third witness, for short files, is the file itself (`witness`).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from liner_server.audio import beatnet
from liner_server.audio import loop as loops
from liner_server.audio.spectra import (
    SAMPLE_RATE,
    Floats,
    autocorrelation,
    magnitudes,
    mel_filters,
)

SLOWEST, FASTEST = 45.0, 220.0
"""Beats a minute that are considered at all."""

HEARD_SECONDS = 60
"""BeatNet hears the middle minute of what it is given: it costs most, and a minute is enough."""

_ONSET_SIZE, _ONSET_HOP = 1024, 220
_ONSET_RATE = SAMPLE_RATE / _ONSET_HOP
_LOW_BANDS = 12
_SHORT_SECONDS = 8
_WINDOW_SECONDS = 12
"""Autocorrelation is averaged over windows, so that a tempo which wanders still repeats."""

_MULTIPLES = (0.25, 1 / 3, 0.5, 2 / 3, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
_RATES = (1 / 3, 0.5, 2 / 3, 1.0, 1.5, 2.0, 3.0, 4.0)
_COMB = ((1, 1.0), (2, 0.7), (3, 0.35), (4, 0.6), (8, 0.3))
_GRID = np.exp(np.arange(np.log(SLOWEST), np.log(FASTEST), 0.004))
_CONFUSIONS = (1 / 3, 0.5, 2 / 3, 0.75, 1.0, 4 / 3, 1.5, 2.0, 3.0)
"""Ratios at which estimators mistake one tempo for another."""

_MOST_CANDIDATES = 20

_LOOP_BEATS = (2, 3, 4, 6, 8, 12, 16, 24, 32)
"""Lengths of one to eight bars: candidates in a file that may be a loop, whoever favours them."""

LONGEST_LOOP_SECONDS = 12.0
"""A longer file's length says nothing that the listeners do not say better."""


@dataclass(frozen=True, kw_only=True)
class Envelope:
    """One view of the rhythm: a curve over time and how it repeats."""

    curve: Floats
    rate: float
    """Values a second."""

    repeats: Floats
    """Autocorrelation by lag."""

    def at(self, lag_seconds: Floats) -> Floats:
        """Return the autocorrelation at lags; zero where the signal is too short to know."""
        lag = lag_seconds * self.rate
        values = np.interp(lag, np.arange(len(self.repeats)), self.repeats)
        return np.where(lag < 0.8 * len(self.repeats), values, 0.0)

    def comb(self) -> Floats:
        """Return how well the grid's tempi fit over a beat, two, three, four and eight."""
        period = 60 / _GRID
        return np.asarray(np.maximum(sum(w * self.at(period * k) for k, w in _COMB), 0))

    def pulse(self, hertz: Floats) -> Floats:
        """Return the curve's strength at frequencies, 0 to about 1."""
        size = min(len(self.curve), int(_WINDOW_SECONDS * self.rate))
        count = max(1, len(self.curve) // size)
        windows = self.curve[: count * size].reshape(count, size)
        windows = (windows - windows.mean(1, keepdims=True)) * np.hanning(size)
        turns = np.exp(-2j * np.pi * np.outer(np.arange(size) / self.rate, hertz))
        strength = np.abs(windows @ turns).mean(0)
        return np.asarray(strength / (np.sqrt((windows**2).sum(1).mean() * size) + 1e-9))


@dataclass(frozen=True, kw_only=True)
class Rhythm:
    """Everything the tempo is judged by."""

    loop: loops.Loop
    """Of the signal, before it was repeated."""

    onsets: Envelope
    low_onsets: Envelope
    beats: Envelope
    """Mean of the three networks, beats and downbeats."""

    networks: tuple[Envelope, ...]
    downbeats: Envelope
    onset_rate: float
    """Distinct onsets a second."""

    beat_rate: float
    """Beats a second as the mean network counts them."""

    beat_strength: float
    """Mean height of the beats counted: how sure the networks are that there is a beat."""

    @property
    def seconds(self) -> float:
        """Length of the signal, before it was repeated."""
        return self.loop.seconds


def hear(mono: Floats) -> Rhythm:
    """Return the rhythm of a mono signal at 22,050 Hz that is not silent."""
    seconds = len(mono) / SAMPLE_RATE
    loop = loops.measure(mono)
    if seconds < _SHORT_SECONDS:
        # Most short files are loops. Played round they repeat as their maker meant them to, and
        # the network, which needs seconds to find the beat, gets them.
        mono = np.tile(mono, int(np.ceil(10 / seconds)))
    flux, low = _fluxes(mono)
    surplus = max(0, len(mono) - HEARD_SECONDS * SAMPLE_RATE) // 2
    output = beatnet.activations(mono[surplus : len(mono) - surplus])
    beats = output[:, :, :2].sum(2)
    mean = beats.mean(0)
    peaks = _peaks(mean, 0.1)
    strong = _peaks(flux, 1.0)
    return Rhythm(
        loop=loop,
        onsets=_envelope(flux, _ONSET_RATE),
        low_onsets=_envelope(low, _ONSET_RATE),
        beats=_envelope(mean, beatnet.FRAMES_PER_SECOND),
        networks=tuple(_envelope(row, beatnet.FRAMES_PER_SECOND) for row in beats),
        downbeats=_envelope(output[:, :, 1].mean(0), beatnet.FRAMES_PER_SECOND),
        onset_rate=len(strong) * _ONSET_RATE / len(flux),
        beat_rate=len(peaks) * beatnet.FRAMES_PER_SECOND / len(mean),
        beat_strength=float(mean[peaks].mean()) if len(peaks) else 0.0,
    )


def candidates(rhythm: Rhythm) -> list[float]:
    """Return the tempi worth judging: what any listener favours, and its usual confusions."""
    found: list[tuple[float, float]] = []
    total = np.zeros(len(_GRID))
    for envelope, count in (
        (rhythm.onsets, 4),
        (rhythm.beats, 4),
        *((network, 2) for network in rhythm.networks),
    ):
        comb = envelope.comb()
        comb = comb / (comb.max() + 1e-9)
        total += comb
        inside = (comb[1:-1] > comb[:-2]) & (comb[1:-1] >= comb[2:])
        peaks = np.flatnonzero(inside) + 1
        best = peaks[np.argsort(-comb[peaks])][:count]
        found += [(float(comb[i]), float(_GRID[i])) for i in best]
    found.sort(reverse=True)
    chosen: list[float] = []
    for _, bpm in found:
        _add(chosen, _refined(rhythm, bpm))
    for bpm in chosen[:4]:
        for ratio in _CONFUSIONS:
            _add(chosen, _refined(rhythm, bpm * ratio))
    heights = np.interp(chosen, _GRID, total)
    ordered = [bpm for _, bpm in sorted(zip(-heights, chosen, strict=True))]
    tempi = [_snapped(rhythm.seconds, bpm) for bpm in ordered[:_MOST_CANDIDATES]]
    for beats in _LOOP_BEATS if rhythm.seconds < LONGEST_LOOP_SECONDS else ():
        _add(tempi, beats * 60 / rhythm.seconds)
    return tempi


def describe(rhythm: Rhythm, tempi: Floats) -> tuple[list[str], Floats]:
    """Return the names of the features and their values, shape (tempi, features)."""
    period = 60 / tempi
    octaves = np.log2(tempi / 120)
    columns: dict[str, Floats] = {
        "octaves": octaves,
        "octaves squared": octaves**2,
        "under 70": np.maximum(0, np.log2(70 / tempi)),
        "over 160": np.maximum(0, np.log2(tempi / 160)),
    }
    named = {"onsets": rhythm.onsets, "low": rhythm.low_onsets, "beats": rhythm.beats}
    for name, envelope in named.items():
        for multiple in _MULTIPLES:
            columns[f"{name} repeat {multiple:.2g}"] = envelope.at(period * multiple)
        comb = np.interp(tempi, _GRID, envelope.comb())
        columns[f"{name} comb"] = comb / (envelope.comb().max() + 1e-9)
        pulses = envelope.pulse(np.outer(1 / period, _RATES).ravel()).reshape(len(tempi), -1)
        for rate, column in zip(_RATES, pulses.T, strict=True):
            columns[f"{name} pulse {rate:.2g}"] = column
    for number, network in enumerate(rhythm.networks, 1):
        comb = np.interp(tempi, _GRID, network.comb())
        columns[f"network {number} comb"] = comb / (network.comb().max() + 1e-9)
        columns[f"network {number} repeat"] = network.at(period)
        rates = (2 / 3, 1.0, 1.5)
        pulses = network.pulse(np.outer(1 / period, rates).ravel()).reshape(len(tempi), -1)
        for rate, column in zip(rates, pulses.T, strict=True):
            columns[f"network {number} pulse {rate:.2g}"] = column
    for multiple in (2.0, 3.0, 4.0):
        columns[f"downbeats repeat {multiple:g}"] = rhythm.downbeats.at(period * multiple)
    onsets_a_beat = np.log2(np.maximum(rhythm.onset_rate, 0.1) * period)
    columns["onsets a beat"] = onsets_a_beat
    columns["onsets a beat squared"] = (onsets_a_beat - 1) ** 2
    columns["fewer onsets than beats"] = np.maximum(0, -onsets_a_beat)
    counted = np.log2(np.maximum(rhythm.beat_rate, 0.1) * period)
    columns["counted beats squared"] = np.minimum(counted**2, 2.0)
    columns["counted beats agree"] = np.exp(-0.5 * (counted / 0.06) ** 2) * rhythm.beat_strength
    for name in named:
        # Beside its rivals: a clip with a weak beat still has a best one.
        for feature in ("repeat 1", "repeat 4", "pulse 1"):
            column = columns[f"{name} {feature}"]
            columns[f"{name} {feature} beside rivals"] = column - column.max(initial=0.0)
    columns.update(_loop_features(rhythm.seconds, tempi))
    # The same for all of a clip's tempi: they tell the ranking what to listen to.
    for name, value in (
        ("short", min(1.0, 4 / rhythm.seconds)),
        ("beat strength", rhythm.beat_strength),
        ("onset rate", np.log2(max(rhythm.onset_rate, 0.25))),
    ):
        columns[name] = np.full(len(tempi), value)
    return list(columns), np.stack(list(columns.values()), axis=1)


def favourite(envelope: Envelope) -> float:
    """Return the tempo that one view alone would answer: its best fit near a walking pace."""
    prior = np.exp(-0.5 * (np.log2(_GRID / 118) / 0.7) ** 2)
    return float(_GRID[int((envelope.comb() * prior).argmax())])


def stability(rhythm: Rhythm, bpm: float) -> float:
    """Return how alike the beat is eight beats on to one beat on: 1 is a metronome."""
    period = 60 / bpm
    near = max(float(rhythm.onsets.at(np.array([period * k]))[0]) for k in (1, 2, 4))
    far = float(rhythm.onsets.at(np.array([period * 8]))[0])
    return float(np.clip(far / (near + 1e-9), 0, 1)) if near > 0.02 else 0.0


def _loop_features(seconds: float, tempi: Floats) -> dict[str, Floats]:
    """Return how nearly the file is a whole number of beats long, where that can mean anything.

    With thirty beats every tempo is within a few per cent of a whole number, so the cue fades
    with the number of beats.
    """
    beats = seconds * tempi / 60
    whole = np.maximum(1, np.round(beats))
    # Share of the file's length by which it misses.
    miss = np.abs(beats / whole - 1)
    bars = np.maximum(1, np.round(beats / 4)) * 4
    miss_bars = np.abs(beats / bars - 1)
    power = np.isin(whole, (4, 8, 16, 32))
    few = np.clip(2 - beats / 12, 0, 1)
    # Some loops are cut to the sample; encoders and careless hands add a few per cent.
    exact, near = 0.004 + 0.01 / seconds, 0.02
    return {
        "loop of beats": few * np.exp(-0.5 * (miss / exact) ** 2),
        "loop of bars": np.clip(2 - beats / 24, 0, 1) * np.exp(-0.5 * (miss_bars / exact) ** 2),
        "nearly bars": np.clip(2 - beats / 16, 0, 1) * np.exp(-0.5 * (miss_bars / near) ** 2),
        "loop of a power of two": few * power * np.exp(-0.5 * (miss / near) ** 2),
        "hardly a bar": np.maximum(0, np.log2(4 / np.maximum(beats, 0.5))),
        "few beats": np.clip(1.5 - beats / 16, 0, 1),
    }


def _snapped(seconds: float, bpm: float) -> float:
    """Return the tempo that makes the file a whole number of beats, if it is close to one."""
    beats = seconds * bpm / 60
    if not 1.5 < beats < 40.5:
        return bpm
    whole = round(beats / 4) * 4 if beats > 6 else round(beats)
    snapped = whole * 60 / seconds
    return snapped if abs(snapped / bpm - 1) < 0.012 else bpm


def _refined(rhythm: Rhythm, bpm: float) -> float:
    """Return the tempo corrected at ever longer lags, which tell it ever more exactly."""
    envelope = rhythm.onsets
    for multiple in (1, 2, 4, 8, 16):
        lag = 60 / bpm * multiple
        if lag * envelope.rate * 1.03 >= 0.8 * len(envelope.repeats):
            break
        width = 0.04 / multiple
        lags = np.linspace(lag * (1 - width), lag * (1 + width), 61)
        values = envelope.at(lags)
        best = int(values.argmax())
        # A maximum at the edge is the slope of another peak, not this tempo.
        if 0 < best < 60 and values[best] > 0:
            bpm = 60 * multiple / float(lags[best])
    return bpm


def _add(chosen: list[float], bpm: float) -> None:
    if SLOWEST <= bpm <= FASTEST and all(abs(bpm / other - 1) > 0.02 for other in chosen):
        chosen.append(bpm)


def _peaks(curve: Floats, least: float) -> NDArray[np.intp]:
    """Return where a curve has its local maxima above a height."""
    middle = curve[1:-1]
    return np.flatnonzero((middle > curve[:-2]) & (middle >= curve[2:]) & (middle > least)) + 1


def _envelope(curve: Floats, rate: float) -> Envelope:
    size = min(len(curve), int(_WINDOW_SECONDS * rate))
    starts = range(0, max(1, len(curve) - size + 1), max(1, size // 2))
    rows = [autocorrelation(curve[start : start + size]) for start in starts]
    return Envelope(curve=curve, rate=rate, repeats=np.mean(rows, axis=0))


def _fluxes(mono: Floats) -> tuple[Floats, Floats]:
    """Return the onset curve of all bands and that of the lowest, both of unit spread."""
    bank = mel_filters(_ONSET_SIZE, 80, 30, 10_000)
    mel = np.log1p(100 / (_ONSET_SIZE / 4) * (magnitudes(mono, _ONSET_SIZE, _ONSET_HOP) @ bank))
    before = mel[:-2]
    # Compared with the neighbouring bands too, vibrato is not an onset.
    lower = np.pad(before, ((0, 0), (1, 0)))[:, :-1]
    upper = np.pad(before, ((0, 0), (0, 1)))[:, 1:]
    flux = np.maximum(mel[2:] - np.maximum(before, np.maximum(lower, upper)), 0)
    low = _sharpened(flux[:, :_LOW_BANDS].mean(1))
    return _sharpened(flux.mean(1)) + 0.5 * low, low


def _sharpened(curve: Floats) -> Floats:
    """Return what rises above the second around it, of unit spread."""
    width = int(_ONSET_RATE) | 1
    risen = np.maximum(curve - np.convolve(curve, np.ones(width) / width, "same"), 0)
    return np.asarray(risen / (risen.std() + 1e-9))
