"""The operator's view of money: everything to read, nothing to edit, credit to grant, accounts to make."""

import re
from html import unescape
from io import StringIO

import pytest
from allauth.account.models import EmailAddress
from django.apps import apps
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse

from accounts.models import AuditEvent, Membership, Plan, User
from billing.models import LedgerTransaction, Refund, Wallet
from tests import factories
from tests.billing.test_billing_pages import make_topup
from tests.invariants import check_books

USD = 10**9
TOKEN = "6b0c6a3e-3f0c-4a8b-9a51-0f3f2d9b8a11"


@pytest.fixture
def operator(db: None) -> Client:
    client = Client()
    client.force_login(factories.make_user(is_staff=True, is_superuser=True))
    return client


@pytest.mark.parametrize("model", ["wallet", "topup", "ledgertransaction", "ledgeraccount"])
def test_money_can_be_read_and_not_edited(operator: Client, model: str) -> None:
    account = factories.make_account()
    make_topup(account)
    listed = operator.get(reverse(f"admin:billing_{model}_changelist"))
    assert listed.status_code == 200
    assert account.name in listed.text or model == "ledgeraccount"
    found = apps.get_model("billing", model)._default_manager.first()
    assert found is not None
    address = reverse(f"admin:billing_{model}_change", args=[found.pk])
    shown = operator.get(address)
    assert shown.status_code == 200
    assert 'name="_save"' not in shown.text
    assert operator.post(address, {"balance_nanousd": "1"}).status_code == 403
    assert operator.get(reverse(f"admin:billing_{model}_add")).status_code == 403
    assert operator.get(reverse(f"admin:billing_{model}_delete", args=[found.pk])).status_code == 403


def test_money_is_found_by_the_e_mail_of_a_member(operator: Client) -> None:
    account = factories.make_account(credit="12")
    factories.make_account(credit="34")
    for model in ("wallet", "topup", "ledgertransaction", "ledgeraccount"):
        address = reverse(f"admin:billing_{model}_changelist")
        assert operator.get(address, {"q": account.members.get().email}).status_code == 200
    wallets = operator.get(reverse("admin:billing_wallet_changelist"), {"q": account.members.get().email})
    assert "$12.00" in wallets.text
    assert "$34.00" not in wallets.text


def test_a_moment_is_written_with_its_zone_and_a_rate_in_percent(operator: Client) -> None:
    topup = make_topup(factories.make_account())
    page = operator.get(reverse("admin:billing_topup_change", args=[topup.pk])).text
    assert f"{topup.paid_at:%Y-%m-%d %H:%M} UTC" in page
    assert "25\u00a0%" in page
    assert "View top-up" in page


def test_a_wallet_leads_to_what_can_be_done_and_to_its_money(operator: Client) -> None:
    account = factories.make_account(credit="1")
    acts = [
        reverse(f"admin:billing_{act}", args=[account.pk])
        for act in ("wallet_grant", "wallet_take", "account_money")
    ]
    for address in (
        reverse("admin:billing_wallet_changelist"),
        reverse("admin:billing_wallet_change", args=[account.pk]),
    ):
        page = operator.get(address).text
        assert [f'href="{act}"' in page for act in acts] == [True, True, True]


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("promotionalcredit", ("Something may be left", "Nothing", "Never", "On a day")),
        ("unmatchedpayment", ("Waits for you", "Resolved")),
    ],
)
def test_filters_name_their_choices_in_words(operator: Client, model: str, words: tuple[str, ...]) -> None:
    page = operator.get(reverse(f"admin:billing_{model}_changelist")).text
    for word in words:
        assert f">{word}</a>" in page
    assert ">Empty</a>" not in page


def test_a_ledger_transaction_shows_its_postings(operator: Client) -> None:
    make_topup(factories.make_account())
    posted = LedgerTransaction.objects.get()
    page = operator.get(reverse("admin:billing_ledgertransaction_change", args=[posted.pk])).text
    for amount in ("-$25.00", "$20.00", "$5.00"):
        assert amount in page


