"""Billing details: entered by owners and admins, read by members, and nobody else's."""

import pytest
from django.test import Client

from accounts.models import AuditEvent, Membership
from billing.models import BillingDetails
from tests import factories
from tests.billing.test_billing_pages import sign_in, text_of

ADDRESS = "/billing/details/"
ENTERED = {
    "company_name": "Ada Ltd",
    "city": "London",
    "tax_id": "GB2",
    "receipts_email": "books@example.com",
}


@pytest.mark.django_db
def test_details_are_entered_and_shown_again() -> None:
    account = factories.make_account()
    client = sign_in(account)
    assert 'href="/billing/details/"' in text_of(client, "/billing/")
    assert 'autocomplete="organization"' in text_of(client, ADDRESS)
    assert "carry these details" in client.post(ADDRESS, ENTERED, follow=True).text
    details = BillingDetails.objects.get(account=account)
    assert (details.company_name, details.city, details.tax_id) == ("Ada Ltd", "London", "GB2")
    assert 'value="books@example.com"' in text_of(client, ADDRESS)


@pytest.mark.django_db
def test_a_change_is_in_the_audit_log_and_a_repeat_is_not() -> None:
    client = sign_in(factories.make_account())
    client.post(ADDRESS, ENTERED)
    client.post(ADDRESS, ENTERED)
    client.post(ADDRESS, {**ENTERED, "city": "Paris"})
    events = AuditEvent.objects.filter(action="billing_details.changed").order_by("pk")
    assert [event.detail["changed"] for event in events] == [sorted(ENTERED), ["city"]]


@pytest.mark.django_db
def test_an_address_for_receipts_that_is_none_is_refused() -> None:
    response = sign_in(factories.make_account()).post(ADDRESS, {**ENTERED, "receipts_email": "books"})
    assert response.status_code == 422
    assert "Enter a valid email address" in response.text
    assert not BillingDetails.objects.exists()


@pytest.mark.django_db
def test_a_member_reads_the_details_and_does_not_change_them() -> None:
    account = factories.make_account()
    sign_in(account).post(ADDRESS, ENTERED)
    member = factories.make_user()
    Membership.objects.create(account=account, user=member, role=Membership.Role.MEMBER)
    client = Client()
    client.force_login(member)
    page = text_of(client, ADDRESS)
    assert "Ada Ltd" in page
    assert '<input type="text"' not in page
    assert client.post(ADDRESS, {"company_name": "Mine"}).status_code == 403
    assert BillingDetails.objects.get().company_name == "Ada Ltd"


@pytest.mark.django_db
def test_another_account_sees_its_own_details_alone() -> None:
    sign_in(factories.make_account()).post(ADDRESS, ENTERED)
    assert "Ada Ltd" not in text_of(sign_in(factories.make_account()), ADDRESS)
    assert Client().get(ADDRESS).status_code == 302
