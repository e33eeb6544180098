"""What a rule is: data about it, and a check that finds what breaks it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from liner.v1 import track_pb2

from liner_server.audio.measurements import Listening
from liner_server.core.enums import Profile, Severity


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One place where a track breaks a rule."""

    message: str
    """For an editor: what is wrong, and what would be right."""

    current: str = ""
    suggested: str | None = None
    """What a machine may put in place of `current`; None when nothing safe is known."""

    field: str = ""
    """Path in Track, where it is not the rule's own."""


Check = Callable[[track_pb2.Track, Listening | None], Iterator[Finding]]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One thing that must hold of a track."""

    rule_id: str
    """Stable; in answers, logs and docs/rules.md."""

    severity: Severity
    field: str
    """Path in Track that it judges."""

    source: str
    """Where it is written: a standard, a style guide, or Liner itself."""

    why: str
    """One line for docs/rules.md: why anyone should care."""

    check: Check

    profiles: frozenset[Profile] | None = None
    """Delivery profiles in which it holds; None for all."""
