"""Budgets that are made, changed and removed while requests run, and what the teller makes of them."""

import datetime as dt
from copy import copy
from decimal import Decimal
from importlib import import_module

import pytest
from django.db import connection

from accounts.models import AuditEvent
from billing.models import Budget
from keys.models import ApiKey
from tests.factories import make_budget, make_key, now
from tests.invariants import check_books
from tests.usage.desk import Desk
from tests.usage.watching import watch
from usage import budgeting, rollups, sweeping
from usage.admission import Admitted, BudgetReached

pytestmark = pytest.mark.django_db

USUAL = 300_000  # what a request of the desk holds
DAY = dt.timedelta(days=1)
MIDNIGHT = dt.datetime(2026, 12, 30, tzinfo=dt.UTC)  # a Wednesday
MOMENT = dt.timedelta(seconds=1)


def figures(budget: Budget) -> tuple[int, int]:
    budget.refresh_from_db()
    return budget.spent_nanousd, budget.held_nanousd


def previous(budget: Budget) -> tuple[int, int]:
    budget.refresh_from_db()
    return budget.previous_spent_nanousd, budget.previous_held_nanousd


def test_a_budget_counts_its_period_though_it_was_made_within_it() -> None:
    desk = Desk(credit="1")
    for at in (MIDNIGHT - 40 * DAY, MIDNIGHT - 3 * DAY, MIDNIGHT, MIDNIGHT + MOMENT):
        request = desk.request(at=at)
        desk.admit(request)
        desk.end(request, output_tokens=10)
        if at < MIDNIGHT:
            rollups.roll_up(at=now())
    desk.admit(desk.request(at=MIDNIGHT - MOMENT), desk.request(at=MIDNIGHT + MOMENT))

    made = {
        period: make_budget(desk.account, limit_nanousd=1, period=period, at=MIDNIGHT + MOMENT)
        for period in Budget.Period.values
    }

    assert {period: figures(budget) for period, budget in made.items()} == {
        "day": (40_000, USUAL),
        "week": (40_000, 2 * USUAL),
        "month": (60_000, 2 * USUAL),
        "total": (80_000, 2 * USUAL),
    }
    assert {period: previous(budget) for period, budget in made.items()} == {
        "day": (0, USUAL),
        "week": (20_000, 0),
        "month": (20_000, 0),
        "total": (0, 0),
    }
    check_books()


def test_every_budget_counts_the_requests_of_its_scope_and_no_others() -> None:
    desk = Desk(credit="1")
    stranger = Desk(credit="1")
    production = make_key(desk.account, environment=ApiKey.Environment.PRODUCTION).key
    limit = 10**9
    before = [
        make_budget(desk.account, limit_nanousd=limit),
        make_budget(desk.account, environment="production", limit_nanousd=limit),
        make_budget(desk.account, environment="staging", limit_nanousd=limit),
        make_budget(production, limit_nanousd=limit),
        make_budget(desk.key, limit_nanousd=limit),
        make_budget(stranger.account, limit_nanousd=limit),
    ]
    other = Desk.of(production)
    ended, running = desk.request(), other.request()
    desk.admit(ended, running, stranger.request())
    desk.end(ended, output_tokens=10)

    counted = [figures(budget) for budget in before]
    assert counted == [(20_000, USUAL), (0, USUAL), (0, 0), (0, USUAL), (20_000, 0), (0, USUAL)]
    check_books()
    # And whoever makes the same budgets afterwards counts the same.
    remade = [Budget.objects.get(pk=budget.pk) for budget in before]
    for budget in remade:
        budgeting.remove_budget(budget=budget, actor=None)
    again = [
        make_budget(budget.key or budget.account, environment=budget.environment, limit_nanousd=limit)
        for budget in remade
    ]
    assert [figures(budget) for budget in again] == counted


