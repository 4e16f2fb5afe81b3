"""Payments against the ledger, and against what their providers have said."""

from usage.auditing.check import Check

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

CHECKS = (
    Check(
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
    Check(
        "{subject}: its top-up was paid with {found}, the event says {expected}",
        """
        SELECT format('%s event %s of payment %s', e.provider, e.event, e.news->>'payment'), u.total_nanousd,
            (e.news->>'amount_cents')::bigint * 10000000, true
        FROM billing_webhookevent e
        LEFT JOIN billing_topup u
            ON u.provider = e.provider AND u.provider_reference = e.news->>'reference' AND u.status = 'paid'
        WHERE e.outcome = 'done' AND e.news->>'kind' = 'PaymentArrived'
            AND coalesce(u.total_nanousd, 0) <> (e.news->>'amount_cents')::bigint * 10000000
        """,
    ),
    Check(
        "{subject}: it has waited to be processed for more than a day, and the books lack it",
        """
        SELECT format('%s event %s, %s', e.provider, e.event, e.type), 1, 0, false
        FROM billing_webhookevent e CROSS JOIN audited
        WHERE e.processed_at IS NULL AND e.received_at < audited.at - interval '1 day' ORDER BY e.id
        """,
    ),
)
