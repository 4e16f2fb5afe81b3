"""Two people act on one key at the same moment, each over a connection of their own."""

import pytest

from accounts.models import AuditEvent
from keys import authenticating, policies, revoking, rotating
from keys.issuing import IssuedKey
from keys.locking import RevokedKeyError
from keys.models import ApiKey
from tests.concurrency import in_parallel
from tests.factories import make_key, now

pytestmark = pytest.mark.django_db(transaction=True)


def test_rotations_at_once_leave_exactly_one_current_secret() -> None:
    key = make_key().key

    def rotate(_number: int) -> IssuedKey:
        return rotating.rotate(key=ApiKey.objects.get(pk=key.pk), actor=None, at=now())

    rotated = in_parallel(rotate, times=8)

    assert key.secrets.count() == 9
    current = key.secrets.get(retires_at=None)
    answers = [authenticating.find(secret=issued.secret) for issued in rotated]
    assert [answer.secret_id for answer in answers if answer and answer.secret_retires_at is None] == [
        current.pk
    ]
    key.refresh_from_db()
    assert key.policy_version == 9


def test_a_key_that_is_rotated_and_revoked_at_once_ends_revoked() -> None:
    for _ in range(5):
        issued = make_key()

        def act(number: int, key: ApiKey = issued.key) -> str:
            mine = ApiKey.objects.get(pk=key.pk)
            try:
                if number:
                    revoking.revoke(key=mine, actor=None, at=now())
                    return "revoked"
                rotating.rotate(key=mine, actor=None, at=now())
            except RevokedKeyError:
                return "too late"
            return "rotated"

        answers = in_parallel(act, times=2)

        issued.key.refresh_from_db()
        assert issued.key.status == "revoked"
        assert issued.key.secrets.count() == (2 if answers[0] == "rotated" else 1)
        assert issued.key.policy_version == 1 + (2 if answers[0] == "rotated" else 1)


def test_changes_of_different_fields_at_once_both_hold() -> None:
    key = make_key().key

    def change(number: int) -> None:
        mine = ApiKey.objects.get(pk=key.pk)
        if number:
            policies.change_policy(key=mine, actor=None, requests_per_minute=5)
        else:
            policies.change_policy(key=mine, actor=None, tokens_per_minute=500)

    in_parallel(change, times=2)

    key.refresh_from_db()
    assert (key.requests_per_minute, key.tokens_per_minute, key.policy_version) == (5, 500, 3)
    assert AuditEvent.objects.filter(action="key.policy_changed").count() == 2
