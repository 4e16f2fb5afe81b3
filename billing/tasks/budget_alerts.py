"""The e-mails about budgets."""

import logging

from celery import shared_task
from django.utils import timezone

from accounts import mailing
from billing import budget_alerts

logger = logging.getLogger(__name__)


@shared_task(name="billing.mail_budget_alerts", acks_late=True, ignore_result=True)
def mail_budget_alerts() -> None:
    """Mail whose budgets have passed a percentage that they chose.

    At most once: a worker killed between the claim and the mail leaves it unsent, and the budgets page still says it. A
    mail that the server refuses is given back.
    """
    for alert in budget_alerts.claim(at=timezone.now()):
        try:
            budget_alerts.mail(alert=alert, at=timezone.now())
        except mailing.SendingErrors:
            logger.exception("could not mail about budget %d", alert.budget_id)
            budget_alerts.give_back(alert=alert)
