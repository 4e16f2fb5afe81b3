"""The audit follows the chain: in every run by its links, and on demand by computing every hash anew."""

from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from billing import chain, verifying
from billing.models import AuditedHead, ChainHead, LedgerTransaction
from tests import factories
from tests.invariants import check_books
from tests.usage.audited import found, plant
from usage import tasks

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def references() -> list[str]:
    """Four transactions."""
    for _ in range(4):
        factories.make_account(credit="5")
    check_books()
    return list(LedgerTransaction.objects.order_by("number").values_list("reference", flat=True))


def test_a_transaction_that_does_not_follow_the_one_before_is_found(references: list[str]) -> None:
    plant("UPDATE billing_ledgertransaction SET previous_hash = 'another' WHERE number = 2")
    assert found() == [f"the chain of the ledger is broken before transaction 2 ({references[1]})"]


def test_a_gap_in_the_numbers_is_found(references: list[str]) -> None:
    plant("UPDATE billing_ledgertransaction SET number = 7 WHERE number = 4")
    assert found() == [f"the chain of the ledger is broken before transaction 7 ({references[3]})"]


def test_a_head_that_counts_more_than_there_are_is_found() -> None:
    plant("UPDATE billing_chainhead SET count = count + 1")
    assert found() == ["the head of the ledger's chain counts 5 transactions, there are 4"]


def test_a_head_that_is_gone_is_found() -> None:
    plant(
        "ALTER TABLE billing_chainhead DISABLE TRIGGER USER; DELETE FROM billing_chainhead;"
        "ALTER TABLE billing_chainhead ENABLE TRIGGER USER"
    )
    assert found() == ["the head of the ledger's chain counts 0 transactions, there are 4"]


def test_a_head_that_is_another_transaction_is_found(references: list[str]) -> None:
    plant("UPDATE billing_ledgertransaction SET hash = 'another' WHERE number = 4")
    assert found() == [
        f"the head of the ledger's chain is not transaction 4 ({references[3]}), which is the last"
    ]


def test_the_command_follows_the_chain() -> None:
    out = StringIO()
    call_command("audit_ledger", "--verify-chain", stdout=out)
    head = ChainHead.objects.get().hash
    assert f"The chain holds over 4 ledger transactions; its head is 4:{head}." in out.getvalue()


def test_the_command_names_the_first_transaction_that_was_changed(references: list[str]) -> None:
    plant("UPDATE billing_ledgertransaction SET description = 'nothing to see' WHERE number IN (2, 3)")
    call_command("audit_ledger", stdout=StringIO())
    err = StringIO()
    with pytest.raises(SystemExit):
        call_command("audit_ledger", "--verify-chain", stderr=err)
    assert err.getvalue().splitlines()[0] == (
        f"the first that is wrong in the chain: ledger transaction 2 ({references[1]}) is not what was posted"
    )


def test_an_anchor_that_still_holds_is_right() -> None:
    for entry in LedgerTransaction.objects.all():
        call_command("audit_ledger", "--anchor", f"{entry.number}:{entry.hash}", stdout=StringIO())
    call_command("audit_ledger", "--anchor", f"0:{chain.GENESIS}", stdout=StringIO())


def test_a_ledger_that_was_written_anew_is_found_by_an_anchor() -> None:
    err = StringIO()
    with pytest.raises(SystemExit):
        call_command("audit_ledger", "--anchor", f"3:{'a' * 64}", stderr=err)
    assert err.getvalue().startswith(
        "ledger transaction 3 is not that of the anchor: it was written anew\n1 discrepancy in "
    )


@pytest.mark.parametrize("nonsense", ["3", "x:y", f"3:{'A' * 64}", f"{'9' * 30}:{'a' * 64}"])
def test_an_anchor_that_is_none_is_refused(nonsense: str) -> None:
    with pytest.raises(CommandError, match="is not a number, a colon and a hash"):
        call_command("audit_ledger", "--anchor", nonsense)


def cut_off() -> None:
    """The last transaction and all that came of it, and the head set back: as if it had never been."""
    plant(
        "DELETE FROM billing_promotionalcredit WHERE transaction_id ="
        " (SELECT id FROM billing_ledgertransaction WHERE number = 4);"
        "UPDATE billing_wallet SET balance_nanousd = 0 WHERE account_id ="
        " (SELECT account_id FROM billing_ledgertransaction WHERE number = 4);"
        "DELETE FROM billing_posting WHERE transaction_id ="
        " (SELECT id FROM billing_ledgertransaction WHERE number = 4);"
        "DELETE FROM billing_ledgertransaction WHERE number = 4;"
        "ALTER TABLE billing_chainhead DISABLE TRIGGER USER;"
        "UPDATE billing_chainhead SET count = 3, hash = (SELECT hash FROM billing_ledgertransaction WHERE number = 3);"
        "ALTER TABLE billing_chainhead ENABLE TRIGGER USER"
    )


def test_an_end_that_an_audit_has_seen_is_missed_by_every_later_one() -> None:
    call_command("audit_ledger", "--verify-chain", stdout=StringIO())
    seen = AuditedHead.objects.get()
    assert (seen.number, seen.hash) == (4, ChainHead.objects.get().hash)
    cut_off()
    (line,) = found()
    assert line.startswith(f"ledger transaction 4 ({seen.hash}) was the last at the audit of ")
    assert line.endswith(" UTC, and the ledger does not have it any more: it was cut off or written anew")


def test_an_end_that_no_audit_has_seen_is_missed_by_an_anchor_alone() -> None:
    cut_off()
    assert found() == []


def test_the_audit_of_the_night_remembers_each_end_once() -> None:
    for _ in range(2):
        tasks.audit()
    factories.make_account(credit="5")
    tasks.audit()
    assert list(AuditedHead.objects.order_by("pk").values_list("number", flat=True)) == [4, 5]


def test_a_chain_that_is_broken_and_one_that_is_empty_are_not_remembered() -> None:
    plant("UPDATE billing_ledgertransaction SET description = 'nothing to see' WHERE number = 2")
    tasks.audit()
    verifying.remember(
        verifying.ChainReport(verified=0, head_hash=chain.GENESIS, broken=None), at=factories.now()
    )
    assert not AuditedHead.objects.exists()
