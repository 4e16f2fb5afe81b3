"""The settings of an account and its audit log."""

import pytest
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from accounts import auditing, trail
from accounts.models import Account, AuditEvent, Membership, User
from tests import factories

pytestmark = pytest.mark.django_db


@pytest.fixture
def account(client: Client) -> Account:
    account = factories.make_account(user=factories.make_user("ada@example.com"))
    client.force_login(account.members.get())
    return account


def add_member(account: Account, role: str) -> User:
    user = factories.make_user()
    Membership.objects.create(account=account, user=user, role=role)
    return user


def write_events(account: Account, count: int) -> None:
    for i in range(count):
        auditing.record(account=account, actor=None, action="key.issued", subject_type="key", subject_id=i)


def test_the_settings_show_members_with_their_roles(client: Client, account: Account) -> None:
    colleague = add_member(account, Membership.Role.MEMBER)

    page = client.get("/settings/").content.decode()

    assert "ada@example.com" in page
    assert colleague.email in page
    assert "<td>Member</td>" in page


def test_the_settings_show_nobody_of_another_account(client: Client, account: Account) -> None:
    stranger = factories.make_account().members.get()

    assert stranger.email not in client.get("/settings/").content.decode()


def test_an_owner_renames_the_account_and_the_trail_says_so(client: Client, account: Account) -> None:
    answer = client.post("/settings/", {"name": "Ada's lab"})

    assert answer["Location"] == "/settings/"
    account.refresh_from_db()
    assert account.name == "Ada's lab"
    event = AuditEvent.objects.get(action="account.renamed")
    assert event.detail == {"before": "ada@example.com", "after": "Ada's lab"}
    assert "Ada&#x27;s lab" in client.get("/settings/").content.decode()


def test_the_same_name_again_writes_nothing(client: Client, account: Account) -> None:
    client.post("/settings/", {"name": account.name})

    assert not AuditEvent.objects.exists()


@pytest.mark.parametrize("name", ["", "   ", "x" * 121, "nul\x00"])
def test_a_name_that_cannot_be_is_refused(client: Client, account: Account, name: str) -> None:
    page = client.post("/settings/", {"name": name})

    assert page.status_code == 422
    assert b"invalid-feedback" in page.content
    account.refresh_from_db()
    assert account.name == "ada@example.com"


def test_a_mere_member_may_not_rename_the_account(client: Client, account: Account) -> None:
    client.force_login(add_member(account, Membership.Role.MEMBER))

    assert client.post("/settings/", {"name": "mine now"}).status_code == 403
    assert b'name="name"' not in client.get("/settings/").content
    account.refresh_from_db()
    assert account.name == "ada@example.com"


def test_the_audit_log_shows_what_happened_in_this_account_alone(client: Client, account: Account) -> None:
    auditing.record(
        account=account,
        actor=account.members.get(),
        action="key.rotated",
        subject_type="key",
        subject_id=7,
        overlap="1h",
    )
    other = factories.make_account()
    auditing.record(account=other, actor=None, action="key.revoked", subject_type="key", subject_id=8)

    page = client.get("/settings/audit/").content.decode()

    assert "key.rotated" in page
    assert "overlap" in page
    assert "key.revoked" not in page


def test_an_audit_log_without_events_says_what_will_be_there(client: Client, account: Account) -> None:
    assert b"Nothing on this page" in client.get("/settings/audit/").content


def test_the_audit_log_pages_by_key_there_and_back(client: Client, account: Account) -> None:
    write_events(account, 2 * trail.PAGE_SIZE + 10)
    ids = [event.pk for event in AuditEvent.objects.order_by("-id")]
    seen: list[int] = []
    last = address = "/settings/audit/"
    while address:
        page = client.get(address)
        seen += [event.pk for event in page.context["page"].events]
        last, address = address, page.context["older_href"]

    assert seen == ids
    newer = client.get(client.get(last).context["newer_href"]).context["page"]
    assert [event.pk for event in newer.events] == ids[trail.PAGE_SIZE : 2 * trail.PAGE_SIZE]


@pytest.mark.parametrize("value", ["x", "-1", "9" * 40, "", "٣"])
def test_an_id_that_is_none_shows_the_newest_events(client: Client, account: Account, value: str) -> None:
    write_events(account, 1)

    page = client.get("/settings/audit/", {"older_than": value})

    assert len(page.context["page"].events) == 1


def test_the_audit_log_costs_the_same_queries_however_long_it_is(
    client: Client,
    account: Account,
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    write_events(account, 40)

    # Session, user, account, events with their actors, and the wallet in the header.
    with django_assert_num_queries(5):
        client.get("/settings/audit/")
