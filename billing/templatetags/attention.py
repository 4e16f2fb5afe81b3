"""What of money waits for a person, and all of it at a glance, for the first page that an operator sees."""

from django import template
from django.utils import timezone

from billing import glance, pending_refunds, unmatched, webhooks

register = template.Library()


@register.simple_tag
def waiting_money() -> dict[str, int]:
    """How many payments, events, refunds and disputes an operator has to do something about."""
    return {
        "payments": unmatched.unresolved().count(),
        "events": webhooks.waiting().filter(attempts__gt=0).count(),
        "refunds": pending_refunds.stuck(at=timezone.now()).count(),
        "disputes": glance.open_disputes().count(),
    }


@register.simple_tag
def money_at_a_glance() -> glance.Glance:
    """The money of all accounts."""
    return glance.at_a_glance(at=timezone.now())
