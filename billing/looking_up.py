"""Top-ups whose payment was never reported: their provider is asked what became of it."""

import datetime as dt
import logging

from django.db.models import Q, QuerySet

from billing import topping_up, unmatched
from billing.models import TopUp
from billing.providers import offering
from billing.providers.provider import PaymentArrived, PaymentFailed, ProviderAway, ProviderRefused

logger = logging.getLogger(__name__)

# A webhook takes seconds. Where there is no page yet, the form may be sent again and make it.
_FIRST_LOOK = dt.timedelta(minutes=1)
_FIRST_LOOK_WITHOUT_A_PAGE = dt.timedelta(minutes=30)
_NEXT_LOOK = dt.timedelta(minutes=10)
# A bank debit may take days.
_NEXT_LOOK_AFTER_A_DAY = dt.timedelta(hours=6)
_DAY = dt.timedelta(days=1)


def look_up_due(*, at: dt.datetime, limit: int = 50) -> int:
    """Ask about the top-ups that are due, and finish or give up those that are decided.

    That is those that wait, and for a day those that were canceled: their page was open, and may have been paid all the
    same.

    Returns how many were asked about. Each is claimed, so that two sweeps ask about different ones.
    """
    asked = 0
    for topup in _due(at).select_related("method")[:limit]:
        claim = TopUp.objects.filter(pk=topup.pk, looked_up_at=topup.looked_up_at)
        if claim.update(looked_up_at=at):
            asked += 1
            look_up(topup=topup, at=at)
    return asked


def look_up(*, topup: TopUp, at: dt.datetime) -> None:
    """Ask about one top-up. A provider that is away, or will not say, is asked again later."""
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
        case None:
            pass


def _due(at: dt.datetime) -> QuerySet[TopUp]:
    never_asked = Q(looked_up_at=None) & (
        Q(created_at__lte=at - _FIRST_LOOK_WITHOUT_A_PAGE)
        | (Q(created_at__lte=at - _FIRST_LOOK) & ~Q(checkout_session=""))
    )
    asked_before = Q(looked_up_at__lte=at - _NEXT_LOOK) & (
        Q(created_at__gt=at - _DAY) | Q(looked_up_at__lte=at - _NEXT_LOOK_AFTER_A_DAY)
    )
    canceled = Q(status=TopUp.Status.CANCELED, created_at__gt=at - _DAY) & ~Q(checkout_session="")
    # Auto top-up asks about its own, and may still ask for the charge itself.
    waiting = TopUp.objects.filter(Q(status=TopUp.Status.PENDING) | canceled)
    waiting = waiting.exclude(origin=TopUp.Origin.AUTOMATIC)
    return waiting.filter(never_asked | asked_before).order_by("created_at")
