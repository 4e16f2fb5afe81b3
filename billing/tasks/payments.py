"""Payments: what a crash has left of their webhooks, those that were never reported, and those that fit nothing."""

import logging

from celery import current_app, shared_task
from celery.exceptions import OperationalError
from django.utils import timezone

from accounts import mailing
from billing import after_mail, looking_up, owed_mail, payment_methods, unmatched, webhooks
from billing.models import WebhookEvent
from billing.providers.provider import ProviderAway, ProviderRefused

logger = logging.getLogger(__name__)

# A company waits for its answer while an event is handed over.
_QUICKLY = {"socket_connect_timeout": 0.5, "socket_timeout": 0.5}


def hand_over(*, event: WebhookEvent) -> None:
    """Have the worker process an event that is committed, now. Where the queue is away, it is processed here."""
    try:
        with current_app.connection_for_write(transport_options=_QUICKLY) as connection:
            process_webhook.apply_async(  # type: ignore[call-arg]  # the stubs do not know `connection`
                kwargs={"event_id": event.pk}, connection=connection, retry=False
            )
    except OperationalError as problem:
        logger.warning("the webhook %s could not be handed over: %s", event, problem)
        webhooks.process(event=event, at=timezone.now())


@shared_task(name="billing.process_webhook", acks_late=True, ignore_result=True)
def process_webhook(*, event_id: int) -> None:
    """Process one event, right after it came. A company that does not answer keeps nobody's credit waiting."""
    event = WebhookEvent.objects.get(pk=event_id)
    webhooks.process(event=event, at=timezone.now(), ask_later=_ask_later)


@shared_task(name="billing.process_webhooks", acks_late=True, ignore_result=True)
def process_webhooks() -> None:
    """Process the events that wait: a crash, a lost message or a failure has left them."""
    webhooks.process_due(at=timezone.now(), ask_later=_ask_later)


def _ask_later(event: WebhookEvent) -> None:
    try:
        ask_about_webhook.apply_async(kwargs={"event_id": event.pk})
    except OperationalError as problem:
        logger.warning("the webhook %s could not be handed over: %s; it is due again", event, problem)


@shared_task(name="billing.ask_about_webhook", acks_late=True, ignore_result=True)
def ask_about_webhook(*, event_id: int) -> None:
    """Process one event to its end: ask its company what it does not say, such as which card was kept."""
    event = WebhookEvent.objects.get(pk=event_id)
    webhooks.process(event=event, at=timezone.now())


@shared_task(name="billing.look_up_payments", acks_late=True, ignore_result=True)
def look_up_payments() -> None:
    """Ask the providers about payments whose webhook never came."""
    looking_up.look_up_due(at=timezone.now())


@shared_task(name="billing.mail_unmatched_payments", acks_late=True, ignore_result=True)
def mail_unmatched_payments() -> None:
    """Tell the operators of payments that fit no top-up. What the server refuses is tried again after its lease."""
    claimed = owed_mail.claim_for_operators(rows=unmatched.unresolved(), at=timezone.now())
    if not claimed:
        return
    try:
        unmatched.mail_operators(unmatched=claimed)
    except mailing.SendingErrors:
        logger.exception(
            "could not mail about %d unmatched payments; it is tried again in %s",
            len(claimed),
            owed_mail.LEASE,
        )
    else:
        unmatched.mark_told(unmatched=claimed, at=timezone.now())


@shared_task(name="billing.mail_waiting_events", acks_late=True, ignore_result=True)
def mail_waiting_events() -> None:
    """Tell the operators, once, of events that could not be processed for a day. Refused mail is tried again."""
    waiting = webhooks.waiting()
    claimed = owed_mail.claim_for_operators(rows=waiting, at=timezone.now())
    if not claimed:
        return
    try:
        after_mail.send_waiting_events(events=claimed)
    except mailing.SendingErrors:
        logger.exception(
            "could not mail about %d waiting events; it is tried again in %s", len(claimed), owed_mail.LEASE
        )
    else:
        for event in claimed:
            owed_mail.mark_operators_told(rows=waiting, row=event)


@shared_task(name="billing.forget_payment_methods", acks_late=True, ignore_result=True)
def forget_payment_methods() -> None:
    """Have the providers forget the methods that were removed while they were away."""
    for method in payment_methods.to_forget():
        try:
            payment_methods.forget(method=method, at=timezone.now())
        except (ProviderAway, ProviderRefused) as problem:
            logger.warning("%s has not forgotten %s: %s", method.provider, method, problem)
