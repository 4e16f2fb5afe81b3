"""Every refusal of the contract: its status, type and code, what it holds (nothing), and where the account sees it."""

import datetime as dt
import json

import httpx2 as httpx
import pytest

from accounts import plans
from accounts.models import Plan
from billing import adjusting
from billing.models import Budget, Wallet
from catalog.models import Model
from keys import revoking, rotating
from keys.secrets import generate
from tests.factories import make_account, make_budget, make_key, make_model, make_user, now
from tests.gateway.conftest import INVALID, PERMISSION, QUOTA, Stage, chat, refused
from usage.models import UsageRecord


def test_a_request_without_a_key_is_told_how_to_send_one(stage: Stage) -> None:
    response = httpx.post(f"{stage.url}/chat/completions", json={})

    assert "Authorization: Bearer" in refused(response, 401, "missing_api_key", type=INVALID)


def test_unknown_and_malformed_keys_look_alike(stage: Stage) -> None:
    answers = [
        refused(stage.post(secret, {}), 401, "invalid_api_key", type=INVALID)
        for secret in (
            "nonsense",
            "tg_live_" + "a" * 38,
            generate(live=True),
            "sk-proj-123",
            "tg_live_" + "é" * 38,
        )
    ]

    assert len(set(answers)) == 1


def test_a_key_works_in_the_x_api_key_header_too(stage: Stage) -> None:
    issued = make_key()

    response = httpx.get(f"{stage.url}/key", headers={"x-api-key": issued.secret})

    assert response.status_code == 200


@pytest.mark.parametrize(
    "query",
    [
        "api_key=x",
        "key=abc",
        "q=tg_live_something",
        "tg_live_something",
        "tg_live_something=1",
        "q=Bearer%20tg_test_something",
        "a=b;key=tg_live_something",
        "q=%20tg%5flive_something",
    ],
)
def test_a_key_in_the_query_string_is_refused_even_beside_a_good_one(stage: Stage, query: str) -> None:
    issued = make_key()

    response = stage.get(f"key?{query}", issued.secret)

    refused(response, 400, "api_key_in_query", type=INVALID)


def test_a_revoked_key_is_refused_at_once_on_every_endpoint(stage: Stage) -> None:
    model = stage.model()
    issued = make_key(stage.account())
    assert stage.post(issued.secret, chat(model)).status_code == 200

    revoking.revoke(key=issued.key, actor=None, at=now())

    refused(stage.post(issued.secret, chat(model)), 401, "revoked_api_key", type=INVALID)
    for path in ("models", "key", "credits", "generation?id=x"):
        refused(stage.get(path, issued.secret), 401, "revoked_api_key", type=INVALID)


def test_a_rotated_secret_is_refused_at_once_and_the_new_one_works(stage: Stage) -> None:
    model = stage.model()
    issued = make_key(stage.account())
    assert stage.post(issued.secret, chat(model)).status_code == 200

    fresh = rotating.rotate(key=issued.key, actor=None, at=now())

    refused(stage.post(issued.secret, chat(model)), 401, "revoked_api_key", type=INVALID)
    assert stage.post(fresh.secret, chat(model)).status_code == 200


def test_an_expired_key_is_told_when_it_expired(stage: Stage) -> None:
    issued = make_key(stage.account(), expires_at=now() + dt.timedelta(milliseconds=1))

    message = refused(stage.post(issued.secret, {}), 401, "expired_api_key", type=INVALID)

    assert "UTC" in message


def test_a_disabled_key_works_again_when_it_is_enabled(stage: Stage) -> None:
    model = stage.model()
    issued = make_key(stage.account())
    assert stage.post(issued.secret, chat(model)).status_code == 200
    revoking.disable(key=issued.key, actor=None, at=now())

    response = stage.post(issued.secret, chat(model))

    refused(response, 403, "key_disabled", type=PERMISSION)
    assert stage.record(response).error_code == "key_disabled"
    revoking.enable(key=issued.key, actor=None, at=now())
    assert stage.post(issued.secret, chat(model)).status_code == 200


