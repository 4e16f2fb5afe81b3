"""Millions of usage records with consistent books, made inside an instance: `manage shell -c "from bench.parts …"`.

They are written by SQL, as no bench could wait for so many requests; the ledger's entries are hashed by the code that
posts. Each function prints one JSON object.
"""

import csv
import datetime as dt
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from django.db import connection, transaction
from django.utils import timezone

from accounts.models import Account
from bench.parts import processes
from billing import chain, ledger_export, statement, verifying
from billing.models import LedgerAccount, LedgerTransaction
from catalog.models import Model
from keys.models import ApiKey
from usage import auditing

# The n-th record: its id is a UUIDv7 of the moment at which it began, so ids are in order.
_RECORDS = """
    INSERT INTO usage_usagerecord (
        id, account_id, key_id, model_id, upstream, endpoint, outcome, status, error_code, error_message, is_streamed,
        is_estimated, finish_reason, input_tokens, cached_input_tokens, cache_write_tokens, output_tokens,
        input_usd_per_mtok, output_usd_per_mtok, cached_input_usd_per_mtok, cache_write_usd_per_mtok, cost_nanousd,
        charged_nanousd, loss_nanousd, allowance_tokens, latency_ms, time_to_first_token_ms, ip_address, user_agent,
        client_request_id, started_at, ended_at, is_rolled_up
    )
    SELECT (lpad(to_hex(ms), 12, '0') || '7' || lpad(to_hex(n %% 4096), 3, '0') || '8'
            || lpad(to_hex(n), 15, '0'))::uuid,
        (%(accounts)s::bigint[])[which], (%(keys)s::bigint[])[which], %(model)s, 'sandbox', 'chat/completions',
        'completed', 200, '', '', false, false, 'stop', 100 + n %% 900, 0, 0, 50, 1, 2, 0.1, 1,
        (100 + n %% 900) * 1000 + 100000, (100 + n %% 900) * 1000 + 100000, 0, 0, 500, 200, '127.0.0.1', 'python', '',
        to_timestamp(ms / 1000.0), to_timestamp(ms / 1000.0) + interval '500 ms', true
    FROM (
        SELECT n, 1 + (n %% cardinality(%(accounts)s::bigint[]))::int AS which,
            %(since_ms)s + n * 3600000 / %(per_hour)s AS ms
        FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n
    ) AS made
"""
# What the roll-up would have added, and what the posting would have posted.
_HOURS = """
    INSERT INTO usage_hourlyusage (
        account_id, hour, key_id, model_id, outcome, requests, input_tokens, cached_input_tokens, output_tokens,
        cost_nanousd, charged_nanousd, allowance_tokens, posted_nanousd
    )
    SELECT account_id, date_trunc('hour', started_at, 'UTC'), key_id, model_id, outcome, count(*), sum(input_tokens),
        sum(cached_input_tokens), sum(output_tokens), sum(cost_nanousd), sum(charged_nanousd), sum(allowance_tokens),
        sum(charged_nanousd)
    FROM usage_usagerecord WHERE started_at >= %(since)s GROUP BY 1, 2, 3, 4, 5
    RETURNING account_id, hour, charged_nanousd
"""
_SIZES = """
    SELECT pg_table_size('usage_usagerecord'), pg_indexes_size('usage_usagerecord'),
        pg_database_size(current_database())
"""


