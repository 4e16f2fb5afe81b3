"""PostgreSQL counts the minute of a key of which Redis has missed a request, in every process, until it has left.

Of the three functions of `0007` two have changed: what opens the books says for each key whether that is so, and counts
its minute then; what writes them notes the keys of which this batch has admitted what Redis has not counted.
"""

from importlib import import_module

from django.db import migrations, models

DROP = """
DROP FUNCTION usage_open_books;
DROP FUNCTION usage_write_books;
DROP FUNCTION usage_try_books;
"""
OPEN = """
CREATE FUNCTION usage_open_books(accounts bigint[], keys bigint[], days date[], ended uuid[], asked json,
    counted bigint[], since uuid, limited bigint[])
RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    wallets json; versions json; budgets json; environments json; allowances json; holds json; claims json;
    minutes json;
    missed bigint[];
    has_made_wallets boolean := false;
    has_environments boolean;
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
        -- Whatever Redis says of these: it has missed a request of theirs. (Joined below, this would be planned anew for
        -- each batch, which takes longer than all the rest.)
        missed := ARRAY(SELECT key_id FROM usage_minutegap WHERE key_id = ANY(keys) AND ends_at > clock_timestamp());
        counted := counted || missed;
        SELECT json_agg(json_build_array(k.id, k.policy_version, a.policy_version, k.id = ANY(missed)) ORDER BY k.id)
        INTO versions FROM keys_apikey k JOIN accounts_account a ON a.id = k.account_id WHERE k.id = ANY(keys);
    END IF;
    -- Of the keys, and (0) of more than one key. Which environment a key is of matters only where a budget is of one.
    SELECT json_agg(json_build_array(id, account_id, environment, key_id, period, limit_nanousd, is_hard_stop,
        period_start, spent_nanousd, held_nanousd, previous_spent_nanousd, previous_held_nanousd) ORDER BY id),
        bool_or(environment <> '')
    INTO budgets, has_environments FROM billing_budget
    WHERE account_id = ANY(accounts) AND coalesce(key_id, 0) = ANY(0 || limited);
    IF has_environments THEN
        SELECT json_agg(json_build_array(id, environment) ORDER BY id) INTO environments
        FROM keys_apikey WHERE id = ANY(limited);
    END IF;
    IF cardinality(days) > 0 THEN
        SELECT json_agg(json_build_array(account_id, day, requests, tokens, held_tokens) ORDER BY account_id, day) INTO allowances
        FROM usage_dailyallowance WHERE account_id = ANY(accounts) AND day = ANY(days);
    END IF;
    IF cardinality(ended) > 0 THEN
        SELECT json_agg(json_build_array(request_id, account_id, key_id, amount_nanousd, allowance_day,
            allowance_tokens) ORDER BY request_id) INTO holds FROM billing_hold WHERE request_id = ANY(ended);
    END IF;
    IF asked IS NOT NULL THEN
        SELECT json_agg(json_build_array(c.key_id, c.digest, c.body_digest, c.request_id)) INTO claims
        FROM json_to_recordset(asked) AS a (key_id bigint, digest text)
        JOIN usage_idempotencyclaim c ON c.key_id = a.key_id AND c.digest = a.digest;
    END IF;
    IF cardinality(counted) > 0 THEN
        SELECT json_agg(json_build_array(id, coalesce(requests, 0), coalesce(tokens, 0), coalesce(leaves_ms, 61000)))
        INTO minutes FROM (SELECT DISTINCT unnest(counted) AS id) AS asking LEFT JOIN (
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
        ) AS counts ON key_id = id;
    END IF;
    RETURN json_build_array(wallets, versions, budgets, environments, allowances, holds, claims, minutes);
END $$;
"""
WRITE = """
CREATE FUNCTION usage_write_books(
    resolved uuid[], wallets json, budgets json, begun json, drawn json, holds json, claims json, freed uuid[], records json,
    missed bigint[]
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    gone bigint;
    -- What a column holds that the records say nothing of.
    template usage_usagerecord;
BEGIN
    IF cardinality(resolved) > 0 THEN
        DELETE FROM billing_hold WHERE request_id = ANY(resolved);
        GET DIAGNOSTICS gone = ROW_COUNT;
        IF gone <> cardinality(resolved) THEN
            RAISE EXCEPTION '% of % holds were resolved by somebody who did not lock their wallets',
                cardinality(resolved) - gone, cardinality(resolved) USING ERRCODE = 'serialization_failure';
        END IF;
    END IF;
    IF wallets IS NOT NULL THEN
        UPDATE billing_wallet w SET balance_nanousd = n.balance, held_nanousd = n.held
        FROM json_to_recordset(wallets) AS n (account_id bigint, balance bigint, held bigint)
        WHERE w.account_id = n.account_id;
    END IF;
    IF budgets IS NOT NULL THEN
        UPDATE billing_budget b SET period_start = n.period_start, spent_nanousd = n.spent, held_nanousd = n.held,
            previous_spent_nanousd = n.previous_spent, previous_held_nanousd = n.previous_held
        FROM json_to_recordset(budgets) AS n (id bigint, period_start date, spent bigint, held bigint,
            previous_spent bigint, previous_held bigint)
        WHERE b.id = n.id;
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
            allowance_tokens, request, placed_at, minute_tokens)
        SELECT request_id, account_id, key_id, process_id, amount_nanousd, allowance_day, allowance_tokens,
            request, placed_at, minute_tokens
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
    IF records IS NOT NULL THEN
        -- One that was recorded before (its settlement came back from the journal) is left as it is.
        template.is_rolled_up := false;
        INSERT INTO usage_usagerecord SELECT * FROM json_populate_recordset(template, records)
        ON CONFLICT (id) DO NOTHING;
    END IF;
    IF cardinality(missed) > 0 THEN
        -- Longer than a minute, and rarely anew: whoever asks meanwhile still finds it long enough.
        INSERT INTO usage_minutegap (key_id, ends_at)
        SELECT DISTINCT unnest(missed), clock_timestamp() + interval '150 s'
        ON CONFLICT (key_id) DO UPDATE SET ends_at = excluded.ends_at
        WHERE usage_minutegap.ends_at < excluded.ends_at - interval '75 s';
    END IF;
END $$;
"""
TRY = """
CREATE FUNCTION usage_try_books(accounts bigint[], keys bigint[], days date[], ended uuid[], asked json,
    counted bigint[], since uuid, limited bigint[], foreseen jsonb,
    resolved uuid[], wallets json, budgets json, begun json, drawn json, holds json, claims json, freed uuid[], records json,
    missed bigint[])
RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    opened text := usage_open_books(accounts, keys, days, ended, asked, counted, since, limited);
BEGIN
    IF opened::jsonb <> foreseen THEN
        RETURN opened;
    END IF;
    PERFORM usage_write_books(resolved, wallets, budgets, begun, drawn, holds, claims, freed, records, missed);
    RETURN NULL;
END $$;
"""

earlier = import_module("usage.migrations.0007_foreseen_batches")


class Migration(migrations.Migration):
    """A table and three functions."""

    dependencies = [("usage", "0009_prices_of_posted_usage_stay")]

    operations = [
        migrations.CreateModel(
            name="MinuteGap",
            fields=[
                ("key_id", models.BigIntegerField(primary_key=True, serialize=False)),
                ("ends_at", models.DateTimeField()),
            ],
        ),
        migrations.RunSQL(DROP + OPEN + WRITE + TRY, DROP + earlier.OPEN + earlier.WRITE + earlier.TRY),
    ]
