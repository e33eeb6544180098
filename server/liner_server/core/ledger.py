"""Claims in, one decision a field out: the published policy that picks values.

How confidences combine. Each source spreads its belief over the values it named; what it did not
name shares what is left, of which any one other value gets half (`UNNAMED`); where a tempo or a
key is stated without rivals, what is akin to it gets more and all else less. Beliefs multiply over
the sources, as for witnesses who do not know of each other, and are scaled to one together with
the case that nobody is right. One witness alone keeps its own probability; two at 0.8 who agree
reach 0.94; at 0.9 against 0.75 the first keeps about 0.75. Who agrees takes nothing away: a second
witness who is less than half sure counts as half sure. `agreement` says what agreeing means,
`fields` which fields a model's word alone may fill.

How far that number may go. A single fitted probability is passed on as it is. As soon as an
unfitted one takes part, or several combine, the result counts as a rule of ours and stays at or
below 0.9 (or the best fitted one), and what only unfitted scores support stays at or below 0.6.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from liner.v1 import enrichment_pb2, track_pb2

from liner_server.core.agreement import agrees, akin, told_relation
from liner_server.core.claims import Claim
from liner_server.core.enums import Basis, Decision, OverwritePolicy, Source
from liner_server.core.fields import FIELDS, Field, Kind, read, write
from liner_server.core.rules.book import shown

UNNAMED = 0.5
UNNAMED_AKIN, UNNAMED_STRANGE = 0.8, 0.2
"""Of tempi and keys that a source states wrongly, most are an octave or a relative key away."""

EVEN = 0.5
"""At least this is what a source that agrees with a surer one counts for."""

_FLOOR = 0.01
"""No source is so sure that it cannot be outvoted, save an exact one."""

PROPOSE_FROM = 0.3
"""Below this a value is not even offered: it would cost the editor more than it gives."""

_MAX_ALTERNATIVES = 8

CAPS = {
    track_pb2.CONFIDENCE_BASIS_EXACT: 1.0,
    track_pb2.CONFIDENCE_BASIS_CALIBRATED: 0.99,
    track_pb2.CONFIDENCE_BASIS_RULE: 0.9,
    track_pb2.CONFIDENCE_BASIS_UNCALIBRATED: 0.6,
}
_SOURCES = {
    track_pb2.SOURCE_GIVEN: "the caller",
    track_pb2.SOURCE_TAG: "the file's tag",
    track_pb2.SOURCE_MEASURED: "listening",
    track_pb2.SOURCE_MODEL: "a model",
    track_pb2.SOURCE_DERIVED: "another field",
}


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What the caller allows."""

    overwrite: OverwritePolicy
    min_confidence: float
    fields: frozenset[str]
    """Paths asked for; empty for all that can be found out."""


@dataclass(kw_only=True)
class _Candidate:
    """One value and those who hold it."""

    value: str
    claims: list[Claim]
    confidence: float = 0.0
    basis: Basis = track_pb2.CONFIDENCE_BASIS_UNSPECIFIED

    @property
    def first(self) -> Claim:
        return self.claims[0]

    @property
    def seconding(self) -> Sequence[Claim]:
        """All who hold it but the surest."""
        surest = max(self.claims, key=lambda claim: claim.confidence)
        return [claim for claim in self.claims if claim is not surest]


class Ledger:
    """Settles one track as claims come in; a field is decided anew only when its claims changed."""

    def __init__(self, track: track_pb2.Track, policy: Policy) -> None:
        self._track = track
        self._policy = policy
        self._decided: dict[str, tuple[list[Claim], track_pb2.FieldResult]] = {}

    def results(self, claims: Iterable[Claim]) -> list[track_pb2.FieldResult]:
        """Return one result a field, in Track's order."""
        by_field: dict[str, list[Claim]] = {}
        for claim in claims:
            by_field.setdefault(claim.field, []).append(claim)
        wanted = self._policy.fields or by_field.keys()
        return [
            self._result(field, by_field.get(path, []))
            for path, field in FIELDS.items()
            if path in wanted
        ]

    def settle(
        self, claims: Iterable[Claim]
    ) -> tuple[track_pb2.Track, list[track_pb2.FieldResult]]:
        """Return a copy of the track with what was decided, and the results."""
        results = self.results(claims)
        enriched = track_pb2.Track()
        enriched.CopyFrom(self._track)
        for result in results:
            if result.decision in (track_pb2.DECISION_FILLED, track_pb2.DECISION_CORRECTED):
                write(enriched, result.field, result.value)
        return enriched, results

    def _result(self, field: Field, claims: list[Claim]) -> track_pb2.FieldResult:
        known = self._decided.get(field.path)
        if known is not None and known[0] == claims:
            return known[1]
        result = _decide(field, claims, self._policy)
        self._decided[field.path] = claims, result
        return result


def settle(
    track: track_pb2.Track, claims: Iterable[Claim], policy: Policy
) -> tuple[track_pb2.Track, list[track_pb2.FieldResult]]:
    """Return a copy of the track with what was decided, and one result a field in Track's order."""
    return Ledger(track, policy).settle(claims)


