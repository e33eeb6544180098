"""The servicer core: every door (unary call, stream, queue) comes through here."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from liner.v1 import enrichment_pb2, track_pb2

from liner_server.audio.measurements import Listening
from liner_server.context import RequestContext, track_id
from liner_server.core import validator
from liner_server.core.answers import AnswerCache, answer_key, as_known
from liner_server.core.enums import Profile
from liner_server.core.evidence import given_and_tags
from liner_server.core.fields import FIELDS
from liner_server.core.flights import Flights
from liner_server.core.lane import Lane
from liner_server.core.ledger import Ledger, Policy
from liner_server.core.openings import Openings
from liner_server.core.rates import LONGEST_PENALTY
from liner_server.core.reply import reply
from liner_server.core.router import Excerpts, Plan, Router
from liner_server.core.rules.batch_memory import audio_identity
from liner_server.errors import DeadlineError, LinerError, UnavailableError
from liner_server.ports import Listener, ModelProvider, Question

DEFAULT_MIN_CONFIDENCE = 0.8
POLICY_VERSION = "3"
"""Changes whenever the same claims may be settled otherwise."""

_WORTH_ANOTHER_TRY = timedelta(seconds=0.2)
"""With less time left than this, joining others' failed work is the end of it."""


class Observer(Protocol):
    """Who is told how each answer went; the telemetry in the running service."""

    def answered(self, model: str, operation: str, outcome: str, seconds: float) -> None:
        """One track was answered or failed."""

    def confident(self, model: str, confidence: float) -> None:
        """An answer had this confidence."""


class Recorder(Protocol):
    """Who keeps a record of what was answered."""

    def record(
        self, answer: enrichment_pb2.EnrichMetadataResponse, context: RequestContext
    ) -> None:
        """Take note of an answer that was worked out; returns at once, changes nothing."""

    async def room(self) -> None:
        """Return once there is room for more, or no hope of it; within seconds."""


class Analyst(Protocol):
    """Who keeps a row of every answer, for experiments."""

    def answered(
        self,
        plan: Plan,
        answer: enrichment_pb2.EnrichMetadataResponse | None,
        context: RequestContext,
        *,
        operation: str,
        outcome: str,
        seconds: float,
    ) -> None:
        """Take note of how one track ended; returns at once, keeps and changes nothing of it.

        `outcome` is "ok", an error's reason, or "ABORTED"; without an answer it is never "ok".
        """


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """One question of a caller."""

    track: track_pb2.Track
    options: enrichment_pb2.EnrichOptions
    policy: Policy
    operation: str


