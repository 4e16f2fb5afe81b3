import datetime as dt
from typing import Any

import pytest
from django.core.exceptions import ValidationError

from accounts.models import AuditEvent
from keys import policies, revoking
from keys.locking import RevokedKeyError
from tests.factories import make_account, make_key, make_model, make_user, now

pytestmark = pytest.mark.django_db


def test_a_change_keeps_what_it_does_not_name_and_raises_the_version() -> None:
    user = make_user()
    key = make_key(make_account(user=user), purpose="stays", requests_per_minute=7).key

    changed = policies.change_policy(key=key, actor=user, name="new name", tokens_per_minute=500, owner=user)

    assert changed is key
    assert (key.name, key.purpose, key.owner) == ("new name", "stays", user)
    assert (key.requests_per_minute, key.tokens_per_minute, key.policy_version) == (7, 500, 2)
    event = AuditEvent.objects.get(action="key.policy_changed")
    assert event.actor == user
    assert event.detail["changes"] == {
        "name": {"before": "test key", "after": "new name"},
        "tokens_per_minute": {"before": None, "after": 500},
        "owner": {"before": None, "after": user.email},
    }


def test_a_change_that_changes_nothing_leaves_no_trace() -> None:
    key = make_key(requests_per_minute=7).key
    policies.change_policy(key=key, actor=None, requests_per_minute=7, allowed_models=[])
    assert key.policy_version == 1
    assert not AuditEvent.objects.filter(action="key.policy_changed").exists()


def test_an_expiry_is_kept_as_a_moment_and_traced_as_text() -> None:
    key = make_key().key
    moment = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
    policies.change_policy(key=key, actor=None, expires_at=moment)
    assert key.expires_at == moment
    event = AuditEvent.objects.get(action="key.policy_changed")
    assert event.detail["changes"]["expires_at"]["after"] == "2030-01-01T00:00:00+00:00"


def test_lists_are_kept_in_order_and_once() -> None:
    make_model("one")
    make_model("two")
    key = make_key().key
    policies.change_policy(
        key=key, actor=None, allowed_models=["two", "one", "two"], allowed_endpoints=["messages", "messages"]
    )
    assert key.allowed_models == ["two", "one"]
    assert key.allowed_endpoints == ["messages"]


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("203.0.113.7", "203.0.113.7/32"),
        (" 10.1.2.3/8 ", "10.0.0.0/8"),
        ("2001:DB8::1", "2001:db8::1/128"),
        ("2001:db8::/32", "2001:db8::/32"),
        ("::ffff:1.2.3.4", "1.2.3.4/32"),
        ("::ffff:1.2.3.0/120", "1.2.3.0/24"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("::/0", "::/0"),
    ],
)
def test_networks_are_kept_in_one_form(typed: str, kept: str) -> None:
    key = make_key(allowed_networks=[typed, typed]).key
    key.refresh_from_db()
    assert key.allowed_networks == [kept]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"allowed_models": ["nowhere-1", "nowhere-2"]}, "There is no model named nowhere-1, nowhere-2."),
        ({"allowed_endpoints": ["chat"]}, "There is no endpoint named chat."),
        ({"allowed_networks": ["example.com"]}, "“example.com” is no network."),
        ({"allowed_networks": ["10.0.0.0/33"]}, "is no network"),
        ({"allowed_networks": ["fe80::1%eth0"]}, "is no network"),
        ({"allowed_networks": [f"10.0.{n}.0/24" for n in range(101)]}, "100 networks at most"),
        ({"requests_per_minute": 0}, "at least 1"),
        ({"tokens_per_minute": -1}, "at least 1"),
        ({"name": ""}, "cannot be blank"),
    ],
)
def test_what_is_wrong_is_said_at_its_field_and_nothing_is_changed(wrong: Any, message: str) -> None:
    key = make_key().key
    with pytest.raises(ValidationError) as caught:
        policies.change_policy(key=key, actor=None, purpose="not saved", **wrong)
    (field,) = wrong
    assert list(caught.value.message_dict) == [field]
    assert message in caught.value.message_dict[field][0]
    key.refresh_from_db()
    assert (key.purpose, key.policy_version) == ("", 1)


def test_every_wrong_field_is_named_at_once() -> None:
    key = make_key().key
    with pytest.raises(ValidationError) as caught:
        policies.change_policy(
            key=key, actor=None, name="", requests_per_minute=0, allowed_networks=["x", "y"]
        )
    messages = caught.value.message_dict
    assert set(messages) == {"name", "requests_per_minute", "allowed_networks"}
    assert len(messages["allowed_networks"]) == 2


def test_a_model_that_has_left_the_catalog_may_stay_on_the_key() -> None:
    make_model("stays")
    key = make_key(allowed_models=["stays"]).key
    type(key).objects.filter(pk=key.pk).update(allowed_models=["stays", "gone"])
    policies.change_policy(key=key, actor=None, allowed_models=["gone"])
    assert key.allowed_models == ["gone"]


def test_only_a_member_can_own_a_key() -> None:
    stranger = make_user()
    with pytest.raises(ValidationError) as caught:
        make_key(owner=stranger)
    assert caught.value.message_dict == {"owner": [f"{stranger.email} is not a member of this account."]}


def test_a_revoked_key_is_not_changed_any_more() -> None:
    key = make_key().key
    revoking.revoke(key=key, actor=None, at=now())
    with pytest.raises(RevokedKeyError):
        policies.change_policy(key=key, actor=None, name="too late")
