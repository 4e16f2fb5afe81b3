"""The operator's pages of money: an account at a glance, revenue by month, every loss; for operators only."""

import csv
import datetime as dt
import io
import json
import re

import pytest
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse
from pytest_django import DjangoAssertNumQueries

from accounts.models import Account, Plan
from billing import ledger, revenue
from billing.ledger import Leg
from billing.models import Dispute, LedgerAccount, LedgerTransaction, Refund, TopUp, Wallet
from tests import factories
from tests.billing.test_billing_pages import USD, make_topup, text_of
from tests.usage import rows
from usage import posting, rollups

pytestmark = pytest.mark.django_db
Kind = LedgerTransaction.Kind
Of = LedgerAccount.Kind
AT = dt.datetime(2026, 3, 5, 12, tzinfo=dt.UTC)


@pytest.fixture
def operator() -> Client:
    client = Client()
    client.force_login(factories.make_user(is_staff=True, is_superuser=True))
    return client


def addresses(account: Account) -> list[str]:
    return [
        reverse("admin:billing_account_money", args=[account.pk]),
        reverse("admin:billing_revenue"),
        reverse("admin:billing_revenue_file"),
        reverse("admin:billing_losses"),
    ]


def book(account: Account, reference: str, *legs: Leg, at: dt.datetime = AT) -> None:
    ledger.post(
        reference=reference, kind=Kind.ADJUSTMENT, account=account, description=reference, legs=legs, at=at
    )


def use(account: Account, *, cost_nanousd: int, at: dt.datetime, **fields: int) -> str:
    record = rows.make_record(
        account=account,
        key=factories.make_key(account).key,
        model=factories.make_model(),
        at=at,
        cost_nanousd=cost_nanousd,
        **fields,
    )
    rollups.roll_up(at=at)
    posting.post_hours(at=at + dt.timedelta(hours=2))
    return str(record.pk)


def test_an_accounts_money_is_on_one_page(operator: Client) -> None:
    account = factories.make_account(plan=Plan.PAY_AS_YOU_GO, credit="10")
    topup = make_topup(account, usd=100)
    make_topup(account, usd=40, is_paid=False)
    use(account, cost_nanousd=3 * USD, at=factories.now())
    Wallet.objects.filter(account=account).update(held_nanousd=USD)
    Refund.objects.create(
        account=account,
        topup=topup,
        reference="r",
        credit_nanousd=5 * USD,
        fee_nanousd=USD,
        reason="asked for it",
    )
    Dispute.objects.create(
        account=account,
        topup=topup,
        provider_dispute="d",
        reason="fraudulent",
        status="open",
        amount_nanousd=USD,
        frozen_nanousd=USD,
    )
    page = text_of(operator, reverse("admin:billing_account_money", args=[account.pk]))
    figures = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", page))
    month = f"{factories.now():%B}"
    assert figures == {
        "Available": "$106.00",
        "Held by running requests": "$1.00",
        "Balance": "$107.00",
        "Of it paid for": "$100.00",
        "Of it promotional": "$7.00",
        "Waiting for payment": "$40.00",
        f"Used in {month}": "$3.00",
        "Used, not in the ledger yet": figures["Used, not in the ledger yet"],
    }
    for part in ("asked for it", "fraudulent", "$125.00", "Credit bought", "Credit granted: for a test"):
        assert part in page
    for name in ("billing_wallet_grant", "accounts_account_change"):
        assert f'href="{reverse(f"admin:{name}", args=[account.pk])}"' in page


def test_an_account_without_money_has_a_page_too(operator: Client) -> None:
    account = factories.make_account()
    page = text_of(operator, reverse("admin:billing_account_money", args=[account.pk]))
    for part in ("Nothing was bought.", "None.", "Nothing has moved."):
        assert part in page
    assert operator.get(reverse("admin:billing_account_money", args=[0])).status_code == 404


def test_an_accounts_page_and_the_first_page_lead_there(operator: Client) -> None:
    account = factories.make_account()
    money, by_month, _file, losses = addresses(account)
    assert f'href="{money}"' in text_of(operator, reverse("admin:accounts_account_change", args=[account.pk]))
    first = text_of(operator, reverse("admin:index"))
    assert f'href="{by_month}"' in first
    assert f'href="{losses}"' in first


