"""Payments that fit no top-up: an operator credits them to somebody, once, or closes them with a note."""

from decimal import Decimal

import pytest
from django.test import Client

from accounts.models import Account, AuditEvent, Plan
from billing import topping_up, unmatched
from billing.models import TopUp, UnmatchedPayment, Wallet
from billing.providers.provider import PaymentArrived
from catalog.money import NANO_PER_CENT, whole_cents
from tests import factories
from tests.billing.fake_stripe import FakeStripe
from tests.billing.paying import USD, start
from tests.billing.test_billing_pages import make_topup
from tests.concurrency import in_parallel
from tests.invariants import check_books

AT = factories.now()


def make(
    *, cents: int = 2500, reference: str = "", currency: str = "usd", provider: str = "stripe"
) -> UnmatchedPayment:
    payment = PaymentArrived(reference=reference, payment="pi_1", amount_cents=cents, currency=currency)
    return unmatched.note(provider=provider, payment=payment, why="it fits nothing", event=None, at=AT)


def credit(payment: UnmatchedPayment, account: Account) -> TopUp:
    operator = factories.make_user(is_staff=True)
    return unmatched.credit(unmatched=payment, account=account, actor=operator, text="by letter", at=AT)


def sign_in_operator(client: Client) -> Client:
    client.force_login(factories.make_user(is_staff=True, is_superuser=True))
    return client


@pytest.mark.django_db
def test_it_pays_the_top_up_that_it_names() -> None:
    account = factories.make_account()
    topup = topping_up.start(account=account, actor=None, credit_nanousd=20 * USD, provider="sandbox", at=AT)
    TopUp.objects.update(provider="stripe")
    assert credit(make(reference=topup.provider_reference), account) == topup
    assert Wallet.objects.get(account=account).balance_nanousd == 20 * USD
    assert AuditEvent.objects.get(action="payment.matched").detail["reason"] == "by letter"
    check_books(idle=True)


@pytest.mark.django_db
@pytest.mark.parametrize("rate", ["0.25", "0", "0.055", "0.3333", "0.0001", "9.9999"])
@pytest.mark.parametrize("cents", [11, 12, 99, 100, 2500, 2501, 123457])
def test_whatever_was_paid_becomes_credit_and_fee_to_the_cent(rate: str, cents: int) -> None:
    Plan.objects.update(topup_fee_rate=Decimal(rate))
    account = factories.make_account()
    topup = credit(make(cents=cents), account)

    def cost(credit_nanousd: int) -> int:
        return credit_nanousd + whole_cents(credit_nanousd * Decimal(rate))

    assert topup.total_nanousd == cents * NANO_PER_CENT
    # As much credit as the payment buys, and not a cent more.
    assert cost(topup.credit_nanousd) <= topup.total_nanousd < cost(topup.credit_nanousd + NANO_PER_CENT)
    assert Wallet.objects.get(account=account).balance_nanousd == topup.credit_nanousd
    check_books(idle=True)


@pytest.mark.django_db
def test_less_than_a_cent_of_credit_is_none() -> None:
    Plan.objects.update(topup_fee_rate=Decimal(3))
    with pytest.raises(unmatched.CannotBeCredited, match="less than a cent"):
        credit(make(cents=2), factories.make_account())
    check_books(idle=True)


@pytest.mark.django_db
def test_another_currency_is_not_credited() -> None:
    with pytest.raises(unmatched.CannotBeCredited, match="in EUR"):
        credit(make(currency="eur"), factories.make_account())


@pytest.mark.django_db
def test_nothing_is_no_credit() -> None:
    with pytest.raises(unmatched.CannotBeCredited, match="Nothing was paid"):
        credit(make(cents=0), factories.make_account())


@pytest.mark.django_db
def test_it_is_resolved_once() -> None:
    account, payment = factories.make_account(), make()
    credit(payment, account)
    with pytest.raises(unmatched.AlreadyResolved):
        credit(payment, account)
    with pytest.raises(unmatched.AlreadyResolved):
        unmatched.resolve(unmatched=payment, actor=account.members.get(), text="again", at=AT)
    assert TopUp.objects.count() == 1
    assert make().resolved_at == AT


