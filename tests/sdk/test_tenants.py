"""Several callers behind one account: the official SDKs with keys of Tidegate's tenants."""

import asyncio
import subprocess

import anthropic
import openai
import pytest
from program import BINARY

MODEL = "gpt-4o-mini"
CLAUDE = "claude-sonnet-4-5"
MESSAGES = [{"role": "user", "content": "Say something about the tide."}]
OWN_KEY = 'api_key = "env:PROVIDER_KEY"'
NAMES = ["search", "research", "intern"]


@pytest.fixture
def start(start_mock, start_gateway):
    """Starts a provider and a gateway that has its own key for it; every tenant `x` has the key `key-of-x`."""

    def start(callers: str, *, rpm: int = 6_000, window: str = "60s", server: str = "", tenants=NAMES):
        mock = start_mock("--rpm", str(rpm), "--window", window, "--key", "sk-provider")
        env = {"PROVIDER_KEY": "sk-provider"} | {f"KEY_OF_{name.upper()}": f"key-of-{name}" for name in tenants}
        gateway = start_gateway(mock.url, rpm=rpm, window=window, server=server, upstream=OWN_KEY, callers=callers, env=env)
        return mock, gateway

    return start


def tenant(name: str, rules: str = "") -> str:
    return f'[[tenants]]\nname = "{name}"\nkey = "env:KEY_OF_{name.upper()}"\n{rules}\n'


def ask(name: str, **options):
    client = openai.OpenAI(api_key=f"key-of-{name}")
    return client.chat.completions.create(**{"model": MODEL, "messages": MESSAGES, "max_tokens": 8, **options})


def ask_claude(name: str, **options):
    # As `x-api-key`, which is how most Anthropic clients send theirs.
    client = anthropic.Anthropic(api_key=None, auth_token=None, default_headers={"x-api-key": f"key-of-{name}"})
    return client.messages.create(**{"model": CLAUDE, "messages": MESSAGES, "max_tokens": 8, **options})


