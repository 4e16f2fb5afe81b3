"""Refunds and disputes of a payment that nobody knew when they were told: the books end right, whatever the order."""

import datetime as dt

import pytest
from django.test import Client

from accounts.models import Account
from billing import topping_up, unmatched, webhooks
from billing.models import Dispute, Refund, TopUp, UnmatchedPayment, Wallet, WebhookEvent
from billing.providers.provider import DisputeChanged, News, PaymentArrived, RefundChanged, WebhookMessage
from tests import factories
from tests.billing.test_refunding import balance, legs
from tests.invariants import check_books

pytestmark = pytest.mark.django_db
USD = 10**9
AT = factories.now()
LATER = AT + webhooks._PAYMENT_MAY_COME
REFUND = RefundChanged("re_1", "", "pi_1", 2500, "usd", "succeeded")
DISPUTE = DisputeChanged("du_1", "pi_1", 2500, "usd", "fraudulent", "open")


def arrive(*, reference: str = "") -> UnmatchedPayment:
    payment = PaymentArrived(reference=reference, payment="pi_1", amount_cents=2500, currency="usd")
    return unmatched.note(provider="stripe", payment=payment, why="it fits nothing", event=None, at=AT)


def tell(news: News, *, event: str = "evt_1", at: dt.datetime = AT) -> WebhookEvent:
    message = WebhookMessage(event, "a webhook", at, news)
    recorded = webhooks.record(provider="stripe", message=message, at=AT)
    webhooks.process(event=recorded, at=AT)
    return recorded


def ignore_all() -> None:
    """The four days are over."""
    webhooks.process_due(at=LATER)
    assert set(WebhookEvent.objects.values_list("outcome", flat=True)) == {"ignored"}


def credit(payment: UnmatchedPayment, account: Account) -> TopUp:
    actor = factories.make_user(is_staff=True)
    topup = unmatched.credit(unmatched=payment, account=account, actor=actor, text="by letter", at=LATER)
    webhooks.process_told_early(provider="stripe", payment="pi_1", at=LATER)
    return topup


@pytest.mark.parametrize("is_ignored", [True, False])
def test_a_refund_that_was_told_before_its_payment_was_credited_takes_the_credit_away(
    is_ignored: bool,
) -> None:
    payment = arrive()
    tell(REFUND)
    if is_ignored:
        ignore_all()
    topup = credit(payment, factories.make_account())
    assert balance(topup) == 0
    made = Refund.objects.get()
    assert (made.topup, made.status, made.credit_nanousd, made.fee_nanousd) == (
        topup,
        "succeeded",
        20 * USD,
        5 * USD,
    )
    assert legs(f"refund:{made.pk}")["cash_clearing"] == 25 * USD
    assert WebhookEvent.objects.get().outcome == "done"
    check_books(idle=True)


def test_a_dispute_that_was_told_before_freezes_the_credit_and_ends_as_it_was_decided() -> None:
    payment = arrive()
    tell(DISPUTE)
    ignore_all()
    topup = credit(payment, factories.make_account())
    dispute = Dispute.objects.get()
    assert (dispute.status, dispute.frozen_nanousd, balance(topup)) == ("open", 20 * USD, 0)
    check_books(idle=True)


def test_several_are_taken_up_in_the_order_in_which_they_occurred() -> None:
    payment = arrive()
    lost = DisputeChanged("du_1", "pi_1", 2500, "usd", "fraudulent", "lost")
    tell(lost, event="evt_2", at=AT + dt.timedelta(hours=2))
    tell(DISPUTE, event="evt_1", at=AT)
    ignore_all()
    topup = credit(payment, factories.make_account())
    assert (Dispute.objects.get().status, balance(topup)) == ("lost", 0)
    check_books(idle=True)


def test_a_crash_right_after_crediting_is_repaired_by_the_sweep() -> None:
    payment = arrive()
    tell(REFUND)
    ignore_all()
    actor = factories.make_user(is_staff=True)
    topup = unmatched.credit(
        unmatched=payment, account=factories.make_account(), actor=actor, text="by letter", at=LATER
    )
    assert balance(topup) == 20 * USD
    assert webhooks.process_due(at=LATER) == 1
    assert balance(topup) == 0
    check_books(idle=True)


def test_a_payment_that_fits_by_itself_days_later_has_its_refund_taken_up() -> None:
    account = factories.make_account()
    topup = topping_up.start(account=account, actor=None, credit_nanousd=20 * USD, provider="sandbox", at=AT)
    TopUp.objects.update(provider="stripe")
    tell(REFUND)
    ignore_all()
    arrived = PaymentArrived(topup.provider_reference, "pi_1", 2500, "usd")
    tell(arrived, event="evt_payment")
    webhooks.process_due(at=LATER)
    assert Wallet.objects.get(account=account).balance_nanousd == 0
    assert Refund.objects.get().topup == topup
    check_books(idle=True)


def test_a_payment_that_becomes_known_while_its_news_is_being_ignored_is_not_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    payment, account = arrive(), factories.make_account()
    event = tell(REFUND)
    event.refresh_from_db()
    act = webhooks._act

    def credited_meanwhile(event: WebhookEvent, at: dt.datetime, *, is_asked: bool) -> WebhookEvent.Outcome:
        outcome = act(event, at, is_asked=is_asked)
        unmatched.credit(unmatched=payment, account=account, actor=account.members.get(), text="x", at=at)
        return outcome

    with monkeypatch.context() as racing:
        racing.setattr(webhooks, "_act", credited_meanwhile)
        webhooks.process(event=event, at=LATER)
    event.refresh_from_db()
    assert event.outcome == "waiting"
    webhooks.process_due(at=LATER)
    assert Wallet.objects.get(account=account).balance_nanousd == 0
    check_books(idle=True)


def test_news_of_another_payment_or_another_company_stays_ignored() -> None:
    payment = arrive()
    tell(RefundChanged("re_2", "", "pi_2", 2500, "usd", "succeeded"))
    ignore_all()
    WebhookEvent.objects.create(
        provider="other", event="evt_9", type="x", news=webhooks.written(REFUND), occurred_at=AT
    )
    credit(payment, factories.make_account())
    assert not Refund.objects.exists()
    assert list(WebhookEvent.objects.values_list("outcome", flat=True).order_by("pk")) == [
        "ignored",
        "waiting",
    ]


def test_the_operator_reads_what_was_told_before_they_credit(client: Client) -> None:
    client.force_login(factories.make_user(is_staff=True, is_superuser=True))
    payment, account = arrive(), factories.make_account()
    address = f"/admin/billing/unmatchedpayment/{payment.pk}/resolve/"
    assert "gone back already" not in client.get(address).text
    tell(REFUND)
    tell(DISPUTE, event="evt_2")
    ignore_all()
    page = client.get(address).text
    assert "Money of it may have gone back already" in page
    assert "a refund of 2500 cents of USD, succeeded" in page
    assert "a dispute of 2500 cents of USD, open" in page
    client.post(address, {"account": account.pk, "note": "by letter", "confirmed": "yes"})
    assert Wallet.objects.get(account=account).balance_nanousd == 0
    assert set(WebhookEvent.objects.values_list("outcome", flat=True)) == {"done"}
    check_books(idle=True)
