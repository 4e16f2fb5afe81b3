"""E-mails about money that goes back, to the account and to the operators, and what waits for them.

Sent outside every transaction. All raise mailing.SendingErrors.
"""

import datetime as dt

from django.conf import settings
from django.urls import reverse

from accounts import mailing
from billing import told_early
from billing.models import Dispute, Refund, WebhookEvent
from billing.refunding import ASK_FOR
from catalog.money import usd_from_nano

_DISPUTE = {
    Dispute.Status.OPEN: "is disputed",
    Dispute.Status.WON: "is disputed no longer",
    Dispute.Status.LOST: "was taken back by the bank",
}


def send_refund(*, refund: Refund) -> None:
    """Tell the account of money that is back."""
    if refund.status == Refund.Status.SUCCEEDED:
        mailing.send(
            subject=f"{_amount(refund.total_nanousd)} was given back to you",
            template="billing/mail/refund.txt",
            context=_of_refund(refund),
            to=mailing.recipients(account=refund.account),
        )


def send_refund_to_operators(*, refund: Refund, at: dt.datetime) -> None:
    """Tell the operators of what went wrong, was not made here, or is on its way for too long."""
    amount, is_stuck = _amount(refund.total_nanousd), _is_stuck(refund, at)
    if refund.status == Refund.Status.FAILED:
        subject = f"A refund of {amount} failed"
    elif is_stuck:
        subject = f"A refund of {amount} is still on its way"
    else:
        subject = f"{amount} was refunded at the payment company"
    mailing.send(
        subject=subject,
        template="billing/mail/refund_operator.txt",
        context={**_of_refund(refund), "is_stuck": is_stuck},
        to=settings.OPERATOR_EMAILS,
    )


def operators_again_at(*, refund: Refund, at: dt.datetime) -> dt.datetime | None:
    """When the operators hear once more of a refund that they were told of: if it is still on its way by then."""
    is_young = refund.status == Refund.Status.PENDING and not _is_stuck(refund, at)
    return refund.created_at + ASK_FOR if is_young else None


def send_dispute(*, dispute: Dispute) -> None:
    """Tell the account how a dispute stands."""
    mailing.send(
        subject=_of_dispute(dispute),
        template="billing/mail/dispute.txt",
        context={
            "dispute": dispute,
            "receipt_url": mailing.public_url(reverse("billing:receipt", args=[dispute.topup_id])),
        },
        to=mailing.recipients(account=dispute.account),
    )


def send_dispute_to_operators(*, dispute: Dispute) -> None:
    """Tell the operators how a dispute stands, and until when it can be answered."""
    mailing.send(
        subject=_of_dispute(dispute),
        template="billing/mail/dispute_operator.txt",
        context={
            "dispute": dispute,
            "admin_url": mailing.public_url(reverse("admin:billing_dispute_change", args=[dispute.pk])),
        },
        to=settings.OPERATOR_EMAILS,
    )


def send_waiting_events(*, events: list[WebhookEvent]) -> None:
    """Tell the operators of webhooks that could not be processed for a day, and what stands in the way."""
    mailing.send(
        subject=f"{len(events)} webhook event{'s' if len(events) > 1 else ''} could not be processed",
        template="billing/mail/waiting_events.txt",
        context={
            "too_early": [event for event in events if told_early.is_too_early(event)],
            "stuck": [event for event in events if not told_early.is_too_early(event)],
            "page": mailing.public_url(reverse("admin:billing_webhookevent_changelist")),
        },
        to=settings.OPERATOR_EMAILS,
    )


def _amount(nanousd: int) -> str:
    return f"${usd_from_nano(nanousd):,.2f}"


def _is_stuck(refund: Refund, at: dt.datetime) -> bool:
    return refund.status == Refund.Status.PENDING and refund.created_at + ASK_FOR <= at


def _of_refund(refund: Refund) -> dict[str, object]:
    return {
        "refund": refund,
        "receipt_url": mailing.public_url(reverse("billing:receipt", args=[refund.topup_id])),
        "admin_url": mailing.public_url(reverse("admin:billing_refund_change", args=[refund.pk])),
    }


def _of_dispute(dispute: Dispute) -> str:
    return f"A payment of {_amount(dispute.amount_nanousd)} {_DISPUTE[Dispute.Status(dispute.status)]}"
