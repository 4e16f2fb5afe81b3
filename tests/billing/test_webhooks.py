"""Webhooks over real HTTP, signed as Stripe signs them: what is believed."""

import json
import time

import pytest
from django.core.mail import EmailMessage
from django.test import Client
from pytest_django import Settings

from billing import webhooks
from billing.models import WebhookEvent
from billing.tasks import payments
from tests import factories
from tests.billing.fake_stripe import FakeStripe
from tests.billing.paying import USD, balance, paid_there
from tests.invariants import check_books

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_payment_that_is_reported_is_credited(telling_stripe: FakeStripe) -> None:
    topup = paid_there(telling_stripe)
    assert telling_stripe.deliver_all() == [200, 200]
    topup.refresh_from_db()
    assert topup.status == "paid"
    assert topup.provider_payment == telling_stripe.of_kind("payment_intent")[0]["id"]
    assert balance(topup) == 20 * USD
    assert list(WebhookEvent.objects.order_by("id").values_list("type", "outcome")) == [
        ("payment_intent.succeeded", "done"),
        ("checkout.session.completed", "done"),
    ]
    check_books(idle=True)


@pytest.mark.parametrize("secrets", [[], [""], [" "]])
def test_without_a_secret_nothing_is_believed(
    telling_stripe: FakeStripe, settings: Settings, secrets: list[str]
) -> None:
    topup = paid_there(telling_stripe)
    settings.STRIPE_WEBHOOK_SECRETS = secrets
    assert telling_stripe.deliver_all() == [503, 503]
    empty = telling_stripe.events[0]
    assert telling_stripe.deliver(empty, secret=" ") == 503
    assert not WebhookEvent.objects.exists()
    assert balance(topup) == 0


def test_while_a_secret_is_rotated_both_are_believed(telling_stripe: FakeStripe, settings: Settings) -> None:
    first, second = paid_there(telling_stripe), paid_there(telling_stripe)
    settings.STRIPE_WEBHOOK_SECRETS = ["whsec_new", telling_stripe.secret]
    assert telling_stripe.deliver(telling_stripe.events[0], secret="whsec_new") == 200
    assert telling_stripe.deliver(telling_stripe.events[2]) == 200
    assert (balance(first), balance(second)) == (20 * USD, 20 * USD)


def test_what_is_not_signed_with_our_secret_is_refused(telling_stripe: FakeStripe) -> None:
    topup = paid_there(telling_stripe)
    event = telling_stripe.events[0]
    body = json.dumps(event).encode()
    good = telling_stripe.signature(body)
    assert telling_stripe.deliver(event, secret="whsec_another") == 400
    assert telling_stripe.post(body, signature=None) == 400
    assert telling_stripe.post(body, signature="") == 400
    assert telling_stripe.post(body, signature="t=now,v1=abc") == 400
    assert telling_stripe.post(body, signature=good.replace("v1=", "v0=")) == 400
    # The signature is over the bytes: the same JSON written otherwise is not what was signed.
    assert telling_stripe.post(json.dumps(event, indent=1).encode(), signature=good) == 400
    assert telling_stripe.post(b"\xff\xfe", signature=good) == 400
    assert not WebhookEvent.objects.exists()
    assert balance(topup) == 0


def test_what_was_signed_more_than_five_minutes_ago_is_refused(telling_stripe: FakeStripe) -> None:
    paid_there(telling_stripe)
    event = telling_stripe.events[0]
    assert telling_stripe.deliver(event, at=time.time() - 310) == 400
    assert telling_stripe.deliver(event, at=time.time() - 290) == 200


@pytest.mark.parametrize("told", [[], "text", {}, {"livemode": False}, {"livemode": False, "type": 1}])
def test_what_is_no_event_is_refused_though_it_is_signed(telling_stripe: FakeStripe, told: object) -> None:
    body = json.dumps(told).encode()
    assert telling_stripe.post(body, signature=telling_stripe.signature(body)) == 400


@pytest.mark.parametrize(
    "change",
    [
        {"id": "evt_\0"},
        {"id": "evt_\ud800"},
        {"id": "e" * 121},
        {"type": "t" * 81},
        {"created": 10**30},
    ],
)
def test_an_event_that_cannot_be_kept_is_refused_though_it_is_signed(
    telling_stripe: FakeStripe, change: dict[str, object]
) -> None:
    paid_there(telling_stripe)
    event = telling_stripe.events[0]
    assert telling_stripe.deliver({**event, **change}) == 400
    for field in ({"currency": "us\0"}, {"id": "p" * 1001}):
        payment = {**event["data"]["object"], **field}
        assert telling_stripe.deliver({**event, "data": {"object": payment}}) == 400
    assert not WebhookEvent.objects.exists()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"amount_received": 10**30}, "It tells of an amount of 31 digits, which no books can hold."),
        ({"amount_received": -(10**30)}, "It tells of an amount of 31 digits, which no books can hold."),
        ({"currency": "dollars"}, "Its currency has a name of more than 3 characters."),
        ({"id": "p" * 121}, "Its payment has a name of more than 120 characters."),
    ],
)
def test_an_event_that_no_books_can_hold_is_told_to_the_operators_at_once(
    telling_stripe: FakeStripe,
    settings: Settings,
    mailoutbox: list[EmailMessage],
    change: dict[str, object],
    problem: str,
) -> None:
    settings.OPERATOR_EMAILS = ["operator@example.com"]
    topup = paid_there(telling_stripe)
    event = telling_stripe.events[0]
    payment = {**event["data"]["object"], **change}
    assert telling_stripe.deliver({**event, "data": {"object": payment}}) == 200
    waiting = WebhookEvent.objects.get()
    webhooks.process(event=waiting, at=factories.now())
    waiting.refresh_from_db()
    assert (waiting.outcome, waiting.problem) == ("waiting", problem)
    payments.mail_waiting_events()
    # Once, however often it is tried again.
    webhooks.process(event=waiting, at=factories.now())
    payments.mail_waiting_events()
    (mail,) = mailoutbox
    assert problem in mail.body
    assert balance(topup) == 0
    check_books(idle=True)


def test_play_money_does_not_become_credit_under_a_live_key(
    telling_stripe: FakeStripe, settings: Settings
) -> None:
    topup = paid_there(telling_stripe)
    settings.STRIPE_SECRET_KEY = "sk_live_1"
    assert telling_stripe.deliver_all() == [400, 400]
    assert balance(topup) == 0


def test_a_body_larger_than_any_event_is_refused(telling_stripe: FakeStripe) -> None:
    body = b" " * (256 * 1024 + 1)
    assert telling_stripe.post(body, signature=telling_stripe.signature(body)) == 413


def test_only_providers_have_an_address_and_only_for_a_post(client: Client, fake_stripe: FakeStripe) -> None:
    assert client.post("/billing/webhooks/shells/").status_code == 404
    assert client.get("/billing/webhooks/stripe/").status_code == 405
    assert client.post("/billing/webhooks/sandbox/").status_code == 503
