"""google-genai, unmodified: only GOOGLE_GEMINI_BASE_URL is set."""

import asyncio

import pytest
from google import genai
from google.genai import errors, types
from upstream import Answer

MODEL = "gemini-2.5-flash"
TEXT = "Say something about the tide."


def test_generate(start):
    start("gemini")
    client = genai.Client()
    answer = client.models.generate_content(model=MODEL, contents=TEXT)
    assert answer.text and answer.usage_metadata.candidates_token_count > 0


def test_stream(start):
    start("gemini")
    client = genai.Client()
    chunks = list(client.models.generate_content_stream(model=MODEL, contents=TEXT))
    assert "".join(chunk.text or "" for chunk in chunks)
    assert chunks[-1].usage_metadata.total_token_count > 0


def test_chat_and_tools(start):
    start("gemini")
    client = genai.Client()
    chat = client.chats.create(model=MODEL, config=types.GenerateContentConfig(system_instruction="Be brief."))
    assert chat.send_message(TEXT).text
    assert chat.send_message("And the ebb?").text


def test_embed_and_count(start):
    start("gemini")
    client = genai.Client()
    embedded = client.models.embed_content(model="gemini-embedding-001", contents=["low tide", "high tide"])
    assert len(embedded.embeddings) == 2 and embedded.embeddings[0].values
    assert client.models.count_tokens(model=MODEL, contents=TEXT).total_tokens > 0


def test_60_calls_at_once_meet_no_429(start):
    pair = start("gemini", "--rpm", "20", "--window", "2s", limits="rpm = 20", window="2s")

    async def run() -> list:
        client = genai.Client().aio
        calls = (client.models.generate_content(model=MODEL, contents=TEXT) for _ in range(60))
        return await asyncio.gather(*calls)

    assert len(asyncio.run(run())) == 60
    stats = pair.stats()
    assert stats["rate_limited"] == 0 and stats["requests"] == 60, stats


@pytest.mark.parametrize("quota_value", ["0", "250"])
def test_a_day_or_a_model_without_quota_reaches_the_client_at_once(start, quota_value):
    violation = {
        "quotaMetric": "generativelanguage.googleapis.com/generate_content_free_tier_requests",
        "quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier",
        "quotaDimensions": {"location": "global", "model": MODEL},
        "quotaValue": quota_value,
    }
    body = {
        "error": {
            "code": 429,
            "message": f"You exceeded your current quota, please check your plan and billing details. limit: {quota_value}",
            "status": "RESOURCE_EXHAUSTED",
            "details": [
                {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [violation]},
                {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "26s"},
            ],
        }
    }
    pair = start("gemini", answers=[Answer(429, body)])
    client = genai.Client()
    with pytest.raises(errors.ClientError) as caught:
        client.models.generate_content(model=MODEL, contents=TEXT)
    assert caught.value.code == 429 and caught.value.status == "RESOURCE_EXHAUSTED"
    assert len(pair.upstream.requests) == 1


def test_the_gateways_own_refusal_is_a_client_error(start):
    start("gemini", limits="rpm = 1")
    client = genai.Client(http_options=types.HttpOptions(headers={"x-tidegate-max-wait": "0"}))
    client.models.generate_content(model=MODEL, contents=TEXT)
    with pytest.raises(errors.ClientError) as caught:
        client.models.generate_content(model=MODEL, contents=TEXT)
    assert caught.value.code == 429 and caught.value.status == "RESOURCE_EXHAUSTED"
