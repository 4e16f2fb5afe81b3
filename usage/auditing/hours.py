"""Usage: requests, their hours, their keys and the ledger say the same."""

from usage.auditing.check import Check

_HOURS = """
    SELECT h.account_id, h.key_id, coalesce(h.model_id, 0) AS model_id, h.outcome, h.hour, h.requests, h.input_tokens,
        h.cached_input_tokens, h.output_tokens, h.allowance_tokens, h.cost_nanousd, h.charged_nanousd
    FROM usage_hourlyusage h
"""
# The hour by date_bin: it is the same hour of UTC, and date_trunc took a third of the time of this sum.
_RECORDS = """
    SELECT r.account_id, r.key_id, coalesce(r.model_id, 0) AS model_id, r.outcome,
        date_bin('1 hour', r.started_at, '2000-01-01 00:00:00+00') AS hour, count(*) AS requests,
        sum(r.input_tokens) AS input_tokens,
        sum(r.cached_input_tokens) AS cached_input_tokens, sum(r.output_tokens) AS output_tokens,
        sum(r.allowance_tokens) AS allowance_tokens, sum(r.cost_nanousd) AS cost_nanousd,
        sum(r.charged_nanousd) AS charged_nanousd
    FROM usage_usagerecord r WHERE r.is_rolled_up GROUP BY 1, 2, 3, 4, 5
"""

# What a request costs, as `catalog.pricing` and `usage.recording` say it: exact, rounded up once, and nothing where
# nothing was produced. A price that was not written down is nothing, but what a cache took was then priced as input.
_PRICED = """
    CASE WHEN output_tokens > 0 OR endpoint = 'embeddings' AND outcome = 'completed' THEN ceil(1000 * (
        input_tokens * coalesce(input_usd_per_mtok, 0) + output_tokens * coalesce(output_usd_per_mtok, 0)
        + CASE WHEN cached_input_tokens = 0 AND cache_write_tokens = 0 THEN 0 ELSE
            cached_input_tokens * (coalesce(cached_input_usd_per_mtok, 0) - coalesce(input_usd_per_mtok, 0))
            + cache_write_tokens * (coalesce(cache_write_usd_per_mtok, input_usd_per_mtok, 0)
                - coalesce(input_usd_per_mtok, 0))
        END
    )) ELSE 0 END
"""

CHECKS = (
    Check(
        "account {subject}: its hours count {found} as posted, its ledger has usage of {expected}",
        "SELECT id::text, posted, usage_posted, true FROM by_account WHERE posted <> usage_posted",
    ),
    Check(
        "account {subject}: its ledger has platform losses of {found}, its requests {expected}",
        "SELECT id::text, losses_posted, losses, true FROM by_account WHERE losses_posted <> losses",
    ),
    Check(
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
    Check(
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
    Check(
        "request {subject}: the record says {found}, its tokens at its price say {expected}",
        f"""
        SELECT format('%s, %s', r.id, figure.name), figure.found, figure.expected, true
        FROM (
            SELECT id, cost_nanousd AS cost, charged_nanousd + loss_nanousd AS taken, allowance_tokens,
                {_PRICED} AS priced
            FROM usage_usagerecord
        ) AS r
        CROSS JOIN LATERAL (VALUES
            ('cost', r.cost, r.priced),
            ('charge and loss', r.taken, CASE WHEN r.allowance_tokens = 0 THEN r.priced ELSE 0 END)
        ) AS figure (name, found, expected)
        WHERE (r.cost <> r.priced OR r.taken <> CASE WHEN r.allowance_tokens = 0 THEN r.cost ELSE 0 END)
            AND figure.found <> figure.expected
        """,  # noqa: S608 - constants of this module
    ),
)
