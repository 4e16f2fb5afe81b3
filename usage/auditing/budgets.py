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

# What the keys of accounts with budgets were charged and hold, by the UTC day on which that began: summed up once, and
# not once for each budget.
_BY_DAY = """
    SELECT used.account_id, used.key_id, k.environment, used.day, used.spent, used.held
    FROM (
        SELECT account_id, key_id, date_bin('1 day', began_at, '2000-01-01 00:00:00+00') AS day, sum(spent) AS spent,
            sum(held) AS held
        FROM (
            SELECT account_id, key_id, hour AS began_at, charged_nanousd AS spent, 0 AS held FROM usage_hourlyusage
            UNION ALL
            SELECT account_id, key_id, started_at, charged_nanousd, 0 FROM usage_usagerecord WHERE NOT is_rolled_up
            UNION ALL
            SELECT account_id, key_id, placed_at, 0, amount_nanousd FROM billing_hold
        ) AS each WHERE account_id IN (SELECT account_id FROM billing_budget) GROUP BY 1, 2, 3
    ) AS used JOIN keys_apikey k ON k.id = used.key_id
"""

CHECKS = (
    Check(
        "{subject}: it says {found}, its requests and open holds of the period say {expected}",
        f"""
        SELECT format('budget %s of account %s, %s, from %s', budget_id, account_id, figure.name,
            to_char(since AT TIME ZONE 'UTC', 'YYYY-MM-DD')), figure.found, figure.expected, true
        FROM (
            SELECT b.budget_id, b.account_id, b.since, b.spent_nanousd, b.held_nanousd,
                coalesce(sum(used.spent), 0) AS spent, coalesce(sum(used.held), 0) AS held
            FROM ({_BUDGET_PERIODS}) AS b
            LEFT JOIN ({_BY_DAY}) AS used
                ON used.account_id = b.account_id AND used.day >= b.since AND used.day < b.until
                AND (b.key_id IS NULL OR used.key_id = b.key_id) AND b.environment IN ('', used.environment)
            GROUP BY 1, 2, 3, 4, 5
        ) AS counted
        CROSS JOIN LATERAL (VALUES
            ('spent', counted.spent_nanousd, counted.spent),
            ('held', counted.held_nanousd, counted.held)
        ) AS figure (name, found, expected)
        WHERE figure.found <> figure.expected
        ORDER BY budget_id, since DESC, figure.name DESC
        """,  # noqa: S608 - constants of this module
    ),
)
