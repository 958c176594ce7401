"""mistralai, unmodified: only server_url is set."""

import asyncio

import pytest
from mistralai.client import Mistral
from mistralai.client.errors import MistralError
from upstream import Answer

MODEL = "mistral-small-latest"
MESSAGES = [{"role": "user", "content": "Say something about the tide."}]


def client(pair) -> Mistral:
    return Mistral(api_key="mistral-test", server_url=f"{pair.gateway.url}/mistral")


def test_chat(start):
    answer = client(start("mistral")).chat.complete(model=MODEL, messages=MESSAGES)
    assert answer.choices[0].message.content and answer.usage.completion_tokens > 0


def test_stream(start):
    events = list(client(start("mistral")).chat.stream(model=MODEL, messages=MESSAGES))
    assert "".join(event.data.choices[0].delta.content or "" for event in events if event.data.choices)
    assert events[-1].data.usage.completion_tokens > 0, "Mistral's usage is always in the last chunk"


def test_embeddings(start):
    answer = client(start("mistral")).embeddings.create(model="mistral-embed", inputs=["low tide", "high tide"])
    assert len(answer.data) == 2


def test_60_calls_at_once_meet_no_429(start):
    pair = start("mistral", "--rpm", "20", "--window", "2s", limits="rpm = 20", window="2s")

    async def run() -> list:
        mistral = client(pair)
        calls = (mistral.chat.complete_async(model=MODEL, messages=MESSAGES, max_tokens=4) for _ in range(60))
        return await asyncio.gather(*calls)

    assert len(asyncio.run(run())) == 60
    stats = pair.stats()
    assert stats["rate_limited"] == 0 and stats["requests"] == 60, stats


def test_a_model_that_is_not_on_the_plan_reaches_the_client_at_once(start):
    body = {"object": "error", "message": "Rate limit exceeded", "type": "rate_limited", "param": None, "code": "1300"}
    pair = start("mistral", answers=[Answer(429, body, {"x-ratelimit-limit-req-minute": "0"})])
    with pytest.raises(MistralError) as caught:
        client(pair).chat.complete(model=MODEL, messages=MESSAGES)
    assert caught.value.status_code == 429
    assert len(pair.upstream.requests) == 1


def test_the_gateways_own_refusal_is_a_429(start):
    mistral = client(start("mistral", limits="rpm = 1"))
    mistral.chat.complete(model=MODEL, messages=MESSAGES)
    with pytest.raises(MistralError) as caught:
        mistral.chat.complete(model=MODEL, messages=MESSAGES, http_headers={"x-tidegate-max-wait": "0"})
    assert caught.value.status_code == 429
    assert '"object":"error"' in caught.value.body