def test_credit_is_granted_with_a_reason(operator: Client) -> None:
    account = factories.make_account()
    address = reverse("admin:billing_wallet_grant", args=[account.pk])
    assert "$0.00 available" in operator.get(address).text
    form = {"amount": "12.50", "reason": "an apology", "token": TOKEN}
    asked = operator.post(address, form).text
    owner = account.members.get().email
    assert f"$12.50 is granted to account {account.pk}, {account.name} ({owner})." in asked
    assert "<dt>Reason</dt><dd>an apology</dd>" in asked
    assert not LedgerTransaction.objects.exists()
    response = operator.post(address, {**form, "confirmed": "yes"}, follow=True)
    assert "$12.50 granted" in response.text
    assert Wallet.objects.get(account=account).balance_nanousd == 12_500_000_000
    assert LedgerTransaction.objects.get().description == "an apology"
    event = AuditEvent.objects.get(action="credit.granted")
    assert event.actor_id == int(operator.session["_auth_user_id"])
    check_books(idle=True)


def test_a_grant_that_is_sent_twice_is_granted_once(operator: Client) -> None:
    account = factories.make_account()
    address = reverse("admin:billing_wallet_grant", args=[account.pk])
    form = {"amount": "5", "reason": "an apology", "token": TOKEN, "confirmed": "yes"}
    assert "granted to" in operator.post(address, form, follow=True).text
    assert "sent twice" in operator.post(address, form, follow=True).text
    assert Wallet.objects.get(account=account).balance_nanousd == 5 * USD


@pytest.mark.parametrize(
    ("amount", "reason"), [("0", "x"), ("-5", "x"), ("5", ""), ("1.005", "x"), ("5", "x" * 201)]
)
def test_a_grant_that_makes_no_sense_is_refused(operator: Client, amount: str, reason: str) -> None:
    account = factories.make_account()
    address = reverse("admin:billing_wallet_grant", args=[account.pk])
    form = {"amount": amount, "reason": reason, "token": TOKEN, "confirmed": "yes"}
    response = operator.post(address, form)
    assert "errorlist" in response.text
    assert not LedgerTransaction.objects.exists()


@pytest.mark.parametrize("confirmed", [{}, {"confirmed": "yes"}])
def test_a_grant_that_no_wallet_can_hold_is_refused_with_what_it_can(
    operator: Client, confirmed: dict[str, str]
) -> None:
    account = factories.make_account(credit="950000000")
    address = reverse("admin:billing_wallet_grant", args=[account.pk])
    form = {"amount": "100,000,000", "reason": "too much", "token": TOKEN, **confirmed}
    response = operator.post(address, form)
    assert response.status_code == 422
    said = "A wallet holds at most $1,000,000,000.00; this one has room for $50,000,000.00 more."
    assert said in response.text
    assert operator.post(address, {**form, "amount": "50,000,000", "confirmed": "yes"}).status_code == 302
    check_books()


def test_a_grant_to_nobody_is_not_found(operator: Client) -> None:
    assert operator.get(reverse("admin:billing_wallet_grant", args=[0])).status_code == 404


@pytest.mark.django_db
def test_only_an_operator_who_may_change_wallets_grants_credit() -> None:
    account = factories.make_account()
    address = reverse("admin:billing_wallet_grant", args=[account.pk])
    assert Client().get(address).status_code == 302
    owner = Client()
    owner.force_login(account.members.get())
    assert owner.post(address, {"amount": "5", "reason": "x", "token": TOKEN}).status_code == 302
    limited = Client()
    limited.force_login(factories.make_user(is_staff=True))
    assert limited.post(address, {"amount": "5", "reason": "x", "token": TOKEN}).status_code == 403
    assert not LedgerTransaction.objects.exists()


@pytest.mark.django_db
def test_an_account_is_made_for_somebody() -> None:
    out = StringIO()
    call_command(
        "create_account", "Ada@Example.com", "--plan", "pay-as-you-go", "--credit", "12.50", stdout=out
    )
    user = User.objects.get(email="ada@example.com")
    assert not user.has_usable_password()
    address = EmailAddress.objects.get(user=user)
    assert (address.email, address.verified, address.primary) == ("ada@example.com", True, True)
    membership = Membership.objects.get(user=user)
    assert (membership.role, membership.account.plan.slug) == ("owner", Plan.PAY_AS_YOU_GO)
    assert Wallet.objects.get(account=membership.account).balance_nanousd == 12_500_000_000
    assert f"Account {membership.account_id} for ada@example.com on the plan pay-as-you-go." in out.getvalue()
    assert "Credit: $12.50." in out.getvalue()
    assert "No password is set" in out.getvalue()
    assert "does not spend" not in out.getvalue()
    check_books(idle=True)


