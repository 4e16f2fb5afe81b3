"""Receipts, refunds and disputes against payments and the ledger."""

from usage.auditing.check import Check

# What the ledger says of each refund and dispute, after all that was booked back: the number stands in the reference.
_BOOKED = """
    SELECT t.kind AS act, split_part(t.reference, ':', 2)::bigint AS id, t.account_id,
        -coalesce(sum(p.amount_nanousd) FILTER (
            WHERE l.kind = 'customer_credits' AND l.account_id = t.account_id), 0) AS credit,
        -coalesce(sum(p.amount_nanousd) FILTER (WHERE l.kind = 'refunds'), 0) AS fee,
        -coalesce(sum(p.amount_nanousd) FILTER (WHERE l.kind = 'platform_loss'), 0) AS loss,
        coalesce(sum(p.amount_nanousd) FILTER (WHERE l.kind = 'disputes'), 0) AS frozen,
        coalesce(sum(p.amount_nanousd) FILTER (WHERE l.kind = 'cash_clearing'), 0) AS paid
    FROM billing_ledgertransaction t
    JOIN billing_posting p ON p.transaction_id = t.id
    JOIN billing_ledgeraccount l ON l.id = p.ledger_account_id
    WHERE t.kind IN ('refund', 'dispute')
    GROUP BY 1, 2, 3
"""
_MADE = """
    SELECT 'refund' AS act, id, account_id, credit_nanousd AS credit, fee_nanousd AS fee, loss_nanousd AS loss,
        0::bigint AS frozen, credit_nanousd + fee_nanousd + loss_nanousd AS paid
    FROM billing_refund WHERE status <> 'failed'
    UNION ALL
    SELECT 'dispute', id, account_id, frozen_nanousd,
        CASE status WHEN 'lost' THEN fee_nanousd ELSE 0 END, CASE status WHEN 'lost' THEN loss_nanousd ELSE 0 END,
        CASE status WHEN 'open' THEN frozen_nanousd ELSE 0 END, CASE status WHEN 'lost' THEN amount_nanousd ELSE 0 END
    FROM billing_dispute WHERE status <> 'won'
"""

# What companies have told of refunds and disputes, and what was made of it.
_TOLD = """
    SELECT e.id, e.provider, e.event, e.occurred_at, e.news->>'payment' AS payment, e.news->>'status' AS status,
        e.news->>'refund' AS refund, e.news->>'reference' AS reference, e.news->>'dispute' AS dispute,
        (e.news->>'amount_cents')::bigint * 10000000 AS amount
    FROM billing_webhookevent e WHERE e.outcome = 'done' AND e.news->>'kind' = '{kind}'
"""
_OF_REFUNDS = f"""
    SELECT format('%s event %s of refund %s', e.provider, e.event, e.refund) AS subject, e.status AS told, e.amount,
        r.status, r.credit_nanousd + r.fee_nanousd + r.loss_nanousd AS total
    FROM ({_TOLD.format(kind="RefundChanged")}) AS e
    LEFT JOIN LATERAL (
        SELECT r.* FROM billing_refund r JOIN billing_topup u ON u.id = r.topup_id
        WHERE u.provider = e.provider AND (r.reference = e.reference OR r.provider_refund = e.refund)
        ORDER BY r.reference = e.reference DESC LIMIT 1
    ) AS r ON true
"""  # noqa: S608 - constants of this module
# Of the amount, the latest telling counts. Companies say when in seconds: of two in one, either may have been the last.
_OF_DISPUTES = f"""
    SELECT format('%s event %s of dispute %s', e.provider, e.event, e.dispute) AS subject, e.status AS told,
        CASE WHEN e.place > 1 OR d.amount_nanousd = ANY(e.amounts) THEN d.amount_nanousd ELSE e.amount END AS amount,
        d.status, d.amount_nanousd AS total
    FROM (
        SELECT *, rank() OVER (PARTITION BY provider, payment, dispute ORDER BY occurred_at DESC) AS place,
            array_agg(amount) OVER (PARTITION BY provider, payment, dispute, occurred_at) AS amounts
        FROM ({_TOLD.format(kind="DisputeChanged")}) AS told
    ) AS e
    LEFT JOIN billing_topup u ON u.provider = e.provider AND u.provider_payment = e.payment AND u.status = 'paid'
    LEFT JOIN billing_dispute d ON d.topup_id = u.id AND d.provider_dispute = e.dispute
"""  # noqa: S608 - constants of this module

