"""The official Anthropic SDK, unmodified: only ANTHROPIC_BASE_URL is set."""

import asyncio

import anthropic
import pytest
from conftest import QUEUE
from upstream import Answer

MODEL = "claude-sonnet-4-5"
MESSAGES = [{"role": "user", "content": "Say something about the tide."}]


def error(status: int, kind: str, headers: dict[str, str] | None = None) -> Answer:
    body = {"type": "error", "error": {"type": kind, "message": "said the provider"}, "request_id": "req_1"}
    return Answer(status, body, {"request-id": "req_1", **(headers or {})})


def test_message(provider):
    raw = anthropic.Anthropic().messages.with_raw_response.create(model=MODEL, max_tokens=64, messages=MESSAGES)
    message = raw.parse()
    assert message.type == "message" and message.content[0].text
    assert message.usage.input_tokens > 0 and message.usage.output_tokens > 0
    assert raw.headers["x-tidegate-attempts"] == "1"
    assert raw.headers["anthropic-ratelimit-requests-limit"] == "6000", "the provider's own headers arrive too"


def test_stream(provider):
    with anthropic.Anthropic().messages.stream(model=MODEL, max_tokens=64, messages=MESSAGES) as stream:
        text = "".join(stream.text_stream)
        message = stream.get_final_message()
    assert text and text == message.content[0].text
    assert message.stop_reason in ("end_turn", "max_tokens")
    assert message.usage.input_tokens > 0 and message.usage.output_tokens > 0


def test_raw_events(provider):
    events = list(anthropic.Anthropic().messages.create(model=MODEL, max_tokens=64, messages=MESSAGES, stream=True))
    assert events[0].type == "message_start" and events[-1].type == "message_stop"


def test_count_tokens(provider):
    assert anthropic.Anthropic().messages.count_tokens(model=MODEL, messages=MESSAGES).input_tokens > 0


def test_stream_through_a_queue_with_signs_of_life(start_mock, start_gateway):
    start_gateway(start_mock("--rpm", "6000").url, **QUEUE)
    # A client that gives up on a connection without a byte long before its turn, and does not say so.
    client = anthropic.Anthropic(max_retries=0, timeout=anthropic.Timeout(30, read=0.4))
    silent = {"x-stainless-read-timeout": "30"}
    for waits in (False, True):
        with client.messages.stream(model=MODEL, max_tokens=64, messages=MESSAGES, extra_headers=silent) as stream:
            text = "".join(stream.text_stream)
            message = stream.get_final_message()
        assert text and text == message.content[0].text
        assert message.stop_reason in ("end_turn", "max_tokens")
        headers = stream.response.headers
        assert ("x-tidegate-queue-ms" not in headers) == waits, "the second answer began before its time"


def test_an_error_after_signs_of_life_is_raised(start_upstream, start_gateway):
    upstream = start_upstream(error(400, "invalid_request_error"))
    start_gateway(upstream.url, **QUEUE)
    client = anthropic.Anthropic(max_retries=0)
    with pytest.raises(anthropic.BadRequestError):
        client.messages.create(model=MODEL, max_tokens=8, messages=MESSAGES, stream=True)
    with client.messages.create(model=MODEL, max_tokens=8, messages=MESSAGES, stream=True) as stream:
        with pytest.raises(anthropic.APIStatusError) as caught:
            list(stream)
    assert caught.value.body["error"]["message"] == "said the provider"
    assert len(upstream.requests) == 2


def test_500_calls_at_once_all_succeed_without_one_429(scarce_bucket):
    async def call(client: anthropic.AsyncAnthropic) -> anthropic.types.Message:
        return await client.messages.create(model=MODEL, max_tokens=8, messages=MESSAGES)

    async def run() -> list:
        async with anthropic.AsyncAnthropic() as client:
            return await asyncio.gather(*(call(client) for _ in range(500)))

    messages = asyncio.run(run())
    assert len(messages) == 500 and all(message.content[0].text for message in messages)
    stats = scarce_bucket.json("/mock/stats")
    assert stats["rate_limited"] == 0, stats
    assert stats["requests"] == 500, f"each call is one request, no retries hide a refusal: {stats}"


