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
from tests import factories
from usage import alerting, allowances, tasks
from usage.models import DailyAllowance

AT = dt.datetime(2026, 3, 4, 15, 30, tzinfo=dt.UTC)
TODAY = AT.date()


def draw(account: Account, *, tokens: int = 0, requests: int = 0, day: dt.date = TODAY) -> DailyAllowance:
    drawn, _ = DailyAllowance.objects.update_or_create(
        account=account, day=day, defaults={"tokens": tokens, "requests": requests}
    )
    return drawn


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
    assert [notice.level for notice in allowances.aggregate(at=AT)] == ["warned"]
    assert share(drawn) == Decimal("0.9999")


@pytest.mark.django_db
def test_a_plan_without_an_allowance_has_no_share() -> None:
    account = factories.make_account()
    Plan.objects.filter(pk=account.plan_id).update(tokens_per_day=0, requests_per_day=0)
    drawn = draw(account, tokens=10, requests=3)
    assert allowances.aggregate(at=AT) == []
    assert share(drawn) == 0


@pytest.mark.django_db
@time_machine.travel(AT, tick=False)
def test_one_mail_at_80_percent_and_one_at_100_percent() -> None:
    account = factories.make_account(user=factories.make_user("owner@example.com"))
    admin, member = factories.make_user("admin@example.com"), factories.make_user("member@example.com")
    Membership.objects.create(account=account, user=admin, role=Membership.Role.ADMIN)
    Membership.objects.create(account=account, user=member, role=Membership.Role.MEMBER)
    for tokens in (159_999, 160_000, 180_000, 200_000, 200_100):
        draw(account, tokens=tokens, requests=12)
        tasks.aggregate_allowances()
        tasks.aggregate_allowances()

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
    tasks.aggregate_allowances()
    draw(DailyAllowance.objects.get().account, tokens=250_001)
    tasks.aggregate_allowances()
    assert [message.subject for message in mail.outbox] == ["Your daily allowance is used up"]


@pytest.mark.django_db
def test_yesterday_is_brought_to_its_end_without_a_mail() -> None:
    drawn = draw(factories.make_account(), tokens=200_000, day=TODAY - dt.timedelta(days=1))
    assert allowances.aggregate(at=AT) == []
    assert share(drawn) == 1


@pytest.mark.django_db
@time_machine.travel(AT, tick=False)
def test_a_mail_that_the_server_refuses_is_sent_by_the_next_run(monkeypatch: pytest.MonkeyPatch) -> None:
    draw(factories.make_account(), tokens=200_000)

    def refuse(**_: Any) -> None:
        raise smtplib.SMTPServerDisconnected

    with monkeypatch.context() as patch:
        patch.setattr(alerting, "mail_allowance", refuse)
        tasks.aggregate_allowances()
    assert mail.outbox == []
    tasks.aggregate_allowances()
    assert len(mail.outbox) == 1


@pytest.mark.django_db
@pytest.mark.parametrize("tokens", [170_000, 200_000])
def test_a_worker_that_read_before_another_claimed_claims_nothing(
    monkeypatch: pytest.MonkeyPatch, tokens: int
) -> None:
    drawn = draw(factories.make_account(), tokens=tokens)
    assert len(allowances.aggregate(at=AT)) == 1
    monkeypatch.setattr(allowances, "_near", lambda _today: [drawn.pk])
    monkeypatch.setattr(allowances, "_exhausted", lambda _today: [drawn.pk] if tokens == 200_000 else [])
    assert allowances.aggregate(at=AT) == []


@pytest.mark.django_db(transaction=True)
def test_two_workers_claim_each_mail_once() -> None:
    for _ in range(6):
        draw(factories.make_account(), tokens=170_000)
    barrier = threading.Barrier(4)
    claimed: list[allowances.Notice] = []

    def work() -> None:
        barrier.wait()
        claimed.extend(allowances.aggregate(at=AT))
        connection.close()

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=20)
    claimed.extend(allowances.aggregate(at=AT))
    assert sorted(notice.allowance_id for notice in claimed) == sorted(
        DailyAllowance.objects.values_list("pk", flat=True)
    )


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
