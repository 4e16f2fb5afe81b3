"""The proof that no money was made, lost or counted twice: what must agree, compared by PostgreSQL itself.

Every check compares two independent ways to the same figure. All of them are one SQL statement, and a statement sees
one snapshot: the audit may run beside any traffic, and finds nothing that is merely on its way.
"""

import datetime as dt
from dataclasses import dataclass, field
from decimal import Decimal

from django.db import connection

from catalog.money import usd_string
from usage.auditing import (
    after_buying,
    allowances,
    budgets,
    holds,
    hours,
    orphans,
    payments,
    promotions,
    transactions,
    wallets,
)
from usage.auditing.by_account import BY_ACCOUNT


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What was compared, counted by its name, and a sentence for each discrepancy: none where the books are right."""

    at: dt.datetime
    checked: dict[str, int]
    discrepancies: list[str] = field(default_factory=list)


# Charged of every account and key, wherever it stands.
_CHARGED = """
    SELECT account_id, key_id, sum(charged_nanousd) AS charged_nanousd FROM (
        SELECT account_id, key_id, charged_nanousd FROM usage_hourlyusage
        UNION ALL
        SELECT account_id, key_id, charged_nanousd FROM usage_usagerecord WHERE NOT is_rolled_up
    ) AS used GROUP BY 1, 2
"""
_CHECKS = (
    *transactions.CHECKS,
    *wallets.CHECKS,
    *holds.CHECKS,
    *allowances.CHECKS,
    *budgets.CHECKS,
    *hours.CHECKS,
    *orphans.CHECKS,
    *payments.CHECKS,
    *after_buying.CHECKS,
    *promotions.CHECKS,
)
_COUNTS = {
    "accounts": "accounts_account",
    "ledger transactions": "billing_ledgertransaction",
    "postings": "billing_posting",
    "top-ups": "billing_topup",
    "receipts": "billing_receipt",
    "refunds": "billing_refund",
    "disputes": "billing_dispute",
    "payment events": "billing_webhookevent",
    # Nothing of what they say is compared with anything.
    "of them closed by hand": "billing_webhookevent WHERE closed_at IS NOT NULL AND outcome = 'ignored'",
    "promotional credits": "billing_promotionalcredit",
    "open holds": "billing_hold",
    "budgets": "billing_budget",
    "daily allowances": "usage_dailyallowance",
    "hourly sums": "usage_hourlyusage",
    "usage records": "usage_usagerecord",
    "of them not rolled up yet": "usage_usagerecord WHERE NOT is_rolled_up",
}


def audit_ledger(*, at: dt.datetime) -> AuditReport:
    """Compare everything that must agree; `at` says what waits for too long. Reads only, and locks nothing."""
    counts = [f"SELECT -1, '{name}', count(*), 0, false FROM {table}" for name, table in _COUNTS.items()]  # noqa: S608
    checks = [
        f"SELECT {number}, subject, found, expected, is_money FROM ({check.sql})"  # noqa: S608
        f" AS c{number} (subject, found, expected, is_money)"
        for number, check in enumerate(_CHECKS)
    ]
    rows = " UNION ALL ".join(counts + checks)
    audited = f"SELECT '{at.isoformat()}'::timestamptz AS at"
    statement = f"WITH audited AS ({audited}), by_account AS ({BY_ACCOUNT}), charged AS ({_CHARGED}) {rows}"
    report = AuditReport(at=at, checked={})
    with connection.cursor() as cursor:
        cursor.execute(statement)
        for number, subject, found, expected, is_money in cursor.fetchall():
            if number < 0:
                report.checked[subject] = int(found)
                continue
            figures = {
                "found": _written(found, is_money=is_money),
                "expected": _written(expected, is_money=is_money),
            }
            report.discrepancies.append(_CHECKS[number].sentence.format(subject=subject, **figures))
    return report


def _written(figure: Decimal | None, *, is_money: bool) -> str:
    if figure is None:
        return "nothing"
    return f"{usd_string(int(figure))} USD" if is_money else f"{figure:,}"
