import pytest
from hypothesis import given
from hypothesis import strategies as st
from liner_server.core.rules import codes


@pytest.mark.parametrize(
    "text",
    ["USRC17607839", "us-rc1-76-07839", "ISRC US RC1 76 07839", "US\u2013RC1\u201376\u201307839"],
)
def test_an_isrc_is_read_in_any_spelling(text: str) -> None:
    """The contract accepts any spelling and answers with one."""
    assert codes.normalise_isrc(text) == "USRC17607839"


@pytest.mark.parametrize(
    "text", ["", "USRC1760783", "USRC1\u0667\u0666\u06607839", "XXRC17607839", "USRC17607839\nX"]
)
def test_what_is_not_an_isrc_is_refused(text: str) -> None:
    """Other scripts' digits pass a careless check and are refused by every receiver."""
    assert codes.normalise_isrc(text) is None


def test_letters_typed_for_digits_are_swapped_back() -> None:
    """O for 0 and I for 1 are the commonest slips in a typed ISRC."""
    assert codes.mend_isrc("USRC176O7839") == "USRC17607839"
    assert codes.mend_isrc("USRCI76O7839") == "USRCI7607839"
    assert codes.mend_isrc("not a code") is None


def test_published_examples_of_each_standard_pass() -> None:
    """A check digit that agrees only with itself would prove nothing."""
    assert codes.normalise_iswc("T0345246801") == "T-034.524.680-1"
    assert codes.normalise_ipi("00000000199") == "00000000199"
    assert codes.normalise_isni("0000 0001 2103 2683") == "0000000121032683"
    assert codes.normalise_grid("A1-2425G-ABC1234002-M") == "A12425GABC1234002M"
    assert codes.normalise_upc("4006381333931") == "4006381333931"


@given(st.integers(0, 10**9 - 1), st.integers(0, 8), st.integers(1, 9))
def test_any_one_wrong_digit_of_an_iswc_near_the_front_is_noticed(
    work: int, place: int, step: int
) -> None:
    """Weights that share a factor with 10 miss some; only those may be missed."""
    digits = f"{work:09}"
    check = codes.iswc_check_digit(digits)
    wrong = digits[:place] + str((int(digits[place]) + step) % 10) + digits[place + 1 :]
    moved = (int(wrong[place]) - int(digits[place])) * (place + 1)

    noticed = codes.normalise_iswc(f"T{wrong}{check}") is None

    assert noticed == (moved % 10 != 0)


@given(st.text(max_size=40))
def test_no_text_breaks_a_normaliser_and_its_answer_is_stable(text: str) -> None:
    """Identifiers come from hostile places, and a second reading must change nothing."""
    for normalise in (
        codes.normalise_isrc,
        codes.normalise_iswc,
        codes.normalise_upc,
        codes.normalise_isni,
        codes.normalise_ipi,
        codes.normalise_grid,
    ):
        code = normalise(text)
        assert code is None or normalise(code) == code
