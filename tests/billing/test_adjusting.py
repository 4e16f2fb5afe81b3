"""What an operator does about money on the admin's pages: take credit, refund, look at disputes."""

import datetime as dt
import re
from typing import Any

import pytest
from django.forms import Form
from django.http import HttpRequest
from django.test import Client
from django.urls import reverse

from accounts.models import AuditEvent
from billing import adjusting, crediting, ledger, moving, promotions, revenue, statement
from billing.admin import asking
from billing.models import Dispute, Refund, Wallet
from billing.providers.provider import ProviderAway, ProviderRefused
from billing.providers.sandbox import SandboxProvider
from tests import factories
from tests.billing.test_disputing import hear
from tests.billing.test_refunding import balance, bought, legs, refund, spend
from tests.concurrency import in_parallel
from tests.invariants import check_books

AT = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
USD = 10**9


@pytest.fixture
def operator(db: None) -> Client:
    client = Client()
    client.force_login(factories.make_user(is_staff=True, is_superuser=True))
    return client


@pytest.fixture
def limited(db: None) -> Client:
    """Staff, with no permission on money."""
    client = Client()
    client.force_login(factories.make_user(is_staff=True))
    return client


def send(client: Client, address: str, fields: dict[str, str]) -> str:
    """Fill in the form, read what it will do, and confirm that. What the operator sees at the end."""
    page = client.get(address).text
    token = re.search(r'name="token" value="([^"]+)"', page)
    assert token is not None
    form = {**fields, "token": token[1]}
    asked = client.post(address, form).text
    if 'name="confirmed"' not in asked:
        return asked
    return client.post(address, {**form, "confirmed": "yes"}, follow=True).text


@pytest.mark.django_db
def test_taking_all_there_is_twice_is_told_from_taking_more_than_there_is() -> None:
    account, actor = factories.make_account(credit="10"), factories.make_user()
    act: dict[str, Any] = {
        "account": account,
        "amount_nanousd": 10 * USD,
        "reason": "all",
        "actor": actor,
        "at": AT,
    }
    adjusting.take(**act, reference="adjust:1")
    with pytest.raises(ledger.AlreadyPosted):
        adjusting.take(**act, reference="adjust:1")
    with pytest.raises(moving.NotAvailable):
        adjusting.take(**act, reference="adjust:2")
    check_books(idle=True)


@pytest.mark.django_db
def test_credit_is_taken_with_a_reason_that_the_account_reads() -> None:
    account = factories.make_account(credit="10")
    actor = factories.make_user()
    adjusting.take(
        account=account,
        amount_nanousd=4 * USD,
        reason="granted twice",
        actor=actor,
        at=AT,
        reference="adjust:1",
    )
    assert Wallet.objects.get().balance_nanousd == 6 * USD
    assert "granted twice" in statement.lines(account=account).rows[0].text
    event = AuditEvent.objects.get(action="credit.taken")
    assert (event.actor, event.detail["reason"]) == (actor, "granted twice")
    with pytest.raises(ledger.AlreadyPosted):
        adjusting.take(
            account=account, amount_nanousd=USD, reason="again", actor=actor, at=AT, reference="adjust:1"
        )
    check_books(idle=True)


@pytest.mark.django_db
def test_a_grant_that_is_taken_back_leaves_what_was_paid_for() -> None:
    account, actor = bought().account, factories.make_user()
    for number, expires_at in enumerate((AT + dt.timedelta(days=1), None)):
        crediting.grant(
            account=account,
            amount_nanousd=7 * USD,
            reason="for a test",
            actor=actor,
            at=AT,
            reference=f"grant:{number}",
            expires_at=expires_at,
        )
    adjusting.take(
        account=account, amount_nanousd=9 * USD, reason="a mistake", actor=actor, at=AT, reference="adjust:1"
    )
    standing = promotions.standing(account_id=account.pk)
    assert standing.paid_nanousd == Wallet.objects.get().balance_nanousd - 5 * USD
    assert [(lot.left_nanousd, lot.expires_at) for lot in standing.unspent_lots] == [
        (5 * USD, AT + dt.timedelta(days=1))
    ]
    check_books(idle=True)


