"""The official library against a Stripe of our own: payment pages, look-ups, saved methods, refunds, and what fails."""

import datetime as dt
import logging
from dataclasses import replace
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
import stripe
from pytest_django import Settings

from accounts.models import Plan
from billing import auto_topping_up, payment_methods, topping_up
from billing.models import SavedPaymentMethod, TopUp
from billing.providers import stripe_objects
from billing.providers.provider import (
    PaymentArrived,
    PaymentFailed,
    PaymentUndecided,
    ProviderAway,
    ProviderRefused,
    SavedMethod,
)
from billing.providers.stripe import API_VERSION, STRIPE, _answered, _client
from tests import factories
from tests.billing.fake_stripe import (
    ASKS_FOR_CONFIRMATION,
    DECLINED,
    DECLINED_LATER,
    GOOD,
    SLOW_BANK,
    FakeStripe,
    Refusal,
)
from tests.billing.paying import USD, check_out, start
from tests.invariants import check_books


def charged(fake: FakeStripe, number: str) -> tuple[TopUp, SavedMethod]:
    """A top-up that charges a saved method of that number, and the method."""
    account = factories.make_account()
    customer = fake.add_customer()
    method = fake.add_method(number, customer)
    saved = SavedPaymentMethod.objects.create(
        account=account, provider="stripe", customer=customer, method=method["id"], brand="Visa", last4="4242"
    )
    topup = topping_up.start(
        account=account,
        actor=None,
        credit_nanousd=20 * USD,
        provider="stripe",
        at=factories.now(),
        method=saved,
    )
    return topup, payment_methods.as_told(saved)


@pytest.mark.django_db
def test_the_page_asks_for_the_quote_in_two_lines(fake_stripe: FakeStripe) -> None:
    topup = start()
    checkout = check_out(topup)
    session = fake_stripe.objects[checkout.session]
    assert session["lines"] == [{"name": "Credit", "amount": 2000}, {"name": "Fee (25 %)", "amount": 500}]
    assert (session["amount_total"], session["currency"]) == (2500, "usd")
    assert session["client_reference_id"] == topup.provider_reference
    assert session["metadata"] == session["intent_metadata"] == {"tollgate_topup": topup.provider_reference}
    assert (session["customer_email"], session["setup_future_usage"]) == (topup.account.name, None)
    assert checkout.url == f"{fake_stripe.url}/pay/{checkout.session}"
    assert checkout.expires_at == topup.created_at + dt.timedelta(hours=2)


@pytest.mark.django_db
def test_without_a_fee_the_page_has_one_line(fake_stripe: FakeStripe) -> None:
    Plan.objects.update(topup_fee_rate=Decimal(0))
    session = fake_stripe.objects[check_out(start()).session]
    assert session["lines"] == [{"name": "Credit", "amount": 2000}]


@pytest.mark.django_db
def test_the_version_of_the_api_is_pinned(fake_stripe: FakeStripe) -> None:
    check_out(start())
    assert fake_stripe.requests[-1][2]["stripe-version"] == API_VERSION


@pytest.mark.django_db
def test_a_page_that_is_asked_for_twice_is_one(fake_stripe: FakeStripe) -> None:
    topup = start()
    assert check_out(topup) == check_out(topup)
    assert len(fake_stripe.of_kind("checkout.session")) == 1


@pytest.mark.django_db
@pytest.mark.parametrize("fault", ["drop-before", "drop-after", "500"])
def test_a_request_that_broke_is_repeated_and_done_once(fake_stripe: FakeStripe, fault: str) -> None:
    fake_stripe.fail_next(fault, times=2)
    check_out(start())
    assert len(fake_stripe.requests) == 3
    assert len(fake_stripe.of_kind("checkout.session")) == 1


@pytest.mark.django_db
@pytest.mark.parametrize(("fault", "times"), [("drop-after", 3), ("500", 3), ("429", 1)])
def test_a_stripe_that_does_not_answer_is_away(fake_stripe: FakeStripe, fault: str, times: int) -> None:
    fake_stripe.fail_next(fault, times=times)
    with pytest.raises(ProviderAway):
        check_out(start())


