"""What Stripe tells of payments: one grant for one payment, and what becomes of the others."""

import json

import pytest

from billing import payment_methods, topping_up, webhooks
from billing.models import (
    LedgerTransaction,
    SavedPaymentMethod,
    TopUp,
    UnmatchedPayment,
    WebhookEvent,
)
from billing.providers.provider import PaymentArrived, WebhookMessage
from tests import factories
from tests.billing.fake_stripe import DECLINED_LATER, SLOW_BANK, FakeStripe
from tests.billing.paying import USD, balance, paid_there, start
from tests.concurrency import in_parallel
from tests.invariants import check_books

pytestmark = pytest.mark.django_db(transaction=True)


# --- One grant for one payment -----------------------------------------------------------------------------


def test_events_in_any_order_and_number_are_one_grant(telling_stripe: FakeStripe) -> None:
    topup = paid_there(telling_stripe)
    assert telling_stripe.deliver_all(is_reversed=True, times=3) == [200] * 6
    assert balance(topup) == 20 * USD
    assert WebhookEvent.objects.count() == 2
    assert LedgerTransaction.objects.count() == 1
    check_books(idle=True)


def test_an_event_that_comes_20_times_at_once_is_one_grant(telling_stripe: FakeStripe) -> None:
    topup = paid_there(telling_stripe)
    event = telling_stripe.events[0]
    assert in_parallel(lambda _number: telling_stripe.deliver(event), times=20) == [200] * 20
    assert balance(topup) == 20 * USD
    assert WebhookEvent.objects.count() == 1
    assert LedgerTransaction.objects.count() == 1
    check_books(idle=True)


def test_an_event_that_is_replayed_later_changes_nothing(telling_stripe: FakeStripe) -> None:
    topup = paid_there(telling_stripe)
    telling_stripe.deliver_all()
    processed = WebhookEvent.objects.get(type="payment_intent.succeeded")
    assert telling_stripe.deliver(telling_stripe.events[0]) == 200
    again = WebhookEvent.objects.get(pk=processed.pk)
    assert (again.attempts, again.processed_at) == (1, processed.processed_at)
    assert balance(topup) == 20 * USD


def test_a_crash_after_recording_is_repaired_by_the_sweep(
    telling_stripe: FakeStripe, monkeypatch: pytest.MonkeyPatch
) -> None:
    topup = paid_there(telling_stripe)
    with monkeypatch.context() as crashing:
        crashing.setattr(webhooks, "process", lambda **_: None)
        assert telling_stripe.deliver_all(times=2) == [200] * 4
    assert balance(topup) == 0
    assert webhooks.process_due(at=factories.now()) == 0
    later = factories.now() + webhooks._FIRST_WAIT
    assert webhooks.process_due(at=later) == 2
    assert webhooks.process_due(at=later) == 0
    assert balance(topup) == 20 * USD
    check_books(idle=True)


def test_what_fails_is_tried_again_later_and_later() -> None:
    at = factories.now()
    event = WebhookEvent.objects.create(
        provider="stripe",
        event="evt_broken",
        type="payment_intent.succeeded",
        news={"kind": "PaymentArrived", "unexpected": 1},
        occurred_at=at,
    )
    for attempt, wait in enumerate((1, 2, 4), start=1):
        webhooks.process(event=event, at=at)
        event.refresh_from_db()
        assert (event.attempts, event.due_at) == (attempt, at + wait * webhooks._FIRST_WAIT)
    assert (event.outcome, event.problem[:9]) == ("waiting", "TypeError")


@pytest.mark.parametrize("lie", [{"amount_received": 2499}, {"amount_received": 2501}, {"currency": "eur"}])
def test_another_amount_or_currency_than_the_quote_is_no_credit_and_one_alert(
    telling_stripe: FakeStripe, lie: dict[str, object]
) -> None:
    topup = paid_there(telling_stripe)
    intent = telling_stripe.of_kind("payment_intent")[0]
    for _ in range(2):
        lying = telling_stripe.tell("payment_intent.succeeded", intent, **lie)
        assert telling_stripe.deliver(lying) == 200
    unmatched = UnmatchedPayment.objects.get()
    assert (unmatched.payment, unmatched.reference) == (intent["id"], topup.provider_reference)
    assert "the quote says 25.000000000 USD" in unmatched.why
    assert set(WebhookEvent.objects.values_list("outcome", flat=True)) == {"unmatched"}
    assert balance(topup) == 0
    # The truth comes after the lie: it is credited, and nobody has to look for it any more.
    telling_stripe.deliver(telling_stripe.events[0])
    unmatched.refresh_from_db()
    assert balance(topup) == 20 * USD
    assert (unmatched.topup, unmatched.resolved_by) == (topup, None)
    assert unmatched.resolved_at is not None
    check_books(idle=True)


