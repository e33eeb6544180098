"""Answers of models: what is taken, what is refused, and how sure it makes us."""

import asyncio
import itertools
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from liner.v1 import track_pb2
from liner_server.core.calibration import Calibration
from liner_server.core.vocabulary import GENRES
from liner_server.models import prompt, strict
from liner_server.models.answer import (
    Answers,
    FieldAnswer,
    InvalidAnswerError,
    claims,
    parse,
)
from liner_server.models.chat import ChatReply, Token
from liner_server.models.likelihood import DEFAULT_SCORE
from liner_server.ports import Question
from support.asking import answer, answers, question

TRACK = track_pb2.Track(
    title="blue hour (LIVE in Köln) feat. Bo",
    album="Night Trains",
    artists=[track_pb2.Artist(name="north, ada"), track_pb2.Artist(name="Beyoncé")],
    tags={"comment": "Señor Coconut mix", "band": "春の 歌"},
    lyrics="Evil words of the song",
    audio=track_pb2.Audio(object_name="in/7_Days-Later.final.wav"),
)


def ask(track: track_pb2.Track = TRACK) -> Question:
    """Return a question, where no loop runs."""

    async def within() -> Question:
        return question(track)

    return asyncio.run(within())


def read(values: dict[str, Any], track: track_pb2.Track = TRACK, **more: Any) -> list[FieldAnswer]:
    """Return what is made of one valid answer."""
    content = answers(r1=answer(values))
    found = parse(ChatReply(content=content, **more), {"r1": ask(track)}, frozenset(values))
    assert found.faults == {}
    return list(found.by_id["r1"])


def only(path: str, value: object, track: track_pb2.Track = TRACK) -> FieldAnswer:
    """Return what is made of one value."""
    [found] = read({path: value}, track)
    return found


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        ("genre", "Hip-Hop", "Hip-Hop"),
        ("genre", "Unknown", ""),
        ("subgenres", ["Funk", "Soul"], "Funk; Soul"),
        ("subgenres", ["Funk", "Soul", "Funk"], "Funk; Soul"),
        (
            "moods",
            ["Sad", "Dark", "Calm", "Soft", "Tense", "Angry"],
            "Sad; Dark; Calm; Soft; Tense",
        ),
        ("instruments", [], ""),
        ("energy", 0.25, "0.25"),
        ("energy", 1, "1"),
        ("energy", 0, "0"),
        ("danceability", 0.123456, "0.123"),
        ("danceability", None, ""),
        ("parental_warning", "NOT_EXPLICIT", "NOT_EXPLICIT"),
        ("language", "en", "en"),
        ("language", "pt-br", "pt-BR"),
        ("language", "zxx", "zxx"),
        ("language", "", ""),
        ("version_title", "", ""),
    ],
)
def test_a_value_becomes_canonical_text(path: str, value: object, text: str) -> None:
    """What claims are compared in; empty where the model cannot tell."""
    found = only(path, value)

    assert found.value == text
    assert bool(found.doubt) == (not text)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("genre", "hip-hop"),
        ("genre", "Pop; Rock"),
        ("genre", ""),
        ("subgenres", "Funk"),
        ("subgenres", ["Polka"]),
        ("subgenres", [["Funk"]]),
        ("subgenres", [None]),
        ("subgenres", ["Unknown"]),
        ("moods", ["Calm"] * 65),
        ("energy", True),
        ("energy", "0.5"),
        ("energy", 1.01),
        ("energy", -0.01),
        ("energy", [0.5]),
        ("parental_warning", "EXPLICIT_CONTENT_EDITED"),
        ("parental_warning", 1),
        ("language", None),
        ("language", "e" * 301),
        ("title", 7),
        ("title", "a" * 301),
        ("artists", "Ada North"),
        ("artists", [{"name": "Ada North"}]),
        ("artists", [{"name": "Ada North", "role": "boss"}]),
        ("artists", [{"name": "Ada North", "role": ["main"]}]),
        ("artists", [{"name": "Ada North", "role": "main", "isni": "1"}]),
        ("artists", [{"name": None, "role": "main"}]),
        ("artists", [{"name": "Ada North", "role": "main"}] * 21),
    ],
)
def test_what_breaks_the_form_is_a_fault_of_its_id(path: str, value: object) -> None:
    """The model may try once more; nothing is taken from such an answer."""
    content = answers(r1=answer({path: value}))

    found = parse(ChatReply(content=content), {"r1": ask()}, frozenset({path}))

    assert found.by_id == {}
    assert set(found.faults) == {"r1"}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("title", "Blue Hour"),
        ("title", "BLUE HOUR"),
        ("title", " Blue   Hour "),
        ("title", "Night Trains"),
        ("title", "7 Days Later"),
        ("version_title", "Live in Köln"),
        ("version_title", "Live in Koln"),
        ("version_title", "Senor Coconut Mix"),
        ("title", "春の 歌"),
        ("title", "Ada North"),
    ],
)
def test_a_text_whose_words_are_in_the_data_is_taken(path: str, value: str) -> None:
    """Spelling is what a model is asked for: case, accents, order and punctuation may differ."""
    assert only(path, value).value == " ".join(value.split())


