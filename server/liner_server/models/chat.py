"""One chat completion at an OpenAI-compatible endpoint, by the official client: no more than one.

Whatever the endpoint does, a call ends at its deadline, reads a bounded number of bytes and
raises one of our errors. Nothing is retried here: the router decides on that. The one exception
is a parameter that an endpoint does not know (log-probabilities, a schema): it is left out in a
second request, and from then on if that one is taken.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, TypeGuard

import httpx2
import openai

from liner_server import tracing
from liner_server.errors import DeadlineError, ProviderError
from liner_server.models import strict
from liner_server.models.faults import failed, from_client, refused
from liner_server.models.transport import CappedClient, Endpoint
from liner_server.models.windows import BYTES_A_TOKEN

_PLAIN = openai.RequestOptions(
    headers={},
    params={},
    max_retries=0,
    timeout=None,
    security={"bearer_auth": True},
)
"""Said outright: what the client has to assume it copies for every call."""

_NO_FORM = 2

_MOST_TOKENS = 1_000_000_000
_MOST_PLACES = 20_000


@dataclass(frozen=True, kw_only=True)
class ChatCall:
    """What one completion is asked for."""

    model: str
    messages: Sequence[Mapping[str, Any]]
    max_tokens: int
    response_formats: Sequence[str] = ()
    """Strict JSON schemas as JSON, written once for all calls that want the same. The most exact
    comes first: an endpoint that does not take it gets the next, and at last none."""

    top_logprobs: int = 0
    """Rivals whose log-probabilities are asked for at each token; 0 asks for none."""


@dataclass(frozen=True)
class Token:
    """One token of an answer, and how probable it was among which others."""

    data: bytes
    logprob: float
    rivals: tuple[tuple[bytes, float], ...] = ()
    """The most probable tokens at this place, this one among them if it is one."""


@dataclass(frozen=True, kw_only=True)
class ChatReply:
    """What a model said."""

    content: str
    tokens: tuple[Token, ...] = ()
    """Empty when the endpoint gives no log-probabilities."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


Meter = Callable[[str, int, int], None]
"""Told of every reply, also of one that is no answer: model, prompt and completion tokens."""


@dataclass(frozen=True)
class _Dialect:
    """What an endpoint takes for one model, as far as it was found out."""

    logprobs: bool = True
    temperature: bool = True
    form: int = 0
    """Which of a call's response formats; none when it has fewer."""

    limit: str = "max_tokens"

    def without(self, error: openai.APIStatusError) -> "_Dialect | None":
        """Return the dialect that leaves out what the error complains about, if that can be told.

        The text is only searched: it may quote the prompt, so what it says is believed no further
        than the next request proves it.
        """
        about = f"{error.param or ''} {error.message[:500]}".lower()
        if self.logprobs and "logprob" in about:
            return replace(self, logprobs=False)
        if self.limit == "max_tokens" and "max_completion_tokens" in about:
            return replace(self, limit="max_completion_tokens")
        if self.temperature and "temperature" in about:
            return replace(self, temperature=False)
        if self.form < _NO_FORM and any(w in about for w in ("schema", "minitems", "maxitems")):
            return replace(self, form=self.form + 1)
        if self.form < _NO_FORM and "response_format" in about:
            return replace(self, form=_NO_FORM)
        return None


class _Client(openai.AsyncOpenAI):
    """The official client, but for the request: `CappedClient` has address and headers ready.

    What the client makes of both for every call is thrown away there, and took a tenth of it.
    Should a later release build requests elsewhere, they come out the same and cost that again.
    """

    def _build_request(self, options: Any, *, retries_taken: int = 0) -> httpx2.Request:
        return self._client.build_request(options.method, options.url, content=options.content)


