"""Ended hours into the ledger: what was charged moves from the customer's credits to usage revenue.

The wallet is not touched: it was debited when each request settled. Before and after, the wallet is the ledger
less what is not posted yet.
"""

import datetime as dt
import logging

from django.db import transaction
from django.db.models import F

from billing import ledger
from billing.models import LedgerAccount, LedgerTransaction
from usage.models import HourlyUsage

logger = logging.getLogger(__name__)


def post_hours(*, at: dt.datetime) -> int:
    """Post what is charged and not posted of the hours that have ended; returns how many transactions were written.

    One transaction per account and hour, each committed by itself, so that a kill loses nothing. Requests that end,
    or are rolled up, after their hour was posted make a further transaction of the same hour.
    """
    running = at.astimezone(dt.UTC).replace(minute=0, second=0, microsecond=0)
    due = (
        HourlyUsage.objects.filter(hour__lt=running)
        .exclude(posted_nanousd=F("charged_nanousd"))
        .order_by("hour", "account_id")
        .values_list("account_id", "hour")
        .distinct()
    )
    return sum(_post_hour(account_id=account_id, hour=hour, at=at) for account_id, hour in due)


def _post_hour(*, account_id: int, hour: dt.datetime, at: dt.datetime) -> bool:
    """Whether a transaction was written: not where another worker was first."""
    try:
        with transaction.atomic():
            # The lock keeps `charged` from growing between the sum and the update. In the roll-up's order.
            unposted = list(
                HourlyUsage.objects.select_for_update()
                .filter(account_id=account_id, hour=hour)
                .exclude(posted_nanousd=F("charged_nanousd"))
                .order_by("key_id", "model_id", "outcome")
            )
            amount_nanousd = sum(row.charged_nanousd - row.posted_nanousd for row in unposted)
            if not amount_nanousd:
                return False
            _write(account_id=account_id, hour=hour, amount_nanousd=amount_nanousd, at=at)
            HourlyUsage.objects.filter(pk__in=[row.pk for row in unposted]).update(
                posted_nanousd=F("charged_nanousd")
            )
    except ledger.AlreadyPosted as already:
        # Another worker posted other rows of this hour at the same moment. Ours are still due at the next tick.
        logger.info("%s; the rest of the hour waits for the next run", already)
        return False
    return True


def _write(*, account_id: int, hour: dt.datetime, amount_nanousd: int, at: dt.datetime) -> None:
    prefix = f"usage:{account_id}:{hour:%Y-%m-%dT%H}:"
    earlier = LedgerTransaction.objects.filter(account_id=account_id, reference__startswith=prefix).count()
    until = hour + dt.timedelta(hours=1)
    ledger.post(
        reference=f"{prefix}{earlier}",
        kind=LedgerTransaction.Kind.USAGE,
        account=account_id,
        description=f"Usage from {hour:%Y-%m-%d %H:%M} to {until:%H:%M} UTC"
        + (", ended later" if earlier else ""),
        legs=[
            ledger.Leg(LedgerAccount.Kind.CUSTOMER_CREDITS, -amount_nanousd, owner_id=account_id),
            ledger.Leg(LedgerAccount.Kind.USAGE_REVENUE, amount_nanousd),
        ],
        at=at,
    )
