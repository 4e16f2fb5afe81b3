"""The end of promotional credit: exactly what is left and free, once, and told of before."""

import datetime as dt
import smtplib

import pytest
from django.core import mail
from django.test import Client
from pytest_django import Settings
from time_machine import travel

from accounts.models import Account, AuditEvent, User
from billing import expiring, owed_mail, promotions, tasks
from billing.models import LedgerTransaction, PromotionalCredit, Wallet
from tests import factories
from tests.billing.test_billing_pages import sign_in
from tests.billing.test_promotions import AT, DAY, USD, buy, charge, give
from tests.concurrency import in_parallel
from tests.invariants import check_books
from tests.usage.desk import Desk
from usage.admission import Admitted


@pytest.fixture
def account(db: None) -> Account:
    return factories.make_account()


def balance(account: Account) -> int:
    return Wallet.objects.get(account=account).balance_nanousd


def test_what_is_left_expires_once_with_its_entry_in_the_ledger(account: Account) -> None:
    give(account, 5, days=2)
    give(account, 7, days=9)
    give(account, 9)
    charge(factories.make_key(account).key, 3)
    assert expiring.expire_due(at=AT + 2 * DAY - dt.timedelta(seconds=1)) == 0
    assert expiring.expire_due(at=AT + 2 * DAY) == 2
    assert expiring.expire_due(at=AT + 3 * DAY) == 0
    assert balance(account) == 16
    lot = PromotionalCredit.objects.get(amount_nanousd=5)
    assert (lot.remaining_nanousd, lot.expired_nanousd, lot.closed_at) == (0, 2, AT + 2 * DAY)
    posted = LedgerTransaction.objects.get(kind="expiry")
    assert posted.reference == f"expiry:{lot.pk}:0"
    legs = posted.postings.values_list("ledger_account__kind", "amount_nanousd")
    assert sorted(legs) == [("customer_credits", -2), ("promotions", 2)]
    event = AuditEvent.objects.get(action="credit.expired")
    assert (event.account, event.subject_id) == (account, str(lot.pk))
    assert event.detail == {"amount_usd": "0.000000002", "reason": "2 days"}
    check_books()


def test_credit_that_was_spent_does_not_expire(account: Account) -> None:
    give(account, 5, days=2)
    buy(account, 5 * USD)
    charge(factories.make_key(account).key, 6)
    assert expiring.expire_due(at=AT + 3 * DAY) == 0
    assert balance(account) == 5 * USD - 1
    assert not LedgerTransaction.objects.filter(kind="expiry").exists()
    check_books()


@pytest.mark.django_db
def test_what_a_running_request_holds_expires_when_that_is_over() -> None:
    desk = Desk()
    give(desk.account, 1_000_000, days=2)
    request = desk.request(input_bytes=100, output_limit=300)
    (admitted,) = desk.admit(request)
    assert isinstance(admitted, Admitted)
    assert admitted.held_nanousd == 700_000
    assert expiring.expire_due(at=AT + 2 * DAY) == 300_000
    assert expiring.expire_due(at=AT + 2 * DAY) == 0
    desk.end(request, input_tokens=100, output_tokens=50)
    assert expiring.expire_due(at=AT + 2 * DAY) == 500_000
    lot = PromotionalCredit.objects.get()
    references = LedgerTransaction.objects.filter(kind="expiry").order_by("id")
    assert [posted.reference for posted in references] == [f"expiry:{lot.pk}:0", f"expiry:{lot.pk}:1"]
    assert (lot.expired_nanousd, balance(desk.account)) == (800_000, 0)
    check_books(idle=True)


@pytest.mark.django_db(transaction=True)
def test_expiring_beside_spending_takes_back_exactly_what_was_not_spent() -> None:
    desk = Desk()
    give(desk.account, 5_000_000, days=2)
    buy(desk.account, 5 * USD)
    requests = [desk.request() for _ in range(8)]

    def act(number: int) -> int:
        if number >= len(requests):
            return expiring.expire_due(at=AT + 2 * DAY)
        desk.admit(requests[number])
        desk.end(requests[number], input_tokens=100, output_tokens=50)
        return 0

    expired = sum(in_parallel(act, times=12)) + expiring.expire_due(at=AT + 2 * DAY)
    assert promotions.standing(account_id=desk.account.pk).promotional_nanousd == 0
    charged = 8 * (100 * 1_000 + 50 * 2_000)
    assert balance(desk.account) == 5 * USD + 5_000_000 - charged - expired
    assert expired >= 5_000_000 - charged
    assert PromotionalCredit.objects.get().expired_nanousd == expired
    assert AuditEvent.objects.filter(action="credit.expired").count() in range(1, 9)
    check_books(idle=True)


def test_members_are_told_once_before_their_credit_expires(account: Account) -> None:
    give(account, 5 * USD, days=8)
    give(account, 2 * USD, days=3)
    give(account, USD)
    with travel(AT, tick=False):
        tasks.promotions.notice_expiring_promotions()
        tasks.promotions.notice_expiring_promotions()
    (message,) = mail.outbox
    assert message.to == [account.members.get().email]
    assert message.subject == "Some of your credit expires soon"
    assert "$2.00, on 2026-03-04 12:00 UTC: 3 days" in message.body
    assert "8 days" not in message.body
    with travel(AT + DAY, tick=False):
        tasks.promotions.notice_expiring_promotions()
    assert "$5.00, on 2026-03-09 12:00 UTC: 8 days" in mail.outbox[1].body
    assert len(mail.outbox) == 2


def test_nobody_is_told_of_credit_that_is_spent(account: Account) -> None:
    give(account, 5, days=3)
    charge(factories.make_key(account).key, 5)
    assert expiring.notice(at=AT) == 0


