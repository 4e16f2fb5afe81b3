"""Refunds that the company did not answer, and e-mails about money that goes back."""

import logging
from collections.abc import Callable
from typing import TypeVar

from celery import shared_task
from django.db.models import QuerySet
from django.utils import timezone

from accounts import mailing
from billing import after_mail, collecting, owed_mail, refunding
from billing.models import Dispute, Refund
from billing.models.mail_due import MailDue

logger = logging.getLogger(__name__)
T = TypeVar("T", bound=MailDue)


@shared_task(name="billing.collect_credit", acks_late=True, ignore_result=True)
def collect_credit() -> None:
    """Take for disputes and refunds what running requests have left of what they held."""
    collecting.collect_due(at=timezone.now())


@shared_task(name="billing.ask_for_refunds", acks_late=True, ignore_result=True)
def ask_for_refunds() -> None:
    """Ask again for the refunds that were left unanswered: by the company, or by a process that was killed."""
    while refund := refunding.claim_unanswered(at=timezone.now()):
        refunding.ask(refund=refund, at=timezone.now())


@shared_task(name="billing.mail_about_refunds", acks_late=True, ignore_result=True)
def mail_about_refunds() -> None:
    """Mail what is owed about refunds and disputes; what the server refuses is tried again after its lease."""
    _send_owed(
        Refund.objects.select_related("topup", "account"), lambda row: after_mail.send_refund(refund=row)
    )
    _send_owed(
        Dispute.objects.select_related("topup", "account"), lambda row: after_mail.send_dispute(dispute=row)
    )


def _send_owed(rows: QuerySet[T], send: Callable[[T], None]) -> None:
    while row := owed_mail.claim(rows=rows, at=timezone.now()):
        try:
            send(row)
        except mailing.SendingErrors:
            logger.exception("could not mail about %s; it is tried again in %s", row, owed_mail.LEASE)
        else:
            owed_mail.mark_sent(rows=rows, row=row)
