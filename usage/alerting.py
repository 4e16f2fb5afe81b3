"""E-mails about usage: the daily allowance, spikes, and losses of the platform. Sent outside every transaction."""

import dataclasses
import datetime as dt
from typing import Any

from django.conf import settings
from django.urls import reverse

from accounts import mailing
from billing.verifying import ChainReport
from catalog.money import usd_string
from usage import queries
from usage.auditing import AuditReport
from usage.models import Anomaly, DailyAllowance, LossToTell
from usage.set_apart import SetApart

# As many as somebody reads in a mail. `audit_ledger` prints them all.
_MOST_DISCREPANCIES = 100
_MOST_LINES = 50


def mail_allowance(*, allowance: DailyAllowance) -> None:
    """Say how much of the day's allowance is used, when it frees, and what unblocks. Raises mailing.SendingErrors."""
    account = allowance.account
    facts = queries.today_allowance(account=account, at=dt.datetime.combine(allowance.day, dt.time(), dt.UTC))
    used_up = facts.share >= 1
    mailing.send(
        subject="Your daily allowance is used up"
        if used_up
        else f"{facts.percent} % of your daily allowance is used",
        template="usage/mail/allowance.txt",
        context={
            "account": account,
            "facts": facts,
            "used_up": used_up,
            "billing_url": mailing.public_url(reverse("billing:buy")),
            "usage_url": mailing.public_url(reverse("usage:overview")),
        },
        to=mailing.recipients(account=account),
    )


def mail_anomaly(*, anomaly: Anomaly) -> None:
    """Say what was expected and seen, since when, and which key and model did it. Raises mailing.SendingErrors."""
    culprit = anomaly.key
    if culprit is None:
        until = (anomaly.last_hour or anomaly.hour) + dt.timedelta(hours=1)
        culprit = queries.dearest_key(account=anomaly.account, start=anomaly.hour, end=until)
    whose = f"Key “{anomaly.key}”" if anomaly.key else f"Account {anomaly.account}"
    mailing.send(
        subject=f"{whose} is spending far more than usual",
        template="usage/mail/anomaly.txt",
        context={
            "anomaly": anomaly,
            "whose": whose,
            "culprit": culprit,
            "key_url": mailing.public_url(reverse("key_detail", args=[culprit.pk])) if culprit else "",
            "alerts_url": mailing.public_url(reverse("usage:alerts")),
        },
        to=mailing.recipients(account=anomaly.account),
    )


def mail_losses(losses: list[LossToTell]) -> None:
    """Tell the operator of requests that used more than could be charged for them. Raises mailing.SendingErrors."""
    total_nanousd = sum(loss.amount_nanousd for loss in losses)
    mailing.send(
        subject=f"${usd_string(total_nanousd)} lost on usage beyond its hold",
        template="usage/mail/loss.txt",
        context={"losses": losses, "admin_url": mailing.public_url(reverse("admin:index"))},
        to=settings.OPERATOR_EMAILS,
    )


def discrepancies(*, report: AuditReport, chain: ChainReport) -> dict[str, Any]:
    """What the audit found, as much as somebody reads in a mail; as JSON, for another task mails it."""
    return {
        "at": f"{report.at:%Y-%m-%d %H:%M}",
        "found": len(report.discrepancies) + bool(chain.broken),
        "shown": report.discrepancies[:_MOST_DISCREPANCIES],
        "not_shown": max(0, len(report.discrepancies) - _MOST_DISCREPANCIES),
        "checked": dict(report.checked),
        "chain": dataclasses.asdict(chain),
    }


def mail_discrepancies(what: dict[str, Any]) -> None:
    """Tell the operator what `discrepancies` says, with the head of the chain. Raises mailing.SendingErrors."""
    found = what["found"]
    mailing.send(
        subject=f"The books are wrong: {found:,} {'discrepancy' if found == 1 else 'discrepancies'}",
        template="usage/mail/discrepancies.txt",
        context=what,
        to=settings.OPERATOR_EMAILS,
    )


def mail_set_apart(*, apart: SetApart) -> None:
    """Tell the operator of settlements that the database refuses. Raises mailing.SendingErrors."""
    shown = apart.requests[:_MOST_LINES]
    mailing.send(
        subject=f"${usd_string(apart.cost_nanousd)} of usage could not be booked",
        template="usage/mail/set_apart.txt",
        context={
            "shown": [(request, request.expected_cost_nanousd()) for request in shown],
            "not_shown": len(apart.requests) - len(shown),
            "unreadable": apart.unreadable,
            "path": apart.path,
        },
        to=settings.OPERATOR_EMAILS,
    )
