"""The low-balance e-mail: below the threshold, once until the balance has recovered, to whom it concerns."""

import datetime as dt
import itertools
import smtplib
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.core import mail
from django.db import connection, transaction
from django.db.models import F
from django.test import Client
from time_machine import travel

from accounts.models import Account, AuditEvent, Membership, Plan
from billing import low_balance, owed_mail
from billing.models import BalanceAlert, Wallet
from billing.tasks.low_balance import mail_low_balances
from tests import factories
from tests.billing.test_billing_pages import sign_in
from tests.concurrency import in_parallel

AT = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
USD = 10**9


@pytest.fixture
def account(db: None) -> Account:
    return factories.make_account(plan=Plan.PAY_AS_YOU_GO, credit="10")


def change_balance(account: Account, by_nanousd: int) -> None:
    Wallet.objects.filter(account=account).update(balance_nanousd=F("balance_nanousd") + by_nanousd)


def told() -> list[int]:
    return low_balance.notice(at=AT)


def test_it_is_sent_once_until_the_balance_has_recovered(account: Account) -> None:
    assert told() == []
    change_balance(account, -5 * USD)
    assert told() == []
    change_balance(account, -1)
    assert told() == [account.pk]
    assert told() == []
    change_balance(account, 1)
    assert told() == []
    change_balance(account, -1)
    assert told() == []
    change_balance(account, 2)
    assert told() == []
    change_balance(account, -2)
    assert told() == [account.pk]


def test_the_mail_says_what_is_left_and_where_to_buy(account: Account) -> None:
    admin, member = factories.make_user(), factories.make_user()
    Membership.objects.create(account=account, user=admin, role=Membership.Role.ADMIN)
    Membership.objects.create(account=account, user=member, role=Membership.Role.MEMBER)
    change_balance(account, -8 * USD)
    Wallet.objects.filter(account=account).update(held_nanousd=USD)
    with travel(AT, tick=False):
        mail_low_balances()
        mail_low_balances()
    (message,) = mail.outbox
    assert message.to == [account.members.earliest("pk").email, admin.email]
    assert message.subject == "Your credit is running low"
    assert f"The credit of {account} is below $5.00." in message.body
    assert "Balance: $2.00, of which running requests hold $1.00." in message.body
    assert "/billing/buy/" in message.body
    assert "/billing/alerts/" in message.body


@pytest.mark.parametrize("why", ["basic plan", "suspended", "never had credit", "switched off"])
def test_nobody_is_told_who_has_no_use_for_it(db: None, why: str) -> None:
    plan = Plan.BASIC if why == "basic plan" else Plan.PAY_AS_YOU_GO
    account = factories.make_account(plan=plan, credit="0" if why == "never had credit" else "1")
    Wallet.objects.get_or_create(account=account)
    if why == "suspended":
        Account.objects.filter(pk=account.pk).update(status=Account.Status.SUSPENDED)
    if why == "switched off":
        low_balance.choose(account=account, is_on=False, threshold_nanousd=5 * USD, actor=None, at=AT)
    assert told() == []


def test_another_threshold_is_judged_anew(account: Account) -> None:
    change_balance(account, -6 * USD)
    assert told() == [account.pk]
    low_balance.choose(account=account, is_on=True, threshold_nanousd=5 * USD, actor=None, at=AT)
    assert told() == []
    low_balance.choose(account=account, is_on=True, threshold_nanousd=20 * USD, actor=None, at=AT)
    assert told() == [account.pk]
    low_balance.choose(account=account, is_on=False, threshold_nanousd=20 * USD, actor=None, at=AT)
    low_balance.choose(account=account, is_on=True, threshold_nanousd=20 * USD, actor=None, at=AT)
    assert told() == [account.pk]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("has_chosen", [False, True])
