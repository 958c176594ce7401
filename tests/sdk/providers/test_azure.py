"""openai.AzureOpenAI, unmodified: only AZURE_OPENAI_ENDPOINT is set."""

import asyncio

import openai
import pytest
from upstream import Answer

MESSAGES = [{"role": "user", "content": "Say something about the tide."}]
VERSION = "2024-10-21"


def client(**options) -> openai.AzureOpenAI:
    return openai.AzureOpenAI(api_version=VERSION, **options)


def test_chat(start):
    start("azure")
    raw = client().chat.completions.with_raw_response.create(model="my-deployment", messages=MESSAGES)
    completion = raw.parse()
    assert completion.choices[0].message.content and completion.usage.completion_tokens > 0
    assert raw.headers["x-tidegate-attempts"] == "1"


def test_chat_stream(start):
    start("azure")
    chunks = list(client().chat.completions.create(model="my-deployment", messages=MESSAGES, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert all(chunk.usage is None for chunk in chunks)


def test_embeddings(start):
    start("azure")
    answer = client().embeddings.create(model="my-embeddings", input=["low tide", "high tide"])
    assert [item.index for item in answer.data] == [0, 1]


def test_responses_by_the_newer_paths(start):
    pair = start("azure")
    newer = openai.OpenAI(base_url=f"{pair.gateway.url}/azure/openai/v1/", api_key="azure-test")
    response = newer.responses.create(model="my-deployment", input="The tide.")
    assert response.output_text
    completion = newer.chat.completions.create(model="my-deployment", messages=MESSAGES)
    assert completion.choices[0].message.content


def test_60_calls_at_once_meet_no_429_of_slices(start):
    # 180 a minute are 30 in any ten seconds.
    pair = start("azure", "--rpm", "180", limits="rpm = 180")

    async def run() -> list:
        async with openai.AsyncAzureOpenAI(api_version=VERSION) as azure:
            calls = (azure.chat.completions.create(model="d", messages=MESSAGES, max_tokens=4) for _ in range(60))
            return await asyncio.gather(*calls)

    assert len(asyncio.run(run())) == 60
    stats = pair.stats()
    assert stats["rate_limited"] == 0 and stats["requests"] == 60, stats
    assert stats["elapsed_seconds"] >= 10, "the second half had to wait"


def test_a_request_that_never_fits_reaches_the_client_at_once(start):
    answer = Answer(
        429,
        {"error": {"code": "429", "message": "Requests to the ChatCompletions_Create Operation under Azure OpenAI API version "
         "2024-08-01-preview have exceeded token rate limit of your current OpenAI S0 pricing tier. Please retry after 86400 "
         "seconds. Please go here: https://aka.ms/oai/quotaincrease if you would like to further increase the default rate limit."}},
        {"retry-after": "86400"},
    )  # fmt: skip
    pair = start("azure", answers=[answer])
    with pytest.raises(openai.RateLimitError, match="86400"):
        client(max_retries=0).chat.completions.create(model="d", messages=MESSAGES)
    assert len(pair.upstream.requests) == 1
    sent = pair.upstream.requests[0]
    assert sent["path"] == f"/openai/deployments/d/chat/completions?api-version={VERSION}"
    assert sent["headers"]["api-key"] == "azure-test"


def test_the_gateways_own_refusal_is_a_rate_limit_error(start):
    start("azure", limits="rpm = 1")
    azure = client(max_retries=0)
    azure.chat.completions.create(model="d", messages=MESSAGES)
    with pytest.raises(openai.RateLimitError) as caught:
        azure.chat.completions.create(model="d", messages=MESSAGES, extra_headers={"x-tidegate-max-wait": "0"})
    assert float(caught.value.response.headers["retry-after-ms"]) > 0
