"""Where rules of one kind are gathered: each check is written beside the data about it."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field

from liner.v1 import enrichment_pb2, track_pb2

from liner_server.audio.measurements import Listening
from liner_server.core.enums import Profile, Severity
from liner_server.core.rules.rule import Check, Finding, Rule

ERROR = enrichment_pb2.SEVERITY_ERROR
WARNING = enrichment_pb2.SEVERITY_WARNING
INFO = enrichment_pb2.SEVERITY_INFO

APPLE = "Apple Music Style Guide"
AVS = "DDEX AVS"
PRACTICE = "Liner"

Found = Iterator[Finding]
Heard = Listening | None
Track = track_pb2.Track


@dataclass(frozen=True)
class RuleBook:
    """Rules in the order they were written."""

    entries: list[Rule] = field(default_factory=list)

    def rule(
        self,
        rule_id: str,
        severity: Severity,
        path: str,
        *,
        source: str,
        why: str,
        profiles: Collection[Profile] | None = None,
    ) -> Callable[[Check], Check]:
        """Return a decorator that makes a check one of this book's rules."""

        def register(check: Check) -> Check:
            self.entries.append(
                Rule(
                    rule_id=rule_id,
                    severity=severity,
                    field=path,
                    source=source,
                    why=why,
                    check=check,
                    profiles=None if profiles is None else frozenset(profiles),
                )
            )
            return check

        return register

    @property
    def rules(self) -> tuple[Rule, ...]:
        """All rules of the book."""
        return tuple(self.entries)


def change(path: str, current: str, suggested: str, message: str) -> Finding:
    """Return a finding that a machine can mend."""
    return Finding(field=path, message=message, current=current, suggested=suggested)


def noted(path: str, message: str, current: str) -> Finding:
    """Return a finding that only a person can mend."""
    return Finding(field=path, message=message, current=current)


def shown(text: str, limit: int = 60) -> str:
    """Return text fit to be quoted in a message: short, and printable on one line."""
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in cut)
