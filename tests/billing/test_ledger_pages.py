"""The ledger as its customer reads it: every kind in words, an exact balance, the requests of an hour, a file."""

import csv
import datetime as dt
import io

import pytest
from pytest_django import DjangoAssertNumQueries

from accounts.models import Account, Plan
from billing import ledger, statement, wording
from billing.ledger import Leg
from billing.models import LedgerAccount, LedgerTransaction
from tests import factories
from tests.billing.test_billing_pages import USD, make_topup, sign_in, text_of
from tests.usage import rows
from usage import posting, rollups

pytestmark = pytest.mark.django_db
Kind = LedgerTransaction.Kind
Of = LedgerAccount.Kind
AT = dt.datetime(2026, 3, 5, 12, tzinfo=dt.UTC)
HOUR = dt.datetime(2026, 3, 4, 14, tzinfo=dt.UTC)


def book(
    account: Account, reference: str, kind: LedgerTransaction.Kind, description: str, *legs: Leg
) -> None:
    """In the ledger alone: how it reads is all that these tests ask."""
    ledger.post(reference=reference, kind=kind, account=account, description=description, legs=legs, at=AT)


def own(account: Account, amount_nanousd: int) -> Leg:
    return Leg(Of.CUSTOMER_CREDITS, amount_nanousd, owner_id=account.pk)


@pytest.fixture
def account() -> Account:
    """An account with a movement of each kind, of which every amount is another."""
    account = factories.make_account(plan=Plan.PAY_AS_YOU_GO)
    topup = make_topup(account, usd=100)
    book(account, "grant:x", Kind.PROMOTION, "welcome", Leg(Of.PROMOTIONS, -10 * USD), own(account, 10 * USD))
    rows.make_record(
        account=account,
        key=factories.make_key(account).key,
        model=factories.make_model(),
        at=HOUR,
        cost_nanousd=3 * USD,
    )
    rollups.roll_up(at=AT)
    posting.post_hours(at=AT)
    book(account, "expiry:1:0", Kind.EXPIRY, "welcome", own(account, -4 * USD), Leg(Of.PROMOTIONS, 4 * USD))
    back = [
        Leg(Of.REFUNDS, -5 * USD),
        Leg(Of.CASH_CLEARING, 25 * USD, provider="sandbox"),
        own(account, -20 * USD),
    ]
    words = f"Refund of top-up {topup.pk}"
    book(account, "refund:1", Kind.REFUND, words, *back)
    forth = [Leg(leg.kind, -leg.amount_nanousd, leg.owner_id, leg.provider) for leg in back]
    book(account, "refund-failed:1", Kind.REFUND, words, *forth)
    words = f"Dispute of top-up {topup.pk}: frozen"
    book(account, "dispute:1", Kind.DISPUTE, words, own(account, -30 * USD), Leg(Of.DISPUTES, 30 * USD))
    book(account, "dispute-won:1", Kind.DISPUTE, words, own(account, 30 * USD), Leg(Of.DISPUTES, -30 * USD))
    book(account, "dispute-lost:2", Kind.DISPUTE, words, Leg(Of.DISPUTES, 1), Leg(Of.PLATFORM_LOSS, -1))
    book(account, "adjust:x", Kind.ADJUSTMENT, "twice", own(account, -2 * USD), Leg(Of.PROMOTIONS, 2 * USD))
    return account


