# ruff: noqa: RUF001 - letters that look like others are what is tested
"""When two texts are the same value: in every script, and with signs that mean something."""

import pytest
from liner_server.core.agreement import agrees, plain
from liner_server.core.fields import FIELDS


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Beyoncé", "BEYONCE"),
        ("Straße", "STRASSE"),
        ("ｆｕｌｌ", "full"),
        ("ﬁre", "FIRE"),
        ("AC/DC", "ACDC"),
        ("Earth, Wind & Fire", "Earth, Wind and Fire"),
        ("ё", "е"),
        ("مُحَمَّد", "محمد"),
        ("שָׁלוֹם", "שלום"),
        ("Ωδή", "ΩΔΗ"),
        ("4:44", "444"),
        ("Florence+The Machine", "Florence + The Machine"),
        ("F♯", "F#"),
    ],
)
def test_spellings_of_one_title_agree(one: str, other: str) -> None:
    """A tag that only lost its accents confirms what the label states."""
    assert agrees(FIELDS["title"], one, other)
    assert agrees(FIELDS["title"], other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        # Bird and heart, art and black, forest and aunt: marks make other words there.
        ("バード", "ハート"),
        ("कला", "काला"),
        ("ป่า", "ป้า"),
        ("мой", "мои"),
        ("한", "하"),
        ("Prelude in C# Minor", "Prelude in C Minor"),
        ("A+", "A"),
        ("!!!", "???"),
        ("\U0001f525", "\U0001f4a7"),
        ("R&B", "RB"),
    ],
)
def test_other_titles_do_not_agree(one: str, other: str) -> None:
    """Agreement makes a value surer, so it must not come from what folding threw away."""
    assert not agrees(FIELDS["title"], one, other)
    assert not agrees(FIELDS["title"], other, one)


@pytest.mark.parametrize("text", ["!!!", "÷", "( )", "\U0001fa77", "?"])
def test_no_text_is_folded_into_nothing(text: str) -> None:
    """Two titles of signs alone would be one title."""
    assert plain(text)


def test_territories_agree_only_as_a_whole() -> None:
    """The world without the United States is another deal than the world."""
    field = FIELDS["territories"]

    assert agrees(field, "DE; AT", "AT; DE")
    assert not agrees(field, "Worldwide", "Worldwide; -US")
    assert not agrees(field, "-US", "US")
