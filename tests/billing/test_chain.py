"""The chain: whoever changes the ledger behind our back is found out, and where."""

import datetime as dt
from collections.abc import Sequence
from importlib import import_module
from types import SimpleNamespace

import pytest
from django.db import connection, transaction

from billing import chain, ledger, verifying
from billing.ledger import Leg
from billing.models import ChainHead, LedgerAccount, LedgerTransaction
from tests import factories
from tests.concurrency import in_parallel

Kind = LedgerAccount.Kind
AT = dt.datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=dt.UTC)
_TABLES = ("billing_posting", "billing_ledgertransaction", "billing_ledgeraccount", "billing_chainhead")


def post(*, account_id: int, number: int) -> LedgerTransaction:
    return ledger.post(
        reference=f"test:{number}",
        kind=LedgerTransaction.Kind.PROMOTION,
        account=account_id,
        description=f"number {number}, “quoted” \N{SNOWMAN}",
        legs=[
            Leg(Kind.CUSTOMER_CREDITS, number, owner_id=account_id),
            Leg(Kind.PROMOTIONS, -number),
        ],
        at=AT,
    )


@pytest.fixture
def posted(db: None) -> list[LedgerTransaction]:
    account = factories.make_account()
    return [post(account_id=account.pk, number=number) for number in range(1, 6)]


def behind_our_back(*statements: str, **parameters: int | str | list[int] | dt.datetime) -> None:
    """What only a superuser can do: past the triggers and the constraint on the numbers."""
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        for table in _TABLES:
            cursor.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        for statement in statements:
            cursor.execute(statement, parameters)
        for table in _TABLES:
            cursor.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER")


def broken() -> str | None:
    return verifying.verify_chain().broken


def test_each_transaction_carries_the_hash_of_the_one_before(posted: list[LedgerTransaction]) -> None:
    assert [one.number for one in posted] == [1, 2, 3, 4, 5]
    hashes = [chain.GENESIS, *(one.hash for one in posted)]
    assert [one.previous_hash for one in posted] == hashes[:-1]
    head = ChainHead.objects.get()
    assert (head.count, head.hash) == (5, posted[-1].hash)
    assert len(set(hashes)) == 6


def test_the_hash_is_of_what_the_documents_say() -> None:
    """The form is for ever: another program must come to the same hash."""
    assert (
        chain.digest(
            previous_hash=chain.GENESIS,
            number=1,
            reference="topup:1",
            kind="topup",
            account_id=7,
            description="Süß",
            created_at=dt.datetime(2026, 3, 1, 13, 0, tzinfo=dt.timezone(dt.timedelta(hours=1))),
            postings=[
                ("fee_revenue", None, "", 5),
                ("customer_credits", 7, "", 20),
                ("cash_clearing", None, "stripe", -25),
            ],
        )
        # By `sha256sum`, of the array that docs/money.md shows.
        == "13645e5ca1514b258208e06bc318e63ce3676172152cdb359ec76f8aa02f6bff"
    )


def test_an_untouched_chain_is_right(posted: list[LedgerTransaction]) -> None:
    report = verifying.verify_chain()
    assert (report.verified, report.head_hash, report.broken) == (5, posted[-1].hash, None)


@pytest.mark.django_db
def test_an_empty_chain_is_right() -> None:
    assert verifying.verify_chain() == verifying.ChainReport(0, chain.GENESIS, None)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE billing_posting SET amount_nanousd = amount_nanousd * 2 WHERE transaction_id = %(third)s",
        "UPDATE billing_posting SET transaction_id = %(third)s WHERE transaction_id = %(fourth)s",
        "UPDATE billing_ledgertransaction SET description = 'nothing to see' WHERE id = %(third)s",
        "UPDATE billing_ledgertransaction SET created_at = created_at + interval '1 us' WHERE id = %(third)s",
        "UPDATE billing_ledgertransaction SET reference = 'other' WHERE id = %(third)s",
        "UPDATE billing_ledgertransaction SET kind = 'usage' WHERE id = %(third)s",
        "UPDATE billing_ledgertransaction SET account_id = %(other)s WHERE id = %(third)s",
        "UPDATE billing_ledgertransaction SET hash = repeat('a', 64) WHERE id = %(third)s",
        "UPDATE billing_ledgertransaction SET previous_hash = repeat('a', 64) WHERE id = %(third)s",
    ],
)
def test_a_changed_transaction_is_named(posted: list[LedgerTransaction], change: str) -> None:
    behind_our_back(change, third=posted[2].pk, fourth=posted[3].pk, other=factories.make_account().pk)
    report = verifying.verify_chain()
    reference = "other" if "'other'" in change else "test:3"
    assert report.broken == f"ledger transaction 3 ({reference}) is not what was posted"
    assert report.verified == 2


