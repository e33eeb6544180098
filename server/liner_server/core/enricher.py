"""The servicer core: every door (unary call, stream, queue) comes through here."""

import time
import uuid
from collections.abc import Sequence
from datetime import timedelta
from typing import Protocol

from liner.v1 import enrichment_pb2, track_pb2

from liner_server.audio.measurements import Content, Listening
from liner_server.context import RequestContext
from liner_server.core import validator
from liner_server.core.answers import AnswerCache, answer_key
from liner_server.core.claims import ProviderAnswer
from liner_server.core.enums import Profile
from liner_server.core.evidence import given_and_tags
from liner_server.core.fields import FIELDS
from liner_server.core.ledger import Policy, settle
from liner_server.errors import DeadlineError, InvalidRequestError, LinerError
from liner_server.ports import Listener, ModelProvider, Question

DEFAULT_MIN_CONFIDENCE = 0.8
POLICY_VERSION = "2"
"""Changes whenever the same claims may be settled otherwise."""


class Observer(Protocol):
    """Who is told how each answer went; the telemetry in the running service."""

    def answered(self, model: str, operation: str, outcome: str, seconds: float) -> None:
        """One track was answered or failed."""

    def confident(self, model: str, confidence: float) -> None:
        """An answer had this confidence."""


class Enricher:
    """Answers what is true of a track, from what is given, tagged, heard and proposed."""

    def __init__(
        self,
        *,
        providers: Sequence[ModelProvider],
        listener: Listener,
        answers: AnswerCache,
        observer: Observer,
    ) -> None:
        self._providers = {provider.name: provider for provider in providers}
        self._listener = listener
        self._answers = answers
        self._observer = observer

    @property
    def providers(self) -> Sequence[ModelProvider]:
        """The configured providers, in the order they are asked."""
        return tuple(self._providers.values())

    async def enrich(
        self,
        track: track_pb2.Track,
        options: enrichment_pb2.EnrichOptions,
        context: RequestContext,
        *,
        operation: str = "enrich",
    ) -> enrichment_pb2.EnrichMetadataResponse:
        """Return the enriched track before the context's deadline; `track` is not changed.

        Raises:
            LinerError: InvalidRequestError for an unknown model, and what the listener raises.

        """
        started = time.monotonic()
        provider = self._choose(options.model or context.model)
        outcome = "ok"
        try:
            key = await self._key(track, options, provider)
            answer = None if options.skip_cache else self._answers.get(key)
            if answer is None:
                answer = await self._work_out(track, options, context, provider)
                self._answers.put(key, answer)
            elapsed = time.monotonic() - started
            answer.processing.processing_time.FromTimedelta(timedelta(seconds=elapsed))
        except LinerError as error:
            outcome = error.reason
            raise
        except BaseException:
            outcome = "ABORTED"
            raise
        finally:
            self._observer.answered(provider.name, operation, outcome, time.monotonic() - started)
        self._observer.confident(provider.name, answer.processing.confidence)
        return answer

    async def validate(
        self,
        track: track_pb2.Track,
        profile: Profile,
        context: RequestContext,
    ) -> enrichment_pb2.ValidateMetadataResponse:
        """Return the judgement on what the caller states; with audio also against what is heard.

        Raises:
            LinerError: what the listener raises.

        """
        listening = await self._hear(track, context)
        return validator.validate(track, profile=profile, listening=listening)

    def _choose(self, name: str) -> ModelProvider:
        if not name:
            return next(iter(self._providers.values()))
        if name not in self._providers:
            raise InvalidRequestError.of(
                "options.model",
                f"no such model; configured: {', '.join(self._providers)}",
                "MODEL_UNKNOWN",
            )
        return self._providers[name]

    async def _key(
        self,
        track: track_pb2.Track,
        options: enrichment_pb2.EnrichOptions,
        provider: ModelProvider,
    ) -> bytes:
        """The question, as far as it decides the answer."""
        asked = enrichment_pb2.EnrichOptions()
        asked.CopyFrom(options)
        asked.ClearField("skip_cache")
        asked.model = provider.name
        told = track_pb2.Track()
        told.CopyFrom(track)
        # Audio counts by its bytes, not by the way it came.
        audio = b""
        if track.HasField("audio"):
            audio = await self._listener.digest(track.audio)
            told.audio.ClearField("content")
        return answer_key(
            POLICY_VERSION.encode(),
            provider.version.encode(),
            told.SerializeToString(deterministic=True),
            asked.SerializeToString(deterministic=True),
            audio,
        )

    async def _hear(self, track: track_pb2.Track, context: RequestContext) -> Listening | None:
        if context.remaining() <= timedelta(0):
            raise DeadlineError("the deadline passed before the work began", reason="DEADLINE")
        if not track.HasField("audio"):
            return None
        return await self._listener.listen(track.audio, context)

    async def _work_out(
        self,
        track: track_pb2.Track,
        options: enrichment_pb2.EnrichOptions,
        context: RequestContext,
        provider: ModelProvider,
    ) -> enrichment_pb2.EnrichMetadataResponse:
        listening = await self._hear(track, context)
        policy = _policy(options)
        claims = given_and_tags(track, listening)
        proposed = await provider.propose(
            Question(track=track, fields=policy.fields, listening=listening, context=context)
        )
        enriched, results = settle(track, [*claims, *proposed.claims], policy)
        verdict = validator.validate(
            track,
            profile=enrichment_pb2.DELIVERY_PROFILE_MINIMAL,
            listening=listening,
        )
        issues = list(verdict.issues)
        # What was filled is no longer missing.
        found = {r.field for r in results if r.decision == track_pb2.DECISION_FILLED}
        issues = [i for i in issues if i.rule_id != "FIELD_MISSING" or i.field not in found]
        return enrichment_pb2.EnrichMetadataResponse(
            track=enriched,
            fields=results,
            processing=_processing(provider, proposed, results, issues, listening, policy),
            issues=issues,
        )


