"""The proof that no money was made, lost or counted twice: what must agree, compared by PostgreSQL itself.

Every check compares two independent ways to the same figure. All of them are one SQL statement, and a statement sees
one snapshot: the audit may run beside any traffic, and finds nothing that is merely on its way.
"""

import datetime as dt
from dataclasses import dataclass, field
from decimal import Decimal

from django.db import connection

from catalog.money import usd_string


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What was compared, counted by its name, and a sentence for each discrepancy: none where the books are right."""

    at: dt.datetime
    checked: dict[str, int]
    discrepancies: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Check:
    """`sql` gives a row per disagreement: subject, found, expected, and whether those are money in nano-USD."""

    sentence: str
    sql: str


# Charged, by account: once as the hours and the records not yet in them say it, split by how far it has come.
_BY_ACCOUNT = """
    SELECT a.id,
        coalesce(w.balance_nanousd, 0) AS balance,
        coalesce(w.held_nanousd, 0) AS held,
        coalesce((SELECT sum(h.amount_nanousd) FROM billing_hold h WHERE h.account_id = a.id), 0) AS holds,
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
            WHERE t.account_id = a.id AND l.kind = 'platform_loss'), 0) AS losses_posted,
        coalesce((SELECT sum(r.loss_nanousd) FROM usage_usagerecord r
            WHERE r.account_id = a.id AND r.is_rolled_up AND r.loss_nanousd > 0), 0) AS losses,
        coalesce(w.attributed_nanousd, 0) AS attributed,
        coalesce((SELECT sum(c.remaining_nanousd) FROM billing_promotionalcredit c
            WHERE c.account_id = a.id AND c.closed_at IS NULL), 0) AS lots
    FROM accounts_account a LEFT JOIN billing_wallet w ON w.account_id = a.id
"""
# Charged of every account and key, wherever it stands.
_CHARGED = """
    SELECT account_id, key_id, charged_nanousd FROM usage_hourlyusage
    UNION ALL
    SELECT account_id, key_id, charged_nanousd FROM usage_usagerecord WHERE NOT is_rolled_up
"""
_HOURS = """
    SELECT h.account_id, h.key_id, coalesce(h.model_id, 0) AS model_id, h.outcome, h.hour, h.requests, h.input_tokens,
        h.cached_input_tokens, h.output_tokens, h.allowance_tokens, h.cost_nanousd, h.charged_nanousd
    FROM usage_hourlyusage h
"""
_RECORDS = """
    SELECT r.account_id, r.key_id, coalesce(r.model_id, 0) AS model_id, r.outcome,
        date_trunc('hour', r.started_at, 'UTC') AS hour, count(*) AS requests, sum(r.input_tokens) AS input_tokens,
        sum(r.cached_input_tokens) AS cached_input_tokens, sum(r.output_tokens) AS output_tokens,
        sum(r.allowance_tokens) AS allowance_tokens, sum(r.cost_nanousd) AS cost_nanousd,
        sum(r.charged_nanousd) AS charged_nanousd
    FROM usage_usagerecord r WHERE r.is_rolled_up GROUP BY 1, 2, 3, 4, 5
"""
_PAID = """
    SELECT 'topup:' || u.id AS reference, u.account_id, u.provider, u.credit_nanousd, u.fee_nanousd, u.total_nanousd
    FROM billing_topup u WHERE u.status = 'paid'
"""
_BOOKED = """
    SELECT t.reference, t.account_id, p.id AS posting, l.kind, l.account_id AS owner_id, l.provider, p.amount_nanousd
    FROM billing_ledgertransaction t
    LEFT JOIN billing_posting p ON p.transaction_id = t.id
    LEFT JOIN billing_ledgeraccount l ON l.id = p.ledger_account_id
    WHERE t.kind = 'topup'
