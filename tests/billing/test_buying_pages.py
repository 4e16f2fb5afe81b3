"""Buying credit in the browser, with and without JavaScript, up to the credit in the wallet."""

import datetime as dt
from decimal import Decimal

import pytest
from django.test import Client
from pytest_django import Settings
from time_machine import travel

from accounts.models import Plan
from billing import looking_up, topping_up, wallets
from billing.models import TopUp, Wallet
from billing.providers.sandbox import SANDBOX
from tests import factories
from tests.billing.test_billing_pages import make_topup, sign_in, text_of
from tests.invariants import check_books

USD = 10**9
_AS_AN_AMOUNT = "Give an amount in USD, with a point before the cents, like 20 or 12.50."
MINUTE, TWO_HOURS = dt.timedelta(minutes=1), dt.timedelta(hours=2)


@pytest.mark.django_db
def test_the_page_opens_with_an_amount_its_fee_and_its_total() -> None:
    page = text_of(sign_in(factories.make_account()), "/billing/buy/")
    assert 'id="buy-credit">$20.00<' in page
    assert "Fee (25 %)" in page
    assert 'id="buy-fee">$5.00<' in page
    assert 'id="buy-total">$25.00<' in page
    assert 'name="seen_total" value="2500"' in page
    for preset in (5, 20, 50, 100):
        assert f'href="?credit={preset}"' in page
    assert "Your first payment moves this account to pay as you go" in page


@pytest.mark.django_db
def test_a_preset_works_without_javascript() -> None:
    page = text_of(sign_in(factories.make_account(plan=Plan.PAY_AS_YOU_GO)), "/billing/buy/?credit=50")
    assert 'id="buy-total">$62.50<' in page
    assert "Your first payment" not in page


@pytest.mark.django_db
def test_the_fee_is_that_of_the_plan() -> None:
    Plan.objects.update(topup_fee_rate=Decimal("0.055"))
    page = text_of(sign_in(factories.make_account()), "/billing/buy/?credit=5.01")
    assert "Fee (5.5 %)" in page
    assert 'data-fee-rate="0.0550"' in page
    assert 'id="buy-fee">$0.28<' in page


@pytest.mark.django_db
def test_only_presets_within_the_limits_are_offered(settings: Settings) -> None:
    account = factories.make_account()
    settings.TOPUP_MINIMUM_USD = Decimal(60)
    page = text_of(sign_in(account), "/billing/buy/")
    assert "data-credit=" in page
    assert 'id="buy-total">$125.00<' in page
    settings.TOPUP_MINIMUM_USD = Decimal(600)
    page = text_of(sign_in(account), "/billing/buy/")
    assert "data-credit=" not in page
    assert "Give an amount in USD." in page


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("typed", "problem"),
    [
        ("", "Give an amount in USD."),
        ("twenty", _AS_AN_AMOUNT),
        ("20,50", _AS_AN_AMOUNT),
        ("NaN", _AS_AN_AMOUNT),
        ("1e3", _AS_AN_AMOUNT),
        ("1_000", _AS_AN_AMOUNT),
        ("\u0661\u0662", _AS_AN_AMOUNT),
        ("20.005", "Choose an amount in whole cents."),
        ("4.99", "Choose an amount from $5.00 to $10,000.00."),
        ("-20", "Choose an amount from $5.00 to $10,000.00."),
        ("10000.01", "Choose an amount from $5.00 to $10,000.00."),
    ],
)
def test_an_amount_that_cannot_be_bought_says_why(typed: str, problem: str) -> None:
    response = sign_in(factories.make_account()).post(
        "/billing/buy/", {"credit": typed, "seen_total": "2500"}
    )
    assert response.status_code == 422
    assert problem in response.text
    assert 'aria-invalid="true" autofocus' in response.text
    assert not TopUp.objects.exists()


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("typed", "credit"), [("20", 20), ("$20", 20), (" $ 20.00 ", 20), ("1,250", 1250), ("1,250.00", 1250)]
)
def test_an_amount_may_be_written_as_people_do(typed: str, credit: int) -> None:
    client = sign_in(factories.make_account())
    seen = str(credit * 125)
    assert client.post("/billing/buy/", {"credit": typed, "seen_total": seen}).status_code == 302
    assert TopUp.objects.get().credit_nanousd == credit * USD


