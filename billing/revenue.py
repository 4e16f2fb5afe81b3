"""What the platform has earned, given away and lost, by month and one by one, as the ledger says it."""

import csv
import datetime as dt
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db import connection

from billing.models import LedgerAccount, Posting
from catalog.money import usd_string

CSV_COLUMNS = (
    "month",
    "usage_revenue_usd",
    "fee_revenue_usd",
    "refunds_usd",
    "promotions_usd",
    "adjustments_usd",
    "platform_loss_usd",
    "earned_usd",
    "received_usd",
)
_BY_MONTH = """
    SELECT date_trunc('month', t.created_at, 'UTC')::date AS month,
        coalesce(sum(p.amount_nanousd) FILTER (WHERE l.kind = 'usage_revenue'), 0),
        coalesce(sum(p.amount_nanousd) FILTER (WHERE l.kind = 'fee_revenue'), 0),
        coalesce(sum(p.amount_nanousd) FILTER (WHERE l.kind = 'refunds'), 0),
        coalesce(sum(p.amount_nanousd) FILTER (WHERE l.kind = 'promotions'), 0),
        coalesce(sum(p.amount_nanousd) FILTER (WHERE l.kind = 'adjustments'), 0),
        coalesce(sum(p.amount_nanousd) FILTER (WHERE l.kind = 'platform_loss'), 0),
        coalesce(-sum(p.amount_nanousd) FILTER (WHERE l.kind = 'cash_clearing'), 0)
    FROM billing_ledgeraccount l
    JOIN billing_posting p ON p.ledger_account_id = l.id
    JOIN billing_ledgertransaction t ON t.id = p.transaction_id
    WHERE l.account_id IS NULL AND t.created_at >= %s
    GROUP BY 1 ORDER BY 1
"""


@dataclass(frozen=True, slots=True)
class Month:
    """A UTC month of the platform's own accounts, in nano-USD; what was given away or lost is negative.

    `received` is what payment providers took for us, less what they gave back. It is no revenue: most of it is credit,
    which becomes revenue when it is used.
    """

    month: dt.date
    usage_nanousd: int = 0
    fees_nanousd: int = 0
    refunds_nanousd: int = 0
    promotions_nanousd: int = 0
    # Paid credit that the operator took and gave nothing back for.
    adjustments_nanousd: int = 0
    losses_nanousd: int = 0
    received_nanousd: int = 0

    @property
    def earned_nanousd(self) -> int:
        return (
            self.usage_nanousd
            + self.fees_nanousd
            + self.refunds_nanousd
            + self.promotions_nanousd
            + self.adjustments_nanousd
            + self.losses_nanousd
        )

    @property
    def lost_nanousd(self) -> int:
        return -self.losses_nanousd


@dataclass(frozen=True, slots=True)
class Loss:
    """Something that the platform paid for; negative where it came back. In nano-USD."""

    id: int
    at: dt.datetime
    account_id: int
    account: str
    transaction_id: int
    description: str
    amount_nanousd: int
    # The request that used more than could be charged for it; None: a refund or a dispute took more than there was.
    request_id: str | None


def by_month(*, at: dt.datetime, months: int | None = 12) -> list[Month]:
    """The last months to the one of `at`, the oldest first and without gaps; None: since the first posting."""
    last = at.astimezone(dt.UTC).date().replace(day=1)
    since = _earlier(last, months - 1) if months else dt.date.min.replace(year=2)
    with connection.cursor() as cursor:
        cursor.execute(_BY_MONTH, [dt.datetime.combine(since, dt.time(), dt.UTC)])
        found = {row[0]: Month(row[0], *map(int, row[1:])) for row in cursor.fetchall()}
    month = since if months else min([*found, last])
    listed = []
    while month <= last:
        listed.append(found.get(month, Month(month)))
        month = _earlier(month, -1)
    return listed


def total(months: Sequence[Month]) -> Month:
    """All of them together; its month is the last one."""
    names = ("usage", "fees", "refunds", "promotions", "adjustments", "losses", "received")
    sums = {f"{name}_nanousd": sum(getattr(month, f"{name}_nanousd") for month in months) for name in names}
    return Month(months[-1].month, **sums)


def as_chart(months: Sequence[Month]) -> dict[str, Any]:
    """For `json_script` and static/js/usage-chart.js, in USD."""
    series = (("usage", "Usage"), ("fees", "Fees"), ("adjustments", "Credit taken"))
    lost = (("refunds", "Fees given back"), ("promotions", "Credit granted"), ("losses", "Losses"))
    return {
        "unit": "usd",
        "step": "month",
        "labels": [f"{month.month:%Y-%m}" for month in months],
        "datasets": [
            {
                "ident": name,
                "label": label,
                "data": [round(getattr(month, f"{name}_nanousd") * 1e-9, 9) for month in months],
            }
            for name, label in series + lost
        ],
    }


def months_csv(months: Sequence[Month]) -> str:
    """A line per month with a header line; amounts are USD with nine decimals."""
    written = io.StringIO()
    writer = csv.writer(written)
    writer.writerow(CSV_COLUMNS)
    for month in months:
        amounts = (
            month.usage_nanousd,
            month.fees_nanousd,
            month.refunds_nanousd,
            month.promotions_nanousd,
            month.adjustments_nanousd,
            month.losses_nanousd,
            month.earned_nanousd,
            month.received_nanousd,
        )
        writer.writerow([f"{month.month:%Y-%m}", *map(usd_string, amounts)])
    return written.getvalue()


def losses(*, older_than: int | None = None, limit: int = 50) -> tuple[list[Loss], int | None]:
    """Losses before the posting of that id, the newest first, and where they go on; None: that was all."""
    postings = Posting.objects.filter(ledger_account__kind=LedgerAccount.Kind.PLATFORM_LOSS)
    if older_than is not None:
        postings = postings.filter(pk__lt=older_than)
    found = list(postings.select_related("transaction__account").order_by("-id")[: limit + 1])
    shown = [
        Loss(
            id=posting.pk,
            at=posting.transaction.created_at,
            account_id=posting.transaction.account_id,
            account=str(posting.transaction.account),
            transaction_id=posting.transaction_id,
            description=posting.transaction.description,
            amount_nanousd=-posting.amount_nanousd,
            request_id=_request_id(posting.transaction.reference),
        )
        for posting in found[:limit]
    ]
    return shown, shown[-1].id if len(found) > limit else None


def _request_id(reference: str) -> str | None:
    return reference.removeprefix("loss:") if reference.startswith("loss:") else None


def _earlier(month: dt.date, months: int) -> dt.date:
    years, index = divmod(month.year * 12 + month.month - 1 - months, 12)
    return dt.date(years, index + 1, 1)