@pytest.mark.django_db
def test_paid_credit_that_is_taken_makes_no_promotion_cheaper() -> None:
    topup = bought(granted="7")
    act: dict[str, Any] = {"account": topup.account, "reason": "x", "actor": factories.make_user(), "at": AT}
    adjusting.take(**act, amount_nanousd=5 * USD, reference="a:1")
    adjusting.take(**act, amount_nanousd=5 * USD, reference="a:2")
    adjusting.take(**act, amount_nanousd=5 * USD, reference="a:3")
    assert [legs(f"a:{number}") for number in (1, 2, 3)] == [
        {"customer_credits": -5 * USD, "promotions": 5 * USD},
        {"customer_credits": -5 * USD, "promotions": 2 * USD, "adjustments": 3 * USD},
        {"customer_credits": -5 * USD, "adjustments": 5 * USD},
    ]
    # The fee of $5 and what was taken of paid credit; the grant has cost nothing in the end.
    earned = revenue.total(revenue.by_month(at=factories.now(), months=None))
    assert (earned.promotions_nanousd, earned.adjustments_nanousd) == (0, 8 * USD)
    assert earned.earned_nanousd == 13 * USD
    check_books(idle=True)


@pytest.mark.django_db
def test_no_more_is_taken_than_is_available() -> None:
    account = factories.make_account(credit="10")
    Wallet.objects.update(held_nanousd=7 * USD)
    with pytest.raises(moving.NotAvailable, match=r"\$3\.00"):
        adjusting.take(
            account=account,
            amount_nanousd=4 * USD,
            reason="x",
            actor=factories.make_user(),
            at=AT,
            reference="a",
        )
    with pytest.raises(ValueError, match="positive"):
        adjusting.take(
            account=account, amount_nanousd=-1, reason="x", actor=factories.make_user(), at=AT, reference="a"
        )


@pytest.mark.django_db(transaction=True)
def test_takers_at_once_never_take_more_than_there_is() -> None:
    account, actor = factories.make_account(credit="10"), factories.make_user()

    def take(number: int) -> bool:
        try:
            adjusting.take(
                account=account,
                amount_nanousd=3 * USD,
                reason="x",
                actor=actor,
                at=AT,
                reference=f"a:{number}",
            )
        except moving.NotAvailable:
            return False
        return True

    assert in_parallel(take, times=6).count(True) == 3
    check_books(idle=True)


def test_an_operator_takes_credit_after_being_asked_once(operator: Client) -> None:
    account = factories.make_account(credit="10")
    address = reverse("admin:billing_wallet_take", args=[account.pk])
    assert "$10.00 available" in operator.get(address).text
    asked = operator.post(address, {"amount": "4", "reason": "granted twice", "token": TOKEN}).text
    owner = account.members.get().email
    assert f"$4.00 is taken from account {account.pk}, {account.name} ({owner})." in asked
    assert Wallet.objects.get().balance_nanousd == 10 * USD
    confirmed = {"amount": "4", "reason": "granted twice", "token": TOKEN, "confirmed": "yes"}
    assert "taken from" in operator.post(address, confirmed, follow=True).text
    assert "sent twice" in operator.post(address, confirmed, follow=True).text
    assert Wallet.objects.get().balance_nanousd == 6 * USD
    more = {**confirmed, "amount": "7", "token": TOKEN.replace("6", "7")}
    assert "Nothing was taken" in operator.post(address, more, follow=True).text
    check_books(idle=True)


TOKEN = "6b0c6a3e-3f0c-4a8b-9a51-0f3f2d9b8a11"


@pytest.mark.parametrize("fields", [{"amount": "0"}, {"amount": "x"}, {"reason": ""}])
def test_a_form_that_makes_no_sense_takes_nothing(operator: Client, fields: dict[str, str]) -> None:
    account = factories.make_account(credit="10")
    address = reverse("admin:billing_wallet_take", args=[account.pk])
    form = {"amount": "4", "reason": "x", "token": TOKEN, "confirmed": "yes", **fields}
    assert operator.post(address, form).status_code == 422
    assert Wallet.objects.get().balance_nanousd == 10 * USD


def test_an_operator_refunds_a_top_up_from_its_page(operator: Client) -> None:
    topup = bought()
    spend(topup.account, 5)
    page = operator.get(reverse("admin:billing_topup_change", args=[topup.pk])).text
    address = reverse("admin:billing_topup_refund", args=[topup.pk])
    assert address in page
    shown = operator.get(address).text
    assert "At most $15.00 of it can be given back." in shown
    assert "not spent" in shown
    assert 'value="15.00"' in shown
    assert "At most $15.00" in send(operator, address, {"credit": "16", "reason": "unused"})
    assert "Give a reason." in send(operator, address, {"credit": "15", "reason": ""})
    assert not Refund.objects.exists()
    asked = operator.post(address, {"credit": "15", "reason": "unused", "token": TOKEN}).text
    assert "$18.75 goes back" in asked
    confirmed = {"credit": "15", "reason": "unused", "token": TOKEN, "confirmed": "yes"}
    assert "$18.75 was given back" in operator.post(address, confirmed, follow=True).text
    assert "sent twice" in operator.post(address, confirmed, follow=True).text
    assert balance(topup) == 0
    refund = Refund.objects.get()
    assert refund.created_by_id == int(operator.session["_auth_user_id"])
    check_books(idle=True)