def _policy(options: enrichment_pb2.EnrichOptions) -> Policy:
    paths: set[str] = set()
    for asked in options.fields.paths:
        # A message's path stands for all its fields: "properties".
        paths |= {path for path in FIELDS if path == asked or path.startswith(asked + ".")}
    return Policy(
        overwrite=options.overwrite_policy,
        min_confidence=(
            options.min_confidence if options.HasField("min_confidence") else DEFAULT_MIN_CONFIDENCE
        ),
        fields=frozenset(paths),
    )


def _processing(
    provider: ModelProvider,
    proposed: ProviderAnswer,
    results: Sequence[track_pb2.FieldResult],
    issues: Sequence[enrichment_pb2.ValidationIssue],
    listening: Listening | None,
    policy: Policy,
) -> track_pb2.ProcessingResult:
    reasons = _review_reasons(results, issues, listening, policy)
    return track_pb2.ProcessingResult(
        model=provider.name,
        model_version=proposed.model_version,
        prompt_version=proposed.prompt_version,
        confidence=_confidence(results),
        retry_count=proposed.retry_count,
        usage=proposed.usage,
        needs_review=bool(reasons),
        review_reasons=reasons,
        enrichment_id=uuid.uuid4().hex,
    )


def _confidence(results: Sequence[track_pb2.FieldResult]) -> float:
    valued = [r for r in results if r.decision != track_pb2.DECISION_ABSTAINED]
    found = [r for r in valued if r.source != track_pb2.SOURCE_GIVEN]
    # What is counted rather than judged would hide a doubtful tempo behind a sure sample rate,
    # and a score that nothing was fitted to says nothing of how sure the answer is.
    judged = [r for r in found if r.confidence_basis != track_pb2.CONFIDENCE_BASIS_EXACT]
    sound = [r for r in judged if r.confidence_basis != track_pb2.CONFIDENCE_BASIS_UNCALIBRATED]
    chosen = sound or judged or found or valued
    return round(sum(r.confidence for r in chosen) / len(chosen), 4) if chosen else 0.0


def _offered_unasked(result: track_pb2.FieldResult, policy: Policy) -> bool:
    """Whether a proposal is an extra: a score nothing was fitted to, for a field nobody named.

    Such a proposal never becomes surer; if it called for review, every track would.
    """
    uncalibrated = result.confidence_basis == track_pb2.CONFIDENCE_BASIS_UNCALIBRATED
    return uncalibrated and result.field not in policy.fields


def _review_reasons(
    results: Sequence[track_pb2.FieldResult],
    issues: Sequence[enrichment_pb2.ValidationIssue],
    listening: Listening | None,
    policy: Policy,
) -> list[str]:
    """What an editor should look at, the most urgent first."""
    reasons = [
        f"{issue.rule_id}: {issue.message}"
        for issue in issues
        if issue.severity == enrichment_pb2.SEVERITY_ERROR
    ]
    reasons += [
        f"{result.field}: {result.value} is more likely "
        f"({result.confidence:.0%}) than {result.given_value}, which was given"
        for result in results
        if result.decision == track_pb2.DECISION_PROPOSED and result.HasField("given_value")
    ]
    for result in results:
        if result.decision == track_pb2.DECISION_PROPOSED and not result.HasField("given_value"):
            if _offered_unasked(result, policy):
                continue
            reasons.append(f"{result.field}: {result.value} is only {result.confidence:.0%} sure")
        elif (
            result.decision == track_pb2.DECISION_KEPT
            and result.confidence < min(policy.min_confidence, 0.5)
            and result.alternatives
        ):
            reasons.append(f"{result.field}: {result.given_value} is doubtful")
    if listening is not None and listening.content is Content.SILENCE:
        reasons.insert(0, "the audio is silent")
    return reasons
