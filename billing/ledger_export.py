"""The ledger as an accountant imports it: a row per posting, with debit and credit."""

import datetime as dt
import itertools
from collections.abc import Iterator

from django.db import connection, transaction

from billing.models import LedgerAccount
from billing.spreadsheets import harmless
from catalog.money import usd_string

COLUMNS = (
    "date",
    "time_utc",
    "transaction",
    "reference",
    "kind",
    "account_id",
    "account",
    "ledger_account",
    "debit_usd",
    "credit_usd",
    "description",
)
_CHUNK = 2000
_POSTINGS = """
    SELECT t.created_at, t.number, t.reference, t.kind, t.account_id, a.name, l.kind, l.account_id, l.provider,
        p.amount_nanousd, t.description
    FROM billing_ledgertransaction AS t
    JOIN accounts_account AS a ON a.id = t.account_id
    JOIN billing_posting AS p ON p.transaction_id = t.id
    JOIN billing_ledgeraccount AS l ON l.id = p.ledger_account_id
    WHERE t.created_at >= %s AND t.created_at < %s
    ORDER BY t.number, p.id
"""


def rows(*, first: dt.date, last: dt.date) -> Iterator[list[str]]:
    """A row of `COLUMNS` for each posting of these UTC days, both included, in order of transaction numbers.

    Amounts are USD with nine decimals, in one of the two columns. It reads one snapshot in flat memory, in a
    transaction of its own that lasts as long as the iteration.
    """
    start = dt.datetime.combine(first, dt.time(), dt.UTC)
    end = dt.datetime.combine(last, dt.time(), dt.UTC) + dt.timedelta(days=1)
    with transaction.atomic(), connection.chunked_cursor() as cursor:
        cursor.execute(_POSTINGS, [start, end])
        for posting in itertools.chain.from_iterable(iter(lambda: cursor.fetchmany(_CHUNK), [])):
            at, number, reference, kind, account_id, name, *ledger_account, amount_nanousd, text = posting
            at = at.astimezone(dt.UTC)
            yield [
                f"{at:%Y-%m-%d}",
                f"{at:%H:%M:%S}",
                str(number),
                harmless(reference),
                kind,
                str(account_id),
                harmless(name),
                code(*ledger_account),
                usd_string(-amount_nanousd) if amount_nanousd < 0 else "",
                usd_string(amount_nanousd) if amount_nanousd > 0 else "",
                harmless(text),
            ]


def code(kind: str, owner_id: int | None, provider: str) -> str:
    """The name of a ledger account that stays: `fee_revenue`, `customer_credits:12`, `cash_clearing:stripe`."""
    if kind == LedgerAccount.Kind.CUSTOMER_CREDITS:
        return f"{kind}:{owner_id}"
    return f"{kind}:{provider}" if provider else kind
