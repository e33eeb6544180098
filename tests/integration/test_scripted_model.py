"""The scripted model endpoint speaks to the real client as a model server would."""

import asyncio

import openai
import pytest
from support.eventually import eventually
from support.scripted_model import Reply, gzip_bomb, refuses, says, scripted_model


def _client(base_url: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=base_url, api_key="test", max_retries=0, timeout=5)


async def _ask(client: openai.AsyncOpenAI) -> str | None:
    answer = await client.chat.completions.create(
        model="scripted", messages=[{"role": "user", "content": "hello"}]
    )
    return answer.choices[0].message.content


async def test_replies_come_in_order_and_the_last_is_repeated():
    """A test scripts "fails twice, then answers" and no more."""
    async with (
        scripted_model(refuses(429, retry_after="7"), says("one")) as model,
        _client(model.base_url) as client,
    ):
        with pytest.raises(openai.RateLimitError) as error:
            await _ask(client)
        answers = [await _ask(client), await _ask(client)]

    assert error.value.response.headers["Retry-After"] == "7"
    assert answers == ["one", "one"]
    assert [r["messages"][0]["content"] for r in model.requests] == ["hello"] * 3


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(Reply(body=says("x").body, cut_after=10), id="cut"),
        pytest.param(Reply(first_byte_after=30), id="silent"),
        pytest.param(gzip_bomb(1 << 20), id="bomb"),
    ],
)
async def test_a_fault_reaches_the_client_as_a_fault(reply):
    """A script that the client takes for an answer would prove nothing."""
    async with (
        scripted_model(reply) as model,
        _client(model.base_url).with_options(timeout=0.5) as client,
    ):
        with pytest.raises((openai.APIError, AttributeError, TypeError)):
            await _ask(client)


async def test_a_cancelled_client_is_seen_by_the_server():
    """Providers promise to stop upstream work at once; the script must be able to tell."""
    async with (
        scripted_model(Reply(first_byte_after=30)) as model,
        _client(model.base_url) as client,
    ):
        call = asyncio.create_task(_ask(client))
        await eventually(lambda: model.open == 1)

        call.cancel()

        await eventually(lambda: model.open == 0)
