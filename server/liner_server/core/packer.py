"""Puts questions about several tracks into one call, when they come close together.

A prompt's fixed part costs more than a track's own, so a batch without audio is asked in packs.
A pack leaves when it is full, or when nobody has joined it for a moment.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from liner_server.ports import Question

_T = TypeVar("_T")

LINGER_SECONDS = 0.01
"""How long a pack that is not full waits for one more question."""


@dataclass
class _Pack(Generic[_T]):
    questions: list[Question] = field(default_factory=list)
    futures: "list[asyncio.Future[_T]]" = field(default_factory=list)
    until: float = float("inf")
    timer: asyncio.TimerHandle | None = None
    call: "asyncio.Task[None] | None" = None

    def drop_the_gone(self) -> None:
        """Leave out the questions whose callers left before the pack did."""
        staying = [i for i, future in enumerate(self.futures) if not future.done()]
        self.questions = [self.questions[i] for i in staying]
        self.futures = [self.futures[i] for i in staying]


class Packer(Generic[_T]):
    """Collects questions for one provider; `ask` answers a pack, in order, by a deadline."""

    def __init__(
        self, ask: Callable[[Sequence[Question], float], Awaitable[Sequence[_T]]], *, most: int
    ) -> None:
        self._ask = ask
        self._most = most
        self._open: dict[tuple[str, frozenset[str]], _Pack[_T]] = {}
        self._calls: set[asyncio.Task[None]] = set()

    async def ask(self, question: Question, until: float) -> _T:
        """Return what the pack's call yields for one question.

        The pack's deadline is the earliest of its questions. A caller who leaves does not take
        the pack along; one that everybody left is not asked, or no longer.
        """
        loop = asyncio.get_running_loop()
        # One prompt asks for the same fields of all its tracks, and they are one caller's: what
        # somebody writes into a title may sway a model's words on the tracks beside it.
        alike = (question.context.principal.name, question.fields)
        pack = self._open.setdefault(alike, _Pack())
        future: asyncio.Future[_T] = loop.create_future()
        pack.questions.append(question)
        pack.futures.append(future)
        pack.until = min(pack.until, until)
        if pack.timer is not None:
            pack.timer.cancel()
        if len(pack.questions) >= self._most:
            self._leave(alike)
        else:
            pack.timer = loop.call_later(LINGER_SECONDS, self._leave, alike)
        try:
            return await future
        finally:
            if pack.call is not None and all(other.cancelled() for other in pack.futures):
                pack.call.cancel()

    def _leave(self, alike: tuple[str, frozenset[str]]) -> None:
        pack = self._open.pop(alike)
        if pack.timer is not None:
            pack.timer.cancel()
        pack.drop_the_gone()
        if pack.questions:
            pack.call = asyncio.create_task(self._answer(pack))
            self._calls.add(pack.call)
            pack.call.add_done_callback(self._calls.discard)

    async def _answer(self, pack: _Pack[_T]) -> None:
        try:
            answers = await self._ask(pack.questions, pack.until)
        except BaseException as error:
            for future in pack.futures:
                if not future.done():
                    future.set_exception(error)
            if isinstance(error, asyncio.CancelledError):
                raise
            return
        for future, answer in zip(pack.futures, answers, strict=True):
            if not future.done():
                future.set_result(answer)
