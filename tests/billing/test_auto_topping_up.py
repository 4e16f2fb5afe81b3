"""Auto top-up: what is bought when, and what stops it."""

import datetime as dt
from decimal import Decimal

import pytest
from django.core import mail
from django.db import IntegrityError, transaction
from pytest_django import Settings
from time_machine import travel

from accounts.models import Account, AuditEvent, Plan
from billing import auto_topping_up, owed_mail, payment_methods, topping_up
from billing.models import AutoTopUp, TopUp, Wallet
from billing.providers.sandbox import CARD, DECLINED_CARD
from billing.tasks.auto_topups import mail_auto_topups
from tests import factories
from tests.billing.saved_cards import AT, USD, agree, balance, make_account, outcomes, save, spend
from tests.invariants import check_books

MINUTE = dt.timedelta(minutes=1)


@pytest.fixture
def account(db: None) -> Account:
    return make_account()


def run(account: Account, at: dt.datetime = AT) -> TopUp | None:
    """What the sweep does for the account."""
    return auto_topping_up.run(account_id=account.pk, at=at) if is_due(account, at) else None


def is_due(account: Account, at: dt.datetime = AT) -> bool:
    return account.pk in auto_topping_up.due(at=at)


def test_credit_below_the_threshold_buys_the_amount_once(account: Account) -> None:
    method = save(account)
    agree(account, method)
    topup = run(account)
    assert topup is not None
    topup.refresh_from_db()
    assert (topup.status, topup.origin, topup.method) == ("paid", "automatic", method)
    assert (topup.credit_nanousd, topup.fee_nanousd, topup.total_nanousd) == (20 * USD, 5 * USD, 25 * USD)
    assert topup.created_by == account.members.get()
    assert balance(account) == 29 * USD
    assert not is_due(account)
    assert auto_topping_up.run(account_id=account.pk, at=AT) is None
    started = AuditEvent.objects.get(action="topup.started")
    assert started.detail["origin"] == "automatic"
    check_books(idle=True)


def test_credit_at_the_threshold_buys_nothing(db: None) -> None:
    account = make_account(credit="10")
    agree(account, save(account))
    assert not is_due(account)
    Wallet.objects.filter(account=account).update(held_nanousd=1)
    assert is_due(account)


@pytest.mark.parametrize("why", ["off", "suspended", "basic plan", "not agreed"])
def test_nothing_is_bought_for_who_does_not_want_or_need_it(account: Account, why: str) -> None:
    method = save(account)
    if why != "not agreed":
        agree(account, method)
    if why == "off":
        auto_topping_up.switch_off(account=account, actor=account.members.get())
    if why == "suspended":
        Account.objects.update(status=Account.Status.SUSPENDED)
    if why == "basic plan":
        Account.objects.update(plan=Plan.objects.get(slug=Plan.BASIC))
    assert not is_due(account)
    assert auto_topping_up.run(account_id=account.pk, at=AT) is None
    assert outcomes(account) == []


def test_a_month_never_charges_more_than_its_cap(account: Account) -> None:
    agree(account, save(account), cap=60)
    for _ in range(4):
        if run(account):
            spend(account, 20 * USD)
    assert outcomes(account) == ["paid", "paid"]
    assert auto_topping_up.charged_in_month(account_id=account.pk, at=AT) == 50 * USD
    assert not is_due(account)
    assert not is_due(account, dt.datetime(2026, 3, 31, 23, 59, tzinfo=dt.UTC))
    assert run(account, dt.datetime(2026, 4, 1, tzinfo=dt.UTC)) is not None
    assert outcomes(account) == ["paid"] * 3


def test_a_cap_that_is_reached_is_told_once(account: Account) -> None:
    method = save(account)
    agree(account, method, cap=25)
    run(account)
    spend(account, 20 * USD)
    with travel(AT, tick=False):
        for _ in range(3):
            run(account)
            mail_auto_topups()
    (message,) = mail.outbox
    assert message.subject == "Auto top-up has reached its monthly cap"
    assert "its cap of $25.00" in message.body
    agree(account, method, cap=50)
    run(account)
    assert outcomes(account) == ["paid", "paid"]


