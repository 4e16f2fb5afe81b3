import datetime as dt

import pytest

from accounts.models import AuditEvent
from keys import authenticating, revoking, rotating
from keys.locking import RevokedKeyError
from tests.factories import make_account, make_key, make_user, now

pytestmark = pytest.mark.django_db


def retires_at(secret: str) -> dt.datetime | None:
    credential = authenticating.find(secret=secret)
    assert credential is not None
    return credential.secret_retires_at


def test_a_rotated_secret_is_retired_at_once_and_the_new_one_is_current() -> None:
    issued, at = make_key(), now()
    rotated = rotating.rotate(key=issued.key, actor=None, at=at)
    assert rotated.secret != issued.secret
    assert retires_at(issued.secret) == at
    assert retires_at(rotated.secret) is None


def test_an_overlap_keeps_the_old_secret_until_it_ends() -> None:
    issued, at = make_key(), now()
    rotating.rotate(key=issued.key, actor=None, at=at, overlap=dt.timedelta(hours=1))
    assert retires_at(issued.secret) == at + dt.timedelta(hours=1)


def test_no_earlier_secret_outlives_a_later_rotation() -> None:
    first, at = make_key(), now()
    second = rotating.rotate(key=first.key, actor=None, at=at, overlap=dt.timedelta(days=7))
    later = at + dt.timedelta(minutes=1)
    rotating.rotate(key=first.key, actor=None, at=later)
    assert retires_at(first.secret) == retires_at(second.secret) == later


def test_a_secret_that_has_ended_is_not_brought_back_by_an_overlap() -> None:
    first, at = make_key(), now()
    rotating.rotate(key=first.key, actor=None, at=at)
    rotating.rotate(key=first.key, actor=None, at=at + dt.timedelta(minutes=1), overlap=dt.timedelta(days=7))
    assert retires_at(first.secret) == at


def test_the_key_keeps_its_id_and_policy_and_its_version_rises() -> None:
    issued = make_key(name="same", environment="production", requests_per_minute=5)
    rotated = rotating.rotate(key=issued.key, actor=None, at=now())
    assert rotated.key.pk == issued.key.pk
    assert (rotated.key.name, rotated.key.requests_per_minute, rotated.key.policy_version) == ("same", 5, 2)
    assert rotated.secret.startswith("tg_live_")


def test_the_trail_says_when_the_earlier_secret_ends() -> None:
    user = make_user()
    issued, at = make_key(make_account(user=user)), now()
    rotated = rotating.rotate(key=issued.key, actor=user, at=at, overlap=dt.timedelta(hours=1))
    event = AuditEvent.objects.get(action="key.rotated")
    assert event.actor == user
    assert event.detail == {
        "start": rotated.secret[:12],
        "end": rotated.secret[-4:],
        "earlier_refused_from": (at + dt.timedelta(hours=1)).isoformat(),
    }


def test_a_revoked_key_cannot_rotate() -> None:
    issued = make_key()
    revoking.revoke(key=issued.key, actor=None, at=now())
    with pytest.raises(RevokedKeyError):
        rotating.rotate(key=issued.key, actor=None, at=now())
    assert issued.key.secrets.count() == 1


def test_a_negative_overlap_is_a_mistake() -> None:
    issued = make_key()
    with pytest.raises(ValueError):
        rotating.rotate(key=issued.key, actor=None, at=now(), overlap=dt.timedelta(seconds=-1))
