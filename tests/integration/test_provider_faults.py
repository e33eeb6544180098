"""A model endpoint that misbehaves: each fault is one typed error, in bounded time and space."""

import asyncio
import gc
import gzip
import json
import time
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from random import Random
from typing import Any

import psutil
import pytest
from liner_server.core.retry import RetryBudget
from liner_server.core.vocabulary import GENRES
from liner_server.errors import DeadlineError, ProviderError
from support.asking import answer, answers, asking, question
from support.eventually import eventually
from support.scripted_model import (
    Reply,
    Script,
    gzip_bomb,
    json_reply,
    refuses,
    says,
    scripted_model,
    token,
)

GOOD = answers(r1=answer({"genre": "Jazz"}))
MIB = 1 << 20


async def _fault(*script: Script, seconds: float = 20.0) -> ProviderError:
    """Return the error that a provider ends with when the endpoint follows this script."""
    async with scripted_model(*script) as model, asking(model.base_url) as provider:
        with pytest.raises(ProviderError) as caught:
            await provider.propose(question(None, "genre", seconds=seconds))
        await eventually(lambda: model.open == 0)
    return caught.value


async def test_a_good_answer_becomes_a_claim_with_its_cost():
    """What all other tests deviate from."""
    async with (
        scripted_model(says(GOOD, tokens=(90, 12))) as model,
        asking(model.base_url) as asked,
    ):
        found = await asked.propose(question(None, "genre"))

    [claim] = found.claims
    assert (claim.field, claim.value, claim.model) == ("genre", "Jazz", "qwen2")
    assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (90, 12)
    assert found.retry_count == 0


@pytest.mark.parametrize(
    ("status", "reason", "retryable"),
    [
        (301, "MODEL_REQUEST_REFUSED", False),
        (400, "MODEL_REQUEST_REFUSED", False),
        (401, "MODEL_CREDENTIALS", False),
        (403, "MODEL_CREDENTIALS", False),
        (404, "MODEL_NOT_FOUND", False),
        (408, "MODEL_TIMEOUT", True),
        (409, "MODEL_BUSY", True),
        (413, "MODEL_REQUEST_REFUSED", False),
        (418, "MODEL_REQUEST_REFUSED", False),
        (422, "MODEL_REQUEST_REFUSED", False),
        (429, "MODEL_RATE_LIMITED", True),
        (500, "MODEL_SERVER_ERROR", True),
        (502, "MODEL_SERVER_ERROR", True),
        (503, "MODEL_SERVER_ERROR", True),
        (504, "MODEL_SERVER_ERROR", True),
        (599, "MODEL_SERVER_ERROR", True),
    ],
)
async def test_each_status_is_one_reason(status: int, reason: str, retryable: bool):
    """The router reads `retryable`; what an endpoint writes about its error reaches nobody."""
    error = await _fault(refuses(status, message="secret of the endpoint, quoting the prompt"))

    assert (error.reason, error.retryable) == (reason, retryable)
    assert "secret" not in f"{error} {error.message} {error.to_item_error()}"


async def test_one_call_is_made_for_a_failure():
    """The client's own retries would sleep through the caller's deadline."""
    async with scripted_model(refuses(503)) as model, asking(model.base_url) as provider:
        with pytest.raises(ProviderError):
            await provider.propose(question(None, "genre"))

        assert len(model.requests) == 1


async def test_an_account_without_money_is_not_asked_again():
    """OpenAI says 429 to that as well, and no wait will help."""
    body = {"error": {"message": "x", "type": "insufficient_quota", "code": "insufficient_quota"}}

    error = await _fault(json_reply(body, 429, {"Retry-After": "1"}))

    assert (error.reason, error.retryable) == ("MODEL_QUOTA", False)


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [
        ("7", 7, 7),
        ("0", 0, 0),
        ("1.5", 1.5, 1.5),
        (" 3 ", 3, 3),
        ("-5", 0, 0),
        ("1e9", 86_400, 86_400),
        ("999999999999999999999999", 86_400, 86_400),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 86_400, 86_400),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 0, 0),
    ],
)
async def test_every_form_of_retry_after_is_understood(header: str, least: float, most: float):
    """Seconds, dates and absurd values: what comes out is a wait from nothing to a day."""
    error = await _fault(refuses(429, retry_after=header))

    assert error.retry_after is not None
    assert least <= error.retry_after.total_seconds() <= most


