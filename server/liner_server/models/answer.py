"""What a model answered, believed no further than it can be checked.

Two kinds of faults. What breaks the form (no strict JSON, a key too many, a word outside its
list, a number out of range) makes an answer invalid, and the model may try once more. What keeps
the form but cannot be relied on (a title whose words are nowhere in the data, a link, a language
that does not exist) only costs its field: the claim says so and names no value.

The score of a value is how probable the model itself found it, token by token, among the values
it could have chosen: not the confidence it states, which is only a feature for calibration.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from liner.v1 import track_pb2

from liner_server.core.calibration import Calibration
from liner_server.core.claims import Claim
from liner_server.core.fields import number_text
from liner_server.models import strict
from liner_server.models.chat import ChatReply
from liner_server.models.likelihood import DEFAULT_SCORE, Likelihood
from liner_server.models.prompt import (
    ANSWERABLE,
    CHOICES,
    LISTS,
    MOST_ENTRIES,
    NUMBERS,
    PROMPT_VERSION,
    ROLES,
    UNKNOWN,
    clean,
    texts,
)
from liner_server.ports import Question

_MOST_CHARACTERS = 200_000
_TEXT_CHARACTERS = 300
_TEXT_BYTES = 1024
_MOST_LISTED = 64
_MOST_ARTISTS = 20

_FENCED = re.compile(r"\s*```(?:json)?[ \t]*\n(.*?)\n?```\s*", re.DOTALL)
_LINK = re.compile(r"://|\bwww\.|\bjavascript:|\bdata:|</?[a-z!][^>]*>|&#?\w+;", re.IGNORECASE)
_WORD = re.compile(r"[^\W_]+")
_ROLE_AT_END = re.compile(rf"\((?:{'|'.join(ROLES)})\)$", re.IGNORECASE)

_UNGROUNDED = "its answer is not grounded in what is known of the track"
_GROUNDS = ("title", "version_title", "artists", "album", "tags.", "file tags.", "file_name")


class InvalidAnswerError(ValueError):
    """An answer that breaks the form; its text tells how, in our words only."""


@dataclass(kw_only=True)
class FieldAnswer:
    """One value that a model gave, checked."""

    path: str
    value: str
    """Canonical text; empty when the model cannot tell or is not to be believed."""

    score: float = 0.0
    """Raw, in [0, 1]: to be calibrated."""

    others: tuple[tuple[str, float], ...] = ()
    """Other values it might have given, and how probable it found them."""

    stated: float = 0.0
    """The confidence the model stated."""

    from_logprobs: bool = False
    absent: bool = False
    """Whether it says that there is no value."""

    doubt: str = ""
    """Why there is no value."""


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What one reply holds."""

    by_id: Mapping[str, Sequence[FieldAnswer]]
    faults: Mapping[str, str]
    """By id, what is wrong with its answer, or that there is none."""


def parse(reply: ChatReply, questions: Mapping[str, Question], fields: frozenset[str]) -> Answers:
    """Return the checked answers of a reply to the questions, by id.

    Raises:
        InvalidAnswerError: nothing in it can be used.

    """
    content = reply.content
    if len(content) > _MOST_CHARACTERS:
        raise InvalidAnswerError("it is far too long")
    fenced = _FENCED.fullmatch(content)
    start, text = (fenced.start(1), fenced[1]) if fenced else (0, content)
    try:
        document = strict.loads(text)
    except strict.NotJSONError:
        raise InvalidAnswerError("it is not one strict JSON object") from None
    entries = _keys(document, {"answers"}, "the object")["answers"]
    if not isinstance(entries, list) or len(entries) > 2 * len(questions):
        raise InvalidAnswerError('"answers" is not a list of one answer for each id')
    given: dict[str, list[tuple[int, object]]] = {name: [] for name in questions}
    for index, entry in enumerate(entries):
        answer = _keys(entry, {"id", "fields"}, "an answer")
        if not isinstance(answer["id"], str) or answer["id"] not in given:
            raise InvalidAnswerError("it has an id that was not asked about")
        given[answer["id"]].append((index, answer["fields"]))
    likelihood = Likelihood(reply, start, text)
    by_id, faults = {}, {}
    for name, found in given.items():
        if len(found) != 1:
            faults[name] = f"it has {len(found)} answers for an id, not one"
            continue
        [(index, values)] = found
        try:
            reader = _Reader(questions[name], likelihood, ("answers", index, "fields"))
            by_id[name] = reader.read(values, fields)
        except InvalidAnswerError as error:
            faults[name] = str(error)
    return Answers(by_id=by_id, faults=faults)


