"""Rotate, edit, disable, enable and revoke, as pages."""

import datetime as dt

import pytest
from django.test import Client

from accounts.models import Account, AuditEvent, User
from keys import authenticating, revoking
from keys.issuing import IssuedKey
from keys.models import ApiKey
from tests.factories import make_account, make_key, make_model, make_user, now

pytestmark = pytest.mark.django_db

PAGES = ("rotate", "policy", "disable", "enable", "revoke")


@pytest.fixture
def user() -> User:
    return make_user("ada@example.com")


@pytest.fixture
def account(user: User) -> Account:
    return make_account(user=user)


@pytest.fixture
def issued(account: Account) -> IssuedKey:
    return make_key(account, name="checkout")


@pytest.fixture
def member(client: Client, user: User, account: Account) -> Client:
    client.force_login(user)
    return client


def page(issued: IssuedKey, name: str) -> str:
    return f"/keys/{issued.key.pk}/{name}/"


def rotate(client: Client, issued: IssuedKey, overlap: str = "0") -> str:
    token = client.get(page(issued, "rotate")).context["token"]
    return str(client.post(page(issued, "rotate"), {"overlap": overlap, "token": token}).context["secret"])


def test_rotating_shows_the_new_secret_and_ends_the_old_one_at_once(
    member: Client, issued: IssuedKey
) -> None:
    secret = rotate(member, issued)
    old, new = authenticating.find(secret=issued.secret), authenticating.find(secret=secret)
    assert old is not None
    assert new is not None
    assert old.secret_retires_at is not None
    assert old.secret_retires_at <= now()
    assert (new.key_id, new.secret_retires_at) == (issued.key.pk, None)
    assert AuditEvent.objects.get(action="key.rotated").actor is not None


def test_an_overlap_is_a_choice(member: Client, issued: IssuedKey) -> None:
    rotate(member, issued, overlap="3600")
    old = authenticating.find(secret=issued.secret)
    assert old is not None
    assert old.secret_retires_at is not None
    assert dt.timedelta(minutes=59) < old.secret_retires_at - now() < dt.timedelta(minutes=61)


def test_a_reload_after_rotating_rotates_no_second_time(member: Client, issued: IssuedKey) -> None:
    token = member.get(page(issued, "rotate")).context["token"]
    data = {"overlap": "0", "token": token}
    first = member.post(page(issued, "rotate"), data)
    again = member.post(page(issued, "rotate"), data)
    assert "no-store" in first["Cache-Control"]
    assert (again.status_code, again["Location"]) == (302, f"/keys/{issued.key.pk}/")
    assert issued.key.secrets.count() == 2


@pytest.mark.parametrize(
    ("data", "message"),
    [({"overlap": "0"}, "open for too long"), ({"overlap": "99"}, "not one of the available")],
)
def test_a_form_that_is_not_ours_rotates_nothing(
    member: Client, issued: IssuedKey, data: dict[str, str], message: str
) -> None:
    answer = member.post(page(issued, "rotate"), data)
    assert message in answer.content.decode()
    assert answer.context["token"]
    assert issued.key.secrets.count() == 1


def test_editing_changes_what_was_changed_and_says_that_it_counts_now(
    member: Client, issued: IssuedKey
) -> None:
    make_model("one")
    form = member.get(page(issued, "policy")).context["form"]
    assert form.initial["name"] == "checkout"
    answer = member.post(
        page(issued, "policy"),
        {"name": "checkout", "allowed_models": ["one"], "requests_per_minute": "3"},
        follow=True,
    )
    assert answer.redirect_chain == [(f"/keys/{issued.key.pk}/", 302)]
    issued.key.refresh_from_db()
    assert (issued.key.allowed_models, issued.key.requests_per_minute) == (["one"], 3)
    changes = AuditEvent.objects.get(action="key.policy_changed").detail["changes"]
    assert set(changes) == {"allowed_models", "requests_per_minute"}


def test_saving_an_expired_key_untouched_changes_nothing(member: Client, account: Account) -> None:
    key = make_key(account, expires_at=now() + dt.timedelta(seconds=90)).key
    moment = now() - dt.timedelta(days=1)
    ApiKey.objects.filter(pk=key.pk).update(expires_at=moment)
    data = {"name": key.name, "expires_at": moment.strftime("%Y-%m-%dT%H:%M")}
    assert member.post(f"/keys/{key.pk}/policy/", data).status_code == 302
    key.refresh_from_db()
    assert (key.expires_at, key.policy_version) == (moment, 1)


