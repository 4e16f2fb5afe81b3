"""E-mails about budgets: once for each chosen percentage of a limit and period."""

import datetime as dt

from django.db import connection
from django.urls import reverse

from accounts import mailing
from billing.budgets import BudgetState, day_of, period_end, period_start, share_percent
from billing.models import Budget

# What is looked for when nobody says otherwise.
USUAL_PERCENTS = (50, 80, 100)
_BATCH = 500

# Whoever jumped past several percentages at once hears of the highest. Rows that the teller has locked are left for the
# next run: waiting for one while holding others could be half of a deadlock, and the gateway comes first.
# A share is rounded, as people see it: a hard stop refuses what could go beyond the limit, and so seldom ends at it.
_PASSED = """
    WITH due AS (
        SELECT b.id, crossed.percent
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
    UPDATE billing_budget b
    SET alerted_percent = due.percent, alerted_period_start = b.period_start, mail_due_at = %(at)s
    FROM due WHERE b.id = due.id
    RETURNING b.id, due.percent
"""


def notice(*, at: dt.datetime) -> dict[int, int]:
    """Have the budgets owe an e-mail that have passed a percentage in a period that runs; returns which, by id."""
    with connection.cursor() as cursor:
        cursor.execute(_PASSED, {"day": day_of(at), "at": at, "batch": _BATCH})
        return dict(cursor.fetchall())


def mail(*, budget: Budget, at: dt.datetime) -> None:
    """Say how much of the budget is spent, and what happens at its limit. Raises mailing.SendingErrors.

    An e-mail that was owed since before the period ended says nothing about this one, and is not sent.
    """
    if budget.alerted_period_start != period_start(period=budget.period, day=day_of(at)):
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
