"""The billing pages: what the account has, paid and used, and nobody else's."""

import datetime as dt

import pytest
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from accounts.models import Account
from billing import crediting, statement, topping_up, wording
from billing.models import LedgerAccount, TopUp, Wallet
from tests import factories
from tests.usage import rows
from usage import posting, rollups

USD = 10**9


def sign_in(account: Account) -> Client:
    client = Client()
    client.force_login(account.members.get())
    return client


def make_topup(account: Account, *, usd: int = 20, is_paid: bool = True) -> TopUp:
    topup = topping_up.start(
        account=account,
        actor=account.members.get(),
        credit_nanousd=usd * USD,
        provider="sandbox",
        at=factories.now(),
    )
    if not is_paid:
        return topup
    return topping_up.finish(
        provider="sandbox",
        reference=topup.provider_reference,
        paid_total_nanousd=topup.total_nanousd,
        at=factories.now(),
    )


def text_of(client: Client, address: str) -> str:
    response = client.get(address)
    assert response.status_code == 200
    return " ".join(response.text.split())


@pytest.mark.django_db
def test_a_new_account_is_told_what_to_do() -> None:
    page = text_of(sign_in(factories.make_account()), "/billing/")
    assert "$0.00" in page
    assert "No payments" in page
    assert "Nothing has moved" in page
    assert "Buying credit moves you to pay as you go" in page
    assert 'href="/billing/buy/"' in page


@pytest.mark.django_db
def test_the_page_shows_available_and_held_credit() -> None:
    account = factories.make_account(credit="10")
    Wallet.objects.filter(account=account).update(held_nanousd=3 * USD)
    page = text_of(sign_in(account), "/billing/")
    assert '<div class="figure-value my-1">$7.00</div>' in page
    assert '<div class="figure-value my-1">$3.00</div>' in page


@pytest.mark.django_db
def test_the_page_counts_what_was_spent_this_month_to_the_last_request() -> None:
    account, now = factories.make_account(credit="10"), factories.now()
    key, model = factories.make_key(account).key, factories.make_model()
    rows.make_record(account=account, key=key, model=model, at=now, cost_nanousd=3)
    rollups.roll_up(at=factories.now())
    rows.make_record(account=account, key=key, model=model, at=now, cost_nanousd=4)
    rows.make_record(account=account, key=key, model=model, at=now - dt.timedelta(days=40), cost_nanousd=100)
    assert '<div class="figure-value my-1">$0.00<span class="usd-finer">0000007</span></div>' in text_of(
        sign_in(account), "/billing/"
    )


@pytest.mark.django_db
def test_the_ledger_reads_in_plain_words() -> None:
    account = factories.make_account(credit="10")
    key, model = factories.make_key(account).key, factories.make_model()
    hour = dt.datetime(2026, 3, 4, 14, 20, tzinfo=dt.UTC)
    rows.make_record(account=account, key=key, model=model, at=hour, cost_nanousd=5 * USD)
    rows.make_record(
        account=account, key=key, model=model, at=hour, cost_nanousd=9, charged_nanousd=0, loss_nanousd=9
    )
    rollups.roll_up(at=factories.now())
    posting.post_hours(at=factories.now())
    topup = make_topup(account)
    page = text_of(sign_in(account), "/billing/")
    assert f'<a href="/billing/topups/{topup.pk}/">Credit bought</a>' in page
    assert 'a fee of <span class="tabular">$5.00</span>' in page
    assert "Credit granted: for a test" in page
    assert "Usage from 2026-03-04 14:00 to 15:00 UTC" in page
    assert [line.amount_nanousd for line in statement.lines(account=account).rows] == [
        20 * USD,
        -5 * USD,
        10 * USD,
    ]
    assert "beyond its hold" not in page
    assert "not in the ledger yet" not in page


@pytest.mark.django_db
def test_usage_that_is_not_in_the_ledger_yet_is_said_to_be_so() -> None:
    account = factories.make_account(credit="10")
    key = factories.make_key(account).key
    rows.make_record(
        account=account, key=key, model=factories.make_model(), at=factories.now(), cost_nanousd=4
    )
    page = text_of(sign_in(account), "/billing/")
    assert 'not in the ledger yet: <strong class="tabular">$0.000000004</strong>' in page


