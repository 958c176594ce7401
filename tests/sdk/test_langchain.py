"""LangChain, unmodified: only OPENAI_API_BASE or ANTHROPIC_BASE_URL is set."""

import asyncio

import pytest
from langchain_anthropic import ChatAnthropic
from langchain_openai import ChatOpenAI, OpenAIEmbeddings


@pytest.fixture
def chat(provider, monkeypatch) -> ChatOpenAI:
    monkeypatch.delenv("OPENAI_BASE_URL")
    return ChatOpenAI(model="gpt-4o-mini")


def test_invoke(chat):
    message = chat.invoke("Say something about the tide.")
    assert message.content and message.usage_metadata["output_tokens"] > 0


def test_stream(chat):
    assert "".join(chunk.content for chunk in chat.stream("Say something about the tide."))


def test_stream_with_usage(chat):
    chunks = list(chat.stream("Say something about the tide.", stream_usage=True))
    assert sum((chunk.usage_metadata or {}).get("output_tokens", 0) for chunk in chunks) > 0


def test_embeddings(provider, monkeypatch):
    monkeypatch.delenv("OPENAI_BASE_URL")
    # The length check would download a tokenizer.
    embeddings = OpenAIEmbeddings(model="text-embedding-3-small", check_embedding_ctx_length=False)
    assert len(embeddings.embed_documents(["low tide", "high tide"])) == 2


def test_a_batch_beyond_the_limit_waits(scarce, monkeypatch):
    monkeypatch.delenv("OPENAI_BASE_URL")
    messages = asyncio.run(ChatOpenAI(model="gpt-4o-mini").abatch(["The tide."] * 250))
    assert len(messages) == 250 and all(message.content for message in messages)
    assert scarce.json("/mock/stats")["rate_limited"] == 0


def test_anthropic(provider):
    chat = ChatAnthropic(model="claude-sonnet-4-5", max_tokens=64)
    assert chat.invoke("Say something about the tide.").content
    assert "".join(chunk.text for chunk in chat.stream("Say something about the tide."))
