"""How bytes go to a model's endpoint and come back: few headers out, a bounded reply in."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from typing import Any

import httpx2
import openai

from liner_server.models.faults import AnswerTooLargeError, BadEncodingError

_ENCODINGS = frozenset({b"", b"identity", b"gzip", b"deflate"})
"""One layer at most: layers of packing unpack to nothing at all, with any amount of work."""

_PACKING = frozenset({b"content-encoding", b"content-length", b"transfer-encoding"})
"""What says how a reply travelled, and is no longer true of what was read."""

_ERROR_BYTES = 64 << 10
"""What is read of an error's body: enough for its code."""


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


class CappedClient(openai.DefaultAioHttpClient):
    """Reads no reply beyond its limit, and sends no header but those it must.

    The openai client adds more from the environment: another account's organization, or whatever
    OPENAI_CUSTOM_HEADERS holds, which is not for every endpoint to see. Redirects are not
    followed: an endpoint does not choose where the key and the prompt go.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        most = endpoint.max_connections
        timeout = httpx2.Timeout(None, connect=endpoint.connect_timeout.total_seconds())
        super().__init__(
            follow_redirects=False,
            timeout=timeout,
            limits=httpx2.Limits(max_connections=most, max_keepalive_connections=most),
        )
        self._most = endpoint.max_reply_bytes
        self._waits = {"timeout": timeout.as_dict()}
        self._said = {
            "accept": "application/json",
            # Answers are small: packing them would only cost time on both sides.
            "accept-encoding": "identity",
            "user-agent": "liner",
        }
        if endpoint.api_key:
            self._said["authorization"] = f"Bearer {endpoint.api_key}"

    def build_request(  # type: ignore[override]
        self, method: str, url: str, *, content: bytes | None = None, **_: Any
    ) -> httpx2.Request:
        """Return a request with our own headers, whatever others the client wants sent."""
        target, headers = _parsed(url), dict(self._said)
        body = content or b""
        if body:
            headers |= {"content-type": "application/json", "content-length": str(len(body))}
        headers["host"] = target.netloc.decode("ascii")
        stream = httpx2.ByteStream(body)
        request = httpx2.Request(
            method, target, headers=headers, stream=stream, extensions=self._waits
        )
        request.read()
        return request

    async def send(
        self, request: httpx2.Request, *, stream: bool = False, **options: Any
    ) -> httpx2.Response:
        """Return the whole reply, unpacked, however it came."""
        response = await super().send(request, stream=True, **options)
        try:
            headers = [(name.lower(), value) for name, value in response.headers.raw]
            body = await self._body(response, headers)
        finally:
            await response.aclose()
        kept = [(name, value) for name, value in headers if name not in _PACKING]
        return httpx2.Response(response.status_code, headers=kept, content=body, request=request)

    async def _body(
        self, response: httpx2.Response, headers: Sequence[tuple[bytes, bytes]]
    ) -> bytes:
        failure = response.status_code >= 300
        most = min(self._most, _ERROR_BYTES) if failure else self._most
        packing = _joined(headers, b"content-encoding").lower()
        if packing not in _ENCODINGS:
            raise BadEncodingError
        stated = _joined(headers, b"content-length")
        if not failure and stated.isdigit() and (len(stated) > 15 or int(stated) > most):
            raise AnswerTooLargeError
        body = bytearray()
        plain = packing in (b"", b"identity")
        # The client unpacks at most a mebibyte at a time, so a bomb is noticed at its first piece.
        async for part in response.aiter_raw() if plain else response.aiter_bytes():
            body += part
            if len(body) > most:
                if not failure:
                    raise AnswerTooLargeError
                break
        return bytes(body[:most])


def _joined(headers: Sequence[tuple[bytes, bytes]], wanted: bytes) -> bytes:
    """Return a header's value; one that is sent twice is one long value, as in HTTP."""
    return b",".join(value.strip() for name, value in headers if name == wanted)


@lru_cache(maxsize=64)
def _parsed(url: str) -> httpx2.URL:
    return httpx2.URL(url)
