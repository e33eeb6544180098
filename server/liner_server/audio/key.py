"""The key of a mono signal: pitch classes against profiles, chords and bass, in all 24 keys.

Each key is described as a listener at home in it would hear the music: how strong its tonic, its
dominant and every other degree are, in all and in the bass, which chords come, which lead to
which, and which begins and ends. One fitted table weighs these for major and one for minor,
whatever the tonic, so a thing learned in C holds in F sharp. Three published profiles are among
the measures and keep the table from believing its own examples too much. A second table says
whether there is a tonal centre at all.
"""

import numpy as np
from numpy.typing import NDArray

from liner_server.audio import chroma
from liner_server.audio.measurements import Key
from liner_server.audio.spectra import SAMPLE_RATE, Floats, is_silent, softmax
from liner_server.audio.tables import load_table

NOTES = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
KEYS = tuple(f"{note} {mode}" for mode in ("major", "minor") for note in NOTES)

PROFILES: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "temperley": (
        (0.748, 0.060, 0.488, 0.082, 0.670, 0.460, 0.096, 0.715, 0.104, 0.366, 0.057, 0.400),
        (0.712, 0.084, 0.474, 0.618, 0.049, 0.460, 0.105, 0.747, 0.404, 0.067, 0.133, 0.330),
    ),
    "krumhansl": (
        (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88),
        (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17),
    ),
    "bgate": (
        (1.00, 0.00, 0.42, 0.00, 0.53, 0.37, 0.00, 0.77, 0.00, 0.38, 0.21, 0.30),
        (1.00, 0.00, 0.36, 0.39, 0.00, 0.38, 0.00, 0.74, 0.27, 0.00, 0.42, 0.23),
    ),
}
"""Published key profiles, major and minor, tonic first: Temperley's and Krumhansl's from
listeners and scores, bgate from electronic dance music."""

SHORTEST_SECONDS = 0.5
_LISTED = 4
_TONICS = np.arange(12)
_FRAMES_A_CHORD = 3
"""About half a second: shorter than a harmony, longer than a passing note."""

_BASS_DEGREES = (0, 7, 5, 3, 4, 9, 8)

_TRIADS = np.array(
    [
        [(pitch - root) % 12 in shape for pitch in range(12)]
        for shape in ((0, 4, 7), (0, 3, 7))
        for root in range(12)
    ],
    np.float64,
) / np.sqrt(3)


def estimate_key(mono: NDArray[np.float32]) -> Key:
    """Return the key of a mono signal at 22,050 Hz, or a doubt where nothing tonal is heard."""
    if is_silent(mono):
        return Key(key=None, score=0.0, doubt="silence")
    if len(mono) < SHORTEST_SECONDS * SAMPLE_RATE:
        return Key(key=None, score=0.0, doubt="too short to hold a key")
    return judge(chroma.measure(mono))


def judge(notes: chroma.Chroma) -> Key:
    """Return the key of pitch classes already measured."""
    if not len(notes.frames):
        return Key(key=None, score=0.0, doubt="no notes heard")
    _, values = describe(notes)
    shares = softmax(load_table("key").apply(values)[:, 0])
    centre = load_table("tonal")
    logit = centre.apply(tonal_features(notes, shares)[1][None])[0, 0]
    tonal = float(1 / (1 + np.exp(-logit)))
    order = np.argsort(-shares)[:_LISTED]
    candidates = tuple((KEYS[i], float(shares[i]) * tonal) for i in order)
    heard = tonal >= centre.numbers["least"]
    return Key(
        key=candidates[0][0] if heard else None,
        score=candidates[0][1],
        candidates=candidates,
        tuning_cents=notes.tuning_cents,
        doubt="" if heard else "no clear tonal centre",
        features={
            "score": candidates[0][1],
            "margin": candidates[0][1] - candidates[1][1],
            "tonal": tonal,
            "agreement": agreement(notes, int(order[0])),
            "lead": lead(notes, int(order[0])),
            "seconds": len(notes.frames) * chroma.FRAME_SECONDS,
        },
    )


def describe(notes: chroma.Chroma) -> tuple[list[str], Floats]:
    """Return the names of the features and their values, shape (24 keys, features)."""
    names: list[str] = []
    columns: list[Floats] = []

    def add(name: str, major: Floats, minor: Floats, *, shared: bool = False) -> None:
        """Add one measure, by tonic; each mode weighs it for itself unless it is shared."""
        if shared:
            names.append(name)
            columns.append(np.concatenate([major, minor]))
            return
        names.extend((f"major {name}", f"minor {name}"))
        nothing = np.zeros(12)
        columns.append(np.concatenate([major, nothing]))
        columns.append(np.concatenate([nothing, minor]))

    mean = _unit(notes.frames.mean(0) - notes.frames.mean())
    for name in PROFILES:
        fit = correlations(notes, name)
        add(name, fit[:12], fit[12:], shared=True)
    bass = _unit(notes.bass.mean(0))
    for degree in range(12):
        row = (_TONICS + degree) % 12
        add(f"degree {degree}", mean[row], mean[row])
        add(f"bass degree {degree}", bass[row], bass[row])

    chords = _chords(notes)
    share = np.sqrt(chords.mean(0))
    for degree in range(12):
        for quality in (0, 12):
            row = quality + (_TONICS + degree) % 12
            add(f"chord {degree}{'m' if quality else ''}", share[row], share[row])
    for name, part in (("first", chords[:3]), ("last", chords[-3:])):
        chord = part.mean(0)
        add(f"{name} is tonic", chord[:12], chord[12:], shared=True)
        dominant = chord[(_TONICS + 7) % 12]
        add(f"{name} is dominant", dominant, dominant)
    steps = sum((chords[:-d].T @ chords[d:] / len(chords) for d in (1, 2)), np.zeros((24, 24)))
    fifth, fourth = (_TONICS + 7) % 12, (_TONICS + 5) % 12
    for name, root in (("V", fifth), ("v", 12 + fifth), ("IV", fourth), ("iv", 12 + fourth)):
        add(f"{name} to tonic", steps[root, _TONICS], steps[root, 12 + _TONICS])
    for degree in range(12):
        for quality in (0, 12):
            row = quality + (_TONICS + degree) % 12
            label = f"{degree}{'m' if quality else ''}"
            into = np.sqrt(steps[row, _TONICS]), np.sqrt(steps[row, 12 + _TONICS])
            add(f"chord {label} before tonic", *into)
            out = np.sqrt(steps[_TONICS, row]), np.sqrt(steps[12 + _TONICS, row])
            add(f"chord {label} after tonic", *out)
    for name, (major, minor) in _by_halves(notes).items():
        add(name, major, minor, shared=True)
    for name, pitches in _bass_lines(notes).items():
        for degree in _BASS_DEGREES:
            add(f"{name} degree {degree}", *(pitches[(_TONICS + degree) % 12],) * 2)
    for name, part in (("first", notes.bass[:6]), ("last", notes.bass[-6:])):
        pitches = _unit(part.mean(0))
        add(f"{name} bass is tonic", pitches, pitches, shared=True)
    return names, np.stack(columns, axis=1)