def surest(path: str, claims: Sequence[Claim]) -> float:
    """Return the confidence of the most probable value that is claimed; 0 without any."""
    return max((candidate.confidence for candidate in _weigh(FIELDS[path], claims)), default=0.0)


def sureness(confidence: float, basis: Basis) -> str:
    """Return how sure a value is, in words that claim no more than the basis carries."""
    if basis == track_pb2.CONFIDENCE_BASIS_UNCALIBRATED:
        return f"a guess: its score of {confidence:.2f} was fitted to nothing"
    return f"{confidence:.0%} sure"


def given_claims(track: track_pb2.Track, trust: Mapping[Kind, float]) -> list[Claim]:
    """Return what the caller states as claims; `trust` is the probability by kind of field."""
    claims = []
    stated = {descriptor.name for descriptor, _ in track.ListFields()}
    for path, field in FIELDS.items():
        # Most tracks state few fields, and what is not there need not be read.
        value = read(track, path) if path.partition(".")[0] in stated else None
        if value is not None:
            claims.append(
                Claim(
                    field=path,
                    value=value,
                    source=track_pb2.SOURCE_GIVEN,
                    confidence=trust.get(field.kind, 0.9),
                    basis=track_pb2.CONFIDENCE_BASIS_RULE,
                )
            )
    return claims


def _unnamed(field: Field, claim: Claim, value: str) -> float:
    """Share of what a claim leaves open that one value gets which it did not name."""
    # Who listed rivals has said which mistakes are likely; others are most often wrong by these.
    if claim.others or field.kind not in (Kind.TEMPO, Kind.KEY):
        return UNNAMED
    return UNNAMED_AKIN if akin(field, claim.value, value) else UNNAMED_STRANGE


def _weigh(field: Field, claims: Sequence[Claim]) -> list[_Candidate]:
    """Return the values claimed, most probable first."""
    speaking = [claim for claim in claims if claim.value]
    if len(speaking) == 1 and not any(claim.others for claim in claims):
        return [_alone(speaking[0])]
    candidates: list[_Candidate] = []
    for claim in speaking:
        for candidate in candidates:
            if agrees(field, claim.value, candidate.value):
                candidate.claims.append(claim)
                break
        else:
            candidates.append(_Candidate(value=claim.value, claims=[claim]))
    named = list(candidates)
    for claim in claims:
        for value, _ in claim.others:
            if not any(agrees(field, value, c.value) for c in candidates):
                candidates.append(_Candidate(value=value, claims=[claim]))
    nobody = 1.0
    weights = [1.0] * len(candidates)
    seconding = {id(claim) for candidate in named for claim in candidate.seconding}
    for claim in speaking:
        confidence = claim.confidence
        if confidence < EVEN and id(claim) in seconding:
            confidence = EVEN
        # A rival that means the same is none: what it holds is not taken from the doubt.
        others = [(v, p) for v, p in claim.others if not agrees(field, v, claim.value)]
        beliefs = ((claim.value, confidence), *others)
        # Alternatives share only what the main value leaves.
        room = max(1 - confidence, _FLOOR)
        total = sum(p for _, p in others)
        scale = min(1.0, room / total) if total else 0.0
        rest = max(room - scale * total, _FLOOR)
        nobody *= rest
        for index, candidate in enumerate(candidates):
            belief = rest * _unnamed(field, claim, candidate.value)
            for position, (value, probability) in enumerate(beliefs):
                if agrees(field, value, candidate.value):
                    belief = probability if position == 0 else max(probability * scale, _FLOOR)
                    break
            weights[index] *= belief
    total = sum(weights) + nobody
    for candidate, weight in zip(candidates, weights, strict=True):
        stated = candidate in named
        candidate.confidence, candidate.basis = _bounded(
            weight / total, candidate.claims if stated else [], alone=len(speaking) == 1
        )
    candidates.sort(key=lambda c: -c.confidence)
    best = candidates[0] if candidates else None
    if best is not None and best.basis == track_pb2.CONFIDENCE_BASIS_EXACT:
        # What was counted was raised to what counting is worth: the others share the rest.
        rivals = sum(other.confidence for other in candidates[1:])
        share = min(1.0, (1 - best.confidence) / rivals) if rivals else 1.0
        for other in candidates[1:]:
            other.confidence *= share
    return candidates


def _alone(claim: Claim) -> _Candidate:
    """The one value of the one source that speaks, as of most fields: what all the rest gives."""
    share = claim.confidence / (claim.confidence + max(1 - claim.confidence, _FLOOR))
    confidence, basis = _bounded(share, [claim], alone=True)
    return _Candidate(value=claim.value, claims=[claim], confidence=confidence, basis=basis)


