"""Budgets in the browser: seen as bars, added, changed and removed, for the account, an environment or a key."""

import datetime as dt

import pytest
import time_machine
from django.test import Client
from pytest_django.fixtures import DjangoAssertNumQueries

from accounts.models import Account, AuditEvent
from billing.models import Budget
from tests import factories
from tests.billing.test_billing_pages import sign_in, text_of
from tests.factories import make_budget

pytestmark = pytest.mark.django_db

USD = 10**9
TERMS = {"limit": "12.50", "stops": "on", "alerts": "50, 80, 100"}


@pytest.fixture
def account() -> Account:
    return factories.make_account()


@pytest.fixture
def member(account: Account) -> Client:
    return sign_in(account)


def test_an_account_without_budgets_reads_what_one_does(member: Client) -> None:
    page = text_of(member, "/billing/budgets/")
    assert "No budgets yet" in page
    assert "refused before it costs anything" in page
    assert 'href="/billing/budgets/add/"' in page


@pytest.mark.parametrize(
    ("scope", "environment", "is_of_key"),
    [("account", "", False), ("environment:staging", "staging", False), ("key", "", True)],
)
def test_a_budget_is_added_for_an_account_an_environment_or_a_key(
    account: Account, member: Client, scope: str, environment: str, is_of_key: bool
) -> None:
    key = factories.make_key(account, name="Nightly").key
    scope = f"key:{key.pk}" if is_of_key else scope
    assert f'value="{scope}" selected' in text_of(member, f"/billing/budgets/add/?scope={scope}")

    response = member.post("/billing/budgets/add/", {**TERMS, "scope": scope, "period": "month"}, follow=True)

    budget = Budget.objects.get()
    assert (budget.environment, budget.key) == (environment, key if is_of_key else None)
    assert (budget.limit_nanousd, budget.period, budget.is_hard_stop) == (12_500_000_000, "month", True)
    assert budget.alert_percents == [50, 80, 100]
    assert "holds from now on" in response.text
    assert budget.scope_label in response.text
    event = AuditEvent.objects.get(action__endswith="budget_set")
    assert event.actor == account.members.get()


def test_a_budget_that_only_alerts_says_so(member: Client) -> None:
    terms = {"limit": "0", "alerts": "90 % 10", "scope": "account", "period": "total"}
    page = member.post("/billing/budgets/add/", terms, follow=True).text
    budget = Budget.objects.get()
    assert (budget.limit_nanousd, budget.is_hard_stop, budget.alert_percents) == (0, False, [10, 90])
    assert "Only alerts" in page
    assert "Never" in page  # counts from zero again


@pytest.mark.parametrize(
    "wrong",
    [
        {"limit": "-1"},
        {"limit": ""},
        {"limit": "1.005"},
        {"period": "year"},
        {"period": ""},
        {"scope": "everybody"},
        {"scope": "key:1"},
        {"scope": ""},
        {"alerts": "0"},
        {"alerts": "101"},
        {"alerts": "half"},
        {"alerts": "-5"},
    ],
)
def test_a_budget_that_makes_no_sense_is_refused(member: Client, wrong: dict[str, str]) -> None:
    terms = {**TERMS, "scope": "account", "period": "month", **wrong}
    assert member.post("/billing/budgets/add/", terms).status_code == 422
    assert not Budget.objects.exists()


def test_a_second_budget_of_the_same_scope_and_period_is_refused_and_of_another_period_is_not(
    account: Account, member: Client
) -> None:
    make_budget(account, limit_nanousd=USD, period="month")
    terms = {**TERMS, "scope": "account"}
    response = member.post("/billing/budgets/add/", {**terms, "period": "month"})
    assert response.status_code == 422
    there = Budget.objects.get()
    assert f'<a href="/billing/budgets/{there.pk}/">change that one</a>' in response.text
    assert member.post("/billing/budgets/add/", {**terms, "period": "day"}).status_code == 302
    assert Budget.objects.count() == 2


