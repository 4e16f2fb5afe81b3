from collections.abc import Callable

import pytest

from accounts.models import AuditEvent
from keys import revoking
from keys.locking import RevokedKeyError
from keys.models import ApiKey
from tests.factories import make_account, make_key, make_user, now

pytestmark = pytest.mark.django_db


def test_a_revoked_key_is_revoked_with_its_moment_actor_and_version() -> None:
    user = make_user()
    key, at = make_key(make_account(user=user)).key, now()
    assert revoking.revoke(key=key, actor=user, at=at) is key
    assert (key.status, key.revoked_at, key.policy_version) == ("revoked", at, 2)
    event = AuditEvent.objects.get(action="key.revoked")
    assert (event.actor, event.subject_id) == (user, str(key.pk))


def test_a_disabled_key_can_be_enabled_again() -> None:
    key = make_key().key
    revoking.disable(key=key, actor=None, at=now())
    assert (key.status, key.policy_version) == ("disabled", 2)
    revoking.enable(key=key, actor=None, at=now())
    assert (key.status, key.policy_version) == ("active", 3)
    actions = set(AuditEvent.objects.values_list("action", flat=True))
    assert {"key.disabled", "key.enabled"} <= actions


def test_doing_it_twice_changes_nothing_more() -> None:
    key, at = make_key().key, now()
    revoking.enable(key=key, actor=None, at=at)
    assert key.policy_version == 1
    revoking.revoke(key=key, actor=None, at=at)
    revoking.revoke(key=key, actor=None, at=now())
    assert (key.policy_version, key.revoked_at) == (2, at)
    assert AuditEvent.objects.filter(action="key.revoked").count() == 1


@pytest.mark.parametrize("act", [revoking.disable, revoking.enable])
def test_a_revoked_key_stays_revoked(act: Callable[..., ApiKey]) -> None:
    key = make_key().key
    revoking.revoke(key=key, actor=None, at=now())
    with pytest.raises(RevokedKeyError):
        act(key=key, actor=None, at=now())
    key.refresh_from_db()
    assert key.status == "revoked"


def test_a_disabled_key_can_be_revoked() -> None:
    key = make_key().key
    revoking.disable(key=key, actor=None, at=now())
    revoking.revoke(key=key, actor=None, at=now())
    assert key.status == "revoked"