def test_a_refused_payment_is_tried_again_later_and_then_no_more(account: Account) -> None:
    agree(account, save(account, DECLINED_CARD))
    run(account)
    assert outcomes(account) == ["failed"]
    assert not is_due(account, AT + 9 * MINUTE)
    run(account, AT + 10 * MINUTE)
    assert outcomes(account) == ["failed", "failed"]
    assert not is_due(account, AT + 60 * MINUTE)
    auto = AutoTopUp.objects.get()
    assert (auto.is_on, auto.failures) == (False, 2)
    assert auto.off_reason == "The last two payments failed. The sandbox's card was declined."
    assert AuditEvent.objects.get(action="auto_topup.stopped").actor is None
    with travel(AT + 10 * MINUTE, tick=False):
        mail_auto_topups()
        mail_auto_topups()
    (message,) = mail.outbox
    assert message.to == [account.members.get().email]
    assert message.subject == "Auto top-up is off"
    assert "The sandbox's card was declined." in message.body
    assert "/billing/auto-top-up/" in message.body
    assert balance(account) == 9 * USD


def test_a_success_between_failures_forgives_them(account: Account) -> None:
    bad, good = save(account, DECLINED_CARD), save(account, CARD)
    agree(account, bad)
    run(account)
    payment_methods.make_default(method=good, actor=account.members.get())
    run(account, AT + 10 * MINUTE)
    payment_methods.make_default(method=bad, actor=account.members.get())
    spend(account, 20 * USD)
    run(account, AT + 20 * MINUTE)
    assert outcomes(account) == ["failed", "paid", "failed"]
    assert AutoTopUp.objects.get().is_on


def test_agreeing_again_forgets_earlier_failures(account: Account) -> None:
    method = save(account, DECLINED_CARD)
    agree(account, method)
    run(account)
    run(account, AT + 10 * MINUTE)
    agree(account, method)
    auto = AutoTopUp.objects.get()
    assert (auto.is_on, auto.failures, auto.off_reason, auto.mail_due_at) == (True, 0, "", None)
    run(account, AT + 11 * MINUTE)
    assert AutoTopUp.objects.get().is_on


@pytest.mark.parametrize("why", ["removed", "expired", "provider", "fee", "amount"])
def test_what_can_no_longer_be_bought_as_agreed_stops_it_with_a_mail(
    account: Account, settings: Settings, why: str
) -> None:
    method = save(account)
    agree(account, method)
    at = AT
    if why == "removed":
        payment_methods.remove(method=method, actor=None, at=AT)
    elif why == "expired":
        at = dt.datetime(2100, 1, 1, tzinfo=dt.UTC)
    elif why == "provider":
        settings.TOPUP_PROVIDERS = []
    elif why == "fee":
        Plan.objects.update(topup_fee_rate="0.3")
    else:
        settings.TOPUP_MINIMUM_USD = Decimal(21)
    run(account, at)
    assert outcomes(account) == []
    auto = AutoTopUp.objects.get()
    assert not auto.is_on
    expected = {
        "removed": "was removed.",
        "expired": "has expired.",
        "provider": "not offered here any more.",
        "fee": "each purchase would charge $26.00, and you have agreed to $25.00.",
        "amount": "This amount cannot be bought any more.",
    }[why]
    assert expected in auto.off_reason
    with travel(at, tick=False):
        mail_auto_topups()
    assert expected in mail.outbox[0].body


def test_a_removed_method_stops_it_before_credit_is_low(db: None) -> None:
    account = make_account(credit="50")
    method = save(account)
    agree(account, method)
    payment_methods.remove(method=method, actor=None, at=AT)
    run(account)
    assert not AutoTopUp.objects.get().is_on


