"""The generator's styles as data: tempo ranges, grooves, harmonies and instruments.

A groove is a string a drum, one character a sixteenth: `x` a stroke, `o` a soft one, `?` one that
some seeds play. Strings are repeated or cut to the bar, so that 3/4 and 6/8 have their own.
"""

from dataclasses import dataclass, field

MAJOR = (0, 2, 4, 5, 7, 9, 11)
MINOR = (0, 2, 3, 5, 7, 8, 10)

MAJOR_PROGRESSIONS = (
    "I V vi IV", "I IV V I", "I vi IV V", "I ii V I", "vi IV I V", "I IV I V", "I iii IV V",
    "I V I IV", "I IV ii V", "I bVII IV I", "I vi ii V", "I I IV V", "I V vi iii IV I IV V",
    "IV I V vi", "I V IV I", "ii V I I", "I IV vi V",
)  # fmt: skip
MINOR_PROGRESSIONS = (
    "i VI III VII", "i iv V i", "i VII VI VII", "i VI iv V", "i iv VII III", "i i iv V",
    "i VII VI V", "i v iv i", "i iv i V", "i VI VII i", "i iio V i", "i III VII iv", "i i VI VII",
    "i iv v i", "VI VII i i", "i III iv V",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Style:
    """How a kind of music is played."""

    bpm: tuple[float, float]
    """Tempi it is found at."""

    meter: str = "4/4"
    drums: dict[str, str] = field(default_factory=dict)
    bass: str = ""
    """Strokes of the bass: `r` root, `f` fifth, `o` octave, `w` a walking note."""

    chords: str = ""
    """Strokes of the chords; a stroke lasts until the next."""

    melody: float = 0.0
    """Share of the beats on which the melody moves."""

    bars_a_chord: float = 1.0
    swing: float = 0.0
    """Usual delay of every second eighth, as a share of an eighth."""

    staccato: float = 0.9
    """Share of its time for which a chord sounds."""

    bass_voices: tuple[str, ...] = ("bass",)
    chord_voices: tuple[str, ...] = ("piano",)
    lead_voices: tuple[str, ...] = ("voice", "flute", "saw", "guitar")
    arpeggio: bool = False
    """Chords broken into single notes."""

    power: bool = False
    """Three pieces in five play chords without thirds on a distorted guitar."""


STYLES = {
    "house": Style(
        bpm=(118, 130),
        drums={"kick": "x...x...x...x...", "clap": "....x.......x...",
               "open hat": "..x...x...x...x.", "hat": "?.??" * 4},
        bass="..r...r...r...r.", chords="..x..x....x..x..", melody=0.3, staccato=0.4,
        bass_voices=("bass", "saw", "sub"),
        chord_voices=("saw", "organ", "electric piano", "piano"),
    ),
    "techno": Style(
        bpm=(124, 148),
        drums={"kick": "x...x...x...x...", "hat": "..x...x...x...x.", "rim": "???????x??????x?",
               "clap": "....?.......?..."},
        bass="rrrrrrrrrrrrrrrr", chords="x..x..x..x..x..x", staccato=0.3, bars_a_chord=2,
        bass_voices=("saw", "square"), chord_voices=("saw", "pluck", "square"),
    ),
    "rock": Style(
        bpm=(88, 168),
        drums={"kick": "x.....?.x.x...?.", "snare": "....x.......x...", "hat": "x.x.x.x.x.x.x.x."},
        bass="r.r.r.r.r.r.r.r.", chords="x...x.x.x...x.x.", melody=0.8,
        chord_voices=("guitar", "saw", "organ"), lead_voices=("voice", "guitar"), power=True,
    ),
    "punk": Style(
        bpm=(150, 200),
        drums={"kick": "x.....x.x.x...?.", "snare": "....x.......x...", "hat": "x.x.x.x.x.x.x.x."},
        bass="r.r.r.r.r.r.r.r.", chords="x.x.x.x.x.x.x.x.", melody=0.7,
        chord_voices=("guitar", "saw"), lead_voices=("voice",), power=True,
    ),
    "ballad": Style(
        bpm=(56, 84),
        drums={"kick": "x.......x.?.....", "snare": "....x.......x...", "hat": "x.x.x.x.x.x.x.x."},
        bass="r.......r.....r.", chords="x.x.x.x.x.x.x.x.", melody=0.8, arpeggio=True,
        chord_voices=("piano", "guitar", "electric piano"), lead_voices=("voice", "strings"),
    ),
    "drum and bass": Style(
        bpm=(164, 180),
        drums={"kick": "x.........x...?.", "snare": "....x.......x..?", "hat": "x.x?x.x?x.x?x.x?"},
        bass="r.....r...r.....", chords="x...............", melody=0.3, bars_a_chord=2,
        bass_voices=("sub", "saw"), chord_voices=("pad", "electric piano"),
    ),
    "breakbeat": Style(
        bpm=(110, 172),
        drums={"kick": "x.x.......xx..?.", "snare": "....x..o.o..x..o", "hat": "x.x.x.x.x.x.x.x."},
        bass="r..r....r..r..o.", chords="x.....x.........", melody=0.2, staccato=0.5,
        chord_voices=("electric piano", "organ", "saw"),
    ),
    "hip hop": Style(
        bpm=(78, 104),
        drums={"kick": "x.....?x..x.....", "snare": "....x.......x...", "hat": "x.x.x.x?x.x.x.x?"},
        bass="r.....r...f.....", chords="x.......x.......", melody=0.4, swing=0.15,
        bass_voices=("sub", "bass"), chord_voices=("electric piano", "piano", "strings"),
    ),
    "trap": Style(
        bpm=(130, 160),
        drums={"kick": "x.........?..x..", "snare": "........x.......", "hat": "x.x.x.x.x.xxx.x."},
        bass="r.........r.....", chords="x...............", melody=0.4,
        bass_voices=("sub",), chord_voices=("bell", "pad", "piano"),
    ),
    "funk": Style(
        bpm=(92, 124),
        drums={"kick": "x..?..x...x..?..", "snare": "....x..o.o..x..?", "hat": "xxx.xxx.xxx.xxx."},
        bass="r..r..o..fr...o.", chords="..x...x..x..x...", melody=0.4, staccato=0.3,
        chord_voices=("guitar", "organ", "brass"), bars_a_chord=2,
    ),
    "reggae": Style(
        bpm=(64, 84),
        drums={"kick": "........x.......", "rim": "........x.......", "hat": "x.x.x.x.x.x.x.x."},
        bass="r.....f.r...o.f.", chords="..x...x...x...x.", melody=0.6, staccato=0.4,
        chord_voices=("guitar", "organ"), lead_voices=("voice", "brass"),
    ),
    "swing": Style(
        bpm=(96, 200),
        drums={"open hat": "x...x.x.x...x.x.", "hat": "....x.......x...",
               "kick": "?...?...?...?..."},
        bass="w...w...w...w...", chords="x.....x.....?...", melody=1.2, swing=0.33, staccato=0.4,
        chord_voices=("piano", "guitar"), lead_voices=("brass", "clarinet", "voice"),
    ),
    "bossa": Style(
        bpm=(112, 150),
        drums={"kick": "x..xx..xx..xx..x", "rim": "x..x..x...x..x..", "hat": "x.x.x.x.x.x.x.x."},
        bass="r.....f.r.....f.", chords="x..x..x...x..x..", melody=0.8, staccato=0.6,
        chord_voices=("guitar", "electric piano"), lead_voices=("flute", "voice"),
    ),
    "waltz": Style(
        bpm=(84, 190), meter="3/4",
        drums={"kick": "?...........", "hat": "....?...?..."},
        bass="r...........", chords="....x...x...", melody=0.9, staccato=0.6,
        chord_voices=("piano", "strings", "guitar"), lead_voices=("flute", "strings", "clarinet"),
    ),
    "rock waltz": Style(
        bpm=(80, 176), meter="3/4",
        drums={"kick": "x...........", "snare": "....x...x...", "hat": "x.x.x.x.x.x."},
        bass="r.......f...", chords="x...x...x...", melody=0.7,
        chord_voices=("guitar", "piano", "organ"),
    ),
    "jig": Style(
        bpm=(80, 132), meter="6/8",
        drums={"kick": "?...........", "shaker": "?.?.?.?.?.?."},
        bass="r.....f.....", chords="x...x.x...x.", melody=2.4, staccato=0.6,
        chord_voices=("guitar", "organ"), lead_voices=("flute", "strings"),
    ),
    "slow six": Style(
        bpm=(46, 72), meter="6/8",
        drums={"kick": "x.........?.", "snare": "......x.....", "hat": "x.x.x.x.x.x."},
        bass="r.....r...f.", chords="x.x.x.x.x.x.", melody=0.9, arpeggio=True,
        chord_voices=("guitar", "piano", "organ"),
    ),
    "barcarolle": Style(
        bpm=(44, 84), meter="6/8",
        bass="r.....f.....", chords="x.x.x.x.x.x.", melody=1.3, arpeggio=True,
        bass_voices=("piano", "strings"), chord_voices=("piano", "guitar", "strings"),
        lead_voices=("flute", "strings", "piano", "voice"),
    ),
    "tarantella": Style(
        bpm=(88, 150), meter="6/8",
        bass="r.....r.....", chords="....x.....x.", melody=2.4, staccato=0.5,
        bass_voices=("piano", "strings", "guitar"), chord_voices=("piano", "strings", "guitar"),
        lead_voices=("flute", "strings", "clarinet"),
    ),
    "minuet": Style(
        bpm=(80, 160), meter="3/4",
        bass="r...........", chords="x.x.x.x.x.x.", melody=1.2, arpeggio=True,
        bass_voices=("piano", "strings"), chord_voices=("piano", "strings"),
        lead_voices=("piano", "strings", "flute"),
    ),
    "shuffle": Style(
        bpm=(84, 140),
        drums={"kick": "x.......x...?...", "snare": "....x.......x...", "hat": "x.x.x.x.x.x.x.x."},
        bass="r.f.w.f.r.f.w.f.", chords="x.......x...x...", melody=1.0, swing=0.33,
        chord_voices=("guitar", "piano", "organ"), lead_voices=("guitar", "voice"),
    ),
    "folk": Style(
        bpm=(76, 148),
        bass="r.......f.......", chords="x...x.x...x.x.x.", melody=0.9,
        bass_voices=("guitar",), chord_voices=("guitar",), lead_voices=("voice", "flute"),
    ),
    "march": Style(
        bpm=(96, 132),
        drums={"kick": "x.......x.......", "snare": "x..?x.x.x..?x.xx"},
        bass="r...f...r...f...", chords="..x...x...x...x.", melody=1.1, staccato=0.4,
        bass_voices=("brass",), chord_voices=("brass",), lead_voices=("clarinet", "flute", "brass"),
    ),
    "ragtime": Style(
        bpm=(84, 120),
        bass="r.......f.......", chords="....x.......x...", melody=2.2, staccato=0.5,
        bass_voices=("piano",), chord_voices=("piano",), lead_voices=("piano",),
    ),
    "chorale": Style(
        bpm=(60, 100),
        bass="w...w...w...w...", chords="x...x...x...x...", melody=1.1, bars_a_chord=0.25,
        bass_voices=("choir", "organ", "strings"), chord_voices=("choir", "organ", "strings"),
        lead_voices=("choir", "organ", "strings"),
    ),
    "classical": Style(
        bpm=(60, 168),
        bass="r...............", chords="x.x.x.x.x.x.x.x.", melody=1.6, arpeggio=True,
        bars_a_chord=0.5, bass_voices=("piano", "strings"), chord_voices=("piano", "strings"),
        lead_voices=("piano", "strings", "flute"),
    ),
    "solo": Style(bpm=(70, 140), melody=1.5, lead_voices=("brass", "flute", "clarinet", "guitar",
                                                          "strings", "piano", "saw", "voice")),
    "bass line": Style(
        bpm=(90, 180), bass="r.r.o.r.r.f.r.o.", bass_voices=("bass", "saw", "square"),
    ),
    "riff": Style(
        bpm=(90, 180), chords="x..x..x...x.x...", staccato=0.5, arpeggio=True,
        chord_voices=("saw", "pluck", "guitar", "brass"), bars_a_chord=2,
    ),
    "drums": Style(
        bpm=(80, 180),
        drums={"kick": "x..?..?.x.?...?.", "snare": "....x..?....x..?", "hat": "x?x?x?x?x?x?x?x?"},
    ),
    "percussion": Style(
        bpm=(80, 140),
        drums={"tom": "x..x..x...x.?.?.", "shaker": "x.xxx.xxx.xxx.xx", "rim": "?..x..?...?..x.."},
    ),
    "clatter": Style(
        bpm=(80, 170),
        drums={"clap": "x.....x...?.x...", "shaker": "?.x?..x?.xx?..x.",
               "open hat": "....x....?..x...", "rim": "..x..?..x..x?..?"},
    ),
    "metronome": Style(bpm=(70, 190), drums={"kick": "x...x...x...x..."}),
    "ambient": Style(
        bpm=(60, 100), bass="r...............", chords="x...............", melody=0.4,
        bars_a_chord=2, bass_voices=("sub", "strings"), chord_voices=("pad", "strings", "choir"),
        lead_voices=("bell", "flute"), staccato=1.0,
    ),
}  # fmt: skip
"""Every style by name; tests and the quality figures draw from all of them."""
