"""A payment event that waits and that nothing will come of: an operator ends that by hand, with a note."""

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.utils import timezone

from billing import told_early, webhooks
from billing.admin import asking
from billing.forms import CloseEventForm
from billing.models import WebhookEvent

_WHAT = {
    "RefundChanged": "a refund",
    "DisputeChanged": "a dispute",
    "PaymentArrived": "a payment",
    "PaymentFailed": "a payment that failed",
}


def close_event(request: HttpRequest, event_id: int) -> HttpResponse:
    """Have an event never acted on, after reading what that means."""
    actor = asking.operator(request, "billing.change_webhookevent")
    if actor is None:
        raise PermissionDenied
    event = get_object_or_404(WebhookEvent, pk=event_id)
    back = reverse("admin:billing_webhookevent_change", args=[event.pk])
    form = CloseEventForm(request.POST or None)
    if event.outcome == WebhookEvent.Outcome.WAITING:
        if not asking.is_confirmed(request, form):
            facts, effect = _facts(event), _effect(event)
            return asking.page(
                request,
                title="Close the event",
                facts=facts,
                effect=effect,
                form=form,
                back=back,
                about=event,
            )
        try:
            webhooks.close(event=event, actor=actor, note=form.cleaned_data["note"], at=timezone.now())
        except webhooks.NotWaiting:
            pass
        else:
            messages.success(request, "Closed. No money was moved here.")
            return redirect(back)
    messages.info(request, "The event does not wait any more.")
    return redirect(back)


def in_words(event: WebhookEvent) -> str:
    """What an event tells of, with amount, state and moment."""
    news = event.news or {}
    what = _WHAT.get(str(news.get("kind")), "nothing that concerns us")
    amount = (
        f" of {news['amount_cents']} cents of {str(news['currency']).upper()}"
        if "amount_cents" in news
        else ""
    )
    status = f", {news['status']}" if "status" in news else ""
    return f"{what}{amount}{status}, {event.occurred_at:%Y-%m-%d %H:%M} UTC"


def _facts(event: WebhookEvent) -> list[str]:
    topup = webhooks.topup_of(event)
    if topup is not None:
        about = f"It is about top-up {topup.pk} of {asking.named(topup.account)}."
    elif told_early.is_too_early(event):
        about = (
            "Its payment is not known here. Left alone, it is ignored four days after it came, and still acted on if"
            " its payment is credited later. Once it is closed, it is not."
        )
    else:
        about = "It names no payment that is known here."
    return [
        f"{event.provider} has told of {in_words(event)}, as {event.event}.",
        f"It was tried {event.attempts} times. In the way was: {event.problem or 'nothing'}.",
        about,
    ]


def _effect(event: WebhookEvent) -> str:
    is_payment = (event.news or {}).get("kind") == "PaymentArrived"
    return (
        "It is never acted on, and nobody is told of it any more. No money is moved here: the books stay as they are,"
        " and the audit does not compare them with what this event says. So settle elsewhere what it says."
        + (" Money may have come: it is not credited by this event." if is_payment else "")
    )
