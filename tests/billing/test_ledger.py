"""Double entry: what the code refuses, and what the database refuses whoever asks."""

import datetime as dt

import pytest
from django.db import IntegrityError, connection, transaction

from accounts.models import Account
from billing import ledger
from billing.ledger import Leg
from billing.models import LedgerAccount, LedgerTransaction, Posting
from tests import factories
from tests.concurrency import in_parallel

Kind = LedgerAccount.Kind
AT = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)


def post(account: Account, *, reference: str = "test:1", legs: list[Leg] | None = None) -> LedgerTransaction:
    return ledger.post(
        reference=reference,
        kind=LedgerTransaction.Kind.PROMOTION,
        account=account,
        description="for a test",
        legs=legs or [Leg(Kind.PROMOTIONS, -7), Leg(Kind.CUSTOMER_CREDITS, 7, owner_id=account.pk)],
        at=AT,
    )


@pytest.mark.django_db
def test_a_transaction_is_written_with_its_postings() -> None:
    account = factories.make_account()
    posted = post(account)
    assert (posted.reference, posted.kind, posted.account_id, posted.created_at) == (
        "test:1",
        "promotion",
        account.pk,
        AT,
    )
    legs = posted.postings.values_list("ledger_account__kind", "ledger_account__account", "amount_nanousd")
    assert sorted(legs) == [("customer_credits", account.pk, 7), ("promotions", None, -7)]


@pytest.mark.django_db
def test_a_ledger_account_is_made_once() -> None:
    account = factories.make_account()
    post(account, reference="test:1")
    post(account, reference="test:2")
    assert LedgerAccount.objects.count() == 2


@pytest.mark.django_db
def test_the_account_may_be_given_by_its_id() -> None:
    account = factories.make_account()
    posted = ledger.post(
        reference="test:id",
        kind=LedgerTransaction.Kind.USAGE,
        account=account.pk,
        description="",
        legs=[Leg(Kind.USAGE_REVENUE, 3), Leg(Kind.CUSTOMER_CREDITS, -3, owner_id=account.pk)],
        at=AT,
    )
    assert posted.account == account


@pytest.mark.django_db
def test_a_reference_is_refused_the_second_time() -> None:
    account = factories.make_account()
    post(account)
    with pytest.raises(ledger.AlreadyPosted, match="test:1 is already in the ledger") as refused:
        post(account)
    assert refused.value.reference == "test:1"
    assert LedgerTransaction.objects.count() == 1
    assert Posting.objects.count() == 2


@pytest.mark.parametrize("amounts", [(), (5,), (5, -4), (5, -5, 0), (0, 0)])
def test_legs_that_do_not_balance_are_refused(amounts: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="sum to zero"):
        ledger.post(
            reference="test:1",
            kind=LedgerTransaction.Kind.LOSS,
            account=1,
            description="",
            legs=[Leg(Kind.PROMOTIONS, amount) for amount in amounts],
            at=AT,
        )


@pytest.mark.django_db(transaction=True)
def test_a_reference_is_posted_once_by_many_at_a_time() -> None:
    account = factories.make_account()

    def attempt(_number: int) -> bool:
        try:
            post(account)
        except ledger.AlreadyPosted:
            return False
        return True

    assert sorted(in_parallel(attempt, times=8)) == [False] * 7 + [True]
    assert LedgerAccount.objects.count() == 2
    assert Posting.objects.count() == 2


@pytest.mark.django_db(transaction=True)
def test_many_transactions_at_a_time_make_each_ledger_account_once() -> None:
    account = factories.make_account()
    in_parallel(lambda number: post(account, reference=f"test:{number}"), times=8)
    assert LedgerTransaction.objects.count() == 8
    assert LedgerAccount.objects.count() == 2


@pytest.mark.django_db
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE billing_posting SET amount_nanousd = amount_nanousd * 2",
        "DELETE FROM billing_posting",
        "UPDATE billing_ledgertransaction SET description = 'nothing to see'",
        "DELETE FROM billing_ledgertransaction",
    ],
)
def test_the_database_refuses_to_change_the_ledger(statement: str) -> None:
    post(factories.make_account())
    with (
        pytest.raises(IntegrityError, match="is immutable"),
        transaction.atomic(),
        connection.cursor() as cursor,
    ):
        cursor.execute(statement)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("amounts", [(), (5,), (5, -4)])
def test_the_database_refuses_an_unbalanced_transaction_when_it_commits(amounts: tuple[int, ...]) -> None:
    account = factories.make_account()
    promotions = LedgerAccount.objects.create(kind=Kind.PROMOTIONS)

    def write_by_hand() -> None:
        with transaction.atomic():
            written = LedgerTransaction.objects.create(
                number=1, reference="by hand", kind="loss", account=account
            )
            for amount in amounts:
                Posting.objects.create(transaction=written, ledger_account=promotions, amount_nanousd=amount)

    with pytest.raises(IntegrityError, match="postings that sum to"):
        write_by_hand()
    assert not LedgerTransaction.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_the_database_refuses_another_posting_of_an_old_transaction() -> None:
    posted = post(factories.make_account())
    promotions = LedgerAccount.objects.get(kind=Kind.PROMOTIONS)
    with pytest.raises(IntegrityError, match="gets no further postings"):
        Posting.objects.create(transaction=posted, ledger_account=promotions, amount_nanousd=1)


@pytest.mark.django_db
def test_the_database_refuses_a_posting_of_nothing() -> None:
    posted = post(factories.make_account())
    promotions = LedgerAccount.objects.get(kind=Kind.PROMOTIONS)
    with pytest.raises(IntegrityError, match="posting_not_zero"), transaction.atomic():
        Posting.objects.create(transaction=posted, ledger_account=promotions, amount_nanousd=0)


@pytest.mark.django_db
@pytest.mark.parametrize(("kind", "is_owned"), [(Kind.CUSTOMER_CREDITS, False), (Kind.PROMOTIONS, True)])
def test_the_database_knows_which_ledger_accounts_have_an_owner(kind: str, is_owned: bool) -> None:
    owner = factories.make_account() if is_owned else None
    with pytest.raises(IntegrityError, match="has_owner"), transaction.atomic():
        LedgerAccount.objects.create(kind=kind, account=owner)
