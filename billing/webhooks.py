"""What payment providers tell us: recorded first, then acted on, so that no crash in between can lose it.

Providers repeat themselves, change the order, and are told 200 as soon as the record is committed; then the worker
acts on it. All that acting on news does is idempotent, so an event may be processed by several at once, and again after
a crash.
"""

import dataclasses
import datetime as dt
import logging
from collections.abc import Callable
from typing import Any

from django.db import transaction
from django.db.models import F, QuerySet

from accounts import auditing
from accounts.models import User
from billing import disputing, refunding, told_early, topping_up, unmatched
from billing.models import TopUp, WebhookEvent
from billing.providers import offering
from billing.providers.provider import (
    DisputeChanged,
    News,
    PaymentArrived,
    PaymentFailed,
    RefundChanged,
    WebhookMessage,
)

logger = logging.getLogger(__name__)

# A crash is repaired after this long; what fails is tried again after twice as long each time, up to the longest.
_FIRST_WAIT = dt.timedelta(seconds=30)
_LONGEST_WAIT = dt.timedelta(hours=6)
# Another asks the company: it answers within two minutes and a quarter, or it is away.
_ASKING_TAKES = dt.timedelta(minutes=5)
# A company sends news for three days; by then the payment of a refund or a dispute is known, or is not ours: unless an
# operator credits it later, who has `told_early` take its news up again.
_PAYMENT_MAY_COME = dt.timedelta(days=4)
# What still waits then is told to the operators: it may have a deadline.
TOLD_AFTER = dt.timedelta(days=1)
_KINDS: dict[str, type[News]] = {
    kind.__name__: kind for kind in (PaymentArrived, PaymentFailed, RefundChanged, DisputeChanged)
}
_Outcome = WebhookEvent.Outcome


# In the smallest unit of any currency: ten million times as many nano-USD fit into a column.
_MOST_CENTS = 900_000_000_000
# What the columns hold of names that are not ours.
_LONGEST_EVENT, _LONGEST_TYPE = 120, 80
_LONGEST_NAMES = {"reference": 120, "payment": 120, "refund": 100, "dispute": 120, "currency": 3}
# What an event may say that is kept for a person to look at; an index has it.
_LONGEST_KEPT = 1000


class CannotBeBooked(Exception):
    """The event says what no row of the books can hold, and trying again changes nothing: a person has to look."""


class NotWaiting(Exception):
    """The event does not wait any more: it was processed, or somebody has closed it."""


def can_be_kept(message: WebhookMessage) -> bool:
    """Whether PostgreSQL can write it down: it has no text for NUL or for half a character, and indexes short ones."""
    if len(message.event) > _LONGEST_EVENT or len(message.type) > _LONGEST_TYPE:
        return False
    fields = written(message.news) or {}
    if any(len(fields.get(name, "")) > _LONGEST_KEPT for name in _LONGEST_NAMES):
        return False
    texts = [message.event, message.type, *fields.values()]
    return all(_is_text(text) for text in texts if isinstance(text, str))


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def record(*, provider: str, message: WebhookMessage, at: dt.datetime) -> WebhookEvent:
    """Write down a genuine message, once however often it is sent, before anything is done about it."""
    event, _is_new = WebhookEvent.objects.get_or_create(
        provider=provider,
        event=message.event,
        defaults={
            "type": message.type,
            "news": written(message.news),
            "occurred_at": message.occurred_at,
            "received_at": at,
            "due_at": at + _FIRST_WAIT,
            "operators_mail_due_at": at + TOLD_AFTER,
        },
    )
    return event


# Has the company of an event asked by somebody who has time to wait for it.
AskLater = Callable[[WebhookEvent], None]