def test_a_mistake_in_the_policy_is_shown_and_saves_nothing(member: Client, issued: IssuedKey) -> None:
    answer = member.post(page(issued, "policy"), {"name": "new", "allowed_networks": "nonsense"})
    assert "“nonsense” is no network" in answer.content.decode()
    assert "is-invalid" in answer.content.decode()
    issued.key.refresh_from_db()
    assert issued.key.name == "checkout"


def test_a_model_that_left_the_catalog_stays_until_it_is_unchecked(member: Client, issued: IssuedKey) -> None:
    ApiKey.objects.filter(pk=issued.key.pk).update(allowed_models=["left"])
    assert "not in the catalog now" in member.get(page(issued, "policy")).content.decode()
    member.post(page(issued, "policy"), {"name": "renamed", "allowed_models": ["left"]})
    issued.key.refresh_from_db()
    assert (issued.key.name, issued.key.allowed_models) == ("renamed", ["left"])


@pytest.mark.parametrize(("name", "status"), [("disable", "disabled"), ("revoke", "revoked")])
def test_an_act_that_refuses_requests_is_asked_once(
    member: Client, issued: IssuedKey, name: str, status: str
) -> None:
    question = member.get(page(issued, name))
    assert "Every request that starts after you confirm is refused" in question.content.decode()
    issued.key.refresh_from_db()
    assert issued.key.status == "active"

    answer = member.post(page(issued, name), follow=True)

    issued.key.refresh_from_db()
    assert issued.key.status == status
    assert answer.redirect_chain == [(f"/keys/{issued.key.pk}/", 302)]
    assert f"is {status}" in answer.content.decode()


def test_a_disabled_key_is_enabled_by_one_click(member: Client, issued: IssuedKey) -> None:
    revoking.disable(key=issued.key, actor=None, at=now())
    member.post(page(issued, "enable"))
    issued.key.refresh_from_db()
    assert issued.key.status == "active"
    assert member.get(page(issued, "enable")).status_code == 405


@pytest.mark.parametrize("name", PAGES)
def test_a_revoked_key_says_that_it_stays_revoked(member: Client, issued: IssuedKey, name: str) -> None:
    revoking.revoke(key=issued.key, actor=None, at=now())
    answer = member.post(page(issued, name), {"name": "x", "overlap": "0"}, follow=True)
    assert answer.redirect_chain == [(f"/keys/{issued.key.pk}/", 302)]
    assert "A revoked key stays revoked" in answer.content.decode()
    if name != "enable":
        assert member.get(page(issued, name)).status_code == 302


@pytest.mark.parametrize("name", PAGES)
def test_another_account_gets_404_and_a_stranger_the_login(
    client: Client, issued: IssuedKey, name: str
) -> None:
    data = {"name": "taken over", "overlap": "0", "token": "x"}
    assert client.post(page(issued, name), data)["Location"].startswith("/accounts/login/")
    outsider = make_user()
    make_account(user=outsider)
    client.force_login(outsider)
    assert client.post(page(issued, name), data).status_code == 404
    if name != "enable":
        assert client.get(page(issued, name)).status_code == 404
    issued.key.refresh_from_db()
    assert (issued.key.status, issued.key.name, issued.key.policy_version) == ("active", "checkout", 1)


@pytest.mark.parametrize("name", ["rotate", "policy"])
def test_a_key_that_is_revoked_meanwhile_is_refused_without_a_fault(
    member: Client, issued: IssuedKey, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from keys import locking

    token = member.get(page(issued, "rotate")).context["token"]
    lock = locking.lock

    def lock_after_a_revocation(*, key: ApiKey) -> ApiKey:
        """The other tab's click arrives between this view's first look at the key and its lock."""
        ApiKey.objects.filter(pk=key.pk).update(status="revoked", revoked_at=now())
        return lock(key=key)

    monkeypatch.setattr(locking, "lock", lock_after_a_revocation)
    answer = member.post(page(issued, name), {"name": "x", "overlap": "0", "token": token}, follow=True)
    assert "A revoked key stays revoked" in answer.content.decode()
    assert issued.key.secrets.count() == 1
