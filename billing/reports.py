"""What payment providers have said of payments that came, and of refunds: the evidence for what was booked."""

import datetime as dt

from billing.models import PaymentReport, RefundReport
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


def keep_refund(*, reference: str, refund: str, status: str, at: dt.datetime) -> None:
    """Write down how a refund stands by its provider, in the transaction that brings the books there.

    `reference` is ours, `refund` the provider's name for it. A repeat does nothing.
    """
    RefundReport.objects.get_or_create(
        reference=reference, refund=refund, status=status, defaults={"said_at": at}
    )