async def test_a_retry_after_may_be_a_moment():
    """As proxies say it; ours is the clock it is compared with."""
    moment = format_datetime(datetime.now(UTC) + timedelta(seconds=600), usegmt=True)

    error = await _fault(refuses(503, retry_after=moment))

    assert error.retry_after is not None
    assert 500 <= error.retry_after.total_seconds() <= 600


@pytest.mark.parametrize(
    "header",
    [
        "",
        "soon",
        "NaN",
        "inf",
        "-inf",
        "1,5",
        "1_0",
        "0x10",
        "Fri, 99 Foo 2026",
        "7; drop",
        "9" * 200,
    ],
)
async def test_a_retry_after_that_states_nothing_is_none(header: str):
    """The caller's own backoff decides then."""
    error = await _fault(refuses(503, retry_after=header))

    assert error.retry_after is None


@pytest.mark.parametrize("length", [0, 1, 10, 100, 200, 300])
async def test_a_connection_dropped_at_any_byte_is_one_error(length: int):
    """Half an answer is none, even if what came looks whole."""
    error = await _fault(Reply(body=says(GOOD).body, cut_after=length))

    assert (error.reason, error.retryable) == ("MODEL_UNREACHABLE", True)


async def test_nobody_listening_is_one_error(unused_tcp_port: int):
    """The commonest outage of all."""
    async with asking(f"http://127.0.0.1:{unused_tcp_port}/v1") as provider:
        with pytest.raises(ProviderError) as caught:
            await provider.propose(question(None, "genre"))

    assert (caught.value.reason, caught.value.retryable) == ("MODEL_UNREACHABLE", True)


async def test_an_endpoint_that_hangs_up_before_the_status_line_is_one_error():
    """A half-open connection, or a server that restarts."""

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with server, asking(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1") as asked:
        with pytest.raises(ProviderError) as caught:
            await asked.propose(question(None, "genre"))

    assert (caught.value.reason, caught.value.retryable) == ("MODEL_UNREACHABLE", True)


@pytest.mark.parametrize(
    "garbage",
    [b"\x16\x03\x01\x02\x00", b"HTTP/9.9 abc\r\n\r\n", b"\r\n\r\n", b"SSH-2.0-x\r\n"],
    ids=["TLS", "HTTP/9.9", "nothing", "SSH"],
)
async def test_an_endpoint_that_speaks_no_http_is_one_error(garbage: bytes):
    """A wrong port in the settings answers with anything."""

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(garbage)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    async with server, asking(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1") as asked:
        with pytest.raises(ProviderError) as caught:
            await asked.propose(question(None, "genre"))

    assert caught.value.reason in {"MODEL_UNREACHABLE", "MODEL_REPLY_BROKEN"}


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(Reply(first_byte_after=60), id="slow first byte"),
        pytest.param(Reply(body=says(GOOD).body, drip=0.05), id="drip"),
        pytest.param(Reply(body=b" ", endless=True, drip=0.01), id="endless drip"),
    ],
)
@pytest.mark.parametrize("seconds", [0.2, 0.5])
async def test_a_call_ends_at_its_deadline(reply: Reply, seconds: float):
    """However the time is lost: the caller has a deadline, and the upstream work stops too."""
    async with scripted_model(reply) as model, asking(model.base_url) as provider:
        await provider._chat.models(deadline=asyncio.get_running_loop().time() + 10)
        began = time.monotonic()
        with pytest.raises(DeadlineError):
            await provider.propose(question(None, "genre", seconds=seconds))
        took = time.monotonic() - began

        await eventually(lambda: model.open == 0)
    assert seconds * 0.9 <= took <= seconds + 0.5


