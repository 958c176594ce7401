"""The official OpenAI SDK, unmodified: only OPENAI_BASE_URL is set."""

import asyncio

import openai
import pytest
from conftest import QUEUE
from upstream import Answer

MODEL = "gpt-4o-mini"
MESSAGES = [{"role": "user", "content": "Say something about the tide."}]


def error(status: int, kind: str, code: str | None, message: str = "said the provider") -> Answer:
    body = {"error": {"message": message, "type": kind, "param": None, "code": code}}
    return Answer(status, body, {"x-request-id": "req_1"})


def test_chat(provider):
    raw = openai.OpenAI().chat.completions.with_raw_response.create(model=MODEL, messages=MESSAGES)
    completion = raw.parse()
    assert completion.choices[0].message.content
    assert completion.choices[0].finish_reason in ("stop", "length")
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + completion.usage.completion_tokens
    assert raw.headers["x-tidegate-attempts"] == "1"
    assert float(raw.headers["x-tidegate-queue-ms"]) >= 0
    assert raw.headers["x-tidegate-request-id"]
    assert raw.headers["x-ratelimit-limit-requests"] == "6000", "the provider's own headers arrive too"


def test_chat_stream_without_usage_has_none(provider):
    chunks = list(openai.OpenAI().chat.completions.create(model=MODEL, messages=MESSAGES, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert all(chunk.choices and chunk.usage is None for chunk in chunks), "the usage that nobody asked for was taken out"
    assert chunks[-1].choices[0].finish_reason in ("stop", "length")


def test_chat_stream_with_usage_has_it_last(provider):
    chunks = list(
        openai.OpenAI().chat.completions.create(
            model=MODEL, messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
    )
    *content, last = chunks
    assert last.choices == [] and last.usage.completion_tokens > 0
    assert all(chunk.choices and chunk.usage is None for chunk in content)


def test_chat_stream_helper_with_tools(provider):
    tool = {"type": "function", "function": {"name": "tide", "parameters": {"type": "object", "properties": {}}}}
    with openai.OpenAI().chat.completions.stream(model=MODEL, messages=MESSAGES, tools=[tool]) as stream:
        text = "".join(event.delta for event in stream if event.type == "content.delta")
        completion = stream.get_final_completion()
    assert text and completion.choices[0].message.content == text


def test_streaming_response(provider):
    with openai.OpenAI().chat.completions.with_streaming_response.create(model=MODEL, messages=MESSAGES) as response:
        assert response.headers["x-tidegate-request-id"]
        assert response.parse().choices[0].message.content


def test_completions(provider):
    completion = openai.OpenAI().completions.create(model="gpt-3.5-turbo-instruct", prompt="The tide", max_tokens=8)
    assert completion.choices[0].text and completion.usage.completion_tokens > 0


def test_embeddings(provider):
    answer = openai.OpenAI().embeddings.create(model="text-embedding-3-small", input=["low tide", "high tide"])
    assert [item.index for item in answer.data] == [0, 1]
    assert all(len(item.embedding) > 0 for item in answer.data)
    assert answer.usage.prompt_tokens > 0


def test_embeddings_of_many_texts_and_of_tokens(provider):
    answer = openai.OpenAI().embeddings.create(model="text-embedding-3-small", input=["ebb"] * 300)
    assert [item.index for item in answer.data] == list(range(300))
    answer = openai.OpenAI().embeddings.create(model="text-embedding-3-small", input=[[1, 2, 3], [4, 5]])
    assert len(answer.data) == 2


def test_responses(provider):
    response = openai.OpenAI().responses.create(model=MODEL, input="Say something about the tide.")
    assert response.status == "completed" and response.output_text
    assert response.usage.output_tokens > 0


def test_responses_stream(provider):
    events = list(openai.OpenAI().responses.create(model=MODEL, input="The tide.", stream=True))
    assert events[0].type == "response.created"
    assert events[-1].type == "response.completed" and events[-1].response.usage.output_tokens > 0
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == events[-1].response.output_text


def test_responses_stream_helper(provider):
    with openai.OpenAI().responses.stream(model=MODEL, input="The tide.") as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        assert text and stream.get_final_response().output_text == text


def test_models(provider):
    assert [model.id for model in openai.OpenAI().models.list()]


def test_chat_stream_through_a_queue_with_signs_of_life(start_mock, start_gateway):
    start_gateway(start_mock("--rpm", "6000").url, **QUEUE)
    # A client that gives up on a connection without a byte long before its turn, and does not say so.
    client = openai.OpenAI(max_retries=0, timeout=openai.Timeout(30, read=0.4))
    silent = {"x-stainless-read-timeout": "30"}
    for waits in (False, True):
        raw = client.chat.completions.with_raw_response.create(
            model=MODEL, messages=MESSAGES, stream=True, extra_headers=silent
        )
        chunks = list(raw.parse())
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        assert chunks[-1].choices[0].finish_reason in ("stop", "length")
        assert raw.headers["x-tidegate-request-id"]
        assert ("x-tidegate-queue-ms" not in raw.headers) == waits, "the second answer began before its time"


def test_an_error_after_signs_of_life_is_raised(start_upstream, start_gateway):
    upstream = start_upstream(error(400, "invalid_request_error", "bad"))
    start_gateway(upstream.url, **QUEUE)
    client = openai.OpenAI(max_retries=0)
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
    with client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True) as stream:
        with pytest.raises(openai.APIError) as caught:
            list(stream)
    assert caught.value.message == "said the provider" and caught.value.code == "bad"
    assert len(upstream.requests) == 2


def test_500_calls_at_once_all_succeed_without_one_429(scarce):
    async def call(client: openai.AsyncOpenAI) -> openai.types.chat.ChatCompletion:
        return await client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=8)

    async def run() -> list:
        async with openai.AsyncOpenAI() as client:
            return await asyncio.gather(*(call(client) for _ in range(500)))

    completions = asyncio.run(run())
    assert len(completions) == 500 and all(completion.choices[0].message.content for completion in completions)
    assert len({completion.id for completion in completions}) == 500
    stats = scarce.json("/mock/stats")
    assert stats["rate_limited"] == 0, stats
    assert stats["requests"] == 500, f"each call is one request, no retries hide a refusal: {stats}"


@pytest.mark.parametrize(
    ("answer", "exception", "code"),
    [
        (error(400, "invalid_request_error", None), openai.BadRequestError, None),
        (error(401, "invalid_request_error", "invalid_api_key"), openai.AuthenticationError, "invalid_api_key"),
        (error(403, "invalid_request_error", "unsupported_country"), openai.PermissionDeniedError, "unsupported_country"),
        (error(404, "invalid_request_error", "model_not_found"), openai.NotFoundError, "model_not_found"),
        (error(422, "invalid_request_error", None), openai.UnprocessableEntityError, None),
        (
            error(429, "insufficient_quota", "insufficient_quota", "You exceeded your current quota, please check your plan."),
            openai.RateLimitError,
            "insufficient_quota",
        ),
    ],
    ids=lambda value: str(value.status) if isinstance(value, Answer) else None,
)
def test_errors_that_time_does_not_cure_pass_through_at_once(start_upstream, start_gateway, answer, exception, code):
    upstream = start_upstream(answer)
    start_gateway(upstream.url)
    with pytest.raises(exception) as caught:
        # With the SDK's own retries: it would try a 429 again, and must not.
        openai.OpenAI().chat.completions.create(model=MODEL, messages=MESSAGES)
    assert caught.value.code == code
    assert caught.value.body["message"] == answer.body["error"]["message"]
    assert caught.value.request_id == "req_1"
    assert len(upstream.requests) == 1


def test_the_request_reaches_the_provider_as_it_was(start_upstream, start_gateway):
    upstream = start_upstream(error(400, "invalid_request_error", None))
    start_gateway(upstream.url)
    with pytest.raises(openai.BadRequestError):
        openai.OpenAI(max_retries=0).chat.completions.create(
            model=MODEL, messages=MESSAGES, extra_body={"beyond": {"the": "schema"}}
        )
    [request] = upstream.requests
    headers = {name.lower(): value for name, value in request["headers"].items()}
    assert request["path"] == "/v1/chat/completions"
    assert b'"beyond":{"the":"schema"}' in request["body"]
    assert headers["authorization"] == "Bearer sk-test"
    assert not [name for name in headers if name.startswith("x-tidegate-")]


def test_a_fault_is_tried_again_without_the_client_knowing(start_upstream, start_gateway):
    success = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": MODEL,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "ebb"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10},
    }
    upstream = start_upstream(error(503, "server_error", None), Answer(200, success))
    start_gateway(upstream.url)
    raw = openai.OpenAI(max_retries=0).chat.completions.with_raw_response.create(model=MODEL, messages=MESSAGES)
    assert raw.parse().choices[0].message.content == "ebb"
    assert raw.headers["x-tidegate-attempts"] == "2"
    assert len(upstream.requests) == 2


