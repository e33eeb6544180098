"""JSON as a hostile model writes it: read strictly, and with the place of every value.

`json.loads` takes NaN, Infinity, 1e999 and a key given twice; none of them is an answer.
"""

import json
import math
import re
from collections.abc import Iterator
from typing import Any

Path = tuple[str | int, ...]
"""Where a value is: keys and indexes from the top."""

Span = tuple[int, int]
"""First character and the one after the last, as in a slice."""

_SPACE = re.compile(r"[ \t\n\r]*")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_ATOM = re.compile(r"[^\s,\]}]+")
_MAX_DEPTH = 32


class NotJSONError(ValueError):
    """A text that is not one JSON value, or one that strict JSON does not know."""


def loads(text: str | bytes) -> Any:
    """Return the value that a JSON text states.

    Raises:
        NotJSONError: it is none, holds a number that is not finite, or names a key twice.

    """
    try:
        return json.loads(
            text, parse_constant=_refuse, parse_float=_finite, object_pairs_hook=_unique
        )
    except (ValueError, RecursionError):
        # The error may quote the model, and would be logged with its cause.
        raise NotJSONError("not strict JSON") from None


def spans(text: str) -> dict[Path, Span]:
    """Return where each string, number and constant is in a JSON text that `loads` accepted.

    A string's span leaves out its quotes.
    """
    return dict(_value(text, _SPACE.match(text).end(), (), []))  # type: ignore[union-attr]


def _value(text: str, start: int, path: Path, end: list[int]) -> Iterator[tuple[Path, Span]]:
    """Yield the spans of the value at `start`; `end` then holds where it ends."""
    if len(path) > _MAX_DEPTH:
        raise NotJSONError("nested too deeply")
    if text[start] in "{[":
        yield from _container(text, start, path, end)
        return
    if text[start] == '"':
        stop = _skip(_STRING, text, start)
        yield path, (start + 1, stop - 1)
    else:
        stop = _skip(_ATOM, text, start)
        yield path, (start, stop)
    end[:] = [stop]


def _container(text: str, start: int, path: Path, end: list[int]) -> Iterator[tuple[Path, Span]]:
    is_object = text[start] == "{"
    here, index = _skip(_SPACE, text, start + 1), 0
    while text[here] not in "}]":
        name: str | int = index
        if is_object:
            stop = _skip(_STRING, text, here)
            name = json.loads(text[here:stop])
            here = _skip(_SPACE, text, _skip(_SPACE, text, stop) + 1)
        yield from _value(text, here, (*path, name), end)
        here = _skip(_SPACE, text, end[0])
        if text[here] == ",":
            here = _skip(_SPACE, text, here + 1)
        index += 1
    end[:] = [here + 1]


def _skip(pattern: re.Pattern[str], text: str, start: int) -> int:
    match = pattern.match(text, start)
    if match is None:
        raise NotJSONError("not JSON")
    return match.end()


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(number)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key comes twice")
    return found