def test_every_kind_reads_in_words_with_the_balance_after_it(account: Account) -> None:
    lines = statement.lines(account=account).rows
    assert [(line.text, line.amount_nanousd // USD, line.balance_nanousd // USD) for line in lines] == [
        ("Correction: twice", -2, 101),
        ("Dispute decided against the payment: its frozen credit is gone", 0, 103),
        ("Dispute decided for the payment: the credit is yours again", 30, 103),
        ("Dispute: the bank questions a payment, and its credit is frozen until that is decided", -30, 73),
        ("Refund that did not go through: the credit is yours again", 20, 103),
        ("Refund: credit that is paid back to you", -20, 83),
        ("Granted credit expired: welcome", -4, 103),
        ("Usage from 2026-03-04 14:00 to 15:00 UTC", -3, 107),
        ("Credit granted: welcome", 10, 110),
        ("Credit bought", 100, 100),
    ]
    assert {line.topup_id is not None for line in lines if line.text.startswith(("Refund", "Disp"))} == {True}


def test_the_page_says_what_of_the_fee_came_back(account: Account) -> None:
    page = text_of(sign_in(account), "/billing/ledger/")
    assert 'With a fee of <span class="tabular">$25.00</span>' in page
    assert 'With <span class="tabular">$5.00</span> of the fee' in page
    # A refund that failed charges no fee.
    assert '<span class="tabular">$5.00</span> of the fee counts as paid again' in page
    assert 'With a fee of <span class="tabular">$5.00</span>' not in page
    assert '<td class="text-end tabular text-nowrap d-none d-md-table-cell">$101.00</td>' in page


@pytest.mark.parametrize("kind", [kind for kind, _name in wording.KINDS])
def test_a_kind_is_shown_alone_with_the_balance_that_counts_all(account: Account, kind: str) -> None:
    shown = statement.lines(account=account, kind=kind).rows
    everything = statement.lines(account=account).rows
    assert shown
    assert all(line in everything for line in shown)
    page = text_of(sign_in(account), f"/billing/ledger/?kind={kind}")
    assert f'<option value="{kind}" selected>' in page
    assert page.count("Balance <span") == len(shown)


def test_older_lines_and_the_file_are_of_the_same_kind(account: Account) -> None:
    for number in range(30):
        book(account, f"grant:{number}", Kind.PROMOTION, "more", Leg(Of.PROMOTIONS, -1), own(account, 1))
    page = text_of(sign_in(account), "/billing/ledger/?kind=promotion")
    assert "&amp;kind=promotion" in page
    assert 'href="/billing/ledger.csv?kind=promotion"' in page


def test_a_kind_of_which_there_is_none_says_so() -> None:
    page = text_of(sign_in(factories.make_account()), "/billing/ledger/?kind=refund")
    assert "None of this kind" in page


def test_a_kind_that_does_not_exist_shows_everything(account: Account) -> None:
    assert "Credit bought" in text_of(sign_in(account), "/billing/ledger/?kind=nonsense")


def test_an_hour_of_usage_leads_to_its_requests(account: Account) -> None:
    client = sign_in(account)
    assert 'href="/usage/requests/?hour=2026-03-04T14:00"' in text_of(client, "/billing/ledger/")
    key, model = factories.make_key(account).key, factories.make_model()
    for at in (HOUR - dt.timedelta(microseconds=1), HOUR + dt.timedelta(hours=1)):
        rows.make_record(account=account, key=key, model=model, at=at)
    rows.make_record(account=account, key=key, model=model, at=HOUR + dt.timedelta(minutes=59, seconds=59))
    page = text_of(client, "/usage/requests/?hour=2026-03-04T14:00")
    assert page.count("Receipt of 2026-03-04 14:") == 2
    assert page.count("Receipt of ") == 2
    assert 'value="2026-03-04T14:00"' in page


def test_an_hour_that_is_none_filters_nothing(account: Account) -> None:
    page = text_of(sign_in(account), "/usage/requests/?hour=noon")
    assert "Nothing is filtered" in page


def test_the_file_has_every_line_and_no_formula(account: Account) -> None:
    book(account, "=1+1", Kind.LOSS, "=cmd()", Leg(Of.PLATFORM_LOSS, -1), own(account, 1))
    response = sign_in(account).get("/billing/ledger.csv")
    assert response["Content-Type"] == "text/csv; charset=utf-8"
    assert response["Cache-Control"] == "private, no-store"
    lines = list(csv.DictReader(io.StringIO(response.text)))
    assert len(lines) == 11
    assert lines[0]["what"] == "'=cmd()"
    assert lines[0]["reference"] == "'=1+1"
    assert (
        lines[-1].items()
        >= {
            "what": "Credit bought",
            "amount_usd": "100.000000000",
            "fee_usd": "25.000000000",
            "balance_usd": "100.000000000",
        }.items()
    )
    assert (
        len(list(csv.DictReader(io.StringIO(sign_in(account).get("/billing/ledger.csv?kind=usage").text))))
        == 1
    )


def test_nobody_else_reads_it(account: Account) -> None:
    outsider = sign_in(factories.make_account())
    for address in ("/billing/ledger/", "/billing/ledger.csv"):
        page = outsider.get(address).text
        assert "welcome" not in page
        assert "Credit bought" not in page
    client = sign_in(account)
    client.logout()
    assert client.get("/billing/ledger.csv").status_code == 302


def test_the_home_page_shows_payments_on_their_way() -> None:
    account = factories.make_account()
    assert "No top-up waits for its payment" in text_of(sign_in(account), "/billing/")
    make_topup(account, usd=40, is_paid=False)
    make_topup(account, usd=2 * 10, is_paid=False)
    page = text_of(sign_in(account), "/billing/")
    assert '<div class="figure-value my-1">$60.00</div>' in page


@pytest.mark.parametrize("grants", [2, 24])
def test_the_ledger_asks_as_few_questions_for_many_lines(
    grants: int, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    account = factories.make_account()
    for number in range(grants):
        book(account, f"grant:{number}", Kind.PROMOTION, "more", Leg(Of.PROMOTIONS, -1), own(account, 1))
    client = sign_in(account)
    client.get("/billing/ledger/")
    # Session, user, account, wallet of the menu, lines.
    with django_assert_num_queries(5):
        client.get("/billing/ledger/")