def process(*, event: WebhookEvent, at: dt.datetime, ask_later: AskLater | None = None) -> None:
    """Do what the event asks for; one that is processed already does nothing.

    It raises nothing: an event whose processing fails waits, and is due again later. With `ask_later` no company is
    asked in here: credit is given, and where more is to be found out, the event waits for whoever is told of it.
    """
    if not WebhookEvent.objects.filter(pk=event.pk, outcome=_Outcome.WAITING).exists():
        return
    try:
        outcome = _act(event, at, is_asked=ask_later is None)
        if outcome == _Outcome.WAITING and ask_later is not None:
            WebhookEvent.objects.filter(pk=event.pk, outcome=_Outcome.WAITING).update(
                due_at=at + _ASKING_TAKES
            )
            ask_later(event)
            return
    except CannotBeBooked as problem:
        logger.warning("the webhook %s of %s cannot be booked: %s", event, event.provider, problem)
        # It waits for a person, who hears of it at once, and not after a day.
        told: dict[str, Any] = {} if event.attempts else {"operators_mail_due_at": at}
        WebhookEvent.objects.filter(pk=event.pk, outcome=_Outcome.WAITING).update(
            attempts=F("attempts") + 1, problem=str(problem), due_at=at + _LONGEST_WAIT, **told
        )
    except Exception as problem:  # whatever it is, the event must not be lost for it
        logger.exception("could not process the webhook %s of %s", event, event.provider)
        wait = min(_FIRST_WAIT * 2 ** min(event.attempts, 16), _LONGEST_WAIT)
        WebhookEvent.objects.filter(pk=event.pk, outcome=_Outcome.WAITING).update(
            attempts=F("attempts") + 1,
            problem=f"{type(problem).__name__}: {problem}"[:500],
            due_at=at + wait,
        )
    else:
        if outcome == _Outcome.IGNORED:
            # Unless its payment has become known just now.
            undone = WebhookEvent.objects.filter(pk=event.pk, outcome=_Outcome.WAITING, due_at=event.due_at)
        else:
            # What was acted on has been, also where somebody has closed the event meanwhile.
            undone = WebhookEvent.objects.filter(
                pk=event.pk, outcome__in=(_Outcome.WAITING, _Outcome.IGNORED)
            )
        undone.update(outcome=outcome, processed_at=at, attempts=F("attempts") + 1, problem="")


def process_due(*, at: dt.datetime, limit: int = 100, ask_later: AskLater | None = None) -> int:
    """Process what a crash or a failure has left, the oldest first. Returns how many there were. See `process`."""
    due = list(
        WebhookEvent.objects.filter(processed_at=None, due_at__lte=at).order_by(
            "due_at", "occurred_at", "pk"
        )[:limit]
    )
    for event in due:
        process(event=event, at=at, ask_later=ask_later)
    return len(due)


def close(*, event: WebhookEvent, actor: User, note: str, at: dt.datetime) -> None:
    """End the waiting of an event by hand, with a note: it is never acted on, and nobody is told of it any more.

    Moves no money. Raises NotWaiting.
    """
    with transaction.atomic():
        waits = WebhookEvent.objects.filter(pk=event.pk, outcome=_Outcome.WAITING)
        if not waits.update(
            outcome=_Outcome.IGNORED, processed_at=at, closed_at=at, closed_by=actor, note=note
        ):
            raise NotWaiting
        if topup := topup_of(event):
            auditing.record(
                account=topup.account_id,
                actor=actor,
                action="payment_event.closed",
                subject_type="webhook_event",
                subject_id=event.pk,
                event=event.event,
                topup=topup.pk,
                reason=note,
            )


def topup_of(event: WebhookEvent) -> TopUp | None:
    """The top-up whose payment it is about, if there is one here."""
    news = event.news or {}
    of_provider = TopUp.objects.select_related("account").filter(provider=event.provider)
    if payment := news.get("payment"):
        paid = of_provider.filter(provider_payment=payment).first()
        if paid is not None:
            return paid
    if news.get("kind") in (PaymentArrived.__name__, PaymentFailed.__name__):
        return of_provider.filter(provider_reference=news["reference"]).first()
    return None


def waiting() -> QuerySet[WebhookEvent]:
    """The events that were not processed yet."""
    return WebhookEvent.objects.filter(processed_at=None)


