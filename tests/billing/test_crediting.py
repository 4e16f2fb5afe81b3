"""Credit that an operator grants."""

import datetime as dt

import pytest
from django.db import IntegrityError, transaction

from accounts.models import AuditEvent, Plan
from billing import crediting, ledger
from billing.models import LedgerTransaction, Wallet
from tests import factories
from tests.concurrency import in_parallel
from tests.invariants import check_books

AT = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)


@pytest.mark.django_db
def test_a_grant_is_in_the_wallet_the_ledger_and_the_audit_trail() -> None:
    account, operator = factories.make_account(), factories.make_user(is_staff=True)
    posted = crediting.grant(
        account=account, amount_nanousd=7, reason="an apology", actor=operator, at=AT, reference="grant:1"
    )
    assert Wallet.objects.get(account=account).balance_nanousd == 7
    assert (posted.kind, posted.description, posted.created_at) == ("promotion", "an apology", AT)
    legs = posted.postings.values_list("ledger_account__kind", "ledger_account__account", "amount_nanousd")
    assert sorted(legs) == [("customer_credits", account.pk, 7), ("promotions", None, -7)]
    event = AuditEvent.objects.get(action="credit.granted")
    assert (event.account, event.actor) == (account, operator)
    assert event.detail == {"amount_usd": "0.000000007", "reason": "an apology"}
    check_books(idle=True)


@pytest.mark.django_db
def test_a_grant_leaves_the_plan() -> None:
    account = factories.make_account(credit="5")
    account.refresh_from_db()
    assert account.plan.slug == Plan.BASIC


@pytest.mark.django_db
@pytest.mark.parametrize("amount", [0, -1])
def test_a_grant_that_is_not_positive_is_refused(amount: int) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        crediting.grant(
            account=factories.make_account(),
            amount_nanousd=amount,
            reason="",
            actor=None,
            at=AT,
            reference="grant:1",
        )


@pytest.mark.django_db(transaction=True)
def test_a_reference_is_granted_once_by_many_at_a_time() -> None:
    account = factories.make_account()

    def attempt(_number: int) -> bool:
        try:
            crediting.grant(
                account=account, amount_nanousd=7, reason="", actor=None, at=AT, reference="grant:1"
            )
        except ledger.AlreadyPosted:
            return False
        return True

    assert sorted(in_parallel(attempt, times=8)) == [False] * 7 + [True]
    assert Wallet.objects.get(account=account).balance_nanousd == 7
    check_books(idle=True)


@pytest.mark.django_db(transaction=True)
def test_grants_to_many_accounts_at_a_time_all_arrive() -> None:
    accounts = [factories.make_account() for _ in range(4)]

    def attempt(number: int) -> LedgerTransaction:
        return crediting.grant(
            account=accounts[number % 4],
            amount_nanousd=7,
            reason="",
            actor=None,
            at=AT,
            reference=f"grant:{number}",
        )

    in_parallel(attempt, times=8)
    assert list(Wallet.objects.values_list("balance_nanousd", flat=True)) == [14] * 4
    check_books(idle=True)


@pytest.mark.django_db
@pytest.mark.parametrize(
    "fields", [{"balance_nanousd": -1}, {"held_nanousd": -1}, {"held_nanousd": 10 * 10**9 + 1}]
)
def test_the_database_refuses_a_wallet_that_makes_no_sense(fields: dict[str, int]) -> None:
    account = factories.make_account(credit="10")
    with pytest.raises(IntegrityError, match="wallet_"), transaction.atomic():
        Wallet.objects.filter(account=account).update(**fields)
