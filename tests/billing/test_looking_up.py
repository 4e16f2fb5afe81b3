"""Payments whose webhook never came: the provider is asked, in time and not too often."""

import datetime as dt

import pytest

from accounts.models import AuditEvent
from billing import looking_up, topping_up
from billing.models import TopUp, UnmatchedPayment, Wallet
from billing.tasks import payments
from tests import factories
from tests.billing.fake_stripe import SLOW_BANK, FakeStripe
from tests.billing.paying import USD, check_out, start
from tests.concurrency import in_parallel
from tests.invariants import check_books

MINUTE = dt.timedelta(minutes=1)


def later(topup: TopUp, minutes: int) -> dt.datetime:
    return topup.created_at + minutes * MINUTE


@pytest.mark.django_db
def test_a_payment_whose_webhook_never_came_is_credited(fake_stripe: FakeStripe) -> None:
    topup = start()
    fake_stripe.pay(check_out(topup).session)
    assert looking_up.look_up_due(at=topup.created_at) == 0
    assert looking_up.look_up_due(at=later(topup, 1)) == 1
    assert Wallet.objects.get(account=topup.account).balance_nanousd == 20 * USD
    assert looking_up.look_up_due(at=later(topup, 30)) == 0
    check_books(idle=True)


@pytest.mark.django_db
def test_a_canceled_top_up_that_was_paid_all_the_same_is_credited(fake_stripe: FakeStripe) -> None:
    topup = start()
    fake_stripe.pay(check_out(topup).session)
    topping_up.cancel(topup=topup, actor=None)
    assert looking_up.look_up_due(at=later(topup, 1)) == 1
    assert Wallet.objects.get(account=topup.account).balance_nanousd == 20 * USD
    check_books(idle=True)


@pytest.mark.django_db
def test_a_canceled_top_up_is_asked_about_for_a_day_and_stays_canceled(fake_stripe: FakeStripe) -> None:
    topup = start()
    fake_stripe.expire(check_out(topup).session)
    topping_up.cancel(topup=topup, actor=None)
    assert looking_up.look_up_due(at=later(topup, 24 * 60 - 1)) == 1
    assert looking_up.look_up_due(at=later(topup, 24 * 60 + 30)) == 0
    topup.refresh_from_db()
    assert topup.status == "canceled"


@pytest.mark.django_db
def test_a_page_that_ran_out_is_given_up(fake_stripe: FakeStripe) -> None:
    topup = start()
    fake_stripe.expire(check_out(topup).session)
    looking_up.look_up_due(at=later(topup, 121))
    topup.refresh_from_db()
    assert (topup.status, topup.failure) == ("failed", "The payment page ran out before anything was paid.")
    assert AuditEvent.objects.filter(action="topup.failed", subject_id=str(topup.pk)).count() == 1


@pytest.mark.django_db
def test_a_page_that_was_never_made_is_given_up_after_half_an_hour(fake_stripe: FakeStripe) -> None:
    topup = start()
    assert looking_up.look_up_due(at=later(topup, 29)) == 0
    looking_up.look_up_due(at=later(topup, 30))
    topup.refresh_from_db()
    assert (topup.status, topup.failure) == ("failed", "The payment page was never opened.")


@pytest.mark.django_db
def test_what_is_not_decided_is_asked_for_every_ten_minutes_and_later_every_six_hours(
    fake_stripe: FakeStripe,
) -> None:
    topup = start()
    fake_stripe.pay(check_out(topup).session, SLOW_BANK)
    day = 24 * 60
    asked = [
        minutes
        for minutes in (1, 5, 10, 11, 21, day - 1, day + 15, day + 300, day + 361)
        if looking_up.look_up_due(at=later(topup, minutes))
    ]
    assert asked == [1, 11, 21, day - 1, day + 361]
    topup.refresh_from_db()
    assert topup.status == "pending"


@pytest.mark.django_db
def test_a_stripe_that_is_away_is_asked_again(fake_stripe: FakeStripe) -> None:
    topup = start()
    fake_stripe.pay(check_out(topup).session)
    fake_stripe.fail_next("500", times=3)
    looking_up.look_up_due(at=later(topup, 1))
    topup.refresh_from_db()
    assert topup.status == "pending"
    looking_up.look_up_due(at=later(topup, 11))
    topup.refresh_from_db()
    assert topup.status == "paid"


@pytest.mark.django_db
def test_an_answer_that_does_not_fit_is_kept_for_the_operators(fake_stripe: FakeStripe) -> None:
    topup = start()
    session = fake_stripe.pay(check_out(topup).session)
    session["amount_total"] = 100
    looking_up.look_up_due(at=later(topup, 1))
    assert UnmatchedPayment.objects.get().amount_cents == 100
    topup.refresh_from_db()
    assert topup.status == "pending"


@pytest.mark.django_db
def test_what_auto_top_up_charges_is_left_to_it(fake_stripe: FakeStripe) -> None:
    topup = start()
    TopUp.objects.update(origin=TopUp.Origin.AUTOMATIC)
    assert looking_up.look_up_due(at=later(topup, 60)) == 0


@pytest.mark.django_db
def test_the_sandbox_and_unknown_providers_are_left_alone(fake_stripe: FakeStripe) -> None:
    account = factories.make_account()
    topup = topping_up.start(
        account=account, actor=None, credit_nanousd=20 * USD, provider="sandbox", at=factories.now()
    )
    looking_up.look_up(topup=topup, at=later(topup, 40))
    topup.provider = "gone"
    looking_up.look_up(topup=topup, at=later(topup, 40))
    topup.refresh_from_db()
    assert topup.status == "pending"


@pytest.mark.django_db(transaction=True)
def test_sweeps_at_once_ask_once_and_credit_once(fake_stripe: FakeStripe) -> None:
    topup = start()
    fake_stripe.pay(check_out(topup).session)
    asked = in_parallel(lambda _number: looking_up.look_up_due(at=later(topup, 1)), times=4)
    assert sum(asked) == 1
    assert Wallet.objects.get(account=topup.account).balance_nanousd == 20 * USD
    check_books(idle=True)


@pytest.mark.django_db
def test_the_tasks_do_what_is_due(fake_stripe: FakeStripe) -> None:
    topup = start()
    fake_stripe.pay(check_out(topup).session)
    TopUp.objects.update(created_at=later(topup, -5))
    payments.look_up_payments()
    payments.process_webhooks()
    topup.refresh_from_db()
    assert topup.status == "paid"
