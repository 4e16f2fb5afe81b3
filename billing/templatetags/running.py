"""What keeps an account running, for pages that join it with other money: promotional credit, and warnings."""

from django import template

from accounts.models import Account
from billing import promotions
from billing.models import AutoTopUp, BalanceAlert

register = template.Library()


@register.simple_tag
def credit_standing(account: Account) -> promotions.Standing:
    """The account's credit now, by where it came from."""
    return promotions.standing(account_id=account.pk)


@register.simple_tag
def running_settings(account: Account) -> dict[str, object]:
    """What the account has set for the time when its credit runs out."""
    return {
        "alert": BalanceAlert.objects.filter(account=account).first() or BalanceAlert(),
        "auto": AutoTopUp.objects.filter(account=account).first(),
    }
