"""A provider of each kind behind a gateway, and the environment variables by which its SDK finds it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from program import Program
from upstream import Answer, Upstream

CONFIG = """
[server]
listen = "127.0.0.1:0"
admin = "127.0.0.1:0"

[[upstreams]]
name = "{provider}"
provider = "{provider}"
base_url = "{url}"
window = "{window}"
{settings}

[[upstreams.limits]]
models = ["*"]
{limits}
"""

# What every SDK would listen to.
FOREIGN = [
    "AZURE_OPENAI_ENDPOINT", "AZURE_OPENAI_AD_TOKEN", "OPENAI_BASE_URL", "OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_API_VERSION",
    "ANTHROPIC_BASE_URL", "CO_API_URL", "GOOGLE_API_KEY", "GOOGLE_GEMINI_BASE_URL", "GOOGLE_GENAI_USE_VERTEXAI", "GROQ_BASE_URL",
    "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy",
]  # fmt: skip


@dataclass
class Pair:
    """A provider and the gateway before it."""

    upstream: "Program | Upstream"
    gateway: Program

    def stats(self) -> dict:
        assert isinstance(self.upstream, Program)
        return self.upstream.json("/mock/stats")


Start = Callable[..., Pair]


@pytest.fixture
def start(tmp_path, monkeypatch) -> Iterator[Start]:
    """`start("groq", "--rpm", "100", limits="rpm = 100", window="2s")`, or with `answers=[…]` a provider of fixed answers."""
    running: list[Program | Upstream] = []
    for name in FOREIGN:
        monkeypatch.delenv(name, raising=False)

    def start(
        provider: str,
        *arguments: str,
        answers: "list[Answer] | None" = None,
        limits: str = "rpm = 6000",
        settings: str = "",
        window: str = "60s",
    ) -> Pair:
        if answers is None:
            mock = Program("mock", "--listen", "127.0.0.1:0", "--provider", provider, *(arguments or ("--rpm", "6000")))
        else:
            mock = Upstream(*answers)
        running.append(mock)
        path = tmp_path / f"{provider}.toml"
        path.write_text(
            CONFIG.format(provider=provider, url=mock.url, window=window, settings=settings, limits=limits)
        )
        gateway = Program("serve", "--config", str(path))
        running.append(gateway)
        home = f"{gateway.url}/{provider}"
        monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", home)
        monkeypatch.setenv("AZURE_OPENAI_API_KEY", "azure-test")
        monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", home)
        monkeypatch.setenv("GEMINI_API_KEY", "gemini-test")
        monkeypatch.setenv("GROQ_BASE_URL", home)
        monkeypatch.setenv("GROQ_API_KEY", "gsk_test")
        monkeypatch.setenv("MISTRAL_API_KEY", "mistral-test")
        monkeypatch.setenv("CO_API_URL", home)
        monkeypatch.setenv("CO_API_KEY", "cohere-test")
        return Pair(mock, gateway)

    yield start
    for program in running:
        program.stop()