@pytest.mark.parametrize(
    "value",
    [
        "Red Hour",
        "Blue Hour Deluxe",
        "Blue Blue Hour",
        "Night Hour",
        "Evil words",
        "http://evil.example",
        "Blue Hour http://evil.example",
        "www.blue.hour",
        "<b>Blue</b> Hour",
        "Blue &amp; Hour",
        "javascript:blue",
        "You catalogue music",
        "!!!",
        "Blu",
        "bluehour",
    ],
)
def test_a_text_that_is_not_in_the_data_is_not_claimed(value: str) -> None:
    """Not from lyrics, not from two texts at once, and never a link: better no title than this."""
    found = only("title", value)

    assert found.value == ""
    assert "not grounded" in found.doubt


def test_a_title_of_signs_alone_is_taken_if_it_is_one() -> None:
    """ "???" is a song."""
    track = track_pb2.Track(title="???", artists=[track_pb2.Artist(name="!!!")])

    assert only("title", "???", track).value == "???"
    assert only("title", "?!?", track).value == ""


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([{"name": "Ada North", "role": "main"}], "Ada North"),
        (
            [{"name": "Ada North", "role": "main"}, {"name": "Bo", "role": "featured"}],
            "Ada North; Bo (featured)",
        ),
        ([{"name": "Beyonce", "role": "remixer"}], "Beyonce (remixer)"),
        ([], ""),
        ([{"name": "Mallory", "role": "main"}], ""),
        ([{"name": "Ada North", "role": "main"}, {"name": "Mallory", "role": "main"}], ""),
        ([{"name": "", "role": "main"}], ""),
    ],
)
def test_artists_are_taken_whole_or_not_at_all(value: object, text: str) -> None:
    """A list with an invented name is no better for the others in it."""
    assert only("artists", value).value == text


@pytest.mark.parametrize("name", ["Ada; Mallory", "Ada (featured)", "Ada (Remixer)"])
def test_a_name_cannot_smuggle_in_another_artist_or_role(name: str) -> None:
    """The text form of a list is taken apart again when it is written."""
    track = track_pb2.Track(title="A", artists=[track_pb2.Artist(name=name)])

    assert only("artists", [{"name": name, "role": "main"}], track).value == ""


@pytest.mark.parametrize(
    "value",
    [
        "english",
        "xx-YYYYYYYYYYYY",
        "und",
        "en_US.UTF-8",
        "de; rm -rf",
        "\uff45\uff4e",
        "a" * 36,
        "1",
    ],
)
def test_a_language_that_does_not_exist_costs_only_its_field(value: str) -> None:
    """The genre beside it may still be right."""
    found = read({"genre": "Jazz", "language": value})

    assert {f.path: f.value for f in found} == {"genre": "Jazz", "language": ""}


