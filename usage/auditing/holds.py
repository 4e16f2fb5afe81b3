"""What is reserved for running requests: on allowances, and for nobody who has ended."""

from usage.auditing.check import Check

CHECKS = (
    Check(
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
    Check(
        "request {subject}: it still holds {found}, and was charged {expected} already",
        """
        SELECT h.request_id::text, h.amount_nanousd, r.charged_nanousd, true
        FROM billing_hold h JOIN usage_usagerecord r ON r.id = h.request_id
        """,
    ),
)