@pytest.mark.django_db
def test_without_a_key_nothing_is_asked(fake_stripe: FakeStripe, settings: Settings) -> None:
    topup = start()
    settings.STRIPE_SECRET_KEY = ""
    with pytest.raises(ProviderRefused, match="not set up correctly"):
        check_out(topup)
    assert fake_stripe.requests == []


@pytest.mark.django_db
def test_a_customer_who_is_refused_for_another_reason_is_no_new_one(fake_stripe: FakeStripe) -> None:
    topup = start()
    topup.provider_customer = "cus_1"
    topup.created_at -= dt.timedelta(hours=2)
    with pytest.raises(ProviderRefused):
        check_out(topup)
    assert len(fake_stripe.requests) == 1


@pytest.mark.django_db
def test_a_wrong_key_says_so_in_the_log_and_nowhere_else(
    fake_stripe: FakeStripe, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    topup = start()
    fake_stripe.key = "sk_test_another"
    with pytest.raises(ProviderRefused, match="not set up correctly") as refused:
        check_out(topup)
    assert refused.value.code == "not_set_up"
    assert refused.value.__cause__ is None
    assert "does not accept STRIPE_SECRET_KEY" in caplog.text
    assert "sk_test_fake" not in caplog.text


@pytest.mark.django_db
def test_a_page_that_was_asked_for_too_late_is_refused(fake_stripe: FakeStripe) -> None:
    topup = start()
    topup.created_at -= dt.timedelta(hours=2)
    with pytest.raises(ProviderRefused, match="Nothing was charged"):
        check_out(topup)


@pytest.mark.django_db
def test_a_payment_can_be_looked_up(fake_stripe: FakeStripe) -> None:
    topup = start()
    checkout = check_out(topup)
    assert STRIPE.look_up(topup=topup) == PaymentUndecided(topup.provider_reference)
    session = fake_stripe.pay(checkout.session)
    assert STRIPE.look_up(topup=topup) == PaymentArrived(
        reference=topup.provider_reference,
        payment=session["payment_intent"],
        amount_cents=2500,
        currency="usd",
    )


@pytest.mark.django_db
def test_a_payment_page_that_ran_out_is_looked_up_as_failed(fake_stripe: FakeStripe) -> None:
    topup = start()
    fake_stripe.expire(check_out(topup).session)
    failed = STRIPE.look_up(topup=topup)
    assert isinstance(failed, PaymentFailed)
    assert failed.message == "The payment page ran out before anything was paid."


@pytest.mark.django_db
@pytest.mark.parametrize("is_paid", [True, False])
def test_a_bank_that_takes_days_is_waited_for(fake_stripe: FakeStripe, is_paid: bool) -> None:
    topup = start()
    checkout = check_out(topup)
    fake_stripe.pay(checkout.session, SLOW_BANK)
    assert STRIPE.look_up(topup=topup) == PaymentUndecided(topup.provider_reference)
    fake_stripe.settle(checkout.session, is_paid=is_paid)
    assert isinstance(STRIPE.look_up(topup=topup), PaymentArrived if is_paid else PaymentFailed)


@pytest.mark.django_db
def test_a_method_that_the_buyer_leaves_is_kept_for_its_customer(fake_stripe: FakeStripe) -> None:
    account = factories.make_account()
    topup = start(account, saves_method=True)
    session = fake_stripe.pay(check_out(topup).session)
    arrived = STRIPE.look_up(topup=topup)
    assert isinstance(arrived, PaymentArrived)
    assert arrived.method is not None
    assert (arrived.method.customer, arrived.method.brand, arrived.method.last4) == (
        session["customer"],
        "Visa",
        "4242",
    )
    assert arrived.method.expires is not None
    topping_up.take(provider="stripe", payment=arrived, at=factories.now())
    saved = SavedPaymentMethod.objects.get()
    assert (saved.account, saved.method, saved.is_default) == (account, arrived.method.method, True)
    again = start(account)
    assert fake_stripe.objects[check_out(again).session]["customer"] == session["customer"]
    check_books(idle=True)


@pytest.mark.django_db
def test_a_method_is_not_kept_unless_the_buyer_allows_it(fake_stripe: FakeStripe) -> None:
    topup = start()
    fake_stripe.pay(check_out(topup).session)
    arrived = STRIPE.look_up(topup=topup)
    assert isinstance(arrived, PaymentArrived)
    assert arrived.method is None


@pytest.mark.django_db
def test_a_saved_method_is_charged_without_the_buyer_and_once(fake_stripe: FakeStripe) -> None:
    topup, method = charged(fake_stripe, GOOD)
    first, second = (STRIPE.charge_saved(topup=topup, method=method) for _ in range(2))
    assert first == second
    assert isinstance(first, PaymentArrived)
    assert (first.reference, first.amount_cents) == (topup.provider_reference, 2500)
    assert len(fake_stripe.of_kind("payment_intent")) == 1
    assert topping_up.take(provider="stripe", payment=first, at=factories.now()).status == "paid"
    check_books(idle=True)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("number", "code", "message"),
    [
        (DECLINED_LATER, "insufficient_funds", "not enough money"),
        (ASKS_FOR_CONFIRMATION, "authentication_required", "wants you to confirm"),
    ],
)
def test_a_charge_that_the_bank_declines_says_why(
    fake_stripe: FakeStripe, number: str, code: str, message: str
) -> None:
    topup, method = charged(fake_stripe, number)
    with pytest.raises(ProviderRefused, match=message) as refused:
        STRIPE.charge_saved(topup=topup, method=method)
    assert refused.value.code == code
    assert isinstance(STRIPE.look_up(topup=topup), PaymentFailed)


