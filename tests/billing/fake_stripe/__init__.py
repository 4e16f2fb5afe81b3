"""A Stripe of our own for tests: its API and payment page over a real socket, and webhooks signed as Stripe signs them.

    fake = FakeStripe(); fake.start(); …; fake.stop()        # or the fixture `fake_stripe` of tests/billing/conftest.py

The official library is pointed at `fake.url` with the key `fake.key`. What happens makes events, which are delivered
only when a test says so (`deliver`, `deliver_all`), unless `fake.delivers_at_once`. `fail_next` breaks requests.
"""

from tests.billing.fake_stripe.accounts import (
    ASKS_FOR_CONFIRMATION,
    DECLINED,
    DECLINED_LATER,
    GOOD,
    SLOW_BANK,
    Refusal,
)
from tests.billing.fake_stripe.server import FakeStripe

__all__ = [
    "ASKS_FOR_CONFIRMATION",
    "DECLINED",
    "DECLINED_LATER",
    "GOOD",
    "SLOW_BANK",
    "FakeStripe",
    "Refusal",
]
