"""What the database refuses to do to the ledger and to what was posted of usage, whoever asks."""

import datetime as dt
from importlib import import_module

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.migrations import RunSQL
from django.db.models import ProtectedError

from accounts.models import Account
from billing import crediting, reports, unmatched, verifying, webhooks
from billing.models import Posting, WebhookEvent
from billing.providers.provider import PaymentArrived, WebhookMessage
from tests import factories
from tests.usage import rows
from usage import posting, rollups
from usage.models import HourlyUsage, UsageRecord

AT = dt.datetime(2026, 3, 4, 15, 30, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)
_LEDGER = ("billing_posting", "billing_ledgertransaction", "billing_ledgeraccount", "billing_chainhead")
_USAGE = ("usage_usagerecord", "usage_hourlyusage")
_EVIDENCE = (
    "billing_promotionalcredit",
    "billing_paymentreport",
    "billing_refundreport",
    "billing_paymentclosing",
    "billing_unmatchedpayment",
    "billing_webhookevent",
    "billing_auditedhead",
)


@pytest.fixture(autouse=True)
def account(db: None) -> Account:
    """An account with usage that is posted, usage that is rolled up only, a free request, and one not rolled up."""
    account = factories.make_account(credit="10")
    key, model = factories.make_key(account).key, factories.make_model()
    rows.make_record(
        account=account, key=key, model=model, at=AT - 2 * HOUR, cost_nanousd=9, charged_nanousd=9
    )
    rollups.roll_up(at=AT)
    posting.post_hours(at=AT)
    rows.make_record(account=account, key=key, model=model, at=AT, charged_nanousd=0, allowance_tokens=120)
    rows.make_record(account=account, key=key, model=model, at=AT - 2 * HOUR, cost_nanousd=3)
    rollups.roll_up(at=AT)
    rows.make_record(account=account, key=key, model=model, at=AT, cost_nanousd=5)
    return account


def run(statement: str) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute(statement)


@pytest.mark.parametrize("table", [*_LEDGER, *_USAGE, *_EVIDENCE, "billing_receipt"])
def test_a_table_of_money_cannot_be_emptied(table: str) -> None:
    with pytest.raises(IntegrityError, match="is immutable: TRUNCATE refused"):
        run(f"TRUNCATE {table} CASCADE")


def test_no_setting_opens_them() -> None:
    with pytest.raises(IntegrityError, match="is immutable: TRUNCATE refused"):
        run("SET LOCAL tollgate.may_truncate = 'yes'; TRUNCATE billing_posting CASCADE")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE billing_ledgeraccount SET provider = 'other'",
        "DELETE FROM billing_ledgeraccount",
        "DELETE FROM billing_chainhead",
        "UPDATE billing_chainhead SET count = 1",
        "INSERT INTO billing_chainhead (id, count, hash) VALUES (2, 0, '')",
    ],
)
def test_what_the_chain_rests_on_cannot_be_changed(statement: str) -> None:
    with pytest.raises(IntegrityError):
        run(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE usage_usagerecord SET is_rolled_up = false WHERE charged_nanousd = 9",
        "UPDATE usage_usagerecord SET charged_nanousd = 8 WHERE charged_nanousd = 9",
        "UPDATE usage_usagerecord SET loss_nanousd = 8 WHERE charged_nanousd = 9",
        "UPDATE usage_usagerecord SET started_at = started_at + interval '1 hour' WHERE charged_nanousd = 9",
        "UPDATE usage_usagerecord SET output_tokens = 1 WHERE charged_nanousd = 9",
        "UPDATE usage_usagerecord SET input_usd_per_mtok = 0 WHERE charged_nanousd = 9",
        "UPDATE usage_usagerecord SET output_usd_per_mtok = 0 WHERE charged_nanousd = 9",
        "UPDATE usage_usagerecord SET cached_input_usd_per_mtok = 0 WHERE charged_nanousd = 9",
        "UPDATE usage_usagerecord SET cache_write_usd_per_mtok = 0 WHERE charged_nanousd = 9",
        "UPDATE usage_usagerecord SET endpoint = 'embeddings' WHERE charged_nanousd = 9",
        "DELETE FROM usage_usagerecord WHERE charged_nanousd = 9",
        "UPDATE usage_hourlyusage SET posted_nanousd = 8 WHERE posted_nanousd = 9",
        "UPDATE usage_hourlyusage SET hour = hour + interval '1 hour' WHERE posted_nanousd = 9",
        "UPDATE usage_hourlyusage SET requests = 1 WHERE posted_nanousd = 9",
        "UPDATE usage_hourlyusage SET output_tokens = output_tokens + 1 WHERE posted_nanousd = 9",
        "UPDATE usage_hourlyusage SET cost_nanousd = cost_nanousd + 1 WHERE posted_nanousd = 9",
        "UPDATE usage_hourlyusage SET charged_nanousd = 13 WHERE posted_nanousd = 9",
        "UPDATE usage_hourlyusage SET charged_nanousd = 9 WHERE posted_nanousd = 9",
        "UPDATE usage_hourlyusage SET requests = 9, input_tokens = 0 WHERE posted_nanousd = 9",
        "DELETE FROM usage_hourlyusage WHERE posted_nanousd = 9",
    ],
)
def test_what_was_posted_of_usage_cannot_be_undone(statement: str) -> None:
    with pytest.raises(IntegrityError, match="is posted"):
        run(statement)