@pytest.mark.django_db
def test_an_account_is_made_on_the_basic_plan_without_credit() -> None:
    out = StringIO()
    call_command("create_account", "ada@example.com", stdout=out)
    assert Membership.objects.get().account.plan.slug == Plan.BASIC
    assert not LedgerTransaction.objects.exists()
    assert "Credit" not in out.getvalue()


@pytest.mark.django_db
def test_credit_that_the_plan_does_not_spend_is_pointed_out() -> None:
    out = StringIO()
    call_command("create_account", "ada@example.com", "--credit", "5", stdout=out)
    assert "The plan basic does not spend credits" in out.getvalue()


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["TAKEN@example.com"], "already has a user"),
        (["nobody"], "nobody is not an e-mail address"),
        (["ada@example.com", "--plan", "gold"], "There is no plan gold. There are: basic, pay-as-you-go."),
        (["ada@example.com", "--credit", "five"], "--credit five"),
        (["ada@example.com", "--credit=-5"], "--credit -5"),
        (["ada@example.com", "--credit", "0.001"], "--credit 0.001"),
        (["ada@example.com", "--credit", "Infinity"], "--credit Infinity"),
        (["ada@example.com", "--credit", "1e30"], "from 0 to 100000000"),
    ],
)
def test_an_account_that_cannot_be_made_says_why(arguments: list[str], problem: str) -> None:
    factories.make_user("taken@example.com")
    with pytest.raises(CommandError, match=problem):
        call_command("create_account", *arguments)
    assert User.objects.count() == 1


def test_an_accounts_page_leads_to_granting_it_credit(operator: Client) -> None:
    account = factories.make_account()
    page = operator.get(reverse("admin:accounts_account_change", args=[account.pk]))
    assert f'href="{reverse("admin:billing_wallet_grant", args=[account.pk])}"' in page.text


def test_a_page_that_asks_says_where_it_stands_in_the_admin(operator: Client) -> None:
    topup = make_topup(factories.make_account())
    asked = operator.get(reverse("admin:billing_topup_refund", args=[topup.pk])).text
    crumbs = asked.split('class="breadcrumbs"')[1].split("</div>")[0]
    assert re.findall(r">([^<>]+)</a>", crumbs) == ["Home", "Billing", "Top-ups", str(topup)]
    assert f'href="{reverse("admin:billing_topup_change", args=[topup.pk])}"' in crumbs
    assert "Back" not in crumbs
    account = factories.make_account(credit="3")
    crumbs = operator.get(reverse("admin:billing_wallet_grant", args=[account.pk])).text
    assert reverse("admin:billing_wallet_change", args=[account.pk]) in crumbs
    new = factories.make_account()
    Wallet.objects.filter(account=new).delete()
    assert operator.get(reverse("admin:billing_wallet_grant", args=[new.pk])).status_code == 200


def test_a_refund_says_of_which_account_it_is(operator: Client) -> None:
    topup = make_topup(factories.make_account())
    asked = operator.get(reverse("admin:billing_topup_refund", args=[topup.pk])).text
    owner = topup.account.members.get().email
    assert f"Paid by account {topup.account_id}, {topup.account.name} ({owner}):" in unescape(asked)


def test_a_refund_is_offered_as_long_as_something_can_go_back(operator: Client) -> None:
    topup = make_topup(factories.make_account())
    page = reverse("admin:billing_topup_change", args=[topup.pk])
    money = reverse("admin:billing_account_money", args=[topup.account_id])
    offer = reverse("admin:billing_topup_refund", args=[topup.pk])
    assert offer in operator.get(page).text
    assert offer in operator.get(money).text
    refund = Refund.objects.create(
        account=topup.account,
        topup=topup,
        reference="all",
        credit_nanousd=topup.credit_nanousd,
        fee_nanousd=topup.fee_nanousd,
        status="succeeded",
        reason="unused",
        created_at=topup.created_at,
    )
    assert offer not in operator.get(page).text
    assert offer not in operator.get(money).text
    shown = operator.get(reverse("admin:billing_refund_change", args=[refund.pk])).text
    assert "Top-up:" in shown
    assert "Topup" not in shown
    Refund.objects.update(status="failed")
    assert offer in operator.get(page).text