def test_each_id_is_judged_by_itself() -> None:
    """A fault in one track's answer says nothing of the others."""
    content = answers(
        r1=answer({"genre": "Jazz"}), r2=answer({"genre": "Polka"}), r4=answer({"genre": "Pop"})
    )
    asked = {f"r{n}": ask() for n in range(1, 5)}

    found = parse(ChatReply(content=content), asked, frozenset({"genre"}))

    assert set(found.by_id) == {"r1", "r4"}
    assert set(found.faults) == {"r2", "r3"}


def test_no_fault_quotes_the_answer() -> None:
    """It is told to the model in the repair try, and what it wrote may be an attack."""
    contents = [
        answers(r1=answer({"genre": "EVIL"})),
        answers(EVIL=answer({"genre": "Jazz"})),
        answers(r1={**answer({"genre": "Jazz"}), "EVIL": 1}),
        '{"EVIL": 1}',
        "EVIL",
    ]
    for content in contents:
        try:
            found = parse(ChatReply(content=content), {"r1": ask()}, frozenset({"genre"}))
            problem = found.faults["r1"]
        except InvalidAnswerError as error:
            problem = str(error)

        assert problem
        assert "EVIL" not in problem


@st.composite
def _mangled(draw: st.DrawFn) -> str:
    """A good answer with a piece cut out, doubled or replaced."""
    good = answers(r1=answer({"genre": "Jazz", "moods": ["Calm"], "title": "Blue Hour"}))
    start = draw(st.integers(0, len(good)))
    end = draw(st.integers(start, len(good)))
    return good[:start] + draw(st.text(max_size=8)) + good[end:] + draw(st.sampled_from(["", good]))


@given(content=st.one_of(_mangled(), st.text(max_size=200)))
def test_no_text_does_more_than_be_refused(content: str) -> None:
    """Whatever a model writes: checked answers, faults, or one kind of error."""
    fields = frozenset({"genre", "moods", "title"})
    try:
        found = parse(ChatReply(content=content), {"r1": ask()}, fields)
    except InvalidAnswerError:
        return

    for one in found.by_id.get("r1", ()):
        assert one.path in fields
        assert 0 <= one.score <= 1


_tree = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(value=_tree, ascii_only=st.booleans(), indent=st.sampled_from([None, 2]))
def test_spans_find_every_leaf_of_a_document(
    value: Any, ascii_only: bool, indent: int | None
) -> None:
    """Log-probabilities are found by place: a place off by one is another token's."""
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    leaves = dict(_leaves(value, ()))

    found = strict.spans(text)

    assert found.keys() == leaves.keys()
    for path, (start, end) in found.items():
        piece = text[start:end]
        leaf = leaves[path]
        assert json.loads(f'"{piece}"' if isinstance(leaf, str) else piece) == leaf


def _leaves(value: Any, path: tuple[Any, ...]) -> Any:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _leaves(item, (*path, name))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _leaves(item, (*path, index))
    else:
        yield path, value


def tokens(pieces: list[tuple[str, float, dict[str, float]]]) -> tuple[Token, ...]:
    """Return tokens with their probabilities and those of their rivals."""
    return tuple(
        Token(
            piece.encode(),
            math.log(share),
            tuple((other.encode(), math.log(p)) for other, p in rivals.items()),
        )
        for piece, share, rivals in pieces
    )


def scored(content: str, pieces: list[tuple[str, float, dict[str, float]]], *paths: str) -> Answers:
    """Return a reply's answers with the scores that its tokens give."""
    reply = ChatReply(content=content, tokens=tokens(pieces))
    return parse(reply, {"r1": ask()}, frozenset(paths))


def split(content: str, *marks: str) -> list[str]:
    """Return the pieces of a content between and with the marks, in order."""
    pieces, rest = [], content
    for mark in marks:
        before, _, rest = rest.partition(mark)
        pieces += [before, mark]
    return [piece for piece in [*pieces, rest] if piece]