def test_the_first_page_has_the_money_of_all_accounts_and_counts_open_disputes(operator: Client) -> None:
    at_first = text_of(operator, reverse("admin:index"))
    assert "open dispute" not in at_first
    assert set(re.findall(r"<dd>(.*?)</dd>", at_first)) == {"$0.00"}

    account, other = factories.make_account(credit="10"), factories.make_account(credit="0.50")
    topup = make_topup(account, usd=100)
    make_topup(other, usd=40, is_paid=False)
    TopUp.objects.filter(pk=make_topup(other, usd=20).pk).update(
        paid_at=factories.now().replace(day=1) - dt.timedelta(days=1)
    )
    Wallet.objects.filter(account=account).update(held_nanousd=112 * USD, to_take_nanousd=2 * USD)
    of_it = {"account": account, "topup": topup}
    Refund.objects.create(**of_it, reference="r", credit_nanousd=4 * USD, fee_nanousd=USD, reason="so")
    Dispute.objects.create(
        **of_it, provider_dispute="d", status="open", amount_nanousd=3 * USD, loss_nanousd=3 * USD
    )
    page = text_of(operator, reverse("admin:index"))
    assert dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", page)) == {
        "Credit of all accounts": "$130.50",
        "Of it held by requests": "$110.00",
        f"Paid in {factories.now():%B} (UTC)": "$125.00",
        "Refunds on their way": "$5.00",
        "Disputed": "$3.00",
    }
    listed = f"{reverse('admin:billing_dispute_changelist')}?status__exact=open"
    assert f'<a href="{listed}">1 open dispute, to be answered at the payment company</a>' in page
    assert operator.get(listed).status_code == 200


