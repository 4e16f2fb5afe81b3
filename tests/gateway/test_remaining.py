"""What a key may still do: every GET says what is left of the minute, and `GET /v1/key` the smallest of all limits."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from accounts.models import Plan
from billing.models import Budget
from tests.factories import make_budget, make_key, now
from tests.gateway import dialects, server
from tests.gateway.conftest import Stage, chat
from tests.usage import rows

NAMES = ("limit-requests", "remaining-requests", "limit-tokens", "remaining-tokens")


def limits(answer: httpx.Response) -> list[int]:
    return [int(answer.headers[f"x-ratelimit-{name}"]) for name in NAMES]


def remaining(stage: Stage, secret: str) -> dict[str, Any]:
    facts: dict[str, Any] = stage.get("key", secret).json()["data"]["effective_remaining"]
    return facts


def test_every_get_says_what_is_left_of_the_minute_and_counts_nothing(stage: Stage) -> None:
    model = stage.model()
    secret = make_key(stage.account(), requests_per_minute=5, tokens_per_minute=1_000).secret
    assert limits(stage.get("key", secret)) == [5, 5, 1_000, 1_000]
    assert stage.get("key", secret).headers["x-ratelimit-reset-requests"] == "0ms"

    served = stage.post(secret, chat(model, max_tokens=10, sandbox={"output_tokens": 7}))

    paths = (
        "models",
        f"models/{model.slug}",
        "key",
        "credits",
        f"generation?id={served.headers['x-request-id']}",
    )
    for path in paths:
        answer = stage.get(path, secret)
        assert answer.status_code == 200
        assert limits(answer) == [5, 4, 1_000, 1_000 - (3 + 7)]
        assert answer.headers["x-ratelimit-reset-requests"].endswith(("s", "ms"))


def test_a_key_without_a_limit_of_tokens_has_no_header_of_tokens(stage: Stage) -> None:
    headers = stage.get("models", make_key(stage.account(plan=Plan.BASIC)).secret).headers

    assert headers["x-ratelimit-remaining-requests"] == "10"
    assert "x-ratelimit-remaining-tokens" not in headers


def test_without_redis_a_get_says_of_the_minute_what_postgresql_knows(
    stage: Stage, sandbox_url: str, tmp_path: Path
) -> None:
    nowhere = f"unix://{tmp_path}/nobody.sock"
    with server.running(
        sandbox_url=sandbox_url, home=tmp_path, REDIS_URL=nowhere, GATEWAY_CATALOGUE_EVERY_S="0.1"
    ) as gateway:
        alone = replace(stage, gateway=gateway)
        model = alone.model()
        secret = make_key(alone.account(credit="1"), requests_per_minute=50, tokens_per_minute=1_000).secret
        served = alone.post(secret, chat(model, max_tokens=10, sandbox={"output_tokens": 7}))
        answer = alone.get("key", secret)

    assert served.status_code == answer.status_code == 200
    assert limits(answer) == [50, 49, 1_000, 1_000 - (3 + 7)]
    facts = answer.json()["data"]["effective_remaining"]
    assert facts["requests"] == {"remaining": 49, "limited_by": "minute"}
    assert facts["tokens"] == {"remaining": 990, "limited_by": "minute"}


def test_the_basic_plan_is_limited_by_the_minute_and_the_day_and_not_by_money(stage: Stage) -> None:
    model = stage.model()
    issued = make_key(stage.account(plan=Plan.BASIC))
    secret = issued.secret
    stage.post(secret, chat(model, max_tokens=10, sandbox={"output_tokens": 7}))

    assert remaining(stage, secret) == {
        "usd": "0.000000000",
        "usd_limited_by": "credits",
        "usd_frees_at": None,
        "requests": {"remaining": 9, "limited_by": "minute"},
        "tokens": {"remaining": 200_000 - 10, "limited_by": "daily_allowance"},
        "limited_by": "minute",
    }
    rows.use_allowance(issued.key, at=now(), requests=7_195)
    assert remaining(stage, secret)["requests"] == {"remaining": 5, "limited_by": "daily_allowance"}
    rows.use_allowance(issued.key, at=now(), tokens=200_000)
    assert remaining(stage, secret)["tokens"] == {"remaining": 0, "limited_by": "daily_allowance"}
    assert remaining(stage, secret)["limited_by"] == "daily_allowance"


@pytest.mark.parametrize(
    ("limit_usd", "output_tokens", "named"),
    [(None, 100_000, "credits"), (5, 100_000, "key_limit"), (5, 1, "minute")],
)
def test_what_leaves_the_smallest_share_limits_the_key(
    stage: Stage, limit_usd: int | None, output_tokens: int, named: str
) -> None:
    model = dialects.model_for(stage, "chat/completions", max_output_tokens=100_000, context_window=200_000)
    issued = make_key(stage.account(credit="10"), requests_per_minute=4)
    if limit_usd:
        make_budget(issued.key, period=Budget.Period.DAY, limit_nanousd=limit_usd * 10**9)
    body = chat(model, max_tokens=10, sandbox={"output_tokens": output_tokens})
    assert stage.post(issued.secret, body).status_code == 200
    if limit_usd is None:
        assert stage.post(issued.secret, body).status_code == 200
        assert stage.post(issued.secret, body).status_code == 200

    facts = remaining(stage, issued.secret)

    assert facts["limited_by"] == named
    # Credit goes on behind the allowance, which therefore limits nothing.
    assert facts["requests"]["limited_by"] == facts["tokens"]["limited_by"] == "minute"
    assert facts["usd_limited_by"] == ("credits" if limit_usd is None else "key_limit")


def test_of_credit_and_budgets_the_smallest_limits_whatever_its_share_is(stage: Stage) -> None:
    account = stage.account(credit="10")
    model = dialects.model_for(stage, "chat/completions", max_output_tokens=100_000, context_window=200_000)
    spending = chat(model, max_tokens=10, sandbox={"output_tokens": 100_000})
    assert stage.post(make_key(account).secret, spending).status_code == 200
    issued = make_key(account)
    make_budget(issued.key, limit_nanousd=20_000_000)

    facts = remaining(stage, issued.secret)

    assert (facts["usd"], facts["usd_limited_by"], facts["limited_by"]) == (
        "0.020000000",
        "key_limit",
        "key_limit",
    )


def test_credit_that_is_used_up_comes_first_and_leaves_the_allowance(stage: Stage) -> None:
    secret = make_key(stage.account()).secret

    facts = remaining(stage, secret)

    assert (facts["usd"], facts["limited_by"]) == ("0.000000000", "credits")
    assert facts["requests"] == {"remaining": 3_000, "limited_by": "minute"}
    assert facts["tokens"] == {"remaining": 200_000, "limited_by": "daily_allowance"}


def test_every_budget_that_limits_a_key_is_told_the_tightest_first(stage: Stage) -> None:
    account = stage.account(credit="10")
    issued = make_key(account, environment="staging")
    make_budget(account, limit_nanousd=9 * 10**9, period="week")
    make_budget(account, environment="staging", limit_nanousd=2 * 10**9, period="month")
    make_budget(account, environment="production", limit_nanousd=1)
    make_budget(issued.key, limit_nanousd=3 * 10**9)
    make_budget(issued.key, limit_nanousd=4 * 10**9, period="day")
    make_budget(issued.key, limit_nanousd=10**9, period="week", is_hard_stop=False)
    make_budget(make_key(account).key, limit_nanousd=1)
    model = stage.model(tier="premium", input_price="0", output_price="100000")
    assert (
        stage.post(issued.secret, chat(model, max_tokens=1, sandbox={"output_tokens": 1})).status_code == 200
    )

    facts = stage.get("key", issued.secret).json()["data"]

    told = [(budget["scope"], budget["period"], budget["remaining"]) for budget in facts["budgets"]]
    assert told == [
        ("key", "week", "0.900000000"),
        ("environment", "month", "1.900000000"),
        ("key", "total", "2.900000000"),
        ("key", "day", "3.900000000"),
        ("account", "week", "8.900000000"),
    ]
    alerting, tightest = facts["budgets"][:2]
    assert (alerting["is_hard_stop"], tightest["is_hard_stop"]) == (False, True)
    assert (tightest["environment"], tightest["spent"], tightest["held"]) == (
        "staging",
        "0.100000000",
        "0.000000000",
    )
    assert (facts["limit"], facts["limit_remaining"], facts["limit_reset"]) == (
        "3.000000000",
        "2.900000000",
        None,
    )
    left = facts["effective_remaining"]
    assert (left["usd"], left["usd_limited_by"]) == ("1.900000000", "environment_budget")
    assert left["usd_frees_at"] == tightest["resets_at"] is not None


def test_a_budget_of_the_account_can_be_what_limits_a_key(stage: Stage) -> None:
    account = stage.account(credit="10")
    make_budget(account, limit_nanousd=10**9)

    left = remaining(stage, make_key(account).secret)

    assert (left["usd"], left["usd_limited_by"], left["usd_frees_at"]) == (
        "1.000000000",
        "account_budget",
        None,
    )
