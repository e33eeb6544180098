"""Music with known answers: whole pieces from a tempo, a key, a style and a seed.

Real labelled recordings are scarce, seldom free to share, and their labels are argued about. These
pieces are none of that: the same `Piece` gives the same samples anywhere, so tests, the demo and
the fitting of the tables need no data. They are easier than records, which `docs/quality.md`
keeps in mind: accuracy on them is a floor to stand on, not a promise.
"""

from dataclasses import dataclass, replace

import numpy as np
import scipy.fft as sfft

from liner_server.evaluation.score import Event, compose
from liner_server.evaluation.styles import STYLES
from liner_server.evaluation.voices import VOICES, Kit, Samples, draw_kit, drum, note

NOTES = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")


@dataclass(frozen=True, kw_only=True)
class Piece:
    """One piece of music; equal pieces sound equal."""

    bpm: float
    """Beats a minute, 30 to 300; in 6/8 the beat is the dotted quarter."""

    key: str
    """As "F# minor"; minor is mostly natural with a raised seventh in the dominant."""

    seconds: float = 20.0
    style: str = "rock"
    """A name in `styles.STYLES`; it brings its meter, groove, harmony and instruments."""

    seed: int = 0
    """Draws progression, melody, fills and instruments."""

    swing: float | None = None
    """Delay of every second eighth as a share of an eighth, 0 to 0.5; None as the style has it."""

    jitter_seconds: float = 0.0
    """Spread of every note about its place."""

    drift: float = 0.0
    """How far the tempo wanders and comes back, as a share: 0.02 is a band without a click."""

    detune_cents: float = 0.0
    noise_db: float | None = None
    """Signal-to-noise ratio; None is clean."""

    reverb: float = 0.0
    """Share of reverberation, 0 to 1."""

    tilt_db: float = 0.0
    """Change of level an octave above 500 Hz: -6 is a telephone in the next room."""

    modulation: int = 0
    """Semitones by which the last third is moved."""

    start_beat: float = 0.0
    """Where in the piece the recording starts; not a whole number for a careless cut."""

    stop_beat: float | None = None
    """No note begins at or after this beat of the recording; what sounds by then rings on."""

    delay_seconds: float = 0.0
    """Silence before the recording, as some encoders add it."""

    mute: tuple[str, ...] = ()
    """What is left out: drums, bass, chords, melody, or single drums by their names."""

    @property
    def meter(self) -> str:
        """The style's time signature."""
        return STYLES[self.style].meter

    @property
    def octave_open(self) -> bool:
        """Whether half or double the tempo is as good an answer: one drum of a groove is left."""
        style = STYLES[self.style]
        pitched = {"bass": style.bass, "chords": style.chords, "melody": style.melody}
        drums = set(style.drums) - set(self.mute)
        return (
            len(drums) == 1 < len(style.drums)
            and "drums" not in self.mute
            and all(part in self.mute or not played for part, played in pitched.items())
        )


def render(piece: Piece, *, sample_rate: int = 44_100) -> Samples:
    """Return the piece as (frames, 2) float32 below full scale."""
    rng = np.random.default_rng([piece.seed, 1])
    frames = round(piece.seconds * sample_rate)
    tail = sample_rate * 2
    mix = np.zeros((frames + tail, 2), np.float32)
    cache: dict[tuple[str, float, int], Samples] = {}
    kit = draw_kit(rng)
    pans = {part: rng.uniform(-0.5, 0.5) for part in ("chords", "melody", "drums")}
    for event in compose(piece):
        begin = round((event.time + piece.delay_seconds) * sample_rate)
        if begin >= frames:
            continue
        sound = _sound(event, piece, sample_rate, rng, kit, cache)
        if begin < 0:
            sound, begin = sound[-begin:], 0
        sound = sound[: len(mix) - begin]
        pan = pans.get(event.part, 0.0)
        for channel, gain in enumerate((1 - pan, 1 + pan)):
            mix[begin : begin + len(sound), channel] += np.float32(gain * event.gain) * sound
    return master(mix, piece, sample_rate, rng)[:frames]


def _sound(
    event: Event,
    piece: Piece,
    rate: int,
    rng: np.random.Generator,
    kit: Kit,
    cache: dict[tuple[str, float, int], Samples],
) -> Samples:
    """Return one event's samples; a note is made once a piece, a stroke four times."""
    variant = int(rng.integers(4)) if event.part == "drums" else round(event.seconds * 50)
    name = (event.voice, event.pitch, variant)
    if name not in cache:
        if event.part == "drums":
            cache[name] = drum(event.voice, rate, rng, kit)
        else:
            pitch = event.pitch + piece.detune_cents / 100
            cache[name] = note(VOICES[event.voice], pitch, event.seconds, rate, rng)
    return cache[name]