def process_told_early(*, provider: str, payment: str, at: dt.datetime) -> None:
    """Process what was told of a payment's refunds and disputes before the payment was credited."""
    for event in told_early.events(provider=provider, payment=payment).filter(outcome=_Outcome.WAITING):
        process(event=event, at=at)


def written(news: News | None) -> dict[str, Any] | None:
    """News as JSON, without the payment method: what was saved is asked of the provider."""
    if news is None:
        return None
    fields = dataclasses.asdict(news)
    fields.pop("method", None)
    return {"kind": type(news).__name__, **fields}


def news_of(event: WebhookEvent) -> News | None:
    """The news that `written` wrote."""
    if event.news is None:
        return None
    fields = dict(event.news)
    return _KINDS[fields.pop("kind")](**fields)


def _refuse_unbookable(news: News | None) -> None:
    """Raise CannotBeBooked for an amount or a name that no column holds."""
    if (
        isinstance(news, PaymentArrived | RefundChanged | DisputeChanged)
        and abs(news.amount_cents) > _MOST_CENTS
    ):
        msg = f"It tells of an amount of {len(str(abs(news.amount_cents)))} digits, which no books can hold."
        raise CannotBeBooked(msg)
    fields = dataclasses.asdict(news) if news else {}
    for name, longest in _LONGEST_NAMES.items():
        if len(fields.get(name, "")) > longest:
            msg = f"Its {name} has a name of more than {longest} characters."
            raise CannotBeBooked(msg)


def _act(event: WebhookEvent, at: dt.datetime, *, is_asked: bool) -> WebhookEvent.Outcome:
    news = news_of(event)
    _refuse_unbookable(news)
    match news:
        case PaymentArrived() as payment:
            return _take(event, payment, at, is_asked=is_asked)
        case PaymentFailed(reference=reference, message=message):
            try:
                topping_up.give_up(provider=event.provider, reference=reference, message=message)
            except topping_up.PaymentUnknown:
                # No money has come, and nobody waits for it.
                return _Outcome.IGNORED
            return _Outcome.DONE
        case RefundChanged() | DisputeChanged() as news:
            return _take_back(event, news, at)
        case _:
            return _Outcome.IGNORED


def _take_back(
    event: WebhookEvent, news: RefundChanged | DisputeChanged, at: dt.datetime
) -> WebhookEvent.Outcome:
    try:
        if isinstance(news, RefundChanged):
            refunding.hear(provider=event.provider, news=news, at=at)
        else:
            disputing.hear(provider=event.provider, news=news, at=at, occurred_at=event.occurred_at)
    except (refunding.RefundUnknown, disputing.DisputeUnknown) as unknown:
        # Its payment may not have been heard of yet. Or it never concerned us: companies tell all of an account.
        is_closed = unmatched.is_closed(provider=event.provider, payment=news.payment)
        if not is_closed and at - event.received_at < _PAYMENT_MAY_COME:
            raise
        logger.warning("the webhook %s of %s is ignored: %s", event, event.provider, unknown)
        return _Outcome.IGNORED
    return _Outcome.DONE


def _take(
    event: WebhookEvent, payment: PaymentArrived, at: dt.datetime, *, is_asked: bool
) -> WebhookEvent.Outcome:
    try:
        topup = topping_up.take(provider=event.provider, payment=payment, at=at)
    except unmatched.REASONS as problem:
        unmatched.note(provider=event.provider, payment=payment, why=str(problem), event=event, at=at)
        return _Outcome.UNMATCHED
    unmatched.found(topup=topup, at=at)
    if topup.saves_method and not is_asked:
        return _Outcome.WAITING
    _ask_for_method(topup, at)
    return _Outcome.DONE


def _ask_for_method(topup: TopUp, at: dt.datetime) -> None:
    """A webhook does not say which card was kept; the provider does. The credit is there already."""
    if not topup.saves_method:
        return
    provider = offering.named(slug=topup.provider)
    news = provider.look_up(topup=topup) if provider else None
    if isinstance(news, PaymentArrived) and news.method is not None:
        topping_up.take(provider=topup.provider, payment=news, at=at)