@pytest.mark.django_db
@pytest.mark.parametrize("topups", [2, 10])
def test_the_page_asks_as_few_questions_for_many_rows(
    topups: int, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    account = factories.make_account()
    for _ in range(topups):
        make_topup(account)
    client = sign_in(account)
    client.get("/billing/")
    # Session, user and account twice (the menu, the page), wallet, credit in the ledger, payments with their refunds
    # and disputes, lines, month, promotional credit, low-balance alert, auto top-up.
    with django_assert_num_queries(13):
        client.get("/billing/")


@pytest.mark.django_db
def test_older_payments_are_a_page_further() -> None:
    account = factories.make_account()
    topups = [make_topup(account) for _ in range(12)]
    client = sign_in(account)
    newest = text_of(client, "/billing/")
    assert f"/billing/topups/{topups[2].pk}/" in newest
    assert f'href="/billing/payments/?older_than={topups[2].pk}"' in newest
    # By its id the link keeps the focus, and the rows that replace others are read from the first one on.
    assert 'id="older-payments"' in newest
    assert 'hx-swap="outerHTML show:top"' in newest
    older = text_of(client, f"/billing/payments/?older_than={topups[2].pk}")
    # Twice each: in the first column on a phone, in the last one elsewhere.
    assert older.count("Receipt of top-up") == 2 * 2
    assert "Older payments" not in older


@pytest.mark.django_db
def test_older_ledger_lines_are_a_page_further() -> None:
    account = factories.make_account()
    posted = [
        crediting.grant(
            account=account,
            amount_nanousd=1,
            reason=f"number {n}",
            actor=None,
            at=factories.now(),
            reference=f"g:{n}",
        )
        for n in range(26)
    ]
    client = sign_in(account)
    assert f'href="/billing/ledger/?older_than={posted[1].pk}"' in text_of(client, "/billing/")
    older = text_of(client, f"/billing/ledger/?older_than={posted[1].pk}")
    assert older.count("Credit granted") == 1
    assert "number 0" in older


@pytest.mark.django_db
@pytest.mark.parametrize("address", ["/billing/ledger/", "/billing/payments/"])
def test_htmx_gets_the_table_alone(address: str) -> None:
    client = sign_in(factories.make_account())
    page, fragment = client.get(address), client.get(address, headers={"HX-Request": "true"})
    assert "<html" in page.text
    assert "<html" not in fragment.text
    assert "HX-Request" in page["Vary"]
    assert "HX-Request" in fragment["Vary"]


@pytest.mark.django_db
@pytest.mark.parametrize("nonsense", ["x", "-1", "\N{ARABIC-INDIC DIGIT ONE}", "9" * 30, ""])
def test_nonsense_in_the_address_is_the_first_page(nonsense: str) -> None:
    account = factories.make_account(credit="10")
    assert "Credit granted" in text_of(sign_in(account), f"/billing/ledger/?older_than={nonsense}")


@pytest.mark.django_db
def test_a_receipt_says_who_paid_what_and_when() -> None:
    account = factories.make_account()
    topup = make_topup(account)
    page = text_of(sign_in(account), f"/billing/topups/{topup.pk}/")
    for part in (
        "$20.00",
        "$5.00",
        "$25.00",
        account.members.get().email,
        topup.provider_reference,
        "takes no money",
    ):
        assert part in page
    assert "Go to payment" not in page


@pytest.mark.django_db
def test_an_unpaid_top_up_leads_to_its_payment() -> None:
    account = factories.make_account()
    topup = make_topup(account, is_paid=False)
    address = f"/billing/topups/{topup.pk}/"
    client = sign_in(account)
    assert f'href="/billing/sandbox/{topup.provider_reference}/"' in text_of(client, address)
    TopUp.objects.update(provider="shells", created_by=None)
    page = text_of(client, address)
    assert "shells" in page
    assert "someone who has left" in page
    assert "Go to payment" not in page
    topping_up.cancel(topup=topup, actor=None)
    assert "Canceled: no credit was added." in text_of(client, address)


@pytest.mark.django_db
def test_strangers_are_sent_to_the_login_page() -> None:
    account = factories.make_account()
    topup = make_topup(account)
    for address in (
        "/billing/",
        "/billing/ledger/",
        "/billing/payments/",
        "/billing/buy/",
        f"/billing/sandbox/{topup.provider_reference}/",
        f"/billing/topups/{topup.pk}/",
        f"/billing/topups/{topup.pk}/return/",
    ):
        response = Client().get(address)
        assert response.status_code == 302, address
        assert response["Location"].startswith("/accounts/login/"), address


@pytest.mark.django_db
def test_another_account_sees_nothing_of_this_one() -> None:
    account = factories.make_account(credit="10")
    topup = make_topup(account, is_paid=False)
    outsider = sign_in(factories.make_account())
    for address in ("/billing/", "/billing/ledger/", "/billing/payments/"):
        page = text_of(outsider, address)
        assert "Credit granted" not in page
        assert f"/billing/topups/{topup.pk}/" not in page
    for address in (
        f"/billing/sandbox/{topup.provider_reference}/",
        f"/billing/topups/{topup.pk}/",
        f"/billing/topups/{topup.pk}/return/",
    ):
        assert outsider.get(address).status_code == 404, address
    for address in (
        f"/billing/sandbox/{topup.provider_reference}/pay/",
        f"/billing/sandbox/{topup.provider_reference}/cancel/",
    ):
        assert outsider.post(address).status_code == 404, address
    topup.refresh_from_db()
    assert topup.status == "pending"
    assert not LedgerAccount.objects.filter(account=outsider.get("/billing/").wsgi_request.user.pk).exists()


@pytest.mark.parametrize("reference", ["usage:7", "usage:7:yesterday:0"])
def test_usage_whose_reference_names_no_hour_leads_to_none(reference: str) -> None:
    words = wording.in_words(kind="usage", reference=reference, description="Usage")
    assert (words.text, words.hour) == ("Usage", None)
