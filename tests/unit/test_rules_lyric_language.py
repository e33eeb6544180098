"""What lyrics say about the language that is stated, and where they say nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from liner_server.core.rules.lyric_language import contradicted

_TEXTS = {
    "en": "Midnight rain is falling on the window and I know that you are gone, but all the "
    "lights are burning for you and me, so come back to my heart when you can",
    "de": "Ich gehe durch die Stadt und denke nur an dich, der Regen fällt auf mein Gesicht, "
    "und wenn du nicht da bist, ist es so kalt und leer wie noch nie",
    "fr": "Je marche dans la ville et je pense à toi, la pluie tombe sur mon visage et tu "
    "n'es pas là, mais je sais que tu vas revenir pour moi un jour",
    "es": "Camino por la ciudad y pienso en ti, la lluvia cae y no estás aquí, pero yo sé que "
    "tu corazón es mi casa y que te quiero como el mar",
    "it": "Cammino per la città e penso a te, la pioggia cade e non sei qui, ma io so che il "
    "tuo cuore è la mia casa e che ti amo come il mare",
    "nl": "Ik loop door de stad en denk aan jou, de regen valt op mijn gezicht, en als je er "
    "niet bent dan is het zo koud als nog nooit in mijn hart",
    "sv": "Jag går genom staden och tänker på dig, regnet faller på min hand och när du inte "
    "är här vill jag bara att du ska komma hem till mig",
    "pl": "Idę przez miasto i myślę o tobie, deszcz pada, a ty nie jesteś ze mną, ale ja wiem, "
    "że to już tylko sen i że się nie boję, gdy jest tak cicho do rana",
    "tr": "Şehirde yürüyorum ve seni düşünüyorum, yağmur yağıyor ve sen yoksun, ama ben bu "  # noqa: RUF001
    "gece bir rüya gibi çok daha güzel bir şey var bana ne kadar uzak",
    "ja": "夜の街を歩いて君のことを考えている、雨が降って窓を濡らす",
    "ko": "밤거리를 걸으며 너를 생각해, 비가 내려와 창문을 적시네",
    "zh-Hans": "我走在夜晚的街道上想着你雨落在窗前你却不在身边",
    "el": "Περπατώ στην πόλη και σε σκέφτομαι",
    "ru": "Я иду по городу и думаю о тебе, дождь идёт",  # noqa: RUF001
}


@pytest.mark.parametrize("stated", _TEXTS)
def test_lyrics_in_the_stated_language_pass(stated: str) -> None:
    """A warning on what is right would be switched off."""
    assert contradicted(stated, _TEXTS[stated]) is None
    assert contradicted(stated, "La la la " * 40) is None


@pytest.mark.parametrize("sung", _TEXTS)
def test_lyrics_in_another_language_are_noticed(sung: str) -> None:
    """Lyrics of another song are found by their language, whatever is stated of the two."""
    # Chinese characters alone are Japanese and Korean too.
    alike = {"ja", "ko"} if sung == "zh-Hans" else set()
    others = [stated for stated in _TEXTS if stated != sung and stated not in alike]

    assert [s for s in others if contradicted(s, _TEXTS[sung]) is None] == []


@pytest.mark.parametrize(
    ("stated", "lyrics"),
    [
        ("pt-BR", _TEXTS["es"]),
        ("ca", _TEXTS["es"]),
        ("mul", _TEXTS["en"]),
        ("zxx", _TEXTS["en"]),
        ("no language", _TEXTS["en"]),
        ("uk", _TEXTS["ru"]),
        ("de", "Ich will dich"),
        ("ja", "sakura sakura yayoi no sora wa miwatasu kagiri kasumi ka kumo ka nioi zo izuru"),
        ("fr", "Ooh baby baby " * 20),
    ],
)
def test_what_is_not_plain_is_not_contradicted(stated: str, lyrics: str) -> None:
    """Neighbouring languages, few words, romanised lyrics and refrains prove nothing."""
    assert contradicted(stated, lyrics) is None


@given(st.text(max_size=30), st.text(max_size=300))
def test_no_text_breaks_the_comparison(stated: str, lyrics: str) -> None:
    """Both come from outside."""
    assert contradicted(stated, lyrics) is None or lyrics
