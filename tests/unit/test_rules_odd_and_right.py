# ruff: noqa: RUF001 - letters that look like others are what is tested
"""Metadata that looks wrong and is right: at most an editor is told, and no machine changes it.

Titles, names and lines are those of published recordings, or made after them.
"""

import pytest
from liner.v1 import enrichment_pb2, track_pb2
from liner_server.core.rules.apply import apply_suggestions
from liner_server.core.validator import validate

_MINIMAL = enrichment_pb2.DELIVERY_PROFILE_MINIMAL
_WORST = enrichment_pb2.SEVERITY_INFO

_TITLES = (
    *("(I Can't Get No) Satisfaction", "R U Mine?", "4:44", "HUMBLE.", "thank u, next", "7"),
    *("Live and Let Die", "Explicit", "Remix to Ignition", "The A Team", "Live Forever", "Clean"),
    *("Single Ladies (Put a Ring on It)", "(Sittin' On) The Dock of the Bay", "DNA.", "U.N.I.T.Y."),
    *("007 (Shanty Town)", "'03 Bonnie & Clyde", "99 Luftballons", "S&M", "SOS", "1 + 1 = 3"),
    *("Symphony No. 5 in C Minor, Op. 67: I. Allegro con brio", "!!!", "?", "÷", ":(", "Smile :)"),
    *("24 Caprices for Solo Violin, Op. 1: No. 24 in A Minor", "Sonata in A-Flat Major: Rondo"),
    *("A Feat of Strength", "Ten ft Tall", "50 Ft Queenie", "Forever (Live and Die)", "E=MC²"),
    *("Born to Live (Live to Die)", "Medley: Rock and Roll / Whole Lotta Love", "____45_____"),
    *("Turn! Turn! Turn! (To Everything There Is a Season)", "9 to 5", "3 A.M.", "B.Y.O.B."),
    *("Girls Just Want to Have Fun", "On to the Next One", "8 (circle)", "10,000 Hours", "Ænima"),
    *("Non, je ne regrette rien", "L'été indien", "Où est le swing\u00a0?", "Nessun dorma"),
    *("Volare (Nel blu dipinto di blu)", "Für Elise", "¿Quién será?", "Águas de Março", "Þú"),
    *("Dziwny jest ten świat", "Чёрный ворон", "ВОСЬМИКЛАССНИЦА", "Řekni, kde ty kytky jsou"),
    *(
        "夜に駆ける",
        "残酷な天使のテーゼ\u3000Director's Edit",
        "リサフランク420 / 現代のコンピュー",
    ),
    *(
        "강남스타일",
        "봄날 (Spring Day)",
        "月亮代表我的心",
        "أنت عمري",
        "يا مُحَمَّدُ",
        "שלום\u200f (Hello)",
    ),
    *("شبانه\u200cروز", "הבה נגילה", "कल हो ना हो", "\u095bिंदगी", "ใจสั่งมา", "Ζορμπάς", "Đêm nay"),
    *("İstanbul", "Şımarık", "Hawaiʻi Aloha", "Ωmega", "μ-Ziq Theme", "KoЯn", "Δ9"),
    # Emoji of a later Unicode than Python's, and flags that are written with hidden letters.
    *("\U0001fa77", "LOVE \U0001fae8", "\u2764\ufe0f\u200d\U0001f525", "1\ufe0f\u20e3"),
    "\U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f Scotland",
)
_NAMES = (
    *("AC/DC", "P!nk", "Tyler, The Creator", "Earth, Wind & Fire", "Feat. X", "will.i.am"),
    *("Various Production", "Dan + Shay", "Florence + the Machine", "Simon & Garfunkel", "!!!"),
    *("TOMORROW X TOGETHER", "LE SSERAFIM", "MF DOOM", "ASIAN KUNG-FU GENERATION", "(G)I-DLE"),
    *("Little Feat", "Little Feat & Friends", "10 Ft. Ganja Plant", "Sunn O)))", "+44", "t.A.T.u."),
    *("Crosby, Stills, Nash & Young", "Terror X Crew", "Chloe x Halle", "Pete Rock & C.L. Smooth"),
    *("Orchestra of the Royal Opera House, Covent Garden", "Choir of King's College, Cambridge"),
    *("Hank Williams, Jr.", "Nick Cave & The Bad Seeds", "None More Black", "k.d. lang", "µ-Ziq"),
    *("Unknown Mortal Orchestra", "Ike & Tina Turner", "Official髭男dism", "أم كلثوم", "Björk"),
    *("Axwell /\\ Ingrosso", "Zion & Lennox", "Die Ärzte", "ДДТ", "L'Arc~en~Ciel", "Mr.Children"),
)
_LINES = (
    *("1973, 2011 Pink Floyd Music Ltd.", "1967/2011 EMI Records", "1999 & 2015 Parlophone"),
    *("1990-1995 Foo Records", "2024 1017 Records", "2024, Example Records", "℗ 2024 Foo"),
    *("(P) 2024 Example Records", "℗ & © 2024 Example", "℗© 2024 Example", "\u24c5 2024 Foo"),
)