class Enricher:
    """Answers what is true of a track, from what is given, tagged, heard and proposed."""

    def __init__(
        self,
        *,
        embedded: ModelProvider,
        router: Router,
        listener: Listener,
        answers: AnswerCache,
        observer: Observer,
        recorder: Recorder | None = None,
        analyst: Analyst | None = None,
    ) -> None:
        """Take who records the answers that are worked out; jobs' answers their consumer does."""
        self._analyst = analyst
        self._embedded = embedded
        self._router = router
        self._listener = listener
        self._answers = answers
        self._observer = observer
        self._recorder = recorder
        self._flights: Flights[enrichment_pb2.EnrichMetadataResponse] = Flights()

    @property
    def embedded(self) -> ModelProvider:
        """The provider that is always there."""
        return self._embedded

    @property
    def models(self) -> Sequence[str]:
        """The models that a caller may ask for by name."""
        return [*(lane.name for lane in self._router.lanes), self._embedded.name]

    @property
    def lanes(self) -> Sequence[Lane]:
        """The lanes to the configured models."""
        return self._router.lanes

    async def room(self) -> None:
        """Return once the records of answers are not far behind: who sends many waits for it."""
        if self._recorder is not None:
            await self._recorder.room()

    async def enrich(
        self,
        track: track_pb2.Track,
        options: enrichment_pb2.EnrichOptions,
        context: RequestContext,
        *,
        operation: str = "enrich",
    ) -> enrichment_pb2.EnrichMetadataResponse:
        """Return the enriched track before the context's deadline; `track` is not changed.

        The same question asked at the same moment is worked out once, and later ones are answered
        from memory.

        Raises:
            LinerError: InvalidRequestError for an unknown model, what the listener raises, and
                UnavailableError or DeadlineError if `require_model` is set and no model answered.

        """
        started = time.monotonic()
        track_id.set(track.track_id)
        asked = _Asked(track=track, options=options, policy=_policy(options), operation=operation)
        model, outcome = self._embedded.name, "ok"
        plan: Plan | None = None
        answer: enrichment_pb2.EnrichMetadataResponse | None = None
        try:
            digest = await self._digest(track, context)
            plan = self._plan(asked, digest, context)
            if plan.lanes:
                model = plan.lanes[0].name
            answer = await self._answer(asked, plan, digest, context)
            model = answer.processing.model
            _make_own(answer.track, track)
            elapsed = time.monotonic() - started
            answer.processing.processing_time.FromTimedelta(timedelta(seconds=elapsed))
        except LinerError as error:
            outcome = error.reason
            raise
        except BaseException:
            outcome = "ABORTED"
            raise
        finally:
            took = time.monotonic() - started
            self._observer.answered(model, operation, outcome, took)
            if self._analyst is not None and plan is not None and context.recorded:
                self._analyst.answered(
                    plan, answer, context, operation=operation, outcome=outcome, seconds=took
                )
        self._observer.confident(model, answer.processing.confidence)
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
        verdict = validator.validate(track, profile=profile, listening=listening)
        if listening is not None:
            verdict.audio_identity.CopyFrom(audio_identity(listening))
        return verdict

    async def _digest(self, track: track_pb2.Track, context: RequestContext) -> bytes:
        """What the track says and holds: audio counts by its bytes, not by the way it came."""
        told = track_pb2.Track()
        told.CopyFrom(track)
        told.ClearField("track_id")
        audio = b""
        if track.HasField("audio"):
            audio = await self._listener.digest(track.audio, context)
            told.audio.ClearField("content")
        return answer_key(told.SerializeToString(deterministic=True), audio)

    def _plan(self, asked: _Asked, digest: bytes, context: RequestContext) -> Plan:
        model = asked.options.model or context.model
        if model == self._embedded.name:
            return Plan(lanes=(), unit=asked.track.track_id or digest.hex())
        return self._router.plan(model=model, unit=asked.track.track_id or digest.hex())

    async def _answer(
        self, asked: _Asked, plan: Plan, digest: bytes, context: RequestContext
    ) -> enrichment_pb2.EnrichMetadataResponse:
        """Return an answer that is the caller's own to change."""
        if asked.options.skip_cache:
            return await self._begin(asked, plan, self._key(asked, plan, digest), context)
        key = self._key(asked, plan, digest)
        while True:
            known = self._answers.get(key)
            if known is not None:
                return known
            try:
                answer, joined = await self._flights.join(
                    key, lambda: self._find_or_begin(asked, plan, key, context)
                )
            except DeadlineError:
                # Whoever began this had less time: begin anew with what is left of ours.
                if context.remaining() > _WORTH_ANOTHER_TRY:
                    continue
                raise
            if joined:
                poorer = answer.processing.HasField("error")
                if poorer and context.remaining() > _WORTH_ANOTHER_TRY:
                    continue
                return as_known(answer)
            own = enrichment_pb2.EnrichMetadataResponse()
            own.CopyFrom(answer)
            return own

    async def _find_or_begin(
        self, asked: _Asked, plan: Plan, key: bytes, context: RequestContext
    ) -> enrichment_pb2.EnrichMetadataResponse:
        known = await self._answers.fetch(key)
        return known or await self._begin(asked, plan, key, context)

    async def _begin(
        self, asked: _Asked, plan: Plan, key: bytes, context: RequestContext
    ) -> enrichment_pb2.EnrichMetadataResponse:
        """Work an answer out, keep it and have it recorded, whoever still waits for it."""
        started = time.monotonic()
        answer = await self._work_out(asked, plan, context)
        elapsed = time.monotonic() - started
        answer.processing.processing_time.FromTimedelta(timedelta(seconds=elapsed))
        self._keep(key, answer)
        if self._recorder is not None and context.recorded and not context.enrichment_id:
            self._recorder.record(answer, context)
        return answer

    def _keep(self, key: bytes, answer: enrichment_pb2.EnrichMetadataResponse) -> None:
        # An answer that a failure made poorer must not outlive the failure.
        if not answer.processing.HasField("error"):
            self._answers.put(key, answer)

    def _key(self, asked: _Asked, plan: Plan, digest: bytes) -> bytes:
        """The question, as far as it decides the answer."""
        options = enrichment_pb2.EnrichOptions()
        options.CopyFrom(asked.options)
        options.ClearField("skip_cache")
        options.ClearField("model")
        return answer_key(
            POLICY_VERSION.encode(),
            self._embedded.version.encode(),
            plan.key(),
            options.SerializeToString(deterministic=True),
            digest,
        )

    async def _hear(self, track: track_pb2.Track, context: RequestContext) -> Listening | None:
        if context.remaining() <= timedelta(0):
            raise DeadlineError("the deadline passed before the work began", reason="DEADLINE")
        if not track.HasField("audio"):
            return None
        return await self._listener.listen(track.audio, context)

    async def _work_out(
        self, asked: _Asked, plan: Plan, context: RequestContext
    ) -> enrichment_pb2.EnrichMetadataResponse:
        track, policy = asked.track, asked.policy
        listening = await self._hear(track, context)
        question = Question(track=track, fields=policy.fields, listening=listening, context=context)
        measured = await self._embedded.propose(question)
        claims = [*given_and_tags(track, listening), *measured.claims]
        ledger = Ledger(track, policy)
        routed = await self._router.answer(
            question,
            plan,
            fields=Openings(ledger, claims, policy),
            excerpts=self._excerpts(track, context) if track.HasField("audio") else None,
            packed=asked.operation == "batch",
        )
        if asked.options.require_model and routed.failures and not routed.answered:
            raise _no_model(routed.failures)
        return reply(
            track,
            ledger.settle([*claims, *routed.claims]),
            measured=measured,
            plan=plan,
            routed=routed,
            listening=listening,
            policy=policy,
            context=context,
        )

    def _excerpts(self, track: track_pb2.Track, context: RequestContext) -> Excerpts:
        """Make the excerpts once, when the first model that hears is asked."""
        made: list[Sequence[bytes]] = []

        async def excerpts() -> Sequence[bytes]:
            if not made:
                try:
                    made.append(await self._listener.excerpts(track.audio, context))
                except LinerError:
                    # The model still reads what is written and what was measured.
                    made.append(())
            return made[0]

        return excerpts


def _make_own(answered: track_pb2.Track, asked: track_pb2.Track) -> None:
    """Give an answer, whoever asked first, what is this asker's own."""
    if asked.HasField("track_id"):
        answered.track_id = asked.track_id
    else:
        answered.ClearField("track_id")
    if asked.HasField("audio"):
        answered.audio.CopyFrom(asked.audio)
    else:
        answered.ClearField("audio")


def _no_model(failures: Sequence[tuple[str, LinerError]]) -> LinerError:
    """The error of a caller who wants a model's answer or none."""
    told = ", ".join(f"{model}: {error.reason}" for model, error in failures)
    if all(isinstance(error, DeadlineError) for _, error in failures):
        return DeadlineError(
            f"no model answered in time ({told})",
            reason="NO_MODEL_IN_TIME",
            retry_after=timedelta(seconds=1),
        )
    waits = [error.retry_after for _, error in failures if error.retry_after is not None]
    return UnavailableError(
        f"no model could answer ({told})",
        reason="NO_MODEL_ANSWERED",
        # A model is asked again after this pause, whatever Retry-After its endpoint made up.
        retry_after=min([*waits, LONGEST_PENALTY]) if waits else timedelta(seconds=1),
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
