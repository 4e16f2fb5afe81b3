"""Refunds and disputes through a Stripe that loses answers, repeats itself and changes the order."""

import pytest
from django.utils import timezone

from billing import refunding, webhooks
from billing.models import Dispute, Refund, TopUp, WebhookEvent
from billing.tasks.refunds import ask_for_refunds
from tests import factories
from tests.billing.fake_stripe import FakeStripe
from tests.billing.paying import USD, check_out, start
from tests.billing.test_receipts import text_of_pdf
from tests.billing.test_refunding import balance, refund, spend
from tests.invariants import check_books

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def paid(telling_stripe: FakeStripe) -> TopUp:
    """A top-up of 20 USD at 25 % that was paid at Stripe, and heard of."""
    topup = start()
    telling_stripe.pay(check_out(topup).session)
    assert set(telling_stripe.deliver_all()) == {200}
    topup.refresh_from_db()
    return topup


def test_a_refund_is_made_at_stripe_and_heard_of_often(telling_stripe: FakeStripe, paid: TopUp) -> None:
    made = refund(paid, usd="8")
    assert made.status == "succeeded"
    [at_stripe] = telling_stripe.of_kind("refund")
    assert (at_stripe["amount"], at_stripe["payment_intent"]) == (1000, paid.provider_payment)
    assert made.provider_refund == at_stripe["id"]
    assert set(telling_stripe.deliver_all(times=3, is_reversed=True)) == {200}
    assert Refund.objects.get().status == "succeeded"
    assert balance(paid) == 12 * USD
    check_books(idle=True)


def test_the_receipt_of_a_payment_at_stripe_is_a_proof_of_it(paid: TopUp) -> None:
    text = text_of_pdf(paid.receipt)
    assert "through Stripe" in text
    assert f"Payment reference: {paid.provider_payment}" in text
    assert "no money was taken" not in text


@pytest.mark.parametrize("fault", ["drop-before", "drop-after"])
def test_a_refund_whose_answer_is_lost_is_asked_for_again_and_made_once(
    telling_stripe: FakeStripe, paid: TopUp, fault: str
) -> None:
    telling_stripe.fail_next(fault, path="/v1/refunds", times=3)
    made = refund(paid, usd="8", at=factories.now() - 2 * refunding.ASK_EVERY)
    assert (made.status, balance(paid)) == ("pending", 12 * USD)
    ask_for_refunds()
    made.refresh_from_db()
    assert made.status == "succeeded"
    assert len(telling_stripe.of_kind("refund")) == 1
    assert balance(paid) == 12 * USD
    check_books(idle=True)


def test_a_refund_that_stripe_refuses_is_posted_back(telling_stripe: FakeStripe, paid: TopUp) -> None:
    payment = paid.provider_payment
    TopUp.objects.filter(pk=paid.pk).update(provider_payment="pi_gone")
    paid.refresh_from_db()
    made = refund(paid, usd="8")
    TopUp.objects.filter(pk=paid.pk).update(provider_payment=payment)
    assert (made.status, balance(paid)) == ("failed", 20 * USD)
    check_books(idle=True)


def test_a_refund_that_fails_days_later_is_posted_back(telling_stripe: FakeStripe, paid: TopUp) -> None:
    telling_stripe.refunds_become = "pending"
    made = refund(paid, usd="8")
    assert made.status == "pending"
    [at_stripe] = telling_stripe.of_kind("refund")
    telling_stripe.settle_refund(at_stripe["id"], "failed", reason="lost_or_stolen_card")
    telling_stripe.deliver_all(times=2)
    made.refresh_from_db()
    assert (made.status, made.message, balance(paid)) == ("failed", "lost or stolen card", 20 * USD)
    check_books(idle=True)


def test_a_refund_at_stripes_dashboard_takes_what_there_is(telling_stripe: FakeStripe, paid: TopUp) -> None:
    spend(paid.account, 12)
    telling_stripe.create_refund({"payment_intent": paid.provider_payment, "amount": "2500"})
    telling_stripe.deliver_all(times=2, is_reversed=True)
    made = Refund.objects.get()
    assert (made.credit_nanousd, made.fee_nanousd, made.loss_nanousd) == (8 * USD, 5 * USD, 12 * USD)
    assert balance(paid) == 0
    check_books(idle=True)


@pytest.mark.parametrize("is_reversed", [False, True])
@pytest.mark.parametrize("decision", ["won", "lost"])
def test_a_dispute_ends_as_the_bank_decides(
    telling_stripe: FakeStripe, paid: TopUp, decision: str, is_reversed: bool
) -> None:
    at_stripe = telling_stripe.dispute(paid.provider_payment)
    telling_stripe.decide_dispute(at_stripe["id"], decision)
    assert set(telling_stripe.deliver_all(times=2, is_reversed=is_reversed)) == {200}
    assert Dispute.objects.get().status == decision
    assert balance(paid) == (20 * USD if decision == "won" else 0)
    assert not WebhookEvent.objects.filter(outcome="waiting").exists()
    check_books(idle=True)


def test_a_dispute_that_is_heard_of_before_its_payment_waits_for_it(telling_stripe: FakeStripe) -> None:
    topup = start()
    telling_stripe.pay(check_out(topup).session)
    [intent] = telling_stripe.of_kind("payment_intent")
    telling_stripe.dispute(intent["id"])
    telling_stripe.deliver_all(is_reversed=True)
    assert WebhookEvent.objects.filter(outcome="waiting").exists()
    WebhookEvent.objects.update(due_at=timezone.now())
    webhooks.process_due(at=timezone.now())
    assert Dispute.objects.get().frozen_nanousd == 20 * USD
    check_books(idle=True)


def test_what_concerns_a_payment_of_somebody_else_is_ignored_in_the_end(
    telling_stripe: FakeStripe, paid: TopUp
) -> None:
    TopUp.objects.filter(pk=paid.pk).update(provider_payment="pi_of_another_installation")
    telling_stripe.dispute(paid.provider_payment)
    telling_stripe.deliver_all()
    waiting = WebhookEvent.objects.filter(outcome="waiting")
    assert waiting.count() == 1
    later = timezone.now() + webhooks._PAYMENT_MAY_COME
    webhooks.process_due(at=later)
    assert not waiting.exists()
    assert not Dispute.objects.exists()
