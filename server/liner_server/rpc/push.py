"""Messages that Pub/Sub pushes: POST /pubsub/push on the side port, as Cloud Run wants them.

    204  finished; Pub/Sub forgets it
    400  no push message
    401  no valid token of Google's for this audience
    403  another service account's token
    503  not finished: it is stopping, the time ran out or the queue failed; Pub/Sub sends it again

The answer waits until the job is finished, so the subscription's acknowledgement deadline (600 s
at most) is the time that a job has.
"""

import asyncio
import base64
import binascii
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import aiohttp
import structlog
from aiohttp import web
from google.auth import exceptions, jwt
from google.pubsub_v1.types import pubsub

from liner_server.errors import LinerError

_log = structlog.get_logger()

GOOGLE_CERTS = "https://www.googleapis.com/oauth2/v1/certs"
"""Google's certificates, by key id."""

_ISSUERS = ("https://accounts.google.com", "accounts.google.com")
_PubsubMessage = pubsub.PubsubMessage.pb()
_CERTS_KEPT = 3600.0
_CERTS_ASKED_EVERY = 60.0
_CERTS_SECONDS = 10.0

Deliver = Callable[[Any, str], Awaitable[bool]]
"""Takes a message and its subscription's path; returns whether it is finished, once known."""


class TokenError(Exception):
    """A token that opens nothing; `status` is what the caller is told."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class OidcVerifier:
    """Verifies Google's tokens by certificates that are fetched once an hour.

    `async with OidcVerifier(...) as verifier`. An unknown key is looked for at most once a minute:
    whoever sends made-up keys must not make us ask for each.
    """

    def __init__(
        self,
        *,
        audience: str,
        account: str,
        certs_url: str = GOOGLE_CERTS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._audience = audience
        self._account = account
        self._certs_url = certs_url
        self._clock = clock
        self._certs: Mapping[str, str] = {}
        self._asked = -_CERTS_KEPT
        self._asking = asyncio.Lock()
        self._session: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=_CERTS_SECONDS), trust_env=True
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def verify(self, header: str) -> None:
        """Pass if an Authorization header is that of this queue's push subscription.

        Raises:
            TokenError: it is not.

        """
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise TokenError(401)
        try:
            key = str(jwt.decode_header(token).get("kid", ""))  # type: ignore[no-untyped-call]
            certs = await self._certs_with(key)
            # Only the certificate that the token names: with all of them it would be tried on each.
            claims = jwt.decode(  # type: ignore[no-untyped-call]
                token,
                certs={key: certs[key]},
                audience=self._audience,
                clock_skew_in_seconds=60,
            )
        except (exceptions.GoogleAuthError, ValueError, KeyError, TypeError) as error:
            raise TokenError(401) from error
        if claims.get("iss") not in _ISSUERS:
            raise TokenError(401)
        if claims.get("email") != self._account or claims.get("email_verified") is not True:
            raise TokenError(403)

    async def _certs_with(self, key: str) -> Mapping[str, str]:
        async with self._asking:
            age = self._clock() - self._asked
            if age >= _CERTS_KEPT or (key not in self._certs and age >= _CERTS_ASKED_EVERY):
                self._asked = self._clock()
                try:
                    async with self._session.get(self._certs_url) as answer:
                        answer.raise_for_status()
                        self._certs = await answer.json(content_type=None)
                except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                    # Those that are known still serve.
                    _log.warning("certificates cannot be fetched", error=str(error))
        return self._certs


class PushEndpoint:
    """Answers POST /pubsub/push."""

    def __init__(
        self,
        *,
        verifier: OidcVerifier,
        deliver: Deliver,
        open_now: Callable[[], bool],
        timeout: timedelta = timedelta(seconds=590),
    ) -> None:
        self._verifier = verifier
        self._deliver = deliver
        self._open_now = open_now
        self._timeout = timeout.total_seconds()

    async def answer(self, request: web.Request) -> web.Response:
        """Hand one pushed message on and answer when it is finished."""
        try:
            await self._verifier.verify(request.headers.get("Authorization", ""))
        except TokenError as error:
            return web.Response(status=error.status)
        if not self._open_now():
            return web.Response(status=503)
        try:
            message, subscription = message_of(await request.read())
        except ValueError as error:
            return web.Response(status=400, text=f"{error}\n")
        finished = False
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._timeout):
                    finished = await self._deliver(message, subscription)
        except LinerError as error:
            _log.warning("pushed message refused", reason=error.reason, error=error.message)
        return web.Response(status=204 if finished else 503)


def message_of(body: bytes) -> tuple[Any, str]:
    """Return the message of a push request and the path of its subscription.

    Raises:
        ValueError: it is none; the text says why.

    """
    try:
        envelope = json.loads(body)
        inner, subscription = envelope["message"], envelope["subscription"]
        data = base64.b64decode(inner.get("data", ""), validate=True)
        message_id = inner.get("messageId") or inner.get("message_id")
        attributes = inner.get("attributes") or {}
        published = _time(inner.get("publishTime") or inner.get("publish_time"))
    except (TypeError, KeyError, AttributeError, binascii.Error, ValueError) as error:
        raise ValueError("no push message of Pub/Sub") from error
    if not (isinstance(message_id, str) and message_id and isinstance(subscription, str)):
        raise ValueError("no push message of Pub/Sub: messageId or subscription is missing")
    texts = isinstance(attributes, dict) and all(
        isinstance(part, str) for pair in attributes.items() for part in pair
    )
    if not texts:
        raise ValueError("no push message of Pub/Sub: attributes are no texts")
    message = _PubsubMessage(data=data, message_id=message_id, attributes=attributes)
    if published is not None:
        message.publish_time.FromDatetime(published)
    return message, subscription


def _time(text: str | None) -> datetime | None:
    if not text:
        return None
    found = datetime.fromisoformat(text)
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