def test_a_suspended_account_is_refused_at_once(stage: Stage) -> None:
    model = stage.model()
    account = stage.account()
    issued = make_key(account)
    assert stage.post(issued.secret, chat(model)).status_code == 200

    plans.suspend(account=account, actor=None, reason="a test")

    refused(stage.post(issued.secret, chat(model)), 403, "account_suspended", type=PERMISSION)


def test_a_network_that_is_not_allowed_is_named(stage: Stage) -> None:
    issued = make_key(stage.account(), allowed_networks=["10.0.0.0/8"])

    assert "127.0.0.1" in refused(stage.post(issued.secret, {}), 403, "ip_not_allowed", type=PERMISSION)


def test_an_address_that_a_stranger_claims_in_a_header_is_not_believed(stage: Stage) -> None:
    issued = make_key(stage.account(), allowed_networks=["10.0.0.0/8"])

    response = stage.post(issued.secret, {}, headers={"x-forwarded-for": "10.1.2.3"})

    refused(response, 403, "ip_not_allowed", type=PERMISSION)


def test_an_endpoint_that_is_not_allowed_is_refused(stage: Stage) -> None:
    issued = make_key(stage.account(), allowed_endpoints=["embeddings"])

    refused(stage.post(issued.secret, {}), 403, "endpoint_not_allowed", type=PERMISSION)


def test_a_model_that_is_not_allowed_is_refused_and_not_listed(stage: Stage) -> None:
    model, other = stage.model(), stage.model()
    issued = make_key(stage.account(), allowed_models=[other.slug])

    refused(stage.post(issued.secret, chat(model)), 403, "model_not_allowed", type=PERMISSION, param="model")
    assert [listed["id"] for listed in stage.get("models", issued.secret).json()["data"]] == [
        "auto",
        other.slug,
    ]
    refused(
        stage.get(f"models/{model.slug}", issued.secret),
        403,
        "model_not_allowed",
        type=PERMISSION,
        param="model",
    )


def test_a_premium_model_asks_a_basic_account_to_upgrade_and_works_after_that(stage: Stage) -> None:
    model = stage.model(tier=Model.Tier.PREMIUM)
    account = stage.account(plan=Plan.BASIC, credit="1")
    issued = make_key(account)

    response = stage.post(issued.secret, chat(model))

    message = refused(response, 403, "plan_upgrade_required", type=PERMISSION, param="model")
    assert "Buy credits" in message
    assert stage.record(response).error_message == message
    assert model.slug not in stage.get("models", issued.secret).text
    described = stage.get(f"models/{model.slug}", issued.secret)
    assert refused(described, 403, "plan_upgrade_required", type=PERMISSION, param="model") == message
    plans.change_plan(account=account, plan=Plan.objects.get(slug=Plan.PAY_AS_YOU_GO), actor=None)
    assert stage.post(issued.secret, chat(model)).status_code == 200


def test_who_spends_credits_is_not_told_to_buy_some_for_a_larger_plan(stage: Stage) -> None:
    model = stage.model(tier=Model.Tier.PREMIUM)
    Plan.objects.create(
        slug="team",
        name="Team",
        requests_per_day=9,
        tokens_per_day=900,
        max_input_characters=5,
        spends_credits=True,
    )
    secret = make_key(stage.account(plan="team", credit="1")).secret

    premium = stage.post(secret, chat(model))
    long = stage.post(secret, chat(stage.model()))

    assert "Ask the operator" in refused(
        premium, 403, "plan_upgrade_required", type=PERMISSION, param="model"
    )
    assert "ask the operator" in refused(long, 400, "input_too_long", type=INVALID, param="messages")


def test_an_unknown_model_is_not_found(stage: Stage) -> None:
    issued = make_key(stage.account())

    refused(
        stage.post(issued.secret, chat("no-such-model")), 404, "model_not_found", type=INVALID, param="model"
    )


def test_a_disabled_model_is_not_found(stage: Stage) -> None:
    model, marker = stage.model(), make_model(is_enabled=False)
    issued = make_key(stage.account())

    refused(stage.post(issued.secret, chat(marker)), 404, "model_not_found", type=INVALID, param="model")
    assert stage.post(issued.secret, chat(model)).status_code == 200


