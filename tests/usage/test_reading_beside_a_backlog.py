"""Records that wait to be rolled up, and statistics that know of one account only: they are read once all the same."""

import datetime as dt
import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection

from keys.models import ApiKey
from tests import factories
from tests.usage import rows
from usage import auditing, queries
from usage.models import UsageRecord

AT = dt.datetime(2026, 3, 4, 15, 30, tzinfo=dt.UTC)
BUSY = 2_000
OTHERS = 20


@pytest.fixture
def keys(db: None) -> list[ApiKey]:
    """A key of a busy account, then keys of others: PostgreSQL has counted its records, and none of theirs."""
    model = factories.make_model()
    busy = factories.make_key().key
    UsageRecord.objects.bulk_create(
        UsageRecord(
            id=rows.record_id(AT),
            account=busy.account,
            key=busy,
            model=model,
            endpoint="chat/completions",
            outcome=UsageRecord.Outcome.COMPLETED,
            status=200,
            started_at=AT,
            ended_at=AT,
        )
        for _ in range(BUSY)
    )
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE usage_usagerecord")
    others = [factories.make_key(factories.make_account(credit="1")).key for _ in range(OTHERS)]
    for key in others:
        rows.make_record(account=key.account, key=key, model=model, at=AT)
        factories.make_budget(key, limit_nanousd=10**9, at=AT)
    return [busy, *others]


def test_the_audit_reads_the_records_as_often_for_many_accounts_as_for_one(keys: list[ApiKey]) -> None:
    report, scans = explained(lambda: auditing.audit_ledger(at=AT))

    assert report.discrepancies == []
    assert report.checked["usage records"] == BUSY + OTHERS
    assert all(scan["Actual Loops"] <= 1 for scan in scans)


def test_the_keys_of_an_account_read_its_records_once(keys: list[ApiKey]) -> None:
    account = keys[0].account
    unused = [factories.make_key(account).key for _ in range(OTHERS)]

    facts, scans = explained(
        lambda: queries.key_facts(account=account, key_ids=[keys[0].pk, *(key.pk for key in unused)], at=AT)
    )

    assert facts[keys[0].pk] == queries.KeyFacts(last_used_at=AT, spent_this_month_nanousd=0)
    assert facts[unused[0].pk] == queries.KeyFacts(last_used_at=None, spent_this_month_nanousd=0)
    assert sum(_rows_read(scan) for scan in scans) <= BUSY + OTHERS + len(facts)


# --- What PostgreSQL does ------------------------------------------------------------------------------------


def explained(act: Any) -> tuple[Any, list[dict[str, Any]]]:
    """What it returns, and every scan of usage records that its statements made."""
    scans: list[dict[str, Any]] = []

    def explain(execute: Any, statement: str, parameters: Any, many: bool, context: Any) -> Any:
        with context["connection"].connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters)
            (plan,) = cursor.fetchone()
        (done,) = json.loads(plan) if isinstance(plan, str) else plan
        scans.extend(_scans(done["Plan"]))
        return execute(statement, parameters, many, context)

    with connection.execute_wrapper(explain):
        result = act()
    return result, scans


def _scans(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if node.get("Relation Name") == "usage_usagerecord":
        yield node
    for part in node.get("Plans", []):
        yield from _scans(part)


def _rows_read(scan: dict[str, Any]) -> float:
    """Rows that it looked at, whether they were wanted or not."""
    read = scan["Actual Rows"] + scan.get("Rows Removed by Filter", 0)
    return float(read * scan["Actual Loops"])
