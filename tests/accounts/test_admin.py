"""What an operator does with people and accounts."""

from typing import Any

import pytest
from django.test import Client

from accounts.models import Account, AuditEvent, Plan, User
from tests import factories

pytestmark = pytest.mark.django_db

LISTS = ["account", "user", "plan", "auditevent"]


@pytest.fixture
def operator(client: Client) -> User:
    user = factories.make_user("operator@example.com", is_staff=True, is_superuser=True)
    client.force_login(user)
    return user


def act(client: Client, action: str, *accounts: Account, **data: str) -> Any:
    ids = [str(account.pk) for account in accounts]
    return client.post("/admin/accounts/account/", {"action": action, "_selected_action": ids, **data})


@pytest.mark.parametrize("name", LISTS)
def test_the_admin_lets_no_stranger_and_no_customer_in(client: Client, name: str) -> None:
    address = f"/admin/accounts/{name}/"
    door = client.get(address, follow=True)
    assert door.redirect_chain[-1][0].startswith("/accounts/login/")

    client.force_login(factories.make_account().members.get())
    assert client.get(address, follow=True).status_code == 403


@pytest.mark.parametrize("name", LISTS)
def test_an_operator_finds_everything(client: Client, operator: User, name: str) -> None:
    account = factories.make_account()
    AuditEvent.objects.create(account=account, action="key.issued", subject_type="key", subject_id="1")

    page = client.get(f"/admin/accounts/{name}/")

    assert page.status_code == 200
    assert b"Tollgate operator" in page.content


def test_an_account_is_found_by_the_e_mail_of_a_member_and_by_its_id(client: Client, operator: User) -> None:
    account, other = (
        factories.make_account(user=factories.make_user("ada@example.com")),
        factories.make_account(),
    )
    for words in ("ada@exam", str(account.pk)):
        page = client.get("/admin/accounts/account/", {"q": words})
        assert account in page.context["cl"].result_list
        assert other not in page.context["cl"].result_list


def test_suspending_asks_for_a_reason_before_it_does_anything(client: Client, operator: User) -> None:
    account = factories.make_account()

    page = act(client, "suspend", account)

    assert b"Every request of these accounts is refused" in page.content
    account.refresh_from_db()
    assert account.status == Account.Status.ACTIVE
    assert b"This field is required" in act(client, "suspend", account, confirmed="yes", reason="").content


def test_a_suspension_reaches_the_gateway_and_the_trail(client: Client, operator: User) -> None:
    account = factories.make_account()

    act(client, "suspend", account, confirmed="yes", reason="card fraud")

    account.refresh_from_db()
    assert (account.status, account.policy_version) == (Account.Status.SUSPENDED, 2)
    event = AuditEvent.objects.get(action="account.suspended")
    assert (event.actor, event.detail) == (operator, {"reason": "card fraud"})
    act(client, "reinstate", account)
    account.refresh_from_db()
    assert (account.status, account.policy_version) == (Account.Status.ACTIVE, 3)


def test_a_changed_plan_reaches_the_gateway_and_the_trail(client: Client, operator: User) -> None:
    account = factories.make_account()
    plan = Plan.objects.get(slug=Plan.PAY_AS_YOU_GO)
    assert b"The limits of the new plan" in act(client, "change_plan", account).content

    act(client, "change_plan", account, confirmed="yes", plan=str(plan.pk))

    account.refresh_from_db()
    assert (account.plan, account.policy_version) == (plan, 2)
    assert AuditEvent.objects.get(action="account.plan_changed").actor == operator


def test_new_limits_of_a_plan_reach_its_accounts_at_once(client: Client, operator: User) -> None:
    on_basic, on_another = factories.make_account(), factories.make_account(plan=Plan.PAY_AS_YOU_GO)
    plan = Plan.objects.get(slug=Plan.BASIC)
    fields = {
        "name": "Basic",
        "requests_per_minute": "5",
        "requests_per_day": "100",
        "tokens_per_day": "1000",
        "topup_fee_rate": "0.25",
    }

    answer = client.post(f"/admin/accounts/plan/{plan.pk}/change/", fields)

    assert answer.status_code == 302
    plan.refresh_from_db()
    assert plan.requests_per_minute == 5
    assert Account.objects.get(pk=on_basic.pk).policy_version == 2
    assert Account.objects.get(pk=on_another.pk).policy_version == 1


def test_an_operator_who_is_no_superuser_cannot_promote_anyone(client: Client) -> None:
    from django.contrib.auth.models import Permission

    clerk = factories.make_user(is_staff=True)
    clerk.user_permissions.add(*Permission.objects.filter(content_type__app_label="accounts"))
    client.force_login(clerk)

    client.post(
        f"/admin/accounts/user/{clerk.pk}/change/",
        {"is_active": "on", "is_superuser": "on", "is_staff": "on"},
    )

    clerk.refresh_from_db()
    assert not clerk.is_superuser


def test_the_audit_trail_cannot_be_changed(client: Client, operator: User) -> None:
    account = factories.make_account()
    event = AuditEvent.objects.create(
        account=account, action="key.issued", subject_type="key", subject_id="1"
    )

    for act_on_it in ("change", "delete"):
        assert (
            client.post(f"/admin/accounts/auditevent/{event.pk}/{act_on_it}/", {"post": "yes"}).status_code
            == 403
        )
    assert client.get("/admin/accounts/auditevent/add/").status_code == 403


def test_no_page_shows_the_secret_of_a_second_factor(client: Client, operator: User) -> None:
    from allauth.mfa.models import Authenticator

    factor = Authenticator.objects.create(user=operator, type="totp", data={"secret": "JBSWY3DPEHPK3PXP"})

    page = client.get(f"/admin/mfa/authenticator/{factor.pk}/change/")

    assert page.status_code == 200
    assert b"JBSWY3DPEHPK3PXP" not in page.content


def test_an_operator_cannot_rewrite_the_address_of_a_user(client: Client, operator: User) -> None:
    from allauth.account.models import EmailAddress

    address = EmailAddress.objects.create(user=operator, email=operator.email, primary=True, verified=False)

    client.post(
        f"/admin/account/emailaddress/{address.pk}/change/", {"email": "mine@example.com", "verified": "on"}
    )

    address.refresh_from_db()
    assert (address.email, address.verified) == ("operator@example.com", False)
