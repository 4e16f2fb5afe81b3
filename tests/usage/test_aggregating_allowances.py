"""The share of the day's allowance, and one e-mail at 80 % and one at 100 %."""

import datetime as dt
import smtplib
import threading
from decimal import Decimal
from typing import Any

import pytest
import time_machine
from django.core import mail
from django.db import connection, transaction

from accounts.models import Account, Membership, Plan
from billing import owed_mail
from tests import factories
from tests.concurrency import in_parallel
from usage import alerting, allowances, tasks
from usage.models import DailyAllowance

AT = dt.datetime(2026, 3, 4, 15, 30, tzinfo=dt.UTC)
TODAY = AT.date()


def draw(account: Account, *, tokens: int = 0, requests: int = 0, day: dt.date = TODAY) -> DailyAllowance:
    drawn, _ = DailyAllowance.objects.update_or_create(
        account=account, day=day, defaults={"tokens": tokens, "requests": requests}
    )
    return drawn


def owing() -> list[DailyAllowance]:
    """Those who owe an e-mail, in order."""
    return list(allowances.of_today(at=AT).exclude(mail_due_at=None).order_by("pk"))


def share(drawn: DailyAllowance) -> Decimal:
    drawn.refresh_from_db()
    return drawn.share


@pytest.mark.django_db
def test_the_share_is_of_the_tighter_limit() -> None:
    by_tokens = draw(factories.make_account(), tokens=50_000, requests=1)
    by_requests = draw(factories.make_account(), tokens=50_000, requests=3_600)
    allowances.aggregate(at=AT)
    assert (share(by_tokens), share(by_requests)) == (Decimal("0.25"), Decimal("0.5"))


@pytest.mark.django_db
def test_a_share_is_never_rounded_up_to_all() -> None:
    drawn = draw(factories.make_account(), tokens=199_999)
    allowances.aggregate(at=AT)
    assert share(drawn) == Decimal("0.9999")
    assert (drawn.warned_at, drawn.exhausted_at) == (AT, None)
    assert owing() == [drawn]


def aggregate_and_mail() -> None:
    """Both ticks, one after the other."""
    tasks.aggregate_allowances()
    tasks.mail_allowances()


@pytest.mark.django_db
def test_a_plan_without_an_allowance_has_no_share() -> None:
    account = factories.make_account()
    Plan.objects.filter(pk=account.plan_id).update(tokens_per_day=0, requests_per_day=0)
    drawn = draw(account, tokens=10, requests=3)
    allowances.aggregate(at=AT)
    assert share(drawn) == 0
    assert owing() == []


@pytest.mark.django_db
@time_machine.travel(AT, tick=False)
def test_one_mail_at_80_percent_and_one_at_100_percent() -> None:
    account = factories.make_account(user=factories.make_user("owner@example.com"))
    admin, member = factories.make_user("admin@example.com"), factories.make_user("member@example.com")
    Membership.objects.create(account=account, user=admin, role=Membership.Role.ADMIN)
    Membership.objects.create(account=account, user=member, role=Membership.Role.MEMBER)
    for tokens in (159_999, 160_000, 180_000, 200_000, 200_100):
        draw(account, tokens=tokens, requests=12)
        aggregate_and_mail()
        aggregate_and_mail()

    warning, exhausted = mail.outbox
    assert warning.subject == "80 % of your daily allowance is used"
    assert "160,000 of 200,000 tokens, 12 of 7,200 requests" in warning.body
    assert "frees again at 2026-03-05 00:00 UTC" in warning.body
    assert exhausted.subject == "Your daily allowance is used up"
    assert "/billing/buy/" in exhausted.body
    assert exhausted.to == ["owner@example.com", "admin@example.com"]


@pytest.mark.django_db
@time_machine.travel(AT, tick=False)
def test_a_jump_past_both_marks_is_one_mail() -> None:
    draw(factories.make_account(), tokens=250_000)
    aggregate_and_mail()
    draw(DailyAllowance.objects.get().account, tokens=250_001)
    aggregate_and_mail()
    assert [message.subject for message in mail.outbox] == ["Your daily allowance is used up"]