def test_a_budget_is_changed_and_keeps_what_it_limits(account: Account, member: Client) -> None:
    key = factories.make_key(account).key
    budget = make_budget(key, limit_nanousd=5 * USD, period="week", alert_percents=[70])
    address = f"/billing/budgets/{budget.pk}/"
    page = text_of(member, address)
    assert 'value="5.00"' in page
    assert 'value="70"' in page

    member.post(address, {"limit": "0.01", "alerts": "", "scope": "account", "period": "day"})

    budget = Budget.objects.get()
    assert (budget.key, budget.period, budget.limit_nanousd) == (key, "week", USD // 100)
    assert (budget.is_hard_stop, budget.alert_percents) == (False, [])
    assert member.post(address, {"limit": "x"}).status_code == 422


def test_a_budget_is_removed_after_asking_once(account: Account, member: Client) -> None:
    budget = make_budget(account, environment="staging", limit_nanousd=USD, period="week")
    address = f"/billing/budgets/{budget.pk}/remove/"
    assert "the limit ends at once" in text_of(member, address)
    assert Budget.objects.exists()
    assert "is gone" in member.post(address, follow=True).text
    assert not Budget.objects.exists()
    assert member.post(address).status_code == 404


def test_a_bar_shows_spent_held_and_left_and_a_period_that_is_over_from_zero(
    account: Account, member: Client
) -> None:
    march = dt.datetime(2026, 3, 20, tzinfo=dt.UTC)
    make_budget(account, limit_nanousd=5 * USD, period="month", at=march)
    Budget.objects.update(spent_nanousd=2 * USD, held_nanousd=USD)
    with time_machine.travel(march, tick=False):
        page = text_of(sign_in(account), "/billing/budgets/")
        for shown in ("$2.00", "$1.00", "60 % of the limit", "2026-04-01 00:00 UTC", 'width="40.000"'):
            assert shown in page, shown
    with time_machine.travel(dt.datetime(2026, 4, 1, tzinfo=dt.UTC), tick=False):
        page = text_of(sign_in(account), "/billing/budgets/")
        assert "$2.00" not in page
        assert "2026-05-01 00:00 UTC" in page


@pytest.mark.parametrize(
    ("limit_nanousd", "is_hard_stop", "words"),
    [
        (3 * USD, True, "No room is left: requests that cost credit are refused until"),
        (2 * USD, False, "The limit is reached. Requests go on, because it only alerts."),
        (0, True, "No room is left"),
        (3 * USD + 1, True, "99 % spent or held"),
    ],
)
def test_a_budget_says_in_words_whether_there_is_room(
    account: Account, member: Client, limit_nanousd: int, is_hard_stop: bool, words: str
) -> None:
    make_budget(account, limit_nanousd=limit_nanousd, period="month", is_hard_stop=is_hard_stop)
    Budget.objects.update(spent_nanousd=2 * USD, held_nanousd=USD)
    page = text_of(member, "/billing/budgets/")
    assert words in page
    assert ("budget-bar-full" in page) == ("99 %" not in words)


def test_who_is_sent_back_begins_at_the_first_field_that_is_wrong(member: Client) -> None:
    page = member.post("/billing/budgets/add/", {"limit": "-1", "alerts": "x", "scope": "account"}).text
    assert "Give $0 or more." in page
    assert page.count("autofocus") == 1
    field = page[: page.index("autofocus")].rpartition("<")[2]
    assert 'name="limit"' in field


def test_the_page_of_a_key_leads_to_its_budgets(account: Account, member: Client) -> None:
    key = factories.make_key(account).key
    assert f'href="/billing/budgets/add/?scope=key:{key.pk}"' in text_of(member, f"/keys/{key.pk}/")
    budget = make_budget(key, limit_nanousd=USD, period="day", is_hard_stop=False)
    page = text_of(member, f"/keys/{key.pk}/")
    assert f'href="/billing/budgets/{budget.pk}/"' in page
    assert "alerts only" in page


def test_the_list_costs_the_same_however_many_budgets_there_are(
    account: Account, member: Client, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    for number in range(20):
        make_budget(factories.make_key(account, name=f"key {number}").key, limit_nanousd=number)
    # Session, user, account, budgets with their keys, and the wallet of the top bar.
    with django_assert_num_queries(5):
        member.get("/billing/budgets/")


def test_strangers_and_other_accounts_see_and_change_nothing(account: Account) -> None:
    key = factories.make_key(account, name="Secret plan").key
    budget = make_budget(key, limit_nanousd=USD)
    outsider = sign_in(factories.make_account())
    of_it = [f"/billing/budgets/{budget.pk}/", f"/billing/budgets/{budget.pk}/remove/"]
    for address in ("/billing/budgets/", "/billing/budgets/add/"):
        assert "Secret plan" not in text_of(outsider, address)
        assert Client().get(address)["Location"].startswith("/accounts/login/")
    for address in of_it:
        assert outsider.get(address).status_code == 404
        assert outsider.post(address, TERMS).status_code == 404
        assert Client().get(address)["Location"].startswith("/accounts/login/")
    response = outsider.post("/billing/budgets/add/", {**TERMS, "scope": f"key:{key.pk}", "period": "day"})
    assert response.status_code == 422
    assert Budget.objects.get().limit_nanousd == USD


def test_operators_read_budgets_and_edit_none(account: Account, admin_client: Client) -> None:
    budget = make_budget(account, limit_nanousd=USD)
    page = admin_client.get("/admin/billing/budget/").text
    assert "$1.00" in page
    assert "Whole account" in page
    assert admin_client.get(f"/admin/billing/budget/{budget.pk}/change/").status_code == 200
    assert admin_client.post(f"/admin/billing/budget/{budget.pk}/change/", {}).status_code == 403