def test_no_more_of_an_hour_is_posted_than_was_charged() -> None:
    with pytest.raises(IntegrityError, match="hourly_usage_posted_within_charged"):
        run("UPDATE usage_hourlyusage SET posted_nanousd = 13 WHERE posted_nanousd = 9")


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM billing_promotionalcredit",
        "DELETE FROM billing_paymentreport",
        "UPDATE billing_paymentreport SET amount_cents = 1",
    ],
)
def test_what_the_audit_holds_against_the_ledger_stays(account: Account, statement: str) -> None:
    said = PaymentArrived(reference="r", payment="p", amount_cents=5, currency="usd")
    reports.keep(provider="sandbox", payment=said, at=AT)
    with pytest.raises(IntegrityError, match="is immutable"):
        run(statement)


@pytest.mark.parametrize(
    "change",
    [
        "expires_at = now() + interval '1 year'",
        "amount_nanousd = amount_nanousd * 2",
        "charged_before_nanousd = 1",
        "granted_at = now()",
        "account_id = account_id + 1",
        "transaction_id = transaction_id + 1",
    ],
)
def test_the_terms_of_granted_credit_stay(change: str) -> None:
    with pytest.raises(IntegrityError, match="is immutable: UPDATE refused"):
        run(f"UPDATE billing_promotionalcredit SET {change}")  # noqa: S608


def test_what_is_left_of_one_grant_cannot_be_moved_to_another(account: Account) -> None:
    crediting.grant(
        account=account, amount_nanousd=50, reason="another", actor=None, at=AT, reference="another"
    )
    run(
        "UPDATE billing_promotionalcredit SET remaining_nanousd = remaining_nanousd - 7 WHERE amount_nanousd = 50"
    )
    with pytest.raises(IntegrityError, match="gets back more than was withheld of it"):
        run("UPDATE billing_promotionalcredit SET remaining_nanousd = remaining_nanousd + 7")


@pytest.mark.parametrize(
    ("what", "statement"),
    [
        ("unmatchedpayment", "DELETE FROM billing_unmatchedpayment"),
        ("unmatchedpayment", "UPDATE billing_unmatchedpayment SET amount_cents = 1"),
        ("unmatchedpayment", "UPDATE billing_unmatchedpayment SET resolved_at = NULL"),
        ("unmatchedpayment", "UPDATE billing_unmatchedpayment SET note = 'another'"),
        ("webhookevent", "DELETE FROM billing_webhookevent"),
        ("webhookevent", "UPDATE billing_webhookevent SET news = '{}'"),
        ("paymentclosing", "DELETE FROM billing_paymentclosing"),
        ("paymentclosing", "UPDATE billing_paymentclosing SET note = 'another'"),
    ],
)
def test_what_was_told_of_a_payment_and_how_it_was_closed_stays(
    account: Account, what: str, statement: str
) -> None:
    stray = PaymentArrived(reference="r", payment="p", amount_cents=5, currency="usd")
    told = WebhookMessage(event="evt_1", type="payment", occurred_at=AT, news=stray)
    event = webhooks.record(provider="stripe", message=told, at=AT)
    kept = unmatched.note(provider="stripe", payment=stray, why="it fits nothing", event=event, at=AT)
    unmatched.resolve(unmatched=kept, actor=account.members.get(), text="given back", at=AT)
    with pytest.raises(IntegrityError, match=f"billing_{what} is immutable"):
        run(statement)


@pytest.mark.parametrize(
    ("end", "change"),
    [
        ("closed", "note = 'another'"),
        ("closed", "closed_at = now()"),
        ("closed", "closed_by_id = closed_by_id + 1"),
        ("closed", "closed_at = NULL, note = ''"),
        ("closed", "outcome = 'waiting', processed_at = NULL, closed_at = NULL, note = ''"),
        ("done", "outcome = 'ignored'"),
        ("done", "outcome = 'waiting', processed_at = NULL"),
        ("unmatched", "outcome = 'ignored'"),
    ],
)
def test_how_an_event_ended_stays(account: Account, end: str, change: str) -> None:
    said = PaymentArrived(reference="r", payment="p", amount_cents=5, currency="usd")
    told = WebhookMessage(event="evt_1", type="payment", occurred_at=AT, news=said)
    event = webhooks.record(provider="stripe", message=told, at=AT)
    if end == "closed":
        webhooks.close(event=event, actor=account.members.get(), note="not ours", at=AT)
    else:
        WebhookEvent.objects.update(outcome=end, processed_at=AT)
    with pytest.raises(IntegrityError, match="billing_webhookevent is immutable"):
        run(f"UPDATE billing_webhookevent SET {change}")  # noqa: S608


