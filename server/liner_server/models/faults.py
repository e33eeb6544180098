"""What went wrong with a call to a model endpoint, as one of our errors.

    what happened                         reason of the ProviderError     another try may help
    connection refused, dropped           MODEL_UNREACHABLE               yes
    408, or silent past its limit         MODEL_TIMEOUT                   yes
    409                                   MODEL_BUSY                      yes
    429                                   MODEL_RATE_LIMITED              yes, after Retry-After
    5xx                                   MODEL_SERVER_ERROR              yes
    a reply that is no chat completion    MODEL_REPLY_BROKEN              yes
    429 for want of money                 MODEL_QUOTA                     no
    401, 403                              MODEL_CREDENTIALS               no
    404                                   MODEL_NOT_FOUND                 no
    any other 3xx or 4xx                  MODEL_REQUEST_REFUSED           no
    the model declined to answer          MODEL_DECLINED                  no
    cut off at the limit of tokens        MODEL_ANSWER_CUT                no
    more bytes than may be read           MODEL_ANSWER_TOO_LARGE          no
    invalid, and after the repair try     MODEL_ANSWER_INVALID            no
    excerpts that a model cannot hear     MODEL_EXCERPT_INVALID           no

Texts are built here from facts of ours: nothing of an endpoint's error body is passed on, since
it may quote the prompt, and whoever runs the endpoint writes it.
"""

import math
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import httpx2
import openai

from liner_server.errors import ProviderError

LONGEST_RETRY_AFTER = timedelta(days=1)
"""A server that asks for more is taken to mean this."""

_QUOTA_CODES = frozenset({"insufficient_quota", "billing_hard_limit_reached"})


class AnswerTooLargeError(Exception):
    """An endpoint's reply goes past the limit of bytes; it was not read to its end."""


class BadEncodingError(Exception):
    """An endpoint's reply is packed in a way that was not asked for."""


def from_client(error: Exception, *, provider: str, now: datetime | None = None) -> ProviderError:
    """Return our error for an exception of the openai client or its transport."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, AnswerTooLargeError):
            return refused(provider, "MODEL_ANSWER_TOO_LARGE", "answered more than may be read")
        if isinstance(cause, BadEncodingError | httpx2.DecodingError):
            return failed(provider, "MODEL_REPLY_BROKEN", "answered in an encoding of its own")
        # Not by the client's own class: its transport calls every lost connection a timeout.
        if isinstance(cause, TimeoutError):
            return failed(provider, "MODEL_TIMEOUT", "did not answer in the time a call may take")
        cause = cause.__cause__
    if isinstance(error, openai.APIStatusError):
        return _from_status(error, provider, now or datetime.now(UTC))
    if isinstance(error, openai.APIConnectionError | httpx2.TransportError | OSError):
        return failed(provider, "MODEL_UNREACHABLE", "could not be reached or hung up")
    if isinstance(error, openai.LengthFinishReasonError):
        return refused(provider, "MODEL_ANSWER_CUT", "was cut off at its limit of tokens")
    if isinstance(error, openai.ContentFilterFinishReasonError):
        return refused(provider, "MODEL_DECLINED", "declined to answer")
    return failed(provider, "MODEL_REPLY_BROKEN", "answered with what is no chat completion")


def failed(
    provider: str, reason: str, what: str, *, retry_after: timedelta | None = None
) -> ProviderError:
    """Return the error for a failure that may pass."""
    return ProviderError(
        f"the model {provider} {what}", reason=reason, retry_after=retry_after, resource=provider
    )


OF_QUESTION = frozenset({"MODEL_REQUEST_REFUSED", "MODEL_DECLINED", "MODEL_ANSWER_CUT"})
"""Failures that one track may cause: for all of a shared prompt, and at a provider that is well."""


def refused(provider: str, reason: str, what: str) -> ProviderError:
    """Return the error for a failure that the same call would meet again."""
    return ProviderError(
        f"the model {provider} {what}",
        reason=reason,
        retryable=False,
        resource=provider,
        of_question=reason in OF_QUESTION,
    )


def retry_after(value: str | None, *, now: datetime) -> timedelta | None:
    """Return the wait that a Retry-After header asks for, or None if it states none.

    Seconds with or without a fraction and HTTP dates are understood; a moment in the past and a
    negative number mean no wait, more than a day means a day, anything else means nothing.
    """
    # Python alone reads 1_0 as ten.
    if value is None or len(value) > 64 or "_" in value:
        return None
    text = value.strip()
    try:
        seconds = float(text)
    except ValueError:
        try:
            moment = parsedate_to_datetime(text)
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        seconds = (moment - now).total_seconds()
    if not math.isfinite(seconds):
        return None
    return timedelta(seconds=min(max(0.0, seconds), LONGEST_RETRY_AFTER.total_seconds()))


def _from_status(error: openai.APIStatusError, provider: str, now: datetime) -> ProviderError:
    status = error.response.status_code
    wait = retry_after(error.response.headers.get("retry-after"), now=now)
    if status == 429:
        if error.code in _QUOTA_CODES:
            return refused(provider, "MODEL_QUOTA", "has no budget left at its operator")
        return failed(provider, "MODEL_RATE_LIMITED", "limits our rate", retry_after=wait)
    if status == 408:
        return failed(provider, "MODEL_TIMEOUT", "gave up waiting (408)", retry_after=wait)
    if status == 409:
        return failed(provider, "MODEL_BUSY", "met a conflict (409)", retry_after=wait)
    if status >= 500:
        what = f"failed with status {status}"
        return failed(provider, "MODEL_SERVER_ERROR", what, retry_after=wait)
    if status in (401, 403):
        return refused(provider, "MODEL_CREDENTIALS", f"refused our credentials ({status})")
    if status == 404:
        return refused(provider, "MODEL_NOT_FOUND", "is not known at its endpoint (404)")
    return refused(provider, "MODEL_REQUEST_REFUSED", f"refused the request ({status})")
