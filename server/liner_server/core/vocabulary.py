"""The words Liner itself answers with where a field is a choice: genres, moods, instruments.

What a caller states is free text and stays as it is; what Liner fills is one of these. Closed
lists make answers of different models comparable, and a model can be scored on them at all.
"""

GENRES = (
    "Alternative",
    "Ambient",
    "Blues",
    "Children's Music",
    "Classical",
    "Country",
    "Dance",
    "Easy Listening",
    "Electronic",
    "Experimental",
    "Folk",
    "Funk",
    "Hip-Hop",
    "House",
    "Indie",
    "Jazz",
    "Latin",
    "Metal",
    "New Age",
    "Opera",
    "Pop",
    "Punk",
    "R&B",
    "Reggae",
    "Religious",
    "Rock",
    "Soul",
    "Soundtrack",
    "Spoken Word",
    "Techno",
    "Trance",
    "World",
)
"""Main genres, in the order of the alphabet."""

MOODS = (
    "Aggressive",
    "Angry",
    "Beautiful",
    "Calm",
    "Catchy",
    "Chill",
    "Dark",
    "Dreamy",
    "Energetic",
    "Epic",
    "Happy",
    "Melancholic",
    "Mellow",
    "Party",
    "Peaceful",
    "Playful",
    "Quirky",
    "Romantic",
    "Sad",
    "Sexy",
    "Soft",
    "Tense",
    "Triumphant",
    "Uplifting",
)
"""Moods, in the order of the alphabet."""

INSTRUMENTS = (
    "Accordion",
    "Bass",
    "Bells",
    "Brass",
    "Cello",
    "Choir",
    "Clarinet",
    "Drum Machine",
    "Drums",
    "Flute",
    "Guitar",
    "Harmonica",
    "Harp",
    "Harpsichord",
    "Organ",
    "Percussion",
    "Piano",
    "Saxophone",
    "Sitar",
    "Strings",
    "Synthesizer",
    "Trumpet",
    "Violin",
    "Vocals",
)
"""Instruments and voices, in the order of the alphabet."""

VOCABULARIES: dict[str, tuple[str, ...]] = {
    "genre": GENRES,
    "subgenres": GENRES,
    "moods": MOODS,
    "instruments": INSTRUMENTS,
}
"""The closed list of each field that has one, by path in Track."""
