"""The audit: silent over right books, and one line for each way in which they can be wrong."""

from io import StringIO

import pytest
from django.core.management import call_command
from pytest_django import Settings

from billing.models import PromotionalCredit, TopUp
from tests.invariants import check_books
from tests.usage.audited import AT, Books, found, make_books, plant
from usage import auditing


@pytest.fixture
def books(db: None, settings: Settings) -> Books:
    return make_books(settings)


def test_right_books_have_no_discrepancy(books: Books) -> None:
    check_books()
    report = auditing.audit_ledger(at=AT)
    assert report.at == AT
    assert report.checked == {
        "accounts": 2,
        "ledger transactions": 4,
        "postings": 9,
        "top-ups": 2,
        "receipts": 1,
        "refunds": 0,
        "disputes": 0,
        "payment events": 0,
        "of them closed by hand": 0,
        "promotional credits": 1,
        "open holds": 2,
        "budgets": 1,
        "daily allowances": 1,
        "hourly sums": 3,
        "usage records": 6,
        "of them not rolled up yet": 1,
    }


def test_empty_books_have_no_discrepancy(db: None) -> None:
    check_books(idle=True)


def test_open_holds_are_found_where_nothing_should_run(books: Books) -> None:
    with pytest.raises(AssertionError, match="still open"):
        check_books(idle=True)


def test_an_unbalanced_transaction_is_found(books: Books) -> None:
    plant(
        "UPDATE billing_posting SET amount_nanousd = amount_nanousd - 1 WHERE amount_nanousd = -25000000000"
    )
    topup = TopUp.objects.get(status="paid").pk
    assert found() == [
        f"ledger transaction topup:{topup}: its postings sum to -0.000000001 USD, not to 0.000000000 USD",
        f"topup:{topup}, total: the ledger says 25.000000001 USD, the paid top-up says 25.000000000 USD",
    ]


def test_a_transaction_without_postings_is_found(books: Books) -> None:
    plant(
        "INSERT INTO billing_ledgertransaction"
        " (number, reference, kind, account_id, description, created_at, previous_hash, hash)"
        " SELECT count + 1, 'empty', 'topup', %(account)s, '', now(), hash, 'any' FROM billing_chainhead",
        account=books.account.pk,
    )
    plant("UPDATE billing_chainhead SET count = count + 1, hash = 'any'")
    assert found() == ["ledger transaction empty: it has 0 postings, fewer than 2"]


def test_a_wallet_that_is_not_its_ledger_is_found(books: Books) -> None:
    plant(
        "UPDATE billing_wallet SET balance_nanousd = balance_nanousd + 1 WHERE account_id = %(a)s",
        a=books.account.pk,
    )
    (line,) = found()
    assert line.startswith(f"account {books.account.pk}: its wallet says 29.996999996 USD, ")
    assert line.endswith("its ledger less what is not posted yet says 29.996999995 USD")


def test_credit_in_the_ledger_without_a_wallet_is_found(books: Books) -> None:
    plant("DELETE FROM billing_wallet WHERE account_id = %(a)s", a=books.account.pk)
    assert f"account {books.account.pk}: its wallet says 0.000000000 USD" in found()[0]


def test_a_wallet_that_holds_more_than_its_holds_is_found(books: Books) -> None:
    plant("UPDATE billing_wallet SET held_nanousd = 301 WHERE account_id = %(a)s", a=books.account.pk)
    assert found() == [
        (
            f"account {books.account.pk}: its wallet holds 0.000000301 USD, its open holds and what is still to take"
            " are 0.000000300 USD"
        )
    ]


def test_a_wallet_that_waits_for_what_no_dispute_or_refund_takes_is_found(books: Books) -> None:
    plant("UPDATE billing_wallet SET to_take_nanousd = 7 WHERE account_id = %(a)s", a=books.account.pk)
    assert found() == [
        (
            f"account {books.account.pk}: its wallet says 0.000000007 USD is still to take, its disputes and refunds"
            " say 0.000000000 USD"
        )
    ]


