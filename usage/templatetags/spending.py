"""What an account spends, for pages of rooms that usage builds on and that therefore cannot ask it in Python."""

import datetime as dt

from django import template

from accounts.models import Account
from usage import queries

register = template.Library()


@register.simple_tag
def spent_in_month(account: Account, at: dt.datetime) -> int:
    """What was taken from credits since the UTC month of `at` began, in nano-USD, to the latest request."""
    month = at.astimezone(dt.UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return queries.totals(account=account, start=month, end=at + dt.timedelta(hours=1)).charged_nanousd
