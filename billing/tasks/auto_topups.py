"""Auto top-up: who is due is found in one statement; each account is a task of its own, because providers are slow."""

import logging

from celery import shared_task
from django.utils import timezone

from accounts import mailing
from billing import auto_topping_up, auto_topup_mail, owed_mail
from billing.models import AutoTopUp

logger = logging.getLogger(__name__)


@shared_task(name="billing.top_up_due", acks_late=True, ignore_result=True)
def top_up_due() -> None:
    """Find the accounts whose credit is low, and what a dead process has left."""
    for account_id in auto_topping_up.due(at=timezone.now()):
        top_up.apply_async(kwargs={"account_id": account_id}, expires=60)


@shared_task(name="billing.top_up", acks_late=True, ignore_result=True)
def top_up(*, account_id: int) -> None:
    """Buy credit for one account, if it still is due."""
    auto_topping_up.run(account_id=account_id, at=timezone.now())


@shared_task(name="billing.mail_auto_topups", acks_late=True, ignore_result=True)
def mail_auto_topups() -> None:
    """Mail why auto top-up buys nothing; one that the server refuses is tried again after its lease."""
    rows = AutoTopUp.objects.select_related("account")
    for auto in owed_mail.a_bite(lambda: owed_mail.claim(rows=rows, at=timezone.now())):
        try:
            auto_topup_mail.send(auto=auto, at=timezone.now())
        except mailing.SendingErrors:
            logger.exception("could not mail about %s; it is tried again in %s", auto, owed_mail.LEASE)
        else:
            owed_mail.mark_sent(rows=rows, row=auto)