class Chat:
    """Calls one endpoint; close it with `aclose`."""

    def __init__(self, endpoint: Endpoint, *, meter: Meter) -> None:
        self._endpoint = endpoint
        self._meter = meter
        self._dialects: dict[str, _Dialect] = {}
        # Whole: nothing puts them together for a call.
        root = endpoint.base_url.rstrip("/")
        self._completions, self._models = f"{root}/chat/completions", f"{root}/models"
        self._client = _Client(
            base_url=endpoint.base_url,
            # The client refuses an empty one; `CappedClient` sends what is really set.
            api_key=endpoint.api_key or "none",
            max_retries=0,
            http_client=CappedClient(endpoint),
        )

    async def complete(self, call: ChatCall, *, deadline: float) -> ChatReply:
        """Return the model's answer before `deadline`, in the loop's time.

        Raises:
            ProviderError: with one of the reasons of `faults`.
            DeadlineError: the deadline passed; the connection is closed.

        """
        with tracing.span(
            f"chat {call.model}",
            tracing.Kind.CLIENT,
            attributes={
                "gen_ai.operation.name": "chat",
                "gen_ai.provider.name": self._endpoint.provider,
                "gen_ai.request.model": call.model,
            },
        ) as span:
            reply = await self._completed(call, deadline)
            span.note(
                {
                    "gen_ai.usage.input_tokens": reply.prompt_tokens,
                    "gen_ai.usage.output_tokens": reply.completion_tokens,
                }
            )
            return reply

    async def _completed(self, call: ChatCall, deadline: float) -> ChatReply:
        dialect = self._dialects.get(call.model, _Dialect())
        async with _until(deadline, self._endpoint.provider):
            while True:
                try:
                    response = await self._post(call, dialect)
                except openai.APIStatusError as error:
                    simpler = dialect.without(error) if error.status_code in (400, 422) else None
                    if simpler is None:
                        raise self._ours(error) from None
                    dialect = simpler
                except Exception as error:
                    raise self._ours(error) from None
                else:
                    break
        self._dialects[call.model] = dialect
        return self._read(response, call)

    async def models(self, *, deadline: float) -> tuple[str, ...]:
        """Return the names of the endpoint's models.

        Raises:
            ProviderError, DeadlineError: as `complete`.

        """
        async with _until(deadline, self._endpoint.provider):
            try:
                response = await self._client.get(self._models, cast_to=httpx2.Response)
            except Exception as error:
                raise self._ours(error) from None
        try:
            rows = strict.loads(response.content)["data"]
            return tuple(str(row["id"])[:256] for row in rows[:1000])
        except (KeyError, TypeError, ValueError):
            raise self._broken() from None

    async def aclose(self) -> None:
        """Close every connection."""
        await self._client.close()

    async def _post(self, call: ChatCall, dialect: _Dialect) -> httpx2.Response:
        # Put together from texts: what every call says alike is written as JSON once.
        parts = [
            f'"model":{_json(call.model)}',
            f'"messages":[{",".join(map(_message, call.messages))}]',
            f'"{dialect.limit}":{call.max_tokens}',
        ]
        if dialect.temperature:
            parts.append('"temperature":0')
        if dialect.form < len(call.response_formats):
            parts.append(f'"response_format":{call.response_formats[dialect.form]}')
        if call.top_logprobs and dialect.logprobs:
            parts.append(f'"logprobs":true,"top_logprobs":{call.top_logprobs}')
        # The client's `create` would walk through all of it and build the reply's whole tree of
        # models: twice the work of the call.
        return await self._client.post(
            self._completions,
            content=f"{{{','.join(parts)}}}".encode("utf-8", "replace"),
            cast_to=httpx2.Response,
            options=_PLAIN,
        )

    def _read(self, response: httpx2.Response, call: ChatCall) -> ChatReply:
        """Return the answer in a reply, every part of it checked."""
        provider = self._endpoint.provider
        try:
            reply = strict.loads(response.content)
            [choice] = reply["choices"]
            message, finish = choice["message"], choice["finish_reason"]
            content, refusal = message.get("content"), message.get("refusal")
        except (KeyError, TypeError, ValueError, AttributeError):
            raise self._broken() from None
        said = content if isinstance(content, str) else ""
        prompt_tokens, completion_tokens = _usage(reply.get("usage"), call, said)
        self._meter(call.model, prompt_tokens, completion_tokens)
        error: ProviderError | None = None
        if refusal or finish == "content_filter":
            error = refused(provider, "MODEL_DECLINED", "declined to answer")
        elif finish == "length":
            error = refused(provider, "MODEL_ANSWER_CUT", "was cut off at its limit of tokens")
        elif finish != "stop":
            error = self._broken()
        elif not said.strip():
            error = failed(provider, "MODEL_REPLY_BROKEN", "answered with nothing")
        if error is not None:
            error.tokens = (prompt_tokens, completion_tokens)
            raise error
        return ChatReply(
            content=said,
            tokens=_tokens(choice.get("logprobs")),
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
        )

    def _ours(self, error: Exception) -> ProviderError:
        return from_client(error, provider=self._endpoint.provider)

    def _broken(self) -> ProviderError:
        what = "answered with what is no chat completion"
        return failed(self._endpoint.provider, "MODEL_REPLY_BROKEN", what)