def _raised(track: track_pb2.Track) -> list[str]:
    """Return the rules that would have an editor look, or a machine change something."""
    answer = validate(track, profile=_MINIMAL)
    return [i.rule_id for i in answer.issues if i.severity < _WORST]


def _track(**fields: object) -> track_pb2.Track:
    track = track_pb2.Track(title="Golden River", artists=[track_pb2.Artist(name="Anna Weiss")])
    track.MergeFrom(track_pb2.Track(**fields))  # type: ignore[arg-type]
    return track


@pytest.mark.parametrize("language", ["", "en"])
@pytest.mark.parametrize("title", _TITLES)
def test_titles_that_are_right_raise_nothing(title: str, language: str) -> None:
    """An editor who is shown false warnings stops reading the true ones."""
    assert _raised(_track(title=title, language=language)) == []


@pytest.mark.parametrize("name", _NAMES)
def test_names_that_are_right_raise_nothing(name: str) -> None:
    """Artists write their names as they please."""
    track = track_pb2.Track(title="Golden River", artists=[track_pb2.Artist(name=name)])

    assert _raised(track) == []
    assert not [s for s in validate(track, profile=_MINIMAL).suggestions if "name" in s.field]


@pytest.mark.parametrize("line", _LINES)
def test_lines_that_are_right_raise_nothing(line: str) -> None:
    """A reissue names several years, and a symbol in front is at most superfluous."""
    assert _raised(_track(p_line=line, c_line=line)) == []


@pytest.mark.parametrize(
    "territories",
    [["Worldwide", "-US", "-CA"], ["XK"], ["DE", "AT", "CH"], ["HK", "MO", "TW"], ["GB"]],
)
def test_territories_that_are_right_raise_nothing(territories: list[str]) -> None:
    """The world without some countries is the commonest deal of all; Kosovo has shops."""
    assert _raised(_track(territories=territories)) == []


@pytest.mark.parametrize(
    "fields",
    [
        {"language": "de", "title": "7. Himmel"},
        {"genre": "Folk, World, & Country"},
        {"album": "A Tribute to Jack Johnson"},
        {"album": "( )"},
        {"label": "CDBaby.com"},
        # The line is the remaster's, the date the recording's.
        {"version_title": "2011 Remaster", "release_date": "1973-03-01", "p_line": "2011 Foo"},
        {"lyrics": "rekao sam ti tri puta", "language": "hr"},
        {"bpm": 210.0, "genre": "Footwork"},
    ],
)
def test_habits_of_a_trade_raise_nothing(fields: dict[str, object]) -> None:
    """German ordinals, one genre of three names, a tribute, a remaster, Croatian counting."""
    answer = validate(_track(**fields), profile=_MINIMAL)

    assert [i.rule_id for i in answer.issues if i.severity < _WORST] == []
    assert not answer.suggestions


