"""Template filters of the console: every amount, count and moment is written by one of these."""

import datetime as dt
from decimal import Decimal

from django import template
from django.forms import BoundField, CheckboxInput, CheckboxSelectMultiple, RadioSelect, Select
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe

from catalog.money import usd_text
from config.icons import PATHS

register = template.Library()


@register.filter
def usd(amount_nanousd: int | None) -> str:
    """An amount to read: whole cents as $12.34; a smaller one with as many decimals as it needs, $0.0000125."""
    return "-" if amount_nanousd is None else usd_text(amount_nanousd)


@register.filter
def usd_large(amount_nanousd: int | None) -> SafeString | str:
    """An amount in large figures: dollars and cents to see at a glance, what is finer than a cent small behind them."""
    exact = usd(amount_nanousd)
    coarse, finer = exact[: exact.find(".") + 3], exact[exact.find(".") + 3 :]
    return format_html('{}<span class="usd-finer">{}</span>', coarse, finer) if finer else exact


@register.filter
def number(value: int | None) -> str:
    """A count with thousands separators."""
    return "-" if value is None else f"{value:,}"


@register.filter
def number_or(value: int | None, otherwise: str) -> str:
    """A count with thousands separators, or the words where there is none: `|number_or:"no limit"`."""
    return otherwise if value is None else f"{value:,}"


@register.filter
def percent(rate: Decimal) -> str:
    """A rate as a percentage: 0.25 as 25 %, 0.125 as 12.5 %."""
    return f"{(rate * 100).normalize():f}\u00a0%"


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


@register.filter
def control(field: BoundField) -> SafeString:
    """A form field's input with Tabler's classes, tied to its hint and its errors."""
    widget = field.field.widget
    if isinstance(widget, (CheckboxInput, RadioSelect, CheckboxSelectMultiple)):
        css = "form-check-input"
    elif isinstance(widget, Select):
        css = "form-select"
    else:
        css = "form-control"
    described = [f"{field.auto_id}_error"] if field.errors else []
    described += [f"{field.auto_id}_helptext"] if field.help_text else []
    attrs: dict[str, str | bool] = {"class": f"{css} is-invalid" if field.errors else css}
    # Whoever is sent back begins where it is wrong, without a search for it by eye or by Tab.
    if field.errors and next(iter(field.form.errors)) == field.name:
        attrs["autofocus"] = True
    if described:
        attrs["aria-describedby"] = " ".join(described)
    return field.as_widget(attrs=attrs)