def test_an_event_that_was_acted_on_while_it_was_closed_says_both(account: Account) -> None:
    told = WebhookMessage(event="evt_1", type="payment", occurred_at=AT, news=None)
    event = webhooks.record(provider="stripe", message=told, at=AT)
    webhooks.close(event=event, actor=account.members.get(), note="not ours", at=AT)
    run("UPDATE billing_webhookevent SET outcome = 'done'")
    event.refresh_from_db()
    assert (event.outcome, event.note) == ("done", "not ours")


@pytest.mark.parametrize(
    "statement", ["DELETE FROM billing_auditedhead", "UPDATE billing_auditedhead SET number = 1"]
)
def test_what_an_audit_has_seen_stays(statement: str) -> None:
    verifying.remember(verifying.verify_chain(), at=AT)
    with pytest.raises(IntegrityError, match="billing_auditedhead is immutable"):
        run(statement)


def test_a_transaction_gets_no_postings_later(account: Account) -> None:
    """Not even ones that sum to zero: they come with their transaction, before the head of the chain stands on it."""
    with pytest.raises(IntegrityError, match="gets no further postings"):
        run(
            "INSERT INTO billing_posting (transaction_id, ledger_account_id, amount_nanousd)"
            " SELECT transaction_id, ledger_account_id, sign * 7 FROM billing_posting, (VALUES (1), (-1)) AS s (sign)"
            " WHERE amount_nanousd < 0"
        )


def test_what_says_nothing_of_money_may_be_forgotten() -> None:
    run("UPDATE usage_usagerecord SET ip_address = NULL, user_agent = ''")
    run("DELETE FROM usage_usagerecord WHERE allowance_tokens = 120")
    assert UsageRecord.objects.count() == 3


def test_usage_goes_on_into_an_hour_that_was_posted() -> None:
    assert posting.post_hours(at=AT) == 1
    assert HourlyUsage.objects.get(charged_nanousd=12).posted_nanousd == 12
    assert rollups.roll_up(at=AT) == 1


def test_prices_and_hours_can_be_let_go_and_kept_again() -> None:
    (operation,) = import_module("usage.migrations.0009_prices_of_posted_usage_stay").Migration.operations
    run(operation.reverse_sql)
    run("UPDATE usage_usagerecord SET output_usd_per_mtok = 1")
    run(operation.sql)
    with pytest.raises(IntegrityError, match="is posted"):
        run("UPDATE usage_usagerecord SET output_usd_per_mtok = 2")


def test_an_account_with_a_ledger_is_not_deleted(account: Account) -> None:
    with pytest.raises(ProtectedError):
        account.delete()
    assert Posting.objects.exists()


_POSTED_USAGE = ("usage.0009_prices_of_posted_usage_stay", "usage.0005_posted_usage_stays")
# The function of the ledger's first guards is used by all that came later.
_WITH_THE_FIRST = (
    "billing.0020_what_stays",
    "billing.0013_receipts_are_kept",
    "billing.0017_both_ways",
    *_POSTED_USAGE,
    "billing.0009_ledger_chain",
)


@pytest.mark.parametrize(
    "names",
    [
        _WITH_THE_FIRST,
        ("billing.0017_both_ways",),
        ("billing.0020_what_stays",),
        ("billing.0022_events_end_once",),
        _POSTED_USAGE,
    ],
)
def test_the_guards_can_be_taken_back_and_put_up_again(names: tuple[str, ...]) -> None:
    statements = [statement for name in names for statement in _statements(name)]
    before = _guards()
    for statement in statements:
        run(str(statement.reverse_sql))
        assert _guards() != before
    for statement in reversed(statements):
        run(str(statement.sql))
    assert _guards() == before


def _statements(name: str) -> list[RunSQL]:
    """What a migration says in SQL, the last first."""
    operations = import_module(name.replace(".", ".migrations.")).Migration.operations
    return [operation for operation in reversed(operations) if isinstance(operation, RunSQL)]


def _guards() -> set[str]:
    """The definitions of all triggers, and of the functions that they call."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal"
            " UNION SELECT pg_get_functiondef(oid) FROM pg_proc WHERE prorettype = 'trigger'::regtype"
            " AND pronamespace = 'public'::regnamespace"
        )
        return {definition for (definition,) in cursor.fetchall()}