@pytest.mark.parametrize("how", [{"timeout": 5.0}, {"extra_headers": {"x-tidegate-max-wait": "5s"}}], ids=["timeout", "header"])
def test_a_deadline_that_cannot_be_met_is_refused_in_time(start_mock, start_gateway, how):
    mock = start_mock("--rpm", "1")
    start_gateway(mock.url, rpm=1)
    client = openai.OpenAI(max_retries=0)
    client.chat.completions.create(model=MODEL, messages=MESSAGES)
    with pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(model=MODEL, messages=MESSAGES, **how)
    headers = caught.value.response.headers
    # A minute, the margin, and up to a tenth more so that not all who are told come back at once.
    assert 5 < float(headers["retry-after"]) <= 69
    assert 5_000 < float(headers["retry-after-ms"]) <= 69_000
    assert headers["x-should-retry"] in ("true", "false")
    assert headers["x-tidegate-limited-by"]
    assert caught.value.message
    assert mock.json("/mock/stats")["requests"] == 1, "the provider never saw the refused one"


def test_leaving_in_mid_stream_closes_the_upstream(start_upstream, start_gateway):
    chunk = (
        '{"id":"c","object":"chat.completion.chunk","created":1,"model":"m",'
        '"choices":[{"index":0,"delta":{"content":"wave "},"finish_reason":null}]}'
    )
    upstream = start_upstream(stream=f"data: {chunk}\n\n")
    start_gateway(upstream.url)
    with openai.OpenAI(max_retries=0).chat.completions.create(model=MODEL, messages=MESSAGES, stream=True) as stream:
        assert next(stream).choices[0].delta.content == "wave "
        assert not upstream.hung_up.is_set()
    assert upstream.hung_up.wait(timeout=30), "the upstream request outlived its client"


