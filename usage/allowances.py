"""The daily allowance as people hear of it: the share that is used, and an e-mail at 80 % and at 100 %.

What draws on the allowance is `usage.books`, under the wallet's lock; this only reads it and says so.
"""

import datetime as dt
from decimal import Decimal

from django.db import connection
from django.db.models import F, QuerySet, Value
from django.db.models.functions import Coalesce

from usage.models import DailyAllowance

WARN_AT_SHARE = Decimal("0.8")
_BATCH = 500

# Rows that a running admission has locked are left for the next run: waiting for one while holding others could be
# half of a deadlock, and the gateway comes first. A limit of zero has no share.
_SHARES = """
    WITH due AS (
        SELECT drawn.id, fresh.share
        FROM usage_dailyallowance AS drawn
        JOIN accounts_account ON accounts_account.id = drawn.account_id
        JOIN accounts_plan AS plan ON plan.id = accounts_account.plan_id
        CROSS JOIN LATERAL (
            SELECT LEAST(trunc(COALESCE(GREATEST(
                drawn.requests::numeric / NULLIF(plan.requests_per_day, 0),
                drawn.tokens::numeric / NULLIF(plan.tokens_per_day, 0)
            ), 0), 4), 999.9999) AS share
        ) AS fresh
        WHERE drawn.day >= %(since)s AND drawn.share <> fresh.share
        ORDER BY drawn.account_id LIMIT %(batch)s
        FOR UPDATE OF drawn SKIP LOCKED
    )
    UPDATE usage_dailyallowance AS drawn SET share = due.share FROM due WHERE drawn.id = due.id
"""


def aggregate(*, at: dt.datetime) -> None:
    """Write the share of the tighter limit that each account has used; who has reached a mark owes an e-mail from then.

    Each mark is passed once a day, by a conditional update. Yesterday's share is brought to its end too, but nobody is
    told about a day that is over.
    """
    day = at.astimezone(dt.UTC).date()
    while _write_shares(since=day - dt.timedelta(days=1)) == _BATCH:
        pass
    today = DailyAllowance.objects.filter(day=day)
    for allowance_id in _exhausted(today):
        _mark_exhausted(allowance_id, at)
    for allowance_id in _near(today):
        _mark_warned(allowance_id, at)


def of_today(*, at: dt.datetime) -> QuerySet[DailyAllowance]:
    """The allowances that may still owe an e-mail."""
    return DailyAllowance.objects.filter(day=at.astimezone(dt.UTC).date()).select_related("account__plan")


def _exhausted(today: QuerySet[DailyAllowance]) -> list[int]:
    return list(today.filter(share__gte=1, exhausted_at=None).values_list("pk", flat=True))


def _near(today: QuerySet[DailyAllowance]) -> list[int]:
    near = today.filter(share__gte=WARN_AT_SHARE, share__lt=1, warned_at=None)
    return list(near.values_list("pk", flat=True))


def _mark_exhausted(allowance_id: int, at: dt.datetime) -> None:
    """Whoever jumps past 80 % and 100 % at once hears of it once."""
    unmarked = DailyAllowance.objects.filter(pk=allowance_id, exhausted_at=None)
    unmarked.update(exhausted_at=at, warned_at=Coalesce(F("warned_at"), Value(at)), mail_due_at=at)


def _mark_warned(allowance_id: int, at: dt.datetime) -> None:
    DailyAllowance.objects.filter(pk=allowance_id, warned_at=None).update(warned_at=at, mail_due_at=at)


def _write_shares(*, since: dt.date) -> int:
    with connection.cursor() as cursor:
        cursor.execute(_SHARES, {"since": since, "batch": _BATCH})
        return int(cursor.rowcount)