async def test_a_deadline_that_has_passed_asks_nobody():
    """Nothing may happen on behalf of a caller who has gone."""
    async with scripted_model(says(GOOD)) as model, asking(model.base_url) as provider:
        with pytest.raises(DeadlineError):
            await provider.propose(question(None, "genre", seconds=-1))

        assert model.requests == []


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(Reply(first_byte_after=60), id="before the first byte"),
        pytest.param(Reply(body=b" ", drip=0.01, endless=True), id="in the body"),
    ],
)
async def test_a_cancelled_caller_reaches_the_endpoint_within_100_ms(reply: Reply):
    """Whoever stops waiting must not go on paying."""
    async with scripted_model(reply) as model, asking(model.base_url) as provider:
        call = asyncio.create_task(provider.propose(question(None, "genre")))
        await eventually(lambda: model.open == 1)
        await asyncio.sleep(0.05)

        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await eventually(lambda: model.open == 0, within=0.1)


LETTER = b"a" * MIB
ENVELOPE = b'{"choices": [{"message": {"content": "'


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(Reply(body=LETTER, repeat=100), id="100 MB in chunks"),
        pytest.param(Reply(body=LETTER, repeat=100, states_length=True), id="100 MB, stated"),
        pytest.param(gzip_bomb(200 * MIB), id="gzip bomb"),
        pytest.param(Reply(body=LETTER, endless=True), id="endless stream"),
        pytest.param(
            Reply(
                body=gzip.compress(LETTER * 8, 9),
                endless=True,
                headers={"Content-Encoding": "gzip", "Content-Type": "application/json"},
            ),
            id="endless gzip",
        ),
        pytest.param(Reply(body=LETTER, endless=True, status=503), id="endless error"),
    ],
)
async def test_a_reply_without_end_costs_neither_memory_nor_time(reply: Reply):
    """One mebibyte of answer is read, whatever comes; the rest of the server must not notice."""
    async with scripted_model(reply) as model, asking(model.base_url) as provider:
        await provider._chat.models(deadline=asyncio.get_running_loop().time() + 10)
        process = psutil.Process()
        gc.collect()
        before, began = process.memory_info().rss, time.monotonic()

        for _ in range(3):
            with pytest.raises(ProviderError) as caught:
                await provider.propose(question(None, "genre"))
        took = time.monotonic() - began
        grown = process.memory_info().rss - before
        await eventually(lambda: model.open == 0)

    expected = "MODEL_SERVER_ERROR" if reply.status == 503 else "MODEL_ANSWER_TOO_LARGE"
    assert caught.value.reason == expected
    # The endpoint runs in this process too, and its socket buffers count.
    assert grown < 24 * MIB
    assert took < 3


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "compress", "nonsense"])
async def test_an_encoding_nobody_asked_for_is_refused(encoding: str):
    """Layers of packing can unpack to little, with any amount of work."""
    reply = Reply(body=says(GOOD).body, headers={"Content-Encoding": encoding})

    assert (await _fault(reply)).reason == "MODEL_REPLY_BROKEN"


@pytest.mark.parametrize("body", [b"", b"not gzip", gzip.compress(says(GOOD).body)[:-12]])
async def test_a_broken_packing_is_one_error(body: bytes):
    """A proxy that lies about what it sends."""
    reply = Reply(body=body, headers={"Content-Encoding": "gzip"})

    error = await _fault(reply)

    assert error.reason in {"MODEL_REPLY_BROKEN", "MODEL_UNREACHABLE"}


async def test_a_packed_answer_is_read():
    """Some proxies pack without being asked to."""
    reply = says(GOOD)
    packed = Reply(
        body=gzip.compress(reply.body),
        headers={"Content-Encoding": "gzip", "Content-Type": "application/json"},
    )
    async with scripted_model(packed) as model, asking(model.base_url) as provider:
        found = await provider.propose(question(None, "genre"))

    assert [claim.value for claim in found.claims] == ["Jazz"]