@pytest.mark.parametrize(
    ("stated", "written"),
    [
        ("Db major", None),
        ("G# minor", None),
        ("Db", "Db major"),
        ("g#m", "G# minor"),
        ("E\u266dm", "Eb minor"),
        ("8A", "A minor"),
        ("3B", "C# major"),
        ("Cb", "Cb major"),
    ],
)
def test_a_key_keeps_the_note_it_is_named_by(stated: str, written: str | None) -> None:
    """No musician writes seven sharps for five flats because a program sorts by sharps."""
    answer = validate(_track(key=stated), profile=_MINIMAL)

    assert [s.suggested for s in answer.suggestions] == ([written] if written else [])


def test_an_artist_called_as_stand_ins_are_is_known_by_the_isni() -> None:
    """TBA and NONE release music; whoever states their ISNI does not mean "unknown"."""
    artist = track_pb2.Artist(name="TBA", isni="0000000121032683")

    assert _raised(track_pb2.Track(title="Golden River", artists=[artist])) == []


@pytest.mark.parametrize(
    ("stated", "mended"),
    [
        (["-us", "Worldwide"], ["-US", "Worldwide"]),
        (["WW", "-US"], ["Worldwide", "-US"]),
        (["Germany", "USA", "UK"], ["DE", "US", "GB"]),
        (["DE", "-CH"], ["DE"]),
        # What contradicts itself is for a person: nobody knows which half is meant.
        (["-DE"], ["-DE"]),
        (["Worldwide", "-US", "US"], ["Worldwide", "-US", "US"]),
        (["GB", "-GB"], ["GB", "-GB"]),
        (["Worldwide", "-Worldwide"], ["Worldwide", "-Worldwide"]),
    ],
)
def test_a_machine_never_grants_a_right_that_was_withheld(
    stated: list[str], mended: list[str]
) -> None:
    """An exclusion that lost its sign on the way would sell where nobody may."""
    track = _track(territories=stated)

    after = apply_suggestions(track, validate(track, profile=_MINIMAL).suggestions)

    assert list(after.territories) == mended


@pytest.mark.parametrize(
    ("text", "language", "suggested"),
    [
        ("OVERTURE IN A MINOR, ACT II", "en", "Overture in A Minor, Act II"),
        ("the a team", "", "The A Team"),
        ("LIVE ON TV IN THE U.S.A.", "", "Live on TV in the U.S.A."),
        ("JUMPIN' JACK-FLASH / ROCK-AND-ROLL", "", "Jumpin' Jack-Flash / Rock-and-Roll"),
        ("ICH WILL NICHT NACH BERLIN", "de", None),
        ("КАЛИНКА МАЛИНКА", "", None),
        ("MAI PIÙ", "", None),
    ],
)
def test_title_case_is_offered_where_it_is_known(
    text: str, language: str, suggested: str | None
) -> None:
    """English title case is a fault in German, Russian or Italian, and ii is a numeral."""
    answer = validate(_track(title=text, language=language), profile=_MINIMAL)

    assert [s.suggested for s in answer.suggestions] == ([suggested] if suggested else [])


@pytest.mark.parametrize(
    ("date", "mended"),
    [
        ("2024-05-17T00:00:00Z", "2024-05-17"),
        ("20240517", "2024-05-17"),
        ("17.05.2024", "2024-05-17"),
        ("5/17/2024", "2024-05-17"),
        ("2024-05-00", "2024-05"),
        ("2024-00-00", "2024"),
        ("2024-5-7", "2024-05-07"),
        ("05/06/2024", None),
        ("2024-02-30", None),
        ("24-05-17", None),
    ],
)
def test_a_date_is_rewritten_only_where_it_can_be_read_in_one_way(
    date: str, mended: str | None
) -> None:
    """The fifth of June and the sixth of May are a month apart."""
    answer = validate(_track(release_date=date), profile=_MINIMAL)

    assert "DATE_INVALID" in {i.rule_id for i in answer.issues}
    assert [s.suggested for s in answer.suggestions] == ([mended] if mended else [])