def claims(
    answers: Sequence[FieldAnswer],
    *,
    provider: str,
    model: str,
    calibration: Calibration,
    reason: str,
) -> list[Claim]:
    """Return checked answers as claims of `provider`, whose `model` was asked."""
    return [_claim(answer, provider, model, calibration, reason) for answer in answers]


def calibration_source(provider: str, model: str) -> str:
    """Return the source under which a model's scores are fitted: provider, model and prompt."""
    return f"{provider}:{model}:{PROMPT_VERSION}"


def _claim(
    answer: FieldAnswer, provider: str, model: str, calibration: Calibration, reason: str
) -> Claim:
    if not answer.value:
        return Claim(
            field=answer.path,
            value="",
            source=track_pb2.SOURCE_MODEL,
            confidence=0.0,
            basis=track_pb2.CONFIDENCE_BASIS_UNSPECIFIED,
            absent=answer.absent,
            model=provider,
            reason=f"{provider}: {answer.doubt}",
        )
    features = {"stated": answer.stated, "logprobs": float(answer.from_logprobs)}
    source = calibration_source(provider, model)
    fitted = calibration.calibrated(answer.path, source, answer.score, features)
    total = sum(probability for _, probability in answer.others)
    room = 1 - fitted.probability
    scale = min(1.0, room / total) if total else 0.0
    return Claim(
        field=answer.path,
        value=answer.value,
        source=track_pb2.SOURCE_MODEL,
        confidence=fitted.probability,
        basis=fitted.basis,
        others=tuple((value, probability * scale) for value, probability in answer.others),
        model=provider,
        reason=reason,
        score=track_pb2.ModelScore(
            model=f"{provider}:{model}",
            prompt_version=PROMPT_VERSION,
            value=answer.value,
            score=answer.score,
            from_logprobs=answer.from_logprobs,
            stated=answer.stated,
        ),
    )


