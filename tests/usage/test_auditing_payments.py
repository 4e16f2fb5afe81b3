"""What a provider has said was paid must be a paid top-up of the same amount."""

import datetime as dt

import pytest
from pytest_django import Settings

from billing import topping_up
from billing.models import TopUp, WebhookEvent
from tests import factories
from tests.usage.test_auditing_the_ledger import found, plant

pytestmark = pytest.mark.django_db
AT = dt.datetime(2026, 3, 4, 15, 30, tzinfo=dt.UTC)


@pytest.fixture(autouse=True)
def topup(settings: Settings) -> TopUp:
    """A payment of $25.00 that has arrived, as its event says."""
    settings.TOPUP_PROVIDERS = ["sandbox"]
    topup = topping_up.start(
        account=factories.make_account(), actor=None, credit_nanousd=20 * 10**9, provider="sandbox", at=AT
    )
    paid = topping_up.finish(
        provider="sandbox", reference=topup.provider_reference, paid_total_nanousd=topup.total_nanousd, at=AT
    )
    tell(topup)
    return paid


def tell(topup: TopUp, *, event: str = "evt_1", cents: int = 2500, outcome: str = "done") -> None:
    WebhookEvent.objects.create(
        provider=topup.provider,
        event=event,
        type="payment",
        news={
            "kind": "PaymentArrived",
            "reference": topup.provider_reference,
            "payment": "pay_1",
            "amount_cents": cents,
            "currency": "usd",
        },
        occurred_at=AT,
        outcome=outcome,
        processed_at=AT,
    )


def test_an_event_that_comes_twice_says_the_same(topup: TopUp) -> None:
    tell(topup, event="evt_2")
    assert found() == []


def test_an_event_that_fits_nothing_waits_for_a_person(topup: TopUp) -> None:
    tell(topup, event="evt_2", cents=1, outcome="unmatched")
    assert found() == []


@pytest.mark.parametrize(("hours", "is_found"), [(23, False), (25, True)])
def test_an_event_that_waits_for_longer_than_a_day_is_found(topup: TopUp, hours: int, is_found: bool) -> None:
    tell(topup, event="evt_2")
    plant("UPDATE billing_webhookevent SET outcome = 'waiting', processed_at = NULL WHERE event = 'evt_2'")
    WebhookEvent.objects.update(received_at=AT - dt.timedelta(hours=hours))
    assert (
        found()
        == [
            "sandbox event evt_2, payment: it has waited to be processed for more than a day, and the books lack it"
        ]
        * is_found
    )


def test_an_event_of_another_amount_is_found() -> None:
    plant("UPDATE billing_webhookevent SET news = jsonb_set(news, '{amount_cents}', '2499')")
    assert found() == [
        (
            "sandbox event evt_1 of payment pay_1: its top-up was paid with 25.000000000 USD,"
            " the event says 24.990000000 USD"
        )
    ]


def test_an_event_of_which_nothing_came_is_found() -> None:
    plant("UPDATE billing_webhookevent SET news = jsonb_set(news, '{reference}', '\"other\"')")
    assert found() == [
        "sandbox event evt_1 of payment pay_1: its top-up was paid with nothing, the event says 25.000000000 USD"
    ]