def master(mix: Samples, piece: Piece, rate: int, rng: np.random.Generator) -> Samples:
    """Add the room, the tone control and the noise, and bring the level below full scale."""
    if piece.reverb or piece.tilt_db:
        length = sfft.next_fast_len(len(mix) + rate, real=True)
        spectrum = sfft.rfft(mix, length, axis=0)
        if piece.reverb:
            time = np.arange(rate, dtype=np.float32) / rate
            room = rng.standard_normal((rate, 2)) * np.exp(-time / 0.25)[:, None]
            room *= 1.5 / np.sqrt((room**2).sum(0))
            wet = sfft.rfft(room.astype(np.float32), length, axis=0)
            spectrum = spectrum * ((1 - 0.5 * piece.reverb) + piece.reverb * wet)
        if piece.tilt_db:
            octaves = np.log2(np.maximum(sfft.rfftfreq(length, 1 / rate), 30.0) / 500)
            spectrum = spectrum * 10 ** (piece.tilt_db * octaves / 20)[:, None]
        mix = sfft.irfft(spectrum, length, axis=0)[: len(mix)]
    level = float(np.sqrt(np.mean(mix**2))) + 1e-9
    if piece.noise_db is not None:
        noise = rng.standard_normal(mix.shape).astype(np.float32)
        mix = mix + noise * np.float32(level * 10 ** (-piece.noise_db / 20))
    # A soft limiter, as every record has one.
    return np.asarray(0.89 * np.tanh(mix * np.float32(0.16 / level)), np.float32)


def draw(seed: int, *, style: str | None = None, loop: bool | None = None) -> Piece:
    """Return a random piece of any style, as hard as records are: the evaluation's staple.

    Two fifths are loops of 1, 2, 4 or 8 bars, as sample packs hold them, where tempo nearly
    follows from the length; the rest are careless cuts of 10 to 30 s.
    """
    rng = np.random.default_rng([seed, 0])
    style = style or str(rng.choice(sorted(STYLES)))
    traits = STYLES[style]
    if rng.random() < 0.85:
        bpm = float(np.exp(rng.uniform(*np.log(traits.bpm))))
    else:
        bpm = float(np.exp(rng.uniform(np.log(55), np.log(200))))
    bpm = round(bpm, int(rng.integers(0, 3)))
    if loop is None:
        loop = bool(rng.random() < 0.4)
    rough = not loop and bool(rng.random() < 0.5)
    mute = [part for part in ("drums", "melody", "bass") if rng.random() < 0.15]
    if not (traits.chords or traits.melody) or not traits.drums:
        mute = []
    piece = Piece(
        bpm=bpm,
        key=f"{rng.choice(NOTES)} {rng.choice(['major', 'minor'])}",
        seconds=float(rng.uniform(10, 30)),
        style=style,
        seed=seed,
        swing=float(rng.uniform(0, 0.35)) if rng.random() < 0.15 else None,
        jitter_seconds=float(rng.choice([0.0, 0.004, 0.01, 0.018])),
        drift=float(rng.uniform(0.0, 0.025)) if rough else 0.0,
        detune_cents=float(rng.uniform(-30, 30)) if rng.random() < 0.5 else 0.0,
        noise_db=float(rng.uniform(8, 40)) if rng.random() < 0.4 else None,
        reverb=float(rng.uniform(0.1, 0.6)) if rng.random() < 0.6 else 0.0,
        tilt_db=float(rng.uniform(-5, 2)) if rng.random() < 0.6 else 0.0,
        modulation=int(rng.choice([1, 2, 5])) if not loop and rng.random() < 0.1 else 0,
        start_beat=0.0 if loop or rng.random() < 0.3 else float(rng.uniform(0, 32)),
        mute=tuple(mute),
    )
    return _cut_as_loop(piece, rng) if loop else piece


def _cut_as_loop(piece: Piece, rng: np.random.Generator) -> Piece:
    """Return the piece cut to whole bars: exactly, nearly, with what rings on, or with padding."""
    beats = int(rng.choice([1, 2, 4, 8], p=[0.35, 0.35, 0.2, 0.1]))
    beats *= {"4/4": 4, "3/4": 3, "6/8": 2}[piece.meter]
    seconds = beats * 60 / piece.bpm
    while seconds < 1:
        beats, seconds = beats * 2, seconds * 2
    ends = str(rng.choice(["exact", "nearly", "ringing", "padded"], p=[0.5, 0.2, 0.2, 0.1]))
    stop, delay = None, 0.0
    if ends == "nearly":
        # Sample packs are not all cut to the sample.
        seconds *= 1 + float(rng.normal(0, 0.012))
    elif ends == "ringing":
        stop = float(beats)
        seconds += float(rng.uniform(0.1, 2.0)) * 60 / piece.bpm
    elif ends == "padded":
        delay = float(rng.uniform(0.01, 0.06))
        seconds += delay + float(rng.uniform(0, 0.06))
    mute = _one_player(piece.style, rng) if rng.random() < 0.5 else piece.mute
    return replace(piece, seconds=seconds, stop_beat=stop, delay_seconds=delay, mute=mute)


def _one_player(style: str, rng: np.random.Generator) -> tuple[str, ...]:
    """Return what to leave out so that one player is left, and of drums perhaps one or two."""
    traits = STYLES[style]
    playing = {
        # Drums that are played only now and then may not be heard at all.
        "drums": any("x" in row for row in traits.drums.values()),
        "bass": bool(traits.bass), "chords": bool(traits.chords), "melody": traits.melody > 0,
    }  # fmt: skip
    players = [part for part, plays in playing.items() if plays]
    # Packs hold as many loops of drums as of all else.
    chosen = "drums" if "drums" in players and rng.random() < 0.5 else str(rng.choice(players))
    mute = [part for part in playing if part != chosen]
    if chosen == "drums" and rng.random() < 0.5:
        left = rng.permutation(sorted(traits.drums))[: int(rng.integers(1, 3))]
        if any("x" in traits.drums[drum] for drum in left):
            mute += [drum for drum in traits.drums if drum not in left]
    return tuple(mute)
