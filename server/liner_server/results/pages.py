"""How lists of enrichments are sorted, filtered and cut into pages, on every backend.

Both orders are ascending in a tuple, so that "behind the last of the page before" is one
comparison: review order is (0 if it awaits review else 1, confidence in millionths, age, id),
newest first is (age, id). Age falls as time goes on.
"""

import base64
import hashlib
import json
import math
from dataclasses import dataclass
from datetime import datetime

from liner.v1 import enrichment_pb2

from liner_server.errors import InvalidRequestError
from liner_server.results.records import awaits_review, micros

DEFAULT_PAGE = 50
MAX_PAGE = 500
MAX_PAGE_BYTES = 3 << 20
AGE_FROM = 10**18
"""Microseconds that ages are counted back from: later than the last year there is."""

Place = tuple[int | str, ...]
"""Where a record stands in an order."""

_NEWEST = enrichment_pb2.ENRICHMENT_ORDER_NEWEST_FIRST


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """What a record is sorted and filtered by."""

    enrichment_id: str
    todo: int
    """0: awaits review; 1: does not."""

    millionths: int
    """Its confidence."""

    age: int
    model: str

    @classmethod
    def of(cls, record: enrichment_pb2.Enrichment) -> "Ranks":
        """Return a record's ranks."""
        confidence = record.answer.processing.confidence
        if not math.isfinite(confidence):
            confidence = 0.0
        return cls(
            enrichment_id=record.enrichment_id,
            todo=0 if awaits_review(record) else 1,
            millionths=round(min(max(confidence, 0.0), 1.0) * 1_000_000),
            age=AGE_FROM - micros(record.create_time),
            model=record.answer.processing.model,
        )

    def place(self, *, newest_first: bool) -> Place:
        """Return where the record stands in one of the orders."""
        if newest_first:
            return (self.age, self.enrichment_id)
        return (self.todo, self.millionths, self.age, self.enrichment_id)


@dataclass(frozen=True, kw_only=True)
class Listing:
    """A list request, checked: what to pass over, what to look for, how much of it."""

    newest_first: bool
    after: Place | None
    """The last place of the page before."""

    todo: int | None
    model: str
    least_age: int | None
    """Exclusive: only those made before `create_time_before`."""

    most_age: int | None
    """Inclusive: only those made at or after `create_time_from`."""

    size: int
    _check: str

    @classmethod
    def of(cls, request: enrichment_pb2.ListEnrichmentsRequest) -> "Listing":
        """Read a request.

        Raises:
            InvalidRequestError: the page token belongs to other filters, or to none.

        """
        newest_first = request.order == _NEWEST
        check = _digest(request, newest_first=newest_first)
        return cls(
            newest_first=newest_first,
            after=(
                _place(request.page_token, check, newest_first=newest_first)
                if request.page_token
                else None
            ),
            todo=int(not request.needs_review) if request.HasField("needs_review") else None,
            model=request.model,
            least_age=(
                AGE_FROM - micros(request.create_time_before)
                if request.HasField("create_time_before")
                else None
            ),
            most_age=(
                AGE_FROM - micros(request.create_time_from)
                if request.HasField("create_time_from")
                else None
            ),
            size=min(request.page_size or DEFAULT_PAGE, MAX_PAGE),
            _check=check,
        )

    @staticmethod
    def age_of(time: datetime) -> int:
        """Return the age of a record made at this time; older ones have more."""
        return AGE_FROM - micros(time)

    def wants(self, ranks: Ranks) -> bool:
        """Whether a record passes every filter."""
        return (
            (self.todo is None or ranks.todo == self.todo)
            and (not self.model or ranks.model == self.model)
            and (self.least_age is None or ranks.age > self.least_age)
            and (self.most_age is None or ranks.age <= self.most_age)
        )

    def token(self, last: Ranks) -> str:
        """Return the token of the page behind this record."""
        told = json.dumps([self._check, *last.place(newest_first=self.newest_first)])
        return base64.urlsafe_b64encode(told.encode()).decode()


class Page:
    """A page that is being filled with records in order."""

    def __init__(self, listing: Listing) -> None:
        self._listing = listing
        self._bytes = 0
        self.response = enrichment_pb2.ListEnrichmentsResponse()

    def add(self, record: enrichment_pb2.Enrichment) -> bool:
        """Take the next record; False says that it belongs on the next page, and ends this one."""
        self._bytes += record.ByteSize()
        found = self.response.enrichments
        if len(found) == self._listing.size or (found and self._bytes > MAX_PAGE_BYTES):
            self.response.next_page_token = self._listing.token(Ranks.of(found[-1]))
            return False
        found.append(record)
        return True


def _digest(request: enrichment_pb2.ListEnrichmentsRequest, *, newest_first: bool) -> str:
    """Return what a page token is bound to: filters and order, but not the size of a page."""
    bound = enrichment_pb2.ListEnrichmentsRequest()
    bound.CopyFrom(request)
    bound.ClearField("page_size")
    bound.ClearField("page_token")
    bound.ClearField("order")
    told = bound.SerializeToString(deterministic=True) + bytes([newest_first])
    return hashlib.blake2b(told, digest_size=8).hexdigest()


def _place(token: str, check: str, *, newest_first: bool) -> Place:
    refusal = InvalidRequestError.of(
        "page_token", "is not one that these filters were given", "PAGE_TOKEN"
    )
    try:
        found, *numbers, name = json.loads(base64.urlsafe_b64decode(token.encode("ascii")))
        name.encode()
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise refusal from error
    # A token is the caller's to alter: only numbers and a text go on from here.
    if (
        found != check
        or len(numbers) != (1 if newest_first else 3)
        or not all(type(n) is int and abs(n) < 1 << 62 for n in numbers)
    ):
        raise refusal
    return (*numbers, name)