@pytest.mark.django_db
def test_a_charge_whose_answer_was_lost_can_be_looked_up(fake_stripe: FakeStripe) -> None:
    topup, method = charged(fake_stripe, GOOD)
    assert isinstance(STRIPE.look_up(topup=topup), PaymentFailed)
    fake_stripe.fail_next("drop-after", times=3)
    with pytest.raises(ProviderAway):
        STRIPE.charge_saved(topup=topup, method=method)
    arrived = STRIPE.look_up(topup=topup)
    assert isinstance(arrived, PaymentArrived)
    # Asking for the charge again gets the answer that was lost.
    assert replace(arrived, method=None) == STRIPE.charge_saved(topup=topup, method=method)
    assert len(fake_stripe.of_kind("payment_intent")) == 1


@pytest.mark.django_db
@pytest.mark.parametrize("is_paid", [True, False])
def test_a_charge_that_a_bank_takes_days_over_is_answered_as_it_stands_now(
    fake_stripe: FakeStripe, is_paid: bool
) -> None:
    topup, method = charged(fake_stripe, SLOW_BANK)
    undecided = PaymentUndecided(topup.provider_reference)
    assert STRIPE.charge_saved(topup=topup, method=method) == undecided
    assert STRIPE.look_up(topup=topup) == undecided
    (intent,) = fake_stripe.of_kind("payment_intent")
    fake_stripe.settle_charge(intent["id"], is_paid=is_paid)
    decided = PaymentArrived if is_paid else PaymentFailed
    # Stripe itself repeats its first answer under the key, "processing", for a day.
    assert isinstance(STRIPE.charge_saved(topup=topup, method=method), decided)
    assert isinstance(STRIPE.look_up(topup=topup), decided)
    assert len(fake_stripe.of_kind("payment_intent")) == 1


@pytest.mark.django_db
def test_a_method_is_forgotten_and_forgetting_it_again_is_no_error(fake_stripe: FakeStripe) -> None:
    _topup, method = charged(fake_stripe, GOOD)
    STRIPE.forget_method(method=method)
    STRIPE.forget_method(method=method)
    assert fake_stripe.objects[method.method]["customer"] is None


@pytest.mark.django_db
def test_money_goes_back_once_for_each_reference(fake_stripe: FakeStripe) -> None:
    topup = start()
    session = fake_stripe.pay(check_out(topup).session)
    topup.provider_payment = session["payment_intent"]
    first, second = (STRIPE.refund(topup=topup, amount_cents=1000, reference="7") for _ in range(2))
    assert first == second
    assert (first.reference, first.payment, first.status) == ("7", session["payment_intent"], "succeeded")
    assert len(fake_stripe.of_kind("refund")) == 1
    with pytest.raises(ProviderRefused):
        STRIPE.refund(topup=topup, amount_cents=1501, reference="8")


