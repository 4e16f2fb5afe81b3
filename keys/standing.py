"""How a key stands at a moment: its status, and whether its time is over."""

import datetime as dt

from django.db import models
from django.db.models import Q, QuerySet

from keys.models import ApiKey


class Standing(models.TextChoices):
    """What people see as the status of a key."""

    ACTIVE = "active", "Active"
    DISABLED = "disabled", "Disabled"
    EXPIRED = "expired", "Expired"
    REVOKED = "revoked", "Revoked"


def standing(*, key: ApiKey, at: dt.datetime) -> Standing:
    """The standing of the key. Whoever revoked or disabled it meant it, so that goes before its expiry."""
    if key.status != ApiKey.Status.ACTIVE:
        return Standing(key.status)
    return Standing.EXPIRED if key.expires_at is not None and key.expires_at <= at else Standing.ACTIVE


def standing_as(keys: QuerySet[ApiKey], *, wanted: Standing, at: dt.datetime) -> QuerySet[ApiKey]:
    """Those of the keys that stand so at the moment."""
    is_over = Q(expires_at__isnull=False, expires_at__lte=at)
    match wanted:
        case Standing.ACTIVE:
            return keys.filter(~is_over, status=ApiKey.Status.ACTIVE)
        case Standing.EXPIRED:
            return keys.filter(is_over, status=ApiKey.Status.ACTIVE)
        case _:
            return keys.filter(status=wanted.value)
