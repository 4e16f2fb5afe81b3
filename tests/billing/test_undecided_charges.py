"""Auto top-up by a bank debit, which takes days: it is waited for, counts in the cap, and is told of truthfully."""

import datetime as dt

import pytest
from django.contrib.auth.models import Permission
from django.core import mail
from django.test import Client
from time_machine import travel

from accounts.models import Account, AuditEvent
from billing import auto_topping_up, looking_up, payment_methods, topping_up
from billing.models import AutoTopUp, TopUp
from billing.tasks.auto_topups import mail_auto_topups
from tests import factories
from tests.billing.fake_stripe import DECLINED_LATER, SLOW_BANK, FakeStripe
from tests.billing.saved_cards import USD, agree, balance, make_account, outcomes, save, save_at, spend
from tests.billing.test_billing_pages import sign_in, text_of
from tests.invariants import check_books

HOUR, DAY = dt.timedelta(hours=1), dt.timedelta(days=1)
AT = dt.datetime(2026, 3, 10, 12, tzinfo=dt.UTC)
PAGE = "/billing/auto-top-up/"


@pytest.fixture
def account(db: None, fake_stripe: FakeStripe) -> Account:
    """Has agreed to purchases of $40, which charge a bank account $50, within $60 a month; the first has begun."""
    account = make_account()
    agree(account, save_at(fake_stripe, account, SLOW_BANK), amount=40, cap=60)
    run(account, AT)
    assert outcomes(account) == ["pending"]
    return account


def run(account: Account, at: dt.datetime) -> None:
    """What the sweep does, with Stripe's clock at the same hour."""
    with travel(at, tick=False):
        if account.pk in auto_topping_up.due(at=at):
            auto_topping_up.run(account_id=account.pk, at=at)


def the_charge(fake_stripe: FakeStripe) -> str:
    (intent,) = fake_stripe.of_kind("payment_intent")
    return str(intent["id"])


def mails(at: dt.datetime) -> list[str]:
    """The subjects of what is sent then."""
    mail.outbox.clear()
    with travel(at, tick=False):
        mail_auto_topups()
    return [str(message.subject) for message in mail.outbox]


def test_a_debit_is_waited_for_however_long_it_takes_and_nothing_else_is_bought(
    account: Account, fake_stripe: FakeStripe
) -> None:
    for hours in range(6, 24 * 40, 6):
        run(account, AT + hours * HOUR)
    assert outcomes(account) == ["pending"]
    assert auto_topping_up.charged_in_month(account_id=account.pk, at=AT + 20 * DAY) == 50 * USD
    fake_stripe.settle_charge(the_charge(fake_stripe), is_paid=True)
    run(account, AT + 41 * DAY)
    assert outcomes(account) == ["paid"]
    assert balance(account) == 49 * USD
    spend(account, 45 * USD)
    # It came in April, whose cap allows no second one.
    run(account, AT + 41 * DAY + HOUR)
    assert outcomes(account) == ["paid"]


@pytest.mark.parametrize("why", ["off", "off and on", "removed"])
def test_a_debit_is_waited_for_when_nobody_wants_more_purchases(
    account: Account, fake_stripe: FakeStripe, why: str
) -> None:
    method = TopUp.objects.get(origin="automatic").method
    assert method is not None
    if why == "removed":
        payment_methods.remove(method=method, actor=None, at=AT)
    else:
        auto_topping_up.switch_off(account=account, actor=account.members.get())
    run(account, AT + HOUR)
    if why == "off and on":
        agree(account, method, amount=40, cap=60)
    run(account, AT + 2 * HOUR)
    run(account, AT + 4 * DAY)
    assert outcomes(account) == ["pending"]
    fake_stripe.settle_charge(the_charge(fake_stripe), is_paid=True)
    run(account, AT + 5 * DAY)
    assert outcomes(account) == ["paid"]
    assert balance(account) == 49 * USD
    check_books(idle=True)


