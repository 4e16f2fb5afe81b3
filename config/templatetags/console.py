"""Template filters of the console: every amount, count and moment is written by one of these."""

import datetime as dt

from django import template
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe

from catalog.money import NANO_PER_CENT, usd_from_nano
from config.icons import PATHS

register = template.Library()


@register.filter
def usd(amount_nanousd: int | None) -> str:
    """An amount to read: whole cents as $12.34; a smaller one with as many decimals as it needs, $0.0000125."""
    if amount_nanousd is None:
        return "-"
    sign, amount = ("-", -amount_nanousd) if amount_nanousd < 0 else ("", amount_nanousd)
    if amount % NANO_PER_CENT == 0:
        return f"{sign}${usd_from_nano(amount):,.2f}"
    whole, _point, decimals = f"{usd_from_nano(amount):,.9f}".partition(".")
    return f"{sign}${whole}.{decimals.rstrip('0'):0<2}"


@register.filter
def number(value: int | None) -> str:
    """A count with thousands separators."""
    return "-" if value is None else f"{value:,}"


@register.filter
def moment(at: dt.datetime | None) -> SafeString | str:
    """A moment in UTC, as a <time> element that says so."""
    if at is None:
        return "-"
    at = at.astimezone(dt.UTC)
    return format_html('<time datetime="{}">{}</time>', at.isoformat(), at.strftime("%Y-%m-%d %H:%M UTC"))


@register.simple_tag
def icon(name: str) -> SafeString:
    """One of our icons beside a text that says the same: hidden from screen readers. `{% icon "key" %}`."""
    return format_html(
        '<svg class="icon" viewBox="0 0 24 24" width="24" height="24" fill="none" stroke="currentColor"'
        ' stroke-width="1.75" stroke-linecap="round" stroke-linejoin="round" aria-hidden="true" focusable="false">'
        "{}</svg>",
        mark_safe(PATHS[name]),  # noqa: S308 - constants of ours
    )