def correlations(notes: chroma.Chroma, name: str) -> Floats:
    """Return how the mean pitch classes correlate with a profile in each of the 24 keys."""
    mean = _unit(notes.frames.mean(0) - notes.frames.mean())
    values = []
    for table in PROFILES[name]:
        profile = _unit(np.asarray(table) - np.mean(table))
        values += [float(mean @ np.roll(profile, tonic)) for tonic in range(12)]
    return np.asarray(values)


def _by_halves(notes: chroma.Chroma) -> dict[str, tuple[Floats, Floats]]:
    """Return how well each key fits both halves: one that fits only the first was left."""
    middle = len(notes.frames) // 2
    halves = (notes.frames[:middle], notes.frames[middle:])
    means = [_unit(part.mean(0) - part.mean()) if len(part) else np.zeros(12) for part in halves]
    found = {}
    for name in ("temperley", "bgate"):
        fits = [[], []]  # type: list[list[Floats]]
        for mode, table in enumerate(PROFILES[name]):
            profile = _unit(np.asarray(table) - np.mean(table))
            rolled = np.stack([np.roll(profile, tonic) for tonic in _TONICS])
            fits[mode] = [rolled @ mean for mean in means]
        found[f"{name} in both halves"] = (np.minimum(*fits[0]), np.minimum(*fits[1]))
    return found


def _bass_lines(notes: chroma.Chroma) -> dict[str, Floats]:
    """Return the pitch classes of the bass: by how loud the music is there, and by how often
    each is the strongest."""
    level = notes.loudness / (notes.loudness.max(initial=0) + 1e-9)
    strongest = np.zeros(12)
    np.add.at(strongest, notes.bass.argmax(1), (notes.bass.max(1) > 0).astype(np.float64))
    return {
        "loud bass": _unit((notes.bass * level[:, None]).mean(0)),
        "strongest bass": np.sqrt(strongest / len(notes.bass)),
    }


def tonal_features(notes: chroma.Chroma, shares: Floats) -> tuple[list[str], Floats]:
    """Return what tells whether there is a tonal centre: names and values."""
    mean = notes.frames.mean(0)
    unit = notes.frames / (np.linalg.norm(notes.frames, axis=1, keepdims=True) + 1e-9)
    held = (unit[1:] * unit[:-1]).sum(1).mean() if len(unit) > 1 else 0.0
    features = {
        "best fit": max(float(correlations(notes, name).max()) for name in PROFILES),
        "best share": float(shares.max()),
        "one grid": notes.tuning_strength,
        "unevenness": float(mean.std() / (mean.mean() + 1e-9)),
        "notes sharp": float(mean.mean()),
        "notes held": float(held),
        "short": min(1.0, 4 / (len(notes.frames) * chroma.FRAME_SECONDS)),
    }
    return list(features), np.array(list(features.values()))


def agreement(notes: chroma.Chroma, index: int) -> float:
    """Return the share of the published profiles that alone would give the same key."""
    votes = [int(correlations(notes, name).argmax()) == index for name in PROFILES]
    return sum(votes) / len(votes)


def lead(notes: chroma.Chroma, index: int) -> float:
    """Return by how much a key fits the published profiles better than any other does."""
    leads = []
    for name in PROFILES:
        fit = correlations(notes, name)
        leads.append(float(fit[index] - np.delete(fit, index).max()))
    return sum(leads) / len(leads)


def _chords(notes: chroma.Chroma) -> Floats:
    """Return how likely each of the 24 triads is at each half second, (segments, 24)."""
    count = max(1, len(notes.frames) // _FRAMES_A_CHORD)
    both = notes.frames + 0.5 * notes.bass
    used = both[: count * _FRAMES_A_CHORD]
    segments = used.reshape(count, -1, 12).mean(1)
    segments /= np.linalg.norm(segments, axis=1, keepdims=True) + 1e-9
    fit = segments @ _TRIADS.T
    weights = np.exp(12 * (fit - fit.max(1, keepdims=True)))
    return np.asarray(weights / weights.sum(1, keepdims=True))


def _unit(vector: Floats) -> Floats:
    return np.asarray(vector / (np.linalg.norm(vector) + 1e-9))
