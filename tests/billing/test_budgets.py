"""Periods: when they begin and end, and which two of them a budget knows."""

import datetime as dt

import pytest

from billing import budgets
from billing.budgets import BudgetState, Counted, Scope
from billing.models import Budget
from tests import factories

WEDNESDAY = dt.date(2026, 12, 30)


@pytest.mark.parametrize(
    ("period", "before", "start", "end"),
    [
        (Budget.Period.DAY, dt.date(2026, 12, 29), dt.date(2026, 12, 30), dt.date(2026, 12, 31)),
        (Budget.Period.WEEK, dt.date(2026, 12, 21), dt.date(2026, 12, 28), dt.date(2027, 1, 4)),
        (Budget.Period.MONTH, dt.date(2026, 11, 1), dt.date(2026, 12, 1), dt.date(2027, 1, 1)),
    ],
)
def test_a_period_begins_and_ends_at_midnight_utc(
    period: str, before: dt.date, start: dt.date, end: dt.date
) -> None:
    assert budgets.period_start(period=period, day=WEDNESDAY) == start
    assert budgets.previous_start(period=period, start=start) == before
    assert budgets.period_end(period=period, day=WEDNESDAY) == budgets.midnight(end)


def test_a_limit_in_total_never_frees() -> None:
    total = Budget.Period.TOTAL
    assert budgets.period_end(period=total, day=WEDNESDAY) is None
    early, late = dt.date(2020, 1, 1), dt.date(2090, 1, 1)
    start = budgets.period_start(period=total, day=early)
    assert start == budgets.period_start(period=total, day=late)
    assert budgets.previous_start(period=total, start=start) is None


def test_a_moment_is_of_its_utc_day() -> None:
    tokyo = dt.timezone(dt.timedelta(hours=9))
    assert budgets.day_of(dt.datetime(2026, 12, 30, 8, 59, tzinfo=tokyo)) == dt.date(2026, 12, 29)


def state() -> BudgetState:
    return BudgetState(
        id=1,
        scope=Scope(1),
        period=Budget.Period.DAY,
        limit_nanousd=100,
        is_hard_stop=True,
        period_start=WEDNESDAY,
        running=Counted(spent_nanousd=60, held_nanousd=30),
    )


def test_the_period_that_has_just_ended_is_still_counted() -> None:
    budget, thursday = state(), WEDNESDAY + dt.timedelta(days=1)

    budget.turn_to(thursday)
    budget.change(WEDNESDAY, held_nanousd=-30, spent_nanousd=20)
    budget.change(thursday, held_nanousd=5)

    assert (budget.running, budget.previous) == (Counted(0, 5), Counted(80, 0))
    assert (budget.remaining_nanousd(WEDNESDAY), budget.remaining_nanousd(thursday)) == (20, 95)


def test_a_clock_that_is_behind_turns_nothing_back() -> None:
    budget = state()

    budget.turn_to(WEDNESDAY - dt.timedelta(days=1))

    assert (budget.period_start, budget.running, budget.is_changed) == (WEDNESDAY, Counted(60, 30), False)


def test_what_is_older_than_the_period_before_is_not_counted_any_more() -> None:
    budget = state()

    budget.turn_to(WEDNESDAY + dt.timedelta(days=2))
    budget.change(WEDNESDAY, held_nanousd=-30, spent_nanousd=20)

    assert (budget.running, budget.previous) == (Counted(), Counted())


@pytest.mark.django_db
def test_of_a_keys_budgets_the_one_that_leaves_the_least_comes_first() -> None:
    account = factories.make_account(credit="9")
    key = factories.make_key(account, environment="production").key
    day = dt.date(2026, 3, 4)
    of_account = factories.make_budget(account, limit_nanousd=8 * 10**9)
    of_environment = factories.make_budget(account, limit_nanousd=2 * 10**9, environment="production")
    of_key = factories.make_budget(key, limit_nanousd=5 * 10**9)
    factories.make_budget(account, limit_nanousd=1 * 10**9, environment="staging")
    states = budgets.of_key(account_id=account.pk, environment="production", key_id=key.pk, day=day)
    assert [state.id for state in states] == [of_environment.pk, of_key.pk, of_account.pk]
    scopes = [Scope.of(budget) for budget in (of_environment, of_key, of_account)]
    assert [scope.kind for scope in scopes] == ["environment", "key", "account"]
