"""What the database refuses to do to the ledger and to what was posted of usage, whoever asks."""

import datetime as dt
from importlib import import_module

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.models import ProtectedError

from accounts.models import Account
from billing import reports
from billing.models import Posting
from billing.providers.provider import PaymentArrived
from tests import factories
from tests.usage import rows
from usage import posting, rollups
from usage.models import HourlyUsage, UsageRecord

AT = dt.datetime(2026, 3, 4, 15, 30, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)
_LEDGER = ("billing_posting", "billing_ledgertransaction", "billing_ledgeraccount", "billing_chainhead")
_USAGE = ("usage_usagerecord", "usage_hourlyusage")
_EVIDENCE = ("billing_promotionalcredit", "billing_paymentreport")


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


@pytest.mark.parametrize(
    "name",
    [
        "billing.migrations.0009_ledger_chain",
        "billing.migrations.0017_both_ways",
        "usage.migrations.0005_posted_usage_stays",
    ],
)
def test_the_guards_can_be_taken_back_and_put_up_again(name: str) -> None:
    migration = import_module(name)
    if name.endswith("ledger_chain"):
        run(import_module("billing.migrations.0013_receipts_are_kept").REVERSE)
        run(import_module("billing.migrations.0017_both_ways").REVERSE)
        run(import_module("usage.migrations.0005_posted_usage_stays").REVERSE)
    run(migration.REVERSE)
    run(migration.FORWARD)
