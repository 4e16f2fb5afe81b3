"""A key's own spend limit, set and removed in the browser."""

import datetime as dt

import pytest
import time_machine

from accounts.models import AuditEvent
from billing.models import Budget
from tests import factories
from tests.billing.test_billing_pages import sign_in, text_of
from tests.factories import make_budget

USD = 10**9


@pytest.mark.django_db
def test_a_key_without_a_limit_can_be_given_one() -> None:
    account = factories.make_account()
    key, client = factories.make_key(account).key, sign_in(account)
    address = f"/billing/budgets/{key.pk}/"
    assert "no spend limit of its own" in text_of(client, address)
    response = client.post(address, {"limit": "12.50", "period": "month"}, follow=True)
    budget = Budget.objects.get(key=key)
    assert (budget.limit_nanousd, budget.period) == (12_500_000_000, "month")
    assert "holds from now on" in response.text
    assert "$12.50 a month" in response.text
    assert 'value="12.50"' in response.text
    event = AuditEvent.objects.get(action="key.budget_set")
    assert event.actor == account.members.get()


@pytest.mark.django_db
def test_a_limit_can_be_changed_to_nothing_at_all() -> None:
    account = factories.make_account()
    key, client = factories.make_key(account).key, sign_in(account)
    make_budget(key, period="total", limit_nanousd=USD)
    client.post(f"/billing/budgets/{key.pk}/", {"limit": "0", "period": "total"})
    assert Budget.objects.get(key=key).limit_nanousd == 0


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("limit", "period"), [("-1", "day"), ("", "day"), ("1.005", "day"), ("5", "year"), ("5", "")]
)
def test_a_limit_that_makes_no_sense_is_refused(limit: str, period: str) -> None:
    account = factories.make_account()
    key, client = factories.make_key(account).key, sign_in(account)
    response = client.post(f"/billing/budgets/{key.pk}/", {"limit": limit, "period": period})
    assert response.status_code == 422
    assert not Budget.objects.exists()


@pytest.mark.django_db
def test_a_limit_is_removed_after_asking_once() -> None:
    account = factories.make_account()
    key, client = factories.make_key(account).key, sign_in(account)
    address = f"/billing/budgets/{key.pk}/clear/"
    assert client.get(address)["Location"] == f"/billing/budgets/{key.pk}/"
    make_budget(key, period="week", limit_nanousd=USD)
    assert "The limit of $1.00 (a week) ends at once" in text_of(client, address)
    assert Budget.objects.filter(key=key).exists()
    response = client.post(address, follow=True)
    assert "has no spend limit of its own any more" in response.text
    assert not Budget.objects.filter(key=key).exists()


@pytest.mark.django_db
def test_a_period_that_is_over_is_shown_from_zero() -> None:
    account = factories.make_account()
    key = factories.make_key(account).key
    march = dt.datetime(2026, 3, 20, tzinfo=dt.UTC)
    make_budget(key, period="month", limit_nanousd=5 * USD, at=march)
    Budget.objects.update(spent_nanousd=2 * USD)
    with time_machine.travel(march, tick=False):
        page = text_of(sign_in(account), f"/billing/budgets/{key.pk}/")
        assert "$2.00" in page
        assert "2026-04-01 00:00 UTC" in page
    with time_machine.travel(dt.datetime(2026, 4, 1, tzinfo=dt.UTC), tick=False):
        page = text_of(sign_in(account), f"/billing/budgets/{key.pk}/")
        assert "$2.00" not in page
        assert "2026-05-01 00:00 UTC" in page
