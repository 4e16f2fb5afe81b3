"""The end of a key, or a pause.

The gateway compares the key's policy version before it admits a request, so every request that starts after
one of these functions has committed is judged by the new status.
"""

import datetime as dt

from django.db import transaction

from accounts import auditing
from accounts.models import User
from keys import locking
from keys.models import ApiKey


def revoke(*, key: ApiKey, actor: User | None, at: dt.datetime) -> ApiKey:
    """End the key for good. Revoking a revoked key changes nothing."""
    return _set_status(key=key, status=ApiKey.Status.REVOKED, actor=actor, at=at, action="key.revoked")


def disable(*, key: ApiKey, actor: User | None, at: dt.datetime) -> ApiKey:
    """Refuse the key until it is enabled again. RevokedKeyError for a revoked key."""
    return _set_status(key=key, status=ApiKey.Status.DISABLED, actor=actor, at=at, action="key.disabled")


def enable(*, key: ApiKey, actor: User | None, at: dt.datetime) -> ApiKey:
    """Serve a disabled key again. RevokedKeyError for a revoked key."""
    return _set_status(key=key, status=ApiKey.Status.ACTIVE, actor=actor, at=at, action="key.enabled")


def _set_status(*, key: ApiKey, status: str, actor: User | None, at: dt.datetime, action: str) -> ApiKey:
    with transaction.atomic():
        locked = locking.lock(key=key)
        if locked.status != status:
            if locked.status == ApiKey.Status.REVOKED:
                raise locking.RevokedKeyError
            locked.status = status
            locked.revoked_at = at if status == ApiKey.Status.REVOKED else None
            locked.policy_version += 1
            locked.save(update_fields=["status", "revoked_at", "policy_version"])
            auditing.record(
                account=locked.account_id,
                actor=actor,
                action=action,
                subject_type="key",
                subject_id=locked.pk,
            )
    key.refresh_from_db()
    return key
