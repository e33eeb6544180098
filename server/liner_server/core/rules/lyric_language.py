"""Which language a text is in, where that is plain: by its script, or by its smallest words.

Made to contradict a stated language and not to name one for its own sake: anything doubtful is
None. Scripts that are one language's (Hangul, Kana, Thai, Greek) name it; Cyrillic, Arabic and
Devanagari are many languages' and only say which ones it cannot be. Latin texts are told apart
by words so frequent and so small that no text of twenty words does without them.
"""

import re
from collections import Counter
from functools import lru_cache

_READ = 1_000
"""Characters looked at: two hundred words tell as much as all of a song."""

_FEWEST_LETTERS = 12
_FEWEST_WORDS = 20
_MOST = 0.7
"""Share of the letters that one script needs."""

_LEAST_SHARE = 0.18
"""Share of the words that must be a language's smallest ones; in running text it is a third."""

_MARGIN = 2.0
"""How many times as many of them as of the next language's; neighbours share some."""

_LETTERS = {
    "Latn": "A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u1e00-\u1eff",
    "Cyrl": "\u0400-\u052f",
    "Grek": "\u0370-\u03ff\u1f00-\u1fff",
    "Hebr": "\u05d0-\u05ea",
    "Arab": "\u0620-\u064a\u066e-\u06d3\u0750-\u077f",
    "Deva": "\u0900-\u097f",
    "Thai": "\u0e01-\u0e5b",
    "Kana": "\u3041-\u3096\u30a1-\u30fa",
    "Hani": "\u3400-\u4dbf\u4e00-\u9fff",
    "Hang": "\uac00-\ud7a3\u1100-\u11ff",
}
_SCRIPTS = re.compile("|".join(f"(?P<{name}>[{span}])" for name, span in _LETTERS.items()))
_NOT_LATIN = re.compile("[\u0370-\u1dff\u1f00-\uffff]")
"""No letter of a script above but Latin ones is outside it; a rare mark inside costs only time."""

_SOME_LATIN = re.compile(f"(?:[^A-Za-z]*[A-Za-z]){{{_FEWEST_LETTERS}}}")
_ONLY = {"Grek": "el", "Thai": "th", "Kana": "ja", "Hang": "ko"}
"""Scripts that name their language."""

_WORDS = {
    "en": "the and you i to my me of it in your is that on for with be this all we are when "
    "what don't i'm it's so was but no have do just can like know",
    "de": "und ich du die der das ist nicht ein eine mein dein mir mich dich wir es zu wie den "
    "dem auf mit sie was für auch wenn doch kein nur noch so im",
    "fr": "je tu le la les et un une des dans pas que qui mon ton moi toi est c'est j'ai pour "
    "sur avec du au en ne il elle nous vous mais ma ta plus",
    "es": "que de no el la los las y en un una mi tu yo te me se lo con por para es pero si "
    "más como ya quiero soy cuando del al",
    "pt": "que de não o a os as e em um uma meu teu eu você me se com por para é mas do da no "
    "na mais como já quando pra sou seu minha",
    "it": "che di non il la i le e in un una mio tu io mi ti si lo con per è ma se come sei "
    "del della più sono quando anche ci nel gli",
    "nl": "de het een en ik je jij niet van is dat in op te met voor mijn jouw wat als maar "
    "zijn naar nog wel ben er we dan zo geen",
    "sv": "och jag du det är inte en ett att som på i min mig dig har för med av vi så när "
    "om men till bara vill kan ska den",
    "da": "og jeg du det er ikke en et at som på i min mig dig har for med af vi så når om "
    "men til bare vil kan skal den",
    "nb": "og jeg du det er ikke en et at som på i min meg deg har for med av vi så når om "
    "men til bare vil kan skal den",
    "pl": "i w nie się na to że z ja ty jest jak do mnie ciebie tak co już tylko mi jestem "
    "ale po za gdy twoje moje być",
    "tr": "ve bir bu ben sen ne için gibi çok da de var yok seni beni bana sana ile o mi "
    "daha her kadar gel değil",
}
_LANGUAGES_OF: dict[str, list[str]] = {}
for _language, _text in _WORDS.items():
    for _word in _text.split():
        _LANGUAGES_OF.setdefault(_word, []).append(_language)

_MARKS = ".,;:!?-()[]\"'\u2013\u2014\u2026\u00ab\u00bb\u00a1\u00bf"
_ALIKE = ({"da", "nb", "nn", "no", "sv"}, {"es", "pt", "gl", "ca"})
"""Languages so near to each other that small words are no proof against a statement."""

