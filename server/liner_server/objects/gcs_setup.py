"""The lifecycle rules that do for a bucket what they can of a clean-up's work.

Cloud Storage sees names and times and no metadata, so these are the rules for temp/, for parts of
uploads that were never finished, and for prefixes that stand for a tier. They go by whole days,
and by the object's own creation: an object with metadata of another tier, a custom time or a legal
hold in its metadata must not lie below such a prefix unless Cloud Storage itself holds it. They
are a net below `liner-server cleanup`, a day slower, so that a clean-up comes first.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from liner_server.cloud_parts import Part
from liner_server.core.retention import TEMP, RetentionPolicy
from liner_server.objects.gcs_bucket import Bucket
from liner_server.objects.gcs_upload import UPLOADS

_SPARE_DAYS = 1
_UPLOAD_DAYS = 2


def rules_of(policy: RetentionPolicy) -> list[dict[str, Any]]:
    """Return the rules as Cloud Storage takes them."""
    limits = [(TEMP, policy.temp), *_tiers(policy)]
    rules = [
        _delete(prefix, -(-int(limit.total_seconds()) // 86_400) + _SPARE_DAYS)
        for prefix, limit in limits
    ]
    return [*rules, _delete(UPLOADS, _UPLOAD_DAYS)]


def _tiers(policy: RetentionPolicy) -> list[tuple[str, Any]]:
    limits = {"free": policy.free, "pro": policy.pro, "enterprise": policy.enterprise}
    # A prefix with a longer one inside it, of a longer limit, would delete what that one keeps.
    return [
        (prefix, limits[tier])
        for prefix, tier in sorted(policy.prefixes.items())
        if limits[tier] and not any(p != prefix and p.startswith(prefix) for p in policy.prefixes)
    ]


def _delete(prefix: str, days: int) -> dict[str, Any]:
    return {
        "action": {"type": "Delete"},
        "condition": {"age": days, "matchesPrefix": [prefix]},
    }


async def set_up(bucket: Bucket, policy: RetentionPolicy, *, dry_run: bool) -> AsyncIterator[Part]:
    """Give the bucket our rules and yield each; rules about other prefixes stay as they are.

    The bucket itself is made by whoever decides its place, class and keys.

    Raises:
        FailedPreconditionError: there is no such bucket, or this account may not.
        UnavailableError: Cloud Storage cannot be reached.

    """
    await asyncio.to_thread(bucket.open)
    try:
        yield Part(kind="bucket", path=bucket.name, state="exists")
        there = await asyncio.to_thread(bucket.lifecycle)
        wanted = rules_of(policy)
        ours = {_prefixes(rule) for rule in wanted}
        others = [rule for rule in there if _prefixes(rule) not in ours]
        states = []
        for rule in wanted:
            known = [one for one in there if _prefixes(one) == _prefixes(rule)]
            states.append("exists" if rule in known else "differs" if known else "missing")
        if any(state != "exists" for state in states) and not dry_run:
            await asyncio.to_thread(bucket.set_lifecycle, [*others, *wanted])
            states = [{"differs": "changed", "missing": "created"}.get(s, s) for s in states]
        for rule, state in zip(wanted, states, strict=True):
            condition = rule["condition"]
            yield Part(
                kind="lifecycle",
                path=f"{bucket.name}/{condition['matchesPrefix'][0]}",
                state=state,
                note=f"deleted after {condition['age']} days",
            )
    finally:
        await asyncio.to_thread(bucket.close)


def _prefixes(rule: dict[str, Any]) -> tuple[str, ...]:
    return tuple(rule.get("condition", {}).get("matchesPrefix", ()))
