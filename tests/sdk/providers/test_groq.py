"""groq, unmodified: only GROQ_BASE_URL is set."""

import asyncio

import groq
import pytest
from upstream import Answer

MODEL = "llama-3.1-8b-instant"
MESSAGES = [{"role": "user", "content": "Say something about the tide."}]


def test_chat(start):
    start("groq")
    completion = groq.Groq().chat.completions.create(model=MODEL, messages=MESSAGES)
    assert completion.choices[0].message.content and completion.usage.completion_tokens > 0


def test_stream(start):
    start("groq")
    chunks = list(groq.Groq().chat.completions.create(model=MODEL, messages=MESSAGES, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def test_60_calls_at_once_meet_no_429(start):
    pair = start("groq", "--rpm", "20", "--window", "2s", limits="rpm = 20", window="2s")

    async def run() -> list:
        async with groq.AsyncGroq() as client:
            calls = (client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=4) for _ in range(60))
            return await asyncio.gather(*calls)

    assert len(asyncio.run(run())) == 60
    stats = pair.stats()
    assert stats["rate_limited"] == 0 and stats["requests"] == 60, stats


def test_a_request_that_is_too_large_reaches_the_client_at_once(start):
    message = (
        "Request too large for model `openai/gpt-oss-120b` in organization `org_01` service tier `on_demand` on tokens per "
        "minute (TPM): Limit 8000, Requested 32979, please reduce your message size and try again."
    )
    body = {"error": {"message": message, "type": "tokens", "code": "rate_limit_exceeded"}}
    pair = start("groq", answers=[Answer(413, body, {"x-should-retry": "false"})], limits="tpm = 100000")
    with pytest.raises(groq.APIStatusError) as caught:
        groq.Groq(max_retries=0).chat.completions.create(model=MODEL, messages=MESSAGES)
    assert caught.value.status_code == 413
    assert len(pair.upstream.requests) == 1


def test_the_gateways_own_refusal_is_a_rate_limit_error(start):
    start("groq", limits="rpm = 1")
    client = groq.Groq(max_retries=0)
    client.chat.completions.create(model=MODEL, messages=MESSAGES)
    with pytest.raises(groq.RateLimitError) as caught:
        client.chat.completions.create(model=MODEL, messages=MESSAGES, extra_headers={"x-tidegate-max-wait": "0"})
    assert caught.value.body["error"]["code"] == "rate_limit_exceeded"