_WHOLE = json.loads(says(GOOD).body)


def _with(**choice: object) -> Reply:
    return json_reply({**_WHOLE, "choices": [{**_WHOLE["choices"][0], **choice}]})


@pytest.mark.parametrize(
    "reply",
    [
        Reply(body=b""),
        Reply(body=b"<html>Bad gateway</html>"),
        Reply(body=b"null"),
        Reply(body=b"[]"),
        Reply(body=b"{}"),
        Reply(body=b"\xff\xfe\x00"),
        Reply(body=b"[" * 200_000),
        Reply(body=says(GOOD).body[:-3]),
        Reply(body=says(GOOD).body.replace(b"100", b"NaN")),
        json_reply({"choices": []}),
        json_reply({"choices": None}),
        json_reply({"choices": {}}),
        json_reply({"choices": [None]}),
        json_reply({"choices": _WHOLE["choices"] * 2}),
        _with(message=None),
        _with(message={"content": None}),
        _with(message={"content": ""}),
        _with(message={"content": " \n\t "}),
        _with(message={"content": 7}),
        _with(message={"content": ["Jazz"]}),
        _with(finish_reason="tool_calls"),
        _with(finish_reason=None),
        _with(finish_reason=["stop"]),
    ],
)
async def test_a_reply_that_is_no_completion_is_one_error(reply: Reply):
    """A proxy's page, half a body, another service: nothing of it gets near a claim."""
    error = await _fault(reply)

    assert (error.reason, error.retryable) == ("MODEL_REPLY_BROKEN", True)


@pytest.mark.parametrize(
    "place",
    [
        {"token": "{", "bytes": 10**18, "logprob": -1.0},
        {"token": "{", "bytes": 10**30, "logprob": -1.0},
        {"token": "{", "bytes": True, "logprob": -1.0},
        {"token": "{", "bytes": [256], "logprob": -1.0},
        {"token": "{", "logprob": -(10**400)},
        {"token": "\ud800", "logprob": -1.0},
        {"token": "{", "logprob": -1.0, "top_logprobs": [{"token": "x", "bytes": 10**18}]},
        {"token": "{", "logprob": -1.0, "top_logprobs": {"x": 1}},
    ],
)
async def test_log_probabilities_that_make_no_sense_cost_neither_memory_nor_the_answer(
    place: dict[str, Any],
):
    """They are left out as if the endpoint gave none: the value is proposed, and never sure."""
    async with (
        scripted_model(says(GOOD, logprobs=[place])) as model,
        asking(model.base_url) as provider,
    ):
        found = await provider.propose(question(None, "genre"))

    [claim] = found.claims
    assert claim.value == "Jazz"
    assert claim.score is not None
    assert not claim.score.from_logprobs


async def test_no_damaged_reply_does_more_than_fail():
    """Bytes cut, doubled and exchanged anywhere: a checked answer or one of our errors."""
    random = Random(4)
    whole = says(GOOD, logprobs=[token(GOOD, 0.5, {"x": 0.5})]).body

    def damaged(_: Mapping[str, Any]) -> Reply:
        body = bytearray(whole)
        for _ in range(random.randint(1, 4)):
            start = random.randrange(len(body))
            end = min(len(body), start + random.randint(0, 6))
            other = bytes(random.choice(whole + b'\x00\xff\\"{}[]') for _ in range(end - start))
            body[start:end] = random.choice((b"", other, body[start:end] * 2))
        return Reply(body=bytes(body), headers={"Content-Type": "application/json"})

    kinds = set()
    async with scripted_model(damaged) as model, asking(model.base_url) as provider:
        for _ in range(200):
            try:
                found = await provider.propose(question(None, "genre"))
            except ProviderError as error:
                kinds.add(error.reason)
            else:
                kinds.add("answered")
                assert {claim.value for claim in found.claims} <= {"", *GENRES}
                assert all(0 <= claim.confidence <= 0.6 for claim in found.claims)

    assert {"answered", "MODEL_REPLY_BROKEN"} <= kinds


