"""Lists of objects a page at a time, without what the caller may not use."""

import base64
from collections.abc import Sequence

import google_crc32c
from liner.v1 import storage_pb2

from liner_server.context import RESERVED, Principal
from liner_server.errors import InvalidRequestError
from liner_server.ports import ObjectStore

_DEFAULT_PAGE, _MAX_PAGE = 100, 1000
_MAX_PAGE_BYTES = 3 << 20
"""gRPC clients receive 4 MiB unless told otherwise, and metadata alone may be 8 KiB an object."""

_LAST = chr(0x10FFFF)
"""No name has this character, so it comes behind all names that begin with a prefix."""


async def page_of(
    objects: ObjectStore, request: storage_pb2.ListObjectsRequest, principal: Principal
) -> storage_pb2.ListObjectsResponse:
    """Return a page of the objects that the principal may use.

    Raises:
        InvalidRequestError: the size is negative, or the token was not given for this prefix.

    """
    if request.page_size < 0:
        raise InvalidRequestError.of("page_size", "must not be negative", "NUMBER_RANGE")
    size = min(request.page_size or _DEFAULT_PAGE, _MAX_PAGE)
    after = _after(request.page_token, request.prefix)
    found: list[storage_pb2.StoredObject] = []
    for start in _starts(request.prefix, principal):
        # One more than asked for tells whether there is another page.
        found += await _usable(objects, start, after, size + 1 - len(found), principal)
    page = found[: _fitting(found[:size])]
    response = storage_pb2.ListObjectsResponse(objects=page)
    if len(found) > len(page):
        response.next_page_token = _token(request.prefix, page[-1].object_name)
    return response


def _starts(prefix: str, principal: Principal) -> Sequence[str]:
    """Return where to look: whoever owns prefixes is taken straight to them."""
    if "admin" in principal.roles or not principal.owns or prefix.startswith(principal.owns):
        return [prefix]
    inside = sorted(owned for owned in principal.owns if owned.startswith(prefix))
    return [p for n, p in enumerate(inside) if not p.startswith(tuple(inside[:n]))]


async def _usable(
    objects: ObjectStore, prefix: str, after: str, limit: int, principal: Principal
) -> list[storage_pb2.StoredObject]:
    """Return so many objects behind `after`, stepping over those of others."""
    # The server's own names are for who asks for them.
    hidden = () if prefix.startswith(RESERVED) else (RESERVED,)
    usable: list[storage_pb2.StoredObject] = []
    while len(usable) < limit:
        found = await objects.list(prefix, after=after, limit=limit)
        for stored in found:
            after = stored.object_name
            if principal.may_use(after) and not after.startswith(hidden):
                usable.append(stored)
                continue
            # A million objects of somebody else are one step. What is one's own among them, by a
            # longer prefix, is found from there.
            foreign = max(
                (p for p in (RESERVED, *principal.barred) if after.startswith(p)), key=len
            )
            own = [p for p in principal.owns if p.startswith(foreign) and p > after]
            after = min(own) if own else foreign + _LAST
            break
        else:
            if len(found) < limit:
                break
    return usable[:limit]


def _fitting(found: Sequence[storage_pb2.StoredObject]) -> int:
    """How many of these fit into one message; at least one, which always fits."""
    total = 0
    for count, stored in enumerate(found):
        total += stored.ByteSize()
        if count and total > _MAX_PAGE_BYTES:
            return count
    return len(found)


def _token(prefix: str, last: str) -> str:
    check = google_crc32c.value(prefix.encode()).to_bytes(4, "big")
    return base64.urlsafe_b64encode(check + last.encode()).decode()


def _after(token: str, prefix: str) -> str:
    """The name that a page token says was last; the token belongs to its prefix."""
    if not token:
        return ""
    try:
        data = base64.urlsafe_b64decode(token.encode("ascii"))
        last = data[4:].decode()
    except ValueError:
        data, last = b"", ""
    if data[:4] != google_crc32c.value(prefix.encode()).to_bytes(4, "big") or not last:
        raise InvalidRequestError.of("page_token", "is not one this prefix was given", "PAGE_TOKEN")
    return last
