"""What daily allowances count, against the requests that drew on them."""

from usage.auditing.check import Check

# A request counts while it runs, and once it has produced something: its record says how many tokens. Only of an
# embedding of no tokens does the record not say what paid for it. The day is that on which the request began.
_DRAWN = """
    SELECT account_id, day, sum(requests) AS requests, sum(perhaps) AS perhaps, sum(tokens) AS tokens
    FROM (
        SELECT r.account_id, (r.started_at AT TIME ZONE 'UTC')::date AS day,
            count(*) FILTER (WHERE r.allowance_tokens > 0) AS requests,
            count(*) FILTER (WHERE r.allowance_tokens = 0) AS perhaps, sum(r.allowance_tokens) AS tokens
        FROM usage_usagerecord r
        WHERE r.allowance_tokens > 0
            OR r.endpoint = 'embeddings' AND r.outcome = 'completed' AND r.input_tokens = 0 AND r.output_tokens = 0
        GROUP BY 1, 2
        UNION ALL
        SELECT h.account_id, h.allowance_day, count(*), 0, 0
        FROM billing_hold h WHERE h.allowance_day IS NOT NULL GROUP BY 1, 2
    ) AS drawn GROUP BY 1, 2
"""

CHECKS = (
    Check(
        "the allowance of {subject}: it says {found}, its requests and open holds of the day say {expected}",
        f"""
        SELECT format('account %s on %s, %s', account_id, day, figure.name), figure.found, figure.expected, false
        FROM (SELECT account_id, day, requests, tokens FROM usage_dailyallowance) AS d
        FULL JOIN ({_DRAWN}) AS drawn USING (account_id, day)
        CROSS JOIN LATERAL (VALUES
            ('requests', coalesce(d.requests, 0), coalesce(drawn.requests, 0), coalesce(drawn.perhaps, 0)),
            ('tokens', coalesce(d.tokens, 0), coalesce(drawn.tokens, 0), 0)
        ) AS figure (name, found, expected, perhaps)
        WHERE figure.found NOT BETWEEN figure.expected AND figure.expected + figure.perhaps
        """,  # noqa: S608 - constants of this module
    ),
)
