"""A claim: one source saying one thing about one field, before it is weighed."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from liner.v1 import track_pb2

from liner_server.core.enums import Basis, Source


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What one source says of one field. On no wire: `FieldResult` is what callers see."""

    field: str
    """Path in Track."""

    value: str
    """Canonical text; empty for a source that listened and could not tell."""

    source: Source
    confidence: float
    """Probability that the value is right if nobody else had spoken."""

    basis: Basis
    others: tuple[tuple[str, float], ...] = ()
    """Other values this source holds possible, with their probabilities."""

    absent: bool = False
    """Whether a claim without a value says that there is none, as most titles have no version."""

    model: str = ""
    reason: str = ""
    """Why, or why not, in words an editor understands."""

    score: track_pb2.ModelScore | None = None
    """What a model scored the value itself, to be kept with the result; never weighed."""


@dataclass
class Lost:
    """What calls about one track took that ended without an answer: it was paid all the same."""

    usage: track_pb2.Usage = field(default_factory=track_pb2.Usage)
    retries: int = 0
    """Calls beyond the first of each try."""

    def add(self, usage: track_pb2.Usage, retries: int) -> None:
        """Count one try."""
        add_usage(self.usage, usage)
        self.retries += retries


def add_usage(total: track_pb2.Usage, usage: track_pb2.Usage) -> None:
    """Add a usage to a sum."""
    total.prompt_tokens += usage.prompt_tokens
    total.completion_tokens += usage.completion_tokens
    total.cost_usd += usage.cost_usd


@dataclass(frozen=True, kw_only=True)
class ProviderAnswer:
    """What a provider said, and what it cost, but for calls that are counted as `Lost`."""

    claims: Sequence[Claim]
    model_version: str
    prompt_version: str = ""
    usage: track_pb2.Usage = field(default_factory=track_pb2.Usage)
    retry_count: int = 0