@pytest.mark.django_db
def test_a_card_that_is_declined_on_the_page_leaves_it_open(fake_stripe: FakeStripe) -> None:
    topup = start()
    session = check_out(topup).session
    with pytest.raises(Refusal):
        fake_stripe.pay(session, DECLINED)
    assert STRIPE.look_up(topup=topup) == PaymentUndecided(topup.provider_reference)
    fake_stripe.pay(session)
    assert isinstance(STRIPE.look_up(topup=topup), PaymentArrived)


@pytest.mark.django_db
def test_a_customer_whom_stripe_has_forgotten_is_a_new_one(fake_stripe: FakeStripe) -> None:
    topup = start()
    topup.provider_customer = "cus_of_the_test_mode"
    first, second = check_out(topup), check_out(topup)
    assert first == second
    session = fake_stripe.objects[first.session]
    assert (session["customer"], session["customer_email"]) == (None, topup.account.name)


def test_no_call_lasts_longer_than_it_says_and_nobody_else_asks_for_so_long(settings: Settings) -> None:
    settings.STRIPE_SECRET_KEY = "sk_test_for_its_limits"
    requestor: Any = _client()._requestor
    connecting_s, waiting_s = requestor._get_http_client()._timeout
    retries = requestor._options.max_network_retries
    longest_s = (1 + retries) * (connecting_s + waiting_s) + retries * stripe.HTTPClient.MAX_DELAY
    assert longest_s == STRIPE.longest_call.total_seconds()
    # A run charges, and looks up what was refused.
    assert auto_topping_up.ASKING_LASTS.total_seconds() > 2 * longest_s


@pytest.mark.django_db
def test_a_charge_is_found_among_others_of_the_same_customer(fake_stripe: FakeStripe) -> None:
    first, method = charged(fake_stripe, GOOD)
    STRIPE.charge_saved(topup=first, method=method)
    second = topping_up.start(
        account=first.account,
        actor=None,
        credit_nanousd=30 * USD,
        provider="stripe",
        at=factories.now(),
        method=first.method,
    )
    assert isinstance(STRIPE.look_up(topup=second), PaymentFailed)
    STRIPE.charge_saved(topup=second, method=method)
    for topup, cents in ((first, 2500), (second, 3750)):
        arrived = STRIPE.look_up(topup=topup)
        assert isinstance(arrived, PaymentArrived)
        assert (arrived.reference, arrived.amount_cents) == (topup.provider_reference, cents)


@pytest.mark.django_db
def test_a_page_that_stripe_has_closed_is_refused(
    fake_stripe: FakeStripe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("billing.providers.stripe._page", lambda *_: SimpleNamespace(id="cs_1", url=None))
    with pytest.raises(ProviderRefused, match="closed this payment page") as refused:
        check_out(start())
    assert refused.value.code == "page_closed"


@pytest.mark.django_db
def test_who_buys_for_nobody_in_particular_is_asked_for_an_address(fake_stripe: FakeStripe) -> None:
    topup = start()
    topup.created_by = None
    check_out(topup)
    (session,) = fake_stripe.of_kind("checkout.session")
    assert not session.get("customer_email")


@pytest.mark.django_db
def test_a_method_that_may_not_be_forgotten_is_an_error(fake_stripe: FakeStripe, settings: Settings) -> None:
    _topup, method = charged(fake_stripe, GOOD)
    settings.STRIPE_SECRET_KEY = "sk_test_another"
    with pytest.raises(ProviderRefused):
        STRIPE.forget_method(method=method)
    assert fake_stripe.objects[method.method]["customer"] is not None


def test_a_request_that_stripe_is_still_busy_with_is_away_and_one_of_another_body_is_refused() -> None:
    busy = stripe.IdempotencyError("busy", http_status=409)
    with pytest.raises(ProviderAway, match="still busy"), _answered():
        raise busy
    other = stripe.IdempotencyError("other body", http_status=400)
    with pytest.raises(ProviderRefused), _answered():
        raise other


def test_a_dispute_that_is_only_asked_about_is_no_news() -> None:
    told = {"id": "evt_1", "type": "charge.dispute.created", "created": 1}
    inquiry = {"object": {"id": "du_1", "status": "warning_needs_response"}}
    assert stripe_objects.message_of({**told, "data": inquiry}).news is None
