"""E-mails about money that goes back: to the account, and to the operators. Sent outside every transaction."""

from django.conf import settings
from django.urls import reverse

from accounts import mailing
from billing.models import Dispute, Refund
from catalog.money import usd_from_nano


def send_refund(*, refund: Refund) -> None:
    """Tell the account of money that is back, and the operators of what went wrong or was not made here.

    Raises mailing.SendingErrors.
    """
    context: dict[str, object] = {
        "refund": refund,
        "receipt_url": mailing.public_url(reverse("billing:receipt", args=[refund.topup_id])),
        "admin_url": mailing.public_url(reverse("admin:billing_refund_change", args=[refund.pk])),
    }
    amount = f"${usd_from_nano(refund.total_nanousd):,.2f}"
    is_ours = refund.asked_at is not None
    if refund.status == Refund.Status.FAILED or not is_ours:
        mailing.send(
            subject=f"A refund of {amount} failed"
            if refund.status == Refund.Status.FAILED
            else f"{amount} was refunded at the payment company",
            template="billing/mail/refund_operator.txt",
            context=context,
            to=settings.OPERATOR_EMAILS,
        )
    if refund.status == Refund.Status.SUCCEEDED:
        mailing.send(
            subject=f"{amount} was given back to you",
            template="billing/mail/refund.txt",
            context=context,
            to=mailing.recipients(account=refund.account),
        )


def send_dispute(*, dispute: Dispute) -> None:
    """Tell the operators and the account how a dispute stands. Raises mailing.SendingErrors."""
    what = {
        Dispute.Status.OPEN: "is disputed",
        Dispute.Status.WON: "is disputed no longer",
        Dispute.Status.LOST: "was taken back by the bank",
    }[Dispute.Status(dispute.status)]
    subject = f"A payment of ${usd_from_nano(dispute.amount_nanousd):,.2f} {what}"
    context: dict[str, object] = {
        "dispute": dispute,
        "receipt_url": mailing.public_url(reverse("billing:receipt", args=[dispute.topup_id])),
        "admin_url": mailing.public_url(reverse("admin:billing_dispute_change", args=[dispute.pk])),
    }
    mailing.send(
        subject=subject,
        template="billing/mail/dispute_operator.txt",
        context=context,
        to=settings.OPERATOR_EMAILS,
    )
    mailing.send(
        subject=subject,
        template="billing/mail/dispute.txt",
        context=context,
        to=mailing.recipients(account=dispute.account),
    )
