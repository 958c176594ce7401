"""LlamaIndex, unmodified: only OPENAI_API_BASE is set. It brings the OpenAI SDK of the older major version along."""

import asyncio

import pytest
from llama_index.core.llms import ChatMessage
from llama_index.llms.openai import OpenAI

MESSAGES = [ChatMessage(role="user", content="Say something about the tide.")]


@pytest.fixture
def llm(provider, monkeypatch) -> OpenAI:
    monkeypatch.delenv("OPENAI_BASE_URL")
    return OpenAI(model="gpt-4o-mini")


def test_complete(llm):
    assert llm.complete("Say something about the tide.").text


def test_chat(llm):
    assert llm.chat(MESSAGES).message.content


def test_stream_chat(llm):
    parts = list(llm.stream_chat(MESSAGES))
    assert "".join(part.delta or "" for part in parts) == parts[-1].message.content != ""


def test_a_crowd_beyond_the_limit_waits(scarce, monkeypatch):
    monkeypatch.delenv("OPENAI_BASE_URL")
    llm = OpenAI(model="gpt-4o-mini")

    async def run() -> list:
        return await asyncio.gather(*(llm.achat(MESSAGES) for _ in range(250)))

    answers = asyncio.run(run())
    assert len(answers) == 250 and all(answer.message.content for answer in answers)
    stats = scarce.json("/mock/stats")
    assert stats["rate_limited"] == 0 and stats["requests"] == 250, stats