def test_a_ledger_account_that_became_another_is_found(posted: list[LedgerTransaction]) -> None:
    behind_our_back("UPDATE billing_ledgeraccount SET kind = 'fee_revenue' WHERE kind = 'promotions'")
    assert broken() == "ledger transaction 1 (test:1) is not what was posted"


def rewritten(entry: LedgerTransaction, **changes: object) -> str:
    """The hash of the transaction as somebody would have it who knows how it is made."""
    facts = {
        name: getattr(entry, name)
        for name in (
            "previous_hash",
            "number",
            "reference",
            "kind",
            "account_id",
            "description",
            "created_at",
        )
    }
    legs = entry.postings.values_list(
        "ledger_account__kind", "ledger_account__account", "ledger_account__provider", "amount_nanousd"
    )
    return chain.digest(**{**facts, "postings": list(legs), **changes})


def test_a_transaction_that_was_written_anew_with_its_hash_is_named(posted: list[LedgerTransaction]) -> None:
    behind_our_back(
        "UPDATE billing_ledgertransaction SET description = 'lies', hash = %(hash)s WHERE id = %(id)s",
        id=posted[2].pk,
        hash=rewritten(posted[2], description="lies"),
    )
    assert broken() == ("ledger transaction 3 (test:3) was written anew, with another hash than was posted")


def test_the_last_transaction_written_anew_with_its_hash_is_named(posted: list[LedgerTransaction]) -> None:
    behind_our_back(
        "UPDATE billing_ledgertransaction SET description = 'lies', hash = %(hash)s WHERE id = %(id)s",
        id=posted[4].pk,
        hash=rewritten(posted[4], description="lies"),
    )
    assert broken() == ("ledger transaction 5 (test:5) was written anew, with another hash than was posted")


_DELETE = (
    "DELETE FROM billing_posting WHERE transaction_id = ANY(%(ids)s)",
    "DELETE FROM billing_ledgertransaction WHERE id = ANY(%(ids)s)",
)


@pytest.mark.parametrize(
    ("indexes", "sentence"),
    [
        ([0], "ledger transaction 1 is missing before ledger transaction 2 (test:2)"),
        ([2], "ledger transaction 3 is missing before ledger transaction 4 (test:4)"),
        ([1, 2], "ledger transaction 2 is missing before ledger transaction 4 (test:4)"),
        ([4], "ledger transaction 5 is missing, and all after it: 5 were posted"),
        ([3, 4], "ledger transaction 4 is missing, and all after it: 5 were posted"),
        ([0, 1, 2, 3, 4], "ledger transaction 1 is missing, and all after it: 5 were posted"),
    ],
)
def test_a_transaction_that_was_taken_out_is_named(
    posted: list[LedgerTransaction], indexes: Sequence[int], sentence: str
) -> None:
    behind_our_back(*_DELETE, ids=[posted[index].pk for index in indexes])
    assert broken() == sentence


_INSERT = (
    "INSERT INTO billing_ledgertransaction"
    " (id, number, reference, kind, account_id, description, created_at, previous_hash, hash)"
    " VALUES (%(id)s, %(number)s, 'put in', 'promotion', %(account)s, '', %(at)s, %(previous)s, %(hash)s)"
)


def insert(posted: list[LedgerTransaction], *, number: int, entry_id: int, previous: str) -> None:
    """Somebody puts a transaction in, with the right hash of its own, and gives those after it new numbers."""
    account_id = posted[0].account_id
    own = chain.digest(
        previous_hash=previous,
        number=number,
        reference="put in",
        kind="promotion",
        account_id=account_id,
        description="",
        created_at=AT,
        postings=[],
    )
    behind_our_back(
        "UPDATE billing_ledgertransaction SET number = -number, id = id * 10",
        "UPDATE billing_ledgertransaction SET number = 1 - number WHERE number <= -%(number)s",
        "UPDATE billing_ledgertransaction SET number = -number WHERE number < 0",
        _INSERT,
        id=entry_id,
        number=number,
        account=account_id,
        at=AT,
        previous=previous,
        hash=own,
    )


@pytest.fixture
def movable(posted: list[LedgerTransaction]) -> list[LedgerTransaction]:
    """The same without postings, so that their ids can be moved: what counts here is the order."""
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        for table in _TABLES:
            cursor.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        cursor.execute("DELETE FROM billing_posting")
    previous = chain.GENESIS
    for entry in posted:
        entry.previous_hash = previous
        entry.hash = previous = rewritten(entry, previous_hash=previous)
        entry.save()
    ChainHead.objects.update(hash=previous)
    assert broken() is None
    return posted


def test_a_transaction_that_was_put_in_between_is_named(movable: list[LedgerTransaction]) -> None:
    insert(movable, number=3, entry_id=movable[1].pk * 10 + 1, previous=movable[1].hash)
    assert broken() == "ledger transaction 3 (put in) was put in"