@pytest.mark.parametrize(
    "reply",
    [refuses(401, message="sk-canary is wrong"), Reply(body=b"sk-canary"), says("sk-canary")],
)
async def test_neither_the_key_nor_the_reply_is_in_an_error_or_its_traceback(reply: Reply):
    """Errors are logged with all that caused them."""
    async with (
        scripted_model(reply) as model,
        asking(model.base_url, api_key="sk-canary") as provider,
    ):
        with pytest.raises(ProviderError) as caught:
            await provider.propose(question(None, "genre"))

    lines = traceback.format_exception(caught.value)
    assert "sk-canary" not in "".join(lines)


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (says(None, refusal="I cannot help with that"), "MODEL_DECLINED"),
        (says(GOOD, refusal="I cannot help with that"), "MODEL_DECLINED"),
        (says(GOOD, finish="content_filter"), "MODEL_DECLINED"),
        (says(GOOD, finish="length"), "MODEL_ANSWER_CUT"),
        (says(GOOD[:20], finish="length"), "MODEL_ANSWER_CUT"),
    ],
)
async def test_a_refusal_and_a_cut_are_no_answers(reply: Reply, reason: str):
    """Even if what came before the stop could be read; asked again it would be the same."""
    error = await _fault(reply)

    assert (error.reason, error.retryable) == (reason, False)


INVALID = {
    "prose": "I think it is Jazz.",
    "truncated": GOOD[:-4],
    "twice": GOOD + GOOD,
    "a list": "[]",
    "a text": '"Jazz"',
    "another shape": '{"genre": "Jazz"}',
    "a key too many": GOOD[:-1] + ', "note": "x"}',
    "a key twice": '{"answers": [], "answers": []}',
    "answers as object": '{"answers": {"r1": {}}}',
    "no answers": '{"answers": []}',
    "another id": answers(r2=answer({"genre": "Jazz"})),
    "the caller's id": answers(**{"track-1": answer({"genre": "Jazz"})}),
    "an id twice": json.dumps({"answers": json.loads(GOOD)["answers"] * 2}),
    "an id too many": answers(r1=answer({"genre": "Jazz"}), r2=answer({"genre": "Jazz"})),
    "id a number": json.dumps({"answers": [{"id": 1, "fields": answer({"genre": "Jazz"})}]}),
    "id a list": json.dumps({"answers": [{"id": ["r1"], "fields": answer({"genre": "Jazz"})}]}),
    "many answers": json.dumps({"answers": json.loads(GOOD)["answers"] * 500}),
    "no fields": answers(r1={}),
    "fields null": json.dumps({"answers": [{"id": "r1", "fields": None}]}),
    "a field not asked for": answers(r1=answer({"genre": "Jazz", "isrc": "USAAA2400001"})),
    "another field": answers(r1=answer({"moods": ["Calm"]})),
    "a bare value": answers(r1={"genre": "Jazz"}),
    "a key in a field": answers(r1={"genre": {"value": "Jazz", "confidence": 1, "why": ""}}),
    "outside the list": answers(r1=answer({"genre": "Polka"})),
    "another case": answers(r1=answer({"genre": "jazz"})),
    "a space": answers(r1=answer({"genre": "Jazz "})),
    "null": answers(r1=answer({"genre": None})),
    "a number": answers(r1=answer({"genre": 7})),
    "true": answers(r1=answer({"genre": True})),
    "a list of one": answers(r1=answer({"genre": ["Jazz"]})),
    "an object": answers(r1=answer({"genre": {"Jazz": 1}})),
    "a huge string": answers(r1=answer({"genre": "J" * 150_000})),
    "a huge answer": answers(r1=answer({"genre": "J" * 250_000})),
    "nested": GOOD.replace('"Jazz"', "[" * 60 + "]" * 60),
    "deep": '{"answers": ' + "[" * 5_000 + "]" * 5_000 + "}",
    **{
        f"confidence {text}": GOOD.replace("0.7", text)
        for text in ("NaN", "Infinity", "-Infinity", "1e999", "1.5", "-0.1", '"0.9"', "null")
    },
    "confidence true": GOOD.replace("0.7", "true"),
    "confidence of 5,000 digits": GOOD.replace("0.7", "9" * 5_000),
}