def test_who_has_switched_it_off_gets_no_mail(account: Account) -> None:
    agree(account, save(account, DECLINED_CARD))
    run(account)
    auto_topping_up.switch_off(account=account, actor=account.members.get())
    auto_topping_up.switch_off(account=account, actor=account.members.get())
    with travel(AT, tick=False):
        mail_auto_topups()
    assert mail.outbox == []
    assert AuditEvent.objects.filter(action="auto_topup.switched_off").count() == 1


def test_what_nobody_may_agree_to_is_refused(account: Account) -> None:
    method = save(account)
    with pytest.raises(auto_topping_up.CapTooLow, match=r"charges \$25\.00"):
        agree(account, method, cap=24)
    with pytest.raises(topping_up.AmountNotOffered):
        agree(account, method, amount=1)
    with pytest.raises(auto_topping_up.MethodNotUsable):
        agree(account, save(factories.make_account()))
    payment_methods.remove(method=method, actor=None, at=AT)
    with pytest.raises(auto_topping_up.MethodNotUsable):
        agree(account, method)
    assert not AutoTopUp.objects.exists()


def test_the_database_allows_one_purchase_at_a_time(account: Account) -> None:
    def start() -> None:
        topping_up.start(
            account=account,
            actor=None,
            credit_nanousd=20 * USD,
            provider="sandbox",
            at=AT,
            origin=TopUp.Origin.AUTOMATIC,
        )

    start()
    with pytest.raises(IntegrityError, match="topup_one_automatic_at_a_time"), transaction.atomic():
        start()


@pytest.mark.parametrize(
    "fields", [{"monthly_cap_nanousd": 1}, {"threshold_nanousd": 0}, {"off_reason": "x"}]
)
def test_the_database_refuses_an_agreement_that_makes_no_sense(
    account: Account, fields: dict[str, int | str]
) -> None:
    agree(account, save(account))
    with pytest.raises(IntegrityError, match="auto_topup_"), transaction.atomic():
        AutoTopUp.objects.update(**fields)


def test_an_agreement_that_is_gone_after_the_charge_is_not_brought_back(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    agree(account, save(account))
    charge = auto_topping_up._charge

    def charge_and_lose_the_agreement(topup: TopUp, at: dt.datetime) -> None:
        charge(topup, at)
        AutoTopUp.objects.all().delete()

    monkeypatch.setattr(auto_topping_up, "_charge", charge_and_lose_the_agreement)
    topup = run(account)
    assert topup is not None
    assert outcomes(account) == ["paid"]
    assert not AutoTopUp.objects.exists()
    check_books(idle=True)


def test_a_mail_that_the_server_refuses_is_sent_after_its_lease(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    agree(account, save(account, DECLINED_CARD))
    for number in range(auto_topping_up.FAILURES_TO_STOP):
        run(account, AT + number * auto_topping_up.RETRY_AFTER)

    def refuse(*_: object, **__: object) -> None:
        raise OSError

    stopped_at = AT + auto_topping_up.RETRY_AFTER
    with monkeypatch.context() as broken, travel(stopped_at, tick=False):
        broken.setattr("django.core.mail.EmailMessage.send", refuse)
        mail_auto_topups()
    assert mail.outbox == []
    for _ in range(2):
        with travel(stopped_at + owed_mail.LEASE, tick=False):
            mail_auto_topups()
    assert len(mail.outbox) == 1


def test_a_method_is_removed_once_and_forgotten_only_where_its_provider_is_known(account: Account) -> None:
    method = save(account, provider="shells")
    for day in range(2):
        payment_methods.remove(method=method, actor=None, at=AT + day * auto_topping_up.RETRY_AFTER)
    method.refresh_from_db()
    assert method.removed_at == AT
    assert AuditEvent.objects.filter(action="payment_method.removed").count() == 1
    payment_methods.forget(method=method, at=AT)
    method.refresh_from_db()
    assert method.forgotten_at is None