@pytest.mark.parametrize(
    ("answer", "exception"),
    [
        (error(400, "invalid_request_error"), anthropic.BadRequestError),
        (error(401, "authentication_error"), anthropic.AuthenticationError),
        (error(403, "permission_error"), anthropic.PermissionDeniedError),
        (error(404, "not_found_error"), anthropic.NotFoundError),
        (error(413, "request_too_large"), anthropic.APIStatusError),
    ],
    ids=lambda value: str(value.status) if isinstance(value, Answer) else None,
)
def test_errors_that_time_does_not_cure_pass_through_at_once(start_upstream, start_gateway, answer, exception):
    upstream = start_upstream(answer)
    start_gateway(upstream.url)
    with pytest.raises(exception) as caught:
        anthropic.Anthropic(max_retries=0).messages.create(model=MODEL, max_tokens=8, messages=MESSAGES)
    assert caught.value.status_code == answer.status
    assert caught.value.body["error"]["message"] == "said the provider"
    assert caught.value.request_id == "req_1"
    [request] = upstream.requests
    headers = {name.lower(): value for name, value in request["headers"].items()}
    # The SDK of this version sends the key as a bearer token; older ones send it as x-api-key.
    assert headers["authorization"] == "Bearer sk-ant-test" and headers["anthropic-version"]


def test_a_reached_spend_limit_is_raised_at_once(start_upstream, start_gateway):
    spent = {
        "type": "rate_limit_error",
        "message": "You have reached your API usage limits: they reset on the first.",
        "details": {"error_code": "enforced_spend_limit_reached"},
    }
    upstream = start_upstream(Answer(429, {"type": "error", "error": spent, "request_id": "req_1"}))
    start_gateway(upstream.url)
    with pytest.raises(anthropic.RateLimitError, match="reached your API usage limits"):
        anthropic.Anthropic(max_retries=0).messages.create(model=MODEL, max_tokens=8, messages=MESSAGES)
    assert len(upstream.requests) == 1, "no time cures it, so it is not tried again"


def test_an_overload_is_tried_again_without_the_client_knowing(start_upstream, start_gateway):
    success = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": MODEL,
        "content": [{"type": "text", "text": "ebb"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 9, "output_tokens": 1},
    }
    upstream = start_upstream(error(529, "overloaded_error"), Answer(200, success))
    start_gateway(upstream.url)
    message = anthropic.Anthropic(max_retries=0).messages.create(model=MODEL, max_tokens=8, messages=MESSAGES)
    assert message.content[0].text == "ebb"
    assert len(upstream.requests) == 2


def test_a_deadline_that_cannot_be_met_is_refused_in_time(start_mock, start_gateway):
    mock = start_mock("--rpm", "1")
    start_gateway(mock.url, rpm=1)
    client = anthropic.Anthropic(max_retries=0)
    client.messages.create(model=MODEL, max_tokens=8, messages=MESSAGES)
    with pytest.raises(anthropic.RateLimitError) as caught:
        client.messages.create(model=MODEL, max_tokens=8, messages=MESSAGES, timeout=5.0)
    assert caught.value.body["type"] == "error" and caught.value.body["error"]["type"] == "rate_limit_error"
    assert 5 < float(caught.value.response.headers["retry-after"]) <= 69
    assert mock.json("/mock/stats")["requests"] == 1, "the provider never saw the refused one"


def test_leaving_in_mid_stream_closes_the_upstream(start_upstream, start_gateway):
    event = (
        "event: content_block_delta\n"
        'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"wave "}}\n\n'
    )
    upstream = start_upstream(stream=event)
    start_gateway(upstream.url)
    client = anthropic.Anthropic(max_retries=0)
    with client.messages.create(model=MODEL, max_tokens=8, messages=MESSAGES, stream=True) as stream:
        assert next(stream).delta.text == "wave "
        assert not upstream.hung_up.is_set()
    assert upstream.hung_up.wait(timeout=30), "the upstream request outlived its client"
