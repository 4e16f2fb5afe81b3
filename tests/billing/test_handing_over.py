"""A webhook is answered when it is recorded; the worker acts on it, and without the queue the process that took it."""

import time
from types import SimpleNamespace

import pytest
import time_machine
from celery.exceptions import OperationalError
from pytest_django import Settings
from redis.exceptions import ResponseError

from billing import webhooks
from billing.models import SavedPaymentMethod, TopUp, Wallet, WebhookEvent
from billing.tasks import payments
from config import celery
from tests import factories
from tests.billing.fake_stripe import FakeStripe
from tests.billing.paying import USD, check_out, start
from tests.invariants import check_books

pytestmark = pytest.mark.django_db(transaction=True)


def queued() -> list[dict[str, object]]:
    """The arguments of the tasks that were handed over, which are taken out of the queue."""
    found: list[dict[str, object]] = []
    with celery.app.connection_for_read() as connection:
        queue = connection.SimpleQueue("celery")
        while True:
            try:
                message = queue.get_nowait()
            except queue.Empty:
                return found
            message.ack()
            found.append(message.payload[1])


@pytest.fixture
def paid(telling_stripe: FakeStripe, monkeypatch: pytest.MonkeyPatch) -> TopUp:
    """A top-up that was paid at Stripe, which has not told us yet; what is handed over waits for a worker."""
    monkeypatch.setitem(celery.app.conf, "task_always_eager", False)
    topup = start(saves_method=True)
    telling_stripe.pay(check_out(topup).session)
    queued()  # what tests before this one handed over is nobody's here
    return topup


def test_a_webhook_is_answered_before_anything_is_done_about_it(
    telling_stripe: FakeStripe, paid: TopUp
) -> None:
    # Stripe is asked which card was left: it does not answer, and who reports to us does not wait for that.
    asked_before = len(telling_stripe.requests)
    assert telling_stripe.deliver(telling_stripe.events[0]) == 200
    event = WebhookEvent.objects.get()
    assert (event.outcome, event.attempts) == ("waiting", 0)
    assert len(telling_stripe.requests) == asked_before
    assert queued() == [{"event_id": event.pk}]
    payments.process_webhook(event_id=event.pk)
    assert Wallet.objects.get(account=paid.account_id).balance_nanousd == 20 * USD
    # Nor does the credit: it is there, and another task asks.
    assert len(telling_stripe.requests) == asked_before
    assert queued() == [{"event_id": event.pk}]
    payments.ask_about_webhook(event_id=event.pk)
    assert len(telling_stripe.requests) > asked_before
    event.refresh_from_db()
    assert (event.outcome, SavedPaymentMethod.objects.count()) == ("done", 1)
    # What was processed is not handed over again.
    assert telling_stripe.deliver(telling_stripe.events[0]) == 200
    assert queued() == []
    check_books(idle=True)


def test_a_message_that_the_queue_lost_is_made_good_by_the_sweep(
    telling_stripe: FakeStripe, paid: TopUp
) -> None:
    telling_stripe.deliver(telling_stripe.events[0])
    assert len(queued()) == 1
    assert webhooks.process_due(at=factories.now() + webhooks._FIRST_WAIT) == 1
    assert Wallet.objects.get(account=paid.account_id).balance_nanousd == 20 * USD


def test_the_credit_of_an_event_that_was_swept_waits_for_no_company_either(
    telling_stripe: FakeStripe, paid: TopUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    telling_stripe.deliver(telling_stripe.events[0])
    queued()
    asked_before = len(telling_stripe.requests)
    at = WebhookEvent.objects.get().due_at
    with time_machine.travel(at, tick=False):
        payments.process_webhooks()
    assert Wallet.objects.get(account=paid.account_id).balance_nanousd == 20 * USD
    assert (len(telling_stripe.requests), len(queued())) == (asked_before, 1)
    # The asking was lost: it is handed over again, and not before it may be taken for lost.
    assert webhooks.process_due(at=at + webhooks._ASKING_TAKES / 2) == 0

    def is_away(**_: object) -> None:
        raise OperationalError

    with time_machine.travel(at + webhooks._ASKING_TAKES, tick=False), monkeypatch.context() as away:
        away.setattr(payments, "ask_about_webhook", SimpleNamespace(apply_async=is_away))
        payments.process_webhooks()
    event = WebhookEvent.objects.get()
    assert (event.outcome, event.problem) == ("waiting", "")
    assert webhooks.process_due(at=at + 2 * webhooks._ASKING_TAKES) == 1
    assert (WebhookEvent.objects.get().outcome, SavedPaymentMethod.objects.count()) == ("done", 1)


def test_a_queue_that_takes_nothing_is_no_reason_to_be_told_again(
    telling_stripe: FakeStripe, paid: TopUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_full(**_: object) -> None:
        raise ResponseError

    monkeypatch.setattr(payments, "hand_over", is_full)
    assert telling_stripe.deliver(telling_stripe.events[0]) == 200
    assert WebhookEvent.objects.get().outcome == "waiting"


def test_while_the_queue_is_away_a_payment_is_credited_all_the_same(
    telling_stripe: FakeStripe, paid: TopUp, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(celery.app.conf, "broker_url", "redis://127.0.0.1:9/0")
    began = time.monotonic()
    assert telling_stripe.deliver(telling_stripe.events[0]) == 200
    assert time.monotonic() - began < 15
    assert Wallet.objects.get(account=paid.account_id).balance_nanousd == 20 * USD
