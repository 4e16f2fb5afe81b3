"""The periodic work on usage. Each task finds by itself what is due, so a lost or doubled message does no harm."""

import logging
from typing import Any

from celery import shared_task
from celery.exceptions import OperationalError
from django.conf import settings
from django.utils import timezone

from accounts import mailing
from billing import owed_mail, verifying
from usage import alerting, allowances, anomalies, auditing, forgetting, posting, rollups, set_apart
from usage.models import LossToTell

logger = logging.getLogger(__name__)


@shared_task(name="usage.roll_up_hours", acks_late=True, ignore_result=True)
def roll_up_hours() -> None:
    """Add every record that is not in the hourly sums yet."""
    while rollups.roll_up(at=timezone.now()):
        pass


@shared_task(name="usage.post_hours", acks_late=True, ignore_result=True)
def post_hours() -> None:
    """Post the hours that have ended to the ledger."""
    posting.post_hours(at=timezone.now())


@shared_task(name="usage.forget_idempotency_claims", acks_late=True, ignore_result=True)
def forget_idempotency_claims() -> None:
    """Delete the claims of idempotency keys that have held for a day."""
    forgetting.forget_claims(at=timezone.now())


@shared_task(name="usage.forget_minute_gaps", acks_late=True, ignore_result=True)
def forget_minute_gaps() -> None:
    """Delete the gaps in minutes that have passed."""
    forgetting.forget_gaps(at=timezone.now())


@shared_task(name="usage.aggregate_allowances", acks_late=True, ignore_result=True)
def aggregate_allowances() -> None:
    """Write the share of the daily allowance that is used."""
    allowances.aggregate(at=timezone.now())


@shared_task(name="usage.mail_allowances", acks_late=True, ignore_result=True)
def mail_allowances() -> None:
    """Mail whose daily allowance is nearly or quite used: at least once."""
    rows = allowances.of_today(at=timezone.now())
    for allowance in owed_mail.a_bite(lambda: owed_mail.claim(rows=rows, at=timezone.now())):
        try:
            alerting.mail_allowance(allowance=allowance)
        except mailing.SendingErrors:
            logger.exception(
                "could not mail about the allowance of account %d; it is tried again in %s",
                allowance.account_id,
                owed_mail.LEASE,
            )
        else:
            owed_mail.mark_sent(rows=rows, row=allowance)


@shared_task(name="usage.mail_losses", acks_late=True, ignore_result=True)
def mail_losses() -> None:
    """Tell the operators of what was lost on usage: at least once. It is owed while there is nobody to tell."""
    losses = owed_mail.claim_for_operators(rows=LossToTell.objects.all(), at=timezone.now())
    if not losses:
        return
    try:
        alerting.mail_losses(losses)
    except mailing.SendingErrors:
        logger.exception(
            "could not mail about %d losses; it is tried again in %s", len(losses), owed_mail.LEASE
        )
    else:
        LossToTell.objects.filter(pk__in=[loss.pk for loss in losses]).delete()


@shared_task(name="usage.detect_anomalies", acks_late=True, ignore_result=True)
def detect_anomalies() -> None:
    """Find spikes of the last ended hour and of the running one."""
    for anomaly in anomalies.detect(at=timezone.now()):
        logger.warning("%s: saw %d nano-USD", anomaly, anomaly.observed_nanousd)


@shared_task(name="usage.mail_anomalies", acks_late=True, ignore_result=True)
def mail_anomalies() -> None:
    """Mail the alerts that nobody was told about: at least once, see `anomalies.claim_mail`."""
    for anomaly in owed_mail.a_bite(lambda: anomalies.claim_mail(at=timezone.now())):
        try:
            alerting.mail_anomaly(anomaly=anomaly)
        except mailing.SendingErrors:
            logger.exception(
                "could not mail about %s; it is tried again in %s", anomaly, anomalies.MAIL_LEASE
            )
        else:
            anomalies.mark_mailed(anomaly=anomaly, at=timezone.now())


@shared_task(name="usage.mail_set_apart", acks_late=True, ignore_result=True)
def mail_set_apart() -> None:
    """Tell the operators of settlements that the database refuses, in the journals of this machine. At least once.

    They stay untold while there is nobody to tell; the log has them since they were set apart.
    """
    if not settings.OPERATOR_EMAILS:
        return
    for apart in set_apart.untold(directory=settings.TOLLGATE_HOME / "journal"):
        logger.error(
            "%d settlements in %s are not booked, %d lines unreadable",
            len(apart.requests),
            apart.path,
            apart.unreadable,
        )
        try:
            alerting.mail_set_apart(apart=apart)
        except mailing.SendingErrors:
            logger.exception("could not mail about %s; it is tried again", apart.path)
        else:
            set_apart.mark_told(apart=apart)


@shared_task(name="usage.audit", acks_late=True, ignore_result=True)
def audit() -> None:
    """Prove the books, with every hash of the chain computed anew, and have the operators mailed what is wrong.

    Where Redis takes no message it is in the log, and the next night finds the same.
    """
    report = auditing.audit_ledger(at=timezone.now())
    chain = verifying.verify_chain()
    verifying.remember(chain, at=report.at)
    found = [*([chain.broken] if chain.broken else []), *report.discrepancies]
    if not found:
        logger.info("the books agree; the head of the ledger is %d:%s", chain.verified, chain.head_hash)
        return
    for discrepancy in found:
        logger.error("the books are wrong: %s", discrepancy)
    try:
        mail_discrepancies.apply_async(kwargs={"what": alerting.discrepancies(report=report, chain=chain)})
    except OperationalError:
        logger.exception("could not have it mailed that the books are wrong")


@shared_task(name="usage.mail_discrepancies", acks_late=True, ignore_result=True)
def mail_discrepancies(*, what: dict[str, Any]) -> None:
    """Mail the operators what the audit has found. What the server refuses is in the log."""
    try:
        alerting.mail_discrepancies(what)
    except mailing.SendingErrors:
        logger.exception("could not mail that the books are wrong")
