"""What is still open about one track, and which further opinion would be worth its price.

The first model that answers is asked for every field whose settled confidence is too low. Another
one behind it is asked only where its answer can make a difference: where the best it could say
would settle the field, or where what there is so far is no better than an even chance. A second
score that nothing was fitted to cannot lift a first one over the cap of such scores, so it is not
bought.
"""

from collections.abc import Callable, Mapping, Sequence

from liner.v1 import track_pb2

from liner_server.core.calibration import Calibrated
from liner_server.core.claims import Claim
from liner_server.core.fields import FIELDS
from liner_server.core.ledger import Ledger, Policy, surest

EVEN = 0.5
"""Under this a value is more likely wrong than right, and any other opinion is worth having."""

_UNNAMED = "a value that nobody named so far"

Ceiling = Callable[[str], Calibrated]
"""By path: the most that a value can count for by a model's word."""


class Openings:
    """The fields wanted of one track that are not settled, as models' claims come in."""

    def __init__(self, ledger: Ledger, claims: Sequence[Claim], policy: Policy) -> None:
        """Take what is claimed before any model is asked."""
        self._ledger = ledger
        self._claims = claims
        self._policy = policy

    def weak(self, said: Sequence[Claim]) -> frozenset[str]:
        """Return the fields whose settled confidence is under `min_confidence`."""
        least = self._policy.min_confidence
        return self._wanted() - {p for p, sure in self._settled(said).items() if sure >= least}

    def worth_another(self, said: Sequence[Claim], ceiling: Ceiling) -> frozenset[str]:
        """Return those weak fields that another model, no surer than `ceiling`, could help."""
        least, settled = self._policy.min_confidence, self._settled(said)
        claims: dict[str, list[Claim]] = {}
        for claim in (*self._claims, *said):
            claims.setdefault(claim.field, []).append(claim)
        found = set()
        for path in self._wanted():
            sure, known = settled.get(path, 0.0), claims.get(path, [])
            if sure >= least and path in settled:
                continue
            if path not in settled and any(claim.absent for claim in known):
                # It was answered: there is none.
                continue
            if sure < EVEN or _reach(path, known, ceiling(path)) >= least:
                found.add(path)
        return frozenset(found)

    def _wanted(self) -> frozenset[str]:
        return self._policy.fields or frozenset(FIELDS)

    def _settled(self, said: Sequence[Claim]) -> Mapping[str, float]:
        """Return the confidence of every field that has a value."""
        return {
            result.field: result.confidence
            for result in self._ledger.results([*self._claims, *said])
            if result.decision != track_pb2.DECISION_ABSTAINED
        }


def _reach(path: str, claims: Sequence[Claim], most: Calibrated) -> float:
    """Return how sure the field can be after one more claim, whichever value it is for."""
    values = dict.fromkeys([*(claim.value for claim in claims if claim.value), _UNNAMED])
    return max(
        surest(
            path,
            [
                *claims,
                Claim(
                    field=path,
                    value=value,
                    source=track_pb2.SOURCE_MODEL,
                    confidence=most.probability,
                    basis=most.basis,
                ),
            ],
        )
        for value in values
    )
