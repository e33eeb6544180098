"""Object names: what may be one, and every trick that may not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from liner_server.errors import InvalidRequestError
from liner_server.objects.names import check_name


@pytest.mark.parametrize(
    "name",
    ["a", "a/b/c.flac", "音楽/曲.mp3", "with space.wav", "a..b", ".hidden", "x" * 1024, "é" * 512],
)
def test_ordinary_names_pass(name):
    """Scripts, spaces and dots inside are nobody's business."""
    check_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/etc/passwd",
        "a/../b",
        "..",
        "a/.",
        "a//b",
        "a/",
        "a\\b",
        "..\\..\\x",
        "a\x00b",
        "a\nb",
        "a\u202eb",
        "a\u2028b",
        "a\u200bb",
        "%2e%2e/x",
        "a%2Fb",
        "a%5Cb",
        "a%00",
        "%252e%252e/x",
        "e\u0301",
        "x" * 1025,
        "é" * 513,
        "CON",
        "a/nul.txt",
        "COM1",
        "com¹.wav",
        "con .txt",
        "c:/x",
        "a:stream",
        "dot.",
        "space ",
        "\ud800",
    ],
)
def test_every_trick_is_refused(name):
    """Traversal, devices, invisible characters, two spellings of one name."""
    with pytest.raises(InvalidRequestError) as error:
        check_name(name)

    assert error.value.violations[0].reason == "OBJECT_NAME"


@given(name=st.text(max_size=40))
def test_whatever_comes_is_judged_and_nothing_else_happens(name):
    """Any text is either a name or refused with a reason; names stay below their folder."""
    try:
        check_name(name)
    except InvalidRequestError:
        pass
    else:
        assert not name.startswith("/")
        assert ".." not in name.split("/")