@pytest.mark.django_db
@pytest.mark.parametrize("seen", ["", "2000", "x"])
def test_nobody_pays_a_total_that_was_not_shown(seen: str) -> None:
    client = sign_in(factories.make_account())
    response = client.post("/billing/buy/", {"credit": "20", "seen_total": seen})
    if seen == "x":
        assert response.status_code == 422
        return
    assert response.status_code == 200
    assert "Confirm your purchase" in response.text
    assert "Pay $25.00 with Sandbox" in response.text
    assert not TopUp.objects.exists()
    confirmed = client.post("/billing/buy/", {"credit": "20.00", "seen_total": "2500"})
    assert confirmed["Location"] == f"/billing/sandbox/{TopUp.objects.get().provider_reference}/"


@pytest.mark.django_db
@pytest.mark.parametrize("method", ["get", "post"])
def test_without_a_provider_the_page_says_what_the_operator_must_do(method: str, settings: Settings) -> None:
    settings.TOPUP_PROVIDERS = []
    response = getattr(sign_in(factories.make_account()), method)("/billing/buy/", {"credit": "20"})
    assert "TOPUP_PROVIDERS" in response.text
    assert not TopUp.objects.exists()


@pytest.mark.django_db
def test_paying_credits_the_wallet_and_moves_the_plan() -> None:
    account = factories.make_account()
    client = sign_in(account)
    checkout = client.post("/billing/buy/", {"credit": "20", "seen_total": "2500"})["Location"]
    page = text_of(client, checkout)
    assert "This is a sandbox" in page
    assert "no money is taken" in page
    for part in ("$20.00", "$5.00", "Pay $25.00"):
        assert part in page
    paid = client.post(f"{checkout}pay/")
    topup = TopUp.objects.get()
    assert paid["Location"] == f"/billing/topups/{topup.pk}/return/"
    assert "of credit is yours" in text_of(client, paid["Location"])
    assert Wallet.objects.get(account=account).balance_nanousd == 20 * USD
    account.refresh_from_db()
    assert account.plan.slug == Plan.PAY_AS_YOU_GO
    check_books(idle=True)


@pytest.mark.django_db
def test_paying_twice_credits_once() -> None:
    account = factories.make_account()
    client, topup = sign_in(account), make_topup(account, is_paid=False)
    for _ in range(2):
        client.post(f"/billing/sandbox/{topup.provider_reference}/pay/")
    assert Wallet.objects.get(account=account).balance_nanousd == 20 * USD
    check_books(idle=True)


@pytest.mark.django_db
def test_turning_back_charges_nothing_and_ends_the_payment() -> None:
    account = factories.make_account()
    client, topup = sign_in(account), make_topup(account, is_paid=False)
    checkout = f"/billing/sandbox/{topup.provider_reference}/"
    canceled = client.post(f"{checkout}cancel/")
    assert "The payment was canceled" in text_of(client, canceled["Location"])
    assert client.get(checkout).status_code == 302
    client.post(f"{checkout}pay/")
    topup.refresh_from_db()
    assert topup.status == "canceled"
    assert not Wallet.objects.filter(account=account, balance_nanousd__gt=0).exists()


@pytest.mark.django_db
def test_a_sandbox_page_that_nobody_pays_runs_out_after_two_hours() -> None:
    account = factories.make_account()
    client, topup = sign_in(account), make_topup(account, is_paid=False)
    page = SANDBOX.start_checkout(topup=topup, return_url="", cancel_url="")
    topping_up.keep_checkout(topup=topup, checkout=page)
    assert page.expires_at == topup.created_at + TWO_HOURS
    with travel(page.expires_at - MINUTE, tick=False):
        looking_up.look_up_due(at=factories.now())
        assert client.get(page.url).status_code == 200
    with travel(page.expires_at, tick=False):
        assert client.get(page.url)["Location"] == f"/billing/topups/{topup.pk}/return/"
        client.post(f"{page.url}pay/")
    with travel(page.expires_at + 10 * MINUTE, tick=False):
        looking_up.look_up_due(at=factories.now())
    topup.refresh_from_db()
    assert (topup.status, topup.failure) == ("failed", "The payment page ran out before anything was paid.")
    assert "$0.00" in text_of(client, "/billing/")
    assert not Wallet.objects.filter(account=account, balance_nanousd__gt=0).exists()