@pytest.mark.django_db(transaction=True)
def test_two_operators_at_once_credit_it_once() -> None:
    accounts, payment = [factories.make_account() for _ in range(2)], make()

    def try_to(number: int) -> bool:
        try:
            credit(payment, accounts[number])
        except unmatched.AlreadyResolved:
            return False
        return True

    assert sorted(in_parallel(try_to, times=2)) == [False, True]
    assert sum(Wallet.objects.values_list("balance_nanousd", flat=True)) == 20 * USD
    check_books(idle=True)


@pytest.mark.django_db
def test_the_operator_credits_it_in_the_admin(client: Client, fake_stripe: FakeStripe) -> None:
    sign_in_operator(client)
    topup = start()
    payment = make(reference=topup.provider_reference, cents=2000)
    assert payment.payment in client.get("/admin/billing/unmatchedpayment/").text
    address = f"/admin/billing/unmatchedpayment/{payment.pk}/resolve/"
    page = client.get(address).text
    assert f"It names top-up {topup.pk} of account {topup.account_id}" in page
    account, owner = topup.account, topup.account.members.get().email
    assert "There is no account" in client.post(address, {"account": str(2**63), "note": "x"}).text
    assert "This field is required" in client.post(address, {"account": topup.account_id}).text
    form = {"account": topup.account_id, "note": "paid $20"}
    asked = client.post(address, form).text
    assert f"$16.00 of credit goes to account {account.pk}, {account.name} ({owner})." in asked
    assert "A new top-up is made of it: $20.00, of which $4.00 is the fee." in asked
    assert not Wallet.objects.exists()
    assert client.post(address, {**form, "confirmed": "yes"}).status_code == 302
    assert Wallet.objects.get(account=topup.account_id).balance_nanousd == 16 * USD
    page = client.post(address, {**form, "confirmed": "yes"}, follow=True).text
    assert "Somebody has resolved this payment already." in page
    assert "Resolved" in page
    check_books(idle=True)


@pytest.mark.django_db
def test_the_operator_reads_which_top_up_a_payment_pays_and_what_is_in_the_way(client: Client) -> None:
    sign_in_operator(client)
    topup = make_topup(factories.make_account(), is_paid=False)
    payment = make(reference=topup.provider_reference, provider=topup.provider)
    address = f"/admin/billing/unmatchedpayment/{payment.pk}/resolve/"
    form = {"account": topup.account_id, "note": "x"}
    assert f"It pays top-up {topup.pk}: $25.00, of which $5.00 is the fee." in client.post(address, form).text
    # Meanwhile the payment has paid another one.
    other = topping_up.start(
        account=topup.account, actor=None, credit_nanousd=20 * USD, provider=topup.provider, at=AT
    )
    payment.refresh_from_db()
    topping_up.finish(
        provider=topup.provider,
        reference=other.provider_reference,
        paid_total_nanousd=25 * USD,
        at=AT,
        payment=payment.payment,
    )
    refused = client.post(address, {**form, "confirmed": "yes"})
    assert refused.status_code == 422
    assert f"has paid top-up {other.pk} already" in refused.text


@pytest.mark.django_db
def test_the_operator_closes_it_with_a_note(client: Client) -> None:
    sign_in_operator(client)
    payment = make(currency="eur")
    address = f"/admin/billing/unmatchedpayment/{payment.pk}/resolve/"
    form = {"account": factories.make_account().pk, "note": "x", "confirmed": "yes"}
    assert "Credit is sold in USD" in client.post(address, form).text
    assert "No money is moved here" in client.post(address, {"note": "given back at Stripe"}).text
    client.post(address, {"note": "given back at Stripe", "confirmed": "yes"})
    payment.refresh_from_db()
    assert (payment.note, payment.topup) == ("given back at Stripe", None)
    assert not Wallet.objects.exists()


@pytest.mark.django_db
def test_a_member_of_staff_without_the_permission_resolves_nothing(client: Client) -> None:
    client.force_login(factories.make_user(is_staff=True))
    payment = make()
    form = {"account": factories.make_account().pk, "note": "x", "confirmed": "yes"}
    assert client.post(f"/admin/billing/unmatchedpayment/{payment.pk}/resolve/", form).status_code == 403
    assert not Wallet.objects.exists()
    client.force_login(factories.make_user())
    assert client.get("/admin/billing/unmatchedpayment/").status_code == 302
    assert client.get("/admin/billing/webhookevent/").status_code == 302