@pytest.mark.parametrize(
    ("problem", "says"),
    [
        (ProviderRefused("The card is gone."), "The card is gone. The credit is back in the wallet."),
        (ProviderAway(), "is on its way back"),
    ],
)
def test_the_operator_sees_what_the_company_says(
    operator: Client, monkeypatch: pytest.MonkeyPatch, problem: Exception, says: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise problem

    monkeypatch.setattr(SandboxProvider, "refund", fail)
    address = reverse("admin:billing_topup_refund", args=[bought().pk])
    assert says in send(operator, address, {"credit": "8", "reason": "unused"})
    check_books(idle=True)


@pytest.mark.parametrize("meanwhile", ["spent", "refunded"])
def test_what_happens_between_question_and_answer_is_seen(
    operator: Client, monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    topup = bought()
    really_confirmed = asking.is_confirmed

    def confirmed(request: HttpRequest, form: Form) -> bool:
        answer = really_confirmed(request, form)
        if answer and meanwhile == "spent":
            spend(topup.account, 15)
        elif answer:
            refund(topup, usd="8", reference=f"refund-{form.cleaned_data['token']}")
        return answer

    monkeypatch.setattr(asking, "is_confirmed", confirmed)
    address = reverse("admin:billing_topup_refund", args=[topup.pk])
    said = send(operator, address, {"credit": "8", "reason": "unused"})
    assert ("$5.00 can be given back" if meanwhile == "spent" else "sent twice") in said
    assert Refund.objects.count() == (0 if meanwhile == "spent" else 1)
    check_books(idle=True)


def test_a_top_up_that_is_not_paid_offers_no_refund(operator: Client) -> None:
    from tests.billing.test_billing_pages import make_topup

    topup = make_topup(factories.make_account(), is_paid=False)
    address = reverse("admin:billing_topup_refund", args=[topup.pk])
    assert address not in operator.get(reverse("admin:billing_topup_change", args=[topup.pk])).text
    assert "It is not paid." in operator.get(address).text
    assert operator.get(reverse("admin:billing_topup_refund", args=[0])).status_code == 404


def test_only_an_operator_who_may_refunds_or_takes(limited: Client) -> None:
    topup = bought()
    owner = Client()
    owner.force_login(topup.account.members.get())
    for address in (
        reverse("admin:billing_topup_refund", args=[topup.pk]),
        reverse("admin:billing_wallet_take", args=[topup.account_id]),
    ):
        assert limited.post(address, {}).status_code == 403
        assert owner.post(address, {}).status_code in {302, 403}
        assert Client().get(address).status_code == 302
    assert not Refund.objects.exists()


def test_open_disputes_come_first_with_what_is_frozen(operator: Client) -> None:
    closed, opened = bought(), bought(usd=30)
    hear(opened, "open", cents=3750, dispute="dp_open")
    hear(closed, "open", dispute="dp_closed")
    hear(closed, "lost", dispute="dp_closed")
    page = operator.get(reverse("admin:billing_dispute_changelist")).text
    assert page.index(str(opened.account)) < page.index(str(closed.account))
    assert "$30.00" in page
    assert "2026-03-09 12:00 UTC" in page
    for dispute in Dispute.objects.all():
        shown = operator.get(reverse("admin:billing_dispute_change", args=[dispute.pk]))
        assert shown.status_code == 200
        assert 'name="_save"' not in shown.text


def test_refunds_are_read_and_not_edited(operator: Client) -> None:
    topup = bought()
    send(
        operator, reverse("admin:billing_topup_refund", args=[topup.pk]), {"credit": "8", "reason": "unused"}
    )
    assert "$10.00" in operator.get(reverse("admin:billing_refund_changelist")).text
    address = reverse("admin:billing_refund_change", args=[Refund.objects.get().pk])
    assert 'name="_save"' not in operator.get(address).text
    assert operator.post(address, {}).status_code == 403