@pytest.mark.parametrize("metadata", [{"tollgate_topup": "made-up"}, {}])
def test_a_payment_that_names_no_top_up_is_kept_for_the_operators(
    telling_stripe: FakeStripe, metadata: dict[str, str]
) -> None:
    topup = paid_there(telling_stripe)
    intent = telling_stripe.of_kind("payment_intent")[0]
    telling_stripe.deliver(telling_stripe.tell("payment_intent.succeeded", intent, metadata=metadata))
    assert UnmatchedPayment.objects.get().reference == metadata.get("tollgate_topup", "")
    assert balance(topup) == 0


def test_one_payment_never_pays_two_top_ups(telling_stripe: FakeStripe) -> None:
    first, second = paid_there(telling_stripe), start()
    telling_stripe.deliver_all()
    intent = telling_stripe.of_kind("payment_intent")[0]
    lying = telling_stripe.tell(
        "payment_intent.succeeded", intent, metadata={"tollgate_topup": second.provider_reference}
    )
    telling_stripe.deliver(lying)
    assert (balance(first), balance(second)) == (20 * USD, 0)
    assert "has paid top-up" in UnmatchedPayment.objects.get().why
    check_books(idle=True)


def test_a_second_payment_for_a_paid_top_up_is_not_credited_and_not_lost(telling_stripe: FakeStripe) -> None:
    topup = paid_there(telling_stripe)
    telling_stripe.deliver_all()
    intent = telling_stripe.of_kind("payment_intent")[0]
    telling_stripe.deliver(telling_stripe.tell("payment_intent.succeeded", intent, id="pi_second"))
    assert balance(topup) == 20 * USD
    assert UnmatchedPayment.objects.get().payment == "pi_second"
    check_books(idle=True)


def test_a_payment_of_another_provider_finds_no_top_up(telling_stripe: FakeStripe) -> None:
    account = factories.make_account()
    topup = topping_up.start(
        account=account, actor=None, credit_nanousd=20 * USD, provider="sandbox", at=factories.now()
    )
    intent = {"id": "pi_1", "status": "succeeded", "amount_received": 2500, "currency": "usd"}
    named = {**intent, "metadata": {"tollgate_topup": topup.provider_reference}}
    telling_stripe.deliver(telling_stripe.tell("payment_intent.succeeded", named))
    assert UnmatchedPayment.objects.get().payment == "pi_1"
    assert balance(topup) == 0


# --- What does not become a payment ------------------------------------------------------------------------


def test_a_page_that_runs_out_gives_the_top_up_up_and_a_late_payment_is_credited(
    telling_stripe: FakeStripe,
) -> None:
    topup = paid_there(telling_stripe)
    session = telling_stripe.of_kind("checkout.session")[0]
    lying = telling_stripe.tell(
        "checkout.session.expired", session, status="expired", payment_status="unpaid", payment_intent=None
    )
    assert telling_stripe.deliver(lying) == 200
    topup.refresh_from_db()
    assert (topup.status, topup.failure) == ("failed", "The payment page ran out before anything was paid.")
    telling_stripe.deliver(telling_stripe.events[0])
    topup.refresh_from_db()
    assert (topup.status, topup.failure) == ("paid", "")
    assert telling_stripe.deliver(telling_stripe.tell("checkout.session.expired", session)) == 200
    telling_stripe.deliver(lying)
    topup.refresh_from_db()
    assert topup.status == "paid"
    check_books(idle=True)


def test_a_bank_that_takes_days_is_credited_when_it_has_paid(telling_stripe: FakeStripe) -> None:
    topup = paid_there(telling_stripe, number=SLOW_BANK)
    telling_stripe.deliver_all()
    topup.refresh_from_db()
    assert topup.status == "pending"
    telling_stripe.settle(telling_stripe.of_kind("checkout.session")[0]["id"], is_paid=True)
    telling_stripe.deliver_all()
    assert balance(topup) == 20 * USD
    check_books(idle=True)


