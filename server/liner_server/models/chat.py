"""One chat completion at an OpenAI-compatible endpoint, by the official client: no more than one.

Whatever the endpoint does, a call ends at its deadline, reads a bounded number of bytes and
raises one of our errors. Nothing is retried here: the router decides on that. The one exception
is a parameter that an endpoint does not know (log-probabilities, a schema): it is left out in a
second request, and from then on if that one is taken.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, TypeGuard

import httpx2
import openai

from liner_server.errors import DeadlineError, ProviderError
from liner_server.models import strict
from liner_server.models.faults import (
    AnswerTooLargeError,
    BadEncodingError,
    failed,
    from_client,
    refused,
)
from liner_server.models.windows import BYTES_A_TOKEN

_HEADERS = frozenset({"host", "content-type", "content-length", "accept", "user-agent"})
"""What is sent. The client adds more from the environment: another account's organization, or
whatever OPENAI_CUSTOM_HEADERS holds, which is not for every endpoint to see."""

_ENCODINGS = frozenset({"", "identity", "gzip", "deflate"})
"""One layer at most: layers of packing unpack to nothing at all, with any amount of work."""

_ERROR_BYTES = 64 << 10
"""What is read of an error's body: enough for its code."""

_MOST_TOKENS = 1_000_000_000
_MOST_PLACES = 20_000


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where a model is asked, and how much of its time and bytes a call may take."""

    provider: str
    """Name in errors: "qwen2", "openai"."""

    base_url: str
    """With the version: "http://127.0.0.1:8000/v1"."""

    api_key: str = field(default="", repr=False)
    """Sent as a bearer token; empty for an endpoint that wants none."""

    connect_timeout: timedelta = timedelta(seconds=5)
    max_reply_bytes: int = 1 << 20
    """Unpacked. A reply that goes on is cut off and refused."""

    max_connections: int = 64


@dataclass(frozen=True, kw_only=True)
class ChatCall:
    """What one completion is asked for."""

    model: str
    messages: Sequence[Mapping[str, Any]]
    max_tokens: int
    response_format: Mapping[str, Any] | None = None
    """Strict JSON schema, built once for all calls that want the same."""

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
    schema: bool = True
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
        if self.schema and any(w in about for w in ("response_format", "json_schema", "schema")):
            return replace(self, schema=False)
        return None


class Chat:
    """Calls one endpoint; close it with `aclose`."""

    def __init__(self, endpoint: Endpoint, *, meter: Meter) -> None:
        self._endpoint = endpoint
        self._meter = meter
        self._dialects: dict[str, _Dialect] = {}
        self._client = openai.AsyncOpenAI(
            base_url=endpoint.base_url,
            # The client refuses an empty one; `_CappedClient` sends what is really set.
            api_key=endpoint.api_key or "none",
            max_retries=0,
            timeout=httpx2.Timeout(None, connect=endpoint.connect_timeout.total_seconds()),
            http_client=_CappedClient(endpoint),
        )

    async def complete(self, call: ChatCall, *, deadline: float) -> ChatReply:
        """Return the model's answer before `deadline`, in the loop's time.

        Raises:
            ProviderError: with one of the reasons of `faults`.
            DeadlineError: the deadline passed; the connection is closed.

        """
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
                response = await self._client.get("/models", cast_to=httpx2.Response)
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
        body: dict[str, Any] = {
            "model": call.model,
            "messages": call.messages,
            dialect.limit: call.max_tokens,
        }
        if dialect.temperature:
            body["temperature"] = 0
        if dialect.schema and call.response_format:
            body["response_format"] = call.response_format
        if call.top_logprobs and dialect.logprobs:
            body |= {"logprobs": True, "top_logprobs": call.top_logprobs}
        return await self._client.post("/chat/completions", body=body, cast_to=httpx2.Response)

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
        if refusal or finish == "content_filter":
            raise refused(provider, "MODEL_DECLINED", "declined to answer")
        if finish == "length":
            raise refused(provider, "MODEL_ANSWER_CUT", "was cut off at its limit of tokens")
        if finish != "stop":
            raise self._broken()
        if not said.strip():
            raise failed(provider, "MODEL_REPLY_BROKEN", "answered with nothing")
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


class _CappedClient(openai.DefaultAioHttpClient):
    """Reads no reply beyond its limit, and sends no header but those it must.

    Redirects are not followed: an endpoint does not choose where the key and the prompt go.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        most = endpoint.max_connections
        super().__init__(
            follow_redirects=False,
            limits=httpx2.Limits(max_connections=most, max_keepalive_connections=most),
        )
        self._most = endpoint.max_reply_bytes
        self._key = endpoint.api_key

    async def send(
        self, request: httpx2.Request, *, stream: bool = False, **options: Any
    ) -> httpx2.Response:
        kept = {name: value for name, value in request.headers.items() if name in _HEADERS}
        # Answers are small: packing them would only cost time on both sides.
        kept["accept-encoding"] = "identity"
        if self._key:
            kept["authorization"] = f"Bearer {self._key}"
        request.headers = httpx2.Headers(kept)
        response = await super().send(request, stream=True, **options)
        try:
            body = await self._body(response)
        finally:
            await response.aclose()
        packing = ("content-encoding", "content-length", "transfer-encoding")
        headers = [(n, v) for n, v in response.headers.multi_items() if n.lower() not in packing]
        return httpx2.Response(response.status_code, headers=headers, content=body, request=request)

    async def _body(self, response: httpx2.Response) -> bytes:
        failure = response.status_code >= 300
        most = min(self._most, _ERROR_BYTES) if failure else self._most
        if response.headers.get("content-encoding", "").strip().lower() not in _ENCODINGS:
            raise BadEncodingError
        stated = response.headers.get("content-length", "")
        if not failure and stated.isdecimal() and (len(stated) > 15 or int(stated) > most):
            raise AnswerTooLargeError
        body = bytearray()
        # The client unpacks at most a mebibyte at a time, so a bomb is noticed at its first piece.
        async for part in response.aiter_bytes():
            body += part
            if len(body) > most:
                if not failure:
                    raise AnswerTooLargeError
                break
        return bytes(body[:most])


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
    except (KeyError, TypeError, ValueError, AttributeError):
        return ()


def _data(place: Mapping[str, Any]) -> bytes:
    """A token's bytes: half a character has no text of its own."""
    data = place.get("bytes")
    return bytes(data) if data is not None else str(place["token"]).encode()


def _logprob(place: Mapping[str, Any]) -> float:
    value = place["logprob"]
    if isinstance(value, bool) or not isinstance(value, int | float) or value > 1e-3:
        raise ValueError("not a logarithm of a probability")
    return min(0.0, float(value))