def test_tasks_cancelled_in_mid_stream_leave_nothing_behind(start_mock, start_gateway):
    mock = start_mock("--tokens-per-second", "20")
    start_gateway(mock.url)

    async def read(client: openai.AsyncOpenAI, begun: asyncio.Event) -> None:
        async for _ in await client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True, max_tokens=10_000):
            begun.set()

    async def run() -> list:
        async with openai.AsyncOpenAI(max_retries=0) as client:
            begun = [asyncio.Event() for _ in range(20)]
            tasks = [asyncio.create_task(read(client, event)) for event in begun]
            await asyncio.gather(*(event.wait() for event in begun))
            for task in tasks:
                task.cancel()
            return await asyncio.gather(*tasks, return_exceptions=True)

    assert all(isinstance(end, asyncio.CancelledError) for end in asyncio.run(run()))
    while mock.json("/mock/stats")["in_flight"]:
        pass  # the provider learns of it within the gateway's 100 ms; only a broken gateway takes for ever
    assert mock.json("/mock/stats")["disconnects"]["streaming"] == 20


def test_a_stream_that_breaks_off_raises(start_mock, start_gateway):
    start_gateway(start_mock("--fault-reset-stream", "1").url)
    with pytest.raises(openai.APIConnectionError):
        openai.OpenAI(max_retries=0).chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=200)
    # In mid-stream the SDK passes on what its HTTP library raises.
    with pytest.raises(Exception, match="peer closed connection|Connection error|incomplete"):
        list(openai.OpenAI(max_retries=0).chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=200, stream=True))
