"""What every test starts from: processes on free ports, and the environment variables that a user would set."""

from collections.abc import Callable, Iterator

import pytest
from program import Program
from upstream import Answer, EndlessStream, Upstream

# Everything of the surroundings that an SDK would listen to.
FOREIGN = [
    "OPENAI_BASE_URL", "OPENAI_API_BASE", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_CUSTOM_HEADERS",
    "ANTHROPIC_BASE_URL", "ANTHROPIC_API_URL", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_CUSTOM_HEADERS",
    "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy",
    "LANGSMITH_GATEWAY", "LANGSMITH_GATEWAY_API_KEY",
]  # fmt: skip

CONFIG = """
[server]
listen = "127.0.0.1:0"
admin = "127.0.0.1:0"
{server}

[[upstreams]]
name = "openai"
provider = "openai"
base_url = "{url}"
window = "{window}"
{upstream}

[[upstreams.limits]]
models = ["*"]
rpm = {rpm}

[[upstreams]]
name = "anthropic"
provider = "anthropic"
base_url = "{url}"
window = "{window}"
{upstream}

[[upstreams.limits]]
models = ["*"]
rpm = {rpm}

{callers}
"""

# One request in a second, and signs of life for streams that wait for it.
QUEUE = {"rpm": 1, "window": "1s", "server": 'queue_keepalive = "50ms"'}

StartMock = Callable[..., Program]
StartGateway = Callable[..., Program]


@pytest.fixture
def start_mock() -> Iterator[StartMock]:
    """Starts providers: `start_mock("--rpm", "100")`."""
    running: list[Program] = []

    def start(*arguments: str) -> Program:
        running.append(Program("mock", "--listen", "127.0.0.1:0", *arguments))
        return running[-1]

    yield start
    for program in running:
        program.stop()


@pytest.fixture
def start_gateway(tmp_path, monkeypatch) -> Iterator[StartGateway]:
    """Starts gateways in front of a URL and points every SDK's environment variable at the last one."""
    running: list[Program] = []
    for name in FOREIGN:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LANGSMITH_TRACING", "false")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-test")

    def start(
        url: str,
        *,
        rpm: int = 6_000,
        window: str = "60s",
        server: str = "",
        upstream: str = "",
        callers: str = "",
        env: dict[str, str] | None = None,
    ) -> Program:
        path = tmp_path / f"tidegate{len(running)}.toml"
        text = CONFIG.format(url=url, rpm=rpm, window=window, server=server, upstream=upstream, callers=callers)
        path.write_text(text)
        running.append(Program("serve", "--config", str(path), env=env))
        gateway = running[-1]
        monkeypatch.setenv("OPENAI_BASE_URL", gateway.url + "/v1")
        monkeypatch.setenv("OPENAI_API_BASE", gateway.url + "/v1")
        monkeypatch.setenv("ANTHROPIC_BASE_URL", gateway.url)
        return gateway

    yield start
    for program in running:
        program.stop()


@pytest.fixture
def start_upstream() -> Iterator[Callable[..., Upstream]]:
    """Starts upstreams that give fixed answers."""
    running: list[Upstream] = []

    def start(*answers: Answer, stream: str | None = None) -> Upstream:
        running.append(Upstream(*answers) if stream is None else EndlessStream(stream))
        return running[-1]

    yield start
    for upstream in running:
        upstream.stop()


@pytest.fixture
def provider(start_mock: StartMock, start_gateway: StartGateway) -> Program:
    """A provider with ample limits, behind a gateway that knows them."""
    mock = start_mock("--rpm", "6000")
    start_gateway(mock.url)
    return mock


@pytest.fixture
def scarce(start_mock: StartMock, start_gateway: StartGateway) -> Program:
    """A provider that takes 100 requests in any two seconds, behind a gateway that knows it."""
    mock = start_mock("--rpm", "100", "--window", "2s")
    start_gateway(mock.url, rpm=100, window="2s")
    return mock


@pytest.fixture
def scarce_bucket(start_mock: StartMock, start_gateway: StartGateway) -> Program:
    """As `scarce`, but what is taken flows in again continuously, as at Anthropic."""
    mock = start_mock("--rpm", "100", "--window", "2s", "--algorithm", "token-bucket")
    start_gateway(mock.url, rpm=100, window="2s")
    return mock
