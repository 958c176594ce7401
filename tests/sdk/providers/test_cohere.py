"""cohere, unmodified: only base_url is set."""

import asyncio

import cohere
import pytest
from cohere.core.request_options import RequestOptions
from upstream import Answer

MODEL = "command-a-03-2025"
MESSAGES = [{"role": "user", "content": "Say something about the tide."}]


def test_chat(start):
    pair = start("cohere")
    answer = cohere.ClientV2(base_url=f"{pair.gateway.url}/cohere").chat(model=MODEL, messages=MESSAGES)
    assert answer.message.content[0].text and answer.usage.tokens.output_tokens > 0


def test_stream(start):
    pair = start("cohere")
    events = list(cohere.ClientV2(base_url=f"{pair.gateway.url}/cohere").chat_stream(model=MODEL, messages=MESSAGES))
    assert "".join(event.delta.message.content.text for event in events if event.type == "content-delta")
    assert events[-1].type == "message-end"


def test_embed_and_rerank(start):
    pair = start("cohere")
    client = cohere.ClientV2(base_url=f"{pair.gateway.url}/cohere")
    embedded = client.embed(
        model="embed-v4.0", input_type="search_document", texts=["low tide", "high tide"], embedding_types=["float"]
    )
    assert len(embedded.embeddings.float_) == 2
    ranked = client.rerank(model="rerank-v3.5", query="tide", documents=["ebb", "flood"])
    assert len(ranked.results) == 2


def test_60_calls_at_once_meet_no_429(start):
    pair = start("cohere", "--rpm", "20", "--window", "2s", limits="rpm = 20", window="2s")

    async def run() -> list:
        async with cohere.AsyncClientV2(base_url=f"{pair.gateway.url}/cohere") as client:
            return await asyncio.gather(*(client.chat(model=MODEL, messages=MESSAGES) for _ in range(60)))

    assert len(asyncio.run(run())) == 60
    stats = pair.stats()
    assert stats["rate_limited"] == 0 and stats["requests"] == 60, stats


def test_the_month_of_a_trial_key_reaches_the_client_at_once(start):
    body = {"message": "You are using a Trial key, which is limited to 1000 API calls / month. You can continue to use the "
            "Trial key for free or upgrade to a Production key with higher rate limits"}  # fmt: skip
    pair = start("cohere", answers=[Answer(429, body)])
    client = cohere.ClientV2(base_url=f"{pair.gateway.url}/cohere")
    with pytest.raises(cohere.TooManyRequestsError):
        client.chat(model=MODEL, messages=MESSAGES, request_options=RequestOptions(max_retries=0))
    assert len(pair.upstream.requests) == 1


def test_the_gateways_own_refusal_is_too_many_requests(start):
    pair = start("cohere", limits="rpm = 1")
    client = cohere.ClientV2(base_url=f"{pair.gateway.url}/cohere")
    client.chat(model=MODEL, messages=MESSAGES)
    options = RequestOptions(max_retries=0, additional_headers={"x-tidegate-max-wait": "0"})
    with pytest.raises(cohere.TooManyRequestsError) as caught:
        client.chat(model=MODEL, messages=MESSAGES, request_options=options)
    assert caught.value.body["message"]
