"""Fixtures of the tests of money."""

from collections.abc import Iterator

import pytest
import stripe
from pytest_django import Settings
from pytest_django.live_server_helper import LiveServer

from config import celery
from tests.billing.fake_stripe import FakeStripe


@pytest.fixture(autouse=True)
def _sandbox_payments(settings: Settings) -> None:
    settings.TOPUP_PROVIDERS = ["sandbox"]


@pytest.fixture
def fake_stripe(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeStripe]:
    """A Stripe that runs, with which this installation is set up. Its webhooks need `webhook_url`."""
    # The library waits between its attempts; nothing is won by that here.
    monkeypatch.setattr(stripe.HTTPClient, "INITIAL_DELAY", 0)
    monkeypatch.setattr(stripe.HTTPClient, "MAX_DELAY", 0)
    fake = FakeStripe().start()
    settings.TOPUP_PROVIDERS = ["stripe", "sandbox"]
    settings.STRIPE_SECRET_KEY = fake.key
    settings.STRIPE_WEBHOOK_SECRETS = [fake.secret]
    settings.STRIPE_API_URL = fake.url
    yield fake
    fake.stop()


@pytest.fixture
def telling_stripe(
    fake_stripe: FakeStripe, live_server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> FakeStripe:
    """`fake_stripe`, whose webhooks reach a server of ours over HTTP. What it hands to the worker is done at once."""
    monkeypatch.setitem(celery.app.conf, "task_always_eager", True)
    fake_stripe.webhook_url = f"{live_server.url}/billing/webhooks/stripe/"
    return fake_stripe
