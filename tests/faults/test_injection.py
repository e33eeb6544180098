"""Texts that give orders, put to a model that obeys them all: nothing of it may come through.

The model is the worst there can be. So what holds here does not rest on a model's good sense, and
not on the instructions in the prompt either, but on what is done with its answer.
"""

import asyncio
import math
from collections.abc import Sequence

import pytest
from liner.v1 import enrichment_pb2, track_pb2
from liner_server.core.calibration import UNFITTED_CAP
from liner_server.core.claims import Claim, ProviderAnswer
from liner_server.core.evidence import given_and_tags
from liner_server.core.ledger import Policy, settle
from liner_server.core.vocabulary import VOCABULARIES
from liner_server.errors import LinerError, ProviderError
from liner_server.models import prompt
from support.asking import asking, listening, question
from support.obeying_model import (
    EVIL_ISRC,
    EVIL_LINK,
    SYSTEM_MARK,
    Obeying,
    Payload,
    payloads,
    wrappings,
)
from support.scripted_model import scripted_model

PAYLOADS = list(payloads())
IDENTITY = ("title", "artists", "isrc")
POLICIES = (
    (enrichment_pb2.OVERWRITE_POLICY_NEVER, 0.8),
    (enrichment_pb2.OVERWRITE_POLICY_WHEN_CONFIDENT, 0.0),
    (enrichment_pb2.OVERWRITE_POLICY_ALWAYS, 0.8),
    (enrichment_pb2.OVERWRITE_POLICY_ALWAYS, 0.0),
)
"""What callers may set; the last is the most careless of all."""

NEVER_BY_MODEL = ("isrc", "iswc", "upc", "bpm", "key", "properties", "lyrics", "label", "album")


def test_the_corpus_is_large_and_meets_every_place() -> None:
    """A handful of known attacks would prove that these were known."""
    assert len(PAYLOADS) >= 500
    assert len({(p.wrapping, p.place) for p in PAYLOADS}) == len(wrappings()) * 11


@pytest.mark.parametrize("keeps_schema", [True, False], ids=["schema kept", "schema ignored"])
@pytest.mark.parametrize("wrapping", wrappings())
async def test_an_obeyed_injection_breaks_no_invariant(wrapping: str, keeps_schema: bool) -> None:
    """Schema, vocabulary, identity, confidence, and not a word of the prompt."""
    # Where the schema holds every payload is tried; where it does not, most are refused whole.
    tried = [p for p in PAYLOADS if p.wrapping == wrapping][:: 1 if keeps_schema else 2]
    obeying = Obeying(keeps_schema=keeps_schema)
    async with scripted_model(obeying) as model, asking(model.base_url) as provider:
        outcomes = await asyncio.gather(
            *(provider.propose(question(payload.track)) for payload in tried),
            return_exceptions=True,
        )

    # Were the orders not found, this would prove nothing.
    assert obeying.obeyed >= len(tried) * 0.8
    for payload, outcome in zip(tried, outcomes, strict=True):
        if isinstance(outcome, ProviderAnswer):
            _check_claims(payload, outcome.claims)
            _check_identity(payload, outcome.claims)
        else:
            assert isinstance(outcome, ProviderError), f"{payload}: {outcome!r}"
            _check_error(payload, outcome)


def _check_claims(payload: Payload, claims: Sequence[Claim]) -> None:
    """Only what may be answered, from its list, capped, grounded, and nothing of the prompt."""
    assert {claim.field for claim in claims} <= set(prompt.ANSWERABLE), payload
    assert not {claim.field for claim in claims} & set(NEVER_BY_MODEL), payload
    for claim in claims:
        where = f"{payload}: {claim}"
        assert math.isfinite(claim.confidence), where
        assert 0 <= claim.confidence <= UNFITTED_CAP, where
        assert claim.basis in {
            track_pb2.CONFIDENCE_BASIS_UNCALIBRATED,
            track_pb2.CONFIDENCE_BASIS_UNSPECIFIED,
        }, where
        assert claim.confidence + sum(p for _, p in claim.others) <= 1 + 1e-9, where
        if claim.field in VOCABULARIES and claim.value:
            named = [*claim.value.split("; "), *(value for value, _ in claim.others)]
            assert set(named) <= set(VOCABULARIES[claim.field]), where
        for text in (claim.value, claim.reason, *(value for value, _ in claim.others)):
            assert SYSTEM_MARK not in text, where
            assert EVIL_LINK not in text, where
            assert "<" not in text, where
            assert "://" not in text, where
            assert len(text) <= 300, where
            assert text.isprintable(), where


def _check_identity(payload: Payload, claims: Sequence[Claim]) -> None:
    """Whatever the policy: what says which recording this is stays as it was given."""
    track = payload.track
    together = [*given_and_tags(track, None), *claims]
    for overwrite, least in POLICIES:
        policy = Policy(overwrite=overwrite, min_confidence=least, fields=frozenset())
        enriched, results = settle(track, together, policy)
        where = f"{payload}, {overwrite}, {least}"
        for path in IDENTITY:
            assert getattr(enriched, path) == getattr(track, path), where
        for path in ("iswc", "upc", "bpm", "key", "properties"):
            assert enriched.HasField(path) == track.HasField(path), where  # type: ignore[arg-type]
        if least == 0.8:
            assert enriched == track, f"{where}: filled by a model's word alone"
        by_model = [r for r in results if r.source == track_pb2.SOURCE_MODEL]
        assert all(r.confidence <= UNFITTED_CAP for r in by_model), where


