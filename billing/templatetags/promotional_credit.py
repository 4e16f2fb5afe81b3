"""What is left of an account's promotional credit, for pages that say when it expires."""

from django import template

from accounts.models import Account
from billing import promotions

register = template.Library()


@register.simple_tag
def credit_standing(account: Account) -> promotions.Standing:
    """The account's credit now, by where it came from."""
    return promotions.standing(account_id=account.pk)
