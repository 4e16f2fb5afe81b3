"""Refunds and disputes that were told of before their payment was known here: they are taken up when it is.

A payment may be credited days after it came, by an operator. What has become of it meanwhile was told once, and a
company does not tell it again.
"""

import datetime as dt

from django.db.models import QuerySet
from django.db.models.fields.json import KT

from billing.models import WebhookEvent

_KINDS = ("RefundChanged", "DisputeChanged")
_UNDONE = (WebhookEvent.Outcome.WAITING, WebhookEvent.Outcome.IGNORED)


def events(*, provider: str, payment: str) -> QuerySet[WebhookEvent]:
    """What a company (its slug) has told of the payment's refunds and disputes and nothing has come of, in order."""
    told = WebhookEvent.objects.alias(of_payment=KT("news__payment")).filter(
        provider=provider, of_payment=payment, news__kind__in=_KINDS, outcome__in=_UNDONE
    )
    return told.order_by("occurred_at", "pk")


def take_up(*, provider: str, payment: str, at: dt.datetime) -> None:
    """Have them processed now: the payment is known. In the transaction that makes it known, or right after it."""
    events(provider=provider, payment=payment).update(
        outcome=WebhookEvent.Outcome.WAITING, processed_at=None, due_at=at
    )
