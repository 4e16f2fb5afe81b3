"""Refunds that are on their way, and e-mails about money that goes back."""

import logging
from collections.abc import Callable
from typing import TypeVar

from celery import shared_task
from django.db.models import QuerySet
from django.utils import timezone

from accounts import mailing
from billing import after_mail, collecting, owed_mail, pending_refunds, refunding
from billing.models import Dispute, Refund
from billing.models.mail_due import MailDue, OperatorsMailDue

logger = logging.getLogger(__name__)
T = TypeVar("T", bound=MailDue)
W = TypeVar("W", bound=OperatorsMailDue)


@shared_task(name="billing.collect_credit", acks_late=True, ignore_result=True)
def collect_credit() -> None:
    """Take for disputes and refunds what running requests have left of what they held."""
    collecting.collect_due(at=timezone.now())


@shared_task(name="billing.ask_for_refunds", acks_late=True, ignore_result=True)
def ask_for_refunds() -> None:
    """Ask again for the refunds that were left unanswered: by the company, or by a process that was killed.

    And ask what became of those that only the company can decide about, or that are too old to be asked for.
    """
    while refund := refunding.claim_unanswered(at=timezone.now()):
        refunding.ask(refund=refund, at=timezone.now())
    while refund := pending_refunds.claim(at=timezone.now()):
        pending_refunds.look_up(refund=refund, at=timezone.now())


@shared_task(name="billing.mail_about_refunds", acks_late=True, ignore_result=True)
def mail_about_refunds() -> None:
    """Mail what is owed about refunds and disputes; what the server refuses is tried again after its lease."""
    refunds = Refund.objects.select_related("topup", "account")
    disputes = Dispute.objects.select_related("topup", "account")
    at = timezone.now()
    # Disputes first: they have a deadline.
    for dispute in owed_mail.a_bite(lambda: _claim_for_operators(disputes)):
        if _is_sent(dispute, lambda row: after_mail.send_dispute_to_operators(dispute=row)):
            owed_mail.mark_operators_told(rows=disputes, row=dispute)
    for refund in owed_mail.a_bite(lambda: _claim_for_operators(refunds)):
        if _is_sent(refund, lambda row: after_mail.send_refund_to_operators(refund=row, at=at)):
            again_at = after_mail.operators_again_at(refund=refund, at=at)
            owed_mail.mark_operators_told(rows=refunds, row=refund, again_at=again_at)
    _send_owed(refunds, lambda row: after_mail.send_refund(refund=row))
    _send_owed(disputes, lambda row: after_mail.send_dispute(dispute=row))


def _claim_for_operators(rows: QuerySet[W]) -> W | None:
    return next(iter(owed_mail.claim_for_operators(rows=rows, at=timezone.now(), most=1)), None)


def _send_owed(rows: QuerySet[T], send: Callable[[T], None]) -> None:
    for row in owed_mail.a_bite(lambda: owed_mail.claim(rows=rows, at=timezone.now())):
        if _is_sent(row, send):
            owed_mail.mark_sent(rows=rows, row=row)


def _is_sent(row: T, send: Callable[[T], None]) -> bool:
    try:
        send(row)
    except mailing.SendingErrors:
        logger.exception("could not mail about %s; it is tried again in %s", row, owed_mail.LEASE)
        return False
    return True
