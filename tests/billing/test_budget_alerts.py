"""E-mails about budgets: once for each percentage and period, and again after the limit was raised."""

import datetime as dt
import smtplib

import pytest
from django.core import mail
from time_machine import travel

from accounts.models import Account
from billing import budget_alerts, owed_mail
from billing.models import Budget
from billing.tasks.budget_alerts import mail_budget_alerts
from tests import factories
from tests.concurrency import in_parallel
from tests.factories import make_budget

AT = dt.datetime(2026, 3, 18, 12, tzinfo=dt.UTC)
USUAL = [50, 80, 100]


@pytest.fixture
def budget(db: None) -> Budget:
    return make_budget(
        factories.make_account(), limit_nanousd=1_000, period="month", alert_percents=USUAL, at=AT
    )


def spend(budget: Budget, nanousd: int) -> None:
    Budget.objects.filter(pk=budget.pk).update(spent_nanousd=nanousd)


def told(at: dt.datetime = AT) -> list[int]:
    return list(budget_alerts.notice(at=at).values())


def test_each_percentage_is_told_once_in_a_period(budget: Budget) -> None:
    assert told() == []
    spend(budget, 494)
    assert told() == []
    spend(budget, 495)
    assert told() == [50]
    spend(budget, 780)
    assert told() == []
    spend(budget, 1_000)
    assert told() == [100]
    assert told() == []


def test_a_hard_stop_that_ends_just_below_its_limit_has_reached_it(budget: Budget) -> None:
    spend(budget, 995)
    assert told() == [100]


def test_the_next_period_tells_anew_and_a_period_that_is_over_does_not(budget: Budget) -> None:
    spend(budget, 600)
    assert told() == [50]
    april = AT.replace(month=4, day=2)
    spend(budget, 900)
    assert told(april) == []
    Budget.objects.update(period_start=april.date().replace(day=1), spent_nanousd=510)
    assert told(april) == [50]


def test_a_limit_that_was_raised_is_told_of_again(budget: Budget) -> None:
    spend(budget, 850)
    assert told() == [80]
    make_budget(budget.account, limit_nanousd=1_400, period="month", alert_percents=USUAL, at=AT)
    assert told() == []
    spend(budget, 1_130)
    assert told() == [80]


def test_a_change_that_leaves_the_share_as_it_is_tells_nothing_again(budget: Budget) -> None:
    spend(budget, 850)
    assert told() == [80]
    make_budget(budget.account, limit_nanousd=1_000, period="month", alert_percents=[30, *USUAL], at=AT)
    assert told() == []


def test_a_limit_that_was_lowered_below_what_is_spent_is_told_of(budget: Budget) -> None:
    spend(budget, 600)
    assert told() == [50]
    make_budget(budget.account, limit_nanousd=500, period="month", alert_percents=USUAL, at=AT)
    assert told() == [100]


def test_nobody_is_told_of_a_limit_of_zero_or_without_percentages(db: None) -> None:
    account = factories.make_account()
    for period, limit, percents in (("day", 0, USUAL), ("week", 1, [])):
        spend(make_budget(account, limit_nanousd=limit, period=period, alert_percents=percents, at=AT), 9)
    assert told() == []


@pytest.mark.django_db(transaction=True)
def test_one_of_many_workers_tells() -> None:
    spend(make_budget(factories.make_account(), limit_nanousd=10, alert_percents=[50]), 6)
    told_by_each = in_parallel(lambda _: told(factories.now()), times=6)
    assert sorted(map(len, told_by_each)) == [0, 0, 0, 0, 0, 1]


def test_the_mail_says_which_budget_how_much_of_it_and_what_happens(db: None) -> None:
    account: Account = factories.make_account()
    key = factories.make_key(account, name="Nightly").key
    spend(make_budget(key, limit_nanousd=5 * 10**9, period="week", alert_percents=[80], at=AT), 42 * 10**8)
    with travel(AT, tick=False):
        mail_budget_alerts()
        mail_budget_alerts()
    (message,) = mail.outbox
    assert message.to == [account.members.get().email]
    assert message.subject == "84 % of the budget of $5.00 a week is spent"
    for said in (
        "Key Nightly",
        "$4.20",
        "2026-03-23 00:00 UTC",
        "402 key_limit_reached",
        "/billing/budgets/",
    ):
        assert said in message.body, said


def test_a_mail_that_is_refused_is_tried_again(budget: Budget, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise smtplib.SMTPServerDisconnected

    spend(budget, 600)
    with travel(AT, tick=False):
        with monkeypatch.context() as broken:
            broken.setattr("django.core.mail.EmailMessage.send", refuse)
            mail_budget_alerts()
        mail_budget_alerts()
    assert not mail.outbox
    with travel(AT + owed_mail.LEASE, tick=False):
        mail_budget_alerts()
        mail_budget_alerts()
    assert len(mail.outbox) == 1
    assert "80" not in mail.outbox[0].subject


def test_a_budget_that_was_removed_meanwhile_is_told_of_no_more(budget: Budget) -> None:
    spend(budget, 600)
    assert told() == [50]
    budget.delete()
    with travel(AT, tick=False):
        mail_budget_alerts()
    assert not mail.outbox


def test_a_worker_that_dies_before_the_mail_leaves_it_owed_until_its_period_is_over(budget: Budget) -> None:
    spend(budget, 600)
    assert told() == [50]
    rows = Budget.objects.all()
    assert owed_mail.claim(rows=rows, at=AT) == budget
    assert owed_mail.claim(rows=rows, at=AT) is None
    assert owed_mail.claim(rows=rows, at=AT + owed_mail.LEASE) == budget
    with travel(AT.replace(month=4), tick=False):
        mail_budget_alerts()
    assert not mail.outbox
    assert Budget.objects.get().mail_due_at is None
