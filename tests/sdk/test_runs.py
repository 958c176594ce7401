"""Agents: runs that loop, runs that use up what they may, and how their programs learn of it."""

import asyncio
import re

import anthropic
import openai
import pytest
from langchain.agents import create_agent
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.errors import GraphRecursionError
from upstream import says, tool_call

MODEL = "gpt-4o-mini"
MESSAGES = [{"role": "user", "content": "Say something about the tide."}]
RUN = {"x-tidegate-run-id": "tide-7"}
QUESTION = {"messages": [("user", "When is high tide?")]}


@tool
def search(query: str) -> str:
    """Searches the tide tables."""
    return "nothing found"


def agent(run: str):
    """An agent on LangGraph, as LangChain builds it, whose requests name its run."""
    return create_agent(ChatOpenAI(model=MODEL, default_headers={"x-tidegate-run-id": run}), [search])


def start_runs(start_gateway, url: str, runs: str):
    return start_gateway(url, callers=f"[runs]\n{runs}")


def test_a_loop_of_the_same_tool_call_is_stopped(start_upstream, start_gateway):
    upstream = start_upstream(*(tool_call("search", {"query": "tide"}, number) for number in range(40)))
    gateway = start_runs(start_gateway, upstream.url, "repeats = 5")
    with pytest.raises(openai.APIStatusError) as caught:
        agent("tide-7").invoke(QUESTION, {"recursion_limit": 100})
    error = caught.value
    assert (error.status_code, error.code) == (402, "budget_exceeded")
    assert error.response.headers["x-tidegate-limited-by"] == "run_repeats"
    assert error.message == (
        'Error code: 402 - Run "tide-7" repeats itself: it has made the same call 6 times among its last 20 steps, and 5 are allowed.'
    )
    assert len(upstream.requests) == 6, "the question, and five times what the same call gave"
    assert upstream.requests[-1]["body"].count(b"nothing found") == 5
    assert gateway.requests() == 7, "the refusal was not tried again"
    [run] = gateway.status()["runs"]
    assert (run["run"], run["calls"], run["repeats"]) == ("tide-7", 6, 5)


def test_an_agent_that_makes_different_calls_goes_on(start_upstream, start_gateway):
    upstream = start_upstream(*(tool_call("search", {"query": f"tide {day}"}, day) for day in range(12)), says("At noon."))
    start_runs(start_gateway, upstream.url, "repeats = 5")
    answer = agent("tide-7").invoke(QUESTION, {"recursion_limit": 100})
    assert answer["messages"][-1].content == "At noon."
    assert len(upstream.requests) == 13


def test_without_a_bound_the_loop_goes_on_until_langgraph_stops_it(start_upstream, start_gateway):
    upstream = start_upstream(*(tool_call("search", {"query": "tide"}, number) for number in range(40)))
    start_gateway(upstream.url)
    with pytest.raises(GraphRecursionError):
        agent("tide-7").invoke(QUESTION, {"recursion_limit": 30})
    assert len(upstream.requests) == 15


def test_a_run_is_warned_and_then_stopped(provider, start_gateway):
    gateway = start_runs(start_gateway, provider.url, "calls = 10")
    client = openai.OpenAI(default_headers=RUN)
    warnings = []
    for _ in range(10):
        raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=MESSAGES)
        assert raw.headers["x-tidegate-run-id"] == "tide-7"
        warnings.append(raw.headers.get("x-tidegate-run-warning"))
    assert warnings == [None] * 7 + ["calls 8/10", "calls 9/10", "calls 10/10"]
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(model=MODEL, messages=MESSAGES)
    assert (caught.value.status_code, caught.value.code) == (402, "budget_exceeded")
    assert 'Run "tide-7" has made 10 of its 10 calls and is stopped.' in caught.value.message
    assert provider.json("/mock/stats")["requests"] == 10 and gateway.requests() == 11
    # Another run, and requests of none, go on.
    other = {"x-tidegate-run-id": "tide-8"}
    assert client.chat.completions.create(model=MODEL, messages=MESSAGES, extra_headers=other).usage
    assert openai.OpenAI().chat.completions.create(model=MODEL, messages=MESSAGES).usage


def test_branches_at_once_get_no_more_than_the_run_may(provider, start_gateway):
    start_runs(start_gateway, provider.url, "calls = 10")

    async def run() -> list:
        async with openai.AsyncOpenAI(default_headers=RUN) as client:
            create = client.chat.completions.create
            calls = (create(model=MODEL, messages=MESSAGES, max_tokens=8) for _ in range(30))
            return await asyncio.gather(*calls, return_exceptions=True)

    answers = asyncio.run(run())
    refused = [answer for answer in answers if isinstance(answer, openai.APIStatusError)]
    assert len(answers) - len(refused) == 10
    assert {error.status_code for error in refused} == {402}
    assert provider.json("/mock/stats")["requests"] == 10


def test_what_a_run_starts_counts_for_it_too(provider, start_gateway):
    gateway = start_runs(start_gateway, provider.url, "calls = 4\ndepth = 2")
    client = openai.OpenAI()

    def step(run: str, parent: str | None = None):
        headers = {"x-tidegate-run-id": run} | ({"x-tidegate-parent-run-id": parent} if parent else {})
        return client.chat.completions.create(model=MODEL, messages=MESSAGES, extra_headers=headers)

    step("main")
    step("left", "main")
    step("right", "main")
    with pytest.raises(openai.APIStatusError, match="nested 2 deep"):
        step("deeper", "left")
    step("left", "main")
    with pytest.raises(openai.APIStatusError, match="4 of its 4 calls") as caught:
        step("right", "main")
    assert caught.value.status_code == 402
    calls = {run["run"]: run["calls"] for run in gateway.status()["runs"]}
    assert (calls["main"], calls["left"], calls["right"]) == (4, 2, 1)


def test_headers_come_from_the_environment(provider, start_gateway, monkeypatch):
    start_runs(start_gateway, provider.url, "calls = 1")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "x-tidegate-run-id: of-openai")
    monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", "x-tidegate-run-id: of-anthropic")
    raw = openai.OpenAI().chat.completions.with_raw_response.create(model=MODEL, messages=MESSAGES)
    assert raw.headers["x-tidegate-run-id"] == "of-openai"
    assert raw.headers["x-tidegate-run-warning"] == "calls 1/1"
    ask = {"model": "claude-sonnet-4-5", "messages": MESSAGES, "max_tokens": 8}
    raw = anthropic.Anthropic().messages.with_raw_response.create(**ask)
    assert raw.headers["x-tidegate-run-id"] == "of-anthropic"
    with pytest.raises(anthropic.APIStatusError, match=re.escape('Run "of-anthropic" has made 1 of its 1 calls')) as caught:
        anthropic.Anthropic().messages.create(**ask)
    assert (caught.value.status_code, caught.value.body["error"]["type"]) == (402, "billing_error")


def test_dollars_of_a_run(provider, start_gateway):
    price = f'dollars = 15\n[[prices]]\nmodels = ["{MODEL}"]\ninput = 100_000\noutput = 1_000_000\n'
    start_runs(start_gateway, provider.url, price)
    client = openai.OpenAI(default_headers=RUN)
    assert client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=8).usage
    with pytest.raises(openai.APIStatusError, match=r'Run "tide-7" has used \$[0-9.]+ of its \$15\.00') as caught:
        client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=8)
    assert caught.value.status_code == 402
