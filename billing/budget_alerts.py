"""E-mails about budgets: once for each chosen percentage of a limit and period."""

import datetime as dt
from dataclasses import dataclass

from django.db import connection
from django.urls import reverse

from accounts import mailing
from billing.budgets import BudgetState, day_of, period_end, share_percent
from billing.models import Budget

# What is looked for when nobody says otherwise.
USUAL_PERCENTS = (50, 80, 100)
_BATCH = 500

# The claim: whoever jumped past several percentages at once hears of the highest. Rows that the teller has locked are
# left for the next run: waiting for one while holding others could be half of a deadlock, and the gateway comes first.
# A share is rounded, as people see it: a hard stop refuses what could go beyond the limit, and so seldom ends at it.
_CLAIM = """
    WITH due AS (
        SELECT b.id, crossed.percent, told.percent AS told_percent
        FROM billing_budget b
        CROSS JOIN LATERAL (
            SELECT max(percent) AS percent FROM unnest(b.alert_percents) AS percent
            WHERE round(b.spent_nanousd * 100.0 / nullif(b.limit_nanousd, 0)) >= percent
        ) AS crossed
        CROSS JOIN LATERAL (
            SELECT CASE WHEN b.alerted_period_start = b.period_start THEN b.alerted_percent ELSE 0 END AS percent
        ) AS told
        WHERE b.alert_percents <> '{}' AND crossed.percent > told.percent
        AND (b.period = 'total' OR b.period_start >= date_trunc(b.period, %(day)s::timestamp)::date)
        ORDER BY b.id LIMIT %(batch)s
        FOR UPDATE OF b SKIP LOCKED
    )
    UPDATE billing_budget b SET alerted_percent = due.percent, alerted_period_start = b.period_start
    FROM due WHERE b.id = due.id
    RETURNING b.id, b.period_start, due.percent, due.told_percent
"""


@dataclass(frozen=True, slots=True)
class Alert:
    """An e-mail that this worker, and no other, has claimed: `told_percent` was mailed before, in the same period."""

    budget_id: int
    period_start: dt.date
    percent: int
    told_percent: int


def claim(*, at: dt.datetime) -> list[Alert]:
    """The e-mails that are due now. Nobody is told about a period that is over."""
    with connection.cursor() as cursor:
        cursor.execute(_CLAIM, {"day": day_of(at), "batch": _BATCH})
        return [Alert(*row) for row in cursor.fetchall()]


def give_back(*, alert: Alert) -> None:
    """Let the next run claim the e-mail again: this one could not be sent."""
    Budget.objects.filter(
        pk=alert.budget_id, alerted_period_start=alert.period_start, alerted_percent=alert.percent
    ).update(alerted_percent=alert.told_percent)


def mail(*, alert: Alert, at: dt.datetime) -> None:
    """Say how much of the budget is spent, and what happens at its limit. Raises mailing.SendingErrors."""
    budget = Budget.objects.select_related("account", "key").filter(pk=alert.budget_id).first()
    if budget is None:
        return
    state = BudgetState.as_it_stands(budget, day=day_of(at))
    mailing.send(
        subject=f"{share_percent(budget)} % of {budget.label} is spent",
        template="billing/mail/budget.txt",
        context={
            "budget": budget,
            "state": state,
            "percent": share_percent(budget),
            "resets_at": period_end(period=budget.period, day=day_of(at)),
            "budgets_url": mailing.public_url(reverse("budget_list")),
        },
        to=mailing.recipients(account=budget.account),
    )
