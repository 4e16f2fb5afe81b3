"""The e-mails about budgets."""

import logging

from celery import shared_task
from django.utils import timezone

from accounts import mailing
from billing import budget_alerts, owed_mail
from billing.models import Budget

logger = logging.getLogger(__name__)


@shared_task(name="billing.mail_budget_alerts", acks_late=True, ignore_result=True)
def mail_budget_alerts() -> None:
    """Mail whose budgets have passed a percentage that they chose; a refused mail is tried again after its lease."""
    budget_alerts.notice(at=timezone.now())
    rows = Budget.objects.select_related("account", "key")
    for budget in owed_mail.a_bite(lambda: owed_mail.claim(rows=rows, at=timezone.now())):
        try:
            budget_alerts.mail(budget=budget, at=timezone.now())
        except mailing.SendingErrors:
            logger.exception("could not mail about %s; it is tried again in %s", budget, owed_mail.LEASE)
        else:
            owed_mail.mark_sent(rows=rows, row=budget)
