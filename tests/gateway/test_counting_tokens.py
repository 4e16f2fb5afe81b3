"""`POST /v1/messages/count_tokens`: it costs nothing, and is a request all the same."""

from collections.abc import Iterator
from typing import Any

import anthropic
import pytest

from accounts.models import Plan
from billing.models import Hold, Wallet
from keys import revoking
from tests.factories import make_key, now
from tests.gateway import dialects
from tests.gateway.conftest import Stage
from usage.models import DailyAllowance, UsageRecord

PATH = "messages/count_tokens"
THREE = [{"role": "user", "content": "three short words"}]


def counting(model: str, **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": THREE, **fields}


@pytest.fixture
def poor(stage: Stage) -> Iterator[anthropic.Anthropic]:
    """A client of an account without credit."""
    with anthropic.Anthropic(
        api_key=make_key(stage.account()).secret, base_url=stage.gateway.origin, max_retries=0, timeout=30
    ) as client:
        yield client


def test_anthropics_client_counts_without_a_cent_of_credit(stage: Stage, poor: anthropic.Anthropic) -> None:
    model = dialects.model_for(stage, "messages")

    answer = poor.messages.with_raw_response.count_tokens(
        model=model.slug, system="be brief", messages=[{"role": "user", "content": "three short words"}]
    )

    assert answer.parse().input_tokens == 5
    assert answer.headers["x-tollgate-cost-usd"] == "0.000000000"
    record = UsageRecord.objects.get(pk=answer.headers["x-request-id"])
    assert (record.endpoint, record.outcome, record.status) == (PATH, "completed", 200)
    assert (record.input_tokens, record.output_tokens, record.charged_nanousd) == (0, 0, 0)
    wallet = Wallet.objects.get(account=record.account)
    assert (wallet.balance_nanousd, wallet.held_nanousd) == (0, 0)
    assert not Hold.objects.exists()


def test_it_is_a_request_of_the_minute_without_tokens(stage: Stage) -> None:
    model = dialects.model_for(stage, "messages")
    secret = make_key(stage.account(), requests_per_minute=2, tokens_per_minute=1_000).secret

    answers = [stage.post(secret, counting(model.slug), path=PATH) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[1].headers["x-ratelimit-remaining-requests"] == "0"
    assert answers[1].headers["x-ratelimit-remaining-tokens"] == "1000"
    assert dialects.refusal(answers[2], "messages")[1:3] == ("rate_limit_error", "rate_limit_exceeded")


def test_a_free_accounts_allowance_is_not_touched(stage: Stage) -> None:
    model = dialects.model_for(stage, "messages", tier="basic")
    account = stage.account(plan=Plan.BASIC)

    answer = stage.post(make_key(account).secret, counting(model.slug), path=PATH)

    assert answer.json() == {"input_tokens": 3}
    assert not DailyAllowance.objects.filter(account=account).exists()


def test_policies_hold_for_it_as_for_messages(stage: Stage) -> None:
    premium = dialects.model_for(stage, "messages")
    free = make_key(stage.account(plan=Plan.BASIC)).secret
    account = stage.account()
    elsewhere = make_key(account, allowed_endpoints=["responses"]).secret
    here = make_key(account, allowed_endpoints=["messages"]).secret
    gone = make_key(account)
    assert stage.post(gone.secret, counting(premium.slug), path=PATH).status_code == 200
    revoking.revoke(key=gone.key, actor=None, at=now())

    told = {
        secret: dialects.refusal(stage.post(secret, counting(premium.slug), path=PATH), "messages")[2]
        for secret in (free, elsewhere, gone.secret)
    }

    assert list(told.values()) == ["plan_upgrade_required", "endpoint_not_allowed", "revoked_api_key"]
    assert stage.post(here, counting(premium.slug), path=PATH).status_code == 200


def test_what_is_too_long_for_the_model_is_counted_still(stage: Stage) -> None:
    model = dialects.model_for(stage, "messages", context_window=10, max_output_tokens=5)
    long = [{"role": "user", "content": "word " * 100}]

    answer = stage.post(make_key(stage.account()).secret, counting(model.slug, messages=long), path=PATH)

    assert answer.json() == {"input_tokens": 100}


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"stream": True}, "stream"), ({"messages": []}, "messages"), ({"max_tokens": -1}, "max_tokens")],
)
def test_what_is_no_message_is_refused_in_anthropics_shape(
    stage: Stage, fields: dict[str, Any], param: str
) -> None:
    answer = stage.post(make_key(stage.account()).secret, counting("m", **fields), path=PATH)

    assert dialects.refusal(answer, "messages") == (400, "invalid_request_error", "invalid_value", param)


def test_a_model_that_speaks_another_protocol_only_says_so(stage: Stage) -> None:
    model = dialects.model_for(stage, "embeddings")

    answer = stage.post(make_key(stage.account()).secret, counting(model.slug), path=PATH)

    assert "it at /v1/embeddings" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "fault", [{"status": 429, "code": "slow_down"}, {"status": 500, "code": "x"}, "connection"]
)
def test_counting_that_fails_closes_no_way_to_answers(stage: Stage, fault: object) -> None:
    """Providers limit it by itself: one account that counts too much would take an upstream from all others."""
    model = dialects.model_for(stage, "messages")
    secret = make_key(stage.account(credit="1")).secret
    failing = counting(model.slug, sandbox={"fail": fault})

    for _ in range(25):
        refusal = dialects.refusal(stage.post(secret, failing, path=PATH), "messages")
        assert refusal[:3] == (502, "api_error", "upstream_error")

    assert stage.post(secret, dialects.body("messages", model.slug), path="messages").status_code == 200


def test_an_upstream_that_does_not_count_stays_healthy(stage: Stage) -> None:
    model = dialects.model_for(stage, "messages")
    secret = make_key(stage.account(credit="1")).secret
    nothing = counting(model.slug, sandbox={"fail": {"status": 404, "code": "not_found"}})

    refusals = [stage.post(secret, nothing, path=PATH) for _ in range(25)]

    assert {dialects.refusal(answer, "messages")[::2] for answer in refusals} == {(400, "invalid_value")}
    assert "usage" in refusals[0].json()["error"]["message"]
    assert stage.post(secret, dialects.body("messages", model.slug), path="messages").status_code == 200


def test_models_do_not_list_it_among_their_endpoints(stage: Stage) -> None:
    model = dialects.model_for(stage, "messages")
    secret = make_key(stage.account()).secret

    listed = stage.get(f"models/{model.slug}", secret).json()["endpoints"]

    assert (listed[-1], PATH in listed) == ("messages", False)
