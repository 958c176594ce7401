"""Several gateways on one account, as behind a load balancer: the official SDKs, and a Redis that all gateways share."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import anthropic
import openai
import pytest
from program import PATIENCE_S, Program

MODEL = "gpt-4o-mini"
CLAUDE = "claude-sonnet-4-5"
MESSAGES = [{"role": "user", "content": "Say something about the tide."}]

# Slower than a test that goes well by far, so that only what is wrong ends in a timeout.
PATIENT = {"timeout": 4 * PATIENCE_S, "max_retries": 0}


class Redis:
    """A redis-server of Debian's that keeps nothing on disk, at a socket of its own."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "redis.sock"
        self.start()

    def start(self) -> None:
        options = ["--port", "0", "--unixsocket", str(self.socket), "--save", "", "--appendonly", "no"]
        command = ["redis-server", *options, "--dir", str(self.socket.parent)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if "eady to accept connections" in line:
                return
        raise AssertionError("redis-server did not start")

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait(timeout=PATIENCE_S)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def redis(tmp_path) -> Iterator[Redis]:
    server = Redis(tmp_path)
    yield server
    server.kill()


@pytest.fixture
def start_replicas(start_mock, start_gateway, redis):
    """Starts a provider that takes so many requests in two seconds, and gateways that share that."""

    def start(rpm: int, count: int, rules: str = "") -> tuple[Program, list[Program]]:
        mock = start_mock("--rpm", str(rpm), "--window", "2s")
        store = f'[store]\nredis = "unix://{redis.socket}"\n{rules}'
        return mock, [start_gateway(mock.url, rpm=rpm, window="2s", callers=store) for _ in range(count)]

    return start


def ask_openai(gateway: Program, count: int) -> list:
    client = openai.AsyncOpenAI(base_url=gateway.url + "/v1", **PATIENT)
    create = client.chat.completions.create
    return [create(model=MODEL, messages=MESSAGES, max_tokens=8) for _ in range(count)]


def ask_anthropic(gateway: Program, count: int) -> list:
    client = anthropic.AsyncAnthropic(base_url=gateway.url, **PATIENT)
    create = client.messages.create
    return [create(model=CLAUDE, messages=MESSAGES, max_tokens=8) for _ in range(count)]


def check(mock: Program, answers: list, kind: type) -> None:
    for answer in answers:
        assert isinstance(answer, kind), repr(answer)
    stats = mock.json("/mock/stats")
    assert stats["rate_limited"] == 0, stats
    assert stats["requests"] == len(answers), f"each call is one request, no retries hide a refusal: {stats}"


@pytest.mark.parametrize(
    ("ask", "kind"),
    [(ask_openai, openai.types.chat.ChatCompletion), (ask_anthropic, anthropic.types.Message)],
    ids=["openai", "anthropic"],
)
def test_300_calls_through_three_gateways(start_replicas, ask, kind):
    mock, gateways = start_replicas(100, 3)

    async def run() -> list:
        # As unevenly as a load balancer may do it.
        calls = [call for gateway, count in zip(gateways, (200, 90, 10), strict=True) for call in ask(gateway, count)]
        return await asyncio.gather(*calls, return_exceptions=True)

    check(mock, asyncio.run(run()), kind)
    stores = [gateway.status()["store"] for gateway in gateways]
    assert [store["state"] for store in stores] == ["connected"] * 3


def test_a_store_that_is_killed_and_comes_back_empty_fails_no_call(start_replicas, redis):
    mock, gateways = start_replicas(60, 2)

    async def run() -> list:
        calls = [call for gateway in gateways for call in ask_openai(gateway, 120)]
        running = [asyncio.ensure_future(call) for call in calls]
        for done, call in enumerate(asyncio.as_completed(running)):
            await call
            if done == 100:
                redis.kill()
                redis.start()
        return [call.result() for call in running]

    check(mock, asyncio.run(run()), openai.types.chat.ChatCompletion)


def test_who_waits_for_a_store_that_is_gone_is_told_so(start_replicas, redis):
    redis.kill()
    mock, (gateway,) = start_replicas(60, 1)
    client = openai.OpenAI(base_url=gateway.url + "/v1", **PATIENT)
    with pytest.raises(openai.RateLimitError) as refused:
        client.chat.completions.create(model=MODEL, messages=MESSAGES, extra_headers={"x-tidegate-max-wait": "3s"})
    assert "The store through which the gateways share their limits is out of reach." in refused.value.message
    assert refused.value.response.headers["x-tidegate-limited-by"] == "store"
    status = gateway.status()
    assert status["store"]["state"] == "unreachable"
    assert mock.json("/mock/stats")["requests"] == 0
    redis.start()
    answer = client.chat.completions.create(model=MODEL, messages=MESSAGES)
    assert answer.choices[0].message.content