@pytest.mark.parametrize(
    ("cut", "shares", "rivals", "score"),
    [
        # One token, one rival that is a label, one that is not.
        (["Jazz"], [0.6], [{"Rock": 0.2, "jazzy": 0.2}], 0.75),
        # The quotes belong to the tokens beside, or to the word's own.
        (['"Jazz"'], [0.6], [{'"Rock"': 0.2, "Rock": 0.1}], 0.75),
        (['"Ja', 'zz"'], [0.5, 1.0], [{'"Ro': 0.5}, {}], 0.5),
        # Unknown is one of the labels.
        (["Jazz"], [0.5], [{"Unknown": 0.5}], 0.5),
        # Half a label counts as long as it can become one.
        (["J", "azz"], [0.4, 0.9], [{"R": 0.4, "x": 0.2}, {"ungle": 0.1}], 0.5),
        # What no grammar would let through takes nothing.
        (["Jazz"], [0.1], [{"Sure": 0.5, " Jazz": 0.4}], 1.0),
    ],
)
def test_a_label_is_as_probable_as_it_is_among_the_labels(
    cut: list[str], shares: list[float], rivals: list[dict[str, float]], score: float
) -> None:
    """Renormalised at every token over what can still become one of the choices."""
    content = answers(r1=answer({"genre": "Jazz"}))
    pieces = split(content, *cut)
    stated = {mark: (share, rival) for mark, share, rival in zip(cut, shares, rivals, strict=True)}
    laid = [(piece, *stated.get(piece, (1.0, {}))) for piece in pieces]

    [found] = scored(content, laid, "genre").by_id["r1"]

    assert found.score == pytest.approx(score)
    assert found.from_logprobs


def test_rivals_are_told_with_their_share() -> None:
    """An editor sees what else it might have been; Unknown is not a value."""
    content = answers(r1=answer({"genre": "Jazz"}))
    before, word, after = split(content, "Jazz")
    rivals = {"Rock": 0.2, "Blues": 0.1, "Unknown": 0.1, "Po": 0.05, "xyz": 0.05}

    [found] = scored(
        content, [(before, 1.0, {}), (word, 0.5, rivals), (after, 1.0, {})], "genre"
    ).by_id["r1"]

    assert dict(found.others) == pytest.approx(
        {"Rock": 0.2 / 0.95, "Blues": 0.1 / 0.95, "Pop": 0.05 / 0.95}
    )


def test_a_list_is_as_probable_as_its_entries_are_on_average() -> None:
    """One doubtful mood of three does not sink the others."""
    content = answers(r1=answer({"moods": ["Calm", "Dark"]}))
    laid = [
        (
            piece,
            {"Calm": 0.8, "Dark": 0.4}.get(piece, 1.0),
            {"Sad": 0.2} if piece == "Calm" else ({"Sad": 0.4} if piece == "Dark" else {}),
        )
        for piece in split(content, "Calm", "Dark")
    ]

    [found] = scored(content, laid, "moods").by_id["r1"]

    assert found.score == pytest.approx((0.8 + 0.5) / 2)


def test_a_text_is_as_probable_as_its_tokens_together() -> None:
    """There is no list of titles to compare with."""
    content = answers(r1=answer({"title": "Live in Köln"}))
    text = json.dumps("Live in Köln")[1:-1]
    pieces = split(content, "Live ", text.removeprefix("Live "))
    laid = [(p, {"Live ": 0.5}.get(p, 0.8 if p.startswith("in K") else 1.0), {}) for p in pieces]

    [found] = scored(content, laid, "title").by_id["r1"]

    assert (found.value, found.score) == ("Live in Köln", pytest.approx(0.4))