def test_a_debit_that_the_bank_sends_back_is_a_failure_and_is_tried_again(
    account: Account, fake_stripe: FakeStripe
) -> None:
    fake_stripe.settle_charge(the_charge(fake_stripe), is_paid=False)
    run(account, AT + 4 * DAY)
    assert outcomes(account) == ["failed"]
    failed = TopUp.objects.get(origin="automatic")
    assert failed.failure == "The bank has sent the debit back."
    run(account, AT + 4 * DAY + auto_topping_up.RETRY_AFTER)
    assert outcomes(account) == ["failed", "pending"]
    assert AutoTopUp.objects.get().is_on


def test_a_debit_is_asked_about_often_on_the_first_day_and_then_every_hour(account: Account) -> None:
    often = auto_topping_up.ASKING_LASTS
    asked = []
    for since in (often / 2, often, 2 * often, DAY, DAY + often, DAY + HOUR):
        if account.pk in auto_topping_up.due(at=AT + since):
            asked.append(since)
            run(account, AT + since)
    assert asked == [often, 2 * often, DAY, DAY + HOUR]


def test_a_wrong_key_ends_no_purchase_that_may_have_been_charged(fake_stripe: FakeStripe, db: None) -> None:
    account = make_account()
    agree(account, save_at(fake_stripe, account))
    fake_stripe.fail_next("drop-after", path="/v1/payment_intents", times=3)
    run(account, AT)
    key, fake_stripe.key = fake_stripe.key, "sk_test_another"
    later = AT + auto_topping_up.ASKING_LASTS
    run(account, later)
    run(account, AT + 2 * DAY)
    assert outcomes(account) == ["pending"]
    fake_stripe.key = key
    run(account, AT + 3 * DAY)
    assert outcomes(account) == ["paid"]
    assert len(fake_stripe.of_kind("payment_intent")) == 1


def test_a_request_that_is_refused_says_nothing_of_an_earlier_one(fake_stripe: FakeStripe, db: None) -> None:
    account = make_account()
    method = save_at(fake_stripe, account)
    agree(account, method)
    fake_stripe.fail_next("drop-after", path="/v1/payment_intents", times=3)
    run(account, AT)
    # Stripe has forgotten the key under which it was asked, and the card has gone since.
    fake_stripe._answers.clear()
    fake_stripe.detach(method.method)
    run(account, AT + auto_topping_up.ASKING_LASTS)
    assert outcomes(account) == ["paid"]
    assert len(fake_stripe.of_kind("payment_intent")) == 1


def test_a_provider_that_is_gone_decides_nothing(account: Account) -> None:
    TopUp.objects.update(provider="gone")
    run(account, AT + 2 * DAY)
    assert outcomes(account) == ["pending"]


def test_a_charge_of_the_sandbox_that_was_not_answered_was_not_made(db: None) -> None:
    account = make_account()
    method = save(account)
    agree(account, method)
    topping_up.start(
        account=account,
        actor=None,
        credit_nanousd=20 * USD,
        provider="sandbox",
        method=method,
        origin=TopUp.Origin.AUTOMATIC,
        at=AT,
    )
    auto_topping_up.switch_off(account=account, actor=account.members.get())
    run(account, AT + HOUR)
    assert outcomes(account) == ["failed"]
    assert balance(account) == 9 * USD


def test_money_that_comes_after_a_failure_is_found_and_counts_in_the_cap(
    fake_stripe: FakeStripe, db: None
) -> None:
    account = make_account()
    agree(account, save_at(fake_stripe, account, DECLINED_LATER), amount=40, cap=60)
    run(account, AT)
    assert outcomes(account) == ["failed"]
    assert auto_topping_up.charged_in_month(account_id=account.pk, at=AT) == 0
    fake_stripe.settle_charge(the_charge(fake_stripe), is_paid=True)
    looking_up.look_up_due(at=AT + DAY)
    assert outcomes(account) == ["paid"]
    assert balance(account) == 49 * USD
    assert auto_topping_up.charged_in_month(account_id=account.pk, at=AT + DAY) == 50 * USD
    spend(account, 45 * USD)
    run(account, AT + 2 * DAY)
    assert outcomes(account) == ["paid"]