def test_300_calls_of_three_tenants_share_one_account(start):
    callers = tenant("search", "weight = 3") + tenant("research") + tenant("intern", "rpm = 10")
    mock, _ = start(callers, rpm=100, window="2s")

    async def calls(name: str, **options) -> list:
        async with openai.AsyncOpenAI(api_key=f"key-of-{name}", **options) as client:
            create = client.chat.completions.create
            calling = (create(model=MODEL, messages=MESSAGES, max_tokens=8) for _ in range(100))
            return await asyncio.gather(*calling, return_exceptions=True)

    async def run() -> list[list]:
        # The intern's limit is over a real minute, for which neither its client nor this test waits.
        hurry = {"max_retries": 0, "default_headers": {"x-tidegate-max-wait": "5s"}}
        return await asyncio.gather(calls("search"), calls("research"), calls("intern", **hurry))

    search, research, intern = asyncio.run(run())
    for answer in search + research:
        assert isinstance(answer, openai.types.chat.ChatCompletion), repr(answer)
    refused = [answer for answer in intern if not isinstance(answer, openai.types.chat.ChatCompletion)]
    assert len(refused) == 90
    for error in refused:
        assert isinstance(error, openai.RateLimitError), repr(error)
        assert 'The limit of 10 requests per minute of tenant "intern" is in use.' in error.message
        headers = error.response.headers
        wait_ms = int(headers["retry-after-ms"])
        # Up to a tenth more than the time until then, so that not all of them come back at once.
        assert 5_000 < wait_ms <= 140_000
        assert int(headers["retry-after"]) == -(-wait_ms // 1_000)
        assert headers["x-should-retry"] == ("true" if wait_ms <= 60_000 else "false"), "SDKs honor a minute at most"
        assert headers["x-tidegate-limited-by"] == "tenant"
    stats = mock.json("/mock/stats")
    assert stats["rate_limited"] == 0, stats
    assert stats["requests"] == 210, f"each call is one request, no retries hide a refusal: {stats}"


def test_a_wrong_key_is_refused_at_once(start):
    mock, gateway = start(tenant("search"))
    with pytest.raises(openai.AuthenticationError) as caught:
        ask("nobody")
    assert caught.value.code == "invalid_api_key"
    with pytest.raises(anthropic.AuthenticationError) as caught:
        ask_claude("nobody")
    assert caught.value.body["error"]["type"] == "authentication_error"
    assert gateway.requests() == 2, "neither SDK tried again"
    assert mock.json("/mock/stats")["requests"] == 0
    assert ask("search").usage and ask_claude("search").usage


def test_a_spent_budget_of_tokens_is_no_rate_limit(start):
    mock, gateway = start(tenant("search", "tokens_per_day = 40") + tenant("research", "tokens_per_day = 40"))
    assert ask("search").usage and ask_claude("research").usage
    with pytest.raises(openai.APIStatusError) as caught:
        ask("search", max_tokens=30)
    assert not isinstance(caught.value, openai.RateLimitError), "loops around rate limits must not spin"
    assert (caught.value.status_code, caught.value.code) == (402, "budget_exceeded")
    assert 'Tenant "search" has used ' in caught.value.message and "of its 40 tokens today" in caught.value.message
    assert "The budget renews in " in caught.value.message
    headers = caught.value.response.headers
    assert (headers["x-should-retry"], headers["x-tidegate-limited-by"]) == ("false", "tokens_per_day")
    with pytest.raises(anthropic.APIStatusError) as caught:
        ask_claude("research", max_tokens=30)
    assert not isinstance(caught.value, anthropic.RateLimitError)
    assert (caught.value.status_code, caught.value.body["error"]["type"]) == (402, "billing_error")
    assert 'Tenant "research" has used ' in caught.value.message
    assert gateway.requests() == 4, "what is spent is asked for once"
    assert mock.json("/mock/stats")["requests"] == 2


def test_a_budget_of_dollars_counts_what_models_cost(start):
    # A dollar for a token: the first request holds 8 tokens of output and some of input, the second does not fit.
    price = f'[[prices]]\nmodels = ["{MODEL}", "{CLAUDE}"]\ninput = 100_000\noutput = 1_000_000\n'
    mock, gateway = start(tenant("search", "dollars_per_month = 15") + tenant("research", "dollars_per_day = 15") + price)
    assert ask("search").usage and ask_claude("research").usage
    with pytest.raises(openai.APIStatusError) as caught:
        ask("search")
    assert (caught.value.status_code, caught.value.code) == (402, "budget_exceeded")
    assert 'Tenant "search" has used $' in caught.value.message and "of its $15.00 this month" in caught.value.message
    with pytest.raises(anthropic.APIStatusError, match=r"of its \$15\.00 today") as caught:
        ask_claude("research")
    assert caught.value.status_code == 402
    assert gateway.requests() == 4 and mock.json("/mock/stats")["requests"] == 2
    budgets = {allowance["tenant"]: allowance["budgets"] for allowance in gateway.status()["allowances"]}
    assert 8_000_000 <= budgets["search"][0]["used"] <= 15_000_000 and budgets["search"][0]["held"] == 0


def test_models_that_are_not_allowed_or_have_no_price(start):
    callers = tenant("search", f'models = ["{MODEL}"]') + tenant("research", "dollars_per_day = 15")
    mock, gateway = start(callers)
    with pytest.raises(openai.PermissionDeniedError, match='Tenant "search" may not use the model "gpt-4o"') as caught:
        ask("search", model="gpt-4o")
    assert caught.value.code == "model_not_allowed"
    with pytest.raises(openai.PermissionDeniedError, match="price of the model \"our-own-model\" is not known") as caught:
        ask("research", model="our-own-model")
    assert caught.value.code == "model_not_priced"
    with pytest.raises(anthropic.PermissionDeniedError):
        ask_claude("search")
    assert gateway.requests() == 3 and mock.json("/mock/stats")["requests"] == 0
    assert ask("search").usage and ask("research", model="gpt-4o").usage


def test_a_greedy_tenant_does_not_hold_up_a_polite_one(start):
    mock, _ = start(tenant("search") + tenant("research"), rpm=200, window="3s")
    done = 0  # of the greedy one's calls
    overtaken = []  # how many of those came back while a call of the polite one waited

    async def call(client: openai.AsyncOpenAI) -> None:
        await client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=8)

    async def greedy_call(client: openai.AsyncOpenAI) -> None:
        nonlocal done
        await call(client)
        done += 1

    async def polite_call(client: openai.AsyncOpenAI) -> None:
        before = done
        await call(client)
        overtaken.append(done - before)

    async def run() -> None:
        async with openai.AsyncOpenAI(api_key="key-of-research") as greedy, openai.AsyncOpenAI(api_key="key-of-search") as polite:
            calls = []
            for number in range(70):
                # It has asked for a whole window when the other one comes.
                if number == 30:
                    await asyncio.gather(*calls)
                    overtaken.clear()
                    calls = [asyncio.create_task(greedy_call(greedy)) for _ in range(500)]
                await asyncio.sleep(0.1)  # how often it asks, not what it waits for
                calls.append(asyncio.create_task(polite_call(polite)))
            await asyncio.gather(*calls)

    asyncio.run(run())
    # First come first served would have put the first of them behind all 500, and each other behind nearly as many.
    assert len(overtaken) == 40
    assert max(overtaken) < 200, f"its share is 100: {overtaken}"
    assert sum(passed > 40 for passed in overtaken) <= 10, f"most hardly wait: {overtaken}"
    stats = mock.json("/mock/stats")
    assert (stats["rate_limited"], stats["requests"]) == (0, 570), stats