def test_many_workers_tell_once(has_chosen: bool) -> None:
    accounts = [factories.make_account(plan=Plan.PAY_AS_YOU_GO, credit="1") for _ in range(5)]
    for account in accounts if has_chosen else ():
        BalanceAlert.objects.create(account=account)
    claimed = in_parallel(lambda _: told(), times=6)
    assert sorted(itertools.chain(*claimed)) == [account.pk for account in accounts]


@pytest.mark.django_db(transaction=True)
def test_a_worker_that_comes_while_another_claims_finds_nobody_left() -> None:
    account = factories.make_account(plan=Plan.PAY_AS_YOU_GO, credit="1")
    BalanceAlert.objects.create(account=account)

    def come_late() -> list[int]:
        try:
            return told()
        finally:
            connection.close()

    with ThreadPoolExecutor(max_workers=1) as pool:
        with transaction.atomic():
            assert told() == [account.pk]
            late = pool.submit(come_late)
            _wait_until_somebody_waits()
        assert late.result(timeout=10) == []


def _wait_until_somebody_waits() -> None:
    """Until another connection stands before a lock of ours."""
    for _ in range(200):
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
            if cursor.fetchone() != (0,):
                return
        time.sleep(0.05)
    pytest.fail("nobody waits")


def test_a_mail_that_could_not_be_sent_is_tried_again(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_balance(account, -6 * USD)

    def refuse(**_: object) -> None:
        raise smtplib.SMTPServerDisconnected

    with travel(AT, tick=False):
        with monkeypatch.context() as broken:
            broken.setattr("accounts.mailing.send", refuse)
            mail_low_balances()
        mail_low_balances()
    assert mail.outbox == []
    with travel(AT + owed_mail.LEASE, tick=False):
        mail_low_balances()
        mail_low_balances()
    assert len(mail.outbox) == 1


def test_a_worker_that_dies_before_the_mail_leaves_it_owed_unless_the_balance_recovers(
    account: Account,
) -> None:
    change_balance(account, -6 * USD)
    rows = BalanceAlert.objects.all()
    assert told() == [account.pk]
    assert owed_mail.claim(rows=rows, at=AT) is not None
    assert owed_mail.claim(rows=rows, at=AT) is None
    assert owed_mail.claim(rows=rows, at=AT + owed_mail.LEASE) is not None
    change_balance(account, 6 * USD)
    assert told() == []
    assert owed_mail.claim(rows=rows, at=AT + 2 * owed_mail.LEASE) is None


def test_the_page_sets_the_threshold(account: Account) -> None:
    client = sign_in(account)
    page = client.get("/billing/alerts/").text
    assert 'value="5.00"' in page
    assert "checked" in page
    assert "The balance is $10.00 now." in page
    assert client.post("/billing/alerts/", {"is_on": "on", "threshold": "$12.50"}).status_code == 302
    alert = BalanceAlert.objects.get(account=account)
    assert (alert.is_on, alert.threshold_nanousd) == (True, 12_500_000_000)
    assert AuditEvent.objects.get(action="balance_alert.set").actor == account.members.get()
    assert "below $12.50" in client.get("/billing/").text
    client.post("/billing/alerts/", {"threshold": "12.50"})
    assert not BalanceAlert.objects.get(account=account).is_on
    assert "Low-balance e-mail: <strong>off</strong>" in client.get("/billing/").text


@pytest.mark.parametrize("threshold", ["", "0", "-1", "x", "1.005", "99999999999999"])
def test_a_threshold_that_makes_no_sense_is_refused(account: Account, threshold: str) -> None:
    response = sign_in(account).post("/billing/alerts/", {"is_on": "on", "threshold": threshold})
    assert response.status_code == 422
    assert not BalanceAlert.objects.exists()


def test_the_page_is_for_members(account: Account) -> None:
    assert Client().get("/billing/alerts/").status_code == 302
    other = factories.make_account()
    sign_in(other).post("/billing/alerts/", {"is_on": "on", "threshold": "7"})
    assert list(BalanceAlert.objects.values_list("account", flat=True)) == [other.pk]
