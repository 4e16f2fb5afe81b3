"""The low-balance e-mail."""

import logging

from celery import shared_task
from django.utils import timezone

from accounts import mailing
from billing import low_balance

logger = logging.getLogger(__name__)


@shared_task(name="billing.mail_low_balances", acks_late=True, ignore_result=True)
def mail_low_balances() -> None:
    """Tell the accounts whose balance has fallen below their threshold.

    At most once: a worker killed between the claim and the mail leaves it unsent. A mail that the server refuses is
    given back.
    """
    for low in low_balance.claim(at=timezone.now()):
        try:
            low_balance.mail(low=low)
        except mailing.SendingErrors:
            logger.exception("could not mail account %d about its low balance", low.account_id)
            low_balance.give_back(low=low)