def test_the_operator_sets_how_long_before(account: Account, settings: Settings) -> None:
    give(account, 5, days=3)
    settings.PROMOTION_NOTICE_DAYS = 2
    assert expiring.notice(at=AT) == 0
    settings.PROMOTION_NOTICE_DAYS = 3
    assert expiring.notice(at=AT) == 1
    notice = expiring.claim_notice(at=AT)
    assert notice is not None
    assert [lot.left_nanousd for lot in notice.lots] == [5]


@pytest.mark.django_db(transaction=True)
def test_many_workers_tell_once() -> None:
    give(factories.make_account(), 5, days=3)
    assert sum(in_parallel(lambda _: expiring.notice(at=AT), times=6)) == 1
    claimed = in_parallel(lambda _: expiring.claim_notice(at=AT), times=6)
    assert sum(notice is not None for notice in claimed) == 1


def test_a_notice_that_could_not_be_sent_is_tried_again(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    give(account, 5, days=3)

    def refuse(**_: object) -> None:
        raise smtplib.SMTPServerDisconnected

    with travel(AT, tick=False):
        with monkeypatch.context() as broken:
            broken.setattr("accounts.mailing.send", refuse)
            tasks.promotions.notice_expiring_promotions()
        tasks.promotions.notice_expiring_promotions()
    assert mail.outbox == []
    with travel(AT + owed_mail.LEASE, tick=False):
        tasks.promotions.notice_expiring_promotions()
        tasks.promotions.notice_expiring_promotions()
    assert len(mail.outbox) == 1


def test_a_worker_that_dies_before_the_mail_leaves_it_owed_as_long_as_anything_is_left(
    account: Account,
) -> None:
    give(account, 5, days=3)
    expiring.notice(at=AT)
    assert expiring.claim_notice(at=AT) is not None
    assert expiring.claim_notice(at=AT) is None
    assert expiring.claim_notice(at=AT + owed_mail.LEASE) is not None
    charge(factories.make_key(account).key, 5)
    with travel(AT + 2 * owed_mail.LEASE, tick=False):
        tasks.promotions.notice_expiring_promotions()
    assert mail.outbox == []
    assert PromotionalCredit.objects.get().mail_due_at is None


def test_the_task_takes_back_what_is_due(account: Account) -> None:
    give(account, 5, days=3)
    with travel(AT + 3 * DAY, tick=False):
        tasks.promotions.expire_promotions()
    assert balance(account) == 0


def test_the_billing_page_says_what_expires_when(account: Account) -> None:
    assert "Promotional credit" not in sign_in(account).get("/billing/").text
    buy(account, 5 * USD)
    give(account, 2 * USD, days=3)
    give(account, USD)
    page = sign_in(account).get("/billing/").text
    assert "$3.00 of your balance was granted, $5.00 was paid for." in page
    assert "2026-03-04 12:00 UTC" in page
    expiring.expire_due(at=AT + 3 * DAY)
    page = sign_in(account).get("/billing/").text
    assert "2026-03-04 12:00 UTC" in page.partition("Ledger")[2]
    assert "Granted credit expired: 3 days" in page


TOKEN = "6b0c6a3e-3f0c-4a8b-9a51-0f3f2d9b8a11"


@pytest.fixture
def operator(db: None) -> Client:
    client = Client()
    client.force_login(factories.make_user(is_staff=True, is_superuser=True))
    return client


@pytest.mark.parametrize(
    ("last_day", "expires_at"),
    [
        ("", None),
        ("2026-03-01", dt.datetime(2026, 3, 2, tzinfo=dt.UTC)),
        ("2026-03-31", dt.datetime(2026, 4, 1, tzinfo=dt.UTC)),
    ],
)
def test_an_operator_grants_credit_until_the_end_of_a_day(
    account: Account, operator: Client, last_day: str, expires_at: dt.datetime | None
) -> None:
    with travel(AT, tick=False):
        operator.post(
            f"/admin/billing/wallet/{account.pk}/grant/",
            {"amount": "5", "reason": "welcome", "token": TOKEN, "last_day": last_day, "confirmed": "yes"},
        )
    lot = PromotionalCredit.objects.get()
    assert lot.granted_by == User.objects.get(is_staff=True)
    assert lot.expires_at == expires_at


def test_an_operator_reads_what_is_left_of_a_lot(account: Account, operator: Client) -> None:
    give(account, 5 * USD)
    charge(factories.make_key(account).key, USD)
    lot = PromotionalCredit.objects.get()
    page = operator.get(f"/admin/billing/promotionalcredit/{lot.pk}/change/").text
    assert "$5.00" in page
    assert "$4.00" in page
    assert operator.get("/admin/billing/promotionalcredit/").status_code == 200


@pytest.mark.parametrize("last_day", ["2026-02-28", "9999-12-31", "soon"])
def test_a_last_day_that_makes_no_sense_is_refused(account: Account, operator: Client, last_day: str) -> None:
    with travel(AT, tick=False):
        response = operator.post(
            f"/admin/billing/wallet/{account.pk}/grant/",
            {"amount": "5", "reason": "welcome", "token": TOKEN, "last_day": last_day, "confirmed": "yes"},
        )
    assert "errorlist" in response.text
    assert not PromotionalCredit.objects.exists()


def test_credit_that_expires_on_several_days_is_one_mail(account: Account) -> None:
    give(account, 2 * USD, days=3)
    give(account, 4 * USD, days=5)
    with travel(AT, tick=False):
        tasks.promotions.notice_expiring_promotions()
    (message,) = mail.outbox
    assert "$2.00, on 2026-03-04" in message.body
    assert "$4.00, on 2026-03-06" in message.body