def test_the_status_page_tells_who_waits_for_what(start):
    callers = (
        tenant("search", 'priority = "high"')
        + tenant("research", "rpm = 10\ntokens_per_day = 1_000_000")
        + '[[routes]]\nname = "nightly"\ntags = ["nightly"]\npriority = "batch"\nrpm = 1_000\n[runs]\ncalls = 100\n'
    )
    mock, gateway = start(callers, rpm=1)
    ask("search", extra_headers={"x-tidegate-run-id": "tide-7"})

    async def run() -> dict:
        async with openai.AsyncOpenAI(api_key="key-of-search") as search, openai.AsyncOpenAI(api_key="key-of-research") as research:
            ask = {"model": MODEL, "messages": MESSAGES, "max_tokens": 8}
            nightly = {"x-tidegate-tags": "nightly"}
            calls = [
                asyncio.create_task(search.chat.completions.create(**ask)),
                asyncio.create_task(research.chat.completions.create(**ask)),
                asyncio.create_task(research.chat.completions.create(**ask, extra_headers=nightly)),
            ]
            while (status := await asyncio.to_thread(gateway.status))["quotas"][0]["waiting"] < 3:
                pass  # only a broken gateway takes for ever
            for waiting in calls:
                waiting.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
            return status

    status = asyncio.run(run())
    quota = status["quotas"][0]
    line = {(waiting["tenant"], waiting["priority"]): waiting for waiting in quota["line"]}
    assert set(line) == {("search", "high"), ("research", "normal"), ("research", "batch")}
    assert line["search", "high"]["place"] == 1
    assert line["research", "batch"]["route"] == "nightly"
    for waiting in line.values():
        assert waiting["reason"] in ("requests", "turn", "share", "tenant", "order"), waiting
    assert line["search", "high"]["limit"] == "1 requests in 60s" and line["search", "high"]["eta_ms"] > 0
    shares = {(share["tenant"], share["priority"]): share["waiting"] for share in quota["shares"]}
    assert shares["search", "high"] == 1 and shares["research", "batch"] == 1
    [run] = status["runs"]
    assert (run["run"], run["calls"]) == ("tide-7", 1)
    assert {allowance.get("tenant") or allowance["route"] for allowance in status["allowances"]} >= {"research", "nightly"}
    assert mock.json("/mock/stats")["requests"] == 1


def test_keys_are_made_and_revoked_while_the_gateway_runs(start, tmp_path):
    path = tmp_path / "keys.toml"

    def keys(command: str, *arguments: str) -> str:
        run = [str(BINARY), "keys", command, "--file", str(path), *arguments]
        return subprocess.run(run, check=True, capture_output=True, text=True).stdout

    first = keys("new", "--tenant", "search").strip()
    assert first.startswith("tg-")
    mock, gateway = start('[[tenants]]\nname = "*"\n', server=f'keys_file = "{path}"')
    client = openai.OpenAI(api_key=first)
    assert client.models.list().data
    second = keys("new", "--tenant", "intern", "--expires", "90d").strip()
    table = keys("list")
    assert "search" in table and "intern" in table and first not in table and second not in table
    works = openai.OpenAI(api_key=second)
    until(lambda: not raises(openai.AuthenticationError, works.models.list))
    [identifier] = [row.split()[0] for row in table.splitlines() if " search " in row]
    keys("revoke", identifier)
    until(lambda: raises(openai.AuthenticationError, client.models.list))
    assert works.models.list().data
    output = "".join(gateway.output)
    assert first not in output and second not in output


def until(is_true) -> None:
    """Asks again until it is so; only a broken gateway takes for ever."""
    while not is_true():
        pass


def raises(error: type[Exception], call) -> bool:
    try:
        call()
    except error:
        return True
    return False

