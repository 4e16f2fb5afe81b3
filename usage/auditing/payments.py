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
# The sandbox is no company: its page is one of ours, so nothing that it says proves anything.
_REPORTED = """
    SELECT FROM billing_paymentreport r
    WHERE r.provider = u.provider AND r.payment = u.provider_payment
        AND (r.amount_cents * 10000000, r.currency) = (u.total_nanousd, 'usd')
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
        "{subject}",
        """
        SELECT format('%s event %s: it names payment %s in %s, its top-up was paid by %s in usd', e.provider, e.event,
            told.payment, e.news->>'currency', u.provider_payment), 0, 0, false
        FROM billing_webhookevent e
        JOIN billing_topup u
            ON u.provider = e.provider AND u.provider_reference = e.news->>'reference' AND u.status = 'paid'
        CROSS JOIN LATERAL (
            SELECT coalesce(nullif(e.news->>'payment', ''), e.news->>'reference') AS payment
        ) AS told
        WHERE e.outcome = 'done' AND e.news->>'kind' = 'PaymentArrived'
            AND (told.payment, e.news->>'currency') IS DISTINCT FROM (u.provider_payment, 'usd')
        """,
    ),
    Check(
        "{subject}: it is paid with {found}, and its provider has said nothing of such a payment",
        f"""
        SELECT format('top-up %s of %s', u.id, u.provider), u.total_nanousd, 0, true
        FROM billing_topup u
        WHERE u.status = 'paid' AND u.provider <> 'sandbox'
            AND NOT EXISTS ({_REPORTED} AND r.reference = u.provider_reference)
            AND NOT EXISTS (
                SELECT FROM billing_unmatchedpayment m
                WHERE m.topup_id = u.id AND m.provider = u.provider AND m.payment = u.provider_payment
            )
        ORDER BY u.id
        """,  # noqa: S608 - constants of this module
    ),
    Check(
        "unmatched payment {subject}: its top-up is {found}, and what came is {expected}",
        f"""
        SELECT format('%s of %s', m.payment, m.provider),
            CASE WHEN u.status = 'paid' AND (u.provider, u.provider_payment) = (m.provider, m.payment)
                THEN u.total_nanousd END,
            m.amount_cents * 10000000, true
        FROM billing_unmatchedpayment m JOIN billing_topup u ON u.id = m.topup_id
        WHERE (u.status, u.provider, u.provider_payment) <> ('paid', m.provider, m.payment)
            OR (u.total_nanousd, m.currency) <> (m.amount_cents * 10000000, 'usd') AND NOT EXISTS ({_REPORTED})
        """,  # noqa: S608 - constants of this module
    ),
    Check(
        "{subject} came, and is neither credited nor among the unmatched payments",
        """
        SELECT format('payment %s of %s, %s of the smallest unit of %s,', r.payment, r.provider, r.amount_cents,
            r.currency), 0, 0, false
        FROM billing_paymentreport r CROSS JOIN audited
        WHERE r.provider <> 'sandbox'
            -- What is said is kept first, and acted on right after it, or when its event has its next turn.
            AND r.said_at < audited.at - interval '10 minutes'
            AND NOT EXISTS (
                SELECT FROM billing_webhookevent e WHERE e.processed_at IS NULL AND e.provider = r.provider
                    AND coalesce(nullif(e.news->>'payment', ''), e.news->>'reference') = r.payment
            )
            AND NOT EXISTS (
                SELECT FROM billing_topup u
                WHERE u.status = 'paid' AND u.provider = r.provider AND u.provider_payment = r.payment
            )
            AND NOT EXISTS (
                SELECT FROM billing_unmatchedpayment m WHERE m.provider = r.provider AND m.payment = r.payment
            )
        ORDER BY r.id
        """,
    ),
    Check(
        "unmatched payment {subject}",
        """
        SELECT format('%s of %s: %s', payment, provider, CASE
            WHEN closed.id IS NULL THEN 'it is closed without credit, and no operator has done so'
            ELSE 'an operator has closed it, and it does not say so' END), 0, 0, false
        FROM (
            SELECT * FROM billing_unmatchedpayment WHERE resolved_at IS NOT NULL AND topup_id IS NULL
        ) AS m
        FULL JOIN billing_paymentclosing AS closed USING (provider, payment)
        WHERE (m.resolved_at, m.note) IS DISTINCT FROM (closed.closed_at, closed.note)
        """,
    ),
    Check(
        "{subject}: it has waited to be processed for more than a day, and the books lack it",
        """
        SELECT format('%s event %s, %s', e.provider, e.event, e.type), 1, 0, false
        FROM billing_webhookevent e CROSS JOIN audited
        WHERE e.processed_at IS NULL AND e.received_at < audited.at - interval '1 day' AND NOT (
            -- What is told of a payment that is not known here may be none of ours: it is ignored after some days.
            coalesce(e.news->>'kind', '') IN ('RefundChanged', 'DisputeChanged') AND NOT EXISTS (
                SELECT FROM billing_topup u
                WHERE u.status = 'paid' AND u.provider = e.provider AND u.provider_payment <> ''
                    AND u.provider_payment = e.news->>'payment'
            )
        ) ORDER BY e.id
        """,
    ),
    Check(
        "{subject}: it is ignored, no operator has closed it, and its payment is one of ours",
        """
        SELECT format('%s event %s, %s, of top-up %s', e.provider, e.event, e.type, u.id), 0, 0, false
        FROM billing_webhookevent e CROSS JOIN audited
        JOIN billing_topup u
            ON u.status = 'paid' AND u.provider = e.provider AND u.provider_payment = e.news->>'payment'
        -- What a person has closed is settled elsewhere.
        WHERE e.outcome = 'ignored' AND e.closed_at IS NULL AND e.news->>'kind' IN ('RefundChanged', 'DisputeChanged')
            AND u.provider_payment <> ''
            -- What was told before its payment was known is taken up again right after that is credited.
            AND u.paid_at < audited.at - interval '1 minute'
        ORDER BY e.id
        """,
    ),
)