def test_a_transaction_that_was_put_in_before_the_first_is_named(movable: list[LedgerTransaction]) -> None:
    insert(movable, number=1, entry_id=movable[0].pk * 10 - 1, previous=chain.GENESIS)
    assert broken() == "ledger transaction 1 (put in) was put in"


def test_a_transaction_that_was_put_in_at_the_end_is_named(posted: list[LedgerTransaction]) -> None:
    own = rewritten(
        posted[4], reference="put in", description="", number=6, previous_hash=posted[4].hash, postings=[]
    )
    behind_our_back(
        _INSERT,
        id=posted[4].pk + 1,
        number=6,
        account=posted[0].account_id,
        at=AT,
        previous=posted[4].hash,
        hash=own,
    )
    assert broken() == "ledger transaction 6 (put in) was put in: the chain ends before it"


def test_a_transaction_put_in_beside_another_of_the_same_origin_is_named(
    posted: list[LedgerTransaction],
) -> None:
    own = rewritten(
        posted[4],
        reference="put in",
        description="",
        number=6,
        previous_hash=posted[4].previous_hash,
        postings=[],
    )
    behind_our_back(
        _INSERT,
        id=posted[4].pk + 1,
        number=6,
        account=posted[0].account_id,
        at=AT,
        previous=posted[4].previous_hash,
        hash=own,
    )
    assert broken() == "ledger transaction 6 (put in) was put in"


def test_transactions_that_changed_places_are_found(posted: list[LedgerTransaction]) -> None:
    behind_our_back(
        "UPDATE billing_ledgertransaction SET number = -1 WHERE id = %(second)s",
        "UPDATE billing_ledgertransaction SET number = 2 WHERE id = %(third)s",
        "UPDATE billing_ledgertransaction SET number = 3 WHERE id = %(second)s",
        second=posted[1].pk,
        third=posted[2].pk,
    )
    assert broken() == "ledger transaction 2 (test:3) is not what was posted"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("DELETE FROM billing_chainhead", "the head of the chain is missing"),
        (
            "UPDATE billing_chainhead SET count = 6",
            "ledger transaction 6 is missing, and all after it: 6 were posted",
        ),
        (
            "UPDATE billing_chainhead SET count = 4",
            "ledger transaction 5 (test:5) was put in: the chain ends before it",
        ),
        (
            "UPDATE billing_chainhead SET hash = repeat('a', 64)",
            "ledger transaction 5 (test:5) was written anew, with another hash than was posted",
        ),
    ],
)
def test_a_head_that_was_changed_is_found(
    posted: list[LedgerTransaction], change: str, sentence: str
) -> None:
    behind_our_back(change)
    assert broken() == sentence


@pytest.mark.django_db(transaction=True)
def test_many_at_a_time_make_one_chain_without_gaps() -> None:
    account_ids = [factories.make_account().pk for _ in range(4)]
    in_parallel(
        lambda worker: [
            post(account_id=account_ids[worker], number=worker * 100 + turn) for turn in range(1, 6)
        ],
        times=4,
    )
    numbers = LedgerTransaction.objects.order_by("id").values_list("number", flat=True)
    assert list(numbers) == list(range(1, 21))
    assert verifying.verify_chain().verified == 20
    assert broken() is None


@pytest.mark.django_db(transaction=True)
def test_what_is_rolled_back_leaves_no_gap() -> None:
    account_id = factories.make_account().pk
    with transaction.atomic():
        post(account_id=account_id, number=1)
        transaction.set_rollback(True)
    post(account_id=account_id, number=2)
    with pytest.raises(ledger.AlreadyPosted):
        post(account_id=account_id, number=2)
    assert post(account_id=account_id, number=3).number == 2
    assert broken() is None


def test_what_was_posted_before_there_was_a_chain_is_linked_by_the_migration(
    posted: list[LedgerTransaction],
) -> None:
    migration = import_module("billing.migrations.0009_ledger_chain")
    behind_our_back(
        "UPDATE billing_ledgertransaction SET number = -id, previous_hash = '', hash = ''",
        "DELETE FROM billing_chainhead",
    )
    migration.link_what_is_there(None, SimpleNamespace(connection=connection))
    assert verifying.verify_chain() == verifying.ChainReport(5, posted[-1].hash, None)


def test_a_transaction_that_stood_elsewhere_is_found(posted: list[LedgerTransaction]) -> None:
    behind_our_back(
        "WITH moved AS (UPDATE billing_ledgertransaction SET id = %(new)s WHERE id = %(old)s)"
        " UPDATE billing_posting SET transaction_id = %(new)s WHERE transaction_id = %(old)s",
        old=posted[1].pk,
        new=posted[-1].pk + 1000,
    )
    assert broken() == (
        "ledger transaction 3 (test:3) was moved: it stood before ledger transaction 2 (test:2)"
    )