def test_a_payment_that_is_not_in_the_ledger_is_found(books: Books) -> None:
    plant("UPDATE billing_topup SET status = 'paid', paid_at = now() WHERE status = 'pending'")
    topup = TopUp.objects.get(credit_nanousd=7 * 10**9).pk
    assert found() == [
        f"topup:{topup}, credit: the ledger says nothing, the paid top-up says 7.000000000 USD",
        f"topup:{topup}, fee: the ledger says nothing, the paid top-up says 1.750000000 USD",
        f"topup:{topup}, total: the ledger says nothing, the paid top-up says 8.750000000 USD",
        f"top-up {topup}, credit: its receipt says nothing, the paid top-up says 7.000000000 USD",
        f"top-up {topup}, fee: its receipt says nothing, the paid top-up says 1.750000000 USD",
    ]


def test_a_payment_in_the_ledger_that_is_not_paid_is_found(books: Books) -> None:
    plant("UPDATE billing_topup SET status = 'pending', paid_at = NULL WHERE status = 'paid'")
    assert f"topup:{TopUp.objects.earliest('id').pk}, credit: the ledger says 20.000000000 USD," in found()[0]
    assert len([line for line in found() if line.startswith("topup:")]) == 3


def test_a_payment_credited_to_another_account_is_found(books: Books) -> None:
    plant("UPDATE billing_topup SET account_id = %(other)s WHERE status = 'paid'", other=books.other.pk)
    assert [line.partition(":")[2].partition(":")[0] for line in found()] == [
        f"{TopUp.objects.get(status='paid').pk}, credit"
    ]


def test_more_attributed_than_charged_is_found(books: Books) -> None:
    plant(
        "UPDATE billing_wallet SET attributed_nanousd = 3000006 WHERE account_id = %(a)s", a=books.account.pk
    )
    assert found() == [
        f"account {books.account.pk}: 0.003000006 USD of its charges are attributed, it was charged 0.003000005 USD"
    ]


def test_more_promotional_credit_than_the_balance_is_found(books: Books) -> None:
    plant(
        "UPDATE billing_promotionalcredit SET amount_nanousd = 30000000001, remaining_nanousd = 30000000001"
    )
    lines = found()
    assert lines[0] == (
        f"account {books.account.pk}: its promotional credit is 29.996999996 USD,"
        " more than its balance of 29.996999995 USD"
    )


def test_a_lot_that_is_not_in_the_ledger_is_found(books: Books) -> None:
    plant(
        "UPDATE billing_promotionalcredit SET expires_at = now(), expired_nanousd = 1, remaining_nanousd = 7"
    )
    plant("UPDATE billing_promotionalcredit SET amount_nanousd = 9")
    lot = PromotionalCredit.objects.get().pk
    assert found() == [
        f"promotional credit {lot}, amount: the ledger says 10.000000000 USD, the lot says 0.000000009 USD",
        f"promotional credit {lot}, expired: the ledger says nothing, the lot says 0.000000001 USD",
        (
            f"account {books.account.pk}, promotional credit from number {lot} on: 0.000000001 USD of it is gone,"
            " and what was charged or taken since then is 0.000000000 USD"
        ),
    ]


def test_the_command_prints_a_summary_of_right_books(books: Books) -> None:
    out = StringIO()
    call_command("audit_ledger", stdout=out)
    assert out.getvalue().startswith("The books agree at ")
    assert "2 accounts, 4 ledger transactions, 9 postings" in out.getvalue()


def test_the_command_prints_every_discrepancy_and_fails(books: Books) -> None:
    plant("UPDATE billing_wallet SET balance_nanousd = balance_nanousd + 1, held_nanousd = held_nanousd + 1")
    out, err = StringIO(), StringIO()
    with pytest.raises(SystemExit) as ended:
        call_command("audit_ledger", stdout=out, stderr=err)
    assert ended.value.code == 1
    lines = err.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[-1].startswith("2 discrepancies in 2 accounts, ")
    assert out.getvalue() == ""
