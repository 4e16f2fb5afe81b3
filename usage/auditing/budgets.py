"""What each budget counts, against the usage and the open holds of its scope."""

from usage.auditing.check import Check

# What a budget counts in the period that runs, and in the one before it. Midnights are UTC.
_BUDGET_PERIODS = """
    SELECT b.id AS budget_id, b.account_id, b.environment, b.key_id, span.since, span.until, span.spent_nanousd,
        span.held_nanousd
    FROM billing_budget b
    CROSS JOIN LATERAL (
        SELECT CASE WHEN b.period <> 'total' THEN ('1 ' || b.period)::interval END AS length,
            b.period_start::timestamp AS start
    ) AS p
    CROSS JOIN LATERAL (VALUES
        (p.start AT TIME ZONE 'UTC', coalesce((p.start + p.length) AT TIME ZONE 'UTC', 'infinity'),
            b.spent_nanousd, b.held_nanousd),
        ((p.start - p.length) AT TIME ZONE 'UTC', p.start AT TIME ZONE 'UTC',
            b.previous_spent_nanousd, b.previous_held_nanousd)
    ) AS span (since, until, spent_nanousd, held_nanousd)
    WHERE span.since IS NOT NULL
"""

CHECKS = (
    Check(
        "{subject}: it says {found}, its requests and open holds of the period say {expected}",
        f"""
        SELECT format('budget %s of account %s, %s, from %s', budget_id, account_id, figure.name,
            to_char(since AT TIME ZONE 'UTC', 'YYYY-MM-DD')), figure.found, figure.expected, true
        FROM ({_BUDGET_PERIODS}) AS b
        CROSS JOIN LATERAL (VALUES
            ('spent', b.spent_nanousd, (
                SELECT sum(h.charged_nanousd) FROM usage_hourlyusage h JOIN keys_apikey k ON k.id = h.key_id
                WHERE h.account_id = b.account_id AND h.hour >= b.since AND h.hour < b.until
                AND (b.key_id IS NULL OR h.key_id = b.key_id) AND b.environment IN ('', k.environment)
            ) , (
                SELECT sum(r.charged_nanousd) FROM usage_usagerecord r JOIN keys_apikey k ON k.id = r.key_id
                WHERE r.account_id = b.account_id AND NOT r.is_rolled_up
                AND r.started_at >= b.since AND r.started_at < b.until
                AND (b.key_id IS NULL OR r.key_id = b.key_id) AND b.environment IN ('', k.environment)
            )),
            ('held', b.held_nanousd, (
                SELECT sum(h.amount_nanousd) FROM billing_hold h JOIN keys_apikey k ON k.id = h.key_id
                WHERE h.account_id = b.account_id AND h.placed_at >= b.since AND h.placed_at < b.until
                AND (b.key_id IS NULL OR h.key_id = b.key_id) AND b.environment IN ('', k.environment)
            ), 0)
        ) AS sums (name, found, one, other)
        CROSS JOIN LATERAL (
            SELECT sums.name, sums.found, coalesce(sums.one, 0) + coalesce(sums.other, 0) AS expected
        ) AS figure
        WHERE figure.found <> figure.expected
        """,  # noqa: S608 - constants of this module
    ),
)