CHECKS = (
    Check(
        "{subject}: the ledger says {found}, the refund or dispute says {expected}",
        f"""
        SELECT format('%s %s of account %s, %s', act, id, account_id, figure.name), figure.found, figure.expected, true
        FROM ({_MADE}) AS made FULL JOIN ({_BOOKED}) AS booked USING (act, id, account_id)
        CROSS JOIN LATERAL (VALUES
            ('credit', booked.credit, made.credit),
            ('fee', booked.fee, made.fee),
            ('loss', booked.loss, made.loss),
            ('frozen', booked.frozen, made.frozen),
            ('paid back', booked.paid, made.paid)
        ) AS figure (name, found, expected)
        WHERE coalesce(figure.found, 0) <> coalesce(figure.expected, 0)
        """,  # noqa: S608 - constants of this module
    ),
    Check(
        "{subject}: it is of {expected}, the books have {found}",
        f"""
        SELECT subject, total, amount, true FROM ({_OF_REFUNDS} UNION ALL {_OF_DISPUTES}) AS told
        WHERE total IS DISTINCT FROM amount
        """,  # noqa: S608 - constants of this module
    ),
    Check(
        "{subject}",
        f"""
        SELECT format('%s: it says %s, the books say %s', subject, told, status), 0, 0, false
        FROM ({_OF_REFUNDS} UNION ALL {_OF_DISPUTES}) AS told
        WHERE status IN ('pending', 'open') AND told NOT IN ('pending', 'open')
            OR told = 'failed' AND status <> 'failed'
        """,  # noqa: S608 - constants of this module
    ),
    Check(
        "{subject}",
        """
        SELECT format('refund %s: its company has said of it %s, and it is %s%s', r.id,
            coalesce(said.what, 'nothing'), r.status, ' as ' || r.provider_refund), 0, 0, false
        FROM billing_refund r CROSS JOIN LATERAL (
            -- What has failed stays so, whatever is heard after it.
            SELECT string_agg(format('%s as %s', status, refund), ', ' ORDER BY id) AS what,
                bool_or(refund = r.provider_refund) AS is_named,
                coalesce(CASE WHEN bool_or(status = 'failed') THEN 'failed'
                    WHEN bool_or(status = 'succeeded') THEN 'succeeded' END, 'pending') AS status
            FROM billing_refundreport WHERE reference = r.reference
        ) AS said
        WHERE r.provider_refund IS NOT NULL AND (said.is_named IS NOT TRUE OR r.status <> said.status)
            OR r.provider_refund IS NULL AND (r.status = 'succeeded' OR said.status <> 'pending')
        ORDER BY r.id
        """,
    ),
    Check(
        "{subject}: promotional credit lost {found} to it, and it took {expected}",
        f"""
        SELECT format('%s %s of account %s', act, id, account_id), withheld.amount, coalesce(made.credit, 0), true
        FROM (
            SELECT CASE WHEN w.dispute_id IS NULL THEN 'refund' ELSE 'dispute' END AS act,
                coalesce(w.dispute_id, w.refund_id) AS id, c.account_id, sum(w.amount_nanousd) AS amount
            FROM billing_withheldcredit w JOIN billing_promotionalcredit c ON c.id = w.lot_id
            GROUP BY 1, 2, 3
        ) AS withheld LEFT JOIN ({_MADE}) AS made USING (act, id, account_id)
        WHERE withheld.amount > coalesce(made.credit, 0)
        """,  # noqa: S608 - constants of this module
    ),
    Check(
        "{subject}: what went back of the payment is {found}, more than its {expected}",
        """
        SELECT format('top-up %s', u.id), gone.back, u.total_nanousd, true
        FROM billing_topup u CROSS JOIN LATERAL (
            SELECT coalesce(sum(r.credit_nanousd + r.fee_nanousd + r.loss_nanousd), 0) AS back
            FROM billing_refund r WHERE r.topup_id = u.id AND r.status <> 'failed' AND r.asked_at IS NOT NULL
        ) AS gone WHERE gone.back > u.total_nanousd
        """,
    ),
    Check(
        "{subject}: its receipt says {found}, the paid top-up says {expected}",
        """
        SELECT format('top-up %s, %s', id, figure.name), figure.found, figure.expected, true
        FROM (SELECT id, credit_nanousd, fee_nanousd FROM billing_topup WHERE status = 'paid') AS u
        FULL JOIN (SELECT topup_id AS id, credit_nanousd, fee_nanousd FROM billing_receipt) AS r USING (id)
        CROSS JOIN LATERAL (VALUES
            ('credit', r.credit_nanousd, u.credit_nanousd),
            ('fee', r.fee_nanousd, u.fee_nanousd)
        ) AS figure (name, found, expected)
        WHERE figure.found IS DISTINCT FROM figure.expected ORDER BY id, figure.name
        """,
    ),
    Check(
        "receipts of {subject}: {found} were issued, the last number is {expected}",
        """
        SELECT year::text, coalesce(r.issued, 0), coalesce(greatest(r.last, n.issued), 0), false
        FROM (
            SELECT year, count(*) AS issued, max(number_in_year) AS last FROM billing_receipt GROUP BY year
        ) AS r FULL JOIN billing_receiptnumbers n USING (year)
        WHERE r.issued IS DISTINCT FROM r.last OR r.issued IS DISTINCT FROM n.issued
        """,
    ),
)