def test_every_budget_must_have_room_and_the_tightest_is_told() -> None:
    desk = Desk(credit="1")
    make_budget(desk.key, limit_nanousd=3 * USUAL, period="day")
    make_budget(desk.account, environment="development", limit_nanousd=2 * USUAL, period="week")
    make_budget(desk.account, limit_nanousd=4 * USUAL)

    decisions = desk.admit(*[desk.request(at=MIDNIGHT) for _ in range(3)])

    assert [type(decision) for decision in decisions] == [Admitted, Admitted, BudgetReached]
    refused = decisions[-1]
    assert isinstance(refused, BudgetReached)
    assert (refused.scope.environment, refused.limit_nanousd, refused.held_nanousd) == (
        "development",
        2 * USUAL,
        2 * USUAL,
    )
    assert refused.resets_at == dt.datetime(2027, 1, 4, tzinfo=dt.UTC)


def test_several_periods_of_one_scope_each_count() -> None:
    desk = Desk(credit="1")
    make_budget(desk.account, limit_nanousd=USUAL, period="day")
    make_budget(desk.account, limit_nanousd=USUAL + 100_000, period="total")
    first = desk.request(at=MIDNIGHT)
    desk.admit(first)
    desk.end(first, output_tokens=100)

    (today,) = desk.admit(desk.request(at=MIDNIGHT))
    (tomorrow,) = desk.admit(desk.request(at=MIDNIGHT + DAY, output_limit=None))

    assert isinstance(today, BudgetReached)
    assert today.period == "day"
    assert tomorrow == Admitted(output_limit=50, held_nanousd=200_000)


def test_a_budget_that_only_alerts_counts_and_stops_nothing() -> None:
    desk = Desk(credit="1")
    budget = make_budget(desk.key, limit_nanousd=0, is_hard_stop=False)

    (decision,) = desk.admit(desk.request())

    assert isinstance(decision, Admitted)
    assert figures(budget) == (0, USUAL)


def test_around_midnight_each_request_counts_in_the_day_it_started() -> None:
    desk = Desk(credit="1")
    budget = make_budget(desk.key, limit_nanousd=2 * USUAL, period="day", at=MIDNIGHT - DAY)
    early, late = desk.request(at=MIDNIGHT - MOMENT), desk.request(at=MIDNIGHT)
    overtaken, refused = desk.request(at=MIDNIGHT - MOMENT), desk.request(at=MIDNIGHT - MOMENT)

    # The one of the new day is admitted between two of the old one.
    decisions = [desk.admit(request)[0] for request in (early, late, overtaken, refused)]

    assert [type(decision) for decision in decisions] == [Admitted, Admitted, Admitted, BudgetReached]
    assert isinstance(decisions[-1], BudgetReached)
    assert decisions[-1].resets_at == MIDNIGHT
    assert (figures(budget), previous(budget)) == ((0, USUAL), (0, 2 * USUAL))
    for request in (overtaken, late, early):
        desk.end(request, output_tokens=10)
    assert (figures(budget), previous(budget)) == ((20_000, 0), (40_000, 0))
    check_books(idle=True)


def test_a_request_that_ends_days_later_changes_no_later_period() -> None:
    desk = Desk(credit="1")
    budget = make_budget(desk.key, limit_nanousd=USUAL, period="day", at=MIDNIGHT)
    late, today = desk.request(at=MIDNIGHT), desk.request(at=MIDNIGHT + 2 * DAY)
    assert all(isinstance(decision, Admitted) for decision in desk.admit(late, today))

    desk.end(late, output_tokens=10)

    assert (figures(budget), previous(budget)) == ((0, USUAL), (0, 0))
    check_books()


def test_a_limit_that_is_raised_keeps_what_was_spent() -> None:
    desk = Desk(credit="1")
    budget = make_budget(desk.key, limit_nanousd=USUAL, period="day")
    request = desk.request()
    desk.admit(request)
    desk.end(request, output_tokens=10)
    assert isinstance(desk.admit(desk.request())[0], BudgetReached)

    make_budget(desk.key, limit_nanousd=2 * USUAL, period="day")

    assert figures(budget) == (20_000, 0)
    assert isinstance(desk.admit(desk.request())[0], Admitted)


