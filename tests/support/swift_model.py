"""An OpenAI-compatible endpoint for measurements: in a process of its own, and quick.

    python -m support.swift_model

prints its port and runs until its standard input closes. What it answers fits the schema of the
request and costs next to no time: answers are kept by the fields and the number of recordings
asked for. POST /behave sets how it behaves, GET /seen tells what it saw since then.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from typing import Any, cast

import aiohttp

from support.endpoint_process import endpoint_process

_QUESTIONS = b'{\\"questions\\":'
_RECORDINGS = b',\\"recordings\\":'
_RECORDING = b'{\\"id\\":\\"r'
_KNOWN: Mapping[str, object] = {
    "genre": "Jazz",
    "subgenres": ["Soul"],
    "moods": ["Calm", "Mellow"],
    "instruments": ["Piano"],
    "language": "en",
    "parental_warning": "NOT_EXPLICIT",
    "energy": 0.4,
    "danceability": 0.4,
}
_UNKNOWN: Mapping[str, object] = {
    **dict.fromkeys(("title", "version_title", "language"), ""),
    **dict.fromkeys(("artists", "subgenres", "moods", "instruments"), ()),
    **dict.fromkeys(("genre", "parental_warning"), "Unknown"),
    **dict.fromkeys(("energy", "danceability"), None),
}


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """How the endpoint answers."""

    delay: float = 0.0
    """Seconds before it answers."""

    status: int = 200
    """HTTP status; anything but 200 is an error without more words. 0: hang up."""

    unsure_every: int = 0
    """It cannot tell about one in so many fields, always the same ones of a track; 0: none."""


@dataclass(kw_only=True)
class Seen:
    """What was asked since the behaviour was set."""

    requests: int = 0
    recordings: int = 0
    prompt_characters: int = 0
    """Of the messages."""

    schema_characters: int = 0
    completion_characters: int = 0
    open: int = 0
    """Being answered now."""

    last: str = ""
    """Body of the newest request."""


class SwiftModel:
    """A running endpoint, seen from the measurement."""

    def __init__(self, port: int, session: aiohttp.ClientSession) -> None:
        self._root = f"http://127.0.0.1:{port}"
        self._session = session

    @property
    def base_url(self) -> str:
        """For a client."""
        return f"{self._root}/v1"

    async def behave(self, **behaviour: Any) -> None:
        """Set how it behaves, and begin to count anew."""
        async with self._session.post(f"{self._root}/behave", json=behaviour) as response:
            response.raise_for_status()

    async def seen(self) -> Seen:
        """Return what was asked since then."""
        async with self._session.get(f"{self._root}/seen") as response:
            return Seen(**await response.json(content_type=None))


@asynccontextmanager
async def swift_model() -> AsyncIterator[SwiftModel]:
    """Yield a running endpoint; its process ends with the context, and with this process."""
    async with (
        endpoint_process("support.swift_model", start_seconds=20) as port,
        aiohttp.ClientSession() as session,
    ):
        yield SwiftModel(port, session)


class _Endpoint:
    """What all connections share."""

    def __init__(self) -> None:
        self.behaviour = Behaviour()
        self.seen = Seen()

    def reply(self, method: str, path: str, body: bytes) -> tuple[bytes, float]:
        """Return what to send and after how many seconds; nothing at all means to hang up."""
        if path == "/v1/chat/completions":
            return self._complete(body), self.behaviour.delay
        if path == "/behave":
            self.behaviour = Behaviour(**json.loads(body))
            self.seen = Seen()
            return _http(200, b"{}"), 0.0
        if path == "/seen":
            return _http(200, json.dumps(asdict(self.seen)).encode()), 0.0
        names = ("Qwen/Qwen2-Audio-7B-Instruct", "gpt-4.1-mini")
        return _http(200, json.dumps({"data": [{"id": name} for name in names]}).encode()), 0.0

    def _complete(self, body: bytes) -> bytes:
        seen, behaviour = self.seen, self.behaviour
        seen.requests += 1
        _, _, rest = body.partition(_QUESTIONS)
        questions, _, data = rest.partition(_RECORDINGS)
        count = data.count(_RECORDING)
        seen.recordings += count
        seen.last = body.decode()
        if behaviour.status != 200:
            return _http(behaviour.status, b'{"error": {}}') if behaviour.status else b""
        if not behaviour.unsure_every:
            return _answer(questions, count)
        return self._doubtful(json.loads(body))

    def _doubtful(self, body: Mapping[str, Any]) -> bytes:
        said = json.loads(body["messages"][1]["content"])
        answers = [
            {"id": r["id"], "fields": {path: self._said(path, r) for path in said["questions"]}}
            for r in said["recordings"]
        ]
        content = json.dumps({"answers": answers})
        self.seen.prompt_characters += sum(len(m["content"]) for m in body["messages"])
        self.seen.schema_characters += len(json.dumps(body["response_format"]))
        self.seen.completion_characters += len(content)
        return _completion(content)

    def _said(self, path: str, recording: Mapping[str, Any]) -> dict[str, object]:
        stated = recording["stated"]
        # Not hash(): it is another one in every process.
        place = sum(map(ord, f"{path}{stated['title']}{stated.get('album')}"))
        known = {**_UNKNOWN, **_KNOWN, "version_title": stated["title"].split()[0]}
        values = _UNKNOWN if place % self.behaviour.unsure_every == 0 else known
        return {"value": values[path], "confidence": 0.8}


class _Connection(asyncio.Protocol):
    def __init__(self, endpoint: _Endpoint) -> None:
        self._endpoint = endpoint
        self._data = b""
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are asyncio's by what they do, not by class.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._data += data
        while True:
            head, end, rest = self._data.partition(b"\r\n\r\n")
            if not end:
                return
            lowered = head.lower()
            _, _, length = lowered.partition(b"content-length:")
            size = int(length.split(b"\r\n", 1)[0] or 0) if length else 0
            if len(rest) < size:
                return
            self._data = rest[size:]
            method, path, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
            reply, delay = self._endpoint.reply(method, path, rest[:size])
            if not reply:
                self._transport.abort()
            elif delay:
                self._endpoint.seen.open += 1
                loop = asyncio.get_running_loop()
                self._timer = loop.call_later(delay, partial(self._send, reply))
            else:
                self._transport.write(reply)

    def _send(self, reply: bytes) -> None:
        self._timer = None
        self._endpoint.seen.open -= 1
        self._transport.write(reply)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._endpoint.seen.open -= 1


@lru_cache(maxsize=256)
def _answer(questions: bytes, count: int) -> bytes:
    """Return the whole reply about so many recordings."""
    asked = json.loads(json.loads(b'"' + questions + b'"'))
    values = {**_UNKNOWN, **_KNOWN}
    said = {path: {"value": values[path], "confidence": 0.8} for path in asked}
    answers = [{"id": f"r{number}", "fields": said} for number in range(1, count + 1)]
    return _completion(json.dumps({"answers": answers}))


def _completion(content: str) -> bytes:
    message = {"role": "assistant", "content": content}
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    completion = {
        "id": "chatcmpl-swift",
        "object": "chat.completion",
        "created": 0,
        "model": "swift",
        "choices": [choice],
        "usage": {"prompt_tokens": 600, "completion_tokens": 120, "total_tokens": 720},
    }
    return _http(200, json.dumps(completion).encode())


def _http(status: int, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


async def _serve(stopped: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    endpoint = _Endpoint()
    server = await loop.create_server(lambda: _Connection(endpoint), "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await asyncio.to_thread(stopped)


def main() -> None:
    """Serve until standard input closes."""
    import uvloop

    def stopped() -> None:
        sys.stdin.buffer.read()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(stopped))


if __name__ == "__main__":
    main()