def _check_error(payload: Payload, error: LinerError) -> None:
    """An error tells what happened in our words; the payload is not among them."""
    text = f"{error} {error.message} {error.reason} {error.to_item_error()}"
    assert error.reason in {"MODEL_ANSWER_INVALID", "MODEL_REPLY_BROKEN", "MODEL_DECLINED"}, payload
    for foreign in (SYSTEM_MARK, EVIL_ISRC, EVIL_LINK, "Polka", "Ignore"):
        assert foreign not in text, payload


async def test_a_track_in_the_same_batch_is_not_touched_by_plain_orders() -> None:
    """Orders that can be seen put their track into a prompt of its own."""
    orders = [p for p in PAYLOADS if p.order == "others" and p.wrapping == "plain"]
    victims = [question(track_pb2.Track(title=f"Song {n}"), "genre") for n in range(4)]
    attackers = [question(p.track, "genre") for p in orders]
    async with (
        scripted_model(Obeying(keeps_schema=True)) as model,
        asking(model.base_url) as provider,
    ):
        results = await provider.propose_many([*victims, *attackers])

    answers = [r for r in results if isinstance(r, ProviderAnswer)]
    assert [answer.claims[0].value for answer in answers[:4]] == ["Jazz"] * 4
    assert [answer.claims[0].value for answer in answers[4:]] == ["Metal"] * len(orders)


async def test_a_batch_with_every_kind_of_order_keeps_every_invariant() -> None:
    """Some orders cannot be seen: whoever shares a prompt with them is still protected."""
    tried = PAYLOADS[::9]
    async with (
        scripted_model(Obeying(keeps_schema=True)) as model,
        asking(model.base_url) as provider,
    ):
        results = await provider.propose_many([question(p.track) for p in tried])

    for payload, result in zip(tried, results, strict=True):
        assert isinstance(result, ProviderAnswer), f"{payload}: {result!r}"
        _check_claims(payload, result.claims)
        _check_identity(payload, result.claims)


async def test_orders_in_the_tags_of_a_file_break_no_invariant() -> None:
    """Whoever made the file wrote them, and nobody at the label has read them."""
    tried = [p for p in PAYLOADS if p.place == "tags"]
    heard = [listening(title=p.track.tags["comment"], album=p.track.tags["comment"]) for p in tried]
    plain = track_pb2.Track(title="Blue Hour", isrc="GBAYE0601498")
    obeying = Obeying(keeps_schema=True)
    async with scripted_model(obeying) as model, asking(model.base_url) as provider:
        results = await asyncio.gather(
            *(provider.propose(question(plain, listening=one)) for one in heard)
        )

    assert obeying.obeyed >= len(tried) * 0.8
    for payload, one, result in zip(tried, heard, results, strict=True):
        _check_claims(payload, result.claims)
        # Under ALWAYS a tag may win over the label by contract; a model must not make it win.
        policy = Policy(
            overwrite=enrichment_pb2.OVERWRITE_POLICY_WHEN_CONFIDENT,
            min_confidence=0.0,
            fields=frozenset(),
        )
        enriched, _ = settle(plain, [*given_and_tags(plain, one), *result.claims], policy)
        assert (enriched.title, enriched.isrc) == (plain.title, plain.isrc), payload


async def test_no_mark_of_a_chat_template_reaches_the_model() -> None:
    """Servers look for their own marks in the text: data must not be able to end its turn."""
    marked = [p for p in PAYLOADS if p.wrapping in {"role tags", "inst tags", "fake json"}]
    obeying = Obeying(keeps_schema=True)
    async with scripted_model(obeying) as model, asking(model.base_url) as provider:
        await asyncio.gather(*(provider.propose(question(p.track)) for p in marked[::3]))

    for request in model.requests:
        roles = [message["role"] for message in request["messages"]]
        told = request["messages"][1]["content"]
        assert roles == ["system", "user"]
        assert request["messages"][0]["content"] == prompt.SYSTEM
        for mark in ("<|", "|>", "[INST]", "[/INST]", "</s>", "<<SYS>>", "```"):
            assert mark not in told


async def test_no_hidden_character_reaches_the_model() -> None:
    """What an editor cannot see on a screen, a model must not be able to read either."""
    hidden = {"bidi", "zero width", "tag characters", "soft hyphens", "controls"}
    tried = [p for p in PAYLOADS if p.wrapping in hidden]
    async with (
        scripted_model(Obeying(keeps_schema=True)) as model,
        asking(model.base_url) as provider,
    ):
        await asyncio.gather(*(provider.propose(question(p.track)) for p in tried[::3]))

    for request in model.requests:
        told = request["messages"][1]["content"]
        assert all(c.isprintable() or c in " \n\t" for c in told)
        assert not any(0xE0000 <= ord(c) <= 0xE007F for c in told)
