"""The lock under which a key changes: its row. Rotations, revocations and policy changes happen in turn."""

from keys.models import ApiKey


class RevokedKeyError(Exception):
    """The key was revoked, which is final: make a new one."""

    def __init__(self) -> None:
        super().__init__("This key was revoked. A revoked key stays revoked; create a new one instead.")


def lock(*, key: ApiKey) -> ApiKey:
    """The key as it is now, locked until the transaction ends."""
    return ApiKey.objects.select_for_update(of=("self",)).select_related("owner").get(pk=key.pk)


def lock_unrevoked(*, key: ApiKey) -> ApiKey:
    """As `lock`; RevokedKeyError for a revoked key."""
    locked = lock(key=key)
    if locked.status == ApiKey.Status.REVOKED:
        raise RevokedKeyError
    return locked