def _bounded(confidence: float, claims: Sequence[Claim], *, alone: bool) -> tuple[float, Basis]:
    """Return the confidence as far as its basis carries it, and that basis."""
    exact = track_pb2.CONFIDENCE_BASIS_EXACT
    if any(claim.basis == exact for claim in claims):
        return max(confidence, 1 - _FLOOR), exact
    if alone and claims:
        basis = claims[0].basis
        return min(confidence, CAPS[basis]), basis
    fitted = [c.confidence for c in claims if c.basis == track_pb2.CONFIDENCE_BASIS_CALIBRATED]
    ruled = any(claim.basis == track_pb2.CONFIDENCE_BASIS_RULE for claim in claims)
    if fitted or ruled:
        cap = max([CAPS[track_pb2.CONFIDENCE_BASIS_RULE], *fitted])
        return min(confidence, cap), track_pb2.CONFIDENCE_BASIS_RULE
    basis = track_pb2.CONFIDENCE_BASIS_UNCALIBRATED
    return min(confidence, CAPS[basis]), basis


def _decide(field: Field, claims: Sequence[Claim], policy: Policy) -> track_pb2.FieldResult:
    candidates = _weigh(field, claims)
    given = next((c for c in claims if c.source == track_pb2.SOURCE_GIVEN), None)
    if given is None:
        chosen, decision = _without_given(field, candidates[0] if candidates else None, policy)
    else:
        chosen, decision = _with_given(field, given, candidates, policy)
    result = track_pb2.FieldResult(field=field.path, decision=decision)
    if given is not None:
        result.given_value = given.value
    for claim in claims:
        if claim.score is not None:
            result.model_scores.append(claim.score)
    if chosen is None:
        doubts = [claim.reason for claim in claims if claim.reason and not claim.value]
        if doubts:
            result.reason = doubts[0]
        elif candidates:
            guess = candidates[0]
            sure = sureness(guess.confidence, guess.basis)
            result.reason = f"the best that was said, {shown(guess.value)}, is only {sure}"
        else:
            result.reason = "no source says anything about it"
    else:
        first = chosen.first
        result.value = chosen.value
        result.confidence = round(chosen.confidence, 4)
        result.confidence_basis = chosen.basis
        result.source = first.source
        if first.model:
            result.model = first.model
        sources = list(dict.fromkeys([claim.source for claim in chosen.claims]))
        if len(sources) > 1:
            result.agreed_by.extend(sources[1:])
        result.reason = _reason(field, chosen, sources, given, decision)
    for other in candidates:
        if other is not chosen and len(result.alternatives) < _MAX_ALTERNATIVES:
            result.alternatives.add(
                value=other.value,
                confidence=round(other.confidence, 4),
                source=other.first.source,
            )
    return result


def _without_given(
    field: Field, best: _Candidate | None, policy: Policy
) -> tuple[_Candidate | None, Decision]:
    if best is None or best.confidence < PROPOSE_FROM:
        return None, track_pb2.DECISION_ABSTAINED
    models_only = all(claim.source == track_pb2.SOURCE_MODEL for claim in best.claims)
    if models_only and not field.decided_by_model:
        return best, track_pb2.DECISION_PROPOSED
    if best.basis == track_pb2.CONFIDENCE_BASIS_EXACT or best.confidence >= policy.min_confidence:
        return best, track_pb2.DECISION_FILLED
    return best, track_pb2.DECISION_PROPOSED


def _with_given(
    field: Field, given: Claim, candidates: Sequence[_Candidate], policy: Policy
) -> tuple[_Candidate, Decision]:
    own = next(c for c in candidates if given in c.claims)
    best = candidates[0]
    if own is best:
        # The caller's spelling stands, even if a source that agrees came first.
        own.value = given.value
        return own, track_pb2.DECISION_KEPT
    exact = best.basis == track_pb2.CONFIDENCE_BASIS_EXACT
    always = policy.overwrite == enrichment_pb2.OVERWRITE_POLICY_ALWAYS
    confident = (
        policy.overwrite == enrichment_pb2.OVERWRITE_POLICY_WHEN_CONFIDENT
        and (exact or best.confidence >= policy.min_confidence)
        and not field.identity
    )
    models_only = all(claim.source == track_pb2.SOURCE_MODEL for claim in best.claims)
    if (always or confident) and (field.decided_by_model or not models_only):
        return best, track_pb2.DECISION_CORRECTED
    if best.confidence >= PROPOSE_FROM:
        return best, track_pb2.DECISION_PROPOSED
    return own, track_pb2.DECISION_KEPT


def _reason(
    field: Field,
    chosen: _Candidate,
    sources: Sequence[Source],
    given: Claim | None,
    decision: Decision,
) -> str:
    who = [_SOURCES[source] for source in sources]
    why = next((c.reason for c in chosen.claims if c.reason), "")
    text = f"{', '.join(who[:-1])} and {who[-1]} say so" if len(who) > 1 else f"{who[0]} says so"
    if why:
        text += f": {why}"
    if given is not None and decision != track_pb2.DECISION_KEPT:
        relation = told_relation(field, given.value, chosen.value)
        text += f"; {shown(given.value)} was given" + (f", {relation} of it" if relation else "")
    return text
