"""Promotional credit: told of before it expires, and taken back when its date has come."""

import logging

from celery import shared_task
from django.utils import timezone

from accounts import mailing
from billing import expiring, owed_mail

logger = logging.getLogger(__name__)


@shared_task(name="billing.expire_promotions", acks_late=True, ignore_result=True)
def expire_promotions() -> None:
    """Take back what is left of the promotional credit whose date has come."""
    expiring.expire_due(at=timezone.now())


@shared_task(name="billing.notice_expiring_promotions", acks_late=True, ignore_result=True)
def notice_expiring_promotions() -> None:
    """Mail what expires soon; a mail that the server refuses is tried again after its lease."""
    expiring.notice(at=timezone.now())
    for notice in owed_mail.a_bite(lambda: expiring.claim_notice(at=timezone.now())):
        try:
            expiring.mail_notice(notice=notice)
        except mailing.SendingErrors:
            logger.exception(
                "could not mail account %d about credit that expires; it is tried again in %s",
                notice.account.pk,
                owed_mail.LEASE,
            )
        else:
            expiring.mark_sent(notice=notice)
