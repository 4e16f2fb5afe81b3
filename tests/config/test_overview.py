"""Where a person lands."""

import datetime as dt
import uuid
from decimal import Decimal
from typing import Any

import pytest
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from accounts import plans
from accounts.models import Account, Plan
from billing.models import TopUp
from catalog.models import Model
from keys.models import ApiKey
from tests import factories
from usage.models import Anomaly, DailyAllowance, UsageRecord

pytestmark = pytest.mark.django_db


@pytest.fixture
def account(client: Client) -> Account:
    account = factories.make_account()
    client.force_login(account.members.get())
    return account


def make_record(key: ApiKey, model: Model, **fields: Any) -> UsageRecord:
    at = factories.now()
    facts = {
        "outcome": UsageRecord.Outcome.COMPLETED,
        "status": 200,
        "endpoint": "chat/completions",
        "input_tokens": 100,
        "output_tokens": 23,
        "started_at": at,
        "ended_at": at,
    }
    return UsageRecord.objects.create(
        id=uuid.uuid4(), account=key.account, key=key, model=model, **{**facts, **fields}
    )


def make_topup(account: Account) -> TopUp:
    return TopUp.objects.create(
        account=account,
        provider="sandbox",
        provider_reference=uuid.uuid4().hex,
        credit_nanousd=20 * 10**9,
        fee_nanousd=5 * 10**9,
        total_nanousd=25 * 10**9,
        fee_rate=Decimal("0.25"),
        status=TopUp.Status.PAID,
        paid_at=factories.now(),
    )


def test_a_new_account_is_told_what_to_do_first(client: Client, account: Account) -> None:
    page = client.get("/overview/").content.decode()

    assert "0 of 3 done" in page
    assert "Nothing used yet" in page
    assert "hx-get" not in page, "without a key there is no call to wait for"


def test_an_account_with_a_key_listens_for_its_first_call(client: Client, account: Account) -> None:
    key = factories.make_key(account).key
    page = client.get("/overview/").content.decode()
    assert "1 of 3 done" in page
    assert 'hx-get="/overview/first-call/" hx-trigger="every 2s"' in page
    assert client.get("/overview/first-call/", headers={"HX-Request": "true"}).status_code == 204

    make_record(key, factories.make_model("free-one"))
    fragment = client.get("/overview/first-call/", headers={"HX-Request": "true"})

    page = fragment.content.decode()
    assert fragment.status_code == 200
    assert "2 of 3 done" in page
    assert "hx-get" not in page, "it has heard the call and stops asking"
    assert "free-one" in page
    assert "<html" not in page
    assert "HX-Request" in fragment["Vary"]


def test_a_refused_call_is_not_the_first_call(client: Client, account: Account) -> None:
    key = factories.make_key(account).key
    make_record(key, factories.make_model(), outcome=UsageRecord.Outcome.REFUSED, status=429)

    assert client.get("/overview/first-call/").status_code == 204


def test_the_call_of_another_account_is_not_noticed(client: Client, account: Account) -> None:
    factories.make_key(account)
    make_record(factories.make_key().key, factories.make_model("theirs"))

    assert client.get("/overview/first-call/").status_code == 204
    assert b"theirs" not in client.get("/overview/").content


def test_the_first_steps_go_when_all_are_done(client: Client, account: Account) -> None:
    make_record(factories.make_key(account).key, factories.make_model())
    make_topup(account)

    assert b"First steps" not in client.get("/overview/").content


def test_available_and_held_credit_are_shown_apart(client: Client) -> None:
    account = factories.make_account(plan=Plan.PAY_AS_YOU_GO, credit="12.50")
    account.wallet.held_nanousd = 2_500_000_000
    account.wallet.save()
    client.force_login(account.members.get())

    page = client.get("/overview/").content.decode()

    assert '<p class="figure-value">$10.00</p>' in page
    assert "$2.50 held by running requests, of a balance of $12.50" in page


def test_an_account_without_a_wallet_has_nothing(client: Client, account: Account) -> None:
    assert '<p class="figure-value">$0.00</p>' in client.get("/overview/").content.decode()


def test_the_gauge_shows_the_tighter_limit_of_the_day(client: Client, account: Account) -> None:
    DailyAllowance.objects.create(account=account, day=factories.now().date(), tokens=170_000, requests=3)

    page = client.get("/overview/").content.decode()

    assert '<progress class="gauge gauge-high" max="100" value="85"' in page
    assert "170,000 of 200,000 tokens" in page


def test_spend_is_charted_by_model_where_there_is_any_and_tokens_where_there_is_none(
    client: Client, account: Account
) -> None:
    key, model = factories.make_key(account).key, factories.make_model("free-one")
    make_record(key, model)
    page = client.get("/overview/").content.decode()
    assert "Tokens, last 30 days" in page
    assert '<td class="text-end tabular">123</td>' in page

    make_record(key, model, cost_nanousd=1_230_000, charged_nanousd=1_230_000)
    page = client.get("/overview/").content.decode()
    assert "Spend, last 30 days" in page
    assert "$0.00123" in page


def test_usage_of_more_than_thirty_days_ago_is_not_in_the_chart(client: Client, account: Account) -> None:
    long_ago = factories.now() - dt.timedelta(days=31)
    key = factories.make_key(account).key
    make_record(key, factories.make_model("old-one"), started_at=long_ago, ended_at=long_ago)

    assert b"old-one" not in client.get("/overview/").content


def test_open_alerts_are_shown_until_they_are_acknowledged(client: Client, account: Account) -> None:
    key = factories.make_key(account, name="nightly job").key
    alert = Anomaly.objects.create(
        account=account,
        key=key,
        hour=factories.now(),
        expected_nanousd=10**9,
        threshold_nanousd=2 * 10**9,
        observed_nanousd=40 * 10**9,
    )
    page = client.get("/overview/").content.decode()
    assert "nightly job spent $40.00" in page
    assert "$1.00 is usual" in page

    alert.acknowledged_at = factories.now()
    alert.save()
    assert b"nightly job spent" not in client.get("/overview/").content


def test_a_suspended_account_reads_that_it_is(client: Client, account: Account) -> None:
    plans.suspend(account=account, actor=None, reason="unpaid")

    assert b"This account is suspended" in client.get("/overview/").content


def test_the_overview_is_kept_nowhere(client: Client, account: Account) -> None:
    assert "no-store" in client.get("/overview/")["Cache-Control"]


def test_the_overview_costs_the_same_queries_however_much_was_used(
    client: Client,
    account: Account,
    django_assert_max_num_queries: DjangoAssertNumQueries,
) -> None:
    for name in ("a", "b", "c"):
        key = factories.make_key(account, name=name).key
        for _ in range(3):
            make_record(key, factories.make_model())

    # Session, user, account, two charts, allowance, three steps, alerts, wallet.
    with django_assert_max_num_queries(12):
        client.get("/overview/")
