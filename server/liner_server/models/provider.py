"""A model provider over any OpenAI-compatible endpoint: Qwen2-Audio and OpenAI differ in settings.

Questions without excerpts may share a prompt. What comes back is checked for each track on its
own; what is missing or invalid is asked about once more, and a prompt that spoils every answer
is halved until the track that does it stands alone. Each such call is taken from the retry
budget of the call it is made for.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from liner.v1 import track_pb2

from liner_server.core.calibration import Calibrated, Calibration
from liner_server.core.claims import ProviderAnswer
from liner_server.core.costs import Prices, Spent
from liner_server.errors import LinerError, ProviderError
from liner_server.models import prompt, windows
from liner_server.models.answer import (
    FieldAnswer,
    InvalidAnswerError,
    calibration_source,
    claims,
    parse,
)
from liner_server.models.chat import Chat, ChatCall, estimated_tokens
from liner_server.models.faults import refused
from liner_server.models.packing import packs
from liner_server.models.probing import Probe, probe
from liner_server.models.transport import Endpoint
from liner_server.ports import Question

_RIVAL_BYTES = 90
"""Of one log-probability in a reply: the token, its bytes one by one, the number."""

_HONEST = 2.5
"""How many times over the limit of tokens covers what an honest answer takes."""


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """Which models answer under one name, and how they are asked."""

    name: str
    """Of the provider: "qwen2", "openai"."""

    text_model: str
    audio_model: str = ""
    """Asked when there are excerpts; empty for a provider that reads only."""

    excerpts: int = 2
    """Most excerpts of a track that are sent."""

    top_logprobs: int = 20
    """Rivals asked for at each token; 0 for no log-probabilities."""

    pack: int = 8
    """Most tracks that share a prompt."""


@dataclass(kw_only=True)
class _Asked:
    """One question on its way, and what it has cost so far."""

    question: Question
    usage: track_pb2.Usage = field(default_factory=track_pb2.Usage)
    calls: int = 0
    result: ProviderAnswer | LinerError | None = None

    @property
    def retries(self) -> int:
        """Calls beyond the first."""
        return max(0, self.calls - 1)

    def lose(self) -> None:
        """Count what it cost as spent for no answer."""
        self.question.lost.add(self.usage, self.retries)


class ChatProvider:
    """Answers from a language model, with or without ears; close it with `aclose`."""

    def __init__(
        self,
        endpoint: Endpoint,
        settings: ModelSettings,
        *,
        calibration: Calibration,
        prices: Prices,
        spent: Callable[[Spent], None],
    ) -> None:
        self._settings = settings
        self._reply_bytes = endpoint.max_reply_bytes
        self._calibration = calibration
        self._prices = prices
        self._spent = spent
        self._chat = Chat(endpoint, meter=self._meter)
        self._hears = bool(settings.audio_model)

    @property
    def name(self) -> str:
        """Short and stable."""
        return self._settings.name

    @property
    def version(self) -> str:
        """Models, prompt and calibration: whatever may change an answer."""
        settings = self._settings
        ears = f"/{settings.audio_model}x{settings.excerpts}" if self._hears else ""
        versions = f"{prompt.PROMPT_VERSION}+{self._calibration.version}"
        return f"{settings.text_model}{ears}+{versions}"

    @property
    def hears_audio(self) -> bool:
        """Whether excerpts are sent: configured, and not refused when probed."""
        return self._hears

    @property
    def fields(self) -> Sequence[str]:
        """Paths it may answer; no code, and nothing that is measured."""
        return prompt.ANSWERABLE

    def calibration_source(self, *, heard: bool) -> str:
        """Return the source under which its scores are fitted: provider, model and prompt."""
        return calibration_source(self.name, self._model(heard=heard))

    def answerable(self, question: Question) -> frozenset[str]:
        """Return the fields wanted of which the data can tell."""
        return prompt.askable(question, hears=self._hears)

    def ceiling(self, path: str, *, heard: bool) -> Calibrated:
        """Return the highest confidence that its curve for a field allows, or the unfitted cap."""
        return self._calibration.ceiling(path, self.calibration_source(heard=heard and self._hears))

    def estimate(self, question: Question) -> Decimal:
        """Return the most that asking one question is reckoned to cost, in US dollars."""
        fields = prompt.askable(question, hears=self._hears)
        if not fields:
            return Decimal(0)
        call = self._call([question], fields, problem="", deaf=True)
        heard = self._listens(question)
        excerpts = question.audio_wav[: self._settings.excerpts] if heard else ()
        most = track_pb2.Usage(
            prompt_tokens=estimated_tokens(call.messages)
            + sum(len(excerpt) // windows.BYTES_A_TOKEN + 1 for excerpt in excerpts),
            completion_tokens=call.max_tokens,
        )
        return self._prices.of(self._model(heard=heard)).cost(most)

    async def probe(self, *, deadline: float) -> Probe:
        """Ask the endpoint which models it has, and whether it takes sound; remember the latter.

        Never raises for what an endpoint does. Until it is called, hearing is taken on trust.
        """
        found = await probe(
            self._chat,
            text_model=self._settings.text_model,
            audio_model=self._settings.audio_model,
            deadline=deadline,
        )
        if found.hears_audio is not None:
            self._hears = found.hears_audio
        return found

    async def propose(self, question: Question) -> ProviderAnswer:
        """Return what the model claims of one track.

        Raises:
            ProviderError: with one of the reasons of `faults`.
            DeadlineError: it could not answer in time.

        """
        [result] = await self.propose_many([question])
        if isinstance(result, LinerError):
            raise result
        return result

    async def propose_many(
        self, questions: Sequence[Question]
    ) -> list[ProviderAnswer | LinerError]:
        """Return an answer or an error for each question, in their order.

        Those that want the same fields and have no excerpts share prompts; a shared prompt ends
        at the earliest of their deadlines.

        Raises:
            ProviderError, DeadlineError: not one of them was answered.

        """
        asked = [_Asked(question=question) for question in questions]
        fields = [prompt.askable(question, hears=self._hears) for question in questions]
        together = [
            ([asked[place] for place in places], fields[places[0]])
            for places in packs(questions, fields, most=self._settings.pack, alone=self._listens)
        ]
        try:
            if len(together) == 1:
                await self._ask(*together[0])
            else:
                async with asyncio.TaskGroup() as group:
                    for pack, wanted in together:
                        group.create_task(self._ask(pack, wanted))
        except BaseException:
            for one in asked:
                one.lose()
            raise
        results = [one.result or self._answer(one, [], heard=False) for one in asked]
        for one, result in zip(asked, results, strict=True):
            if isinstance(result, LinerError):
                one.lose()
        errors = [result for result in results if isinstance(result, LinerError)]
        if errors and len(errors) == len(results):
            # The one that is worth another try says most about the endpoint.
            raise next((error for error in errors if error.retryable), errors[0])
        return results

    async def aclose(self) -> None:
        """Close every connection."""
        await self._chat.aclose()

    async def _ask(
        self,
        pack: Sequence[_Asked],
        fields: frozenset[str],
        *,
        problem: str = "",
        deaf: bool = False,
    ) -> None:
        """Set a result in each of the pack; `problem` is what was wrong with the answer before."""
        try:
            call = self._call([one.question for one in pack], fields, problem=problem, deaf=deaf)
        except windows.ExcerptError:
            what = "is not asked: the excerpts of the sound are not as a model hears them"
            _settle(pack, refused(self.name, "MODEL_EXCERPT_INVALID", what))
            return
        try:
            deadline = min(one.question.context.deadline for one in pack)
            for one in pack:
                one.calls += 1
            reply = await self._chat.complete(call, deadline=deadline)
        except ProviderError as error:
            self._share_cost(error.tokens, call.model, pack)
            await self._after_failure(error, pack, fields, deaf=deaf)
            return
        except LinerError as error:
            _settle(pack, error)
            return
        self._share_cost((reply.prompt_tokens, reply.completion_tokens), call.model, pack)
        named = dict(zip(prompt.ids(len(pack)), pack, strict=True))
        try:
            answers = parse(reply, {name: one.question for name, one in named.items()}, fields)
        except InvalidAnswerError as error:
            await self._again(pack, fields, str(error), repaired=bool(problem), deaf=deaf)
            return
        for name, found in answers.by_id.items():
            one = named[name]
            heard = self._listens(one.question) and not deaf
            one.result = self._answer(one, found, heard=heard)
        if answers.faults:
            left = [named[name] for name in answers.faults]
            fault = next(iter(answers.faults.values()))
            if problem:
                _settle(left, self._invalid())
            elif _may_try_again(left):
                await self._ask(left, fields, problem=fault, deaf=deaf)
            else:
                _settle(left, self._invalid())

    async def _after_failure(
        self, error: ProviderError, pack: Sequence[_Asked], fields: frozenset[str], *, deaf: bool
    ) -> None:
        """Halve a prompt that one of its tracks may have spoiled; ask a deaf endpoint in text."""
        if error.of_question and len(pack) > 1:
            await self._halve(pack, fields, error)
        elif (
            error.reason == "MODEL_REQUEST_REFUSED" and not deaf and self._listens(pack[0].question)
        ):
            fields = prompt.askable(pack[0].question, hears=False) & fields
            if fields and _may_try_again(pack):
                await self._ask(pack, fields, deaf=True)
            else:
                _settle(pack, error)
        else:
            _settle(pack, error)

    async def _again(
        self,
        pack: Sequence[_Asked],
        fields: frozenset[str],
        problem: str,
        *,
        repaired: bool,
        deaf: bool,
    ) -> None:
        """Do what is left after an answer of which nothing can be used."""
        if len(pack) > 1:
            await self._halve(pack, fields, self._invalid())
        elif not repaired and _may_try_again(pack):
            await self._ask(pack, fields, problem=problem, deaf=deaf)
        else:
            _settle(pack, self._invalid())

    async def _halve(
        self, pack: Sequence[_Asked], fields: frozenset[str], error: ProviderError
    ) -> None:
        # One after the other: an endpoint in trouble is not asked twice as fast.
        middle = len(pack) // 2
        for half in (pack[:middle], pack[middle:]):
            if _may_try_again(half):
                await self._ask(half, fields)
            else:
                _settle(half, error)

    def _call(
        self, questions: Sequence[Question], fields: frozenset[str], *, problem: str, deaf: bool
    ) -> ChatCall:
        names = prompt.ids(len(questions))
        heard = self._listens(questions[0]) and not deaf
        audio = windows.parts(questions[0].audio_wav, most=self._settings.excerpts) if heard else ()
        messages = prompt.messages(
            dict(zip(names, questions, strict=True)),
            fields,
            calibration=self._calibration,
            audio=audio,
        )
        if problem:
            messages.append(prompt.repair(problem, names))
        most_tokens = prompt.most_tokens(fields, len(questions))
        return ChatCall(
            model=self._model(heard=heard),
            messages=messages,
            response_formats=prompt.response_formats(fields, len(questions)),
            max_tokens=most_tokens,
            top_logprobs=self._rivals(most_tokens),
        )

    def _rivals(self, most_tokens: int) -> int:
        """Return how many rivals a token may have so that a whole reply still may be read.

        Twenty for each token of eight tracks would be several times the answer's limit of bytes.
        """
        room = self._reply_bytes * _HONEST / (most_tokens * _RIVAL_BYTES)
        return max(0, min(self._settings.top_logprobs, int(room) - 1))

    def _listens(self, question: Question) -> bool:
        return self._hears and bool(question.audio_wav) and self._settings.excerpts > 0

    def _model(self, *, heard: bool) -> str:
        return self._settings.audio_model if heard else self._settings.text_model

    def _answer(self, one: _Asked, found: Sequence[FieldAnswer], *, heard: bool) -> ProviderAnswer:
        sound = " and excerpts of the sound" if heard else ""
        return ProviderAnswer(
            claims=claims(
                found,
                provider=self.name,
                model=self._model(heard=heard),
                calibration=self._calibration,
                reason=f"judged from the metadata{sound}",
            ),
            model_version=self.version,
            prompt_version=prompt.PROMPT_VERSION,
            usage=one.usage,
            retry_count=one.retries,
        )

    def _share_cost(self, tokens: tuple[int, int], model: str, pack: Sequence[_Asked]) -> None:
        """Count a call's tokens to those it was made for, so that the sums stay true."""
        prompts, completions = (_shares(total, len(pack)) for total in tokens)
        for one, sent, received in zip(pack, prompts, completions, strict=True):
            usage = track_pb2.Usage(prompt_tokens=sent, completion_tokens=received)
            one.usage.prompt_tokens += sent
            one.usage.completion_tokens += received
            one.usage.cost_usd += float(self._prices.of(model).cost(usage))

    def _meter(self, model: str, prompt_tokens: int, completion_tokens: int) -> None:
        usage = track_pb2.Usage(prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)
        usd = self._prices.of(model).cost(usage)
        usage.cost_usd = float(usd)
        self._spent(Spent(provider=self.name, model=model, usage=usage, usd=usd))

    def _invalid(self) -> ProviderError:
        return refused(self.name, "MODEL_ANSWER_INVALID", "answered, but not what was asked for")


def _settle(pack: Sequence[_Asked], error: LinerError) -> None:
    for one in pack:
        one.result = error


def _may_try_again(pack: Sequence[_Asked]) -> bool:
    """Whether the call this is done for may afford one more to the endpoint."""
    return pack[0].question.context.retry_budget.withdraw()


def _shares(total: int, count: int) -> list[int]:
    each, rest = divmod(total, count)
    return [each + (index < rest) for index in range(count)]
