"""Where payment providers report what has happened."""

import logging

from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from billing import webhooks
from billing.models import WebhookEvent
from billing.providers import offering
from billing.providers.provider import WebhookNotConfigured, WebhookNotGenuine
from billing.tasks import payments

logger = logging.getLogger(__name__)

# Stripe's largest events are some tens of KiB.
_MOST_BYTES = 256 * 1024


@csrf_exempt
@require_POST
def webhook(request: HttpRequest, provider: str) -> HttpResponse:
    """Check and record one message, and answer. A provider that is no longer offered may still report.

    200 says that it is recorded: acting on it is then the worker's business, and is tried again if it fails.
    """
    known = offering.named(slug=provider)
    if known is None:
        raise Http404
    body = request.read(_MOST_BYTES + 1)
    if len(body) > _MOST_BYTES:
        return _plain("larger than any event", status=413)
    try:
        message = known.read_webhook(body=body, headers=request.headers)
    except WebhookNotConfigured as problem:
        logger.error("a webhook of %s cannot be checked: %s", provider, problem)  # noqa: TRY400  # not our fault
        return _plain("webhooks are not configured", status=503)
    except WebhookNotGenuine as problem:
        logger.warning("a webhook of %s was refused: %s", provider, problem)
        return _plain("not genuine", status=400)
    if not webhooks.can_be_kept(message):
        logger.warning(
            "a webhook of %s was refused: it has characters that cannot be kept, or too many", provider
        )
        return _plain("cannot be kept", status=400)
    event = webhooks.record(provider=provider, message=message, at=timezone.now())
    if event.outcome == WebhookEvent.Outcome.WAITING:
        # Whatever is wrong with the queue, it is recorded, and the sweep finds it.
        transaction.on_commit(lambda: payments.hand_over(event=event), robust=True)
    return _plain("recorded", status=200)


def _plain(text: str, *, status: int) -> HttpResponse:
    return HttpResponse(text, status=status, content_type="text/plain; charset=utf-8")