"""

_CHECKS = (
    _Check(
        "ledger transaction {subject}: its postings sum to {found}, not to {expected}",
        """
        SELECT t.reference, sum(p.amount_nanousd), 0, true
        FROM billing_ledgertransaction t JOIN billing_posting p ON p.transaction_id = t.id
        GROUP BY t.id HAVING sum(p.amount_nanousd) <> 0
        """,
    ),
    _Check(
        "ledger transaction {subject}: it has {found} postings, fewer than {expected}",
        """
        SELECT t.reference, count(p.id), 2, false
        FROM billing_ledgertransaction t LEFT JOIN billing_posting p ON p.transaction_id = t.id
        GROUP BY t.id HAVING count(p.id) < 2
        """,
    ),
    _Check(
        "account {subject}: its wallet says {found}, its ledger less what is not posted yet says {expected}",
        """
        SELECT id::text, balance, credits - to_post - to_roll_up, true
        FROM by_account WHERE balance <> credits - to_post - to_roll_up
        """,
    ),
    _Check(
        "account {subject}: its wallet holds {found}, its open holds are {expected}",
        "SELECT id::text, held, holds, true FROM by_account WHERE held <> holds",
    ),
    _Check(
        "account {subject}: its hours count {found} as posted, its ledger has usage of {expected}",
        "SELECT id::text, posted, usage_posted, true FROM by_account WHERE posted <> usage_posted",
    ),
    _Check(
        "account {subject}: its ledger has platform losses of {found}, its requests {expected}",
        "SELECT id::text, losses_posted, losses, true FROM by_account WHERE losses_posted <> losses",
    ),
    _Check(
        "{subject}: the hour says {found}, its requests say {expected}",
        f"""
        SELECT format('account %s, key %s, model %s, %s, %s UTC, %s', account_id, key_id,
            coalesce(nullif(model_id, 0)::text, 'none'), outcome,
            to_char(hour AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI'), figure.name),
            figure.found, figure.expected, figure.is_money
        FROM ({_HOURS}) AS h FULL JOIN ({_RECORDS}) AS r USING (account_id, key_id, model_id, outcome, hour)
        CROSS JOIN LATERAL (VALUES
            ('requests', h.requests, r.requests, false),
            ('input tokens', h.input_tokens, r.input_tokens, false),
            ('cached input tokens', h.cached_input_tokens, r.cached_input_tokens, false),
            ('output tokens', h.output_tokens, r.output_tokens, false),
            ('allowance tokens', h.allowance_tokens, r.allowance_tokens, false),
            ('cost', h.cost_nanousd, r.cost_nanousd, true),
            ('charge', h.charged_nanousd, r.charged_nanousd, true)
        ) AS figure (name, found, expected, is_money)
        WHERE coalesce(figure.found, 0) <> coalesce(figure.expected, 0)
        """,  # noqa: S608 - constants of this module
    ),
    _Check(
        "account {subject}: its keys were charged {found}, the account {expected}",
        """
        SELECT coalesce(k.account_id, a.account_id)::text, k.charged, a.charged, true
        FROM (
            SELECT keys_apikey.account_id, sum(charged_nanousd) AS charged
            FROM charged JOIN keys_apikey ON keys_apikey.id = charged.key_id GROUP BY 1
        ) AS k
        FULL JOIN (SELECT account_id, sum(charged_nanousd) AS charged FROM charged GROUP BY 1) AS a USING (account_id)
        WHERE coalesce(k.charged, 0) <> coalesce(a.charged, 0)
        """,
    ),
    _Check(
        "key {subject}: its budget holds {found}, its open holds of the period are {expected}",
        """
        SELECT b.key_id::text, b.held_nanousd, coalesce(sum(h.amount_nanousd), 0), true
        FROM billing_budget b
        LEFT JOIN billing_hold h ON h.key_id = b.key_id AND h.budget_period_start = b.period_start
        GROUP BY b.id HAVING b.held_nanousd <> coalesce(sum(h.amount_nanousd), 0)
        """,
    ),
    _Check(
        "{subject}: its allowance holds {found} tokens, its open holds are {expected}",
        """
        SELECT format('account %s on %s', account_id, day), d.held, h.held, false
        FROM (SELECT account_id, day, held_tokens AS held FROM usage_dailyallowance) AS d
        FULL JOIN (
            SELECT account_id, allowance_day AS day, sum(allowance_tokens) AS held
            FROM billing_hold WHERE allowance_day IS NOT NULL GROUP BY 1, 2
        ) AS h USING (account_id, day)
        WHERE coalesce(d.held, 0) <> coalesce(h.held, 0)
        """,
    ),
    _Check(
        "request {subject}: it still holds {found}, and was charged {expected} already",
        """
        SELECT h.request_id::text, h.amount_nanousd, r.charged_nanousd, true
        FROM billing_hold h JOIN usage_usagerecord r ON r.id = h.request_id
        """,
    ),
    _Check(
        "{subject}: the ledger says {found}, the paid top-up says {expected}",
        f"""
        SELECT format('%s, %s', reference, figure.name), figure.found, figure.expected, true
        FROM ({_PAID}) AS paid
        FULL JOIN (
            SELECT booked.reference,
                sum(amount_nanousd) FILTER (WHERE kind = 'customer_credits' AND owner_id = booked.account_id
                    AND booked.account_id = u.account_id) AS credit,
                sum(amount_nanousd) FILTER (WHERE kind = 'fee_revenue') AS fee,
                -sum(amount_nanousd) FILTER (WHERE kind = 'cash_clearing' AND booked.provider = u.provider) AS total
            FROM ({_BOOKED}) AS booked LEFT JOIN billing_topup u ON 'topup:' || u.id = booked.reference
            GROUP BY booked.reference
        ) AS booked USING (reference)
        CROSS JOIN LATERAL (VALUES
            ('credit', booked.credit, paid.credit_nanousd),
            ('fee', booked.fee, paid.fee_nanousd),
            ('total', booked.total, paid.total_nanousd)
        ) AS figure (name, found, expected)
        WHERE coalesce(figure.found, 0) <> coalesce(figure.expected, 0)
        """,  # noqa: S608 - constants of this module
    ),
    _Check(
        "account {subject}: {found} of its charges are attributed, it was charged {expected}",
        """
        SELECT id::text, attributed, credits + usage_posted - balance, true
        FROM by_account WHERE attributed > credits + usage_posted - balance
        """,
    ),
    _Check(
        "account {subject}: its promotional credit is {found}, more than its balance of {expected}",
        """
        SELECT id::text, lots - (credits + usage_posted - balance - attributed), balance, true
        FROM by_account WHERE lots - (credits + usage_posted - balance - attributed) > balance
        """,
    ),
    _Check(
        "promotional credit {subject}: the ledger says {found}, the lot says {expected}",
        """
        SELECT format('%s, %s', c.id, figure.name), figure.found, figure.expected, true
        FROM billing_promotionalcredit c
        CROSS JOIN LATERAL (
            SELECT sum(p.amount_nanousd) FILTER (WHERE t.id = c.transaction_id) AS amount,
                -sum(p.amount_nanousd) FILTER (WHERE t.id <> c.transaction_id) AS expired
            FROM billing_ledgertransaction t
            JOIN billing_posting p ON p.transaction_id = t.id
            JOIN billing_ledgeraccount l ON l.id = p.ledger_account_id
            WHERE l.kind = 'customer_credits' AND l.account_id = c.account_id AND t.account_id = c.account_id
                AND (t.id = c.transaction_id OR t.kind = 'expiry' AND t.reference LIKE format('expiry:%s:%%', c.id))
        ) AS booked
        CROSS JOIN LATERAL (VALUES
            ('amount', booked.amount, c.amount_nanousd),
            ('expired', booked.expired, c.expired_nanousd)
        ) AS figure (name, found, expected)
        WHERE coalesce(figure.found, 0) <> figure.expected
        """,
    ),
    _Check(
        "request {subject}: charge and loss make {found}, its cost on credits is {expected}",
        """
        SELECT r.id::text, r.charged_nanousd + r.loss_nanousd, own.cost, true
        FROM usage_usagerecord r
        CROSS JOIN LATERAL (SELECT CASE WHEN r.allowance_tokens = 0 THEN r.cost_nanousd ELSE 0 END AS cost) AS own
        WHERE r.charged_nanousd + r.loss_nanousd <> own.cost
        """,
    ),
)
_COUNTS = {
    "accounts": "accounts_account",
    "ledger transactions": "billing_ledgertransaction",
    "postings": "billing_posting",
    "top-ups": "billing_topup",
    "promotional credits": "billing_promotionalcredit",
    "open holds": "billing_hold",
    "budgets": "billing_budget",
    "daily allowances": "usage_dailyallowance",
    "hourly sums": "usage_hourlyusage",
    "usage records": "usage_usagerecord",
}


def audit_ledger(*, at: dt.datetime) -> AuditReport:
    """Compare everything that must agree; `at` is written on the report. Reads only, and locks nothing."""
    counts = [f"SELECT -1, '{name}', count(*), 0, false FROM {table}" for name, table in _COUNTS.items()]  # noqa: S608
    checks = [
        f"SELECT {number}, subject, found, expected, is_money FROM ({check.sql})"  # noqa: S608
        f" AS c{number} (subject, found, expected, is_money)"
        for number, check in enumerate(_CHECKS)
    ]
    rows = " UNION ALL ".join(counts + checks)
    statement = f"WITH by_account AS ({_BY_ACCOUNT}), charged AS ({_CHARGED}) {rows}"
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
