"""A model provider that does what a test tells it, in this process: models are faked, ports not."""

import asyncio
from collections.abc import Callable, Sequence
from decimal import Decimal

from liner.v1 import track_pb2
from liner_server.core.calibration import Calibrated
from liner_server.core.claims import Claim, ProviderAnswer
from liner_server.errors import LinerError
from liner_server.ports import Question

Act = Callable[[Question], ProviderAnswer | LinerError]


def says(model: str, confidence: float = 0.9, **fields: str) -> ProviderAnswer:
    """Return an answer that claims these fields with this fitted confidence."""
    return ProviderAnswer(
        claims=[
            Claim(
                field=path,
                value=value,
                source=track_pb2.SOURCE_MODEL,
                confidence=confidence,
                basis=track_pb2.CONFIDENCE_BASIS_CALIBRATED,
                model=model,
            )
            for path, value in fields.items()
        ],
        model_version=f"{model}-1",
        prompt_version="p1",
        usage=track_pb2.Usage(prompt_tokens=100, completion_tokens=10),
    )


class ActingModel:
    """A provider whose answers are a function of the question; `asked` tells what it was asked."""

    hears_audio = False

    def __init__(
        self,
        name: str,
        act: Act,
        *,
        fields: Sequence[str] = ("genre", "moods", "language"),
        seconds: float = 0.0,
        price: Decimal = Decimal(0),
    ) -> None:
        self.name = name
        self.version = f"{name}-1"
        self.fields = fields
        self.asked: list[Question] = []
        self.packs: list[int] = []
        """Questions of each call."""
        self.open = 0
        """Calls being answered now."""
        self.most_open = 0
        self._act = act
        self._seconds = seconds
        self._price = price

    def answerable(self, question: Question) -> frozenset[str]:
        """Return the fields wanted that it answers."""
        return frozenset(self.fields) & (question.fields or frozenset(self.fields))

    def ceiling(self, path: str, *, heard: bool) -> Calibrated:
        """It may be as sure as a fitted model can be."""
        return Calibrated(probability=0.99, basis=track_pb2.CONFIDENCE_BASIS_CALIBRATED)

    def estimate(self, question: Question) -> Decimal:
        """Return the price of one question."""
        return self._price

    async def propose(self, question: Question) -> ProviderAnswer:
        """Act on one question."""
        [answer] = await self.propose_many([question])
        if isinstance(answer, LinerError):
            raise answer
        return answer

    async def propose_many(
        self, questions: Sequence[Question]
    ) -> list[ProviderAnswer | LinerError]:
        """Act on each question, in one call."""
        self.asked += questions
        self.packs.append(len(questions))
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            if self._seconds:
                await asyncio.sleep(self._seconds)
            return [self._act(question) for question in questions]
        finally:
            self.open -= 1