def test_a_key_is_repeated_nowhere_even_where_its_owner_has_put_it(stage: Stage) -> None:
    model = stage.model()
    issued = make_key(stage.account(plan=Plan.BASIC))
    secret = issued.secret
    answers = [
        stage.get(secret, secret),
        stage.post(secret, chat(secret)),
        stage.post(secret, b'{"%b": 1, "%b": 2}' % (secret.encode(), secret.encode())),
        stage.post(secret, chat(model, sandbox={secret: 1})),
        stage.post(secret, chat("none"), headers={"x-request-id": secret, "user-agent": secret}),
    ]

    assert all(400 <= answer.status_code < 500 for answer in answers)
    assert not any(secret in answer.text for answer in answers)
    stage.record(answers[-1])
    for record in UsageRecord.objects.filter(key=issued.key).values():
        assert secret[:20] not in str(record)


def test_a_description_that_is_refused_is_in_the_request_log_too(stage: Stage) -> None:
    issued = make_key(stage.account())
    revoking.disable(key=issued.key, actor=None, at=now())

    record = stage.record(stage.get("models", issued.secret))

    assert (record.endpoint, record.status, record.error_code) == ("models", 403, "key_disabled")


def test_credit_that_does_not_suffice_names_what_is_affordable_and_that_then_works(stage: Stage) -> None:
    model = stage.model(tier=Model.Tier.PREMIUM, input_price="5", output_price="25")
    account = stage.account(credit="0.01")
    issued = make_key(account)

    response = stage.post(issued.secret, chat(model, max_tokens=5_000))

    message = refused(response, 402, "insufficient_credits", type=QUOTA, param="max_tokens")
    affordable = int(message.split("max_tokens=")[1].split(",")[0])
    assert stage.post(issued.secret, chat(model, max_tokens=affordable + 10)).status_code == 402
    assert stage.post(issued.secret, chat(model, max_tokens=affordable)).status_code == 200


def test_a_refusal_names_the_limit_that_the_request_has(stage: Stage) -> None:
    model = stage.model(tier=Model.Tier.PREMIUM, input_price="5", output_price="25")
    issued = make_key(stage.account(credit="0.01"))

    response = stage.post(issued.secret, chat(model, max_completion_tokens=5_000))

    message = refused(response, 402, "insufficient_credits", type=QUOTA, param="max_completion_tokens")
    assert "Ask for at most max_completion_tokens=" in message


def test_no_credit_at_all_is_refused_without_a_limit_to_try(stage: Stage) -> None:
    model = stage.model(tier=Model.Tier.PREMIUM)
    issued = make_key(stage.account())

    message = refused(stage.post(issued.secret, chat(model)), 402, "insufficient_credits", type=QUOTA)

    assert "Buy credits on the Billing page" in message


def test_a_keys_own_limit_is_a_hard_stop_and_frees_with_its_period(stage: Stage) -> None:
    model = stage.model(tier=Model.Tier.PREMIUM, input_price="5", output_price="25")
    issued = make_key(stage.account(credit="10"))
    make_budget(issued.key, period=Budget.Period.DAY, limit_nanousd=3_000_000)
    assert (
        stage.post(issued.secret, chat(model, max_tokens=60, sandbox={"output_tokens": 60})).status_code
        == 200
    )

    response = stage.post(issued.secret, chat(model, max_tokens=60))

    message = refused(response, 402, "key_limit_reached", type=QUOTA, param="max_tokens")
    assert "$0.003000000 a day" in message
    assert "It frees at" in message
    # As if all of it had been yesterday.
    Budget.objects.filter(key=issued.key).update(period_start=now().date() - dt.timedelta(days=1))
    UsageRecord.objects.filter(key=issued.key).update(started_at=now() - dt.timedelta(days=1))
    assert stage.post(issued.secret, chat(model, max_tokens=60)).status_code == 200
    assert Budget.objects.get(key=issued.key).period_start == now().date()


def test_unknown_addresses_and_methods_are_told_apart(stage: Stage) -> None:
    issued = make_key()

    refused(stage.post(issued.secret, {}, path="nothing/here"), 404, "unknown_url", type=INVALID)
    refused(stage.get("chat/completions", issued.secret), 405, "method_not_allowed", type=INVALID)
    refused(stage.post(issued.secret, {}, path="models"), 405, "method_not_allowed", type=INVALID)