@pytest.mark.parametrize("topups", [1, 9])
def test_an_accounts_money_asks_as_few_questions_for_many_payments(
    operator: Client, topups: int, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    account = factories.make_account()
    for _ in range(topups):
        make_topup(account)
    address = reverse("admin:billing_account_money", args=[account.pk])
    operator.get(address)
    # Session, user, account, wallet, lines, standing, pending, top-ups with what became of each (2), refunds, disputes,
    # month.
    with django_assert_num_queries(13):
        operator.get(address)


def test_months_are_what_the_ledger_says_without_gaps() -> None:
    account = factories.make_account()
    january = dt.datetime(2026, 1, 31, 23, 59, 59, tzinfo=dt.UTC)
    own = Leg(Of.CUSTOMER_CREDITS, 100, owner_id=account.pk)
    book(account, "a", Leg(Of.CASH_CLEARING, -125, provider="x"), own, Leg(Of.FEE_REVENUE, 25), at=january)
    used = Leg(Of.CUSTOMER_CREDITS, -60, owner_id=account.pk)
    book(account, "b", used, Leg(Of.USAGE_REVENUE, 60))
    book(account, "c", Leg(Of.PLATFORM_LOSS, -7), Leg(Of.USAGE_REVENUE, 7))
    granted = Leg(Of.CUSTOMER_CREDITS, 9, owner_id=account.pk)
    book(account, "d", Leg(Of.PROMOTIONS, -9), granted)
    back = Leg(Of.CUSTOMER_CREDITS, -20, owner_id=account.pk)
    book(account, "e", back, Leg(Of.REFUNDS, -5), Leg(Of.CASH_CLEARING, 25, provider="x"))
    taken = Leg(Of.CUSTOMER_CREDITS, -3, owner_id=account.pk)
    book(account, "f", taken, Leg(Of.PROMOTIONS, 1), Leg(Of.ADJUSTMENTS, 2))
    months = revenue.by_month(at=AT, months=None)
    assert months == [
        revenue.Month(dt.date(2026, 1, 1), fees_nanousd=25, received_nanousd=125),
        revenue.Month(dt.date(2026, 2, 1)),
        revenue.Month(
            dt.date(2026, 3, 1),
            usage_nanousd=67,
            refunds_nanousd=-5,
            promotions_nanousd=-8,
            adjustments_nanousd=2,
            losses_nanousd=-7,
            received_nanousd=-25,
        ),
    ]
    assert [month.earned_nanousd for month in months] == [25, 0, 49]
    assert revenue.total(months).earned_nanousd == 74
    assert revenue.by_month(at=AT, months=2) == months[1:]
    assert [f"{month.month:%Y-%m}" for month in revenue.by_month(at=AT)][::11] == ["2025-04", "2026-03"]


def test_revenue_has_a_chart_and_its_table(operator: Client) -> None:
    make_topup(factories.make_account(), usd=20)
    page = text_of(operator, reverse("admin:billing_revenue"))
    chart = json.loads(re.search(r'id="revenue-chart" type="application/json">(.*?)</script>', page)[1])  # type: ignore[index]
    assert chart["labels"][-1] == f"{factories.now():%Y-%m}"
    assert len(chart["labels"]) == 12
    assert {series["label"]: series["data"][-1] for series in chart["datasets"]} == {
        "Usage": 0,
        "Fees": 5,
        "Fees given back": 0,
        "Credit taken": 0,
        "Credit granted": 0,
        "Losses": 0,
    }
    assert '<td class="amount">$25.00</td>' in page
    assert "<script>" not in page


def test_revenue_is_a_file_too(operator: Client) -> None:
    make_topup(factories.make_account(), usd=20)
    response = operator.get(reverse("admin:billing_revenue_file"))
    assert response["Content-Type"] == "text/csv; charset=utf-8"
    (month,) = csv.DictReader(io.StringIO(response.text))
    figures = ("fee_revenue_usd", "adjustments_usd", "earned_usd", "received_usd")
    assert tuple(month[name] for name in figures) == (
        "5.000000000",
        "0.000000000",
        "5.000000000",
        "25.000000000",
    )


def test_each_loss_names_its_request_and_its_account(operator: Client) -> None:
    account = factories.make_account(credit="1")
    now = factories.now()
    request_id = use(account, cost_nanousd=9, charged_nanousd=5, loss_nanousd=4, at=now)
    book(account, "dispute", Leg(Of.PLATFORM_LOSS, -USD), Leg(Of.DISPUTES, USD), at=now)
    book(account, "won", Leg(Of.PLATFORM_LOSS, USD), Leg(Of.DISPUTES, -USD), at=now)
    page = text_of(operator, reverse("admin:billing_losses"))
    assert f'href="{reverse("admin:usage_usagerecord_change", args=[request_id])}"' in page
    assert f'href="{reverse("admin:billing_account_money", args=[account.pk])}"' in page
    assert re.findall(r'<td class="amount">(-?\$[\d.]+)</td> </tr>', page)[-3:] == [
        "-$1.00",
        "$1.00",
        "$0.000000004",
    ]
    assert f'<th scope="row">{now:%Y-%m}</th><td class="amount">$0.000000004</td>' in page


def test_older_losses_are_a_page_further(operator: Client) -> None:
    account = factories.make_account()
    for number in range(51):
        book(account, f"lost {number}!", Leg(Of.PLATFORM_LOSS, -1), Leg(Of.USAGE_REVENUE, 1))
    address = reverse("admin:billing_losses")
    newest = text_of(operator, address)
    assert "lost 0!" not in newest
    (older,) = re.findall(r'href="(\?older_than=\d+)"', newest)
    assert "lost 0!" in text_of(operator, address + older)
    assert "Nothing was lost" in text_of(operator, address + "?older_than=1")


def test_only_operators_who_may_see_the_ledger_see_these_pages() -> None:
    account = factories.make_account()
    staff = factories.make_user(is_staff=True)
    owner, limited = Client(), Client()
    owner.force_login(account.members.get())
    limited.force_login(staff)
    for address in addresses(account):
        assert Client().get(address).status_code == 302
        assert owner.get(address).status_code in {302, 403}
        assert limited.get(address).status_code == 403
    staff.user_permissions.add(Permission.objects.get(codename="view_ledgertransaction"))
    for address in addresses(account):
        assert limited.get(address).status_code == 200
        assert limited.post(address).status_code == 405
    page = text_of(limited, addresses(account)[0])
    assert "Grant credit" not in page
    assert not TopUp.objects.exists()