_LISTED = frozenset(_WORDS) | {"no", "nn"}
_NO_LANGUAGE = frozenset(("zxx", "mul", "und"))
_IN_SEVERAL_SCRIPTS = frozenset(
    ("az", "bs", "kk", "ks", "ku", "ky", "mn", "ms", "pa", "sd", "sr", "tg", "tk", "ug", "uz", "yi")
)


def contradicted(stated: str, lyrics: str) -> str | None:
    """Return why the lyrics cannot be in the stated language, or None if they may be.

    The reason is the tag of the language they are in where that is known, else the ISO 15924
    code of their script. `stated` is a BCP 47 tag.
    """
    primary, expected = _written(stated)
    # Most lyrics are in nothing but the letters they should be in: one look instead of a count.
    if (alone := _ALONE.get(expected)) is not None and alone.fullmatch(lyrics, 0, _READ):
        return None
    script = script_of(lyrics) if expected else None
    if script is None:
        return None
    named = _ONLY.get(script)
    if named is not None:
        return named if primary != named and script not in expected else None
    if script != "Latn":
        return script if script not in expected else None
    found = latin_language_of(lyrics)
    if found is None or found == primary:
        return None
    if any({found, primary} <= group for group in _ALIKE):
        return None
    # Languages in Latin letters that are not listed may be anything's neighbour.
    return found if primary in _LISTED or "Latn" not in expected else None


def script_of(text: str) -> str | None:
    """Return the ISO 15924 code of the script that most letters are in; "Kana" for Japanese."""
    text = text[:_READ]
    if _NOT_LATIN.search(text) is None:
        return "Latn" if _SOME_LATIN.match(text) else None
    counts: Counter[str] = Counter()
    for char, times in Counter(text).items():
        if script := _script_of_letter(char):
            counts[script] += times
    # One syllable of these scripts says as much as three letters.
    if counts["Kana"] and counts["Kana"] * 20 >= counts["Hani"]:
        counts["Kana"] += counts.pop("Hani", 0)
    if counts.total() < _FEWEST_LETTERS:
        return None
    script, most = counts.most_common(1)[0]
    return script if most >= _MOST * counts.total() else None


@lru_cache(maxsize=8192)
def _script_of_letter(char: str) -> str | None:
    match = _SCRIPTS.match(char)
    return match.lastgroup if match else None


def latin_language_of(text: str) -> str | None:
    """Return the language that a text in Latin letters is plainly in, or None."""
    words = text[:_READ].lower().replace("\u2019", "'").split()
    if len(words) < _FEWEST_WORDS:
        return None
    votes: Counter[str] = Counter()
    for word, count in Counter(words).items():
        for language in _LANGUAGES_OF.get(word.strip(_MARKS), ()):
            # A refrain must not decide: nobody sings in the language of "la la la".
            votes[language] += min(count, 3)
    ranked = votes.most_common(2)
    if not ranked or ranked[0][1] < _LEAST_SHARE * len(words) or ranked[0][1] < 6:
        return None
    first, most = ranked[0]
    if len(ranked) > 1:
        second, fewer = ranked[1]
        near = any({first, second} <= group for group in _ALIKE)
        if most < (_MARGIN if not near else 1.2) * fewer:
            return None
    return first


@lru_cache(maxsize=1024)
def _written(tag: str) -> tuple[str, frozenset[str]]:
    """Return a tag's language, and the scripts it is written in; none where they tell nothing."""
    import langcodes

    primary = tag.lower().replace("_", "-").partition("-")[0]
    if primary in _NO_LANGUAGE | _IN_SEVERAL_SCRIPTS or not langcodes.tag_is_valid(tag):
        return primary, frozenset()
    script = langcodes.Language.get(tag).maximize().script or ""
    return primary, _WRITTEN.get(script, frozenset([script] if script else []))


_WRITTEN = {
    "Jpan": frozenset(["Kana", "Hani"]),
    "Hans": frozenset(["Hani"]),
    "Hant": frozenset(["Hani"]),
    "Kore": frozenset(["Hang", "Hani"]),
}
_ALONE = {
    scripts: re.compile(f"[\\W\\d_{''.join(_LETTERS[script] for script in scripts)}]*")
    for scripts in (*_WRITTEN.values(), *(frozenset([script]) for script in _LETTERS))
    if "Latn" not in scripts
}
"""Texts in these scripts and no other letter; Latin is left out: many languages share it."""