class _Reader:
    """Reads the fields of one answer."""

    def __init__(self, question: Question, likelihood: "Likelihood", path: strict.Path) -> None:
        self._question = question
        self._likelihood = likelihood
        self._path = path
        self._sources: list[tuple[str, Counter[str]]] | None = None

    def read(self, values: object, fields: frozenset[str]) -> list[FieldAnswer]:
        given = _keys(values, fields, "the fields of an answer")
        return [self._field(path, given[path]) for path in ANSWERABLE if path in fields]

    def _field(self, path: str, entry: object) -> FieldAnswer:
        both = _keys(entry, {"value", "confidence"}, path)
        stated, value = _share(both["confidence"], f"the confidence of {path}"), both["value"]
        if path in CHOICES:
            found = self._choice(path, value)
        elif path in LISTS:
            found = self._list(path, value)
        elif path in NUMBERS:
            found = self._number(path, value)
        elif path == "artists":
            found = self._artists(value)
        else:
            found = self._text(path, value)
        found.stated = stated
        # A number's tokens are not read: near misses are as right as the number itself.
        found.from_logprobs = bool(self._likelihood) and path not in NUMBERS
        return found

    def _choice(self, path: str, value: object) -> FieldAnswer:
        labels = (*CHOICES[path], UNKNOWN)
        if not isinstance(value, str) or value not in labels:
            raise InvalidAnswerError(f"{path} is not one of the choices")
        if value == UNKNOWN:
            return _doubt(path, "could not tell")
        score, others = self._likelihood.choice((*self._path, path, "value"), value, labels)
        return FieldAnswer(path=path, value=value, score=score, others=others)

    def _list(self, path: str, value: object) -> FieldAnswer:
        if not isinstance(value, list) or len(value) > _MOST_LISTED:
            raise InvalidAnswerError(f"{path} is not a short list")
        if any(not isinstance(entry, str) or entry not in LISTS[path] for entry in value):
            raise InvalidAnswerError(f"{path} has an entry that is not one of the choices")
        best = {entry: index for index, entry in reversed(list(enumerate(value)))}
        first = sorted(best.items(), key=lambda item: item[1])[:MOST_ENTRIES]
        if not first:
            return _doubt(path, "could not tell")
        scores = [
            self._likelihood.choice((*self._path, path, "value", index), entry, LISTS[path])[0]
            for entry, index in first
        ]
        return FieldAnswer(
            path=path,
            value="; ".join(entry for entry, _ in first),
            score=sum(scores) / len(scores),
        )

    def _number(self, path: str, value: object) -> FieldAnswer:
        if value is None:
            return _doubt(path, "could not tell")
        return FieldAnswer(
            path=path, value=number_text(_share(value, path), 3), score=DEFAULT_SCORE
        )

    def _text(self, path: str, value: object) -> FieldAnswer:
        if not isinstance(value, str) or len(value) > _TEXT_CHARACTERS:
            raise InvalidAnswerError(f"{path} is not a short text")
        if not value.strip():
            if path == "version_title":
                return FieldAnswer(path=path, value="", doubt="there is none", absent=True)
            return _doubt(path, "could not tell")
        text = _language(value) if path == "language" else self._grounded(value)
        if not text:
            return _doubt(path, _UNGROUNDED if path != "language" else "named no language")
        return FieldAnswer(
            path=path, value=text, score=self._likelihood.text((*self._path, path, "value"))
        )

    def _artists(self, value: object) -> FieldAnswer:
        if not isinstance(value, list) or len(value) > _MOST_ARTISTS:
            raise InvalidAnswerError("artists is not a short list")
        names, scores = [], []
        for index, entry in enumerate(value):
            artist = _keys(entry, {"name", "role"}, "an artist")
            name, role = artist["name"], artist["role"]
            if not isinstance(name, str) or len(name) > _TEXT_CHARACTERS or role not in ROLES:
                raise InvalidAnswerError("an artist is not a short name with a role of the list")
            names.append((self._grounded(name), role))
            scores.append(self._likelihood.text((*self._path, "artists", "value", index, "name")))
        if not names:
            return _doubt("artists", "could not tell")
        # What joins artists, and what states a role, must not come out of a name.
        if any(not n or ";" in n or _ROLE_AT_END.search(n) for n, _ in names):
            return _doubt("artists", _UNGROUNDED)
        text = "; ".join(name if role == "main" else f"{name} ({role})" for name, role in names)
        return FieldAnswer(path="artists", value=text, score=min(scores))

    def _grounded(self, value: str) -> str:
        """Return a text as it may be claimed; empty unless its words are in one of the data's."""
        text = " ".join(clean(value).split())
        if not text or len(text.encode()) > _TEXT_BYTES or _LINK.search(text):
            return ""
        if self._sources is None:
            found = texts(self._question)
            self._sources = [
                (" ".join(clean(source).split()), _words(source))
                for place, source in found.items()
                if place.startswith(_GROUNDS)
            ]
        words = _words(text)
        if not words:
            return text if any(text in source for source, _ in self._sources) else ""
        return text if any(words <= known for _, known in self._sources) else ""


def _doubt(path: str, doubt: str) -> FieldAnswer:
    return FieldAnswer(path=path, value="", doubt=doubt)


def _keys(value: object, names: Set[str], what: str) -> dict[str, Any]:
    if not isinstance(value, dict) or value.keys() != names:
        raise InvalidAnswerError(f"{what} has not exactly the keys {', '.join(sorted(names))}")
    return value


def _share(value: object, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise InvalidAnswerError(f"{what} is not a number from 0 to 1")
    return float(value)


def _words(text: str) -> Counter[str]:
    """The words of a text, without case and accents, and how often each occurs."""
    folded = unicodedata.normalize("NFKD", clean(text, most=4096)).casefold()
    bare = "".join(c for c in folded if unicodedata.category(c) != "Mn")
    return Counter(_WORD.findall(bare))


@lru_cache(maxsize=256)
def _language(value: str) -> str:
    """Return the standard tag of a language; empty for what names none."""
    import langcodes

    tag = value.strip()
    if len(tag) > 35 or not tag.isascii() or not langcodes.tag_is_valid(tag):
        return ""
    standard = str(langcodes.standardize_tag(tag))
    return "" if standard == "und" else standard
