"""What of money waits for a person, for the first page that an operator sees."""

from django import template
from django.utils import timezone

from billing import pending_refunds, unmatched, webhooks

register = template.Library()


@register.simple_tag
def waiting_money() -> dict[str, int]:
    """How many payments fit no top-up, events could not be processed, and refunds are on their way for too long."""
    return {
        "payments": unmatched.unresolved().count(),
        "events": webhooks.waiting().filter(attempts__gt=0).count(),
        "refunds": pending_refunds.stuck(at=timezone.now()).count(),
    }
