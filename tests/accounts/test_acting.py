"""Who a page acts for."""

import pytest
from django.test import Client

from tests import factories

pytestmark = pytest.mark.django_db

PAGES = ["/overview/", "/overview/first-call/", "/settings/", "/settings/audit/"]


@pytest.mark.parametrize("address", PAGES)
def test_a_stranger_is_sent_to_the_login_page(client: Client, address: str) -> None:
    assert client.get(address)["Location"] == f"/accounts/login/?next={address}"


@pytest.mark.parametrize("address", PAGES)
def test_a_user_without_an_account_is_told_so(client: Client, address: str) -> None:
    client.force_login(factories.make_user())

    page = client.get(address)

    assert page.status_code == 403
    assert b"You belong to no account" in page.content


def test_an_operator_without_an_account_is_shown_the_way_to_the_admin(client: Client) -> None:
    client.force_login(factories.make_user(is_staff=True))

    assert b'href="/admin/">Open the admin' in client.get("/settings/").content


def test_the_menu_shows_the_admin_to_operators_only(client: Client) -> None:
    client.force_login(factories.make_account().members.get())
    assert b'href="/admin/"' not in client.get("/settings/").content

    operator = factories.make_user(is_staff=True)
    factories.make_account(user=operator)
    client.force_login(operator)
    assert b'href="/admin/"' in client.get("/settings/").content


def test_the_menu_marks_one_page_as_the_current_one(client: Client) -> None:
    client.force_login(factories.make_account().members.get())

    for address, label in (
        ("/settings/audit/", b"Settings"),
        ("/accounts/email/", b"Settings"),
        ("/docs/", b"Docs"),
    ):
        page = client.get(address).content
        assert page.count(b'aria-current="page"') == 1
        assert label in page.partition(b'aria-current="page"')[2].partition(b"</a>")[0]


def test_a_user_acts_for_the_account_joined_first(client: Client) -> None:
    from accounts.models import Membership

    first, second = factories.make_account(), factories.make_account()
    Membership.objects.create(account=second, user=first.members.get(), role=Membership.Role.MEMBER)
    client.force_login(first.members.get())

    assert client.get("/settings/").context["account"] == first


def test_every_entry_of_the_menu_leads_somewhere(client: Client) -> None:
    operator = factories.make_user(is_staff=True, is_superuser=True)
    factories.make_account(user=operator)
    client.force_login(operator)

    entries = client.get("/settings/").context["navigation"]

    assert len(entries) == 9
    for entry in entries:
        assert client.get(entry.address).status_code == 200, entry.address