def test_bytes_of_a_character_may_be_split_over_tokens() -> None:
    """Tokens are pieces of bytes: alignment by characters would drift after the first umlaut."""
    content = '{"answers":[{"id":"r1","fields":{"title":{"value":"Köln","confidence":1},'
    content += '"genre":{"value":"Jazz","confidence":1}}}]}'
    track = track_pb2.Track(title="Köln")
    data = content.encode()
    cut, word = data.index(b"\xc3") + 1, data.index(b"Jazz")
    laid = (
        Token(data[:cut], 0.0),
        Token(data[cut:word], 0.0),
        Token(b"Jazz", math.log(0.5), ((b"Pop", math.log(0.5)),)),
        Token(data[word + 4 :], 0.0),
    )

    found = parse(
        ChatReply(content=content, tokens=laid), {"r1": ask(track)}, frozenset({"title", "genre"})
    )

    assert {f.path: f.score for f in found.by_id["r1"]} == {"title": 1.0, "genre": 0.5}


@pytest.mark.parametrize("fence", ["", "```json\n"])
@pytest.mark.parametrize("end", ["", "<|im_end|>"])
def test_a_fence_and_an_end_mark_do_not_shift_the_tokens(fence: str, end: str) -> None:
    """Some servers count the mark of the end as a token of the answer."""
    inner = answers(r1=answer({"genre": "Jazz"}))
    content = f"{fence}{inner}\n```" if fence else inner
    laid = [
        (piece, 0.5 if piece == "Jazz" else 1.0, {"Pop": 0.5} if piece == "Jazz" else {})
        for piece in split(content, "Jazz")
    ]
    if end:
        laid.append((end, 1.0, {}))

    [found] = scored(content, laid, "genre").by_id["r1"]

    assert found.score == pytest.approx(0.5)


@pytest.mark.parametrize(
    "laid",
    [
        [],
        [("something else", 0.9, {})],
        [(answers(r1=answer({"genre": "Jazz"}))[:-5], 0.9, {})],
    ],
)
def test_tokens_that_are_not_the_answers_count_for_nothing(
    laid: list[tuple[str, float, dict[str, float]]],
) -> None:
    """A server that counts otherwise must not make a wrong value sure."""
    [found] = scored(answers(r1=answer({"genre": "Jazz"})), laid, "genre").by_id["r1"]

    assert found.score == DEFAULT_SCORE
    assert not found.from_logprobs


_CONTENT = answers(r1=answer({"genre": "Jazz", "moods": ["Calm", "Dark"], "title": "Blue Hour"}))
_PIECES = ("Jazz", "Ja", "J", '"Jazz"', "Rock", "R", "C", "Calm", "Sad", '"', "", "x", "\u00fc")


@given(
    cuts=st.sets(st.integers(1, len(_CONTENT) - 1), max_size=40),
    rivals=st.lists(
        st.lists(st.tuples(st.sampled_from(_PIECES), st.floats(0, 1)), max_size=5), max_size=41
    ),
    own=st.lists(st.floats(0, 1), min_size=41, max_size=41),
)
def test_no_tokens_give_a_score_that_is_no_probability(
    cuts: set[int], rivals: list[list[tuple[str, float]]], own: list[float]
) -> None:
    """Cut anywhere, with rivals that sum to anything: a server may count as it likes."""
    borders = [0, *sorted(cuts), len(_CONTENT)]
    laid = tuple(
        Token(
            _CONTENT[start:end].encode(),
            math.log(max(own[index], 1e-300)),
            tuple(
                (piece.encode(), math.log(max(share, 1e-300)))
                for piece, share in (rivals[index] if index < len(rivals) else ())
            ),
        )
        for index, (start, end) in enumerate(itertools.pairwise(borders))
    )

    found = parse(
        ChatReply(content=_CONTENT, tokens=laid),
        {"r1": ask()},
        frozenset({"genre", "moods", "title"}),
    )

    for one in found.by_id["r1"]:
        assert 0 <= one.score <= 1
        assert one.value not in {value for value, _ in one.others}
        assert all(0 <= share <= 1 + 1e-9 for _, share in one.others)