def test_a_receipt_is_only_for_the_account_that_made_the_request(stage: Stage) -> None:
    model = stage.model()
    account = stage.account()
    issued, stranger = make_key(account), make_key(make_account())
    request_id = stage.post(issued.secret, chat(model)).headers["x-request-id"]

    receipt = stage.get(f"generation?id={request_id}", issued.secret).json()["data"]

    assert (receipt["id"], receipt["model"], receipt["outcome"]) == (request_id, model.slug, "completed")
    assert receipt["tokens_prompt"] == 3
    other = stage.get(f"generation?id={request_id}", stranger.secret)
    refused(other, 404, "generation_not_found", type=INVALID, param="id")
    refused(stage.get("generation?id=5", issued.secret), 400, "invalid_value", type=INVALID, param="id")


def test_a_key_reads_what_it_may_still_do(stage: Stage) -> None:
    model = stage.model(tier=Model.Tier.PREMIUM, input_price="5", output_price="25")
    issued = make_key(stage.account(credit="10"), requests_per_minute=7)
    make_budget(issued.key, period=Budget.Period.MONTH, limit_nanousd=2_000_000_000)
    stage.post(issued.secret, chat(model, sandbox={"output_tokens": 10}))

    facts = stage.get("key", issued.secret).json()["data"]

    cost = 3 * 5_000 + 10 * 25_000
    assert facts["limit"] == "2.000000000"
    assert facts["limit_remaining"] == f"{(2_000_000_000 - cost) / 1e9:.9f}"
    assert facts["limit_reset"] == "month"
    assert facts["usage"] == facts["usage_daily"] == facts["usage_monthly"] == f"{cost / 1e9:.9f}"
    assert facts["rate_limit"]["requests"] == 7
    assert facts["effective_remaining"]["usd"] == facts["limit_remaining"]
    assert facts["effective_remaining"]["usd_limited_by"] == "key_limit"
    assert facts["is_free_tier"] is False
    assert issued.secret not in json.dumps(facts)


def test_credits_add_up(stage: Stage) -> None:
    model = stage.model(tier=Model.Tier.PREMIUM, input_price="5", output_price="25")
    account = stage.account(credit="10")
    issued = make_key(account)
    stage.post(issued.secret, chat(model, sandbox={"output_tokens": 10}))

    facts = stage.get("credits", issued.secret).json()["data"]

    assert facts["total_credits"] == "10.000000000"
    assert facts["total_usage"] == "0.000265000"
    assert facts["balance"] == facts["available"] == "9.999735000"
    assert Wallet.objects.get(account=account).balance_nanousd == 9_999_735_000
    adjusting.take(
        account=account,
        amount_nanousd=10**9,
        reason="a mistake",
        actor=make_user(),
        at=now(),
        reference="adjust:1",
    )

    facts = stage.get("credits", issued.secret).json()["data"]

    assert facts["total_credits"] == "9.000000000"
    assert facts["total_usage"] == "0.000265000"
    assert facts["balance"] == "8.999735000"


def test_a_refusal_has_its_receipt_at_once(stage: Stage) -> None:
    issued = make_key(stage.account())
    for _ in range(20):
        refusal = stage.post(issued.secret, chat("no-such-model"))
        receipt = stage.get(f"generation?id={refusal.headers['x-request-id']}", issued.secret)
        assert receipt.json()["data"]["error_code"] == "model_not_found"


def test_a_refusal_is_in_the_request_log_and_costs_nothing(stage: Stage) -> None:
    model, other = stage.model(), stage.model()
    issued = make_key(stage.account(), allowed_models=[other.slug])

    response = stage.post(issued.secret, chat(model), headers={"x-request-id": "mine-1"})

    record = stage.record(response)
    assert (record.outcome, record.status, record.error_code) == ("refused", 403, "model_not_allowed")
    assert record.client_request_id == "mine-1"
    assert response.headers["x-request-id"] != "mine-1"
    assert "Allow the model on the key's page" in record.error_message
    assert UsageRecord.objects.filter(key=issued.key).count() == 1