@pytest.mark.django_db
def test_turning_back_after_paying_says_that_it_is_paid() -> None:
    account = factories.make_account()
    client, topup = sign_in(account), make_topup(account)
    canceled = client.post(f"/billing/sandbox/{topup.provider_reference}/cancel/")
    assert "This top-up has been paid." in text_of(client, canceled["Location"])


@pytest.mark.django_db
def test_the_return_page_looks_again_until_the_payment_has_arrived() -> None:
    account = factories.make_account()
    client, topup = sign_in(account), make_topup(account, is_paid=False)
    address = f"/billing/topups/{topup.pk}/return/"
    assert 'hx-trigger="every 2s"' in text_of(client, address)
    topping_up.finish(
        provider="sandbox",
        reference=topup.provider_reference,
        paid_total_nanousd=25 * USD,
        at=factories.now(),
    )
    fragment = client.get(address, headers={"HX-Request": "true"}).text
    assert "of credit is yours" in fragment
    assert "hx-trigger" not in fragment
    assert "<html" not in fragment


@pytest.mark.django_db
def test_a_sandbox_that_was_switched_off_gives_no_credit(settings: Settings) -> None:
    account = factories.make_account()
    client, topup = sign_in(account), make_topup(account, is_paid=False)
    settings.TOPUP_PROVIDERS = []
    checkout = f"/billing/sandbox/{topup.provider_reference}/"
    assert client.get(checkout).status_code == 404
    assert client.post(f"{checkout}pay/").status_code == 404
    assert client.post(f"{checkout}cancel/").status_code == 404
    topup.refresh_from_db()
    assert topup.status == "pending"


@pytest.mark.django_db
@pytest.mark.parametrize("act", ["pay", "cancel"])
def test_payments_need_a_post_with_a_csrf_token(act: str) -> None:
    account = factories.make_account()
    topup = make_topup(account, is_paid=False)
    address = f"/billing/sandbox/{topup.provider_reference}/{act}/"
    assert sign_in(account).get(address).status_code == 405
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(account.members.get())
    assert strict.post(address).status_code == 403
    topup.refresh_from_db()
    assert topup.status == "pending"


@pytest.mark.django_db
@pytest.mark.parametrize(("least", "most"), [("NaN", "100"), ("-1", "100"), ("10", "5")])
def test_settings_that_make_no_sense_are_no_error_of_the_page(
    settings: Settings, least: str, most: str
) -> None:
    client = sign_in(factories.make_account())
    settings.TOPUP_MINIMUM_USD, settings.TOPUP_MAXIMUM_USD = Decimal(least), Decimal(most)
    assert "Credit cannot be bought here yet" in text_of(client, "/billing/buy/")


@pytest.mark.django_db
def test_a_provider_that_is_misspelt_is_no_error_of_the_page(settings: Settings) -> None:
    client = sign_in(factories.make_account())
    settings.TOPUP_PROVIDERS = ["paypal", "Stripe"]
    assert "Credit cannot be bought here yet" in text_of(client, "/billing/buy/")


@pytest.mark.django_db
def test_who_has_as_much_as_a_wallet_holds_reads_so_and_pays_nothing() -> None:
    account = factories.make_account()
    client = sign_in(account)
    Wallet.objects.update_or_create(account=account, defaults={"balance_nanousd": wallets.MOST_NANOUSD})
    answer = client.post("/billing/buy/", {"credit": "20", "seen_total": "2500"})
    assert answer.status_code == 422
    assert "A wallet holds at most $1,000,000,000.00" in answer.text
    assert not TopUp.objects.exists()


@pytest.mark.django_db
def test_a_page_whose_payment_no_longer_fits_into_the_wallet_says_so() -> None:
    account = factories.make_account()
    client = sign_in(account)
    client.post("/billing/buy/", {"credit": "20", "seen_total": "2500"})
    topup = TopUp.objects.get()
    Wallet.objects.update_or_create(account=account, defaults={"balance_nanousd": wallets.MOST_NANOUSD})
    answer = client.post(f"/billing/sandbox/{topup.provider_reference}/pay/", follow=True)
    assert "A wallet holds at most $1,000,000,000.00" in answer.text
    assert TopUp.objects.get().status == "pending"
