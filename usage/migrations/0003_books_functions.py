"""A batch of the teller in two calls: one that locks and reads, one that writes. See `usage.books`.

Both are plpgsql, whose every statement sees what was committed before it: what is read after a wallet is locked is read
as it is now, however long the lock was waited for.
"""

import django.db.models.deletion
import django.utils.timezone
from django.db import migrations, models

OPEN = """
CREATE FUNCTION usage_open_books(accounts bigint[], keys bigint[], days date[], ended uuid[], asked json,
    counted bigint[], since uuid)
RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    wallets json; versions json; budgets json; allowances json; holds json; claims json; minutes json;
    has_made_wallets boolean := false;
BEGIN
    LOOP
        SELECT json_agg(json_build_array(account_id, balance_nanousd, held_nanousd)) INTO wallets FROM (
            SELECT account_id, balance_nanousd, held_nanousd FROM billing_wallet
            WHERE account_id = ANY(accounts) ORDER BY account_id FOR UPDATE
        ) AS locked;
        EXIT WHEN has_made_wallets OR coalesce(json_array_length(wallets), 0) = cardinality(accounts);
        -- An account has no wallet until money or a request first concerns it.
        INSERT INTO billing_wallet (account_id, balance_nanousd, held_nanousd)
        SELECT id, 0, 0 FROM accounts_account WHERE id = ANY(accounts) ORDER BY id ON CONFLICT DO NOTHING;
        has_made_wallets := true;
    END LOOP;
    IF cardinality(keys) > 0 THEN
        SELECT json_agg(json_build_array(k.id, k.policy_version, a.policy_version)) INTO versions
        FROM keys_apikey k JOIN accounts_account a ON a.id = k.account_id WHERE k.id = ANY(keys);
        SELECT json_agg(json_build_array(key_id, period, limit_nanousd, spent_nanousd, held_nanousd, period_start))
        INTO budgets FROM billing_budget WHERE key_id = ANY(keys);
    END IF;
    IF cardinality(days) > 0 THEN
        SELECT json_agg(json_build_array(account_id, day, requests, tokens, held_tokens)) INTO allowances
        FROM usage_dailyallowance WHERE account_id = ANY(accounts) AND day = ANY(days);
    END IF;
    IF cardinality(ended) > 0 THEN
        WITH taken AS (
            DELETE FROM billing_hold WHERE request_id = ANY(ended)
            RETURNING request_id, account_id, key_id, amount_nanousd, allowance_day, allowance_tokens,
                budget_period_start
        )
        SELECT json_agg(json_build_array(request_id, account_id, key_id, amount_nanousd, allowance_day,
            allowance_tokens, budget_period_start)) INTO holds FROM taken;
    END IF;
    IF asked IS NOT NULL THEN
        SELECT json_agg(json_build_array(c.key_id, c.digest, c.body_digest, c.request_id)) INTO claims
        FROM json_to_recordset(asked) AS a (key_id bigint, digest text)
        JOIN usage_idempotencyclaim c ON c.key_id = a.key_id AND c.digest = a.digest;
    END IF;
    IF cardinality(counted) > 0 THEN
        SELECT json_agg(json_build_array(key_id, requests, tokens, leaves_ms)) INTO minutes FROM (
            SELECT key_id, count(*) AS requests, sum(tokens) AS tokens,
                greatest(1000, 61000 - (extract(epoch FROM clock_timestamp() - min(began)) * 1000)::bigint) AS leaves_ms
            FROM (
                SELECT key_id, input_tokens::bigint + output_tokens AS tokens, started_at AS began
                FROM usage_usagerecord WHERE key_id = ANY(counted) AND id >= since AND outcome <> 'refused'
                UNION ALL
                SELECT key_id, minute_tokens, placed_at FROM billing_hold
                WHERE key_id = ANY(counted) AND request_id >= since
            ) AS admitted
            GROUP BY key_id
        ) AS counts;
    END IF;
    RETURN json_build_array(wallets, versions, budgets, allowances, holds, claims, minutes);
END $$;
"""
WRITE = """
CREATE FUNCTION usage_write_books(
    wallets json, budgets json, resolved json, begun json, drawn json, holds json, claims json, freed uuid[]
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF wallets IS NOT NULL THEN
        UPDATE billing_wallet w SET balance_nanousd = n.balance, held_nanousd = n.held
        FROM json_to_recordset(wallets) AS n (account_id bigint, balance bigint, held bigint)
        WHERE w.account_id = n.account_id;
    END IF;
    IF budgets IS NOT NULL THEN
        UPDATE billing_budget b SET held_nanousd = n.held, spent_nanousd = n.spent, period_start = n.period_start
        FROM json_to_recordset(budgets) AS n (key_id bigint, held bigint, spent bigint, period_start date)
        WHERE b.key_id = n.key_id;
    END IF;
    IF resolved IS NOT NULL THEN
        -- A request counts in the period that admitted it; once that is over there is nothing left to correct.
        UPDATE billing_budget b SET held_nanousd = b.held_nanousd - n.held, spent_nanousd = b.spent_nanousd + n.spent
        FROM (
            SELECT key_id, period_start, sum(held) AS held, sum(spent) AS spent
            FROM json_to_recordset(resolved) AS r (key_id bigint, period_start date, held bigint, spent bigint)
            GROUP BY key_id, period_start
        ) AS n
        WHERE b.key_id = n.key_id AND b.period_start = n.period_start;
    END IF;
    IF begun IS NOT NULL THEN
        INSERT INTO usage_dailyallowance (account_id, day, requests, tokens, held_tokens, share)
        SELECT account_id, day, 0, 0, 0, 0 FROM json_to_recordset(begun) AS n (account_id bigint, day date)
        ON CONFLICT DO NOTHING;
    END IF;
    IF drawn IS NOT NULL THEN
        UPDATE usage_dailyallowance d SET requests = d.requests + n.requests, tokens = d.tokens + n.tokens,
            held_tokens = d.held_tokens + n.held_tokens
        FROM json_to_recordset(drawn) AS n (account_id bigint, day date, requests int, tokens bigint,
            held_tokens bigint)
        WHERE d.account_id = n.account_id AND d.day = n.day;
    END IF;
    IF holds IS NOT NULL THEN
        INSERT INTO billing_hold (request_id, account_id, key_id, process_id, amount_nanousd, allowance_day,
            allowance_tokens, budget_period_start, request, placed_at, minute_tokens)
        SELECT request_id, account_id, key_id, process_id, amount_nanousd, allowance_day, allowance_tokens,
            budget_period_start, request, placed_at, minute_tokens
        FROM json_populate_recordset(NULL::billing_hold, holds);
    END IF;
    IF claims IS NOT NULL THEN
        INSERT INTO usage_idempotencyclaim (key_id, digest, body_digest, request_id, claimed_at)
        SELECT key_id, digest, body_digest, request_id, claimed_at
        FROM json_populate_recordset(NULL::usage_idempotencyclaim, claims);
    END IF;
    IF cardinality(freed) > 0 THEN
        DELETE FROM usage_idempotencyclaim WHERE request_id = ANY(freed);
    END IF;
END $$;
"""
DROP = """
DROP FUNCTION usage_open_books;
DROP FUNCTION usage_write_books;
"""


class Migration(migrations.Migration):
    """Two functions, and the claims that they read and write."""

    dependencies = [
        ("billing", "0004_minute_of_a_hold"),
        ("usage", "0002_spike_length_and_mail_lease"),
    ]

    operations = [
        migrations.CreateModel(
            name="IdempotencyClaim",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "digest",
                    models.CharField(help_text="SHA-256 of the key that the client sent.", max_length=64),
                ),
                ("body_digest", models.CharField(help_text="SHA-256 of endpoint and body.", max_length=64)),
                ("request_id", models.UUIDField(db_index=True)),
                ("claimed_at", models.DateTimeField(db_index=True, default=django.utils.timezone.now)),
                (
                    "key",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="keys.apikey",
                    ),
                ),
            ],
        ),
        migrations.AddConstraint(
            model_name="idempotencyclaim",
            constraint=models.UniqueConstraint(fields=["key", "digest"], name="idempotency_claimed_once"),
        ),
        migrations.RunSQL(OPEN + WRITE, DROP),
    ]
