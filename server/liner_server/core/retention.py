"""What may be deleted, and when: pure rules over an object's facts, and how much may go at once.

    temp/...                    24 hours
    metadata tier=free          30 days
    metadata tier=pro           180 days
    metadata tier=enterprise    metadata retention-days, else as configured (0: never)
    metadata legal-hold=true    never, whatever else is true
    anything else               never

Time counts from `custom_time`, else from `create_time`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import MappingProxyType

from liner.v1 import storage_pb2

from liner_server.errors import FailedPreconditionError

TEMP = "temp/"
KINDS = ("temp", "free", "pro", "enterprise", "other")
_NO_HOLD = frozenset({"", "false", "0", "no", "off"})
_MOST_DAYS = 36_500
_CLOCK_BEHIND = timedelta(hours=1)
_CLOCK_AHEAD = timedelta(days=10)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the rules say of one object."""

    kind: str
    """One of KINDS."""

    due: datetime | None = None
    """When its time is over; None: never."""

    held: bool = False
    """Kept by a legal hold, due or not."""


@dataclass(frozen=True, kw_only=True)
class RetentionPolicy:
    """How long objects are kept."""

    temp: timedelta = timedelta(hours=24)
    free: timedelta = timedelta(days=30)
    pro: timedelta = timedelta(days=180)
    enterprise: timedelta = timedelta(0)
    """Zero: for ever, unless the object itself says how many days."""

    notice: timedelta = timedelta(days=7)
    """How long before its time is over an object gets a notice; temp/ gets none."""

    most_share: float = 0.3
    """Part of all objects with a tier and a limit that may go in one run. What lies under temp/
    comes and goes daily and does not count."""

    prefixes: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Tier of objects without one in their metadata, by the beginning of the name."""

    def judge(self, stored: storage_pb2.StoredObject) -> Verdict:
        """Return what the rules say of an object; what they do not understand is kept."""
        held = stored.metadata.get("legal-hold", "").strip().lower() not in _NO_HOLD
        kind = self._kind(stored)
        kept = self._kept(kind, stored.metadata.get("retention-days", ""))
        if kept is None:
            return Verdict(kind=kind, held=held)
        counts = stored.custom_time if stored.HasField("custom_time") else stored.create_time
        try:
            due = counts.ToDatetime(tzinfo=UTC) + kept
        except (ValueError, OverflowError):
            return Verdict(kind=kind, held=held)
        return Verdict(kind=kind, due=due, held=held)

    def _kind(self, stored: storage_pb2.StoredObject) -> str:
        if stored.object_name.startswith(TEMP):
            return "temp"
        tier = stored.metadata.get("tier", "")
        if not tier and self.prefixes:
            inside = [p for p in self.prefixes if stored.object_name.startswith(p)]
            tier = self.prefixes[max(inside, key=len)] if inside else ""
        return tier if tier in ("free", "pro", "enterprise") else "other"

    def _kept(self, kind: str, own_days: str) -> timedelta | None:
        match kind:
            case "temp":
                return self.temp
            case "free":
                return self.free
            case "pro":
                return self.pro
            case "enterprise":
                if own_days:
                    return _days(own_days)
                return self.enterprise or None
            case _:
                return None


@dataclass(kw_only=True)
class Count:
    """What was found of one kind."""

    examined: int = 0
    due: int = 0
    deleted: int = 0
    noticed: int = 0
    held: int = 0


@dataclass(kw_only=True)
class Census:
    """What a store holds and what of it is due: counted first, so that it can be refused whole."""

    policy: RetentionPolicy
    now: datetime
    counts: dict[str, Count] = field(default_factory=lambda: {kind: Count() for kind in KINDS})
    limited: int = 0
    """Objects with a tier and a limit, due or not."""
    newest: datetime | None = None

    def add(self, stored: storage_pb2.StoredObject) -> Verdict:
        """Count an object and return what the rules say of it."""
        verdict = self.policy.judge(stored)
        count = self.counts[verdict.kind]
        count.examined += 1
        made = stored.create_time.ToDatetime(tzinfo=UTC)
        if self.newest is None or made > self.newest:
            self.newest = made
        if verdict.due is not None:
            self.limited += verdict.kind != "temp"
            if verdict.held:
                count.held += 1
            else:
                count.due += verdict.due <= self.now
        elif verdict.held:
            count.held += 1
        return verdict

    @property
    def due(self) -> int:
        """How many have had their time."""
        return sum(count.due for count in self.counts.values())

    @property
    def share(self) -> float:
        """The part of the objects with a tier and a limit that is due."""
        tiered = self.due - self.counts["temp"].due
        return tiered / self.limited if self.limited else 0.0

    def check(self, last_run: datetime | None) -> None:
        """Pass if so much may go, and the clock fits what is stored.

        Raises:
            FailedPreconditionError: CLEANUP_SHARE or CLEANUP_CLOCK.

        """
        if not self.due:
            return
        known = max((t for t in (self.newest, last_run) if t is not None), default=self.now)
        if not known - _CLOCK_BEHIND <= self.now <= known + _CLOCK_AHEAD:
            raise FailedPreconditionError(
                f"the clock says {self.now:%Y-%m-%d %H:%M} and the newest object or clean-up is of "
                f"{known:%Y-%m-%d %H:%M}: nothing was deleted; if the clock is right, use force",
                reason="CLEANUP_CLOCK",
            )
        if self.share > self.policy.most_share:
            tiered = self.due - self.counts["temp"].due
            raise FailedPreconditionError(
                f"{tiered} of {self.limited} objects with a limit would go, {self.share:.0%} and "
                f"more than {self.policy.most_share:.0%}: nothing was deleted; if that is right, "
                "use force",
                reason="CLEANUP_SHARE",
            )


def _days(text: str) -> timedelta | None:
    """Return the time that an object states for itself; None where it cannot be understood."""
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 0 < int(text) <= _MOST_DAYS):
        return None
    return timedelta(days=int(text))
