"""Promotional credit against the ledger and the wallet."""

from usage.auditing.check import Check

_WITHHELD = "SELECT lot_id, sum(amount_nanousd) AS amount FROM billing_withheldcredit GROUP BY lot_id"
# Of each lot and all later ones of its account: what is gone of them, other than by their dates, and what of it refunds
# and disputes have taken. These take paid credit first, so what they took of lots is only what is kept as withheld.
_GONE = f"""
    SELECT c.account_id, c.id, c.transaction_id, c.charged_before_nanousd,
        sum(c.amount_nanousd - c.remaining_nanousd - c.expired_nanousd) OVER later AS gone,
        coalesce(sum(withheld.amount) OVER later, 0) AS withheld
    FROM billing_promotionalcredit c LEFT JOIN ({_WITHHELD}) AS withheld ON withheld.lot_id = c.id
    WINDOW later AS (PARTITION BY c.account_id ORDER BY c.id DESC)
"""  # noqa: S608 - constants of this module
# What else may have come out of lots besides usage: what undid a grant, and what went for no refund or dispute.
_TAKEN = """
    SELECT t.id, t.account_id, abs(p.amount_nanousd) AS amount
    FROM billing_ledgertransaction t
    JOIN billing_posting p ON p.transaction_id = t.id
    JOIN billing_ledgeraccount l ON l.id = p.ledger_account_id
    WHERE t.kind = 'adjustment' AND l.kind = 'promotions' AND p.amount_nanousd > 0
        OR t.kind NOT IN ('usage', 'expiry', 'adjustment', 'refund', 'dispute')
            AND l.kind = 'customer_credits' AND p.amount_nanousd < 0
"""
# What the ledger says of each lot: the transaction that made it, and those that name it as they take what has expired.
_BOOKED = """
    SELECT moved.lot, moved.account_id, sum(p.amount_nanousd) FILTER (WHERE NOT moved.is_expiry) AS amount,
        -sum(p.amount_nanousd) FILTER (WHERE moved.is_expiry) AS expired
    FROM (
        SELECT c.id::text AS lot, c.account_id, t.id, false AS is_expiry
        FROM billing_promotionalcredit c
        JOIN billing_ledgertransaction t ON t.id = c.transaction_id AND t.account_id = c.account_id
        UNION ALL
        SELECT split_part(t.reference, ':', 2), t.account_id, t.id, true
        FROM billing_ledgertransaction t WHERE t.kind = 'expiry'
    ) AS moved
    JOIN billing_posting p ON p.transaction_id = moved.id
    JOIN billing_ledgeraccount l ON l.id = p.ledger_account_id AND l.account_id = moved.account_id
    WHERE l.kind = 'customer_credits'
    GROUP BY 1, 2
"""

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
        f"""
        SELECT format('%s, %s', c.id, figure.name), figure.found, figure.expected, true
        FROM billing_promotionalcredit c
        LEFT JOIN ({_BOOKED}) AS booked ON booked.lot = c.id::text AND booked.account_id = c.account_id
        CROSS JOIN LATERAL (VALUES
            ('amount', booked.amount, c.amount_nanousd),
            ('expired', booked.expired, c.expired_nanousd)
        ) AS figure (name, found, expected)
        WHERE coalesce(figure.found, 0) <> figure.expected
        """,  # noqa: S608 - constants of this module
    ),
    Check(
        "ledger transaction {subject}: the promotional credit that it moved does not exist",
        """
        SELECT t.reference, 0, 0, false
        FROM billing_ledgertransaction t
        LEFT JOIN billing_promotionalcredit c ON c.account_id = t.account_id AND (
            t.kind = 'promotion' AND c.transaction_id = t.id
            OR t.kind = 'expiry' AND c.id::text = split_part(t.reference, ':', 2)
        )
        WHERE t.kind IN ('promotion', 'expiry') AND c.id IS NULL ORDER BY t.id
        """,
    ),
    Check(
        "account {subject}: {found} of it is gone, and what was charged or taken since then is {expected}",
        f"""
        SELECT format('%s, promotional credit from number %s on', c.account_id, c.id), c.gone,
            w.attributed_nanousd - c.charged_before_nanousd + c.withheld + coalesce(sum(taken.amount), 0), true
        FROM ({_GONE}) AS c
        JOIN billing_wallet w USING (account_id)
        LEFT JOIN ({_TAKEN}) AS taken ON taken.account_id = c.account_id AND taken.id > c.transaction_id
        GROUP BY c.account_id, c.id, c.gone, c.withheld, c.charged_before_nanousd, w.attributed_nanousd
        HAVING c.gone > w.attributed_nanousd - c.charged_before_nanousd + c.withheld + coalesce(sum(taken.amount), 0)
        ORDER BY c.id
        """,  # noqa: S608 - constants of this module
    ),
    Check(
        "promotional credit {subject}: {found} remains, has expired or may come back, of an amount of {expected}",
        f"""
        SELECT c.id::text, c.remaining_nanousd + c.expired_nanousd + withheld.amount, c.amount_nanousd, true
        FROM billing_promotionalcredit c JOIN ({_WITHHELD}) AS withheld ON withheld.lot_id = c.id
        WHERE c.remaining_nanousd + c.expired_nanousd + withheld.amount > c.amount_nanousd
        """,  # noqa: S608 - constants of this module
    ),
)