def test_a_budget_that_is_removed_and_made_again_while_requests_run_stays_exact() -> None:
    desk = Desk(credit="1")
    budget = make_budget(desk.key, limit_nanousd=10**9, period="day")
    ending, running = desk.request(), desk.request()
    desk.admit(ending, running)

    budgeting.remove_budget(budget=budget, actor=None)
    desk.end(ending, output_tokens=10)
    budget = make_budget(desk.key, limit_nanousd=10**9, period="day")

    assert figures(budget) == (20_000, USUAL)
    desk.end(running, output_tokens=10)
    assert figures(budget) == (40_000, 0)
    check_books(idle=True)


def test_a_settlement_that_is_told_twice_is_counted_once() -> None:
    desk = Desk(credit="1")
    budget = make_budget(desk.account, limit_nanousd=10**9)
    request = desk.request()
    desk.admit(request)

    assert [desk.end(request, output_tokens=10) for _ in range(2)] == [True, False]

    assert figures(budget) == (20_000, 0)


def test_what_the_sweeper_releases_is_held_no_longer() -> None:
    desk = Desk(credit="1")
    budget = make_budget(desk.account, environment="development", limit_nanousd=10**9)
    desk.admit(desk.request(at=now() - dt.timedelta(minutes=5)))
    assert figures(budget) == (0, USUAL)
    watch()

    assert sweeping.sweep(at=now(), grace=dt.timedelta(0)) == 1

    assert figures(budget) == (0, 0)
    check_books(idle=True)


def test_what_an_allowance_pays_counts_in_no_budget() -> None:
    desk = Desk(credit="1")
    budget = make_budget(desk.account, limit_nanousd=0)
    request = desk.request(draws_allowance=True)

    assert isinstance(desk.admit(request)[0], Admitted)
    desk.end(request, output_tokens=10)

    assert figures(budget) == (0, 0)


def test_setting_and_removing_are_in_the_history_and_removing_nothing_is_not() -> None:
    desk = Desk()
    of_key = make_budget(desk.key, limit_nanousd=5, period="week")
    of_environment = make_budget(desk.account, environment="staging", limit_nanousd=5)
    for budget in (of_key, of_key, of_environment):
        budgeting.remove_budget(budget=copy(budget), actor=None)

    acts = AuditEvent.objects.filter(action__contains="budget").order_by("pk")
    assert [(act.action, act.subject_id, act.detail.get("environment")) for act in acts] == [
        ("key.budget_set", str(desk.key.pk), None),
        ("account.budget_set", str(desk.account.pk), "staging"),
        ("key.budget_cleared", str(desk.key.pk), None),
        ("account.budget_cleared", str(desk.account.pk), "staging"),
    ]
    assert Decimal(acts[0].detail["limit_usd"]) == Decimal("0.000000005")
    assert not Budget.objects.exists()


def test_the_migration_counts_the_budgets_there_were_as_a_new_one_counts() -> None:
    desk = Desk(credit="1")
    for days in (0, 1, 3, 8, 40):
        ended, running = (desk.request(at=now() - days * DAY) for _ in range(2))
        desk.admit(ended, running)
        desk.end(ended, output_tokens=10 + days)
        if days > 1:
            rollups.roll_up(at=now())
    made = [make_budget(desk.key, limit_nanousd=1, period=period) for period in Budget.Period.values]
    Budget.objects.update(spent_nanousd=1, held_nanousd=1, previous_spent_nanousd=1, previous_held_nanousd=1)

    with connection.cursor() as cursor:
        cursor.execute(import_module("usage.migrations.0006_budgets_of_any_scope").COUNT)

    check_books()
    counted = [(figures(budget), previous(budget)) for budget in made]
    assert counted[0][0] == (sum(10 + days for days in (0, 1, 3, 8, 40)) * 2_000, 5 * USUAL)
    assert counted[1] == ((20_000, USUAL), (22_000, USUAL))
