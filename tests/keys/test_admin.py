import pytest
from django.contrib.auth.models import Permission
from django.test import Client

from accounts.models import AuditEvent
from keys import revoking, secrets
from keys.models import ApiKey
from tests.factories import make_key, make_user, now

pytestmark = pytest.mark.django_db

LIST = "/admin/keys/apikey/"


@pytest.fixture
def operator(client: Client) -> Client:
    client.force_login(make_user("operator@example.com", is_staff=True, is_superuser=True))
    return client


def act(client: Client, action: str, *keys: ApiKey) -> str:
    data = {"action": action, "_selected_action": [key.pk for key in keys]}
    return client.post(LIST, data, follow=True).content.decode()


def test_the_list_and_the_page_show_no_secret_and_no_digest(operator: Client) -> None:
    issued = make_key(name="checkout")
    digest = secrets.digests(issued.secret)[0][1]
    for address in (LIST, f"{LIST}?q=checkout", f"{LIST}{issued.key.pk}/change/"):
        html = operator.get(address).content.decode()
        assert "checkout" in html
        assert issued.secret[12:-4] not in html
        assert digest.hex() not in html
        assert str(digest) not in html
    assert issued.secret[:12] in operator.get(f"{LIST}{issued.key.pk}/change/").content.decode()


def test_a_key_is_found_by_the_last_characters_of_its_secret(operator: Client) -> None:
    wanted, other = make_key(name="the wanted one"), make_key(name="another one")
    html = operator.get(LIST, {"q": wanted.secret[-4:]}).content.decode()
    assert wanted.key.name in html
    assert other.key.name not in html


def test_nothing_is_added_changed_or_deleted_by_hand(operator: Client) -> None:
    key = make_key().key
    assert operator.get(f"{LIST}add/").status_code == 403
    assert operator.post(f"{LIST}{key.pk}/change/", {"name": "other"}).status_code == 403
    assert operator.post(f"{LIST}{key.pk}/delete/").status_code == 403


def test_the_actions_go_through_the_domain_and_leave_a_trail(operator: Client) -> None:
    key, other = make_key().key, make_key().key
    assert "2 of 2 keys are disabled" in act(operator, "disable", key, other)
    assert "1 of 1 keys are enabled" in act(operator, "enable", key)
    assert "1 of 1 keys are revoked" in act(operator, "revoke", other)
    key.refresh_from_db()
    other.refresh_from_db()
    assert (key.status, key.policy_version) == ("active", 3)
    assert (other.status, other.policy_version) == ("revoked", 3)
    event = AuditEvent.objects.get(action="key.revoked")
    assert str(event.actor) == "operator@example.com"


def test_what_cannot_be_done_is_said(operator: Client) -> None:
    key = make_key().key
    revoking.revoke(key=key, actor=None, at=now())
    html = act(operator, "enable", key)
    assert "0 of 1 keys are enabled" in html
    assert "1 had been revoked" in html


def test_who_may_only_look_cannot_act(client: Client) -> None:
    looker = make_user(is_staff=True)
    looker.user_permissions.add(Permission.objects.get(codename="view_apikey"))
    client.force_login(looker)
    key = make_key().key
    assert client.get(LIST).status_code == 200
    act(client, "revoke", key)
    key.refresh_from_db()
    assert key.status == "active"


def test_a_customer_does_not_get_in(client: Client) -> None:
    client.force_login(make_user())
    assert client.get(LIST).status_code == 302