def test_a_bank_that_refuses_after_days_gives_the_top_up_up(telling_stripe: FakeStripe) -> None:
    topup = paid_there(telling_stripe, number=SLOW_BANK)
    telling_stripe.settle(telling_stripe.of_kind("checkout.session")[0]["id"], is_paid=False)
    telling_stripe.deliver_all()
    topup.refresh_from_db()
    assert (topup.status, topup.failure) == ("failed", "The payment was declined.")


def test_a_declined_card_on_the_page_is_no_end_and_one_without_the_buyer_is(
    telling_stripe: FakeStripe,
) -> None:
    topup = start()
    named = {"tollgate_topup": topup.provider_reference}
    declined = {"id": "pi_1", "status": "requires_payment_method", "metadata": named}
    telling_stripe.deliver(telling_stripe.tell("payment_intent.payment_failed", declined))
    topup.refresh_from_db()
    assert topup.status == "pending"
    unattended = {**named, "tollgate_unattended": "1"}
    telling_stripe.deliver(
        telling_stripe.tell("payment_intent.payment_failed", declined, metadata=unattended)
    )
    topup.refresh_from_db()
    assert topup.status == "failed"


def test_what_does_not_concern_us_is_recorded_and_ignored(telling_stripe: FakeStripe) -> None:
    telling_stripe.deliver(telling_stripe.tell("customer.created", {"id": "cus_1"}))
    failed = {"status": "requires_payment_method", "metadata": {"tollgate_unattended": "1"}}
    telling_stripe.deliver(telling_stripe.tell("payment_intent.payment_failed", failed))
    assert list(WebhookEvent.objects.values_list("outcome", flat=True)) == ["ignored", "ignored"]


# --- The method that the buyer leaves ----------------------------------------------------------------------


def test_a_method_that_the_buyer_leaves_is_asked_for_and_kept_once(telling_stripe: FakeStripe) -> None:
    topup = paid_there(telling_stripe, number=DECLINED_LATER, saves_method=True)
    telling_stripe.deliver_all(times=2)
    saved = SavedPaymentMethod.objects.get()
    assert (saved.account_id, saved.last4, saved.is_default) == (topup.account_id, "0341", True)
    assert "0341" not in json.dumps(list(WebhookEvent.objects.values_list("news", flat=True)))


def test_a_stripe_that_is_away_delays_the_method_and_not_the_credit(telling_stripe: FakeStripe) -> None:
    topup = paid_there(telling_stripe, saves_method=True)
    telling_stripe.fail_next("500", times=3)
    assert telling_stripe.deliver(telling_stripe.events[0]) == 200
    assert balance(topup) == 20 * USD
    assert not SavedPaymentMethod.objects.exists()
    assert webhooks.process_due(at=factories.now() + webhooks._LONGEST_WAIT) == 1
    assert SavedPaymentMethod.objects.get().account_id == topup.account_id
    check_books(idle=True)


def test_a_method_that_was_removed_does_not_come_back_with_an_old_event(telling_stripe: FakeStripe) -> None:
    topup = paid_there(telling_stripe, saves_method=True)
    telling_stripe.deliver(telling_stripe.events[0])
    payment_methods.remove(method=SavedPaymentMethod.objects.get(), actor=None, at=factories.now())
    telling_stripe.deliver(telling_stripe.events[1])
    assert payment_methods.usable(account=topup.account) == []


@pytest.mark.django_db
def test_a_payment_whose_company_is_gone_is_credited_without_its_method() -> None:
    topup = topping_up.start(
        account=factories.make_account(),
        actor=None,
        credit_nanousd=20 * USD,
        provider="sandbox",
        at=factories.now(),
        saves_method=True,
    )
    TopUp.objects.update(provider="shells")
    arrived = PaymentArrived(topup.provider_reference, "pay_1", 2500, "usd")
    message = WebhookMessage("evt_1", "payment", factories.now(), arrived)
    event = webhooks.record(provider="shells", message=message, at=factories.now())
    webhooks.process(event=event, at=factories.now())
    topup.refresh_from_db()
    assert (topup.status, SavedPaymentMethod.objects.count()) == ("paid", 0)
