"""Refunds that stay on their way, however they came to."""

import datetime as dt

from billing import looking_up, refunding
from billing.models import Refund, TopUp
from tests import factories
from tests.billing.fake_stripe import FakeStripe
from tests.billing.paying import USD, check_out, start
from tests.billing.test_refunding import refund

HOUR = dt.timedelta(hours=1)
DAY = 24 * HOUR


def paid_at_stripe(fake_stripe: FakeStripe) -> TopUp:
    """A top-up of 20 USD at 25 % that was paid at Stripe."""
    topup = start()
    fake_stripe.pay(check_out(topup).session)
    looking_up.look_up(topup=topup, at=factories.now())
    topup.refresh_from_db()
    return topup


def begun(topup: TopUp, *, at: dt.datetime, reference: str = "r-1") -> Refund:
    """A refund of $8 whose process died before it asked."""
    return refunding.start(
        topup=topup,
        credit_nanousd=8 * USD,
        reason="unused",
        actor=topup.account.members.get(),
        reference=reference,
        at=at,
    )


def lost(topup: TopUp, fake: FakeStripe) -> Refund:
    """A refund of $8 that Stripe has made, a day ago, and of which no answer ever came."""
    fake.fail_next("drop-after", path="/v1/refunds", times=3)
    made = refund(topup, usd="8", at=factories.now() - DAY)
    assert (made.status, made.provider_refund) == ("pending", None)
    Refund.objects.update(asked_at=factories.now() - DAY)
    made.refresh_from_db()
    return made
