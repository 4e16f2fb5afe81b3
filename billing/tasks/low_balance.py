"""The low-balance e-mail."""

import logging

from celery import shared_task
from django.utils import timezone

from accounts import mailing
from billing import low_balance, owed_mail
from billing.models import BalanceAlert

logger = logging.getLogger(__name__)


@shared_task(name="billing.mail_low_balances", acks_late=True, ignore_result=True)
def mail_low_balances() -> None:
    """Tell the accounts whose balance has fallen below their threshold. Refused mail is tried again after its lease."""
    low_balance.notice(at=timezone.now())
    rows = BalanceAlert.objects.select_related("account")
    for alert in owed_mail.a_bite(lambda: owed_mail.claim(rows=rows, at=timezone.now())):
        try:
            low_balance.mail(alert=alert)
        except mailing.SendingErrors:
            logger.exception("could not mail about the %s; it is tried again in %s", alert, owed_mail.LEASE)
        else:
            owed_mail.mark_sent(rows=rows, row=alert)
