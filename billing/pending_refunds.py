"""Refunds that stay on their way: their company is asked what became of them, for as long as it takes.

A webhook may be lost, and a reference is forgotten after a day. From then on nothing is asked for by itself: only a
person can say whether money that somebody may have given back by hand should go out now.
"""

import datetime as dt
import enum
import logging

from django.db.models import Q, QuerySet
from django.db.models.functions import Coalesce

from accounts import auditing
from accounts.models import User
from billing import refunding
from billing.models import Refund
from billing.providers import offering
from billing.providers.provider import ProviderAway, ProviderRefused

logger = logging.getLogger(__name__)

# Of a refund that the company has named and may still tell of; and of whatever is on its way for longer than ASK_FOR.
LOOK_EVERY = dt.timedelta(hours=1)
LOOK_EVERY_LATER = dt.timedelta(hours=6)
# A call that asks for a refund has ended by then, however it ends.
_ASKING_LASTS = dt.timedelta(minutes=5)


class NotGivenUp(Exception):
    """The refund stays on its way; the message tells the operator why."""


class Answer(enum.Enum):
    """What a company says of a refund."""

    KNOWN = "it knows the refund"
    UNKNOWN = "it knows nothing of the refund"
    NONE = "it gives no answer"


def stuck(*, at: dt.datetime) -> QuerySet[Refund]:
    """The refunds that are on their way for longer than they are asked for."""
    return Refund.objects.filter(status=Refund.Status.PENDING, created_at__lte=at - refunding.ASK_FOR)


def claim(*, at: dt.datetime) -> Refund | None:
    """A refund to be looked up, claimed so that two sweeps look up different ones; None: there is none.

    One that is young and that the company has not named is asked for: `refunding.claim_unanswered`.
    """
    is_old = Q(created_at__lte=at - refunding.ASK_FOR)
    pending = Refund.objects.filter(status=Refund.Status.PENDING).alias(
        looked_at=Coalesce("looked_up_at", "created_at")
    )
    due = pending.filter(
        Q(is_old, looked_at__lte=at - LOOK_EVERY_LATER)
        | Q(~is_old, provider_refund__isnull=False, looked_at__lte=at - LOOK_EVERY)
    )
    for refund_id, looked_up_at in due.order_by("looked_at").values_list("pk", "looked_up_at")[:10]:
        if Refund.objects.filter(pk=refund_id, looked_up_at=looked_up_at).update(looked_up_at=at):
            return Refund.objects.select_related("topup").get(pk=refund_id)
    return None


def look_up(*, refund: Refund, at: dt.datetime) -> Answer:
    """Ask the company what became of a refund, and bring the books there. Not inside a transaction."""
    provider = offering.named(slug=refund.topup.provider)
    if provider is None:
        logger.error("%s: no provider %s to ask", refund, refund.topup.provider)
        return Answer.NONE
    try:
        news = provider.find_refund(
            topup=refund.topup, reference=refund.reference, refund=refund.provider_refund or ""
        )
    except (ProviderAway, ProviderRefused) as problem:
        logger.warning("could not ask %s about %s: %s", provider.slug, refund, problem)
        return Answer.NONE
    if news is None:
        logger.warning("%s knows nothing of %s, which is on its way", provider.slug, refund)
        return Answer.UNKNOWN
    try:
        refunding.hear(provider=provider.slug, news=news, at=at)
    except refunding.RefundDiffers:
        logger.exception("%s stays on its way", refund)
    return Answer.KNOWN


def ask_again(*, refund: Refund, actor: User, at: dt.datetime) -> Refund:
    """Look a refund up, and ask for it again under its reference where the company knows nothing of it."""
    auditing.record(
        account=refund.account_id,
        actor=actor,
        action="refund.asked_again",
        subject_type="refund",
        subject_id=refund.pk,
    )
    answer = look_up(refund=refund, at=at)
    # Whoever sets `asked_at` asks. What was named, or was not made here, is not ours to ask for.
    unnamed = Refund.objects.filter(
        pk=refund.pk, status=Refund.Status.PENDING, provider_refund=None, asked_at=refund.asked_at
    )
    if answer is Answer.UNKNOWN and unnamed.exclude(asked_at=None).update(asked_at=at):
        refunding.ask(refund=refund, at=at)
    return Refund.objects.get(pk=refund.pk)


def give_up(*, refund: Refund, actor: User, at: dt.datetime) -> Refund:
    """Give the credit of a refund back that was not made: only where the company says that it knows nothing of it.

    Raises NotGivenUp.
    """
    if refund.asked_at is None:
        msg = "It was made at the payment company, and only the company ends it."
        raise NotGivenUp(msg)
    if refund.created_at > at - refunding.ASK_FOR or refund.asked_at > at - _ASKING_LASTS:
        msg = "The payment company is still being asked for it. Try again later, or look it up now."
        raise NotGivenUp(msg)
    answer = look_up(refund=refund, at=at)
    if answer is not Answer.UNKNOWN:
        msg = f"The payment company was asked: {answer.value}. The credit is not given back."
        raise NotGivenUp(msg)
    message = "It was not made: the payment company knows nothing of it."
    try:
        return refunding.give_up(refund=refund, actor=actor, message=message, at=at)
    except refunding.NotAsItWas as changed:
        msg = "Meanwhile it was asked for again, or the payment company has spoken of it. The credit is not given back."
        raise NotGivenUp(msg) from changed
