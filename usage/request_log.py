"""The request log: keyset pages over the records of an account, which are in order of arrival by their ids."""

import datetime as dt
import uuid
from dataclasses import dataclass
from typing import Any

from accounts.models import Account
from usage.models import UsageRecord

PAGE_SIZE = 50
# Further than this, the moment in an id and the start of its request are never apart.
_APART = dt.timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Page:
    """Records, the newest first, and the ids from which the next pages go on; None: there is none."""

    records: list[UsageRecord]
    newer_than: uuid.UUID | None
    older_than: uuid.UUID | None


def within(*, start: dt.datetime, end: dt.datetime) -> dict[str, Any]:
    """Conditions on the records that started in this time.

    An id says when it was made, which is when its request arrived. So the index of the ids finds them, and need not
    be read from the newest on.
    """
    return {
        "started_at__gte": start,
        "started_at__lt": end,
        "pk__gte": _first_id(start - _APART),
        "pk__lt": _first_id(end + _APART),
    }


def _first_id(at: dt.datetime) -> uuid.UUID:
    """The lowest UUIDv7 of the millisecond."""
    return uuid.UUID(int=max(0, int(at.timestamp() * 1000)) << 80)


def page(
    *,
    account: Account,
    filters: dict[str, Any],
    older_than: uuid.UUID | None = None,
    newer_than: uuid.UUID | None = None,
    size: int = PAGE_SIZE,
) -> Page:
    """The page next to an id on either side, or the newest. One row more than shown tells whether it goes on."""
    records = UsageRecord.objects.filter(account=account, **filters).select_related("key", "model")
    if newer_than is not None:
        # Upwards from the id, then turned round.
        found = list(records.filter(pk__gt=newer_than).order_by("pk")[: size + 1])
        shown = found[:size][::-1]
        return Page(
            shown,
            newer_than=shown[0].pk if len(found) > size else None,
            older_than=shown[-1].pk if shown else None,
        )
    if older_than is not None:
        records = records.filter(pk__lt=older_than)
    found = list(records.order_by("-pk")[: size + 1])
    shown = found[:size]
    return Page(
        shown,
        newer_than=shown[0].pk if shown and older_than is not None else None,
        older_than=shown[-1].pk if len(found) > size else None,
    )
