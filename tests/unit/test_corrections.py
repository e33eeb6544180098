"""What an editor types is taken in any spelling that is understood, and in no other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from liner.v1 import track_pb2
from liner_server.core.corrections import canonical
from liner_server.core.fields import FIELDS, read, write


@pytest.mark.parametrize(
    ("path", "text", "value"),
    [
        ("title", "  Blue   Hour ", "Blue Hour"),
        ("title", " ", None),
        ("title", "x" * 1025, None),
        ("lyrics", "one\ntwo", "one\ntwo"),
        ("lyrics", "x" * 65_537, None),
        ("bpm", "119,50", "119.5"),
        ("bpm", "fast", None),
        ("bpm", "0", None),
        ("bpm", "nan", None),
        ("key", "8A", "A minor"),
        ("key", "H flat", None),
        ("energy", "0.25", "0.25"),
        ("energy", "1.5", None),
        ("danceability", "-0.1", None),
        ("isrc", "us-rc1-76-07839", "USRC17607839"),
        ("isrc", "USRC1760783", None),
        ("iswc", "T0345246801", "T-034.524.680-1"),
        ("iswc", "T0345246802", None),
        ("upc", "036000291452", "036000291452"),
        ("upc", "036000291453", None),
        ("release_date", "1999-02-29", None),
        ("release_date", "1999-02", "1999-02"),
        ("release_date", "1999", "1999"),
        ("release_date", "1999-02-28T00:00", None),
        ("language", "pt-BR", "pt-BR"),
        ("language", "klingonish", None),
        ("moods", "calm;  dark ;", "calm; dark"),
        ("moods", " ; ", None),
        ("artists", "Ana North; Ben (featured)", "Ana North; Ben (featured)"),
        ("parental_warning", "EXPLICIT", "EXPLICIT"),
        ("parental_warning", "UNSPECIFIED", None),
        ("parental_warning", "very", None),
        ("properties.duration", "181.25", "181.25"),
        ("properties.duration", "-1", None),
        ("properties.sample_rate_hz", "44100", "44100"),
        ("properties.sample_rate_hz", "44100.5", None),
        ("properties.size_bytes", "1e30", None),
        ("properties.integrated_loudness_lufs", "-9.04", "-9"),
    ],
)
def test_a_value_is_read_as_its_field_is_written(path, text, value):
    """What cannot be the field's value must not look like an editor's word."""
    assert canonical(path, text) == value


@given(path=st.sampled_from(sorted(FIELDS)), text=st.text(max_size=40))
def test_what_is_read_is_canonical_and_can_be_written(path, text):
    """Reading it again changes nothing, and a track can hold it."""
    value = canonical(path, text)

    if value is None:
        return
    track = track_pb2.Track()
    write(track, path, value)
    assert canonical(path, value) == value
    assert read(track, path) is not None
