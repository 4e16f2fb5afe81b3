"""A new secret for a key, which keeps its id, its policy and its history."""

import datetime as dt

from django.db import transaction
from django.db.models import F, Q
from django.views.decorators.debug import sensitive_variables

from accounts import auditing
from accounts.models import User
from keys import issuing, locking, secrets
from keys.issuing import IssuedKey
from keys.models import ApiKey


@sensitive_variables("secret")
def rotate(
    *, key: ApiKey, actor: User | None, at: dt.datetime, overlap: dt.timedelta = dt.timedelta(0)
) -> IssuedKey:
    """Give the key a new secret. Every earlier one is refused from `at + overlap`, by default at once.

    An earlier rotation may have left a secret with an overlap of its own: it never outlives this one's.
    RevokedKeyError for a revoked key.
    """
    if overlap < dt.timedelta(0):
        msg = "an overlap cannot be negative"
        raise ValueError(msg)
    retires_at = at + overlap
    with transaction.atomic():
        locked = locking.lock_unrevoked(key=key)
        locked.secrets.filter(Q(retires_at=None) | Q(retires_at__gt=retires_at)).update(retires_at=retires_at)
        secret = issuing.add_secret(key=locked, at=at)
        ApiKey.objects.filter(pk=locked.pk).update(policy_version=F("policy_version") + 1)
        auditing.record(
            account=locked.account_id,
            actor=actor,
            action="key.rotated",
            subject_type="key",
            subject_id=locked.pk,
            start=secrets.start_of(secret),
            end=secrets.end_of(secret),
            earlier_refused_from=retires_at.isoformat(),
        )
    key.refresh_from_db()
    return IssuedKey(key=key, secret=secret)
