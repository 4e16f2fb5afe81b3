"""Payments: what a crash has left of their webhooks, those that were never reported, and those that fit nothing."""

import logging

from celery import shared_task
from django.utils import timezone

from accounts import mailing
from billing import looking_up, payment_methods, unmatched, webhooks
from billing.providers.provider import ProviderAway, ProviderRefused

logger = logging.getLogger(__name__)


@shared_task(name="billing.process_webhooks", acks_late=True, ignore_result=True)
def process_webhooks() -> None:
    """Process the events that wait."""
    webhooks.process_due(at=timezone.now())


@shared_task(name="billing.look_up_payments", acks_late=True, ignore_result=True)
def look_up_payments() -> None:
    """Ask the providers about payments whose webhook never came."""
    looking_up.look_up_due(at=timezone.now())


@shared_task(name="billing.mail_unmatched_payments", acks_late=True, ignore_result=True)
def mail_unmatched_payments() -> None:
    """Tell the operators of payments that fit no top-up.

    At most once: a worker killed between the claim and the mail leaves it unsent, and the admin still shows it. A
    mail that the server refuses is given back.
    """
    claimed = unmatched.claim_mail(at=timezone.now())
    if not claimed:
        return
    try:
        unmatched.mail_operators(unmatched=claimed)
    except mailing.SendingErrors:
        logger.exception("could not mail about %d unmatched payments", len(claimed))
        unmatched.give_back(unmatched=claimed)


@shared_task(name="billing.forget_payment_methods", acks_late=True, ignore_result=True)
def forget_payment_methods() -> None:
    """Have the providers forget the methods that were removed while they were away."""
    for method in payment_methods.to_forget():
        try:
            payment_methods.forget(method=method, at=timezone.now())
        except (ProviderAway, ProviderRefused) as problem:
            logger.warning("%s has not forgotten %s: %s", method.provider, method, problem)