def test_what_waits_counts_in_each_month_and_what_came_in_the_month_in_which_it_came(
    account: Account, fake_stripe: FakeStripe
) -> None:
    def charged(at: dt.datetime) -> int:
        return auto_topping_up.charged_in_month(account_id=account.pk, at=at) // USD

    april, may = AT + 22 * DAY, AT + 52 * DAY
    assert (charged(AT), charged(april)) == (50, 50)
    fake_stripe.settle_charge(the_charge(fake_stripe), is_paid=True)
    run(account, april)
    assert (charged(april), charged(may)) == (50, 0)


def test_a_purchase_that_is_not_decided_for_a_day_is_told_once(
    account: Account, fake_stripe: FakeStripe
) -> None:
    run(account, AT + 23 * HOUR)
    assert mails(AT + 23 * HOUR) == []
    run(account, AT + DAY)
    assert mails(AT + DAY) == ["A purchase of auto top-up is not decided yet"]
    (message,) = mail.outbox
    body = " ".join(str(message.body).split())
    assert message.to == [account.members.get().email]
    assert "began to buy $40.00 of credit on 2026-03-10 12:00 UTC." in body
    assert "Stripe has not said yet whether the $50.00 from visa ending in bank will come" in body
    assert "it counts in the month's cap, and auto top-up buys nothing else" in body
    assert f"/billing/topups/{TopUp.objects.get(origin='automatic').pk}/" in body
    run(account, AT + 2 * DAY)
    assert mails(AT + 2 * DAY) == []


def test_what_is_decided_before_its_mail_leaves_is_not_told(
    account: Account, fake_stripe: FakeStripe
) -> None:
    run(account, AT + DAY)
    fake_stripe.settle_charge(the_charge(fake_stripe), is_paid=True)
    AutoTopUp.objects.update(monthly_cap_nanousd=1_000 * USD)
    run(account, AT + DAY + HOUR)
    assert mails(AT + DAY + HOUR) == []
    assert AutoTopUp.objects.get().mail_due_at is None


def test_the_page_says_what_waits(account: Account) -> None:
    client = sign_in(account)
    with travel(AT + HOUR, tick=False):
        page = text_of(client, PAGE)
        assert "A purchase of $40.00, begun on" in page
        assert "nothing else is bought." in page
        assert 'Charged this month, with what waits: <strong class="tabular">$50.00</strong>' in page
        client.post(f"{PAGE}off/")
        assert "it may still be charged although auto top-up is off." in text_of(client, PAGE)
        TopUp.objects.update(status="failed")
        assert "begun on" not in text_of(client, PAGE)


def test_an_operator_ends_what_the_company_will_never_decide(
    account: Account, fake_stripe: FakeStripe
) -> None:
    operator = Client()
    user = factories.make_user(is_staff=True, is_superuser=True)
    operator.force_login(user)
    topup = TopUp.objects.get(origin="automatic")
    asked = {"action": "cancel", "_selected_action": [topup.pk]}
    page = operator.post("/admin/billing/topup/", asked).text
    assert f"An automatic purchase, number {topup.pk}, of account {topup.account_id}, {topup.account}" in page
    assert "would pay twice" in page
    topup.refresh_from_db()
    assert topup.status == TopUp.Status.PENDING
    asked["confirmed"] = "yes"
    assert "1 canceled." in operator.post("/admin/billing/topup/", asked, follow=True).text
    assert "0 canceled." in operator.post("/admin/billing/topup/", asked, follow=True).text
    assert AuditEvent.objects.get(action="topup.canceled").actor == user
    run(account, AT + HOUR)
    # Nobody has refused a payment, so it is no failure; and credit is still low.
    assert outcomes(account) == ["canceled", "pending"]
    assert AutoTopUp.objects.get().failures == 0


def test_an_operator_who_may_only_read_ends_nothing(account: Account) -> None:
    user = factories.make_user(is_staff=True)
    user.user_permissions.add(_permission("view_topup"))
    reader = Client()
    reader.force_login(user)
    topup = TopUp.objects.get(origin="automatic")
    reader.post("/admin/billing/topup/", {"action": "cancel", "_selected_action": [topup.pk]})
    assert outcomes(account) == ["pending"]


def _permission(codename: str) -> Permission:
    return Permission.objects.get(codename=codename)