def fill(*, records: int, of: int, per_hour: int) -> None:
    """Add records, with their hours and postings, until there are so many; in the end there will be `of` of them.

    They end in the hour before this one. The table is not logged: nothing here has to outlive a crash, and writing the
    log would be half of the work.
    """
    began = time.perf_counter()
    first = _count()
    with connection.cursor() as cursor:
        if not first:
            cursor.execute("ALTER TABLE usage_usagerecord SET UNLOGGED")
        cursor.execute("SELECT min(hour) FROM usage_hourlyusage")
        (earliest,) = cursor.fetchone()
    this_hour = timezone.now().replace(minute=0, second=0, microsecond=0)
    since = earliest or this_hour - dt.timedelta(hours=of // per_hour)
    indexes = _indexes()
    with transaction.atomic(), connection.cursor() as cursor:
        # No triggers: they would judge every row by itself, and the audit judges all of them.
        cursor.execute("SET LOCAL session_replication_role = replica")
        cursor.execute("SET LOCAL maintenance_work_mem = '256MB'")
        cursor.execute("SET LOCAL work_mem = '256MB'")
        for name in indexes:
            cursor.execute(f"DROP INDEX {name}")
        cursor.execute(_RECORDS, _parameters(since, per_hour=per_hour, first=first, last=records - 1))
        for definition in indexes.values():
            cursor.execute(definition)
        cursor.execute(_HOURS, {"since": since + dt.timedelta(hours=first // per_hour)})
        _post(cursor, sorted(cursor.fetchall(), key=lambda row: (row[1], row[0])))
    with connection.cursor() as cursor:
        cursor.execute(
            "VACUUM ANALYZE usage_usagerecord, usage_hourlyusage, billing_ledgertransaction, billing_posting"
        )
        cursor.execute(_SIZES)
        table, its_indexes, database = cursor.fetchone()
    _print(
        records=_count(),
        made_s=time.perf_counter() - began,
        table_bytes=table,
        index_bytes=its_indexes,
        database_bytes=database,
    )


def audit() -> None:
    """Audit the books as they are, and verify the chain; how long each takes, in seconds."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (backend,) = cursor.fetchone()
    own_s, backend_s = time.process_time(), processes.cpu_s(backend)
    report, audit_s = _timed(lambda: auditing.audit_ledger(at=timezone.now()))
    own_s, backend_s = time.process_time() - own_s, processes.cpu_s(backend) - backend_s
    assert not report.discrepancies, report.discrepancies[:3]
    verified, verify_s = _timed(verifying.verify_chain)
    assert verified.broken is None, verified.broken
    _print(
        records=report.checked["usage records"],
        hours=report.checked["hourly sums"],
        transactions=verified.verified,
        audit_s=audit_s,
        own_s=own_s,
        backend_s=backend_s,
        verify_s=verify_s,
    )


def export() -> None:
    """Write the whole ledger as `export_ledger` does, then the ledger of one account as its owner gets it.

    Rows, seconds, the share of them that this process used, and by how much its memory had to grow.
    """
    today = timezone.now().date()
    whole = _measured(lambda: _written(ledger_export.rows(first=dt.date(2000, 1, 1), last=today)))
    account = Account.objects.earliest("pk")
    own = _measured(lambda: statement.lines_csv(account=account).count("\n") - 1)
    _print(
        **{f"whole_{name}": figure for name, figure in whole.items()},
        **{f"own_{k}": v for k, v in own.items()},
    )


# --- Parts ---------------------------------------------------------------------------------------------------


def _count() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM usage_usagerecord")
        return int(cursor.fetchone()[0])


def _indexes() -> dict[str, str]:
    """The indexes that are faster built over all rows than row by row, with the statements that make them."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT indexname, indexdef FROM pg_indexes"
            " WHERE tablename = 'usage_usagerecord' AND indexname LIKE 'usage\\_%%' AND indexname NOT LIKE '%%_pkey'",
            [],
        )
        return dict(cursor.fetchall())


def _parameters(since: dt.datetime, *, per_hour: int, first: int, last: int) -> dict[str, Any]:
    keys = list(ApiKey.objects.order_by("pk").values_list("account_id", "pk"))
    return {
        "accounts": [account_id for account_id, _ in keys],
        "keys": [key_id for _, key_id in keys],
        "model": Model.objects.values_list("pk", flat=True).first(),
        "since_ms": int(since.timestamp() * 1000),
        "per_hour": per_hour,
        "first": first,
        "last": last,
    }


def _post(cursor: Any, hours: list[tuple[int, dt.datetime, int]]) -> None:
    """A transaction for each account and hour, as `usage.posting` writes them, and what they take from the wallets."""
    head = chain.lock_head()
    revenue = _ledger_account(LedgerAccount.Kind.USAGE_REVENUE, None)
    credit = {
        account_id: _ledger_account(LedgerAccount.Kind.CUSTOMER_CREDITS, account_id)
        for account_id, *_ in hours
    }
    cursor.execute("SELECT coalesce(max(id), 0) FROM billing_ledgertransaction")
    first_id = cursor.fetchone()[0] + 1
    at = timezone.now()
    with cursor.copy(
        "COPY billing_ledgertransaction (id, number, reference, kind, account_id, description, created_at,"
        " previous_hash, hash) FROM STDIN"
    ) as rows:
        for number, (account_id, hour, amount) in enumerate(hours):
            previous = head.hash
            said = _entry(account_id, hour, amount, at=at, number=head.count + 1, previous_hash=previous)
            head.count, head.hash = head.count + 1, chain.digest(**said)
            rows.write_row([first_id + number, *(said[name] for name in _SAID), previous, head.hash])
    head.save()
    with cursor.copy(
        "COPY billing_posting (transaction_id, ledger_account_id, amount_nanousd) FROM STDIN"
    ) as rows:
        for number, (account_id, _hour, amount) in enumerate(hours):
            rows.write_row([first_id + number, credit[account_id], -amount])
            rows.write_row([first_id + number, revenue, amount])
    cursor.execute(
        "SELECT setval(pg_get_serial_sequence('billing_ledgertransaction', 'id'), %s)",
        [first_id + len(hours) - 1],
    )
    cursor.executemany(
        "UPDATE billing_wallet SET balance_nanousd = balance_nanousd - %s WHERE account_id = %s",
        [
            (sum(amount for owner, _, amount in hours if owner == account_id), account_id)
            for account_id in credit
        ],
    )


_SAID = ("number", "reference", "kind", "account_id", "description", "created_at")


def _entry(
    account_id: int, hour: dt.datetime, amount: int, *, at: dt.datetime, number: int, previous_hash: str
) -> dict[str, Any]:
    return {
        "previous_hash": previous_hash,
        "number": number,
        "reference": f"usage:{account_id}:{hour:%Y-%m-%dT%H}:0",
        "kind": LedgerTransaction.Kind.USAGE.value,
        "account_id": account_id,
        "description": f"Usage from {hour:%Y-%m-%d %H:%M} to {hour + dt.timedelta(hours=1):%H:%M} UTC",
        "created_at": at,
        "postings": [
            (LedgerAccount.Kind.CUSTOMER_CREDITS.value, account_id, "", -amount),
            (LedgerAccount.Kind.USAGE_REVENUE.value, None, "", amount),
        ],
    }


def _ledger_account(kind: LedgerAccount.Kind, owner_id: int | None) -> int:
    made, _ = LedgerAccount.objects.get_or_create(
        kind=kind,
        account_id=owner_id,  # type: ignore[misc]  # null is a value of it
        provider="",
    )
    return made.pk


def _written(rows: Iterator[list[str]]) -> int:
    """Write the rows to a file that forgets them, and count them."""
    with Path(os.devnull).open("w", newline="") as file:
        writer = csv.writer(file)
        return sum(1 for row in rows if writer.writerow(row))


def _timed(act: Callable[[], Any]) -> tuple[Any, float]:
    began = time.perf_counter()
    return act(), time.perf_counter() - began


def _measured(act: Callable[[], int]) -> dict[str, float]:
    own_s, peak = time.process_time(), _peak_bytes()
    rows, took_s = _timed(act)
    return {
        "rows": rows,
        "seconds": took_s,
        "busy": (time.process_time() - own_s) / took_s,
        "grown_bytes": _peak_bytes() - peak,
    }


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _print(**result: float) -> None:
    json.dump(result, sys.stdout)