@pytest.mark.parametrize("content", INVALID.values(), ids=INVALID.keys())
async def test_an_invalid_answer_gets_one_repair_try_and_then_fails(content: str):
    """Nothing unvalidated is claimed, and a model that cannot answer costs two calls, not more."""
    sure = says(content, logprobs=[token(content, 1.0)] if len(content) < 10_000 else None)
    async with scripted_model(sure) as model, asking(model.base_url) as provider:
        with pytest.raises(ProviderError) as caught:
            await provider.propose(question(None, "genre"))

        assert len(model.requests) == 2
    assert (caught.value.reason, caught.value.retryable) == ("MODEL_ANSWER_INVALID", False)


async def test_a_repaired_answer_counts_with_all_that_it_cost():
    """The bill is for both calls."""
    async with (
        scripted_model(says("Jazz!", tokens=(50, 5)), says(GOOD, tokens=(60, 10))) as model,
        asking(model.base_url) as provider,
    ):
        found = await provider.propose(question(None, "genre"))

    assert [claim.value for claim in found.claims] == ["Jazz"]
    assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (110, 15)
    assert found.retry_count == 1


async def test_what_was_used_before_the_time_ran_out_is_counted_as_lost():
    """The first call was paid for, though its repair never came back."""
    asked = question(None, "genre", seconds=0.5)
    async with (
        scripted_model(says("Jazz!", tokens=(50, 5)), Reply(first_byte_after=60)) as model,
        asking(model.base_url) as provider,
    ):
        with pytest.raises(DeadlineError):
            await provider.propose(asked)

    assert (asked.lost.usage.prompt_tokens, asked.lost.usage.completion_tokens) == (50, 5)
    assert asked.lost.retries == 1


async def test_the_repair_tells_what_was_wrong_and_repeats_nothing_of_it():
    """The hostile answer must not become part of the next prompt."""
    hostile = answers(r1=answer({"genre": "<script>EVIL</script>"}))
    async with (
        scripted_model(says(hostile), says(GOOD)) as model,
        asking(model.base_url) as provider,
    ):
        await provider.propose(question(None, "genre"))

    last = model.requests[1]["messages"][-1]
    assert last["role"] == "user"
    assert "genre is not one of the choices" in last["content"]
    assert "EVIL" not in json.dumps(model.requests[1])


async def test_without_a_retry_budget_there_is_no_repair():
    """In an outage of sense, repairs would double the load as retries do."""
    budget = RetryBudget(reserve=0)
    async with scripted_model(says("Jazz!")) as model, asking(model.base_url) as provider:
        with pytest.raises(ProviderError) as caught:
            await provider.propose(question(None, "genre", retry_budget=budget))

        assert len(model.requests) == 1
    assert caught.value.reason == "MODEL_ANSWER_INVALID"


@pytest.mark.parametrize(
    "fence", ["```json\n{}\n```", "```\n{}\n```", "\n ```json\n{}```\n", "\n{}\n"]
)
async def test_a_fence_round_an_answer_is_taken_off(fence: str):
    """Models that take no schema write one out of habit; asking again would get it again."""
    content = fence.replace("{}", GOOD)
    async with scripted_model(says(content)) as model, asking(model.base_url) as provider:
        found = await provider.propose(question(None, "genre"))

    assert [claim.value for claim in found.claims] == ["Jazz"]
    assert len(model.requests) == 1
