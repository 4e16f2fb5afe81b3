import datetime as dt
import logging
from collections.abc import Iterator

import pytest
from django.core.exceptions import ValidationError
from django.db import connection

from accounts.models import AuditEvent
from keys import issuing, secrets
from keys.models import ApiKey, KeySecret
from tests.factories import make_account, make_key, make_user, now

pytestmark = pytest.mark.django_db


def every_text_in_the_database() -> Iterator[str]:
    """Each row of each table as text, and as bytes where a column holds some."""
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f'SELECT to_jsonb(t)::text FROM "{table}" t')  # noqa: S608 - our own tables
            for (text,) in cursor.fetchall():
                yield text


def test_the_secret_is_found_nowhere_afterwards(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        issued = make_key(name="findable", purpose="a text that is stored")
    body = issued.secret[len("tg_test_") + 4 : -4]
    stored = list(every_text_in_the_database())

    assert any("a text that is stored" in text for text in stored)
    assert not any(body in text for text in stored)
    assert not any(body.encode().hex() in text for text in stored)
    assert body not in caplog.text
    assert issued.secret not in repr(issued)
    assert "findable" in repr(issued)


def test_what_is_stored_is_the_digest_under_the_current_pepper() -> None:
    issued = make_key()
    stored = KeySecret.objects.get()
    version, digest = secrets.digests(issued.secret)[0]
    assert (stored.key, stored.pepper_version, bytes(stored.digest)) == (issued.key, version, digest)
    assert str(stored) == f"{issued.secret[:12]}…{issued.secret[-4:]}"
    assert stored.retires_at is None


@pytest.mark.parametrize(
    ("environment", "prefix"),
    [("production", "tg_live_"), ("staging", "tg_test_"), ("development", "tg_test_")],
)
def test_only_a_production_key_is_live(environment: str, prefix: str) -> None:
    assert make_key(environment=environment).secret.startswith(prefix)


def test_a_key_is_active_for_development_and_allows_what_the_plan_does_unless_told_otherwise() -> None:
    key = make_key(name="  spaced  ").key
    key.refresh_from_db()
    assert key.name == "spaced"
    assert (key.status, key.environment, key.policy_version) == ("active", "development", 1)
    assert key.allowed_models == key.allowed_endpoints == key.allowed_networks == []
    assert (key.owner, key.expires_at, key.requests_per_minute, key.tokens_per_minute) == (
        None,
        None,
        None,
        None,
    )


def test_the_trail_says_who_made_which_key() -> None:
    user = make_user()
    account = make_account(user=user)
    issued = issuing.issue(account=account, actor=user, name="checkout", at=now(), owner=user)
    event = AuditEvent.objects.get(action="key.issued")
    assert (event.account, event.actor, event.subject_type) == (account, user, "key")
    assert event.subject_id == str(issued.key.pk)
    assert event.detail == {
        "name": "checkout",
        "environment": "development",
        "start": issued.secret[:12],
        "end": issued.secret[-4:],
    }


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"name": "   "}, "name"),
        ({"name": "x" * 81}, "name"),
        ({"purpose": "x" * 301}, "purpose"),
        ({"environment": "moon"}, "environment"),
        ({"expires_at": dt.datetime(2020, 1, 1, tzinfo=dt.UTC)}, "expires_at"),
        ({"tokens_per_minute": 2**31}, "tokens_per_minute"),
    ],
)
def test_a_wrong_policy_makes_no_key(wrong: dict[str, object], field: str) -> None:
    account = make_account()
    with pytest.raises(ValidationError) as caught:
        make_key(account, **wrong)  # type: ignore[arg-type]
    assert list(caught.value.message_dict) == [field]
    assert not ApiKey.objects.exists()
    assert not AuditEvent.objects.exists()
