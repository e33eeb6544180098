"""How probable a model found what it wrote, from the log-probabilities of its tokens.

Tokens are laid along the bytes of the content, so that each value's own tokens are found by where
the value stands in the JSON text, whatever the tokens' borders are.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence

from liner_server.models import strict
from liner_server.models.chat import ChatReply, Token
from liner_server.models.prompt import UNKNOWN

DEFAULT_SCORE = 0.5
"""Score of a value without log-probabilities: a rule, fitted to nothing. It lets the value be
proposed, and never filled at the default min_confidence."""

_MOST_OTHERS = 5


class Likelihood:
    """How probable a model found the values it wrote, by the log-probabilities of its tokens.

    Falsy, and with `DEFAULT_SCORE` for everything, when there are none, or when they are not
    those of the content.
    """

    def __init__(self, reply: ChatReply, start: int, text: str) -> None:
        self._text = text
        self._before = len(reply.content[:start].encode("utf-8", "replace"))
        self._spans: dict[strict.Path, strict.Span] = {}
        self._tokens: list[tuple[int, Token]] = []
        at = 0
        whole = reply.content.encode("utf-8", "replace")
        for token in reply.tokens:
            if whole[at : at + len(token.data)] != token.data:
                break
            self._tokens.append((at, token))
            at += len(token.data)
        # Some servers count the mark that ends the answer as its last token.
        if at != len(whole):
            self._tokens = []
        if self._tokens:
            try:
                self._spans = strict.spans(text)
            except strict.NotJSONError:
                # Nested deeper than any answer is: it will be refused for its form.
                self._tokens = []
        self._starts = [at for at, _ in self._tokens]

    def __bool__(self) -> bool:
        return bool(self._tokens)

    def text(self, path: strict.Path) -> float:
        """Return the probability of a free text, the product over its tokens."""
        places = self._places(path)
        return math.exp(sum(t.logprob for _, t in places)) if places else DEFAULT_SCORE

    def choice(
        self, path: strict.Path, value: str, labels: Sequence[str]
    ) -> tuple[float, tuple[tuple[str, float], ...]]:
        """Return the probability of a label among all labels, and that of its rivals.

        At each token only those rivals count that could still become one of the labels: what a
        grammar would have forbidden takes nothing from the chosen one.
        """
        span = self._spans.get(path)
        if span is None or self._text[slice(*span)] != value:
            return DEFAULT_SCORE, ()
        first = self._offset(span[0])
        wanted = value.encode()
        ends = {label: label.encode() + b'"' for label in labels}
        probability, others = 1.0, dict[str, float]()
        for at, token in self._places(path):
            lead = token.data[: max(0, first - at)]
            prefix = wanted[: max(0, at - first)]
            rivals = dict(token.rivals) | {token.data: token.logprob}
            allowed, here = 0.0, dict[str, float]()
            for data, logprob in rivals.items():
                if not data.startswith(lead):
                    continue
                whole = prefix + data[len(lead) :]
                fits = [n for n, e in ends.items() if e.startswith(whole) or whole.startswith(e)]
                allowed += math.exp(logprob) if fits else 0.0
                if len(fits) == 1 and fits[0] != value:
                    here[fits[0]] = here.get(fits[0], 0.0) + math.exp(logprob)
            # A server may say -9999 for what it wrote under a grammar: then nothing is known.
            if allowed <= 0:
                return DEFAULT_SCORE, ()
            for label, mass in here.items():
                others[label] = others.get(label, 0.0) + probability * mass / allowed
            probability *= math.exp(token.logprob) / allowed
        named = [(n, p) for n, p in others.items() if n != UNKNOWN]
        best = sorted(named, key=lambda item: -item[1])[:_MOST_OTHERS]
        return min(1.0, probability), tuple(best)

    def _places(self, path: strict.Path) -> list[tuple[int, Token]]:
        """The tokens that a value's characters come from, with the byte each starts at."""
        span = self._spans.get(path)
        if span is None:
            return []
        first, last = self._offset(span[0]), self._offset(span[1])
        index = max(0, bisect_right(self._starts, first) - 1)
        places = []
        for at, token in self._tokens[index:]:
            if at >= last:
                break
            if at + len(token.data) > first:
                places.append((at, token))
        return places

    def _offset(self, character: int) -> int:
        text = self._text[:character]
        return self._before + (
            character if text.isascii() else len(text.encode("utf-8", "replace"))
        )
