"""The daily allowance as people hear of it: the share that is used, and an e-mail at 80 % and at 100 %.

What draws on the allowance is `usage.books`, under the wallet's lock; this only reads it and says so.
"""

import datetime as dt
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

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


@dataclass(frozen=True, slots=True)
class Notice:
    """An e-mail that this worker, and no other, has claimed."""

    allowance_id: int
    level: Literal["warned", "exhausted"]


def aggregate(*, at: dt.datetime) -> list[Notice]:
    """Write the share of the tighter limit that each account has used; returns the e-mails that are now due.

    Each is claimed by a conditional update before it is returned, so it is returned once, to one worker. Yesterday's
    share is brought to its end too, but nobody is told about a day that is over.
    """
    day = at.astimezone(dt.UTC).date()
    while _write_shares(since=day - dt.timedelta(days=1)) == _BATCH:
        pass
    today = DailyAllowance.objects.filter(day=day)
    return [
        *(Notice(pk, "exhausted") for pk in _exhausted(today) if _claim_exhausted(pk, at)),
        *(Notice(pk, "warned") for pk in _near(today) if _claim_warned(pk, at)),
    ]


def _exhausted(today: QuerySet[DailyAllowance]) -> list[int]:
    return list(today.filter(share__gte=1, exhausted_at=None).values_list("pk", flat=True))


def _near(today: QuerySet[DailyAllowance]) -> list[int]:
    near = today.filter(share__gte=WARN_AT_SHARE, share__lt=1, warned_at=None)
    return list(near.values_list("pk", flat=True))


def _claim_exhausted(allowance_id: int, at: dt.datetime) -> bool:
    """Whether this worker is the one. Whoever jumped past 80 % and 100 % at once hears of it once."""
    unclaimed = DailyAllowance.objects.filter(pk=allowance_id, exhausted_at=None)
    return bool(unclaimed.update(exhausted_at=at, warned_at=Coalesce(F("warned_at"), Value(at))))


def _claim_warned(allowance_id: int, at: dt.datetime) -> bool:
    return bool(DailyAllowance.objects.filter(pk=allowance_id, warned_at=None).update(warned_at=at))


def give_back(*, notice: Notice) -> None:
    """Let the next run claim the e-mail again: this one could not be sent."""
    claim = "exhausted_at" if notice.level == "exhausted" else "warned_at"
    DailyAllowance.objects.filter(pk=notice.allowance_id).update(**{claim: None})


def _write_shares(*, since: dt.date) -> int:
    with connection.cursor() as cursor:
        cursor.execute(_SHARES, {"since": since, "batch": _BATCH})
        return int(cursor.rowcount)
