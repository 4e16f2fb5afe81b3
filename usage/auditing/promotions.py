"""Promotional credit against the ledger and the wallet."""

from usage.auditing.check import Check

CHECKS = (
    Check(
        "account {subject}: {found} of its charges are attributed, it was charged {expected}",
        """
        SELECT id::text, attributed, credits + usage_posted - balance, true
        FROM by_account WHERE attributed > credits + usage_posted - balance
        """,
    ),
    Check(
        "account {subject}: its promotional credit is {found}, more than its balance of {expected}",
        """
        SELECT id::text, lots - (credits + usage_posted - balance - attributed), balance, true
        FROM by_account WHERE lots - (credits + usage_posted - balance - attributed) > balance
        """,
    ),
    Check(
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
)
