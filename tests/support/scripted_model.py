"""An OpenAI-compatible HTTP endpoint that answers as a script says, on a real socket.

For the tests of model providers: a reply a call, in order, the last one repeated; every request
is kept as it came. Faults are part of the script: a status with headers, a wait before the first
byte, a body that drips, breaks off, never ends or is a bomb.
"""

import asyncio
import gzip
import json
import math
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass(frozen=True, kw_only=True)
class Reply:
    """One scripted HTTP answer."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    first_byte_after: float = 0.0
    """Seconds of silence before the status line."""

    drip: float = 0.0
    """Seconds between the body's bytes."""

    cut_after: int | None = None
    """Bytes of the body after which the connection is dropped."""

    repeat: int = 1
    """How often the body is sent."""

    endless: bool = False
    """Whether the body is repeated until the client goes away."""

    states_length: bool = False
    """Whether the whole length is stated in front, instead of chunk by chunk."""


Script = Reply | Callable[[dict[str, Any]], Reply]
"""A reply, or what makes one of the request's body."""


def says(
    content: str | None,
    *,
    finish: str = "stop",
    tokens: tuple[int, int] | None = (100, 20),
    refusal: str | None = None,
    logprobs: Sequence[Mapping[str, Any]] | None = None,
) -> Reply:
    """Return a well-formed chat completion with this content."""
    choice: dict[str, Any] = {
        "index": 0,
        "finish_reason": finish,
        "message": {"role": "assistant", "content": content, "refusal": refusal},
    }
    if logprobs is not None:
        choice["logprobs"] = {"content": list(logprobs)}
    completion: dict[str, Any] = {
        "id": "chatcmpl-scripted",
        "object": "chat.completion",
        "created": 0,
        "model": "scripted",
        "choices": [choice],
    }
    if tokens is not None:
        completion["usage"] = {
            "prompt_tokens": tokens[0],
            "completion_tokens": tokens[1],
            "total_tokens": sum(tokens),
        }
    return json_reply(completion)


def token(
    text: str, probability: float, rivals: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """Return one token as an endpoint states its log-probability and those of its rivals."""

    def place(text: str, probability: float) -> dict[str, Any]:
        return {"token": text, "bytes": list(text.encode()), "logprob": math.log(probability)}

    others = {text: probability, **(rivals or {})}
    return {
        **place(text, probability),
        "top_logprobs": [place(other, share) for other, share in others.items()],
    }


def refuses(status: int, *, retry_after: str | None = None, message: str = "scripted") -> Reply:
    """Return an API error; `retry_after` is sent as it stands, however absurd."""
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    return json_reply({"error": {"message": message, "type": "scripted"}}, status, headers)


def gzip_bomb(size: int) -> Reply:
    """Return a small body that unpacks to `size` bytes of JSON string."""
    body = gzip.compress(b'{"a": "' + b"a" * size + b'"}')
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    return Reply(headers=headers, body=body)


class ScriptedModel:
    """The endpoint: `base_url` for the client, `requests` for the test."""

    def __init__(self, replies: Sequence[Script], models: Sequence[str]) -> None:
        self._replies = replies
        self._models = models
        self.base_url = ""
        self.requests: list[dict[str, Any]] = []
        """Bodies of the chat completions asked for, in order."""
        self.headers: list[Mapping[str, str]] = []
        """Their headers, and those of other requests."""
        self.open = 0
        """Requests being answered now: 0 after a client's cancel has arrived."""

    async def completions(self, request: web.Request) -> web.StreamResponse:
        """Answer one chat completion with the script's next reply."""
        body = await request.json()
        self.requests.append(body)
        self.headers.append(request.headers)
        script = self._replies[min(len(self.requests), len(self._replies)) - 1]
        reply = script if isinstance(script, Reply) else script(body)
        self.open += 1
        try:
            await asyncio.sleep(reply.first_byte_after)
            return await _send(request, reply)
        finally:
            self.open -= 1

    async def list_models(self, request: web.Request) -> web.Response:
        """Answer which models there are."""
        self.headers.append(request.headers)
        data = [{"id": name, "object": "model", "owned_by": "test"} for name in self._models]
        return web.json_response({"object": "list", "data": data})


@asynccontextmanager
async def scripted_model(
    *replies: Script, models: tuple[str, ...] = ("scripted",)
) -> AsyncIterator[ScriptedModel]:
    """Yield a running endpoint that answers with these replies."""
    model = ScriptedModel(replies, models)
    app = web.Application(client_max_size=64 << 20)
    app.router.add_post("/v1/chat/completions", model.completions)
    app.router.add_get("/v1/models", model.list_models)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    model.base_url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    try:
        yield model
    finally:
        await runner.cleanup()


async def _send(request: web.Request, reply: Reply) -> web.StreamResponse:
    response = web.StreamResponse(status=reply.status, headers=reply.headers)
    if reply.cut_after is not None:
        # Promise more than comes, so that the client sees a broken body and not a short one.
        response.content_length = len(reply.body)
    elif reply.states_length:
        response.content_length = len(reply.body) * reply.repeat
    await response.prepare(request)
    if reply.cut_after is not None:
        await response.write(reply.body[: reply.cut_after])
        if request.transport is not None:
            request.transport.abort()
        return response
    if reply.drip:
        for byte in reply.body:
            await response.write(bytes((byte,)))
            await asyncio.sleep(reply.drip)
    else:
        for _ in range(reply.repeat):
            await response.write(reply.body)
    while reply.endless:
        await response.write(reply.body)
        # Without a wait the endpoint would keep the loop to itself, and not the network.
        await asyncio.sleep(reply.drip)
    await response.write_eof()
    return response


def json_reply(
    content: object, status: int = 200, headers: Mapping[str, str] | None = None
) -> Reply:
    """Return any value as a JSON body."""
    return Reply(
        status=status,
        headers={"Content-Type": "application/json", **(headers or {})},
        body=json.dumps(content).encode(),
    )