@pytest.mark.django_db
def test_yesterday_is_brought_to_its_end_without_a_mail() -> None:
    drawn = draw(factories.make_account(), tokens=200_000, day=TODAY - dt.timedelta(days=1))
    allowances.aggregate(at=AT)
    assert share(drawn) == 1
    assert drawn.mail_due_at is None


@pytest.mark.django_db
def test_a_mail_that_the_server_refuses_is_sent_after_its_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    draw(factories.make_account(), tokens=200_000)

    def refuse(**_: Any) -> None:
        raise smtplib.SMTPServerDisconnected

    with time_machine.travel(AT, tick=False), monkeypatch.context() as patch:
        patch.setattr(alerting, "mail_allowance", refuse)
        aggregate_and_mail()
    with time_machine.travel(AT + owed_mail.LEASE / 2, tick=False):
        aggregate_and_mail()
    assert mail.outbox == []
    for _ in range(2):
        with time_machine.travel(AT + owed_mail.LEASE, tick=False):
            aggregate_and_mail()
    assert len(mail.outbox) == 1


@pytest.mark.django_db
def test_a_worker_killed_between_the_mark_and_the_mail_leaves_it_owed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    draw(factories.make_account(), tokens=170_000)

    def die(**_: Any) -> None:
        raise KeyboardInterrupt

    with time_machine.travel(AT, tick=False), monkeypatch.context() as patch:
        patch.setattr(alerting, "mail_allowance", die)
        with pytest.raises(KeyboardInterrupt):
            aggregate_and_mail()
    with time_machine.travel(AT + owed_mail.LEASE, tick=False):
        aggregate_and_mail()
    assert [message.subject for message in mail.outbox] == ["85 % of your daily allowance is used"]


@pytest.mark.django_db
def test_nobody_is_told_late_about_a_day_that_is_over() -> None:
    draw(factories.make_account(), tokens=200_000)
    allowances.aggregate(at=AT)
    with time_machine.travel(AT + dt.timedelta(days=1), tick=False):
        aggregate_and_mail()
    assert mail.outbox == []


@pytest.mark.django_db
@pytest.mark.parametrize("tokens", [170_000, 200_000])
def test_a_worker_that_read_before_another_marked_marks_nothing(
    monkeypatch: pytest.MonkeyPatch, tokens: int
) -> None:
    drawn = draw(factories.make_account(), tokens=tokens)
    with time_machine.travel(AT, tick=False):
        aggregate_and_mail()
    monkeypatch.setattr(allowances, "_near", lambda _today: [drawn.pk])
    monkeypatch.setattr(allowances, "_exhausted", lambda _today: [drawn.pk] if tokens == 200_000 else [])
    allowances.aggregate(at=AT)
    assert owing() == []
    assert len(mail.outbox) == 1


@pytest.mark.django_db(transaction=True)
def test_two_workers_send_each_mail_once() -> None:
    for _ in range(6):
        draw(factories.make_account(), tokens=170_000)
    with time_machine.travel(AT, tick=False):
        in_parallel(lambda _number: aggregate_and_mail(), times=4)
        aggregate_and_mail()
    assert len(mail.outbox) == 6
    assert owing() == []


@pytest.mark.django_db(transaction=True)
def test_a_row_that_an_admission_has_locked_is_left_for_the_next_run() -> None:
    busy, idle = (draw(factories.make_account(), tokens=100_000) for _ in range(2))

    def aggregate() -> None:
        allowances.aggregate(at=AT)
        connection.close()

    with transaction.atomic():
        DailyAllowance.objects.select_for_update().get(pk=busy.pk)
        worker = threading.Thread(target=aggregate)
        worker.start()
        worker.join(timeout=10)
        assert not worker.is_alive()
    assert share(busy) == 0
    assert share(idle) == Decimal("0.5")
    allowances.aggregate(at=AT)
    assert share(busy) == Decimal("0.5")