def _message(message: Mapping[str, Any]) -> str:
    """Return a message as JSON; the instructions, which never change, are kept so."""
    content = message["content"]
    written = _instructions if message["role"] == "system" else _json
    return f'{{"role":"{message["role"]}","content":{written(content)}}}'


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


_instructions = lru_cache(maxsize=16)(_json)


@asynccontextmanager
async def _until(deadline: float, provider: str) -> AsyncIterator[None]:
    """End what is inside at a deadline, and say so in our own words."""
    error = DeadlineError(
        f"the model {provider} did not answer before the deadline", reason="DEADLINE"
    )
    if deadline <= asyncio.get_running_loop().time():
        raise error
    try:
        async with asyncio.timeout_at(deadline):
            yield
    except TimeoutError:
        raise error from None


def _usage(usage: object, call: ChatCall, said: str) -> tuple[int, int]:
    """Return the tokens of a call; reckoned, rather too high, where the endpoint counts none."""
    counted = usage if isinstance(usage, dict) else {}
    prompt, completion = counted.get("prompt_tokens"), counted.get("completion_tokens")
    return (
        prompt if _is_count(prompt) else estimated_tokens(call.messages),
        completion if _is_count(completion) else len(said) // 3 + 1,
    )


def estimated_tokens(messages: Sequence[Mapping[str, Any]]) -> int:
    """Return about how many tokens a conversation is, rather too many."""
    total = 0
    for message in messages:
        content: str | list[dict[str, Any]] = message["content"]
        parts: list[dict[str, Any]] = [{"text": content}] if isinstance(content, str) else content
        for part in parts:
            if "text" in part:
                total += len(part["text"]) // 3
            else:
                total += len(part["input_audio"]["data"]) * 3 // 4 // BYTES_A_TOKEN + 1
    return total + 1


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_TOKENS


def _tokens(logprobs: object) -> tuple[Token, ...]:
    """The log-probabilities of an answer; none at all if any of them makes no sense."""
    try:
        places = logprobs["content"]  # type: ignore[index]
        if len(places) > _MOST_PLACES:
            return ()
        return tuple(
            Token(
                _data(place),
                _logprob(place),
                tuple((_data(r), _logprob(r)) for r in (place.get("top_logprobs") or ())[:20]),
            )
            for place in places
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return ()


def _data(place: Mapping[str, Any]) -> bytes:
    """A token's bytes: half a character has no text of its own."""
    data = place.get("bytes")
    if data is None:
        return str(place["token"]).encode()
    if not isinstance(data, list):
        # Of a number Python would make as many zero bytes.
        raise TypeError("bytes are a list of numbers")
    return bytes(data)


def _logprob(place: Mapping[str, Any]) -> float:
    value = place["logprob"]
    if isinstance(value, bool) or not isinstance(value, int | float) or value > 1e-3:
        raise ValueError("not a logarithm of a probability")
    return min(0.0, float(value))
