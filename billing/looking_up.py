"""Top-ups whose payment was never reported: their provider is asked what became of it.

Also of those that are over here. A page may have been paid although the buyer had turned back, and a provider's first
word is not always its last: money that comes so late is credited, also where no webhook tells of it.
"""

import datetime as dt
import logging

from django.db.models import F, Q, QuerySet

from billing import topping_up, unmatched
from billing.models import TopUp
from billing.providers import offering
from billing.providers.provider import (
    PaymentArrived,
    PaymentFailed,
    ProviderAway,
    ProviderRefused,
)

logger = logging.getLogger(__name__)

# A webhook takes seconds. Where there is no page yet, the form may be sent again and make it.
_FIRST_LOOK = dt.timedelta(minutes=1)
_FIRST_LOOK_WITHOUT_A_PAGE = dt.timedelta(minutes=30)
_NEXT_LOOK = dt.timedelta(minutes=10)
# A bank debit may take days, and of what has failed nothing more is expected.
_SLOW_LOOK = dt.timedelta(hours=6)
_DAY = dt.timedelta(days=1)
# What is over is asked about for so long; the slowest debits are decided by then.
_CLOSED_FOR = dt.timedelta(days=30)


def look_up_due(*, at: dt.datetime, limit: int = 50) -> int:
    """Ask about the top-ups that are due, and finish or give up those that are decided.

    That is those that wait, and then, for 30 days, those that were canceled or have failed and could have been paid.

    Returns how many were asked about. Each is claimed, so that two sweeps ask about different ones.
    """
    asked = 0
    due = list(_waiting(at).select_related("method")[:limit])
    due += _closed(at).select_related("method")[: limit - len(due)]
    for topup in due:
        claim = TopUp.objects.filter(pk=topup.pk, looked_up_at=topup.looked_up_at)
        if claim.update(looked_up_at=at):
            asked += 1
            look_up(topup=topup, at=at)
    return asked


def look_up(*, topup: TopUp, at: dt.datetime) -> None:
    """Ask about one top-up. What is not decided, or its provider will not say, is asked again later."""
    provider = offering.named(slug=topup.provider)
    if provider is None:
        return
    try:
        news = provider.look_up(topup=topup)
    except (ProviderAway, ProviderRefused) as problem:
        logger.warning("could not ask %s about %s: %s", topup.provider, topup, problem)
        return
    match news:
        case PaymentArrived():
            try:
                paid = topping_up.take(provider=topup.provider, payment=news, at=at)
            except unmatched.REASONS as problem:
                unmatched.note(provider=topup.provider, payment=news, why=str(problem), event=None, at=at)
            else:
                unmatched.found(topup=paid, at=at)
        case PaymentFailed(message=message):
            topping_up.give_up(provider=topup.provider, reference=topup.provider_reference, message=message)


def _waiting(at: dt.datetime) -> QuerySet[TopUp]:
    # Auto top-up asks about its own, and may still ask for the charge itself.
    waiting = TopUp.objects.filter(status=TopUp.Status.PENDING).exclude(origin=TopUp.Origin.AUTOMATIC)
    return waiting.filter(_never_asked(at) | _asked_soon_before(at) | _asked_long_before(at)).order_by(
        "created_at"
    )


def _closed(at: dt.datetime) -> QuerySet[TopUp]:
    """Those whose turn is longest ago come first: where there are too many for one sweep, all get theirs."""
    closed = TopUp.objects.filter(
        status__in=[TopUp.Status.CANCELED, TopUp.Status.FAILED], created_at__gt=at - _CLOSED_FOR
    ).exclude(checkout_session="", method=None)
    soon = _asked_soon_before(at) & Q(status=TopUp.Status.CANCELED)
    return closed.filter(_never_asked(at) | soon | _asked_long_before(at)).order_by(
        F("looked_up_at").asc(nulls_first=True), "pk"
    )


def _never_asked(at: dt.datetime) -> Q:
    return Q(looked_up_at=None) & (
        Q(created_at__lte=at - _FIRST_LOOK_WITHOUT_A_PAGE)
        | (Q(created_at__lte=at - _FIRST_LOOK) & ~Q(checkout_session=""))
    )


def _asked_soon_before(at: dt.datetime) -> Q:
    return Q(looked_up_at__lte=at - _NEXT_LOOK, created_at__gt=at - _DAY)


def _asked_long_before(at: dt.datetime) -> Q:
    return Q(looked_up_at__lte=at - _SLOW_LOOK)
