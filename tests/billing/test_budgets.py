"""A key's own spend limit: its periods, and its changes while requests run."""

import datetime as dt

import pytest

from accounts.models import AuditEvent
from billing import budgets
from billing.models import Budget
from tests.factories import now
from tests.invariants import check_books
from tests.usage.desk import Desk
from usage.admission import Admitted

pytestmark = pytest.mark.django_db

WEDNESDAY = dt.date(2026, 12, 30)


@pytest.mark.parametrize(
    ("period", "start", "end"),
    [
        (Budget.Period.DAY, dt.date(2026, 12, 30), dt.date(2026, 12, 31)),
        (Budget.Period.WEEK, dt.date(2026, 12, 28), dt.date(2027, 1, 4)),
        (Budget.Period.MONTH, dt.date(2026, 12, 1), dt.date(2027, 1, 1)),
    ],
)
def test_a_period_begins_and_ends_at_midnight_utc(period: str, start: dt.date, end: dt.date) -> None:
    assert budgets.period_start(period=period, day=WEDNESDAY) == start
    assert budgets.period_end(period=period, day=WEDNESDAY) == dt.datetime.combine(
        end, dt.time(), tzinfo=dt.UTC
    )


def test_a_limit_in_total_never_frees() -> None:
    assert budgets.period_end(period=Budget.Period.TOTAL, day=WEDNESDAY) is None
    early, late = dt.date(2020, 1, 1), dt.date(2090, 1, 1)
    total = Budget.Period.TOTAL
    assert budgets.period_start(period=total, day=early) == budgets.period_start(period=total, day=late)


def test_a_limit_that_is_raised_keeps_what_was_spent() -> None:
    desk = Desk(credit="1")
    budgets.set_key_budget(key=desk.key, period="day", limit_nanousd=1_000_000, actor=None, at=now())
    request = desk.request()
    desk.admit(request)
    desk.end(request, output_tokens=10)

    budgets.set_key_budget(key=desk.key, period="day", limit_nanousd=2_000_000, actor=None, at=now())

    budget = Budget.objects.get()
    assert (budget.limit_nanousd, budget.spent_nanousd) == (2_000_000, 20_000)


def test_a_limit_that_changes_its_period_while_requests_run_stays_exact() -> None:
    desk = Desk(credit="1")
    budgets.set_key_budget(key=desk.key, period="day", limit_nanousd=1_000_000, actor=None, at=now())
    running = desk.request()
    desk.admit(running)

    budgets.clear_key_budget(key=desk.key, actor=None)
    budgets.set_key_budget(key=desk.key, period="total", limit_nanousd=1_000_000, actor=None, at=now())
    budgets.set_key_budget(key=desk.key, period="day", limit_nanousd=1_000_000, actor=None, at=now())

    assert Budget.objects.get().held_nanousd == 300_000
    desk.end(running, output_tokens=10)
    budget = Budget.objects.get()
    assert (budget.held_nanousd, budget.spent_nanousd) == (0, 20_000)
    check_books(idle=True)


def test_a_request_that_began_before_the_limit_does_not_count() -> None:
    desk = Desk(credit="1")
    running = desk.request()
    assert isinstance(desk.admit(running)[0], Admitted)

    budgets.set_key_budget(key=desk.key, period="total", limit_nanousd=1_000_000, actor=None, at=now())
    desk.end(running, output_tokens=10)

    budget = Budget.objects.get()
    assert (budget.held_nanousd, budget.spent_nanousd) == (0, 0)


def test_setting_and_clearing_are_in_the_keys_history_and_clearing_nothing_is_not() -> None:
    desk = Desk()
    budgets.set_key_budget(key=desk.key, period="week", limit_nanousd=5, actor=None, at=now())
    budgets.clear_key_budget(key=desk.key, actor=None)
    budgets.clear_key_budget(key=desk.key, actor=None)

    acts = AuditEvent.objects.filter(subject_type="key", action__contains="budget").values_list(
        "action", flat=True
    )
    assert sorted(acts) == ["key.budget_cleared", "key.budget_set"]
