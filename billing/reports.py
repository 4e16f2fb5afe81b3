"""What payment providers have said of payments that came: the evidence for what was credited."""

import datetime as dt

from billing.models import PaymentReport
from billing.providers.provider import PaymentArrived


def keep(*, provider: str, payment: PaymentArrived, at: dt.datetime) -> None:
    """Write down what a provider (its slug) says, before it is acted on; a repeat of it does nothing."""
    PaymentReport.objects.get_or_create(
        provider=provider,
        payment=payment.payment or payment.reference,
        reference=payment.reference,
        amount_cents=payment.amount_cents,
        currency=payment.currency,
        defaults={"said_at": at},
    )