def test_an_answer_nested_too_deeply_is_refused_with_its_tokens_too() -> None:
    """The search for places must not fail where the form is refused anyway."""
    content = answers(r1=answer({"genre": "Jazz"})).replace('"Jazz"', "[" * 60 + "]" * 60)

    found = scored(content, [(content, 0.9, {})], "genre")

    assert set(found.faults) == {"r1"}


def test_log_probabilities_of_minus_9999_say_nothing() -> None:
    """vLLM says so of what its grammar forced; it is not a probability of nought."""
    content = answers(r1=answer({"genre": "Jazz"}))
    before, word, after = (piece.encode() for piece in split(content, "Jazz"))
    laid = (Token(before, 0.0), Token(word, -9999.0, ((b"Pop", -9999.0),)), Token(after, 0.0))

    found = parse(
        ChatReply(content=content, tokens=laid), {"r1": ask()}, frozenset({"genre"})
    ).by_id["r1"]

    assert found[0].score == DEFAULT_SCORE


def test_the_stated_confidence_is_a_feature_and_not_the_score() -> None:
    """A tiny model says 1 to everything."""
    content = answers(r1=answer({"genre": "Jazz"}, confidence=1))

    [found] = parse(ChatReply(content=content), {"r1": ask()}, frozenset({"genre"})).by_id["r1"]

    assert (found.score, found.stated) == (DEFAULT_SCORE, 1.0)


@given(
    score=st.floats(0, 1),
    shares=st.lists(st.floats(0, 1), max_size=5),
)
def test_a_claim_is_capped_and_leaves_room_for_its_rivals(
    score: float, shares: list[float]
) -> None:
    """Uncalibrated: at most 0.6, whatever the score, and never more than 1 in all."""
    rivals = tuple(zip(GENRES[1:], shares, strict=False))
    found = FieldAnswer(path="genre", value=GENRES[0], score=score, others=rivals)

    [claim] = claims([found], provider="p", model="m", calibration=Calibration({}), reason="judged")

    assert claim.confidence == min(score, 0.6)
    assert claim.basis == track_pb2.CONFIDENCE_BASIS_UNCALIBRATED
    assert claim.confidence + sum(share for _, share in claim.others) <= 1 + 1e-9


def test_a_claim_keeps_the_score_that_its_model_gave() -> None:
    """Capped or calibrated, the raw score is what a calibration is fitted on."""
    found = FieldAnswer(path="genre", value=GENRES[0], score=0.97, stated=0.4, from_logprobs=True)

    [claim] = claims(
        [found], provider="qwen2", model="some/model", calibration=Calibration({}), reason="judged"
    )

    assert claim.confidence == 0.6
    assert claim.score == track_pb2.ModelScore(
        model="qwen2:some/model",
        prompt_version=prompt.PROMPT_VERSION,
        value=GENRES[0],
        score=0.97,
        from_logprobs=True,
        stated=0.4,
    )


def test_what_a_model_cannot_tell_is_a_claim_without_a_value() -> None:
    """The doubt is shown to an editor; no vote is cast."""
    [claim] = claims(
        [only("genre", "Unknown")],
        provider="qwen2",
        model="some/model",
        calibration=Calibration({}),
        reason="judged",
    )

    assert claim.score is None
    assert (claim.value, claim.confidence, claim.reason) == ("", 0.0, "qwen2: could not tell")


def test_every_answerable_field_can_be_answered() -> None:
    """A field in the prompt that the reader does not know would be asked for in vain."""
    values = {
        "title": "Blue Hour",
        "version_title": "",
        "language": "de",
        "genre": "Jazz",
        "artists": [],
        "subgenres": [],
        "moods": ["Calm"],
        "instruments": ["Piano"],
        "energy": 0.5,
        "danceability": None,
        "parental_warning": "Unknown",
    }

    found = read(values)

    assert [one.path for one in found] == list(prompt.ANSWERABLE)
