"""Receipts leave by e-mail soon after their payment is committed."""

import logging

from celery import shared_task
from django.utils import timezone

from accounts import mailing
from billing import owed_mail, receipt_mail
from billing.models import Receipt

logger = logging.getLogger(__name__)


@shared_task(name="billing.mail_receipts", acks_late=True, ignore_result=True)
def mail_receipts() -> None:
    """Mail the receipts that are owed; one that the server refuses is tried again after its lease."""
    rows = Receipt.objects.all()
    for receipt in owed_mail.a_bite(lambda: owed_mail.claim(rows=rows, at=timezone.now())):
        try:
            receipt_mail.send(receipt=receipt)
        except mailing.SendingErrors:
            logger.exception("could not mail receipt %s; it is tried again in %s", receipt, owed_mail.LEASE)
        else:
            owed_mail.mark_sent(rows=rows, row=receipt)
