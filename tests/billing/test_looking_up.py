"""Payments whose webhook never came: the provider is asked, in time and not too often."""

import datetime as dt

import pytest

from accounts.models import AuditEvent
from billing import looking_up, topping_up
from billing.models import TopUp, UnmatchedPayment, Wallet
from billing.tasks import payments
from tests.billing.fake_stripe import SLOW_BANK, FakeStripe
from tests.billing.paying import USD, check_out, start
from tests.concurrency import in_parallel
from tests.invariants import check_books

MINUTE = dt.timedelta(minutes=1)


def days(number: int) -> int:
    """In minutes."""
    return number * 24 * 60


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
@pytest.mark.parametrize(
    ("status", "expected"),
    [
        # Canceled, it may be paid at this moment; failed, nothing more is expected.
        ("canceled", [1, 20, 23 * 60, days(2), days(2) + 360, days(30) - 1]),
        ("failed", [1, 23 * 60, days(2), days(2) + 360, days(30) - 1]),
    ],
)
def test_what_is_over_is_asked_about_slowly_for_thirty_days_and_stays_over(
    fake_stripe: FakeStripe, status: str, expected: list[int]
) -> None:
    topup = start()
    fake_stripe.expire(check_out(topup).session)
    TopUp.objects.update(status=status)
    moments = (1, 5, 20, 23 * 60, days(2), days(2) + 359, days(2) + 360, days(30) - 1, days(30) + 360)
    assert [minutes for minutes in moments if looking_up.look_up_due(at=later(topup, minutes))] == expected
    topup.refresh_from_db()
    assert topup.status == status


@pytest.mark.django_db
@pytest.mark.parametrize("status", ["canceled", "failed"])
def test_a_debit_that_comes_after_the_end_is_credited_without_a_webhook(
    fake_stripe: FakeStripe, status: str
) -> None:
    topup = start()
    session = check_out(topup).session
    fake_stripe.pay(session, SLOW_BANK)
    TopUp.objects.update(status=status, failure="" if status == "canceled" else "Given up.")
    assert looking_up.look_up_due(at=later(topup, days(3))) == 1
    fake_stripe.settle(session, is_paid=True)
    assert looking_up.look_up_due(at=later(topup, days(5))) == 1
    topup.refresh_from_db()
    assert (topup.status, topup.failure) == ("paid", "")
    assert Wallet.objects.get(account=topup.account).balance_nanousd == 20 * USD
    check_books(idle=True)


@pytest.mark.django_db
def test_what_nobody_could_have_paid_is_not_asked_about(fake_stripe: FakeStripe) -> None:
    topup = start()
    topping_up.cancel(topup=topup, actor=None)
    assert looking_up.look_up_due(at=later(topup, days(1))) == 0


@pytest.mark.django_db
def test_what_waits_is_asked_about_before_what_is_over_and_what_is_over_takes_turns(
    fake_stripe: FakeStripe,
) -> None:
    over = [start(), start()]
    for topup in over:
        fake_stripe.expire(check_out(topup).session)
        topping_up.cancel(topup=topup, actor=None)
    waiting = start()
    fake_stripe.pay(check_out(waiting).session, SLOW_BANK)
    turns = []
    for minutes in (1, 2, 3):
        looking_up.look_up_due(at=later(waiting, minutes), limit=1)
        turns.append(TopUp.objects.exclude(looked_up_at=None).order_by("-looked_up_at")[0])
    assert turns == [waiting, *over]


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
    day = days(1)
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
def test_a_provider_that_is_gone_is_not_asked(fake_stripe: FakeStripe) -> None:
    topup = start()
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
