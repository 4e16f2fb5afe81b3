"""Claims of idempotency keys, which hold for a day, and gaps in the minutes of keys, which hold for two minutes."""

import datetime as dt

from usage.models import IdempotencyClaim, MinuteGap

IDEMPOTENT_FOR = dt.timedelta(hours=24)
_BATCH = 5_000


def forget_claims(*, at: dt.datetime, batch: int = _BATCH) -> int:
    """Delete the claims that are older than 24 hours, so many at a time. Returns how many there were."""
    forgotten = 0
    while True:
        old = IdempotencyClaim.objects.filter(claimed_at__lt=at - IDEMPOTENT_FOR).order_by("claimed_at")
        deleted, _ = IdempotencyClaim.objects.filter(pk__in=old.values("pk")[:batch]).delete()
        forgotten += deleted
        if deleted < batch:
            return forgotten


def forget_gaps(*, at: dt.datetime) -> int:
    """Delete the gaps that have ended, whatever the clocks say of the last seconds. Returns how many there were."""
    forgotten, _ = MinuteGap.objects.filter(ends_at__lt=at - dt.timedelta(minutes=5)).delete()
    return forgotten
