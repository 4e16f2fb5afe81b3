"""E-mails about usage: the daily allowance, spikes, and losses of the platform. Sent outside every transaction."""

import datetime as dt
import smtplib

from django.conf import settings
from django.core.mail import EmailMessage
from django.template.loader import render_to_string
from django.urls import reverse

from accounts.models import Account, Membership
from catalog.money import usd_string
from usage import queries
from usage.models import Anomaly, DailyAllowance

# What sending can raise: SMTP's own errors, and the network's.
SendingErrors = (smtplib.SMTPException, OSError)


def public_url(path: str = "") -> str:
    """An absolute address of ours for an e-mail, which has no request to take it from."""
    if settings.PUBLIC_URL or settings.TOLLGATE_URL:
        return f"{settings.PUBLIC_URL or settings.TOLLGATE_URL}{path}"
    named = [host.lstrip(".") for host in settings.ALLOWED_HOSTS if host != "*"]
    scheme = "https" if settings.HTTPS else "http"
    return f"{scheme}://{named[0] if named else 'localhost'}{path}"


def recipients(*, account: Account) -> list[str]:
    """The owners and admins of the account who can still sign in."""
    responsible = account.memberships.filter(
        role__in=[Membership.Role.OWNER, Membership.Role.ADMIN], user__is_active=True
    )
    return list(responsible.order_by("pk").values_list("user__email", flat=True))


def mail_allowance(*, allowance: DailyAllowance) -> None:
    """Say how much of the day's allowance is used, when it frees, and what unblocks. Raises SendingErrors."""
    account = allowance.account
    facts = queries.today_allowance(account=account, at=dt.datetime.combine(allowance.day, dt.time(), dt.UTC))
    used_up = facts.share >= 1
    _send(
        subject="Your daily allowance is used up"
        if used_up
        else f"{facts.percent} % of your daily allowance is used",
        template="usage/mail/allowance.txt",
        context={
            "account": account,
            "facts": facts,
            "used_up": used_up,
            "billing_url": public_url(reverse("billing:buy")),
            "usage_url": public_url(reverse("usage:overview")),
        },
        to=recipients(account=account),
    )


def mail_anomaly(*, anomaly: Anomaly) -> None:
    """Say what was expected and what was seen, since when, and which key and model did it. Raises SendingErrors."""
    culprit = anomaly.key
    if culprit is None:
        until = (anomaly.last_hour or anomaly.hour) + dt.timedelta(hours=1)
        culprit = queries.dearest_key(account=anomaly.account, start=anomaly.hour, end=until)
    whose = f"Key “{anomaly.key}”" if anomaly.key else f"Account {anomaly.account}"
    _send(
        subject=f"{whose} is spending far more than usual",
        template="usage/mail/anomaly.txt",
        context={
            "anomaly": anomaly,
            "whose": whose,
            "culprit": culprit,
            "key_url": public_url(reverse("key_detail", args=[culprit.pk])) if culprit else "",
            "alerts_url": public_url(reverse("usage:alerts")),
        },
        to=recipients(account=anomaly.account),
    )


def mail_losses(losses: list[tuple[str, int, int]]) -> None:
    """Tell the operator of requests (id, account id, nano-USD) that used more than could be charged for them."""
    total_nanousd = sum(lost for _, _, lost in losses)
    _send(
        subject=f"${usd_string(total_nanousd)} lost on usage beyond its hold",
        template="usage/mail/loss.txt",
        context={"losses": losses, "admin_url": public_url(reverse("admin:index"))},
        to=settings.OPERATOR_EMAILS,
    )


def _send(*, subject: str, template: str, context: dict[str, object], to: list[str]) -> None:
    if to:
        # A name with a line break in it must not become a header.
        EmailMessage(" ".join(subject.split()), render_to_string(template, context), to=to).send()
