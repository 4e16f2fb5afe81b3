"""The audit: silent over right books, and one line for each way in which they can be wrong."""

import datetime as dt
import uuid
from dataclasses import dataclass
from io import StringIO

import pytest
from django.core.management import call_command
from django.db import connection
from django.db.models import F
from pytest_django import Settings

from accounts.models import Account, Plan
from billing import topping_up, wallets
from billing.models import Hold, PromotionalCredit, TopUp
from catalog.models import Model
from keys.models import ApiKey
from tests import factories
from tests.invariants import check_books
from tests.usage import rows
from usage import auditing, posting, rollups
from usage.models import DailyAllowance, UsageRecord

AT = dt.datetime(2026, 3, 4, 15, 30, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Books:
    account: Account
    key: ApiKey
    model: Model
    other: Account


@pytest.fixture
def books(db: None, settings: Settings) -> Books:
    """An account with one of everything: a grant, a payment, usage at each stage, open holds, a budget, a loss."""
    settings.TOPUP_PROVIDERS = ["sandbox"]
    account = factories.make_account(plan=Plan.PAY_AS_YOU_GO, credit="10")
    key = factories.make_key(account).key
    model = factories.make_model()
    topup = topping_up.start(
        account=account, actor=None, credit_nanousd=20 * 10**9, provider="sandbox", at=AT
    )
    topping_up.finish(
        provider="sandbox", reference=topup.provider_reference, paid_total_nanousd=topup.total_nanousd, at=AT
    )
    topping_up.start(account=account, actor=None, credit_nanousd=7 * 10**9, provider="sandbox", at=AT)
    rows.make_record(account=account, key=key, model=model, at=AT - 2 * HOUR)
    rows.make_record(
        account=account,
        key=key,
        model=model,
        at=AT - 2 * HOUR,
        cost_nanousd=9,
        charged_nanousd=5,
        loss_nanousd=4,
    )
    rollups.roll_up(at=AT)
    posting.post_hours(at=AT)
    rows.make_record(account=account, key=key, model=model, at=AT - HOUR)
    rows.make_record(account=account, key=key, model=None, at=AT - HOUR, outcome="refused", cost_nanousd=0)
    rows.make_record(
        account=account, key=key, model=model, at=AT - HOUR, charged_nanousd=0, allowance_tokens=120
    )
    rollups.roll_up(at=AT)
    rows.make_record(account=account, key=key, model=model, at=AT)
    _place_holds(account, key)
    return Books(account, key, model, factories.make_account())


def _place_holds(account: Account, key: ApiKey) -> None:
    borrowed = wallets.borrowed_connection()
    locked = wallets.lock(borrowed, [account.pk])
    locked[account.pk].hold(300)
    wallets.write(borrowed, locked.values())
    DailyAllowance.objects.filter(account=account, day=AT.date()).update(
        requests=F("requests") + 1, held_tokens=50
    )
    common = {"account": account, "key": key, "process_id": uuid.uuid4()}
    Hold.objects.create(request_id=uuid.uuid4(), amount_nanousd=300, placed_at=AT, **common)
    Hold.objects.create(
        request_id=uuid.uuid4(), amount_nanousd=0, allowance_day=AT.date(), allowance_tokens=50, **common
    )
    factories.make_budget(key, period="day", limit_nanousd=10**9, at=AT)


def plant(statement: str, **parameters: int | uuid.UUID | dt.datetime) -> None:
    """Run what no code of ours would, past the triggers that would refuse it."""
    tables = (
        "billing_posting",
        "billing_ledgertransaction",
        "billing_promotionalcredit",
        "billing_paymentreport",
        "billing_refundreport",
        "billing_paymentclosing",
        "billing_auditedhead",
        "billing_unmatchedpayment",
        "billing_webhookevent",
        "usage_usagerecord",
        "usage_hourlyusage",
    )
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        for table in tables:
            cursor.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        cursor.execute(statement, parameters)
        for table in tables:
            cursor.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER")
        cursor.execute("SET CONSTRAINTS ALL DEFERRED")


def of_budget(books: Books, *, figure: str, found: str, expected: str) -> str:
    budget = books.key.budgets.get()
    return (
        f"budget {budget.pk} of account {books.account.pk}, {figure}, from 2026-03-04: it says {found} USD, "
        f"its requests and open holds of the period say {expected} USD"
    )


def found() -> list[str]:
    return auditing.audit_ledger(at=AT).discrepancies


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


def test_hours_that_count_more_as_posted_than_the_ledger_are_found(books: Books) -> None:
    plant("UPDATE usage_hourlyusage SET posted_nanousd = posted_nanousd - 1 WHERE posted_nanousd > 0")
    lines = found()
    assert len(lines) == 2
    assert "its hours count 0.001000004 USD as posted, its ledger has usage of 0.001000005 USD" in lines[1]


def test_a_loss_that_is_not_booked_is_found(books: Books) -> None:
    plant(
        "UPDATE usage_usagerecord SET loss_nanousd = 5, cost_nanousd = 10, output_usd_per_mtok = 0.0005"
        " WHERE loss_nanousd = 4"
    )
    plant("UPDATE usage_hourlyusage SET cost_nanousd = cost_nanousd + 1 WHERE posted_nanousd > 0")
    (line,) = found()
    assert line.endswith(": its ledger has platform losses of 0.000000004 USD, its requests 0.000000005 USD")


@pytest.mark.parametrize(
    ("column", "name"),
    [
        ("requests", "requests"),
        ("input_tokens", "input tokens"),
        ("cached_input_tokens", "cached input tokens"),
        ("output_tokens", "output tokens"),
        ("allowance_tokens", "allowance tokens"),
        ("cost_nanousd", "cost"),
        ("charged_nanousd", "charge"),
    ],
)
def test_an_hour_that_is_not_its_requests_is_found(books: Books, column: str, name: str) -> None:
    plant(f"UPDATE usage_hourlyusage SET {column} = {column} + 1 WHERE posted_nanousd > 0")  # noqa: S608
    (line,) = [line for line in found() if "the hour says" in line]
    assert line.startswith(
        f"account {books.account.pk}, key {books.key.pk}, model {books.model.pk}, completed,"
        f" 2026-03-04 13:00 UTC, {name}: the hour says "
    )


def test_requests_that_are_marked_but_in_no_hour_are_found(books: Books) -> None:
    plant("UPDATE usage_usagerecord SET is_rolled_up = true")
    assert any("requests: the hour says nothing, its requests say 1" in line for line in found())


def test_an_hour_without_requests_is_found(books: Books) -> None:
    plant("DELETE FROM usage_usagerecord WHERE outcome = 'refused'")
    assert found()[0] == (
        f"account {books.account.pk}, key {books.key.pk}, model none, refused, 2026-03-04 14:00 UTC, requests:"
        " the hour says 1, its requests say nothing"
    )


def test_usage_of_another_accounts_key_is_found(books: Books) -> None:
    key = factories.make_key(books.other).key
    plant("UPDATE usage_usagerecord SET key_id = %(key)s WHERE NOT is_rolled_up", key=key.pk)
    assert sorted(found()) == sorted(
        [
            f"account {books.account.pk}: its keys were charged 0.002000005 USD, the account 0.003000005 USD",
            f"account {books.other.pk}: its keys were charged 0.001000000 USD, the account nothing",
            of_budget(books, figure="spent", found="0.003000005", expected="0.002000005"),
        ]
    )


def test_a_budget_that_holds_more_than_its_holds_is_found(books: Books) -> None:
    plant("UPDATE billing_budget SET held_nanousd = 299")
    assert found() == [of_budget(books, figure="held", found="0.000000299", expected="0.000000300")]


def test_a_budget_that_has_spent_less_than_its_requests_is_found(books: Books) -> None:
    plant("UPDATE billing_budget SET spent_nanousd = spent_nanousd - 1, previous_spent_nanousd = 7")
    assert found() == [
        of_budget(books, figure="spent", found="0.003000004", expected="0.003000005"),
        of_budget(books, figure="spent", found="0.000000007", expected="0.000000000").replace("-04", "-03"),
    ]


@pytest.mark.parametrize(
    ("statement", "held"),
    [
        ("UPDATE usage_dailyallowance SET held_tokens = 49", "49"),
        ("DELETE FROM usage_dailyallowance", "nothing"),
    ],
)
def test_an_allowance_that_does_not_hold_what_is_reserved_is_found(
    books: Books, statement: str, held: str
) -> None:
    plant(statement)
    assert (
        f"account {books.account.pk} on 2026-03-04: its allowance holds {held} tokens, its open holds are 50"
        in found()
    )


@pytest.mark.parametrize(
    ("statement", "figure", "said", "expected"),
    [
        ("UPDATE usage_dailyallowance SET requests = 0", "requests", "0", "2"),
        ("UPDATE usage_dailyallowance SET requests = 3", "requests", "3", "2"),
        ("UPDATE usage_dailyallowance SET tokens = 0", "tokens", "0", "120"),
    ],
)
def test_an_allowance_that_counts_other_than_its_requests_is_found(
    books: Books, statement: str, figure: str, said: str, expected: str
) -> None:
    plant(statement)
    assert found() == [
        (
            f"the allowance of account {books.account.pk} on 2026-03-04, {figure}: it says {said},"
            f" its requests and open holds of the day say {expected}"
        )
    ]


def test_an_embedding_of_no_tokens_may_have_been_paid_by_the_allowance(books: Books) -> None:
    rows.make_record(
        account=books.account,
        key=books.key,
        model=books.model,
        at=AT,
        endpoint="embeddings",
        input_tokens=0,
        output_tokens=0,
        cost_nanousd=0,
    )
    assert found() == []
    plant("UPDATE usage_dailyallowance SET requests = 3")
    assert found() == []
    plant("UPDATE usage_dailyallowance SET requests = 4")
    assert len(found()) == 1


def test_a_hold_of_a_request_that_has_ended_is_found(books: Books) -> None:
    record = rows.make_record(account=books.account, key=books.key, model=books.model, at=AT)
    plant("UPDATE billing_hold SET request_id = %(record)s WHERE amount_nanousd = 300", record=record.pk)
    assert found() == [
        f"request {record.pk}: it still holds 0.000000300 USD, and was charged 0.001000000 USD already",
        of_budget(books, figure="spent", found="0.003000005", expected="0.004000005"),
    ]


def test_a_hold_of_another_accounts_key_is_found(books: Books) -> None:
    hold = Hold.objects.first()
    assert hold is not None
    plant("UPDATE billing_hold SET key_id = 0 WHERE request_id = %(id)s", id=hold.pk)
    assert f"hold of request {hold.pk}: what it refers to does not exist" in found()


def test_a_record_of_a_model_that_does_not_exist_is_found(books: Books) -> None:
    record = UsageRecord.objects.filter(is_rolled_up=False).first()
    assert record is not None
    plant("UPDATE usage_usagerecord SET model_id = 0 WHERE id = %(id)s", id=record.pk)
    assert f"usage record {record.pk}: what it refers to does not exist" in found()


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


def test_a_cost_that_is_not_its_tokens_at_its_price_is_found(books: Books) -> None:
    plant("UPDATE usage_usagerecord SET cost_nanousd = cost_nanousd + 1 WHERE NOT is_rolled_up")
    (line,) = found()
    assert line.endswith(
        ", cost: the record says 0.001000001 USD, its tokens at its price say 0.001000000 USD"
    )


def test_a_charge_for_what_the_allowance_paid_is_found(books: Books) -> None:
    plant("UPDATE usage_usagerecord SET allowance_tokens = 1 WHERE NOT is_rolled_up")
    plant("UPDATE usage_dailyallowance SET requests = requests + 1, tokens = tokens + 1")
    (line,) = found()
    assert line.endswith(
        ", charge and loss: the record says 0.001000000 USD, its tokens at its price say 0.000000000 USD"
    )


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
