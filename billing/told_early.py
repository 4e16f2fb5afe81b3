"""Refunds and disputes that were told of before their payment was known here: they are taken up when it is.

A payment may be credited days after it came, by an operator. What has become of it meanwhile was told once, and a
company does not tell it again.
"""

import datetime as dt

from django.db.models import QuerySet
from django.db.models.fields.json import KT

from billing.models import TopUp, WebhookEvent

_KINDS = ("RefundChanged", "DisputeChanged")
_UNDONE = (WebhookEvent.Outcome.WAITING, WebhookEvent.Outcome.IGNORED)


def events(*, provider: str, payment: str) -> QuerySet[WebhookEvent]:
    """What a company (its slug) has told of the payment's refunds and disputes and nothing has come of, in order.

    What an operator has closed is not among it.
    """
    return _told(provider, payment).filter(closed_at=None)


def closed(*, provider: str, payment: str) -> QuerySet[WebhookEvent]:
    """What an operator has closed of it: nothing comes of that any more."""
    return _told(provider, payment).filter(closed_at__isnull=False)


def is_too_early(event: WebhookEvent) -> bool:
    """Whether it tells of a refund or a dispute of a payment that is not known here, and may be none of ours."""
    news = event.news or {}
    if news.get("kind") not in _KINDS:
        return False
    return not (news.get("payment") and _is_known(event.provider, news["payment"]))


def take_up(*, provider: str, payment: str, at: dt.datetime) -> None:
    """Have them processed now: the payment is known. In the transaction that makes it known, or right after it."""
    events(provider=provider, payment=payment).update(
        outcome=WebhookEvent.Outcome.WAITING, processed_at=None, due_at=at
    )


def let_go(*, provider: str, payment: str, at: dt.datetime) -> None:
    """Nothing will come of it: an operator has closed the payment, and it was not credited.

    Where it is credited after all, it is taken up again.
    """
    if not _is_known(provider, payment):
        events(provider=provider, payment=payment).filter(outcome=WebhookEvent.Outcome.WAITING).update(
            outcome=WebhookEvent.Outcome.IGNORED, processed_at=at
        )


def _told(provider: str, payment: str) -> QuerySet[WebhookEvent]:
    told = WebhookEvent.objects.alias(of_payment=KT("news__payment")).filter(
        provider=provider, of_payment=payment, news__kind__in=_KINDS, outcome__in=_UNDONE
    )
    return told.order_by("occurred_at", "pk")


def _is_known(provider: str, payment: str) -> bool:
    return TopUp.objects.filter(
        provider=provider, provider_payment=payment, status=TopUp.Status.PAID
    ).exists()
