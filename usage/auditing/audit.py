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


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What was compared, counted by its name, and a sentence for each discrepancy: none where the books are right."""

    at: dt.datetime
    checked: dict[str, int]
    discrepancies: list[str] = field(default_factory=list)


# Charged, by account: once as the hours and the records not yet in them say it, split by how far it has come.
_BY_ACCOUNT = """
    SELECT a.id,
        coalesce(w.balance_nanousd, 0) AS balance,
        coalesce(w.held_nanousd, 0) AS held,
        coalesce((SELECT sum(h.amount_nanousd) FROM billing_hold h WHERE h.account_id = a.id), 0) AS holds,
        coalesce(w.to_take_nanousd, 0) AS wallet_to_take,
        coalesce((SELECT sum(d.to_take_nanousd) FROM billing_dispute d
            WHERE d.account_id = a.id AND d.to_take_nanousd > 0), 0)
        + coalesce((SELECT sum(r.to_take_nanousd) FROM billing_refund r
            WHERE r.account_id = a.id AND r.to_take_nanousd > 0), 0) AS to_take,
        coalesce((SELECT sum(p.amount_nanousd) FROM billing_ledgeraccount l
            JOIN billing_posting p ON p.ledger_account_id = l.id
            WHERE l.kind = 'customer_credits' AND l.account_id = a.id), 0) AS credits,
        coalesce((SELECT -sum(p.amount_nanousd) FROM billing_ledgeraccount l
            JOIN billing_posting p ON p.ledger_account_id = l.id
            JOIN billing_ledgertransaction t ON t.id = p.transaction_id
            WHERE l.kind = 'customer_credits' AND l.account_id = a.id AND t.kind = 'usage'), 0) AS usage_posted,
        coalesce((SELECT sum(h.posted_nanousd) FROM usage_hourlyusage h WHERE h.account_id = a.id), 0) AS posted,
        coalesce((SELECT sum(h.charged_nanousd - h.posted_nanousd) FROM usage_hourlyusage h
            WHERE h.account_id = a.id), 0) AS to_post,
        coalesce((SELECT sum(r.charged_nanousd) FROM usage_usagerecord r
            WHERE r.account_id = a.id AND NOT r.is_rolled_up), 0) AS to_roll_up,
        coalesce((SELECT -sum(p.amount_nanousd) FROM billing_ledgertransaction t
            JOIN billing_posting p ON p.transaction_id = t.id
            JOIN billing_ledgeraccount l ON l.id = p.ledger_account_id
            WHERE t.account_id = a.id AND t.kind = 'loss' AND l.kind = 'platform_loss'), 0) AS losses_posted,
        coalesce(lost.losses, 0) AS losses,
        coalesce(w.attributed_nanousd, 0) AS attributed,
        coalesce((SELECT sum(c.remaining_nanousd) FROM billing_promotionalcredit c
            WHERE c.account_id = a.id AND c.closed_at IS NULL), 0) AS lots
    FROM accounts_account a LEFT JOIN billing_wallet w ON w.account_id = a.id
    LEFT JOIN (
        -- Once through the records, and not once for each account: no index says which of them have a loss.
        SELECT r.account_id, sum(r.loss_nanousd) AS losses FROM usage_usagerecord r
        WHERE r.is_rolled_up AND r.loss_nanousd > 0 GROUP BY r.account_id
    ) AS lost ON lost.account_id = a.id
"""
# Charged of every account and key, wherever it stands.
_CHARGED = """
    SELECT account_id, key_id, charged_nanousd FROM usage_hourlyusage
    UNION ALL
    SELECT account_id, key_id, charged_nanousd FROM usage_usagerecord WHERE NOT is_rolled_up
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
    statement = f"WITH audited AS ({audited}), by_account AS ({_BY_ACCOUNT}), charged AS ({_CHARGED}) {rows}"
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
